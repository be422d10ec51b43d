"""Compare edits with a copy of the files, and a resize with a re-encode, on the same dataset, in one run.

    python benchmarks/edit.py [--megabytes 400] [--frames 600] [--repeats 2]

Ways: ``ffenc edit`` that gives all episodes another task, and one that leaves an episode out, against
``cp -r`` of the dataset, which like ffenc waits until the disk has all of it (``sync -f``): of a small
dataset of two episodes and of one as large as asked for, which holds it many times. The difference is what a
megabyte costs, without the start of the program, its plan and its end; CPU time is there for machines that
others use too. Then
``ffenc edit --resize`` and ``ffenc reencode --force`` of the same video, and both of the same
images. Last, ``ffenc repair`` of the video against ``ffenc verify --deep``, which decodes every frame once.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.run import make_dataset, make_frames, timed
from benchmarks.video import ffenc, rates

LESS = ("--exclude-episodes", "1")
SETTINGS = ("--camera_encoder.vcodec=h264", "--camera_encoder.crf=12")


def copied(source: Path, target: Path) -> None:
    """``cp -r``, and the disk has it."""
    subprocess.run(["cp", "-r", source, target], check=True)
    subprocess.run(["sync", "-f", target], check=True)


def used(way: Callable[[], object]) -> tuple[float, float]:
    """Seconds that a way takes, and seconds of CPU of the processes that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = timed(way)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def growth(
    ways: Mapping[str, Callable[[Path], object]], small: Path, large: Path, out: Path, repeats: int
) -> Table:
    """Run every way on a small and on a large dataset: its cost for any dataset, and for a megabyte more."""
    megabytes = (size_of(large) - size_of(small)) / 1e6
    table = Table(title=f"{size_of(small) / 1e6:.0f} MB, and {megabytes:.0f} MB more")
    for heading in ("way", "small, s", "large, s", "ms a MB", "CPU, ms a MB", "large, ratio", "a MB, ratio"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    first: tuple[float, float] | None = None
    for name, way in ways.items():
        wall, cpu = {}, {}
        for root in (small, large):
            runs = []
            for _ in range(repeats):
                shutil.rmtree(out, ignore_errors=True)
                os.sync()
                runs.append(used(partial(way, root)))
            wall[root], cpu[root] = (statistics.median(column) for column in zip(*runs, strict=True))
        rate, load = ((one[large] - one[small]) / megabytes * 1000 for one in (wall, cpu))
        first = first or (wall[large], rate)
        table.add_row(
            name,
            *(f"{wall[small]:.2f}", f"{wall[large]:.2f}", f"{rate:.1f}", f"{load:.1f}"),
            *(f"{first[0] / wall[large]:.2f}", f"{first[1] / rate:.2f}"),
        )
    return table


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
        make_dataset(images, make_frames(work / "tree", 2, arguments.frames // 2), counted=False)
        shutil.rmtree(work / "tree")
        ffenc("reencode", images, small, *SETTINGS)
        times = max(1, round(arguments.megabytes * 1e6 / size_of(small)))
        ffenc("merge", *[small] * times, "--out", large)

        def fresh(way: Callable[[Path], object]) -> Callable[[], object]:
            def run() -> None:
                shutil.rmtree(out, ignore_errors=True)
                way(out)

            return run

        def edit(*words: str, source: Path) -> Callable[[], object]:
            return fresh(lambda target: ffenc("edit", source, target, *words))

        def show(title: str, frames: int, ways: dict[str, Callable[[], object]]) -> None:
            console.print(rates(title, frames, ways, arguments.repeats))

        load = os.getloadavg()[0]
        console.print(
            f"{size_of(large) / 1e6:.0f} MB in {2 * times} episodes; load of the machine before: {load:.1f}"
        )
        copies = {
            "cp -r, and sync": lambda source: copied(source, out),
            "ffenc edit --task": lambda source: ffenc("edit", source, out, "--task", "another"),
            "ffenc edit --exclude-episodes": lambda source: ffenc("edit", source, out, *LESS),
        }
        console.print(growth(copies, small, large, out, arguments.repeats))
        resize = edit("--resize", "320x240", source=small)
        encode = fresh(lambda target: ffenc("reencode", small, target, "--force"))
        ways = {"ffenc edit --resize": resize, "ffenc reencode --force": encode}
        show("half the size, video", arguments.frames, ways)
        resize = edit("--resize", "320x240", source=images)
        encode = fresh(lambda target: ffenc("reencode", images, target))
        ways = {"ffenc edit --resize": resize, "ffenc reencode": encode}
        show("half the size, images", arguments.frames, ways)

        def repair(target: Path) -> None:  # with no record of the videos that it decodes
            os.environ["FFENC_CACHE"] = tempfile.mkdtemp(dir=work)
            ffenc("repair", small, target)

        verify = partial(ffenc, "verify", "--deep", "--again", small)
        ways = {"ffenc repair": fresh(repair), "ffenc verify --deep": verify}
        show("all sound", arguments.frames, ways)


if __name__ == "__main__":
    main()
