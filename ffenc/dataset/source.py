"""What a re-encode reads: episodes of frames from several cameras, and the table beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from ffenc.config.framerate import Pick
from ffenc.errors import SourceError
from ffenc.frames.header import ImageHeader
from ffenc.paths import plain_name

if TYPE_CHECKING:
    from ffenc.ffmpeg.probe import StreamInfo
    from ffenc.frames.depth import Unit
    from ffenc.frames.sources import FrameSource


def check_key(key: str, where: Path) -> str:
    """Return a camera's key, which becomes part of a path, if it is only a name.

    Raises:
        SourceError: it holds a path separator or a character that cannot be printed, or begins with a dot.
    """
    plain_name(key, f"{where}: the name of a camera")
    if key.startswith("."):
        raise SourceError(
            f"{key!r} begins with a dot; expected the name of a camera without one", where=where
        )
    return key


@dataclass(frozen=True)
class Camera:
    """One image stream.

    Attributes:
        key: its feature, such as ``observation.images.top``.
        depth: holds depth maps.
        stored: shape and kind of its images; of a camera that is video, what its first file holds.
        unit: what depth is in, ``mm`` or ``m``; None for a camera of colours.
        block: the feature's ``info`` in ``info.json``.
        odd: of a camera that is video, the episodes of another codec or pixel format than most of its frames.
    """

    key: str
    depth: bool
    stored: ImageHeader | StreamInfo
    unit: Unit | None = None
    block: Mapping[str, Any] = field(default_factory=dict)
    odd: frozenset[int] = frozenset()

    @property
    def header(self) -> ImageHeader:
        """Kind and size of the images of a camera that is not video."""
        assert isinstance(self.stored, ImageHeader)
        return self.stored


@dataclass(frozen=True)
class EpisodeRef:
    """Which episode of a source, for plans and tasks: nothing of it has to be read for that.

    Attributes:
        index: its number there.
        length: frames of each camera, and rows of the table.
    """

    index: int
    length: int


@dataclass(frozen=True)
class EpisodeVideo:
    """One episode of one camera in a video file.

    Attributes:
        camera: its feature, such as ``observation.images.top``.
        episode: its number.
        path: the file it is in.
        start: seconds in the file at which it starts.
        frames: how many it has.
        like: what the camera's first file holds, which all have to hold.
        needed: how many frames the file has to have for all its episodes.
        checksum: SHA-256 that the file was written with, where that is known.
        part: not all of the file's episodes are read, so that damage of others does not matter.
        pick: which of its frames are taken, where the rate is lowered; None: all.
        origin: what the file was made of, where it was made for one run; None: it is a source itself.
    """

    camera: str
    episode: int
    path: Path
    start: float
    frames: int
    like: StreamInfo | None = None
    needed: int = 0
    checksum: str | None = None
    part: bool = False
    pick: Pick | None = None
    origin: str | None = None

    def beginning(self, count: int) -> EpisodeVideo:
        """Return it up to the frame that is taken as the last of ``count``."""
        last = count - 1 if self.pick is None else self.pick.indices(self.frames)[count - 1]
        return replace(self, frames=last + 1)


class DatasetSource(Protocol):
    """Whatever episodes are read from: a LeRobot dataset, several of them, a tree of images, a file.

    Attributes:
        roots: the folders that it is read from.
        renumbered: columns of the table whose statistics no longer hold, since their values are new.
    """

    root: Path
    fps: Fraction
    cameras: list[Camera]
    episodes: list[EpisodeRef]

    @property
    def roots(self) -> Sequence[Path]: ...

    @property
    def renumbered(self) -> frozenset[str]: ...

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
        """Whether the episode table has the feature's statistics."""

    def rows(self, episodes: Sequence[EpisodeRef]) -> Iterator[tuple[EpisodeRef, Path | None, pa.Table]]:
        """Each episode's rows without image columns, and the file of several episodes that they stand in."""

    def episode_tables(self, episodes: Sequence[EpisodeRef]) -> Iterator[tuple[Path | None, pa.Table]]:
        """The episode table's rows in order, a few at a time, and the file of a v3.0 list they stand in."""

    def notes(self, episode: EpisodeRef) -> Path | Mapping[str, Any] | None:
        """What was noted of the episode: a file of JSON, or its contents; None where there is nothing."""

    def extra_files(self) -> list[tuple[Path, str]]:
        """Other files that belong to the dataset: where they are, and their place in it."""

    def tasks(self) -> Path | Sequence[str]:
        """The file of the tasks table, or the task texts."""
