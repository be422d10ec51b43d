"""A Linux camera, read by FFmpeg."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from ffenc.compiler.capture import compile_capture
from ffenc.config.framerate import fps_number
from ffenc.errors import CameraError, FfencError, FfmpegError, SourceError
from ffenc.ffmpeg.process import FfmpegProcess
from ffenc.ffmpeg.toolchain import toolchains
from ffenc.frames.images import read_header
from ffenc.recording.cameras.camera import CameraStream, CapturedFrame, NoFrame
from ffenc.recording.cameras.jpeg import JpegSplitter

_OPEN_SECONDS = 10.0  # some cameras need several seconds for their first frame
_CHUNK = 1 << 20  # size of the pipe in bytes
_OTHER_SIZE = 5  # consecutive images of another size that are the camera's setting, not damage
_CHANGED_RATE = re.compile(r"changed the time per frame from (\d+)/(\d+) to (\d+)/(\d+)")

_ADVICE = {
    "Device or resource busy": "another program uses it; close that program (fuser -v {device} names it)",
    "Permission denied": "this user may not read it; run sudo usermod -aG video $USER, and log in again",
    "Invalid argument": "it does not support these settings; v4l2-ctl -d {device} --list-formats-ext "
    "lists those it "
    "supports; with source.pixels: raw it need not provide JPEG",
}
_OTHERWISE = (
    "check whether it is still connected; v4l2-ctl -d {device} --list-formats-ext lists what it supports"
)


class V4l2:
    """A USB or CSI camera.

    Args:
        name: name of the camera.
        device: a path such as ``/dev/video0``.
        width, height: frame size in pixels.
        fps: frames per second.
        pixels: ``mjpeg``: its JPEG images, unchanged; ``raw``: RGB frames.
        ffmpeg: the program that reads it; None: the first that is found.
    """

    live = True
    paced = True

    def __init__(
        self,
        name: str,
        device: str,
        *,
        width: int,
        height: int,
        fps: Fraction,
        pixels: Literal["mjpeg", "raw"] = "mjpeg",
        ffmpeg: str | None = None,
    ) -> None:
        kind: Literal["jpeg", "rgb24"] = "jpeg" if pixels == "mjpeg" else "rgb24"
        self.streams: Sequence[CameraStream] = (CameraStream(name, width, height, kind),)
        self._device = device
        self._fps = fps
        self._pixels = pixels
        self._ffmpeg = ffmpeg
        self._process: FfmpegProcess | None = None
        self._ready: deque[CapturedFrame] = deque()
        self._chunk = bytearray(_CHUNK)
        self._splitter = JpegSplitter()
        self._other_size = 0
        # The header of every frame, unless the driver has selected another size.
        self._head = b"P6\n%d %d\n255\n" % (width, height)
        self._raw = bytearray(len(self._head) + width * height * 3 if pixels == "raw" else 0)
        self._filled = 0

    @property
    def torn(self) -> int:
        """Number of incomplete JPEG images that were skipped."""
        return self._splitter.torn

    def open(self) -> None:
        if not Path(self._device).exists():
            there = sorted(str(path) for path in Path("/dev").glob("video*"))
            raise CameraError(
                f"{self._name}: there is no {self._device}; "
                + (
                    f"cameras here: {', '.join(there)}"
                    if there
                    else "no camera is connected (there is no /dev/video*)"
                )
            )
        stream = self.streams[0]
        command = compile_capture(
            self._device,
            width=stream.width,
            height=stream.height,
            fps=self._fps,
            pixels=self._pixels,
            program=toolchains(self._ffmpeg)[0].ffmpeg,
        )
        self.close()
        self._process = FfmpegProcess(command, pull=True, stall_seconds=_OPEN_SECONDS)
        try:
            # Detects a camera that is in use or has other settings before the first episode.
            self._ready.appendleft(self._next(_OPEN_SECONDS))
        except BaseException:
            self.close()
            raise

    def rewind(self) -> None:
        pass

    def read(self, timeout: float) -> Mapping[str, CapturedFrame]:
        return {self._name: self._next(timeout)}

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.__exit__()
        self._ready.clear()
        self._splitter = JpegSplitter()
        self._filled = self._other_size = 0

    @property
    def _name(self) -> str:
        return self.streams[0].name

    def _next(self, timeout: float) -> CapturedFrame:
        until = time.monotonic() + timeout
        while not self._ready:
            if self._process is None:
                raise CameraError(f"{self._name}: {self._device} is not open")
            buffer = memoryview(self._raw)[self._filled :] if self._raw else memoryview(self._chunk)
            count = self._process.read_some(buffer, max(0.0, until - time.monotonic()))
            if count is None:
                advice = "check whether it is still connected, and reconnect it"
                raise NoFrame(f"{self._name}: {self._device}", timeout, advice)
            if count == 0:
                raise self._ended(self._process)
            self._check_rate(self._process)
            if self._raw:
                self._take_raw(count)
            else:
                self._take_jpeg(buffer[:count])
        return self._ready.popleft()

    def _take_raw(self, count: int) -> None:
        self._filled += count
        head = bytes(self._raw[: min(self._filled, len(self._head))])
        if not self._head.startswith(head):
            given = re.match(rb"P6\n(\d+) (\d+)\n", self._raw)
            raise self._wrong_size(f"{int(given[1])}x{int(given[2])}" if given else "unknown")
        if self._filled == len(self._raw):
            self._filled = 0
            stream = self.streams[0]
            pixels = np.frombuffer(self._raw, np.uint8, offset=len(self._head))
            self._ready.append(CapturedFrame(pixels.reshape(stream.height, stream.width, 3), time.time()))

    def _take_jpeg(self, data: memoryview) -> None:
        stream = self.streams[0]
        for image in self._splitter.feed(data):
            try:
                header = read_header(image, "image")
            except SourceError:
                self._splitter.torn += 1
                continue
            if (header.width, header.height) == (stream.width, stream.height):
                self._other_size = 0
                self._ready.append(CapturedFrame(image, time.time()))
                continue
            self._splitter.torn += 1
            self._other_size += 1
            if self._other_size == _OTHER_SIZE:
                raise self._wrong_size(f"{header.width}x{header.height}")

    def _wrong_size(self, found: str) -> CameraError:
        stream = self.streams[0]
        return CameraError(
            f"{self._name}: {self._device} gives frames of {found}, not {stream.width}x{stream.height}: set "
            f"the camera's width and height to a size it supports (v4l2-ctl -d {self._device} "
            "--list-formats-ext)"
        )

    def _check_rate(self, process: FfmpegProcess) -> None:
        """Refuse a rate changed by the driver: rows would have wrong times."""
        for line in list(process.log.head):
            changed = _CHANGED_RATE.search(line)
            if changed is not None and int(changed[3]):
                given = Fraction(int(changed[4]), int(changed[3]))
                if abs(given - self._fps) > self._fps / 1000:
                    raise CameraError(
                        f"{self._name}: {self._device} gives {fps_number(given):g} frames per second, not "
                        f"{fps_number(self._fps):g}: set fps or the camera's size to a mode it "
                        f"supports (v4l2-ctl -d {self._device} --list-formats-ext)"
                    )

    def _ended(self, process: FfmpegProcess) -> CameraError:
        try:
            process.finish()
            cause = "ffmpeg ended"
        except FfmpegError as error:
            cause = error.cause
        except FfencError as error:
            cause = str(error)
        advice = next((text for words, text in _ADVICE.items() if words in cause), _OTHERWISE)
        return CameraError(
            f"{self._name}: {self._device} cannot be read: {cause}; {advice.format(device=self._device)}"
        )
