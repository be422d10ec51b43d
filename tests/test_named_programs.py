"""Every public function runs the programs that are named, and no others."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ffenc
from ffenc import FfencWarning, Recorder, Transform, VideoEncoderConfig, VideoReader, VideoWriter
from ffenc.dataset.decode import plan_decode, run_decode
from ffenc.dataset.restat import restate
from ffenc.tune.candidates import Lists
from ffenc.tune.compare import compare_sources
from tests.conftest import FIXTURES, newest_programs
from tests.recording.recording import record, robot
from tests.support.make import H264
from tests.support.runs import tuned

VIDEO = FIXTURES / "aloha_video_v30"
FILE = VIDEO / "videos/observation.images.top/chunk-000/file-000.mp4"

FAST = VideoEncoderConfig(vcodec="h264", preset="ultrafast")


def write(path: Path, **programs: Any) -> None:
    with VideoWriter(path, fps=30, config=FAST, **programs) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8))


def interrupted(root: Path, **programs: Any) -> None:
    with pytest.warns(FfencWarning, match="was not saved"), Recorder(robot(), root, **programs) as recorder:
        recorder.start_episode()
        record(recorder, range(3))


def recovered(root: Path, **programs: Any) -> None:
    interrupted(root, **programs)
    assert ffenc.recover(root, **programs).episodes


def compared(out: Path, **programs: Any) -> None:
    with ExitStack() as closing:
        compare_sources(VIDEO, [VIDEO], closing, episodes=[1], **programs)


CALLS: dict[str, Callable[..., object]] = {
    "edit_dataset": lambda out, **named: ffenc.edit_dataset(VIDEO, out / "new", episodes=[1], **named),
    "edit_dataset, pixels": lambda out, **named: ffenc.edit_dataset(
        VIDEO, out / "new", transform=Transform(flip="h"), **named
    ),
    "edit_dataset, rate": lambda out, **named: ffenc.edit_dataset(VIDEO, out / "new", fps=15, **named),
    "encode": lambda out, **named: ffenc.encode(FILE, out / "new.mp4", config=FAST, **named),
    "join_videos": lambda out, **named: ffenc.join_videos([FILE, FILE], out / "new.mp4", **named),
    "merge_datasets": lambda out, **named: ffenc.merge_datasets([VIDEO, VIDEO], out / "new", **named),
    "plan_merge": lambda out, **named: ffenc.plan_merge([VIDEO, VIDEO], out / "new", **named),
    "plan_reencode": lambda out, **named: ffenc.plan_reencode(VIDEO, out / "new", **named),
    "probe": lambda _, ffprobe, **__: ffenc.probe(FILE, times=True, ffprobe=ffprobe),
    "Recorder": lambda out, **named: interrupted(out / "new", **named),
    "recover": lambda out, **named: recovered(out / "new", **named),
    "reencode_dataset": lambda out, **named: ffenc.reencode_dataset(
        VIDEO, out / "new", overrides=H264, **named
    ),
    "reencode_dataset, a part": lambda out, **named: ffenc.reencode_dataset(
        VIDEO, out / "new", overrides=H264, episodes=[1], fps=15, **named
    ),
    "repair_dataset": lambda out, **named: ffenc.repair_dataset(
        VIDEO, out / "new", without_cameras=["angle"], **named
    ),
    "split_dataset": lambda out, **named: ffenc.split_dataset(
        VIDEO, out / "new", {"a": 0.5, "b": 0.5}, **named
    ),
    "verify_dataset": lambda _, **named: ffenc.verify_dataset(VIDEO, deep=True, against=VIDEO, **named),
    "VideoReader": lambda _, **named: VideoReader(FILE, decoder="ffmpeg", **named)[3],
    "VideoWriter": lambda out, **named: write(out / "new.mp4", **named),
    "compare": compared,
    "decode": lambda out, **named: run_decode(plan_decode(VIDEO, out / "new", **named)),
    "stats": lambda _, **named: restate(VIDEO, cameras=True, **named),
    "tune": lambda out, **named: tuned(
        out / "new",
        VIDEO,
        cameras=["top"],
        lists=Lists(vcodec=["h264"], crf=[23], preset=["ultrafast"]),
        length=2,
        **named,
    ),
}


ELSEWHERE = {"contact_sheet", "pull_dataset", "push_dataset"}  # of bags; they verify, and need a repository


def test_all_public_functions_that_take_programs_are_tested_here() -> None:
    taking = set()
    for name in ffenc.__all__:
        value: Any = getattr(ffenc, name)
        if not callable(value) or (isinstance(value, type) and "__init__" not in vars(value)):
            continue  # plain data
        if "ffprobe" in inspect.signature(value).parameters:
            taking.add(name)
    assert taking <= {*CALLS, *ELSEWHERE}


@pytest.mark.parametrize("called", CALLS)
def test_the_programs_that_are_named_are_the_only_ones_that_run(
    called: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("FFENC_FFMPEG", "FFENC_FFPROBE"):
        monkeypatch.setenv(variable, str(tmp_path / "another"))  # an error where nothing is named
    CALLS[called](tmp_path, **newest_programs())
