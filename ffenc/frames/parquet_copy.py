"""Write a parquet file whose images are copied from other files as compressed pages.

Images are the largest part of a file, and encoding their column takes a hundred times as long as copying it.
pyarrow writes the other columns; the pages of images are written between its row groups, and the positions in
its footer are updated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from ffenc.errors import SourceError
from ffenc.frames.images import read_header
from ffenc.frames.parquet import IMAGE, MAGIC, UNREADABLE
from ffenc.frames.parquet_pages import Chunk, group_values
from ffenc.frames.thrift import I64, LIST, STRING, STRUCT, Field, ThriftStruct, read_struct, write_struct
from ffenc.paths import open_regular

if TYPE_CHECKING:
    from typing_extensions import Self

_BLOCK = 1 << 20
# Field numbers in the footer, as in the parquet specification (parquet.thrift).
_ROW_GROUPS = 4  # of the file
_COLUMNS, _TOTAL_BYTES, _FIRST_PAGE, _TOTAL_COMPRESSED = 1, 2, 5, 6  # of a row group
_FILE_PATH, _FILE_OFFSET, _META, _ENCRYPTED = 1, 2, 3, (8, 9)  # of a column
_PATH, _VALUES, _UNCOMPRESSED, _COMPRESSED, _DATA, _DICTIONARY = (
    3,
    5,
    6,
    7,
    9,
    11,
)  # of a column's metadata
_SIZES = (_VALUES, _UNCOMPRESSED, _COMPRESSED, _DATA)
_ELSEWHERE = (10, 14, 15)  # index page and Bloom filter, which are not copied


class RowGroup(Struct, frozen=True):
    """A row group of a file.

    Attributes:
        number: number of the row group.
        first, rows: its first row in the file, and its number of rows.
    """

    number: int
    first: int
    rows: int


class CopySource:
    """A file that image columns are copied from.

    Args:
        path: the file.
        columns: image column of the written file -> its name in this file.

    Raises:
        SourceError: it cannot be read.
    """

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        self.path, self._columns = path, columns
        self._leaves = {
            f"{old}.{part}": (new.encode(), part.encode())
            for new, old in columns.items()
            for part in ("bytes", "path")
        }
        with ExitStack() as stack:
            try:
                self.raw = stack.enter_context(open_regular(path))
                self._file = stack.enter_context(
                    pq.ParquetFile(self.raw, pre_buffer=False, page_checksum_verification=True)
                )
                self._size = os.fstat(self.raw.fileno()).st_size
                self._footer = _read_footer(self.raw, self._size)
            except UNREADABLE as error:
                raise SourceError(f"{path}: cannot be read: {error}") from None
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def groups(self) -> list[RowGroup]:
        """Return the row groups whose images can be copied; none if a column's type is not ffenc's."""
        metadata = self._file.metadata
        schema = metadata.schema
        leaves = {schema.column(i).path: schema.column(i) for i in range(len(schema))}
        for name in self._leaves:
            leaf = leaves.get(name)
            if leaf is None or (leaf.max_definition_level, leaf.max_repetition_level) != (2, 0):
                return []
        types = self._file.schema_arrow
        if any(types.field(name).type != IMAGE for name in self._columns.values()):
            return []
        found, first = [], 0
        for number in range(metadata.num_row_groups):
            rows = metadata.row_group(number).num_rows
            if self._is_copied(number, rows):
                found.append(RowGroup(number, first, rows))
            first += rows
        return found

    def _is_copied(self, group: int, rows: int) -> bool:
        columns = self._chunks(group)
        return set(columns) == set(self._leaves) and all(
            _FILE_PATH not in column
            and not any(field in column for field in _ENCRYPTED)
            and all(column[_META].value[number].kind == I64 for number in _SIZES)
            and column[_META].value[_VALUES].value == rows
            for column in columns.values()
        )

    def _chunks(self, group: int) -> dict[str, ThriftStruct]:
        """Return the footer's entries of a row group's image columns, by column path."""
        found = {}
        for column in self._footer[_ROW_GROUPS].value[group][_COLUMNS].value:
            if _META in column and (name := _path_of(column)) in self._leaves:
                found[name] = column
        return found

    def columns(self, group: RowGroup) -> Iterator[tuple[ThriftStruct, int, int]]:
        """Yield the columns of a row group, named as in the written file, with the range of their pages.

        Raises:
            SourceError: the range is not inside the file.
        """
        for name, column in self._chunks(group.number).items():
            start, size = self._place(column)
            path = Field(LIST, list(self._leaves[name]), STRING)
            yield {_META: Field(STRUCT, column[_META].value | {_PATH: path})}, start, size

    def check(self, group: RowGroup) -> None:
        """Check that each row of a row group has an image whose header can be read.

        The pages are decompressed for this, and compared with their checksums if they have some.

        Raises:
            SourceError: a page is damaged, or a row has no image.
        """
        schema = self._file.metadata.schema
        number = {schema.column(i).path: i for i in range(len(schema))}
        for key in self._columns.values():
            chunk = Chunk(self._file, self.raw, self._size, group.number, number[f"{key}.bytes"])
            name, rows = f"{self.path}: {key}", 0
            try:
                for image in group_values(chunk, 0, group.rows, name, group.first):
                    at = f"{self.path}: row {group.first + rows}, column {key}"
                    read_header(memoryview(image), at)
                    rows += 1
                names = self._file.read_row_group(group.number, columns=[f"{key}.path"])
                if not rows == names.num_rows == group.rows:
                    raise ValueError(f"row group {group.number} has fewer values than rows")
            except UNREADABLE as error:
                raise SourceError(f"{self.path}: column {key} cannot be read: {error}") from None

    def _place(self, column: ThriftStruct) -> tuple[int, int]:
        meta = column[_META].value
        start = _first_page(meta)
        size = meta[_COMPRESSED].value
        if not (len(MAGIC) <= start and 0 <= size <= self._size - start):
            raise SourceError(f"{self.path}: its footer names pages that are not in the file; it is damaged")
        return start, size


class CopyingWriter:
    """Writes a parquet file with image columns whose row groups are copied or written.

    Args:
        path: the file to write.
        schema: its columns; image columns have the type :data:`IMAGE`.
        columns: the image columns.
        options: options of ``pyarrow.parquet.ParquetWriter``.
    """

    def __init__(
        self, path: Path, schema: pa.Schema, columns: Sequence[str], options: Mapping[str, Any]
    ) -> None:
        self._path, self._schema, self._columns = path, schema, columns
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pq.ParquetWriter(self._sink, schema, **options)
        self._groups = 0
        self._copied: dict[tuple[int, str], ThriftStruct] = {}

    def write(self, table: pa.Table) -> None:
        """Write rows with their images as one row group."""
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._groups += 1

    def copy(self, table: pa.Table, source: CopySource, group: RowGroup) -> None:
        """Write rows whose images are copied.

        Args:
            table: the rows, without images.
            source: the file with the images.
            group: the row group with the images, of the same number of rows.

        Raises:
            SourceError: the file is damaged.
        """
        for column, start, size in source.columns(group):
            shift = self._sink.tell() - start
            _copy_bytes(source.raw, start, size, self._sink)
            self._copied[self._groups, _path_of(column)] = _moved(column, shift)
        nothing = pa.nulls(table.num_rows, IMAGE)
        columns = [nothing if f.name in self._columns else table[f.name] for f in self._schema]
        self.write(pa.Table.from_arrays(columns, schema=self._schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writer.close()
        finally:
            self._sink.close()
        if kind is None:
            if self._copied:
                self._rewrite_footer()
            # While this thread waits for the disk, other threads check their images.
            with self._path.open("rb") as file:
                os.fsync(file.fileno())

    def _rewrite_footer(self) -> None:
        with self._path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            footer = _read_footer(file, size)
            groups = footer[_ROW_GROUPS].value
            for number, group in enumerate(groups):
                columns = group[_COLUMNS].value
                for place, column in enumerate(columns):
                    columns[place] = self._copied.get((number, _path_of(column)), column)
                described = [column[_META].value for column in columns]
                group[_FIRST_PAGE] = Field(I64, min(map(_first_page, described)))
                group[_TOTAL_BYTES] = Field(I64, sum(one[_UNCOMPRESSED].value for one in described))
                group[_TOTAL_COMPRESSED] = Field(I64, sum(one[_COMPRESSED].value for one in described))
            file.seek(size - 8)
            file.seek(size - 8 - int.from_bytes(file.read(4), "little"))
            written = write_struct(footer)
            file.write(written + len(written).to_bytes(4, "little") + MAGIC)
            file.truncate()


def _path_of(column: ThriftStruct) -> str:
    return b".".join(column[_META].value[_PATH].value).decode("utf-8", "replace")


def _first_page(meta: ThriftStruct) -> int:
    """Return the position of a column's first page, from its metadata."""
    data, dictionary = meta[_DATA].value, meta.get(_DICTIONARY)
    return int(min(data, dictionary.value) if dictionary is not None and dictionary.value > 0 else data)


def _read_footer(file: BinaryIO, size: int) -> ThriftStruct:
    """Read a file's footer.

    Raises:
        ValueError: the footer is missing or damaged.
    """
    file.seek(max(0, size - 8))
    end = file.read(8)
    length = int.from_bytes(end[:4], "little")
    if end[4:] != MAGIC or length > size - 12:
        raise ValueError("it does not end as a parquet file does")
    file.seek(size - 8 - length)
    footer, _ = read_struct(file.read(length))
    groups = footer.get(_ROW_GROUPS)
    if groups is None or (groups.kind, groups.of) != (LIST, STRUCT):
        raise ValueError("its footer lists no row groups")
    return footer


def _moved(column: ThriftStruct, shift: int) -> ThriftStruct:
    """Return a column's entry with its page positions moved by ``shift`` bytes."""
    meta = {number: field for number, field in column[_META].value.items() if number not in _ELSEWHERE}
    for number in (_DATA, _DICTIONARY):
        if number in meta and meta[number].value > 0:
            meta[number] = Field(I64, meta[number].value + shift)
    return {_FILE_OFFSET: Field(I64, 0), _META: Field(STRUCT, meta)}


def _copy_bytes(source: BinaryIO, start: int, size: int, sink: pa.OSFile) -> None:
    """Copy a range of a file to the file that is written, inside the kernel if possible."""
    done = 0
    while done < size:
        try:
            copied = os.copy_file_range(source.fileno(), sink.fileno(), size - done, offset_src=start + done)
        except (AttributeError, OSError):  # not available on macOS, nor between all file systems
            break
        if not copied:
            break
        done += copied
    source.seek(start + done)
    while done < size:
        block = source.read(min(_BLOCK, size - done))
        if not block:
            raise SourceError(f"{source.name}: ends before the pages that its footer names; it is damaged")
        sink.write(block)
        done += len(block)
