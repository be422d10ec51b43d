"""Decoding with Pillow, of images whose headers have been checked for plausible sizes."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.errors import SourceError
from ffenc.frames.header import ImageHeader
from ffenc.frames.images import read_header, whole_image
from ffenc.frames.png import checksum_fault

# Exceptions of Pillow's plugins, and of the libraries below, for damaged files.
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    EOFError,
    struct.error,
    zlib.error,
)


def decode(data: bytes, name: str, *, rgb: bool = False) -> tuple[ImageHeader, npt.NDArray[Any]]:
    """Decode an image.

    Args:
        data: a PNG, JPEG or TIFF image.
        name: name of the image for errors.
        rgb: convert to colours, ``(H, W, 3)`` uint8; otherwise samples are returned as stored.

    Raises:
        SourceError: damaged, not a supported kind, or different from its header.
    """
    header = read_header(data, name)
    own = whole_image(data, header, name)
    if fault := checksum_fault(own):  # Pillow does not check it
        raise damaged(name, fault)
    return header, decode_checked(own, header, name, rgb=rgb)


def decode_checked(data: bytes, header: ImageHeader, name: str, *, rgb: bool) -> npt.NDArray[Any]:
    """Decode an image of which everything except the pixels has been checked; see :func:`decode`."""
    from PIL import Image  # noqa: PLC0415 - only needed to decode

    try:
        with Image.open(io.BytesIO(data), formats=[header.format.upper()]) as image:
            pixels = np.asarray(image.convert("RGB") if rgb and image.mode != "RGB" else image)
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        raise damaged(name, f"{error or type(error).__name__}") from None
    if pixels.shape[:2] != (header.height, header.width):
        raise damaged(name, f"{pixels.shape[1]}x{pixels.shape[0]} pixels were in a {header}")
    return pixels


def damaged(name: str, fault: str) -> SourceError:
    """Return the error for an image that cannot be decoded."""
    return SourceError(f"the image is damaged: {fault}", where=name, fix="restore or re-record it")
