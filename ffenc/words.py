"""Numbers and quantities in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby


def count(number: int, what: str, plural: str | None = None) -> str:
    """Return a quantity: ``1 episode``, ``216 frames``, ``1,200 files``; only 1 is singular."""
    return f"{number:,} {what if number == 1 else plural or f'{what}s'}"


def camera_frames(frames: int, cameras: int) -> str:
    """Return the number of frames per camera: ``72 frames x 3 cameras``.

    Args:
        frames: total of all cameras, which have the same number each.
        cameras: number of cameras.
    """
    if cameras < 1 or frames % cameras:
        return count(frames, "frame")
    return f"{count(frames // cameras, 'frame')} x {count(cameras, 'camera')}"


def size_ratio(before: int, after: int) -> str:
    """Return the ratio of two sizes: ``11.8 times smaller``, ``1.3 times larger``, ``the same size``."""
    if not before or not after:
        return "the same size" if before == after else "smaller" if after < before else "larger"
    ratio = before / after
    larger = ratio < 1
    text = f"{1 / ratio if larger else ratio:.1f}"
    return "about the same size" if text == "1.0" else f"{text} times {'larger' if larger else 'smaller'}"


def ranges(numbers: Sequence[int]) -> str:
    """Return numbers in ascending order, with runs as ranges: ``3-17, 40, 52-60``."""
    parts = []
    for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ", ".join(parts)
