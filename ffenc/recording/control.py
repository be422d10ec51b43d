"""What a person, or a signal, asks of a recording session while it runs."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal

_STEP_SECONDS = 0.1  # the longest wait in one piece: a signal only sets a mark

Asked = Literal["end", "rerecord", "stop", "interrupt"]
End = Literal["full", "source", "end", "rerecord", "stop", "interrupt"]


class Control:
    """What a person asks for while a session runs; from any thread.

    An episode can be ended and recorded again from its first row until it is saved, and not in between:
    what is asked for while an episode is saved, or the next one waits for its cameras, means neither of them.
    """

    def __init__(self) -> None:
        # Also a signal's handler puts into it, in whatever line the program is: this queue is made for that.
        self._asked: queue.SimpleQueue[Asked] = queue.SimpleQueue()
        self._listens = False

    def end_episode(self) -> None:
        """The episode is complete; in the time between two, the next one begins."""
        if self._listens:
            self._asked.put("end")

    def rerecord(self) -> None:
        """The episode is deleted, and recorded again."""
        if self._listens:
            self._asked.put("rerecord")

    def stop(self) -> None:
        """The episode is complete, and the last."""
        self._asked.put("stop")

    def interrupt(self) -> None:
        self._asked.put("interrupt")

    def take(self, seconds: float = 0.0) -> Asked | None:
        """What is asked for next, waiting for it."""
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            try:
                if left <= 0:
                    return self._asked.get_nowait()
                return self._asked.get(timeout=min(left, _STEP_SECONDS))
            except queue.Empty:
                if left <= 0:
                    return None

    def begin(self, *, listens: bool) -> None:
        """Something else begins: what was asked for before is left out, but for the end of all.

        Args:
            listens: whether the episode can be ended, or recorded again.
        """
        self._listens = False
        kept: list[Asked] = []
        while (asked := self.take()) is not None:
            kept += [asked] if asked in ("stop", "interrupt") else []
        for asked in kept:
            self._asked.put(asked)
        self._listens = listens

    def stopped(self) -> End | None:
        """Whether the end of all was asked for while nothing else could be."""
        asked = self.take()
        return asked if asked in ("stop", "interrupt") else None


@contextmanager
def signals_to(control: Control) -> Iterator[None]:
    """The first signal that would end the program ends the session in order, a second one ends it at once.

    Else an exception would come between the row of a table and its frames.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    caught: list[int] = []

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        restore()
        caught.append(number)
        control.interrupt()

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        handler = signal.getsignal(number) if number is not None else None
        if number is not None and callable(handler):
            handlers[number] = handler
            signal.signal(number, note)
    try:
        yield
    finally:
        restore()
    if caught:
        handlers[caught[0]](caught[0], None)
