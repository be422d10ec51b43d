"""A recording that does not fit on the disk is refused before its first row."""

from __future__ import annotations

import shutil
from collections import namedtuple

import pytest

from ffenc import DestinationError, FfencWarning, load_preset
from ffenc.recording.space import check_recording_space, needed_bytes

_Usage = namedtuple("_Usage", "total used free")


def test_what_is_needed_grows_with_what_is_recorded() -> None:
    robot = load_preset("so101")
    one = needed_bytes(robot, episodes=1, seconds=60)
    assert needed_bytes(robot, episodes=9, seconds=60) == pytest.approx(5 * one)
    assert needed_bytes(robot, episodes=1, seconds=120) == pytest.approx(2 * one)
    images = load_preset("so101", [(("video",), False)])
    assert needed_bytes(images, episodes=1, seconds=60) > 10 * one


@pytest.mark.parametrize(("share", "outcome"), [(0.5, "refused"), (1.1, "warned"), (2.0, "begun")])
def test_a_recording_is_compared_with_what_is_free(tmp_path, monkeypatch, share: float, outcome: str) -> None:
    robot = load_preset("so101")
    free = int(share * needed_bytes(robot, episodes=10, seconds=60))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(10 * free, 9 * free, free))
    root = tmp_path / "new/dataset"
    if outcome == "refused":
        with pytest.raises(DestinationError, match=r"needs about .* are free on its disk.*force_space=True"):
            check_recording_space(robot, root, episodes=10, seconds=60)
    elif outcome == "warned":
        with pytest.warns(FfencWarning, match="that may not be enough"):
            check_recording_space(robot, root, episodes=10, seconds=60)
    else:
        check_recording_space(robot, root, episodes=10, seconds=60)
    assert not root.exists()
