"""The remote datasets that this process has open, each with a local copy that is filled on demand."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from ffenc.errors import SourceError
from ffenc.storage.names import call
from ffenc.storage.ranges import Needs, everything

if TYPE_CHECKING:
    from ffenc.storage.address import Address
    from ffenc.storage.copy import Mirror
    from ffenc.storage.store import Entry


class MirrorOf(Struct, frozen=True):
    """The fields that another machine needs to create the same copy, as plain data.

    Attributes:
        address, pinned: the dataset; see :class:`Mirror`.
        root: folder of the copy.
        entries: its files.
    """

    address: Address
    pinned: Address
    root: Path
    entries: Mapping[str, Entry]


_mirrors: dict[Path, Mirror] = {}
_guard = threading.Lock()


def open_mirror(address: Address, pinned: Address | None = None) -> Mirror:
    """Create or update the local copy of a dataset; only the list of its files is fetched.

    Args:
        address: address of the dataset, or of one file.
        pinned: on the Hub, the address at the commit that is read.

    Raises:
        SourceError: as for :class:`Mirror`.
    """
    from ffenc.storage.copy import Mirror  # noqa: PLC0415 - every start asks here, and few datasets are remote
    from ffenc.storage.store import Store  # noqa: PLC0415

    pinned = pinned or address
    store = Store(pinned)
    entries = store.entries()
    with _guard:
        known = next((one for one in _mirrors.values() if one.address == address), None)
        if known is not None:
            if known.entries == entries and known.pinned == pinned:
                return known
            known.close()
            del _mirrors[known.root]
        return _add(Mirror(address, pinned, entries, store))


def attach(copies: Iterable[MirrorOf]) -> None:
    """Open the copies of another process, possibly on another machine, in this process.

    Raises:
        SourceError: as for :class:`Mirror`.
    """
    from ffenc.storage.copy import Mirror  # noqa: PLC0415 - as in open_mirror

    with _guard:
        for one in copies:
            known = _mirrors.get(one.root)
            if known is not None and known.entries == one.entries:
                continue
            if known is not None:
                known.close()
            made = Mirror(one.address, one.pinned, one.entries)
            if made.root != one.root:
                raise SourceError(
                    f"{one.address}: its local copy is in {one.root} on the machine where the job "
                    f"was started, but in {made.root} here; FFENC_CACHE has to be the same on all machines"
                )
            _add(made)


def _add(mirror: Mirror) -> Mirror:
    _mirrors[mirror.root] = mirror
    call(
        mirror.root,
        str(mirror.address).removesuffix(f"/{mirror.address.name}") if mirror.is_file else mirror.address,
    )
    return mirror


def open_copies() -> list[MirrorOf]:
    """Return the open copies, for :func:`attach`."""
    return [MirrorOf(one.address, one.pinned, one.root, one.entries) for one in list(_mirrors.values())]


def mirror_of(path: Path) -> Mirror | None:
    """Return the copy that contains a path; None: the path is a local file."""
    if not _mirrors:
        return None
    found = list(_mirrors.items())  # another thread may add one
    return next((one for root, one in found if path == root or root in path.parents), None)


@contextmanager
def held(*paths: Path, needs: Needs = everything, name: str = "all", keep: bool = False) -> Iterator[None]:
    """Fetch parts of files, and keep them while the block runs; local files need no action.

    Args:
        paths: the files.
        needs: returns the byte ranges that are needed.
        name: name of the request.
        keep: keep them as long as the dataset is open.

    Raises:
        SourceError: a file cannot be fetched.
    """
    if not _mirrors:
        yield
        return
    with ExitStack() as stack:
        for path in dict.fromkeys(paths):
            mirror = mirror_of(path)
            if mirror is not None:
                stack.enter_context(mirror.held(mirror.place_of(path), needs, name=name, keep=keep))
        yield


def fetched(path: Path, needs: Needs = everything, *, name: str = "all") -> None:
    """Fetch a part of a file, and keep it as long as its dataset is open; see :func:`held`."""
    with held(path, needs=needs, name=name, keep=True):
        pass


def version_of(path: Path) -> str | None:
    """Return a text that identifies the bytes of a remote file, wherever its copy is; None: a local file."""
    mirror = mirror_of(path)
    if mirror is None:
        return None
    place = mirror.place_of(path)
    entry = mirror.entries.get(place)
    return f"{mirror.address}/{place} {entry.size} {entry.version}" if entry is not None else None
