"""Runs of jobs: refused, waited for, with nothing left of them."""

from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from ffenc import ConfigError, SourceError, reencode_dataset
from ffenc.tune import decoding
from ffenc.tune import run as running
from ffenc.tune.run import tune
from ffenc.tune.tuning import Tuning
from tests.conftest import DATASET, everything_in
from tests.support.make import H264


def refused(source: Path, folder: Path, said: str, **arguments: object) -> None:
    """A re-encode is refused with these words, and leaves nothing."""
    before = everything_in(source)
    with pytest.raises((SourceError, ConfigError), match=said):
        reencode_dataset(source, folder / "out", overrides=H264, workers=1, **arguments)
    assert not (folder / "out").exists()
    assert not list(folder.rglob("*partial*"))
    assert everything_in(source) == before


def ffmpegs_for(folder: Path) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in part for part in process.info["cmdline"] or []):
            found.append(process.pid)
    return found


def wait_until_gone(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while ffmpegs_for(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [psutil.Process(pid).as_dict(["pid", "status", "cmdline"]) for pid in ffmpegs_for(folder)]
    assert not left, left


def wait_for_pieces(folder: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None and len(list(folder.rglob("pieces/*/episode-*.json"))) < count:
        time.sleep(0.01)


def measured_briefly(patch: pytest.MonkeyPatch) -> None:
    """Speeds are measured for a moment, and of few places: what they are is not tested."""
    patch.setattr(running, "_LOAD_SECONDS", 0.05)
    patch.setattr(decoding, "_PLACES", 3)


def tuned(folder: Path, source: Path = DATASET, **options) -> Tuning:
    """Settings tried on a source; speeds are measured for a moment."""
    folder.mkdir()
    with ExitStack() as closing, pytest.MonkeyPatch.context() as patch:
        measured_briefly(patch)
        return tune(source, folder, closing, **options)
