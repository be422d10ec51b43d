"""Frame rates as exact fractions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from msgspec import Struct

from ffenc.errors import ConfigError

# Keeps the MP4 time scale inside 31 bits, and finds 30000/1001 behind 29.97002997.
_MAX_DENOMINATOR = 10_000
_MAX_FPS = 100_000
_LEAST_SCALE = 10_000  # of a video track, as FFmpeg's MP4 muxer has it


def parse_fps(value: int | float | str | Fraction) -> Fraction:
    """Return a frame rate as a fraction: 30, 29.97 (2997/100), ``"30000/1001"``.

    A decimal number means what it says: a dataset with ``fps: 29.97`` has its frames at i / 29.97.

    Raises:
        ConfigError: not a positive finite rate up to 100,000.
    """
    try:
        if isinstance(value, bool):
            raise ValueError
        text = str(value)
        # A text such as 1e999999999 would keep Fraction busy for ever.
        if len(text) > 40 or not ("/" in text or 0 < float(text) <= _MAX_FPS):
            raise ValueError
        fps = Fraction(text).limit_denominator(_MAX_DENOMINATOR)
        if not 0 < fps <= _MAX_FPS:
            raise ValueError
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ConfigError(f"{value!r} is not a frame rate (30, 29.97 or '30000/1001')", where="fps") from None
    return fps


def fps_number(fps: Fraction) -> int | float:
    """Return a frame rate as info.json has it: an int where it is whole, else the nearest float."""
    return int(fps) if fps.denominator == 1 else float(fps)


def time_scale(fps: Fraction) -> int:
    """Return the ticks a second of a video track in MP4, as FFmpeg's muxer chooses them for a frame rate.

    The rate's numerator, doubled until it is 10,000 or more: 30 gives 15360, 30000/1001 gives 30000. Programs
    that copy packets from one file into another without rescaling their times, as LeRobot does, need this
    scale in both.
    """
    scale = fps.numerator
    while scale < _LEAST_SCALE:
        scale *= 2
    return scale


def frame_ticks(fps: Fraction) -> int:
    """Return the ticks from one frame to the next in :func:`time_scale`; frame i is at i times as many."""
    ticks = time_scale(fps) / fps
    assert ticks.denominator == 1
    return ticks.numerator


class Pick(Struct, frozen=True):
    """Which frames are kept of a series whose rate is lowered: for each new time the nearest, or the later.

    Attributes:
        old, new: frames a second before and after; ``new`` is lower.
    """

    old: Fraction
    new: Fraction

    @property
    def ratio(self) -> Fraction:
        """How many frames before are one after."""
        return self.old / self.new

    def count(self, length: int) -> int:
        """Return how many of so many frames are kept."""
        # The last j for which indices() is below the length: floor((2 j p + q) / (2 q)) <= length - 1.
        p, q = self.ratio.numerator, self.ratio.denominator
        return (2 * q * length - q - 1) // (2 * p) + 1 if length else 0

    def indices(self, length: int) -> Sequence[int]:
        """Return which of so many frames are kept, ascending."""
        p, q = self.ratio.numerator, self.ratio.denominator
        if q == 1:
            return range(0, length, p)
        return [(2 * j * p + q) // (2 * q) for j in range(self.count(length))]
