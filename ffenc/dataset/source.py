"""What a job reads: episodes, and what a dataset says of all of them."""

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
    """Return a camera's key, which becomes part of a path, if it is only a name.

    Raises:
        SourceError: it holds a path separator or a character that cannot be printed, or begins with a dot.
    """
    plain_name(key, f"{where}: the name of a camera")
    if key.startswith("."):
        raise SourceError(
            f"{key!r} begins with a dot", expected="the name of a camera without one", where=where
        )
    return key


class DatasetSource(Protocol):
    """Whatever episodes are read from: a LeRobot dataset, several of them, a tree of images, a file.

    A plan finds what it needs by ``episodes``, ``frames`` and ``video``, without reading rows; :meth:`read`
    yields the episodes themselves.

    Attributes:
        roots: the folders that it is read from.
        episodes: those that there are.
        renumbered: features whose statistics are not those of what is written, since the values are new.
    """

    root: Path
    fps: Fraction
    cameras: list[Camera]
    episodes: list[EpisodeRef]

    @property
    def roots(self) -> Sequence[Path]: ...

    @property
    def renumbered(self) -> frozenset[str]: ...

    def read(self, episodes: Sequence[EpisodeRef]) -> Iterator[Episode]:
        """Read episodes one after another, in their order; memory holds some of their rows at a time."""

    def frames(self, camera: str, episode: EpisodeRef) -> FrameSource:
        """The images of one camera in one episode."""

    def video(self, camera: str, episode: EpisodeRef) -> EpisodeVideo:
        """Where one episode of a camera is that is video."""

    def camera_bytes(self, camera: str, episodes: Sequence[EpisodeRef]) -> int:
        """How many bytes its images or its video take."""

    def info(self) -> dict[str, Any]:
        """The contents of ``info.json``, with the features in order."""

    def stats(self) -> dict[str, Any]:
        """The contents of ``stats.json``; empty where there is none."""

    def has_episode_stats(self, feature: str) -> bool:
        """Whether of every episode the feature's statistics are known."""

    def extra_files(self) -> list[tuple[Path, str]]:
        """Other files that belong to the dataset: where they are, and their place in it."""

    def tasks(self) -> Path | Sequence[str]:
        """The file of the tasks table, or the task texts."""


class Streams(Mapping[str, CameraStream]):
    """The streams of an episode of a source, each found when it is asked for.

    Args:
        source: the source.
        episode: which.
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
