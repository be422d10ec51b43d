"""Statistics are those of the rows: quantiles too, however many episodes and files there are."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffenc import (
    ConfigError,
    DestinationError,
    SourceError,
    VideoReader,
    merge_datasets,
    reencode_dataset,
    verify_dataset,
)
from ffenc.dataset import quantiles
from ffenc.dataset.columns import numbers_of
from ffenc.dataset.edit import edit_dataset
from ffenc.dataset.edited import Edits
from ffenc.dataset.quantiles import exact_quantiles
from ffenc.dataset.restat import OLD_STATS, _replace, restate
from ffenc.frames.publish import claimed
from tests.conftest import ANGLE, DATASET, DEPTH, FIXTURES, LENGTHS, everything_in
from tests.support.read import stats_of

VIDEO = FIXTURES / "aloha_video_v30"
SQUARE = pa.list_(pa.list_(pa.float32()))
NAMES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
H264 = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "preset"), "ultrafast")]


def values_of(root: Path, name: str) -> np.ndarray:
    tables = [pq.read_table(path, columns=[name]) for path in sorted((root / "data").rglob("*.parquet"))]
    return np.asarray(numbers_of(pa.concat_tables(tables)[name]), np.float64)


def assert_exact(root: Path) -> None:
    """Every statistic of a column of numbers is NumPy's of its rows."""
    for name in ("action", "observation.state", "timestamp", "index", "episode_index", "task_index"):
        own, values = stats_of(root)[name], values_of(root, name)
        for quantile, share in NAMES.items():
            wanted = np.atleast_1d(np.quantile(values, share, axis=0))
            np.testing.assert_allclose(own[quantile], wanted, rtol=1e-9, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(own["mean"], np.atleast_1d(values.mean(axis=0)), rtol=1e-4, atol=1e-6)
        assert own["count"] == [len(values)]


def test_a_merge_a_part_and_an_edit_have_the_quantiles_of_their_rows(
    two_cameras: Path, dataset_v21: Path, tmp_path: Path
) -> None:
    """Also where one of the sources has no quantiles, as LeRobot's layout v2.1 has none."""
    merge_datasets([two_cameras, two_cameras], tmp_path / "merged")
    edit_dataset(DATASET, tmp_path / "images", cameras=["top", "angle"])
    merge_datasets([dataset_v21, tmp_path / "images"], tmp_path / "older")
    reencode_dataset(DATASET, tmp_path / "part", cameras=["angle"], episodes="0,2", overrides=H264)
    edit_dataset(two_cameras, tmp_path / "edited", exclude_episodes=[0])
    for name in ("merged", "older", "part", "edited"):
        assert_exact(tmp_path / name)
        assert verify_dataset(tmp_path / name).sound
        assert restate(tmp_path / name).differences == []


def test_kept_quantiles_are_the_mean_of_the_episodes(two_cameras: Path, tmp_path: Path) -> None:
    """As LeRobot aggregates them."""
    edit_dataset(two_cameras, tmp_path / "kept", episodes=[0, 2], stats="keep")
    lists = pq.read_table(next((VIDEO / "meta/episodes").rglob("*.parquet"))).take([0, 2])
    own = np.array(lists["stats/action/q99"].to_pylist())
    weighted = np.average(own, axis=0, weights=[LENGTHS[0], LENGTHS[2]])
    np.testing.assert_allclose(stats_of(tmp_path / "kept")["action"]["q99"], weighted, rtol=1e-9)
    found = restate(tmp_path / "kept")
    assert {one.name for one in found.differences} <= set(NAMES)
    assert found.differences[0].share > 0.1
    assert not found.written
    for source, options in ((VIDEO, {"edits": Edits(task="a")}), (VIDEO, {"edits": Edits(robot_type="b")})):
        with pytest.raises(ConfigError, match="stats='keep' would have no effect"):
            edit_dataset(source, tmp_path / "out", stats="keep", **options)
    with pytest.raises(ConfigError, match="did you mean 'keep'"):
        merge_datasets([VIDEO], tmp_path / "out", stats="kep")  # type: ignore[arg-type]


@pytest.mark.parametrize("held", [1, 1 << 30])
def test_quantiles_are_numpys_whatever_the_type_and_wherever_they_stand(
    held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantiles, "HELD_BYTES", held)
    monkeypatch.setattr(quantiles, "_ROWS", 7)
    draw = np.random.default_rng(3)
    wide = draw.normal(size=(50, 3)).astype(np.float32)
    columns = {
        "wide": pa.FixedSizeListArray.from_arrays(pa.array(wide.ravel()), 3),
        "list": pa.array(wide.tolist(), pa.list_(pa.float64())),
        "whole": pa.array(draw.integers(-9, 9, 50), pa.int16()),
        "flag": pa.array(draw.integers(0, 2, 50).astype(bool)),
        "half": pa.array(wide[:, 0].astype(np.float16)),
        "square": pa.array(
            wide[:48].reshape(16, 3, 3).repeat(4, 0)[:50].tolist(), pa.list_(pa.list_(pa.float32()))
        ),
    }
    table = pa.table(columns)
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    pq.write_table(table.slice(0, 20), files[0])
    pq.write_table(table.slice(20), files[1])
    for name in columns:
        values = np.asarray(numbers_of(table[name]), np.float64)
        values = values.reshape(-1, 1 if values.ndim == 1 else values.shape[-1])
        found = exact_quantiles(files, name)
        for quantile, share in NAMES.items():
            np.testing.assert_array_equal(found[quantile], np.quantile(values, share, axis=0), err_msg=name)
    pq.write_table(table.slice(0, 0), files[0])
    with pytest.raises(SourceError, match="has no rows of wide"):
        exact_quantiles(files[:1], "wide")


def test_statistics_are_corrected_in_place_and_the_old_ones_kept(two_cameras: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(two_cameras, tmp_path / "root"))
    old = (root / "meta/stats.json").read_bytes()
    spoilt = stats_of(root)
    spoilt["action"]["max"][3] += 1
    del spoilt["observation.state"]["std"]
    del spoilt["index"]
    (root / "meta/stats.json").write_text(json.dumps(spoilt))
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    found = restate(root)
    named = {(one.feature, one.name): one for one in found.differences}
    assert named["action", "max"].at == 3
    assert named["observation.state", "std"].stored is None
    assert ("index", "mean") in named
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert restate(root, write=True).written
    assert_exact(root)
    assert stats_of(root)[ANGLE] == json.loads(old)[ANGLE]
    assert (root / OLD_STATS).read_bytes() == before[root / "meta/stats.json"]
    assert [fault.kind for fault in verify_dataset(root, deep=True).faults] == []
    assert restate(root, write=True).differences == []

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")  # as on exFAT

    known = (root / "meta/stats.json").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", refused)
        _replace(root, spoilt)
    assert ((root / OLD_STATS).read_bytes(), stats_of(root)) == (known, spoilt)


def test_statistics_of_a_matrix_count_its_rows(two_cameras: Path, tmp_path: Path) -> None:
    """They are over all dimensions but the last, as LeRobot's; the count is the number of rows."""
    root = Path(shutil.copytree(two_cameras, tmp_path / "root"))
    path = next((root / "data").rglob("*.parquet"))
    table = pq.read_table(path).replace_schema_metadata(None)
    values = np.random.default_rng(5).normal(size=(table.num_rows, 2, 3)).astype(np.float32)
    pq.write_table(table.append_column("pose", pa.array(values.tolist(), SQUARE)), path)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["pose"] = {"dtype": "float32", "shape": [2, 3], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    assert restate(root, write=True).written
    own = stats_of(root)["pose"]
    assert own["count"] == [table.num_rows]
    np.testing.assert_allclose(own["std"], values.reshape(-1, 3).std(axis=0), rtol=1e-5)
    edit_dataset(root, tmp_path / "out", edits=Edits(task="a"))
    assert stats_of(tmp_path / "out")["pose"]["count"] == [table.num_rows]


def test_two_runs_do_not_take_each_others_statistics_for_the_old_ones(tmp_path: Path) -> None:
    root = Path(shutil.copytree(VIDEO, tmp_path / "root"))
    before = everything_in(root)
    with claimed(root / "meta/stats.json"):
        assert restate(root).differences
        with pytest.raises(DestinationError, match=r"stats.json is being written by another run"):
            restate(root, write=True)
    assert restate(root, write=True).written
    assert set(everything_in(root)) - set(before) == {OLD_STATS}


def test_statistics_of_relative_actions_are_left(tmp_path: Path) -> None:
    root = Path(shutil.copytree(VIDEO, tmp_path / "root"))
    stats = stats_of(root)
    stats["action"]["count"] = [sum(length - 9 for length in LENGTHS) * 10]
    (root / "meta/stats.json").write_text(json.dumps(stats))
    found = restate(root, write=True)
    assert "over chunks of 10 rows" in found.left["action"]
    assert stats_of(root)["action"] == stats["action"]


def test_an_older_layout_is_told_how_to_get_statistics_of_all_rows(dataset_v21: Path) -> None:
    with pytest.raises(SourceError, match="merge_datasets"):
        restate(dataset_v21)


def frames_of_all(root: Path, key: str) -> np.ndarray:
    """All frames of a camera, (N, H, W, 3) uint8, or of depth (N, H, W) uint16 in mm."""
    with VideoReader(next((root / "videos" / key).rglob("*.mp4"))) as reader:
        return np.stack([frame.copy() for frame in reader])


def test_quantiles_of_cameras_that_are_encoded_are_those_of_all_their_frames(tmp_path: Path) -> None:
    overrides = [*H264, (("camera_encoder", "crf"), 0), (("camera_encoder", "pix_fmt"), "yuv444p")]
    overrides.append((("depth_encoder", "preset"), "ultrafast"))
    source = Path(shutil.copytree(DATASET, tmp_path / "source"))
    (source / "meta/stats.json").unlink()
    out = tmp_path / "out"
    reencode_dataset(source, out, cameras=["angle", "angle_depth"], overrides=overrides)
    for key, scale in ((ANGLE, 255), (DEPTH, 1)):
        frames = frames_of_all(out, key).astype(np.float64) / scale
        own = stats_of(out)[key]
        for name, share in NAMES.items():
            wanted = np.quantile(frames.reshape(-1, 3 if key == ANGLE else 1), share, axis=0)
            # They are of the images: depth before it was quantised. The rest is x264's, and steps of codes.
            found = np.minimum(np.ravel(own[name]), frames.max())
            np.testing.assert_allclose(found, wanted, rtol=0.004, atol=2.1 / 255, err_msg=name)
    assert not [note for note in verify_dataset(out, deep=True).notes if note.kind == "quantiles"]


def test_quantiles_of_a_camera_are_corrected_from_its_frames(two_cameras: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(two_cameras, tmp_path / "root"))
    notes = [note for note in verify_dataset(root).notes if note.kind == "quantiles"]
    assert len(notes) == 1
    assert "deep=True measures how far" in notes[0].what
    assert "cameras=True, write=True" in notes[0].fix
    deep = [note for note in verify_dataset(root, deep=True).notes if note.kind == "quantiles"]
    assert [note.camera for note in deep] == ["action"]
    assert "q50 of action[12] is -0.177073, but -0.0179991 over all rows" in deep[0].what
    before = stats_of(root)
    plain = restate(root)
    assert not any(one.feature == ANGLE for one in plain.differences)
    found = restate(root, cameras=True, write=True)
    assert {one.feature for one in found.differences} >= {ANGLE, "action"}
    after = stats_of(root)
    frames = frames_of_all(root, ANGLE).reshape(-1, 3) / 255
    for name, share in NAMES.items():
        wanted = np.quantile(frames, share, axis=0)
        np.testing.assert_allclose(np.ravel(after[ANGLE][name]), wanted, atol=1 / 255)
        assert after[DEPTH][name] == before[DEPTH][name]
    assert {name: after[ANGLE][name] for name in ("min", "max", "mean", "std", "count")} == {
        name: before[ANGLE][name] for name in ("min", "max", "mean", "std", "count")
    }
    assert "before it was quantised" in found.left[DEPTH]
    assert restate(root, cameras=True).differences == []
    assert not [note for note in verify_dataset(root, deep=True).notes if note.kind == "quantiles"]


def test_exact_quantiles_of_a_column_of_true_and_false_are_not_noted(
    two_cameras: Path, tmp_path: Path
) -> None:
    """They are the least or the greatest of the episodes', as an earlier LeRobot aggregated them."""
    root = Path(shutil.copytree(two_cameras, tmp_path / "root"))
    path = next((root / "data").rglob("*.parquet"))
    table = pq.read_table(path)
    failed = np.asarray(table["episode_index"]) == 1
    table = table.append_column("success", pa.array(~failed)).replace_schema_metadata(None)
    pq.write_table(table.append_column("open", pa.array(failed.astype(np.float32))), path)
    info = json.loads((root / "meta/info.json").read_text())
    for name, dtype in (("success", "bool"), ("open", "float32")):
        info["features"][name] = {"dtype": dtype, "shape": [1], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/stats.json").unlink()
    edit_dataset(root, tmp_path / "out", edits=Edits(task="a"))
    each = pq.read_table(next((tmp_path / "out/meta/episodes").rglob("*.parquet")))
    assert each["stats/success/q10"].to_pylist() == [[1.0], [0.0], [1.0]]
    own = stats_of(tmp_path / "out")
    assert (own["success"]["q10"], own["success"]["q50"], own["open"]["q90"]) == ([0.0], [1.0], [1.0])
    notes = [note for note in verify_dataset(tmp_path / "out").notes if note.kind == "quantiles"]
    assert not any("success" in note.what or "open" in note.what for note in notes)
    own["success"]["q50"] = [0.0]
    (tmp_path / "out/meta/stats.json").write_text(json.dumps(own))
    notes = [note for note in verify_dataset(tmp_path / "out").notes if note.kind == "quantiles"]
    assert [note for note in notes if "success" in note.what]


def test_resumed_work_gives_the_same_quantiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(shutil.copytree(DATASET, tmp_path / "source"))
    (source / "meta/stats.json").unlink()
    options: dict[str, Any] = {"cameras": ["angle"], "overrides": H264, "episodes": [0, 1]}
    reencode_dataset(source, tmp_path / "a", **options)

    def fail(*_: object, **__: object) -> None:
        raise SourceError("the end of the first run")

    with monkeypatch.context() as patch:
        patch.setattr("ffenc.dataset.job.run.check_result", fail)
        with pytest.raises(SourceError, match="the first run"):
            reencode_dataset(source, tmp_path / "b", **options)
    assert reencode_dataset(source, tmp_path / "b", resume=True, **options).resumed == 2
    assert stats_of(tmp_path / "a") == stats_of(tmp_path / "b")
