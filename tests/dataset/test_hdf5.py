"""HDF5 files of ALOHA, of robomimic and by a mapping become datasets; hostile and damaged ones do not."""

from __future__ import annotations

import json
import os
import sys
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ffenc import (
    ConfigError,
    DestinationError,
    FfencWarning,
    SourceError,
    plan_reencode,
    reencode_dataset,
    verify_dataset,
)
from ffenc.config.mapping import build_mapping
from ffenc.dataset.sources.kind import Opening
from ffenc.dataset.sources.registry import open_source
from tests.conftest import pixels, psnr
from tests.support.read import column, frames_of, info_of, notes_of
from tests.support.recorded import Sample, jpeg, png, samples, write_aloha, write_robomimic

FINE = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "crf"), 8)]
# The default of a depth camera, lossless but for its codes.
FAST = [*FINE, (("depth_encoder", "preset"), "ultrafast")]


@pytest.fixture(scope="module")
def recorded() -> list[Sample]:
    return samples(6)


def alike(shown: np.ndarray, wanted: np.ndarray, floor: float = 36) -> None:
    assert len(shown) == len(wanted)
    for number, (one, other) in enumerate(zip(shown, wanted, strict=True)):
        assert psnr(one, other) > floor, number


def refused(source: Path, tmp_path: Path, said: str, mapping: Any = None, **options: Any) -> None:
    """A source is refused with these words, before anything is written."""
    with pytest.raises((SourceError, ConfigError), match=said):
        plan_reencode(source, tmp_path / "out", mapping=mapping, fps=30, **options)
    assert not (tmp_path / "out").exists()


def of(**sections: Any) -> Any:
    return build_mapping({"cameras": {"top": {"path": "/images/top", "channels": "rgb"}}, **sections})


def test_aloha_comes_without_a_mapping_and_its_jpeg_goes_to_ffmpeg_as_it_is(
    recorded: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_aloha(tmp_path / "aloha", recorded)
    (source / "episode_0_qpos.png").write_bytes(png(recorded[0].top[0]))
    fed: list[bytes] = []
    from ffenc.frames import encode

    original = encode.whole_image
    monkeypatch.setattr(encode, "whole_image", lambda *a: fed.append(original(*a)) or fed[-1])
    with pytest.warns(FfencWarning, match="episode_0_qpos.png: not included in the result"):
        reencode_dataset(source, tmp_path / "out", fps=50, task="lift", overrides=FINE)
    out = tmp_path / "out"
    sent = {jpeg(frame) for one in recorded for frame in (*one.top, *one.angle)}
    assert set(fed) == sent  # without the padding
    for camera, of_sample in (("cam_high", "top"), ("cam_left_wrist", "angle")):
        given = [pixels(jpeg(frame)) for one in recorded for frame in getattr(one, of_sample)]
        alike(frames_of(out, camera), np.stack(given))
    assert np.array_equal(column(out, "observation.state"), np.concatenate([one.state for one in recorded]))
    assert np.array_equal(column(out, "action"), np.concatenate([one.action for one in recorded]))
    assert column(out, "episode_index").tolist() == [0] * 6 + [1] * 5
    assert np.allclose(column(out, "timestamp"), [i / 50 for n in (6, 5) for i in range(n)])
    info = info_of(out)
    assert info["fps"] == 50
    assert info["features"]["observation.velocity"] == {"dtype": "float32", "shape": [14], "names": None}
    assert notes_of(out, 1)["source"]["file"] == "episode_1.hdf5"
    (source / "episode_0_qpos.png").unlink()
    checked = verify_dataset(out, against=source)
    assert checked.sound
    assert [camera.compared.frames for camera in checked.cameras if camera.compared] == [11, 11]


def test_robomimic_is_cut_into_its_demos_with_depth_rewards_and_rate(
    recorded: list[Sample], tmp_path: Path
) -> None:
    source, out = write_robomimic(tmp_path / "lift.hdf5", recorded), tmp_path / "out"
    reencode_dataset(source, out, overrides=FAST)
    alike(frames_of(out, "agentview"), np.concatenate([one.top for one in recorded]))
    assert info_of(out)["fps"] == 20
    state = np.concatenate([one.state for one in recorded])
    assert np.array_equal(column(out, "observation.state"), state[:, :9])
    assert np.array_equal(column(out, "observation.object"), state[:, 9:])
    assert column(out, "next.done").tolist() == [i == n - 1 for n in (6, 5) for i in range(n)]
    assert notes_of(out, 1)["source"]["group"] == "data/demo_1"
    compared = {camera.camera: camera.compared for camera in verify_dataset(out, against=source).cameras}
    depth = compared["observation.images.agentview_depth"]
    assert depth is not None
    assert depth.differing == 0


def write_own(path: Path, one: Sample) -> Path:
    """A file of no known layout, with everything that a mapping can say."""
    with h5py.File(path, "w") as root:
        root.attrs["what"] = "stack the cups"
        root["bgr"] = one.top[..., ::-1]
        root["chw"] = np.moveaxis(one.top, -1, 1)
        root["floats"] = one.top.astype(np.float32) / 255
        root["gray"] = one.top[..., 0]
        root["swapped"] = np.array(
            [np.frombuffer(png(f[..., ::-1]), np.uint8) for f in one.top], h5py.vlen_dtype(np.uint8)
        )
        root["depth"] = one.depth
        root["joints"] = one.state.astype(np.float64) * 1000
        root["grip"] = np.arange(len(one.state), dtype=np.int64)
        root["said"] = [f"word {i // 3}" for i in range(len(one.state))]
        root["matrix"] = np.arange(len(one.state) * 4, dtype=np.float32).reshape(-1, 2, 2)
    return path


@pytest.fixture(scope="module")
def own(recorded: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a file, only to be read."""
    return write_own(tmp_path_factory.mktemp("own") / "own.h5", recorded[0])


def test_a_mapping_says_colours_axes_scale_columns_names_texts_and_task(
    recorded: list[Sample], tmp_path: Path
) -> None:
    one, out = recorded[0], tmp_path / "out"
    source, written = write_own(tmp_path / "own.h5", one), tmp_path / "m.yaml"
    written.write_text(
        """
task: {path: said}
cameras:
  bgr: {path: bgr, channels: bgr}
  chw: {path: chw, channels: rgb}
  floats: {path: floats, channels: rgb, white: 1}
  gray: {path: gray}
  swapped: {path: swapped, channels: bgr}
  near: {path: depth, depth: true}
features:
  observation.state:
    path: [joints, grip]
    columns: [0, 2, 14]
    names: [shoulder, elbow, grip]
    dtype: float32
    scale: 0.001
    unit: m
  action: {path: joints, columns: "7:", dtype: float64}
  pose: {path: matrix, flatten: true}
  said: {path: said, dtype: string}
"""
    )
    reencode_dataset(source, out, mapping=written, fps=30, overrides=FAST)
    for camera in ("bgr", "chw", "floats", "swapped"):
        alike(frames_of(out, camera), one.top)
    alike(frames_of(out, "gray"), np.repeat(one.top[..., :1], 3, -1))
    wanted = np.column_stack([one.state[:, 0], one.state[:, 2], np.arange(6) * 0.001])
    assert np.allclose(column(out, "observation.state"), wanted, atol=1e-6)
    assert np.array_equal(column(out, "action"), one.state[:, 7:].astype(np.float64) * 1000)
    assert column(out, "pose").tolist() == np.arange(24).reshape(6, 4).tolist()
    assert column(out, "said").tolist() == ["word 0"] * 3 + ["word 1"] * 3
    assert column(out, "task_index").tolist() == [0, 0, 0, 1, 1, 1]
    features = info_of(out)["features"]
    assert features["observation.state"]["names"] == ["shoulder", "elbow", "grip"]
    assert features["said"]["dtype"] == "string"
    assert notes_of(out, 0)["units"] == {"observation.state": "m"}
    checked = verify_dataset(out, against=source)  # by the mapping that the result has kept
    assert checked.sound, checked.faults
    near = next(
        camera.compared for camera in checked.cameras if camera.camera and camera.camera.endswith("near")
    )
    assert near is not None
    assert near.differing == 0
    kept = json.loads((out / "meta/ffenc.json").read_text())["mapping"]
    assert kept["features"]["observation.state"]["scale"] == 0.001


@pytest.mark.parametrize(
    ("name", "values", "spans"),
    [
        ("values", [7, 7, 0, 0, 0, 7], [(0, 2), (2, 5), (5, 6)]),
        ("values", ["a", "a", "a", "b", "b", "b"], [(0, 3), (3, 6)]),
        ("values", [False, True, True, False, True, False], [(1, 3), (4, 5)]),
        ("last", [0, 0, 1, 0, 1, 0], [(0, 3), (3, 5)]),
    ],
)
def test_episodes_are_cut_by_an_array(
    recorded: list[Sample], tmp_path: Path, name: str, values: list[Any], spans: list[tuple[int, int]]
) -> None:
    source = write_own(tmp_path / "own.h5", recorded[0])
    with h5py.File(source, "a") as root:
        root["cut"] = values
    mapping = build_mapping(
        {
            "episodes": {name: "/cut"},
            "cameras": {"top": {"path": "gray"}},
            "features": {"grip": {"path": "grip"}},
        }
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        opened = open_source(source, Opening(fps=30, mapping=mapping))
    assert bool(said) == (spans[-1][1] < 6)  # rows behind the last episode
    rows = [one.rows["grip"].to_pylist() for one in opened.read(opened.episodes)]
    assert rows == [list(range(*span)) for span in spans]
    frames = [frame.data for frame in opened.frames("observation.images.top", opened.episodes[1])]
    assert frames == [frame.tobytes() for frame in recorded[0].top[slice(*spans[1]), ..., 0]]
    with h5py.File(source, "a") as root:
        del root["cut"]
        root["cut"] = np.zeros(6, bool)
    refused(source, tmp_path, "own.h5: cut: is false in all 6 rows, so there is no episode", mapping)
    mapping = build_mapping({"episodes": {"topic": "/cut"}, "cameras": {"top": {"path": "gray"}}})
    said = "episodes.topic: does not apply to HDF5 files; accepted: groups, ends, values, last"
    refused(source, tmp_path, said, mapping)


def test_a_preset_has_a_mapping_and_arguments_win_over_it(recorded: list[Sample], tmp_path: Path) -> None:
    source = write_own(tmp_path / "own.h5", recorded[0])
    preset = tmp_path / "arm.yaml"
    preset.write_text(
        "fps: 10\nsource: {fps: 25, task: {attribute: what}, cameras: {front: {path: gray}}}\n"
        "camera_encoder: {vcodec: h264}\n"
    )
    plan = plan_reencode(source, tmp_path / "out", preset=preset)
    assert (plan.source.fps, plan.source.tasks()) == (25, ["stack the cups"])
    plan = plan_reencode(source, tmp_path / "out", preset=preset, fps=5, task="other")
    assert (plan.source.fps, plan.source.tasks()) == (5, ["other"])
    preset.write_text("source: {cameras: {front: {path: gray, chanels: rgb}}}")
    with pytest.raises(
        ConfigError, match=r"arm.yaml:1: source.cameras.front.chanels: unknown key.*'channels'"
    ):
        plan_reencode(source, tmp_path / "out", preset=preset)


def test_a_job_is_finished_or_another_by_its_mapping(recorded: list[Sample], tmp_path: Path) -> None:
    source, out = write_own(tmp_path / "own.h5", recorded[0]), tmp_path / "out"
    mappings = [
        build_mapping({"cameras": {"chw": {"path": "chw", "channels": channels}}})
        for channels in ("rgb", "bgr")
    ]
    options: dict[str, Any] = {"fps": 30, "overrides": FINE}
    reencode_dataset(source, out, mapping=mappings[0], **options)
    assert reencode_dataset(source, out, mapping=mappings[0], resume=True, **options).complete_before
    with pytest.raises(DestinationError, match="result of another job"):
        reencode_dataset(source, out, mapping=mappings[1], resume=True, **options)


@pytest.mark.parametrize(
    ("camera", "said"),
    [
        ({"path": "bgr"}, r"cameras.top.channels: is missing: bgr holds raw pixels"),
        ({"path": "bgr", "channels": "rgba"}, "rgba has 4 values per pixel, bgr has 3"),
        ({"path": "floats", "channels": "rgb"}, "cameras.top.white: is missing"),
        ({"path": "bgr", "channels": "rgb", "white": 1}, "white: does not apply to bgr"),
        ({"path": "depth"}, "write depth: true if it is depth"),
        ({"path": "bgr", "depth": True}, "depth is 16- or 32-bit integers"),
        ({"path": "swapped", "depth": True}, "is a 320x240 8-bit PNG, and the mapping says depth: true"),
        ({"path": "joints", "channels": "gray"}, "cameras.top.white: is missing: joints is float64 6x14"),
        ({"path": "bgrr"}, "there is no array 'bgrr'; did you mean 'bgr'"),
        ({"path": "bgr", "channels": "rgb", "tolerance": 1}, "tolerance: does not apply to HDF5 files"),
        ({"path": "bgr", "channels": "rgb", "axes": "chw"}, "rgb has 3 values per pixel, bgr has 240"),
    ],
)
def test_a_camera_that_an_array_cannot_be_is_refused(
    own: Path, tmp_path: Path, camera: dict[str, Any], said: str
) -> None:
    refused(own, tmp_path, said, build_mapping({"cameras": {"top": camera}}))


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"path": "joints", "columns": [14]}, "columns: .14.: there are numbers 0 to 13"),
        ({"path": "joints", "columns": "5:99"}, "columns: '5:99': there are numbers 0 to 13"),
        ({"path": "joints", "flatten": True}, "x.flatten: does not apply to joints.*leave it out"),
        ({"path": "joints", "names": ["a"]}, "has 1 names, and there are 14 numbers"),
        ({"path": "matrix"}, "rows of 2x2 numbers.*flatten: true"),
        ({"path": "said"}, "expected numbers"),
        ({"path": "joints", "dtype": "string"}, "expected texts"),
    ],
)
def test_a_feature_that_an_array_cannot_be_is_refused(
    own: Path, tmp_path: Path, features: dict[str, Any], said: str
) -> None:
    mapping = {"cameras": {"top": {"path": "gray"}}, "features": {"x": features}}
    refused(own, tmp_path, said, build_mapping(mapping))


def test_a_number_that_does_not_fit_names_its_row(recorded: list[Sample], tmp_path: Path) -> None:
    source = write_own(tmp_path / "own.h5", recorded[0])
    mapping = build_mapping(
        {
            "cameras": {"top": {"path": "gray"}},
            "features": {"x": {"path": "grip", "scale": 0.3, "dtype": "int8"}},
        }
    )
    refused(source, tmp_path, r"own.h5: grip, row 1: 0.3 is not a number of dtype int8", mapping)
    with h5py.File(source, "a") as root:
        root["joints"][2, 5] = np.nan
    mapping = build_mapping({"cameras": {"top": {"path": "gray"}}, "features": {"x": {"path": "joints"}}})
    refused(
        source, tmp_path, r"own.h5: joints, row 2: number 5 of x is nan; expected a finite number", mapping
    )


def _external(root: h5py.File, path: Path) -> None:
    root["images/top"] = h5py.ExternalLink(str(path.with_name("other.h5")), "/secret")


def _virtual(root: h5py.File, path: Path) -> None:
    layout = h5py.VirtualLayout((3, 32, 32, 3), np.uint8)
    layout[:] = h5py.VirtualSource(str(path.with_name("other.h5")), "secret", (3, 32, 32, 3))
    root.create_virtual_dataset("images/top", layout)


def _outside(root: h5py.File, path: Path) -> None:
    root.create_dataset(
        "images/top", (3, 32, 32, 3), np.uint8, external=[(str(path.with_name("raw")), 0, 9216)]
    )


def _unwritten(root: h5py.File, _: Path) -> None:
    root.create_dataset("images/top", (1 << 40, 64, 64, 3), np.uint8, chunks=(1, 64, 64, 3))


def _huge_chunk(root: h5py.File, _: Path) -> None:
    shape = (2, 8000, 8000, 3)
    made = root.create_dataset("images/top", shape, np.uint8, chunks=shape, compression="gzip")
    made.id.write_direct_chunk((0, 0, 0, 0), b"a bomb")


def _bomb(root: h5py.File, _: Path) -> None:
    made = root.create_dataset(
        "images/top", (2, 32, 32, 3), np.uint8, chunks=(1, 32, 32, 3), compression="gzip"
    )
    made[0] = 1
    made.id.write_direct_chunk((1, 0, 0, 0), zlib.compress(bytes(400 << 20), 1))


def _huge_frames(root: h5py.File, _: Path) -> None:
    root.create_dataset("images/top", (1, 1 << 20, 1 << 20, 3), np.uint8, chunks=(1, 64, 64, 3))[
        0, :9, :9
    ] = 1


def _loop(root: h5py.File, _: Path) -> None:
    root["images"] = h5py.SoftLink("/other")
    root["other"] = h5py.SoftLink("/images")


def _web_of_links(root: h5py.File, _: Path) -> None:
    """Each link is eight times the next one: 8**20 steps."""
    root["images"] = root["/"]  # a hard link
    for i in range(20):
        root[f"l{i}"] = h5py.SoftLink("/" + "/".join([f"l{i + 1}"] * 8))
    root["l20"] = h5py.SoftLink("/images")
    root["top"] = h5py.SoftLink("/l0")


def _deep(root: h5py.File, _: Path) -> None:
    group = root
    for _ in range(200):
        group = group.create_group("g")


def _long(root: h5py.File, _: Path) -> None:
    made = root.create_dataset("images/top", (1 << 40, 64, 64, 3), np.uint8, chunks=(1, 64, 64, 3))
    made[0] = 1


def _unknown_filter(root: h5py.File, _: Path) -> None:
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk((3, 32, 32, 3))
    created.set_filter(32099, h5py.h5z.FLAG_OPTIONAL, (1,))  # none that anybody has registered
    space, kind = h5py.h5s.create_simple((3, 32, 32, 3)), h5py.h5t.NATIVE_UINT8
    made = h5py.h5d.create(root.create_group("images").id, b"top", kind, space, created)
    made.write_direct_chunk((0, 0, 0, 0), b"encrypted")
    root["x"] = np.zeros(3)


def _unequal(root: h5py.File, _: Path) -> None:
    root["images/top"] = np.zeros((3, 32, 32, 3), np.uint8)
    root["x"] = np.zeros(4)


def _unlike(root: h5py.File, _: Path) -> None:
    root["images/top"] = np.zeros((3, 32, 48, 3), np.uint8)
    root["x"] = np.zeros(3)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (_external, r"a.h5: images/top is a link to another file, '.*other.h5', which is not followed"),
        (_virtual, "images/top has its values in another file"),
        (_outside, "images/top has its values in another file"),
        (_unwritten, "none of which was written"),
        (_huge_chunk, "2 rows of 192,000,000 bytes are compressed together; at most 256 MB"),
        (_huge_frames, "frames of 1048576x1048576"),
        (_loop, "is a link to itself"),
        (_web_of_links, "is a link to itself, or a chain of too many links"),
        (_deep, "a.h5: has groups within groups, more than 64 deep"),
        (_long, "a.h5: has 1,099,511,627,776 rows; at most 10,000,000 per episode are read"),
        (_unknown_filter, "a.h5: images/top: it is compressed by a filter that h5py does not have .pip inst"),
        (_unequal, "a.h5: x has 4 rows, images/top has 3"),
        (_unlike, r"b.h5: images/top has rows of 32x32x3 uint8, those of other episodes are 32x48x3"),
    ],
)
def test_hostile_and_broken_files_are_refused_by_file_and_array(
    tmp_path: Path, made: Callable[[h5py.File, Path], None], said: str
) -> None:
    folder = tmp_path / "hdf5"
    folder.mkdir()
    with h5py.File(folder / "a.h5", "w") as root:
        made(root, folder / "a.h5")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.ones((3, 32, 32, 3), np.uint8)
    if made is _unlike:
        with h5py.File(folder / "b.h5", "w") as root:
            root["images/top"], root["x"] = np.zeros((3, 32, 32, 3), np.uint8), np.zeros(3)
    features = {"x": {"path": "x"}} if made in (_unequal, _unlike) else {}
    began = time.monotonic()
    with warnings.catch_warnings():
        if made is _long:  # says how many of its chunks are not there
            warnings.simplefilter("ignore", FfencWarning)
        refused(folder, tmp_path, said, of(features=features))
    assert time.monotonic() - began < 10


def test_a_chunk_that_is_a_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as root:
        _bomb(root, path)
    source = open_source(path, Opening(fps=30, mapping=of()))
    said = "images/top, row 1: its chunk decompresses to more than the 3,072 bytes that a chunk has"
    tracemalloc.start()
    with pytest.raises(SourceError, match=said):
        list(source.frames("observation.images.top", source.episodes[0]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_damaged_files_and_images_are_named_and_a_restored_source_is_taken_up(
    recorded: list[Sample], tmp_path: Path
) -> None:
    source = write_aloha(tmp_path / "aloha", recorded)
    path = source / "episode_1.hdf5"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(source, tmp_path, r"episode_1.hdf5: cannot be read as HDF5: .*cut short")
    path.write_bytes(b"no such thing")
    refused(path, tmp_path, r"episode_1.hdf5: cannot be read as HDF5")
    path.write_bytes(whole)
    with h5py.File(path, "a") as root:
        root["observations/images/cam_high"][4, 300:] = 0
    said = r"episode_1.hdf5: observations/images/cam_high, row 4: the image is cut short"
    with pytest.raises(SourceError, match=said):
        reencode_dataset(source, tmp_path / "out", fps=30, workers=1, overrides=FINE)
    assert not (tmp_path / "out").exists()
    path.write_bytes(whole)
    assert reencode_dataset(source, tmp_path / "out", fps=30, overrides=FINE, resume=True).resumed >= 1
    with h5py.File(path, "a") as root:
        del root["action"]
    refused(path, tmp_path / "b", "is an HDF5 file with an unknown layout.*inspect_source")
    refused(tmp_path / "nothing.h5", tmp_path / "b", "nothing.h5 does not exist; supported are")


def test_memory_stays_while_a_file_of_many_frames_is_read(tmp_path: Path) -> None:
    """Frames are read in blocks: 512 MB of raw frames in one array do not pass through memory at once."""
    path = tmp_path / "long.h5"
    with h5py.File(path, "w") as root:
        made = root.create_dataset(
            "images/top", (600, 480, 640, 3), np.uint8, chunks=(4, 480, 640, 3), compression="lzf"
        )
        made[:4] = 7
        made[596:] = 7
    with pytest.warns(
        FfencWarning, match="images/top: 148 chunks are not in the file; their frames have the fill value"
    ):
        source = open_source(path, Opening(fps=30, mapping=of()))
    tracemalloc.start()
    count = sum(len(frame.data) for frame in source.frames("observation.images.top", source.episodes[0]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 600 * 480 * 640 * 3
    assert peak < 40 << 20


def test_a_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.h5")
    refused(tmp_path / "a.h5", tmp_path, r"is a named pipe \(FIFO\); expected a regular file")


def test_without_h5py_the_extra_is_named(
    recorded: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_aloha(tmp_path / "aloha", recorded[:1])
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(source, tmp_path, r"needs h5py: pip install 'ffenc\[hdf5\]'")
