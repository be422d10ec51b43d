"""What a camera's statistics are computed of: evenly spaced frames, of an episode of unknown length.

Every k-th frame is counted, from the first on. When there are too many, k doubles, and every second one is
left out. So the frames depend on the episode's length only, and all parts of it weigh the same. What is kept
of each is in a file of the episode: memory does not grow, and an interrupted episode has the same statistics.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from ffenc.compiler.frames import SampleTap
from ffenc.frames.depth import Unit
from ffenc.frames.depth_images import Depth, DepthStatistics
from ffenc.frames.statistics import RgbHistogram, sample_tap, thinned

MOST_SAMPLES = 200  # at least half as many of a longer episode: LeRobot takes 100 or more
_HEAD = struct.Struct("<qI")  # the frame's number, and the CRC-32 of what follows
_COLOURS = np.dtype("<u4")
_DEPTHS: dict[Unit, np.dtype[Any]] = {"mm": np.dtype("<u2"), "m": np.dtype("<f4")}


def sample_step(frames: int) -> int:
    """Return every how many-th of so many frames is counted: a power of 2."""
    return 1 << (-(-frames // MOST_SAMPLES) - 1).bit_length()


def samples_tap(width: int, height: int) -> SampleTap:
    """Return what is kept of a frame: pixels by LeRobot's rule, of every frame that is given."""
    return replace(sample_tap(1, width, height), step=1)


class SampleLog:
    """Keeps samples of a camera's frames in a file, as they come.

    Args:
        path: the file; it is made.
        width, height: pixels of a frame.
        unit: of depth; None for colours.
    """

    def __init__(self, path: Path, width: int, height: int, unit: Unit | None) -> None:
        self._path, self._unit = path, unit
        self._tap = samples_tap(width, height)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._seen = 0
        self._pending = bytearray()

    def add(self, frame: Depth) -> None:
        """Take the next frame, and keep what is counted of it, if it is picked.

        Args:
            frame: shape ``(H, W, 3)`` uint8, or ``(H, W)`` depth.

        Raises:
            OSError: the file cannot be written.
        """
        if self._next():
            self._append(thinned(frame, self._tap))

    def feed(self, data: bytes) -> None:
        """Take raw rgb24 bytes of frames of the tap's size, cut anywhere."""
        self._pending += data
        size = self._tap.width * self._tap.height * 3
        while len(self._pending) >= size:
            if self._next():
                pixels = np.frombuffer(bytes(self._pending[:size]), np.uint8)
                # Who reads an ffmpeg's output has nobody to tell of a full disk; the ffmpeg itself will.
                with contextlib.suppress(OSError):
                    self._append(pixels.reshape(self._tap.height, self._tap.width, 3))
            del self._pending[:size]

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _next(self) -> bool:
        """Whether the next frame is one of those that are counted, if the episode ends with it."""
        self._seen += 1
        return (self._seen - 1) % sample_step(self._seen) == 0

    def _append(self, thin: Depth) -> None:
        if self._unit is None:
            counts = [np.bincount(thin[..., channel].reshape(-1), minlength=256) for channel in range(3)]
            data = np.stack(counts).astype(_COLOURS).tobytes()
        else:
            data = np.ascontiguousarray(thin, _DEPTHS[self._unit]).tobytes()
        record = _HEAD.pack(self._seen - 1, zlib.crc32(data)) + data
        if os.write(self._file, record) != len(record):
            raise OSError(28, "No space left on device", str(self._path))


def read_samples(
    path: Path, width: int, height: int, unit: Unit | None, frames: int
) -> RgbHistogram | DepthStatistics | None:
    """Return the statistics of an episode's first frames, by what was kept of them.

    Args:
        path: the file of a :class:`SampleLog`.
        width, height, unit: as there.
        frames: how many there are, 1 or more.

    Returns:
        None where the file does not have all that are to be counted: a power cut may have taken some.
    """
    tap = samples_tap(width, height)
    thin = np.empty((-(-height // (height // tap.height)), -(-width // (width // tap.width))))
    tap = replace(tap, height=thin.shape[0], width=thin.shape[1])
    wanted = range(0, frames, sample_step(frames))
    counted: RgbHistogram | DepthStatistics
    add: Callable[[bytes], None]
    if unit is None:
        counted, size = RgbHistogram(tap), 3 * 256 * _COLOURS.itemsize
        add = _adds_counts(counted)
    else:
        counted, size = DepthStatistics(tap, unit), thin.size * _DEPTHS[unit].itemsize
        add = _adds_depth(counted, thin.shape)
    found = 0
    try:
        with path.open("rb") as file:
            while found < len(wanted) and len(record := file.read(_HEAD.size + size)) == _HEAD.size + size:
                number, checksum = _HEAD.unpack_from(record)
                data = record[_HEAD.size :]
                if number == wanted[found] and zlib.crc32(data) == checksum:
                    add(data)
                    found += 1
    except OSError:
        return None
    return counted if found == len(wanted) else None


def _adds_counts(counted: RgbHistogram) -> Callable[[bytes], None]:
    def add(data: bytes) -> None:
        counted.counts += np.frombuffer(data, _COLOURS).reshape(3, 256)
        counted.frames += 1

    return add


def _adds_depth(counted: DepthStatistics, shape: tuple[int, ...]) -> Callable[[bytes], None]:
    def add(data: bytes) -> None:
        counted.add(np.frombuffer(data, _DEPTHS[counted.unit]).reshape(shape))

    return add
