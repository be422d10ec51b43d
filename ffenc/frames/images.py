"""What an encoded image says of itself, without decoding it: headers and ends."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Literal

from ffenc.errors import SourceError

ImageFormat = Literal["png", "jpeg", "tiff"]
HEADER_BYTES = 33  # a PNG's signature and first chunk

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # PNG specification, table 11.1: colour type -> samples
_JPEG_SIZE_MARKERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15 without DHT, JPG, DAC
_JPEG_BARE_MARKERS = {0x01, *range(0xD0, 0xD8)}


@dataclass(frozen=True)
class ImageHeader:
    """The shape of an encoded image.

    Attributes:
        format: ``png`` or ``jpeg``, or ``tiff``, which only depth maps are kept as.
        width, height: pixels.
        bits: of one sample.
        channels: samples a pixel has; 2 and 4 include alpha.
    """

    format: ImageFormat
    width: int
    height: int
    bits: int
    channels: int

    @property
    def depth(self) -> bool:
        """Whether it is a depth map, which robot data keep as TIFF or with 16 bits."""
        return self.format == "tiff" or self.bits == 16

    @property
    def has_alpha(self) -> bool:
        return self.channels in (2, 4) and self.format == "png"

    def __str__(self) -> str:
        return f"{self.width}x{self.height} {self.bits}-bit {self.format.upper()}"


def is_png(data: bytes) -> bool:
    """Whether data begins as a PNG does."""
    return data.startswith(_PNG_SIGNATURE)


def read_header(data: bytes | memoryview, name: str) -> ImageHeader:
    """Read the header of a PNG, JPEG or TIFF image.

    Args:
        data: the image, or for a PNG its first :data:`HEADER_BYTES`.
        name: what to call it in an error.

    Raises:
        SourceError: it is neither, or ends before its header does.
    """
    head = bytes(data[:HEADER_BYTES])
    if head.startswith(_PNG_SIGNATURE) and len(head) == HEADER_BYTES and head[12:16] == b"IHDR":
        width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
        if colour in _PNG_CHANNELS and width and height:
            return ImageHeader("png", width, height, bits, _PNG_CHANNELS[colour])
    elif head.startswith(b"\xff\xd8\xff"):
        return _jpeg_header(memoryview(data), name)
    elif is_tiff(head):
        return _tiff_header(bytes(data), name)
    what = "is empty" if not head else "is cut short" if len(head) < HEADER_BYTES else "is damaged"
    if head and not head.startswith(_PNG_SIGNATURE[:4]):
        what = f"is not a PNG or JPEG image (it begins with {head[:8]!r})"
    raise SourceError(f"{name}: {what}; restore or re-record it")


def is_tiff(data: bytes) -> bool:
    """Whether data begins as a TIFF does."""
    return data[:4] in (b"II*\0", b"MM\0*")


_TIFF_BITS = {"L": 8, "I;16": 16, "I;16B": 16, "I": 32, "F": 32}


def _tiff_header(data: bytes, name: str) -> ImageHeader:
    from PIL import Image  # noqa: PLC0415 - only where there are TIFF images

    try:
        with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
            width, height, mode = image.width, image.height, image.mode
    except (OSError, ValueError, SyntaxError) as error:
        raise SourceError(f"{name}: the TIFF image is damaged: {error}; restore or re-record it") from None
    if mode not in _TIFF_BITS:
        raise SourceError(f"{name}: is a TIFF image of mode {mode}; depth maps have one channel of numbers")
    return ImageHeader("tiff", width, height, _TIFF_BITS[mode], 1)


def _jpeg_header(data: memoryview, name: str) -> ImageHeader:
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _JPEG_SIZE_MARKERS:
            bits, height, width, channels = struct.unpack(">BHHB", data[at + 4 : at + 10])
            return ImageHeader("jpeg", width, height, bits, channels)
        if marker == 0xFF or marker in _JPEG_BARE_MARKERS:
            at += 1 if marker == 0xFF else 2
        else:
            at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    raise SourceError(f"{name}: is a JPEG image that is cut short or damaged; restore or re-record it")


def has_end(tail: bytes | memoryview, image_format: ImageFormat) -> bool:
    """Whether the last bytes of an image are those its format ends with, where it has such (TIFF has not)."""
    if image_format == "tiff":
        return True
    if image_format == "png":
        return bytes(tail[-len(_PNG_END) :]) == _PNG_END
    return bytes(tail[-64:]).rstrip(b"\0").endswith(b"\xff\xd9")


def whole_image(data: bytes, header: ImageHeader, name: str) -> bytes:
    """Return an image's own bytes, without what a writer may have left behind its end.

    Raises:
        SourceError: the image is cut short.
    """
    if has_end(data[-64:], header.format):
        return data
    if header.format == "png":
        at = len(_PNG_SIGNATURE)
        while at + 12 <= len(data):
            length = struct.unpack(">I", data[at : at + 4])[0]
            after = at + 12 + length
            if data[at + 4 : at + 8] == b"IEND" and after <= len(data):
                return data[:after]
            at = after
    raise SourceError(
        f"{name}: the image is cut short ({len(data):,} bytes, no end marker); restore or re-record it"
    )


def find_fault(data: bytes) -> str | None:
    """Look a PNG over for damage: chunk checksums and the amount of pixel data. Used to name a bad frame.

    Returns:
        what is wrong, or None where nothing is found (JPEG images have no checksums to look at).
    """
    if not is_png(data):
        return None
    try:
        header = read_header(data, "image")
    except SourceError as error:
        return str(error)
    at, compressed = len(_PNG_SIGNATURE), []
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if len(body) < length:
            return "cut short"
        if zlib.crc32(kind + body) != struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0]:
            return f"checksum of its {kind.decode('latin-1')} chunk does not match"
        if kind == b"IDAT":
            compressed.append(body)
        at += 12 + length
    try:
        pixels = len(zlib.decompress(b"".join(compressed)))
    except zlib.error as error:
        return f"its pixel data cannot be decompressed ({error})"
    interlaced = data[28]
    expected = header.height * (1 + (header.width * header.bits * _samples(data[25]) + 7) // 8)
    return "pixel rows are missing" if not interlaced and pixels < expected else None


def _samples(colour_type: int) -> int:
    return 1 if colour_type == 3 else _PNG_CHANNELS[colour_type]
