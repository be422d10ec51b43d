"""Stretches of a file: which are there, which are missing, and which are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

Range = tuple[int, int]
"""From one byte to the one behind the last."""


def joined(ranges: Iterable[Range], gap: int = 0) -> list[Range]:
    """Return ranges in order, those that touch or are at most ``gap`` bytes apart as one."""
    found: list[Range] = []
    for start, end in sorted(one for one in ranges if one[0] < one[1]):
        if found and start <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def missing(wanted: Iterable[Range], there: Iterable[Range]) -> list[Range]:
    """Return what of some ranges is not in others."""
    left: list[Range] = []
    known = joined(there)
    for start, end in joined(wanted):
        at = start
        for low, high in known:
            if high <= at:
                continue
            if low >= end:
                break
            if low > at:
                left.append((at, low))
            at = max(at, high)
        if at < end:
            left.append((at, end))
    return left


def blocks(ranges: Iterable[Range], size: int) -> list[Range]:
    """Cut ranges into such of ``size`` bytes at most."""
    return [(at, min(at + size, end)) for start, end in ranges for at in range(start, end, size)]


class Reader(Protocol):
    """Reads a stretch of a file."""

    def __call__(self, start: int, end: int) -> bytes:
        """From one byte to the one behind the last."""


class ReadFile:
    """What a reader reads, as a file, for code that takes one."""

    def __init__(self, read: Reader) -> None:
        self._read, self._at = read, 0

    def seek(self, at: int) -> None:
        """Go to a byte."""
        self._at = at

    def read(self, size: int) -> bytes:
        """Read so many bytes from there; the next read is from a byte that is sought."""
        return self._read(self._at, self._at + size)


Needs = Callable[[Reader, int], Iterable[Range]]
"""Given what reads a file, and its size: which of its bytes are needed. What it reads is kept as well."""


def everything(_: Reader, size: int) -> Iterable[Range]:
    """All of a file."""
    return [(0, size)]
