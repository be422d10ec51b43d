"""Compare edits with a copy of the files, and a resize with a re-encode, on the same dataset, in one run.

    python benchmarks/edit.py [--megabytes 400] [--frames 600] [--repeats 2]

Ways: ``ffenc edit`` that gives all episodes another task, and one that leaves an episode out, against
``cp -r`` of the dataset, which like ffenc waits until the disk has all of it (``sync -f``); then
``ffenc edit --resize`` and ``ffenc reencode --force`` of the same video, and both of the same
images. Last, ``ffenc repair`` of the video against ``ffenc verify --deep``, which decodes every frame once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.run import make_dataset, make_frames
from benchmarks.video import ffenc, rates

SETTINGS = ("--camera_encoder.vcodec=h264", "--camera_encoder.crf=12")


def copied(source: Path, target: Path) -> None:
    """``cp -r``, and the disk has it."""
    subprocess.run(["cp", "-r", source, target], check=True)
    subprocess.run(["sync", "-f", target], check=True)


def size_of(root: Path) -> int:
    """The bytes of a dataset's files."""
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    console = Console(width=110)
    with tempfile.TemporaryDirectory(prefix="ffenc-benchmark-") as name:
        work, out = Path(name), Path(name) / "out"
        images, small, large = work / "images", work / "small", work / "large"
        make_dataset(images, make_frames(work / "tree", arguments.frames))
        shutil.rmtree(work / "tree")
        ffenc("reencode", images, small, *SETTINGS)
        times = max(1, round(arguments.megabytes * 1e6 / size_of(small)))
        ffenc("merge", *[small] * times, "--out", large)

        def fresh(way: Callable[[Path], object]) -> Callable[[], object]:
            def run() -> None:
                shutil.rmtree(out, ignore_errors=True)
                way(out)

            return run

        def edit(*words: str, source: Path = large) -> Callable[[], object]:
            return fresh(lambda target: ffenc("edit", source, target, *words))

        def show(title: str, frames: int, ways: dict[str, Callable[[], object]]) -> None:
            console.print(rates(title, frames, ways, arguments.repeats))

        megabytes = size_of(large) / 1e6
        load = os.getloadavg()[0]
        console.print(f"{megabytes:.0f} MB in {2 * times} episodes; load of the machine before: {load:.1f}")
        frames = arguments.frames * times
        copy = {"cp -r, and sync": fresh(lambda target: copied(large, target))}
        show("another task", frames, {"ffenc edit --task": edit("--task", "another"), **copy})
        show(
            "an episode less",
            frames,
            {"ffenc edit --exclude-episodes": edit("--exclude-episodes", "1"), **copy},
        )
        resize = edit("--resize", "320x240", source=small)
        encode = fresh(lambda target: ffenc("reencode", small, target, "--force"))
        ways = {"ffenc edit --resize": resize, "ffenc reencode --force": encode}
        show("half the size, video", arguments.frames, ways)
        resize = edit("--resize", "320x240", source=images)
        encode = fresh(lambda target: ffenc("reencode", images, target))
        ways = {"ffenc edit --resize": resize, "ffenc reencode": encode}
        show("half the size, images", arguments.frames, ways)
        repair = fresh(lambda target: ffenc("repair", small, target))
        ways = {"ffenc repair": repair, "ffenc verify --deep": lambda: ffenc("verify", "--deep", small)}
        show("all sound", arguments.frames, ways)


if __name__ == "__main__":
    main()
