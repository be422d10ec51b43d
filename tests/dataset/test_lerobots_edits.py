"""Datasets as LeRobot's own tools leave them, which ffenc brings into the order that LeRobot reads."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffenc import (
    ConfigError,
    FfencWarning,
    SourceError,
    merge_datasets,
    probe,
    reencode_dataset,
    verify_dataset,
)
from ffenc.dataset.columns import set_column, task_table
from ffenc.dataset.report import report_dataset
from ffenc.dataset.sources.lerobot import open_dataset
from ffenc.dataset.statistics import Aggregate, column_stats, relative_chunk
from ffenc.ffmpeg.boxes import sample_description
from ffenc.layout import DATA_PATH, DEFAULT_FEATURES, VIDEO_PATH
from tests.conftest import ANGLE, DATASET, DEPTH, FIXTURES, TOP, decode, notes_of, psnr, system_program

VIDEO = FIXTURES / "aloha_video_v30"
LENGTHS = (4, 3)
ROWS = sum(LENGTHS)
TASKS = ("pick it up", "put it down")
DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"


def read_json(root: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / f"meta/{name}.json").read_text())
    return content


def edit_json(root: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    content = read_json(root, name)
    change(content)
    (root / f"meta/{name}.json").write_text(json.dumps(content))


def edit_table(root: Path, place: str, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(root / place)), root / place)


def faults_of(root: Path, severity: str = "fault") -> list[str]:
    found = verify_dataset(root)
    return [fault.what for fault in (found.faults if severity == "fault" else notes_of(found))]


def of_the_rows(values: np.ndarray) -> list[dict[str, Any]]:
    """The statistics of each episode."""
    cuts = np.cumsum(LENGTHS)[:-1]
    return [column_stats({"": part})[""] for part in np.split(values, cuts)]


def dataset(
    root: Path,
    columns: Mapping[str, pa.Array] | None = None,
    features: Mapping[str, Mapping[str, Any]] | None = None,
    values: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """A LeRobot v3.0 dataset without cameras.

    Args:
        root: its folder.
        columns, features: of its rows, besides ``action``.
        values: of the columns with numbers.
    """
    frame = np.concatenate([np.arange(n) for n in LENGTHS])
    numbers = {
        "action": np.random.default_rng(0).random((ROWS, 2), np.float32),
        **(values or {}),
        "timestamp": (frame / 10).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.repeat(np.arange(len(LENGTHS)), LENGTHS),
        "index": np.arange(ROWS),
        "task_index": np.array([0, 0, 1, 1, 1, 1, 1]),
    }
    described = {
        "action": {"dtype": "float32", "shape": [2], "names": None},
        **(features or {}),
        **DEFAULT_FEATURES,
    }
    rows = dict(columns or {}) | {
        name: pa.array(own.tolist(), None if own.ndim > 1 else pa.from_numpy_dtype(own.dtype))
        for name, own in numbers.items()
    }
    stats = {name: of_the_rows(own) for name, own in numbers.items()}
    total = {}
    for name, own in stats.items():
        aggregate = Aggregate()
        for one in own:
            aggregate.add(one)
        total[name] = aggregate.result()
    ends = np.cumsum(LENGTHS)
    episodes = {
        "episode_index": range(len(LENGTHS)),
        "tasks": [list(TASKS), [TASKS[1]]],
        "length": LENGTHS,
        "data/chunk_index": [0, 0],
        "data/file_index": [0, 0],
        "dataset_from_index": ends - LENGTHS,
        "dataset_to_index": ends,
        **{f"stats/{key}/{n}": [one[n] for one in own] for key, own in stats.items() for n in own[0]},
        "meta/episodes/chunk_index": [0, 0],
        "meta/episodes/file_index": [0, 0],
    }
    for folder in ("data/chunk-000", "meta/episodes/chunk-000"):
        (root / folder).mkdir(parents=True)
    with pq.ParquetWriter(root / DATA, (table := pa.table({k: rows[k] for k in described})).schema) as writer:
        for start, length in zip((0, *ends), LENGTHS, strict=False):  # a row group an episode, as LeRobot has
            writer.write_table(table.slice(start, length))
    pq.write_table(pa.table({name: pa.array(list(own)) for name, own in episodes.items()}), root / EPISODES)
    pq.write_table(task_table(TASKS), root / "meta/tasks.parquet")
    info = {
        "codebase_version": "v3.0",
        "fps": 10,
        "features": described,
        "total_episodes": len(LENGTHS),
        "total_frames": ROWS,
        "total_tasks": len(TASKS),
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/stats.json").write_text(json.dumps(total))
    return root


def rows_of(root: Path) -> pa.Table:
    return pq.read_table(root / DATA)


def test_a_dataset_without_cameras_merges_and_is_not_re_encoded(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one")
    assert faults_of(one) == faults_of(one, "note") == []
    summary = merge_datasets([one, one], tmp_path / "both")
    assert (summary.episodes, summary.frames, summary.video_bytes) == (4, 0, 0)
    assert faults_of(tmp_path / "both") == []
    assert rows_of(tmp_path / "both")["action"].to_pylist() == rows_of(one)["action"].to_pylist() * 2
    with pytest.raises(SourceError, match="it has no cameras"):
        reencode_dataset(one, tmp_path / "out")


# --- columns ----------------------------------------------------------------------------------------------


def language(camera: str | None = None) -> dict[str, pa.Array]:
    """Language columns as ``lerobot-annotate`` writes them: Arrow's own guess of the type."""
    said = {"role": "user", "content": "go on", "style": "subtask", "camera": camera, "tool_calls": None}
    lasting = [[said | {"timestamp": 0.0}] * (1 + row // 4) for row in range(ROWS)]
    events = [[said] if row % 3 == 1 else [] for row in range(ROWS)]
    return {"language_persistent": pa.array(lasting), "language_events": pa.array(events)}


LANGUAGE = {
    key: {"dtype": "language", "shape": [1], "names": None}
    for key in ("language_persistent", "language_events")
}


def test_nested_columns_and_columns_without_values_come_through(tmp_path: Path) -> None:
    more = {"note": pa.nulls(ROWS), "map": pa.array([{"a": None, "b": [n]} for n in range(ROWS)])}
    features = LANGUAGE | {key: {"dtype": "language", "shape": [1], "names": None} for key in more}
    silent = dataset(tmp_path / "silent", language() | more, features)
    spoken = dataset(tmp_path / "spoken", language("wrist") | more, features)
    assert faults_of(silent) == []
    for name, sources in (("alone", [silent]), ("twice", [silent, silent]), ("mixed", [silent, spoken])):
        out = tmp_path / name
        merge_datasets(sources, out)
        assert faults_of(out) == []
        merged, before = rows_of(out), [rows_of(source) for source in sources]
        for key in (*LANGUAGE, *more):
            assert merged[key].to_pylist() == [row for own in before for row in own[key].to_pylist()]
        kinds = [table.schema.field("language_events").type for table in (merged, *before)]
        assert kinds[0] == kinds[-1]  # where there are values somewhere, it is their type


def test_language_columns_come_through_a_re_encode(tmp_path: Path) -> None:
    source = Path(shutil.copytree(DATASET, tmp_path / "source"))
    said = [[{"role": "user", "camera": None}] if row % 5 == 0 else [] for row in range(72)]
    edit_table(source, DATA, lambda table: table.append_column("language_events", pa.array(said)))
    edit_json(
        source, "info", lambda info: info["features"].update(language_events=LANGUAGE["language_events"])
    )
    edit_table(
        source, DATA, lambda table: table.replace_schema_metadata(None)
    )  # as the annotation pipeline leaves it
    out = tmp_path / "out"
    reencode_dataset(
        source, out, cameras=["angle_depth"], overrides=[(("depth_encoder", "preset"), "ultrafast")]
    )
    assert rows_of(out)["language_events"].to_pylist() == said
    assert faults_of(out) == []


@pytest.mark.parametrize("shape", [(2, 3), (2, 1, 3), (2, 1, 3, 2), (1, 2, 1, 2, 2)])
def test_statistics_of_several_dimensions_are_of_the_last(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """As LeRobot's get_feature_stats has them."""
    values = np.random.default_rng(1).random((ROWS, *shape), np.float32)
    features = {"grid": {"dtype": "float32", "shape": list(shape), "names": None}}
    one = dataset(tmp_path / "one", None, features, {"grid": values})
    stats = read_json(one, "stats")["grid"]
    assert np.allclose(stats["max"], values.reshape(-1, shape[-1]).max(axis=0))
    assert stats["count"] == [ROWS]
    assert faults_of(one) == []
    edit_json(one, "stats", lambda stats: stats["grid"]["mean"].__setitem__(0, 0.9))
    assert any("mean of grid" in fault for fault in faults_of(one))
    edit_json(one, "stats", lambda stats: stats.pop("grid"))
    edit_table(
        one, EPISODES, lambda t: t.select([n for n in t.column_names if not n.startswith("stats/grid/")])
    )
    merge_datasets([one, one], tmp_path / "both")
    both = read_json(tmp_path / "both", "stats")["grid"]
    assert np.shape(both["mean"]) == (shape[-1],)
    assert np.allclose(both["std"], values.reshape(-1, shape[-1]).std(axis=0), atol=1e-6)
    assert faults_of(tmp_path / "both") == []
    # LeRobot v2.1 has them of each number, and its converter to v3.0 keeps those.
    each = of_the_rows(values.reshape(ROWS, -1))
    assert len(each[0]["min"]) == math.prod(shape)


# --- statistics -------------------------------------------------------------------------------------------


def test_stale_statistics_of_the_numbering_are_computed(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one")
    edit_json(one, "stats", lambda stats: stats["index"].update(max=[99], mean=[50.0]))
    edit_table(one, EPISODES, lambda t: set_column(t, "stats/task_index/max", [[7], [7]]))
    merge_datasets([one], tmp_path / "alone")
    merge_datasets([one, one], tmp_path / "both")
    assert faults_of(tmp_path / "alone") == faults_of(tmp_path / "both") == []
    assert read_json(tmp_path / "alone", "stats")["index"]["max"] == [ROWS - 1]
    assert read_json(tmp_path / "both", "stats")["index"]["max"] == [2 * ROWS - 1]


def test_totals_that_are_not_of_the_rows_are_computed_though_the_episodes_are_sound(tmp_path: Path) -> None:
    source, out = Path(shutil.copytree(VIDEO, tmp_path / "source")), tmp_path / "out"
    known = read_json(source, "stats")
    edit_json(source, "stats", lambda stats: stats["action"]["mean"].__setitem__(0, 7.0))
    edit_json(source, "stats", lambda stats: stats["index"].update(max=[999]))
    with pytest.warns(FfencWarning, match=r"mean of action\[0\] is .* over all rows, 7 here"):
        reencode_dataset(source, out, cameras=["angle"])
    found = read_json(out, "stats")
    assert np.allclose(found["action"]["mean"], known["action"]["mean"], atol=1e-5)
    assert found["index"]["max"] == known["index"]["max"]
    assert faults_of(out) == []


def relative(chunk: int) -> Callable[[dict[str, Any]], None]:
    """What ``recompute_stats(relative_action=True)`` does to ``stats.json``."""
    count = sum(max(n - chunk + 1, 0) for n in LENGTHS) * chunk

    def change(stats: dict[str, Any]) -> None:
        own = {n: [v / 7 for v in values] for n, values in stats["action"].items() if n != "count"}
        stats["action"] = own | {"count": [count]}

    return change


def test_statistics_of_relative_actions_stay(tmp_path: Path) -> None:
    assert relative_chunk(ROWS, LENGTHS) is None
    assert relative_chunk(ROWS + 1, LENGTHS) is None
    assert [relative_chunk(count, LENGTHS) for count in (10, 9, 4)] == [2, 3, 4]
    one, absolute = dataset(tmp_path / "one"), dataset(tmp_path / "absolute")
    edit_json(one, "stats", relative(3))
    before = read_json(one, "stats")["action"]
    assert faults_of(one) == []
    for name, sources in (("alone", [one]), ("both", [one, one])):
        merge_datasets(sources, tmp_path / name)
        after = read_json(tmp_path / name, "stats")["action"]
        assert after["count"] == [9 * len(sources)]
        assert all(np.allclose(after[n], before[n]) for n in ("min", "max", "mean", "std"))
        assert faults_of(tmp_path / name) == []
    with pytest.warns(FfencWarning, match="not every dataset has statistics of relative actions"):
        merge_datasets([one, absolute], tmp_path / "mixed")
    assert read_json(tmp_path / "mixed", "stats")["action"]["count"] == [2 * ROWS]
    assert faults_of(tmp_path / "mixed") == []


@pytest.mark.parametrize("v20", [False, True])
def test_merged_images_get_their_statistics(tmp_path: Path, dataset_v21: Path, v20: bool) -> None:
    """v2.0 keeps those of cameras in ``stats.json`` alone; here there are none at all, or these."""
    if v20:
        (dataset_v21 / "meta/episodes_stats.jsonl").unlink()
        known = json.loads((DATASET / "meta/stats.json").read_text())
        own = {key: {n: v for n, v in one.items() if n != "count"} for key, one in known.items()}
        (dataset_v21 / "meta/stats.json").write_text(json.dumps(own))
        edit_json(dataset_v21, "info", lambda info: info.update(codebase_version="v2.0"))
        source = dataset_v21
    else:
        source = Path(shutil.copytree(DATASET, tmp_path / "images"))
        (source / "meta/stats.json").unlink()
        edit_table(
            source, EPISODES, lambda t: t.select([n for n in t.column_names if not n.startswith("stats/")])
        )
    out = tmp_path / "out"
    merge_datasets([source], out)
    assert faults_of(out) == []
    stats, expected = read_json(out, "stats"), json.loads((DATASET / "meta/stats.json").read_text())
    for key in (TOP, ANGLE) if v20 else (TOP, ANGLE, DEPTH):
        for name in ("min", "max", "mean", "std", "q50"):
            scale = np.abs(expected[key]["max"])
            assert np.allclose(stats[key][name], expected[key][name], atol=0.01 * scale.max())
        assert f"stats/{key}/mean" in pq.read_schema(out / EPISODES).names


# --- lists ------------------------------------------------------------------------------------------------


def test_numbering_tasks_and_shapes_come_into_lerobots_order(tmp_path: Path) -> None:
    feature = {"dtype": "bool", "shape": [], "names": None}
    one = dataset(tmp_path / "one", None, {"done": feature}, {"done": np.zeros(ROWS, bool)})
    edit_table(one, DATA, lambda t: set_column(t, "index", np.arange(100, 100 + ROWS)))
    edit_table(one, EPISODES, lambda t: t.drop_columns("tasks"))
    edit_table(one, "meta/tasks.parquet", lambda t: t.take(pa.array([1, 0])))
    found = faults_of(one)
    for part in ("index 100; expected 0", "no column tasks", "row 0 is task 1; LeRobot", "shape [] of done"):
        assert any(part in fault for fault in found), part
    for name, sources in (("alone", [one]), ("both", [one, one])):
        out = tmp_path / name
        merge_datasets(sources, out)
        assert faults_of(out) == []
        assert rows_of(out)["index"].to_pylist() == list(range(ROWS * len(sources)))
        assert pq.read_table(out / EPISODES)["tasks"].to_pylist() == [list(TASKS), [TASKS[1]]] * len(sources)
        assert pq.read_table(out / "meta/tasks.parquet").to_pylist() == task_table(TASKS).to_pylist()
        assert read_json(out, "info")["features"]["done"]["shape"] == [1]


def test_a_tasks_table_with_the_text_as_a_column_gets_it_as_the_index(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one")
    table = task_table(TASKS).append_column("colour", pa.array(["red", "blue"]))
    pq.write_table(table.replace_schema_metadata(None), one / "meta/tasks.parquet")
    assert any("the texts are a column" in fault for fault in faults_of(one))
    merge_datasets([one], tmp_path / "out")
    after = pq.read_table(tmp_path / "out/meta/tasks.parquet")
    assert after.to_pylist() == table.to_pylist()
    assert json.loads(after.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert faults_of(tmp_path / "out") == []


def test_names_of_cameras_follow_from_their_shape(tmp_path: Path) -> None:
    nameless = Path(shutil.copytree(DATASET, tmp_path / "nameless"))
    edit_json(nameless, "info", lambda info: info["features"][TOP].update(names=None))
    assert faults_of(nameless) == []
    assert any(f"names of {TOP} are null" in note for note in faults_of(nameless, "note"))
    merge_datasets([nameless, DATASET], tmp_path / "out")
    assert read_json(tmp_path / "out", "info")["features"][TOP]["names"] == ["height", "width", "channels"]
    assert faults_of(tmp_path / "out", "note") == []


@pytest.mark.parametrize(
    ("column", "values", "part"),
    [
        ("length", [4.0, math.nan], "row 1 has nan in length"),
        ("length", [4, None], "row 1 has no value in length"),
        ("data/file_index", [None, 0], "row 0 has no value in data/file_index"),
        ("data/file_index", [0.0, math.inf], "row 1 has inf in data/file_index"),
    ],
)
def test_a_number_that_is_missing_in_the_episode_list_is_named(
    tmp_path: Path, column: str, values: list[float | None], part: str
) -> None:
    one = dataset(tmp_path / "one")
    edit_table(one, EPISODES, lambda t: t.set_column(t.column_names.index(column), column, pa.array(values)))
    with pytest.raises(SourceError, match=part):
        open_dataset(one)
    found = faults_of(one)
    assert any(part.replace("no value", "None") in fault for fault in found)
    assert not any("-1" in fault for fault in found)


@pytest.mark.parametrize(
    "what",
    [
        report_dataset,
        verify_dataset,
        lambda path: merge_datasets([path], path.parent / "out"),
        lambda path: reencode_dataset(path, path.parent / "out", fps=10),
    ],
)
def test_a_layout_before_v2_is_named(tmp_path: Path, what: Callable[[Path], object]) -> None:
    (tmp_path / "old/meta_data").mkdir(parents=True)
    (tmp_path / "old/meta_data/info.json").write_text('{"codebase_version": "v1.6", "fps": 30}')
    with pytest.raises(SourceError, match=r"of a layout before v2.0 .*convert_dataset_v1_to_v2"):
        what(tmp_path / "old")


def test_timestamps_of_a_clock_are_put_on_the_grid_when_asked(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one")
    with pytest.raises(ConfigError, match="every timestamp is frame_index / fps already"):
        merge_datasets([one], tmp_path / "out", retime=True)
    frames = rows_of(one)["frame_index"].to_numpy()
    clock = frames / 10 + np.array([0, 0.013, -0.021, 0.004] * 2)[:ROWS]
    edit_table(one, DATA, lambda t: set_column(t, "timestamp", clock.astype(np.float32)))
    with pytest.raises(
        SourceError, match=r"episode 0: row 1 has timestamp 0.113000.* retime=True, .*0.021 s"
    ):
        merge_datasets([one], tmp_path / "out")
    with pytest.warns(FfencWarning, match=r"the largest shift of a timestamp is 0.021 s"):
        merge_datasets([one], tmp_path / "out", retime=True)
    assert np.allclose(rows_of(tmp_path / "out")["timestamp"].to_numpy(), frames / 10, atol=1e-6)
    assert faults_of(tmp_path / "out") == []


def test_times_that_lerobot_would_still_find_are_those_of_the_frames_in_the_result(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one")
    frames = rows_of(one)["frame_index"].to_numpy()
    near = frames / 10 + np.array([0, 6e-5, -5e-5, 9e-5, 0, 0, 0])
    edit_table(one, DATA, lambda t: set_column(t, "timestamp", near.astype(np.float32)))
    merge_datasets([one], tmp_path / "out")
    written = rows_of(tmp_path / "out")["timestamp"].to_numpy()
    assert np.array_equal(written, (frames / 10).astype(np.float32))
    assert read_json(tmp_path / "out", "stats")["timestamp"]["max"] == [float(np.float32(0.3))]
    assert faults_of(tmp_path / "out") == faults_of(tmp_path / "out", "note") == []


def test_images_with_timestamps_of_a_clock_are_re_encoded_when_asked(tmp_path: Path) -> None:
    source = Path(shutil.copytree(DATASET, tmp_path / "source"))
    late = rows_of(source)["timestamp"].to_numpy() + np.float32(0.01)
    edit_table(source, DATA, lambda t: set_column(t, "timestamp", late))
    out, fast = tmp_path / "out", (("depth_encoder", "preset"), "ultrafast")
    with pytest.warns(FfencWarning, match=r"the largest shift of a timestamp is 0.010 s"):
        reencode_dataset(source, out, cameras=["angle_depth"], overrides=[fast], retime=True)
    assert np.allclose(rows_of(out)["timestamp"].to_numpy(), rows_of(DATASET)["timestamp"].to_numpy())
    assert faults_of(out) == []
    assert np.isclose(read_json(out, "stats")["timestamp"]["max"][0], 30 / 30)


# --- videos -----------------------------------------------------------------------------------------------


@pytest.fixture
def resumed(tmp_path: Path) -> Path:
    """A dataset begun in AV1 and gone on with in H.264: LeRobot allows it."""
    small, root = tmp_path / "small", tmp_path / "resumed"
    reencode_dataset(VIDEO, small, cameras=["angle"])  # copied
    edit_json(small, "info", lambda info: info.update(video_files_size_in_mb=0.001))
    merge_datasets([small, small], root)
    (root / "meta/videos.sha256").unlink()
    last = video_of(root, 1)
    command = [system_program("ffmpeg"), "-v", "error", "-i", str(last), "-c:v", "libx264", "-g", "2"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(tmp_path / "h264.mp4")], check=True)
    shutil.move(tmp_path / "h264.mp4", last)
    assert sample_description(video_of(root)) == sample_description(video_of(small))
    assert sample_description(video_of(root, 0)) != sample_description(last)
    assert sample_description(root / DATA) is None
    return root


def video_of(root: Path, number: int = 0) -> Path:
    return root / f"videos/{ANGLE}/chunk-000/file-{number:03d}.mp4"


@pytest.mark.filterwarnings("ignore:.*is re-encoded, not copied. its codec or pixel format differs")
def test_a_recording_that_went_on_with_another_codec_comes_into_line(resumed: Path, tmp_path: Path) -> None:
    h264 = [(("camera_encoder", "vcodec"), "h264")]
    with pytest.raises(SourceError, match=r"(?s)file-001.mp4 has another video.codec .*Pass reencode=True"):
        merge_datasets([resumed], tmp_path / "merged")
    for name, bring in (
        ("merged", lambda out: merge_datasets([resumed], out, reencode=True)),
        ("same", lambda out: reencode_dataset(resumed, out)),
        ("other", lambda out: reencode_dataset(resumed, out, overrides=h264)),
    ):
        out = tmp_path / name
        summary = bring(out)
        assert summary.copied == (0 if name == "other" else 3)
        codec = "h264" if name == "other" else "av1"
        files = sorted((out / f"videos/{ANGLE}/chunk-000").iterdir())
        assert {probe(path).codec for path in files} == {codec}
        block = read_json(out, "info")["features"][ANGLE]["info"]
        assert (block["video.codec"], block["video.crf"]) == (codec, 30)
        assert faults_of(out) == []
        shown = np.concatenate([decode(path) for path in files])
        whole = np.concatenate([decode(video_of(resumed, number)) for number in range(2)])
        assert min(psnr(a, b) for a, b in zip(shown, whole, strict=True)) > 28
