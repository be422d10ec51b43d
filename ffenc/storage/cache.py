"""The folder of local copies: how large it may become, and what is deleted where it is full."""

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
from ffenc.spelling import argument
from ffenc.storage.folder import real_cache_folder

MARK = "ffenc-copy.json"
"""In every folder that is a copy: whose it is. What has no such file is never deleted."""

DEFAULT_SIZE = 50 * 10**9
_UNITS = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_KEY = re.compile(r"[0-9a-f]{20}")


def copies_folder() -> Path:
    """Where the copies of remote datasets are."""
    return real_cache_folder() / "datasets"


def size_limit() -> int:
    """How many bytes copies may take: ``FFENC_CACHE_SIZE``, such as ``20GB``.

    Raises:
        ConfigError: it is no size.
    """
    text = os.environ.get("FFENC_CACHE_SIZE", "")
    if not text:
        return DEFAULT_SIZE
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(kB|MB|GB|TB|)", text)
    if match is None:
        raise ConfigError(f"FFENC_CACHE_SIZE={text!r} is not a size", expected="such as 500MB, 20GB or 1TB")
    return int(float(match[1]) * _UNITS[match[2]])


class _Kept(Struct, frozen=True):
    """A file that could be deleted, in part or whole."""

    folder: Path
    root: Path
    place: str
    used: float
    bytes: int


class Cache:
    """Makes room for what is fetched: what was used longest ago is deleted first.

    Of datasets that some process has open, only what can be fetched again when it is asked for; and nothing
    that is in use at the moment.
    """

    _guard = threading.Lock()
    _taken: dict[Path, int] = {}  # noqa: RUF012 - one count a folder, for all datasets of this process

    def make_room(self, size: int, own: Path) -> None:
        """See to it that so many bytes more do not exceed the limit.

        Args:
            size: how many.
            own: the folder of the dataset they are for.

        Raises:
            SourceError: they do, whatever is deleted.
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
    """The folders that carry the mark."""
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
    """Delete what was used longest ago, until so many bytes are free; returns how many are."""
    freed = 0
    for one in sorted(_copies(folder), key=_last_used):
        if freed >= needed:
            return freed
        if one == own:
            continue
        with (one / "lock").open("a", encoding="utf-8") as lock:
            if _locked(lock.fileno()):
                size = _bytes_in(one)
                _delete(one)
                freed += size
    for kept in sorted((k for one in _copies(folder) for k in _files(one)), key=lambda kept: kept.used):
        if freed >= needed:
            break
        freed += _shrink(kept)
    return freed


def _last_used(folder: Path) -> float:
    times = [path.stat().st_mtime for path in (folder / "state").rglob("*.json")]
    return max(times, default=(folder / MARK).stat().st_mtime)


def _files(folder: Path) -> Iterator[_Kept]:
    root = next((one for one in folder.iterdir() if one.is_dir() and one.name != "state"), None)
    for path in (folder / "state").rglob("*.json"):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            state = json.loads(path.read_text(encoding="utf-8"))
            more = sum(b - a for a, b in state["there"]) - sum(b - a for a, b in state["kept"])
            if root is not None and more > 0:
                place = path.relative_to(folder / "state").as_posix().removesuffix(".json")
                yield _Kept(folder, root, place, path.stat().st_mtime, more)


def _shrink(kept: _Kept) -> int:
    """Make holes of what of a file is not kept, unless it is in use; returns how many bytes are free then."""
    note = kept.folder / "state" / f"{kept.place}.json"
    path = kept.root / kept.place
    with contextlib.suppress(OSError), note.with_suffix(".lease").open("a", encoding="utf-8") as lease:
        if not _locked(lease.fileno()):
            return 0
        state = json.loads(note.read_text(encoding="utf-8"))
        before = path.stat()
        new = path.with_name(f".{path.name}.shrunk")
        # Whoever has the old file open goes on reading it.
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
    """The next bytes of a file, as a file."""

    def __init__(self, file: object, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(min(size, self._left) if size >= 0 else self._left)  # type: ignore[attr-defined]
        self._left -= len(data)
        return data


def _delete(folder: Path) -> None:
    """Delete a copy: its own files, the mark last."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
    for name in (MARK, "lock"):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _locked(descriptor: int) -> bool:
    import fcntl  # noqa: PLC0415 - not on Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
