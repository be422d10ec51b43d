"""Write a result beside its place, and move it there when it is whole; one run at a time."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ffenc.errors import DestinationError


def partial_path(path: Path) -> Path:
    """A hidden name beside ``path`` to write to until the result is verified; the ending stays."""
    return path.with_name(f".{path.stem[:40]}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")


@contextlib.contextmanager
def published(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, and move it into place when the block ends well.

    The file is flushed to disk before it is renamed; if the block raises, nothing is left behind.
    """
    temporary = partial_path(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Keep a result's name for this run.

    The lock is the kernel's: it goes with the process, however that ends.

    Raises:
        DestinationError: another run is writing it.
    """
    place = path.with_name(f".{path.name[:60]}.lock")
    try:
        file = place.open("a", encoding="utf-8")
    except OSError as error:
        raise DestinationError(f"{place}: cannot be created: {error.strerror}") from None
    with file:
        # The other run may have deleted the file since it was opened: then this lock is on nothing.
        if not (locked(file) and is_at(file, place)):
            raise DestinationError(f"{path} is being written by another run of ffenc; wait for it")
        try:
            yield
        finally:
            place.unlink(missing_ok=True)


def is_at(file: IO[str], place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), place.stat())
    except FileNotFoundError:
        return False


def locked(file: IO[str]) -> bool:
    """Lock an open file, if no other run has done so."""
    import fcntl  # noqa: PLC0415 - not on Windows

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
