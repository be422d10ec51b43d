"""Many episodes of four cameras, one encoder made slow, one killed, one episode discarded: nothing is lost.

In CI 520 rows; ``pytest tests/recording/test_endurance.py --long`` records 60,000, for some minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest

from ffenc import FfencError, FfencWarning, VideoReader
from ffenc.recording.cameras.number import read_number
from ffenc.recording.cameras.test_pattern import TestPattern
from ffenc.recording.recorder import Recorder
from ffenc.recording.recover import recover
from tests.recording.recording import (
    HEIGHT,
    WIDTH,
    assert_sound,
    encoders_of,
    episodes,
    notes,
    robot,
    states,
    wait_for,
)

CAMERAS = ("top", "left", "right", "deep")
LENGTH = 130
GROWTH = 40 << 20  # bytes of memory: what files opened and read leave behind, not frames


class Bench:
    """A recorder with its cameras."""

    def __init__(self, recorder: Recorder, root: Path) -> None:
        self.recorder, self.root = recorder, root
        self.cameras = [
            TestPattern(name, width=WIDTH, height=HEIGHT, depth=name == "deep") for name in CAMERAS
        ]
        for camera in self.cameras:
            camera.open()

    def rows(self, count: int = LENGTH) -> Iterator[int]:
        """Start an episode and record it; gives each row's number before it is recorded."""
        self.recorder.start_episode()
        for camera in self.cameras:
            camera.rewind()
        for number in range(count):
            yield number
            for camera in self.cameras:
                frames = camera.read(1.0)
                assert frames is not None
                for name, frame in frames.items():
                    self.recorder.write(name, frame.data)
            self.recorder.add_row(state=[float(number), 0.0], action=[0.0])

    def in_time(self, *, but: str = "") -> None:
        """Wait as a camera's pace would, until the encoders have room; ``but``: for one it is not waited."""
        wait_for(
            lambda: all(
                camera.queued < camera.queue_maxsize
                for name, camera in self.recorder.status().cameras.items()
                if name != but
            )
        )


def shown(root: Path, episode: int, camera: str) -> list[int]:
    key = f"observation.images.{camera}"
    number = episodes(root)[episode][f"videos/{key}/file_index"]
    with VideoReader(root / f"videos/{key}/chunk-000/file-{number:03d}.mp4", decoder="pyav") as video:
        return [read_number(frame) for frame in video]


def test_every_row_has_its_frame_whatever_happens(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    wanted = 60_000 if request.config.getoption("--long") else 520
    root = tmp_path / "data"
    preset = robot(cameras=CAMERAS[:3], depth="mm", on_full="repeat", queue_maxsize=8)
    recorded = 0
    memory = 0
    with Recorder(preset, root) as recorder:
        bench = Bench(recorder, root)
        for number in bench.rows():  # one is slow
            if number == 50:
                [slow] = encoders_of(root, "left")
                slow.suspend()
            if number == 120:
                slow.resume()
            bench.in_time(but="left" if 50 <= number < 120 else "")
        repeated = recorder.save_episode().repeated
        assert repeated["left"] > 40
        assert sum(repeated.values()) == repeated["left"]
        for _ in bench.rows(60):
            bench.in_time()
        recorder.discard_episode()
        with pytest.raises(FfencError, match="camera right"):  # one is killed
            for number in bench.rows():
                bench.in_time()
                if number == 110:
                    encoders_of(root, "right")[0].kill()
        recorded += 2 * LENGTH
        while recorded < wanted:
            first = recorded == 2 * LENGTH  # after the one that was killed
            with pytest.warns(FfencWarning, match="ffenc recover") if first else nullcontext():
                for _ in bench.rows():
                    bench.in_time()
            recorder.save_episode()
            recorded += LENGTH
            memory = memory or psutil.Process().memory_info().rss
        assert psutil.Process().memory_info().rss < memory + GROWTH
    [back] = recover(root).episodes
    assert 70 < back.rows <= 112
    assert_sound(root)
    lengths = [row["length"] for row in episodes(root)]
    assert lengths == [LENGTH] * (recorded // LENGTH - 1) + [back.rows]
    for episode, length in enumerate(lengths):
        assert states(root, episode) == list(range(length))
        for camera in CAMERAS:
            again = set(notes(root, episode)["repeated"].get(camera, ()))
            expected: list[int] = []
            for row in range(length):
                expected.append(expected[-1] if row in again else row)
            assert shown(root, episode, camera) == expected, (episode, camera)
