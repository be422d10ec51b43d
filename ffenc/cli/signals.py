"""The signals that end a program: none is lost, and each ends it within two seconds, in order or by force.

Python raises a signal's exception in whatever line the main thread is at. That can be a place that swallows
exceptions (an import, a finaliser, a callback of a weak reference), or the thread can enter a system call in
the very moment the signal comes, and wait there. So a thread looks after each signal: it wakes the main
thread, raises the exception again where it has vanished, and ends the process where two seconds do not do.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
import weakref
from typing import Any

try:
    import termios
except ImportError:  # no terminals of this kind: Windows
    termios = None  # type: ignore[assignment]

_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
# A signal that nobody uses and that does nothing: it ends the main thread's wait in a system call.
_WAKING = getattr(signal, "SIGURG", None)
_STEP_SECONDS = 0.05
_STEPS = 34  # of sleep, so that a computer that slept or was overloaded is not taken for a hung program
_SHOW_CURSOR = b"\x1b[?25h"


class Interrupted(KeyboardInterrupt):
    """A signal that ends the program in order.

    Args:
        signals: who raises it, and again where it has been swallowed.
        number: the signal's.
    """

    def __init__(self, signals: Signals, number: int) -> None:
        super().__init__(number)
        # An exception lives as long as it is on its way, or what was done about it is being done.
        signals.raised = weakref.ref(self)


class Signals:
    """Looks after the signals that end the program, from :meth:`install` to :meth:`leave`.

    A signal that is ignored at the start (``nohup``, a job that a script has in the background) stays so.
    While :meth:`arm` is in force the first signal raises :class:`Interrupted` in the main thread; before and
    after it is only noted. Who handles a signal otherwise for a while (a recording that ends in order) is let
    alone, and may hand it on by calling the handler that it found.

    Attributes:
        number: the signal that has come, or None.
        raised: the exception it was made into, while that lives.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.raised: weakref.ref[Interrupted] | None = None
        self._handled: list[int] = []
        self._armed = False
        self._woken = False
        self._pipe: tuple[int, int] | None = None
        self._terminal: list[Any] | None = None

    def install(self) -> None:
        """Take the signals over; in the main thread, before anything is loaded that takes time."""
        for number in _ENDING:
            if callable(signal.getsignal(number)) or signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._on_signal)
                self._handled.append(number)
        if termios is not None:
            with contextlib.suppress(termios.error, OSError, AttributeError, ValueError):
                self._terminal = termios.tcgetattr(sys.stdin.fileno())
        if _WAKING is None or not self._handled:
            return
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        signal.signal(_WAKING, self._on_waking)
        signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        # Without a thread (a limit on their number) a signal ends the program as it does any in Python.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._watch, name="ffenc-signals", daemon=True).start()

    def arm(self) -> None:
        """From now on a signal raises.

        Raises:
            Interrupted: one has come already.
        """
        self._armed = True
        if self.number is not None:
            raise Interrupted(self, self.number)

    def disarm(self) -> None:
        """From now on a signal is only noted."""
        self._armed = False

    def leave(self) -> None:
        """Give the signals back to the system; end the process here where one has come.

        A signal that comes later does what it does by itself: it ends the process.
        """
        for number in self._handled:
            signal.signal(number, signal.SIG_DFL)
        if self.number is not None:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    stream.flush()
            # Not sys.exit: that waits for threads, which may not look at anything for a while.
            os._exit(128 + self.number)
        if self._pipe is not None and _WAKING is not None:
            signal.set_wakeup_fd(-1)
            signal.signal(_WAKING, signal.SIG_DFL)
            os.close(self._pipe[1])  # ends the thread

    def _on_signal(self, number: int, _: object) -> None:
        if self.number is None:
            self.number = number
            if self._pipe is not None:  # handed on by another handler, it has left no byte there
                with contextlib.suppress(BlockingIOError):
                    os.write(self._pipe[1], bytes([number]))
        if self._armed and (self.raised is None or self.raised() is None):
            raise Interrupted(self, self.number)

    def _on_waking(self, *_: object) -> None:
        self._woken = True

    def _watch(self) -> None:
        assert self._pipe is not None
        while self.number is None:
            come = os.read(self._pipe[0], 64)
            if not come:
                os.close(self._pipe[0])
                return
            if any(number in self._handled for number in come):
                self._wake()
        for _ in range(_STEPS):
            time.sleep(_STEP_SECONDS)
            if self._armed and (self.raised is None or self.raised() is None):
                signal.pthread_kill(_main_thread(), self.number)
        self._force()

    def _wake(self) -> None:
        """Have the main thread run the handlers of what has come, wherever it waits."""
        self._woken = False
        while self.number is None and not self._woken:
            signal.pthread_kill(_main_thread(), _WAKING)  # type: ignore[arg-type]
            time.sleep(_STEP_SECONDS / 5)

    def _force(self) -> None:
        """End the process; what it started ends with it, and what it has finished stays."""
        assert self.number is not None
        text = b"ffenc: ended by force: it did not end in order within two seconds of the signal\n"
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stderr = sys.__stderr__.fileno()  # type: ignore[union-attr]
            if self._terminal is not None:
                termios.tcsetattr(sys.__stdin__.fileno(), termios.TCSANOW, self._terminal)  # type: ignore[union-attr]
            if os.isatty(stderr):
                text = _SHOW_CURSOR + text
            if select.select([], [stderr], [], 0)[1]:  # who reads it may not be reading
                os.write(stderr, text)
        os._exit(128 + self.number)


def _main_thread() -> int:
    ident = threading.main_thread().ident
    assert ident is not None
    return ident
