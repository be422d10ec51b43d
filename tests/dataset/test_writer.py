"""Numbers of episodes, rows, tasks and files, whoever writes a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffenc.dataset.columns import task_table, task_texts
from ffenc.dataset.division import Division, RowDivision
from ffenc.dataset.source import EpisodeRef
from ffenc.dataset.statistics import Aggregate, column_stats
from ffenc.dataset.writer import (
    DATA,
    EPISODES,
    DatasetWriter,
    FilePlace,
    Files,
    State,
    VideoPlace,
    row_columns,
    videos_of,
)
from ffenc.errors import SourceError
from ffenc.layout import STATISTICS, TASKS

FPS = Fraction(10)
TOP = "observation.images.top"
LENGTHS, TEXTS = (3, 1, 4), ("wave", "stop", "wave")
STATS = {"min": [0.0], "max": [1.0], "mean": [0.5], "std": [0.1], "count": [8]}


def rows_of(length: int, task: int) -> pa.Table:
    return pa.table({"grip": pa.array(np.arange(length) + 10.0 * task), **row_columns(length, FPS, task)})


def written(root: Path, episodes: Sequence[int], before: State) -> tuple[pa.Table, pa.Table, State]:
    """Write some of the episodes into a folder; returns rows, rows of the list, and the dataset's state."""
    known = root / TASKS if (root / TASKS).exists() else ()
    writer = DatasetWriter(root, FPS, before, tasks=known, taken=lambda place: (root / place).exists())
    rows, tables, videos = [], [], []
    for number in episodes:
        one = writer.number(rows_of(LENGTHS[number], writer.task(TEXTS[number])))
        file = writer.files.next(DATA)
        rows += writer.write_rows(file, one.table.schema, [(one, {})], ["grip"])
        tables.append(pq.read_table(root / file.path))
        videos.append(VideoPlace(writer.files.next(videos_of(TOP)), 0))
        writer.add_total("grip", rows[-1].stats["grip"])
    lengths = {
        name: pa.array(values)
        for name, values in (("episode_index", [9] * len(rows)), ("length", [one.length for one in rows]))
    }
    file = writer.files.next(EPISODES)
    stats = {"grip": [one.stats["grip"] for one in rows], TOP: [STATS] * len(rows)}
    writer.write_list(file, [writer.list_rows(lengths, rows, {TOP: videos}, stats, file)])
    if tuple(writer.tasks) != before.tasks:
        writer.write_tasks()
    after = State(
        writer.info(before.info),
        stats=before.stats | writer.totals,
        tasks=tuple(writer.tasks),
        last=writer.files.last,
    )
    return pa.concat_tables(tables), pq.read_table(root / file.path), after


def test_a_dataset_that_grows_is_numbered_as_one_that_is_written_at_once(tmp_path: Path) -> None:
    rows, listed, after = written(tmp_path / "whole", range(3), State({}))
    part_rows, part_listed, between = written(tmp_path / "grown", range(2), State({}))
    more_rows, more_listed, grown = written(tmp_path / "grown", [2], between)
    assert pa.concat_tables([part_rows, more_rows]).equals(rows)
    own = ["meta/episodes/chunk_index", "meta/episodes/file_index"]
    both = pa.concat_tables([part_listed, more_listed])
    assert both.drop_columns(own).equals(listed.drop_columns(own))
    assert [both[name].to_pylist() for name in own] == [[0, 0, 0], [0, 0, 1]]
    assert (grown.info, grown.tasks) == (after.info, after.tasks)
    assert grown.info == {"splits": {"train": "0:3"}, "total_episodes": 3, "total_frames": 8}
    assert task_texts(tmp_path / "grown" / TASKS) == ["wave", "stop"]
    for name in STATISTICS:
        assert np.allclose(
            grown.stats["grip"][name], column_stats({"grip": rows["grip"].to_numpy()})["grip"][name]
        )


def test_rows_and_the_list_say_what_the_writer_has_counted(tmp_path: Path) -> None:
    rows, listed, _ = written(tmp_path, range(3), State({}))
    assert rows["index"].to_pylist() == list(range(8))
    assert rows["episode_index"].to_pylist() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert rows["task_index"].to_pylist() == [0, 0, 0, 1, 0, 0, 0, 0]
    assert rows["timestamp"].to_pylist()[4:] == [np.float32(n / 10) for n in range(4)]
    assert listed["episode_index"].to_pylist() == [0, 1, 2]  # not what a source called them
    assert listed["tasks"].to_pylist() == [["wave"], ["stop"], ["wave"]]
    assert listed["dataset_from_index"].to_pylist() == [0, 3, 4]
    assert listed["dataset_to_index"].to_pylist() == [3, 4, 8]
    assert listed["data/file_index"].to_pylist() == [0, 1, 2]
    assert listed[f"videos/{TOP}/to_timestamp"].to_pylist() == [0.3, 0.1, 0.4]
    assert listed.column_names[-2:] == ["meta/episodes/chunk_index", "meta/episodes/file_index"]
    schema = pq.read_schema(tmp_path / "meta/episodes/chunk-000/file-000.parquet")
    kinds = {name: schema.field(f"stats/{TOP}/{name}").type for name in STATS}
    assert {kind.value_type for name, kind in kinds.items() if name != "count"} == {pa.float64()}
    assert kinds["count"].value_type == pa.int64()


def test_files_are_numbered_by_kind_chunk_by_chunk_past_those_that_are_there() -> None:
    taken = {"data/chunk-000/file-001.parquet"}
    files = Files({"chunks_size": 2}, {EPISODES: (4, 1)}, taken.__contains__)
    assert [files.next(DATA)[:2] for _ in range(3)] == [(0, 0), (1, 0), (1, 1)]
    assert files.next(EPISODES) == FilePlace(5, 0, "meta/episodes/chunk-005/file-000.parquet")
    # A camera may have the name of another kind of file.
    assert files.next(videos_of("data")) == FilePlace(0, 0, "videos/data/chunk-000/file-000.mp4")
    assert files.last == {DATA: (1, 1), EPISODES: (5, 0), "videos/data": (0, 0)}


def test_a_tasks_table_keeps_what_else_it_holds_and_gets_the_new_text(tmp_path: Path) -> None:
    path = tmp_path / "tasks.parquet"
    pq.write_table(task_table(["wave"]).append_column("colour", pa.array(["red"])), path)
    writer = DatasetWriter(tmp_path / "new", FPS, State({}), tasks=path)
    assert (writer.task("wave"), writer.task("stop"), writer.task("stop")) == (0, 1, 1)
    writer.write_tasks()
    assert pq.read_table(tmp_path / "new" / TASKS).to_pylist() == [
        {"task_index": 0, "task": "wave", "colour": "red"},
        {"task_index": 1, "task": "stop", "colour": None},
    ]
    pq.write_table(task_table(["wave"]).append_column("colour", pa.array([5])).drop_columns("task"), path)
    with pytest.raises(SourceError, match=r"tasks\.parquet: has no column task"):
        DatasetWriter(tmp_path / "new", FPS, State({}), tasks=path).task("stop")


def test_totals_go_on_from_those_of_the_dataset_in_its_shape(tmp_path: Path) -> None:
    known = {name: [value] for name, value in STATS.items() if name != "count"} | {"count": [8]}
    writer = DatasetWriter(tmp_path, FPS, State({}, stats={"grip": known}))
    writer.add_total("grip", STATS)
    both = Aggregate()
    both.add(known)
    both.add(known)
    assert writer.totals == {"grip": both.result()}
    with pytest.raises(ValueError, match="no max"):
        writer.add_total("grip", {"min": [0.0]})


def test_tables_share_a_file_up_to_the_limit_if_they_are_alike() -> None:
    table = pa.table({"a": pa.array([1, 2])})
    division = Division(100)
    assert [division.of(table, size) for size in (60, 40, 1, 99, 200, 1)] == [0, 0, 1, 1, 2, 3]
    assert division.of(table.append_column("b", table["a"])) == 4


@dataclass
class Images:
    """Episodes of so many images each, of so many bytes."""

    lengths: Sequence[int]
    size: int = 30

    def camera_bytes(self, camera: str, episodes: Sequence[EpisodeRef]) -> int:
        return sum(self.size * episode.length for episode in episodes)


def divided(source: Any, paths: Sequence[Path | None], images: Sequence[str], *, together: bool) -> list[int]:
    division = RowDivision(source, images, 200, together=together)
    tables = [pa.table({"a": pa.array(np.zeros(n, np.int8))}) for n in source.lengths]
    episodes = [EpisodeRef(number, table.num_rows) for number, table in enumerate(tables)]
    return [division.of(one) for one in zip(episodes, paths, tables, strict=True)]


def test_files_of_the_source_stay_files_unless_small_ones_are_put_together(tmp_path: Path) -> None:
    paths = []
    for number, rows in enumerate((2, 2, 1)):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"a": pa.array(np.zeros(rows, np.int8))}), path)
        paths += [path] * rows
    source = Images([1] * 5)
    assert divided(source, paths, (), together=False) == [0, 0, 1, 1, 2]
    assert divided(source, paths, (), together=True) == [0] * 5
    whole = paths[0].stat().st_size
    division = RowDivision(source, [TOP], 2 * whole, together=True)
    table = pa.table({"a": pa.array([0])})
    found = [division.of((EpisodeRef(n, 1), path, table)) for n, path in enumerate(paths)]
    assert found == [0, 0, 0, 0, 1]  # none is cut


def test_images_that_stay_count_for_the_size_of_a_data_file() -> None:
    source = Images([4, 4, 2])
    assert divided(source, [None] * 3, [TOP], together=True) == [0, 1, 1]
    assert divided(source, [None] * 3, (), together=True) == [0, 0, 0]
