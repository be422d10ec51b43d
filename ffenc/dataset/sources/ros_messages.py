"""What is in a ROS message: an image as it goes to FFmpeg, or numbers."""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.config.mapping import CameraMapping
from ffenc.errors import SourceError
from ffenc.frames.images import MAX_PIXELS, MAX_SIDE, ImageHeader, is_png, read_header, tiff_of
from ffenc.frames.pillow import decode
from ffenc.frames.sources import EncodedFrame

# sensor_msgs/image_encodings.hpp -> FFmpeg's name of the format, and samples a pixel.
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

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
VIDEO = ("foxglove_msgs/msg/CompressedVideo", "ffmpeg_image_transport_msgs/msg/FFMPEGPacket")
CAMERAS = (IMAGE, COMPRESSED)
_JOINTS = "sensor_msgs/msg/JointState"


def stamp_of(message: Any) -> int | None:
    """The time that a message says of itself, in nanoseconds; None: it says none."""
    header = getattr(message, "header", None)
    stamp = getattr(header, "stamp", None) or getattr(message, "timestamp", None)
    if stamp is None or not hasattr(stamp, "nanosec"):
        return None
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def frame_of(message: Any, camera: CameraMapping, name: str) -> EncodedFrame:
    """Return a message's image: JPEG and PNG as they are, raw pixels without padding, depth as TIFF.

    Args:
        message: an ``Image`` or a ``CompressedImage``.
        camera: what the mapping says of it.
        name: what to call it in an error.

    Raises:
        SourceError: it is damaged, or of an encoding that is not read.
    """
    if hasattr(message, "encoding"):
        return _raw_frame(message, camera, name)
    data = bytes(message.data)
    kind = str(message.format)
    if "compressedDepth" in kind:
        if not camera.depth:
            raise SourceError(f"{name}: its format is {kind!r}, and the mapping does not say depth: true")
        return _compressed_depth(data, kind, name)
    header = read_header(data, name)
    if header.depth != camera.depth:
        raise SourceError(
            f"{name}: is a {header} ({kind or 'no format is said'}), and the mapping "
            f"{'says depth: true' if camera.depth else 'does not say depth: true'}"
        )
    return EncodedFrame(name, data, order="bgr" if camera.channels == "bgr" else "")


def _raw_frame(message: Any, camera: CameraMapping, name: str) -> EncodedFrame:
    encoding, width, height, step = message.encoding, message.width, message.height, message.step
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise SourceError(f"{name}: is {width}x{height}; at most {MAX_SIDE} pixels a side are read")
    depth = _DEPTH.get(encoding)
    if (depth is not None) != camera.depth:
        said = "says depth: true" if camera.depth else "does not say depth: true"
        raise SourceError(f"{name}: its encoding is {encoding}, and the mapping {said}")
    if depth is not None:
        item = np.dtype(f"{'>' if message.is_bigendian else '<'}{depth}")
        rows = _rows(message.data, height, step, width * item.itemsize, name)
        return EncodedFrame(name, tiff_of(np.ascontiguousarray(rows).view(item)))
    order, channels = _RAW.get(encoding, ("", 0))
    if encoding in _OPEN and camera.channels in _OPEN[encoding]:
        order, channels = _OPEN[encoding][camera.channels], int(encoding[-1])
    if not order:
        hint = f"; say channels: {' or '.join(_OPEN[encoding])} in the mapping" if encoding in _OPEN else ""
        raise SourceError(
            f"{name}: its encoding is {encoding!r}{hint or '; read are ' + ', '.join((*_RAW, *_DEPTH))}"
        )
    rows = _rows(message.data, height, step, width * channels, name)
    header = ImageHeader("raw", width, height, 8, channels, order=order)
    return EncodedFrame(name, rows.tobytes(), raw=header)


def _rows(data: Any, height: int, step: int, wanted: int, name: str) -> npt.NDArray[np.uint8]:
    """The rows of an image without the padding behind each."""
    pixels = np.frombuffer(data, np.uint8)
    if step < wanted or pixels.size < step * height:
        raise SourceError(
            f"{name}: is cut short: {pixels.size:,} bytes in rows of {step:,}, expected {height} rows of "
            f"{wanted:,}"
        )
    return pixels[: step * height].reshape(height, step)[:, :wanted]


def _compressed_depth(data: bytes, kind: str, name: str) -> EncodedFrame:
    """The image of compressed_depth_image_transport: a header of 12 bytes, and a PNG of 16 bits."""
    image = data[12:]
    if not is_png(image):
        raise SourceError(f"{name}: its format is {kind!r}; compressedDepth with PNG is read, RVL is not")
    if not kind.startswith("32FC1"):
        return EncodedFrame(name, image)
    _, a, b = struct.unpack_from("<iff", data)
    _, codes = decode(image, name)
    with np.errstate(divide="ignore"):
        metres = np.where(codes > 0, a / (codes.astype(np.float32) - b), 0).astype(np.float32)
    return EncodedFrame(name, tiff_of(metres))


@dataclass
class Numbers:
    """Takes the numbers of a feature out of messages.

    Args:
        type: of the messages.
        field: where they are; None: where such a message has them.
        names: of joints, which are taken in this order, where messages name theirs.
    """

    type: str
    field: str | None
    names: list[str] | None

    def __post_init__(self) -> None:
        self._seen: list[str] | None = None
        self._places: list[int] | None = None

    def of(self, message: Any, where: str) -> npt.NDArray[Any] | str:
        """The numbers, shape ``(D,)``, or the text.

        Raises:
            SourceError: the field is not there, or a joint is not.
        """
        value = message
        path = self.field or (
            "position" if self.type == _JOINTS else "data" if hasattr(message, "data") else ""
        )
        for part in filter(None, path.split(".")):
            if not hasattr(value, part):
                has = ", ".join(name for name in vars(value) if not name.startswith("_"))
                raise SourceError(f"{where}: has no field {part!r} of {path}; it has {has}")
            value = getattr(value, part)
        if isinstance(value, str):
            return value
        numbers = flat(value)
        if self.names is None or not (joints := list(getattr(message, "name", None) or [])):
            return numbers
        if len(joints) != len(numbers):
            raise SourceError(
                f"{where}: names {len(joints)} joints, and has {len(numbers)} numbers in {path}"
            )
        if joints != self._seen:
            missing = [name for name in self.names if name not in joints]
            if missing:
                raise SourceError(f"{where}: has no joint {missing[0]!r}; it has {', '.join(joints)}")
            self._seen, self._places = joints, [joints.index(name) for name in self.names]
        return numbers[self._places]


def flat(value: Any) -> npt.NDArray[Any]:
    """All numbers of a message, or a part of one, in the order of its fields; no header, no text."""
    if isinstance(value, np.ndarray):
        return value.reshape(-1)
    if isinstance(value, (bool, int, float, np.generic)):
        return np.array([value])
    if isinstance(value, (list, tuple)):
        parts = [flat(one) for one in value]
    elif is_dataclass(value):
        parts = [
            flat(getattr(value, one.name))
            for one in fields(value)
            if one.name not in ("header", "__msgtype__")
        ]
    else:
        parts = []
    return np.concatenate(parts) if parts else np.zeros(0)
