"""PNG chunks."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from ffenc.errors import SourceError
from ffenc.frames.crc import crc32
from ffenc.frames.header import ImageHeader, several

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_PNG_CHUNK = struct.Struct(">I4s")
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # PNG specification, table 11.1: colour type -> samples
_PNG_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PNG_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_PNG_DEFLATED = (b"zTXt", b"iCCP", b"iTXt")
_PNG_FILTERS = 5
# Adam7: first row and column, and the steps, of each pass.
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
# Uncompressed deflate needs 5 bytes per 65,535, and writers that flush often a few more.
_DEFLATE_SLACK = 4096
_TEXT_BYTES = 4 << 20  # of texts and a colour profile; the largest profiles in use have 2 MB
BLOCK_BYTES = 1 << 20


def is_png(data: bytes) -> bool:
    """Return whether data begins with a PNG signature."""
    return data.startswith(PNG_SIGNATURE)


def checksum_fault(data: bytes) -> str | None:
    """Return the chunk of a PNG that does not match its checksum; None if all do, and for other images."""
    if not is_png(data):
        return None
    view = memoryview(data)
    for kind, at, length in png_chunks(data):
        after = at + 8 + length
        if crc32(view[at + 4 : after]) != int.from_bytes(view[after : after + 4], "big"):
            return f"checksum of its {kind.decode('latin-1')} chunk does not match"
        if kind == b"IEND":
            break
    return None


def png_header(head: bytes) -> ImageHeader | None:
    """Read a PNG's first chunk (IHDR); None if its values are not valid."""
    width, height, bits, colour, compression, filtering, interlaced = struct.unpack(">IIBBBBB", head[16:29])
    if bits not in _PNG_BITS.get(colour, ()) or not (width and height):
        return None
    if compression or filtering or interlaced > 1:
        return None
    return ImageHeader("png", width, height, bits, _PNG_CHANNELS[colour])


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, start and body length of each complete chunk."""
    at, size = len(PNG_SIGNATURE), len(data)
    while at + 12 <= size:
        length, kind = _PNG_CHUNK.unpack_from(data, at)
        if at + 12 + length > size:
            return
        yield kind, at, length
        at += 12 + length


def png_end(data: bytes, header: ImageHeader, name: str) -> int:
    """Return the end of a PNG in bytes.

    Raises:
        SourceError: it contains several images, unknown critical chunks, or more data than its pixels need.
    """
    compressed, room = 0, _TEXT_BYTES
    for kind, at, length in png_chunks(data):
        if kind == b"IDAT":
            compressed += length
        elif kind == b"IEND":
            if data.startswith(PNG_SIGNATURE, at + 12):
                raise several(name, "another image follows its end")
            _check_amount(compressed, header, data, name)
            return at + 12
        elif kind == b"acTL":
            raise several(name, "it is an animation (APNG)")
        elif not kind[0] & 0x20 and kind not in _PNG_CRITICAL:
            raise SourceError(
                f"has a chunk {kind.decode('latin-1')!r}, a critical chunk that no reader knows; "
                "save it as a plain PNG",
                where=name,
            )
        elif kind in _PNG_DEFLATED:
            room -= _text_length(data[at + 8 : at + 8 + length], kind, room + 1)
            if room < 0:
                raise SourceError(
                    f"its texts and colour profile unpack to more than {_TEXT_BYTES >> 20} MB: it "
                    "is damaged, or made to exhaust memory; save the image without them",
                    where=name,
                )
    raise SourceError(
        f"the image is cut short ({len(data):,} bytes, no end marker)",
        where=name,
        fix="restore or re-record it",
    )


def _check_amount(compressed: int, header: ImageHeader, data: bytes, name: str) -> None:
    """Refuse compressed data that is longer than the pixels: a decompression bomb."""
    raw = sum(rows * stride for rows, stride in png_passes(header, data))
    most = raw + raw // 64 + _DEFLATE_SLACK
    if compressed > most:
        raise SourceError(
            f"has {compressed:,} bytes of compressed pixels, but a {header} has only {raw:,} before "
            "compression: it is damaged, or made to exhaust memory",
            where=name,
            fix="restore or re-record it",
        )


def _text_length(body: bytes, kind: bytes, most: int) -> int:
    """Return the decompressed size of a text or colour profile, which is decompressed only up to ``most``."""
    _, _, after = body.partition(b"\0")  # a keyword
    packed = after[1:]  # after the compression method
    if kind == b"iTXt":
        if after[:1] != b"\1":
            return 0  # not compressed
        packed = packed[1:].split(b"\0", 2)[-1]  # after the method, language and translated keyword
    try:
        return len(zlib.decompressobj().decompress(packed, most))
    except zlib.error:
        return 0


def has_filters(pixels: bytes | bytearray, header: ImageHeader, data: bytes) -> bool:
    """Return whether every row of a PNG's decompressed pixels begins with a valid filter type."""
    at = 0
    for rows, stride in png_passes(header, data):
        if np.frombuffer(pixels, np.uint8, rows * stride, at)[::stride].max() >= _PNG_FILTERS:
            return False
        at += rows * stride
    return True


def png_passes(header: ImageHeader, data: bytes) -> list[tuple[int, int]]:
    """Return the number of rows of each pass, and the bytes of a row including its filter type."""
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
    """Return the size of a PNG's decompressed pixels in bytes, including each row's filter type."""
    return sum(rows * stride for rows, stride in png_passes(header, data))


class PixelFault(Exception):
    """The pixels of a PNG are damaged, or their number differs from the header."""


def pixel_blocks(data: bytes, header: ImageHeader) -> Iterator[bytes]:
    """Yield a PNG's decompressed pixels in blocks of rows, each row with its filter type.

    Raises:
        PixelFault: they cannot be decompressed, have an invalid filter type, or are too few or many.
    """
    view = memoryview(data)
    bodies = (view[at + 8 : at + 8 + length] for kind, at, length in png_chunks(data) if kind == b"IDAT")
    unpacked = _Inflated(bodies)
    try:
        for rows, stride in png_passes(header, data):
            left = rows
            while left:
                some = min(left, max(1, BLOCK_BYTES // stride))
                block = unpacked.read(some * stride)
                if len(block) < some * stride:
                    raise PixelFault("pixel rows are missing")
                filters = np.frombuffer(block, np.uint8)[::stride]
                if filters.max() >= _PNG_FILTERS:
                    row = rows - left + int(np.argmax(filters >= _PNG_FILTERS))
                    raise PixelFault(
                        f"row {row} has filter type {filters.max()}; there are 0 to {_PNG_FILTERS - 1}"
                    )
                yield block
                left -= some
        if unpacked.read(1):
            raise PixelFault(f"it has more pixel data than a {header} needs")
    except zlib.error as error:
        raise PixelFault(f"its pixel data cannot be decompressed ({error})") from None


class _Inflated:
    """Compressed bytes that are decompressed as they are read."""

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces = pieces
        self._unpack = zlib.decompressobj()
        self._waiting: bytes | memoryview = b""

    def read(self, count: int) -> bytes:
        """Return ``count`` bytes, fewer at the end."""
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
