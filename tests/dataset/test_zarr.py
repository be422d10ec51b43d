"""Zarr stores of v2 and v3, in folders and zip files, become datasets; damaged and hostile ones do not.

zarr is imported where it is used: it takes half a second of every worker.
"""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest

from ffenc import ConfigError, FfencWarning, SourceError, plan_reencode, reencode_dataset, verify_dataset
from ffenc.config.mapping import build_mapping
from ffenc.dataset.sources.kind import Opening
from ffenc.dataset.sources.registry import open_source
from ffenc.dataset.sources.zarr_chunks import chunks_of
from tests.conftest import psnr
from tests.support.read import column, frames_of, notes_of
from tests.support.recorded import Sample, jpeg, samples, write_pusht, write_replay_buffer, write_umi

FINE = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "crf"), 8)]
IMG = build_mapping(
    {
        "episodes": {"ends": "meta/episode_ends"},
        "cameras": {"img": {"path": "data/camera0_rgb", "channels": "rgb"}},
    }
)


@pytest.fixture(scope="module")
def recorded() -> list[Sample]:
    return samples(5)


@pytest.fixture(scope="module")
def written(recorded: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_replay_buffer(tmp_path_factory.mktemp("written") / "replay.zarr", recorded, 2)


@pytest.fixture
def replay(written: Path, tmp_path: Path) -> Path:
    """A copy of a replay buffer of version 2, to be damaged."""
    return Path(shutil.copytree(written, tmp_path / "replay.zarr"))


def refused(source: Path, tmp_path: Path, said: str, mapping: Any = None) -> None:
    with pytest.raises((SourceError, ConfigError), match=said):
        plan_reencode(source, tmp_path / "out", mapping=mapping, fps=30)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("version", [2, 3])
def test_a_replay_buffer_is_cut_at_its_ends(recorded: list[Sample], tmp_path: Path, version: int) -> None:
    source, out = write_replay_buffer(tmp_path / "replay.zarr", recorded, version), tmp_path / "out"
    reencode_dataset(source, out, fps=10, task="push", overrides=FINE)
    for camera, wanted in (("img", "top"), ("camera0", "angle")):
        shown = frames_of(out, camera)
        given = np.concatenate([getattr(one, wanted) for one in recorded])
        assert len(shown) == len(given) == 9
        assert min(psnr(a, b) for a, b in zip(shown, given, strict=True)) > 36
    for name, wanted in (("observation.state", "state"), ("action", "action")):
        assert np.array_equal(column(out, name), np.concatenate([getattr(one, wanted) for one in recorded]))
    assert column(out, "episode_index").tolist() == [0] * 5 + [1] * 4
    assert notes_of(out, 1)["source"] == {"file": source.name, "group": "", "first_row": 5}
    checked = verify_dataset(out, against=source)
    assert checked.sound, checked.faults


def test_encoded_images_and_a_part_of_the_episodes(recorded: list[Sample], tmp_path: Path) -> None:
    import zarr

    source, out = tmp_path / "a.zarr", tmp_path / "out"
    root = zarr.create_group(str(source), zarr_format=2)
    images = [jpeg(frame) for one in recorded for frame in one.angle]
    padded = np.zeros((9, max(map(len, images))), np.uint8)
    for row, data in zip(padded, images, strict=True):
        row[: len(data)] = np.frombuffer(data, np.uint8)
    root.create_array("jpeg", data=padded, chunks=(4, padded.shape[1]))
    root.create_array("ends", data=np.array([2, 4, 9]))
    mapping = build_mapping({"episodes": {"ends": "ends"}, "cameras": {"wrist": {"path": "jpeg"}}})
    reencode_dataset(source, out, mapping=mapping, fps=10, episodes=[0, 2], overrides=FINE)
    shown, given = (
        frames_of(out, "wrist"),
        np.concatenate([one.angle for one in recorded])[[0, 1, 4, 5, 6, 7, 8]],
    )
    assert len(shown) == 7
    assert min(psnr(a, b) for a, b in zip(shown, given, strict=True)) > 30


def test_umis_store_comes_with_its_poses_and_without_imagecodecs_the_extra_is_named(
    recorded: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_umi(tmp_path / "umi.zarr.zip", recorded), tmp_path / "out"
    reencode_dataset(source, out, fps=60, task="fold", overrides=FINE)
    given = np.concatenate([one.angle[:, :120, :120] for one in recorded])
    assert min(psnr(a, b) for a, b in zip(frames_of(out, "camera0"), given, strict=True)) > 34
    state = np.concatenate([one.state for one in recorded])
    assert np.array_equal(column(out, "observation.state"), state[:, :7])
    starts = np.repeat([one.state[0, :6] for one in recorded], [5, 4], axis=0)
    assert np.array_equal(column(out, "observation.robot0_demo_start_pose"), starts)
    from numcodecs.registry import codec_registry

    monkeypatch.delitem(codec_registry, "imagecodecs_jpegxl")
    monkeypatch.setitem(sys.modules, "imagecodecs.numcodecs", None)
    said = r"umi.zarr.zip: data.*imagecodecs_jpegxl.*pip install 'ffenc\[umi\]'"
    with pytest.raises((SourceError, ConfigError), match=said):
        reencode_dataset(source, tmp_path / "other", fps=60, task="fold", overrides=FINE)
    assert not (tmp_path / "other").exists()


def test_pusht_has_floats_up_to_255_and_key_points(recorded: list[Sample], tmp_path: Path) -> None:
    source, out = write_pusht(tmp_path / "pusht.zarr", recorded), tmp_path / "out"
    reencode_dataset(source, out, fps=10, task="push", overrides=FINE)
    given = np.concatenate([one.top[:, ::2, ::2][:, :96, :96] for one in recorded])
    assert min(psnr(a, b) for a, b in zip(frames_of(out, "img"), given, strict=True)) > 34
    state = np.concatenate([one.state for one in recorded])
    assert np.array_equal(column(out, "observation.keypoint"), state[:, :4])


def test_damaged_and_hostile_stores_are_refused_by_name(recorded: list[Sample], tmp_path: Path) -> None:
    import zarr

    source = write_replay_buffer(tmp_path / "a.zarr", recorded, 2)
    first = source / "data/camera0_rgb/0.0.0.0"
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    refused(source, tmp_path, r"a.zarr: data/camera0_rgb: ", IMG)
    first.unlink()
    with pytest.warns(
        FfencWarning, match="data/camera0_rgb: 1 chunks are not in the file; their frames have the fill value"
    ):
        plan_reencode(source, tmp_path / "out", mapping=IMG, fps=30)
    first.write_bytes(whole)

    described = source / "data/camera0_rgb/.zarray"
    known = json.loads(described.read_text())
    described.write_text(json.dumps({**known, "filters": [{"id": "pickle"}], "dtype": "|O"}))
    refused(source, tmp_path, "a.zarr: data/camera0_rgb", IMG)
    described.write_text(json.dumps({**known, "compressor": {"id": "imagecodecs_jpegxl_unknown"}}))
    refused(source, tmp_path, "a.zarr: data/camera0_rgb: .*its compression is not supported here", IMG)
    described.write_text("{")
    refused(source, tmp_path, "a.zarr: data/camera0_rgb: ", IMG)
    described.write_text(json.dumps(known))

    described.write_text(
        json.dumps({**known, "shape": [1 << 40, *known["shape"][1:]], "chunks": [1, 1, 1, 1]})
    )
    alone = IMG.replace(episodes=None)
    with pytest.warns(FfencWarning, match="chunks are not in the file"):
        refused(
            source, tmp_path, "has 1,099,511,627,776 rows; at most 10,000,000 per episode are read", alone
        )
    described.write_text(json.dumps(known))

    root = zarr.open_group(str(source), mode="a")
    root["meta/episode_ends"][:] = [5, 5]
    refused(source, tmp_path, "episode 1 ends at row 5, but begins at row 5", IMG)
    root["meta/episode_ends"][:] = [5, 12]
    refused(source, tmp_path, "data/camera0_rgb has 9 rows, the episodes end at row 12", IMG)
    root["meta/episode_ends"][:] = [5, 8]
    with pytest.warns(FfencWarning, match="1 rows after the end of the last episode are in no episode"):
        plan_reencode(source, tmp_path / "out", mapping=IMG, fps=30)
    (tmp_path / "secret").mkdir()
    shutil.move(source / "data/camera0_rgb", tmp_path / "secret/rgb")
    (source / "data/camera0_rgb").symlink_to(tmp_path / "secret/rgb")
    refused(source, tmp_path, "camera0_rgb: is a link, .* points outside", IMG)
    with zipfile.ZipFile(tmp_path / "bomb.zarr.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        packed.writestr(".zgroup", '{"zarr_format": 2}')
        packed.writestr("img/.zarray", json.dumps({**known, "shape": [3, 8, 8, 3]}))
        packed.writestr("img/0.0.0.0", bytes(1 << 20))
        packed.filelist[-1].file_size = 600 << 20  # as the directory at the end will say
    refused(
        tmp_path / "bomb.zarr.zip", tmp_path, "img/0.0.0.0 has 629,145,600 bytes decompressed; at most 512 MB"
    )
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4" + bytes(99))
    refused(tmp_path / "cut.zip", tmp_path, "is neither a folder nor a supported file")


@pytest.mark.parametrize("codec", ["blosc", "lz4", "zstd", "gzip", "zlib", "bz2", "lzma"])
def test_a_chunk_that_becomes_larger_than_the_array_says_is_not_decompressed(
    replay: Path, tmp_path: Path, codec: str
) -> None:
    import zarr

    source = replay
    place = source / "data/img/.zarray"
    rows = zarr.open_group(str(source))["data/img"][:]
    known = json.loads(place.read_text())
    config: dict[str, Any] = {"id": codec, **({"preset": 0} if codec == "lzma" else {})}  # its quickest
    place.write_text(json.dumps({**known, "compressor": config, "filters": None}))
    zarr.open_group(str(source), mode="a")["data/img"][:] = rows
    plan_reencode(source, tmp_path / "out", fps=10, task="push")  # as it is written, it is read
    first = sorted(path for path in place.parent.iterdir() if path.name[0] != ".")[0]
    first.write_bytes(numcodecs.get_codec(config).encode(bytes(24 << 20)))
    tracemalloc.start()
    try:
        refused(source, tmp_path, rf"{first.name} becomes more than the [\d,]+ bytes that a chunk has")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def large_image(codec: str) -> bytes:
    """An image of 4,000x3,000 pixels that takes few bytes; JPEG XL in a code stream, JPEG 2000 in a file."""
    import imagecodecs

    options: dict[str, Any] = {"jpeg2k": {"codecformat": "jp2"}, "jpegxl": {"lossless": False, "effort": 1}}
    encode = getattr(imagecodecs, f"{codec}_encode")
    return bytes(encode(np.zeros((3000, 4000, 3), np.uint8), **options.get(codec, {})))


@pytest.mark.parametrize("codec", ["jpeg", "jpeg2k", "jpegxl", "png", "webp", "qoi"])
def test_an_image_that_is_larger_than_a_chunk_is_not_decoded(
    recorded: list[Sample], replay: Path, tmp_path: Path, codec: str
) -> None:
    import zarr
    from imagecodecs.numcodecs import register_codecs

    register_codecs(verbose=False)
    source = replay
    place = source / "data/camera0_rgb/.zarray"
    known = json.loads(place.read_text())
    known |= {
        "chunks": [1, *known["shape"][1:]],
        "compressor": {"id": f"imagecodecs_{codec}"},
        "filters": None,
    }
    place.write_text(json.dumps(known))
    for path in place.parent.glob("[0-9]*"):
        path.unlink()
    zarr.open_group(str(source), mode="a")["data/camera0_rgb"][:] = np.concatenate(
        [o.angle for o in recorded]
    )
    plan_reencode(source, tmp_path / "out", fps=10, mapping=IMG)  # as it is written, it is read
    first = place.parent / "0.0.0.0"
    whole = first.read_bytes()
    first.write_bytes(large_image(codec))
    tracemalloc.start()
    try:
        refused(
            source, tmp_path, r"0.0.0.0 is an image of (36|12),000,000 bytes, more than the [\d,]+ that", IMG
        )
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    first.write_bytes(whole[:3])
    refused(source, tmp_path, rf"0.0.0.0 cannot be read as {codec}: ", IMG)


def test_a_codec_that_does_not_say_how_large_a_chunk_becomes_is_refused(replay: Path, tmp_path: Path) -> None:
    source = replay
    place = source / "data/camera0_rgb/.zarray"
    known = json.loads(place.read_text())
    for compressor, said in (
        ({"id": "imagecodecs_zfp"}, "is compressed with zfp, which is not supported"),
        ({"id": "imagecodecs_lz4"}, "is compressed with imagecodecs_lz4, which is not supported"),
        ({"id": "imagecodecs_jpeg", "header": "AAAA"}, "stores the header of its JPEG images separately"),
    ):
        place.write_text(json.dumps({**known, "compressor": compressor, "filters": None}))
        refused(source, tmp_path, said, IMG)


def test_chunks_in_shards_and_chunks_that_are_declared_too_large(tmp_path: Path) -> None:
    import zarr

    source = tmp_path / "sharded.zarr"
    root = zarr.open_group(str(source), mode="w", zarr_format=3)
    options: dict[str, Any] = {"shape": (6, 8, 8, 3), "dtype": "u1", "chunks": (1, 8, 8, 3)}
    array = root.create_array("img", **options, shards=(3, 8, 8, 3))
    array[:] = np.arange(6 * 192, dtype=np.uint8).reshape(6, 8, 8, 3)
    chunks = chunks_of(array, "sharded.zarr: img")
    stored = {f"img/c/{n}/0/0/0": (source / f"img/c/{n}/0/0/0").read_bytes() for n in (0, 1)}
    chunks.check(0, 6, stored.get)
    bomb = numcodecs.Zstd().encode(bytes(64 << 20))
    index = np.array([(0, len(bomb)), *[((1 << 64) - 1,) * 2] * 2], "<u8").tobytes()
    stored["img/c/1/0/0/0"] = bomb + index + bytes(4)
    chunks.check(0, 3, stored.get)
    with pytest.raises(SourceError, match="img/c/1/0/0/0 becomes more than the 192 bytes"):
        chunks.check(2, 4, stored.get)
    stored["img/c/1/0/0/0"] = b"cut"
    with pytest.raises(SourceError, match="ends before its index does"):
        chunks.check(3, 4, stored.get)
    large = root.create_array("large", shape=(9, 1 << 16, 1 << 16), dtype="u1", chunks=(1, 1 << 16, 1 << 16))
    with pytest.raises(SourceError, match=r"has chunks of 4,294,967,296 bytes; 2 GB are read at most"):
        chunks_of(large, "sharded.zarr: large")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("index", ["start", "end"])
def test_chunks_that_are_not_in_their_shard_are_reported_as_those_without_a_file(
    tmp_path: Path, packed: bool, index: Any
) -> None:
    import zarr

    path = tmp_path / ("a.zarr.zip" if packed else "a.zarr")
    store = zarr.storage.ZipStore(path, mode="w") if packed else str(path)
    root = zarr.create_group(store, zarr_format=3)
    shards: Any = {"shape": (4, 16, 16, 3), "index_location": index}
    options: dict[str, Any] = {"chunks": (1, 8, 16, 3), "shards": shards}
    # Row 4 is alone in the second shard. By default zarr does not store chunks that equal the fill value.
    pixels = np.full((5, 16, 16, 3), 9, np.uint8)
    pixels[2] = pixels[4, :8] = 0
    root.create_array("data/img", data=pixels, **options)
    root.create_array("data/black", data=pixels, config={"write_empty_chunks": True}, **options)
    numbers: dict[str, Any] = {"chunks": (1, 2), "shards": (2, 2)}
    root.create_array("data/action", data=np.array([[1, 1], [0, 0], [0, 0], [0, 0], [1, 0]]), **numbers)
    root.create_array("data/state", data=np.ones((5, 2)), **numbers)
    root.create_array("meta/episode_ends", data=np.array([3, 5]), chunks=(1,), shards=(2,))
    if packed:
        store.close()
    with pytest.warns(FfencWarning) as given:
        plan_reencode(path, tmp_path / "out", fps=10, task="push")
    assert sorted(str(one.message).removeprefix(f"{path}: ") for one in given) == [
        "data/action: 3 chunks are not in the file; their rows have the fill value (0 by default)",
        "data/img: 3 chunks are not in the file; their frames have the fill value (black by default)",
    ]


def test_a_file_that_is_not_in_the_grid_does_not_hide_a_missing_chunk(replay: Path, tmp_path: Path) -> None:
    shutil.move(replay / "data/camera0_rgb/0.0.0.0", replay / "data/camera0_rgb/99.0.0.0")
    with pytest.warns(FfencWarning, match="data/camera0_rgb: 1 chunks are not in the file"):
        plan_reencode(replay, tmp_path / "out", mapping=IMG, fps=30)


def test_missing_chunks_of_task_texts_are_reported(replay: Path, tmp_path: Path) -> None:
    import zarr

    texts = np.full((9, 8), ord("a"), np.uint8)
    zarr.open_group(str(replay), mode="a").create_array("data/text", data=texts, chunks=(2, 8))
    mapping = build_mapping({**IMG.plain(), "task": {"path": "data/text"}})
    (replay / "data/text/1.0").unlink()
    with pytest.warns(FfencWarning, match=r"data/text: 1 chunks are not in the file; their texts are"):
        plan_reencode(replay, tmp_path / "out", mapping=mapping, fps=30)


@pytest.mark.parametrize("packed", [False, True])
def test_a_store_with_a_file_for_each_frame_is_listed_once(tmp_path: Path, packed: bool) -> None:
    """Listing it for each episode, or opening the zip file for each frame, took minutes here."""
    import zarr

    episodes, length = 50, 40
    path = tmp_path / ("a.zarr.zip" if packed else "a.zarr")
    store = zarr.storage.ZipStore(path, mode="w") if packed else str(path)
    root = zarr.create_group(store, zarr_format=2)
    pixels = np.zeros((episodes * length, 16, 16, 3), np.uint8)
    pixels += np.arange(len(pixels), dtype=np.uint64).astype(np.uint8)[:, None, None, None] | 1
    root.create_array("data/img", data=pixels, chunks=(1, 16, 16, 3))
    root.create_array("data/action", data=np.ones((len(pixels), 2), np.float32), chunks=(100, 2))
    root.create_array("meta/episode_ends", data=np.arange(1, episodes + 1) * length)
    if packed:
        store.close()
    begun = time.process_time()
    source = open_source(path, Opening(fps=10))
    key = source.cameras[0].key
    for episode in source.episodes:
        frames = source.frames(key, episode)
        frames.fingerprint()
        first = pickle.loads(pickle.dumps(frames)) if episode.index == 7 else frames
        assert [frame.data[0] for frame in first] == [
            n[0, 0, 0] for n in pixels[episode.index * length :][:length]
        ]
    assert time.process_time() - begun < 8
