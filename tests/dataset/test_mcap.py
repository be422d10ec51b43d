"""MCAP files of protobuf and of JSON become datasets; hostile ones are refused in bounded time and memory."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pytest
import zstandard
from mcap.writer import CompressionType, Writer

from ffenc import SourceError, reencode_dataset, verify_dataset
from ffenc.cli.app import run
from ffenc.config.mapping import build_mapping, load_mapping
from ffenc.dataset.sources.contents import inspect_source
from ffenc.dataset.sources.kind import Opening
from ffenc.dataset.sources.registry import open_source
from ffenc.dataset.sources.ros_rosbag2 import bags_of
from ffenc.frames.depth_images import read_depth
from tests.support.foxglove import STEP, write_json, write_protobuf
from tests.support.read import column, notes_of
from tests.support.recorded import (
    Sample,
    _Messages,
    bag_messages,
    jpeg,
    samples,
    video_packets,
    write_mcap,
)

FINE = [
    (("camera_encoder", "vcodec"), "h264"),
    (("camera_encoder", "preset"), "ultrafast"),
    (("depth_encoder", "preset"), "ultrafast"),
]


@pytest.fixture(scope="module")
def one() -> Sample:
    return samples(5)[0]


@pytest.fixture(scope="module")
def packets(one: Sample) -> list[bytes]:
    return video_packets(one.angle)


@pytest.mark.parametrize("write", [write_protobuf, write_json])
def test_foxgloves_messages_come_as_they_were_by_the_mapping_that_inspect_writes(
    one: Sample, packets: list[bytes], tmp_path: Path, write: Callable[..., Path]
) -> None:
    path, written, out = write(tmp_path / "a.mcap", one, packets), tmp_path / "m.yaml", tmp_path / "out"
    assert (
        run(["inspect", str(path), "--write-mapping", str(written), "--sheet", str(tmp_path / "s.png")]) == 0
    )
    mapping = load_mapping(written)
    assert (mapping.fps, sorted(mapping.cameras)) == (10, ["depth", "jpeg", "raw", "video"])
    source = open_source(path, Opening(mapping=mapping))
    (episode,) = source.episodes

    def frames(camera: str) -> list[Any]:
        return list(source.frames(f"observation.images.{camera}", episode))

    assert [frame.data for frame in frames("raw")] == [pixels.tobytes() for pixels in one.angle]
    assert [frame.data for frame in frames("jpeg")] == [jpeg(pixels) for pixels in one.angle]
    assert all(
        np.array_equal(read_depth(f), wanted) for f, wanted in zip(frames("depth"), one.depth, strict=True)
    )
    reencode_dataset(path, out, mapping=mapping, task=None if write is write_json else "x", overrides=FINE)
    names = mapping.features["observation.state"].names
    assert names == [f"joint_{i}" for i in range(14)][::-1]
    assert np.array_equal(column(out, "observation.state"), one.state[:, ::-1])
    assert np.array_equal(column(out, "action"), one.action)
    notes = notes_of(out, 0)
    streams = {stream["topic"]: stream for stream in notes["streams"]}
    assert streams["/raw"]["received_after_header"] == [0.004, 0.004]
    assert "received_after_header" not in streams["/arm/command"]  # whose messages say no time
    if write is write_json:
        assert source.tasks() == ["lift the cube"]
    checked = verify_dataset(out, against=path)
    assert checked.sound, checked.faults


def test_messages_of_no_schema_and_of_two_and_fields_of_them(one: Sample, tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    image = {"data": "AAAA", "format": "jpeg"}
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        topics = {
            "/plain": 0,
            "/cam": writer.register_schema("foxglove.CompressedImage", "jsonschema", b"{}"),
        }
        ids = {name: writer.register_channel(name, "json", schema) for name, schema in topics.items()}
        twice = writer.register_channel("/two", "json", 0)
        other = writer.register_channel("/two", "cdr", writer.register_schema("std_msgs/msg/Bool", "", b""))
        for i in range(3):
            plain = {"pose": {"x": i, "y": [1, 2.5]}, "ok": True, "name": "a", "stamp": {"sec": 1, "nsec": 2}}
            for number, values in ((ids["/plain"], plain), (ids["/cam"], image), (twice, {})):
                writer.add_message(number, i * STEP, json.dumps(values).encode(), i * STEP)
            writer.add_message(other, i * STEP, b"\0\1\0\0\1", i * STEP)
        writer.finish()
    (bag,) = bags_of(path)
    raws = {raw.topic: raw for raw in bag.messages(["/plain", "/cam"])}
    message = bag.decoded(raws["/plain"])
    assert message.pose.x == 2.0
    assert isinstance(message.pose.x, float)  # JSON has one kind of number; not whole by chance
    assert message.pose.y.tolist() == [1.0, 2.5]
    found = inspect_source(path)
    notes = {one.name: one.notes for one in found.held}
    assert "has messages of no type (json) and of std_msgs/msg/Bool (cdr)" in notes["/two"]
    assert found.mapping["features"]["observation.plain"] == {"path": "/plain", "dtype": "float32"}
    assert any("a text that its schema does not call base64" in remark for remark in found.remarks)


def written(path: Path, **fields: Any) -> Path:
    """A file with one topic of one message."""
    values = {"type": "x", "schema": b"", "kind": "", "encoding": "cdr", "data": b"\0\1\0\0", **fields}
    with path.open("wb") as file:
        writer = Writer(file, compression=fields.get("compression", CompressionType.NONE))
        writer.start()
        schema = writer.register_schema(values["type"], values["kind"], values["schema"])
        channel = writer.register_channel("/t", values["encoding"], schema)
        writer.add_message(channel, 5, values["data"], 5)
        writer.finish()
    return path


RUN = "x/msg/A:\n    pass\nopen('{}', 'w')\nclass B"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"encoding": "flatbuffer"},
            "/t: its messages are encoded as flatbuffer; supported are cdr .ROS 2., p",
        ),
        ({"encoding": "ros1"}, "encoded as ros1"),
        ({"encoding": ""}, "encoded as nothing known"),
        (
            {"type": "own_msgs/msg/X"},
            "/t: its type 'own_msgs/msg/X' is not known, and the bag does not define",
        ),
        ({"encoding": "protobuf"}, "/t: its messages are protobuf, and the file does not define their type"),
        (
            {"encoding": "protobuf", "kind": "protobuf", "schema": b"\xff\xff"},
            "/t: the definition of its type 'x' is damaged",
        ),
        ({"encoding": "json", "kind": "jsonschema", "schema": b"["}, "the definition of its type 'x' is dam"),
        ({"encoding": "json", "data": b"{"}, "/t: the message recorded at 5 ns is damaged: Expecting"),
        ({"encoding": "json", "data": b"[" * 100_000}, "/t: the message recorded at 5 ns is damaged"),
        ({"encoding": "json", "data": b"[" * 99 + b"]" * 99}, "nested values, more than 64 levels deep"),
        ({"type": "sensor_msgs/msg/JointState"}, "/t: the message recorded at 5 ns is damaged"),
    ],
)
def test_what_cannot_be_decoded_is_an_error_by_file_and_topic(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    mapping = build_mapping({"fps": 10, "cameras": {"x": {"path": "/t"}}})
    path = written(tmp_path / "a.mcap", **fields)
    (bag,) = bags_of(path)
    with pytest.raises(SourceError, match=f"a.mcap: {said}" if said.startswith("/t") else said):
        bag.decoded(next(bag.messages(["/t"])))
    with pytest.raises(SourceError, match="a.mcap: /t"):
        open_source(path, Opening(mapping=mapping))


def test_definitions_that_differ_in_their_comments_are_one_type(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        for text in (b"float64 x  # metres\n", b"# a position\n\nfloat64   x\n"):
            channel = writer.register_channel("/t", "cdr", writer.register_schema("a/msg/X", "ros2msg", text))
            writer.add_message(channel, 1, b"\0\1\0\0" + struct.pack("<d", 2.5), 1)
        writer.finish()
    (bag,) = bags_of(path)
    assert [bag.decoded(raw).x for raw in bag.messages(["/t"])] == [2.5, 2.5]


def test_a_types_name_that_is_a_program_is_not_run(tmp_path: Path) -> None:
    """Rosbags makes Python of the names of types, and runs it."""
    mark = tmp_path / "run"
    name = RUN.format(mark)
    path = written(tmp_path / "a.mcap", type=name, kind="ros2msg", schema=b"uint8 data\n")
    with pytest.raises(SourceError, match="is not known, and the bag does not define it"):
        (bag,) = bags_of(path)
        bag.decoded(next(bag.messages(["/t"])))
    inspect_source(path)
    assert not mark.exists()


def test_a_message_that_holds_itself_is_read(tmp_path: Path) -> None:
    from google.protobuf import descriptor_pb2

    file = descriptor_pb2.FileDescriptorProto(name="n.proto", syntax="proto3")
    node = file.message_type.add(name="Node")
    node.field.add(name="value", number=1, type=1, label=1)
    node.field.add(name="child", number=2, type=11, label=1, type_name=".Node")
    schema = descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()
    value = b"\x09" + struct.pack("<d", 2.5)
    data = value + b"\x12" + bytes([len(value)]) + value
    path = written(
        tmp_path / "a.mcap", type="Node", kind="protobuf", schema=schema, encoding="protobuf", data=data
    )
    (bag,) = bags_of(path)
    message = bag.decoded(next(bag.messages(["/t"])))
    assert (message.value, message.child.value, message.child.child) == (2.5, 2.5, None)


def _chunk(compression: bytes, data: bytes, size: int) -> bytes:
    """An MCAP file of one chunk without an index, as a crash leaves it."""
    body = struct.pack("<QQQI", 0, 0, size, 0) + struct.pack("<I", len(compression)) + compression
    body += struct.pack("<Q", len(data)) + data
    header = b"\x01" + struct.pack("<Q", 8) + struct.pack("<II", 0, 0)
    return b"\x89MCAP0\r\n" + header + b"\x06" + struct.pack("<Q", len(body)) + body


BOMB = bytes(300 << 20)


@pytest.mark.parametrize(
    "content",
    [
        lambda: _chunk(b"zstd", zstandard.compress(BOMB), 100),
        lambda: _chunk(b"lz4", lz4.frame.compress(BOMB), 100),
        lambda: _chunk(b"zstd", zstandard.compress(BOMB), len(BOMB)),
        lambda: _chunk(b"zstd", b"(\xb5/\xfd\xe0" + b"\xff" * 7 + b"\x0f", 1 << 62),
        lambda: _chunk(b"", b"", 1 << 50),
        lambda: b"\x89MCAP0\r\n\x01" + struct.pack("<Q", 1 << 60) + bytes(99),
        lambda: b"\x89MCAP0\r\n\x03" + struct.pack("<Q", 30) + struct.pack("<HI", 1, 0xFFFFFFFF) + bytes(99),
        lambda: _chunk(b"aes-256", bytes(100), 100),
    ],
)
def test_bombs_and_huge_lengths_take_little_memory(tmp_path: Path, content: Callable[[], bytes]) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(content())
    tracemalloc.start()
    with pytest.raises(SourceError, match="a.mcap: is truncated, and contains no complete message"):
        bags_of(path)[0].topics  # noqa: B018
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


def test_chunks_that_are_encrypted_are_said_to_be(one: Sample, tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "a.mcap", bag_messages(one), chunk_size=150_000)
    path.write_bytes(path.read_bytes().replace(b"\x00zstd", b"\x00aes1"))
    said = "a.mcap: is damaged: a chunk is compressed or encrypted as 'aes1'; supported are zstd and lz4"
    with pytest.raises(SourceError, match=said):
        list(bags_of(path)[0].messages(["/top/image_raw"]))


def test_messages_come_in_order_where_chunks_overlap_and_memory_does_not_grow(tmp_path: Path) -> None:
    make = _Messages()
    times = [*range(0, 40, 2), *range(1, 40, 2)]  # the second half between the first's
    messages = [("/n", t, make.array(np.array([t], float))) for t in times]
    for options in ({"chunk_size": 300}, {"use_chunking": False}):
        path = write_mcap(tmp_path / "a.mcap", messages, **options)
        (bag,) = bags_of(path)
        found = [(raw.received, bag.decoded(raw).data[0]) for raw in bag.messages(["/n"])]
        assert found == [(t, t) for t in (sorted(times) if "chunk_size" in options else times)]
        assert not bag.remark
    later = [
        raw.received for raw in bags_of(write_mcap(path, messages, chunk_size=300))[0].messages(["/n"], 35)
    ]
    assert later == [35, 36, 37, 38, 39]
    image = make.image(0, np.zeros((256, 256, 3), np.uint8), "rgb8")
    large = write_mcap(path, [("/top", i, image) for i in range(400)], chunk_size=1 << 20)
    (bag,) = bags_of(large)
    tracemalloc.start()
    assert sum(len(raw.data) for raw in bag.messages(["/top"])) > 400 * 256 * 256 * 3
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
