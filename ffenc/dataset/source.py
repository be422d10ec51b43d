"""The interface of a job's source: its episodes, and the metadata of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from ffenc.dataset.model import Camera, CameraStream, Episode, EpisodeRef, EpisodeVideo
from ffenc.errors import SourceError
from ffenc.frames.header import ImageHeader
from ffenc.frames.sources import FrameSource
from ffenc.paths import plain_name


def check_key(key: str, where: Path) -> str:
    """Return a camera's key after checking that it can be a part of a path.

    Raises:
        SourceError: it contains a path separator or a character that cannot be printed, or begins with a dot.
    """
    plain_name(key, f"{where}: the name of a camera")
    if key.startswith("."):
        raise SourceError(
            f"{key!r} begins with a dot", expected="the name of a camera without one", where=where
        )
    return key


class DatasetSource(Protocol):
    """A source of episodes: a LeRobot dataset, several of them, a tree of images, a file.

    A plan uses ``episodes``, ``frames`` and ``video``, without reading rows; :meth:`read` yields the
    episodes.

    Attributes:
        roots: folders that it is read from.
        temporary: temporary folders with files that frames are read from.
        episodes: its episodes.
        renumbered: features with new values, whose statistics in the source are not those of the result.
    """

    root: Path
    fps: Fraction
    cameras: list[Camera]
    episodes: list[EpisodeRef]

    @property
    def roots(self) -> Sequence[Path]: ...

    @property
    def temporary(self) -> Sequence[Path]: ...

    @property
    def renumbered(self) -> frozenset[str]: ...

    def read(self, episodes: Sequence[EpisodeRef]) -> Iterator[Episode]:
        """Yield episodes in order, with only some of their rows in memory at a time."""

    def frames(self, camera: str, episode: EpisodeRef) -> FrameSource:
        """Return the images of a camera in an episode."""

    def video(self, camera: str, episode: EpisodeRef) -> EpisodeVideo:
        """Return the place of an episode of a video camera."""

    def camera_bytes(self, camera: str, episodes: Sequence[EpisodeRef]) -> int:
        """Return the size of a camera's images or video in bytes."""

    def info(self) -> dict[str, Any]:
        """Return the contents of ``info.json``, with the features in order."""

    def stats(self) -> dict[str, Any]:
        """Return the contents of ``stats.json``; empty without such a file."""

    def has_episode_stats(self, feature: str) -> bool:
        """Return whether a feature's statistics are known for every episode."""

    def extra_files(self) -> list[tuple[Path, str]]:
        """Return path and place in the dataset of other files that belong to it."""

    def tasks(self) -> Path | Sequence[str]:
        """Return the file of the tasks table, or the task texts."""


class Streams(Mapping[str, CameraStream]):
    """The streams of an episode of a source, each determined on access.

    Args:
        source: the source.
        episode: the episode.
    """

    def __init__(self, source: DatasetSource, episode: EpisodeRef) -> None:
        self._source, self._episode = source, episode

    def __getitem__(self, key: str) -> FrameSource | EpisodeVideo:
        camera = next((one for one in self._source.cameras if one.key == key), None)
        if camera is None:
            raise KeyError(key)
        images = isinstance(camera.stored, ImageHeader)
        return (self._source.frames if images else self._source.video)(key, self._episode)

    def __iter__(self) -> Iterator[str]:
        return (camera.key for camera in self._source.cameras)

    def __len__(self) -> int:
        return len(self._source.cameras)
