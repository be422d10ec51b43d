"""What a re-encode reads: episodes of frames from several cameras, and the table beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from ffenc.errors import SourceError
from ffenc.frames.depth import Unit
from ffenc.frames.images import ImageHeader
from ffenc.frames.sources import FrameSource

DEFAULT_FEATURES: dict[str, dict[str, Any]] = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
}
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


def check_key(key: str, where: Path) -> str:
    """Return a camera's key, which becomes part of a path, if it is only a name.

    Raises:
        SourceError: it holds a path separator or a control character.
    """
    if re.search(r"[/\\\x00-\x1f]", key) or key.strip(".") == "":
        raise SourceError(f"{where}: {key!r} cannot be the name of a camera; rename it")
    return key


@dataclass(frozen=True)
class Camera:
    """One image stream.

    Attributes:
        key: its feature, such as ``observation.images.top``.
        depth: holds depth maps.
        header: shape and kind of its images.
        unit: what depth is in, ``mm`` or ``m``; None for a camera of colours.
    """

    key: str
    depth: bool
    header: ImageHeader
    unit: Unit | None = None


@dataclass(frozen=True)
class Episode:
    """One episode of the source.

    Attributes:
        index: its number there.
        length: frames of each camera, and rows of the table.
    """

    index: int
    length: int


class DatasetSource(Protocol):
    """A LeRobot image dataset or a PNG tree."""

    root: Path
    fps: Fraction
    cameras: list[Camera]
    episodes: list[Episode]

    def frames(self, camera: str, episode: Episode) -> FrameSource:
        """The images of one camera in one episode."""

    def image_bytes(self, camera: str, episodes: Sequence[Episode]) -> int:
        """How many bytes those images take."""

    def info(self) -> dict[str, Any]:
        """The contents of ``info.json``, with the features in order."""

    def stats(self) -> dict[str, Any]:
        """The contents of ``stats.json``; empty where there is none."""

    def has_episode_stats(self, feature: str) -> bool:
        """Whether the episode table has the feature's statistics."""

    def rows(self, episodes: Sequence[Episode]) -> Iterator[tuple[Episode, int, pa.Table]]:
        """Each episode's rows without image columns, and the number of the data file they stand in."""

    def episode_tables(self, episodes: Sequence[Episode]) -> Iterator[tuple[int, pa.Table]]:
        """The episode table's rows in order, a few at a time, and the number of the file they stand in."""

    def extra_files(self) -> list[tuple[Path, str]]:
        """Other files that belong to the dataset: where they are, and their place in it."""

    def tasks(self) -> Path | Sequence[str]:
        """The file of the tasks table, or the task texts."""
