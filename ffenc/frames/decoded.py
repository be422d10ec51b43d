"""Decoding of single images to arrays in Python, for display and checks, not for encoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt
from msgspec.structs import replace

from ffenc.errors import SourceError
from ffenc.frames.depth import Unit
from ffenc.frames.depth_images import DepthStatistics, read_depth
from ffenc.frames.header import ImageHeader
from ffenc.frames.images import find_fault, read_header, whole_image
from ffenc.frames.pillow import damaged, decode_checked
from ffenc.frames.png import checksum_fault, has_filters
from ffenc.frames.sources import EncodedFrame, FrameSource
from ffenc.frames.statistics import RgbHistogram, sample_tap
from ffenc.frames.stored_png import AVAILABLE, UndecodableError, inflated, stored


def decode_image(data: bytes, name: str) -> npt.NDArray[Any]:
    """Return an image as RGB (H, W, 3), or a depth map (H, W).

    Raises:
        SourceError: the image is damaged.
    """
    header = read_header(data, name)
    if header.format == "tiff":
        return read_depth(EncodedFrame(name, data))
    try:
        own = whole_image(data, header, name)
    except SourceError:
        _refuse(data, name)
        raise
    if header.format == "jpeg":
        return decode_checked(own, header, name, rgb=True)
    if AVAILABLE and not checksum_fault(own):
        try:
            own = b"".join(stored(header, own))
        except UndecodableError:
            _refuse(own, name)
    elif fault := find_fault(own):
        raise damaged(name, fault)
    try:
        return decode_checked(own, header, name, rgb=not header.depth)
    except SourceError:
        _refuse(data, name)
        raise


def check_image(data: bytes, name: str) -> None:
    """Check an image for damage like :func:`decode_image`; the pixels of a PNG are only decompressed.

    Raises:
        SourceError: the image is damaged.
    """
    header = read_header(data, name)
    if header.format != "png":
        decode_image(data, name)
        return
    try:
        own = whole_image(data, header, name)
    except SourceError:
        _refuse(data, name)
        raise
    if not AVAILABLE or checksum_fault(own):
        _refuse(own, name)
        return
    try:
        sound = has_filters(inflated(header, own), header, own)
    except UndecodableError:
        sound = False
    if not sound:
        _refuse(own, name)
        raise damaged(name, "its pixel data cannot be decompressed")


def _refuse(data: bytes, name: str) -> None:
    """Raise an error with the damage of an image, if it can be located."""
    if fault := find_fault(data):
        raise damaged(name, fault)


def image_statistics(
    frames: FrameSource, header: ImageHeader, unit: Unit | None, *, check: Callable[[], None] = lambda: None
) -> RgbHistogram | DepthStatistics:
    """Compute the statistics of an episode's images, over the pixels that LeRobot's rule selects.

    Args:
        frames: the images, one or more.
        header: their header.
        unit: unit of depth; None for colours.
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
    return counts
