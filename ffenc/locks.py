"""Locks on files between processes. The kernel releases those of a process that ends, however it ends."""

from __future__ import annotations

import os
import signal
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ffenc.errors import DestinationError

_own: weakref.WeakSet[IO[Any]] = weakref.WeakSet()  # files that :func:`locked_at` has locked


def locked(file: IO[Any] | int, *, exclusive: bool = True, wait: bool = False) -> bool:
    """Lock an open file, or change its lock; return False if another process has locked it.

    Args:
        file: the file or its descriptor; the lock ends when it is closed.
        exclusive: no other process may have a lock; otherwise others may have one that is not exclusive.
        wait: wait until the other process releases its lock.
    """
    import fcntl  # noqa: PLC0415 - not on Windows

    how = (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    return True


def locked_at(file: IO[Any], place: Path) -> bool:
    """Lock an open file; return False if another process has locked it, or deleted it since it was opened.

    The lock is this process's alone: a fork, such as a data loader's worker, would keep it until it ends, and
    so closes the file.

    Raises:
        DestinationError: the file system has no locks, so that two runs would write the same files; the
            file is deleted.
    """
    try:
        if not (locked(file) and is_at(file.fileno(), place)):
            return False
    except OSError as error:
        place.unlink(missing_ok=True)
        raise DestinationError(
            f"{place.parent}: its file system cannot lock files ({error.strerror}), which keeps two runs "
            "from writing the same; write to a folder on another one, and copy the result"
        ) from None
    _own.add(file)
    return True


def _forked() -> None:
    for file in list(_own):
        with suppress(OSError):
            file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def is_at(descriptor: int, place: Path) -> bool:
    """Return whether an open file is the one at a path: a lock of a deleted file has no effect."""
    try:
        return os.path.samestat(os.fstat(descriptor), place.stat())
    except FileNotFoundError:
        return False


@contextmanager
def unchanged(file: IO[Any]) -> Iterator[bool]:
    """Make other programs wait before they write to an open file or shorten it, while a block runs (Linux).

    This is a lease, which nobody else has to ask for; a program waits at most 45 seconds for its end.

    Yields:
        Whether they wait. They do not if the file belongs to another user or is open for writing, or if the
        file system or this system has no leases.
    """
    waiting = False
    # ImportError: Windows; AttributeError: other systems
    with suppress(ImportError, AttributeError, OSError):
        import fcntl  # noqa: PLC0415 - not on Windows

        # The signal that reports a waiting program; the usual one, SIGIO, would end this process.
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        waiting = True
    try:
        yield waiting
    finally:
        if waiting:
            with suppress(OSError):  # it took more than 45 seconds
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
