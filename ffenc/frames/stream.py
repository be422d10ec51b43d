"""Frames of a video file by index, decoded by ffmpeg in as few runs as possible."""

from __future__ import annotations

import logging
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.compiler.colour import rgb_conversion
from ffenc.compiler.decode import compile_decode, compile_frame_list
from ffenc.compiler.frames import Excerpt
from ffenc.errors import (
    ConfigError,
    FfmpegError,
    SourceError,
    ToolchainError,
)
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.ffmpeg.process import FfmpegProcess
from ffenc.ffmpeg.toolchain import Toolchain, how_to_get
from ffenc.frames.excerpt import FrameIndex
from ffenc.frames.pyav import LiveDecoder

log = logging.getLogger("ffenc")
Array = npt.NDArray[Any]
DEPTH_FORMATS = ("gray12le", "gray16le")
# Starting an ffmpeg takes about as long as decoding this many pixels: smaller gaps are decoded.
_START_PIXELS = 15_000_000
_MOST_SPANS = 500  # in one command line
NO_DECODER = re.compile(
    r"no decoder found|[Dd]ecoder .*not found|Unknown decoder|doesn't support hardware accelerated"
)
_LISTED = 1000  # frames searched for a damaged one


class Stream:
    """Frames of a file by index, decoded by FFmpeg."""

    def __init__(self, path: Path, info: StreamInfo, candidates: Sequence[Toolchain]) -> None:
        assert info.times is not None
        if not info.times:
            raise SourceError(f"{path} has no frames")
        same = next((i for i, (a, b) in enumerate(pairwise(info.times)) if a == b), None)
        if same is not None:
            seconds = float(info.times[same] * info.time_base)
            raise SourceError(f"{path}: frames {same} and {same + 1} have the same time, {seconds:.6f} s")
        self.times = info.times
        self._index = FrameIndex(info)
        self.path = path
        self._file = path.absolute()  # the program may change its folder
        self._info = info
        self._candidates = list(candidates)
        depth = info.pix_fmt in DEPTH_FORMATS
        # Depth samples pass unchanged: a conversion to another format would scale them.
        self._format = info.pix_fmt if depth else "rgb24"
        self._conversion = None if depth else rgb_conversion(info.pix_fmt, info.color_space, info.color_range)
        self.shape = (info.height, info.width) if depth else (info.height, info.width, 3)
        self._dtype = np.dtype("<u2" if depth else np.uint8)
        self._gap = max(4, _START_PIXELS // (info.width * info.height))
        self._running: set[FfmpegProcess] = set()
        self._closed = False

    def empty(self) -> Array:
        """Return a new array for one frame."""
        return np.empty(self.shape, self._dtype)

    def live(self) -> LiveDecoder:
        """Return a PyAV decoder of the same frames."""
        return LiveDecoder(self._file, self._info, self._conversion)

    def near(self, after: int, index: int) -> bool:
        """Return whether decoding on from one frame to another costs less than another start."""
        return index > after and self._index.key(index) - after <= self._gap

    def check_open(self) -> None:
        """Raise ConfigError if the stream is closed."""
        if self._closed:
            raise _closed(self.path)

    def close(self) -> None:
        self._closed = True
        for process in list(self._running):
            process.__exit__()

    def frames(self, indices: Sequence[int], room: Callable[[int], Array]) -> Iterator[Array]:
        """Yield frames in the given order.

        Args:
            indices: frame indices in any order.
            room: returns a contiguous array for a frame; may be called more than once for it.
        """
        for run in self._runs(indices):
            done = 0
            entry = self._index.entry(run[0])
            attempts = [(t, e) for t in self._candidates for e in dict.fromkeys((entry, None))]
            errors: list[tuple[Toolchain, FfmpegError]] = []
            while attempts:
                toolchain, seek = attempts.pop(0)
                try:
                    for frame in self._run(toolchain, run[done:], seek, room):
                        done += 1
                        if len(self._candidates) > 1:  # this program can decode the file
                            self._candidates = [toolchain]
                            attempts = [a for a in attempts if a[0] == toolchain]
                        yield frame
                    break
                except FfmpegError as error:
                    if error.unable:
                        raise
                    if done and isinstance(error, _Miscounted):
                        # A frame was dropped silently, and the frames after it were taken for others.
                        raise self._damage(
                            self._damaged(toolchain, run[0], run[-1] + 1), run[0], error
                        ) from None
                    errors.append((toolchain, error))
                    if NO_DECODER.search("\n".join(error.stderr)):
                        attempts = [a for a in attempts if a[0] != toolchain]
                    else:  # it has the decoder; another program may conceal damage that this one finds
                        attempts = [a for a in attempts if a[0] == toolchain]
                        if attempts:
                            log.info(
                                "%s: cannot be seeked to frame %d, read from its start", self.path, run[0]
                            )
            else:
                yield from self._before_damage(run, done, room, errors)

    def _runs(self, indices: Sequence[int]) -> Iterator[Sequence[int]]:
        """Divide indices into series that one FFmpeg can read at once."""
        if isinstance(indices, range) and indices.step == 1:
            if indices:
                yield indices
            return
        run: list[int] = []
        spans = 0
        for index in indices:
            if run:
                spans += index != run[-1] + 1
                if not self.near(run[-1], index) or spans > _MOST_SPANS:
                    yield run
                    run, spans = [], 1
            run.append(index)
        if run:
            yield run

    def _excerpt(self, indices: Sequence[int], seek: Fraction | None) -> Excerpt | None:
        """Return the excerpt of ascending indices."""
        return None if len(indices) == len(self.times) else self._index.excerpt(indices, seek)

    def _run(
        self,
        toolchain: Toolchain,
        indices: Sequence[int],
        seek: Fraction | None,
        room: Callable[[int], Array],
        *,
        lenient: bool = False,
    ) -> Iterator[Array]:
        """Yield the frames of ascending indices from one FFmpeg; ``lenient``: ignore other errors.

        Raises:
            FfmpegError: it failed, or returned fewer frames.
        """
        if self._closed:
            raise _closed(self.path)
        command = compile_decode(
            str(self._file),
            pix_fmt=self._format,
            conversion=self._conversion,
            excerpt=self._excerpt(indices, seek),
            lenient=lenient,
            program=toolchain.ffmpeg,
        )
        with FfmpegProcess(command, pull=True) as process:
            self._running.add(process)
            try:
                for number, index in enumerate(indices):
                    frame = room(index)
                    if process.read_into(frame.reshape(-1).view(np.uint8).data) < frame.nbytes:
                        process.finish()
                        raise _miscounted(process, number, len(indices))
                    if process.log.faults and not lenient:  # reported before the frame that it is about
                        raise FfmpegError(
                            "ffmpeg reported an error",
                            command=process.command,
                            returncode=0,
                            stderr=process.log.faults,
                        )
                    if number + 1 < len(indices):
                        yield frame
                    if self._closed:
                        raise _closed(self.path)
                if process.read_into(bytearray(1)):
                    raise _miscounted(process, len(indices) + 1, len(indices))
                try:
                    process.finish()
                except FfmpegError as error:
                    if not (lenient and error.returncode == 0):
                        raise
                # The last frame is yielded after the exit status is checked, so a single frame is never
                # unchecked.
                yield frame
            finally:
                self._running.discard(process)

    def _before_damage(
        self,
        run: Sequence[int],
        done: int,
        room: Callable[[int], Array],
        errors: Sequence[tuple[Toolchain, FfmpegError]],
    ) -> Iterator[Array]:
        """Yield the frames that no program returned because of a damaged later frame: decoders work ahead.

        Args:
            run: a series of frames.
            done: number of frames of it that were yielded.
            room, errors: as in :meth:`frames`.

        Raises:
            ToolchainError: no program has the decoder.
            SourceError: one of the frames is damaged.
        """
        decoding = [(t, e) for t, e in errors if not NO_DECODER.search("\n".join(e.stderr))]
        if not decoding:
            reasons = "\n".join(f"  {toolchain}: {error.cause}" for toolchain, error in errors)
            raise ToolchainError(
                f"{self.path}: {self._info.codec} {self._info.pix_fmt} cannot be decoded here:\n"
                f"{reasons}\n{how_to_get()}",
                cause=errors[0][1].cause,
            )
        toolchain, error = decoding[-1]
        indices = run[done:]
        damaged = self._damaged(toolchain, indices[0], indices[0] + _LISTED)
        if damaged is None:  # then a frame before, which was dropped silently
            damaged = self._damaged(toolchain, run[0], indices[0])
        if damaged is not None and damaged > indices[-1]:
            try:
                yield from self._run(toolchain, indices, self._index.entry(indices[0]), room, lenient=True)
                return
            except FfmpegError as other:
                error = other
        raise self._damage(damaged, indices[0], error)

    def _damage(self, damaged: int | None, first: int, error: FfmpegError) -> SourceError:
        which = f"frame {damaged}" if damaged is not None else f"frame {first} or one soon after it"
        return SourceError(
            f"{self.path}: {which} of {len(self.times)} cannot be decoded: {error.cause}; restore the file"
        )

    def _damaged(self, toolchain: Toolchain, index: int, end: int) -> int | None:
        """Return the first frame between the key frame of ``index`` and ``end`` that cannot be decoded."""
        first = self._index.key(index)
        last = min(len(self.times), end)
        command = compile_frame_list(
            str(self._file), seek=self._index.entry(index), frames=last - first, program=toolchain.ffmpeg
        )
        listed = bytearray()
        try:
            with FfmpegProcess(command, on_output=listed.extend) as process:
                process.finish()
        except FfmpegError as error:  # expected; but not before it has listed
            if error.unable:
                raise
        text = listed.decode("ascii", "replace")
        base = re.search(r"#tb 0: (\d+)/(\d+)", text)
        if base is None:
            return None
        scale = Fraction(int(base[1]), int(base[2])) / self._info.time_base
        stamps = re.findall(r"^0, +-?\d+, +(-?\d+),", text, re.MULTILINE)
        middles = [Fraction(a + b, 2) for a, b in pairwise(self.times)]
        found = {bisect_right(middles, int(stamp) * scale) for stamp in stamps}
        return next((i for i in range(first, last) if i not in found), None)


def _closed(path: Path) -> ConfigError:
    return ConfigError(f"{path}: the reader is closed")


class _Miscounted(FfmpegError):
    """FFmpeg reported no error, but returned another number of frames than requested."""


def _miscounted(process: FfmpegProcess, found: int, expected: int) -> _Miscounted:
    many = "more than" if found > expected else f"{found} of"
    return _Miscounted(
        f"ffmpeg gave {many} {expected} frames", command=process.command, returncode=0, stderr=[]
    )
