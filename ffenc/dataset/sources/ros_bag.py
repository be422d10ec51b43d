"""ROS 2 bags and MCAP files: their topics, and their messages in the order they were recorded."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ffenc.errors import ConfigError, SourceError
from ffenc.paths import regular

MCAP_MAGIC = b"\x89MCAP0\r\n"
SQLITE_MAGIC = b"SQLite format 3\0"
_MOST_RECORD = 1 << 30  # bytes of a chunk, which is decompressed as a whole
_CDR = ("cdr", "ros2")

# Of packages that bags without definitions cannot be read without: video as packets.
_MORE_TYPES = {
    "foxglove_msgs/msg/CompressedVideo": (
        "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
    ),
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": (
        "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\n"
        "bool is_bigendian\nuint8[] data\n"
    ),
}


@dataclass(frozen=True)
class Topic:
    """A topic of a bag.

    Attributes:
        name: such as ``/camera/image_raw``.
        type: of its messages, such as ``sensor_msgs/msg/Image``.
        count: how many messages it has.
        definition: the type's definition, as text; "": the bag does not have it.
        encoding: how messages are kept; ``cdr`` is read.
    """

    name: str
    type: str
    count: int
    definition: str
    encoding: str


@dataclass(frozen=True)
class Raw:
    """A message.

    Attributes:
        topic: its topic.
        received: when it was recorded, in nanoseconds.
        data: as it is kept.
    """

    topic: str
    received: int
    data: bytes | memoryview


class Bag(ABC):
    """One recording.

    Args:
        path: its file or folder.

    Attributes:
        ordered: messages come in the order of their times, and can be begun at a time.
        remark: what is wrong with the bag and was got over; "": nothing.
    """

    ordered = True
    remark = ""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def files(self) -> list[Path]:
        """The files that it consists of."""
        return [self.path]

    @cached_property
    @abstractmethod
    def topics(self) -> dict[str, Topic]:
        """Its topics by name.

        Raises:
            SourceError: it cannot be read.
        """

    @abstractmethod
    def messages(self, topics: Collection[str], begin: int | None = None) -> Iterator[Raw]:
        """The messages of some topics.

        Args:
            topics: their names.
            begin: leave out messages that were recorded before, in nanoseconds; None: none.

        Raises:
            SourceError: the bag is damaged.
        """

    @cached_property
    def _types(self) -> Any:
        store_of, stores = _typesys(self.path)
        store = store_of(stores.ROS2_HUMBLE)
        from rosbags.typesys import get_types_from_msg  # noqa: PLC0415 - an extra

        definitions = {topic.type: topic.definition for topic in self.topics.values() if topic.definition}
        for name, text in (
            definitions | {k: v for k, v in _MORE_TYPES.items() if k not in definitions}
        ).items():
            try:
                found = get_types_from_msg(text, name)
                store.register({key: value for key, value in found.items() if key not in store.fielddefs})
            except Exception:  # noqa: S112 - a type that is not understood is an error when it is needed
                continue
        return store

    def decoded(self, raw: Raw) -> Any:
        """A message as an object with its fields.

        Raises:
            SourceError: it is damaged, or of a type or an encoding that is not known.
        """
        topic = self.topics[raw.topic]
        if topic.encoding not in _CDR:
            raise SourceError(
                f"{self.path}: {topic.name}: its messages are encoded as "
                f"{topic.encoding or 'nothing known'}; "
                "those of ROS 2 (cdr) are read"
            )
        if topic.type not in self._types.fielddefs:
            raise SourceError(
                f"{self.path}: {topic.name}: its type {topic.type} is not known, and the bag does not "
                "define it"
            )
        try:
            return self._types.deserialize_cdr(raw.data, topic.type)
        except Exception as error:
            raise SourceError(
                f"{self.path}: {topic.name}: the message recorded at {raw.received} ns is damaged: {error}"
            ) from None


def _typesys(path: Path) -> tuple[Any, Any]:
    try:
        from rosbags.typesys import Stores, get_typestore  # noqa: PLC0415 - an extra
    except ImportError:
        raise _missing(path) from None
    return get_typestore, Stores


def _missing(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} is a ROS 2 bag or an MCAP file, and reading one needs rosbags and mcap: pip install "
        "'ffenc[ros]'"
    )


class McapBag(Bag):
    """An MCAP file. One without its index, as a crash leaves it, is read as far as it is whole."""

    @cached_property
    def topics(self) -> dict[str, Topic]:
        with self._open() as reader:
            try:
                summary = reader.get_summary()
            except Exception:
                summary = None
            if summary is None or not (summary.chunk_indexes or summary.statistics):
                return self._recovered_topics()
            for chunk in summary.chunk_indexes:
                if max(chunk.uncompressed_size, chunk.chunk_length) > _MOST_RECORD:
                    raise SourceError(
                        f"{self.path}: has a chunk of {chunk.uncompressed_size:,} bytes; at most "
                        f"{_MOST_RECORD:,} are read at once"
                    )
            counts = summary.statistics.channel_message_counts if summary.statistics else {}
            return _topics(summary.channels, summary.schemas, counts)

    def _recovered_topics(self) -> dict[str, Topic]:
        """The topics of a file without an index: all of it is read."""
        self.ordered = False
        channels: dict[int, Any] = {}
        schemas: dict[int, Any] = {}
        counts: dict[int, int] = {}
        for schema, channel, _ in self._stream():
            channels[channel.id], schemas[channel.schema_id] = channel, schema
            counts[channel.id] = counts.get(channel.id, 0) + 1
        if not counts:
            raise SourceError(f"{self.path}: is cut short, and no whole message is left in it")
        self.remark = (
            f"{self.path}: has no index, as a crash leaves it: {sum(counts.values()):,} messages up to "
            "where it is "
            "cut short are read; what came after is lost"
        )
        return _topics(channels, {key: value for key, value in schemas.items() if value}, counts)

    def messages(self, topics: Collection[str], begin: int | None = None) -> Iterator[Raw]:
        self.topics  # noqa: B018 - decides how it is read
        if not self.ordered:
            for _, channel, message in self._stream():
                if channel.topic in topics:
                    yield Raw(channel.topic, message.log_time, message.data)
            return
        with self._open() as reader:
            try:
                for _, channel, message in reader.iter_messages(list(topics), starting_at=begin):
                    yield Raw(channel.topic, message.log_time, message.data)
            except (SourceError, GeneratorExit):
                raise
            except Exception as error:
                raise SourceError(f"{self.path}: is damaged: {_words(error)}; restore it") from None

    def _stream(self) -> Iterator[tuple[Any, Any, Any]]:
        """Schema, channel and message of each message, up to where the file is cut short."""
        from mcap.reader import NonSeekingReader  # noqa: PLC0415 - an extra

        with regular(self.path).open("rb") as file:
            reader = NonSeekingReader(file, record_size_limit=_MOST_RECORD)
            with suppress(_cut_short()):
                yield from reader.iter_messages(log_time_order=False)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            from mcap.exceptions import McapError  # noqa: PLC0415 - an extra
            from mcap.reader import SeekingReader  # noqa: PLC0415
        except ImportError:
            raise _missing(self.path) from None
        with regular(self.path).open("rb") as file:
            try:
                yield SeekingReader(file, validate_crcs=True, record_size_limit=_MOST_RECORD)
            except McapError as error:
                raise SourceError(f"{self.path}: cannot be read as MCAP: {_words(error)}") from None


def _cut_short() -> type[Exception]:
    """What the library raises where a file is cut short: anything, from struct to its codecs."""
    return Exception


def _topics(
    channels: Mapping[int, Any], schemas: Mapping[int, Any], counts: Mapping[int, int]
) -> dict[str, Topic]:
    topics: dict[str, Topic] = {}
    for number, channel in channels.items():
        schema = schemas.get(channel.schema_id)
        name = schema.name if schema is not None else ""
        plain = schema is not None and schema.encoding == "ros2msg"
        text = schema.data.decode("utf-8", "replace") if schema is not None and plain else ""
        count = counts.get(number, 0)
        known = topics.get(channel.topic)
        if known is not None:  # several channels of a topic, as several writers have made them
            topics[channel.topic] = replace(known, count=known.count + count)
            continue
        topics[channel.topic] = Topic(channel.topic, name, count, text, channel.message_encoding)
    return dict(sorted(topics.items()))


class RosBag(Bag):
    """A ROS 2 bag: a ``.db3`` file, or a folder with its ``metadata.yaml`` and one file or several."""

    @property
    def files(self) -> list[Path]:
        if not self.path.is_dir():
            return [self.path]
        return sorted(p for p in self.path.iterdir() if p.suffix in (".db3", ".mcap", ".yaml", ".zstd"))

    @cached_property
    def topics(self) -> dict[str, Topic]:
        with self._open() as reader:
            return {
                one.topic: Topic(
                    one.topic,
                    one.msgtype,
                    one.msgcount,
                    str(one.msgdef.data or ""),
                    one.ext.serialization_format,
                )
                for one in sorted(reader.connections, key=lambda one: str(one.topic))
            }

    def messages(self, topics: Collection[str], begin: int | None = None) -> Iterator[Raw]:
        with self._open() as reader:
            chosen = [one for one in reader.connections if one.topic in topics]
            try:
                for connection, received, data in reader.messages(chosen, start=begin) if chosen else ():
                    yield Raw(connection.topic, received, data)
            except (SourceError, GeneratorExit):
                raise
            except Exception as error:
                raise SourceError(f"{self.path}: is damaged: {_words(error)}; restore it") from None

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            from rosbags.rosbag2 import Reader  # noqa: PLC0415 - an extra
        except ImportError:
            raise _missing(self.path) from None
        reader = Reader(self.path)
        try:
            reader.open()
        except Exception as error:
            raise SourceError(f"{self.path}: cannot be read as a ROS 2 bag: {_words(error)}") from None
        try:
            yield reader
        finally:
            reader.close()


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if text and not isinstance(error, struct.error) else f"{type(error).__name__} {text}".strip()


def bags_of(path: Path) -> list[Bag]:
    """The recordings of a path: a file, a bag's folder, or a folder of either. Empty: neither."""
    if not path.is_dir():
        with path.open("rb") as file:
            head = file.read(16)
        if head.startswith(MCAP_MAGIC) or path.suffix == ".mcap":
            return [McapBag(path)]
        return [RosBag(path)] if head == SQLITE_MAGIC or path.suffix == ".db3" else []
    if _is_folder_of_bag(path):
        files = sorted(path.glob("*.mcap"))
        # rosbags needs the index that a crash leaves out; the library of MCAP does not.
        return [McapBag(files[0])] if len(files) == 1 and not any(path.glob("*.db3")) else [RosBag(path)]
    below = [one for one in sorted(path.iterdir()) if one.name[0] != "."]
    found: list[Bag] = [
        RosBag(one) if any(one.glob("*.db3")) else bags_of(one)[0]
        for one in below
        if one.is_dir() and _is_folder_of_bag(one)
    ]
    found += [McapBag(one) for one in below if one.is_file() and one.suffix == ".mcap"]
    found += [RosBag(one) for one in below if one.is_file() and one.suffix == ".db3"]
    return found


def _is_folder_of_bag(path: Path) -> bool:
    return (path / "metadata.yaml").is_file() and any(
        one.suffix in (".db3", ".mcap", ".zstd") for one in path.iterdir()
    )
