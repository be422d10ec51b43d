"""Signals that end the program: none is lost, and each ends it within two seconds, if necessary by force.

Python raises a signal's exception in whatever line the main thread runs. That line can be one that swallows
exceptions (an import, a finaliser, a callback of a weak reference), or the thread can enter a system call at
the moment the signal arrives, and wait there. So a thread watches each signal: it wakes the main thread,
raises the exception again if it was lost, and ends the process if it still runs after two seconds.
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
except ImportError:  # Windows has no such terminals
    termios = None  # type: ignore[assignment]

_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
# An otherwise unused signal without effect: it interrupts the main thread's system call.
_WAKING = getattr(signal, "SIGURG", None)
_STEP_SECONDS = 0.05
_STEPS = 34  # of sleep; so a computer that was suspended or overloaded is not mistaken for a hung program
_SHOW_CURSOR = b"\x1b[?25h"


class Interrupted(KeyboardInterrupt):
    """A signal that ends the program in an orderly way.

    Args:
        signals: raises it, and raises it again if it was lost.
        number: the signal's number.
    """

    def __init__(self, signals: Signals, number: int) -> None:
        super().__init__(number)
        # The exception exists as long as it propagates or is handled.
        signals.raised = weakref.ref(self)


class Signals:
    """Watches the signals that end the program, from :meth:`install` to :meth:`leave`.

    A signal that is ignored at the start (``nohup``, a background job of a script) stays ignored. After
    :meth:`arm` the first signal raises :class:`Interrupted` in the main thread; before it, and after
    :meth:`disarm`, a signal is only recorded. Code that sets another handler for a while (a recording that
    ends in order) keeps it, and can pass the signal on by calling the previous handler.

    Attributes:
        number: the signal that has arrived, or None.
        raised: its exception, as long as that exists.
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
        """Install the handlers; in the main thread, before any slow import."""
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
        # If no thread can be started (a limit), a signal ends the program as in any Python program.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._watch, name="ffenc-signals", daemon=True).start()

    def arm(self) -> None:
        """From now on a signal raises its exception.

        Raises:
            Interrupted: a signal has already arrived.
        """
        self._armed = True
        if self.number is not None:
            raise Interrupted(self, self.number)

    def disarm(self) -> None:
        """From now on a signal is only recorded."""
        self._armed = False

    def leave(self) -> None:
        """Restore the system's handlers; end the process here if a signal has arrived.

        A later signal has its default effect: it ends the process.
        """
        for number in self._handled:
            signal.signal(number, signal.SIG_DFL)
        if self.number is not None:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    stream.flush()
            # Not sys.exit, which waits for threads; they may be blocked for a while.
            os._exit(128 + self.number)
        if self._pipe is not None and _WAKING is not None:
            signal.set_wakeup_fd(-1)
            signal.signal(_WAKING, signal.SIG_DFL)
            os.close(self._pipe[1])  # ends the thread

    def _on_signal(self, number: int, _: object) -> None:
        if self.number is None:
            self.number = number
            if self._pipe is not None:  # passed on by another handler, with no byte in the pipe
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
        """Make the main thread run its signal handlers, wherever it waits."""
        self._woken = False
        while self.number is None and not self._woken:
            signal.pthread_kill(_main_thread(), _WAKING)  # type: ignore[arg-type]
            time.sleep(_STEP_SECONDS / 5)

    def _force(self) -> None:
        """End the process; the programs that it started end too, and finished work is kept."""
        assert self.number is not None
        text = b"ffenc: ended by force: it did not end in order within two seconds of the signal\n"
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stderr = sys.__stderr__.fileno()  # type: ignore[union-attr]
            if self._terminal is not None:
                termios.tcsetattr(sys.__stdin__.fileno(), termios.TCSANOW, self._terminal)  # type: ignore[union-attr]
            if os.isatty(stderr):
                text = _SHOW_CURSOR + text
            if select.select([], [stderr], [], 0)[1]:  # its reader may not be reading
                os.write(stderr, text)
        os._exit(128 + self.number)


def _main_thread() -> int:
    ident = threading.main_thread().ident
    assert ident is not None
    return ident
