"""The same job gives the same bytes, and so do two ways to the same result.

That a job which is taken up with ``resume``, or runs on Ray, gives the bytes of one that was not interrupted
is tested where these are (``test_interruption.py``, ``test_merge.py``, ``test_ray.py``, ``test_repair.py``).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffenc import FfencWarning, Recorder, edit_dataset, merge_datasets, recover, reencode_dataset
from ffenc.dataset.edited import Edits
from ffenc.ffmpeg.toolchain import Toolchain
from tests.conftest import ANGLE, DATASET, TOP, system_if_long
from tests.recording.recording import record, robot
from tests.support.read import contents

FAST = [
    (("camera_encoder", "vcodec"), "h264"),
    (("camera_encoder", "preset"), "ultrafast"),
    (("depth_encoder", "preset"), "ultrafast"),
]


def small_tree(root: Path) -> Path:
    """Two short episodes of colours and of depth."""
    rng = np.random.default_rng(0)
    for episode, length in enumerate((5, 1)):
        for camera, most in (("top", 255), ("deep", 3000)):
            folder = root / f"episode_{episode}" / camera
            folder.mkdir(parents=True)
            for number in range(length):
                shape = (6, 8, 3) if camera == "top" else (6, 8)
                blocks = rng.integers(0, most, shape).astype(np.uint8 if camera == "top" else np.uint16)
                pixels = blocks.repeat(8, axis=0).repeat(8, axis=1)
                Image.fromarray(pixels).save(folder / f"frame-{number:06d}.png")
    return root


@system_if_long
def test_however_many_encoders_run_at_once(toolchain: Toolchain, tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "tree")
    for workers in (1, 4):
        out = tmp_path / f"{workers} workers"
        # By default an encoder gets its share of the cores, and x265 writes other bytes with other threads.
        threads = {"workers": workers, "encoder_threads": 1}
        reencode_dataset(tree, out, fps=10, task="x", overrides=FAST, **threads)
    assert contents(tmp_path / "1 workers") == contents(tmp_path / "4 workers")


@system_if_long
def test_whatever_layout_the_images_are_in(
    toolchain: Toolchain, png_tree: Path, whole_v21: Path, tmp_path: Path
) -> None:
    for folder in png_tree.glob(f"*/{TOP.rpartition('.')[2]}"):
        shutil.rmtree(folder)  # the largest
    sources = {"v3.0": DATASET, "tree": png_tree, "v2.1": whole_v21}
    for name, source in sources.items():
        said = {"fps": 30, "task": "x"} if name == "tree" else {"cameras": [ANGLE]}
        reencode_dataset(source, tmp_path / "of" / name, episodes=[1], overrides=FAST[:2], **said)
    found = [contents(tmp_path / "of" / name, "videos") for name in sources]
    assert len(found[0]) == 1
    assert found[0] == found[1] == found[2]


def test_a_merge_and_an_edit_that_copy(two_cameras: Path, tmp_path: Path) -> None:
    edits = Edits(rename_cameras={"angle": "front"}, drop_features=["action"], task_of={0: "lift", 2: "put"})
    for name in ("once", "twice"):
        merge_datasets([two_cameras, two_cameras], tmp_path / name / "merged")
        edit_dataset(two_cameras, tmp_path / name / "edited", edits=edits, exclude_episodes="1")
    assert contents(tmp_path / "once") == contents(tmp_path / "twice")


@pytest.mark.parametrize(
    ("toolchain", "video"),
    [
        pytest.param("system", True, marks=pytest.mark.long),
        ("newest", True),
        ("newest", False),
    ],  # images are the same for both programs
    indirect=["toolchain"],
)
def test_an_episode_that_is_saved_or_recovered(toolchain: Toolchain, tmp_path: Path, *, video: bool) -> None:
    saved, killed = tmp_path / "saved", tmp_path / "killed"
    for root in (saved, killed):
        with Recorder(robot(depth="mm", video=video), root) as recorder:
            recorder.start_episode()
            record(recorder, range(5), "mm")
            recorder.save_episode()
            recorder.start_episode()
            record(recorder, range(3, 12), "mm")
            if root == saved:
                recorder.save_episode()
            else:
                with pytest.warns(FfencWarning, match="was not saved"):
                    recorder.__exit__(None, None, None)
    assert [one.rows for one in recover(killed).episodes] == [9]
    places = {place for place in contents(saved) if not place.startswith("meta/recording")}
    mine, other = contents(saved), contents(killed)
    assert other.keys() == mine.keys()
    assert {place: mine[place] for place in places} == {place: other[place] for place in places}
