"""One encoded image as an array, decoded in Python: for looking, not for encoding."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ffenc.errors import SourceError
from ffenc.frames.depth_images import read_depth
from ffenc.frames.images import find_fault, read_header, whole_image
from ffenc.frames.sources import EncodedFrame


def decode_image(data: bytes, name: str) -> npt.NDArray[Any]:
    """Return an image as RGB (H, W, 3), or a depth map (H, W).

    Raises:
        SourceError: it is damaged.
    """
    header = read_header(data, name)
    whole_image(data, header, name)
    if fault := find_fault(data):
        raise SourceError(f"{name}: the image is damaged: {fault}")
    if header.depth:
        return read_depth(EncodedFrame(name, data))
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise SourceError(f"{name}: the image is damaged: {error}") from None
