"""The folder of local copies: its size limit, and which copies are deleted when it is full."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from ffenc.errors import ConfigError, SourceError
from ffenc.locks import locked, locked_at
from ffenc.spelling import argument
from ffenc.storage.folder import real_cache_folder

MARK = "ffenc-copy.json"
"""A file in every folder of a copy, with its address. A folder without this file is never deleted."""

DEFAULT_SIZE = 50 * 10**9
_UNITS = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_KEY = re.compile(r"[0-9a-f]{20}")


def copies_folder() -> Path:
    """Return the folder of the copies of remote datasets."""
    return real_cache_folder() / "datasets"


def size_limit() -> int:
    """Return the greatest size of all copies in bytes: ``FFENC_CACHE_SIZE``, such as ``20GB``.

    Raises:
        ConfigError: it is not a size.
    """
    text = os.environ.get("FFENC_CACHE_SIZE", "")
    if not text:
        return DEFAULT_SIZE
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(kB|MB|GB|TB|)", text, re.ASCII)
    if match is None:
        raise ConfigError(f"FFENC_CACHE_SIZE={text!r} is not a size", expected="such as 500MB, 20GB or 1TB")
    return int(float(match[1]) * _UNITS[match[2]])


class _Kept(Struct, frozen=True):
    """A file that can be deleted, partly or completely."""

    folder: Path
    root: Path
    place: str
    used: float
    bytes: int


class Cache:
    """Makes room for new data by deleting the least recently used.

    Of datasets that a process has open, only data that can be fetched again on demand is deleted; data in
    use at the moment is never deleted.
    """

    _guard = threading.Lock()
    _taken: dict[Path, int] = {}  # noqa: RUF012 - one total per folder, for all datasets of this process

    def make_room(self, size: int, own: Path) -> None:
        """Delete data until there is room for new data within the limit.

        Args:
            size: bytes of the new data.
            own: folder of the dataset that it is for.

        Raises:
            SourceError: the limit is too low, even if everything else is deleted.
            ConfigError: see :func:`size_limit`.
        """
        limit, folder = size_limit(), own.parent
        with self._guard:
            taken = self._taken.get(folder)
            if taken is None or taken + size > limit:
                taken = sum(_bytes_in(one) for one in _copies(folder))
            if taken + size > limit:
                taken -= _sweep(folder, taken + size - limit, own)
            if taken + size > limit:
                raise SourceError(
                    f"{folder}: copies of remote files that are in use take {taken:,} bytes, {size:,} more "
                    f"are needed, and FFENC_CACHE_SIZE allows {limit:,}; increase it, or run "
                    f"fewer encodes at once ({argument('workers')})"
                )
            self._taken[folder] = taken + size


def _copies(folder: Path) -> Iterator[Path]:
    """Yield the folders that have the mark."""
    with contextlib.suppress(FileNotFoundError):
        for one in sorted(folder.iterdir()):
            if _KEY.fullmatch(one.name) and not one.is_symlink() and (one / MARK).is_file():
                yield one


def _bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512  # noqa: PTH118
    return total


def _sweep(folder: Path, needed: int, own: Path) -> int:
    """Delete the least recently used data until ``needed`` bytes are free; return the number freed."""
    freed = 0
    for one in sorted(_copies(folder), key=_last_used):
        if freed >= needed:
            return freed
        if one == own:
            continue
        with contextlib.suppress(FileNotFoundError), (one / "lock").open("a", encoding="utf-8") as lock:
            if locked_at(lock, one / "lock"):
                size = _bytes_in(one)
                _delete(one)
                freed += size
    for kept in sorted((k for one in _copies(folder) for k in _files(one)), key=lambda kept: kept.used):
        if freed >= needed:
            break
        freed += _shrink(kept)
    return freed


def _last_used(folder: Path) -> float:
    times = [used for _, used in _states(folder)]
    if not times:
        with contextlib.suppress(FileNotFoundError):
            times = [(folder / MARK).stat().st_mtime]
    return max(times, default=0.0)


def _states(folder: Path) -> Iterator[tuple[Path, float]]:
    """Yield the records of a copy's files, with the times of their last use; others may delete them."""
    for parent, _, names in os.walk(folder / "state"):
        for path in (Path(parent, name) for name in names if name.endswith(".json")):
            with contextlib.suppress(FileNotFoundError):
                yield path, path.stat().st_mtime


def _files(folder: Path) -> Iterator[_Kept]:
    try:
        root = next((one for one in folder.iterdir() if one.is_dir() and one.name != "state"), None)
    except FileNotFoundError:
        return
    for path, used in _states(folder):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            state = json.loads(path.read_text(encoding="utf-8"))
            more = sum(b - a for a, b in state["there"]) - sum(b - a for a, b in state["kept"])
            if root is not None and more > 0:
                place = path.relative_to(folder / "state").as_posix().removesuffix(".json")
                yield _Kept(folder, root, place, used, more)


def _shrink(kept: _Kept) -> int:
    """Keep only the bytes of a file that must stay, unless it is in use; return the number of bytes freed."""
    note = kept.folder / "state" / f"{kept.place}.json"
    path = kept.root / kept.place
    with contextlib.suppress(OSError), note.with_suffix(".lease").open("a", encoding="utf-8") as lease:
        if not locked(lease):
            return 0
        state = json.loads(note.read_text(encoding="utf-8"))
        before = path.stat()
        new = path.with_name(f".{path.name}.shrunk")
        # A new file replaces it, as other processes may be reading the old one.
        with path.open("rb") as old, new.open("wb") as file:
            file.truncate(before.st_size)
            for start, end in state["kept"]:
                old.seek(start)
                file.seek(start)
                shutil.copyfileobj(_Part(old, end - start), file)
        os.utime(new, ns=(before.st_mtime_ns, before.st_mtime_ns))
        called = {name: True for name, stays in state["called"].items() if stays}
        note.write_text(json.dumps({**state, "there": state["kept"], "called": called}), encoding="utf-8")
        new.replace(path)
        return kept.bytes
    return 0


class _Part:
    """The next bytes of a file, as a file object."""

    def __init__(self, file: object, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(min(size, self._left) if size >= 0 else self._left)  # type: ignore[attr-defined]
        self._left -= len(data)
        return data


def _delete(folder: Path) -> None:
    """Delete a copy: its files first, the mark last."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
    for name in (MARK, "lock"):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
