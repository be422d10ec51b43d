"""LeRobot works on with what ffenc wrote: ``pytest --lerobot PYTHON`` names the python of its environment."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ffenc import merge_datasets, reencode_dataset, verify_dataset
from ffenc.dataset.edit import edit_dataset
from ffenc.dataset.edited import Edits
from ffenc.dataset.split import split_dataset
from ffenc.recording.recorder import Recorder
from tests.conftest import DATASET, FIXTURES
from tests.recording.recording import record, robot

LEROBOTS = FIXTURES / "aloha_video_v30"
H264 = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "g"), 10), (("depth_encoder", "g"), 10)]


@pytest.fixture(scope="module")
def lerobot(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--lerobot"))


def work_on(lerobot: str, folder: Path, *sources: Path) -> str:
    """Merge, delete and split datasets by LeRobot, and read every row; what it says."""
    folder.mkdir()
    script = Path(__file__).with_name("operations.py")
    ran = subprocess.run(
        [lerobot, str(script), str(folder), *map(str, sources)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    return ran.stdout


def test_reencoded_datasets(tmp_path: Path, lerobot: str) -> None:
    sources = [tmp_path / f"part{number}" for number in range(3)]
    for number, source in enumerate(sources):
        reencode_dataset(DATASET, source, overrides=H264, episodes=[number])
    said = work_on(lerobot, tmp_path / "out", *sources)
    assert "merged: 72 rows, 3 episodes, 0 unreadable" in said
    assert verify_dataset(tmp_path / "out/merged").sound


def test_recordings(tmp_path: Path, lerobot: str) -> None:
    sources = [tmp_path / "first", tmp_path / "second"]
    for source in sources:
        with Recorder(robot(depth="mm"), source) as recorder:
            for _ in range(2):
                recorder.start_episode()
                record(recorder, range(11), "mm")
                recorder.save_episode()
    assert "merged: 44 rows, 4 episodes, 0 unreadable" in work_on(lerobot, tmp_path / "out", *sources)


def test_ffencs_and_its_own_mixed(tmp_path: Path, lerobot: str) -> None:
    own = tmp_path / "own"
    merge_datasets([LEROBOTS], own)
    encoded = tmp_path / "encoded"
    reencode_dataset(DATASET, encoded)
    said = work_on(lerobot, tmp_path / "out", own, LEROBOTS, encoded)
    assert "merged: 216 rows, 9 episodes, 0 unreadable" in said


def test_an_edited_and_a_split_dataset(tmp_path: Path, lerobot: str) -> None:
    edits = Edits(rename_cameras={"top": "front"}, drop_cameras=["angle"], task="lift the cube")
    edit_dataset(LEROBOTS, tmp_path / "edited", edits=edits, exclude_episodes=[1])
    split_dataset(tmp_path / "edited", tmp_path / "parts", {"a": "0", "b": "1"})
    said = work_on(lerobot, tmp_path / "out", tmp_path / "parts/b", tmp_path / "edited", tmp_path / "parts/a")
    assert "merged: 110 rows, 4 episodes, 0 unreadable" in said
