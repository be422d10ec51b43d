"""Keys that are pressed while a command runs, where its input is a terminal."""

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
except ImportError:  # no terminals of this kind: Windows
    termios = None  # type: ignore[assignment]

_ESCAPE = b"\x1b"
_AFTER_ESCAPE_SECONDS = 0.05  # the rest of an arrow key's code follows at once; nothing follows Esc
_END_SECONDS = 5.0
_AGAIN_SECONDS = 0.8  # a key that is held down, or pressed twice in haste, is pressed once
# Both ways that terminals tell arrow keys in, with what is held down beside them.
_SEQUENCE = re.compile(rb"\x1b(?:\[[0-9;]*|O)([A-Za-z~])")
_NAMES = {b"C": "right", b"D": "left"}


@contextmanager
def keys(actions: Mapping[str, Callable[[], None]]) -> Iterator[bool]:
    """Call an action for each key that is pressed, from a thread; gives whether keys can be read.

    The same key counts once until it was not pressed for a moment.

    The terminal is as it was before when the block ends, however it does. Ctrl-C stays what it is.

    Args:
        actions: for ``right``, ``left`` (the arrow keys) and ``escape``.
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
        with contextlib.suppress(termios.error):  # the terminal has been closed
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
    """Whether the system would stop this program if it changed the terminal."""
    try:
        return os.tcgetpgrp(terminal) != os.getpgrp()
    except OSError:  # it is not the terminal that this program's jobs are controlled from
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
            return  # the terminal has gone
        if ready and not data:
            return
        pressed, pending = parse_keys(pending + data, complete=not ready)
        for name in pressed:
            before, last[name] = last.get(name, -_AGAIN_SECONDS), time.monotonic()
            if name in actions and last[name] - before >= _AGAIN_SECONDS:
                actions[name]()


def parse_keys(data: bytes, *, complete: bool) -> tuple[list[str], bytes]:
    """Return the keys that a terminal's bytes stand for, and the bytes that may be the start of another.

    Args:
        data: what has come.
        complete: nothing more follows for now, so that an escape alone is the key.
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
            # Two escapes are the key pressed twice; before a letter it is Alt.
            pressed += ["escape"] if data[at + 1 : at + 2] == _ESCAPE else []
            at += 1 if data[at + 1 : at + 2] == _ESCAPE else 2
    return pressed, b""
