"""Statistics of a recording: all parts of an episode weigh the same, of any length and however it ends."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ffenc import FfencWarning, RobotPreset
from ffenc.recording.recorder import Recorder
from ffenc.recording.recover import recover
from ffenc.recording.samples import MOST_SAMPLES, SampleLog, read_samples, sample_step
from tests.recording.recording import FPS, HEIGHT, WIDTH, assert_sound, depth_map, episodes, robot

TOP, DEEP = "observation.images.top", "observation.images.deep"


def stats(root: Path, key: str, name: str, episode: int = 0) -> Any:
    return np.ravel(episodes(root)[episode][f"stats/{key}/{name}"])


def write_rows(recorder: Recorder, rows: int, *, jpeg: bool = False) -> None:
    """A third of the rows black and near, two thirds white and far."""
    for row in range(rows):
        level = 0 if row < rows // 3 else 255
        frame: Any = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
        if jpeg:
            image = io.BytesIO()
            Image.fromarray(frame).save(image, format="JPEG")
            frame = image.getvalue()
        recorder.write("top", frame)
        if "deep" in recorder.preset.cameras:
            recorder.write("deep", np.full((HEIGHT, WIDTH), 1000 if level == 0 else 4000, np.uint16))
        recorder.add_row(state=[float(row)])


def test_the_frames_are_every_kth_and_so_many_that_all_episodes_are_alike() -> None:
    for frames in [*range(1, 2000), 10**6, 10**9]:
        step = sample_step(frames)
        count = -(-frames // step)
        assert count <= MOST_SAMPLES
        assert step == 1 or count > MOST_SAMPLES // 2
        assert step & (step - 1) == 0


@pytest.mark.parametrize("unit", [None, "mm", "m"])
def test_what_is_kept_gives_the_statistics_of_every_length_and_damage_is_noticed(
    tmp_path: Path, unit: Any
) -> None:
    width, height = 320, 240
    random = np.random.default_rng(0)
    path = tmp_path / "kept"
    log = SampleLog(path, width, height, unit)
    shape = (height, width, 3) if unit is None else (height, width)
    levels = random.integers(0, 250, 700)
    for level in levels:
        frame = np.full(shape, level, np.uint8 if unit is None else np.uint16)
        log.add(frame if unit != "m" else (frame / np.float32(1000)).astype(np.float32))
    log.close()
    scale = {None: 255, "mm": 1, "m": 1000}[unit]
    for frames in (1, 2, 199, 200, 201, 399, 400, 401, 700):
        found = read_samples(path, width, height, unit, frames)
        assert found is not None
        picked = levels[: frames : sample_step(frames)]
        told = found.statistics()
        assert told["count"] == [len(picked)]
        np.testing.assert_allclose(np.ravel(told["mean"]), picked.mean() / scale, rtol=1e-5)
        np.testing.assert_allclose(np.ravel(told["max"]), picked.max() / scale, rtol=1e-5)
    assert read_samples(path, width, height, unit, 1025) is None, "they are not there"
    data = bytearray(path.read_bytes())
    path.write_bytes(data[: len(data) // 2])
    assert read_samples(path, width, height, unit, 700) is None
    data[20] ^= 1
    path.write_bytes(data)
    assert read_samples(path, width, height, unit, 700) is None
    assert read_samples(tmp_path / "none", width, height, unit, 1) is None


@pytest.mark.parametrize(
    ("preset", "jpeg"),
    [(robot(depth="mm"), False), (robot(), True), (robot(depth="mm", video=False), False)],
    ids=["live", "jpeg", "images"],
)
def test_all_parts_of_an_episode_weigh_the_same_and_recovery_gives_the_same(
    tmp_path: Path, preset: RobotPreset, jpeg: bool
) -> None:
    rows = 450 if preset.video and not jpeg else 204  # every fourth and every second frame is kept
    root = tmp_path / "data"
    with Recorder(preset, root, jpeg={"top"} if jpeg else set()) as recorder:
        recorder.start_episode()
        write_rows(recorder, rows, jpeg=jpeg)
        recorder.save_episode()
        recorder.start_episode()
        write_rows(recorder, rows, jpeg=jpeg)
        with pytest.warns(FfencWarning, match="was not saved"):
            recorder.__exit__(None, None, None)
    torn = Path(shutil.copytree(root, tmp_path / "torn"))
    for path in torn.glob(".recording/*/*.samples"):
        path.unlink()
    assert [one.rows for one in recover(root).episodes] == [rows]
    assert [one.rows for one in recover(torn).episodes] == [rows]
    for folder in (root, torn):
        assert_sound(folder)
    for key in [TOP, *([DEEP] if "deep" in preset.cameras else [])]:
        mean = 2 / 3 if key == TOP else 3000
        np.testing.assert_allclose(stats(root, key, "mean"), mean, rtol=0.005)
        for name in ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"):
            np.testing.assert_array_equal(stats(root, key, name, 0), stats(root, key, name, 1))
            np.testing.assert_allclose(
                stats(torn, key, name, 0), stats(torn, key, name, 1), rtol=0.01, atol=0.01
            )
    assert json.loads((root / "meta/stats.json").read_text())[TOP]["count"][0] > 2 * 100


def test_an_episode_that_was_cut_short_has_the_statistics_of_its_rows(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    with pytest.warns(FfencWarning, match="was not saved"), Recorder(robot(depth="m"), cut) as recorder:
        recorder.start_episode()
        for row in range(60):
            recorder.write("top", np.full((HEIGHT, WIDTH, 3), row * 4, np.uint8))
            recorder.write("deep", depth_map(row, "m"))
            recorder.add_row()
    [log] = cut.glob(".recording/*/rows.jsonl")
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:FPS]))
    [back] = recover(cut).episodes
    with Recorder(robot(depth="m"), whole) as recorder:
        recorder.start_episode()
        for row in range(back.rows):
            recorder.write("top", np.full((HEIGHT, WIDTH, 3), row * 4, np.uint8))
            recorder.write("deep", depth_map(row, "m"))
            recorder.add_row()
        recorder.save_episode()
    for key in (TOP, DEEP):
        for name in ("min", "max", "mean", "std", "q50"):
            np.testing.assert_array_equal(stats(cut, key, name), stats(whole, key, name))
