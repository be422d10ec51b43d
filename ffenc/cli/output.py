"""All output for people: results, messages beside them, and the log file.

``--quiet``, ``--verbose`` and ``--log-file`` take effect here. Text from files and file names is escaped, so
that it cannot control the terminal.
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

# Control characters, characters that reverse the reading order, and bytes that are not text.
_NOT_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""Return a text that is safe to show: control characters are written as ``\x1b``.

    Line ends and tabs are kept; bytes of a file name that are not text become ``\xff``.
    """
    return _NOT_SHOWN.sub(_escaped, shown(str(text)))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # Python's surrogate for a byte that is not text
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _to_stderr(text: str) -> None:
    with suppress(OSError):  # closed by its reader; the exit status still reports the result
        click.echo(text, err=True)


_MARKS = {
    logging.INFO: "ffenc: ",
    logging.WARNING: "ffenc: warning: ",
    logging.ERROR: "ffenc: error: ",
}


class _Terminal(logging.Handler):
    """Writes messages to standard error; each note only once, as cameras may cause the same one."""

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
    """Writes a line with the time for every message."""

    def __init__(self, path: str) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._failed = False

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:
        """Warn once, and continue: a full disk must not stop the work that is logged."""
        if not self._failed:
            self._failed = True
            reason = getattr(sys.exc_info()[1], "strerror", None) or sys.exc_info()[1]
            mark = _MARKS[logging.WARNING]
            _terminal.write(
                printable(f"{mark}{self.baseFilename}: {reason}; messages are missing in this log file")
            )


_terminal = _Terminal()
_file: _LogFile | None = None


def begin() -> None:
    """Reset to the state of a new process."""
    global _terminal, _file  # noqa: PLW0603 - one process has one terminal
    if _file is not None:
        with suppress(OSError):  # a full disk, which was reported when the message was written
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
    """Show only warnings and errors on standard error."""
    _terminal.setLevel(logging.WARNING)


def be_verbose() -> None:
    """Also show each program that is started, and tracebacks."""
    _terminal.setLevel(logging.DEBUG)
    _log.setLevel(logging.DEBUG)


def log_to(path: str) -> None:
    """Also append all messages to a file, with the details of ``--verbose``.

    Raises:
        OSError: the file cannot be written.
    """
    global _file  # noqa: PLW0603
    _file = _LogFile(path)
    _log.addHandler(_file)
    _log.setLevel(logging.DEBUG)


def is_quiet() -> bool:
    """Return whether progress is not shown."""
    return _terminal.level == logging.WARNING


def result(text: object, *, nl: bool = True) -> None:
    """Print a result to standard output."""
    click.echo(printable(text), nl=nl)
    _to_file(logging.INFO, text)


def summary(text: object) -> None:
    """Print what a command has done to standard output; not with ``--quiet``."""
    if is_quiet():
        _to_file(logging.INFO, text)
    else:
        result(text)


def aside(text: object) -> None:
    """Print a line of progress to standard error; not with ``--quiet``."""
    if not is_quiet():
        _to_stderr(printable(text))
    _to_file(logging.INFO, text)


def note(text: object) -> None:
    """Print a note to standard error; not with ``--quiet``."""
    _log.info("%s", printable(text))


def warning(text: object) -> None:
    """Print a warning: something may not have the expected effect."""
    _log.warning("%s", printable(text))


def usage(text: object) -> None:
    """Print what is wrong with a command line, in click's form."""
    _terminal.write(printable(text))
    _to_file(logging.ERROR, text)


def error(text: object) -> None:
    """Print why a command has failed."""
    _log.error("%s", printable(text))


def is_detailed() -> bool:
    """Return whether details of an error are shown or logged."""
    return _debugging() or _log.level <= logging.DEBUG


def _debugging() -> bool:
    return os.environ.get("FFENC_DEBUG", "") not in ("", "0")


def detail(text: object) -> None:
    """Print details of an error, if ``--verbose``, ``FFENC_DEBUG`` or a log file requests them."""
    if _debugging() and _terminal.level > logging.DEBUG:
        _terminal.write(printable(text))
    _log.debug("%s", printable(text))


@contextmanager
def shown_by(write: Callable[[str], None]) -> Iterator[None]:
    """Have a screen show the messages for standard error, which it would overwrite otherwise."""
    before, _terminal.write = _terminal.write, write
    try:
        yield
    finally:
        _terminal.write = before


def log_table(objects: Iterable[Any]) -> None:
    """Write objects printed with rich to the log file."""
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
    r"""Return JSON that is safe to show and fits the output's encoding: other characters are ``\u001b``."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    plain = not encoding.lower().replace("-", "").startswith("utf")
    text = shown(json.dumps(content, indent=indent, ensure_ascii=plain))
    # json.dumps has escaped line ends in texts as \n: the remaining ones are between fields.
    return _NOT_SHOWN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _to_file(level: int, text: object) -> None:
    if _file is not None:
        name = logging.getLevelName(level)
        _file.handle(logging.makeLogRecord({"levelno": level, "levelname": name, "msg": str(text)}))


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    warning(message)
