"""Statistics of cameras that stay images: a task of a job."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct
from msgspec.structs import replace

from ffenc.dataset.model import EpisodeRef
from ffenc.dataset.piece import Surroundings
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.decoded import image_statistics
from ffenc.frames.depth import Unit
from ffenc.frames.header import ImageHeader
from ffenc.frames.sources import FrameSource
from ffenc.frames.statistics import Stats


class ImageStatsTask(Struct, frozen=True):
    """One episode of a camera that stays images, whose statistics are computed. It can be pickled.

    Attributes:
        key: the camera's feature.
        episode: which.
        frames: its images.
        header: what they are.
        unit: what depth is in; None for colours.
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
        """What an error calls it."""
        return f"{self.key}, episode {self.episode.index}"

    def using(self, programs: Toolchain) -> ImageStatsTask:
        """Return the task for a machine where the same programs are elsewhere."""
        return replace(self, programs=programs)

    def run(self, around: Surroundings) -> tuple[Stats, str]:
        """Return the statistics, and the counts of values, packed.

        Raises:
            SourceError: images are missing or damaged.
        """
        own = image_statistics(self.frames, self.header, self.unit, check=around.cancellation.check)
        return own.statistics(), own.values().packed()
