"""Read the images of a parquet column one at a time; of a remote file, fetch only the pages with them."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
from cramjam import DecompressionError
from msgspec import Struct

from ffenc.errors import SourceError
from ffenc.frames.parquet_pages import (
    DICTIONARY_PAGE,
    ROWS_A_BYTE,
    Chunk,
    NotCoveredError,
    group_values,
    pages,
)
from ffenc.frames.sources import EncodedFrame, files_fingerprint
from ffenc.paths import open_regular
from ffenc.storage.mirror import held
from ffenc.storage.ranges import Range, Reader, ReadFile

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
MAGIC = b"PAR1"  # at the start and at the end of a file


_TAIL = 64 << 10  # bytes at the end of a file that contain most footers
_IMAGE_BYTES = ".bytes"  # the large leaf of an image column

UNREADABLE = (
    *(pa.ArrowException, OSError, struct.error, LookupError, TypeError, ValueError),
    *(MemoryError, OverflowError, DecompressionError),
)


class RowRange(Struct, frozen=True):
    """A range of rows of a parquet file: ``count`` rows from ``first`` on."""

    path: Path
    first: int
    count: int


class ParquetImages:
    """The images of a column as a frame source.

    Args:
        rows: the ranges of rows, in order.
        column: name of the ``struct<bytes, path>`` column.
    """

    def __init__(self, rows: Sequence[RowRange], column: str) -> None:
        self.rows = list(rows)
        self.column = column

    def __len__(self) -> int:
        return sum(part.count for part in self.rows)

    def __iter__(self) -> Iterator[EncodedFrame]:
        for part in self.rows:
            at = part.first
            for data in read_images(part, self.column):
                yield EncodedFrame(f"{part.path}: row {at}, column {self.column}", data)
                at += 1

    def fingerprint(self) -> str:
        rows = ", ".join(f"{part.first}+{part.count}" for part in self.rows)
        return f"{self.column} {rows} {files_fingerprint(part.path for part in self.rows)}"


def read_images(rows: RowRange, column: str) -> Iterator[bytes]:
    """Yield the ``bytes`` of an image column for a range of rows, with one image in memory at a time.

    Args:
        rows: the range of rows.
        column: name of the ``struct<bytes: binary, path: string>`` column.

    Raises:
        SourceError: the file is damaged or too short, the column is missing, or a row has no image.
    """
    try:
        with (
            images_here(rows, [column]),
            open_regular(rows.path) as raw,
            pq.ParquetFile(raw, pre_buffer=False) as file,
        ):
            leaf, size = _leaf(file, rows.path, column), os.fstat(raw.fileno()).st_size
            start, end = rows.first, rows.first + rows.count
            offset = 0
            for group in range(file.num_row_groups):
                length = file.metadata.row_group(group).num_rows
                if length > ROWS_A_BYTE * size:
                    raise ValueError(f"row group {group} claims {length:,} rows in {size:,} bytes")
                low, high = max(start - offset, 0), min(end - offset, length)
                if low < high:
                    name = f"{rows.path}: {column}"
                    chunk = Chunk(file, raw, size, group, leaf)
                    yield from map(bytes, group_values(chunk, low, high, name, offset))
                offset += length
            if offset < end:
                raise SourceError(f"is cut short: has {offset} rows", expected=str(end), where=rows.path)
    except UNREADABLE as error:
        raise SourceError(f"column {column} cannot be read: {error}", where=rows.path) from None


def rows_needed(read: Reader, size: int) -> list[Range]:
    """Return the ranges of a remote parquet file with its footer and all columns except images."""
    metadata, footer = _remote_footer(read, size)
    return [
        (start, end) for _, path, start, end in _chunks_of(metadata) if not path.endswith(_IMAGE_BYTES)
    ] + [footer]


def footer_needed(read: Reader, size: int) -> list[Range]:
    """Return the range of a remote parquet file with its footer."""
    return [_remote_footer(read, size)[1]]


def images_here(rows: RowRange, columns: Sequence[str]) -> AbstractContextManager[None]:
    """Make the images of rows of a remote file available locally while a block runs.

    Args:
        rows: the range of rows.
        columns: the image columns.

    Raises:
        SourceError: they cannot be fetched.
    """

    def needed(read: Reader, size: int) -> list[Range]:
        metadata, footer = _remote_footer(read, size)
        first = [0]
        for number in range(metadata.num_row_groups):
            first.append(first[-1] + metadata.row_group(number).num_rows)
        wanted = [footer]
        for group, path, start, end in _chunks_of(metadata):
            low, high = max(rows.first - first[group], 0), rows.first + rows.count - first[group]
            length = first[group + 1] - first[group]
            if low < min(high, length) and path in leaves:
                whole = low == 0 and high >= length
                wanted += [(start, end)] if whole else _pages_needed(read, start, end, low, high)
        return wanted

    leaves = [f"{column}{_IMAGE_BYTES}" for column in columns]
    name = f"rows {rows.first}+{rows.count} of {', '.join(columns)}"
    return held(rows.path, needs=needed, name=name)


def _pages_needed(read: Reader, start: int, end: int, low: int, high: int) -> list[Range]:
    """Return the ranges of the pages of some rows; the whole column if its pages do not show their rows."""
    wanted: list[Range] = []
    row, at = 0, start
    try:
        for page in pages(cast(BinaryIO, ReadFile(read)), start, end):
            if row >= high:
                break
            count = 0 if page.kind == DICTIONARY_PAGE else int(page.header[1])
            if page.kind == DICTIONARY_PAGE or (row < high and low < row + count):
                wanted.append((at, page.start + page.size))
            row, at = row + count, page.start + page.size
    except (NotCoveredError, *UNREADABLE):  # reported when the pages are read
        return [(start, end)]
    return wanted


def _remote_footer(read: Reader, size: int) -> tuple[pq.FileMetaData, Range]:
    """Return a parquet file's footer and its range."""
    tail = read(max(size - _TAIL, 0), size)
    length = int.from_bytes(tail[-8:-4], "little") + 8 if tail[-4:] == b"PAR1" else 0
    start = max(size - max(length, 8), 0)
    try:
        return pq.read_metadata(pa.BufferReader(read(start, size))), (start, size)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"cannot be read as parquet: {error}") from None


def _chunks_of(metadata: pq.FileMetaData) -> Iterator[tuple[int, str, int, int]]:
    """Yield each column of each row group: number of the group, path of the column, range of its bytes."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for leaf in range(group.num_columns):
            column = group.column(leaf)
            starts = [column.data_page_offset]
            if column.has_dictionary_page and column.dictionary_page_offset:
                starts.append(column.dictionary_page_offset)
            yield number, column.path_in_schema, min(starts), min(starts) + column.total_compressed_size


def _leaf(file: pq.ParquetFile, path: Path, column: str) -> int:
    schema = file.metadata.schema
    for index in range(len(schema)):
        if schema.column(index).path == f"{column}.bytes":
            return index
    raise SourceError(f"has no image column {column!r} (struct<bytes, path>)", where=path)
