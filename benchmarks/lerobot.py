"""LeRobot alone and with ffenc: the recording loop, saving, and conversion. Run by LeRobot's own python.

    PYTHONPATH=. LEROBOTS_PYTHON benchmarks/lerobot.py [--seconds 20] [--only loop,depth,convert]

Each measurement has a process of its own. Frames are camera-like: a still picture with sensor noise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

# Python looks beside a script first, where `lerobot` is this file.
sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]

FPS, WIDTH, HEIGHT = 30, 640, 480
COLOURS = [f"observation.images.cam{number}" for number in range(3)]
DEPTH = "observation.images.depth"
_DIFFERENT = 30  # frames that are made beforehand
_IMAGES = 1000  # of each camera that are converted


def pictures(seed: int) -> list[np.ndarray]:
    """A still scene with sensor noise of about 3 levels, and something that moves."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    scene = np.stack([128 + 90 * np.sin(x / 90 + c) * np.cos(y / 70 - c) for c in range(3)], -1)
    scene += 25 * (np.sin(x / 9) * np.sin(y / 11) > 0.6)[..., None]
    frames = []
    for number in range(_DIFFERENT):
        frame = scene + rng.normal(0, 3, scene.shape)
        left = 20 * number % (WIDTH - 60)
        frame[200:260, left : left + 60] = (200, 60, 40)
        frames.append(frame.clip(0, 255).astype(np.uint8))
    return frames


def depths() -> list[np.ndarray]:
    """A sloping floor in millimetres, with noise that grows with distance, and holes."""
    rng = np.random.default_rng(9)
    floor = np.linspace(3000, 600, HEIGHT)[:, None] + np.linspace(0, 200, WIDTH)[None]
    frames = []
    for _ in range(_DIFFERENT):
        frame = floor + rng.normal(0, 1, floor.shape) * floor / 500
        frame[rng.random(floor.shape) < 0.01] = 0
        frames.append(frame.astype(np.uint16)[..., None])
    return frames


def features(cameras: list[str], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "action": {"dtype": "float32", "shape": (6,), "names": [f"j{n}" for n in range(6)]}
    }
    for key in cameras:
        channels = 1 if key == DEPTH else 3
        found[key] = {
            "dtype": kind,
            "shape": (HEIGHT, WIDTH, channels),
            "names": ["height", "width", "channels"],
        }
        if key == DEPTH:
            found[key]["info"] = {"is_depth_map": True}
    return found


def cpu_seconds() -> float:
    """Of this process and those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def loop(
    cameras: list[str], seconds: float, encoder: dict[str, Any], depth: dict[str, Any], root: Path
) -> dict[str, Any]:
    """LeRobot's recording loop, two episodes; what it gives of the second, and how long saving took."""
    from lerobot.configs import DepthEncoderConfig, RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    frames = {key: depths() if key == DEPTH else pictures(number) for number, key in enumerate(cameras)}
    dataset = LeRobotDataset.create(
        **{"repo_id": "local/loop", "fps": FPS, "features": features(cameras, "video"), "root": root},
        **{"use_videos": True, "streaming_encoding": True, "rgb_encoder": RGBEncoderConfig(**encoder)},
        depth_encoder=DepthEncoderConfig(**depth),
    )
    action, saved = np.zeros(6, np.float32), []
    result: dict[str, Any] = {}
    for _ in range(2):
        began, cpu, starts = time.perf_counter(), cpu_seconds(), []
        for number in range(int(seconds * FPS)):
            starts.append(time.perf_counter())
            row = {key: one[number % _DIFFERENT] for key, one in frames.items()}
            dataset.add_frame({**row, "action": action, "task": "measure"})
            time.sleep(max(0.0, 1 / FPS - (time.perf_counter() - starts[-1])))
        taken = time.perf_counter() - began
        lost = dict(dataset.writer._streaming_encoder._dropped_frames)
        began = time.perf_counter()
        dataset.save_episode()
        saved.append(time.perf_counter() - began)
        periods = np.diff(starts) * 1000
        result = {
            "hz": len(starts) / taken,
            "p50_ms": float(np.percentile(periods, 50)),
            "p99_ms": float(np.percentile(periods, 99)),
            "lost_or_repeated": sum(lost.values()),
            "frames": len(starts) * len(cameras),
            "cpu_cores": (cpu_seconds() - cpu) / (taken + saved[-1]),
        }
    dataset.finalize()
    return {**result, "save_s": saved}


def convert(root: Path) -> dict[str, Any]:
    """LeRobot's conversion of a dataset of images; the images are written before."""
    from lerobot.datasets import dataset_tools
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    source = LeRobotDataset("local/images", root=root.with_name("images"))
    began, cpu = time.perf_counter(), cpu_seconds()
    dataset_tools.convert_image_to_video_dataset(source, root, "local/converted")
    return conversion(began, cpu)


def conversion(began: float, cpu: float) -> dict[str, Any]:
    taken = time.perf_counter() - began
    return {"s": taken, "frames_per_s": len(COLOURS) * _IMAGES / taken, "cpu_s": cpu_seconds() - cpu}


def encode_alone(root: Path) -> dict[str, Any]:
    """The bound of a conversion: plain ffmpeg, the one that ffenc uses, with LeRobot's default settings."""
    import pyarrow.parquet as pq

    from ffenc.ffmpeg.toolchain import toolchains

    root.mkdir()
    files = sorted(root.with_name("images").glob("data/*/*.parquet"))
    for key in COLOURS:
        with (root / f"{key}.pngs").open("wb") as together:
            for file in files:
                together.writelines(row["bytes"] for row in pq.read_table(file, columns=[key])[0].to_pylist())
    began, cpu = time.perf_counter(), cpu_seconds()
    running = [
        subprocess.Popen(
            [
                *(toolchains()[0].ffmpeg, "-v", "error", "-f", "image2pipe", "-c:v", "png"),
                *("-framerate", str(FPS), "-i", root / f"{key}.pngs", "-pix_fmt", "yuv420p"),
                *("-c:v", "libsvtav1", "-preset", "12", "-crf", "30", "-g", "2", root / f"{key}.mp4"),
            ],
            stdin=subprocess.DEVNULL,
        )
        for key in COLOURS
    ]
    assert not any(process.wait() for process in running)
    return conversion(began, cpu)


def write_images(root: Path) -> None:
    """An episode that LeRobot writes, ten times."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from ffenc import merge_datasets

    one = root.with_name("episode")
    dataset = LeRobotDataset.create(
        "local/images", FPS, features(COLOURS, "image"), root=one, use_videos=False, image_writer_threads=4
    )
    frames = {key: pictures(number) for number, key in enumerate(COLOURS)}
    for number in range(_IMAGES // 10):
        row = {key: pictures_[number % _DIFFERENT] for key, pictures_ in frames.items()}
        dataset.add_frame({**row, "action": np.zeros(6, np.float32), "task": "measure"})
    dataset.save_episode()
    dataset.finalize()
    merge_datasets([one] * 10, root)


def measure(what: str, seconds: float, root: Path) -> dict[str, Any]:
    if what == "images":
        write_images(root)
        return {}
    if what == "convert":
        return convert(root)
    if what == "encode":
        return encode_alone(root)
    encoder = {"vcodec": "h264", "preset": "veryfast"} if "h264" in what else {}
    depth = {"preset": "ultrafast"} if "fast" in what else {}
    return loop([*COLOURS, DEPTH] if "depth" in what else COLOURS, seconds, encoder, depth, root)


WHAT = {
    "loop-h264": "3 cameras, h264 veryfast",
    "loop": "3 cameras, libsvtav1 (LeRobot's default)",
    "depth-h264": "3 cameras, h264 veryfast, and depth (LeRobot's default)",
    "depth-h264-fast": "3 cameras, h264 veryfast, and depth with preset ultrafast",
    "convert": f"{_IMAGES} images of each of 3 cameras to video, libsvtav1 (LeRobot's default)",
}


def child(what: str, seconds: float, root: Path, ffenc: bool) -> dict[str, Any]:
    script = [
        __file__,
        "--measure",
        what,
        "--seconds",
        str(seconds),
        "--root",
        str(root),
        "--ffenc",
        str(int(ffenc)),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "SVT_LOG": "1"}
    ran = subprocess.run(
        [sys.executable, *script], env=environment, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        sys.exit(f"{what}: {ran.stderr[-2000:]}")
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def show(who: str, result: dict[str, Any]) -> None:
    shown = ", ".join(f"{key} {np.round(value, 2).tolist()}" for key, value in result.items())
    print(f"  {who:10}  {shown}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--only", default=",".join(WHAT), help="comma-separated: " + ", ".join(WHAT))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ffenc", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        if given.ffenc:
            import ffenc.lerobot

            ffenc.lerobot.use()
        print(json.dumps(measure(given.measure, given.seconds, given.root)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what in given.only.split(","):
            load = os.getloadavg()[0]
            print(
                f"\n{WHAT[what]} (load of the machine before: {load:.1f} on {os.cpu_count()} cores)",
                flush=True,
            )
            if what == "convert":
                child("images", 0, folder / "images", False)
                show("FFmpeg", child("encode", 0, folder / "encode", False))
            for ffenc in (False, True):
                result = child(what, given.seconds, folder / f"{what}-{ffenc}", ffenc)
                show("with ffenc" if ffenc else "alone", result)


if __name__ == "__main__":
    main()
