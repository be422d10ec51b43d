"""Write a result beside its place, and move it there when it is whole; one run at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

from ffenc.errors import DestinationError


def hidden_path(path: Path, kind: Literal["partial", "old"]) -> Path:
    """A hidden name beside ``path``, of the same ending: a result that is not verified, or what it replaces.

    It holds a hash of the whole name, and so belongs to one result only, however long that result's name is.
    """
    return path.with_name(f"{_begin(path)}-{uuid.uuid4().hex[:8]}.{kind}{path.suffix}")


def _begin(path: Path) -> str:
    return f".{path.stem[:40]}.{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]}"


@contextlib.contextmanager
def published(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, and move it into place when the block ends well.

    The file is flushed to disk before it is renamed; if the block raises, nothing is left behind.
    """
    temporary = hidden_path(path, "partial")
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
    """Keep a result's name for this run, and clear up what a killed run has left beside it.

    The lock is the kernel's: it goes with the process, however that ends.

    Raises:
        DestinationError: another run is writing it.
    """
    place = path.with_name(f"{_begin(path)}.lock")
    try:
        file = place.open("a", encoding="utf-8")
    except OSError as error:
        raise DestinationError(f"{place}: cannot be created: {error.strerror}") from None
    with file:
        # The other run may have deleted the file since it was opened: then this lock is on nothing.
        if not (locked(file) and is_at(file, place)):
            raise DestinationError(f"{path} is being written by another run of ffenc; wait for it")
        try:
            _settle(path)
            yield
        finally:
            place.unlink(missing_ok=True)


def _settle(path: Path) -> None:
    """Put back what a run that was killed had moved away from ``path``, and delete what it was writing."""
    name = re.compile(
        re.escape(_begin(path)) + r"-[0-9a-f]{8}\.(partial|old)" + re.escape(path.suffix), re.DOTALL
    )
    found = [(match[1], one) for one in path.parent.iterdir() if (match := name.fullmatch(one.name))]
    for kind, leftover in found:
        if kind == "old" and not os.path.lexists(path):
            leftover.replace(path)
        elif leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                leftover.unlink()


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
