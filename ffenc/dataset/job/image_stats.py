"""The task that computes statistics of cameras that stay images."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct
from msgspec.structs import replace

from ffenc.dataset.job.piece import Surroundings
from ffenc.dataset.model import EpisodeRef
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.decoded import image_statistics
from ffenc.frames.depth import Unit
from ffenc.frames.header import ImageHeader
from ffenc.frames.sources import FrameSource, using
from ffenc.frames.statistics import Stats


class ImageStatsTask(Struct, frozen=True):
    """The statistics of an episode of a camera that stays images. It can be pickled.

    Attributes:
        key: the camera's feature.
        episode: the episode.
        frames: its images.
        header: header of the images.
        unit: unit of depth; None for colours.
        programs: those of the job.
    """

    key: str
    episode: EpisodeRef
    frames: FrameSource
    header: ImageHeader
    unit: Unit | None
    programs: Toolchain
    counted: ClassVar[int] = 0
    threads: ClassVar[int] = 1
    device: ClassVar[str | None] = None

    @property
    def name(self) -> str:
        """Name of the task in errors."""
        return f"{self.key}, episode {self.episode.index}"

    def using(self, programs: Toolchain) -> ImageStatsTask:
        """Return the task for a machine with the same programs at other paths."""
        return replace(self, frames=using(self.frames, programs), programs=programs)

    def run(self, around: Surroundings) -> tuple[Stats, str]:
        """Return the statistics, and the packed histogram.

        Raises:
            SourceError: images are missing or damaged.
        """
        own = image_statistics(self.frames, self.header, self.unit, check=around.cancellation.check)
        return own.statistics(), own.values().packed()
