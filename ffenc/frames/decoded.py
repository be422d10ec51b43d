"""One encoded image as an array, decoded in Python: for looking, not for encoding."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from ffenc.frames.depth_images import read_depth
from ffenc.frames.images import find_fault, read_header
from ffenc.frames.pillow import damaged, decode
from ffenc.frames.sources import EncodedFrame


def decode_image(data: bytes, name: str) -> npt.NDArray[Any]:
    """Return an image as RGB (H, W, 3), or a depth map (H, W).

    Raises:
        SourceError: it is damaged.
    """
    if fault := find_fault(data):
        raise damaged(name, fault)
    if read_header(data, name).depth:
        return read_depth(EncodedFrame(name, data))
    return decode(data, name, rgb=True)[1]
