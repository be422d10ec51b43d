"""Rows of a dataset's episode list: the known fields of episodes, with new indices and places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
from msgspec import Struct

from ffenc.dataset.columns import list_of, statistic_type
from ffenc.dataset.model import Known
from ffenc.dataset.places import FilePlace, VideoPlace
from ffenc.frames.statistics import Stats
from ffenc.layout import DATA_COLUMNS, LIST_COLUMNS, place_columns

_LISTED_AT_ONCE = 1000  # episodes without known fields


class WrittenRows(Struct, frozen=True):
    """The known fields of an episode whose rows are written.

    Attributes:
        number, first, tasks, known, index: as in :class:`NumberedRows`.
        length: number of rows.
        file: file of the rows.
        stats: statistics of their features.
    """

    number: int
    first: int
    length: int
    file: FilePlace
    tasks: list[int]
    stats: dict[str, Stats]
    known: Known | None
    index: int


class Listing(Struct, frozen=True):
    """Episodes that are added to the list together.

    Attributes:
        known: their known fields, as in the source's list, in order.
        rows: the episodes.
        file: the file of the source's list that contains them; None: they are in no such file.
    """

    known: pa.Table
    rows: list[WrittenRows]
    file: Path | None = None


def listings(episodes: Iterable[WrittenRows]) -> Iterator[Listing]:
    """Group episodes whose known fields are in the same table; episodes without known fields in large groups.

    Args:
        episodes: in order.
    """
    group: list[WrittenRows] = []
    for one in episodes:
        if group and (len(group) == _LISTED_AT_ONCE or _table_of(one) is not _table_of(group[0])):
            yield _listing(group)
            group = []
        group.append(one)
    if group:
        yield _listing(group)


def _table_of(one: WrittenRows) -> pa.Table | None:
    return one.known.table if one.known is not None else None


def _listing(group: list[WrittenRows]) -> Listing:
    own = [one.known for one in group if one.known is not None]
    if not own:
        return Listing(pa.table({"length": _whole(one.length for one in group)}), group)
    first, rows = own[0], [known.row for known in own]
    together = rows == list(range(rows[0], rows[0] + len(rows)))
    known = first.table.slice(rows[0], len(rows)) if together else first.table.take(pa.array(rows))
    return Listing(known, group, first.file)


def list_rows(
    listing: Listing,
    videos: Mapping[str, Sequence[VideoPlace]],
    stats: Mapping[str, Sequence[Stats]],
    file: FilePlace,
    *,
    tasks: Sequence[str],
    fps: Fraction,
) -> pa.Table:
    """Return rows of the episode list.

    listing: the episodes; indices and places in their known fields are replaced, and ``tasks`` is filled in.
    videos: camera -> place of each episode.
    stats: feature -> statistics of each episode.
    file: the file of the list that gets the rows.
    tasks: texts of the dataset's tasks, by index.
    fps: frames per second.
    """
    rows = listing.rows
    known = {name: listing.known[name] for name in listing.known.column_names}
    own = dict(zip(LIST_COLUMNS, ([file.chunk] * len(rows), [file.number] * len(rows)), strict=True))
    columns = {n: c for n, c in known.items() if n not in own and not n.startswith(("stats/", "videos/"))}
    columns = {"episode_index": _whole(one.number for one in rows)} | _with_tasks(columns, rows, tasks)
    columns |= {
        "episode_index": _whole(one.number for one in rows),
        "length": _whole(one.length for one in rows),
        DATA_COLUMNS[0]: _whole(one.file.chunk for one in rows),
        DATA_COLUMNS[1]: _whole(one.file.number for one in rows),
    }
    columns["dataset_from_index"] = _whole(one.first for one in rows)
    columns["dataset_to_index"] = _whole(one.first + one.length for one in rows)
    for camera, places in videos.items():
        columns |= _video_columns(camera, places, [one.length for one in rows], fps)
    columns |= {name: column for name, column in known.items() if name.startswith("stats/")}
    for key, computed in stats.items():
        for name in computed[0]:
            values = [one[name] for one in computed]
            columns[f"stats/{key}/{name}"] = pa.array(values, statistic_type(name, values[0]))
    table = pa.table(columns | {name: _whole(values) for name, values in own.items()})
    return table.replace_schema_metadata(listing.known.schema.metadata)


def _with_tasks(columns: dict[str, Any], rows: Sequence[WrittenRows], texts: Sequence[str]) -> dict[str, Any]:
    """Add each episode's task texts where the source's list has others than its rows.

    LeRobot's own conversion leaves them out, and a lower frame rate can leave out all rows of a task.
    """
    there = columns["tasks"].to_pylist() if "tasks" in columns else [None] * len(rows)
    used = [[texts[number] for number in one.tasks] for one in rows]
    pairs = list(zip(used, there, strict=True))
    found = [listed if listed and set(listed) == set(own) else own for own, listed in pairs]
    if found == there or not all(used):
        return columns
    tasks = pa.array(found, columns["tasks"].type if "tasks" in columns else list_of(pa.string()))
    return {"tasks": tasks, **columns} | {"tasks": tasks}


def listed_statistics(listed: pa.Table) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield each feature, row by row, with the statistics that it has there.

    Args:
        listed: rows of the episode list.
    """
    columns: dict[str, dict[str, list[Any]]] = {}
    for name in listed.column_names:
        if name.startswith("stats/"):
            key, _, statistic = name.removeprefix("stats/").rpartition("/")
            columns.setdefault(key, {})[statistic] = listed[name].to_pylist()
    for key, own in columns.items():
        for row in range(listed.num_rows):
            yield key, row, {name: values[row] for name, values in own.items()}


def _whole(values: Iterable[int]) -> pa.Array:
    return pa.array(list(values), pa.int64())


def _video_columns(
    camera: str, places: Sequence[VideoPlace], lengths: Sequence[int], fps: Fraction
) -> dict[str, pa.Array]:
    """Return the columns of the episode list with the places of a camera's episodes."""
    ends = [place.start + length for place, length in zip(places, lengths, strict=True)]
    values = (
        _whole(place.file.chunk for place in places),
        _whole(place.file.number for place in places),
        pa.array([float(place.start / fps) for place in places], pa.float64()),
        pa.array([float(end / fps) for end in ends], pa.float64()),
    )
    return dict(zip(place_columns(camera), values, strict=True))
