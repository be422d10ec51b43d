"""Keys pressed while a command runs, if its input is a terminal."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from ffenc.cli.display import is_terminal

try:
    import termios
    import tty
except ImportError:  # Windows has no such terminals
    termios = None  # type: ignore[assignment]

_ESCAPE = b"\x1b"
_AFTER_ESCAPE_SECONDS = 0.05  # the rest of an arrow key's code follows within this time; nothing follows Esc
_END_SECONDS = 5.0
_AGAIN_SECONDS = 0.8  # a key that is held down or pressed twice within this time counts once
# The two codes that terminals send for arrow keys, with optional modifiers.
_SEQUENCE = re.compile(rb"\x1b(?:\[[0-9;]*|O)([A-Za-z~])")
_NAMES = {b"C": "right", b"D": "left"}


@contextmanager
def keys(actions: Mapping[str, Callable[[], None]]) -> Iterator[bool]:
    """Call an action for each key pressed, from a thread; yields whether keys can be read.

    A key that is held down or repeated counts once until it has not been pressed for 0.8 seconds.

    The terminal's settings are restored when the block ends. Ctrl-C keeps its meaning.

    Args:
        actions: for ``right``, ``left`` (arrow keys) and ``escape``.
    """
    if termios is None or not is_terminal(sys.stdin):
        yield False
        return
    terminal = sys.stdin.fileno()
    if _in_background(terminal):
        yield False
        return
    before = termios.tcgetattr(terminal)

    def restore() -> None:
        with contextlib.suppress(termios.error):  # the terminal was closed
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)

    waking, wake = os.pipe()
    thread = threading.Thread(target=_read, args=(terminal, waking, actions), name="ffenc-keys", daemon=True)
    atexit.register(restore)
    try:
        tty.setcbreak(terminal)
        thread.start()
        yield True
    finally:
        os.close(wake)
        if thread.is_alive():
            thread.join(_END_SECONDS)
        os.close(waking)
        restore()
        atexit.unregister(restore)


def _in_background(terminal: int) -> bool:
    """Return whether the system would stop this program if it changed the terminal's settings."""
    try:
        return os.tcgetpgrp(terminal) != os.getpgrp()
    except OSError:  # not this program's controlling terminal
        return False


def _read(terminal: int, waking: int, actions: Mapping[str, Callable[[], None]]) -> None:
    pending = b""
    last: dict[str, float] = {}
    while True:
        seconds = _AFTER_ESCAPE_SECONDS if pending else None
        ready, _, _ = select.select([terminal, waking], [], [], seconds)
        if waking in ready:
            return
        try:
            data = os.read(terminal, 64) if ready else b""
        except OSError:
            return  # the terminal was closed
        if ready and not data:
            return
        pressed, pending = parse_keys(pending + data, complete=not ready)
        for name in pressed:
            before, last[name] = last.get(name, -_AGAIN_SECONDS), time.monotonic()
            if name in actions and last[name] - before >= _AGAIN_SECONDS:
                actions[name]()


def parse_keys(data: bytes, *, complete: bool) -> tuple[list[str], bytes]:
    """Return the keys in a terminal's bytes, and the bytes that may be the beginning of another key.

    Args:
        data: bytes read from the terminal.
        complete: no more bytes follow now, so that a lone escape is the Esc key.
    """
    pressed: list[str] = []
    at = 0
    while at < len(data):
        if data[at : at + 1] != _ESCAPE:
            at += 1
            continue
        match = _SEQUENCE.match(data, at)
        if match is not None:
            pressed += [_NAMES[match[1]]] if match[1] in _NAMES else []
            at = match.end()
        elif data[at:] == _ESCAPE or re.fullmatch(rb"\x1b(\[[0-9;]*|O)", data[at:]):
            if not complete:
                return pressed, data[at:]
            pressed.append("escape")
            at = len(data)
        else:
            # Two escapes are Esc pressed twice; an escape before a letter is Alt.
            pressed += ["escape"] if data[at + 1 : at + 2] == _ESCAPE else []
            at += 1 if data[at + 1 : at + 2] == _ESCAPE else 2
    return pressed, b""
