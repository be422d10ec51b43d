"""One encoded image as an array, decoded in Python: for looking, not for encoding."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ffenc.errors import SourceError
from ffenc.frames.depth import Unit
from ffenc.frames.depth_images import DepthStatistics, read_depth
from ffenc.frames.images import ImageHeader, find_fault, read_header, whole_image
from ffenc.frames.sources import EncodedFrame, FrameSource
from ffenc.frames.statistics import RgbHistogram, Stats, sample_tap


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


def image_statistics(
    frames: FrameSource, header: ImageHeader, unit: Unit | None, *, check: Callable[[], None] = lambda: None
) -> Stats:
    """Return the statistics of an episode's images, over the frames and pixels that LeRobot's rule picks.

    Args:
        frames: the images, one or more.
        header: what they are.
        unit: what depth is in; None for colours.
        check: called before each image is decoded; may raise.

    Raises:
        SourceError: an image is damaged.
    """
    tap = sample_tap(len(frames), header.width, header.height)
    every = replace(tap, step=1)
    counts = RgbHistogram(every) if unit is None else DepthStatistics(every, unit)
    for number, frame in enumerate(frames):
        if number % tap.step == 0:
            check()
            counts.add(decode_image(frame.data, frame.name))
    return counts.statistics()
