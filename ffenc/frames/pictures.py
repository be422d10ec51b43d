"""Frames as PNG files, and depth as colour images for people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ffenc.errors import ConfigError, FfmpegError
from ffenc.ffmpeg.process import Buffer, run_fed
from ffenc.frames.depth import DepthQuantizer

# Every eighth colour, and the last, of the Turbo colormap (Anton Mikhailov, Google 2019, Apache-2.0). With
# linear interpolation, no colour differs by more than 3 of 255.
_TURBO = (
    "30123b 392a73 4040a2 4456c7 466be3 4680f6 4294ff 37a8fa 28bceb 1ccdd8 18ddc2 "
    "1fe9af 32f298 4ef97d 6dfe62 8bff4b a4fc3c b9f635 cdec34 dfdf37 eecf3a f8be39 "
    "fdac34 fe962b fb7e21 f46617 eb500e df3f08 d02f05 be2102 a91601 920b01 7a0403"
)
_STEP = 8
_LEVELS = 256
_MM = 65536
_PNG_EFFORT = 3  # zlib's default, 6, takes twice the time and saves a few percent
_OUTLIERS = 0.005  # share of pixels at each end that get the colour of that end


@lru_cache
def turbo() -> npt.NDArray[np.uint8]:
    """Return the Turbo colormap: ``(256, 3)`` uint8 RGB, dark blue to dark red."""
    colours = np.array([tuple(bytes.fromhex(word)) for word in _TURBO.split()], np.float64)
    places = [*range(0, _LEVELS, _STEP), _LEVELS - 1]
    channels = [np.interp(np.arange(_LEVELS), places, colours[:, c]) for c in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


def rgb_pictures(
    command: Sequence[str], pieces: Iterable[Buffer], count: int, *, width: int, height: int
) -> npt.NDArray[np.uint8]:
    """Run a program that writes frames as raw RGB; return them, ``(N, H, W, 3)``.

    Args:
        command: the command line.
        pieces: what the program reads.
        count: number of frames that it has to return.
        width, height: their size.

    Raises:
        FfmpegError: it failed, or returned another number of frames.
    """
    shown = bytearray()
    run_fed(command, pieces, on_output=shown.extend)
    if len(shown) != count * height * width * 3:
        what = f"ffmpeg gave {len(shown)} bytes instead of {count} frames of {width}x{height}"
        raise FfmpegError(what, command=command, returncode=0, stderr=[])
    return np.frombuffer(bytes(shown), np.uint8).reshape(count, height, width, 3)


def save_png(path: Path | BinaryIO, frame: npt.NDArray[Any]) -> None:
    """Write a frame: ``(H, W, 3)`` uint8 as RGB, ``(H, W)`` uint16 as 16-bit gray, unchanged."""
    from PIL import Image  # noqa: PLC0415 - only needed for images

    Image.fromarray(frame).save(path, "PNG", compress_level=_PNG_EFFORT)


class DepthHistogram:
    """Histogram of depth, from which the range of colours is determined.

    Args:
        quantizer: quantiser of the depth; None: 16-bit millimetres. Values at the ends of its range are not
            counted, because they were clipped.
    """

    def __init__(self, quantizer: DepthQuantizer | None) -> None:
        low, high = (quantizer.depth_min, quantizer.depth_max) if quantizer else (0.0, (_MM - 1) / 1000)
        self._ends = (max(0, round(low * 1000)), min(_MM - 1, round(high * 1000)))
        self._counts = np.zeros(_MM, np.int64)

    def add(self, millimetres: npt.NDArray[np.uint16]) -> None:
        """Add a frame."""
        self._counts += np.bincount(millimetres.reshape(-1), minlength=_MM)

    def range(self) -> tuple[float, float]:
        """Return the nearest and farthest depth in metres, without the outermost half percent at each end."""
        counts = self._counts.copy()
        low, high = self._ends
        counts[: low + 1] = 0
        counts[high:] = 0
        total = counts.sum()
        if total == 0:
            return low / 1000, max(high, low + 1) / 1000
        sums = counts.cumsum()
        near, far = (int(np.searchsorted(sums, total * share)) for share in (_OUTLIERS, 1 - _OUTLIERS))
        return near / 1000, max(far, near + 10) / 1000


class DepthPicture:
    """Draws depth in colours, Turbo from near (blue) to far (red), with a scale in metres at the right.

    Depth outside the range gets the colour of its nearest end; 0, which means no depth, is black.

    Args:
        near, far: the range in metres, ``0 <= near < far``.
        height: height of the frames in pixels.

    Raises:
        ConfigError: not a range.
    """

    def __init__(self, near: float, far: float, height: int) -> None:
        if not (0 <= near < far and math.isfinite(far)):
            raise ConfigError(f"{near:g}:{far:g} is not a range of depths in metres, such as 0.3:2.5")
        place = (np.arange(_MM) / 1000 - near) / (far - near)
        self._colours = turbo()[np.rint(place.clip(0, 1) * (_LEVELS - 1)).astype(np.uint8)]
        self._colours[0] = 0
        self._scale = _scale(near, far, height)

    def colours(self, millimetres: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
        """Return an image ``(H, W, 3)`` of depth ``(H, W)``, without the scale."""
        coloured: npt.NDArray[np.uint8] = self._colours[millimetres]
        return coloured

    def draw(self, millimetres: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
        """Return an image ``(H, W + scale, 3)`` of depth ``(H, W)``."""
        return np.concatenate([self.colours(millimetres), self._scale], axis=1)


def _scale(near: float, far: float, height: int) -> npt.NDArray[np.uint8]:
    """Draw a bar of the colours, far at the top and near at the bottom, labelled with depths in metres."""
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - only needed for images

    size = max(9, min(24, height // 20))
    font = ImageFont.load_default(size)
    marks = _marks(near, far, max(2, height // (3 * size)))
    digits = max(0, -math.floor(math.log10(marks[1] - marks[0]) + 1e-9)) if len(marks) > 1 else 2
    texts = [f"{mark:.{digits}f} m" for mark in marks]
    margin, bar = size // 2, size
    width = margin + bar + margin + math.ceil(max(font.getlength(text) for text in texts)) + margin
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    top, bottom = margin, max(margin + 1, height - 1 - margin)
    colours = turbo()
    for y in range(top, min(bottom + 1, height)):
        share = (bottom - y) / (bottom - top)
        colour = tuple(int(c) for c in colours[round(share * (_LEVELS - 1))])
        draw.line([(margin, y), (margin + bar - 1, y)], fill=colour)
    for mark, text in zip(marks, texts, strict=True):
        y = round(bottom - (mark - near) / (far - near) * (bottom - top))
        draw.line([(margin + bar, y), (margin + bar + margin // 2, y)], fill=(255, 255, 255))
        draw.text((margin + bar + margin, y), text, fill=(255, 255, 255), font=font, anchor="lm")
    return np.asarray(picture)


def _marks(near: float, far: float, most: int) -> list[float]:
    """Return round, evenly spaced depths within a range: at most ``most``, but at least two."""
    exponent = math.floor(math.log10((far - near) / most))
    for step in (factor * 10.0**power for power in (exponent, exponent + 1) for factor in (1, 2, 5)):
        first, last = math.ceil(near / step - 1e-9), math.floor(far / step + 1e-9)
        if last - first + 1 <= most:
            break
    marks = [n * step for n in range(first, last + 1)]
    return marks if len(marks) > 1 else [near, far]
