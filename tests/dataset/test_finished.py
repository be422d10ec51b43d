"""A job whose result is there already: it is recognised, or refused with the reason."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ffenc import DestinationError, JobSummary, merge_datasets, reencode_dataset
from ffenc.layout import CHECKSUMS
from tests.conftest import DATASET, FIXTURES, TOP
from tests.support.read import contents


def reencode(source: Path, out: Path, crf: int = 40, episodes: tuple[int, ...] = (1,)) -> JobSummary:
    settings = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "crf"), crf)]
    return reencode_dataset(
        source, out, cameras=["angle"], episodes=episodes, overrides=settings, resume=True
    )


def test_a_tree_for_another_robot_is_another_job(png_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for robot, complete in (("arm", False), ("arm", True), ("leg", None)):
        path = tmp_path / "robot.yaml"
        path.write_text(f"robot_type: {robot}\ncamera_encoder: {{vcodec: h264}}")
        job: dict[str, Any] = {"cameras": ["angle"], "fps": 30, "task": "x", "preset": path, "resume": True}
        if complete is None:
            with pytest.raises(DestinationError, match="is the result of another job"):
                reencode_dataset(png_tree, out, **job)
        else:
            assert reencode_dataset(png_tree, out, **job).complete_before == complete
    assert json.loads((out / "meta/info.json").read_text())["robot_type"] == "arm"


def test_a_result_that_is_complete_is_recognised_by_the_job_that_made_it(tmp_path: Path) -> None:
    source, out = Path(shutil.copytree(DATASET, tmp_path / "source")), tmp_path / "out"
    first = reencode(source, out)
    before = contents(out)
    again = reencode(source, out)
    assert (first.complete_before, again.complete_before) == (False, True)
    assert (again.frames, again.video_bytes, again.cameras) == (17, first.video_bytes, first.cameras)
    assert contents(out) == before
    for change in ({"crf": 41}, {"episodes": (2,)}):
        with pytest.raises(DestinationError, match="is the result of another job"):
            reencode(source, out, **change)
    with pytest.raises(DestinationError, match="exists and is not empty"):
        reencode_dataset(source, out, cameras=["angle"])
    video = next(out.glob("videos/*/*/*.mp4"))
    kept = video.rename(tmp_path / "kept.mp4")
    with pytest.raises(DestinationError, match=r"file-000\.mp4 is missing"):
        reencode(source, out)
    kept.rename(video)
    sums = out / CHECKSUMS
    for damaged in ("0" * 64 + "  meta\n", "0\n"):
        with sums.open("r+") as file:
            line = len(file.readlines()) + 1
            end = file.tell()
            file.write(damaged)
        with pytest.raises(
            DestinationError, match=rf"videos\.sha256: line {line} does not name a video; delete"
        ):
            reencode(source, out)
        os.truncate(sums, end)
    (source / "meta/stats.json").touch()
    with pytest.raises(DestinationError, match="was made before .*stats.json was changed"):
        reencode(source, out)
    assert contents(out) == before
    assert not list(tmp_path.glob(".*"))


def test_the_same_job_elsewhere_gives_the_same_record(tmp_path: Path) -> None:
    results = []
    for name in ("a", "b"):
        source = Path(shutil.copytree(DATASET, tmp_path / name / "source", copy_function=shutil.copyfile))
        reencode(source, tmp_path / name / "out")
        results.append(contents(tmp_path / name / "out"))
    assert results[0] == results[1]
    assert json.loads((tmp_path / "a/out/meta/ffenc.json").read_text())["job"]


def test_a_merge_that_is_complete_is_recognised(tmp_path: Path) -> None:
    video, out = FIXTURES / "aloha_video_v30", tmp_path / "out"
    assert not merge_datasets([video, video], out, resume=True).complete_before
    again = merge_datasets([video, video], out, resume=True)
    assert again.complete_before
    assert again.cameras[TOP]["video_bytes"] > 0
    with pytest.raises(DestinationError, match="is the result of another job"):
        merge_datasets([video], out, resume=True)
