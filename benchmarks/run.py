"""Compare ffenc with what users would otherwise run, on the same frames, in one run.

    python benchmarks/run.py [--episodes 3x100,12x100,2x1800] [--codecs libsvtav1,h264] [--repeats 2]

Prints, for each number and length of episodes and each codec, how fast each way is beside plain ffmpeg: one
process after the other that reads the PNG files of an episode with the very same encoder options, and two of
them side by side, every second episode each. A Python loop (Pillow decodes, PyAV encodes) is for comparison.
Then how long commands take to start, and the memory of a re-encode. The frames are the sample's with a
sensor's noise; what stands still there stands still.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console
from rich.table import Table

import ffenc
from ffenc import VideoEncoderConfig, compile_command, load_preset
from ffenc.compiler.golden import preset_commands
from ffenc.config.preset import preset_names
from ffenc.ffmpeg.toolchain import toolchains

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures/aloha_image_v30"
CAMERA = "observation.images.top"
WIDTH, HEIGHT, FPS = 640, 480, 30
LIMIT_MB = 1000
# As installed: modules are compiled. Who develops may have told Python not to keep what it has compiled.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
STATS = {"min": 0.0, "max": 1.0, "mean": 0.5, "std": 0.2}
ONE, TWO = "plain ffmpeg, one after the other", "plain ffmpeg, two at once"


def make_frames(folder: Path, episodes: int, length: int) -> list[list[Path]]:
    """Write the sample's frames, enlarged, as PNG: each has a sensor's noise of its own."""
    column = pq.read_table(FIXTURE / "data/chunk-000/file-000.parquet", columns=[CAMERA])[CAMERA].to_pylist()
    noise = np.random.default_rng(0).normal(0, 2, (HEIGHT, WIDTH, 3)).astype(np.float32)

    def make(episode: int, index: int) -> Path:
        small = Image.open(io.BytesIO(column[index % len(column)]["bytes"])).convert("RGB")
        large = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
        number = episode * length + index
        grain = np.roll(noise, (number * 37 % HEIGHT, number * 101 % WIDTH), (0, 1))
        path = folder / f"episode_{episode:06d}/top/frame-{index:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((large + grain).clip(0, 255).astype(np.uint8)).save(path, compress_level=1)
        return path

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [list(pool.map(partial(make, number), range(length))) for number in range(episodes)]


def make_dataset(root: Path, episodes: list[list[Path]], *, counted: bool = True) -> None:
    """Write the same frames as a LeRobot image dataset: a row group an episode, as its writer does.

    Args:
        root: its folder.
        episodes: the images of each.
        counted: whether there are statistics of the images, which are made up; else ffenc computes them.
    """
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    data = root / "data/chunk-000/file-000.parquet"
    data.parent.mkdir(parents=True)
    start, writer, table_rows = 0, None, []
    text = pq.read_table(FIXTURE / "meta/tasks.parquet")["task"][0].as_py()
    for number, paths in enumerate(episodes):
        n = len(paths)
        rows = pa.table(
            {
                CAMERA: pa.array([{"bytes": p.read_bytes(), "path": p.name} for p in paths], image),
                "timestamp": pa.array(np.arange(n) / FPS, pa.float32()),
                "frame_index": pa.array(np.arange(n)),
                "episode_index": pa.array(np.full(n, number)),
                "index": pa.array(np.arange(start, start + n)),
                "task_index": pa.array(np.zeros(n, np.int64)),
            }
        )
        writer = writer or pq.ParquetWriter(data, rows.schema, compression="snappy", use_dictionary=True)
        writer.write_table(rows)
        table_rows.append(
            {
                "episode_index": number,
                "tasks": [text],
                "length": n,
                "data/chunk_index": 0,
                "data/file_index": 0,
                "dataset_from_index": start,
                "dataset_to_index": start + n,
            }
            | {f"stats/{CAMERA}/{name}": value for name, value in made_up(n, counted).items()}
        )
        start += n
    assert writer is not None
    writer.close()
    episode_file = root / "meta/episodes/chunk-000/file-000.parquet"
    episode_file.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(table_rows), episode_file)
    shutil.copy(FIXTURE / "meta/tasks.parquet", root / "meta/tasks.parquet")
    features = json.loads((FIXTURE / "meta/info.json").read_text())["features"]
    kept = {k: features[k] for k in ("timestamp", "frame_index", "episode_index", "index", "task_index")}
    kept[CAMERA] = {"dtype": "image", "shape": [HEIGHT, WIDTH, 3], "names": ["height", "width", "channels"]}
    info = {"codebase_version": "v3.0", "fps": FPS, "features": kept, "total_episodes": len(episodes)}
    info |= {"total_frames": start, "total_tasks": 2}
    (root / "meta/info.json").write_text(json.dumps(info))
    known = json.loads((FIXTURE / "meta/stats.json").read_text())
    known[CAMERA] = made_up(sum(map(len, episodes)), counted)
    (root / "meta/stats.json").write_text(json.dumps({key: known[key] for key in kept if known[key]}))


def made_up(frames: int, counted: bool) -> dict[str, object]:
    """Made-up statistics of images, or none."""
    return {name: [[[value]]] * 3 for name, value in STATS.items()} | {"count": [frames]} if counted else {}


def plain_ffmpeg(
    config: VideoEncoderConfig,
    episodes: list[list[Path]],
    folder: Path,
    program: str,
    threads: int | None = None,
) -> None:
    """One ffmpeg process after the other reads an episode's PNG files."""
    for paths in episodes:
        number = paths[0].parents[1].name
        line = compile_command(
            config,
            width=WIDTH,
            height=HEIGHT,
            fps=FPS,
            output=str(folder / f"plain-{number}.mp4"),
            encoder_threads=threads,
            program=program,
        )
        begin, end = line.index("-f"), line.index("pipe:0")
        line[begin : end + 1] = ["-framerate", str(FPS), "-i", str(paths[0].parent / "frame-%06d.png")]
        subprocess.run(line, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def two_at_once(config: VideoEncoderConfig, episodes: list[list[Path]], folder: Path, program: str) -> None:
    """Two plain ffmpegs side by side, each with one encoder thread and every second episode."""
    with ThreadPoolExecutor(2) as pool:
        halves = [pool.submit(plain_ffmpeg, config, episodes[i::2], folder, program, 1) for i in range(2)]
        for half in halves:
            half.result()


def python_loop(config: VideoEncoderConfig, episodes: list[list[Path]], folder: Path) -> None:
    """Pillow decodes, PyAV encodes, one frame after the other."""
    encoder = {"h264": "libx264", "hevc": "libx265"}.get(config.vcodec, config.vcodec)
    for number, paths in enumerate(episodes):
        with av.open(str(folder / f"loop-{number}.mp4"), "w") as container:
            stream = container.add_stream(
                encoder, Fraction(FPS), options=config.get_codec_options(as_strings=True)
            )
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, config.pix_fmt
            for path in paths:
                frame = av.VideoFrame.from_image(Image.open(path).convert("RGB"))
                container.mux(stream.encode(frame))
            container.mux(stream.encode())


def ffenc_reencode(source: Path, target: Path, codec: str, *options: str) -> float:
    """Run the command line as a user would; returns the peak memory of the Python process in MB.

    Files that are mapped into memory are not counted: they are in the system's file cache.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "ffenc", "reencode", str(source), str(target)]
        + [f"--camera_encoder.vcodec={codec}", *options],
        stdout=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    peaks: list[float] = [0.0]

    def watch(watched: psutil.Process) -> None:
        with contextlib.suppress(psutil.Error):
            while True:
                now = watched.memory_info()
                peaks.append(now.rss - now.shared)
                time.sleep(0.1)

    # The thread sees the end up to 0.1 s late, which is no part of the command's time.
    threading.Thread(target=watch, args=(psutil.Process(process.pid),), daemon=True).start()
    if process.wait():
        raise SystemExit("ffenc failed")
    return max(peaks) / 1e6


def timed(function: Callable[[], object]) -> float:
    """Seconds a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def compare(
    codec: str, episodes: list[list[Path]], dataset: Path, work: Path, repeats: int, loop: bool
) -> Table:
    """Run every way in turn, several times, so that whatever else the machine does falls on all alike."""
    config = VideoEncoderConfig(vcodec=codec)
    frames = sum(map(len, episodes))
    tree = episodes[0][0].parents[2]
    program = toolchains()[0].ffmpeg
    peaks: list[float] = []
    target = work / "result"
    ways: dict[str, Callable[[], object]] = {
        "`ffenc reencode`": lambda: peaks.append(ffenc_reencode(dataset, target, codec)),
        "`ffenc reencode` of the PNG files": lambda: peaks.append(
            ffenc_reencode(tree, target, codec, "--fps", str(FPS))
        ),
        ONE: lambda: plain_ffmpeg(config, episodes, work, program),
        TWO: lambda: two_at_once(config, episodes, work, program),
    }
    if loop:
        ways["Python loop, Pillow + PyAV"] = lambda: python_loop(config, episodes, work)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            shutil.rmtree(target, ignore_errors=True)
            times[name].append(timed(way))
    table = Table(title=f"{codec}: {len(episodes)} episodes of {len(episodes[0])} frames {WIDTH}x{HEIGHT}")
    for heading in ("way", "frames/s", "to one ffmpeg", "to two ffmpegs"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    typical = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in typical.items():
        ratios = (f"{typical[other] / seconds:.2f}" for other in (ONE, TWO))
        table.add_row(name, f"{frames / seconds:.0f}", *ratios)
    table.caption = f"Python's memory: at most {max(peaks):.0f} MB (limit {LIMIT_MB})"
    return table


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", default="3x100,12x100,2x1800", help="numbers and lengths")
    parser.add_argument("--codecs", default="libsvtav1,h264")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--loop", action="store_true", help="run the Python loop too")
    arguments = parser.parse_args()
    console = Console(width=110)
    compileall.compile_dir(Path(ffenc.__file__).parent, quiet=2)
    for shape in arguments.episodes.split(","):
        count, length = map(int, shape.split("x"))
        with tempfile.TemporaryDirectory(prefix="ffenc-benchmark-") as name:
            work = Path(name)
            episodes = make_frames(work / "tree", count, length)
            make_dataset(work / "dataset", episodes)
            for codec in arguments.codecs.split(","):
                options = (work / "dataset", work, arguments.repeats, arguments.loop)
                console.print(compare(codec, episodes, *options))
    presets = [load_preset(name) for name in preset_names()]
    compile_ms = min(timed(lambda: [preset_commands(p) for p in presets]) for _ in range(5)) * 1000
    console.print(f"compiling all {len(presets)} presets: {compile_ms:.1f} ms; seconds from start to end:")
    lines = {
        "import ffenc": ["-c", "import ffenc"],
        "ffenc --help": ["-m", "ffenc", "--help"],
        "ffenc compile so101": ["-m", "ffenc", "compile", "so101"],
        "ffenc info": ["-m", "ffenc", "info", str(FIXTURE)],
    }
    for name, words in lines.items():
        line = [sys.executable, *words]
        run = partial(subprocess.run, line, check=True, capture_output=True, env=ENVIRONMENT)
        console.print(f"  {name}: {min(timed(run) for _ in range(5)):.2f}")


if __name__ == "__main__":
    main()
