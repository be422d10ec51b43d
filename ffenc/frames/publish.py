"""Results are written beside their destination, and renamed when complete; one run at a time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ffenc.errors import DestinationError
from ffenc.locks import locked_at
from ffenc.spelling import argument


def hidden_path(path: Path, kind: Literal["partial", "old"]) -> Path:
    """Return a hidden name beside ``path`` with its suffix, for an unverified result or the replaced one.

    It contains a hash of the full name, and so belongs to one result only, however long the name is.
    """
    return path.with_name(f"{_begin(path)}-{uuid.uuid4().hex[:8]}.{kind}{path.suffix}")


def _begin(path: Path) -> str:
    return f".{path.stem[:40]}.{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]}"


def check_file(path: Path, *, overwrite: bool) -> None:
    """Refuse the path of a file to write if it is in use.

    Raises:
        DestinationError: it is a folder, or a file that may not be replaced.
    """
    if path.is_dir():
        raise DestinationError(f"{path} is a folder; choose another name")
    if path.exists() and not overwrite:
        raise DestinationError(f"{path} exists; choose another name, or pass {argument('overwrite', True)}")


def check_file_in_folder(path: Path, *, overwrite: bool) -> None:
    """Refuse the path of a file to write if it is in use, or not in an existing folder.

    Raises:
        DestinationError: see :func:`check_file`; or its folder does not exist.
    """
    check_file(path, overwrite=overwrite)
    if not path.parent.is_dir():
        raise DestinationError(f"{path.parent} is not a folder; create it first")


@contextlib.contextmanager
def published(path: Path, *, flush: bool = True, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to ``path`` if the block succeeds.

    The file is flushed to disk before the rename, unless the caller does it later (``flush=False``); if the
    block raises, no file is left. Errors of the disk name ``path``; Python's name no file if they come from a
    write.

    Raises:
        DestinationError: with ``overwrite=False``, another program has written ``path`` in the meantime.
    """
    temporary = hidden_path(path, "partial")
    owner = os.getpid()
    try:
        yield temporary
        if flush:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        check_file(path, overwrite=overwrite)
        temporary.replace(path)
        if flush:
            sync_folder(path.parent)
    except OSError as error:
        name_result(error, temporary, path)
        raise
    finally:
        # A forked process also reaches the end of the block; a disk that is read-only now has no such file.
        if os.getpid() == owner:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def name_result(error: OSError, temporary: Path, path: Path) -> None:
    """Have an error that names a temporary path, or one in it, name the result: nobody knows the other.

    That of a full disk names nothing if it comes from a write, and gets the result's name too.
    """
    if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        error.filename = str(path)
    place = (
        Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes | os.PathLike) else None
    )
    if place is not None and place.is_relative_to(temporary):
        error.filename, error.filename2 = str(path / place.relative_to(temporary)), None


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, if the system supports this."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Reserve a result's name for this run, and remove the files of a killed run beside it.

    The kernel releases the lock when the process ends, in whatever way.

    Raises:
        DestinationError: another run is writing the result.
    """
    place = path.with_name(f"{_begin(path)}.lock")
    owner = os.getpid()
    try:
        file = place.open("a", encoding="utf-8")
    except OSError as error:
        raise DestinationError(f"{place}: cannot be created: {error.strerror}") from None
    with file:
        if not locked_at(file, place):
            raise DestinationError(f"{path} is being written by another run of ffenc; wait for it")
        try:
            _settle(path)
            yield
        finally:
            if os.getpid() == owner:  # see :func:`published`
                place.unlink(missing_ok=True)


def _settle(path: Path) -> None:
    """Restore what a killed run had moved away from ``path``, and delete what it was writing."""
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
