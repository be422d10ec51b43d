"""Everything that a person reads goes through here: what was asked for, what is said beside it, and a log.

``--quiet``, ``--verbose`` and ``--log-file`` are decided here, and no text from a file or a file's name can
act on the terminal.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import click

from ffenc.errors import FfencWarning
from ffenc.storage.names import shown

_log = logging.getLogger("ffenc")

# What a terminal obeys instead of showing it, what reverses the reading order, and bytes that are no text.
_NOT_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""Return a text as it can be shown: whatever a terminal would obey is written as ``\x1b``.

    Lines and tabs stay; bytes of a file name that are no text become ``\xff``.
    """
    return _NOT_SHOWN.sub(_escaped, shown(str(text)))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # Python's way of holding a byte that is no text
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _to_stderr(text: str) -> None:
    with suppress(OSError):  # nobody reads it any more; the exit status still says how it ended
        click.echo(text, err=True)


_MARKS = {
    logging.INFO: "ffenc: ",
    logging.WARNING: "ffenc: warning: ",
    logging.ERROR: "ffenc: error: ",
}


class _Terminal(logging.Handler):
    """Prints what is said beside the results to standard error; each note once, as cameras may be alike."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._said: set[str] = set()
        self.write: Callable[[str], None] = _to_stderr

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno == logging.INFO:
            if text in self._said:
                return
            self._said.add(text)
        self.write(printable(_MARKS.get(record.levelno, "") + text))


class _LogFile(logging.FileHandler):
    """Adds a line with the time for everything that is said."""

    def __init__(self, path: str) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk does not end the work that is logged."""


_terminal = _Terminal()
_file: _LogFile | None = None


def begin() -> None:
    """Start as a new process does."""
    global _terminal, _file  # noqa: PLW0603 - one process has one terminal
    if _file is not None:
        _file.close()
        _file = None
    _terminal = _Terminal()
    _log.handlers[:] = [_terminal]
    _log.setLevel(logging.INFO)
    warnings.showwarning = _show_warning
    warnings.simplefilter("default", FfencWarning)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):  # closed, or not a file
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def be_quiet() -> None:
    """Say warnings and errors only, beside what was asked for."""
    _terminal.setLevel(logging.WARNING)


def be_verbose() -> None:
    """Say each program that is started, and where in ffenc an error comes from."""
    _terminal.setLevel(logging.DEBUG)
    _log.setLevel(logging.DEBUG)


def log_to(path: str) -> None:
    """Also add everything that is said to a file, with the details of ``--verbose``.

    Raises:
        OSError: it cannot be written.
    """
    global _file  # noqa: PLW0603
    _file = _LogFile(path)
    _log.addHandler(_file)
    _log.setLevel(logging.DEBUG)


def is_quiet() -> bool:
    """Whether no progress is to be shown."""
    return _terminal.level == logging.WARNING


def result(text: object, *, nl: bool = True) -> None:
    """Print what was asked for to standard output."""
    click.echo(printable(text), nl=nl)
    _to_file(logging.INFO, text)


def summary(text: object) -> None:
    """Say on standard output what a command has done; not with ``--quiet``."""
    if is_quiet():
        _to_file(logging.INFO, text)
    else:
        result(text)


def aside(text: object) -> None:
    """Say on standard error what is being done, a line of many; not with ``--quiet``."""
    if not is_quiet():
        _to_stderr(printable(text))
    _to_file(logging.INFO, text)


def note(text: object) -> None:
    """Say something beside the results, on standard error; not with ``--quiet``."""
    _log.info("%s", printable(text))


def warning(text: object) -> None:
    """Say what may not have the effect that is expected."""
    _log.warning("%s", printable(text))


def usage(text: object) -> None:
    """Say what is wrong with a command line, in click's form."""
    _terminal.write(printable(text))
    _to_file(logging.ERROR, text)


def error(text: object) -> None:
    """Say why a command has failed."""
    _log.error("%s", printable(text))


def is_detailed() -> bool:
    """Whether anybody reads the details of a fault."""
    return bool(os.environ.get("FFENC_DEBUG")) or _log.level <= logging.DEBUG


def detail(text: object) -> None:
    """Say what helps to find a fault, where ``--verbose``, ``FFENC_DEBUG`` or a log file asks for it."""
    if os.environ.get("FFENC_DEBUG") and _terminal.level > logging.DEBUG:
        _terminal.write(printable(text))
    _log.debug("%s", printable(text))


@contextmanager
def shown_by(write: Callable[[str], None]) -> Iterator[None]:
    """Have what is said beside the results shown by a screen, which would wipe it away else."""
    before, _terminal.write = _terminal.write, write
    try:
        yield
    finally:
        _terminal.write = before


def log_table(objects: Iterable[Any]) -> None:
    """Add what rich has printed to the log file."""
    if _file is None:
        return
    from rich.console import Console  # noqa: PLC0415 - loaded already

    text = io.StringIO()
    Console(file=text, width=110, highlight=False, markup=False, emoji=False).print(*objects, soft_wrap=True)
    _to_file(logging.INFO, text.getvalue().rstrip("\n"))


def print_json(content: Mapping[str, Any]) -> None:
    """Print one JSON object to standard output."""
    click.echo(json_text(content, indent=2))


def json_text(content: Mapping[str, Any], *, indent: int | None = None) -> str:
    r"""Return JSON that a terminal shows and any output can take: other characters are ``\u001b``."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    plain = not encoding.lower().replace("-", "").startswith("utf")
    text = shown(json.dumps(content, indent=indent, ensure_ascii=plain))
    # json.dumps has written line ends inside texts as \n: those that are left are between the fields.
    return _NOT_SHOWN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _to_file(level: int, text: object) -> None:
    if _file is not None:
        name = logging.getLevelName(level)
        _file.handle(logging.makeLogRecord({"levelno": level, "levelname": name, "msg": str(text)}))


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    warning(message)
