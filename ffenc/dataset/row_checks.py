"""Checks of the rows in a data file: numbering, times and tasks, by episode."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from ffenc.dataset.row_tables import ROW_COLUMNS, TASK_COLUMN, row_tables
from ffenc.errors import SourceError
from ffenc.layout import TIME_TOLERANCE
from ffenc.spelling import argument

_ROWS_CHECKED = 1 << 18


class EpisodeRows(Struct):
    """The rows of an episode in a data file.

    Attributes:
        first: position of the first row in the file.
        length: number of rows.
        shift: greatest distance of a row's time from that of its frame, in seconds; infinity if a time is not
            a number.
        exact: whether every row's time is its frame's, rounded to float32.
        late: the first row with a too large distance, and its time.
        wrong: why they cannot be used.
    """

    first: int
    length: int = 0
    shift: float = 0.0
    exact: bool = True
    late: tuple[int, float] | None = None
    wrong: str | None = None


def episode_rows(path: Path, fps: float, features: Collection[str], tasks: int) -> dict[int, EpisodeRows]:
    """Find the rows of each episode in a data file, and check them.

    Args:
        path: the file.
        fps: frames per second.
        features: required columns.
        tasks: number of tasks.

    Raises:
        SourceError: the file cannot be read, or its columns are not numeric.
    """
    found: dict[int, EpisodeRows] = {}
    row = 0
    last: int | None = None

    def unreadable(group: pq.RowGroupMetaData, error: SourceError) -> None:
        nonlocal row
        for index in _episodes_of(group, error):
            what = f"{path}: rows of episode {index} {error.what}"
            found.setdefault(index, EpisodeRows(row)).wrong = what
        row += group.num_rows

    only = (*ROW_COLUMNS, TASK_COLUMN)
    for table in row_tables(
        path, (), only=only, features=features, rows=_ROWS_CHECKED, unreadable=unreadable
    ):
        episodes = table["episode_index"].to_numpy()
        starts = np.flatnonzero(np.diff(episodes, prepend=episodes[0] - 1))
        lengths = np.diff(starts, append=len(episodes))
        # The expected frame index of each row: its distance from the episode's first row, here or in a table
        # before.
        frames = np.arange(len(episodes)) - np.repeat(starts, lengths)
        for number, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            index = int(episodes[start])
            if number == 0 and index == last:
                frames[:length] += found[index].length
            elif index in found:
                found[index].wrong = found[index].wrong or (
                    f"{path}: episode {index} is in two places, at row {found[index].first} and at row "
                    f"{row + start}"
                )
            found.setdefault(index, EpisodeRows(row + start)).length += length
        last = int(episodes[-1])
        row += len(episodes)
        for index, what in _wrong_rows(path, table, frames, tasks):
            found[index].wrong = found[index].wrong or what
        times = table["timestamp"].to_numpy()
        off = time_shifts(times, frames, fps)
        shifts = np.maximum.reduceat(off, starts).tolist()
        same = times.astype(np.float32) == (frames / fps).astype(np.float32)
        exact = np.logical_and.reduceat(same, starts).tolist()
        for start, length, shift, own_exact in zip(
            starts.tolist(), lengths.tolist(), shifts, exact, strict=True
        ):
            own = found[int(episodes[start])]
            own.exact &= own_exact
            if shift > TIME_TOLERANCE and own.late is None:
                at = start + int(np.argmax(off[start : start + length] > TIME_TOLERANCE))
                own.late = int(frames[at]), float(times[at])
            own.shift = max(own.shift, shift)
    return found


def time_shifts(
    times: npt.NDArray[Any], frames: npt.NDArray[np.int64], fps: float
) -> npt.NDArray[np.float64]:
    """Return the distance of each row's time from its frame's, in seconds; infinity if it is not a number.

    It is 0 for the float32 that is nearest to the frame's time: no column of LeRobot's can be more precise,
    although this is more than the tolerance from half an hour on.
    """
    due = frames / fps
    off = np.where(times == due.astype(np.float32), 0.0, np.abs(times - due))
    return np.nan_to_num(off, nan=np.inf)


def _episodes_of(group: pq.RowGroupMetaData, error: SourceError) -> range:
    """Return the episodes of rows that cannot be read, from the row group's metadata.

    Raises:
        SourceError: the metadata does not contain them.
    """
    for number in range(group.num_columns):
        column = group.column(number)
        if column.path_in_schema == "episode_index" and (kept := column.statistics) and kept.has_min_max:
            found = range(int(kept.min), int(kept.max) + 1)
            if len(found) <= group.num_rows:  # otherwise not consecutive episodes, or invented
                return found
    raise error


def wrong_time(path: Path, index: int, fps: float, rows: EpisodeRows) -> str:
    assert rows.late is not None
    frame, time = rows.late
    return (
        f"{path}: episode {index}: row {frame} has timestamp {time:.6f}, frame {frame} at {fps:g} fps is "
        f"{frame / fps:.6f}; LeRobot could not find it in a video. If the rows are complete and "
        f"their timestamps come from a clock, pass {argument('retime', True)}, which sets the "
        "timestamp of frame i to i / fps, here up to "
        f"{rows.shift:.3f} s away"
    )


def _wrong_rows(
    path: Path, table: pa.Table, frames: npt.NDArray[np.int64], tasks: int
) -> Iterator[tuple[int, str]]:
    """Compare rows with their expected frames; yield the first fault of each episode."""
    episodes = table["episode_index"].to_numpy()
    numbers = table["frame_index"].to_numpy()
    for at in _first_of_each(numbers != frames, episodes):
        yield (
            int(episodes[at]),
            f"{path}: episode {episodes[at]}: row {frames[at]} has frame_index {numbers[at]}; a "
            "frame is missing or duplicated",
        )
    if TASK_COLUMN in table.column_names:
        chosen = table[TASK_COLUMN].to_numpy()
        for at in _first_of_each(~((chosen >= 0) & (chosen < tasks)), episodes):
            yield (
                int(episodes[at]),
                f"{path}: episode {episodes[at]}: row {frames[at]} has task_index {chosen[at]:g}; there are "
                f"{tasks} tasks, from 0 on",
            )


def _first_of_each(wrong: npt.NDArray[np.bool_], episodes: npt.NDArray[np.int64]) -> list[int]:
    """Return the first wrong row of each episode with wrong rows."""
    at = np.flatnonzero(wrong)
    _, first = np.unique(episodes[at], return_index=True)
    return [int(row) for row in np.sort(at[first])]
