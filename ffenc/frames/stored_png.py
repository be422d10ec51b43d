"""PNG images with decompressed pixels for FFmpeg, whose zlib is several times slower.

ISA-L's inflate takes a third of zlib's time. FFmpeg then receives the same image with its pixels in *stored*
blocks of deflate, so it only has to reverse the row filters. Pieces of at most 64 kB are passed on at once:
the allocator would request larger ones from the system and return them for every frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ffenc.frames.crc import crc32
from ffenc.frames.header import ImageHeader
from ffenc.frames.png import png_chunks, png_pixel_bytes

try:  # there are wheels for the usual systems; elsewhere images are passed to FFmpeg unchanged
    from isal import igzip_lib, isal_zlib

    AVAILABLE = True
except ImportError:
    AVAILABLE = False

_ZLIB = b"\x78\x01"  # header of a zlib stream, fastest level
_BLOCK = 65535  # greatest size of a stored block
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
            their number differs from the header. Some pieces may have been yielded before.
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
    first, last = pixels[0][0], pixels[-1][0]
    yield view[:first]
    yield from _blocks(
        [view[at + 8 : at + 8 + length] for at, length in pixels], png_pixel_bytes(header, data)
    )
    between = [(at, length) for kind, at, length in chunks if first < at < last and kind != b"IDAT"]
    for at, length in between:  # chunks that the standard forbids and FFmpeg reads
        yield view[at : at + 12 + length]
    yield view[last + 12 + pixels[-1][1] :]


def inflated(header: ImageHeader, data: bytes) -> bytes:
    """Return a PNG's decompressed pixels, with the filter type of each row.

    Raises:
        UndecodableError: as for :func:`stored`.
    """
    view = memoryview(data)
    # In one piece: decompressing chunk by chunk would copy all pixels again.
    packed = b"".join(
        view[at + 8 : at + 8 + length] for kind, at, length in png_chunks(data) if kind == b"IDAT"
    )
    inflate, bodies = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_ZLIB), iter([memoryview(packed)])
    try:
        pixels = _next(inflate, bodies, png_pixel_bytes(header, data))
        if _next(inflate, bodies, 1, all_of_it=False):
            raise UndecodableError
    except isal_zlib.error:  # type: ignore[misc]  # isal types it as an instance
        raise UndecodableError from None
    return pixels


def _blocks(packed: list[memoryview], size: int) -> Iterator[bytes]:
    """Yield chunks of pixels with one stored block each."""
    inflate = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_ZLIB)
    waiting = iter(packed)
    adler, done, before = 1, 0, b""
    try:
        while done < size:
            block = _next(inflate, waiting, min(_BLOCK, size - done))
            adler = isal_zlib.adler32(block, adler)
            done += len(block)
            head = b"" if before else _ZLIB
            final = done == size
            head += struct.pack("<BHH", final, len(block), len(block) ^ 0xFFFF)
            end = struct.pack(">I", adler) if final else b""
            crc = crc32(end, crc32(block, crc32(b"IDAT" + head)))
            yield before + struct.pack(">I4s", len(head) + len(block) + len(end), b"IDAT") + head
            yield block
            before = end + struct.pack(">I", crc)
        if _next(inflate, waiting, 1, all_of_it=False):
            raise UndecodableError  # more data than pixels
    except isal_zlib.error:  # type: ignore[misc]  # isal types it as an instance
        raise UndecodableError from None
    yield before


def _next(
    inflate: igzip_lib.IgzipDecompressor, waiting: Iterator[memoryview], count: int, *, all_of_it: bool = True
) -> bytes:
    """Decompress ``count`` bytes; fewer at the end, only if not all are needed."""
    found = b""
    while len(found) < count and not inflate.eof:
        given = next(waiting, None) if inflate.needs_input else b""
        if given is None:
            break
        piece: bytes = inflate.decompress(given, count - len(found))
        found = found + piece if found else piece
    if all_of_it and len(found) < count:
        raise UndecodableError
    return found
