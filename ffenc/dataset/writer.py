"""Write the tables of a LeRobot v3.0 dataset: only here its episodes, rows, tasks and files are numbered.

A job writes a whole dataset with it (:mod:`ffenc.dataset.tables`), a recording what a dataset gets by one
more episode (:mod:`ffenc.dataset.episode`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.dataset.columns import (
    WRITTEN,
    list_of,
    misread_tasks,
    more_tasks,
    numbers_of,
    read_table,
    readable_tasks,
    set_column,
    statistic_type,
    task_table,
    task_texts,
    whole_numbers,
)
from ffenc.dataset.image_rows import ImageRows, write_image_rows
from ffenc.dataset.staging import write_json
from ffenc.dataset.statistics import Aggregate, column_stats
from ffenc.errors import SourceError
from ffenc.frames.sources import FrameSource
from ffenc.frames.statistics import Stats
from ffenc.layout import (
    DATA_COLUMNS,
    DATA_PATH,
    EPISODES_PATH,
    LIST_COLUMNS,
    NOTES_PATH,
    STATS,
    TASKS,
    VIDEO_PATH,
    files_in_chunk,
    place_columns,
)
from ffenc.storage.mirror import held

DATA, EPISODES = "data", "meta/episodes"  # kinds of files, by their folders; see videos_of for the others
_TEMPLATES = {DATA: DATA_PATH, EPISODES: EPISODES_PATH}
NumberedFile = tuple[int, int]  # of a chunk, and in it


class FilePlace(NamedTuple):
    """A numbered file of a dataset: its chunk, its number there, and its path in the dataset."""

    chunk: int
    number: int
    path: str


class VideoPlace(NamedTuple):
    """Where an episode's frames are: the file, and the frame of it at which the episode starts."""

    file: FilePlace
    start: int | Fraction  # of a source that is off the grid, part of a frame too


class Files:
    """Numbers a dataset's files, those of each kind one after another.

    Args:
        info: contents of info.json, which says how many files are in a chunk.
        last: the highest numbers that are in use, by kind: ``DATA``, ``EPISODES``, or :func:`videos_of` a
            camera.
        taken: whether a file is in a place already, though it has no number.
    """

    def __init__(
        self,
        info: Mapping[str, Any],
        last: Mapping[str, NumberedFile] | None = None,
        taken: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._in_chunk = files_in_chunk(info)
        self.last = dict(last or {})
        self._taken = taken

    def next(self, kind: str) -> FilePlace:
        """Return the next free place of a kind of file."""
        chunk, number = self.last.get(kind, (0, -1))
        while True:
            chunk, number = (chunk, number + 1) if number + 1 < self._in_chunk else (chunk + 1, 0)
            place = numbered_file(kind, chunk, number)
            if not self._taken(place.path):
                self.last[kind] = chunk, number
                return place


def videos_of(camera: str) -> str:
    """Return the kind of file that a camera's videos are."""
    return f"videos/{camera}"


def numbered_file(kind: str, chunk: int, number: int) -> FilePlace:
    """Return the place of a file that has its numbers."""
    template, key = _TEMPLATES.get(kind, VIDEO_PATH), kind.removeprefix("videos/")
    return FilePlace(chunk, number, template.format(video_key=key, chunk_index=chunk, file_index=number))


@dataclass(frozen=True)
class State:
    """A dataset between two episodes.

    Attributes:
        info, stats: of info.json and stats.json; without features before they are known.
        tasks: texts by number.
        rows, episodes: schemas of the tables; None before the first episode.
        last: the highest numbers in use, of each kind of file.
    """

    info: dict[str, Any]
    stats: dict[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    rows: pa.Schema | None = None
    episodes: pa.Schema | None = None
    last: Mapping[str, NumberedFile] = field(default_factory=dict)

    @property
    def total_episodes(self) -> int:
        return int(self.info.get("total_episodes") or 0)

    @property
    def total_frames(self) -> int:
        return int(self.info.get("total_frames") or 0)


@dataclass(frozen=True)
class NumberedRows:
    """The rows of an episode.

    Attributes:
        number: of the episode.
        first: number of the first row in the dataset.
        table: the rows, without images.
    """

    number: int
    first: int
    table: pa.Table


@dataclass(frozen=True)
class WrittenRows:
    """What is known of an episode whose rows are written.

    Attributes:
        number, first: as of :class:`NumberedRows`.
        length: how many rows.
        file: where they are.
        tasks: numbers of their tasks, in the order in which they come.
        stats: statistics of their features.
    """

    number: int
    first: int
    length: int
    file: FilePlace
    tasks: list[int]
    stats: dict[str, Stats]


def row_columns(length: int, fps: Fraction, tasks: int | npt.NDArray[np.int64] = 0) -> dict[str, pa.Array]:
    """Return LeRobot's own columns of an episode's rows; :meth:`DatasetWriter.number` numbers them.

    Args:
        length: how many rows.
        fps: frames a second.
        tasks: number of the task of all rows, or of each, shape ``(length,)``.
    """
    numbers = np.arange(length)
    return {
        "timestamp": pa.array((numbers / float(fps)).astype(np.float32)),
        "frame_index": pa.array(numbers),
        "episode_index": pa.array(np.zeros_like(numbers)),
        "index": pa.array(numbers),
        "task_index": pa.array(np.full(length, tasks, np.int64)),
    }


class DatasetWriter:
    """Writes a dataset's tables into a folder: all of them, or what further episodes change.

    Episodes come in their order: :meth:`number`, :meth:`write_rows`, then :meth:`list_rows`.

    Args:
        folder: where files are written, each at its place in the dataset.
        fps: frames a second.
        before: the dataset without these episodes.
        tasks: the tasks' texts by number, or a dataset's tasks table.
        taken: as for :class:`Files`.
    """

    def __init__(
        self,
        folder: Path,
        fps: Fraction,
        before: State,
        *,
        tasks: Path | Sequence[str] = (),
        taken: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.folder = folder
        self.files = Files(before.info, before.last, taken)
        self._fps, self._before, self._tasks = fps, before, tasks
        self._episodes, self._frames = before.total_episodes, before.total_frames
        self._more_tasks: list[str] = []
        self._totals: dict[str, Aggregate] = {}

    # --- numbers --------------------------------------------------------------------------------------

    def number(self, table: pa.Table) -> NumberedRows:
        """Give the next episode its number, and its rows theirs.

        Args:
            table: its rows, with LeRobot's own columns.
        """
        own = {
            "episode_index": np.full(table.num_rows, self._episodes),
            "index": np.arange(self._frames, self._frames + table.num_rows),
        }
        for name in own.keys() & set(table.column_names):
            table = set_column(table, name, own[name])
        rows = NumberedRows(self._episodes, self._frames, table)
        self._episodes += 1
        self._frames += table.num_rows
        return rows

    def task(self, text: str) -> int:
        """Return the number of a task, which gets the next one where it is new."""
        if text not in self.tasks:
            self._more_tasks.append(text)
        return self.tasks.index(text)

    @property
    def tasks(self) -> list[str]:
        """The texts of all tasks by number."""
        return self._known_tasks + self._more_tasks

    @cached_property
    def _known_tasks(self) -> list[str]:
        return task_texts(self._tasks)

    # --- rows -----------------------------------------------------------------------------------------

    def write_rows(
        self,
        file: FilePlace,
        schema: pa.Schema,
        episodes: Iterable[tuple[NumberedRows, Mapping[str, FrameSource]]],
        stats_of: Sequence[str],
        on_rows: Callable[[int], None] = lambda _: None,
    ) -> list[WrittenRows]:
        """Write a data file, a row group an episode, or several where memory asks for it.

        Args:
            file: the file.
            schema: its columns, images among them.
            episodes: their rows, and camera -> images, which may be copied from where they are.
            stats_of: the features of which statistics are computed.
            on_rows: called with a count of rows once they are written; may raise.

        Raises:
            SourceError: an image is missing, or what holds it is damaged.
        """
        written: list[WrittenRows] = []

        def seen() -> Iterator[ImageRows]:
            for rows, images in episodes:
                written.append(described_rows(rows, file, stats_of))
                yield rows.table, images

        write_image_rows(self._made(file.path), schema, seen(), on_rows)
        return written

    # --- the episode list -----------------------------------------------------------------------------

    def list_rows(
        self,
        known: Mapping[str, Any],
        rows: Sequence[WrittenRows],
        videos: Mapping[str, Sequence[VideoPlace]],
        stats: Mapping[str, Sequence[Stats]],
        file: FilePlace,
    ) -> pa.Table:
        """Return rows of the episode list.

        Args:
            known: columns with what else is known of the episodes; numbers and places in them are replaced,
                and ``tasks`` are filled in.
            rows: the episodes.
            videos: camera -> where each of them is.
            stats: feature -> statistics of each of them.
            file: the file of the list they go to.
        """
        own = dict(zip(LIST_COLUMNS, ([file.chunk] * len(rows), [file.number] * len(rows)), strict=True))
        columns = {n: c for n, c in known.items() if n not in own and not n.startswith(("stats/", "videos/"))}
        columns = self._with_tasks(columns, rows)
        columns["episode_index"] = _whole(one.number for one in rows)
        columns |= {
            DATA_COLUMNS[0]: _whole(one.file.chunk for one in rows),
            DATA_COLUMNS[1]: _whole(one.file.number for one in rows),
        }
        columns["dataset_from_index"] = _whole(one.first for one in rows)
        columns["dataset_to_index"] = _whole(one.first + one.length for one in rows)
        for camera, places in videos.items():
            columns |= _video_columns(camera, places, [one.length for one in rows], self._fps)
        columns |= {name: column for name, column in known.items() if name.startswith("stats/")}
        for key, computed in stats.items():
            for name in computed[0]:
                values = [one[name] for one in computed]
                columns[f"stats/{key}/{name}"] = pa.array(values, statistic_type(name, values[0]))
        return pa.table(columns | {name: _whole(values) for name, values in own.items()})

    def _with_tasks(self, columns: dict[str, Any], rows: Sequence[WrittenRows]) -> dict[str, Any]:
        """The columns with each episode's task texts, which LeRobot's own conversion leaves out."""
        there = columns["tasks"].to_pylist() if "tasks" in columns else [None] * len(rows)
        if None not in there or not all(one.tasks for one in rows):
            return columns
        texts = [own or [self.tasks[n] for n in one.tasks] for own, one in zip(there, rows, strict=True)]
        kind = columns["tasks"].type if "tasks" in columns else list_of(pa.string())
        tasks = pa.array(texts, kind)
        return {"episode_index": columns["episode_index"], "tasks": tasks, **columns} | {"tasks": tasks}

    def write_list(self, file: FilePlace, tables: Iterable[pa.Table]) -> None:
        """Write a file of the episode list, from one table or more."""
        path, writer = self._made(file.path), None
        try:
            for table in tables:
                writer = writer or pq.ParquetWriter(path, table.schema, **WRITTEN)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()

    # --- tasks, statistics, info, notes ---------------------------------------------------------------

    def task_rows(self) -> pa.Table:
        """Return the tasks table; what else the known one holds stays.

        Raises:
            SourceError: it takes no further task.
        """
        if not isinstance(self._tasks, Path):
            return task_table(self.tasks)
        known = read_table(self._tasks)
        if not self._more_tasks:
            return readable_tasks(known)
        try:
            return more_tasks(known, self._more_tasks, first=len(self._known_tasks))
        except (pa.ArrowException, ValueError) as error:
            raise SourceError(f"cannot take another task: {error}", where=self._tasks) from None

    def write_tasks(self) -> None:
        """Write the tasks table; one that is read as it is meant, and gets no task, is copied."""
        path, known = self._made(TASKS), self._tasks
        if isinstance(known, Path) and not self._more_tasks and misread_tasks(read_table(known)) is None:
            shutil.copyfile(known, path)
        else:
            pq.write_table(self.task_rows(), path)

    def add_total(self, key: str, stats: Mapping[str, Any]) -> None:
        """Add the statistics of one episode to those of all.

        Raises:
            ValueError, TypeError, LookupError: they are not whole, or not like those of the other episodes.
        """
        known = self._before.stats.get(key)
        total = self._totals.setdefault(key, Aggregate())
        if known is not None:
            shape = np.shape(known["min"])
            stats = {
                name: value if name == "count" else np.asarray(value, np.float64).reshape(shape)
                for name, value in stats.items()
            }
            if total.empty:
                total.add(known)
        total.add(stats)

    @property
    def totals(self) -> dict[str, Stats]:
        """The statistics of all episodes, of the features that got some."""
        return {key: total.result() for key, total in self._totals.items()}

    def write_stats(self, stats: Mapping[str, Stats]) -> None:
        """Write ``stats.json``."""
        write_json(self.folder / STATS, stats)

    def info(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Return the contents of ``info.json`` with the totals.

        Args:
            info: all else in it; ``splits`` of which the training one was the whole dataset are that again.
        """
        whole = {"train": f"0:{self._before.total_episodes}"}
        if not info.get("splits") or info["splits"] == whole:
            info = {**info, "splits": {"train": f"0:{self._episodes}"}}
        return {**info, "total_episodes": self._episodes, "total_frames": self._frames}

    def write_notes(self, number: int, notes: Path | Mapping[str, Any]) -> str:
        """Write what was noted of an episode, or copy the file of it; returns its place."""
        place = NOTES_PATH.format(episode_index=number)
        if isinstance(notes, Path):
            self.copy(notes, place)
        else:
            write_json(self.folder / place, notes)
        return place

    def copy(self, source: Path, place: str) -> None:
        """Copy a file that belongs to the dataset, whatever is in it."""
        with held(source):
            shutil.copy2(source, self._made(place))

    def _made(self, place: str) -> Path:
        """The path of a file that is to be written, in a folder that is there."""
        path = self.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def described_rows(rows: NumberedRows, file: FilePlace, stats_of: Sequence[str]) -> WrittenRows:
    """Return what is known of an episode whose rows go to a file.

    Args:
        rows: the episode's.
        file: where they go.
        stats_of: the features of which statistics are computed.
    """
    table = rows.table
    stats = column_stats({key: numbers_of(table[key]) for key in stats_of})
    tasks = whole_numbers(table["task_index"]) if "task_index" in table.column_names else []
    return WrittenRows(rows.number, rows.first, table.num_rows, file, tasks, stats)


def _whole(values: Iterable[int]) -> pa.Array:
    return pa.array(list(values), pa.int64())


def _video_columns(
    camera: str, places: Sequence[VideoPlace], lengths: Sequence[int], fps: Fraction
) -> dict[str, pa.Array]:
    """The columns of the episode list that say where a camera's episodes are."""
    ends = [place.start + length for place, length in zip(places, lengths, strict=True)]
    values = (
        _whole(place.file.chunk for place in places),
        _whole(place.file.number for place in places),
        pa.array([float(place.start / fps) for place in places], pa.float64()),
        pa.array([float(end / fps) for end in ends], pa.float64()),
    )
    return dict(zip(place_columns(camera), values, strict=True))
