"""Extract the content of ROS messages: images for FFmpeg, or numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from ffenc.config.mapping import CameraMapping
from ffenc.dataset.sources.ros_depth import compressed_depth
from ffenc.errors import SourceError
from ffenc.frames.header import MAX_PIXELS, MAX_SIDE, ImageHeader
from ffenc.frames.images import read_header
from ffenc.frames.sources import EncodedFrame
from ffenc.frames.tiff import tiff_of

# sensor_msgs/image_encodings.hpp -> FFmpeg's pixel format, and samples per pixel.
_RAW = {
    "rgb8": ("rgb24", 3),
    "bgr8": ("bgr24", 3),
    "rgba8": ("rgba", 4),
    "bgra8": ("bgra", 4),
    "mono8": ("gray", 1),
    "8UC1": ("gray", 1),
    "yuv422": ("uyvy422", 2),
    "uyvy": ("uyvy422", 2),
    "yuv422_yuy2": ("yuyv422", 2),
    "yuyv": ("yuyv422", 2),
    **{f"bayer_{pattern}8": (f"bayer_{pattern}8", 1) for pattern in ("rggb", "bggr", "gbrg", "grbg")},
}
_DEPTH = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
_OPEN = {"8UC3": {"rgb": "rgb24", "bgr": "bgr24"}, "8UC4": {"rgba": "rgba", "bgra": "bgra"}}

Kind = Literal["image", "compressed", "video", ""]

# Package and name of a type, without the separators of an encoding -> content of its messages.
_KINDS: dict[tuple[str, str], Kind] = {
    ("sensor_msgs", "Image"): "image",
    ("sensor_msgs", "CompressedImage"): "compressed",
    ("ffmpeg_image_transport_msgs", "FFMPEGPacket"): "video",
}
for _package in ("foxglove", "foxglove_msgs"):
    _KINDS[_package, "RawImage"] = "image"
    _KINDS[_package, "CompressedImage"] = "compressed"
    _KINDS[_package, "CompressedVideo"] = "video"
IMAGES = ", ".join(".".join(one) for one in _KINDS)


def kind_of(type_name: str) -> Kind:
    """Return the content of a type's messages: a raw or compressed image, a packet of video; "": other."""
    parts = [part for part in re.split(r"[./]", type_name) if part != "msg"]
    return _KINDS.get((parts[-2], parts[-1]), "") if len(parts) > 1 else ""


def is_joints(type_name: str) -> bool:
    """Return whether messages of a type are joint states, which have names of joints."""
    return re.split(r"[./]", type_name)[-1] in ("JointState", "JointStates")


def stamp_of(message: Any) -> int | None:
    """Return a message's own time stamp in nanoseconds; None: it has none."""
    header = getattr(message, "header", None)
    for stamp in (getattr(header, "stamp", None), getattr(message, "timestamp", None)):
        if stamp is not None and hasattr(stamp, "nanosec"):
            return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
    return None


def frame_of(message: Any, camera: CameraMapping, name: str) -> EncodedFrame:
    """Return a message's image: JPEG and PNG unchanged, raw pixels without padding, depth as TIFF.

    Args:
        message: a message of kind ``image`` or ``compressed``.
        camera: mapping of the camera.
        name: name of the image in errors.

    Raises:
        SourceError: it is damaged, or its encoding is not supported.
    """
    required(message, ("data",), name)
    if hasattr(message, "encoding"):
        required(message, ("width", "height", "step"), name)
        return _raw_frame(message, camera, name)
    data = bytes_of(message.data, name)
    kind = str(getattr(message, "format", ""))
    if "compressedDepth" in kind:
        if not camera.depth:
            raise SourceError(f"{name}: its format is {kind!r}, and the mapping does not say depth: true")
        return compressed_depth(data, kind, name)
    header = read_header(data, name)
    if header.depth != camera.depth:
        raise SourceError(
            f"{name}: is a {header} ({kind or 'no format is given'}), and the mapping "
            f"{'says depth: true' if camera.depth else 'does not say depth: true'}"
        )
    return EncodedFrame(name, data, order="bgr" if camera.channels == "bgr" else "")


def required(message: Any, fields: Sequence[str], name: str) -> None:
    """Reject a message that lacks fields of its kind.

    Raises:
        SourceError: a field is missing; the text names it.
    """
    for field in fields:
        if getattr(message, field, None) is None:
            has = ", ".join(_fields(message)) or "none"
            raise SourceError(f"{name}: has no field {field!r}, which such messages need; it has {has}")


def _fields(message: Any) -> list[str]:
    return [key for key in getattr(message, "__dict__", {}) if not key.startswith("_")]


def bytes_of(data: Any, name: str) -> bytes:
    """Return a field as bytes, whichever library has decoded it.

    Raises:
        SourceError: the field is not bytes.
    """
    if isinstance(data, np.ndarray) and data.dtype.kind in "uif" and data.ndim == 1:
        return data.astype(np.uint8, copy=False).tobytes()  # JSON also stores bytes as numbers
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    what = "a text that its schema does not call base64" if isinstance(data, str) else type(data).__name__
    raise SourceError(f"{name}: its data is {what}", expected="bytes")


def _raw_frame(message: Any, camera: CameraMapping, name: str) -> EncodedFrame:
    encoding, sizes = str(message.encoding), [getattr(message, one) for one in ("width", "height", "step")]
    if not all(isinstance(one, (int, float, np.number)) and one == int(one) for one in sizes):
        raise SourceError(f"{name}: its width, height and step are {sizes}", expected="whole numbers")
    width, height, step = (int(one) for one in sizes)
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise SourceError(f"{name}: is {width}x{height}; at most {MAX_SIDE} pixels a side are read")
    data = message.data
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8):
        data = bytes_of(data, name)
    depth = _DEPTH.get(encoding)
    if (depth is not None) != camera.depth:
        said = "says depth: true" if camera.depth else "does not say depth: true"
        raise SourceError(f"{name}: its encoding is {encoding}, and the mapping {said}")
    if depth is not None:
        item = np.dtype(f"{'>' if getattr(message, 'is_bigendian', False) else '<'}{depth}")
        rows = _rows(data, height, step, width * item.itemsize, name)
        return EncodedFrame(name, tiff_of(np.ascontiguousarray(rows).view(item)))
    order, channels = _RAW.get(encoding, ("", 0))
    if encoding in _OPEN and camera.channels in _OPEN[encoding]:
        order, channels = _OPEN[encoding][camera.channels], int(encoding[-1])
    if not order:
        hint = f"; write channels: {' or '.join(_OPEN[encoding])} in the mapping" if encoding in _OPEN else ""
        raise SourceError(
            f"{name}: its encoding is {encoding!r}{hint or '; supported are ' + ', '.join((*_RAW, *_DEPTH))}"
        )
    if camera.channels not in (None, order.removesuffix("24")):
        raise SourceError(
            f"{name}: channels: {camera.channels} would have no effect: its encoding is {encoding}; leave "
            "channels out of the mapping"
        )
    rows = _rows(data, height, step, width * channels, name)
    header = ImageHeader("raw", width, height, 8, channels, order=order)
    return EncodedFrame(name, rows.tobytes(), raw=header)


def _rows(data: Any, height: int, step: int, wanted: int, name: str) -> npt.NDArray[np.uint8]:
    """Return the rows of an image without the padding of each row."""
    pixels = np.frombuffer(data, np.uint8)
    if step < wanted or pixels.size < step * height:
        raise SourceError(
            f"is cut short: {pixels.size:,} bytes in rows of {step:,}",
            expected=f"{height} rows of {wanted:,}",
            where=name,
        )
    return pixels[: step * height].reshape(height, step)[:, :wanted]


class Numbers(Struct):
    """Extracts the numbers of a feature from messages.

    Args:
        type: type of the messages.
        field: the field with the numbers; None: the usual one of the type.
        names: names of joints; their values are returned in this order if messages name their joints. None:
            the order of the messages, which has to be the same in all of them.
    """

    type: str
    field: str | None
    names: list[str] | None
    _seen: list[str] | None = None
    _places: list[int] | None = None

    def of(self, message: Any, where: str) -> npt.NDArray[Any] | str:
        """Return the numbers, shape ``(D,)``, or the text.

        Raises:
            SourceError: the field or a joint is missing.
        """
        value, joints = message, getattr(message, "name", None)
        path = self.field or self._usual(message)
        for part in filter(None, path.split(".")):
            if isinstance(value, list) and value and all(hasattr(one, part) for one in value):
                names = [getattr(one, "name", None) for one in value]
                joints = names if all(isinstance(name, str) for name in names) else joints
                value = [getattr(one, part) for one in value]
                continue
            if part not in _fields(value):
                has = ", ".join(_fields(value)) or "none"
                raise SourceError(f"{where}: has no field {part!r} of {path}; it has {has}")
            value = getattr(value, part)
        if isinstance(value, str):
            return value
        numbers = flat(value)
        if not isinstance(joints, (list, tuple)) or not joints:
            return numbers
        if self.names is None:
            self._check_order(list(joints), len(numbers), where)
            return numbers
        if len(joints) != len(numbers):
            raise SourceError(
                f"{where}: names {len(joints)} joints, but has {len(numbers)} numbers in {path}"
            )
        if joints != self._seen:
            missing = [name for name in self.names if name not in joints]
            if missing:
                raise SourceError(f"{where}: has no joint {missing[0]!r}; it has {', '.join(joints)}")
            self._seen, self._places = list(joints), [joints.index(name) for name in self.names]
        return numbers[self._places]

    def _check_order(self, joints: list[str], width: int, where: str) -> None:
        """Reject numbers whose joints are in another order than those of the first message."""
        if len(joints) != width:
            return  # these names are not those of the numbers
        if self._seen is None:
            self._seen = joints
        elif joints != self._seen:
            raise SourceError(
                f"{where}: its joints are {', '.join(joints)}; those of the first message are "
                f"{', '.join(self._seen)}. Name the joints to take under names in the mapping"
            )

    def _usual(self, message: Any) -> str:
        """Return the usual field with the numbers of such a message."""
        if is_joints(self.type):
            return "joints.position" if hasattr(message, "joints") else "position"
        return "data" if hasattr(message, "data") else ""


def joint_names(message: Any) -> list[str]:
    """Return the names of the numbers in a message; empty if it has none."""
    inner = getattr(message, "joints", None)
    names = [getattr(one, "name", None) for one in inner] if isinstance(inner, list) else None
    names = names or getattr(message, "name", None)
    return list(names) if isinstance(names, list) and all(isinstance(one, str) for one in names) else []


def flat(value: Any) -> npt.NDArray[Any]:
    """Return all numbers of a message or a part of it, in field order; without header, times and texts."""
    if isinstance(value, np.ndarray):
        return value.reshape(-1)
    if isinstance(value, (bool, int, float, np.generic)):
        return np.array([value])
    if isinstance(value, (list, tuple)):
        parts = [flat(one) for one in value]
    elif hasattr(value, "nanosec"):
        parts = []
    else:
        parts = [flat(getattr(value, name)) for name in _fields(value) if name != "header"]
    return np.concatenate(parts) if parts else np.zeros(0)
