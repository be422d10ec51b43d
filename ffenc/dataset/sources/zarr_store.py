"""Zarr stores, v2 and v3: replay buffers of Diffusion Policy and UMI, and others with a mapping."""

from __future__ import annotations

import contextlib
import os
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from msgspec import Struct

from ffenc.dataset.sources.array_kind import array_kind
from ffenc.dataset.sources.arrays import Array, ArrayFile, ArrayInfo, ArrayReader, by_number
from ffenc.dataset.sources.zarr_chunks import Chunks, chunks_of
from ffenc.errors import ConfigError, SourceError
from ffenc.paths import regular

_MARKS = (".zgroup", ".zarray", ".zmetadata", "zarr.json")
_METADATA = (*_MARKS, ".zattrs")
_WHOLE = slice(None)
_MOST_OBJECTS = 100_000
_MOST_METADATA, _MOST_CHUNK = 16 << 20, 512 << 20  # decompressed bytes of a file in a zip file


class _ZarrReader(ArrayReader):
    def __init__(self, file: ZarrFile, group: Any) -> None:
        super().__init__(file.path)
        self._zarr, self._group = file, group
        self._known: dict[str, Any] = {}
        self._chunks: dict[str, Chunks] = {}
        self._checked: set[str] = set()

    def arrays(self) -> list[ArrayInfo]:
        found: list[ArrayInfo] = []
        waiting = [""]
        while waiting:
            place = waiting.pop()
            with self._named(place):
                group = self._at(place)
                names = sorted((name for name, _ in group.arrays()), key=by_number)
                found += [self._described(f"{place}/{name}".strip("/")) for name in names]
            waiting += [f"{place}/{name}".strip("/") for name in reversed(self.subgroups(place))]
            if len(waiting) + len(found) > _MOST_OBJECTS:
                raise SourceError(f"{self.path}: has more than {_MOST_OBJECTS:,} groups and arrays")
        return found

    def find(self, path: str) -> ArrayInfo | None:
        with self._named(path):
            there = self._at(path)
            return None if there is None or not hasattr(there, "shape") else self._described(path)

    def read(self, path: str, first: int, stop: int) -> Array:
        with self._named(path):
            array = self._at(path)
            self._check_chunks(path, array, first, stop)
            return np.asarray(array[first:stop] if array.shape else [array[()]])

    def _check_chunks(self, path: str, array: Any, first: int, stop: int) -> None:
        """Reject a chunk that decompresses to more than the array's chunk size, before it is decompressed."""

        def read(key: str) -> bytes | None:
            if key in self._checked:
                return None
            self._checked.add(key)
            return self._zarr.bytes_of(key)

        self._chunks_of(path, array).check(first, stop, read)

    def _chunks_of(self, path: str, array: Any) -> Chunks:
        if path not in self._chunks:
            self._chunks[path] = chunks_of(array, f"{self.path}: {path}")
        return self._chunks[path]

    def attributes(self, path: str) -> Mapping[str, Any]:
        with self._named(path):
            there = self._at(path)
            return {} if there is None else dict(there.attrs)

    def missing_chunks(self, path: str) -> int:
        with self._named(path):
            chunks = self._chunks_of(path, self._at(path))
            return chunks.missing(self._zarr.keys(path), self._zarr.bytes_of)

    def subgroups(self, path: str) -> list[str]:
        with self._named(path):
            there = self._at(path)
            if there is None or hasattr(there, "shape"):
                return []
            return sorted((name for name, _ in there.groups()), key=by_number)

    def _at(self, path: str) -> Any:
        """Return the object at a path; None if the path does not exist."""
        if path not in self._known:
            try:
                self._known[path] = self._group[path] if path else self._group
            except KeyError:
                return None
        return self._known[path]

    def _described(self, path: str) -> ArrayInfo:
        array = self._at(path)
        # Only this codec can run code from a file.
        if "pickle" in f"{getattr(array, 'metadata', '')} {getattr(array, 'filters', '')}".lower():
            raise SourceError(
                f"{self.path}: {path} is stored as Python pickles, which can run any program; it is not read"
            )
        kind = np.dtype(array.dtype)
        chunk = array.chunks[0] if array.shape and array.chunks else 0
        return ArrayInfo(path, tuple(array.shape), kind, self._zarr.stored(path), int(chunk))

    @contextmanager
    def _named(self, path: str) -> Iterator[None]:
        """Add the array's path to errors, including those of codecs."""
        try:
            yield
        except (SourceError, ConfigError, MemoryError):
            raise
        except Exception as error:
            raise SourceError(f"{self.path}: {path or '/'}: {_told(error)}") from None


class ZarrFile(ArrayFile):
    """A zarr store: a folder, or a zip file of one.

    What is listed of it is kept: a store can have a file for each frame, and is opened for each episode. An
    open zip file is kept too: to open it, its whole directory is read.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._lock = threading.Lock()
        self._zip: tuple[Any, zipfile.ZipFile] | None = None  # as zarr's store, and for chunks as stored
        self._known: dict[str, _Stored] = {}
        self._fingerprints: dict[str, str] = {}

    def __reduce__(self) -> tuple[type[ZarrFile], tuple[Path]]:
        """Pickle a store as its path; it is opened again in the other process."""
        return ZarrFile, (self.path,)

    @contextmanager
    def open(self) -> Iterator[_ZarrReader]:
        try:
            import zarr  # noqa: PLC0415 - an extra
        except ImportError:
            raise ConfigError(
                f"{self.path} is a zarr store, and reading one needs zarr: pip install 'ffenc[zarr]'"
            ) from None
        with contextlib.suppress(ImportError):  # UMI's images are JPEG XL, by these codecs
            from imagecodecs.numcodecs import register_codecs  # noqa: PLC0415

            register_codecs(verbose=False)
        store: Any = str(self.path) if self.path.is_dir() else self._opened()[0]
        try:
            group = zarr.open_group(store, mode="r")
        except Exception as error:
            raise SourceError(f"{self.path}: cannot be read as zarr: {_told(error)}; it is damaged") from None
        yield _ZarrReader(self, group)

    def _opened(self) -> tuple[Any, zipfile.ZipFile]:
        """Return the open zip file, as zarr's store and as itself; threads can read from both."""
        import zarr  # noqa: PLC0415 - an extra

        with self._lock:
            if self._zip is None:
                with _zip_faults(self.path):
                    packed = zipfile.ZipFile(regular(self.path))
                try:
                    self._check_sizes(packed)
                    kinds: Any = getattr(zarr, "storage", zarr)
                    self._zip = kinds.ZipStore(str(self.path), mode="r"), packed
                except BaseException:
                    packed.close()
                    raise
            return self._zip

    def files(self, array: str) -> list[Path]:
        return self._listed(array).files

    def fingerprint(self, array: str) -> str:
        if array not in self._fingerprints:
            self._fingerprints[array] = super().fingerprint(array)
        return self._fingerprints[array]

    def keys(self, array: str) -> list[str]:
        """Return the keys of all files in the folder of an array."""
        return self._listed(array).keys

    def stored(self, array: str) -> int:
        """Return the stored bytes of an array."""
        return self._listed(array).bytes

    def _listed(self, array: str) -> _Stored:
        if array not in self._known:
            sizes: dict[str, int] = {}
            files: list[Path] = []
            if self.path.is_dir():
                for where, _, names in os.walk(self.path / array):
                    paths = [Path(where, name) for name in names]
                    place = Path(where).relative_to(self.path).as_posix()
                    sizes |= {f"{place}/{path.name}": path.stat().st_size for path in paths}
                    files += paths
                files.sort()
            else:
                files = [self.path]
                every = self._opened()[1].infolist()
                sizes = {i.filename: i.compress_size for i in every if i.filename.startswith(f"{array}/")}
            self._known[array] = _Stored(files, list(sizes), sum(sizes.values()))
        return self._known[array]

    def bytes_of(self, key: str, part: slice = _WHOLE) -> bytes | None:
        """Return what is stored at a key, or a part of it; None if nothing is."""
        try:
            if self.path.is_dir():
                file: IO[bytes] = regular(self.path / key).open("rb")
                size = os.fstat(file.fileno()).st_size
            else:
                packed = self._opened()[1]
                file, size = packed.open(key), packed.getinfo(key).file_size
        except (FileNotFoundError, NotADirectoryError, KeyError):
            return None
        start, stop, _ = part.indices(size)
        with file:
            file.seek(start)
            return file.read(stop - start)

    def _check_sizes(self, packed: zipfile.ZipFile) -> None:
        """Reject files that are larger than any supported metadata or chunk."""
        for one in packed.infolist():
            most = _MOST_METADATA if one.filename.rpartition("/")[2] in _METADATA else _MOST_CHUNK
            if one.file_size > most:
                raise SourceError(
                    f"{self.path}: {one.filename} has {one.file_size:,} bytes decompressed; at most "
                    f"{most >> 20} MB are read at once"
                )


class _Stored(Struct, frozen=True):
    """What a store has of an array: the files on disk, their keys, and their bytes."""

    files: list[Path]
    keys: list[str]
    bytes: int


def _told(error: Exception) -> str:
    text = str(error.args[0] if error.args else error) or type(error).__name__
    if "codec not available" in text or "unknown codec" in text.lower():
        hint = " (pip install 'ffenc[umi]')" if "imagecodecs" in text else ""
        return f"{text}: its compression is not supported here{hint}"
    return text


def _is_zarr(path: Path) -> bool:
    if path.is_dir():
        return any((path / mark).is_file() for mark in _MARKS)
    if path.suffix.lower() != ".zip" or not zipfile.is_zipfile(path):
        return False
    with _zip_faults(path), zipfile.ZipFile(path) as packed:
        return any(name in _MARKS for name in packed.namelist())


@contextmanager
def _zip_faults(path: Path) -> Iterator[None]:
    """Report that a zip file is damaged."""
    try:
        yield
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise SourceError(f"{path}: cannot be read as a zip file: {error}; it is damaged") from None


KIND = array_kind("a zarr store", "zarr stores", recognises=_is_zarr, files=lambda path: [ZarrFile(path)])
