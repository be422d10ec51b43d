"""Compare ffenc's depth with what users would otherwise run, on the same frames, in one run.

    python benchmarks/depth.py [--frames 600]

Ways: ``ffenc reencode`` with lossless HEVC (LeRobot's settings), its fastest preset, and FFV1 of codes and
of millimetres; and a Python loop as LeRobot has it (Pillow decodes, the float32 formula quantises, PyAV
encodes). Then the quantiser alone, lookup against formula, in both directions.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console
from rich.table import Table

from ffenc import DepthQuantizer

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures/aloha_image_v30"
CAMERA = "observation.images.angle_depth"
WIDTH, HEIGHT, FPS, EPISODES = 640, 480, 30, 2
FFV1 = ("--depth_encoder.vcodec=ffv1", "--depth_encoder.extra_options={}")
WAYS = {
    "`ffenc reencode`, hevc": (),
    "`ffenc reencode`, hevc, preset ultrafast": ("--depth_encoder.preset=ultrafast",),
    "`ffenc reencode`, ffv1 gray12le": FFV1,
    "`ffenc reencode`, ffv1 gray16le, exact": (*FFV1, "--depth_encoder.pix_fmt=gray16le"),
}


def make_frames(folder: Path, frames: int) -> list[list[Path]]:
    """Write noisy 640x480 depth maps made from the fixture's, as TIFF, in two episodes."""
    column = pq.read_table(FIXTURE / "data/chunk-000/file-000.parquet", columns=[CAMERA])[CAMERA].to_pylist()
    rng = np.random.default_rng(0)
    episodes = []
    for episode in range(EPISODES):
        paths = []
        for index in range(frames // EPISODES):
            small = np.asarray(Image.open(io.BytesIO(column[index % len(column)]["bytes"]))).astype(
                np.float32
            )
            large = np.kron(np.minimum(small, 6000), np.ones((4, 4), np.float32))
            noisy = np.where(large == 0, 0, large + rng.normal(0, 2, large.shape)).clip(0, 65535)
            path = folder / f"episode_{episode:06d}/depth/frame-{index:06d}.tiff"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy.astype(np.uint16)).save(path)
            paths.append(path)
        episodes.append(paths)
    return episodes


def formula(depth: np.ndarray) -> np.ndarray:
    """The float32 formula, one numpy operation after the other."""
    low, high, shift = (np.float32(metres * 1000) for metres in (0.01, 10.0, 3.5))
    offset = np.log(low + shift)
    norm = (np.log(depth.astype(np.float32) + shift) - offset) / (np.log(high + shift) - offset)
    return np.rint(norm * 4095).clip(0, 4095).astype(np.uint16)


def inverse(codes: np.ndarray) -> np.ndarray:
    low, high = np.log(0.01 + 3.5), np.log(10.0 + 3.5)
    metres = np.exp(codes.astype(np.float32) * np.float32((high - low) / 4095) + np.float32(low)) - 3.5
    return np.rint(metres.clip(0.01, 10) * np.float32(1000)).clip(0, 65535).astype(np.uint16)


def python_loop(episodes: list[list[Path]], folder: Path) -> int:
    """Decode with Pillow, quantise with the formula, encode with PyAV; return the bytes written."""
    size = 0
    for number, paths in enumerate(episodes):
        target = folder / f"{number}.mp4"
        with av.open(str(target), "w") as container:
            stream = container.add_stream("hevc", rate=FPS)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "gray12le"
            stream.time_base = Fraction(1, FPS)
            stream.options = {"g": "2", "crf": "30", "x265-params": "lossless=1:log-level=none"}
            for index, path in enumerate(paths):
                codes = formula(np.asarray(Image.open(path)))
                frame = av.VideoFrame.from_ndarray(codes, format="gray12le")
                frame.pts = index
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        size += target.stat().st_size
    return size


def reencode(tree: Path, folder: Path, settings: tuple[str, ...]) -> int:
    command = [sys.executable, "-m", "ffenc", "reencode", str(tree), str(folder / "out"), "--fps", str(FPS)]
    result = subprocess.run([*command, "--json", *settings], check=True, capture_output=True, text=True)
    return int(json.loads(result.stdout)["video_bytes"])


def micros(work: Callable[[], object], repeats: int = 200) -> float:
    """Return the median time of a call in microseconds."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=600)
    frames = parser.parse_args().frames // EPISODES * EPISODES
    table = Table("way", "frames/s", "to Python loop", "MB")
    with tempfile.TemporaryDirectory(prefix="ffenc-bench-") as place:
        tree = Path(place) / "tree"
        episodes = make_frames(tree, frames)
        ways: dict[str, Callable[[Path], int]] = {
            "Python loop, Pillow + formula + PyAV, hevc": lambda folder: python_loop(episodes, folder)
        } | {name: lambda folder, s=settings: reencode(tree, folder, s) for name, settings in WAYS.items()}
        base = 0.0
        for number, (name, work) in enumerate(ways.items()):
            folder = Path(place) / f"way{number}"
            folder.mkdir()
            began = time.perf_counter()
            size = work(folder)
            rate = frames / (time.perf_counter() - began)
            base = base or rate
            table.add_row(name, f"{rate:.0f}", f"{rate / base:.2f}", f"{size / 1e6:.1f}")
        depth = np.asarray(Image.open(episodes[0][0]))
    console = Console(width=110)
    console.print(f"{frames} depth maps {WIDTH}x{HEIGHT}, {EPISODES} episodes, whole command timed")
    console.print(table)
    quantizer = DepthQuantizer()
    codes = quantizer.quantize(depth)
    table = Table("one frame", "formula, us", "lookup, us", "ratio")
    for name, slow, fast in (
        ("millimetres to codes", lambda: formula(depth), lambda: quantizer.quantize(depth)),
        ("codes to millimetres", lambda: inverse(codes), lambda: quantizer.dequantize(codes)),
    ):
        before, after = micros(slow), micros(fast)
        table.add_row(name, f"{before:.0f}", f"{after:.0f}", f"{before / after:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
