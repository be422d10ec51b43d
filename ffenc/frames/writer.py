"""Encode numpy frames as they arrive."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
import weakref
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ffenc.arguments import check_kind, check_number
from ffenc.compiler.frames import raw_format
from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.framerate import parse_fps
from ffenc.errors import ConfigError, FfencError, FfencWarning
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.ffmpeg.process import FfmpegProcess
from ffenc.ffmpeg.toolchain import toolchains
from ffenc.frames.depth import Unit
from ffenc.frames.depth_images import DepthSamples
from ffenc.frames.encode import checked_output, verify_encoded
from ffenc.frames.encoding import Encoding
from ffenc.frames.prepare import prepare
from ffenc.frames.publish import claimed, published

if TYPE_CHECKING:
    from typing_extensions import Self


class VideoWriter:
    """Write frames to an MP4 file, which appears verified when the writer is closed, or not at all.

    ::

        with VideoWriter("top.mp4", fps=30) as video:
            for frame in frames:
                video.write(frame)
        print(video.info.frames)

    A writer that is freed without being closed, or still open when the program ends, leaves no file, with a
    warning. Threads may share a writer: they wait for each other. A forked process cannot use it, and leaves
    the file to the process that it was forked from.

    Args:
        output: the file to write, ending in ``.mp4``.
        fps: frames per second; frame i is stored at exactly i / fps.
        config: encoder settings; default :class:`VideoEncoderConfig`. With a :class:`DepthEncoderConfig`
            the frames are depth.
        depth_unit: unit of depth frames, ``mm`` or ``m``; None: integers are millimetres, floats are
            metres.
        encoder_threads: number of threads of the encoder, 1 or more; None: the encoder's default.
        overwrite: replace ``output`` if it exists.
        ffmpeg, ffprobe: programs to use instead of those that are found.

    Attributes:
        info: the stream fields of the result, after :meth:`close`.
        frames: number of frames written so far.

    Raises:
        ConfigError, DestinationError: settings or a path that cannot be used.
    """

    def __init__(
        self,
        output: str | Path,
        fps: int | float | str | Fraction,
        config: VideoEncoderConfig | None = None,
        *,
        depth_unit: Unit | None = None,
        encoder_threads: int | None = None,
        overwrite: bool = False,
        ffmpeg: str | None = None,
        ffprobe: str | None = None,
    ) -> None:
        check_kind("config", config, VideoEncoderConfig, "a VideoEncoderConfig or DepthEncoderConfig")
        check_number("encoder_threads", encoder_threads)
        self._overwrite = overwrite
        self._output = checked_output(output, overwrite=overwrite).absolute()  # the program may change folder
        self._fps = parse_fps(fps)
        self._config = config or VideoEncoderConfig()
        is_depth = isinstance(self._config, DepthEncoderConfig)
        if depth_unit is not None and not is_depth:
            raise ConfigError(
                "depth_unit would have no effect: the frames are colours; leave it out, or pass a "
                "DepthEncoderConfig as config"
            )
        self._depth = DepthSamples(self._config, depth_unit) if is_depth else None
        self._encoder_threads = encoder_threads
        self._programs = (ffmpeg, ffprobe)
        self._resources = contextlib.ExitStack()
        self._encoding: Encoding | None = None
        self._process: FfmpegProcess | None = None
        self._temporary: Path | None = None
        self._closed = False
        self._lock = threading.RLock()
        self._owner = os.getpid()
        self._end: weakref.finalize[[contextlib.ExitStack, Path, int], VideoWriter] | None = None
        self.frames = 0
        self.info: StreamInfo | None = None

    def write(self, frame: npt.NDArray[Any]) -> None:
        """Encode a frame; return when FFmpeg has read it.

        Args:
            frame: RGB, shape ``(H, W, 3)``, uint8, with the same size for every frame. Depth: shape ``(H,
                W)`` or ``(H, W, 1)``, integers or floats. A non-contiguous array is copied, any other is not.

        Raises:
            ConfigError: a wrong shape or dtype, or a forked process.
            ToolchainError: no FFmpeg on this machine can do it (with the first frame).
            FfmpegError: FFmpeg failed; the text says why.
        """
        self._check_owner()
        with self._lock:
            if self._closed:
                raise ConfigError("the writer is closed")
            pixels = self._checked(frame)
            try:
                self._pass_on(pixels)
            except BaseException as error:
                self._abort(error)
                raise
            self.frames += 1

    def _pass_on(self, pixels: npt.NDArray[Any]) -> None:
        """Give a frame to FFmpeg, which is started with the first one."""
        if self._encoding is None:
            self._start(pixels)
        encoding, process = self._encoding, self._process
        assert encoding is not None
        assert process is not None
        if pixels.shape[:2] != (encoding.height, encoding.width):
            raise ConfigError(
                f"frame {self.frames} is {pixels.shape[1]}x{pixels.shape[0]}, "
                f"the first was {encoding.width}x{encoding.height}"
            )
        if not process.write(pixels.data):
            process.finish()  # raises FFmpeg's error
            raise FfencError("ffmpeg ended before its last frame")

    def _checked(self, frame: Any) -> npt.NDArray[Any]:
        """Return a frame's samples, contiguous, as they are written to the pipe."""
        found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        if self._depth is not None:
            shaped = isinstance(frame, np.ndarray) and (
                frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 1)
            )
            if not shaped or frame.dtype.kind not in "iuf":
                raise ConfigError(
                    f"a depth frame must be an array of integers or floats of shape (H, W), got {found}"
                )
            return self._depth.of(frame.reshape(frame.shape[:2]))
        if (
            not isinstance(frame, np.ndarray)
            or frame.dtype != np.uint8
            or frame.ndim != 3
            or frame.shape[2] != 3
        ):
            raise ConfigError(f"a frame must be a uint8 array of shape (H, W, 3), got {found}")
        return np.ascontiguousarray(frame)

    def close(self) -> StreamInfo:
        """Finish, verify and publish the file.

        Returns:
            The stream fields of the result, read back from the file.

        Raises:
            FfmpegError, VerificationError: the encode failed, or its result is not what was requested.
            ConfigError: no frame was written, or this is a forked process.
        """
        self._check_owner()
        with self._lock:
            return self._finished()

    def _finished(self) -> StreamInfo:
        if self.info is not None:
            return self.info
        if self._closed:
            raise ConfigError("the writer is closed, and has written no video")
        if self._encoding is None or self._process is None or self._temporary is None:
            self._closed = True
            raise ConfigError("no frame was written, so there is no video")
        try:
            self._process.finish()
            sent = self._depth.sent if self._depth else None
            info = verify_encoded(self._encoding, self._temporary, self.frames, sent)
        except BaseException as error:
            self._abort(error)
            raise
        self._leave()
        self._resources.close()
        self.info = info
        return info

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._owner:
            return  # in a fork: the program and the file belong to the other process
        with self._lock:
            if error is not None:
                self._abort(error)
            elif not self._closed:
                self.close()

    def _check_owner(self) -> None:
        if os.getpid() != self._owner:
            raise ConfigError(
                f"this writer belongs to process {self._owner}, of which this is a fork; use it there"
            )

    def _start(self, pixels: npt.NDArray[Any]) -> None:
        height, width = pixels.shape[:2]
        self._end = weakref.finalize(self, _abandon, self._resources, self._output, self._owner)
        self._encoding = prepare(
            self._config,
            [pixels.tobytes()],
            width=width,
            height=height,
            fps=self._fps,
            frames=raw_format(self._config),
            encoder_threads=self._encoder_threads,
            candidates=toolchains(*self._programs),
        )
        self._resources.enter_context(claimed(self._output))
        self._temporary = self._resources.enter_context(published(self._output, overwrite=self._overwrite))
        self._process = self._resources.enter_context(FfmpegProcess(self._encoding.command(self._temporary)))

    def _abort(self, error: BaseException) -> None:
        """End FFmpeg and delete what it wrote."""
        if self._closed:
            return
        self._leave()
        _drop(self._resources, error)

    def _leave(self) -> None:
        self._closed = True
        if self._end is not None:
            self._end.detach()


def _drop(resources: contextlib.ExitStack, error: BaseException) -> None:
    """End FFmpeg and delete what it wrote."""
    with contextlib.suppress(type(error)):
        resources.__exit__(type(error), error, error.__traceback__)


def _abandon(resources: contextlib.ExitStack, output: Path, owner: int) -> None:
    """End the work of a writer that was freed, or at the end of the program."""
    if os.getpid() != owner:
        return
    _drop(resources, FfencError("the writer was not closed"))
    warnings.warn(
        f"{output}: is not written: its VideoWriter was not closed; call close, or use a with statement",
        FfencWarning,
        stacklevel=2,
    )
