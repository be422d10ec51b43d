"""The path of a camera's frames from the caller's buffer to the program that stores them."""

from __future__ import annotations

import errno
import io
import queue
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ffenc.errors import ConfigError, DestinationError, FfencError
from ffenc.ffmpeg.launch import running_wait
from ffenc.ffmpeg.process import PIPE_BYTES, Buffer

OnFull = Literal["block", "drop", "repeat"]

# Entries of the queue other than slot numbers.
_REPEAT, _CHECK, _END = -1, -2, -3
# Frames of at least this size are lent to the program, not copied; too many smaller ones would have to be
# kept.
_LENT_BYTES = PIPE_BYTES // 8
_LEAST_PIPE = 1 << 16  # the system's default


class Sink(Protocol):
    """The destination of frames: a running ffmpeg, or a folder."""

    @property
    def ended(self) -> bool:
        """Whether it accepts no more frames."""

    def write(self, data: Buffer) -> bool:
        """Write a frame; return False if no more are accepted: :meth:`finish` raises the reason."""

    def lend(self, data: Buffer) -> bool:
        """Like :meth:`write`; the memory must not change until :data:`PIPE_BYTES` more were written."""

    def finish(self) -> object:
        """End it; raise the reason if it failed."""


class TiffFolder:
    """Stores depth in metres unchanged as TIFF: PNG does not support floats.

    Args:
        folder: folder of the numbered files; must exist.
        shape: height and width of a map.
    """

    ended = False

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        self._folder, self._shape = folder, shape
        self._number = 0
        self._tiff(np.zeros(shape, np.float32))  # Pillow loads all its formats now, not during the recording

    def write(self, data: Buffer) -> bool:
        image = self._tiff(np.frombuffer(data, np.float32).reshape(self._shape))
        (self._folder / f"frame-{self._number:06d}.tiff").write_bytes(image)
        self._number += 1
        return True

    @staticmethod
    def _tiff(depth: npt.NDArray[np.float32]) -> memoryview:
        from PIL import Image  # noqa: PLC0415 - only needed for depth in metres

        image = io.BytesIO()
        Image.fromarray(depth).save(image, format="TIFF")
        return image.getbuffer()

    lend = write

    def finish(self) -> None:
        pass


class FrameRing:
    """Memory for the waiting frames of a camera, allocated once for all episodes.

    Args:
        shape, dtype: of a frame; for encoded images their greatest size in bytes, uint8.
        waiting: greatest number of waiting frames.
        encoded: the frames are encoded images of different sizes.
        at_once: touch all memory now, which takes a while; otherwise pages are allocated with the first
            frames, for a caller whose loop is already running.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        waiting: int,
        *,
        encoded: bool = False,
        at_once: bool = True,
    ) -> None:
        self.waiting = waiting
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.lent = size >= _LENT_BYTES and not encoded
        # Contents of the pipe are lost with the encoder, and are not part of the queue: one frame, or a few
        # JPEGs.
        self.pipe_bytes = min(PIPE_BYTES, _LEAST_PIPE if encoded else 1 << (size - 1).bit_length())
        # One slot keeps the last sent frame for a repetition; of lent frames, the pipe may still refer to
        # some.
        kept = 1 + (-(-PIPE_BYTES // size) if self.lent else 0)
        self.slots = np.empty((waiting + kept, *shape), dtype)
        if at_once:
            self.slots.fill(0)  # the system allocates memory at the first access
        self.lengths = [0] * len(self.slots)
        self.reset()

    def reset(self) -> None:
        """Free all slots at the start of an episode, however the last one ended."""
        self.free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(len(self.slots)):
            self.free.put(slot)


class Feed:
    """The queue of a camera's frames in one episode, and the thread that writes them to a sink.

    :meth:`write` copies a frame and returns; :meth:`commit` passes it to the thread when its row has been
    stored. So the feeds of all cameras get the same number of frames, whatever happens in between.

    Args:
        name: name of the camera, for errors.
        ring: memory for its frames.
        sink: destination of the frames.
        on_full: what :meth:`write` does if the queue is full.
        observe: called with each frame, in the thread.
        convert: converts a frame for the sink, in the thread; None: its bytes are used.
        wait_seconds: greatest waiting time of :meth:`write`.

    Attributes:
        error: why the sink has ended early.
        committed, fed: number of frames that were committed, and that were passed on.
    """

    def __init__(
        self,
        name: str,
        ring: FrameRing,
        sink: Sink,
        *,
        on_full: OnFull,
        observe: Callable[[npt.NDArray[Any]], None] | None = None,
        convert: Callable[[npt.NDArray[Any]], Buffer] | None = None,
        wait_seconds: float = 60.0,
    ) -> None:
        self.name = name
        self.error: FfencError | None = None
        self.committed = self.fed = 0
        self._ring, self._sink, self._on_full = ring, sink, on_full
        self._observe, self._convert, self._wait_seconds = observe, convert, wait_seconds
        self._lent = ring.lent and convert is None
        self._entries: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._failed = threading.Event()
        self._slot: int | None = None  # of the frame that was written but not committed
        self._repeated = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"ffenc-feed-{name}", daemon=True)
        self._thread.start()

    @property
    def written(self) -> bool:
        """Whether there is a frame for the next row."""
        return self._slot is not None or self._repeated

    @property
    def repeated(self) -> bool:
        """Whether that frame repeats the previous one."""
        return self._repeated

    @property
    def queued(self) -> int:
        """Number of waiting frames; 0 if the sink has ended."""
        return max(0, self.committed - self.fed) if self.error is None else 0

    def write(self, frame: npt.NDArray[Any] | bytes | None) -> bool:
        """Copy a frame for the next row.

        Args:
            frame: of the ring's shape and dtype; None: repeat the previous one.

        Returns:
            False if the queue is full and ``on_full`` is ``drop``.

        Raises:
            FfencError: the sink has ended; each time with the sink's own error.
        """
        self.check()
        if frame is None:
            self._repeated = True
            return True
        slot = self._take()
        if slot is None:
            self._repeated = self._on_full == "repeat"
            return self._repeated
        slots = self._ring.slots
        if isinstance(frame, bytes):
            slots[slot, : len(frame)] = np.frombuffer(frame, np.uint8)
            self._ring.lengths[slot] = len(frame)
        else:
            np.copyto(slots[slot], frame)
        self._slot = slot
        return True

    def commit(self) -> None:
        """Pass the frame on: its row is in the table."""
        self._entries.put(_REPEAT if self._slot is None else self._slot)
        self.committed += 1
        self._slot, self._repeated = None, False

    def release(self) -> None:
        """Take the frame back: its row was dropped."""
        if self._slot is not None:
            self._ring.free.put(self._slot)
        self._slot, self._repeated = None, False

    def check(self) -> None:
        """Raise the error of a sink that has ended.

        Raises:
            ConfigError: the feed was closed.
        """
        if self._ended:
            raise ConfigError(f"camera {self.name}: the episode has ended")
        if self.error is None and self._sink.ended:
            self._entries.put(_CHECK)  # the thread determines the error
            self._failed.wait(self._wait_seconds)
        if self.error is not None:
            raise self.error
        if self._ended:
            raise ConfigError(f"camera {self.name}: the episode has ended")

    def close(self) -> None:
        """Pass on the waiting frames, end the sink, and free the ring."""
        self.release()
        if not self._ended:
            self._ended = True
            self._entries.put(_END)
        self._thread.join()
        self._failed.set()  # no further error is determined

    def _take(self) -> int | None:
        """Return a free slot without waiting; None if all are in use."""
        free = self._ring.free
        try:
            # The slot of the frame that was sent last is never available to the caller.
            return free.get_nowait()
        except queue.Empty:
            if self._on_full != "block":
                return None
        slot = -1

        def freed(seconds: float) -> bool:
            nonlocal slot
            try:
                slot = free.get(timeout=seconds)
            except queue.Empty:
                return False
            return True

        if not running_wait(freed, self._wait_seconds):
            raise FfencError(f"{self.name}: the encoder has not taken a frame for {self._wait_seconds:.0f} s")
        if self.error is not None:
            free.put(slot)
            raise self.error
        return slot

    def _run(self) -> None:
        free = self._ring.free
        # Slots that were sent and cannot be free yet: the last one, and those that may still be in the pipe.
        kept: deque[tuple[int, int]] = deque()  # slot, total bytes sent up to its end
        sent = 0
        while (entry := self._entries.get()) != _END:
            if entry == _CHECK or self.error is not None:
                if self.error is None:
                    self._learn_why()
                if entry >= 0:
                    free.put(entry)
                continue
            slot = kept.pop()[0] if entry == _REPEAT else entry
            try:
                count = self._send(slot)
                if count is None:
                    self._learn_why()
                else:
                    sent += count
                    self.fed += 1
            except Exception as error:
                self._fail(error)
            kept.append((slot, sent))
            while len(kept) > 1 and (not self._lent or kept[0][1] + PIPE_BYTES <= sent):
                free.put(kept.popleft()[0])
        if self.error is None:
            self._learn_why(expected=True)
        for slot, _ in kept:
            free.put(slot)

    def _send(self, slot: int) -> int | None:
        """Write a frame to the sink; return its size in bytes, None if no more are accepted."""
        frame = self._ring.slots[slot]
        if self._observe is not None:
            self._observe(frame)
        if self._convert is not None:
            data: Buffer = self._convert(frame)
        else:
            data = frame[: self._ring.lengths[slot]].data if self._ring.lengths[slot] else frame.data
        give = self._sink.lend if self._lent else self._sink.write
        return memoryview(data).nbytes if give(data) else None

    def _learn_why(self, *, expected: bool = False) -> None:
        """End the sink, and keep its error."""
        try:
            self._sink.finish()
        except Exception as error:
            self._fail(error)
        else:
            if not expected:
                self._fail(FfencError("the encoder ended before its last frame"))

    def _fail(self, error: Exception) -> None:
        if isinstance(error, OSError):
            full = " (the disk is full)" if error.errno == errno.ENOSPC else ""
            error = DestinationError(f"cannot be written: {error.strerror or error}{full}")
        elif not isinstance(error, FfencError):
            error = FfencError(f"{type(error).__name__}: {error}")
        self.error = error.within(f"camera {self.name}")
        self._failed.set()
