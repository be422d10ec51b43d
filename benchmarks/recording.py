"""Measure live recording, and compare it with what users would otherwise run, on the same frames, in one run.

    python benchmarks/recording.py [--seconds 20] [--frames 900] [--repeats 3] [--lerobot PYTHON]

First three 640x480 cameras and a depth camera are recorded at 30 frames a second, with h264 veryfast and with
the default settings: how long `write` takes, what is lost, what the Python process costs. Then one camera as
fast as it goes, beside ffmpeg reading the same frames from a raw file (no statistics, no rows, nothing
checked), and beside a Python thread that encodes with Pillow and PyAV as LeRobot does. With the Python of an
environment that has LeRobot, its own thread is measured too.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.run import timed
from ffenc import DepthEncoderConfig, RobotPreset, VideoEncoderConfig, compile_command
from ffenc.config.preset import CameraPreset
from ffenc.ffmpeg.machine import cores
from ffenc.ffmpeg.toolchain import toolchains
from ffenc.frames.pattern import pattern_frames
from ffenc.frames.statistics import RgbHistogram, sample_tap
from ffenc.recording.recorder import Recorder

WIDTH, HEIGHT, FPS = 640, 480, 30
CAMERAS = ("front", "left", "right")
DEPTH = "depth"

LEROBOT = """
import json, queue, sys, threading, time
from pathlib import Path
import numpy as np
from lerobot.configs import VideoEncoderConfig
from lerobot.datasets.video_utils import _CameraEncoderThread
count, raw, output, settings = int(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
frames = np.fromfile(raw, np.uint8).reshape(-1, 480, 640, 3)[:30]
waiting, results, stop = queue.Queue(60), queue.Queue(), threading.Event()
encoder = _CameraEncoderThread(Path(output), 30, VideoEncoderConfig(**settings), waiting, results, stop)
began = time.monotonic()
encoder.start()
for number in range(count):
    waiting.put(frames[number % len(frames)].copy())
waiting.put(None)
encoder.join()
print(time.monotonic() - began, results.get()[0])
"""


def frames_of(kind: str) -> list[np.ndarray[Any, Any]]:
    """Frames that load an encoder as a camera's do."""
    if kind == DEPTH:
        frames = pattern_frames(WIDTH, HEIGHT, "gray16le")
        return [np.frombuffer(frame, "<u2").reshape(HEIGHT, WIDTH) for frame in frames]
    frames = pattern_frames(WIDTH, HEIGHT, "rgb24")
    return [np.frombuffer(frame, np.uint8).reshape(HEIGHT, WIDTH, 3) for frame in frames]


def settings(name: str) -> tuple[VideoEncoderConfig, DepthEncoderConfig]:
    """The settings that are measured."""
    if name == "default":
        return VideoEncoderConfig(), DepthEncoderConfig()
    return VideoEncoderConfig(vcodec="h264", preset="veryfast"), DepthEncoderConfig(preset="ultrafast")


def preset_of(name: str, cameras: tuple[str, ...], **fields: Any) -> RobotPreset:
    """A robot with these cameras."""
    colour, depth = settings(name)
    own = {c: CameraPreset(width=WIDTH, height=HEIGHT, encoder=colour) for c in cameras if c != DEPTH}
    if DEPTH in cameras:
        own[DEPTH] = CameraPreset(width=WIDTH, height=HEIGHT, depth=True, encoder=depth)
    encoders = {"camera_encoder": colour, "depth_encoder": depth}
    return RobotPreset(**{"name": name, "fps": FPS, "cameras": own, **encoders, **fields})


def paced(name: str, root: str, seconds: float) -> dict[str, Any]:
    """Record four cameras in real time, and measure this process."""
    cameras = (*CAMERAS, DEPTH)
    frames = {camera: frames_of(camera) for camera in cameras}
    spent: list[float] = []
    rows = round(seconds * FPS)
    with Recorder(preset_of(name, cameras, on_full="drop"), root) as recorder:
        recorder.start_episode()
        cpu, began = time.process_time(), time.monotonic()
        for row in range(rows):
            time.sleep(max(0.0, began + row / FPS - time.monotonic()))
            for camera in cameras:
                frame = frames[camera][row % len(frames[camera])]
                start = time.perf_counter()
                recorder.write(camera, frame)
                spent.append(time.perf_counter() - start)
            recorder.add_row(state=[0.0] * 6, action=[0.0] * 6)
        cpu, took = time.process_time() - cpu, time.monotonic() - began
        saved = recorder.save_episode()
    spent.sort()
    status = Path("/proc/self/status").read_text()
    return {
        "p50": spent[len(spent) // 2] * 1e3,
        "p99": spent[len(spent) * 99 // 100] * 1e3,
        "max": spent[-1] * 1e3,
        "rows": saved.rows,
        "lost": rows - saved.rows,
        "cpu": cpu,
        "share": cpu / took / len(cameras),
        "save": saved.seconds,
        "memory": int(status.split("VmHWM:")[1].split()[0]) / 1000,
    }


def record_one(name: str, root: Path, count: int) -> tuple[float, float]:
    """One camera, as fast as its encoder takes the frames.

    Returns:
        seconds until the encoder has ended, and until the episode is in the dataset.
    """
    frames = frames_of("front")
    # As little nice as the others that it is compared with.
    with Recorder(preset_of(name, ("front",), encoder_niceness=0), root) as recorder:
        began = time.monotonic()
        recorder.start_episode()
        for row in range(count):
            recorder.write("front", frames[row % len(frames)])
            recorder.add_row(state=[0.0] * 6, action=[0.0] * 6)
        fed = time.monotonic()
        saved = recorder.save_episode()
        return fed + saved.waited - began, time.monotonic() - began


def plain_ffmpeg(config: VideoEncoderConfig, raw: Path, output: Path, program: str) -> None:
    """One process reads the raw file and encodes it with the very same options."""
    line = compile_command(
        config, width=WIDTH, height=HEIGHT, fps=FPS, output=str(output), frames="rgb24", program=program
    )
    line[line.index("pipe:0")] = str(raw)
    subprocess.run(line, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def pyav_thread(config: VideoEncoderConfig, output: Path, count: int) -> None:
    """A thread takes frames from a queue, makes Pillow images of them, encodes them and counts statistics."""
    frames = frames_of("front")
    waiting: queue.Queue[np.ndarray[Any, Any] | None] = queue.Queue(60)
    encoder = {"h264": "libx264"}.get(config.vcodec, config.vcodec)
    histogram = RgbHistogram(sample_tap(1, WIDTH, HEIGHT))

    def encode() -> None:
        with av.open(str(output), "w") as container:
            stream = container.add_stream(
                encoder, Fraction(FPS), options=config.get_codec_options(as_strings=True)
            )
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, config.pix_fmt
            number = 0
            while (frame := waiting.get()) is not None:
                video = av.VideoFrame.from_image(Image.fromarray(frame))
                video.pts, video.time_base = number, Fraction(1, FPS)
                container.mux(stream.encode(video))
                histogram.add(frame)
                number += 1
            container.mux(stream.encode())

    thread = threading.Thread(target=encode)
    thread.start()
    for number in range(count):
        waiting.put(frames[number % len(frames)].copy())
    waiting.put(None)
    thread.join()


def lerobot_thread(python: str, config: VideoEncoderConfig, raw: Path, output: Path, count: int) -> float:
    """LeRobot's own thread, in its own environment; returns the seconds it says it took."""
    fields = {"vcodec": config.vcodec, "crf": config.crf, "g": config.g, "preset": config.preset}
    words = [python, "-c", LEROBOT, str(count), str(raw), str(output), json.dumps(fields)]
    answer = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    return float(answer[-2])


def unpaced(name: str, work: Path, count: int, repeats: int, lerobot: str | None) -> Table:
    """Run every way in turn, several times, and compare each with ffenc."""
    config, _ = settings(name)
    program = toolchains()[0].ffmpeg
    raw = work / "raw.rgb"
    if not raw.exists():
        frames = [frame.tobytes() for frame in frames_of("front")]
        with raw.open("wb") as file:
            for number in range(count):
                file.write(frames[number % len(frames)])
    times: dict[str, list[float]] = {}
    for repeat in range(repeats):
        encoded, saved = record_one(name, work / f"{name}-{repeat}", count)
        times.setdefault("ffenc Recorder", []).append(encoded)
        times.setdefault("the same, saved and verified", []).append(saved)
        ways = {
            "ffmpeg, raw file": lambda: plain_ffmpeg(config, raw, work / "p.mp4", program),
            "Pillow and PyAV thread": lambda: pyav_thread(config, work / "l.mp4", count),
        }
        for way, run in ways.items():
            times.setdefault(way, []).append(timed(run))
        if lerobot:
            seconds = lerobot_thread(lerobot, config, raw, work / "r.mp4", count)
            times.setdefault("LeRobot's own thread", []).append(seconds)
    own = statistics.median(times["ffenc Recorder"])
    table = Table(title=f"one camera, as fast as it goes: {name}, {count} frames")
    for heading in ("way", "frames/s", "ffenc to it"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for way, values in times.items():
        seconds = statistics.median(values)
        table.add_row(way, f"{count / seconds:.0f}", f"{seconds / own:.2f}")
    return table


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--frames", type=int, default=900)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--lerobot", metavar="PYTHON", help="python of an environment that has LeRobot")
    parser.add_argument("--paced", nargs=2, metavar=("SETTINGS", "ROOT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.paced:
        print(json.dumps(paced(*arguments.paced, arguments.seconds)))
        return
    console = Console(width=110)
    with tempfile.TemporaryDirectory(prefix="ffenc-benchmark-") as folder:
        work = Path(folder)
        table = Table(
            title=f"3 cameras and depth, {WIDTH}x{HEIGHT}, {FPS} frames/s, {arguments.seconds:g} s, "
            f"{cores()} cores"
        )
        headings = ("settings", "write p50", "p99", "max", "rows", "lost", "Python CPU", "of a core a camera")
        for heading in (*headings, "memory", "save"):
            table.add_column(heading, justify="left" if heading == "settings" else "right")
        for name in ("h264 veryfast", "default"):
            # In a process of its own, so that its time and memory are those of recording.
            words = [sys.executable, __file__, "--seconds", str(arguments.seconds)]
            words += ["--paced", name, str(work / f"paced-{name.split()[0]}")]
            answer = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=os.environ)
            one = json.loads(answer.stdout)
            table.add_row(
                name,
                *(f"{one[key]:.2f} ms" for key in ("p50", "p99", "max")),
                *(str(one[key]) for key in ("rows", "lost")),
                f"{one['cpu']:.2f} s",
                f"{one['share']:.1%}",
                f"{one['memory']:.0f} MB",
                f"{one['save']:.1f} s",
            )
        console.print(table)
        for name in ("h264 veryfast", "default"):
            console.print(unpaced(name, work, arguments.frames, arguments.repeats, arguments.lerobot))


if __name__ == "__main__":
    main()
