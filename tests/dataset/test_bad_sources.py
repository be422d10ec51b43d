"""Damaged sources are refused by name, before or during, and leave nothing behind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ffenc import DestinationError, SourceError, plan_reencode, reencode_dataset
from ffenc.dataset.columns import set_column
from ffenc.dataset.sources.lerobot import open_dataset
from ffenc.tune.footage import open_footage
from tests.conftest import ANGLE, DATASET, FIXTURES, TOP, everything_in
from tests.support.damage import change_table
from tests.support.make import H264, png_with
from tests.support.runs import refused


def change_rows(source: Path, change: object) -> None:
    path = source / "data/chunk-000/file-000.parquet"
    pq.write_table(change(pq.read_table(path)), path, row_group_size=24)


def with_image(table: pa.Table, row: int, data: bytes | None) -> pa.Table:
    values = table[ANGLE].to_pylist()
    values[row]["bytes"] = data
    at = table.column_names.index(ANGLE)
    return table.set_column(at, ANGLE, pa.array(values, table.schema.field(at).type))


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ("cut", "row 30.*cut short"),
        ("text", "row 30.*not a PNG, JPEG or TIFF"),
        ("none", "row 30 has no image"),
        ("other size", "row 30.*320x240.*first frame is a 160x120"),
        ("flipped", "row 30.*the image is damaged: checksum"),
        ("short", "row 30.*the image is damaged"),
    ],
)
def test_a_bad_image_in_the_table_is_named(
    dataset_copy: Path, tmp_path: Path, images: dict[str, list[bytes]], frame: str, said: str
) -> None:
    good = images[ANGLE][30]
    data = {
        "cut": good[: len(good) // 2],
        "text": b"some text instead of an image, long enough",
        "none": None,
        "other size": images[TOP][30],
        "flipped": png_with(good, "flipped bit"),
        "short": png_with(good, "short data, right checksum"),
    }[frame]
    change_rows(dataset_copy, lambda table: with_image(table, 30, data))
    refused(dataset_copy, tmp_path, said, cameras=["angle"])


def test_rows_that_do_not_match_their_episode_are_refused(dataset_copy: Path, tmp_path: Path) -> None:
    def set_column(name: str, row: int, value: object):
        def change(table: pa.Table) -> pa.Table:
            at = table.column_names.index(name)
            values = table[name].to_pylist()
            values[row] = value
            return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))

        return change

    original = pq.read_table(DATASET / "data/chunk-000/file-000.parquet")
    for name, row, value, said in (
        ("frame_index", 5, 6, "episode 0: row 5 has frame_index 6"),
        ("timestamp", 30, 9.0, r"episode 1: row 6 has timestamp 9\.0.*frame 6 at 30 fps is 0\.2"),
        ("episode_index", 23, 1, "episode 1: row 0 has frame_index 23"),
    ):
        change_rows(dataset_copy, lambda _, n=name, r=row, v=value: set_column(n, r, v)(original))
        refused(dataset_copy, tmp_path, said, cameras=["angle"])
        assert not list(tmp_path.glob(".out*"))


def test_a_missing_row_is_refused(dataset_copy: Path, tmp_path: Path) -> None:
    change_rows(dataset_copy, lambda table: table.slice(0, 70))
    refused(
        dataset_copy, tmp_path, "episode 2 has 29 rows, its length in meta/episodes is 31", cameras=["angle"]
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fps": None}, "fps: None is not a frame rate"),
        ({"fps": 0}, "fps: 0 is not a frame rate"),
        ({"codebase_version": "v1.6"}, r"layout v1\.6; v3\.0, v2\.1 and v2\.0 are read"),
        ({"features": {}}, "it has no cameras"),
    ],
)
def test_a_bad_info_file_is_refused(dataset_copy: Path, tmp_path: Path, change: dict, said: str) -> None:
    path = dataset_copy / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused(dataset_copy, tmp_path, said)


def test_damaged_files_are_named(dataset_copy: Path, tmp_path: Path) -> None:
    (dataset_copy / "meta/info.json").write_text("{")
    refused(dataset_copy, tmp_path, r"info\.json: cannot be read")
    (dataset_copy / "meta/info.json").write_bytes((DATASET / "meta/info.json").read_bytes())
    data = dataset_copy / "data/chunk-000/file-000.parquet"
    data.write_bytes(data.read_bytes()[:100_000])
    refused(dataset_copy, tmp_path, r"file-000\.parquet.*cannot be read", cameras=["angle"])
    data.unlink()
    refused(dataset_copy, tmp_path, r"file-000\.parquet.*cannot be read", cameras=["angle"])
    (dataset_copy / "meta/episodes/chunk-000/file-000.parquet").unlink()
    refused(dataset_copy, tmp_path, "holds no episodes", cameras=["angle"])


def test_cameras_that_are_called_video_and_are_images_are_refused(dataset_copy: Path, tmp_path: Path) -> None:
    path = dataset_copy / "meta/info.json"
    path.write_text(path.read_text().replace('"dtype": "image"', '"dtype": "video"'))
    refused(dataset_copy, tmp_path, "has no column videos/observation.images.top/chunk_index")


def test_trees_with_faults_are_refused(
    png_tree: Path, tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    refused(png_tree, tmp_path, "has no frame rate: pass fps")
    frame = png_tree / "episode_000001/top/frame-000009.png"
    good = frame.read_bytes()
    for data, said in (
        (good[:1000], r"frame-000009\.png.*cut short"),
        (b"", r"frame-000009\.png.*empty"),
        (b"not an image", r"frame-000009\.png.*not a PNG"),
        (images[ANGLE][0], r"frame-000009\.png.*160x120.*320x240"),
        (png_with(good, "flipped bit"), r"frame-000009\.png.*damaged"),
    ):
        frame.write_bytes(data)
        refused(png_tree, tmp_path, said, fps=30, cameras=["top"], episodes=[1])
    frame.unlink()
    refused(png_tree, tmp_path, "frame 9 is missing", fps=30)
    frame.write_bytes(good)
    last = png_tree / "episode_000002/angle/frame-000030.png"
    last.unlink()
    refused(png_tree, tmp_path, "cameras of episode 2 have different numbers of frames", fps=30)
    for path in (png_tree / "episode_000001/angle").iterdir():
        path.unlink()
    refused(png_tree, tmp_path, "episode 1 has no frames of observation.images.angle", fps=30)
    (png_tree / "episode_000001").rename(png_tree / "episode_000007")
    refused(png_tree, tmp_path, "episodes are missing", fps=30)


def test_faults_in_other_episodes_of_a_tree_do_not_matter(
    png_tree: Path, tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    for name, damage in (("gap", None), ("size", images[ANGLE][0])):
        tree = Path(shutil.copytree(png_tree, tmp_path / name))
        frame = tree / "episode_000001/top/frame-000009.png"
        frame.unlink()
        if damage is not None:
            frame.write_bytes(damage)
        refused(tree, tmp_path, "frame.*9", fps=30)
        plan = plan_reencode(tree, tmp_path / "out", fps=30, overrides=H264, episodes="0,2")
        assert [episode.index for episode in plan.episodes] == [0, 2]
        with ExitStack() as closing:
            footage = open_footage(tree, closing, fps=30, episodes=[0, 2])
            assert [list(one.episodes) for one in footage] == [[0, 2], [0, 2]]


def test_a_tree_of_nothing_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    refused(source, tmp_path, "neither a LeRobot dataset nor frames", fps=30)
    refused(tmp_path / "none", tmp_path, "none does not exist; supported are datasets", fps=30)


def test_odd_sizes_are_refused_before_anything_starts(tmp_path: Path) -> None:
    folder = tmp_path / "source/episode_0/cam"
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((33, 64, 3), np.uint8)).save(folder / "0.png")
    refused(tmp_path / "source", tmp_path, r"observation\.images\.cam: 64x33.*yuv444p", fps=30)
    assert not list(tmp_path.glob(".*"))


def test_the_advice_for_an_odd_size_leaves_other_cameras_as_they_are(tmp_path: Path) -> None:
    for camera, size in (("cam", (33, 64, 3)), ("wide", (64, 128, 3))):
        folder = tmp_path / "source/episode_0" / camera
        folder.mkdir(parents=True)
        Image.fromarray(np.zeros(size, np.uint8)).save(folder / "0.png")
    said = r"cameras\.cam\.crop='64x32\+0\+0', cameras\.cam\.resize='64x32', or cameras\.cam\.pad=True"
    refused(tmp_path / "source", tmp_path, said, fps=30)


def change_episodes(source: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = source / "meta/episodes/chunk-000/file-000.parquet"
    original = pq.read_table(DATASET / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(change(original), path)


def set_values(name: str, values: list[object]) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.column_names.index(name), name, pa.array(values))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.slice(1), "has rows of episode 0, which according to meta/episodes are elsewhere"),
        (lambda t: t.slice(0, 2), "has rows of episode 2, which according to meta/episodes are elsewhere"),
        (
            lambda t: pa.concat_tables([t.slice(1, 1), t.slice(0, 1), t.slice(2)]),
            "duplicated or out of order",
        ),
        (set_values("length", [24, 17, 30]), "episode 2 has 31 rows, its length in meta/episodes is 30"),
        (set_values("length", [24, 0, 31]), "episode 1 has length 0"),
        (set_values("length", [24, None, 31]), "row 1 has no value in length"),
        (set_values("data/file_index", [0, 1, 0]), r"file-000\.parquet: has rows of episode 1"),
        (lambda t: t.drop(["length"]), "has no column length"),
    ],
)
def test_an_episode_list_that_does_not_match_the_rows_is_refused(
    dataset_copy: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table], said: str
) -> None:
    change_episodes(dataset_copy, change)
    refused(dataset_copy, tmp_path, said, cameras=["angle"])


def test_episodes_that_changed_places_in_the_data_file_are_refused(
    dataset_copy: Path, tmp_path: Path
) -> None:
    change_rows(dataset_copy, lambda t: pa.concat_tables([t.slice(24, 17), t.slice(0, 24), t.slice(41)]))
    refused(dataset_copy, tmp_path, "another order", cameras=["angle"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([float("nan")] * 72, "row 0 has timestamp nan"),
        ([None] * 72, "timestamp has rows without a value"),
        (["x"] * 72, "timestamp is string; expected numbers"),
    ],
)
def test_times_that_are_none_are_refused(
    dataset_copy: Path, tmp_path: Path, values: list[object], said: str
) -> None:
    kind = pa.string() if values[0] == "x" else pa.float32()
    change_rows(
        dataset_copy,
        lambda t: t.set_column(t.column_names.index("timestamp"), "timestamp", pa.array(values, kind)),
    )
    refused(dataset_copy, tmp_path, said, cameras=["angle"])


def test_totals_and_tasks_are_checked(dataset_copy: Path, tmp_path: Path) -> None:
    path = dataset_copy / "meta/info.json"
    good = path.read_text()
    path.write_text(good.replace('"total_episodes": 3', '"total_episodes": 5'))
    refused(dataset_copy, tmp_path, "says total_episodes 5, meta/episodes has 3", cameras=["angle"])
    path.write_text(good)
    (dataset_copy / "meta/tasks.parquet").write_bytes(b"xx")
    refused(dataset_copy, tmp_path, r"tasks\.parquet: cannot be read", cameras=["angle"])


def test_a_camera_named_like_a_path_is_refused(dataset_copy: Path, tmp_path: Path) -> None:
    path = dataset_copy / "meta/info.json"
    path.write_text(path.read_text().replace(ANGLE + '"', '../../escape"'))
    refused(dataset_copy, tmp_path, "the name of a camera: .*expected a plain name")


def test_a_result_inside_its_source_is_refused(dataset_copy: Path, tmp_path: Path) -> None:
    before = everything_in(tmp_path)
    for target in (dataset_copy / "out", dataset_copy):
        with pytest.raises(DestinationError):
            reencode_dataset(dataset_copy, target, cameras=["angle"])
    assert everything_in(tmp_path) == before


def test_what_would_vanish_from_a_tree_in_silence_is_refused(png_tree: Path, tmp_path: Path) -> None:
    last = png_tree / "episode_000002/top/frame-000030.png"
    good = last.read_bytes()
    last.unlink()
    last.symlink_to(tmp_path / "nowhere")
    refused(png_tree, tmp_path, r"frame-000030\.png: is a link, .* points outside", fps=30)
    last.unlink()
    (last.with_suffix(".webp")).write_bytes(good)
    refused(
        png_tree, tmp_path, r"frame-000030\.webp: only PNG, JPEG and TIFF .depth. frames are read", fps=30
    )
    last.with_suffix(".webp").unlink()
    last.write_bytes(good)
    twin = png_tree / "episode_000000/observation.images.top"
    twin.mkdir()
    (twin / "0.png").write_bytes(good)
    refused(png_tree, tmp_path, "are the same camera", fps=30)
    shutil.rmtree(twin)
    (png_tree / "episode_000003").symlink_to(tmp_path / "nowhere")
    refused(png_tree, tmp_path, "episode_000003: is a link, .* points outside", fps=30)


def test_kept_encodes_of_another_source_are_not_taken_over(png_tree: Path, tmp_path: Path) -> None:
    """The same names, sizes and times, as archives of uncompressed images have."""
    other = Path(shutil.copytree(png_tree, tmp_path / "other"))
    bad = png_tree / "episode_000002/top/frame-000030.png"
    bad.write_bytes(png_with(bad.read_bytes(), "flipped bit"))
    for path in (*png_tree.rglob("*.png"), *other.rglob("*.png")):
        os.utime(path, (0, 0))
    options = {"fps": 30, "cameras": ["top"], "workers": 1, "overrides": H264}
    with pytest.raises(SourceError):
        reencode_dataset(png_tree, tmp_path / "out", **options)
    summary = reencode_dataset(other, tmp_path / "out", resume=True, **options)
    assert (summary.resumed, summary.outdated) == (0, 2)


def test_an_overlap_is_named_with_the_episode_of_the_same_file(tmp_path: Path) -> None:
    root = shutil.copytree(FIXTURES / "aloha_video_v30", tmp_path / "video")
    first = root / f"videos/{TOP}/chunk-000/file-000.mp4"
    shutil.copyfile(first, first.with_name("file-001.mp4"))

    def moved(table: pa.Table) -> pa.Table:
        for name, values in (
            ("file_index", [0, 1, 0]),
            ("from_timestamp", [0.0, 24 / 30, 0.5]),
            ("to_timestamp", [24 / 30, 41 / 30, 0.5 + 31 / 30]),
        ):
            table = set_column(table, f"videos/{TOP}/{name}", values)
        return table

    change_table(root, "meta/episodes/chunk-000/file-000.parquet", moved)
    damaged = open_dataset(root, partial=True).damaged()
    assert set(damaged) == {0, 2}
    assert (
        "episode 2 of observation.images.top starts at 0.500000 s of file-000.mp4, within episode 0"
        in (damaged[0])
    )


def test_an_encoder_in_the_info_block_that_is_no_text_is_not_known(tmp_path: Path) -> None:
    root = shutil.copytree(FIXTURES / "aloha_video_v30", tmp_path / "video")
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"][TOP]["info"]["video.encoder"] = {"vcodec": ["libsvtav1"]}
    path.write_text(json.dumps(info))
    plan = plan_reencode(root, tmp_path / "out", cameras=["top"])
    assert [len(stream.copied) for stream in plan.streams] == [3]
