"""A dataset that grows by an episode at a time: whole after each, whatever happens on the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from ffenc import (
    ConfigError,
    DestinationError,
    SourceError,
    StreamInfo,
    VerificationError,
    VideoEncoderConfig,
    VideoReader,
    VideoWriter,
    merge_datasets,
    probe,
    reencode_dataset,
    verify_dataset,
)
from ffenc.dataset.commit import DELETED, RECORDINGS
from ffenc.dataset.growing import GrowingCamera, GrowingDataset, finish_commit
from ffenc.dataset.info_block import ENCODER_FIELDS, encoder_fields
from ffenc.dataset.model import Episode, FinishedVideo, Known
from ffenc.ffmpeg.join import cut_file
from ffenc.ffmpeg.toolchain import toolchains
from ffenc.frames.sources import ImageFiles
from ffenc.frames.statistics import RgbHistogram, sample_tap
from ffenc.layout import DATA_PATH, VIDEO_PATH
from tests.conftest import ANGLE, DATASET, DEPTH, FIXTURES, TOP, everything_in, starts
from tests.support.read import contents, rows_of

VIDEO = FIXTURES / "aloha_video_v30"
LIST = "meta/episodes/chunk-000/file-000.parquet"
FRONT = "observation.images.front"
FPS = Fraction(30)
FRAMES = 12
CONFIG = VideoEncoderConfig(vcodec="h264", preset="ultrafast")
FEATURES = {
    "observation.state": {"dtype": "float32", "shape": [3], "names": ["pan", "lift", "grip"]},
    "action": {"dtype": "float32", "shape": [1], "names": ["grip"]},
}
NUMBERING = {"timestamp": "float32"} | dict.fromkeys(
    ("frame_index", "episode_index", "index", "task_index"), "int64"
)
CAMERA = GrowingCamera(FRONT, 64, 48, None, encoder_fields(CONFIG), "h264", "yuv420p")
Film = tuple[Path, StreamInfo, dict[str, Any]]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Film:
    """A finished video, its fields and its statistics."""
    path = tmp_path_factory.mktemp("film") / "front.mp4"
    ramp = np.linspace(20, 200, 64, dtype=np.uint8)[None, None, :, None]
    frames = (
        np.broadcast_to(ramp, (FRAMES, 48, 64, 3)) + np.arange(FRAMES, dtype=np.uint8)[:, None, None, None]
    )
    with VideoWriter(path, FPS, CONFIG) as video:
        for frame in frames:
            video.write(frame)
    counted = RgbHistogram(sample_tap(FRAMES, 64, 48))
    counted.feed(frames.tobytes())
    assert video.info is not None
    return path, video.info, counted.statistics()


def growing(root: Path, **changes: Any) -> GrowingDataset:
    arguments = {"fps": FPS, "robot_type": "so101", "cameras": [CAMERA], "features": FEATURES} | changes
    return GrowingDataset(root, **arguments)


def table(number: int, rows: int = FRAMES) -> pa.Table:
    state = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) + 100 * number
    return pa.table(
        {
            "observation.state": pa.array(state.tolist(), pa.list_(pa.float32())),
            "action": pa.array(state[:, 0]),
        }
    )


def waiting(root: Path, number: int, film: Film) -> tuple[Path, Episode]:
    """A recorded episode, in the folder it waits in."""
    folder = root / RECORDINGS / f"{number:03d}"
    folder.mkdir(parents=True)
    path = Path(shutil.copy(film[0], folder / "front.mp4"))
    (folder / "rows.jsonl").write_text("{}\n")
    task = "take the cube" if number % 2 == 0 else "put it back"
    notes = {"number": number}
    streams = {FRONT: FinishedVideo(path, film[1])}
    known = Known.of({FRONT: film[2]})
    return folder, Episode(FRAMES, table(number), [task], streams=streams, known=known, notes=notes)


def grow(root: Path, film: Film, episodes: range, dataset: GrowingDataset | None = None) -> GrowingDataset:
    dataset = dataset or growing(root)
    for number in episodes:
        folder, episode = waiting(root, number, film)
        assert dataset.stage(folder, episode) == number
        dataset.publish(folder)
        assert not folder.exists()
    return dataset


def listed_in(root: Path) -> list[dict[str, Any]]:
    """The rows of the episode list, which is one file."""
    assert [path.relative_to(root).as_posix() for path in root.glob("meta/episodes/*/*")] == [LIST]
    return pq.read_table(root / LIST).to_pylist()


def faults_of(root: Path, **arguments: Any) -> list[str]:
    return [str(fault) for fault in verify_dataset(root, **arguments).faults]


def test_a_new_dataset_is_whole_after_every_episode(tmp_path: Path, film: Film) -> None:
    root = tmp_path / "new"
    dataset = growing(root)
    for number in range(3):
        before = contents(root, "data", "videos") if number else {}
        listed = listed_in(root) if number else []
        grow(root, film, range(number, number + 1), dataset)
        assert faults_of(root) == []
        assert before.items() <= contents(root, "data", "videos").items()
        assert listed_in(root)[:-1] == listed
        assert (dataset.total_episodes, dataset.total_frames) == (number + 1, FRAMES * (number + 1))
    assert faults_of(root, deep=True) == []
    rows = rows_of(root)
    assert rows["index"].to_pylist() == list(range(3 * FRAMES))
    assert rows["episode_index"].to_pylist() == [e for e in range(3) for _ in range(FRAMES)]
    assert rows["task_index"].to_pylist() == [e for e in (0, 1, 0) for _ in range(FRAMES)]
    assert np.allclose(rows["timestamp"].to_numpy(), np.tile(np.arange(FRAMES) / 30, 3))
    assert rows["observation.state"][FRAMES].as_py() == [100, 101, 102]
    assert rows.schema.field("observation.state").type.list_size == 3
    assert rows.schema.field("action").type == pa.float32()
    info = json.loads((root / "meta/info.json").read_text())
    assert list(info["features"])[:3] == [FRONT, "observation.state", "action"]
    assert info["features"][FRONT]["info"]["video.crf"] == CONFIG.crf
    assert info["splits"] == {"train": "0:3"}
    assert pq.read_table(root / "meta/tasks.parquet")["task"].to_pylist() == ["take the cube", "put it back"]
    stats = json.loads((root / "meta/stats.json").read_text())
    assert stats["observation.state"]["max"] == [233, 234, 235]
    assert stats[FRONT]["count"] == [3 * FRAMES]
    assert len(VideoReader(root / f"videos/{FRONT}/chunk-000/file-002.mp4")) == FRAMES
    # Written in one go or taken up again, it is the same dataset; and hidden folders are none of its files.
    again = tmp_path / "again"
    for number in range(3):
        grow(again, film, range(number, number + 1))
    assert contents(again) == contents(root)
    (root / RECORDINGS / "later").mkdir(parents=True)
    (root / RECORDINGS / "later/rows.jsonl").write_text("")
    (
        root / RECORDINGS / f"gone{DELETED}"
    ).mkdir()  # a kill came before the folder of a saved episode was away
    noted = [note.what for note in verify_dataset(root).notes if note.kind == "recording"]
    assert noted == ["1 episode being recorded, or interrupted"]
    merge_datasets([root, again], tmp_path / "merged")
    assert not (tmp_path / "merged" / RECORDINGS).exists()
    noted = sorted((tmp_path / "merged/meta/recording").iterdir())
    assert [json.loads(path.read_text())["number"] for path in noted] == [0, 1, 2, 0, 1, 2]
    reencode_dataset(
        root, tmp_path / "part", episodes=[2], overrides=[(("camera_encoder", "vcodec"), "h264")]
    )
    assert everything_in(tmp_path / "part/meta/recording") == ["episode_000000.json"]
    assert json.loads((tmp_path / "part/meta/recording/episode_000000.json").read_text()) == {"number": 2}
    assert faults_of(tmp_path / "merged") == faults_of(tmp_path / "part") == []


def test_cameras_that_stay_images_stand_in_the_table(
    tmp_path: Path, images: dict[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ffenc.dataset.columns.IMAGE_BYTES", 200_000)  # they come in several parts
    given = json.loads((DATASET / "meta/info.json").read_text())
    lists = pq.read_table(DATASET / "meta/episodes/chunk-000/file-000.parquet")
    files: dict[str, ImageFiles] = {}
    for key, suffix in ((ANGLE, "png"), (DEPTH, "png" if images[DEPTH][0][:4] == b"\x89PNG" else "tiff")):
        paths = [tmp_path / f"{key}-{i}.{suffix}" for i in range(24)]
        for path, image in zip(paths, images[key], strict=False):
            path.write_bytes(image)
        files[key] = ImageFiles(paths)
    names = ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99")
    stats = {key: {n: lists[f"stats/{key}/{n}"][0].as_py() for n in names} for key in files}
    cameras = [GrowingCamera(ANGLE, 160, 120), GrowingCamera(DEPTH, 160, 120, "mm")]
    root = tmp_path / "new"
    dataset = growing(root, cameras=cameras, features=None)
    assert dataset.features is None
    for number in range(2):
        folder = root / RECORDINGS / str(number)
        folder.mkdir(parents=True)
        dataset.stage(folder, Episode(24, table(number, 24), ["look"], streams=files, known=Known.of(stats)))
        dataset.publish(folder)
    assert dataset.features is not None
    assert dataset.features["observation.state"] == {"dtype": "float32", "shape": [3], "names": None}
    assert faults_of(root, deep=True) == []
    assert [row["bytes"] for row in rows_of(root)[DEPTH].to_pylist()] == images[DEPTH][:24] * 2
    info = json.loads((root / "meta/info.json").read_text())["features"]
    assert info[DEPTH]["shape"] == given["features"][DEPTH]["shape"]
    assert info[DEPTH]["info"] == {"is_depth_map": True, "depth_unit": "mm"}
    folder = tmp_path / "other"
    folder.mkdir()
    streams = {ANGLE: files[DEPTH], DEPTH: files[DEPTH]}
    swapped = Episode(24, table(0, 24), ["look"], streams=streams, known=Known.of(stats))
    with pytest.raises(VerificationError, match="expected .* of colours"):
        dataset.stage(folder, swapped)


def aloha(change: Callable[[GrowingCamera], GrowingCamera] = lambda camera: camera) -> dict[str, Any]:
    """What would record more of the sample."""
    info = json.loads((VIDEO / "meta/info.json").read_text())
    cameras = []
    for key in (TOP, ANGLE, DEPTH):
        feature = info["features"][key]
        block = feature["info"]
        own = {
            k: v
            for k, v in block.items()
            if k in ENCODER_FIELDS or "depth" in k or k[6:] in ("shift", "use_log")
        }
        own |= {"video.invalid": "clip"} if key == DEPTH else {}
        height, width, _ = feature["shape"]
        codec, pix_fmt = block["video.codec"], block["video.pix_fmt"]
        cameras.append(GrowingCamera(key, width, height, block.get("depth_unit"), own, codec, pix_fmt))
    features = {key: info["features"][key] for key in ("observation.state", "action")}
    return {
        "fps": FPS,
        "robot_type": "aloha",
        "cameras": [change(camera) for camera in cameras],
        "features": features,
    }


def cut_episode(folder: Path, number: int) -> Episode:
    """An episode of the sample, cut out of its files."""
    folder.mkdir(parents=True)
    lists = pq.read_table(VIDEO / "meta/episodes/chunk-000/file-000.parquet").slice(number, 1).to_pylist()[0]
    rows = pq.read_table(VIDEO / "data/chunk-000/file-000.parquet").slice(starts()[number], lists["length"])
    videos = {}
    for key in (TOP, ANGLE, DEPTH):
        source, path = VIDEO / f"videos/{key}/chunk-000/file-000.mp4", folder / f"{key}.mp4"
        cut_file(
            source, path, first=starts()[number], frames=lists["length"], fps=FPS,
            tag=probe(source).tag, toolchain=toolchains()[0],
        )  # fmt: skip
        videos[key] = FinishedVideo(path, probe(path))
    names = ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99")
    stats = {key: {n: lists[f"stats/{key}/{n}"] for n in names} for key in videos}
    columns = rows.select(["action", "observation.state"])  # in whatever order
    known, notes = Known.of(stats), {"again": number}
    return Episode(lists["length"], columns, lists["tasks"], streams=videos, known=known, notes=notes)


def test_a_dataset_that_lerobot_wrote_gets_more_episodes(tmp_path: Path) -> None:
    root = Path(shutil.copytree(VIDEO, tmp_path / "aloha"))
    stray = root / f"videos/{TOP}/chunk-000/file-004.mp4"
    stray.write_bytes(b"of no episode")
    before, listed = contents(root, "data", "videos"), listed_in(root)
    old = json.loads((root / "meta/stats.json").read_text())
    dataset = GrowingDataset(root, **aloha() | {"features": None})
    assert dataset.features == aloha()["features"]
    for number in (2, 0):
        folder = root / RECORDINGS / str(number)
        dataset.stage(folder, cut_episode(folder, number))
        dataset.publish(folder)
    assert before.items() <= contents(root, "data", "videos").items()
    assert listed_in(root)[:-2] == listed
    assert stray.with_name("file-005.mp4").exists()
    stray.unlink()
    assert faults_of(root, deep=True) == []
    schemas = [pq.read_schema(path) for path in sorted((root / "data").glob("*/*.parquet"))]
    assert all(one.equals(schemas[0], check_metadata=True) for one in schemas)
    assert len(schemas) == 3
    assert pq.read_schema(root / LIST).equals(pq.read_schema(VIDEO / LIST), check_metadata=True)
    info, given = (json.loads((path / "meta/info.json").read_text()) for path in (root, VIDEO))
    assert info["features"] == given["features"]
    assert info["total_frames"] == 72 + 31 + 24
    assert (root / "meta/tasks.parquet").read_bytes() == (VIDEO / "meta/tasks.parquet").read_bytes()
    rows = rows_of(root)
    for name in ("observation.state", "action", "timestamp", "task_index"):
        assert rows[name][72:].to_pylist() == rows[name].to_pylist()[41:72] + rows[name].to_pylist()[:24]
    new = json.loads((root / "meta/stats.json").read_text())
    assert new[TOP]["min"] == old[TOP]["min"]  # of the same frames again
    assert new[TOP]["count"][0] > old[TOP]["count"][0]


def other(**fields: Any) -> Callable[[GrowingCamera], GrowingCamera]:
    """Another setting of one camera: of ``block``, or of the camera itself."""

    def change(camera: GrowingCamera) -> GrowingCamera:
        if camera.key != fields.get("key", DEPTH if "depth_max" in fields or "unit" in fields else TOP):
            return camera
        own = {name: value for name, value in fields.items() if name in ("width", "codec", "pix_fmt", "unit")}
        more = {f"video.{name}": v for name, v in fields.items() if name not in own}
        return replace(camera, block={**(camera.block or {}), **more}, **own)

    return change


def state(**fields: Any) -> dict[str, Any]:
    features = aloha()["features"]
    return {"features": features | {"observation.state": features["observation.state"] | fields}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fps": Fraction(15)}, "fps is 30 in the dataset, 15 in"),
        ({"robot_type": "so101"}, "robot_type is 'aloha' in the dataset, 'so101'"),
        ({"cameras": []}, f"camera {TOP} is only in the dataset"),
        ({"cameras": [*aloha()["cameras"], CAMERA]}, f"camera {FRONT} is only in the recording"),
        ({"cameras": aloha(lambda c: replace(c, block=None))["cameras"]}, "dtype is 'video' .* 'image'"),
        (
            {"cameras": aloha(other(width=640))["cameras"]},
            r"width and height is \(320, 240\) .* \(640, 240\)",
        ),
        ({"cameras": aloha(other(codec="h264"))["cameras"]}, "video.codec is 'av1' .* 'h264'"),
        ({"cameras": aloha(other(pix_fmt="yuv444p"))["cameras"]}, "video.pix_fmt is 'yuv420p' .* 'yuv444p'"),
        ({"cameras": aloha(other(crf=0))["cameras"]}, "video.crf is 30 .* 0 in"),
        ({"cameras": aloha(other(extra_options={"a": 1}))["cameras"]}, "video.extra_options is {} in"),
        ({"cameras": aloha(other(depth_max=5.0))["cameras"]}, "video.depth_max is 10.0 .* 5.0"),
        (
            {"cameras": aloha(other(key=DEPTH, invalid="keep"))["cameras"]},
            "video.invalid is 'clip' .* 'keep'",
        ),
        ({"cameras": aloha(other(unit="m"))["cameras"]}, "depth_unit is 'mm' .* 'm'"),
        ({"cameras": aloha(other(key=DEPTH, unit=None))["cameras"]}, "is_depth_map is True .* False"),
        ({"features": {}}, "feature observation.state is only in the dataset"),
        (state(shape=[7]), r"observation.state: shape is \[14\] .* \[7\]"),
        (state(dtype="float64"), "observation.state: dtype is 'float32' .* 'float64'"),
        (state(names=["a"] * 14), "observation.state: names is "),
    ],
)
def test_what_does_not_fit_a_dataset_is_refused(changes: Mapping[str, Any], said: str) -> None:
    with pytest.raises(DestinationError, match=said):
        GrowingDataset(VIDEO, **{**aloha(), **changes})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("length", [FRAMES, None]),
        ("length", [FRAMES, 0.5]),
        ("length", ["12", "12"]),
        ("data/file_index", [0, None]),
        ("episode_index", [0, None]),
        (f"videos/{FRONT}/chunk_index", [None, 0]),
    ],
)
def test_an_episode_list_without_whole_numbers_is_refused(
    tmp_path: Path, film: Film, name: str, values: list[Any]
) -> None:
    grow(tmp_path / "d", film, range(2))
    path = tmp_path / "d" / LIST
    listed = pq.read_table(path)
    pq.write_table(listed.set_column(listed.column_names.index(name), name, pa.array(values)), path)
    with pytest.raises(SourceError, match=rf"file-000\.parquet: has rows without a whole number in {name}"):
        growing(tmp_path / "d")


def info_with(**changes: Any) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "meta/info.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("damage", "error", "said"),
    [
        (info_with(codebase_version="v2.1"), DestinationError, r"merge_datasets\(.*\)` converts it to v3.0"),
        (info_with(data_path="d/{episode_index}.parquet"), DestinationError, "data_path is 'd/"),
        (info_with(total_frames=73), SourceError, "meta/info.json says 3 episodes and 73 frames"),
        (
            lambda root: (root / "meta/stats.json").unlink(),
            SourceError,
            r"merge_datasets\(.*\)` computes them",
        ),
        (lambda root: (root / "meta/info.json").unlink(), DestinationError, "is not a LeRobot dataset"),
    ],
)
def test_a_dataset_that_cannot_grow_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], error: type[Exception], said: str
) -> None:
    root = tmp_path / "aloha"
    shutil.copytree(VIDEO, root, ignore=shutil.ignore_patterns("*.mp4"))
    damage(root)
    with pytest.raises(error, match=said):
        GrowingDataset(root, **aloha())


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda e: replace(e, length=5), ConfigError, "12 rows and 5 frames"),
        (lambda e: replace(e, known=None), ConfigError, "statistics of no camera"),
        (lambda e: replace(e, streams={}), ConfigError, "videos of no camera"),
        (
            lambda e: replace(e, rows=e.rows.drop_columns("action")),
            ConfigError,
            "column action: the dataset",
        ),
        (
            lambda e: replace(e, rows=e.rows.set_column(1, "action", pa.nulls(FRAMES, pa.float32()))),
            ConfigError,
            "column action has 12 rows without a value",
        ),
        (
            lambda e: replace(e, rows=e.rows.set_column(1, "action", pa.array([[1.0, 2.0]] * FRAMES))),
            ConfigError,
            r"column action has rows of \[2\] numbers, not of 1",
        ),
        (
            lambda e: replace(e, rows=e.rows.set_column(1, "action", pa.array(["up"] * FRAMES))),
            ConfigError,
            "column action is string, not float",
        ),
        (
            lambda e: replace(
                e, streams={FRONT: replace(e.streams[FRONT], info=replace(e.streams[FRONT].info, frames=11))}
            ),
            VerificationError,
            "frames of observation.images.front is 11; expected 12",
        ),
    ],
)
def test_an_episode_that_is_not_of_the_dataset_is_refused(
    tmp_path: Path, film: Film, change: Callable[[Episode], Episode], error: type[Exception], said: str
) -> None:
    dataset = growing(tmp_path)
    folder, episode = waiting(tmp_path, 0, film)
    with pytest.raises(error, match=said):
        dataset.stage(folder, change(episode))
    assert dataset.stage(folder, episode) == 0  # and nothing is lost
    dataset.publish(folder)
    assert faults_of(tmp_path) == []


class Stopped(BaseException):
    """Stands for the end of the process: nothing is done after it."""


def test_an_interrupted_commit_is_finished_to_the_byte(
    tmp_path: Path, film: Film, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    dataset = grow(base, film, range(1))
    folder, episode = waiting(base, 1, film)
    staged = contents(base)
    dataset.stage(folder, episode)
    assert {k: v for k, v in contents(base).items() if k in staged} == staged  # nothing has come in yet
    with pytest.raises(DestinationError, match="recover it first"):
        growing(base)
    whole = Path(shutil.copytree(base, tmp_path / "whole"))
    assert finish_commit(whole / RECORDINGS / "001", whole)
    assert faults_of(whole) == []
    moves = len(json.loads((folder / "commit.json").read_text())["moves"])
    assert moves == 8  # video, rows, episode list, task, statistics, checksums, notes, info.json

    def stop_at(call: int, owner: Any, name: str) -> None:
        """The process ends before the call of that number."""
        real, left = getattr(owner, name), [call]

        def counted(*arguments: Any, **more: Any) -> Any:
            if left[0] == 0:
                raise Stopped
            left[0] -= 1
            return real(*arguments, **more)

        patch.setattr(owner, name, counted)

    # Before each move; before each step by which the folder goes: what is in it, its list, itself.
    ways: list[tuple[Any, str, int]] = [(Path, "replace", n) for n in range(moves)]
    ways += [(shutil, "rmtree", 0), (Path, "unlink", 0), (Path, "unlink", 1), (Path, "rmdir", 0)]
    for owner, name, call in ways:
        root = Path(shutil.copytree(base, tmp_path / f"{name}-{call}"))
        left = root / RECORDINGS / "001"
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            stop_at(call, owner, name)
            finish_commit(left, root)
        if name == "rmdir":
            assert not finish_commit(left, root)
            assert everything_in(left) == []
        else:
            assert finish_commit(left, root)
        assert contents(root) == contents(whole), f"{name} {call}"
    # Interrupted before all was listed, it is written anew.
    (folder / "commit.json").unlink()
    assert not finish_commit(folder, base)
    dataset = growing(base)
    dataset.stage(folder, episode)
    dataset.publish(folder)
    assert contents(base) == contents(whole)


def test_a_commit_overwrites_nothing_that_came_in_between(tmp_path: Path, film: Film) -> None:
    root = tmp_path / "new"
    dataset = grow(root, film, range(1))
    folder, episode = waiting(root, 1, film)
    dataset.stage(folder, episode)
    with pytest.raises(DestinationError, match="has to be published first"):
        dataset.stage(folder, episode)
    rows = root / "data/chunk-000/file-001.parquet"
    rows.write_bytes(b"another's")
    before = contents(root)
    with pytest.raises(DestinationError, match=r"file-001\.parquet already exists"):
        dataset.publish(folder)
    rows.unlink()
    info = (root / "meta/info.json").read_bytes()
    (root / "meta/info.json").write_bytes(info + b"\n")
    with pytest.raises(DestinationError, match="changed by another program"):
        dataset.publish(folder)
    assert contents(root).keys() == before.keys() - {"data/chunk-000/file-001.parquet"}
    (root / "meta/info.json").write_bytes(info)
    dataset.publish(folder)
    assert faults_of(root) == []


def test_files_are_numbered_on_into_the_next_chunk(tmp_path: Path, film: Film) -> None:
    grow(tmp_path, film, range(1))
    info_with(chunks_size=2, data_files_size_in_mb=1e-6)(tmp_path)
    grow(tmp_path, film, range(1, 3))
    assert faults_of(tmp_path) == []
    for place in ("data", "meta/episodes", f"videos/{FRONT}"):
        names = [path.relative_to(tmp_path / place).with_suffix("").as_posix()
                 for path in sorted((tmp_path / place).glob("*/*"))]  # fmt: skip
        assert names == ["chunk-000/file-000", "chunk-000/file-001", "chunk-001/file-000"]


def test_a_dataset_that_was_made_without_an_episode_gets_its_first(tmp_path: Path, film: Film) -> None:
    front = {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channels"], "info": None}
    numbering = {key: {"dtype": kind, "shape": [1], "names": None} for key, kind in NUMBERING.items()}
    made = {
        **{"codebase_version": "v3.0", "fps": 30, "features": {FRONT: front, **FEATURES, **numbering}},
        **{"total_episodes": 0, "total_frames": 0, "total_tasks": 0, "robot_type": "so101", "splits": {}},
        **{"data_path": DATA_PATH, "video_path": VIDEO_PATH, "chunks_size": 1000},
    }
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text(json.dumps(made))
    grow(tmp_path, film, range(2))
    assert faults_of(tmp_path) == []
    info = json.loads((tmp_path / "meta/info.json").read_text())
    assert info["features"][FRONT]["info"]["video.crf"] == CONFIG.crf
