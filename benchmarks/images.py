"""Compare ffenc on datasets that stay images with what the machine can do, in one run.

    python benchmarks/images.py [--rows 600] [--repeats 2] [--data FOLDER]

Ways: ``ffenc merge`` of two image datasets against ``cp -r`` and ``sync``; ``verify --deep`` against one
ffmpeg a core that decodes the same images, as files, to nothing; ``ffenc reencode`` of depth to FFV1 against
ffmpeg that reads ready codes from a file. The frames look like a camera's: sensor noise on colours; depth
with 1 % holes and a saturated background, as TIFF. CPU time is there for machines that others use too.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console
from rich.table import Table

from ffenc import DepthQuantizer
from ffenc.ffmpeg.toolchain import toolchains

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures/aloha_image_v30"
TOP, DEPTH = "observation.images.top", "observation.images.depth"
WIDTH, HEIGHT, FPS, EPISODES = 640, 480, 30, 6
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FFV1 = ("--depth_encoder.vcodec=ffv1", "--depth_encoder.extra_options={}")


def noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Callable[[int], np.ndarray]:
    """Return a function that gives noise for a frame: one field, turned by another amount for each."""
    field = rng.normal(0, sigma, shape).astype(np.float32)
    return lambda index: np.roll(field, (index * 37 % shape[0], index * 101 % shape[1]), (0, 1))


def make_images(rows: int) -> tuple[list[bytes], list[bytes]]:
    """Return colour frames as PNG, and depth maps in millimetres as TIFF."""
    file = FIXTURE / "data/chunk-000/file-000.parquet"
    columns = ["observation.images.top", "observation.images.angle_depth"]
    colours, maps = (pq.read_table(file, columns=[name])[name].to_pylist() for name in columns)
    rng = np.random.default_rng(0)
    grain, jitter = noise(rng, (HEIGHT, WIDTH, 3), 2), noise(rng, (HEIGHT, WIDTH), 2)
    spots = noise(rng, (HEIGHT, WIDTH), 1)
    hole = np.quantile(spots(0), 0.01)

    def encoded(picture: np.ndarray, **options: object) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, **options)
        return stream.getvalue()

    def colour(index: int) -> bytes:
        small = Image.open(io.BytesIO(colours[index % len(colours)]["bytes"]))
        large = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
        return encoded((large + grain(index)).clip(0, 255).astype(np.uint8), format="png", compress_level=1)

    def depth(index: int) -> bytes:
        small = np.asarray(Image.open(io.BytesIO(maps[index % len(maps)]["bytes"])), np.float32)
        large = np.kron(small, np.ones((HEIGHT // small.shape[0], WIDTH // small.shape[1]), np.float32))
        far = large >= np.quantile(large, 0.8)
        noisy = np.where(far, 65535, large + jitter(index)).clip(1, 65535)
        return encoded(np.where(spots(index) < hole, 0, noisy).astype(np.uint16), format="tiff")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(colour, range(rows))), list(pool.map(depth, range(rows)))


def ffenc(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "ffenc", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def make_dataset(root: Path, colours: Sequence[bytes], maps: Sequence[bytes]) -> None:
    """Write a LeRobot image dataset: a row group an episode, as its writer does; statistics by ffenc.

    An episode is a file, as 100 rows are with LeRobot's limit of 100 MB.
    """
    bare = root.with_name(f"{root.name}-bare")
    data = bare / "data/chunk-000"
    data.mkdir(parents=True)
    n = len(colours) // EPISODES
    for number in range(EPISODES):
        own = range(number * n, (number + 1) * n)

        def column(images: Sequence[bytes], suffix: str, own: range = own) -> pa.Array:
            values = [{"bytes": images[i], "path": f"frame-{i - own[0]:06d}.{suffix}"} for i in own]
            return pa.array(values, IMAGE)

        table = pa.table(
            {
                TOP: pa.array(
                    [{"bytes": colours[i], "path": f"frame-{i - own[0]:06d}.png"} for i in own], IMAGE
                ),
                DEPTH: pa.array(
                    [{"bytes": maps[i], "path": f"frame-{i - own[0]:06d}.tiff"} for i in own], IMAGE
                ),
                "timestamp": pa.array(np.arange(n) / FPS, pa.float32()),
                "frame_index": pa.array(np.arange(n)),
                "episode_index": pa.array(np.full(n, number)),
                "index": pa.array(np.arange(own.start, own.stop)),
                "task_index": pa.array(np.zeros(n, np.int64)),
            }
        )
        pq.write_table(table, data / f"file-{number:03d}.parquet", compression="snappy", use_dictionary=True)
    numbers = range(EPISODES)
    episodes = {
        "episode_index": list(numbers),
        "tasks": [["move"]] * EPISODES,
        "length": [n] * EPISODES,
        "data/chunk_index": [0] * EPISODES,
        "data/file_index": list(numbers),
        "dataset_from_index": [i * n for i in numbers],
        "dataset_to_index": [(i + 1) * n for i in numbers],
    }
    (bare / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.table(episodes), bare / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(pa.table({"task_index": [0], "task": ["move"]}), bare / "meta/tasks.parquet")
    names = ["height", "width", "channels"]
    features = {
        TOP: {"dtype": "image", "shape": [HEIGHT, WIDTH, 3], "names": names},
        DEPTH: {
            **{"dtype": "image", "shape": [HEIGHT, WIDTH, 1], "names": names},
            "info": {"is_depth_map": True, "depth_unit": "mm"},
        },
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    } | {
        name: {"dtype": "int64", "shape": [1], "names": None}
        for name in ("frame_index", "episode_index", "index", "task_index")
    }
    info = {
        **{"codebase_version": "v3.0", "robot_type": "bench", "fps": FPS, "features": features},
        **{"total_episodes": EPISODES, "total_frames": n * EPISODES, "total_tasks": 1, "chunks_size": 1000},
        **{"data_files_size_in_mb": 1, "video_files_size_in_mb": 200, "video_path": None},
        **{"data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"},
        **{"splits": {"train": f"0:{EPISODES}"}},
    }
    (bare / "meta/info.json").write_text(json.dumps(info))
    ffenc("merge", bare, "--out", root)
    shutil.rmtree(root / "data")
    shutil.move(bare / "data", root / "data")
    shutil.rmtree(bare)


def decode_all(ffmpeg: str, folder: Path, count: int) -> None:
    """Decode numbered image files to nothing, a process with a thread a core, each a part of them."""
    cores = os.cpu_count() or 1
    for pattern in ("%06d.png", "%06d.tiff"):
        processes = []
        for core in range(cores):
            first, end = count * core // cores, count * (core + 1) // cores
            command = [ffmpeg, "-v", "error", "-nostdin", "-threads", "1", "-f", "image2", "-start_number"]
            command += [str(first), "-i", str(folder / pattern), "-frames:v", str(end - first)]
            processes.append(subprocess.Popen([*command, "-f", "null", "-"]))
        assert not any(process.wait() for process in processes)


def copy(*names: Path) -> None:
    """Copy datasets, and have the disk hold the copy when it is done, as ffenc does."""
    subprocess.run(["cp", "-r", *names], check=True)
    os.sync()


def measured(work: Callable[[], object], repeats: int, clean: Path) -> tuple[float, float]:
    """Return the shortest time of some runs in seconds, and the CPU time of the processes that it started.

    What a run writes to ``clean`` is removed before each run.
    """
    best = (float("inf"), 0.0)
    for _ in range(repeats):
        shutil.rmtree(clean, ignore_errors=True)
        clean.mkdir()
        os.sync()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        work()
        spent = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
        best = min(best, (spent, cpu))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--data", type=Path, help="where to make the data [default: a temporary folder]")
    options = parser.parse_args()
    rows = options.rows // EPISODES * EPISODES
    ffmpeg = toolchains()[0].ffmpeg
    with tempfile.TemporaryDirectory(prefix="ffenc-bench-", dir=options.data) as place:
        one, two, out, codes, files = (Path(place) / n for n in ("one", "two", "out", "codes", "files"))
        colours, maps = make_images(rows)
        make_dataset(one, colours, maps)
        shutil.copytree(one, two)
        files.mkdir()
        for number, (colour, depth) in enumerate(zip(colours, maps, strict=True)):
            (files / f"{number:06d}.png").write_bytes(colour)
            (files / f"{number:06d}.tiff").write_bytes(depth)
        quantizer = DepthQuantizer(invalid="keep")
        with codes.open("wb") as file:
            for data in maps:
                file.write(quantizer.quantize(np.asarray(Image.open(io.BytesIO(data)))).tobytes())
        raw = [*(ffmpeg, "-v", "error", "-nostdin", "-f", "rawvideo", "-pix_fmt", "gray12le")]
        raw += [*("-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", str(codes), "-c:v", "ffv1", "-g", "2")]
        raw += [*("-pix_fmt", "gray12le", str(out / "depth.mkv"))]
        pairs: list[tuple[str, int, Callable[[], object], str, Callable[[], object]]] = [
            (
                *("`ffenc merge` of two", 4 * rows, lambda: ffenc("merge", one, two, "--out", out / "all")),
                *("`cp -r`, and `sync`", lambda: copy(one, two, out)),
            ),
            (
                *("`ffenc verify --deep`", 2 * rows, lambda: ffenc("verify", one, "--deep")),
                "ffmpeg to null, a process a core",
                lambda: decode_all(ffmpeg, files, rows),
            ),
            (
                *("`ffenc reencode`, depth to ffv1", rows),
                lambda: ffenc("reencode", one, out / "depth", "--cameras", "depth", *FFV1),
                *("ffmpeg, ready codes to ffv1", lambda: subprocess.run(raw, check=True)),
            ),
        ]
        table = Table("way", "images/s", "CPU, s", "against", "images/s", "CPU, s", "ratio", "ratio of CPU")
        for own, images, work, other, against in pairs:
            (a, a_cpu), (b, b_cpu) = (measured(each, options.repeats, out) for each in (work, against))
            figures = (own, f"{images / a:.0f}", f"{a_cpu:.1f}", other, f"{images / b:.0f}", f"{b_cpu:.1f}")
            table.add_row(*figures, f"{b / a:.2f}", f"{b_cpu / a_cpu:.2f}")
    console = Console(width=140)
    console.print(f"{rows} rows of a colour and a depth image {WIDTH}x{HEIGHT}, {EPISODES} episodes")
    console.print(table)


if __name__ == "__main__":
    main()
