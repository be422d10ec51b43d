"""Pages of a parquet file, found by their headers and decompressed one at a time, and their values.

LeRobot writes up to 1,024 images of a camera to one page, usually the dictionary page: some hundred
megabytes, of which pyarrow's reader holds three copies. So this module finds the pages by the headers of the
Apache Parquet specification (PLAIN and RLE_DICTIONARY encodings), and decompresses them one after another;
threads that read at the same time share a memory budget. What is not supported is left to pyarrow's reader.
Every size is checked against the file's size before memory is allocated, and a page against its checksum, if
it has one.
"""

from __future__ import annotations

import io
import mmap
import os
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from cramjam import snappy
from msgspec import Struct

from ffenc.errors import SourceError
from ffenc.frames.crc import crc32
from ffenc.frames.page_memory import Body, Buffer, Stream, Value, cut_short, decompressing, memory
from ffenc.locks import unchanged

DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 0, 2, 3
PLAIN, _PLAIN_DICTIONARY, RLE_DICTIONARY = 0, 2, 8
HEADER_BYTES = 1 << 16
_STREAMED = {"ZSTD": "zstd", "GZIP": "gzip", "BROTLI": "brotli"}
_REMEMBERED = 4
_LEAST_MAPPED = 1 << 20  # bytes; fewer are copied in less time
_BLOCK = 1 << 18  # bytes that are read at once; they fit into a core's cache
_MADV_POPULATE_READ = 22  # Linux 5.14; mmap has no name for it
_ARROW_RATIO = 256  # greatest compression ratio of LZ4, which is left to pyarrow
_SNAPPY_RATIO = 22  # an element of three bytes gives at most 64
ROWS_A_BYTE = 8  # most rows per byte for a column of distinct values (index, timestamp)
_SAME_TIME_NS = 50_000_000  # file systems store times in steps of some milliseconds


class NoImageError(SourceError):
    """A row of an image column has no image."""


class NotCoveredError(Exception):
    """A feature of parquet that is left to pyarrow."""


class Chunk(Struct, frozen=True):
    """A column of a row group.

    Attributes:
        file, raw: the open file, twice.
        size: size of the file in bytes.
        group, leaf: numbers of the row group and of the column.
    """

    file: pq.ParquetFile
    raw: BinaryIO
    size: int
    group: int
    leaf: int

    @property
    def metadata(self) -> Any:
        return self.file.metadata.row_group(self.group).column(self.leaf)

    @property
    def column(self) -> Any:
        return self.file.metadata.schema.column(self.leaf)

    @property
    def start(self) -> int:
        """Byte offset of its first page."""
        found = self.metadata
        if found.has_dictionary_page and found.dictionary_page_offset:
            return int(min(found.data_page_offset, found.dictionary_page_offset))
        return int(found.data_page_offset)


def group_values(chunk: Chunk, low: int, high: int, name: str, offset: int) -> Iterator[Value]:
    done = 0
    try:
        for value in _values(chunk, low, high):
            yield _present(value, name, offset + low + done)
            del value  # it would keep the memory of its page while the next one is decompressed
            done += 1
    except NotCoveredError:
        claimed = chunk.metadata.total_uncompressed_size
        if claimed > _ARROW_RATIO * chunk.size:
            raise ValueError(f"{claimed:,} bytes are claimed, in a file of {chunk.size:,}") from None
        batches = chunk.file.iter_batches(batch_size=1, row_groups=[chunk.group], columns=[chunk.column.path])
        for at, batch in enumerate(batches):
            if low + done <= at < high:
                yield _present(batch.column(0).field("bytes")[0].as_py(), name, offset + at)


def _present(value: Value | None, name: str, row: int) -> Value:
    if value is None:
        raise NoImageError(
            f"row {row} has no image bytes. If the images are stored as files, pass that folder instead",
            where=name,
        )
    return value


class Page(Struct, frozen=True):
    kind: int
    header: dict[int, Any]
    raw: BinaryIO
    start: int
    size: int
    uncompressed: int
    checksum: int | None

    def body(self, codec: str, begin: int = 0) -> Body:
        """Return its decompressed values from a byte on."""
        size = self.uncompressed - begin
        if codec == "SNAPPY" and size > _SNAPPY_RATIO * self.size + 64:
            raise ValueError(f"{self.size:,} bytes cannot hold the {size:,} that they claim")
        if codec not in ("SNAPPY", "UNCOMPRESSED", *_STREAMED):
            raise NotCoveredError
        if codec != "SNAPPY":
            data = self._read()
            data.skip(begin)
            return data if codec == "UNCOMPRESSED" else Stream(data, size, _STREAMED[codec])
        file = _identity(self.raw)
        holds = None if file is None else (*file, self.start, begin)
        if holds is not None and (known := memory.holding(holds)) is not None:
            return Buffer(size, known, holds)
        with decompressing.taken(size), self._stored() as stored:
            body = Buffer(size, holds=holds)
            if size:
                found = snappy.decompress_raw_into(stored[begin:], body.view)
                if found != size:
                    raise ValueError(f"a page has {found:,} bytes, not the {size:,} that it claims")
            return body

    def _read(self) -> Buffer:
        """Return its bytes as stored in the file."""
        self.raw.seek(self.start)
        data = Buffer(self.size)
        if cast(io.BufferedReader, self.raw).readinto(data.view) != self.size:
            raise cut_short()
        self._check(data.view)
        return data

    @contextmanager
    def _stored(self) -> Iterator[memoryview[int]]:
        """Provide its bytes as stored in the file, from the system's file cache if there are many."""
        with ExitStack() as held:
            # Access to bytes that another program has cut off would end this process: it has to wait.
            large = self.size >= _LEAST_MAPPED and held.enter_context(unchanged(self.raw))
            mapped = self._map() if large else None
            if mapped is None:
                yield held.enter_context(closing(self._read())).view
                return
            held.enter_context(mapped)
            whole = held.enter_context(memoryview(mapped))
            view = held.enter_context(whole[-self.size :])
            # An error of the disk is an exception now; on access to the memory it would end the process.
            try:
                mapped.madvise(_MADV_POPULATE_READ)
            except (AttributeError, OSError):  # not on this system, or it cannot be read
                self._read_through()
            self._check(view)
            yield view

    def _map(self) -> mmap.mmap | None:
        """Map its bytes, and those before them in the same block, into memory.

        Returns:
            None if the file system does not support this, no address space is left, or the file has become
            shorter.
        """
        start = self.start - self.start % mmap.ALLOCATIONGRANULARITY
        size = self.start + self.size - start
        try:
            return mmap.mmap(self.raw.fileno(), size, access=mmap.ACCESS_READ, offset=start)
        except (OSError, ValueError):
            return None

    def _read_through(self) -> None:
        """Read its bytes without keeping them."""
        self.raw.seek(self.start)
        block, left = memoryview(bytearray(_BLOCK)), self.size
        while left:
            found = cast(io.BufferedReader, self.raw).readinto(block[:left])
            if not found:
                raise cut_short()
            left -= found

    def _check(self, stored: memoryview[int]) -> None:
        if self.checksum is not None and crc32(stored) != self.checksum & 0xFFFFFFFF:
            raise ValueError("a page does not match its checksum; the file is damaged")


def _identity(file: BinaryIO) -> tuple[int, ...] | None:
    """Return values that change when an open file is replaced or written to.

    Returns:
        None if it was written a moment ago: a later write could have the same time.
    """
    found = os.fstat(file.fileno())
    if time.time_ns() - found.st_ctime_ns < _SAME_TIME_NS:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _values(chunk: Chunk, low: int, high: int) -> Iterator[Value | None]:
    """Yield a range of values; a value that is a view is valid only until the next one."""
    found, column, size = chunk.metadata, chunk.column, chunk.size
    if column.max_repetition_level or found.physical_type != "BYTE_ARRAY":
        raise NotCoveredError
    start = chunk.start
    row = 0
    with ExitStack() as held:  # the dictionary
        dictionary: _Dictionary | None = None
        for page in pages(chunk.raw, start, min(start + found.total_compressed_size, size)):
            if row >= high:
                return
            if page.kind == DICTIONARY_PAGE:
                held.close()
                dictionary = _Dictionary(page, found.compression)
                held.callback(dictionary.close)
                continue
            count = page.header[1]
            if not 0 <= count <= ROWS_A_BYTE * size:
                raise ValueError(f"a page claims {count:,} values; the file is damaged")
            wanted = range(max(low - row, 0), min(high - row, count))
            row += count
            if not wanted:
                continue
            encoding = page.header[2 if page.kind == DATA_PAGE else 4]
            if encoding == PLAIN:
                held.close()  # no later page refers to it, so its memory can be used for this page
                dictionary = None
            levels, body = _data_page(page, found.compression, column.max_definition_level)
            with closing(body):
                present = _presence(levels, column.max_definition_level, wanted.stop)
                if encoding == PLAIN:
                    yield from _plain_values(body, present, wanted)
                elif encoding in (RLE_DICTIONARY, _PLAIN_DICTIONARY) and dictionary is not None:
                    yield from _dictionary_values(body, present, wanted, dictionary)
                else:
                    raise NotCoveredError


def pages(raw: BinaryIO, at: int, end: int) -> Iterator[Page]:
    from ffenc.frames.thrift import read_struct, values  # noqa: PLC0415  # only needed for images

    while at < end:
        raw.seek(at)
        found, length = read_struct(raw.read(HEADER_BYTES))
        header = values(found)
        kind, uncompressed, size = header[1], header[2], header[3]
        own = {DATA_PAGE: 5, DICTIONARY_PAGE: 7, DATA_PAGE_V2: 8}.get(kind)
        if own is None:
            raise NotCoveredError
        at += length
        if not 0 <= size <= end - at or uncompressed < 0:
            raise ValueError("a page is longer than its column; the file is damaged")
        yield Page(kind, header[own], raw, at, size, uncompressed, header.get(4))
        at += size


def _data_page(page: Page, codec: str, max_level: int) -> tuple[bytes, Body]:
    """Return a page's definition levels (which rows have a value), and its values."""
    if page.kind == DATA_PAGE:
        body = page.body(codec)
        levels = bytes(body.read(struct.unpack("<I", body.read(4))[0])) if max_level else b""
        return levels, body
    level_size: int = page.header[5]
    if page.header[6]:
        raise NotCoveredError
    if not 0 <= level_size <= page.size:
        raise ValueError("a page is shorter than its levels; the file is damaged")
    codec = codec if page.header.get(7, True) else "UNCOMPRESSED"
    page.raw.seek(page.start)
    return page.raw.read(level_size), page.body(codec, level_size)


def _presence(levels: bytes, max_level: int, count: int) -> npt.NDArray[np.bool_]:
    """Return which of a page's first rows have a value."""
    if not max_level:
        return np.ones(count, np.bool_)
    found: npt.NDArray[np.bool_] = _hybrid(levels, max_level.bit_length(), count) == max_level
    return found


def _plain_values(body: Body, present: npt.NDArray[np.bool_], wanted: range) -> Iterator[Value | None]:
    for at, there in enumerate(present):
        if at < wanted.start:
            if there:
                body.skip(_length(body))
        else:
            yield body.read(_length(body)) if there else None


def _dictionary_values(
    body: Body, present: npt.NDArray[np.bool_], wanted: range, dictionary: _Dictionary
) -> Iterator[Value | None]:
    width = body.read(1)[0]
    indices = _hybrid(body.rest(), width, int(present.sum()))
    before = int(present[: wanted.start].sum())
    for there in present[wanted.start :]:
        yield dictionary.value(int(indices[before])) if there else None
        before += int(there)


def _length(body: Body) -> int:
    return int(struct.unpack("<I", body.read(4))[0])


class _Dictionary:
    """The values of a dictionary page, which are read forwards on demand.

    Indices are ascending, except for images that occur more than once. The last few values are kept for a
    camera that repeats frames; an older one is found by reading from the start again.
    """

    def __init__(self, page: Page, codec: str) -> None:
        if page.header[2] not in (PLAIN, _PLAIN_DICTIONARY):
            raise NotCoveredError
        self._open: Callable[[], Body] = lambda: page.body(codec)
        self._body: Body | None = None
        self._next = 0
        self._recent: OrderedDict[int, Value] = OrderedDict()

    def close(self) -> None:
        if self._body is not None:
            self._body.close()

    def value(self, index: int) -> Value:
        if index in self._recent:
            return self._recent[index]
        if self._body is None:
            self._body = self._open()
        elif index < self._next:
            if not self._body.rewind():
                self._body.close()
                self._body = self._open()
            self._next = 0
        while self._next < index:
            self._body.skip(_length(self._body))
            self._next += 1
        value = self._body.read(_length(self._body))
        self._next += 1
        self._recent[index] = value
        if len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        return value


def _hybrid(data: Value, width: int, count: int) -> npt.NDArray[np.int64]:
    """Decode the first ``count`` values of parquet's RLE / bit-packed hybrid."""
    if not 0 <= width <= 32:
        raise ValueError(f"values of {width} bits; the file is damaged")
    values = np.zeros(count, np.int64)
    if not width:
        return values
    value_bytes = (width + 7) // 8
    done = at = 0
    while done < count:
        header, at = _varint(data, at)
        if header & 1:
            size = (header >> 1) * width
            packed = np.frombuffer(data[at : at + size], np.uint8)
            at += size
            bits = np.unpackbits(packed, bitorder="little")
            found = bits[: len(bits) // width * width].reshape(-1, width) @ (1 << np.arange(width))
            part = found[: count - done]
            if not len(part):
                raise cut_short()
            values[done : done + len(part)] = part
            done += len(part)
        else:
            if at + value_bytes > len(data) or not header:
                raise cut_short()
            values[done : done + (header >> 1)] = int.from_bytes(data[at : at + value_bytes], "little")
            at += value_bytes
            done += header >> 1
    return values


def _varint(data: Value, at: int) -> tuple[int, int]:
    """Read a varint: seven bits per byte, lowest first; return it and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
