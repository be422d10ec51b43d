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

from ffenc.dataset.columns import misread_tasks, task_table, task_texts
from ffenc.dataset.job.division import Division, RowDivision
from ffenc.dataset.listing import listings
from ffenc.dataset.model import Episode, EpisodeRef, Known, with_known
from ffenc.dataset.places import DATA, FilePlace, Files, VideoPlace, videos_of
from ffenc.dataset.statistics import Aggregate, column_stats
from ffenc.dataset.writer import DatasetWriter, State, described_rows
from ffenc.errors import SourceError
from ffenc.layout import EPISODES, STATISTICS, TASKS

FPS = Fraction(10)
TOP = "observation.images.top"
LENGTHS, TEXTS = (3, 1, 4), ("wave", "stop", "wave")
STATS = {"min": [0.0], "max": [1.0], "mean": [0.5], "std": [0.1], "count": [8]}


def episode(length: int, *tasks: str, **fields: Any) -> Episode:
    return Episode(length, pa.table({"grip": pa.array(np.arange(length) + 10.0 * length)}), tasks, **fields)


def listed_as(number: int) -> Known:
    """What a source's list says of an episode."""
    known = Known.of({TOP: STATS}).table
    return Known(known.add_column(0, "episode_index", pa.array([number])))


def written(root: Path, episodes: Sequence[int], before: State) -> tuple[pa.Table, pa.Table, State]:
    """Write some of the episodes into a folder; returns rows, rows of the list, and the dataset's state."""
    known = root / TASKS if (root / TASKS).exists() else ()
    writer = DatasetWriter(root, FPS, before, tasks=known, taken=lambda place: (root / place).exists())
    rows, tables, videos = [], [], []
    for number in episodes:
        one = writer.number(episode(LENGTHS[number], TEXTS[number], known=listed_as(9), index=9))
        file = writer.files.next(DATA)
        rows += writer.write_rows(file, one.table.schema, [(one, {})], ["grip"])
        tables.append(pq.read_table(root / file.path))
        videos.append(VideoPlace(writer.files.next(videos_of(TOP)), 0))
        writer.add_total("grip", rows[-1].stats["grip"])
    file = writer.files.next(EPISODES)
    listed = [
        writer.list_rows(one, {TOP: [video]}, {"grip": [row.stats["grip"]]}, file)
        for one, row, video in zip(listings(rows), rows, videos, strict=True)
    ]
    writer.write_list(file, listed)
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
    # LeRobot finds a task by its row, and its text in the index.
    pq.write_table(pa.table({"task_index": [1, 0], "task": ["lift", "wave"], "colour": [2, 1]}), path)
    writer = DatasetWriter(tmp_path / "sorted", FPS, State({}), tasks=path)
    assert writer.task("stop") == 2
    writer.write_tasks()
    table = pq.read_table(tmp_path / "sorted" / TASKS)
    assert misread_tasks(table) is None
    assert table.to_pylist() == [
        {"task_index": number, "task": text, "colour": colour}
        for number, (text, colour) in enumerate([("wave", 1), ("lift", 2), ("stop", None)])
    ]
    # Without numbers, task i is in row i.
    pq.write_table(pa.table({"task": ["lift", "wave"], "colour": [2, 1]}), path)
    for folder, more in (("same", []), ("more", ["stop"])):
        writer = DatasetWriter(tmp_path / folder, FPS, State({}), tasks=path)
        assert [writer.task(text) for text in ("wave", *more)] == [1, *([2] if more else [])]
        writer.write_tasks()
        table = pq.read_table(tmp_path / folder / TASKS)
        assert misread_tasks(table) is None
        assert table["task_index"].to_pylist() == list(range(2 + len(more)))
        assert table["task"].to_pylist() == ["lift", "wave", *more]
    pq.write_table(task_table(["wave"]).append_column("colour", pa.array([5])).drop_columns("task"), path)
    with pytest.raises(SourceError, match=r"tasks\.parquet: has no column task"):
        DatasetWriter(tmp_path / "new", FPS, State({}), tasks=path).task("stop")


def test_damage_in_the_text_of_a_task_is_noticed(tmp_path: Path) -> None:
    DatasetWriter(tmp_path, FPS, State({}), tasks=["wave", "stop"]).write_tasks()
    path = tmp_path / TASKS
    assert task_texts(path) == ["wave", "stop"]
    path.write_bytes(path.read_bytes().replace(b"wave", b"wavy", 1))
    with pytest.raises(SourceError, match="CRC"):
        task_texts(path)


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
    episodes = [
        Episode(table.num_rows, table, index=number, file=path)
        for number, (table, path) in enumerate(zip(tables, paths, strict=True))
    ]
    return [division.of(one, one.rows) for one in episodes]


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
    found = [division.of(Episode(1, table, index=n, file=path), table) for n, path in enumerate(paths)]
    assert found == [0, 0, 0, 0, 1]  # none is cut


def test_images_that_stay_count_for_the_size_of_a_data_file() -> None:
    source = Images([4, 4, 2])
    assert divided(source, [None] * 3, [TOP], together=True) == [0, 1, 1]
    assert divided(source, [None] * 3, (), together=True) == [0, 0, 0]


def test_rows_get_the_columns_that_only_the_writer_knows(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path, FPS, State({}), tasks=["stop"])
    writer.number(episode(2, "wave"))
    numbers = np.array([1, 0, 1, 0])
    rows = writer.number(episode(4).with_tasks(["stop", "wave"], numbers))
    assert rows.tasks == [1, 0]  # in the order in which they come
    assert rows.table.drop_columns("grip").to_pydict() == {
        "timestamp": [np.float32(n / 10) for n in range(4)],
        "frame_index": [0, 1, 2, 3],
        "episode_index": [1] * 4,
        "index": [2, 3, 4, 5],
        "task_index": [1, 0, 1, 0],
    }
    kinds = {"timestamp": pa.float64(), "index": pa.int32()}
    again = writer.number(episode(1, "wave"), kinds).table
    assert again.schema.names == ["grip", "timestamp", "index"]
    assert [again.schema.field(name).type for name in kinds] == list(kinds.values())


def test_two_tasks_of_one_text_are_one() -> None:
    one = episode(3).with_tasks(["stop", "wave", "stop"], np.array([2, 0, 2]))
    assert (list(one.tasks), one.row_tasks) == (["stop"], None)
    two = episode(3).with_tasks(["stop", "wave", "stop"], np.array([1, 2, 0]))
    assert list(two.tasks) == ["wave", "stop"]
    assert two.row_tasks is not None
    assert two.row_tasks.tolist() == [0, 1, 1]


def test_what_is_known_of_several_episodes_is_changed_and_listed_once() -> None:
    shared = pa.table({"episode_index": pa.array([4, 7]), "said": pa.array(["a", "b"])})
    given = [
        *(episode(1, known=Known(shared, row), index=number) for row, number in enumerate((4, 7))),
        episode(1, known=Known(shared.slice(1), 0), index=7),
        *(episode(1, index=number) for number in range(2)),
    ]
    changed: list[int] = []

    def change(table: pa.Table) -> pa.Table:
        changed.append(table.num_rows)
        return table.append_column("more", table["episode_index"])

    writer = DatasetWriter(Path(), FPS, State({}))
    place = FilePlace(0, 0, "data")
    episodes = with_known(iter(given), change)
    found = list(listings(described_rows(writer.number(one), place, []) for one in episodes))
    assert changed == [2, 1]
    assert [len(one.rows) for one in found] == [2, 1, 2]
    listed = [writer.list_rows(one, {}, {}, place) for one in found]
    assert [table["episode_index"].to_pylist() for table in listed] == [[0, 1], [2], [3, 4]]
    assert listed[0]["more"].to_pylist() == [4, 7]
    assert listed[2].column_names[:2] == ["episode_index", "length"]
