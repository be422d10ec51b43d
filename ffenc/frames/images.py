"""What an encoded image says of itself, without decoding it: headers, chunks and ends.

What a header promises bounds what is done with the rest: an image that would need more memory or time is
refused before it is decoded. docs/images.md says what is read and what is refused.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ffenc.errors import SourceError

ImageFormat = Literal["png", "jpeg", "tiff", "raw"]
SampleKind = Literal["unsigned", "signed", "float"]

HEADER_BYTES = 33  # a PNG's signature and first chunk
MAX_SIDE = 16384  # the largest that the encoders take
MAX_PIXELS = 1 << 26  # 8192x8192: 200 MB of RGB
MAX_FILE_BYTES = 1 << 29  # of one image: such a one, of 16 bits with alpha, not compressed at all

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_PNG_CHUNK = struct.Struct(">I4s")
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # PNG specification, table 11.1: colour type -> samples
_PNG_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PNG_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_PNG_DEFLATED = (b"zTXt", b"iCCP", b"iTXt")
_PNG_FILTERS = 5
# Adam7: first row and column, and the steps from there, of each pass.
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
# Stored without compression, deflate needs 5 bytes in 65,535, and writers that flush often some more.
_DEFLATE_SLACK = 4096
_TEXT_BYTES = 4 << 20  # of texts and a colour profile; the largest profiles in use have 2 MB
_BLOCK_BYTES = 1 << 20

_JPEG_SIZE_MARKERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15 without DHT, JPG, DAC
_JPEG_READ = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_JPEG_BARE_MARKERS = {0x01, *range(0xD0, 0xD8)}
_JPEG_START, _JPEG_SCAN = 0xD8, 0xDA
_JPEG_SEGMENTS = 4096  # before the first scan
_JPEG_SCANS = 256  # each takes the time of a whole picture; a progressive JPEG has about ten

_TIFF_TYPES = {1: "B", 3: "H", 4: "I"}  # TIFF 6.0, section 2: BYTE, SHORT, LONG
_TIFF_KINDS: dict[int, SampleKind] = {1: "unsigned", 2: "signed", 3: "float"}
_TIFF_DEPTH = {("unsigned", 16), ("unsigned", 32), ("signed", 16), ("signed", 32), ("float", 32)}
_TIFF_LOSSLESS = (1, 5, 8, 32773, 32946, 50000)  # none, LZW, Deflate, PackBits, old Deflate, Zstandard
_TIFF_COMPRESSIONS = {6: "JPEG", 7: "JPEG", 33003: "JPEG 2000", 33005: "JPEG 2000", 50001: "WebP"}
_TIFF_ENTRIES = 512  # of a directory; cameras write about twenty


@dataclass(frozen=True)
class ImageHeader:
    """The shape of an image, encoded or raw.

    Attributes:
        format: ``png`` or ``jpeg``; ``tiff``, which only depth maps are kept as; ``raw``: not encoded.
        width, height: pixels.
        bits: of one sample.
        channels: samples a pixel has; 2 and 4 include alpha.
        samples: what numbers they are: only those of a TIFF can be signed or floats.
        order: of raw pixels, FFmpeg's name of their format; of an encoded image, ``bgr`` where red and blue
            were swapped when it was encoded.
    """

    format: ImageFormat
    width: int
    height: int
    bits: int
    channels: int
    samples: SampleKind = "unsigned"
    order: str = ""

    @property
    def depth(self) -> bool:
        """Whether it is a depth map, which robot data keep as TIFF or with 16 bits."""
        return self.format == "tiff" or self.bits == 16

    @property
    def unit(self) -> Literal["mm", "m"]:
        """What depth is in where nothing says so: floats are metres, integers millimetres."""
        return "m" if self.samples == "float" else "mm"

    @property
    def raw_bytes(self) -> int:
        """How many bytes its pixels take; rows follow each other without padding."""
        return self.width * self.height * self.channels * self.bits // 8

    @property
    def has_alpha(self) -> bool:
        return self.channels in (2, 4) and self.format == "png"

    def __str__(self) -> str:
        kind = "" if self.samples == "unsigned" else f" {self.samples}"
        if self.format == "raw":
            return f"{self.width}x{self.height} raw {self.order}"
        return f"{self.width}x{self.height} {self.bits}-bit{kind} {self.format.upper()}"


def is_png(data: bytes) -> bool:
    """Whether data begins as a PNG does."""
    return data.startswith(_PNG_SIGNATURE)


def is_tiff(data: bytes) -> bool:
    """Whether data begins as a TIFF does."""
    return data[:4] in (b"II*\0", b"MM\0*")


def read_header(data: bytes | memoryview, name: str) -> ImageHeader:
    """Read the header of a PNG, JPEG or TIFF image.

    Args:
        data: the image, or for a PNG its first :data:`HEADER_BYTES`.
        name: what to call it in an error.

    Raises:
        SourceError: not an image, of a kind that is not read, larger than :data:`MAX_PIXELS`, or ends before
            its header does.
    """
    head = bytes(data[:HEADER_BYTES])
    if head.startswith(_PNG_SIGNATURE) and len(head) == HEADER_BYTES and head[12:16] == b"IHDR":
        header = _png_header(head)
    elif head.startswith(b"\xff\xd8\xff"):
        header = _jpeg_header(data, name)
    elif is_tiff(head):
        header = _tiff_header(data, name)
    else:
        header = None
    if header is None:
        what = "is empty" if not head else "is cut short" if len(head) < HEADER_BYTES else "is damaged"
        if head and not head.startswith(_PNG_SIGNATURE[:4]):
            what = f"is not a PNG, JPEG or TIFF image (it begins with {head[:8]!r})"
        raise SourceError(f"{name}: {what}; restore or re-record it")
    if max(header.width, header.height) > MAX_SIDE or header.width * header.height > MAX_PIXELS:
        raise SourceError(
            f"{name}: is a {header}; at most {MAX_SIDE} pixels a side and {MAX_PIXELS:,} pixels in all are "
            "read: scale the images, or look whether this one is damaged"
        )
    return header


def require_alike(
    found: ImageHeader, expected: ImageHeader, name: str, other: str = "the first frame"
) -> None:
    """Refuse an image that cannot be in one video with another.

    Colours have to be of the same format; depth of the same unit, as integers (millimetres) or as floats
    (metres): what it is kept in does not matter.

    Args:
        found: the image.
        expected: what it has to be like.
        name, other: what to call them in an error.

    Raises:
        SourceError: it has another size, or is of another kind.
    """
    fields = ("width", "height", "depth", "unit" if found.depth else "format", "order")
    if any(getattr(found, field) != getattr(expected, field) for field in fields):
        units = {"mm": "integers, millimetres", "m": "floats, metres"}
        how = "the frames of one video must be alike"
        if found.depth and expected.depth and found.unit != expected.unit:
            how = (
                f"the frames of one camera must all be {units['mm']}, or all {units['m']}; "
                "convert those that are not"
            )
        raise SourceError(f"{name}: is a {found}, but {other} is a {expected}: {how}")


def has_end(tail: bytes | memoryview, image_format: ImageFormat) -> bool:
    """Whether the last bytes of an image are those its format ends with, where it has such (TIFF has not)."""
    if image_format == "tiff":
        return True
    if image_format == "png":
        return bytes(tail[-len(_PNG_END) :]) == _PNG_END
    return bytes(tail[-64:]).rstrip(b"\0").endswith(b"\xff\xd9")


def whole_image(data: bytes, header: ImageHeader, name: str) -> bytes:
    """Return an image's own bytes, without what a writer may have left behind its end.

    Nothing is decoded, but what would take a decoder more time or memory than the header promises is found.

    Raises:
        SourceError: the image is cut short, is followed by another, has more data than its pixels can need,
            or a chunk that a reader must know and does not.
    """
    if header.format == "png":
        return data[: _png_end(data, header, name)]
    if header.format == "jpeg":
        return data[: _jpeg_end(data, name)]
    if header.format == "raw" and len(data) != header.raw_bytes:
        raise SourceError(
            f"{name}: has {len(data):,} bytes, a {header} image has {header.raw_bytes:,}; restore or "
            "re-record it"
        )
    return data


def find_fault(data: bytes) -> str | None:
    """Look a PNG over for damage: chunk checksums, and all that its pixel data are compressed to.

    Used to name a bad frame. Memory does not grow with the image, nor time with what a bomb would unpack.

    Returns:
        what is wrong, or None where nothing is found (JPEG images have no checksums to look at).
    """
    if not is_png(data):
        return None
    try:
        header = read_header(data, "image")
        whole_image(data, header, "image")
    except SourceError as error:
        return str(error).removeprefix("image: ").partition(";")[0]
    if fault := checksum_fault(data):
        return fault
    try:
        for _ in _pixel_blocks(data, header):
            pass
    except _PixelFault as error:
        return str(error)
    return None


def checksum_fault(data: bytes) -> str | None:
    """Return which chunk of a PNG does not match its checksum; None where all do, and for other images."""
    if not is_png(data):
        return None
    view = memoryview(data)
    for kind, at, length in png_chunks(data):
        after = at + 8 + length
        if zlib.crc32(view[at + 4 : after]) != int.from_bytes(view[after : after + 4], "big"):
            return f"checksum of its {kind.decode('latin-1')} chunk does not match"
        if kind == b"IEND":
            break
    return None


# ---- PNG -----------------------------------------------------------------------------------------------


def _png_header(head: bytes) -> ImageHeader | None:
    width, height, bits, colour, compression, filtering, interlaced = struct.unpack(">IIBBBBB", head[16:29])
    if bits not in _PNG_BITS.get(colour, ()) or not (width and height):
        return None
    if compression or filtering or interlaced > 1:
        return None
    return ImageHeader("png", width, height, bits, _PNG_CHANNELS[colour])


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each whole chunk's kind, where it starts, and the length of its body."""
    at, size = len(_PNG_SIGNATURE), len(data)
    while at + 12 <= size:
        length, kind = _PNG_CHUNK.unpack_from(data, at)
        if at + 12 + length > size:
            return
        yield kind, at, length
        at += 12 + length


def _png_end(data: bytes, header: ImageHeader, name: str) -> int:
    compressed, room = 0, _TEXT_BYTES
    for kind, at, length in png_chunks(data):
        if kind == b"IDAT":
            compressed += length
        elif kind == b"IEND":
            if data.startswith(_PNG_SIGNATURE, at + 12):
                raise _several(name, "another image follows its end")
            _check_amount(compressed, header, data, name)
            return at + 12
        elif kind == b"acTL":
            raise _several(name, "it is an animation (APNG)")
        elif not kind[0] & 0x20 and kind not in _PNG_CRITICAL:
            raise SourceError(
                f"{name}: has a chunk {kind.decode('latin-1')!r}, which a reader of PNG must know and none "
                "does; save it as a plain PNG"
            )
        elif kind in _PNG_DEFLATED:
            room -= _text_length(data[at + 8 : at + 8 + length], kind, room + 1)
            if room < 0:
                raise SourceError(
                    f"{name}: its texts and colour profile unpack to more than {_TEXT_BYTES >> 20} MB: it is "
                    "damaged, or made to take up memory; save the image without them"
                )
    raise SourceError(
        f"{name}: the image is cut short ({len(data):,} bytes, no end marker); restore or re-record it"
    )


def _several(name: str, why: str) -> SourceError:
    return SourceError(f"{name}: holds more than one image ({why}); each frame has to be a file of its own")


def _check_amount(compressed: int, header: ImageHeader, data: bytes, name: str) -> None:
    """Refuse compressed data longer than the pixels themselves: it can only be there to be unpacked."""
    raw = sum(rows * stride for rows, stride in _png_passes(header, data))
    most = raw + raw // 64 + _DEFLATE_SLACK
    if compressed > most:
        raise SourceError(
            f"{name}: has {compressed:,} bytes of compressed pixels, but a {header} has only {raw:,} before "
            "compression: it is damaged, or made to take up memory; restore or re-record it"
        )


def _text_length(body: bytes, kind: bytes, most: int) -> int:
    """How many bytes a text or colour profile unpacks to; it is not unpacked further than ``most``."""
    _, _, after = body.partition(b"\0")  # a keyword
    packed = after[1:]  # the method
    if kind == b"iTXt":
        if after[:1] != b"\1":
            return 0  # not compressed
        packed = packed[1:].split(b"\0", 2)[-1]  # the method, a language, the keyword in it
    try:
        return len(zlib.decompressobj().decompress(packed, most))
    except zlib.error:
        return 0


def has_filters(pixels: bytes, header: ImageHeader, data: bytes) -> bool:
    """Whether every row of a PNG's inflated pixels begins with the number of a filter that there is."""
    at = 0
    for rows, stride in _png_passes(header, data):
        if np.frombuffer(pixels, np.uint8, rows * stride, at)[::stride].max() >= _PNG_FILTERS:
            return False
        at += rows * stride
    return True


def raw_samples(data: bytes, header: ImageHeader) -> npt.NDArray[Any] | None:
    """Return the samples of a TIFF that are there as they are, as a view of its bytes.

    Returns:
        shape ``(H, W)``, in the file's byte order; None where they are compressed, in several strips or
        tiles, not all there, or to be changed when read.
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
    """Return a depth map as an uncompressed TIFF, which :func:`raw_samples` gives back without a copy.

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


def _png_passes(header: ImageHeader, data: bytes) -> list[tuple[int, int]]:
    """The rows of each pass, and the bytes of one: with the filter's number before its samples."""
    samples = 1 if data[25] == 3 else header.channels
    sizes = [(header.height, header.width)]
    if data[28]:
        sizes = [
            (-(-(header.height - y) // down), -(-(header.width - x) // right)) for y, x, down, right in _ADAM7
        ]
    return [
        (rows, 1 + (width * header.bits * samples + 7) // 8)
        for rows, width in sizes
        if rows > 0 and width > 0
    ]


def png_pixel_bytes(header: ImageHeader, data: bytes) -> int:
    """How many bytes a PNG's pixels are before compression, with the filter's number of each row."""
    return sum(rows * stride for rows, stride in _png_passes(header, data))


class _PixelFault(Exception):
    """The pixels of a PNG are damaged, or not as many as its header promises."""


def _pixel_blocks(data: bytes, header: ImageHeader) -> Iterator[bytes]:
    """Yield a PNG's pixels, decompressed, so many rows at a time, each with its filter's number before it.

    Raises:
        _PixelFault: they cannot be decompressed, name a filter that does not exist, or are too few or many.
    """
    view = memoryview(data)
    bodies = (view[at + 8 : at + 8 + length] for kind, at, length in png_chunks(data) if kind == b"IDAT")
    unpacked = _Inflated(bodies)
    try:
        for rows, stride in _png_passes(header, data):
            left = rows
            while left:
                some = min(left, max(1, _BLOCK_BYTES // stride))
                block = unpacked.read(some * stride)
                if len(block) < some * stride:
                    raise _PixelFault("pixel rows are missing")
                filters = np.frombuffer(block, np.uint8)[::stride]
                if filters.max() >= _PNG_FILTERS:
                    row = rows - left + int(np.argmax(filters >= _PNG_FILTERS))
                    raise _PixelFault(
                        f"row {row} names filter {filters.max()}, and there are 0 to {_PNG_FILTERS - 1}"
                    )
                yield block
                left -= some
        if unpacked.read(1):
            raise _PixelFault(f"it has more pixel data than a {header} needs")
    except zlib.error as error:
        raise _PixelFault(f"its pixel data cannot be decompressed ({error})") from None


class _Inflated:
    """Compressed bytes, unpacked as far as they are read."""

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces = pieces
        self._unpack = zlib.decompressobj()
        self._waiting: bytes | memoryview = b""

    def read(self, count: int) -> bytes:
        """Return so many bytes, fewer at the end."""
        found = bytearray()
        while len(found) < count and not self._unpack.eof:
            if not self._waiting:
                self._waiting = next(self._pieces, b"")
            given = len(self._waiting)
            piece = self._unpack.decompress(self._waiting, count - len(found))
            self._waiting = self._unpack.unconsumed_tail
            found += piece
            if not given and not piece:
                break
        return bytes(found)


# ---- JPEG ----------------------------------------------------------------------------------------------


def _jpeg_segments(data: bytes | memoryview) -> Iterator[tuple[int, int]]:
    """Yield the marker of each segment and where it starts, up to the first scan."""
    at, size = 2, len(data)
    for _ in range(_JPEG_SEGMENTS):
        if at + 4 > size or data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF or marker in _JPEG_BARE_MARKERS:
            at += 1 if marker == 0xFF else 2
            continue
        yield marker, at
        if marker == _JPEG_SCAN:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _jpeg_header(data: bytes | memoryview, name: str) -> ImageHeader:
    for marker, at in _jpeg_segments(data):
        if marker not in _JPEG_SIZE_MARKERS or at + 10 > len(data):
            continue
        bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
        if marker not in _JPEG_READ or bits != 8 or channels not in (1, 3):
            raise SourceError(
                f"{name}: is a JPEG image of a kind that is not read (SOF{marker - 0xC0}, {bits} bits, "
                f"{channels} channels); 8-bit gray or colours, baseline or progressive, are: convert it"
            )
        if width and height:
            return ImageHeader("jpeg", width, height, bits, channels)
    raise SourceError(f"{name}: is a JPEG image that is cut short or damaged; restore or re-record it")


def _jpeg_end(data: bytes, name: str) -> int:
    # Behind the header's segments 0xFF is followed by zero or a marker, so what is searched is what it says.
    scan = next((at for marker, at in _jpeg_segments(data) if marker == _JPEG_SCAN), len(data))
    rest = np.frombuffer(data, np.uint8)[scan:]
    markers = np.bincount(rest[1:][rest[:-1] == 0xFF], minlength=256)
    if markers[_JPEG_START] and data.find(b"\xff\xd8\xff", scan) >= 0:
        raise _several(name, "another JPEG follows its scan")
    if markers[_JPEG_SCAN] > _JPEG_SCANS:
        raise SourceError(
            f"{name}: has more than {_JPEG_SCANS} scans: it is damaged, or made to take up time; restore or "
            "re-record it"
        )
    end = data.rfind(b"\xff\xd9", scan)
    if end < 0:
        raise SourceError(
            f"{name}: the image is cut short ({len(data):,} bytes, no end marker); restore or re-record it"
        )
    return end + 2


# ---- TIFF ----------------------------------------------------------------------------------------------


def _tiff_header(data: bytes | memoryview, name: str) -> ImageHeader:
    tags = _tiff_tags(data, name)
    width, height, bits, compression, channels, samples = (
        tags.get(tag, missing)
        for tag, missing in ((256, 0), (257, 0), (258, 1), (259, 1), (277, 1), (339, 1))
    )
    if not (width and height):
        raise _tiff_damage(name, "it says no size")
    kind = _TIFF_KINDS.get(samples)
    if channels != 1 or kind is None or (kind, bits) not in _TIFF_DEPTH or tags.get(262, 1) > 1:
        raise SourceError(
            f"{name}: is a TIFF image with {channels} x {bits}-bit {kind or 'unknown'} samples; TIFF is for "
            "depth maps: one channel of 16 or 32-bit integers (millimetres) or 32-bit floats (metres). Keep "
            "colours as PNG or JPEG"
        )
    if compression not in _TIFF_LOSSLESS:
        what = _TIFF_COMPRESSIONS.get(compression, f"method {compression}")
        raise SourceError(
            f"{name}: is a TIFF image compressed by {what}, which is lossy or not read; save it "
            "uncompressed, or with LZW, Deflate or Zstandard"
        )
    if tags.get(274, 1) != 1:
        raise SourceError(
            f"{name}: is a TIFF image that is to be turned when shown (orientation {tags[274]}); save it "
            "upright"
        )
    if tags.get(322, 0) * tags.get(323, 0) > MAX_PIXELS or max(tags.get(322, 0), tags.get(323, 0)) > MAX_SIDE:
        raise _tiff_damage(name, f"its tiles are {tags.get(322, 0)}x{tags.get(323, 0)}")
    return ImageHeader("tiff", width, height, bits, 1, kind)


def _tiff_tags(data: bytes | memoryview, name: str) -> dict[int, int]:
    """The first value of each tag that is a whole number, of the one directory there has to be."""
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
        raise _tiff_damage(name, "its directory lies outside of it, as in a file that is cut short") from None
    if following:
        raise _several(name, "it is a TIFF of several pages")
    return tags


def _tiff_damage(name: str, why: str) -> SourceError:
    return SourceError(f"{name}: the TIFF image is damaged: {why}; restore or re-record it")
