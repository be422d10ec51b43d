"""How much of a job is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class FrameCount:
    """Adds up what several threads have done, and tells it.

    Args:
        total: of all.
        report: called with the number done and the total.
    """

    def __init__(self, total: int, report: Callable[[int, int], None] | None) -> None:
        self._total, self._report = total, report
        self._done = 0
        self._lock = threading.Lock()

    def add(self, frames: int) -> None:
        """So many more are done."""
        with self._lock:
            self._done += frames
            if self._report is not None:
                self._report(min(self._done, self._total), self._total)

    def counter(self) -> Callable[[int], None]:
        """A function that takes the number of one file's frames done so far."""
        before = 0

        def report(done: int) -> None:
            nonlocal before
            self.add(max(0, done - before))
            before = max(before, done)

        return report

    @contextmanager
    def part(self, frames: int) -> Iterator[Callable[[int], None]]:
        """Give what takes the count of one piece of work; all its frames are done when the block ends."""
        report = self.counter()
        yield lambda done: report(min(done, frames))
        report(frames)
