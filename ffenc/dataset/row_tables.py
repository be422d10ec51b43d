"""Read the rows of data files, some row groups at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.errors import SourceError

ROWS_A_BATCH = 1000
TASK_COLUMN = "task_index"
ROW_COLUMNS = ("episode_index", "frame_index", "timestamp", "index")


def runs_of_rows(path: Path, without: Sequence[str], places: Sequence[tuple[int, int]]) -> Iterator[pa.Table]:
    """Yield the rows of episodes in a data file, whatever row groups contain them.

    Args:
        path: the file.
        without: columns to skip.
        places: first row and number of rows of each requested episode; parts of others may be yielded too.
    """
    pending: pa.Table | None = None
    for table in row_tables(path, without, rows=ROWS_A_BATCH, places=places):
        if pending is not None:
            table = pa.concat_tables([pending, table])
        numbers = table["episode_index"].to_numpy()
        cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        for start, end in pairwise(cuts[:-1]):
            yield table.slice(start, end - start)
        pending = table.slice(cuts[-2])
    if pending is not None:
        yield pending


def row_tables(
    path: Path,
    without: Sequence[str],
    only: Sequence[str] | None = None,
    features: Collection[str] = (),
    rows: int = 1,
    places: Sequence[tuple[int, int]] | None = None,
    unreadable: Callable[[pq.RowGroupMetaData, SourceError], None] | None = None,
) -> Iterator[pa.Table]:
    """Yield the rows of a data file, some row groups at a time; no table is empty.

    Args:
        path: the file.
        without: columns to skip.
        only: the columns to read; None: all others.
        features: required columns, whether read or not.
        rows: least number of rows per table, except for the last.
        places: first row and number of rows of the requested parts; None: all rows.
        unreadable: called, in the order of the rows, with a row group that cannot be read; None: its error is
            raised.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            schema = file.schema_arrow
            columns = [
                name for name in schema.names if name not in without and (only is None or name in only)
            ]
            missing = [name for name in features if name not in schema.names]
            if missing:
                raise SourceError(
                    f"has no column {missing[0]}, which meta/info.json names as a feature", where=path
                )
            for name in (*ROW_COLUMNS, *([TASK_COLUMN] if TASK_COLUMN in schema.names else [])):
                at = schema.get_field_index(name)
                kind = schema.field(at).type if at >= 0 else None
                if kind is None or not (
                    pa.types.is_integer(kind) or (name == "timestamp" and pa.types.is_floating(kind))
                ):
                    raise SourceError(
                        f"its column {name} is {kind or 'missing'}", expected="numbers", where=path
                    )
            _check_metadata(path, schema)
            for groups in _gathered(file.metadata, rows, places):
                left = [groups]
                while left:
                    read = left.pop(0)
                    try:
                        table = _read(file, read, columns, path)
                    except SourceError as error:
                        if unreadable is None:
                            raise
                        if len(read) > 1:
                            left = [[one] for one in read]
                        else:
                            unreadable(file.metadata.row_group(read[0]), error)
                        continue
                    if table.num_rows:
                        yield table
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"cannot be read: {error}", where=path) from None


def _read(file: pq.ParquetFile, groups: Sequence[int], columns: Sequence[str], path: Path) -> pa.Table:
    try:
        table = file.read_row_groups(groups, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"cannot be read: {error}", where=path) from None
    for name in ROW_COLUMNS:
        if table[name].null_count:
            raise SourceError(f"its column {name} has rows without a value", where=path)
    return table


def _gathered(
    metadata: pq.FileMetaData, rows: int, places: Sequence[tuple[int, int]] | None
) -> Iterator[list[int]]:
    """Yield groups of row groups with at least ``rows`` rows: a read costs as much as thousands of rows."""
    lengths = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    groups: list[int] = []
    held = 0
    for number in range(len(lengths)) if places is None else _holding(lengths, places):
        groups.append(number)
        held += lengths[number]
        if held >= rows:
            yield groups
            groups, held = [], 0
    if groups:
        yield groups


def _holding(lengths: Sequence[int], places: Sequence[tuple[int, int]]) -> list[int]:
    """Return the row groups, given their lengths, that contain a row of the places."""
    ends = np.cumsum(lengths)
    first, count = np.array(places, np.int64).reshape(-1, 2).T
    # +1 at the first row group of a place, -1 after its last.
    steps = np.zeros(len(lengths) + 1, np.int64)
    held = count > 0
    np.add.at(steps, np.searchsorted(ends, first[held], "right"), 1)
    np.add.at(steps, np.searchsorted(ends - lengths, (first + count)[held], "left"), -1)
    return [int(number) for number in np.flatnonzero(np.cumsum(steps[:-1]))]


def _check_metadata(path: Path, schema: pa.Schema) -> None:
    """Check that the schema's own descriptions of the columns can be read: they are updated later."""
    for key, part in ((b"huggingface", "info"), (b"pandas", "columns")):
        text = (schema.metadata or {}).get(key)
        try:
            known = text is None or part in json.loads(text)
        except (ValueError, TypeError):
            known = False
        if not known:
            raise SourceError(f"its schema metadata {key.decode()!r} cannot be read", where=path)
