"""Run several encodes at once and measure their speed and CPU time."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import psutil
from msgspec import Struct

from ffenc.errors import Cancelled, FfmpegError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.process import FfmpegProcess
from ffenc.frames.encoding import Encoding
from ffenc.frames.pattern import pattern_frames
from ffenc.temporary import temporary_folder

HUNG = "ran, and then hung"  # for hardware that stops without an error
# Encoders have a lookahead: until the first frame comes out, they accept frames faster than they encode.
WARM_UP_SECONDS = 0.3
WARM_UP_LIMIT = 12.0
# At least a few frames of the slowest camera are measured, however slow it is, but for a limited time.
MIN_FRAMES = 4
MAX_SECONDS = 20.0


class Load(Struct, frozen=True):
    """The result of one encode among several that run at once.

    Attributes:
        fps: frames per second that it accepted; at most the rate that it was fed with.
        cpu: number of cores that it kept busy.
        error: why it ended early, None if it did not.
    """

    fps: float
    cpu: float
    error: FfmpegError | None = None


def measure_load(
    encodings: Mapping[str, Encoding],
    *,
    pace: float | None = None,
    seconds: float = 3.0,
    pictures: Mapping[str, Sequence[bytes]] | None = None,
) -> dict[str, Load]:
    """Encode frames with all encodings at once, and measure each.

    Args:
        encodings: by any name; their ``frames`` are raw.
        pace: feed each at this multiple of its own fps, as a camera would; None: as fast as it accepts
            frames.
        seconds: duration of the measurement, from when every encoder has given its first frame. It is
            extended if the slowest would have only a few frames, or, without a pace, one has accepted none
            yet.
        pictures: raw frames to feed repeatedly, by name; None: synthetic frames.

    Returns:
        The load of each encoding, by name.

    Raises:
        ToolchainError: a program cannot be started.
    """
    if pace is not None:
        slowest = min((float(encoding.fps) for encoding in encodings.values()), default=1.0)
        seconds = max(seconds, min(MIN_FRAMES / (slowest * pace), MAX_SECONDS))
    cancellation = Cancellation()
    with temporary_folder() as folder:
        feeders = [
            _Feeder(
                name,
                encoding,
                Path(folder) / f"{i}.mp4",
                pace,
                cancellation,
                pattern_frames(*encoding.fed_size, encoding.frames) if pictures is None else pictures[name],
            )
            for i, (name, encoding) in enumerate(encodings.items())
        ]
        try:
            for feeder in feeders:
                feeder.start()
            _wait_until_warm(feeders)
            began = time.monotonic()
            for feeder in feeders:
                feeder.mark(began)
            while not all(feeder.error for feeder in feeders):
                spent = time.monotonic() - began
                # Without a pace, an encode that accepted no frame has not been measured: the machine may be
                # busy.
                measured = pace is not None or all(feeder.measured for feeder in feeders)
                if spent >= seconds and (measured or spent >= MAX_SECONDS):
                    break
                time.sleep(0.02)
            return {feeder.name: feeder.load() for feeder in feeders}
        finally:
            cancellation.cancel()  # first, so that no feeder waits for its program
            for feeder in feeders:
                feeder.stop()


def _wait_until_warm(feeders: list[_Feeder]) -> None:
    began = time.monotonic()
    while (spent := time.monotonic() - began) < WARM_UP_LIMIT:
        if spent >= WARM_UP_SECONDS and all(feeder.encoded or feeder.error for feeder in feeders):
            return
        time.sleep(0.02)


class _Feeder:
    """An encode and the thread that feeds it."""

    def __init__(
        self,
        name: str,
        encoding: Encoding,
        output: Path,
        pace: float | None,
        cancellation: Cancellation,
        frames: Sequence[bytes],
    ) -> None:
        self.name = name
        self.encoded = 0
        self.error: FfmpegError | None = None
        self._frames = frames
        self._interval = 0.0 if pace is None else float(1 / (encoding.fps * pace))
        self._command = encoding.command(output)
        self._cancellation = cancellation
        self._written = 0
        self._mark = (time.monotonic(), 0, 0.0)  # time, frames, CPU seconds
        self._marked = False
        self._next = 0.0  # when the next frame is due
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._process: FfmpegProcess | None = None

    def start(self) -> None:
        self._process = FfmpegProcess(
            self._command,
            on_frames=self._on_frames,
            cancellation=self._cancellation,
            progress_seconds=0.1,
        )
        self._thread.start()

    def mark(self, now: float) -> None:
        """Start the measurement."""
        self._mark, self._marked = (now, self._written, self._cpu()), True
        self._next = now  # frames that were late are not fed in addition

    @property
    def measured(self) -> bool:
        return self.error is not None or self._written > self._mark[1]

    def load(self) -> Load:
        began, frames, cpu = self._mark
        spent = max(time.monotonic() - began, 1e-6)
        taken = self._written - frames
        fps = taken / spent
        if self._interval:
            # Relative to the frames that were due: in a short time, one frame more or less would be
            # significant.
            fps = min(taken / max(int(spent / self._interval), 1), 1.0) / self._interval
        return Load(fps, max(self._cpu() - cpu, 0.0) / spent, self.error)

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._process is not None:
            self._process.__exit__()

    def _on_frames(self, count: int) -> None:
        self.encoded = count

    def _cpu(self) -> float:
        assert self._process is not None
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except (psutil.Error, OSError):  # the second: a container without /proc
            return 0.0
        return float(times.user + times.system)

    def _feed(self) -> None:
        assert self._process is not None
        for frame in cycle(self._frames):
            while (left := self._next - time.monotonic()) > 0 and not self._stopping.is_set():
                self._stopping.wait(min(left, 0.05))  # the start of the measurement changes the time
            if self._stopping.is_set() or not self._process.write(frame):
                break
            self._written += 1
            if self.encoded or self._marked:
                self._next += self._interval
            else:
                # The lookahead is filled as fast as possible: from then on, each accepted frame is an encoded
                # one.
                self._next = time.monotonic()
        if not self._stopping.is_set():
            try:
                self._process.finish()
            except Cancelled:
                pass
            except FfmpegError as error:
                self.error = error
