"""Numbers in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby


def count(number: int, what: str) -> str:
    """Return a number of things: ``1 episode``, ``216 frames``, ``1,200 files``; 1 is the only singular."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def camera_frames(frames: int, cameras: int) -> str:
    """Return how many frames each of some cameras has: ``72 frames x 3 cameras``.

    Args:
        frames: of all cameras together, which have as many each.
        cameras: how many there are.
    """
    if cameras < 1 or frames % cameras:
        return count(frames, "frame")
    return f"{count(frames // cameras, 'frame')} x {count(cameras, 'camera')}"


def size_ratio(before: int, after: int) -> str:
    """Return how two sizes compare: ``11.8 times smaller``, ``1.3 times larger``, ``about the same size``."""
    if not before or not after:
        return "the same size" if before == after else "smaller" if after < before else "larger"
    ratio = before / after
    larger = ratio < 1
    text = f"{1 / ratio if larger else ratio:.1f}"
    return "about the same size" if text == "1.0" else f"{text} times {'larger' if larger else 'smaller'}"


def ranges(numbers: Sequence[int]) -> str:
    """Return numbers in ascending order, those that follow each other as one: ``3-17, 40, 52-60``."""
    parts = []
    for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ", ".join(parts)
