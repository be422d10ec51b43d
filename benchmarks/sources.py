"""Compare ffenc on ALOHA's HDF5 with the script that users write, and with plain ffmpeg fed the same bytes.

    python benchmarks/sources.py [--frames 100] [--episodes 2] [--vcodec libsvtav1] [--lerobot PYTHON]

Four cameras of 640x480, JPEG with a camera's noise, as ALOHA's ``record_episodes.py`` keeps it. Ways:
``ffenc reencode`` of the files; plain ffmpeg with the very same arguments, fed the same JPEG bytes, as many
at once; a script that decodes with OpenCV and gives frames to LeRobot's ``add_frame`` (with ``--lerobot``,
the python of an environment that has it; the bytes come from memory-mapped arrays there, so its reading is
nearly free). CPU time of all processes is there for machines that others use too.
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures/aloha_image_v30"
CAMERAS = ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")
WIDTH, HEIGHT, FPS = 640, 480, 50

# What users write, with LeRobot 0.6: decode, hand over, save.
SCRIPT = """
import sys, json, cv2, numpy as np
from pathlib import Path
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
source, out, vcodec = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
cameras = json.loads(sys.argv[4])
image = {"dtype": "video", "shape": (480, 640, 3), "names": ["height", "width", "channels"]}
features = {f"observation.images.{name}": image for name in cameras}
for name in ("observation.state", "action"):
    features[name] = {"dtype": "float32", "shape": (14,), "names": [f"m{i}" for i in range(14)]}
data = LeRobotDataset.create("bench/x", 50, features, root=out, image_writer_threads=4 * len(cameras),
                             rgb_encoder=RGBEncoderConfig(vcodec=vcodec))
for episode in sorted(source.glob("episode_*")):
    arrays = {p.stem: np.load(p, mmap_mode="r") for p in episode.glob("*.npy")}
    for i in range(len(arrays["qpos"])):
        frame = {"observation.state": arrays["qpos"][i].astype(np.float32),
                 "action": arrays["action"][i].astype(np.float32), "task": "lift"}
        for name in cameras:
            decoded = cv2.imdecode(arrays[name][i], cv2.IMREAD_COLOR)
            frame[f"observation.images.{name}"] = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        data.add_frame(frame)
    data.save_episode()
data.finalize()
"""


def jpegs(count: int) -> list[bytes]:
    """The sample's pictures, larger and with noise, as JPEG."""
    rows = pq.read_table(FIXTURE / "data/chunk-000/file-000.parquet", columns=["observation.images.top"])
    small = [row["bytes"] for row in rows["observation.images.top"].to_pylist()]
    grain = np.random.default_rng(0).normal(0, 2, (HEIGHT, WIDTH, 3)).astype(np.float32)

    def encoded(index: int) -> bytes:
        picture = Image.open(io.BytesIO(small[index % len(small)])).convert("RGB")
        large = np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
        noisy = large + np.roll(grain, (index * 37 % HEIGHT, index * 101 % WIDTH), (0, 1))
        data = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(data, "jpeg", quality=90)
        return data.getvalue()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(encoded, range(count)))


def write(root: Path, images: list[bytes], episodes: int) -> None:
    """Write the files in ALOHA's layout, and the same arrays for the script."""
    frames = len(images) // episodes
    for number in range(episodes):
        own = images[number * frames : (number + 1) * frames]
        padded = np.zeros((frames, max(map(len, own))), np.uint8)
        for row, data in zip(padded, own, strict=True):
            row[: len(data)] = np.frombuffer(data, np.uint8)
        plain = root / "arrays" / f"episode_{number}"
        plain.mkdir(parents=True)
        (root / "aloha").mkdir(exist_ok=True)
        with h5py.File(root / "aloha" / f"episode_{number}.hdf5", "w") as file:
            for name in CAMERAS:
                file.create_dataset(f"observations/images/{name}", data=padded, chunks=(1, padded.shape[1]))
                np.save(plain / f"{name}.npy", padded)
            state = np.random.default_rng(number).normal(size=(frames, 14))
            for name, place in (("qpos", "observations/qpos"), ("action", "action")):
                file[place] = state
                np.save(plain / f"{name}.npy", state)
            file["compress_len"] = np.array([[len(data) for data in own]] * len(CAMERAS))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of CPU of this process and all that it has waited for."""

    def used() -> float:
        kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))

    before, began = used(), time.monotonic()
    work()
    return time.monotonic() - began, used() - before


def ffenc(*words: str | Path) -> str:
    command = [sys.executable, "-m", "ffenc", *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def plain_ffmpeg(commands: dict[str, list[str]], images: list[bytes], episodes: int, folder: Path) -> None:
    """Encode each episode of each camera by one ffmpeg, as many at once as there are cores."""
    frames = len(images) // episodes
    folder.mkdir()

    def encode(one: tuple[int, str]) -> None:
        number, key = one
        *command, _, overwrite = commands[key]
        data = b"".join(images[number * frames : (number + 1) * frames])
        command += [f"file:{folder}/{number}-{key}.mp4", overwrite]
        subprocess.run(command, input=data, check=True, capture_output=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(encode, [(n, key) for n in range(episodes) for key in commands]))


def measured(
    root: Path, frames: int, options: argparse.Namespace, *, script: bool
) -> dict[str, tuple[float, float]]:
    """Run all ways on episodes of so many frames: seconds and seconds of CPU, the least of each."""
    images = jpegs(frames * options.episodes)
    root.mkdir()
    write(root, images, options.episodes)
    settings = ["--fps", str(FPS), "--task", "lift", f"--camera_encoder.vcodec={options.vcodec}"]
    planned = json.loads(ffenc("reencode", root / "aloha", root / "out", *settings, "--dry-run", "--json"))
    ways: dict[str, Callable[[], object]] = {
        "ffenc reencode": lambda: ffenc("reencode", root / "aloha", root / "out", *settings),
        "plain ffmpeg": lambda: plain_ffmpeg(planned["commands"], images, options.episodes, root / "plain"),
    }
    if options.lerobot and script:
        line = [options.lerobot, "-c", SCRIPT, str(root / "arrays"), str(root / "script"), options.vcodec]
        ways["OpenCV and add_frame"] = lambda: subprocess.run(
            [*line, json.dumps(CAMERAS)], check=True, capture_output=True
        )
    total, size = len(images) * len(CAMERAS), sum(map(len, images)) / len(images) / 1000
    print(f"{total} frames: {options.episodes} episodes of {frames}, 4 cameras, {options.vcodec}")
    print(f"JPEG of {size:.0f} kB on average; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    best: dict[str, tuple[float, float]] = {}
    for _ in range(options.repeats):
        for way, work in ways.items():
            for folder in ("out", "plain", "script"):
                shutil.rmtree(root / folder, ignore_errors=True)
            found = timed(work)
            best[way] = tuple(map(min, best.get(way, found), found))  # type: ignore[assignment]
    return best


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=100, help="of each camera and episode")
    parser.add_argument("--episodes", type=int, default=2)
    parser.add_argument("--vcodec", default="libsvtav1")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--lerobot", metavar="PYTHON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ffenc-bench-") as name:
        short = measured(Path(name) / "short", max(1, options.frames // 4), options, script=False)
        best = measured(Path(name) / "long", options.frames, options, script=True)
        total = options.frames * options.episodes * len(CAMERAS)
        more = total - max(1, options.frames // 4) * options.episodes * len(CAMERAS)
        for way, (seconds, cpu) in best.items():
            ratio, cpu_ratio = (best[way][i] / best["ffenc reencode"][i] for i in (0, 1))
            print(
                f"{way}: {total / seconds:.0f} frames/s, {seconds:.1f} s, {cpu:.1f} s of CPU; ffenc is "
                f"{ratio:.2f} times as fast, with {1 / cpu_ratio:.2f} of the CPU time"
            )
        if more:
            # What a frame costs beside start-up, trials and the end: the difference to a shorter run.
            wall, cpu = ({way: (best[way][i] - short[way][i]) / more * 1000 for way in short} for i in (0, 1))
            for kind, of in (("", wall), (" of CPU", cpu)):
                ours, plain = of["ffenc reencode"], of["plain ffmpeg"]
                print(f"a frame more{kind}: {ours:.2f} ms, plain ffmpeg {plain:.2f} ms: {plain / ours:.2f}")


if __name__ == "__main__":
    main()
