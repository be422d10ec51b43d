"""LeRobot's own tests of what ffenc replaces, without ffenc and with it. Run by LeRobot's own python.

    PYTHONPATH=. LEROBOTS_PYTHON tests/lerobot/lerobots_own.py CHECKOUT [FILE ...]

CHECKOUT is LeRobot's repository at the tag of the version that is installed; it is only read. What passes
without ffenc has to pass with it; the exit status is 1 where something does not.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import av
import lerobot
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

FILES = (
    "test_streaming_video_encoder.py",
    "test_video_encoding.py",
    "test_dataset_writer.py",
    "test_aggregate.py",
    "test_dataset_tools.py",
    "test_depth.py",
)
# Tests that look into private parts of LeRobot's encoder thread, or at how it lays files out, and why.
EXPECTED: dict[str, str] = {}
# LeRobot keeps these in Git LFS: name -> codec, width, height, frames.
CLIPS = {
    "clip_4frames.mp4": ("libsvtav1", 96, 64, 4),
    "clip_5frames.mp4": ("libsvtav1", 96, 64, 5),
    "clip_6frames.mp4": ("libsvtav1", 96, 64, 6),
    "clip_32x48.mp4": ("libsvtav1", 48, 32, 4),
    "clip_h264.mp4": ("h264", 96, 64, 4),
}


def write_clip(path: Path, vcodec: str, width: int, height: int, frames: int) -> None:
    """Write a clip by LeRobot's own library, so that ffenc has no part in it."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as output:
        stream = output.add_stream(vcodec, 30, options={"g": "2", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(frames):
            pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode())


def write_pusht(home: Path) -> None:
    """Write a dataset like the one of images that tests take from the Hub, by LeRobot's own library."""
    features = {
        "observation.image": {
            "dtype": "image",
            "shape": (96, 96, 3),
            "names": ["height", "width", "channels"],
        },
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
    }
    rng = np.random.default_rng(0)
    dataset = LeRobotDataset.create(
        "lerobot/pusht_image", 10, features, root=home / "lerobot/pusht_image", use_videos=False
    )
    for frames in (12, 9, 10):
        for _ in range(frames):
            dataset.add_frame(
                {
                    "observation.image": rng.integers(0, 256, (96, 96, 3), np.uint8),
                    "observation.state": rng.random(2).astype(np.float32),
                    "action": rng.random(2).astype(np.float32),
                    "task": "push the T",
                }
            )
        dataset.save_episode()
    dataset.finalize()


def run(folder: Path, files: list[str], *more: str) -> dict[str, str]:
    """Run the tests of some files; returns what came of each, by name."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    home = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([str(Path(__file__).parent), home])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "HF_HUB_OFFLINE": "1",
        "FFENC_CACHE": str(folder / "cache"),
        "HF_LEROBOT_HOME": str(folder / "home"),
    }
    names = [f"tests/datasets/{name}" for name in files]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    subprocess.run(
        [*command, *more, *names],
        cwd=folder,
        env=environment,
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if not report.exists():
        sys.exit("pytest did not run: is it installed in LeRobot's environment?")
    results = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kind = next((one.tag for one in case if one.tag in ("failure", "error", "skipped")), "passed")
        detail = next((one.get("message", "") for one in case if one.tag == kind), "")
        results[f"{case.get('classname', '').rpartition('datasets.')[2]}::{case.get('name')}"] = (
            f"{kind}: {detail.splitlines()[0][:150] if detail else ''}".removesuffix(": ")
        )
    return results


def main() -> int:
    os.environ.setdefault("SVT_LOG", "1")  # errors only: it writes past Python
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkout", type=Path)
    # argparse compares an empty list with the choices too.
    parser.add_argument("files", nargs="*", choices=[*FILES, []], metavar="FILE", help=", ".join(FILES))
    arguments = parser.parse_args()
    checkout, files = arguments.checkout, arguments.files or list(FILES)
    version = re.search(r'^version = "(.+)"', (checkout / "pyproject.toml").read_text(), re.M)
    if version is None or version[1] != lerobot.__version__:
        sys.exit(f"{checkout} is of {version and version[1]}, LeRobot {lerobot.__version__} is installed")
    with tempfile.TemporaryDirectory(prefix="ffenc-lerobots-own-") as name:
        folder = Path(name)
        shutil.copytree(checkout / "tests", folder / "tests")
        for clip, of in CLIPS.items():
            path = folder / "tests/artifacts/encoded_videos" / clip
            if path.read_bytes().startswith(b"version https://git-lfs"):
                write_clip(path, *of)
        write_pusht(folder / "home")
        without = run(folder, files)
        with_ffenc = run(folder, files, "-p", "with_ffenc")
    missing = [test for test in without if test not in with_ffenc]
    worse = [
        test
        for test, result in without.items()
        if result == "passed" and with_ffenc.get(test, "missing") != "passed"
    ]
    unexpected = [test for test in worse if test not in EXPECTED]
    for test in worse:
        print(
            f"{test}\n  with ffenc: {with_ffenc.get(test, 'missing')}\n  {EXPECTED.get(test, 'UNEXPECTED')}"
        )
    for test, result in without.items():
        if result != "passed":
            print(f"{test}\n  without ffenc: {result}\n  with ffenc: {with_ffenc.get(test, 'missing')}")
    passed = [sum(one == "passed" for one in results.values()) for results in (without, with_ffenc)]
    print(f"LeRobot {lerobot.__version__}, {len(without)} tests: {passed[0]} pass, with ffenc {passed[1]}")
    return 1 if unexpected or missing or not without else 0


if __name__ == "__main__":
    sys.exit(main())
