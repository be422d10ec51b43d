"""A remote destination: a dataset is created in a local folder and then uploaded, ``meta/info.json`` last.

Without ``meta/info.json`` no reader recognises a dataset, so that none sees a part of it. The local folder is
kept until the upload is complete: the next run continues an interrupted upload, without the files that
have arrived.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from ffenc.errors import DestinationError
from ffenc.layout import INFO
from ffenc.spelling import argument
from ffenc.storage.address import Address, parse_address
from ffenc.storage.folder import real_cache_folder
from ffenc.storage.mirror import mirror_of, open_mirror
from ffenc.storage.names import call
from ffenc.storage.store import Entry, Store
from ffenc.storage.threads import for_all

if TYPE_CHECKING:
    from ffenc.storage.claim import Claim

_log = logging.getLogger("ffenc")

THREADS = 4  # number of files that are uploaded at once


class _Upload(Struct, frozen=True):
    """The destination of a local folder."""

    address: Address
    root: Path
    overwrite: bool
    resume: bool


_uploads: dict[Path, _Upload] = {}


def destination_path(destination: str | Path, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Return the local folder to create a dataset in; for an address, :func:`publishing` uploads it.

    Args:
        destination: a path or an address.
        resume: continue an interrupted run, locally and at the address.
        overwrite: replace the dataset at the address.

    Raises:
        ConfigError: an invalid address, or a required package is not installed.
        DestinationError: something is already there, or ``overwrite`` for a local folder.
    """
    place = parse_address(destination, "destination")
    if isinstance(place, Path):
        if overwrite:
            raise DestinationError(
                f"{place}: {argument('overwrite', True)} applies to an address, such as "
                "s3://BUCKET/PATH; delete a local folder yourself"
            )
        return place
    folder = real_cache_folder() / "uploads" / hashlib.sha256(str(place).encode()).hexdigest()[:20]
    root = folder / place.name
    there = _look(place, resume=resume, overwrite=overwrite, waits=root.exists())
    if there is not None:
        return there
    if root.exists() and not resume:
        raise DestinationError(
            f"an interrupted run has left the complete dataset for {place} in {root}: continue "
            f"with {argument('resume', True)}, or delete that folder to start again"
        )
    _uploads[root] = _Upload(place, root, overwrite, resume)
    call(root, place)
    return root


def _look(address: Address, *, resume: bool, overwrite: bool, waits: bool) -> Path | None:
    """Reject an address that is in use; return a copy of its contents if they may be the complete result."""
    if address.scheme == "hf":
        from ffenc.storage.hub import check_free  # noqa: PLC0415

        check_free(address, resume=resume, overwrite=overwrite)
        return None
    entries = Store(address, writes=True).entries()
    if not entries:
        return None
    whole = INFO in entries
    if overwrite:
        if not whole and not resume:
            raise DestinationError(
                f"{address} holds {len(entries)} files and no {INFO}: {argument('overwrite', True)} replaces "
                f"datasets only. "
                "Delete what is there, or choose another address"
            )
        return None
    if whole and resume and not waits:
        copy = open_mirror(address)
        copy.fetch([place for place in entries if place.startswith("meta/")], name="all")
        return copy.path
    if whole and not waits:
        raise DestinationError(
            f"{address} holds a dataset; choose another address, or replace it with "
            f"{argument('overwrite', True)}"
        )
    if not resume:
        raise DestinationError(
            f"{address} is not empty: it holds {len(entries)} files and no {INFO}, as after an "
            f"interrupted upload. Continue with {argument('resume', True)}, delete them, or "
            "choose another address"
        )
    return None


def address_of(root: Path) -> Address | None:
    """Return the address that a local folder stands for, as an upload or a copy; None: an ordinary folder."""
    found = _uploads.get(root) or mirror_of(root)
    return found.address if found is not None else None


@contextmanager
def publishing(root: Path, on_bytes: Callable[[int, int], None] | None = None) -> Iterator[None]:
    """Lock the address that a folder stands for; after the block, upload the dataset in the folder.

    For an ordinary folder nothing is done.

    Args:
        root: from :func:`destination_path`; at the end of the block it contains a complete, verified dataset.
            The folder is deleted after the upload.
        on_bytes: called with the bytes uploaded so far and in total, from any thread.

    Raises:
        DestinationError: another run writes there, it cannot be written, or other files have appeared there.
            The folder is kept, and ``--resume`` continues the upload.
    """
    upload = _uploads.get(root)
    if upload is None:
        yield
        return
    with ExitStack() as stack:
        claim = None
        if upload.address.scheme != "hf":  # a commit on the Hub names its parent, so it needs no lock
            from ffenc.storage.claim import claimed  # noqa: PLC0415 - only buckets need it

            store = Store(upload.address, writes=True)
            claim = stack.enter_context(claimed(store, resume=upload.resume))
        yield
        _log.info("uploading to %s", upload.address)
        try:
            _send(upload, claim, on_bytes or (lambda *_: None))
        except DestinationError as error:
            kept = f"the complete dataset is kept on this machine: continue with {argument('resume', True)}"
            error.fix = f"{error.fix}; {kept}" if error.fix else kept
            raise
    del _uploads[root]
    shutil.rmtree(root, ignore_errors=True)
    with suppress(OSError):  # not empty
        root.parent.rmdir()


def _send(upload: _Upload, claim: Claim | None, on_bytes: Callable[[int, int], None]) -> None:
    if claim is None:
        from ffenc.storage.hub import push_folder  # noqa: PLC0415

        push_folder(upload.root, upload.address, overwrite=upload.overwrite, resume=upload.resume)
    else:
        _upload(upload, claim, on_bytes)


def _upload(upload: _Upload, claim: Claim, on_bytes: Callable[[int, int], None]) -> None:
    store = Store(upload.address, writes=True)
    files = {
        path.relative_to(upload.root).as_posix(): path for path in upload.root.rglob("*") if path.is_file()
    }
    sizes = {place: path.stat().st_size for place, path in files.items()}
    total, sent = sum(sizes.values()), 0
    guard = threading.Lock()
    found = store.entries()
    others = sorted(found.keys() - files.keys())
    if not upload.overwrite:
        _check_others(upload, store, files, found, others)
    if INFO in found and upload.overwrite:
        store.remove(INFO)  # until the end this is not a dataset for readers
        del found[INFO]
    arrived: dict[str, Entry] = {}

    def send(place: str) -> None:
        nonlocal sent
        claim.check()
        there = found.get(place)
        if there is None or not store.same(files[place], place, there):
            there = store.put(files[place], place)
        with guard:
            arrived[place] = there
            sent += sizes[place]
            on_bytes(sent, total)

    for_all((place for place in sorted(files) if place != INFO), send, threads=THREADS)
    for place in others:
        store.remove(place)
    claim.check(ask=True)
    _check_arrived(store, arrived)
    send(INFO)


def _check_arrived(store: Store, arrived: Mapping[str, Entry]) -> None:
    """Check that no other writer has changed the files since their upload, before info.json is written.

    Raises:
        DestinationError: a file has changed.
    """
    found = {place: entry for place, entry in store.entries().items() if place != INFO}
    for place in sorted(found.keys() | arrived.keys()):
        there, own = found.get(place), arrived.get(place)
        if there is None or own is None or (there.size, there.version) != (own.size, own.version):
            what = "is gone" if there is None else "was written" if own is None else "was rewritten"
            raise DestinationError(
                f"{store.address}/{place} {what} by someone else while the dataset was uploaded; "
                f"no {INFO} was written there"
            )


def _check_others(
    upload: _Upload, store: Store, files: dict[str, Path], found: dict[str, Entry], others: list[str]
) -> None:
    """Reject a destination with other files."""
    if others:
        raise DestinationError(
            f"{upload.address} contains other files ({others[0]} and {len(others) - 1} more); "
            "choose another address, or delete them"
        )
    for place, entry in found.items():
        if not upload.resume or (place == INFO and not store.same(files[place], place, entry)):
            raise DestinationError(
                f"{upload.address} was taken since this run began ({place} exists); choose another address"
            )
