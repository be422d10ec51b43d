"""Report a command's failure: every exception becomes a one-line message and an exit status."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
import traceback
from pathlib import Path

import click

from ffenc.cli import output
from ffenc.errors import FfencError

_LONGEST = 300  # characters of a library's message
_NO_MEMORY = "not enough memory; free some, or check whether the file states wrong sizes"
_BROKEN_PIPE = 141  # a shell's status of a program that SIGPIPE has ended


def report(error: BaseException) -> int:
    """Report why a command has failed, and return its exit status.

    With ``--verbose``, ``FFENC_DEBUG`` or a log file the traceback is added.
    """
    if isinstance(error, click.ClickException):
        words = io.StringIO()
        error.show(words)
        output.usage(words.getvalue().rstrip("\n"))
        return error.exit_code
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        _leave_output()  # the reader of the output has closed it: `ffenc compile aloha | head -1`
        return _BROKEN_PIPE
    try:
        output.error(_words(error))
        if output.is_detailed():
            output.detail("".join(traceback.format_exception(error)).rstrip())
    except MemoryError:  # no memory even for the message
        os.write(2, f"ffenc: error: {_NO_MEMORY}\n".encode())
    return 1


def _words(error: BaseException) -> str:
    if isinstance(error, FfencError):
        return str(error)
    said = " ".join(str(error).split())
    said = said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."
    where = _where(error)
    if isinstance(error, OSError):
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        place = " -> ".join(names) or where or ("standard output" if error.errno == errno.ENOSPC else "")
        reason = error.strerror or said or type(error).__name__
        return f"{place}: {reason}" if place else reason
    place = f"{where}: " if where else ""
    if isinstance(error, UnicodeEncodeError):  # a file name that is not valid text
        named = re.search(
            r"[^\s'\"{}]*[\ud800-\udfff][^\s'\",{}]*", error.object
        )  # it may be in a command line
        name = named[0] if named else error.object
        return f"file names that are not valid Unicode are not supported: {name}"
    if isinstance(error, UnicodeError):
        return f"{place}the content is not valid text: {said}"
    if isinstance(error, MemoryError) or "failed to map segment" in said:
        return f"{place}{_NO_MEMORY}"
    if isinstance(error, RecursionError):
        return f"{place}the content is nested too deeply to be read"
    if isinstance(error, RuntimeError) and "start new thread" in said:
        return "no more threads can be started; raise the limit on processes (ulimit -u)"
    if isinstance(error, ImportError):
        return f"a Python package cannot be loaded: {said}; install ffenc into an environment of its own"
    kind, home = type(error).__name__, type(error).__module__.partition(".")[0]
    if home == "pyarrow":
        return f"{place}a table cannot be read or written: {said} ({kind})"
    if home == "PIL":
        return f"{place}an image cannot be read or written: {said} ({kind})"
    return f"{place}unexpected error: {said or 'no reason given'} ({kind}); --verbose shows the traceback"


def _where(error: BaseException) -> str:
    """Return the file in use: a path variable of the innermost function of ffenc that has one."""
    found = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if "ffenc" not in Path(frame.f_code.co_filename).parts:
            continue
        for name in ("path", "file", "source", "root"):
            value = frame.f_locals.get(name)
            if isinstance(value, Path):
                found = str(value)
                break
    return found


def _leave_output() -> None:
    """Discard unwritten output, about which Python would complain at the exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            try:
                os.dup2(nowhere, stream.fileno())
            except (OSError, ValueError, AttributeError):  # not a file, or closed
                continue
    os.close(nowhere)
