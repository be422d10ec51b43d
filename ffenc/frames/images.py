"""What an encoded image says of itself, without decoding it: headers, chunks and ends.

What a header promises bounds what is done with the rest: an image that would need more memory or time is
refused before it is decoded. docs/images.md says what is read and what is refused.
"""

from __future__ import annotations

from ffenc.errors import SourceError
from ffenc.frames.header import HEADER_BYTES, MAX_PIXELS, MAX_SIDE, ImageFormat, ImageHeader
from ffenc.frames.jpeg import jpeg_end, jpeg_header
from ffenc.frames.png import (
    PNG_END,
    PNG_SIGNATURE,
    PixelFault,
    checksum_fault,
    is_png,
    pixel_blocks,
    png_end,
    png_header,
)
from ffenc.frames.tiff import is_tiff, tiff_header


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
    if head.startswith(PNG_SIGNATURE) and len(head) == HEADER_BYTES and head[12:16] == b"IHDR":
        header = png_header(head)
    elif head.startswith(b"\xff\xd8\xff"):
        header = jpeg_header(data, name)
    elif is_tiff(head):
        header = tiff_header(data, name)
    else:
        header = None
    if header is None:
        what = "is empty" if not head else "is cut short" if len(head) < HEADER_BYTES else "is damaged"
        if head and not head.startswith(PNG_SIGNATURE[:4]):
            what = f"is not a PNG, JPEG or TIFF image (it begins with {head[:8]!r})"
        raise SourceError(what, where=name, fix="restore or re-record it")
    if max(header.width, header.height) > MAX_SIDE or header.width * header.height > MAX_PIXELS:
        raise SourceError(
            f"is a {header}; at most {MAX_SIDE} pixels a side and {MAX_PIXELS:,} pixels in all "
            "are read: scale the images, or check whether this one is damaged",
            where=name,
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
        how = "the frames of one video must have the same format"
        if found.depth and expected.depth and found.unit != expected.unit:
            how = (
                f"the frames of one camera must all be {units['mm']}, or all {units['m']}; "
                "convert those that are not"
            )
        raise SourceError(f"is a {found}, but {other} is a {expected}: {how}", where=name)


def has_end(tail: bytes | memoryview, image_format: ImageFormat) -> bool:
    """Whether the last bytes of an image are those its format ends with, where it has such (TIFF has not)."""
    if image_format == "tiff":
        return True
    if image_format == "png":
        return bytes(tail[-len(PNG_END) :]) == PNG_END
    return bytes(tail[-64:]).rstrip(b"\0").endswith(b"\xff\xd9")


def whole_image(data: bytes, header: ImageHeader, name: str) -> bytes:
    """Return an image's own bytes, without what a writer may have left behind its end.

    Nothing is decoded, but what would take a decoder more time or memory than the header promises is found.

    Raises:
        SourceError: the image is cut short, is followed by another, has more data than its pixels can need,
            or a chunk that a reader must know and does not.
    """
    if header.format == "png":
        return data[: png_end(data, header, name)]
    if header.format == "jpeg":
        return data[: jpeg_end(data, name)]
    if header.format == "raw" and len(data) != header.raw_bytes:
        raise SourceError(
            f"has {len(data):,} bytes, a {header} image has {header.raw_bytes:,}",
            where=name,
            fix="restore or re-record it",
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
        return error.what
    if fault := checksum_fault(data):
        return fault
    try:
        for _ in pixel_blocks(data, header):
            pass
    except PixelFault as error:
        return str(error)
    return None
