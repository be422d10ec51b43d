"""Files of arrays: what there is in them, and their rows."""

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

Array = npt.NDArray[Any]


class ArrayInfo(Struct, frozen=True):
    """An array of a file.

    Attributes:
        path: from the file's root, without a slash in front.
        shape: sizes of its axes.
        dtype: of its values; ``object`` where each is bytes or a text of its own length.
        bytes: that it takes in the file.
        chunk: rows that are compressed together; 0: it is stored in one piece.
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
        """Bytes of one row of numbers, decompressed."""
        return int(np.prod(self.shape[1:], dtype=np.float64)) * self.dtype.itemsize

    @property
    def encoded(self) -> bool:
        """Whether its rows can be encoded images: bytes, of one length or each of its own."""
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
        """All arrays, in a fixed order.

        Raises:
            SourceError: the file is damaged, or leads to another file.
        """

    @abstractmethod
    def find(self, path: str) -> ArrayInfo | None:
        """One array; None where there is none of that path.

        Raises:
            SourceError: as :meth:`arrays`.
        """

    @abstractmethod
    def read(self, path: str, first: int, stop: int) -> Array:
        """Some of an array's rows; of a scalar, its value in one dimension.

        Raises:
            SourceError: they are damaged, or compressed in a way that is not read here.
        """

    @abstractmethod
    def attributes(self, path: str) -> Mapping[str, Any]:
        """The attributes of a group or array, as plain values; none where it is not there."""

    @abstractmethod
    def missing_chunks(self, path: str) -> int:
        """How many of an array's chunks are not in the file: their values are those of an empty one."""

    @abstractmethod
    def subgroups(self, path: str) -> list[str]:
        """The names of the groups in a group; none where it is not there."""

    def groups(self, pattern: str) -> list[str]:
        """The groups that match a pattern such as ``data/demo_*``, in the order of their numbers."""
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
        """One array.

        Raises:
            SourceError: there is none of that path; the text names the nearest.
        """
        found = self.find(path)
        if found is None:
            names = [one.path for one in self.arrays()]
            near = difflib.get_close_matches(path, names, n=1, cutoff=0.5)
            question = f"; did you mean {near[0]!r}?" if near else f"; it has {_some(names)}"
            raise SourceError(f"{self.path}: there is no array {path!r}{question}")
        return found


class ArrayFile(ABC):
    """A file of arrays that is opened when something is read of it.

    Args:
        path: where it is.
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
        """The files on the disk that hold an array."""
        return [self.path]


def by_number(path: str) -> list[tuple[int, str]]:
    """A key for the order in which ``demo_2`` is before ``demo_10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]


def times(shape: Sequence[int]) -> str:
    """Sizes of axes as a text, such as ``480x640x3``."""
    return "x".join(map(str, shape)) or "1"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "none"
