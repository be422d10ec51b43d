"""Interfaces for files of arrays: list the arrays, and read their rows."""

from __future__ import annotations

import difflib
import fnmatch
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from ffenc.errors import SourceError
from ffenc.frames.sources import files_fingerprint

Array = npt.NDArray[Any]


class ArrayInfo(Struct, frozen=True):
    """An array in a file.

    Attributes:
        path: from the file's root, without a leading slash.
        shape: sizes of its axes.
        dtype: of its values; ``object`` for bytes or texts of varying length.
        bytes: stored size.
        chunk: number of rows that are compressed together; 0: the array is stored contiguously.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    bytes: int
    chunk: int = 0

    @property
    def rows(self) -> int:
        """The length of its first axis."""
        return self.shape[0] if self.shape else 0

    @property
    def row_bytes(self) -> int:
        """Bytes of one decompressed row of numbers."""
        return int(np.prod(self.shape[1:], dtype=np.float64)) * self.dtype.itemsize

    @property
    def encoded(self) -> bool:
        """Whether its rows can be encoded images: bytes, of equal or varying length."""
        flat = len(self.shape) == 2 and self.dtype == np.uint8
        return flat or (len(self.shape) == 1 and self.dtype.kind in "OSV")

    @property
    def text(self) -> bool:
        """Whether its values can be texts."""
        return self.dtype.kind in "OSUT"

    def __str__(self) -> str:
        kind = "bytes or texts" if self.dtype.kind in "OT" else str(self.dtype)
        return f"{kind} {'x'.join(map(str, self.shape)) or 'scalar'}"


class ArrayReader(ABC):
    """An open file of arrays."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def arrays(self) -> list[ArrayInfo]:
        """Return all arrays, in a fixed order.

        Raises:
            SourceError: the file is damaged, or contains a link to another file.
        """

    @abstractmethod
    def find(self, path: str) -> ArrayInfo | None:
        """Return an array; None if the path does not exist.

        Raises:
            SourceError: as for :meth:`arrays`.
        """

    @abstractmethod
    def read(self, path: str, first: int, stop: int) -> Array:
        """Return rows ``first`` to ``stop`` of an array; for a scalar, its value in one dimension.

        Raises:
            SourceError: the rows are damaged, or their compression is not supported.
        """

    @abstractmethod
    def attributes(self, path: str) -> Mapping[str, Any]:
        """Return the attributes of a group or array as plain values; empty if the path does not exist."""

    @abstractmethod
    def missing_chunks(self, path: str) -> int:
        """Return the number of an array's chunks that are not stored: their values are the fill value."""

    @abstractmethod
    def subgroups(self, path: str) -> list[str]:
        """Return the names of the groups in a group; empty if the path does not exist."""

    def groups(self, pattern: str) -> list[str]:
        """Return the groups that match a pattern such as ``data/demo_*``, in numeric order."""
        found = [""]
        for part in pattern.strip("/").split("/"):
            below = [
                f"{place}/{name}".strip("/")
                for place in found
                for name in fnmatch.filter(self.subgroups(place), part)
            ]
            found = sorted(below, key=by_number)
        return found

    def array(self, path: str) -> ArrayInfo:
        """Return an array.

        Raises:
            SourceError: the path does not exist; the text names the most similar one.
        """
        found = self.find(path)
        if found is None:
            names = [one.path for one in self.arrays()]
            near = difflib.get_close_matches(path, names, n=1, cutoff=0.5)
            question = f"; did you mean {near[0]!r}?" if near else f"; it has {_some(names)}"
            raise SourceError(f"{self.path}: there is no array {path!r}{question}")
        return found


class ArrayFile(ABC):
    """A file of arrays, which is opened only to read from it.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def open(self) -> AbstractContextManager[ArrayReader]:
        """Open it.

        Raises:
            SourceError: it cannot be read.
        """

    def files(self, array: str) -> list[Path]:
        """Return the files on disk that contain an array."""
        return [self.path]

    def fingerprint(self, array: str) -> str:
        """Return a text that changes when a file that contains an array is written to."""
        return files_fingerprint(self.files(array))


def by_number(path: str) -> list[tuple[int, str]]:
    """Return a sort key that puts ``demo_2`` before ``demo_10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]


def times(shape: Sequence[int]) -> str:
    """Return a shape as text, such as ``480x640x3``."""
    return "x".join(map(str, shape)) or "1"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "none"
