"""Frame rates as exact fractions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from msgspec import Struct

from ffenc.errors import ConfigError

# Keeps the MP4 time scale below 2**31, and turns 29.97002997 into 30000/1001.
_MAX_DENOMINATOR = 10_000
_MAX_FPS = 100_000
_RATE = re.compile(
    r"(?=.{1,40}$)\s*(?:\d+/\d+|(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*", re.ASCII | re.IGNORECASE
)
_LEAST_SCALE = 10_000  # of a video track, as in FFmpeg's MP4 muxer


def parse_fps(value: int | float | str | Fraction) -> Fraction:
    """Return a frame rate as a fraction: 30, 29.97 (2997/100), ``"30000/1001"``.

    A decimal number is exact: a dataset with ``fps: 29.97`` has its frames at i / 29.97.

    Raises:
        ConfigError: not a positive finite rate up to 100,000.
    """
    try:
        if isinstance(value, bool):
            raise ValueError
        text = str(value)
        # float also reads the digits of other scripts and 1_5; Fraction would compute for hours on a text
        # such as 1e999999999.
        if not _RATE.fullmatch(text) or not ("/" in text or 0 < float(text) <= _MAX_FPS):
            raise ValueError
        fps = Fraction(text).limit_denominator(_MAX_DENOMINATOR)
        if not 0 < fps <= _MAX_FPS:
            raise ValueError
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ConfigError(f"{value!r} is not a frame rate (30, 29.97 or '30000/1001')", where="fps") from None
    return fps


def fps_number(fps: Fraction) -> int | float:
    """Return a frame rate as stored in info.json: an int if it is whole, otherwise the nearest float."""
    return int(fps) if fps.denominator == 1 else float(fps)


def fps_text(fps: Fraction) -> str | None:
    """Return a frame rate as text, such as ``29.97``; None if :func:`parse_fps` would round it."""
    decimal = f"{float(fps):g}"
    text = decimal if Fraction(decimal) == fps else str(fps)
    return text if parse_fps(text) == fps else None


def time_scale(fps: Fraction) -> int:
    """Return the ticks per second of a video track in MP4, as FFmpeg's muxer selects them for a frame rate.

    It is the rate's numerator, doubled until it is 10,000 or more: 15360 for 30, 30000 for 30000/1001.
    Programs that copy packets between files without rescaling their times, such as LeRobot, need the same
    scale in both files.
    """
    scale = fps.numerator
    while scale < _LEAST_SCALE:
        scale *= 2
    return scale


def frame_ticks(fps: Fraction) -> int:
    """Return the ticks per frame in :func:`time_scale`; frame i is at i times this number."""
    ticks = time_scale(fps) / fps
    assert ticks.denominator == 1
    return ticks.numerator


class Pick(Struct, frozen=True):
    """Selection of the frames that are kept at a lower rate: for each new time the nearest, of two the later.

    Attributes:
        old, new: frames per second before and after; ``new`` is lower.
    """

    old: Fraction
    new: Fraction

    @property
    def ratio(self) -> Fraction:
        """Number of old frames per new frame."""
        return self.old / self.new

    def count(self, length: int) -> int:
        """Return how many of ``length`` frames are kept."""
        # The last j with indices()[j] < length: floor((2 j p + q) / (2 q)) <= length - 1.
        p, q = self.ratio.numerator, self.ratio.denominator
        return (2 * q * length - q - 1) // (2 * p) + 1 if length else 0

    def indices(self, length: int) -> Sequence[int]:
        """Return the indices of the kept frames of ``length`` frames, ascending."""
        p, q = self.ratio.numerator, self.ratio.denominator
        if q == 1:
            return range(0, length, p)
        return [(2 * j * p + q) // (2 * q) for j in range(self.count(length))]
