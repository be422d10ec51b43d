"""A dataset at a lower rate: every row has its own frame, values and time."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffenc import ConfigError, VideoReader, reencode_dataset, verify_dataset
from ffenc.config.framerate import Pick, parse_fps
from ffenc.dataset.edit import edit_dataset, plan_edit
from ffenc.dataset.reencode import plan_reencode
from ffenc.dataset.sources.lerobot import open_dataset
from ffenc.dataset.thinned import thinned
from ffenc.ffmpeg.toolchain import Toolchain
from tests.conftest import (
    ANGLE,
    DATASET,
    DEPTH,
    FIXTURES,
    LENGTHS,
    TOP,
    decode,
    newest_programs,
    pixels,
    psnr,
    starts,
)
from tests.support.read import json_of, rows_of

VIDEO = FIXTURES / "aloha_video_v30"
H264 = ("camera_encoder", "vcodec"), "h264"


def kept_rows(pick: Pick) -> list[int]:
    """The source's rows that stay."""
    return [start + i for start, n in zip(starts(), LENGTHS, strict=True) for i in pick.indices(n)]


@pytest.mark.parametrize("fps", ["10", "12"])
def test_rows_and_frames_of_images_stay_in_step(
    fps: str, tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    out, pick = tmp_path / "out", Pick(parse_fps(30), parse_fps(fps))
    ultrafast = ("depth_encoder", "preset"), "ultrafast"
    cameras = ["top", "angle_depth"]
    reencode_dataset(
        DATASET, out, cameras=cameras, overrides=[H264, ultrafast], fps=fps, fps_nearest=fps == "12"
    )
    kept, before, rows = kept_rows(pick), rows_of(DATASET), rows_of(out)
    for name in ("action", "observation.state", "task_index", "episode_index"):
        assert rows[name].to_pylist() == before.take(kept)[name].to_pylist()
    counts = [pick.count(n) for n in LENGTHS]
    numbers = [i for n in counts for i in range(n)]
    assert rows["frame_index"].to_pylist() == numbers
    np.testing.assert_allclose(rows["timestamp"].to_numpy(), np.array(numbers) / float(fps), atol=1e-6)
    assert rows["index"].to_pylist() == list(range(len(kept)))
    assert json_of(out, "info")["fps"] == float(fps)
    assert json_of(out, "info")["total_frames"] == len(kept)
    listed = pq.read_table(next((out / "meta/episodes").rglob("*.parquet")))
    assert listed["length"].to_pylist() == counts
    shown = decode(next((out / "videos" / TOP).rglob("*.mp4")))
    wanted = np.stack([pixels(images[TOP][row]) for row in kept])
    assert shown.shape == wanted.shape
    assert all(psnr(a, b) > 30 for a, b in zip(shown, wanted, strict=True))
    actions = np.array(rows["action"].to_pylist())
    stats = json_of(out, "stats")
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(stats["action"]["q99"], np.quantile(actions, 0.99, axis=0), rtol=1e-5)
    assert stats[TOP]["count"] == [len(kept)]
    found = verify_dataset(out, deep=True, against=DATASET)
    assert found.faults == []
    assert next(camera.compared for camera in found.cameras if camera.camera == DEPTH).differing == 0


@pytest.mark.parametrize(
    ("toolchain", "fps"),
    [("newest", "15"), ("newest", "13"), pytest.param("system", "13", marks=pytest.mark.long)],
    indirect=["toolchain"],
)
def test_frames_of_video_are_picked_by_their_place(
    toolchain: Toolchain, two_cameras: Path, fps: str, tmp_path: Path
) -> None:
    out, pick = tmp_path / "out", Pick(parse_fps(30), parse_fps(fps))
    edit_dataset(two_cameras, out, fps=fps, fps_nearest=fps == "13", episodes=[1, 2])
    kept = [row for row in kept_rows(pick) if row >= starts()[1]]
    before, after = (decode(next((root / "videos" / ANGLE).rglob("*.mp4"))) for root in (VIDEO, out))
    assert len(after) == len(kept)
    for number, row in enumerate(kept):
        likeness = [psnr(after[number], before[other]) for other in range(max(0, row - 2), min(72, row + 3))]
        assert psnr(after[number], before[row]) == max(likeness)
    codes = []
    for root in (VIDEO, out):
        path = next((root / "videos" / DEPTH).rglob("*.mp4"))
        with VideoReader(path, depth=False, decoder="pyav") as reader:
            codes.append(np.stack([frame.copy() for frame in reader]))
    np.testing.assert_array_equal(codes[1], codes[0][kept])
    assert verify_dataset(out, deep=True, **newest_programs()).faults == []
    block, own = (
        json_of(out, "info")["features"][ANGLE]["info"],
        json_of(VIDEO, "info")["features"][ANGLE]["info"],
    )
    assert [block[f"video.{name}"] for name in ("codec", "crf", "g")] == [
        own[f"video.{name}"] for name in ("codec", "crf", "g")
    ]


def test_images_that_stay_are_picked_too(tmp_path: Path, dataset_v21: Path) -> None:
    out, pick = tmp_path / "out", Pick(parse_fps(30), parse_fps(6))
    edit_dataset(dataset_v21, out, fps=6)
    before, after = rows_of(DATASET), rows_of(out)
    kept = kept_rows(pick)
    for key in (TOP, ANGLE):
        found = [row["bytes"] for row in after[key].to_pylist()]
        assert found == [row["bytes"] for row in before.take(kept)[key].to_pylist()]
        assert [row["path"][6:12] for row in after[key].to_pylist()] == [
            f"{number:06d}" for number in after["frame_index"].to_pylist()
        ]
    assert verify_dataset(out, deep=True).faults == []


def test_a_rate_that_cannot_be_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for fps, nearest, said in (
        ("12", False, r"does not divide the dataset's 30: use one that does \(15, 10, 7.5, 6, 5\)"),
        ("60", False, "fps='60' is more than the dataset's 30"),
        ("10", True, "fps_nearest=True would have no effect: 10 divides 30"),
        (None, True, "fps_nearest=True would have no effect: the dataset has 30 fps"),
    ):
        with pytest.raises(ConfigError, match=said):
            plan_reencode(DATASET, out, fps=fps, fps_nearest=nearest)
    with pytest.raises(ConfigError, match="fps=30 would have no effect"):
        plan_edit(VIDEO, out, fps=30)


@pytest.mark.parametrize("rate", ["30000/1001", "1000", "59.94", "30"])
@pytest.mark.parametrize("wanted", ["13", "7", "1.7", "0.7"])
def test_the_rates_that_an_error_names_are_accepted(rate: str, wanted: str, dataset_copy: Path) -> None:
    info = json_of(dataset_copy, "info") | {"fps": float(Fraction(rate))}
    (dataset_copy / "meta/info.json").write_text(json.dumps(info))
    source = open_dataset(dataset_copy, retime=True)
    with pytest.raises(ConfigError, match=r"\(.*\), or fps_nearest=True") as refused:
        thinned(source, wanted, nearest=False)
    named = str(refused.value).partition("(")[2].partition(")")[0].split(", ")
    found = [thinned(source, one, nearest=False).pick.ratio for one in named]
    assert len(found) == 5
    assert all(ratio.denominator == 1 for ratio in found)


def test_a_tree_of_images_has_the_rate_that_is_said(png_tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fps_nearest=True applies to datasets"):
        plan_reencode(png_tree, tmp_path / "out", fps=30, fps_nearest=True)


def test_an_episode_lists_the_tasks_of_the_rows_that_are_kept(dataset_copy: Path, tmp_path: Path) -> None:
    """Every second row has the other task; at half of the rate only the first is left."""
    path = dataset_copy / "data/chunk-000/file-000.parquet"
    rows = pq.read_table(path)
    numbers = [i % 2 if i < LENGTHS[0] else task for i, task in enumerate(rows["task_index"].to_pylist())]
    at = rows.column_names.index("task_index")
    pq.write_table(rows.set_column(at, rows.schema.field(at), pa.array(numbers, pa.int64())), path)
    listed = next((dataset_copy / "meta/episodes").rglob("*.parquet"))
    episodes = pq.read_table(listed)
    texts = pq.read_table(dataset_copy / "meta/tasks.parquet")["task"].to_pylist()
    tasks = [texts, *episodes["tasks"].to_pylist()[1:]]
    at = episodes.column_names.index("tasks")
    field = episodes.schema.field(at)
    pq.write_table(episodes.set_column(at, field, pa.array(tasks, field.type)), listed)
    edit_dataset(dataset_copy, tmp_path / "out", fps=15, cameras=["angle"])
    found = pq.read_table(next((tmp_path / "out/meta/episodes").rglob("*.parquet")))
    assert found["tasks"].to_pylist() == [[texts[0]], *tasks[1:]]
    assert found.schema.field("tasks") == field
    assert set(rows_of(tmp_path / "out")["task_index"].to_pylist()[: LENGTHS[0] // 2]) == {0}
