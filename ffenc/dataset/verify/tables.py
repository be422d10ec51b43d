"""Check a dataset's data files row by row, and their statistics. Memory holds one batch of rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.dataset.remote import fetch_rows
from ffenc.dataset.verify.faults import Faults
from ffenc.dataset.verify.layout import Integers, Layout, Listing, matrix, numbers, reason_of, width_of
from ffenc.dataset.verify.statistics import Statistics, Sums
from ffenc.layout import NUMBERING, TIME_TOLERANCE

_BATCH = 1 << 16  # rows
Numbers = npt.NDArray[Any]


class RowChecks:
    """Checks data files, one after another.

    Args:
        layout, listing: what they should contain.
        faults: faults are added to it.
    """

    def __init__(self, layout: Layout, listing: Listing, faults: Faults) -> None:
        self._layout = layout
        self._listing = listing
        self._faults = faults
        self._fps = float(layout.fps)
        self._position = {int(number): at for at, number in enumerate(listing.index)}
        count = len(listing)
        self._rows = np.zeros(count + 1, np.int64)  # the last is for unlisted episodes
        self._place = np.full(count, -1)
        self._faulty = np.zeros(count + 1, bool)
        self._sums: dict[str, Sums] = {}
        self._tasks = np.array(sorted(listing.tasks), np.int64)
        self._not_finite: set[str] = set()
        self._tasks_of: dict[int, set[int]] = {}  # position of an episode -> task indices of its rows

    def run(self, *, whole: bool = True, episodes: Collection[int] | None = None) -> dict[str, bool]:
        """Check every file, then the totals.

        If the list is not of the ``whole`` dataset, ``stats.json`` is not checked.

        Args:
            whole: the list is of the whole dataset.
            episodes: indices of the episodes to check: files without any of them are not opened, and
                ``stats.json`` is not compared with the rows. None: all.

        Returns:
            The result of :meth:`Statistics.aggregated`, if all of the dataset was read.
        """
        files: dict[str, list[int]] = {}
        for at, place in enumerate(self._listing.data):
            if place:
                files.setdefault(place, []).append(at)
        if episodes is not None and set(self._position) <= set(episodes):
            episodes = None  # all of them, so that the statistics of all rows can be compared
        if episodes is not None:
            wanted = {self._position[number] for number in episodes if number in self._position}
            files = {place: own for place, own in files.items() if not wanted.isdisjoint(own)}
        fetch_rows([self._layout.root / place for place in files])
        readable = [self._file(place, episodes, n) for n, (place, episodes) in enumerate(files.items())]
        self._check_tasks()
        stats = Statistics(self._layout, self._listing, self._faults)
        if whole:
            stats.check_presence(self._not_finite)
        listed = bool(self._listing.data) and all(self._listing.data)
        whole = whole and listed and episodes is None and all(readable) and not self._faulty.any()
        stats.check_episodes(self._sums, ~self._faulty[:-1] & (self._rows[:-1] > 0))
        stats.check_total(self._sums if whole else {})
        return stats.aggregated(self._sums) if whole else {}

    def _file(self, place: str, episodes: Sequence[int], number: int) -> bool:
        """Check one file; return whether it could be read."""
        path = self._layout.root / place
        first, last = (int(self._listing.index[at]) for at in (episodes[0], episodes[-1]))
        whose = f"episode {first}" if first == last else f"episodes {first} to {last}"
        if not path.is_file():
            self._faults.add("data-file", f"is missing; it should contain the rows of {whose}", file=place)
            self._faulty[list(episodes)] = True
            return False
        run = _Run(place)
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                columns = self._columns(file.schema_arrow, place)
                self._image_columns(file, place)
                if columns is None:
                    self._faulty[list(episodes)] = True
                    return False
                for batch in file.iter_batches(_BATCH, columns=columns):
                    if batch.num_rows:
                        self._batch(batch, run, number)
        except (pa.ArrowException, OSError, ValueError) as error:
            after = f" after row {run.rows}" if run.rows else ""
            self._faults.add("data-file", f"cannot be read{after}: {reason_of(error)}", file=place)
            self._faulty[list(episodes)] = True
            return False
        self._check_order(place, episodes, run)
        return True

    def _columns(self, schema: pa.Schema, place: str) -> list[str] | None:
        """Compare a file's columns with the features; return those to read, None if it cannot be."""
        expected = [k for k, f in self._layout.features.items() if f["dtype"] != "video"]
        expected += [name for name in NUMBERING if name not in expected]
        missing = [name for name in expected if name not in schema.names]
        extra = [name for name in schema.names if name not in expected]
        if missing:
            self._faults.add(
                "columns",
                f"has no column {', '.join(missing[:5])}, which info.json lists as a feature",
                file=place,
            )
        if extra:
            self._faults.add(
                "columns",
                f"has a column {', '.join(extra[:5])}, which is not a feature in info.json",
                file=place,
            )
        doubled = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if doubled:
            self._faults.add("columns", f"has two columns named {', '.join(doubled[:5])}", file=place)
            return None
        self._metadata(schema, place)
        wrong = []
        for name in NUMBERING:
            if name in schema.names:
                kind = schema.field(name).type
                good = pa.types.is_floating(kind) if name == "timestamp" else pa.types.is_integer(kind)
                if not (good or pa.types.is_integer(kind)):
                    wrong.append(name)
                    self._faults.add("columns", f"column {name} is {kind}", expected="numbers", file=place)
        if "episode_index" in missing or wrong:
            return None
        return [name for name in schema.names if name in NUMBERING or name in self._layout.numeric]

    def _metadata(self, schema: pa.Schema, place: str) -> None:
        text = (schema.metadata or {}).get(b"huggingface")
        if text is None:
            return
        try:
            known = set(json.loads(text)["info"]["features"])
        except (ValueError, TypeError, LookupError, RecursionError):
            what = "its schema metadata 'huggingface' cannot be read"
            self._faults.add("schema-metadata", what, file=place)
            return
        differing = sorted(known ^ set(schema.names))
        if differing:
            which = "has" if differing[0] in known else "lacks"
            self._faults.add(
                "schema-metadata",
                f"its schema metadata 'huggingface' {which} {differing[0]}, unlike the columns of "
                "the file; LeRobot loads by it",
                file=place,
            )

    def _image_columns(self, file: pq.ParquetFile, place: str) -> None:
        """Check that every row of an image column has bytes; most files' footers tell."""
        metadata = file.metadata
        leaves = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
        for key in self._layout.images:
            leaf = leaves.get(f"{key}.bytes")
            if leaf is None:
                if key in file.schema_arrow.names:
                    kind = file.schema_arrow.field(key).type
                    what, expected = f"column {key} is {kind}", "struct<bytes, path>"
                    self._faults.add("columns", what, expected=expected, file=place, camera=key)
                continue
            row = 0
            for group in range(metadata.num_row_groups):
                column = metadata.row_group(group).column(leaf)
                counted = column.is_stats_set and column.statistics.has_null_count
                if not counted or column.statistics.null_count:
                    self._empty_images(file, group, key, row, place)
                row += metadata.row_group(group).num_rows

    def _empty_images(self, file: pq.ParquetFile, group: int, key: str, row: int, place: str) -> None:
        for batch in file.iter_batches(16, row_groups=[group], columns=["episode_index", f"{key}.bytes"]):
            images = batch.column(key)
            empty = images.field("bytes").is_null().to_numpy(zero_copy_only=False)
            for at in np.flatnonzero(empty):
                episode = batch.column("episode_index")[int(at)].as_py()
                what = f"row {row + int(at)} has no image"
                self._faults.add("image", what, file=place, camera=key, episode=episode)
            row += batch.num_rows

    def _batch(self, batch: pa.RecordBatch, run: _Run, number: int) -> None:
        """Check a batch of rows, and add them to the sums of their episodes."""
        columns = {name: numbers(batch.column(name), floats=name == "timestamp") for name in NUMBERING
                   if name in batch.schema.names}  # fmt: skip
        for name in columns:
            nulls = batch.column(name).null_count
            if nulls:
                self._faults.add("columns", f"column {name} has {nulls} rows without a value", file=run.place)
        episode = columns["episode_index"]
        assert episode is not None
        starts = np.concatenate([[0], np.flatnonzero(np.diff(episode)) + 1])
        sizes = np.diff([*starts, len(episode)])
        before = np.zeros(len(starts), np.int64)
        if run.episode == episode[0]:
            before[0] = run.count
        at = np.array([self._position.get(int(one), -1) for one in episode[starts]])
        for each, found, carried in zip(episode[starts].tolist(), at.tolist(), before.tolist(), strict=True):
            if not carried:
                self._begins(each, found, run, number)
        position = np.arange(len(episode)) - np.repeat(starts - before, sizes)
        owner = np.repeat(at, sizes)
        report = _RowReport(self, run, starts, sizes, at, position)
        frame = columns.get("frame_index")
        if frame is None:
            frame = position
        report(
            "rows",
            frame != position,
            lambda r: f"has frame_index {frame[r]}",
            lambda r: str(position[r]),
        )
        if (stamp := columns.get("timestamp")) is not None:
            self._check_times(stamp, frame, position, report)
        index = columns.get("index")
        if index is not None and len(self._listing):
            expected = self._listing.first[owner] + frame
            in_place = index == self._listing.first[owner] + position
            report(
                "index",
                (index != expected) & ~in_place & (owner >= 0),
                lambda r: f"has index {index[r]}",
                lambda r: str(expected[r]),
            )
        task = columns.get("task_index")
        if task is not None:
            self._add_tasks(owner, task)
            if len(self._tasks):
                report(
                    "task-index",
                    ~np.isin(task, self._tasks),
                    lambda r: f"has task_index {task[r]}",
                    lambda _: f"one of the {len(self._tasks)} tasks of the tasks table",
                )
        np.add.at(self._rows, at, sizes)
        self._faulty[-1] = False
        for name in self._layout.numeric:
            if name in batch.schema.names:
                self._count(name, batch.column(name), starts, sizes, at, run, report)
        run.episode, run.count = int(episode[-1]), int(before[-1] + sizes[-1])
        run.rows += len(episode)

    def _check_times(self, stamp: Numbers, frame: Numbers, position: Integers, report: _RowReport) -> None:
        """Check the timestamps of rows, given their ``frame_index`` and their index in the episode."""
        due = np.asarray(frame / self._fps, np.float64)
        in_place = np.abs(stamp - position / self._fps) <= TIME_TOLERANCE
        # If only frame_index is wrong, the row's time and index match its position.
        late = np.asarray(~((np.abs(stamp - due) <= TIME_TOLERANCE) | in_place), np.bool_)
        # From half an hour on, float32 cannot represent the time more precisely.
        rounded = late & (stamp == due.astype(np.float32))
        late &= ~rounded
        report(
            "timestamps-rounded",
            rounded,
            lambda r: (
                f"has timestamp {stamp[r]:.6f}, the nearest float32 to {frame[r] / self._fps:.6f}: more "
                "than 0.1 ms away, where LeRobot's reader raises an error"
            ),
            spoils=False,
        )
        report(
            "timestamps",
            late,
            lambda r: f"has timestamp {stamp[r]:.6f}",
            lambda r: f"{frame[r] / self._fps:.6f}, the time of frame {frame[r]} at {self._fps:g} fps",
        )

    def _add_tasks(self, owner: Integers, task: Integers) -> None:
        """Record the tasks of an episode's rows."""
        change = np.flatnonzero((np.diff(owner) != 0) | (np.diff(task) != 0)) + 1
        for row in (0, *change.tolist()):
            self._tasks_of.setdefault(int(owner[row]), set()).add(int(task[row]))

    def _check_tasks(self) -> None:
        """Check that each episode's list of tasks has the tasks of its rows."""
        known = self._listing.tasks
        for at, listed in enumerate(self._listing.episode_tasks):
            numbers = self._tasks_of.get(at, set())
            found = {known[number] for number in numbers if number in known}
            if listed is None or not numbers or not numbers <= set(known) or found == set(listed):
                continue
            more, less = sorted(set(listed) - found), sorted(found - set(listed))
            what = (
                f"lists task {more[0][:60]!r}, which none of its rows has"
                if more
                else (f"does not list task {less[0][:60]!r}, which its rows have")
            )
            self._faults.add(
                "tasks", what, file=self._layout.list_place, episode=int(self._listing.index[at])
            )

    def _begins(self, episode: int, at: int, run: _Run, number: int) -> None:
        """Check the file in which rows of an episode begin."""
        run.order.append(at)
        place = self._listing.data[at] if at >= 0 else ""
        if at < 0 or place != run.place:
            what = "is not listed" if at < 0 else f"is listed in {place}"
            self._faults.add("rows", f"has rows of an episode that {what}", file=run.place, episode=episode)
        elif self._place[at] == number:
            self._faulty[at] = True
            self._faults.add("rows", "its rows are in two places", file=run.place, episode=episode)
        else:
            self._place[at] = number

    def _count(
        self,
        name: str,
        column: pa.Array,
        starts: Integers,
        sizes: Integers,
        at: Integers,
        run: _Run,
        report: _RowReport,
    ) -> None:
        values = matrix(column)
        if values is None or (name in self._sums and self._sums[name].width != values.shape[1]):
            if name not in run.unlike:
                run.unlike.add(name)
                what = f"column {name} ({column.type}) has rows without numbers, or of different lengths"
                self._faults.add("columns", what, file=run.place)
            self._faulty[at] = True
            return
        if name not in self._sums:
            expected = width_of(self._layout.features[name])
            if expected not in (None, values.shape[1]):
                what = (
                    f"column {name} has {values.shape[1]} numbers per row, its shape in info.json is "
                    f"{self._layout.features[name]['shape']}"
                )
                self._faults.add("columns", what, file=run.place)
            self._sums[name] = Sums(len(self._rows), values.shape[1])
        finite = np.isfinite(values)
        broken = np.flatnonzero(~finite.all(axis=1))
        if name not in NUMBERING and broken.size:
            self._not_finite.add(name)
            report(
                "values",
                np.isin(np.arange(len(values)), broken),
                lambda r: f"has {values[r][~finite[r]][0]} in {name}",
                lambda _: "a finite number",
            )
        self._sums[name].add(values, starts, sizes, at)

    def _check_order(self, place: str, episodes: Sequence[int], run: _Run) -> None:
        listing = self._listing
        for at in episodes:
            if self._rows[at] != listing.length[at]:
                self._faulty[at] = True
                self._faults.add(
                    "rows",
                    f"has {self._rows[at]} rows, "
                    f"its length in {self._layout.list_place} is {listing.length[at]}",
                    file=place,
                    episode=int(listing.index[at]),
                )
        own = set(episodes)
        found = [at for at in dict.fromkeys(run.order) if at in own]
        there = set(found)
        listed = [at for at in episodes if at in there]
        if found != listed:
            wrong = next(i for i, (a, b) in enumerate(zip(found, listed, strict=True)) if a != b)
            self._faults.add(
                "rows",
                f"its rows are where those of episode {listing.index[listed[wrong]]} should be: "
                f"the episodes are in another order than in {self._layout.list_place}",
                file=place,
                episode=int(listing.index[found[wrong]]),
            )

    def episode(self, at: int) -> int:
        """Return the index of a listed episode."""
        return int(self._listing.index[at])

    def mark_faulty(self, at: int) -> None:
        """Mark an episode's rows as faulty, so that its statistics are not compared."""
        self._faulty[at] = True

    def add(self, kind: str, found: str, expected: str, place: str, episode: int, frame: int) -> None:
        """Add a fault of a row."""
        self._faults.add(kind, found, expected, file=place, episode=episode, frame=frame)


class _Run:
    """The state of reading a file."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.rows = 0
        self.episode: int | None = None
        self.count = 0
        self.order: list[int] = []
        self.unlike: set[str] = set()
        self.reported: set[tuple[str, int]] = set()


class _RowReport:
    """Combines wrong rows into one fault per episode."""

    def __init__(
        self,
        checks: RowChecks,
        run: _Run,
        starts: Integers,
        sizes: Integers,
        at: Integers,
        position: Integers,
    ) -> None:
        self._checks, self._run = checks, run
        self._starts, self._sizes, self._at, self._position = starts, sizes, at, position

    def __call__(
        self,
        kind: str,
        wrong: npt.NDArray[np.bool_],
        found: Callable[[int], str],
        expected: Callable[[int], str] = lambda _: "",
        *,
        spoils: bool = True,
    ) -> None:
        """Add a fault for each episode with such rows; ``spoils``: do not compare its statistics."""
        if not wrong.any():
            return
        counts = np.add.reduceat(wrong.astype(np.int64), self._starts)
        for each in np.flatnonzero(counts):
            start, at = int(self._starts[each]), int(self._at[each])
            first = start + int(np.argmax(wrong[start : start + self._sizes[each]]))
            if at < 0 or (kind, at) in self._run.reported:
                continue
            self._run.reported.add((kind, at))
            if spoils:
                self._checks.mark_faulty(at)
            several = f"{counts[each]} rows are wrong: " if counts[each] > 1 else ""
            self._checks.add(
                kind,
                f"{several}row {self._run.rows + first} {found(first)}",
                expected(first),
                self._run.place,
                self._checks.episode(at),
                int(self._position[first]),
            )
