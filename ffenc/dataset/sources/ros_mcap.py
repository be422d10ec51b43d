"""Read topics and messages of MCAP files chunk by chunk, in bounded memory."""

from __future__ import annotations

import dataclasses
import heapq
import io
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import IO, Any, cast

from ffenc.dataset.sources.ros_bag import Bag, Raw, words
from ffenc.dataset.sources.ros_decode import Topic, merged_topics, missing
from ffenc.errors import SourceError
from ffenc.paths import regular

MAGIC = b"\x89MCAP0\r\n"
_MOST_CHUNK = 256 << 20  # bytes of a chunk, which is decompressed as a whole
_MOST_WAITING = 1 << 30  # bytes of messages from chunks with overlapping times
_MOST_RECORD = 1 << 30
_NO_COMPRESSION = ""


class _Limited:
    """A file that limits each read to the size of a record, whatever length the file states."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size > _MOST_RECORD:
            raise ValueError(f"a record states {size:,} bytes; at most {_MOST_RECORD:,} are read")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class McapBag(Bag):
    """An MCAP file. A file without an index, as after a crash, is read up to the last complete record."""

    @cached_property
    def topics(self) -> dict[str, Topic]:
        summary = self._summary
        if summary is None or not (summary.chunk_indexes or summary.statistics):
            return self._recovered_topics()
        # Without chunks, reading cannot start in the middle, and the library would sort all in memory.
        self.ordered = bool(summary.chunk_indexes)
        counts = summary.statistics.channel_message_counts if summary.statistics else {}
        return _topics(summary.channels, summary.schemas, counts)

    def _recovered_topics(self) -> dict[str, Topic]:
        """Return the topics of a file without an index, by reading all of it."""
        self.ordered = False
        channels: dict[int, Any] = {}
        schemas: dict[int, Any] = {}
        counts: dict[int, int] = {}
        whole = True
        try:
            for schema, channel, _ in self._stream():
                channels[channel.id], schemas[channel.schema_id] = channel, schema
                counts[channel.id] = counts.get(channel.id, 0) + 1
        except SourceError:
            whole = False
        if not counts:
            what = "has no messages" if whole else "is truncated, and contains no complete message"
            raise SourceError(f"{self.path}: {what}")
        if not whole:
            self.remark = (
                f"{self.path}: has no index, as after a crash: {sum(counts.values()):,} messages are "
                "read, up to where it is cut short; later ones are lost"
            )
        return _topics(channels, {key: value for key, value in schemas.items() if value}, counts)

    def messages(self, topics: Collection[str], begin: int | None = None) -> Iterator[Raw]:
        self.topics  # noqa: B018 - determines how the file is read
        if self.ordered:
            yield from self._in_order(set(topics), begin or 0)
            return
        try:
            for _, channel, message in self._stream():
                if channel.topic in topics:
                    yield Raw(channel.topic, message.log_time, message.data)
        except SourceError:
            if not self.remark:
                raise

    def _in_order(self, topics: set[str], begin: int) -> Iterator[Raw]:
        """Yield the messages in the order of their times, chunk by chunk.

        If the times of chunks overlap, messages are held back until the chunks that begin earlier are read.
        """
        with self._open() as file:
            summary = self._summary
            wanted = {key: one.topic for key, one in summary.channels.items() if one.topic in topics}
            chunks = sorted(
                (one for one in summary.chunk_indexes if one.message_end_time >= begin and _has(one, wanted)),
                key=lambda one: (one.message_start_time, one.chunk_start_offset),
            )
            waiting: list[tuple[int, int, int, Raw]] = []
            size = 0
            for chunk in chunks:
                while waiting and waiting[0][0] < chunk.message_start_time:
                    raw = heapq.heappop(waiting)[-1]
                    size -= len(raw.data)
                    yield raw
                for place, message in enumerate(self._chunk(file, chunk)):
                    if message.channel_id in wanted and message.log_time >= begin:
                        raw = Raw(wanted[message.channel_id], message.log_time, message.data)
                        heapq.heappush(waiting, (raw.received, chunk.chunk_start_offset, place, raw))
                        size += len(raw.data)
                if size > _MOST_WAITING:
                    raise SourceError(
                        f"{self.path}: the times of its chunks overlap so that more than "
                        f"{_MOST_WAITING >> 30} GB of messages would wait for earlier ones; sort "
                        "it with: mcap sort"
                    )
            while waiting:
                yield heapq.heappop(waiting)[-1]

    def _chunk(self, file: IO[bytes], index: Any) -> list[Any]:
        """Return the messages of a chunk."""
        from mcap.data_stream import ReadDataStream  # noqa: PLC0415 - an extra
        from mcap.records import Chunk, Message  # noqa: PLC0415
        from mcap.stream_reader import breakup_chunk  # noqa: PLC0415

        if index.chunk_length > _MOST_RECORD:
            raise SourceError(f"{self.path}: has a chunk of {index.chunk_length:,} bytes")
        file.seek(index.chunk_start_offset + 9)  # skip the record's opcode and length
        with self.named():
            packed = Chunk.read(ReadDataStream(io.BytesIO(file.read(index.chunk_length - 9))))
            records = breakup_chunk(_decompressed(packed), validate_crc=True)
            return [one for one in records if isinstance(one, Message)]

    def _stream(self) -> Iterator[tuple[Any, Any, Any]]:
        """Yield schema, channel and message of each message, in the order of the file.

        Raises:
            SourceError: the file is damaged or truncated.
        """
        from mcap.records import Channel, Chunk, Message, Schema  # noqa: PLC0415 - an extra
        from mcap.stream_reader import StreamReader, breakup_chunk  # noqa: PLC0415

        channels: dict[int, Any] = {}
        schemas: dict[int, Any] = {}
        with self._open() as file, self.named():
            file.seek(0)
            reader = StreamReader(file, emit_chunks=True, record_size_limit=_MOST_RECORD)
            for record in reader.records:
                inner = [record]
                if isinstance(record, Chunk):
                    inner = breakup_chunk(_decompressed(record), validate_crc=True)
                for one in inner:
                    if isinstance(one, Schema):
                        schemas[one.id] = one
                    elif isinstance(one, Channel):
                        channels[one.id] = one
                    elif isinstance(one, Message):
                        channel = channels[one.channel_id]
                        yield schemas.get(channel.schema_id), channel, one

    @cached_property
    def _summary(self) -> Any:
        """Return the index; None if it is missing or damaged. It is kept: it lists every chunk."""
        with self._open() as file:
            from mcap.reader import SeekingReader  # noqa: PLC0415 - an extra

            file.seek(0)
            try:
                return SeekingReader(file, validate_crcs=True, record_size_limit=_MOST_RECORD).get_summary()
            except Exception:
                return None

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            from mcap.reader import SeekingReader  # noqa: PLC0415 - an extra
        except ImportError:
            raise missing(self.path) from None
        with regular(self.path).open("rb") as opened:
            file = cast(IO[bytes], _Limited(opened))
            try:
                SeekingReader(file)  # checks the magic bytes
            except Exception as error:
                raise SourceError(f"{self.path}: cannot be read as MCAP: {words(error)}") from None
            yield file


def _decompressed(chunk: Any) -> Any:
    """Return a chunk without compression; its size is checked before memory is allocated.

    Raises:
        ValueError: it is too large, or larger than stated.
    """
    size, data = chunk.uncompressed_size, chunk.data
    if max(size, len(data)) > _MOST_CHUNK:
        raise ValueError(
            f"a chunk has {max(size, len(data)):,} bytes; at most {_MOST_CHUNK >> 20} MB are read at once"
        )
    if chunk.compression == "zstd":
        import zstandard  # noqa: PLC0415 - comes with mcap

        # The library would allocate what the compressed data states, even if the chunk states less.
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as reader:
            data = reader.read(size + 1)
    elif chunk.compression == "lz4":
        import lz4.frame  # noqa: PLC0415 - comes with mcap

        data = lz4.frame.LZ4FrameDecompressor().decompress(chunk.data, max_length=size + 1)
    elif chunk.compression != _NO_COMPRESSION:
        raise ValueError(
            f"a chunk is compressed or encrypted as {chunk.compression!r}; supported are zstd and lz4"
        )
    if len(data) != size:
        raise ValueError(f"a chunk states {size:,} bytes, and has {len(data):,} or more")
    return dataclasses.replace(chunk, compression=_NO_COMPRESSION, data=data)


def _has(chunk: Any, channels: Collection[int]) -> bool:
    """Return whether a chunk may have messages of some channels; always True without message indexes."""
    places = chunk.message_index_offsets
    return not places or any(channel in places for channel in channels)


def _topics(
    channels: Mapping[int, Any], schemas: Mapping[int, Any], counts: Mapping[int, int]
) -> dict[str, Topic]:
    found = []
    for number, channel in channels.items():
        schema = schemas.get(channel.schema_id)
        name, text, kind = (
            (schema.name, schema.data, schema.encoding) if schema is not None else ("", b"", "")
        )
        found.append(Topic(channel.topic, name, counts.get(number, 0), text, kind, channel.message_encoding))
    return merged_topics(found)
