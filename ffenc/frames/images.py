"""Headers, chunks and ends of encoded images, read without decoding.

An image whose header announces more memory or time than the limits allow is refused before it is decoded.
docs/images.md lists what is read and what is refused.
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
        name: name of the image for errors.

    Raises:
        SourceError: not an image, not a supported kind, larger than :data:`MAX_PIXELS`, or truncated within
            its header.
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
    """Check that an image can be in the same video as another.

    Colours have to have the same format, depth the same unit: integers (millimetres) or floats (metres),
    whatever the file format is.

    Args:
        found: header of the image.
        expected: header of the other image.
        name, other: names of the two images for errors.

    Raises:
        SourceError: size or kind differ.
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
    """Return whether an image's last bytes are the end of its format; True for TIFF, which has none."""
    if image_format == "tiff":
        return True
    if image_format == "png":
        return bytes(tail[-len(PNG_END) :]) == PNG_END
    return bytes(tail[-64:]).rstrip(b"\0").endswith(b"\xff\xd9")


def whole_image(data: bytes, header: ImageHeader, name: str) -> bytes:
    """Return the bytes of an image, without those that a writer may have left after its end.

    Nothing is decoded, but data that would take a decoder more time or memory than the header announces is
    detected.

    Raises:
        SourceError: the image is truncated, is followed by another one, has more data than its pixels can
            need, or has an unknown critical chunk.
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
    """Check a PNG for damage: chunk checksums, and the decompressed pixel data.

    Used to name a damaged frame. Memory does not grow with the image, and time does not grow with the
    decompressed size of a decompression bomb.

    Returns:
        What is wrong; None if nothing was found (JPEG images have no checksums).
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
