"""Kills, signals, full disks and second runs: nothing half-made passes for a dataset."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from ffenc import DestinationError, reencode_dataset
from ffenc.dataset.staging import Staging
from tests.conftest import DATASET, everything_in
from tests.support.command_line import CommandLine
from tests.support.make import H264
from tests.support.read import contents
from tests.support.runs import ffmpegs_for, wait_for_pieces, wait_until_gone

OPTIONS = ["--fps", "30", "--workers", "2", "--camera_encoder.vcodec=h264"]


@pytest.fixture(scope="module")
def long_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight episodes that take some seconds to encode: there is time to end a run in its midst."""
    root = tmp_path_factory.mktemp("long") / "tree"
    rng = np.random.default_rng(0)
    for episode in range(8):
        folder = root / f"episode_{episode:02d}/cam"
        folder.mkdir(parents=True)
        for i in range(8):
            frame = np.kron(rng.integers(0, 255, (30, 40, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
            Image.fromarray(frame).save(folder / f"{i}.png", compress_level=1)
    return root


@pytest.fixture(scope="module")
def unbroken(long_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("unbroken") / "out"
    reencode_dataset(long_tree, out, fps=30, workers=2, overrides=H264)
    return contents(out)


def words(source: Path, out: Path, *more: str) -> list[str]:
    return ["reencode", str(source), str(out), *OPTIONS, *more]


def command(source: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "ffenc", *words(source, out, *more)]


@pytest.mark.parametrize("pieces", [0, 4, 7])
def test_a_killed_run_is_taken_up_and_ends_as_an_unbroken_one(
    long_tree: Path, unbroken: dict[str, str], tmp_path: Path, pieces: int, ffenc: CommandLine
) -> None:
    out = tmp_path / "it's 50% out"
    sources = contents(long_tree)
    run = subprocess.Popen(command(long_tree, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_pieces(tmp_path, pieces, run)
    if pieces == 0:
        time.sleep(0.4)  # inside start-up or the first encodes
    run.kill()
    run.wait()
    wait_until_gone(tmp_path)
    assert not out.exists()
    resumed = ffenc.done(*words(long_tree, out, "--resume", "--json"))
    assert contents(out) == unbroken
    assert everything_in(tmp_path)[0] == out.name
    assert not list(tmp_path.glob(".*"))
    assert contents(long_tree) == sources
    if pieces:
        assert resumed.json["resumed_encodes"] >= pieces


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_in_order_and_keeps_what_is_finished(
    long_tree: Path, unbroken: dict[str, str], tmp_path: Path, number: signal.Signals, ffenc: CommandLine
) -> None:
    out = tmp_path / "out"
    run = subprocess.Popen(
        command(long_tree, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_for_pieces(tmp_path, 2, run)
    run.send_signal(number)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 128 + number
    assert ffmpegs_for(tmp_path) == []
    assert not out.exists()
    assert not list(tmp_path.rglob("*partial*"))
    assert "of 8 encodes finished and kept" in said
    assert "--resume" in said
    assert "Traceback" not in said
    again = ffenc.refused(*words(long_tree, out))
    assert "Continue with --resume, or delete that folder" in again
    ffenc.done(*words(long_tree, out, "--resume"))
    assert contents(out) == unbroken


def test_a_piece_that_changed_or_whose_frames_changed_is_encoded_anew(
    long_tree: Path, tmp_path: Path, unbroken: dict[str, str], ffenc: CommandLine
) -> None:
    source = Path(shutil.copytree(long_tree, tmp_path / "tree"))
    out = tmp_path / "out"
    run = subprocess.Popen(command(source, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_pieces(tmp_path, 4, run)
    run.kill()
    run.wait()
    wait_until_gone(tmp_path)
    cut, damaged, other = (
        record.with_suffix(".mp4")
        for record in sorted(tmp_path.glob(".out.ffenc/pieces/*/episode-*.json"))[:3]
    )
    cut.write_bytes(cut.read_bytes()[:-10])
    content = bytearray(damaged.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20] = bytes(byte ^ 0xFF for byte in content[middle : middle + 20])
    damaged.write_bytes(content)
    frames = source / f"episode_{other.stem[-2:]}/cam"
    shutil.copy(frames / "3.png", frames / "4.png")
    changed = ffenc.done(*words(source, out, "--resume"))
    whole = tmp_path / "whole"
    reencode_dataset(source, whole, fps=30, workers=2, overrides=H264)
    assert contents(out) == contents(whole) != unbroken
    assert "3 kept encodes did not match" in changed.out


def test_a_second_run_on_one_destination_is_refused(tmp_path: Path) -> None:
    with (
        Staging(tmp_path / "out", resume=False),
        pytest.raises(DestinationError, match="another run of ffenc"),
    ):
        reencode_dataset(DATASET, tmp_path / "out", cameras=["angle"], overrides=H264)
    assert reencode_dataset(DATASET, tmp_path / "out", cameras=["angle"], overrides=H264).frames == 72


def test_an_ffmpeg_that_is_killed_is_an_error(long_tree: Path, tmp_path: Path) -> None:
    run = subprocess.Popen(
        command(long_tree, tmp_path / "out"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    killed = []
    while run.poll() is None and not killed:
        for pid in ffmpegs_for(tmp_path / ".out.ffenc/pieces"):
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if "libx264" in process.cmdline():  # an encode, not the probe of its result
                    process.kill()
                    killed.append(pid)
        time.sleep(0.005)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "ffmpeg was killed" in said
    assert "libx264" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_told_and_the_run_can_go_on(long_tree: Path, tmp_path: Path) -> None:
    """On a file system of its own, in a mount namespace of its own, which needs no root."""
    small = tmp_path / "small"
    small.mkdir()
    script = f"""
set -eu
mount -t tmpfs -o size=120k tmpfs {small}
if {shlex.join(command(long_tree, small / "out"))} 2> {tmp_path}/refused; then exit 7; fi
test "$(ls -A {small})" = ""
if {shlex.join(command(long_tree, small / "out", "--force-space"))} 2> {tmp_path}/said; then exit 7; fi
test ! -e {small}/out
test -z "$(find {small} -name '*partial*')"
mount -o remount,size=100m {small}
{shlex.join(command(long_tree, small / "out", "--resume", "--json"))} > {tmp_path}/summary
"""
    namespace = (
        ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    )
    subprocess.run([*namespace, "sh", "-c", script], check=True)
    assert re.search(
        r"needs about [\d.]+ MB, [\d.]+ MB are free .* --force-space", (tmp_path / "refused").read_text()
    )
    said = (tmp_path / "said").read_text()
    assert re.search("disk is full|No space left", said)
    assert "--resume" in said
    assert "Traceback" not in said
    summary = json.loads((tmp_path / "summary").read_text())
    assert summary["frames"] == 64
    assert summary["resumed_encodes"] > 0
