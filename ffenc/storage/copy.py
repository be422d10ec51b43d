"""The local copy of a remote dataset: a folder with all its files, but only the bytes that were read.

Every file has its size and modification time from the start, so that code that lists folders works as with a
local dataset; its bytes are holes until :meth:`Mirror.fetch` downloads them. The state of each file, with its
version in the store, is recorded beside the folder; a new version is an error, never mixed with the old one.

Copies are kept for later runs, in a folder of limited size (``storage/cache.py``).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from msgspec import Struct

from ffenc.errors import SourceError
from ffenc.fields import plain_fields
from ffenc.locks import is_at, locked
from ffenc.paths import inside
from ffenc.storage.address import Address
from ffenc.storage.cache import MARK, Cache, copies_folder
from ffenc.storage.ranges import Needs, Range, blocks, everything, joined, missing
from ffenc.storage.store import BLOCK, Entry, MissingError, Store, file_hash

_ALIGNED = 64 << 10  # bytes: fetched ranges begin and end at multiples of it


class _State(Struct):
    """The state of a file in the copy.

    Attributes:
        version: version in the store.
        there: byte ranges that are fetched.
        kept: those that stay while the dataset is open; the others can be deleted to make room.
        called: names of fetched requests -> whether their bytes stay.
    """

    version: str
    there: list[Range]
    kept: list[Range]
    called: dict[str, bool]


class Mirror:
    """The copy of a dataset.

    Args:
        address: address of the dataset, or of one file.
        pinned: on the Hub, the address at the commit that is read.
        entries: its files.
        store: the store; None: it is opened when something has to be fetched.

    Raises:
        SourceError: nothing is at the address, it cannot be listed, or it has changed while another run reads
            the previous version.
    """

    def __init__(
        self, address: Address, pinned: Address, entries: Mapping[str, Entry], store: Store | None = None
    ) -> None:
        self.address, self.pinned = address, pinned
        self._store = store
        self.entries = dict(entries)
        if not self.entries:
            raise SourceError(
                f"{address} does not exist or is empty", expected="a dataset with meta/info.json"
            )
        key = hashlib.sha256(str(address).encode()).hexdigest()[:20]
        self.folder = copies_folder() / key
        self.root = self.folder / (address.name or "dataset")
        self._cache = Cache()
        self.is_file = set(self.entries) == {address.name}
        self._open: int | None = None
        for place in self.entries:
            inside(self.root, place, str(address))
            for folder in PurePosixPath(place).parents:
                if str(folder) in self.entries:
                    raise SourceError(
                        f"{address}: {folder} is a file, but {place} needs a folder of this name; delete or "
                        "rename one of them"
                    )
        try:
            self._lay_out()
        except OSError as error:
            raise SourceError(
                f"{self.folder}: the local copy of {address} cannot be written: {error.strerror}. "
                "Set FFENC_CACHE to another folder"
            ) from None

    @property
    def store(self) -> Store:
        """The store with the files."""
        if self._store is None:
            self._store = Store(self.pinned)
        return self._store

    @property
    def path(self) -> Path:
        """Path of the copy: a folder, or a file if the address is of a file."""
        return self.root / self.address.name if self.is_file else self.root

    def close(self) -> None:
        """Release the copy, so that others can delete it."""
        if self._open is not None:
            os.close(self._open)
            self._open = None

    # --- creating the folder ----------------------------------------------------------------------------

    def _lay_out(self) -> None:
        """Create the folder, and hold its lock.

        Until it is held, another process that needs room may delete the folder and the file of the lock.
        """
        while not self._laid_out():
            self.close()

    def _laid_out(self) -> bool:
        """Return whether the folder is complete and its lock is held: not if another process deleted it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock, manifest = self.folder / "lock", self.folder / MARK
        try:
            # Open as long as the process runs; a Python file object would warn that it was not closed.
            self._open = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            if self.folder.exists():
                raise
            return False
        content: dict[str, Any] = {
            "address": str(self.address),
            "files": {place: plain_fields(entry) for place, entry in sorted(self.entries.items())},
        }
        if locked(self._open):
            if not is_at(self._open, lock):
                return False
            before: dict[str, Any] = _read_json(manifest).get("files", {})
            for place in before.keys() - self.entries.keys():
                self._forget(place)
            for place, entry in self.entries.items():
                if before.get(place) != content["files"][place] or not (self.root / place).exists():
                    self._forget(place)
                    self._make_hole(place, entry)
            _write_json(manifest, content)
            # The lock is released for a moment while it changes.
            locked(self._open, exclusive=False, wait=True)
            return is_at(self._open, lock)
        locked(self._open, exclusive=False, wait=True)
        if not is_at(self._open, lock):
            return False
        if _read_json(manifest) != content:
            self.close()
            raise SourceError(
                f"{self.address} has changed, and another run of ffenc still reads the previous "
                "version; wait until it ends"
            )
        return True

    def _forget(self, place: str) -> None:
        for path in (self.root / place, self._state_path(place)):
            path.unlink(missing_ok=True)

    def _make_hole(self, place: str, entry: Entry) -> None:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(entry.size)
        os.utime(path, (entry.changed, entry.changed))

    def _state_path(self, place: str) -> Path:
        return self.folder / "state" / f"{place}.json"

    def place_of(self, path: Path) -> str:
        """Return the path in the dataset of a path in the copy."""
        return path.relative_to(self.root).as_posix()

    # --- fetching ---------------------------------------------------------------------------------------

    @contextmanager
    def held(self, place: str, needs: Needs = everything, *, name: str, keep: bool = False) -> Iterator[None]:
        """Fetch a part of a file, and keep it while the block runs.

        Args:
            place: path of the file in the dataset.
            needs: returns the byte ranges that are needed.
            name: name of the request, by which its bytes are found again.
            keep: keep them as long as the dataset is open.

        Raises:
            SourceError: the file cannot be read, or has changed since the dataset was opened.
        """
        if place not in self.entries:
            yield
            return
        with self._lease(place):
            self._fetch(place, needs, name, keep)
            yield

    def fetch(
        self, places: Collection[str], needs: Needs = everything, *, name: str, keep: bool = True
    ) -> None:
        """Fetch parts of several files at once; see :meth:`held`."""

        def one(place: str) -> None:
            with self.held(place, needs, name=name, keep=keep):
                pass

        from ffenc.storage.threads import FETCH_THREADS, for_all  # noqa: PLC0415 - only remote datasets need it

        for_all(places, one, threads=FETCH_THREADS)

    @contextmanager
    def _lease(self, place: str) -> Iterator[None]:
        """Prevent other processes from deleting a file's bytes."""
        path = self._state_path(place).with_suffix(".lease")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            locked(file, exclusive=False, wait=True)
            yield

    def _fetch(self, place: str, needs: Needs, name: str, keep: bool) -> None:
        path = self._state_path(place)
        if _has(self._state(place), name, keep):
            with contextlib.suppress(OSError):
                os.utime(path)  # the least recently used is deleted first
            return
        with path.with_suffix(".fetch").open("a", encoding="utf-8") as file:
            locked(file, wait=True)
            state = self._state(place)
            if _has(state, name, keep):
                return
            entry = self.entries[place]
            try:
                self._bring(place, entry, state, needs, keep)
            except OSError as error:
                raise self._no_room(place, error) from None
            except MissingError as error:
                raise SourceError(
                    f"{self.address}/{place} disappeared after the dataset was opened: {error}"
                ) from None
            state.called[name] = keep
            _write_json(path, plain_fields(state))

    def _bring(self, place: str, entry: Entry, state: _State, needs: Needs, keep: bool) -> None:
        before, used = list(state.there), list[Range]()
        with (self.root / place).open("r+b") as file:

            def read(start: int, end: int) -> bytes:
                used.append((max(start, 0), min(end, entry.size)))
                self._fill(place, file, state, used[-1:])
                file.seek(start)
                return file.read(end - start)

            wanted = list(needs(read, entry.size))
            self._fill(place, file, state, wanted)
            file.flush()
            os.fdatasync(file.fileno()) if hasattr(os, "fdatasync") else os.fsync(file.fileno())
        if state.there != before:
            self._check_version(place, entry)
            if state.there == [(0, entry.size)]:
                self._check_bytes(place, entry)
        if keep:
            state.kept = joined([*state.kept, *used, *wanted, *missing(state.there, before)])
        os.utime(self.root / place, (entry.changed, entry.changed))

    def _fill(self, place: str, file: IO[bytes], state: _State, wanted: Sequence[Range]) -> None:
        size = self.entries[place].size
        # Whole blocks: a request costs more than the surplus bytes.
        around = [
            (start // _ALIGNED * _ALIGNED, min(-(-end // _ALIGNED) * _ALIGNED, size))
            for start, end in missing(wanted, state.there)
        ]
        lacking = missing(around, state.there)
        if not lacking:
            return
        self._cache.make_room(sum(end - start for start, end in lacking), self.folder)
        for start, end in blocks(lacking, BLOCK):
            data = self.store.read(place, start, end)
            file.seek(start)
            file.write(data)
            state.there = joined([*state.there, (start, end)])
        file.flush()

    def _check_version(self, place: str, entry: Entry) -> None:
        """Reject a file that was replaced since the dataset was opened."""
        found = self.store.entry(place)
        if (found.size, found.version) != (entry.size, entry.version):
            self._discard(place)
            raise SourceError(
                f"{self.address}/{place} was changed while it was read ({entry.size:,} bytes, version "
                f"{entry.version}; now {found.size:,} bytes, version {found.version}); run it "
                "again when nobody writes there"
            )

    def _check_bytes(self, place: str, entry: Entry) -> None:
        """Compare a completely fetched file with the store's checksum."""
        path = self.root / place
        if not entry.differs(path):
            return
        # With a bucket's encryption the checksum may not be the MD5: then a second download must be equal.
        digest = hashlib.sha256()
        for start, end in blocks([(0, entry.size)], BLOCK):
            digest.update(self.store.read(place, start, end))
        if entry.sha256 is not None or digest.hexdigest() != file_hash(path, "sha256"):
            self._discard(place)
            raise SourceError(
                f"{self.address}/{place}: the download does not match the store's checksum; run it again"
            )

    def _discard(self, place: str) -> None:
        self._state_path(place).unlink(missing_ok=True)

    def _state(self, place: str) -> _State:
        """Return the state of a file, as recorded by this or another process."""
        entry = self.entries[place]
        found = _read_json(self._state_path(place))
        try:
            state = _State(
                found["version"],
                [(int(a), int(b)) for a, b in found["there"]],
                [(int(a), int(b)) for a, b in found["kept"]],
                {str(name): bool(stays) for name, stays in found["called"].items()},
            )
        except (LookupError, TypeError, ValueError):
            return _State(entry.version, [], [], {})
        if state.version != entry.version:
            raise SourceError(
                f"{self.address}/{place} was changed after the dataset was opened; run it again "
                "when nobody writes there"
            )
        return state

    def _no_room(self, place: str, error: OSError) -> SourceError:
        what = (
            f"{self.folder}: the copy of {self.address}/{place} cannot be written: {error.strerror or error}"
        )
        if error.errno == errno.ENOSPC:
            what += ". Set FFENC_CACHE to a folder on another disk, or limit its size with FFENC_CACHE_SIZE"
        return SourceError(what)


def _has(state: _State, name: str, keep: bool) -> bool:
    """Return whether the bytes of a request are there, and stay if they have to."""
    return name in state.called and (state.called[name] or not keep)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.new")
    new.write_text(json.dumps(content), encoding="utf-8")
    new.replace(path)
