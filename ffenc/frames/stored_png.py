"""PNG images with decompressed pixels for FFmpeg, whose zlib is several times slower.

libdeflate takes less than a third of zlib's time. FFmpeg then receives the same image with its pixels in
*stored* blocks of deflate, so it only has to reverse the row filters.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ffenc.frames.crc import crc32
from ffenc.frames.header import ImageHeader
from ffenc.frames.png import png_chunks, png_pixel_bytes

try:  # there are wheels for the usual systems; elsewhere images are passed to FFmpeg unchanged
    import deflate

    AVAILABLE = True
except ImportError:
    AVAILABLE = False

_ZLIB = b"\x78\x01"  # header of a zlib stream, fastest level
_BLOCK = 65535  # greatest size of a stored block
_BLOCK_HEAD = struct.Struct("<BHH")  # last block or not, its size, and the size's complement
_LEAST_BYTES = 1 << 17  # of pixels; for fewer, the fixed cost per image is greater than the gain
_LEAST_SHARE = 6  # an image compressed to less than a sixth is inflated faster than it is piped


class UndecodableError(Exception):
    """The pixels or their checksums are damaged."""


def pays(header: ImageHeader, data: bytes) -> bool:
    """Return whether :func:`stored` saves time for an image."""
    if not AVAILABLE or header.format != "png":
        return False
    size = png_pixel_bytes(header, data)
    return size >= _LEAST_BYTES and len(data) * _LEAST_SHARE >= size


def stored(header: ImageHeader, data: bytes) -> Iterator[bytes | memoryview]:
    """Yield a PNG in pieces, with its pixels in stored blocks and all other chunks unchanged.

    Args:
        header: header of the image.
        data: the image, without bytes after its end.

    Raises:
        UndecodableError: a chunk of pixels does not match its checksum, the pixels cannot be decompressed, or
            their number differs from the header. No piece has been yielded before.
    """
    view = memoryview(data)
    chunks = list(png_chunks(data))
    pixels = [(at, length) for kind, at, length in chunks if kind == b"IDAT"]
    if not pixels:
        raise UndecodableError
    for at, length in pixels:
        after = at + 8 + length
        if crc32(view[at + 4 : after]) != int.from_bytes(view[after : after + 4], "big"):
            raise UndecodableError
    blocks = _blocks(inflated(header, data))
    first, last = pixels[0][0], pixels[-1][0]
    yield view[:first]
    yield from blocks
    between = [(at, length) for kind, at, length in chunks if first < at < last and kind != b"IDAT"]
    for at, length in between:  # chunks that the standard forbids and FFmpeg reads
        yield view[at : at + 12 + length]
    yield view[last + 12 + pixels[-1][1] :]


def inflated(header: ImageHeader, data: bytes) -> bytearray:
    """Return a PNG's decompressed pixels, with the filter type of each row.

    Raises:
        UndecodableError: as for :func:`stored`.
    """
    view = memoryview(data)
    packed = b"".join(
        view[at + 8 : at + 8 + length] for kind, at, length in png_chunks(data) if kind == b"IDAT"
    )
    size = png_pixel_bytes(header, data)
    try:
        pixels: bytearray = deflate.zlib_decompress(packed, size)  # it checks the Adler-32
    except deflate.DeflateError:
        raise UndecodableError from None
    if len(pixels) != size:
        raise UndecodableError
    return pixels


def _blocks(pixels: bytearray) -> Iterator[bytes | memoryview]:
    """Yield a chunk of pixels in stored blocks."""
    view, size = memoryview(pixels), len(pixels)
    head = struct.pack(">I4s", len(_ZLIB) + size + -(-size // _BLOCK) * _BLOCK_HEAD.size + 4, b"IDAT")
    crc = crc32(b"IDAT")
    before = _ZLIB
    for at in range(0, size, _BLOCK):
        block = view[at : at + _BLOCK]
        before += _BLOCK_HEAD.pack(at + _BLOCK >= size, len(block), len(block) ^ 0xFFFF)
        crc = crc32(block, crc32(before, crc))
        yield head + before
        yield block
        head = before = b""
    end = struct.pack(">I", deflate.adler32(pixels))
    yield end + struct.pack(">I", crc32(end, crc))
