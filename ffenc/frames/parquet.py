"""Read the images of a parquet column one at a time.

LeRobot keeps a whole episode of one camera in a single page, most often the dictionary page: several
hundred megabytes that every parquet library decompresses at once. Here a page is decompressed as a
stream, so that memory holds one image however long the episode is. The format is that of the Apache
Parquet specification (thrift compact page headers, PLAIN and RLE_DICTIONARY encodings) and of Snappy's
format description; what is not covered is left to pyarrow, which reads everything.
"""

from __future__ import annotations

import io
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.errors import SourceError
from ffenc.frames.sources import EncodedFrame, files_fingerprint

_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3
_PLAIN, _PLAIN_DICTIONARY, _RLE_DICTIONARY = 0, 2, 8
_STREAMED_BY_ARROW = {"ZSTD": "zstd", "GZIP": "gzip", "BROTLI": "brotli"}
_HEADER_BYTES = 1 << 16
_WINDOW = 1 << 16  # Snappy compresses 64 KiB blocks by themselves; a copy reaches no further back
_REMEMBERED = 4


class _NotCoveredError(Exception):
    """A feature of parquet that is left to pyarrow."""


@dataclass(frozen=True)
class RowRange:
    """Rows of one parquet file: ``count`` from ``first`` on."""

    path: Path
    first: int
    count: int


class ParquetImages:
    """The images of one column as a frame source.

    Args:
        rows: where they are; several ranges follow each other.
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
    """Yield the ``bytes`` of an image column for a range of rows, holding one image at a time.

    Args:
        rows: which rows of which file.
        column: name of the ``struct<bytes: binary, path: string>`` column.

    Raises:
        SourceError: the file is damaged, the column is missing, a row has no image, or the file is shorter.
    """
    try:
        with pq.ParquetFile(rows.path, pre_buffer=False) as file, rows.path.open("rb") as raw:
            leaf = _leaf(file, rows.path, column)
            start, end = rows.first, rows.first + rows.count
            offset = 0
            for group in range(file.num_row_groups):
                length = file.metadata.row_group(group).num_rows
                low, high = max(start - offset, 0), min(end - offset, length)
                if low < high:
                    yield from _group_values(
                        file, raw, group, leaf, low, high, f"{rows.path}: {column}", offset
                    )
                offset += length
            if offset < end:
                raise SourceError(
                    f"{rows.path}: has {offset} rows, {end} were expected; the file is cut short"
                )
    except (pa.ArrowException, OSError, struct.error, LookupError, TypeError, ValueError) as error:
        raise SourceError(f"{rows.path}: column {column} cannot be read: {error}") from None


def _leaf(file: pq.ParquetFile, path: Path, column: str) -> int:
    schema = file.metadata.schema
    for index in range(len(schema)):
        if schema.column(index).path == f"{column}.bytes":
            return index
    raise SourceError(f"{path}: has no image column {column!r} (struct<bytes, path>)")


def _group_values(
    file: pq.ParquetFile, raw: BinaryIO, group: int, leaf: int, low: int, high: int, name: str, offset: int
) -> Iterator[bytes]:
    done = 0
    try:
        for value in _stream_values(file, raw, group, leaf, low, high):
            yield _present(value, name, offset + low + done)
            done += 1
    except _NotCoveredError:
        column = file.metadata.schema.column(leaf).path
        batches = file.iter_batches(batch_size=1, row_groups=[group], columns=[column])
        for at, batch in enumerate(batches):
            if low + done <= at < high:
                yield _present(batch.column(0).field("bytes")[0].as_py(), name, offset + at)


def _present(value: bytes | None, name: str, row: int) -> bytes:
    if value is None:
        raise SourceError(
            f"{name}: row {row} has no image bytes. If the images are kept as files, give that folder instead"
        )
    return value


# --- one column chunk ---------------------------------------------------------------------------------


class _Reader(Protocol):
    def read(self, size: int) -> bytes: ...


class _Region(io.RawIOBase):
    """A part of a file, read from its beginning to its end."""

    def __init__(self, raw: BinaryIO, start: int, size: int) -> None:
        self._raw, self._at, self._end = raw, start, start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._end - self._at)
        self._raw.seek(self._at)
        data = self._raw.read(size)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@dataclass(frozen=True)
class _Page:
    kind: int
    header: dict[int, Any]
    body: int
    size: int
    uncompressed: int


def _stream_values(
    file: pq.ParquetFile, raw: BinaryIO, group: int, leaf: int, low: int, high: int
) -> Iterator[bytes | None]:
    chunk = file.metadata.row_group(group).column(leaf)
    column = file.metadata.schema.column(leaf)
    if column.max_repetition_level or chunk.physical_type != "BYTE_ARRAY":
        raise _NotCoveredError
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    dictionary: _Dictionary | None = None
    row = 0
    for page in _pages(raw, start, start + chunk.total_compressed_size):
        if row >= high:
            return
        if page.kind == _DICTIONARY_PAGE:
            dictionary = _Dictionary(raw, page, chunk.compression)
            continue
        count, encoding, present, body = _data_page(raw, page, chunk.compression, column.max_definition_level)
        wanted = range(max(low - row, 0), min(high - row, count))
        row += count
        if not wanted:
            continue
        if encoding == _PLAIN:
            yield from _plain_values(body, present, wanted)
        elif encoding in (_RLE_DICTIONARY, _PLAIN_DICTIONARY) and dictionary is not None:
            width = _exactly(body, 1)[0]
            indices = iter(_hybrid(body, width, sum(present)))
            for at, there in enumerate(present[: wanted.stop]):
                index = next(indices) if there else None
                if at in wanted:
                    yield None if index is None else dictionary.value(index)
        else:
            raise _NotCoveredError


def _pages(raw: BinaryIO, start: int, end: int) -> Iterator[_Page]:
    at = start
    while at < end:
        raw.seek(at)
        header, length = _thrift_struct(raw.read(_HEADER_BYTES), 0)
        kind, uncompressed, size = header[1], header[2], header[3]
        own = {_DATA_PAGE: 5, _DICTIONARY_PAGE: 7, _DATA_PAGE_V2: 8}.get(kind)
        if own is None:
            raise _NotCoveredError
        yield _Page(kind, header[own], at + length, size, uncompressed)
        at += length + size


def _data_page(
    raw: BinaryIO, page: _Page, codec: str, max_level: int
) -> tuple[int, int, list[bool], _Reader]:
    """Return a page's number of values, encoding, which rows have a value, and the stream of values."""
    count: int = page.header[1]
    if page.kind == _DATA_PAGE:
        body = _decompressed(raw, page.body, page.size, codec)
        levels = _exactly(body, struct.unpack("<I", _exactly(body, 4))[0]) if max_level else b""
        return count, page.header[2], _presence(levels, max_level, count), body
    level_size: int = page.header[5]
    if page.header[6]:
        raise _NotCoveredError
    raw.seek(page.body)
    levels = raw.read(level_size)
    codec = codec if page.header.get(7, True) else "UNCOMPRESSED"
    body = _decompressed(raw, page.body + level_size, page.size - level_size, codec)
    return count, page.header[4], _presence(levels, max_level, count), body


def _presence(levels: bytes, max_level: int, count: int) -> list[bool]:
    if not max_level:
        return [True] * count
    return [level == max_level for level in _hybrid(io.BytesIO(levels), max_level.bit_length(), count)]


def _plain_values(body: _Reader, present: list[bool], wanted: range) -> Iterator[bytes | None]:
    for at, there in enumerate(present[: wanted.stop]):
        value = _exactly(body, struct.unpack("<I", _exactly(body, 4))[0]) if there else None
        if at in wanted:
            yield value


class _Dictionary:
    """The values of a dictionary page, read forwards as they are asked for.

    Indices come in ascending order, but for images that occur more than once; the last few values are
    remembered for a camera that repeats itself, and an older one is found by reading from the start again.
    """

    def __init__(self, raw: BinaryIO, page: _Page, codec: str) -> None:
        if page.header[2] not in (_PLAIN, _PLAIN_DICTIONARY):
            raise _NotCoveredError
        self._open: Callable[[], _Reader] = lambda: _decompressed(raw, page.body, page.size, codec)
        self._body = self._open()
        self._next = 0
        self._recent: OrderedDict[int, bytes] = OrderedDict()

    def value(self, index: int) -> bytes:
        if index in self._recent:
            return self._recent[index]
        if index < self._next:
            self._body, self._next = self._open(), 0
        while True:
            value = _exactly(self._body, struct.unpack("<I", _exactly(self._body, 4))[0])
            self._next += 1
            if self._next == index + 1:
                break
        self._recent[index] = value
        if len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        return value


def _exactly(body: _Reader, size: int) -> bytes:
    data = body.read(size)
    if len(data) != size:
        raise IndexError("a page ends before its values do; the file is damaged")
    return data


def _decompressed(raw: BinaryIO, start: int, size: int, codec: str) -> _Reader:
    region = io.BufferedReader(_Region(raw, start, size), 1 << 18)
    if codec == "UNCOMPRESSED":
        return cast(_Reader, region)
    if codec == "SNAPPY":
        return _SnappyReader(region)
    if codec in _STREAMED_BY_ARROW:
        return cast(
            _Reader, pa.CompressedInputStream(pa.PythonFile(region, mode="r"), _STREAMED_BY_ARROW[codec])
        )
    raise _NotCoveredError


class _SnappyReader:
    """Decompress a Snappy block as a stream: a varint of its size, then literals and copies."""

    def __init__(self, source: io.BufferedReader[Any]) -> None:
        self._source = source
        self._buffer = bytearray()
        self._at = 0
        while source.read(1)[0] & 0x80:
            pass

    def read(self, size: int) -> bytes:
        end = self._at + size
        while len(self._buffer) < end and self._element():
            pass
        data = bytes(memoryview(self._buffer)[self._at : end])
        self._at += len(data)
        if self._at > 4 * _WINDOW:  # what is read and out of every copy's reach
            del self._buffer[: self._at - _WINDOW]
            self._at = _WINDOW
        return data

    def _element(self) -> bool:
        source, buffer = self._source, self._buffer
        first = source.read(1)
        if not first:
            return False
        tag = first[0]
        kind = tag & 3
        if kind == 0:
            length = tag >> 2
            if length >= 60:
                length = int.from_bytes(source.read(length - 59), "little")
            literal = source.read(length + 1)
            if len(literal) != length + 1:
                raise IndexError("compressed data is cut short; the file is damaged")
            buffer += literal
            return True
        if kind == 1:
            length, offset = ((tag >> 2) & 7) + 4, ((tag >> 5) << 8) | source.read(1)[0]
        else:
            length, offset = (tag >> 2) + 1, int.from_bytes(source.read(2 if kind == 2 else 4), "little")
        start = len(buffer) - offset
        if offset == 0 or start < 0:
            raise IndexError("compressed data refers to nothing; the file is damaged")
        if offset >= length:
            buffer += buffer[start : start + length]
        else:  # the copy overlaps what it writes: the last bytes repeat
            pattern = bytes(buffer[start:])
            buffer += (pattern * (length // offset + 1))[:length]
        return True


def _hybrid(body: _Reader, width: int, count: int) -> list[int]:
    """Decode ``count`` values of parquet's RLE / bit-packed hybrid."""
    values: list[int] = []
    value_bytes = (width + 7) // 8
    while len(values) < count:
        header = _varint(body)
        if header & 1:
            groups = header >> 1
            packed = int.from_bytes(body.read(groups * width), "little")
            mask = (1 << width) - 1
            for group in range(groups * 8):
                values.append((packed >> (group * width)) & mask)
        else:
            values += [int.from_bytes(_exactly(body, value_bytes), "little")] * (header >> 1)
    return values[:count]


def _varint(body: _Reader) -> int:
    value = shift = 0
    while True:
        byte = _exactly(body, 1)[0]
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value
        shift += 7


def _thrift_struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Read a struct of thrift's compact protocol; returns its fields by id, and the position behind it."""
    fields: dict[int, Any] = {}
    field = 0
    while True:
        head = data[at]
        at += 1
        kind = head & 0x0F
        if head == 0:
            return fields, at
        if head >> 4:
            field += head >> 4
        else:
            field, at = _thrift_int(data, at)
        fields[field], at = _thrift_value(data, at, kind)


def _thrift_value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in (1, 2):
        return kind == 1, at
    if kind == 3:
        return data[at], at + 1
    if kind in (4, 5, 6):
        return _thrift_int(data, at)
    if kind == 7:
        return struct.unpack("<d", data[at : at + 8])[0], at + 8
    if kind == 8:
        size, at = _thrift_varint(data, at)
        return data[at : at + size], at + size
    if kind in (9, 10):
        size, element = data[at] >> 4, data[at] & 0x0F
        at += 1
        if size == 15:
            size, at = _thrift_varint(data, at)
        items = []
        for _ in range(size):
            item, at = _thrift_value(data, at, element)
            items.append(item)
        return items, at
    if kind == 12:
        return _thrift_struct(data, at)
    raise _NotCoveredError


def _thrift_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7


def _thrift_int(data: bytes, at: int) -> tuple[int, int]:
    value, at = _thrift_varint(data, at)
    return (value >> 1) ^ -(value & 1), at
