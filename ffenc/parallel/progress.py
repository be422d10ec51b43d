"""The progress of a job."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class FrameCount:
    """Counts the frames that several threads have completed, and reports the number.

    Args:
        total: number of frames of the job.
        report: called with the number of completed frames and the total; None: nothing is reported.
    """

    def __init__(self, total: int, report: Callable[[int, int], None] | None) -> None:
        self._total, self._report = total, report
        self._done = 0
        self._lock = threading.Lock()

    def add(self, frames: int) -> None:
        """Count further frames as done."""
        with self._lock:
            self._done += frames
            if self._report is not None:
                self._report(min(self._done, self._total), self._total)

    def counter(self) -> Callable[[int], None]:
        """Return a callback for the number of frames of one file that are done so far."""
        before = 0

        def report(done: int) -> None:
            nonlocal before
            self.add(max(0, done - before))
            before = max(before, done)

        return report

    @contextmanager
    def part(self, frames: int) -> Iterator[Callable[[int], None]]:
        """Yield a callback as :meth:`counter`; all frames of the part count as done when the block ends."""
        report = self.counter()
        yield lambda done: report(min(done, frames))
        report(frames)
