"""Byte ranges of a file: fetched, missing and needed ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

Range = tuple[int, int]
"""First byte, and the byte after the last."""


def joined(ranges: Iterable[Range], gap: int = 0) -> list[Range]:
    """Return ranges in order; those that touch or are at most ``gap`` bytes apart are merged."""
    found: list[Range] = []
    for start, end in sorted(one for one in ranges if one[0] < one[1]):
        if found and start <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def missing(wanted: Iterable[Range], there: Iterable[Range]) -> list[Range]:
    """Return the parts of some ranges that are not in others."""
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
    """Split ranges into ranges of at most ``size`` bytes."""
    return [(at, min(at + size, end)) for start, end in ranges for at in range(start, end, size)]


class Reader(Protocol):
    """Reads a range of a file."""

    def __call__(self, start: int, end: int) -> bytes:
        """Return the bytes from ``start`` to before ``end``."""


class ReadFile:
    """A reader as a file object, for code that needs one."""

    def __init__(self, read: Reader) -> None:
        self._read, self._at = read, 0

    def seek(self, at: int) -> None:
        """Set the position to a byte."""
        self._at = at

    def read(self, size: int) -> bytes:
        """Read ``size`` bytes from the position, which does not move."""
        return self._read(self._at, self._at + size)


Needs = Callable[[Reader, int], Iterable[Range]]
"""Returns the needed byte ranges, given a reader of the file and its size; bytes that it reads are kept."""


def everything(_: Reader, size: int) -> Iterable[Range]:
    """Return the range of the whole file."""
    return [(0, size)]
