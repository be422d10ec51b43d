"""Transforms of images that stay images: cropped, rotated, flipped, scaled and padded."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from ffenc.config.transform import Transform
from ffenc.ffmpeg.machine import cores
from ffenc.frames.decoded import decode_image
from ffenc.frames.depth import Unit
from ffenc.frames.depth_images import DepthStatistics, changed
from ffenc.frames.header import ImageHeader
from ffenc.frames.images import read_header, require_alike
from ffenc.frames.pictures import save_png
from ffenc.frames.sources import EncodedFrame, FrameSource
from ffenc.frames.statistics import RgbHistogram, sample_tap
from ffenc.frames.tiff import tiff_of

_Frame = tuple[EncodedFrame, npt.NDArray[Any]]


class ChangedImages:
    """Transformed images, and the statistics of what they show.

    Colours become PNG with 8 bits per channel, scaled with Pillow's bicubic filter. Depth keeps its values
    and its format, TIFF or PNG: scaling uses the nearest pixel, and padding consists of pixels without depth.
    Several images are transformed at once; only a few are in memory.

    Args:
        frames: the images, one or more.
        header: their header.
        unit: unit of depth; None for colours.
        transform: the transform.

    Attributes:
        statistics: of the frames that LeRobot's rule selects; complete after all frames have been read.

    Raises:
        ConfigError: the transform cannot be applied to images of their size.
    """

    def __init__(
        self, frames: FrameSource, header: ImageHeader, unit: Unit | None, transform: Transform
    ) -> None:
        self._frames, self._header, self._unit, self._transform = frames, header, unit, transform
        self._geometry = transform.of(header.width, header.height)
        self.statistics: RgbHistogram | DepthStatistics = self._counting()

    def _counting(self) -> RgbHistogram | DepthStatistics:
        tap = sample_tap(len(self), self._geometry.width, self._geometry.height)
        self._step, every = tap.step, replace(tap, step=1)
        return RgbHistogram(every) if self._unit is None else DepthStatistics(every, self._unit)

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[EncodedFrame]:
        """Yield the transformed images.

        Raises:
            SourceError: an image is damaged, or differs from the others in size or kind; the text names it.
        """
        self.statistics = self._counting()
        waiting: deque[Future[_Frame]] = deque()
        frames = iter(self._frames)
        done = 0
        pool = ThreadPoolExecutor(cores(), thread_name_prefix="ffenc")
        try:
            while True:
                while len(waiting) < cores() + 1 and (frame := next(frames, None)) is not None:
                    waiting.append(pool.submit(self._changed, frame))
                if not waiting:
                    return
                image, pixels = waiting.popleft().result()
                if done % self._step == 0:
                    self.statistics.add(pixels)
                done += 1
                yield image
        finally:
            pool.shutdown(cancel_futures=True)

    def _changed(self, frame: EncodedFrame) -> _Frame:
        header = read_header(frame.data, frame.name)
        require_alike(header, self._header, frame.name)
        pixels = changed(decode_image(frame.data, frame.name), self._geometry)
        pixels = np.ascontiguousarray(pixels)
        if header.format == "tiff":
            return EncodedFrame(frame.name, tiff_of(pixels)), pixels
        png = io.BytesIO()
        save_png(png, pixels)
        return EncodedFrame(frame.name, png.getvalue()), pixels

    def fingerprint(self) -> str:
        return f"{self._transform} {self._frames.fingerprint()}"


def changed_header(header: ImageHeader, transform: Transform) -> ImageHeader:
    """Return the header of transformed images.

    Args:
        header: header of the source images.
        transform: the transform.

    Raises:
        ConfigError: the transform cannot be applied to images of their size.
    """
    width, height = transform.size(header.width, header.height)
    if header.depth:
        return replace(header, width=width, height=height)
    return ImageHeader("png", width, height, 8, 3)
