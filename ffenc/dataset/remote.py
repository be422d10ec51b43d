"""Remote sources: metadata is fetched when a source is opened, frames when they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from ffenc.ffmpeg.boxes import fetch_index
from ffenc.frames.parquet import rows_needed
from ffenc.layout import INFO, OWN_INFO, TASKS, TASKS_V2
from ffenc.parallel.pool import run_units
from ffenc.storage.address import Address, parse_address
from ffenc.storage.mirror import fetched, mirror_of, open_mirror
from ffenc.storage.threads import FETCH_THREADS

if TYPE_CHECKING:
    from ffenc.storage.copy import Mirror

_SUMMARY = (INFO, OWN_INFO, TASKS, TASKS_V2)
Fetched = Literal["summary", "metadata", "indices", "everything"]


def source_path(source: str | Path, fetch: Fetched = "indices", name: str = "source") -> Path:
    """Return a local path for a source; for an address, a local copy that is filled as it is read.

    Args:
        source: a path, or the address of a dataset or a file.
        fetch: the part of a dataset that is fetched at once: ``summary``: ``info.json`` and the tasks;
            ``metadata``: all files below ``meta``; ``indices``: also the rows without images and the videos'
            indices; ``everything``. A source that is not a dataset is fetched completely.
        name: the argument that it is, for errors.

    Raises:
        ConfigError: not a path or an address, or a required library is not installed.
        SourceError: it does not exist or cannot be read.
    """
    place = parse_address(source, name)
    if isinstance(place, Path):
        return place
    mirror = open_mirror(place, _pinned(place))
    if fetch == "everything" or not (INFO in mirror.entries or mirror.is_file):
        mirror.fetch(list(mirror.entries), name="all")
    elif mirror.is_file:
        fetch_index(mirror.path)
    else:
        _fetch_dataset(mirror, fetch)
    return mirror.path


def _pinned(address: Address) -> Address:
    """Return a Hub address with its current commit, so that later changes are not read."""
    if address.scheme != "hf":
        return address
    from ffenc.storage.hub import commit_of  # noqa: PLC0415 - an extra

    return address.at(commit_of(address))


def _fetch_dataset(mirror: Mirror, fetch: Fetched) -> None:
    places = {place: PurePosixPath(place) for place in mirror.entries}
    meta = [place for place, path in places.items() if path.parts[0] == "meta"]
    mirror.fetch([place for place in meta if fetch != "summary" or place in _SUMMARY], name="all")
    if fetch in ("summary", "metadata"):
        return
    data = [place for place, path in places.items() if path.parts[0] == "data" and path.suffix == ".parquet"]
    fetch_rows([mirror.root / place for place in data])
    fetch_indices([mirror.root / place for place, path in places.items() if path.parts[0] == "videos"])


def fetch_rows(paths: Sequence[Path]) -> None:
    """Fetch all but the images of remote data files, several at once; do nothing for local files.

    Raises:
        SourceError: a file cannot be fetched.
    """
    _each(paths, lambda path: fetched(path, rows_needed, name="rows"))


def fetch_indices(paths: Sequence[Path]) -> None:
    """Fetch the indices of remote videos; see :func:`fetch_rows`."""
    _each(paths, fetch_index)


def _each(paths: Sequence[Path], fetch: Callable[[Path], None]) -> None:
    remote = [path for path in paths if mirror_of(path) is not None]
    for _ in run_units(remote, fetch, threads=FETCH_THREADS, stop=lambda: None):
        pass
