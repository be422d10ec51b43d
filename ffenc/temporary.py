"""Temporary folders that are removed also if a signal arrives, or later if the process is killed."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from ffenc.locks import locked

_MOST_ENTRIES = 500  # of a folder that are searched for those of killed processes: under 1 ms
_searched: set[tuple[Path, str]] = set()


@contextmanager
def temporary_folder(beside: Path | None = None, prefix: str = "ffenc-") -> Iterator[Path]:
    """Create a folder with an unused name; remove it with its contents at the end.

    A signal can raise an exception at any line of the main thread. :class:`tempfile.TemporaryDirectory`
    leaves its folder behind if that is the line after its creation; this function removes it.

    The folder is locked while it is in use. The kernel releases the lock of a killed process, so the next
    process that creates such a folder in the same place removes those that are not locked.

    Args:
        beside: folder to create it in; None: the system's temporary folder.
        prefix: prefix of its name.

    Raises:
        OSError: it cannot be created.
    """
    place, token = Path(beside or tempfile.gettempdir()), secrets.token_hex(6)
    begin = f"{prefix}{_machine()}-"
    _remove_abandoned(place, begin)
    # Only a folder with a lock gets the name by which other processes recognise it.
    new, folder = place / f"{prefix}{token}", place / f"{begin}{token}"
    lock: int | None = None
    try:
        new.mkdir(mode=0o700)
        lock = _locked(new)
        if lock is None:
            folder = new
        else:
            new.rename(folder)
        yield folder
    finally:
        try:
            _remove(new, folder)
        except BaseException:  # a signal: no second one raises after it
            _remove(new, folder)
            raise
        finally:
            if lock is not None:
                os.close(lock)


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(place: Path, begin: str) -> None:
    """Remove folders of this user whose process was killed; a place is searched once by each process."""
    if (place, begin) in _searched:
        return
    _searched.add((place, begin))
    with suppress(OSError), os.scandir(place) as entries:
        for name in [one.name for one in islice(entries, _MOST_ENTRIES) if one.name.startswith(begin)]:
            if (lock := _locked(place / name)) is None:
                continue
            try:
                if os.fstat(lock).st_uid == os.getuid():
                    _remove(place / name)
            finally:
                os.close(lock)


def _locked(folder: Path) -> int | None:
    """Lock a folder; return its descriptor, or None if it is locked, or locks are not supported there."""
    if os.name != "posix":
        return None
    descriptor = None
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        if locked(descriptor):
            return descriptor
    if descriptor is not None:
        os.close(descriptor)
    return None


def _machine() -> str:
    """Return a short name of this machine: some shared file systems have locks of one machine only."""
    name = os.uname().nodename if hasattr(os, "uname") else ""
    return f"{zlib.crc32(name.encode()):08x}"
