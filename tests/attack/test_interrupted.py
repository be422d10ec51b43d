"""Kills at random moments and disk errors anywhere: a result is whole or not there, and can be completed.

A short form runs by default; ``--long`` tries some hundred moments.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.support.command_line import CommandLine
from tests.support.read import contents

SETTINGS = ["--camera_encoder.vcodec=h264", "--camera_encoder.preset=ultrafast"]

# The k-th call that changes the disk fails, as on a broken or a full one.
FAILING = """
import errno, io, os, sys
left, number = int(sys.argv.pop(1)), getattr(errno, sys.argv.pop(1))
def failing(module, name):
    real = getattr(module, name)
    def call(*args, **options):
        global left
        mode = str(options.get("mode", args[1] if len(args) > 1 else "r"))
        if name != "open" or set(mode) & set("wax+"):
            left -= 1
            if left == 0:
                raise OSError(number, os.strerror(number), str(args[0]))
        return real(*args, **options)
    setattr(module, name, call)
for name in ("replace", "rename", "fsync", "mkdir", "unlink", "rmdir"):
    failing(os, name)
failing(io, "open")
from ffenc.cli.main import main
main()
"""


@dataclass(frozen=True)
class Job:
    """A command, its result when nothing disturbs it, and what has to be so before it.

    Attributes:
        lasts: the seconds it takes.
        earlier: a result of other frames that it replaces; None: there is none.
    """

    words: list[str]
    result: dict[str, str]
    lasts: float
    source: Path
    again: list[str]
    earlier: Path | None

    @property
    def before(self) -> dict[str, str]:
        return contents(self.earlier) if self.earlier else {}


def run(words: list[str], *, script: str | None = None) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "ffenc"] if script is None else [sys.executable, "-c", script]
    return subprocess.run([*start, *words], check=False, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree") / "it's 50% tree"
    rng = np.random.default_rng(0)
    for episode in range(3):
        folder = root / f"episode_{episode:02d}/cam"
        folder.mkdir(parents=True)
        for i in range(5):
            Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def dataset(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dataset") / "dataset"
    assert run(["reencode", str(tree), str(out), "--fps", "30", "--task", "x", *SETTINGS]).returncode == 0
    return out


@pytest.fixture(scope="module", params=["reencode", "merge", "decode"])
def job(
    request: pytest.FixtureRequest, tree: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Job:
    if request.param == "reencode":
        source, words = tree, ["reencode", str(tree), "OUT", "--fps", "30", "--task", "x", *SETTINGS]
    elif request.param == "merge":
        source, words = dataset, ["merge", str(dataset), str(dataset), "--out", "OUT"]
    else:
        source, words = dataset, ["decode", str(dataset), "OUT", "--overwrite"]
    again = [*words, "--resume"] if request.param != "decode" else words
    out = tmp_path_factory.mktemp("whole") / "out"
    earlier = None
    if request.param == "decode":
        assert run([*placed(words, out), "--frames", "0:2"]).returncode == 0
        earlier = Path(shutil.copytree(out, out.with_name("earlier")))
    began = time.monotonic()
    assert run(placed(words, out)).returncode == 0
    return Job(words, contents(out), time.monotonic() - began, source, again, earlier)


def placed(words: list[str], out: Path) -> list[str]:
    return [str(out) if word == "OUT" else word for word in words]


def prepared(job: Job, tmp_path: Path, number: int) -> Path:
    out = tmp_path / f"{number}" / "out"
    out.parent.mkdir()
    if job.earlier:
        shutil.copytree(job.earlier, out)
    return out


def moments(request: pytest.FixtureRequest, short: int, long: int) -> Iterator[tuple[int, random.Random]]:
    count = long if request.config.getoption("--long") else short
    for number in range(count):
        yield number, random.Random(number)


def check(job: Job, out: Path, sources: dict[str, str], ffenc: CommandLine) -> None:
    """What is there is the result, or what was before; the next run completes it and leaves nothing else."""
    assert contents(job.source) == sources
    if out.exists():
        assert contents(out) in (job.result, job.before)
    ffenc.done(*placed(job.again, out))
    assert contents(out) == job.result
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_kill_at_any_moment_leaves_no_half_result(
    job: Job, tmp_path: Path, request: pytest.FixtureRequest, ffenc: CommandLine
) -> None:
    sources = contents(job.source)
    for number, rng in moments(request, 1, 100):
        out = prepared(job, tmp_path, number)
        process = subprocess.Popen(
            [sys.executable, "-m", "ffenc", *placed(job.words, out)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, job.lasts))
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=20)
        assert alive == []
        check(job, out, sources, ffenc)


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_an_error_of_the_disk_anywhere_is_reported_and_leaves_no_half_result(
    job: Job, tmp_path: Path, request: pytest.FixtureRequest, error: str, ffenc: CommandLine
) -> None:
    sources = contents(job.source)
    for number, rng in moments(request, 1, 60):
        out = prepared(job, tmp_path, number)
        ended = run([str(rng.randint(1, 60)), error, *placed(job.words, out)], script=FAILING)
        assert "Traceback" not in ended.stderr
        if ended.returncode != 0:
            assert ended.stderr.startswith("ffenc: "), ended.stderr
            assert ended.returncode == 1
        check(job, out, sources, ffenc)
