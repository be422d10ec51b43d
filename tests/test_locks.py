"""Two runs do not write the same, wherever they write."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ffenc import DestinationError, Recorder, VideoWriter, edit_dataset
from tests.conftest import FIXTURES, everything_in
from tests.recording.recording import robot
from tests.support.sandbox import without


def write_file(place: Path) -> None:
    with VideoWriter(place / "out.mp4", 30) as video:
        video.write(np.zeros((48, 64, 3), np.uint8))


def write_dataset(place: Path) -> None:
    edit_dataset(FIXTURES / "aloha_video_v30", place / "new/out", exclude_episodes=[1])


def record(place: Path) -> None:
    with Recorder(robot(), place / "new/out"):
        pass


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS])
@pytest.mark.parametrize("write", [write_file, write_dataset, record])
def test_a_file_system_without_locks_is_refused_and_nothing_is_left(
    tmp_path: Path, write: Callable[[Path], None], error: int
) -> None:
    with pytest.raises(DestinationError, match="its file system cannot lock files"):
        without("flock", error, lambda: write(tmp_path))
    assert everything_in(tmp_path) == []
