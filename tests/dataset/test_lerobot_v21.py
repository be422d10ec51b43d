"""A v2.1 dataset of images becomes a v3.0 dataset of video with nothing lost, or is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffenc import SourceError, merge_datasets, reencode_dataset
from tests.conftest import (
    ANGLE,
    DATASET,
    DEPTH,
    FIXTURES,
    LENGTHS,
    TOP,
    decode,
    everything_in,
    pixels,
    psnr,
    starts,
)
from tests.support.make import H264, png_with
from tests.support.read import contents, depth_samples, episodes_of, read_json, rows_of, video_of
from tests.support.runs import refused

STATISTICS = {"min", "max", "mean", "std", "count"}
EPISODE = "data/chunk-000/episode_{:06d}.parquet"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path: Path, lines: list[Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def change_lines(path: Path, change: Callable[[list[Any]], list[Any]]) -> None:
    write_lines(path, change(lines_of(path)))


def change_info(root: Path, **changes: object) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(read_json(path) | changes))


def change_rows(root: Path, episode: int, change: Callable[[pa.Table], pa.Table]) -> None:
    path = root / EPISODE.format(episode)
    pq.write_table(change(pq.read_table(path)), path)


def column(name: str, values: Callable[[pa.Table], Any]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        at = table.column_names.index(name)
        return table.set_column(at, name, pa.array(values(table), table.schema.field(at).type))

    return change


def test_rows_statistics_episodes_and_tasks_become_those_of_v30(
    dataset_v21: Path, tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    out = tmp_path / "out"
    before = contents(dataset_v21)
    summary = reencode_dataset(dataset_v21, out, overrides=H264)
    assert (summary.episodes, summary.frames) == (3, 144)
    assert contents(dataset_v21) == before
    for key in (TOP, ANGLE):
        shown = decode(video_of(out, key))
        assert len(shown) == 72
        assert min(psnr(got, pixels(want)) for got, want in zip(shown, images[key], strict=True)) > 26

    v30 = rows_of(DATASET).drop([TOP, ANGLE, DEPTH])
    assert rows_of(out).equals(v30)
    assert rows_of(out).schema.equals(v30.schema)
    described = json.loads(rows_of(out).schema.metadata[b"huggingface"])["info"]["features"]
    assert list(described) == v30.column_names
    assert pq.read_table(out / "meta/tasks.parquet").equals(pq.read_table(DATASET / "meta/tasks.parquet"))

    now, known = episodes_of(out), episodes_of(DATASET)
    for name in known.column_names:
        if not name.startswith("stats/"):
            assert now[name].to_pylist() == known[name].to_pylist(), name
    for line in lines_of(FIXTURES / "aloha_image_v21/meta/episodes_stats.jsonl"):
        for key, own in line["stats"].items():
            assert set(own) == STATISTICS
            for name, value in own.items():
                found = now[f"stats/{key}/{name}"]
                assert found[line["episode_index"]].as_py() == value
                assert found.type == known[f"stats/{key}/{name}"].type
    for key in (TOP, ANGLE):
        assert now[f"videos/{key}/from_timestamp"].to_pylist() == [start / 30 for start in starts()]

    # What LeRobot 0.6.2's own conversion of the sample to v3.0 has written.
    stats, known_stats = (
        read_json(path) for path in (out / "meta/stats.json", FIXTURES / "aloha_image_v21_stats_v30.json")
    )
    assert set(stats) == set(known_stats)
    for key, own in stats.items():
        assert set(own) == set(known_stats[key]) == STATISTICS
        for name, value in own.items():
            assert np.shape(value) == np.shape(known_stats[key][name])
            np.testing.assert_allclose(value, known_stats[key][name], rtol=1e-12, err_msg=key)


def test_info_has_the_keys_of_v30_and_the_values_of_the_source(dataset_v21: Path, tmp_path: Path) -> None:
    change_info(dataset_v21, site="lab 2")
    reencode_dataset(dataset_v21, tmp_path / "out", overrides=H264, cameras=["angle"])
    info, known = read_json(tmp_path / "out/meta/info.json"), read_json(DATASET / "meta/info.json")
    assert list(info) == [*known, "site"]
    assert info.pop("site") == "lab 2"
    features, known_features = info.pop("features"), known.pop("features")
    assert info == known | {
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    }
    assert list(features) == [key for key in known_features if key not in (TOP, DEPTH)]
    assert features[ANGLE]["dtype"] == "video"
    assert all(features[key] == known_features[key] for key in features if key != ANGLE)


def test_chosen_episodes_are_numbered_anew_with_statistics_of_their_own(
    dataset_v21: Path, tmp_path: Path
) -> None:
    v21, v30 = tmp_path / "v21", tmp_path / "v30"
    for source, out in ((dataset_v21, v21), (DATASET, v30)):
        reencode_dataset(source, out, overrides=H264, cameras=["angle"], episodes=[0, 2])
    assert rows_of(v21).equals(rows_of(v30))
    ours, theirs = episodes_of(v21), episodes_of(v30)
    assert ours["dataset_to_index"].to_pylist() == [24, 55]
    for name in ("tasks", "length", f"videos/{ANGLE}/to_timestamp", "stats/index/mean"):
        assert ours[name].to_pylist() == theirs[name].to_pylist()
    stats, known = read_json(v21 / "meta/stats.json"), read_json(v30 / "meta/stats.json")
    assert set(stats) == set(known)
    assert stats["episode_index"] == known["episode_index"]
    for key in stats:
        for name in STATISTICS:
            near = 1e-4 if key == ANGLE else 2e-6  # LeRobot's versions sample other pixels
            np.testing.assert_allclose(stats[key][name], known[key][name], rtol=1e-5, atol=near, err_msg=key)


def test_a_run_that_failed_is_taken_up(dataset_v21: Path, tmp_path: Path) -> None:
    good = (dataset_v21 / EPISODE.format(2)).read_bytes()

    def damage(table: pa.Table) -> list[Any]:
        values = table[ANGLE].to_pylist()
        values[30]["bytes"] = png_with(values[30]["bytes"], "flipped bit")
        return values

    change_rows(dataset_v21, 2, column(ANGLE, damage))
    options: dict[str, Any] = {"overrides": H264, "cameras": ["angle"], "workers": 1}
    with pytest.raises(SourceError, match=r"episode_000002\.parquet: row 30.*the image is damaged: checksum"):
        reencode_dataset(dataset_v21, tmp_path / "out", **options)
    (dataset_v21 / EPISODE.format(2)).write_bytes(good)
    summary = reencode_dataset(dataset_v21, tmp_path / "out", resume=True, **options)
    assert (summary.resumed, summary.outdated) == (2, 0)
    reencode_dataset(dataset_v21, tmp_path / "whole", **options)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_statistics_that_are_not_there_are_computed(dataset_v21: Path, tmp_path: Path) -> None:
    """As in v2.0, which has those of the whole dataset only."""
    change_info(dataset_v21, codebase_version="v2.0")
    lines = lines_of(dataset_v21 / "meta/episodes_stats.jsonl")
    (dataset_v21 / "meta/episodes_stats.jsonl").unlink()
    (dataset_v21 / "meta/stats.json").write_text("{}")
    reencode_dataset(dataset_v21, tmp_path / "none", overrides=H264, cameras=["angle"])
    del lines[1]["stats"][ANGLE], lines[2]["stats"]["action"]["std"]
    write_lines(dataset_v21 / "meta/episodes_stats.jsonl", lines)
    reencode_dataset(dataset_v21, tmp_path / "some", overrides=H264, cameras=["angle"])
    known = read_json(DATASET / "meta/stats.json")
    for out in (tmp_path / "none", tmp_path / "some"):
        stats = read_json(out / "meta/stats.json")
        assert set(stats) == set(known) - {TOP, DEPTH}
        for key, own in stats.items():
            for name in ("mean", "std"):
                near = 1e-3 if key == ANGLE else 2e-6
                np.testing.assert_allclose(own[name], known[key][name], rtol=1e-5, atol=near, err_msg=key)
        assert stats[ANGLE]["count"] == [72]
        assert "q50" in stats[ANGLE]
        table = episodes_of(out)
        assert table["stats/action/count"].to_pylist() == [[n] for n in LENGTHS]
        assert all(table[f"stats/{ANGLE}/mean"].is_valid().to_pylist())


def test_a_depth_camera_comes_along(
    dataset_v21: Path, tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    info = read_json(dataset_v21 / "meta/info.json")
    info["features"][DEPTH] = read_json(DATASET / "meta/info.json")["features"][DEPTH]
    change_info(dataset_v21, features=info["features"])
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for episode, (start, length) in enumerate(zip(starts(), LENGTHS, strict=True)):
        maps = [{"bytes": data, "path": "d.tiff"} for data in images[DEPTH][start : start + length]]
        change_rows(dataset_v21, episode, lambda table, m=maps: table.append_column(DEPTH, pa.array(m, kind)))
    out = tmp_path / "out"
    reencode_dataset(dataset_v21, out, cameras=["angle_depth"], episodes=[1])
    lerobots = depth_samples(video_of(FIXTURES / "aloha_video_v30", DEPTH), "gray12le", 160, 120)
    np.testing.assert_array_equal(depth_samples(video_of(out, DEPTH), "gray12le", 160, 120), lerobots[24:41])
    # The source has no statistics of it: they are computed.
    known = episodes_of(DATASET)[f"stats/{DEPTH}/mean"][1].as_py()
    found = read_json(out / "meta/stats.json")[DEPTH]["mean"]
    np.testing.assert_allclose(np.ravel(found), np.ravel(known), rtol=0.02)


def test_extra_keys_lines_out_of_order_and_extra_files_are_kept(dataset_v21: Path, tmp_path: Path) -> None:
    def reverse(lines: list[Any]) -> list[Any]:
        return lines[::-1]

    for name in ("episodes", "episodes_stats", "tasks"):
        change_lines(dataset_v21 / f"meta/{name}.jsonl", reverse)
    lines = lines_of(dataset_v21 / "meta/episodes.jsonl")
    lines[0] |= {"operator": "äöü", "success": True}
    write_lines(dataset_v21 / "meta/episodes.jsonl", lines)
    with (dataset_v21 / "meta/episodes.jsonl").open("a") as file:
        file.write("\n\n")
    (dataset_v21 / "README.md").write_text("about")
    out = tmp_path / "out"
    reencode_dataset(dataset_v21, out, overrides=H264, cameras=["angle"])
    table = episodes_of(out)
    assert table["length"].to_pylist() == list(LENGTHS)
    assert table["operator"].to_pylist() == [None, None, "äöü"]
    assert table["success"].to_pylist() == [None, None, True]
    assert table["stats/index/count"].to_pylist() == [[n] for n in LENGTHS]
    assert pq.read_table(out / "meta/tasks.parquet").equals(pq.read_table(DATASET / "meta/tasks.parquet"))
    assert (out / "README.md").read_text() == "about"
    assert sorted(path.name for path in (out / "meta").iterdir()) == [
        *("episodes", "ffenc.json", "info.json", "stats.json", "tasks.parquet", "videos.sha256")
    ]


def test_rows_go_into_as_many_files_as_the_limit_asks_for(dataset_v21: Path, tmp_path: Path) -> None:
    change_info(dataset_v21, data_files_size_in_mb=0.007, chunks_size=1)
    folder = dataset_v21 / "data"
    for episode in (1, 2):
        (folder / f"chunk-{episode:03d}").mkdir()
        place = f"episode_{episode:06d}.parquet"
        (folder / "chunk-000" / place).rename(folder / f"chunk-{episode:03d}" / place)
    out = tmp_path / "out"
    reencode_dataset(dataset_v21, out, overrides=H264, cameras=["angle"])
    table = episodes_of(out)
    assert table["data/chunk_index"].to_pylist() == [0, 0, 1]
    assert table["data/file_index"].to_pylist() == [0, 0, 0]
    parts = [pq.read_table(out / f"data/chunk-{i:03d}/file-000.parquet") for i in (0, 1)]
    assert pa.concat_tables(parts).equals(rows_of(DATASET).drop([TOP, ANGLE, DEPTH]))


def test_images_that_stay_count_for_the_limit_of_a_data_file(dataset_v21: Path, tmp_path: Path) -> None:
    change_info(dataset_v21, data_files_size_in_mb=1)
    out = tmp_path / "out"
    merge_datasets([dataset_v21], out)
    files = sorted((out / "data").rglob("*.parquet"))
    assert [pq.read_metadata(path).num_rows for path in files] == list(LENGTHS)
    assert episodes_of(out)["data/file_index"].to_pylist() == [0, 1, 2]


Damage = Callable[[Path], object]


def cut(name: str, at: int) -> Damage:
    def damage(root: Path) -> None:
        lines = (root / f"meta/{name}.jsonl").read_text().splitlines()
        lines[at] = lines[at][:30]
        (root / f"meta/{name}.jsonl").write_text("\n".join(lines))

    return damage


def lines(name: str, change: Callable[[list[Any]], list[Any]]) -> Damage:
    return lambda root: change_lines(root / f"meta/{name}.jsonl", change)


def rows(episode: int, change: Callable[[pa.Table], pa.Table]) -> Damage:
    return lambda root: change_rows(root, episode, change)


def with_key(at: int, key: str, value: object) -> Callable[[list[Any]], list[Any]]:
    return lambda found: [*found[:at], found[at] | {key: value}, *found[at + 1 :]]


def with_stats(at: int, key: str, name: str, value: object) -> Callable[[list[Any]], list[Any]]:
    def change(found: list[Any]) -> list[Any]:
        found[at]["stats"][key][name] = value
        return found

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut("episodes", 1), r"episodes\.jsonl: line 2: is not JSON: .* at column \d\d"),
        (cut("episodes_stats", 2), r"episodes_stats\.jsonl: line 3: is not JSON"),
        (cut("tasks", 0), r"tasks\.jsonl: line 1: is not JSON"),
        (lines("tasks", lambda found: [*found, []]), r"tasks\.jsonl: line 3: is not a JSON object"),
        (lines("tasks", lambda found: found[1:]), "task 0 is missing, task 1 is there"),
        (lines("tasks", lambda found: found[:1]), r"episode 2: row 0 has task_index 1; there are 1 tasks"),
        (lines("tasks", with_key(0, "task", None)), r"tasks\.jsonl: line 1: task is None; expected a text"),
        (lines("episodes", lambda found: [found[0], found[2]]), "episode 1 is missing, episode 2 is there"),
        (lines("episodes", lambda found: found[:2]), "total_episodes 3, meta/episodes.jsonl has 2"),
        (lines("episodes", lambda found: []), r"episodes\.jsonl: holds no episodes"),
        (lines("episodes", lambda found: [*found, found[1]]), "line 4: episode 1 is there twice"),
        (
            lines("episodes", with_key(1, "length", 16)),
            "episode 1 has 17 rows, its length in meta",
        ),
        (lines("episodes", with_key(1, "length", "17")), "line 2: length is '17'; expected a whole number"),
        (lines("episodes", with_key(1, "length", 0)), "line 2: episode 1 has length 0"),
        (lines("episodes", with_key(1, "episode_index", None)), "line 2: episode_index is None"),
        (lines("episodes", with_key(1, "tasks", "hold")), "line 2: tasks is 'hold'; expected a list of"),
        (lambda root: change_info(root, total_frames=71), "total_frames 71, meta/episodes.jsonl has 72"),
        (lambda root: change_info(root, data_path="{x}"), "is not a path template"),
        (lambda root: (root / EPISODE.format(1)).unlink(), r"episode_000001\.parquet: cannot be read"),
        (
            lambda root: shutil.copy(root / EPISODE.format(1), root / EPISODE.format(3)),
            r"episode_000003\.parquet: belongs to no episode",
        ),
        (
            lambda root: (root / EPISODE.format(0)).rename(root / EPISODE.format(1)),
            r"episode_000000\.parquet: cannot be read",
        ),
        (
            lambda root: shutil.copy(root / EPISODE.format(0), root / EPISODE.format(1)),
            r"episode_000001\.parquet: has rows of episode 0",
        ),
        (rows(2, lambda table: table.slice(0, 30)), "episode 2 has 30 rows, its length in .* is 31"),
        (
            rows(2, lambda table: pa.concat_tables([table.slice(0, 5), table.slice(4)])),
            "episode 2: row 5 has frame_index 4",
        ),
        (rows(1, lambda table: table.slice(1)), "episode 1: row 0 has frame_index 1"),
        (
            rows(1, column("timestamp", lambda table: [i / 29 for i in range(17)])),
            r"episode 1: row 1 has timestamp 0\.034483, frame 1 at 30 fps is 0\.033333",
        ),
        (rows(1, lambda table: table.drop(["action"])), "has no column action, which meta/info.json names"),
        (lambda root: (root / "meta/tasks.jsonl").unlink(), r"tasks\.jsonl: cannot be read: No such file"),
        (lambda root: (root / "meta/episodes.jsonl").unlink(), r"episodes\.jsonl: cannot be read: No such"),
        (lines("episodes_stats", lambda found: found[:2]), "has no line of episode 2"),
        (lines("episodes_stats", lambda found: [*found, found[0]]), "line 4: episode 0 is there twice"),
        (
            lines("episodes_stats", with_key(2, "episode_index", 7)),
            r"line 3: episode 7 is not in meta/episodes\.jsonl",
        ),
        (lines("episodes_stats", with_key(2, "stats", [])), "line 3: has no stats of features"),
        (
            lines("episodes_stats", with_stats(1, "action", "mean", [0.5] * 13)),
            "line 2: statistics of action",
        ),
        (
            lines("episodes_stats", with_stats(1, "action", "mean", ["a"] * 14)),
            "line 2: statistics of action",
        ),
        (
            lambda root: (root / "meta/info.json").write_text(
                (root / "meta/info.json").read_text().replace('"dtype": "image"', '"dtype": "video"')
            ),
            r"episode_000000\.mp4 is missing",
        ),
    ],
)
def test_a_damaged_dataset_is_refused_by_name(
    dataset_v21: Path, tmp_path: Path, damage: Damage, said: str
) -> None:
    damage(dataset_v21)
    refused(dataset_v21, tmp_path, said)
    assert everything_in(tmp_path)[0] == "source"
