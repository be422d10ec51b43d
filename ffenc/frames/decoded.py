"""One encoded image as an array, decoded in Python: for looking, not for encoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from ffenc.frames.depth import Unit
from ffenc.frames.depth_images import DepthStatistics, read_depth
from ffenc.frames.images import ImageHeader, find_fault, is_png, read_header, unpacked_png
from ffenc.frames.pillow import damaged, decode
from ffenc.frames.sources import EncodedFrame, FrameSource
from ffenc.frames.statistics import RgbHistogram, Stats, sample_tap


def decode_image(data: bytes, name: str) -> npt.NDArray[Any]:
    """Return an image as RGB (H, W, 3), or a depth map (H, W).

    Raises:
        SourceError: it is damaged.
    """
    if is_png(data):
        unpacked = unpacked_png(data)
        if unpacked is None and (fault := find_fault(data)):
            raise damaged(name, fault)
        data = unpacked or data
    if read_header(data, name).depth:
        return read_depth(EncodedFrame(name, data))
    return decode(data, name, rgb=True)[1]


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
