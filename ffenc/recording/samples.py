"""Samples for a camera's statistics: evenly spaced frames of an episode of unknown length.

Every k-th frame is sampled, from the first one on. When there are too many, k doubles, and every second
sample is dropped. So the sampled frames depend only on the episode's length, and all its parts have the same
weight. The samples are stored in a file of the episode: memory does not grow, and an interrupted episode has
the same statistics.
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

MOST_SAMPLES = 200  # a longer episode has at least half as many: LeRobot uses 100 or more
_HEAD = struct.Struct("<qI")  # frame number, and CRC-32 of the data that follows
_COLOURS = np.dtype("<u4")
_DEPTHS: dict[Unit, np.dtype[Any]] = {"mm": np.dtype("<u2"), "m": np.dtype("<f4")}


def sample_step(frames: int) -> int:
    """Return the distance of sampled frames for a number of frames: a power of 2."""
    return 1 << (-(-frames // MOST_SAMPLES) - 1).bit_length()


def samples_tap(width: int, height: int) -> SampleTap:
    """Return the tap that keeps pixels by LeRobot's rule, of every frame that it gets."""
    return replace(sample_tap(1, width, height), step=1)


class SampleLog:
    """Stores samples of a camera's frames in a file, as they arrive.

    Args:
        path: the file, which is created.
        width, height: frame size in pixels.
        unit: unit of depth; None for colours.
    """

    def __init__(self, path: Path, width: int, height: int, unit: Unit | None) -> None:
        self._path, self._unit = path, unit
        self._tap = samples_tap(width, height)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._seen = 0
        self._pending = bytearray()

    def add(self, frame: Depth) -> None:
        """Add the next frame, and store its pixels if it is sampled.

        Args:
            frame: shape ``(H, W, 3)`` uint8, or ``(H, W)`` depth.

        Raises:
            OSError: the file cannot be written.
        """
        if self._next():
            self._append(thinned(frame, self._tap))

    def feed(self, data: bytes) -> None:
        """Add raw rgb24 bytes of frames of the tap's size, in pieces of any size."""
        self._pending += data
        size = self._tap.width * self._tap.height * 3
        while len(self._pending) >= size:
            if self._next():
                pixels = np.frombuffer(bytes(self._pending[:size]), np.uint8)
                # A thread that reads ffmpeg's output cannot report a full disk; ffmpeg itself will.
                with contextlib.suppress(OSError):
                    self._append(pixels.reshape(self._tap.height, self._tap.width, 3))
            del self._pending[:size]

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _next(self) -> bool:
        """Return whether the next frame would be sampled if the episode ended with it."""
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
    """Return the statistics of an episode's first frames, from their samples.

    Args:
        path: the file of a :class:`SampleLog`.
        width, height, unit: as there.
        frames: number of frames, 1 or more.

    Returns:
        The statistics; None if samples are missing, for example after a power failure.
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
