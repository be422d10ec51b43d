"""Recovery of a parquet file without a footer: its pages are found by their headers.

LeRobot keeps the file of a recording's rows open over many episodes, and writes its footer at the end. If the
program dies, the file contains the rows of these episodes, but no reader can open it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct, field

from ffenc.errors import SourceError
from ffenc.frames.parquet import MAGIC
from ffenc.frames.parquet_pages import (
    DATA_PAGE,
    DATA_PAGE_V2,
    DICTIONARY_PAGE,
    HEADER_BYTES,
    PLAIN,
    RLE_DICTIONARY,
)
from ffenc.frames.thrift import I32, I64, LIST, STRING, STRUCT, Field, ThriftStruct, read_struct, write_struct
from ffenc.paths import open_regular

_BLOCK = 1 << 20
# Numbers in the parquet specification (parquet.thrift): page types and fields.
_KIND, _UNCOMPRESSED, _COMPRESSED = 1, 2, 3
_OF_KIND = {DATA_PAGE: 5, DICTIONARY_PAGE: 7, DATA_PAGE_V2: 8}
_NUMBER_OF_VALUES = 1
_RLE = 3
_TYPES = {"BOOLEAN": 0, "INT32": 1, "INT64": 2, "FLOAT": 4, "DOUBLE": 5, "BYTE_ARRAY": 6}
_WIDTHS = {"INT32": 4, "INT64": 8, "FLOAT": 4, "DOUBLE": 8}
_CODECS = {"snappy": 1, None: 0, "zstd": 6, "gzip": 2, "lz4_raw": 7, "brotli": 4}
_ROWS, _ROW_GROUPS = 3, 4


class _Page(Struct, frozen=True):
    """Position of a page, including its header, and its contents."""

    dictionary: bool
    start: int
    size: int
    header: int
    uncompressed: int
    values: int


class _Column(Struct):
    """The pages of a column in a row group."""

    pages: list[_Page] = field(default_factory=list)

    @property
    def values(self) -> int:
        return sum(page.values for page in self.pages if not page.dictionary)


def has_footer(path: Path) -> bool:
    """Return whether a parquet file ends with a footer."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - len(MAGIC)))
        return file.read() == MAGIC and size > 2 * len(MAGIC)


def with_footer(path: Path, schema: pa.Schema, target: Path) -> int:
    """Write a file with the complete row groups of one without a footer; return its number of rows.

    Args:
        path: the file; it was written with dictionaries, the default of pyarrow and LeRobot.
        schema: its columns, in order.
        target: the file to write; its folder must exist.

    Raises:
        SourceError: it contains no complete row group with these columns.
    """
    empty = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), empty)
    described = empty.getvalue().to_pybytes()
    parquet = pq.ParquetFile(pa.BufferReader(described)).schema
    leaves = [parquet.column(number) for number in range(len(parquet.names))]
    try:
        with open_regular(path) as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise SourceError(f"{path}: is not a parquet file")
            whole = list(_groups(_pages(file), leaves))
            if not whole:
                raise SourceError(f"{path}: contains no complete row group with the columns of the dataset")
            codec = _codec(file, whole[0][0][0].pages[0])
            end = whole[-1][0][-1].pages[-1]
            footer, _ = read_struct(_footer_of(described))
            footer[_ROWS] = Field(I64, sum(rows for _, rows in whole))
            footer[_ROW_GROUPS] = Field(
                LIST, [_row_group(group, rows, leaves, codec) for group, rows in whole], STRUCT
            )
            written = write_struct(footer)
            with target.open("wb") as sink:
                file.seek(0)
                left = end.start + end.size
                while block := file.read(min(_BLOCK, left)):
                    sink.write(block)
                    left -= len(block)
                sink.write(written + len(written).to_bytes(4, "little") + MAGIC)
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise SourceError(f"{path}: its pages cannot be read: {error}") from None
    return sum(rows for _, rows in whole)


def _footer_of(data: bytes) -> bytes:
    length = int.from_bytes(data[-8:-4], "little")
    return data[-8 - length : -8]


def _pages(file: BinaryIO) -> Iterator[_Page]:
    """Yield the complete pages from the start of the file."""
    size = os.fstat(file.fileno()).st_size
    at = len(MAGIC)
    while at < size:
        file.seek(at)
        try:
            header, length = read_struct(file.read(HEADER_BYTES))
        except ValueError:
            return
        if not {_KIND, _UNCOMPRESSED, _COMPRESSED} <= header.keys():
            return
        if header[_COMPRESSED].kind == LIST:  # column metadata, which old writers repeat after the column
            at += length
            continue
        kind, compressed = header[_KIND].value, header[_COMPRESSED].value
        own = header.get(_OF_KIND.get(kind, -1))
        if own is None or compressed < 0 or at + length + compressed > size:
            return
        values = own.value[_NUMBER_OF_VALUES].value
        yield _Page(
            kind == DICTIONARY_PAGE, at, length + compressed, length, header[_UNCOMPRESSED].value, values
        )
        at += length + compressed


def _groups(pages: Iterator[_Page], leaves: Sequence[Any]) -> Iterator[tuple[list[_Column], int]]:
    """Yield the columns of each complete row group, and its number of rows.

    A column of numbers or texts begins with a dictionary page. A boolean column has none: its start follows
    from the number of its values, one per row.

    Args:
        pages: pages of the file, in order.
        leaves: the columns, as described by pyarrow.
    """
    runs: list[list[_Page]] = [[]]  # all but the first begin with a dictionary page
    for page in pages:
        if page.dictionary:
            runs.append([])
        runs[-1].append(page)
    left = runs.pop(0)  # pages of booleans before a row group's first dictionary page
    with_dictionary = [n for n, leaf in enumerate(leaves) if leaf.physical_type != "BOOLEAN"]
    flat = [not leaves[number].max_repetition_level for number in with_dictionary]
    following = [*with_dictionary[1:], len(leaves)]
    behind = [after - own - 1 for own, after in zip(with_dictionary, following, strict=True)]
    width = len(with_dictionary)
    for start in range(0, len(runs) - width + 1, width) if width else ():
        group = runs[start : start + width]
        rows = _rows(group, flat, behind, with_dictionary[0] > 0)
        if rows is None:
            return
        columns = [_take(left, rows) for _ in range(with_dictionary[0])]
        if left:
            return
        for run, is_flat, booleans in zip(group, flat, behind, strict=True):
            if is_flat:
                columns += [_take(run, rows) for _ in range(booleans + 1)]
                left = run
            else:
                run.reverse()
                others = [_take(run, rows) for _ in range(booleans)]
                columns.append(_Column(run[::-1]))
                columns += [_Column(own.pages[::-1]) for own in reversed(others)]
                left = []
        if not rows or not all(_fits(own, leaf, rows) for own, leaf in zip(columns, leaves, strict=True)):
            return
        yield columns, rows


def _fits(column: _Column, leaf: Any, rows: int) -> bool:
    """Return whether pages can belong to a column."""
    if not column.values or (not leaf.max_repetition_level and column.values != rows):
        return False
    first = column.pages[0]
    width = _WIDTHS.get(leaf.physical_type)
    return not first.dictionary or width is None or first.uncompressed == first.values * width


def _rows(
    group: Sequence[Sequence[_Page]], flat: Sequence[bool], behind: Sequence[int], others_follow: bool
) -> int | None:
    """Return a row group's number of rows, from a column with one value per row; None without one."""
    for place, (run, is_flat, booleans) in enumerate(zip(group, flat, behind, strict=True)):
        if is_flat and not (others_follow and place + 1 == len(group)):
            rows, rest = divmod(_Column(list(run)).values, booleans + 1)
            return None if rest else rows
    return None


def _take(pages: list[_Page], rows: int) -> _Column:
    """Remove the pages of ``rows`` values from the front, and return them."""
    column = _Column()
    while pages and column.values < rows:
        column.pages.append(pages.pop(0))
    return column


def _codec(file: BinaryIO, page: _Page) -> str | None:
    """Return the codec that the pages are compressed with."""
    file.seek(page.start + page.header)
    data = file.read(page.size - page.header)
    for name in _CODECS:
        if name is None:
            if len(data) == page.uncompressed:
                return None
            continue
        with contextlib.suppress(pa.ArrowException, OSError, ValueError):
            if len(pa.decompress(data, page.uncompressed, codec=name, asbytes=True)) == page.uncompressed:
                return name
    raise ValueError("they are compressed with a codec that is not known")


def _row_group(group: Sequence[_Column], rows: int, leaves: Sequence[Any], codec: str | None) -> ThriftStruct:
    columns: list[ThriftStruct] = []
    for own, leaf in zip(group, leaves, strict=True):
        sizes = [(page.header + page.uncompressed, page.size) for page in own.pages]
        first_data = next(page.start for page in own.pages if not page.dictionary)
        meta = {
            1: Field(I32, _TYPES[leaf.physical_type]),
            2: Field(LIST, [PLAIN, _RLE, RLE_DICTIONARY], I32),
            3: Field(LIST, [part.encode() for part in leaf.path.split(".")], STRING),
            4: Field(I32, _CODECS[codec]),
            5: Field(I64, own.values),
            6: Field(I64, sum(plain for plain, _ in sizes)),
            7: Field(I64, sum(stored for _, stored in sizes)),
            9: Field(I64, first_data),
        }
        if own.pages[0].dictionary:
            meta[11] = Field(I64, own.pages[0].start)
        columns.append({2: Field(I64, 0), 3: Field(STRUCT, meta)})
    total = sum(column[3].value[6].value for column in columns)
    return {1: Field(LIST, columns, STRUCT), 2: Field(I64, total), 3: Field(I64, rows)}
