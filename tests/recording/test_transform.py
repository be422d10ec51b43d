"""Frames are changed before they are stored, live, after the episode and when it is brought back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ffenc import ConfigError, DestinationError, VideoReader, recover
from ffenc.config.preset import CameraPreset
from ffenc.config.transform import Transform
from ffenc.recording.recorder import Recorder
from tests.conftest import decode
from tests.recording.recording import COLOUR, DEPTH, HEIGHT, WIDTH, assert_sound, robot

# The left half, turned clockwise and scaled into a square.
CHANGES = Transform(crop=(0, 0, 32, 48), rotate=90, resize=(64, 64), pad=True)


def preset(**fields: Any) -> Any:
    cameras = {
        "top": CameraPreset(width=WIDTH, height=HEIGHT, encoder=COLOUR, transform=CHANGES),
        # 64x64 frames are lossless in x265 with key frames only.
        "deep": CameraPreset(
            width=WIDTH, height=HEIGHT, encoder=DEPTH.replace(g=1), depth=True, transform=CHANGES
        ),
    }
    return robot(**fields).replace(cameras=cameras)


def halves(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture and a map whose upper left quarter is marked."""
    colour = np.full((HEIGHT, WIDTH, 3), 20 + number, np.uint8)
    colour[:24, :32] = 200
    depth = np.full((HEIGHT, WIDTH), 1000 + number, np.uint16)
    depth[:24, :32] = 2000
    depth[:4, :4] = 0
    return colour, depth


def is_there(camera: Path) -> bool:
    """Whether a fragment of 15 frames is complete and another one begun, or so many images are written."""
    if camera.is_dir():
        return len(list(camera.iterdir())) > 15
    return camera.read_bytes().count(b"moof") > 1


def check(root: Path, rows: int) -> None:
    """The mark is at the right, with black above and below; depth has its hole there, and no new depths."""
    features = json.loads((root / "meta/info.json").read_text())["features"]
    top, deep = features["observation.images.top"], features["observation.images.deep"]
    assert (top["shape"], deep["shape"]) == ([64, 64, 3], [64, 64, 1])
    own = json.loads((root / "meta/ffenc.json").read_text())["cameras"]
    assert own["observation.images.top"]["video.transform"] == CHANGES.fields()
    shown = decode(next((root / "videos/observation.images.top").rglob("*.mp4")))
    assert shown.shape == (rows, 64, 64, 3)
    assert abs(int(shown[0, 20, 50].mean()) - 200) < 12
    assert abs(int(shown[-1, 40, 10].mean()) - (20 + rows - 1)) < 12
    assert shown[:, :6].max() < 24
    with VideoReader(next((root / "videos/observation.images.deep").rglob("*.mp4"))) as reader:
        depth = np.stack([frame.copy() for frame in reader])
    assert (depth[:, :10] == 0).all()
    assert (depth[:, 12:14, -5:] == 0).all()
    assert (abs(depth[:, 20, 50].astype(int) - 2000) < 8).all()
    assert (abs(depth[:, 40, 10].astype(int) - (1000 + np.arange(rows))) < 8).all()
    stats = json.loads((root / "meta/stats.json").read_text())["observation.images.top"]
    np.testing.assert_allclose(np.ravel(stats["mean"]), (shown / 255).mean(axis=(0, 1, 2)), atol=0.01)
    assert_sound(root)


@pytest.mark.parametrize("way", ["live", "after"])
def test_a_recording_is_of_changed_frames(way: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    with Recorder(preset(encode=way), root, task="a") as recorder:
        recorder.start_episode()
        for number in range(12):
            for name, frame in zip(("top", "deep"), halves(number), strict=True):
                recorder.write(name, frame)
            recorder.add_row(state=[0.0])
        recorder.save_episode()
    check(root, 12)
    other = preset().replace(
        cameras={**preset().cameras, "top": CameraPreset(width=64, height=64, encoder=COLOUR)}
    )
    with pytest.raises(DestinationError, match="transform"), Recorder(other, root, task="a"):
        pass


@pytest.mark.parametrize("way", ["live", "after"])
def test_an_interrupted_episode_comes_back_changed(way: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    script = textwrap.dedent(
        f"""
        import signal
        from pathlib import Path
        from ffenc.recording.recorder import Recorder
        from tests.recording.recording import wait_for
        from tests.recording.test_transform import halves, is_there, preset
        with Recorder(preset(encode={way!r}), Path({str(root)!r}), task="a") as recorder:
            recorder.start_episode()
            for number in range(60):
                for name, frame in zip(("top", "deep"), halves(number), strict=True):
                    recorder.write(name, frame)
                recorder.add_row(state=[0.0])
            places = list(Path({str(root)!r}).glob(".recording/*/observation.images.*"))
            cameras = [place for place in places if place.is_dir() or place.suffix == ".mp4"]
            assert len(cameras) == 2
            wait_for(lambda: all(map(is_there, cameras)))
            print("written", flush=True)
            signal.pause()
        """
    )
    folder = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=folder) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        os.kill(child.pid, signal.SIGKILL)
    [recovered] = recover(root, partial=True).episodes
    check(root, recovered.rows)
    assert recovered.rows >= 10


def test_images_that_stay_are_not_changed(tmp_path: Path) -> None:
    with (
        pytest.raises(
            ConfigError, match="camera top: crop .* would have no effect, because its frames are stored as"
        ),
        Recorder(preset(video=False), tmp_path / "data", task="a"),
    ):
        pass
