"""Requests of a person, or a signal, to a running recording session."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal

_STEP_SECONDS = 0.1  # longest single wait: a signal only sets a flag

Asked = Literal["end", "rerecord", "stop", "interrupt"]
End = Literal["full", "source", "end", "rerecord", "stop", "interrupt"]


class Control:
    """Requests to a running session, from any thread.

    Until it is saved, an episode can be ended, or recorded again from its first row. Requests that arrive
    while an episode is being saved, or while the next one waits for its cameras, apply to neither.
    """

    def __init__(self) -> None:
        # Signal handlers also put requests here, at any line of the program; SimpleQueue is reentrant.
        self._asked: queue.SimpleQueue[Asked] = queue.SimpleQueue()
        self._listens = False

    def end_episode(self) -> None:
        """Request the end of the episode; between episodes, the start of the next one."""
        if self._listens:
            self._asked.put("end")

    def rerecord(self) -> None:
        """Request that the episode is deleted and recorded again."""
        if self._listens:
            self._asked.put("rerecord")

    def stop(self) -> None:
        """Request the end of the session after this episode."""
        self._asked.put("stop")

    def interrupt(self) -> None:
        self._asked.put("interrupt")

    @property
    def asked(self) -> bool:
        """Whether a request is waiting."""
        return not self._asked.empty()

    def take(self, seconds: float = 0.0) -> Asked | None:
        """Wait for the next request, and return it."""
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
        """Start the next step of the session: drop earlier requests, except that to stop.

        Args:
            listens: whether the episode can be ended, or recorded again, in this step.
        """
        self._listens = False
        kept: list[Asked] = []
        while (asked := self.take()) is not None:
            kept += [asked] if asked in ("stop", "interrupt") else []
        for asked in kept:
            self._asked.put(asked)
        self._listens = listens

    def stopped(self) -> End | None:
        """Return whether a stop was requested while no other request was possible."""
        asked = self.take()
        return asked if asked in ("stop", "interrupt") else None


@contextmanager
def signals_to(control: Control) -> Iterator[None]:
    """Make the first terminating signal end the session in order, and a second one at once.

    Otherwise an exception could arrive between the row of a table and its frames.
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
