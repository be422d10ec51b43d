"""HDF5 files: those of ALOHA and robomimic, and others with a mapping."""

from __future__ import annotations

import itertools
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffenc.dataset.sources.array_kind import array_kind
from ffenc.dataset.sources.arrays import Array, ArrayFile, ArrayInfo, ArrayReader, by_number
from ffenc.errors import ConfigError, SourceError
from ffenc.paths import regular

if TYPE_CHECKING:
    import h5py

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUFFIXES = (".hdf5", ".h5", ".hdf")
_MOST_OBJECTS = 100_000
_MOST_LEVELS = 64  # of nested groups
_MOST_DEPTH, _MOST_LINKS = 16, 64  # of links to links
_DEFLATE_RATIO = 1032  # deflate's highest compression ratio
_MOST_INFLATED = 256 << 20  # bytes of a decompressed chunk, whatever size it states
_FAULTS = (zlib.error, OSError, RuntimeError, ValueError, KeyError, TypeError, NotImplementedError)


class _Hdf5Reader(ArrayReader):
    def __init__(self, path: Path, file: h5py.File) -> None:
        super().__init__(path)
        self._file = file
        self._depth = self._followed = 0  # of links to links, for one path

    def arrays(self) -> list[ArrayInfo]:
        import h5py  # noqa: PLC0415 - an extra

        found: list[ArrayInfo] = []
        seen: set[tuple[int, int]] = set()
        waiting = [""]
        while waiting:
            place = waiting.pop()
            thing = self._get(place)
            if thing is None:
                continue
            if isinstance(thing, h5py.Dataset):
                found.append(self._described(place, thing))
                continue
            if not isinstance(thing, h5py.Group):
                continue
            with self._named(place):
                about = h5py.h5o.get_info(thing.id)
                if (mark := (about.fileno, about.addr)) in seen:
                    continue  # a link to a group from inside that group
                names = sorted(thing, key=by_number, reverse=True)
            seen.add(mark)
            waiting += [f"{place}/{name}".strip("/") for name in names]
            if place.count("/") > _MOST_LEVELS:
                raise SourceError(f"{self.path}: has groups within groups, more than {_MOST_LEVELS} deep")
            if len(waiting) + len(found) > _MOST_OBJECTS:
                raise SourceError(f"{self.path}: has more than {_MOST_OBJECTS:,} groups and arrays")
        return found

    def find(self, path: str) -> ArrayInfo | None:
        import h5py  # noqa: PLC0415 - an extra

        thing = self._get(path)
        return self._described(path, thing) if isinstance(thing, h5py.Dataset) else None

    def read(self, path: str, first: int, stop: int) -> Array:
        dataset = self._get(path)
        with self._named(path):
            if dataset.shape == ():
                return np.asarray([dataset[()]])
            if dataset.shape is None:
                raise SourceError(f"{self.path}: {path} is empty; leave it out, or restore it")
            self._check_chunks(path, dataset, first, stop)
            return np.asarray(dataset[first:stop])

    def _check_chunks(self, path: str, dataset: h5py.Dataset, first: int, stop: int) -> None:
        """Reject chunks that decompress to more than a chunk's size: HDF5 would allocate the memory first."""
        if not dataset.chunks or dataset.compression != "gzip":
            return
        whole = math.prod(dataset.chunks) * dataset.dtype.itemsize
        rows = range(
            first // dataset.chunks[0] * dataset.chunks[0], min(stop, dataset.shape[0]), dataset.chunks[0]
        )
        others = [range(0, n, c) for n, c in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)]
        for place in itertools.product(rows, *others):
            info = dataset.id.get_chunk_info_by_coord(place)
            if info.byte_offset is None or info.size * _DEFLATE_RATIO <= _MOST_INFLATED:
                continue
            mask, packed = dataset.id.read_direct_chunk(place)
            if not mask and len(zlib.decompressobj().decompress(packed, whole + 1)) > whole:
                raise SourceError(
                    f"{self.path}: {path}, row {place[0]}: its chunk decompresses to more than the {whole:,} "
                    "bytes that a chunk has; it is damaged"
                )

    def attributes(self, path: str) -> Mapping[str, Any]:
        thing = self._get(path)
        if thing is None:
            return {}
        with self._named(path):
            return {str(name): thing.attrs[name] for name in thing.attrs}

    def missing_chunks(self, path: str) -> int:
        dataset = self._get(path)
        with self._named(path):
            if not dataset.chunks:
                return 0
            wanted: int = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
            return max(0, wanted - int(dataset.id.get_num_chunks()))

    def subgroups(self, path: str) -> list[str]:
        import h5py  # noqa: PLC0415 - an extra

        group = self._get(path)
        with self._named(path):
            names = list(group) if isinstance(group, h5py.Group) else []
        return [name for name in names if isinstance(self._get(f"{path}/{name}"), h5py.Group)]

    def _get(self, path: str) -> Any:
        """Return the object at a path; None if it does not exist. Links to other files are not followed."""
        import h5py  # noqa: PLC0415 - an extra

        thing: Any = self._file
        for name in filter(None, path.split("/")):
            with self._named(path):
                if not isinstance(thing, h5py.Group) or name not in thing.keys():  # noqa: SIM118 - `in` follows links
                    return None
                link = thing.get(name, getlink=True)
                if isinstance(link, h5py.ExternalLink):
                    raise SourceError(
                        f"{self.path}: {path} is a link to another file, {link.filename!r}, which is not "
                        "followed; copy its target into this file"
                    )
                if isinstance(link, h5py.SoftLink):
                    target = link.path if link.path.startswith("/") else f"{thing.name}/{link.path}"
                    thing = self._get_linked(path, target)
                else:
                    thing = thing.get(name)
        return thing

    def _get_linked(self, path: str, target: str) -> Any:
        self._followed = self._followed + 1 if self._depth else 1
        self._depth += 1
        try:
            if self._depth > _MOST_DEPTH or self._followed > _MOST_LINKS:
                raise SourceError(f"{self.path}: {path} is a link to itself, or a chain of too many links")
            return self._get(target)
        finally:
            self._depth -= 1

    def _described(self, path: str, dataset: h5py.Dataset) -> ArrayInfo:
        with self._named(path):
            if dataset.external or dataset.is_virtual:
                raise SourceError(
                    f"{self.path}: {path} has its values in another file, which is not followed; copy them "
                    "into "
                    "this file"
                )
            stored = int(dataset.id.get_storage_size())
            shape = tuple(dataset.shape or ())
            if not stored and shape and 0 not in shape and dataset.dtype.kind != "V":
                raise SourceError(
                    f"{self.path}: {path} has {'x'.join(map(str, shape))} values, none of which "
                    "was written; restore the file"
                )
            chunk = dataset.chunks[0] if dataset.chunks else 0
            return ArrayInfo(path, shape, dataset.dtype, stored, chunk)

    @contextmanager
    def _named(self, path: str) -> Iterator[None]:
        """Add the array's path to errors."""
        try:
            yield
        except _FAULTS as error:
            raise SourceError(f"{self.path}: {path or '/'}: {_told(error)}") from None


class Hdf5File(ArrayFile):
    """An HDF5 file."""

    @contextmanager
    def open(self) -> Iterator[_Hdf5Reader]:
        try:
            import h5py  # noqa: PLC0415 - an extra
        except ImportError:
            raise ConfigError(
                f"{self.path} is an HDF5 file, and reading one needs h5py: pip install 'ffenc[hdf5]'"
            ) from None
        try:
            file = h5py.File(regular(self.path), "r", locking=False)
        except _FAULTS as error:
            raise SourceError(
                f"{self.path}: cannot be read as HDF5: {_told(error)}; it is damaged, or cut short"
            ) from None
        with file:
            yield _Hdf5Reader(self.path, file)


def _told(error: Exception) -> str:
    """Return a library's error message without the parts that do not help a user."""
    text = str(error.args[0] if error.args else error)
    lacking = "not registered" in text or "not available" in text
    if "plugin" in text or ("filter" in text and lacking):
        return (
            "it is compressed by a filter that h5py does not have (pip install hdf5plugin installs "
            "the most common ones)"
        )
    found = re.search(r"\((.*)\)$", text)
    return found[1] if found else text


def _is_hdf5(path: Path) -> bool:
    if path.is_dir():
        tree = any(one.is_dir() for one in path.glob("episode[-_]*")) or (path / "images").is_dir()
        return bool(files_of(path)) and not tree
    with path.open("rb") as file:
        return file.read(len(_SIGNATURE)) == _SIGNATURE or path.suffix.lower() in _SUFFIXES


def files_of(path: Path) -> list[Path]:
    """Return the HDF5 files of a folder, in numeric order; or the file."""
    if not path.is_dir():
        return [path]
    found = [one for one in path.iterdir() if one.suffix.lower() in _SUFFIXES and one.name[0] != "."]
    return sorted(found, key=lambda one: by_number(one.name))


KIND = array_kind(
    "an HDF5 file",
    "HDF5 files",
    recognises=_is_hdf5,
    files=lambda path: [Hdf5File(one) for one in files_of(path)],
)
