"""TIFF as LeRobot writes depth: one plane of uncompressed samples."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.errors import SourceError
from ffenc.frames.header import MAX_PIXELS, MAX_SIDE, ImageHeader, SampleKind, several

_TIFF_TYPES = {1: "B", 3: "H", 4: "I"}  # TIFF 6.0, section 2: BYTE, SHORT, LONG
_TIFF_KINDS: dict[int, SampleKind] = {1: "unsigned", 2: "signed", 3: "float"}
_TIFF_DEPTH = {("unsigned", 16), ("unsigned", 32), ("signed", 16), ("signed", 32), ("float", 32)}
_TIFF_LOSSLESS = (1, 5, 8, 32773, 32946, 50000)  # none, LZW, Deflate, PackBits, old Deflate, Zstandard
_TIFF_COMPRESSIONS = {6: "JPEG", 7: "JPEG", 33003: "JPEG 2000", 33005: "JPEG 2000", 50001: "WebP"}
_TIFF_ENTRIES = 512  # in a directory; cameras write about twenty


def is_tiff(data: bytes) -> bool:
    """Return whether data begins with a TIFF signature."""
    return data[:4] in (b"II*\0", b"MM\0*")


def raw_samples(data: bytes, header: ImageHeader) -> npt.NDArray[Any] | None:
    """Return the uncompressed samples of a TIFF as a view of its bytes.

    Returns:
        Shape ``(H, W)``, in the file's byte order; None if they are compressed, in several strips or tiles,
        truncated, or need a conversion.
    """
    tags = _tiff_tags(data, "image")
    size = header.width * header.height * header.bits // 8
    start = tags.get(273)
    plain = (tags.get(259, 1), tags.get(262, 1), tags.get(266, 1), tags.get(317, 1)) == (1, 1, 1, 1)
    if not plain or start is None or tags.get(278, header.height) < header.height or tags.get(279) != size:
        return None
    if 322 in tags or 324 in tags or start + size > len(data):
        return None
    order = "<" if data[:2] == b"II" else ">"
    kind = {"unsigned": "u", "signed": "i", "float": "f"}[header.samples]
    samples = np.frombuffer(data, f"{order}{kind}{header.bits // 8}", header.width * header.height, start)
    return samples.reshape(header.height, header.width)


def tiff_of(samples: npt.NDArray[Any]) -> bytes:
    """Return a depth map as an uncompressed TIFF, which :func:`raw_samples` reads without a copy.

    Args:
        samples: shape ``(H, W)``; uint16, int16, uint32, int32 or float32.
    """
    height, width = samples.shape
    own = np.ascontiguousarray(samples, samples.dtype.newbyteorder("<"))
    bits = own.itemsize * 8
    kind = {"u": 1, "i": 2, "f": 3}[own.dtype.kind]
    tags = (
        *((256, width), (257, height), (258, bits), (259, 1), (262, 1)),
        *((273, 8 + 2 + 10 * 12 + 4), (277, 1), (278, height), (279, own.nbytes), (339, kind)),
    )
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + directory + bytes(4)
    return head + own.tobytes()


def tiff_header(data: bytes | memoryview, name: str) -> ImageHeader:
    """Read the header of a TIFF.

    Raises:
        SourceError: it is damaged, or not a depth map.
    """
    tags = _tiff_tags(data, name)
    width, height, bits, compression, channels, samples = (
        tags.get(tag, missing)
        for tag, missing in ((256, 0), (257, 0), (258, 1), (259, 1), (277, 1), (339, 1))
    )
    if not (width and height):
        raise _tiff_damage(name, "it states no size")
    kind = _TIFF_KINDS.get(samples)
    if channels != 1 or kind is None or (kind, bits) not in _TIFF_DEPTH or tags.get(262, 1) > 1:
        raise SourceError(
            f"is a TIFF image with {channels} x {bits}-bit {kind or 'unknown'} samples; TIFF is for "
            "depth maps: one channel of 16 or 32-bit integers (millimetres) or 32-bit floats "
            "(metres). Store colour images as PNG or JPEG",
            where=name,
        )
    if compression not in _TIFF_LOSSLESS:
        what = _TIFF_COMPRESSIONS.get(compression, f"method {compression}")
        raise SourceError(
            f"is a TIFF image compressed by {what}, which is lossy or not supported; save it "
            "uncompressed, or with LZW, Deflate or Zstandard",
            where=name,
        )
    if tags.get(274, 1) != 1:
        raise SourceError(
            f"is a TIFF image that has to be rotated for display (orientation {tags[274]}); save it upright",
            where=name,
        )
    if tags.get(322, 0) * tags.get(323, 0) > MAX_PIXELS or max(tags.get(322, 0), tags.get(323, 0)) > MAX_SIDE:
        raise _tiff_damage(name, f"its tiles are {tags.get(322, 0)}x{tags.get(323, 0)}")
    return ImageHeader("tiff", width, height, bits, 1, kind)


def _tiff_tags(data: bytes | memoryview, name: str) -> dict[int, int]:
    """Return the first value of each integer tag of the directory, of which there must be only one."""
    order = "<" if bytes(data[:2]) == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        (following,) = struct.unpack_from(f"{order}I", data, start + 2 + 12 * count)
        if count > _TIFF_ENTRIES:
            raise _tiff_damage(name, f"its directory has {count} entries")
        tags: dict[int, int] = {}
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(f"{order}HHI", data, at)
            code = _TIFF_TYPES.get(kind)
            if code is None or number == 0:
                continue
            place = at + 8
            if number * struct.calcsize(code) > 4:
                (place,) = struct.unpack_from(f"{order}I", data, place)
            (tags[tag],) = struct.unpack_from(order + code, data, place)
    except struct.error:
        raise _tiff_damage(name, "its directory is outside the file, as in a truncated file") from None
    if following:
        raise several(name, "it is a multi-page TIFF")
    return tags


def _tiff_damage(name: str, why: str) -> SourceError:
    return SourceError(f"the TIFF image is damaged: {why}", where=name, fix="restore or re-record it")
