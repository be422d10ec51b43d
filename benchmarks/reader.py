"""Compare reading scattered frames by ffenc with PyAV alone, in one run.

    python benchmarks/reader.py [--frames 600] [--reads 60] [--codecs libsvtav1,h264]

The video is of camera-like 640x480 frames with a key frame every second one, as LeRobot's default has it. Two
patterns: one frame at a random place, and 32 frames at random places in one call. PyAV alone opens the file
for every read, as LeRobot's own PyAV reader does, or keeps it open and seeks. ffenc's reader is open already.
Median milliseconds a read, and how many times PyAV's time with an open file that is.
"""

from __future__ import annotations

import argparse
import io
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console
from rich.table import Table

from ffenc import VideoEncoderConfig, VideoReader, VideoWriter

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures/aloha_image_v30"
CAMERA = "observation.images.top"
WIDTH, HEIGHT, FPS, BATCH = 640, 480, 30, 32


def make_video(path: Path, frames: int, vcodec: str) -> None:
    """Encode the sample's frames, enlarged, with a sensor's noise."""
    column = pq.read_table(FIXTURE / "data/chunk-000/file-000.parquet", columns=[CAMERA])[CAMERA].to_pylist()
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 2, (HEIGHT, WIDTH, 3)).astype(np.float32)
    config = VideoEncoderConfig(vcodec=vcodec)
    with VideoWriter(path, fps=FPS, config=config) as video:
        for index in range(frames):
            small = Image.open(io.BytesIO(column[index % len(column)]["bytes"])).convert("RGB")
            large = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
            grain = np.roll(noise, (index * 37 % HEIGHT, index * 101 % WIDTH), (0, 1))
            video.write((large + grain).clip(0, 255).astype(np.uint8))


class PyAV:
    """PyAV's decoder: a seek to the key frame before, and decoding from there."""

    def __init__(self, path: Path) -> None:
        self._container = av.open(str(path))
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "NONE"

    def close(self) -> None:
        self._container.close()

    def frame(self, index: int) -> np.ndarray:
        assert self._stream.time_base is not None
        ticks = round(index / FPS / self._stream.time_base)
        self._container.seek(ticks, stream=self._stream)
        for frame in self._container.decode(self._stream):
            if frame.pts is not None and frame.pts >= ticks:
                return frame.to_ndarray(format="rgb24")
        raise IndexError(index)


def opened_each_time(path: Path) -> Callable[[Sequence[int]], object]:
    def read(indices: Sequence[int]) -> object:
        reader = PyAV(path)
        try:
            return np.stack([reader.frame(index) for index in sorted(indices)])
        finally:
            reader.close()

    return read


def kept_open(path: Path) -> Callable[[Sequence[int]], object]:
    reader = PyAV(path)
    return lambda indices: np.stack([reader.frame(index) for index in sorted(indices)])


def by_ffenc(path: Path, decoder: str) -> Callable[[Sequence[int]], object]:
    reader = VideoReader(path, decoder=decoder)  # type: ignore[arg-type]
    return lambda indices: reader[indices[0]] if len(indices) == 1 else reader[list(indices)]


def median(read: Callable[[Sequence[int]], object], choices: Sequence[Sequence[int]]) -> float:
    """Median milliseconds of a read; the first one is not counted."""
    read(choices[0])
    spent = []
    for choice in choices[1:]:
        began = time.perf_counter()
        read(choice)
        spent.append(time.perf_counter() - began)
    return 1000 * statistics.median(spent)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--reads", type=int, default=60)
    parser.add_argument("--codecs", default="libsvtav1,h264")
    options = parser.parse_args()
    table = Table("codec", "read", "way", "ms", "to PyAV, open")
    chosen = random.Random(0)
    with tempfile.TemporaryDirectory(prefix="ffenc-bench-") as folder:
        for vcodec in options.codecs.split(","):
            path = Path(folder) / f"{vcodec}.mp4"
            make_video(path, options.frames, vcodec)
            ways = {
                "PyAV, kept open": kept_open(path),
                "PyAV, opened for each read": opened_each_time(path),
                "`VideoReader(decoder='pyav')`": by_ffenc(path, "pyav"),
                "`VideoReader`": by_ffenc(path, "ffmpeg"),
            }
            for name, size in (("one frame", 1), (f"{BATCH} frames", BATCH)):
                reads = options.reads if size == 1 else max(options.reads // 6, 2)
                choices = [chosen.sample(range(options.frames), size) for _ in range(reads + 1)]
                took = {way: median(read, choices) for way, read in ways.items()}
                for way, milliseconds in took.items():
                    ratio = milliseconds / took["PyAV, kept open"]
                    table.add_row(vcodec, name, way, f"{milliseconds:.1f}", f"{ratio:.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
