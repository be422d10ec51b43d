"""Compare video to video and merging with what users would otherwise run, on the same files, in one run.

    python benchmarks/video.py [--frames 3600] [--merged 10] [--repeats 2]

A dataset of noisy 640x480 H.264 video in two episodes is re-encoded by ``ffenc reencode``, by one plain
ffmpeg process (which cuts no episodes and checks nothing), and by a Python loop (PyAV decodes and encodes).
Then it is merged so many times with itself by ``ffenc merge``, and its files joined by plain ffmpeg's concat
demuxer. Last, what it takes to plan for 50,000 episodes of 20 million rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import av
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.run import CAMERA, FPS, HEIGHT, WIDTH, make_dataset, make_frames, timed
from ffenc import VideoEncoderConfig, compile_command, probe
from ffenc.ffmpeg.toolchain import toolchains
from tests.large import make_large

PLAN = """
import json, sys, time
from ffenc import plan_reencode
began = time.monotonic()
plan = plan_reencode(*sys.argv[1:], overrides=[(("camera_encoder", "vcodec"), "h264")])
status = open("/proc/self/status").read()  # what getrusage says is the parent's too
peak = int(status.split("VmHWM:")[1].split()[0]) / 1000
print(json.dumps([len(plan.episodes), plan.rows, time.monotonic() - began, peak]))
"""


def ffenc(*words: str | Path) -> None:
    """Run the command line as a user would."""
    subprocess.run([sys.executable, "-m", "ffenc", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def plain_ffmpeg(config: VideoEncoderConfig, video: Path, output: Path, program: str) -> None:
    """One process decodes and encodes the whole file with the very same options."""
    line = compile_command(config, width=WIDTH, height=HEIGHT, fps=FPS, output=str(output), program=program)
    begin, end = line.index("-f"), line.index("pipe:0")
    line[begin : end + 1] = ["-i", str(video)]
    subprocess.run(line, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def python_loop(config: VideoEncoderConfig, video: Path, output: Path) -> None:
    """PyAV decodes and encodes, one frame after the other, as LeRobot re-encodes a file."""
    encoder = {"h264": "libx264", "hevc": "libx265"}.get(config.vcodec, config.vcodec)
    with av.open(str(video)) as source, av.open(str(output), "w") as container:
        options = config.get_codec_options(as_strings=True)
        stream = container.add_stream(encoder, Fraction(FPS), options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, config.pix_fmt
        for frame in source.decode(video=0):
            container.mux(stream.encode(frame.reformat(format=config.pix_fmt)))
        container.mux(stream.encode())


def concat(video: Path, times: int, output: Path, program: str) -> None:
    """The concat demuxer copies the packets, wherever their times come to be."""
    listed = output.with_suffix(".txt")
    listed.write_text(f"file '{video}'\n" * times)
    command = [program, "-v", "error", "-y", "-f", "concat", "-safe", "0", "-i", str(listed)]
    subprocess.run([*command, "-c", "copy", str(output)], check=True, stdin=subprocess.DEVNULL)


def rates(title: str, frames: int, ways: Mapping[str, Callable[[], object]], repeats: int) -> Table:
    """Run every way in turn, several times, and compare each with the first."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            times[name].append(timed(way))
    typical = {name: statistics.median(values) for name, values in times.items()}
    own = next(iter(typical.values()))
    table = Table(title=title)
    for heading in ("way", "frames/s", "ffenc to it"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name, seconds in typical.items():
        table.add_row(name, f"{frames / seconds:.0f}", f"{seconds / own:.2f}")
    return table


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=3600)
    parser.add_argument("--merged", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    console = Console(width=110)
    program = toolchains()[0].ffmpeg
    with tempfile.TemporaryDirectory(prefix="ffenc-benchmark-") as name:
        work = Path(name)
        make_dataset(work / "images", make_frames(work / "tree", 2, arguments.frames // 2))
        dataset = work / "videos"
        ffenc("reencode", work / "images", dataset, "--camera_encoder.vcodec=h264", "--camera_encoder.crf=20")
        video = dataset / f"videos/{CAMERA}/chunk-000/file-000.mp4"
        frames = probe(video).frames
        number = iter(range(1000))
        for codec in ("libsvtav1", "h264"):
            config = VideoEncoderConfig(vcodec=codec)
            setting = f"--camera_encoder.vcodec={codec}"
            ways: dict[str, Callable[[], object]] = {
                "ffenc reencode": lambda s=setting: ffenc("reencode", dataset, work / f"r{next(number)}", s),
                "plain ffmpeg, whole file": lambda c=config: plain_ffmpeg(c, video, work / "p.mp4", program),
                "Python loop, PyAV": lambda c=config: python_loop(c, video, work / "l.mp4"),
            }
            console.print(rates(f"h264 to {codec}: {frames} frames", frames, ways, arguments.repeats))
        merged = arguments.merged
        copies = [dataset] * merged
        ways = {
            "ffenc merge": lambda: ffenc("merge", *copies, "--out", work / f"m{next(number)}"),
            "plain ffmpeg, concat demuxer": lambda: concat(video, merged, work / "c.mp4", program),
        }
        size = video.stat().st_size * merged / 1e6
        title = f"merging {merged} datasets: {frames * merged} frames, {size:.0f} MB"
        console.print(rates(title, frames * merged, ways, arguments.repeats))
        large = make_large(work / "large", episodes=50_000, length=400)
        answer = subprocess.run(
            [sys.executable, "-c", PLAN, str(large), str(work / "out")],
            check=True,
            capture_output=True,
            text=True,
        )
        episodes, rows, seconds, peak = json.loads(answer.stdout)
        console.print(
            f"planning for {episodes:,} episodes of {rows:,} rows: {seconds:.1f} s, {peak:.0f} MB of memory"
        )


if __name__ == "__main__":
    main()
