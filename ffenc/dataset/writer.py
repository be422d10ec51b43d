"""Write the tables of a LeRobot v3.0 dataset: episodes, rows, tasks and files are numbered only here.

A job writes a complete dataset (:mod:`ffenc.dataset.job.tables`), a recording the files that one more episode
adds (:mod:`ffenc.dataset.episode`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct, field

from ffenc.dataset.columns import (
    WRITTEN,
    feature_type,
    misread_tasks,
    more_tasks,
    numbers_of,
    read_table,
    readable_tasks,
    task_table,
    task_texts,
)
from ffenc.dataset.image_rows import ImageRows, write_image_rows
from ffenc.dataset.listing import Listing, WrittenRows, list_rows
from ffenc.dataset.model import Episode, Known
from ffenc.dataset.places import FilePlace, Files, NumberedFile, VideoPlace
from ffenc.dataset.staging import write_json
from ffenc.dataset.statistics import Aggregate, column_stats
from ffenc.errors import SourceError
from ffenc.frames.sources import FrameSource
from ffenc.frames.statistics import Stats
from ffenc.layout import DEFAULT_FEATURES, NOTES_PATH, STATS, TASKS
from ffenc.storage.mirror import held

NUMBERING_TYPES = {name: feature_type(feature) for name, feature in DEFAULT_FEATURES.items()}


class State(Struct, frozen=True):
    """The state of a dataset between two episodes.

    Attributes:
        info, stats: contents of info.json and stats.json; without features before they are known.
        tasks: texts by index.
        rows, episodes: schemas of the tables; None before the first episode.
        last: highest used numbers, by kind of file.
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


class NumberedRows(Struct, frozen=True):
    """The rows of an episode, numbered.

    Attributes:
        number: index of the episode.
        first: index of the first row in the dataset.
        table: the rows with LeRobot's own columns, without images.
        tasks: indices of its tasks, in the order of the rows.
        known: its known fields.
        index: its index in the source.
    """

    number: int
    first: int
    table: pa.Table
    tasks: list[int]
    known: Known | None
    index: int


class DatasetWriter:
    """Writes a dataset's tables to a folder: all of them, or those that further episodes change.

    Episodes are passed in order to :meth:`number`, :meth:`write_rows`, then :meth:`list_rows`.

    Args:
        folder: folder of the written files, with the paths of the dataset.
        fps: frames per second.
        before: the state of the dataset without these episodes.
        tasks: texts of the tasks by index, or a dataset's tasks table.
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
        self._last_schema: tuple[pa.Schema, dict[str, pa.DataType], pa.Schema] | None = None
        self._totals: dict[str, Aggregate] = {}

    # --- numbers --------------------------------------------------------------------------------------

    def number(self, episode: Episode, kinds: Mapping[str, pa.DataType] = NUMBERING_TYPES) -> NumberedRows:
        """Number the next episode and its rows, and set the rows' timestamps.

        Args:
            episode: the next episode.
            kinds: LeRobot's own columns for its rows, with their types.
        """
        tasks = [self.task(text) for text in episode.tasks]
        frames = np.arange(episode.length)
        task_of = np.array(tasks or [0])[0 if episode.row_tasks is None else episode.row_tasks]
        own = {
            "timestamp": frames / float(self._fps),
            "frame_index": frames,
            "episode_index": np.full(episode.length, self._episodes),
            "index": frames + self._frames,
            "task_index": np.broadcast_to(task_of, episode.length),
        }
        added = [pa.array(own[name], kind, safe=False) for name, kind in kinds.items()]
        schema = self._numbered_schema(episode.rows.schema, kinds)
        table = pa.Table.from_arrays([*episode.rows.columns, *added], schema=schema)
        rows = NumberedRows(self._episodes, self._frames, table, tasks, episode.known, episode.index)
        self._episodes += 1
        self._frames += episode.length
        return rows

    def _numbered_schema(self, rows: pa.Schema, kinds: Mapping[str, pa.DataType]) -> pa.Schema:
        """Return the schema of rows with LeRobot's own columns, cached for episodes with the same columns."""
        known = self._last_schema
        if known is None or known[1] != kinds or not known[0].equals(rows, check_metadata=True):
            fields = [*rows, *(pa.field(name, kind) for name, kind in kinds.items())]
            known = self._last_schema = rows, dict(kinds), pa.schema(fields, rows.metadata)
        return known[2]

    def task(self, text: str) -> int:
        """Return the index of a task; a new task gets the next one."""
        if text not in self._task_numbers:
            self._task_numbers[text] = len(self.tasks)
            self._more_tasks.append(text)
        return self._task_numbers[text]

    @cached_property
    def _task_numbers(self) -> dict[str, int]:
        numbers: dict[str, int] = {}
        for number, text in enumerate(self._known_tasks):
            numbers.setdefault(text, number)
        return numbers

    @property
    def tasks(self) -> list[str]:
        """Texts of all tasks by index."""
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
        """Write a data file with one row group per episode, or several if memory requires it.

        Args:
            file: the file.
            schema: its columns, including images.
            episodes: their rows, and camera -> images, which may be copied from their files.
            stats_of: features whose statistics are computed.
            on_rows: called with the number of rows after they are written; may raise.

        Raises:
            SourceError: an image is missing, or its file is damaged.
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
        listing: Listing,
        videos: Mapping[str, Sequence[VideoPlace]],
        stats: Mapping[str, Sequence[Stats]],
        file: FilePlace,
    ) -> pa.Table:
        """Return rows of the episode list; see :func:`~ffenc.dataset.listing.list_rows`."""
        return list_rows(listing, videos, stats, file, tasks=self.tasks, fps=self._fps)

    def write_list(self, file: FilePlace, tables: Iterable[pa.Table]) -> None:
        """Write a file of the episode list from one or more tables."""
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
        """Return the tasks table as LeRobot reads it; other columns of the existing one are kept.

        Raises:
            SourceError: a task cannot be added to it.
        """
        if not isinstance(self._tasks, Path):
            return task_table(self.tasks)
        known = read_table(self._tasks)
        try:
            if misread_tasks(known) is not None:
                known = readable_tasks(known)
            if not self._more_tasks:
                return known
            return more_tasks(known, self._more_tasks, first=len(self._known_tasks))
        except (pa.ArrowException, ValueError, LookupError) as error:
            raise SourceError(f"cannot take another task: {error}", where=self._tasks) from None

    def write_tasks(self) -> None:
        """Write the tasks table; it is copied if LeRobot reads it correctly and no task is added."""
        path, known = self._made(TASKS), self._tasks
        if isinstance(known, Path) and not self._more_tasks and misread_tasks(read_table(known)) is None:
            shutil.copyfile(known, path)
        else:
            pq.write_table(self.task_rows(), path, **WRITTEN)

    def add_total(self, key: str, stats: Mapping[str, Any]) -> None:
        """Add the statistics of an episode to those of all episodes.

        Raises:
            ValueError, TypeError, LookupError: they are incomplete, or do not match those of the other
                episodes.
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
        """Return the statistics of all episodes, by feature."""
        return {key: total.result() for key, total in self._totals.items()}

    def write_stats(self, stats: Mapping[str, Stats]) -> None:
        """Write ``stats.json``."""
        write_json(self.folder / STATS, stats)

    def info(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Return the contents of ``info.json`` with the totals.

        Args:
            info: its other fields; ``splits`` whose training part was the whole dataset are updated.
        """
        whole = {"train": f"0:{self._before.total_episodes}"}
        if not info.get("splits") or info["splits"] == whole:
            info = {**info, "splits": {"train": f"0:{self._episodes}"}}
        return {**info, "total_episodes": self._episodes, "total_frames": self._frames}

    def write_notes(self, number: int, notes: Path | Mapping[str, Any]) -> str:
        """Write an episode's notes, or copy their file; return the path in the dataset."""
        place = NOTES_PATH.format(episode_index=number)
        if isinstance(notes, Path):
            self.copy(notes, place)
        else:
            write_json(self.folder / place, notes)
        return place

    def copy(self, source: Path, place: str) -> None:
        """Copy a file of the dataset, whatever its contents are.

        Raises:
            SourceError: it cannot be read.
        """
        with held(source):
            try:
                source.open("rb").close()
            except OSError as error:
                raise SourceError(f"{source}: cannot be read: {error.strerror}") from None
            shutil.copy2(source, self._made(place))

    def _made(self, place: str) -> Path:
        """Return the path of a file to write, after creating its folder."""
        path = self.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def described_rows(rows: NumberedRows, file: FilePlace, stats_of: Sequence[str]) -> WrittenRows:
    """Return the known fields of an episode whose rows are written to a file.

    Args:
        rows: rows of the episode.
        file: the file.
        stats_of: features whose statistics are computed.
    """
    table = rows.table
    stats = column_stats({key: numbers_of(table[key]) for key in stats_of})
    return WrittenRows(
        *(rows.number, rows.first, table.num_rows, file, rows.tasks, stats, rows.known, rows.index)
    )
