"""Read the decoded size of a compressed image in a zarr chunk from its header, without decoding it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from fractions import Fraction

from ffenc.errors import SourceError
from ffenc.ffmpeg.boxes import BoxError, boxes_in
from ffenc.frames.jpeg import jpeg_header
from ffenc.frames.png import PNG_SIGNATURE, png_header

_J2K_START = b"\xff\x4f\xff\x51"  # SOC, SIZ
_JXL_START, _JXL_BOXES = b"\xff\x0a", b"\0\0\0\x0cJXL "
_JXL_HEADER_BYTES = 64  # of a codestream; more than the fields that are read
_JXL_RATIOS = tuple(map(Fraction, ("1", "6/5", "4/3", "3/2", "16/9", "5/4", "2")))


class _UnreadableError(ValueError):
    """The header is damaged or not supported; the text says which."""


def decoded_bytes(codec: str, data: memoryview) -> int:
    """Return the minimum number of bytes of an image once it is decoded.

    Args:
        codec: one of :data:`IMAGE_CODECS`.
        data: the image.

    Raises:
        ValueError: the size cannot be read from the header; the text says why.
    """
    try:
        return IMAGE_CODECS[codec](data)
    except (struct.error, IndexError, BoxError, SourceError) as error:
        text = error.what if isinstance(error, SourceError) else "its header is damaged, or cut short"
        raise _UnreadableError(text) from None


def _jpeg(data: memoryview) -> int:
    found = jpeg_header(data, "")
    return found.width * found.height * found.channels


def _png(data: memoryview) -> int:
    head = bytes(data[:33])
    found = png_header(head) if head.startswith(PNG_SIGNATURE) and head[12:16] == b"IHDR" else None
    if found is None:
        raise _UnreadableError("it is no PNG")
    return found.raw_bytes


def _jpeg2k(data: memoryview) -> int:
    if bytes(data[:4]) != _J2K_START:  # a JP2 file, whose header can state another size than the codestream's
        data = next((inner for kind, inner in boxes_in(data) if kind == b"jp2c"), data[:0])
    if bytes(data[:4]) != _J2K_START:
        raise _UnreadableError("it is not a JPEG 2000 image")
    right, bottom, left, top, *_, channels = struct.unpack_from(">8IH", data, 8)
    depth = max((data[42 + 3 * n] & 127) + 1 for n in range(channels)) if channels else 0
    return int(max(0, right - left) * max(0, bottom - top) * channels * (1 if depth <= 8 else 2))


def _webp(data: memoryview) -> int:
    kind = bytes(data[12:16])
    if bytes(data[:4]) != b"RIFF" or bytes(data[8:12]) != b"WEBP":
        raise _UnreadableError("it is not a WebP image")
    if kind == b"VP8X":
        if data[20] & 2:
            raise _UnreadableError("it is an animation")
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<2H", data, 26))
    else:
        raise _UnreadableError("it is not a WebP image")
    return int(width * height * 3)


def _qoi(data: memoryview) -> int:
    if bytes(data[:4]) != b"qoif":
        raise _UnreadableError("it is no QOI")
    width, height, channels = struct.unpack_from(">2IB", data, 4)
    return int(width * height * channels)


def _jpegxl(data: memoryview) -> int:
    if bytes(data[: len(_JXL_BOXES)]) == _JXL_BOXES:
        data = _code_stream(data)
    if bytes(data[:2]) != _JXL_START:
        raise _UnreadableError("it is not a JPEG XL image")
    bits = _Bits(bytes(data[2:_JXL_HEADER_BYTES]))
    width, height = _jxl_size(bits)
    extra = 0
    if not bits.take(1):  # not all of the following fields are defaults
        if bits.take(1):
            bits.take(3)  # orientation
            if bits.take(1):  # intrinsic size, for display
                _jxl_size(bits)
            if bits.take(2):
                raise _UnreadableError("it is an animation, or has a preview")
        floats = bits.take(1)
        bits.number((0, 32), (0, 16), (0, 24), (6, 1)) if floats else bits.number(
            (0, 8), (0, 10), (0, 12), (6, 1)
        )
        bits.take(5 if floats else 1)  # exponent bits, or whether 16-bit buffers are sufficient
        extra = bits.number((0, 0), (0, 1), (4, 2), (12, 1))
    return width * height * (1 + extra)


def _code_stream(data: memoryview) -> memoryview:
    """Return the beginning of the codestream in the boxes of a JPEG XL file."""
    found = bytearray()
    for kind, inner in boxes_in(data):
        if kind == b"jxlc":
            return inner
        if kind == b"jxlp":
            found += inner[4 : 4 + _JXL_HEADER_BYTES]
        if len(found) >= _JXL_HEADER_BYTES:
            break
    return memoryview(found)


class _Bits:
    """Reads fields of a JPEG XL header, from the lowest bit of a byte on."""

    def __init__(self, data: bytes) -> None:
        self._left, self._count = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        """Return the next bits as a number."""
        if count > self._count:
            raise IndexError(count)
        value = self._left & ((1 << count) - 1)
        self._left >>= count
        self._count -= count
        return value

    def number(self, *kinds: tuple[int, int]) -> int:
        """Return a number in one of four forms: a number of bits, and an offset that is added to them."""
        count, least = kinds[self.take(2)]
        return self.take(count) + least


def _jxl_size(bits: _Bits) -> tuple[int, int]:
    """Return width and height."""
    eighths = bits.take(1)

    def side() -> int:
        return 8 * (bits.take(5) + 1) if eighths else bits.number((9, 1), (13, 1), (18, 1), (30, 1))

    height = side()
    ratio = bits.take(3)
    return (int(height * _JXL_RATIOS[ratio - 1]) if ratio else side()), height


IMAGE_CODECS: Mapping[str, Callable[[memoryview], int]] = {
    "jpeg": _jpeg,
    "png": _png,
    "spng": _png,
    "jpeg2k": _jpeg2k,
    "htj2k": _jpeg2k,
    "jpegxl": _jpegxl,
    "webp": _webp,
    "qoi": _qoi,
}
"""Codec name -> function that returns the decoded bytes of an image."""
