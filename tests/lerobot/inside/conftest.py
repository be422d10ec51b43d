"""What the tests that run inside LeRobot share.

Nothing of the other tests is imported, which LeRobot's python may not run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ffenc.lerobot
from ffenc import verify_dataset
from ffenc.lerobot.seams import Use

FPS = 30
RGB, DEPTH = "observation.images.front", "observation.images.front_depth"
SHAPE = (48, 64)
FEATURES: dict[str, dict[str, Any]] = {
    RGB: {"dtype": "video", "shape": (*SHAPE, 3), "names": ["height", "width", "channels"]},
    DEPTH: {
        "dtype": "video",
        "shape": (*SHAPE, 1),
        "names": ["height", "width", "channels"],
        "info": {"is_depth_map": True},
    },
    "action": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
}


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What ffenc and LeRobot remember stays in the session."""
    folder = tmp_path_factory.mktemp("state")
    os.environ["FFENC_CACHE"] = os.environ.get("FFENC_CACHE", str(folder / "cache"))
    os.environ["FFENC_STATE"] = str(folder / "state")
    os.environ["HF_LEROBOT_HOME"] = str(folder / "lerobot")


@pytest.fixture
def used() -> Iterator[Use]:
    with ffenc.lerobot.use() as use:
        yield use


def picture(number: int) -> np.ndarray:
    """A frame that its number, up to 30, can be read from: a ramp, lifted with each."""
    ramp = np.linspace(0, 60, SHAPE[1])[None, :, None] * [1.0, 0.5, 0.8]
    return np.broadcast_to(ramp + 6 * (number % 30), (*SHAPE, 3)).round().astype(np.uint8)


def depth(number: int) -> np.ndarray:
    """A depth map in millimetres, with a hole."""
    ramp = np.linspace(300, 5000, SHAPE[0] * SHAPE[1]).reshape(*SHAPE, 1) + 10 * number
    ramp[:4, :4] = 0
    return ramp.astype(np.uint16)


def row(number: int) -> dict[str, Any]:
    return {
        RGB: picture(number),
        DEPTH: depth(number),
        "action": np.array([number, -number], np.float32),
        "task": "lift",
    }


def create(root: Path, **more: Any) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset.create(
        **{
            **{"repo_id": f"local/{root.name}", "fps": FPS, "features": FEATURES, "root": root},
            **{"use_videos": True, "streaming_encoding": True},
            **more,
        }
    )


def opened(root: Path) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset(f"local/{root.name}", root=root, video_backend="pyav")


def sound(root: Path, *, deep: bool = True) -> tuple[int, int]:
    """Verify a dataset; returns how many episodes and frames it has."""
    found = verify_dataset(root, deep=deep)
    assert found.sound, found.faults
    return found.episodes, found.frames


def info_of(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "meta/info.json").read_text()))
