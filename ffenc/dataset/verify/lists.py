"""Read and check a dataset's lists: tasks, and v3.0's episode tables. Faults do not stop the reading."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.dataset.columns import misread_tasks, read_table
from ffenc.dataset.lerobot_v21 import read_lines
from ffenc.dataset.places import list_files
from ffenc.dataset.verify.faults import Faults
from ffenc.dataset.verify.layout import (
    Floats,
    Integers,
    Layout,
    Listing,
    VideoPlaces,
    checked_tasks,
    matrix,
    numbers,
    reason_of,
)
from ffenc.dataset.verify.lists_v21 import old_listing
from ffenc.errors import SourceError
from ffenc.layout import (
    DATA_COLUMNS,
    EPISODES,
    INFO,
    LIST_COLUMNS,
    QUANTILES,
    STATISTICS,
    TASKS,
    TASKS_V2,
    place_columns,
)

# Columns of the episode list that ffenc computes from others, without the source's.
_DERIVED = ("dataset_from_index", "dataset_to_index", "tasks")


def read_listing(layout: Layout, faults: Faults) -> Listing:
    """Read the lists of tasks and episodes with statistics; check them and the totals."""
    tasks = _tasks(layout, faults)
    listing = (old_listing if layout.old else _listing)(layout, tasks, faults)
    listing.tasks = tasks
    _check_numbering(layout, listing, faults)
    if faults.has("episodes"):
        return listing  # nothing is compared with an incomplete list
    for name, found in (
        ("total_episodes", len(listing)),
        ("total_frames", listing.frames),
        ("total_tasks", len(tasks)),
    ):
        said = layout.info.get(name)
        if said is None and name != "total_tasks":
            faults.add("totals", f"has no {name}, which LeRobot reads as 0", file=INFO)
        if said is not None and said != found and (tasks or name != "total_tasks"):
            faults.add("totals", f"{name} is {said!r}, the lists have {found}", file=INFO)
    _check_splits(layout, len(listing), faults)
    return listing


def _check_splits(layout: Layout, episodes: int, faults: Faults) -> None:
    splits = layout.info.get("splits")
    if splits is None:
        return
    for name, said in splits.items() if isinstance(splits, dict) else [("splits", splits)]:
        match = re.fullmatch(r"(\d{1,15}):(\d{1,15})", said) if isinstance(said, str) else None
        if match is None or not int(match[1]) <= int(match[2]) <= episodes:
            faults.add(
                "info",
                f"split {name} is {said!r}",
                expected=f"episodes of 0:{episodes}",
                file=INFO,
            )


def _listing(layout: Layout, tasks: Mapping[int, str], faults: Faults) -> Listing:
    files = list_files(layout.root)
    if not files:
        faults.add("episodes", "there is no chunk-*/file-*.parquet", file=EPISODES)
    known = set(tasks.values())
    parts = [part for path in files if (part := read_part(layout, path, known, faults)) is not None]
    own = {path.relative_to(layout.root).as_posix() for path in files}
    if not parts:
        none = np.zeros(0, np.int64)
        return Listing(none, none, none, [], own=own)
    listing = Listing(
        index=np.concatenate([part.index for part in parts]),
        length=np.concatenate([part.length for part in parts]),
        first=np.concatenate([part.first for part in parts]),
        data=[place for part in parts for place in part.data],
        episode_tasks=[tasks for part in parts for tasks in part.episode_tasks],
        own=own,
    )
    for key in layout.videos:
        if all(key in part.videos for part in parts):
            own_places = [part.videos[key] for part in parts]
            listing.videos[key] = VideoPlaces(
                [file for places in own_places for file in places.files],
                np.concatenate([places.start for places in own_places]),
                np.concatenate([places.end for places in own_places]),
            )
    for feature in [*layout.numeric, *layout.images, *layout.videos]:
        names = [n for n in (*STATISTICS, *QUANTILES) if all(n in p.stats.get(feature, {}) for p in parts)]
        found = {name: [part.stats[feature][name] for part in parts] for name in names}
        alike = {k: v for k, v in found.items() if len({one.shape[1] for one in v}) == 1}
        if set(STATISTICS) <= set(alike):
            listing.stats[feature] = {name: np.concatenate(values) for name, values in alike.items()}
    return listing


def read_part(layout: Layout, path: Path, tasks: set[str], faults: Faults) -> Listing | None:
    """Read one file of the episode list."""
    place = path.relative_to(layout.root).as_posix()
    wanted = ["episode_index", "length", "dataset_from_index", "dataset_to_index", "tasks"]
    wanted += DATA_COLUMNS
    video = {key: place_columns(key) for key in layout.videos}
    stats = {
        feature: [f"stats/{feature}/{n}" for n in (*STATISTICS, *QUANTILES)]
        for feature in [*layout.numeric, *layout.images, *layout.videos]
    }
    asked = [*wanted, *LIST_COLUMNS, *(n for names in (*video.values(), *stats.values()) for n in names)]
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = set(file.schema_arrow.names)
            table = file.read(columns=[name for name in asked if name in names])
    except (pa.ArrowException, OSError) as error:
        faults.add("episodes", f"cannot be read: {reason_of(error)}", file=place)
        return None
    needed = [*wanted, *(n for names_ in video.values() for n in names_)]
    for kind, expected in (
        ("episodes", [name for name in needed if name not in _DERIVED]),
        ("episode-columns", _DERIVED),
    ):
        missing = [name for name in expected if name not in names]
        if missing:
            many = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
            faults.add(kind, f"has no column {', '.join(missing[:4])}{many}", file=place)
    numeric = [name for name in (*needed, *LIST_COLUMNS) if name != "tasks" and name in names]
    columns = _number_columns(table, numeric, place, faults)
    if "episode_index" not in columns or "length" not in columns or not table.num_rows:
        if not table.num_rows:
            faults.add("episodes", "has no rows", file=place)
        return None
    index, length = columns["episode_index"], np.maximum(columns["length"], 0)
    if set(LIST_COLUMNS) <= set(columns):
        _check_own_place(place, columns, faults)
    part = Listing(
        index=index,
        length=length,
        first=columns.get("dataset_from_index", np.full(len(index), -1)),
        data=[""] * len(index),
    )
    _check_range(part, columns, place, faults)
    if set(DATA_COLUMNS) <= set(columns):
        part.data = _places(layout.data_path, *(columns[name] for name in DATA_COLUMNS), video_key="")
    for key, names_ in video.items():
        if set(names_) <= set(columns):
            chunk, file, start, end = (columns[name] for name in names_)
            part.videos[key] = VideoPlaces(_places(layout.video_path, chunk, file, video_key=key), start, end)
    if "tasks" in names:
        part.episode_tasks = [
            checked_tasks(texts, tasks, number, place, faults)
            for number, texts in zip(index.tolist(), table["tasks"].to_pylist(), strict=True)
        ]
    else:
        part.episode_tasks = [None] * len(index)
    part.stats = _part_stats(stats, table, place, faults)
    return part


def _number_columns(
    table: pa.Table, names: Sequence[str], place: str, faults: Faults
) -> dict[str, npt.NDArray[Any]]:
    """Return columns of indices and times as arrays.

    A column that does not contain numbers is a fault, and so is every null, NaN or negative number in it.
    If all rows of a column are null, it is one fault.

    Args:
        table: a file of the episode list.
        names: the columns; ``episode_index``, if it is there, is the first, so that faults name the episode.
        place: the file's path in the dataset, for faults.
        faults: faults are added to it.
    """
    columns: dict[str, npt.NDArray[Any]] = {}
    for name in names:
        stamp = name.endswith("timestamp")
        values = numbers(table[name], floats=stamp)
        if values is None:
            faults.add("episodes", f"column {name} is {table[name].type}", expected="numbers", file=place)
            continue
        empty = ~np.isfinite(values) if stamp else values < 0
        rows = np.flatnonzero(empty)
        listed = columns.get("episode_index", np.full(len(values), -1))[rows].tolist()
        if len(rows) == len(values):
            rows = rows[:1]
            listed = [-1] * len(rows)
        # taking rows loads Arrow's compute module, which takes longer than most lists to check
        found = table[name].take(pa.array(rows)).to_pylist() if len(rows) else []
        for row, value, number in zip(rows.tolist(), found, listed, strict=True):
            what = f"row {row} has {value} in {name}"
            episode = number if number >= 0 else None
            faults.add("episodes", what, expected="a number", file=place, episode=episode)
        columns[name] = values
    return columns


def _check_own_place(place: str, columns: Mapping[str, Integers], faults: Faults) -> None:
    match = re.search(r"(\d+)/\D*(\d+)\.parquet$", place)
    if match is None:
        return
    for name, number in zip(LIST_COLUMNS, (int(match[1]), int(match[2])), strict=True):
        wrong = np.flatnonzero(columns[name] != number)
        if wrong.size:
            row = int(wrong[0])
            faults.add(
                "episode-columns",
                f"{name} is not {number}, the number of the file it is in",
                file=place,
                episode=int(columns["episode_index"][row]),
            )


def _check_range(part: Listing, columns: Mapping[str, Integers], place: str, faults: Faults) -> None:
    """Check that ``dataset_to_index`` is ``dataset_from_index`` plus the length."""
    if not {"dataset_from_index", "dataset_to_index"} <= set(columns):
        return
    start, end = columns["dataset_from_index"], columns["dataset_to_index"]
    for row in np.flatnonzero(end - start != part.length):
        faults.add(
            "episode-columns",
            f"dataset_from_index {start[row]} to dataset_to_index {end[row]} is not its length "
            f"{part.length[row]}",
            file=place,
            episode=int(part.index[row]),
        )


def _places(template: str, chunk: Integers, file: Integers, *, video_key: str) -> list[str]:
    known: dict[tuple[int, int], str] = {}
    places = []
    for pair in zip(chunk.tolist(), file.tolist(), strict=True):
        if min(pair) < 0:  # a missing number, already reported
            known[pair] = ""
        if pair not in known:
            try:
                known[pair] = template.format(video_key=video_key, chunk_index=pair[0], file_index=pair[1])
            except (LookupError, ValueError):  # a template of the other version's layout, already reported
                known[pair] = ""
        places.append(known[pair])
    return places


def _part_stats(
    wanted: Mapping[str, Sequence[str]], table: pa.Table, place: str, faults: Faults
) -> dict[str, dict[str, Floats]]:
    found: dict[str, dict[str, Floats]] = {}
    columns = frozenset(table.column_names)
    for feature, names in wanted.items():
        there = {name.rsplit("/", 1)[1]: name for name in names if name in columns}
        missing = [name for name in STATISTICS if name not in there]
        if missing:
            faults.add(
                "statistics-missing",
                f"has no column stats/{feature}/{missing[0]}"
                + (f" and no {', '.join(missing[1:])}" if missing[1:] else ""),
                file=place,
                camera=feature,
            )
        own = {
            name: values for name, column in there.items() if (values := matrix(table[column])) is not None
        }
        own = {k: v for k, v in own.items() if k == "count" or v.shape == own.get("min", v).shape}
        broken = [name for name in there if name not in own]
        if broken:
            faults.add(
                "statistics-missing",
                f"column stats/{feature}/{broken[0]} has rows without numbers, or of different shapes",
                file=place,
                camera=feature,
            )
        found[feature] = own
    return found


def _check_numbering(layout: Layout, listing: Listing, faults: Faults) -> None:
    place = layout.list_place
    count = len(listing)
    if not count and layout.old:
        faults.add("episodes", "holds no episodes", file=place)
    wrong = np.flatnonzero(listing.index != np.arange(count))
    if wrong.size:
        at = int(wrong[0])
        faults.add(
            "episodes",
            f"row {at} has episode_index {listing.index[at]}; episodes are numbered 0 to {count - 1} in order"
            + (f" ({wrong.size} rows are not)" if wrong.size > 1 else ""),
            file=place,
        )
    for row in np.flatnonzero(listing.length < 1):
        faults.add("episodes", "its length is 0", file=place, episode=int(listing.index[row]))
    expected = np.concatenate([[0], np.cumsum(listing.length)[:-1]]) if count else listing.first
    known = listing.first >= 0
    for row in np.flatnonzero(known & (listing.first != expected)):
        faults.add(
            "episode-columns",
            f"dataset_from_index is {listing.first[row]}",
            expected=f"{expected[row]}, the number of rows of all previous episodes",
            file=place,
            episode=int(listing.index[row]),
        )
    listing.first = expected


def _tasks(layout: Layout, faults: Faults) -> dict[int, str]:
    """Read the tasks table; return task index -> text."""
    place = TASKS_V2 if layout.old else TASKS
    pairs: list[tuple[Any, Any]]
    try:
        if layout.old:
            pairs = [
                (line.content.get("task_index"), line.content.get("task"))
                for line in read_lines(layout.root / place)
            ]
        else:
            table = read_table(layout.root / place)
            # The texts are the index of a pandas table, which some writers leave unnamed.
            texts = [n for n in ("task", "__index_level_0__") if n in table.column_names]
            if not texts or "task_index" not in table.column_names:
                faults.add("tasks", "has no columns task_index and task", file=place)
                return {}
            if (why := misread_tasks(table)) is not None:
                faults.add("tasks-table", why, file=place)
            pairs = list(zip(table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True))
    except (SourceError, pa.ArrowException, OSError) as error:
        faults.add("tasks", f"cannot be read: {reason_of(error)}", file=place)
        return {}
    tasks: dict[int, str] = {}
    for row, (number, text) in enumerate(pairs):
        whole = isinstance(number, int) and not isinstance(number, bool)
        if not whole or not isinstance(text, str) or number in tasks:
            faults.add(
                "tasks", f"row {row} is task {number!r}: {text!r}; a unique number and a text", file=place
            )
            continue
        tasks[number] = text
    if not pairs:
        faults.add("tasks", "holds no tasks", file=place)
    if sorted(tasks) != list(range(len(tasks))):
        faults.add("tasks", f"tasks are numbered {sorted(tasks)[:5]}...", expected="0 on", file=place)
    return tasks
