"""What tests of recording share: small robots, frames that say their number, and what a dataset shows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow.parquet as pq

from ffenc import DepthEncoderConfig, RobotPreset, VideoEncoderConfig, VideoReader, verify_dataset
from ffenc.config.preset import CameraPreset
from ffenc.recording.recorder import Recorder
from tests.conftest import newest_programs

WIDTH, HEIGHT, FPS = 64, 48, 30
COLOUR = VideoEncoderConfig(vcodec="h264", preset="ultrafast", crf=18)
DEPTH = DepthEncoderConfig(preset="ultrafast")
_STEP = 4  # levels of gray, or centimetres, from number to number


def robot(
    *,
    depth: str | None = None,
    cameras: tuple[str, ...] = ("top",),
    width: int = WIDTH,
    colour: VideoEncoderConfig = COLOUR,
    **fields: Any,
) -> RobotPreset:
    """A preset with small cameras; ``depth``: one more, in that unit."""
    own: dict[str, CameraPreset] = {
        name: CameraPreset(width=width, height=HEIGHT, encoder=colour) for name in cameras
    }
    if depth is not None:
        size = {"width": width, "height": HEIGHT}
        own["deep"] = CameraPreset(**size, depth=True, depth_unit=depth, encoder=DEPTH)
    encoders = {"camera_encoder": colour, "depth_encoder": DEPTH}
    return RobotPreset(**{"name": "small", "fps": FPS, "cameras": own, **encoders, **fields})


def picture(number: int) -> npt.NDArray[np.uint8]:
    """A gray picture, 0..59."""
    return np.full((HEIGHT, WIDTH, 3), 10 + number * _STEP, np.uint8)


def depth_map(number: int, unit: str = "mm") -> npt.NDArray[Any]:
    """A wall at a distance that says the number, with a hole in it."""
    wall = np.full((HEIGHT, WIDTH), 1000 + number * 10 * _STEP, np.uint16)
    wall[:10, :10] = 0
    return wall if unit == "mm" else (wall / np.float32(1000)).astype(np.float32)


def record(recorder: Recorder, numbers: range, depth: str | None = None) -> None:
    """Write a row for each number."""
    for number in numbers:
        for name, camera in recorder.preset.cameras.items():
            recorder.write(name, depth_map(number, depth or "mm") if camera.depth else picture(number))
        recorder.add_row(state=[float(number), -1.5], action=[number / 3])


def shown(root: Path, episode: int, camera: str = "top") -> list[int]:
    """The numbers that an episode's frames show, in the order of its rows."""
    key = f"observation.images.{camera}"
    row = episodes(root)[episode]
    path = root / f"videos/{key}/chunk-000/file-{row[f'videos/{key}/file_index']:03d}.mp4"
    start = round(row[f"videos/{key}/from_timestamp"] * FPS)
    found = path.stat()
    numbers = _numbers(path, (found.st_ino, found.st_size, found.st_mtime_ns))
    assert len(numbers) >= start + row["length"]
    return numbers[start : start + row["length"]]


@lru_cache(maxsize=8)
def _numbers(path: Path, _version: tuple[int, ...]) -> list[int]:
    """The numbers that all frames of a file show."""
    with VideoReader(path, decoder="pyav") as video:
        return [
            round((np.median(frame) - 1000) / 10 / _STEP)
            if frame.ndim == 2
            else round((frame.mean() - 10) / _STEP)
            for frame in video
        ]


def episodes(root: Path) -> list[dict[str, Any]]:
    """The episode list."""
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    return [row for path in files for row in pq.read_table(path).to_pylist()]


def rows(root: Path, episode: int) -> list[dict[str, Any]]:
    """The rows of an episode."""
    place = episodes(root)[episode]
    path = root / f"data/chunk-000/file-{place['data/file_index']:03d}.parquet"
    return [row for row in pq.read_table(path).to_pylist() if row["episode_index"] == episode]


def states(root: Path, episode: int) -> list[int]:
    """The number that stands in each row."""
    return [int(row["observation.state"][0]) for row in rows(root, episode)]


def notes(root: Path, episode: int) -> dict[str, Any]:
    """What is kept beside an episode."""
    found: dict[str, Any] = json.loads((root / f"meta/recording/episode_{episode:06d}.json").read_text())
    return found


def assert_sound(root: Path) -> None:
    """The dataset has no faults, and nothing is left of the recording."""
    assert [str(fault) for fault in verify_dataset(root, deep=True, **newest_programs()).faults] == []
    assert not (root / ".recording").exists()


def wait_for(happens: Callable[[], bool], limit: float = 60.0, every: float = 0.005) -> None:
    """Poll until something has happened, ``every`` and at most ``limit`` seconds."""
    end = time.monotonic() + limit
    while not happens():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(every)


def encoders_of(root: Path, camera: str = "top") -> list[psutil.Process]:
    """The ffmpeg processes that write a camera's file."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(str(root / ".recording") in word and camera in word for word in words):
            found.append(process)
    return found
