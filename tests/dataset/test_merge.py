"""Several video datasets become one: packets as they were, numbers and statistics as they have to be."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffenc import (
    ConfigError,
    DestinationError,
    FfencWarning,
    SourceError,
    VideoReader,
    merge_datasets,
    plan_merge,
    probe,
    reencode_dataset,
    verify_dataset,
)
from ffenc.dataset import columns
from ffenc.dataset.checksums import read_checksums
from ffenc.dataset.staging import Staging
from ffenc.dataset.statistics import Aggregate, column_stats
from ffenc.dataset.videos import compare_checksum
from ffenc.errors import Cancelled
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.toolchain import Toolchain
from tests.conftest import (
    ANGLE,
    DEPTH,
    FIXTURES,
    LENGTHS,
    TOP,
    decode,
    everything_in,
    newest_programs,
    starts,
    system_if_long,
)
from tests.support.command_line import CommandLine
from tests.support.read import contents, episodes_of, json_of, packets, rows_of, video_of

VIDEO = FIXTURES / "aloha_video_v30"
CAMERAS = (TOP, ANGLE, DEPTH)
H264 = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "crf"), 23)]


def block_of(root: Path, key: str) -> dict[str, Any]:
    return json_of(root, "info")["features"][key]["info"]


def copy_of(source: Path, root: Path, change: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """A copy of a dataset, with another info.json."""
    shutil.copytree(source, root)
    if change is not None:
        info = json_of(root, "info")
        change(info)
        (root / "meta/info.json").write_text(json.dumps(info))
    return root


def set_block(key: str, **fields: Any) -> Callable[[dict[str, Any]], None]:
    def change(info: dict[str, Any]) -> None:
        info["features"][key]["info"] |= {f"video.{name}": value for name, value in fields.items()}

    return change


@pytest.fixture(scope="module")
def h264(two_cameras: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample with its colour cameras as h264, with B-frames."""
    root = tmp_path_factory.mktemp("h264") / "dataset"
    extra = (("camera_encoder", "extra_options"), {"bf": 3})
    overrides = [*H264, extra, (("camera_encoder", "g"), 30)]
    reencode_dataset(two_cameras, root, overrides=overrides, **newest_programs())
    return root


@pytest.fixture(scope="module")
def baseline(two_cameras: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of another profile: its decoder configuration is another."""
    root = tmp_path_factory.mktemp("baseline") / "dataset"
    extra = (("camera_encoder", "extra_options"), {"profile:v": "baseline"})
    overrides = [*H264, extra, (("camera_encoder", "g"), 30)]
    reencode_dataset(two_cameras, root, overrides=overrides, **newest_programs())
    return root


def test_a_dataset_merges_with_itself(toolchain: Toolchain, tmp_path: Path) -> None:
    before = contents(VIDEO)
    out = tmp_path / "it's 100%d"
    summary = merge_datasets([VIDEO, VIDEO], out)
    assert (summary.episodes, summary.frames, summary.copied) == (6, 432, 18)
    assert contents(VIDEO) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [out.name]

    for key in CAMERAS:
        info, source = probe(video_of(out, key), times=True), probe(video_of(VIDEO, key), times=True)
        assert info.times == tuple(range(0, 144 * 512, 512))
        assert (info.time_base, info.fps) == (Fraction(1, 15360), source.fps)
        assert info.sizes == source.sizes * 2
        assert {*starts(), *(72 + s for s in starts())} <= set(info.key_frames)
    shown = decode(video_of(out, TOP))
    assert np.array_equal(shown[:72], shown[72:])
    assert np.array_equal(shown[:72], decode(video_of(VIDEO, TOP)))

    rows, own = rows_of(out), rows_of(VIDEO)
    assert rows["index"].to_pylist() == list(range(144))
    lengths = np.array(LENGTHS * 2)
    assert np.array_equal(rows["episode_index"].to_numpy(), np.repeat(np.arange(6), lengths))
    for name in ("frame_index", "timestamp", "task_index", "action", "observation.state"):
        assert rows[name].to_pylist() == own[name].to_pylist() * 2

    table = episodes_of(out)
    assert table["episode_index"].to_pylist() == list(range(6))
    assert table["length"].to_pylist() == lengths.tolist()
    assert table["dataset_to_index"].to_pylist() == lengths.cumsum().tolist()
    assert table["tasks"].to_pylist() == episodes_of(VIDEO)["tasks"].to_pylist() * 2
    for key in CAMERAS:
        at = np.array(table[f"videos/{key}/from_timestamp"].to_pylist())
        assert np.allclose(at * 30, lengths.cumsum() - lengths, atol=1e-9)

    stats, single = json_of(out, "stats"), json_of(VIDEO, "stats")
    assert set(stats) == set(single)
    for key in ("action", TOP, DEPTH):
        for name in ("min", "max", "mean", "std"):
            np.testing.assert_allclose(stats[key][name], single[key][name], rtol=1e-9, atol=1e-9)
        assert stats[key]["count"] == [single[key]["count"][0] * 2]
    assert stats["index"]["max"] == [143]
    np.testing.assert_allclose(stats["index"]["std"], np.arange(144).std())
    assert json_of(out, "info")["total_frames"] == 144
    assert json_of(out, "info")["splits"] == {"train": "0:6"}
    assert block_of(out, TOP) == block_of(VIDEO, TOP)
    assert block_of(out, DEPTH) == block_of(VIDEO, DEPTH)


@system_if_long
def test_videos_of_an_older_versions_time_base_get_todays(toolchain: Toolchain, tmp_path: Path) -> None:
    """Which had one tick a frame."""
    old = copy_of(VIDEO, tmp_path / "old")
    for key in CAMERAS:
        path, made = video_of(old, key), tmp_path / "made.mp4"
        scale = ["-video_track_timescale", "30", "-movie_timescale", "30"]
        subprocess.run([toolchain.ffmpeg, "-v", "error", "-i", path, "-c", "copy", *scale, made], check=True)
        made.replace(path)
        assert probe(path).time_base == Fraction(1, 30)
    out, alone = tmp_path / "out", tmp_path / "alone"
    merge_datasets([VIDEO, old], out)
    merge_datasets([old], alone)
    for key in CAMERAS:
        source = packets(video_of(VIDEO, key))
        for root, times in ((alone, 1), (out, 2)):
            info = probe(video_of(root, key), times=True)
            assert info.time_base == Fraction(1, 15360)
            assert info.times == tuple(range(0, times * 72 * 512, 512))
            assert packets(video_of(root, key)) == source * times


def test_tasks_are_numbered_anew_and_equal_texts_become_one(two_cameras: Path, tmp_path: Path) -> None:
    other = copy_of(two_cameras, tmp_path / "other")
    path = other / "meta/tasks.parquet"
    own = pq.read_table(path)
    texts = own["task"].to_pylist() if "task" in own.column_names else own[own.column_names[-1]].to_pylist()
    swapped = ["fold the towel", texts[0]]  # the known one has another number here
    column = "task" if "task" in own.column_names else own.column_names[-1]
    at = own.schema.get_field_index(column)
    pq.write_table(
        own.set_column(at, own.schema.field(at), pa.array(swapped, own.schema.field(at).type)), path
    )
    path = other / "meta/episodes/chunk-000/file-000.parquet"
    episodes = pq.read_table(path)
    tasks = [[swapped[texts.index(text)] for text in own] for own in episodes["tasks"].to_pylist()]
    at = episodes.schema.get_field_index("tasks")
    pq.write_table(episodes.set_column(at, "tasks", pa.array(tasks, episodes.schema.field(at).type)), path)

    merge_datasets([two_cameras, other], tmp_path / "out")
    tasks = pq.read_table(tmp_path / "out/meta/tasks.parquet")
    assert tasks["task"].to_pylist() == [*texts, "fold the towel"]
    numbers = rows_of(two_cameras)["task_index"].to_numpy()
    expected = np.concatenate([numbers, np.array([2, 0])[numbers]])
    assert np.array_equal(rows_of(tmp_path / "out")["task_index"].to_numpy(), expected)
    stats = json_of(tmp_path / "out", "stats")["task_index"]
    assert (stats["min"], stats["max"], stats["mean"]) == ([0], [2], [pytest.approx(expected.mean())])
    assert json_of(tmp_path / "out", "info")["total_tasks"] == 3


def test_statistics_of_unlike_datasets_are_those_of_all_rows(two_cameras: Path, tmp_path: Path) -> None:
    reencode_dataset(two_cameras, tmp_path / "a", episodes=[0])
    reencode_dataset(two_cameras, tmp_path / "b", episodes=[1, 2])
    merge_datasets([tmp_path / "b", tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    action = np.array(rows["action"].to_pylist(), np.float64)
    stats = json_of(tmp_path / "out", "stats")["action"]
    np.testing.assert_allclose(stats["min"], action.min(axis=0))
    np.testing.assert_allclose(stats["max"], action.max(axis=0))
    np.testing.assert_allclose(stats["mean"], action.mean(axis=0), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(stats["std"], action.std(axis=0), rtol=1e-6, atol=1e-9)
    assert stats["count"] == [120]
    np.testing.assert_allclose(stats["q50"], np.quantile(action, 0.5, axis=0))
    # Kept, they are the count-weighted mean of the datasets', as LeRobot has it.
    merge_datasets([tmp_path / "b", tmp_path / "a", tmp_path / "b"], tmp_path / "kept", stats="keep")
    a, b = (json_of(tmp_path / name, "stats")["action"] for name in "ab")
    weighted = (np.array(a["q50"]) * 24 + np.array(b["q50"]) * 96) / 120
    np.testing.assert_allclose(json_of(tmp_path / "kept", "stats")["action"]["q50"], weighted)


@system_if_long
def test_files_of_another_decoder_configuration_stay_files_of_their_own(
    toolchain: Toolchain, tmp_path: Path, h264: Path, baseline: Path
) -> None:
    """Merged into one file, the second's frames would be decoded with the first's parameters."""
    first, second = (probe(video_of(root, ANGLE)).extradata_hash for root in (h264, baseline))
    assert first != second
    with pytest.warns(FfencWarning, match=r"video\.extra_options is"):
        merge_datasets([h264, baseline, h264], tmp_path / "out")
    for number, root in enumerate((h264, baseline, h264)):
        assert np.array_equal(
            decode(video_of(tmp_path / "out", ANGLE, number)), decode(video_of(root, ANGLE))
        )
    assert probe(video_of(tmp_path / "out", DEPTH), times=True).frames == 216
    assert block_of(tmp_path / "out", ANGLE)["video.extra_options"] == {}
    assert block_of(tmp_path / "out", ANGLE)["video.crf"] == 23


def test_many_pieces_with_b_frames_stay_on_the_grid(tmp_path: Path, h264: Path) -> None:
    assert probe(video_of(h264, ANGLE), times=True).delay
    merge_datasets([h264] * 8, tmp_path / "out")
    for key in (ANGLE, DEPTH):
        info = probe(video_of(tmp_path / "out", key), times=True)
        assert info.times == tuple(range(0, 576 * 512, 512))
        assert info.fps == 30


def test_settings_that_differ_are_null_and_told(tmp_path: Path) -> None:
    other = copy_of(VIDEO, tmp_path / "other", set_block(TOP, crf=18, g=None, extra_options={"tune": "0"}))
    with pytest.warns(FfencWarning) as told:
        merge_datasets([VIDEO, other], tmp_path / "out")
    [text] = [str(one.message) for one in told]
    for name in ("video.crf", "video.g", "video.extra_options"):
        assert name in text
    assert "18" in text
    assert str(other) in text
    assert "video.preset" not in text
    block = block_of(tmp_path / "out", TOP)
    assert [block[f"video.{n}"] for n in ("crf", "g", "extra_options")] == [None, None, {}]
    assert [block[f"video.{n}"] for n in ("preset", "fast_decode", "codec")] == [12, 0, "av1"]
    assert block_of(tmp_path / "out", ANGLE)["video.crf"] == 30


def test_another_codec_is_refused_and_brought_into_line_when_asked(
    two_cameras: Path, tmp_path: Path, h264: Path
) -> None:
    with pytest.raises(SourceError) as refused:
        merge_datasets([two_cameras, h264, two_cameras], tmp_path / "out")
    for part in (
        f"{ANGLE}: video.codec is 'av1' in {two_cameras}, 'h264' in {h264}",
        f"reencode=True to re-encode {h264}",
    ):
        assert part in str(refused.value)
    assert not list(tmp_path.iterdir())

    summary = merge_datasets([two_cameras, h264, two_cameras], tmp_path / "out", reencode=True)
    assert summary.copied == 9 + 6
    times = [probe(p, times=True) for p in sorted((tmp_path / "out/videos" / ANGLE).rglob("*.mp4"))]
    assert {info.codec for info in times} == {"av1"}
    assert sum(info.frames for info in times) == 216
    table = episodes_of(tmp_path / "out")
    shown = {p: decode(p) for p in sorted((tmp_path / "out/videos" / ANGLE).rglob("*.mp4"))}
    source = decode(video_of(h264, ANGLE))
    for episode in (3, 4, 5):
        number = table[f"videos/{ANGLE}/file_index"][episode].as_py()
        first = round(table[f"videos/{ANGLE}/from_timestamp"][episode].as_py() * 30)
        length = LENGTHS[episode - 3]
        frames = shown[video_of(tmp_path / "out", ANGLE, number)][first : first + length].astype(float)
        expected = source[starts()[episode - 3] :][:length].astype(float)
        assert abs(frames - expected).mean() < 3
    assert block_of(tmp_path / "out", ANGLE)["video.crf"] == 30


def test_options_of_a_dataset_that_do_more_than_tune_are_not_used(
    two_cameras: Path, tmp_path: Path, h264: Path
) -> None:
    hostile = Path(shutil.copytree(two_cameras, tmp_path / "hostile"))
    victim = tmp_path / "victim"
    for extra in (
        {"svtav1-params": f"stat-file={victim}"},
        {"attach": str(victim)},
        {"svtav1-params": "new=1"},
    ):
        info = json_of(hostile, "info")
        set_block(ANGLE, extra_options=extra)(info)
        (hostile / "meta/info.json").write_text(json.dumps(info))
        with pytest.raises(SourceError, match="video.extra_options: .*is not accepted from a dataset"):
            merge_datasets([hostile, h264, hostile], tmp_path / "out", reencode=True)
    assert {path.name for path in tmp_path.iterdir()} == {"hostile"}


def drop_feature(info: dict[str, Any]) -> None:
    del info["features"]["action"]


def other_shape(info: dict[str, Any]) -> None:
    info["features"]["action"]["shape"] = [7]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda info: info.update(robot_type="so101"), r"robot_type is 'aloha' in .*, 'so101' in"),
        (drop_feature, "feature action is only in"),
        (other_shape, r"action: shape is \[14\] in .*, \[7\] in"),
        (set_block(DEPTH, depth_max=5.0), r"video\.depth_max is 10\.0 in .*, 5\.0 in"),
        (set_block(DEPTH, shift=0.0), r"video\.shift is 3\.5 in .*, 0\.0 in"),
        (set_block(DEPTH, use_log=False), r"video\.use_log is True in .*, False in"),
        (set_block(DEPTH, invalid="keep"), r"video\.invalid is 'clip' in .*, 'keep' in"),
        (lambda i: i["features"][DEPTH]["info"].update(depth_unit="m"), r"depth_unit is 'mm' in .*, 'm' in"),
    ],
)
def test_datasets_that_do_not_go_together_are_refused_before_anything_is_written(
    two_cameras: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    other = copy_of(two_cameras, tmp_path / "other", change)
    with pytest.raises(SourceError, match=said):
        merge_datasets([two_cameras, other], tmp_path / "out", reencode=True)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_another_frame_rate_is_refused(tmp_path: Path) -> None:
    """With rows and videos that fit it, so that only the comparison can tell."""
    images = FIXTURES / "aloha_image_v30"
    reencode_dataset(images, tmp_path / "a", overrides=H264, cameras=["angle"])
    tree = tmp_path / "tree/episode_0/angle"
    tree.mkdir(parents=True)
    table = pq.read_table(images / "data/chunk-000/file-000.parquet", columns=[ANGLE])
    for number, image in enumerate(table[ANGLE].to_pylist()[:8]):
        (tree / f"{number:06d}.png").write_bytes(image["bytes"])
    reencode_dataset(tmp_path / "tree", tmp_path / "b", fps=25, overrides=H264)
    with pytest.raises(SourceError, match=r"fps is 30 in .*/a, 25 in .*/b"):
        merge_datasets([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


def test_images_stay_images(tmp_path: Path, images: dict[str, list[bytes]], monkeypatch: Any) -> None:
    monkeypatch.setattr(columns, "IMAGE_BYTES", 300_000)  # an episode comes in several parts
    source = FIXTURES / "aloha_image_v30"
    told: list[tuple[int, int]] = []
    summary = merge_datasets(
        [source, source], tmp_path / "out", on_progress=lambda done, of: told.append((done, of))
    )
    assert (summary.episodes, summary.frames) == (6, 432)
    assert told[-1] == (432, 432)
    rows, own = rows_of(tmp_path / "out"), rows_of(source)
    assert rows.schema.names == own.schema.names
    described, before = (json.loads(table.schema.metadata[b"huggingface"])["info"] for table in (rows, own))
    assert described == before
    for key in CAMERAS:
        assert rows[key].to_pylist() == own[key].to_pylist() * 2
    assert rows["index"].to_pylist() == list(range(144))
    assert json_of(tmp_path / "out", "info")["features"] == json_of(source, "info")["features"]
    found, single = json_of(tmp_path / "out", "stats")[TOP], json_of(source, "stats")[TOP]
    np.testing.assert_allclose(found["mean"], single["mean"])
    assert verify_dataset(tmp_path / "out", deep=True).faults == []


def test_images_and_video_do_not_merge(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"{TOP}: dtype is 'image' in .*, 'video' in"):
        merge_datasets([FIXTURES / "aloha_image_v30", VIDEO], tmp_path / "out")


def test_a_difference_in_the_files_is_found_whatever_the_blocks_say(
    two_cameras: Path, tmp_path: Path, h264: Path
) -> None:
    """The files are asked, not only what is written about them."""
    other = copy_of(h264, tmp_path / "other", set_block(ANGLE, codec="av1"))
    with (
        pytest.warns(FfencWarning, match="'av1', but .* is h264"),
        pytest.raises(SourceError, match=r"video\.codec is 'av1' in .*, 'h264' in"),
    ):
        merge_datasets([two_cameras, other], tmp_path / "out")


def test_extra_files_come_along_and_conflicts_are_told(two_cameras: Path, tmp_path: Path) -> None:
    a, b = copy_of(two_cameras, tmp_path / "a"), copy_of(two_cameras, tmp_path / "b")
    (a / "README.md").write_text("one")
    (b / "README.md").write_text("two")
    (b / "meta/notes.txt").write_text("kept")
    with pytest.warns(FfencWarning, match=r"README\.md: the first dataset's version is kept"):
        merge_datasets([a, b], tmp_path / "out")
    assert (tmp_path / "out/README.md").read_text() == "one"
    assert (tmp_path / "out/meta/notes.txt").read_text() == "kept"


def test_a_missing_column_of_statistics_is_computed(two_cameras: Path, tmp_path: Path) -> None:
    """LeRobot's own conversion to video drops the cameras' statistics."""
    other = copy_of(two_cameras, tmp_path / "other")
    path = other / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    lost = tuple(f"stats/{key}/" for key in (ANGLE, DEPTH, "action"))
    gone = [name for name in table.column_names if name.startswith(lost)]
    pq.write_table(table.drop_columns(gone), path)
    stats = json_of(other, "stats")
    for key in (ANGLE, DEPTH, "action"):
        del stats[key]
    (other / "meta/stats.json").write_text(json.dumps(stats))
    merge_datasets([two_cameras, other], tmp_path / "out")
    found, expected = json_of(tmp_path / "out", "stats"), json_of(two_cameras, "stats")
    np.testing.assert_allclose(found["action"]["mean"], expected["action"]["mean"], rtol=1e-6)
    np.testing.assert_allclose(found[ANGLE]["mean"], expected[ANGLE]["mean"], atol=0.01)
    with VideoReader(video_of(two_cameras, DEPTH)) as depth:  # which has no more than the codes' 10 m
        np.testing.assert_allclose(found[DEPTH]["mean"], [[[depth[:].mean()]]], rtol=1e-6)
    assert all(name in episodes_of(tmp_path / "out").column_names for name in gone)


def test_files_that_a_conversion_has_left_do_not_replace_those_of_the_result(
    tmp_path: Path, whole_v21: Path
) -> None:
    old = Path(shutil.copytree(whole_v21, tmp_path / "old"))
    tasks = pa.table({"task_index": [0], "task": ["of an earlier conversion"]})
    pq.write_table(tasks, old / "meta/tasks.parquet")
    reencode_dataset(old, tmp_path / "video", overrides=H264, cameras=["angle"])
    found = pq.read_table(tmp_path / "video/meta/tasks.parquet")
    assert found["task"].to_pylist() == pq.read_table(VIDEO / "meta/tasks.parquet")["task"].to_pylist()
    (tmp_path / "video/meta/tasks.jsonl").write_text("of an earlier conversion")
    merge_datasets([tmp_path / "video"] * 2, tmp_path / "out")
    assert not (tmp_path / "out/meta/tasks.jsonl").exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stats: stats["action"]["mean"].__setitem__(0, float("nan")),
        lambda stats: stats["action"]["std"].__setitem__(3, None),
        lambda stats: stats["action"].update(count=[71]),
        lambda stats: stats["action"].update(count=[0]),
        lambda stats: stats["action"]["max"].pop(),
    ],
    ids=["nan", "null", "of other rows", "of no rows", "too few numbers"],
)
def test_statistics_that_cannot_be_used_are_computed(
    two_cameras: Path, tmp_path: Path, spoil: Callable[[dict[str, Any]], None]
) -> None:
    other = copy_of(two_cameras, tmp_path / "other")
    stats = json_of(other, "stats")
    spoil(stats)
    (other / "meta/stats.json").write_text(json.dumps(stats))
    for sources in ([two_cameras, other], [other]):
        out = tmp_path / f"out{len(sources)}"
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            merge_datasets(sources, out)
        # Of what cannot be used at all, nothing is lost.
        texts = [str(warning.message) for warning in warned]
        assert ["count of action is" in text for text in texts] == [True] * (
            stats["action"]["count"] in ([0], [71])
        ), texts
        found, expected = json_of(out, "stats")["action"], json_of(two_cameras, "stats")["action"]
        assert found["count"] == [72 * len(sources)]
        for name in ("min", "max", "mean", "std"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)
        assert verify_dataset(out).faults == []


def test_statistics_of_large_numbers_keep_their_digits() -> None:
    """Such as seconds since 1970, whose squares have no digits left for a spread of a second."""
    aggregate = Aggregate()
    rows = 1.7e9 + np.arange(3000) / 30
    for part in np.split(rows, 10):
        aggregate.add(column_stats({"": part})[""])
    found = aggregate.result()
    np.testing.assert_allclose(found["std"], rows.std(), rtol=1e-6)
    np.testing.assert_allclose(found["mean"], rows.mean(), rtol=1e-12)


def test_a_task_without_a_text_is_named(tmp_path: Path) -> None:
    other = copy_of(VIDEO, tmp_path / "other")
    tasks = pa.table({"task_index": [0, 1], "task": pa.array(["stack", None], pa.large_string())})
    pq.write_table(tasks, other / "meta/tasks.parquet")
    with pytest.raises(SourceError, match=r"other/meta/tasks\.parquet: row 1 has no text"):
        merge_datasets([VIDEO, other], tmp_path / "out")


def test_settings_of_another_encoder_do_not_hinder_a_reencode(
    two_cameras: Path, tmp_path: Path, h264: Path
) -> None:
    """The block of what an encoder of a graphics card has written has that one's presets."""
    usual = copy_of(h264, tmp_path / "usual", set_block(ANGLE, preset="p4", encoder=None))
    with pytest.warns(FfencWarning, match=r"video\.preset is 'p4'"):
        summary = merge_datasets([usual, usual, two_cameras], tmp_path / "out", reencode=True)
    assert summary.cameras[ANGLE]["codec"] == "h264"
    assert summary.cameras[ANGLE]["copied_episodes"] == 6


def test_what_only_one_block_says_of_depth_is_kept(tmp_path: Path) -> None:
    def forget(info: dict[str, Any]) -> None:
        del info["features"][DEPTH]["info"]["depth_unit"]

    other = copy_of(VIDEO, tmp_path / "other", forget)
    merge_datasets([other, VIDEO], tmp_path / "out")
    assert block_of(tmp_path / "out", DEPTH)["depth_unit"] == "mm"


def test_a_damaged_episode_list_is_named(two_cameras: Path, tmp_path: Path) -> None:
    other = copy_of(two_cameras, tmp_path / "other")
    path = other / "meta/episodes/chunk-000/file-000.parquet"
    column = pq.read_metadata(path).row_group(0).column(pq.read_schema(path).names.index("dataset_to_index"))
    content = bytearray(path.read_bytes())
    at = column.dictionary_page_offset or column.data_page_offset
    content[at : at + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(
        SourceError, match=r"other: .*\n  meta/episodes/chunk-000/file-000\.parquet: cannot be read"
    ):
        merge_datasets([two_cameras, other], tmp_path / "out")


def test_damage_is_not_copied_where_the_source_has_checksums(two_cameras: Path, tmp_path: Path) -> None:
    """The result's own checksums would say that it is sound."""
    merge_datasets([two_cameras], tmp_path / "own")
    path = video_of(tmp_path / "own", DEPTH)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"own/videos/.*file-000\.mp4: is not, to the byte"):
        merge_datasets([two_cameras, tmp_path / "own"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    checksum = read_checksums(tmp_path / "own")[path.relative_to(tmp_path / "own").as_posix()]
    for _ in range(2):  # every job that reads a part of the file is warned
        with pytest.warns(FfencWarning, match="an episode in it is damaged, and its checksum does not say"):
            compare_checksum(path, checksum, part=True)
    cancellation = Cancellation()
    os.truncate(path, 1 << 40)
    threading.Timer(0.1, cancellation.cancel).start()
    with pytest.raises(Cancelled):  # Ctrl-C does not wait for the end of a long file
        compare_checksum(path, checksum, part=True, check=cancellation.check)


# ---- kills, full disks, second runs ----------------------------------------------------------------------


def command(out: Path, *sources: Path, more: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, "-m", "ffenc", "merge", *map(str, sources), "--out", str(out), *more]


def test_a_kill_at_any_moment_leaves_nothing_that_passes_for_a_dataset(
    two_cameras: Path, tmp_path: Path, h264: Path, request: pytest.FixtureRequest, ffenc: CommandLine
) -> None:
    before = contents(two_cameras)
    whole = tmp_path / "whole"
    began = time.monotonic()
    subprocess.run(
        command(whole, two_cameras, two_cameras, h264, more=("--reencode",)), check=True, capture_output=True
    )
    seconds = time.monotonic() - began
    out = tmp_path / "out"
    for share in (0.2, 0.4, 0.6, 0.7, 0.8, 0.9) if request.config.getoption("--long") else (0.6,):
        run = subprocess.Popen(
            command(out, two_cameras, two_cameras, h264, more=("--reencode", "--resume")),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(seconds * share)
        run.kill()
        run.wait()
        if out.exists():  # it was done before
            break
    if not out.exists():
        ffenc.done("merge", two_cameras, two_cameras, h264, "--out", out, "--reencode", "--resume")
    assert contents(out) == contents(whole)
    assert contents(two_cameras) == before
    assert not list(tmp_path.glob(".*"))


def test_a_second_merge_into_one_destination_is_refused(tmp_path: Path) -> None:
    with (
        Staging(tmp_path / "out", resume=False),
        pytest.raises(DestinationError, match="another run of ffenc"),
    ):
        merge_datasets([VIDEO], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_destination_inside_a_source_is_refused(tmp_path: Path) -> None:
    source = copy_of(VIDEO, tmp_path / "source")
    before = everything_in(source)
    with pytest.raises(DestinationError, match="overlap"):
        plan_merge([VIDEO, source], source / "merged")
    with pytest.raises(ConfigError, match="sources: .* is not accepted; expected a list of datasets"):
        plan_merge(str(VIDEO), tmp_path / "merged")
    for threads, said in ((3, "encoder_threads would have no effect"), (0, "encoder_threads: 0 is not acc")):
        with pytest.raises(ConfigError, match=said):
            plan_merge([VIDEO], tmp_path / "merged", encoder_threads=threads)
    assert everything_in(source) == before


def test_a_link_to_itself_is_named_as_source_and_as_destination(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(SourceError, match="loop is not a folder"):
        merge_datasets([loop], tmp_path / "out")
    with pytest.raises(DestinationError, match="Too many levels of symbolic links"):
        merge_datasets([VIDEO], loop / "out")
    assert list(tmp_path.iterdir()) == [loop]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    forced = shlex.join(command(small / "out", VIDEO, VIDEO, more=("--force-space",)))
    script = f"""
set -eu
mount -t tmpfs -o size=1200k tmpfs {small}
if {shlex.join(command(small / "out", VIDEO, VIDEO))} 2> {tmp_path}/refused; then exit 7; fi
if {forced} 2> {tmp_path}/said; then exit 7; fi
test -z "$(ls -A {small})"
mount -o remount,size=100m {small}
{shlex.join(command(small / "out", VIDEO, VIDEO, more=("--json",)))} > {tmp_path}/summary
"""
    namespace = (
        ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    )
    subprocess.run([*namespace, "sh", "-c", script], check=True)
    assert "needs about 1.4 MB, 1.2 MB are free" in (tmp_path / "refused").read_text()
    said = (tmp_path / "said").read_text()
    assert "the disk is full" in said or "No space left" in said
    assert "free some space" in said
    assert "Traceback" not in said
    assert json.loads((tmp_path / "summary").read_text())["frames"] == 432


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (3000, " is cut short: its last 3000 bytes are missing; restore .*repair_dataset"),
        (100_000, ": has 37 frames"),
    ],
    ids=["in the last frame", "half"],
)
def test_a_source_that_is_cut_short_is_named(tmp_path: Path, missing: int, said: str) -> None:
    other = copy_of(VIDEO, tmp_path / "other")
    path = video_of(other, TOP)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(SourceError, match=rf"other/videos/.*file-000\.mp4{said}"):
        merge_datasets([VIDEO, other], tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["other"]


def test_images_in_several_files_keep_their_rows_and_order(tmp_path: Path) -> None:
    """Files are written side by side: rows and images are those of the sources, in their order."""
    source = tmp_path / "source"
    shutil.copytree(FIXTURES / "aloha_image_v30", source)
    info = json.loads((source / "meta/info.json").read_text())
    (source / "meta/info.json").write_text(json.dumps(info | {"data_files_size_in_mb": 1}))
    out = tmp_path / "out"
    merge_datasets([source, source], out)
    files = sorted((out / "data").rglob("*.parquet"))
    assert len(files) > 2
    found = pa.concat_tables(pq.ParquetFile(file).read() for file in files)
    given = pa.concat_tables(
        pq.ParquetFile(file).read() for file in sorted((source / "data").rglob("*.parquet"))
    )
    assert found["index"].to_pylist() == list(range(2 * given.num_rows))
    places = pq.ParquetFile(out / "meta/episodes/chunk-000/file-000.parquet").read()
    assert places["dataset_from_index"].to_pylist()[1:] == places["dataset_to_index"].to_pylist()[:-1]
    for key in (key for key, feature in info["features"].items() if feature["dtype"] == "image"):
        own = [image["bytes"] for image in given[key].to_pylist()]
        assert [image["bytes"] for image in found[key].to_pylist()] == 2 * own
