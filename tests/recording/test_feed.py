"""A camera's frames on their way: none lost, none torn, whatever the sink does."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ffenc.errors import FfencError
from ffenc.ffmpeg.process import Buffer
from ffenc.recording.feed import Feed, FrameRing, OnFull, TiffFolder

LIMIT = 10.0


class Gate:
    """A sink that takes a frame when it is let."""

    ended = False

    def __init__(self, *, open_: bool = False) -> None:
        self.taken: list[bytes] = []
        self.fails = False
        self._let = threading.Semaphore(10_000 if open_ else 0)
        self.waiting = threading.Semaphore(0)

    def write(self, data: Buffer) -> bool:
        self.waiting.release()
        assert self._let.acquire(timeout=LIMIT)
        if self.fails:
            return False
        self.taken.append(bytes(memoryview(data).cast("B")))
        return True

    lend = write

    def let(self, count: int) -> None:
        self._let.release(count)

    def finish(self) -> None:
        if self.fails:
            raise FfencError("the encoder was killed")


def frame(number: int) -> np.ndarray[Any, Any]:
    return np.full((2, 3, 3), number, np.uint8)


def numbers(sink: Gate) -> list[int]:
    return [data[0] for data in sink.taken]


def feed(sink: Gate, on_full: OnFull, waiting: int = 3) -> Feed:
    return Feed("top", FrameRing((2, 3, 3), np.uint8, waiting), sink, on_full=on_full, wait_seconds=LIMIT)


def give(feed: Feed, number: int | None) -> bool:
    taken = feed.write(None if number is None else frame(number))
    if taken:
        feed.commit()
    else:
        feed.release()
    return taken


def test_frames_come_in_order_and_the_callers_buffer_may_change_at_once() -> None:
    sink = Gate(open_=True)
    one = feed(sink, "block")
    buffer = frame(0)
    for number in range(100):
        buffer[:] = number
        one.write(buffer)
        one.commit()
    one.close()
    assert numbers(sink) == list(range(100))
    assert (one.fed, one.queued, one.error) == (100, 0, None)


def test_what_is_not_committed_never_comes() -> None:
    sink = Gate(open_=True)
    one = feed(sink, "block")
    for number in range(20):
        one.write(frame(number))
        one.commit() if number % 3 else one.release()
    one.write(frame(99))
    one.close()
    assert numbers(sink) == [n for n in range(20) if n % 3]


@pytest.mark.parametrize("on_full", ["drop", "repeat"])
def test_a_full_queue_drops_or_repeats_and_never_waits(on_full: OnFull) -> None:
    sink = Gate()
    one = feed(sink, on_full)
    give(one, 0)
    assert sink.waiting.acquire(timeout=LIMIT)  # the first is in the sink's hands, three may wait
    outcomes = [(give(one, number), one.queued) for number in range(1, 7)]
    kept = on_full == "repeat"
    assert [taken for taken, _ in outcomes] == [True, True, True, kept, kept, kept]
    sink.let(100)
    one.close()
    assert numbers(sink) == [0, 1, 2, 3, *([3, 3, 3] if kept else [])]


def test_a_full_queue_blocks_until_there_is_room() -> None:
    sink = Gate()
    one = feed(sink, "block")
    done = threading.Event()

    def work() -> None:
        for number in range(10):
            give(one, number)
        done.set()

    threading.Thread(target=work, daemon=True).start()
    assert sink.waiting.acquire(timeout=LIMIT)
    assert not done.is_set()
    sink.let(100)
    assert done.wait(LIMIT)
    one.close()
    assert numbers(sink) == list(range(10))


def test_none_sends_the_frame_before_again_and_large_frames_are_lent_safely() -> None:
    """Lent memory is only written over when the pipe cannot hold it any more."""
    shape = (200, 300, 3)
    held: list[memoryview] = []

    class Late(Gate):
        def lend(self, data: Buffer) -> bool:
            held.append(memoryview(data).cast("B"))
            done = len(held) * 180_000
            # What a pipe of 1 MiB may still hold is looked at as late as can be.
            while (len(held) - len(self.taken)) * 180_000 > 1 << 20:
                self.taken.append(bytes(held[len(self.taken)][:1]))
            return done > 0

    sink = Late(open_=True)
    one = Feed("top", FrameRing(shape, np.uint8, 3), sink, on_full="block", wait_seconds=LIMIT)
    sent = []
    for number in range(60):
        give_none = number % 4 == 3
        one.write(None if give_none else np.full(shape, number, np.uint8))
        one.commit()
        sent.append(sent[-1] if give_none else number)
    one.close()
    taken = [data[0] for data in sink.taken]
    assert len(taken) > 50
    assert taken == sent[: len(taken)]


def test_a_sink_that_fails_is_told_at_the_next_write_and_nobody_waits() -> None:
    sink = Gate()
    one = feed(sink, "block")
    for number in range(3):
        give(one, number)
    sink.fails = True
    sink.let(100)
    with pytest.raises(FfencError, match=r"camera top: the encoder was killed"):
        for _ in range(50):
            give(one, 7)
    with pytest.raises(FfencError, match="killed"):
        one.write(frame(8))
    one.close()
    assert one.error is not None


def test_a_sink_that_ends_while_nothing_is_written_is_told_at_the_next_write() -> None:
    sink = Gate(open_=True)
    one = feed(sink, "drop")
    give(one, 0)
    sink.fails = sink.ended = True
    with pytest.raises(FfencError, match="killed"):
        one.write(frame(1))
    one.close()


def test_metres_are_kept_as_they_are(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).random((4, 5), np.float32)
    depth[0, 0] = np.nan
    ring = FrameRing((4, 5), np.float32, 2)
    one = Feed("top", ring, TiffFolder(tmp_path, (4, 5)), on_full="block")
    for number in range(3):
        one.write(depth + np.float32(number))
        one.commit()
    one.close()
    assert one.error is None
    for number in range(3):
        shown = np.asarray(Image.open(tmp_path / f"frame-{number:06d}.tiff"))
        np.testing.assert_array_equal(shown, depth + np.float32(number))


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    one = Feed(
        "top", FrameRing((4, 5), np.float32, 2), TiffFolder(tmp_path / "gone", (4, 5)), on_full="block"
    )
    one.write(np.zeros((4, 5), np.float32))
    one.commit()
    one.close()
    assert "camera top: cannot be written: No such file" in str(one.error)
