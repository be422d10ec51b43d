"""Memory for pages of parquet files: a budget for threads, reuse, reading like a stream."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ffenc.ffmpeg.machine import cores

_KEPT = 256 << 20  # bytes of unused memory that are kept for reuse
_LEAST_KEPT = 1 << 20  # bytes; less is quick to get and to decompress
# Bytes of pages that are decompressed at once: with few cores, one large page after another, so that the
# compressed bytes of only one are mapped.
_BUDGET = min(512, 64 * max(2, cores())) << 20
_SKIPPED = 1 << 16  # bytes of a stream that are read at once in order to skip them

Value: TypeAlias = "bytes | memoryview[int]"
Holds: TypeAlias = "tuple[int, ...] | None"  # the page (file and position) whose contents some memory has


class _Budget:
    """A memory budget shared by threads; a request larger than the whole budget runs alone."""

    def __init__(self, size: int) -> None:
        self._size, self._held = size, 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Wait until this much of the budget is available."""
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
    """Memory for pages that is reused: page faults of new memory cost more than the decompression.

    The contents of a page that was read in part stay until the memory is needed: a job reads an episode's
    first images before it encodes them, and several episodes may share a page.
    """

    def __init__(self, kept: int) -> None:
        self._kept, self._free = kept, list[tuple[npt.NDArray[np.uint8], Holds]]()
        self._lock = threading.Lock()

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """Return memory of at least ``size`` bytes."""
        if size < _LEAST_KEPT:
            return np.empty(size, np.uint8)
        with self._lock:
            full = size + sum(own.size for own, _ in self._free) > self._kept
            fits = [
                (holds is not None, own.size, number)
                for number, (own, holds) in enumerate(self._free)
                if own.size >= size and (holds is None or full)
            ]
            if fits:
                return self._free.pop(min(fits)[2])[0]
        # A camera's next page is often a little larger. Memory that is not written to is not provided.
        return np.empty(size + size // 16, np.uint8)

    def holding(self, holds: Holds) -> npt.NDArray[np.uint8] | None:
        """Return the memory that contains a page, if there is one."""
        with self._lock:
            for number, (own, held) in enumerate(self._free):
                if held == holds:
                    del self._free[number]
                    return own
        return None

    def give(self, own: npt.NDArray[np.uint8], holds: Holds = None) -> None:
        """Return memory for reuse."""
        if own.size < _LEAST_KEPT:
            return
        with self._lock:
            self._free.append((own, holds))
            while sum(one.size for one, _ in self._free) > self._kept:
                self._free.pop(0)


memory = _Memory(_KEPT)


class Body(Protocol):
    def read(self, size: int) -> Value:
        """Return the next ``size`` bytes."""

    def skip(self, size: int) -> None:
        """Skip the next bytes."""

    def rest(self) -> Value:
        """Return all bytes that follow."""

    def rewind(self) -> bool:
        """Return to the start, if possible; otherwise the page has to be decompressed again."""

    def close(self) -> None:
        """Release the memory: values that were read are no longer valid."""


class Buffer:
    """A page that is in memory completely."""

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
            memory.give(self._own, self._holds if self._at < len(self.view) else None)
            self._own, self.view = None, memoryview(b"")


class Stream:
    """A page that is decompressed while it is read, with a codec that supports this."""

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
