"""Memory for pages of parquet files: shared by threads that decompress, used again, read like a stream."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_KEPT = 256 << 20  # bytes of memory for pages that are kept to be used again
_BUDGET = 512 << 20  # of pages that are decompressed at the same time, with their compressed bytes
_SKIPPED = 1 << 16  # bytes of a stream that are read at once to be left out

Value: TypeAlias = "bytes | memoryview[int]"
Holds: TypeAlias = "tuple[int, ...] | None"  # which page of which file is decompressed in some memory


class _Budget:
    """Memory that threads share: what is larger than all of it goes alone."""

    def __init__(self, size: int) -> None:
        self._size, self._held = size, 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Wait until there is so much left."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + size <= self._size)
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()


decompressing = _Budget(_BUDGET)


class _Memory:
    """Memory for pages, which is used again: memory that is new costs more than decompressing into it.

    What a page was decompressed to stays there until the memory is needed: a job looks at an episode's first
    images before it encodes them.
    """

    def __init__(self, kept: int) -> None:
        self._kept, self._free = kept, list[tuple[npt.NDArray[np.uint8], Holds]]()
        self._lock = threading.Lock()

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """Return so many bytes at least."""
        with self._lock:
            fits = [number for number, (own, _) in enumerate(self._free) if own.size >= size]
            if fits:
                best = min(fits, key=lambda n: (self._free[n][1] is not None, self._free[n][0].size))
                return self._free.pop(best)[0]
        return np.empty(size, np.uint8)

    def holding(self, holds: Holds) -> npt.NDArray[np.uint8] | None:
        """Return what a page was decompressed to, where that is still there."""
        with self._lock:
            for number, (own, held) in enumerate(self._free):
                if held == holds:
                    del self._free[number]
                    return own
        return None

    def give(self, own: npt.NDArray[np.uint8], holds: Holds = None) -> None:
        """Take them back."""
        with self._lock:
            self._free.append((own, holds))
            while sum(one.size for one, _ in self._free) > self._kept:
                self._free.pop(0)


memory = _Memory(_KEPT)


class Body(Protocol):
    def read(self, size: int) -> Value:
        """The next bytes, just so many."""

    def skip(self, size: int) -> None:
        """Leave the next bytes out."""

    def rest(self) -> Value:
        """All that follows."""

    def rewind(self) -> bool:
        """Go back to the beginning, if that is possible; else it has to be decompressed once more."""

    def close(self) -> None:
        """Give its memory back: what was read of it is no longer there."""


class Buffer:
    """A page that is in memory as a whole."""

    def __init__(self, size: int, own: npt.NDArray[np.uint8] | None = None, holds: Holds = None) -> None:
        self._own: npt.NDArray[np.uint8] | None = memory.take(size) if own is None else own
        self._holds = holds
        self.view: memoryview[int] = self._own.data[:size]
        self._at = 0

    def read(self, size: int) -> Value:
        begin = self._at
        self.skip(size)
        return self.view[begin : self._at]

    def skip(self, size: int) -> None:
        self._at += size
        if self._at > len(self.view):
            raise cut_short()

    def rest(self) -> Value:
        return self.view[self._at :]

    def rewind(self) -> bool:
        self._at = 0
        return True

    def close(self) -> None:
        if self._own is not None:
            memory.give(self._own, self._holds)
            self._own = None


class Stream:
    """A page that is decompressed as it is read, by a codec that can do so."""

    def __init__(self, data: Buffer, size: int, codec: str) -> None:
        self._data = data
        self._stream = pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(data.rest())), codec)
        self._left = size

    def read(self, size: int) -> bytes:
        if size > self._left:
            raise cut_short()
        self._left -= size
        data: bytes = self._stream.read(size)
        if len(data) != size:
            raise cut_short()
        return data

    def skip(self, size: int) -> None:
        while size > 0:
            size -= len(self.read(min(size, _SKIPPED)))

    def rest(self) -> bytes:
        return self.read(self._left)

    def rewind(self) -> bool:
        return False

    def close(self) -> None:
        self._data.close()


def cut_short() -> IndexError:
    return IndexError("a page ends before its values do; the file is damaged")
