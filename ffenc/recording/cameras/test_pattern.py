"""A camera without a device: a moving test pattern with the frame number."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ffenc.errors import ConfigError
from ffenc.frames.depth import Unit
from ffenc.recording.cameras.camera import CameraStream, CapturedFrame
from ffenc.recording.cameras.number import FAR, MIN_SIZE, NEAR, NUMBERS, code_top, draw_number

_DIGITS = 6
_STEP = 2  # pixels that the pattern moves per frame
_PERIOD = 256  # pixels after which it repeats; a multiple of the step


class TestPattern:
    """Synthetic frames with a number: in digits for people, in blocks for ``read_number``.

    Numbers start at 0 with every episode. Reads do not wait: the caller keeps the frame rate.

    Args:
        name: name of the camera.
        width, height: frame size in pixels, at least 64x48.
        depth: draw depth: a moving surface, with pixels without depth (0).
        depth_unit: ``mm``: uint16, or ``m``: float32.

    Raises:
        ConfigError: the frame is too small for the number.
    """

    __test__ = False  # not a test class for pytest
    live = False
    paced = True

    def __init__(
        self, name: str, *, width: int, height: int, depth: bool = False, depth_unit: Unit = "mm"
    ) -> None:
        if width < MIN_SIZE[0] or height < MIN_SIZE[1]:
            raise ConfigError(f"{name}: test frames of {width}x{height} are too small; 64x48 or more")
        unit = depth_unit if depth else None
        self.streams: Sequence[CameraStream] = (
            CameraStream(name, width, height, "depth" if depth else "rgb24", unit),
        )
        scale: Any = np.float32(0.001) if unit == "m" else 1
        dtype: type = np.float32 if unit == "m" else np.uint16 if depth else np.uint8
        self._one: Any
        self._zero: Any
        self._one, self._zero = (NEAR * scale, FAR * scale) if depth else (255, 0)
        self._frame: npt.NDArray[Any] = np.zeros((height, width) if depth else (height, width, 3), dtype)
        scene = (
            _surface(width + _PERIOD, code_top(height))
            if depth
            else _colours(width + _PERIOD, code_top(height))
        )
        self._scene = (scene * scale).astype(dtype)
        self._digits = [
            np.where(glyph, self._one, self._zero).astype(dtype) for glyph in _glyphs(width, height)
        ]
        if not depth:
            self._digits = [np.repeat(glyph[..., None], 3, axis=-1) for glyph in self._digits]
        self._number = 0

    def open(self) -> None:
        self.rewind()

    def rewind(self) -> None:
        self._number = 0

    def read(self, timeout: float) -> Mapping[str, CapturedFrame]:
        stream = self.streams[0]
        frame, number = self._frame, self._number % NUMBERS
        top, left = code_top(stream.height), number * _STEP % _PERIOD
        frame[:top] = self._scene[:, left : left + stream.width]
        tall, wide = self._digits[0].shape[:2]
        y, x = (top - tall) // 2, (stream.width - _DIGITS * wide) // 2
        for digit in f"{number:0{_DIGITS}d}":
            frame[y : y + tall, x : x + wide] = self._digits[int(digit)]
            x += wide
        draw_number(frame, number, self._one, self._zero)
        self._number += 1
        return {stream.name: CapturedFrame(frame, time.time())}

    def close(self) -> None:
        pass


def _colours(width: int, height: int) -> npt.NDArray[np.float64]:
    x = np.arange(width) * (2 * np.pi / _PERIOD)
    y = np.arange(height)[:, None] * (2 * np.pi / _PERIOD)
    waves = (np.sin(3 * x + np.sin(4 * y)), np.cos(5 * y - 2 * x), np.sin(8 * (x + y)))
    return np.stack([120 + 60 * wave for wave in waves], axis=-1)


def _surface(width: int, height: int) -> npt.NDArray[np.float64]:
    """Return a surface in millimetres, with pixels without depth."""
    x = np.arange(width) * (2 * np.pi / _PERIOD)
    y = np.arange(height)[:, None] * (2 * np.pi / _PERIOD)
    surface: npt.NDArray[np.float64] = np.rint(
        1500 + 600 * np.sin(2 * x + np.sin(3 * y)) + 100 * np.cos(7 * y)
    )
    surface[(np.sin(5 * x) * np.cos(6 * y)) > 0.9] = 0
    return surface


def _glyphs(width: int, height: int) -> list[npt.NDArray[np.bool_]]:
    """Return images of the ten digits, as large as six of them fit, with a background."""
    wide, tall = width * 9 // 10 // _DIGITS, code_top(height) * 7 // 10
    glyphs = []
    for digit in "0123456789":
        image = Image.new("L", (wide, tall), 0)
        font = ImageFont.load_default(min(tall, wide * 1.6))
        ImageDraw.Draw(image).text((wide / 2, tall / 2), digit, fill=255, font=font, anchor="mm")
        glyphs.append(np.asarray(image) > 127)
    return glyphs
