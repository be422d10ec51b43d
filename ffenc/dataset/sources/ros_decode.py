"""Decode messages of a bag to objects with fields. Encodings: ROS 2 (CDR), protobuf, JSON."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from ffenc.errors import ConfigError, SourceError

Decode = Callable[[Any], Any]

READ = "cdr (ROS 2), protobuf and json"
_CDR = ("cdr", "ros2")
# rosbags generates Python code from a type's name and runs it; a name that matches cannot contain code.
_TYPE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(/(msg|action|srv))?/[A-Za-z][A-Za-z0-9_]*")
_MOST_DEPTH = 64  # of nested messages

# Types of video packets, which rosbags does not know; bags without definitions need them.
_MORE_TYPES = {
    "foxglove_msgs/msg/CompressedVideo": (
        "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
    ),
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": (
        "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\n"
        "bool is_bigendian\nuint8[] data\n"
    ),
}


class Topic(Struct, frozen=True):
    """A topic of a bag.

    Attributes:
        name: such as ``/camera/image_raw``.
        type: type of its messages, such as ``sensor_msgs/msg/Image`` or ``foxglove.RawImage``.
        count: number of messages.
        schema: definition of the type; empty: the bag does not contain it.
        schema_encoding: language of the definition: ``ros2msg``, ``ros2idl``, ``protobuf``, ``jsonschema``.
        encoding: encoding of the messages: ``cdr``, ``protobuf``, ``json``.
        other: description of the topic's messages of another type or encoding, if there are any.
    """

    name: str
    type: str
    count: int
    schema: bytes
    schema_encoding: str
    encoding: str
    other: str = ""


def merged_topics(topics: Iterable[Topic]) -> dict[str, Topic]:
    """Return topics by name; those of several writers with the same name become one."""
    found: dict[str, Topic] = {}
    for topic in topics:
        known = found.get(topic.name)
        if known is not None:
            same = _what(known) == _what(topic)
            other = known.other if same else f"{topic.type or 'no type'} ({topic.encoding})"
            topic = replace(known, count=known.count + topic.count, other=other)
        found[topic.name] = topic
    return dict(sorted(found.items()))


def _what(topic: Topic) -> tuple[str, str, bytes]:
    """Return what determines how a topic's messages are decoded; comments in the definition are removed."""
    schema = topic.schema
    if topic.schema_encoding == "ros2msg":
        lines = (line.partition(b"#")[0].split() for line in schema.splitlines())
        schema = b"\n".join(b" ".join(words) for words in lines if words)
    return topic.type, topic.encoding, schema


class Stamp(Struct, frozen=True):
    """A time in a message.

    Attributes:
        sec: whole seconds.
        nanosec: the rest, in nanoseconds.
    """

    sec: int
    nanosec: int


def missing(path: Path) -> ConfigError:
    """Return the error for a missing library that reads bags."""
    return ConfigError(
        f"{path} is a ROS 2 bag or an MCAP file, and reading one needs rosbags, mcap and "
        "mcap-protobuf-support: pip install 'ffenc[ros]'"
    )


class Decoders:
    """Decodes a bag's messages to objects: fields are attributes, times have ``sec`` and ``nanosec``.

    Args:
        path: the bag, for errors.
        topics: all topics of the bag; a type may be defined by another topic.
    """

    def __init__(self, path: Path, topics: Iterable[Topic]) -> None:
        self._path, self._topics = path, list(topics)
        self._known: dict[str, Decode] = {}

    def decoded(self, topic: Topic, data: Any, received: int) -> Any:
        """Return a message as an object.

        Args:
            topic: its topic.
            data: its bytes.
            received: time of recording in nanoseconds, for errors.

        Raises:
            SourceError: it is damaged, or its type or encoding is unknown.
            ConfigError: a library is missing.
        """
        if topic.name not in self._known:
            self._known[topic.name] = self._decoder(topic)
        try:
            return self._known[topic.name](data)
        except Exception as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise SourceError(
                f"{self._path}: {topic.name}: the message recorded at {received} ns is damaged: {words}"
            ) from None

    def _decoder(self, topic: Topic) -> Decode:
        where = f"{self._path}: {topic.name}"
        if topic.other:
            raise SourceError(
                f"{where}: has messages of {topic.type or 'no type'} ({topic.encoding}) and of "
                f"{topic.other}; the messages of a topic have to be of one type"
            )
        if topic.encoding == "protobuf":
            return self._protobuf(topic, where)
        if topic.encoding == "json":
            return _json_decoder(topic, where)
        if topic.encoding not in _CDR:
            raise SourceError(
                f"{where}: its messages are encoded as {topic.encoding or 'nothing known'}; "
                f"supported are {READ}"
            )
        if topic.type not in self._ros.fielddefs:
            raise SourceError(
                f"{where}: its type {topic.type!r} is not known, and the bag does not define it"
            )
        return lambda data: self._ros.deserialize_cdr(data, topic.type)

    @cached_property
    def _ros(self) -> Any:
        """Return the types of ROS 2 Humble and those that the bag defines."""
        try:
            from rosbags.typesys import (  # noqa: PLC0415 - an extra
                Stores,
                get_types_from_idl,
                get_types_from_msg,
                get_typestore,
            )
        except ImportError:
            raise missing(self._path) from None
        store = get_typestore(Stores.ROS2_HUMBLE)
        texts = {
            topic.type: (topic.schema_encoding, topic.schema.decode("utf-8", "replace"))
            for topic in self._topics
            if topic.schema and topic.schema_encoding in ("ros2msg", "ros2idl")
        }
        more = {name: ("ros2msg", text) for name, text in _MORE_TYPES.items() if name not in texts}
        for name, (kind, text) in (texts | more).items():
            if not _TYPE_NAME.fullmatch(name):
                continue
            try:
                found = get_types_from_idl(text) if kind == "ros2idl" else get_types_from_msg(text, name)
                store.register({key: value for key, value in found.items() if key not in store.fielddefs})
            except Exception:  # noqa: S112 - an error when a message of the type is read
                continue
        return store

    def _protobuf(self, topic: Topic, where: str) -> Decode:
        try:
            from mcap.records import Schema  # noqa: PLC0415 - an extra
            from mcap_protobuf.decoder import DecoderFactory  # noqa: PLC0415
        except ImportError:
            raise missing(self._path) from None
        if topic.schema_encoding != "protobuf":
            raise SourceError(f"{where}: its messages are protobuf, and the file does not define their type")
        schema = Schema(id=1, name=topic.type, encoding="protobuf", data=topic.schema)
        try:
            decode = DecoderFactory().decoder_for("protobuf", schema)
        except Exception as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise SourceError(
                f"{where}: the definition of its type {topic.type!r} is damaged: {words}"
            ) from None
        assert decode is not None
        return lambda data: _fields_of(decode(bytes(data)))


def _fields_of(message: Any, depth: int = 0) -> Any:
    """Return a protobuf message as a plain object, with None for an absent message field."""
    if depth > _MOST_DEPTH:
        raise ValueError(f"has nested messages, more than {_MOST_DEPTH} levels deep")
    described = message.DESCRIPTOR
    if described.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        return Stamp(message.seconds, message.nanos)
    found: dict[str, Any] = {}
    for field in described.fields:
        value = getattr(message, field.name)
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            items = sorted(value.items())
            whole = inner.fields_by_name["value"].message_type is not None
            value = SimpleNamespace(
                **{str(key): _fields_of(one, depth + 1) if whole else one for key, one in items}
            )
        elif _repeated(field):
            parts = [_fields_of(one, depth + 1) for one in value] if inner is not None else list(value)
            value = _array(parts)
        elif inner is not None:
            value = _fields_of(value, depth + 1) if message.HasField(field.name) else None
        found[field.name] = value
    return SimpleNamespace(**found)


def _repeated(field: Any) -> bool:
    """Return whether a field is a list; newer and older versions of protobuf differ in how they tell."""
    repeated = getattr(field, "is_repeated", None)
    return bool(repeated) if repeated is not None else field.label == field.LABEL_REPEATED


def _array(parts: list[Any]) -> Any:
    """Return numbers as an array, anything else unchanged."""
    if not parts or isinstance(parts[0], (str, bytes, SimpleNamespace, Stamp)) or None in parts:
        return parts
    values = np.array(parts)
    return values if values.dtype.kind in "biuf" else parts


def _json_decoder(topic: Topic, where: str) -> Decode:
    schema: Any = {}
    if topic.schema and topic.schema_encoding == "jsonschema":
        try:
            schema = json.loads(topic.schema)
        except (ValueError, RecursionError) as error:
            raise SourceError(
                f"{where}: the definition of its type {topic.type!r} is damaged: {error}"
            ) from None
    return lambda data: _json_fields(json.loads(bytes(data)), schema)


def _json_fields(value: Any, schema: Any, depth: int = 0) -> Any:
    """Return a JSON value as a plain object: numbers are floats unless the schema says integer."""
    if depth > _MOST_DEPTH:
        raise ValueError(f"has nested values, more than {_MOST_DEPTH} levels deep")
    schema = schema if isinstance(schema, Mapping) else {}
    if isinstance(value, dict):
        names = set(value)
        for seconds, rest in (("sec", "nsec"), ("sec", "nanosec"), ("secs", "nsecs")):
            if names == {seconds, rest}:
                return Stamp(int(value[seconds]), int(value[rest]))
        inner = schema.get("properties")
        inner = inner if isinstance(inner, Mapping) else {}
        return SimpleNamespace(
            **{name: _json_fields(one, inner.get(name), depth + 1) for name, one in value.items()}
        )
    if isinstance(value, list):
        parts = [_json_fields(one, schema.get("items"), depth + 1) for one in value]
        if parts and all(isinstance(part, np.ndarray) for part in parts):
            return np.stack(parts) if len({part.shape for part in parts}) == 1 else parts
        return _array(parts)
    if isinstance(value, str):
        encoded = schema.get("contentEncoding") == "base64"
        return base64.b64decode(value, validate=True) if encoded else value
    if isinstance(value, int) and not isinstance(value, bool) and schema.get("type") != "integer":
        return float(value)
    return value
