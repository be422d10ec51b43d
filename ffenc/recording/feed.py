"""One camera's frames, from the caller's buffer to the program that stores them."""

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

# What stands in the queue beside the numbers of slots.
_REPEAT, _CHECK, _END = -1, -2, -3
# Frames of so many bytes are lent to the program, not copied; of smaller ones too many would have to be kept.
_LENT_BYTES = PIPE_BYTES // 8
_LEAST_PIPE = 1 << 16  # the system's own


class Sink(Protocol):
    """What frames are given to: a running ffmpeg, or a folder."""

    @property
    def ended(self) -> bool:
        """Whether it takes no more."""

    def write(self, data: Buffer) -> bool:
        """Give it a frame; False when it takes no more: :meth:`finish` says why."""

    def lend(self, data: Buffer) -> bool:
        """The same, of memory that stays as it is until :data:`PIPE_BYTES` more have been given."""

    def finish(self) -> object:
        """Have it end; raises with the reason if it failed."""


class TiffFolder:
    """Depth in metres as it is: no PNG holds floats.

    Args:
        folder: where the numbered files go; must exist.
        shape: of a map: height, width.
    """

    ended = False

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        self._folder, self._shape = folder, shape
        self._number = 0

    def write(self, data: Buffer) -> bool:
        from PIL import Image  # noqa: PLC0415 - only where depth is kept in metres

        image = io.BytesIO()
        Image.fromarray(np.frombuffer(data, np.float32).reshape(self._shape)).save(image, format="TIFF")
        (self._folder / f"frame-{self._number:06d}.tiff").write_bytes(image.getbuffer())
        self._number += 1
        return True

    lend = write

    def finish(self) -> None:
        pass


class FrameRing:
    """Memory for the frames of one camera that wait, taken once and kept for all episodes.

    Args:
        shape, dtype: of a frame; of encoded images their greatest number of bytes, uint8.
        waiting: how many frames may wait.
        encoded: they are encoded images, each of its own length.
        at_once: have the system give the memory now, which takes a while; else it does so with the first
            frames, bit by bit, for a caller that is in its loop already.
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
        # What is in the pipe is lost with the encoder, and is no part of the queue: a frame, or some JPEG.
        self.pipe_bytes = min(PIPE_BYTES, _LEAST_PIPE if encoded else 1 << (size - 1).bit_length())
        # One is kept after it was sent, to be sent again, and of those that are lent the pipe holds some.
        kept = 1 + (-(-PIPE_BYTES // size) if self.lent else 0)
        self.slots = np.empty((waiting + kept, *shape), dtype)
        if at_once:
            self.slots.fill(0)  # the system gives memory when it is first touched
        self.lengths = [0] * len(self.slots)
        self.reset()

    def reset(self) -> None:
        """All of it is free: an episode begins, whatever has ended the one before."""
        self.free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(len(self.slots)):
            self.free.put(slot)


class Feed:
    """One camera in one episode: a queue of frames, and a thread that gives them to a sink.

    :meth:`write` copies a frame and returns; :meth:`commit` lets the thread have it, once the row it belongs
    to is sure. So the feeds of all cameras get the same number of frames, whatever happens in between.

    Args:
        name: the camera, for errors.
        ring: memory for its frames.
        sink: takes them.
        on_full: what :meth:`write` does when the sink is behind by as many frames as may wait.
        observe: called with each frame, on the thread.
        convert: makes what the sink is given of a frame, on the thread; None: its bytes.
        wait_seconds: how long :meth:`write` waits at most.

    Attributes:
        error: why the sink has ended before its time.
        committed, fed: frames it was given, and has passed on.
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
        self._slot: int | None = None  # of the frame that is written and not committed
        self._repeated = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"ffenc-feed-{name}", daemon=True)
        self._thread.start()

    @property
    def written(self) -> bool:
        """Whether there is a frame for the row to come."""
        return self._slot is not None or self._repeated

    @property
    def repeated(self) -> bool:
        """Whether it is the one before."""
        return self._repeated

    @property
    def queued(self) -> int:
        """How many frames wait; none for a sink that has ended."""
        return max(0, self.committed - self.fed) if self.error is None else 0

    def write(self, frame: npt.NDArray[Any] | bytes | None) -> bool:
        """Copy a frame for the row to come.

        Args:
            frame: as the ring holds them; None: the one before is sent again.

        Returns:
            False where there is no room and ``on_full`` is ``drop``.

        Raises:
            FfencError: the sink has ended; its own error, each time.
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
        """Take the frame back: its row is not."""
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
            self._entries.put(_CHECK)  # the thread finds out why
            self._failed.wait(self._wait_seconds)
        if self.error is not None:
            raise self.error
        if self._ended:
            raise ConfigError(f"camera {self.name}: the episode has ended")

    def close(self) -> None:
        """Pass on what waits, and have the sink end. The ring is free again."""
        self.release()
        if not self._ended:
            self._ended = True
            self._entries.put(_END)
        self._thread.join()
        self._failed.set()  # nobody finds out more

    def _take(self) -> int | None:
        """A free slot; None where there is none, and nobody waits."""
        free = self._ring.free
        try:
            # One is never the caller's: the frame that was sent last.
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
        # Those that were sent and cannot be free yet: the last, and what may still be in the pipe.
        kept: deque[tuple[int, int]] = deque()  # slot, bytes that were sent until its end
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
        """Give the sink a frame; returns its bytes, None where it takes no more."""
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
        """Have the sink end, and keep its error."""
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
