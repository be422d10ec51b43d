"""What Foxglove's tools record: MCAP of protobuf and of JSON, by Foxglove's own libraries."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests.support.recorded import Sample, jpeg

BEGIN, STEP, LATE = 1_700_000_000_000_000_000, 100_000_000, 4_000_000

_TIME = {
    "type": "object",
    "title": "time",
    "properties": {"sec": {"type": "integer"}, "nsec": {"type": "integer"}},
}
_BYTES = {"type": "string", "contentEncoding": "base64"}
_TEXT, _WHOLE, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
SCHEMAS: dict[str, dict[str, Any]] = {  # as in foxglove-sdk's schemas/jsonschema
    "foxglove.RawImage": {
        "timestamp": _TIME,
        "frame_id": _TEXT,
        "width": _WHOLE,
        "height": _WHOLE,
        "encoding": _TEXT,
        "step": _WHOLE,
        "data": _BYTES,
    },
    "foxglove.CompressedImage": {"timestamp": _TIME, "frame_id": _TEXT, "data": _BYTES, "format": _TEXT},
    "foxglove.CompressedVideo": {"timestamp": _TIME, "frame_id": _TEXT, "data": _BYTES, "format": _TEXT},
    "JointStates": {
        "timestamp": _TIME,
        "joints": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": _TEXT, "position": _NUMBER}},
        },
    },
    "robot.Arm": {
        "target": {"type": "array", "items": _NUMBER},
        "gripper": {"type": "object", "properties": {"width": _NUMBER}},
    },
    "Task": {"data": _TEXT},
}


def arm_type() -> Any:
    """A message type of a robot's own: ``{repeated double target; Gripper gripper {float width}}``."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="robot/arm.proto", package="robot", syntax="proto3")
    gripper = file.message_type.add(name="Gripper")
    gripper.field.add(name="width", number=1, type=2, label=1)
    arm = file.message_type.add(name="Arm")
    arm.field.add(name="target", number=1, type=1, label=3)
    arm.field.add(name="gripper", number=2, type=11, label=1, type_name=".robot.Gripper")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("robot.Arm"))


def _messages(one: Sample, packets: list[bytes]) -> list[tuple[str, int, str, dict[str, Any]]]:
    """Topic, stamp, type and fields of each message, as plain values."""
    found: list[tuple[str, int, str, dict[str, Any]]] = []
    names = [f"joint_{i}" for i in range(14)]
    for i, (color, depth) in enumerate(zip(one.angle, one.depth, strict=True)):
        at = BEGIN + i * STEP
        for topic, pixels, encoding in (("/raw", color, "rgb8"), ("/depth", depth, "16UC1")):
            height, width = pixels.shape[:2]
            raw = {"width": width, "height": height, "encoding": encoding, "data": pixels.tobytes()}
            step = pixels.nbytes // height
            found.append((topic, at, "foxglove.RawImage", {**raw, "frame_id": "c", "step": step}))
        image = {"data": jpeg(color), "format": "jpeg", "frame_id": "c"}
        found.append(("/jpeg", at, "foxglove.CompressedImage", image))
        if packets:
            video = {"data": packets[i], "format": "h264", "frame_id": "c"}
            found.append(("/video", at, "foxglove.CompressedVideo", video))
        order = list(range(14)) if i % 2 else list(range(14))[::-1]  # the names say which is which
        joints = [{"name": names[j], "position": float(one.state[i, j])} for j in order]
        found.append(("/joints", at, "JointStates", {"joints": joints}))
        arm = {"target": one.action[i, :13].tolist(), "gripper": {"width": float(one.action[i, 13])}}
        found.append(("/arm/command", at, "robot.Arm", arm))
    return found


def write_protobuf(path: Path, one: Sample, packets: list[bytes] = ()) -> Path:
    """An MCAP file of protobuf, by mcap-protobuf-support and foxglove-schemas-protobuf."""
    from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
    from foxglove_schemas_protobuf.CompressedVideo_pb2 import CompressedVideo
    from foxglove_schemas_protobuf.JointStates_pb2 import JointStates
    from foxglove_schemas_protobuf.RawImage_pb2 import RawImage
    from mcap_protobuf.writer import Writer

    types = {
        "foxglove.RawImage": RawImage,
        "foxglove.CompressedImage": CompressedImage,
        "foxglove.CompressedVideo": CompressedVideo,
        "JointStates": JointStates,
        "robot.Arm": arm_type(),
    }
    with path.open("wb") as file, Writer(file) as writer:
        for topic, at, kind, fields in _messages(one, list(packets)):
            message = types[kind](**fields)
            if kind != "robot.Arm":
                message.timestamp.FromNanoseconds(at)
            writer.write_message(topic, message, log_time=at + LATE, publish_time=at + LATE)
    return path


def write_json(path: Path, one: Sample, packets: list[bytes] = ()) -> Path:
    """An MCAP file of JSON with its schemas, by Foxglove's library."""
    from mcap.writer import Writer

    def plain(value: Any) -> Any:
        return base64.b64encode(value).decode() if isinstance(value, bytes) else value

    with path.open("wb") as file:
        writer = Writer(file)
        writer.start("", "ffenc tests")
        channels: dict[str, int] = {}
        messages = [*_messages(one, list(packets)), ("/task", BEGIN, "Task", {"data": "lift the cube"})]
        for topic, at, kind, fields in sorted(messages, key=lambda each: each[1]):
            if topic not in channels:
                schema = json.dumps({"title": kind, "type": "object", "properties": SCHEMAS[kind]}).encode()
                number = writer.register_schema(kind, "jsonschema", schema)
                channels[topic] = writer.register_channel(topic, "json", number)
            values = {name: plain(value) for name, value in fields.items()}
            if "timestamp" in SCHEMAS[kind]:
                values["timestamp"] = {"sec": at // 10**9, "nsec": at % 10**9}
            writer.add_message(channels[topic], at + LATE, json.dumps(values).encode(), at + LATE)
        writer.finish()
    return path
