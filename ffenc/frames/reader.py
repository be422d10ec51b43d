"""Frames of a video file as numpy arrays, by index, by time or one after another."""

from __future__ import annotations

import math
import operator
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from ffenc.arguments import checked_path
from ffenc.codecs.suggest import accepted
from ffenc.errors import (
    ConfigError,
    FrameIndexError,
    SourceError,
    ToolchainError,
)
from ffenc.ffmpeg.probe import probe
from ffenc.ffmpeg.toolchain import toolchains
from ffenc.frames.depth import DepthQuantizer, Unit
from ffenc.frames.info_json import stored_quantizer
from ffenc.frames.pyav import EXACT_CODECS, HOW_TO_GET_PYAV, LiveDecoder, NotGivenError, load
from ffenc.frames.stream import DEPTH_FORMATS, Array, Stream, log
from ffenc.layout import TIME_TOLERANCE
from ffenc.spelling import argument

if TYPE_CHECKING:
    from typing_extensions import Self

Decoder = Literal["ffmpeg", "pyav"]
_DECODERS = ("ffmpeg", "pyav")
_UNITS = ("mm", "m")


class VideoReader:
    """Frames of a video file: by index, slice, list of indices or time, or one after another.

    ::

        with VideoReader("top.mp4") as video:
            first = video[0]                # (H, W, 3) uint8 RGB
            some = video[10:20:2]           # (5, H, W, 3)
            batch = video[[5, 0, 5]]        # any order
            frame = video.at(1.5)           # the frame at 1.5 s
            for frame in video: ...         # at the decoder's speed; memory holds one frame

    RGB frames are uint8 ``(H, W, 3)``, converted by the stream's colour tags; untagged streams are BT.601
    with limited range. They are equal to the frames of LeRobot's readers. Depth frames are ``(H, W)``: uint16
    millimetres or float32 metres. Every array is new and owned by the caller.

    Decoding starts at the key frame before a frame, and frames are selected by their times, so that no
    neighbour is returned instead. The frames of a batch are decoded in ascending order, each once, whatever
    their order and number in the batch. A decoder stays open between reads, so frames shortly after the last
    one need no seek. A damaged frame raises an error when it is reached; in a loop at the latest with the
    last frame.

    Both decoders return the same arrays, bit for bit. The ffmpeg program takes 50 to 150 ms to start, uses
    all cores, and works ahead while a loop's body runs. PyAV (``pip install 'ffenc[reader]'``) runs in this
    process and in one thread, and returns a frame after decoding from its key frame. It reads H.264, HEVC,
    AV1 and FFV1; if it meets damage, or reads the file differently from ffprobe, ffmpeg is used. For a
    damaged AV1 file it may return a wrong frame that ffmpeg refuses. If PyAV has no log level, it is set to
    ``PANIC``: messages are not shown, and errors are counted.

    Threads may share a reader: they wait for each other, except in loops, which have their own decoders.
    Another thread may close it. In another process (such as a data loader's), forked or spawned, a reader
    opens the file again; a loop belongs to the process that started it.

    Args:
        path: the file: MP4, or any video that FFmpeg reads.
        depth: quantiser of a ``gray12le`` stream. None: that of the LeRobot dataset that contains the file.
            False: return the stored samples of a depth stream, uint16. A ``gray16le`` stream is millimetres
            and needs none.
        depth_output_unit: ``mm`` (uint16, at most 65535) or ``m`` (float32).
        ffmpeg, ffprobe: programs to use instead of those that are found. The first ffmpeg that can decode the
            file is used.
        decoder: ``ffmpeg``; or ``pyav``, for scattered frames of files that are known to be intact.
        rate: frames per second of an elementary stream, which has no times and is read from its start.

    Attributes:
        info: the stream fields, with ``times`` and ``key_frames``.
        is_depth: whether the stream is depth.

    Raises:
        SourceError: no video, no frames, or a ``gray12le`` file outside of a dataset, without ``depth``.
        ConfigError: an unknown unit or decoder, ``depth`` for a stream that is not quantised, metres for a
            stream that is not depth or whose samples are returned, or ``decoder="pyav"`` for a codec that it
            does not read.
        ToolchainError: there is no FFmpeg, or no PyAV for ``decoder="pyav"``.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        depth: DepthQuantizer | Literal[False] | None = None,
        depth_output_unit: Unit = "mm",
        ffmpeg: str | None = None,
        ffprobe: str | None = None,
        decoder: Decoder = "ffmpeg",
        rate: Fraction | None = None,
    ) -> None:
        if decoder not in _DECODERS:
            raise ConfigError(f"decoder={decoder!r} is not known{accepted(decoder, _DECODERS)}")
        if depth_output_unit not in _UNITS:
            raise ConfigError(
                f"depth_output_unit={depth_output_unit!r} is not known{accepted(depth_output_unit, _UNITS)}"
            )
        if not (depth is None or depth is False or isinstance(depth, DepthQuantizer)):
            raise ConfigError(f"depth must be a DepthQuantizer, False or None, got {depth!r}")
        self.path = checked_path("path", path)
        self._opening = partial(
            VideoReader,
            self.path.absolute(),
            depth=depth,
            depth_output_unit=depth_output_unit,
            ffmpeg=ffmpeg,
            ffprobe=ffprobe,
            decoder=decoder,
            rate=rate,
        )
        found = toolchains(ffmpeg, ffprobe)
        self.info = probe(self.path, times=True, rate=rate, ffprobe=found[0].ffprobe)
        self.is_depth = self.info.pix_fmt in DEPTH_FORMATS
        self._depth = depth
        self._unit = depth_output_unit
        if isinstance(depth, DepthQuantizer) and self.info.pix_fmt != "gray12le":
            kind = "millimetres already" if self.is_depth else f"{self.info.pix_fmt}, which is not depth"
            raise ConfigError(f"{path}: depth={depth} was given, but the stream is {kind}; leave it out")
        if depth is False and not self.is_depth:
            raise ConfigError(
                f"{path}: {argument('depth', False)} would have no effect: the stream is "
                f"{self.info.pix_fmt}, which is not depth; leave it out"
            )
        if depth_output_unit == "m" and (depth is False or not self.is_depth):
            what = "stored samples have no unit" if self.is_depth else "the stream is not depth"
            raise ConfigError(f"{path}: depth_output_unit='m' would have no effect: {what}; leave it out")
        if depth is None and self.info.pix_fmt == "gray12le":
            self._depth = stored_quantizer(self.path)
            if self._depth is None:
                raise SourceError(
                    f"{path}: contains 12-bit depth codes and is not in a dataset that says how "
                    f"they were quantised; pass {argument('depth', 'DepthQuantizer(...)')}, or "
                    f"{argument('depth', False)} "
                    "for the codes"
                )
        self._stream = Stream(self.path, self.info, found)
        self._loops_by_pyav = decoder == "pyav"
        self._lock = threading.RLock()
        self._live: LiveDecoder | None = None  # for single frames and batches
        if decoder == "pyav":
            self._check_pyav()
            self._live = self._stream.live()
        self._times = np.array([float(t * self.info.time_base) for t in self._stream.times])
        self._ahead: Iterator[Array] | None = None  # an ffmpeg that continues after a frame
        self._last = -1  # last frame that was read
        self._end = weakref.finalize(self, _close, self._stream, self._live, self._lock)
        _open.add(self)

    @property
    def fps(self) -> Fraction:
        """Average frames per second."""
        return self.info.fps

    @property
    def width(self) -> int:
        """Width of a frame in pixels."""
        return self.info.width

    @property
    def height(self) -> int:
        """Height of a frame in pixels."""
        return self.info.height

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """The time of every frame in seconds, ascending; shape ``(N,)``."""
        return self._times.copy()

    @property
    def quantizer(self) -> DepthQuantizer | None:
        """Quantiser of the depth; None if it is not quantised, or if codes are returned."""
        return self._depth or None

    def __len__(self) -> int:
        return len(self._times)

    def __getitem__(self, index: int | slice | Sequence[int] | npt.NDArray[np.integer[Any]]) -> Array:
        """Return one frame for an integer, otherwise a batch ``(N, ...)``.

        Args:
            index: an integer, a slice, or a list or array of integers in any order, with or without
                repetitions; negative ones count from the end.

        Raises:
            FrameIndexError: there is no such frame (also an ``IndexError``).
            ConfigError: not an index, or the reader is closed.
            SourceError: the video is damaged; the text names the frame.
            ToolchainError: no ffmpeg on this machine can decode it.
        """
        if isinstance(index, slice):
            return self._batch(_indices_of(index, len(self)))
        if isinstance(index, np.ndarray) and index.ndim == 1:
            if index.dtype.kind not in "iu" and index.size:
                raise ConfigError(f"frame indices must be integers, got an array of {index.dtype}")
            return self._batch([self._checked(i) for i in index.tolist()])
        if isinstance(index, Sequence) and not isinstance(index, str | bytes):
            return self._batch([self._checked(i) for i in index])
        return self._one(self._checked(index))

    def at(self, seconds: float | Sequence[float] | Array, tolerance: float = TIME_TOLERANCE) -> Array:
        """Return the frame nearest to a time, or a batch for several times.

        Args:
            seconds: a time in the file, or a list or 1-d array of times.
            tolerance: greatest distance of the frame from the time in seconds, 0 or more; default as
                LeRobot's.

        Raises:
            SourceError: no frame is near enough; the text names the time, the nearest frame and its time.
            ConfigError: not a time. Other errors as for indexing.
        """
        if isinstance(seconds, np.ndarray | Sequence) and np.ndim(cast(Any, seconds)) == 1:
            return self._batch([self.index_at(one, tolerance) for one in seconds])
        return self._one(self.index_at(cast(float, seconds), tolerance))

    def index_at(self, seconds: float, tolerance: float = TIME_TOLERANCE) -> int:
        """Return the index of the frame nearest to a time; see :meth:`at`."""
        try:
            wanted = float(seconds)
        except (TypeError, ValueError):
            raise ConfigError(f"{seconds!r} is not a time in seconds") from None
        if not (math.isfinite(wanted) and tolerance >= 0):
            raise ConfigError(
                f"{wanted} s within {tolerance} s: needs a time in seconds and a tolerance of 0 or more"
            )
        after = int(np.searchsorted(self._times, wanted))
        near = [i for i in (after - 1, after) if 0 <= i < len(self)]
        best = min(near, key=lambda i: abs(float(self._times[i]) - wanted))
        if abs(float(self._times[best]) - wanted) > tolerance:
            raise SourceError(
                f"{self.path}: there is no frame at {wanted:.6f} s: the nearest, {best}, is at "
                f"{float(self._times[best]):.6f} s, and the tolerance is {tolerance:g} s"
            )
        return best

    def __iter__(self) -> Iterator[Array]:
        return self.each(slice(None))

    def each(self, indices: slice | Sequence[int]) -> Iterator[Array]:
        """Yield frames one at a time, with one frame in memory.

        Args:
            indices: a slice, or integers; fastest in ascending order.

        Raises:
            As indexing does; for a damaged frame when it is reached.
        """
        if isinstance(indices, slice):
            return self._held(self._each(_indices_of(indices, len(self))))
        return self._held(self._each([self._checked(i) for i in indices]))

    def _held(self, frames: Iterator[Array]) -> Iterator[Array]:
        """Yield a loop's frames; meanwhile the reader is not freed, which would close it."""
        owner = os.getpid()
        while True:
            if os.getpid() != owner:  # it would take frames from the other process
                raise ConfigError(
                    f"{self.path}: this loop belongs to process {owner}, of which this is a fork"
                )
            try:
                frame = next(frames)
            except StopIteration:
                return
            yield frame

    def close(self) -> None:
        """End running decoders, those of loops too. The reader then returns no more frames to any thread.

        A reader that is not closed is closed when it is freed.
        """
        self._end()
        self._ahead = None

    def __reduce__(self) -> tuple[partial[VideoReader], tuple[()]]:
        """Return how a copy, such as that of a process that is spawned, opens the file again.

        Raises:
            ConfigError: the reader is closed.
        """
        self._stream.check_open()
        return self._opening, ()

    def _forked(self) -> None:
        """Give up the decoders of the process that this one was forked from."""
        self._lock = threading.RLock()  # the old one may be held by a thread that does not exist here
        self._ahead, self._last = None, -1
        if self._live is not None:
            self._live.abandon()
            self._end.detach()
            self._end = weakref.finalize(self, _close, self._stream, self._live, self._lock)

    def _check_pyav(self) -> None:
        if self.info.codec not in EXACT_CODECS:
            raise ConfigError(
                f"{self.path}: decoder='pyav' reads {', '.join(EXACT_CODECS)}, whose samples are "
                f"the same from every decoder, but this is {self.info.codec}; leave it out"
            )
        try:
            load()
        except NotGivenError as error:
            raise ToolchainError(f"decoder='pyav': {error}; {HOW_TO_GET_PYAV}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _checked(self, index: Any) -> int:
        try:
            if isinstance(index, bool | np.bool_):
                raise TypeError
            number = operator.index(index)
        except TypeError:
            raise ConfigError(
                f"{index!r} is not a frame index", expected="an integer, a slice or a list of integers"
            ) from None
        count = len(self)
        if not -count <= number < count:
            raise FrameIndexError(
                f"{self.path}: there is no frame {number}; it has {count} frames (0..{count - 1})"
            )
        return number % count

    def _one(self, index: int) -> Array:
        with self._lock:
            if self._live is not None:
                return cast(Array, self._batch([index])[0])
            last, self._last = self._last, -1
            if last < 0 or not self._stream.near(last, index):
                self._ahead = None
            elif self._ahead is None:
                # The second frame in a row: more are likely to follow.
                self._ahead = self._each(range(index, len(self)))
            else:
                for _ in range(last + 1, index):
                    next(self._ahead)
            frames = self._ahead or self._each([index])
            frame = next(frames)
            if self._ahead is None or index + 1 == len(self):
                for _ in frames:  # only at the end is ffmpeg's exit status checked
                    pass
                self._ahead = None
            self._last = index
            return frame

    def _batch(self, indices: Sequence[int]) -> Array:
        rows: dict[int, int] = {}  # frame -> its first position in the batch
        for row, index in enumerate(indices):
            rows.setdefault(index, row)
        wanted = sorted(rows)
        batch = np.empty((len(indices), *self._stream.shape), self._dtype())
        with self._lock:
            if self._converts():
                codes = self._stream.empty()
                shown = _shown(self._depth, self._unit, stored=self.info.pix_fmt)
                frames = _frames(self._stream, self._live, wanted, lambda _: codes)
                for index, raw in zip(wanted, frames, strict=True):
                    batch[rows[index]] = shown(raw)
            else:
                for _ in _frames(self._stream, self._live, wanted, lambda index: batch[rows[index]]):
                    pass
        for row, index in enumerate(indices):
            if rows[index] != row:
                batch[row] = batch[rows[index]]
        return batch

    def _each(self, indices: Sequence[int]) -> Iterator[Array]:
        # Generators do not refer to the reader, so that an unused one is freed, and its ffmpeg ended, at
        # once.
        stream, shown = self._stream, _shown(self._depth, self._unit, stored=self.info.pix_fmt)
        live = stream.live() if self._loops_by_pyav else None
        if not self._converts():
            return _frames(stream, live, indices, lambda _: stream.empty())
        codes = stream.empty()
        return (shown(raw) for raw in _frames(stream, live, indices, lambda _: codes))

    def _converts(self) -> bool:
        """Whether frames differ from the samples of FFmpeg."""
        return self.is_depth and self._depth is not False and not (self._depth is None and self._unit == "mm")

    def _dtype(self) -> npt.DTypeLike:
        if not self.is_depth:
            return np.uint8
        return np.float32 if self._unit == "m" and self._depth is not False else np.uint16


_open: weakref.WeakSet[VideoReader] = weakref.WeakSet()


def _forked() -> None:
    for reader in list(_open):
        reader._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _close(stream: Stream, live: LiveDecoder | None, lock: threading.RLock) -> None:
    stream.close()
    with lock:  # wait for another thread's decoding
        if live is not None:
            live.close()


def _frames(
    stream: Stream, live: LiveDecoder | None, indices: Sequence[int], room: Callable[[int], Array]
) -> Iterator[Array]:
    """Yield frames from PyAV, or from ffmpeg if PyAV does not return them; arguments as ``Stream.frames``."""
    done = 0
    if live is not None:
        try:
            for index in indices:
                stream.check_open()
                frame = room(index)
                live.read(index, frame)
                done += 1
                yield frame
            return
        except NotGivenError as error:
            log.info("%s: not from PyAV: %s", stream.path, error)
    yield from stream.frames(indices[done:], room)


def _shown(
    quantizer: DepthQuantizer | Literal[False] | None, unit: Unit, *, stored: str
) -> Callable[[Array], Array]:
    """Return the function that converts a stream's samples to depth."""
    if isinstance(quantizer, DepthQuantizer) and stored == "gray12le":
        return lambda codes: quantizer.dequantize(codes, output_unit=unit)
    return lambda millimetres: millimetres.astype(np.float32) / np.float32(1000)


def _indices_of(wanted: slice, count: int) -> range:
    try:
        return range(*wanted.indices(count))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{wanted} is not a slice of frames: {error}") from None
