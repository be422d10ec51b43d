"""What a result holds, read without ffenc."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tests.conftest import decode


def info_of(root: Path) -> dict[str, Any]:
    return json.loads((root / "meta/info.json").read_text())


def column(root: Path, name: str) -> np.ndarray:
    """A column of a result of one file: ``(N,)``, or ``(N, D)`` of lists."""
    return np.array(pq.read_table(root / "data/chunk-000/file-000.parquet")[name].to_pylist())


def frames_of(root: Path, camera: str) -> np.ndarray:
    """A camera's frames as RGB, of a result of one file."""
    return decode(root / f"videos/observation.images.{camera}/chunk-000/file-000.mp4")


def notes_of(root: Path, episode: int) -> dict[str, Any]:
    return json.loads((root / f"meta/recording/episode_{episode:06d}.json").read_text())
