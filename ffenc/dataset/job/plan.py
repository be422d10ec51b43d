"""The plan of a job: episodes of a source, the processing of each camera, and the destination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from ffenc.config.transform import Transform
from ffenc.dataset.job.piece import PieceTask, video_input
from ffenc.dataset.model import Camera, EpisodeRef
from ffenc.dataset.source import DatasetSource, Streams
from ffenc.dataset.verify.metadata import Stale
from ffenc.dataset.videos import clip_of
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.clip import Clip
from ffenc.frames.depth import DepthQuantizer
from ffenc.frames.encoding import Encoding
from ffenc.frames.header import ImageHeader
from ffenc.layout import VIDEO_PATH


def without_statistics(source: DatasetSource, cameras: Sequence[str], stale: Stale) -> list[str]:
    """Return the cameras whose statistics have to be computed, because the source has none or wrong ones."""
    known = source.stats()
    return [
        key
        for key in cameras
        if key not in known or key in stale.episodes or not source.has_episode_stats(key)
    ]


class Stream(Struct, frozen=True, eq=False):
    """A camera of a job.

    Attributes:
        camera: the camera.
        encoding: encoding of its frames; None if all its episodes are copied.
        compute_stats: the source has no statistics of it.
        source_bytes: size of its images or video in bytes.
        copied: the episodes whose packets are copied.
        quantizer: quantiser of depth that is already video; otherwise None.
        block: the fields of its ``info`` block that are not read from the file; None: those of ``encoding``.
        why: why it is copied or encoded.
        uncopied: for a copied camera, the episodes that have to be encoded, and why.
    """

    camera: Camera
    encoding: Encoding | None
    compute_stats: bool
    source_bytes: int
    copied: frozenset[int] = frozenset()
    quantizer: DepthQuantizer | None = None
    block: Mapping[str, Any] | None = None
    why: str = ""
    uncopied: Mapping[int, str] = field(default_factory=dict)

    @property
    def transform(self) -> Transform | None:
        """Transform of its frames."""
        return self.encoding.transform if self.encoding is not None else None

    @property
    def key(self) -> str:
        """Key of its feature."""
        return self.camera.key

    def task(self, plan: JobPlan, episode: EpisodeRef, folder: Path) -> PieceTask:
        """Return the task for an episode."""
        camera, source = self.camera, plan.source
        images = isinstance(camera.stored, ImageHeader)
        size = (camera.stored.width, camera.stored.height)
        if self.encoding is not None:
            size = self.encoding.stored_size
        return PieceTask(
            key=self.key,
            episode=episode,
            frames=Streams(source, episode)[self.key],
            fps=source.fps,
            header=camera.header if images else None,
            unit=camera.unit,
            encoding=self.encoding,
            copied=episode.index in self.copied,
            size=size if self.compute_stats else None,
            quantizer=self.quantizer,
            toolchain=plan.toolchain,
            folder=folder / self.key,
        )


class JobPlan(Struct, frozen=True):
    """The plan of a job, checked as far as possible without decoding.

    Attributes:
        source: the source.
        destination: the dataset to write.
        episodes: the selected episodes.
        streams: one per video camera.
        workers: number of encodes at once.
        toolchain: the programs that copy packets.
        images: cameras that stay images, in the table.
        image_stats: image cameras whose statistics are computed.
        changed_images: transforms of image cameras; their statistics are computed too.
        stale: features whose statistics are computed, because those of the source do not match its rows.
        edits: the changes that the source makes to its dataset, as plain values.
        exact: compute the quantiles of all rows, instead of aggregating those of the episodes.
        together: combine the rows of small files, up to the size limit of a file.
        source_fps: the original rate, if it is lowered; None: the rate does not change.
        job: hash of the request, if it differs from that of the plan; see :mod:`~ffenc.dataset.job.finished`.
    """

    source: DatasetSource
    destination: Path
    episodes: list[EpisodeRef]
    streams: list[Stream]
    workers: int
    toolchain: Toolchain
    images: Sequence[str] = ()
    image_stats: Sequence[str] = ()
    stale: Stale = field(default_factory=Stale)
    edits: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = True
    together: bool = False
    source_fps: Fraction | None = None
    job: str | None = None
    changed_images: Mapping[str, Transform] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of frames of one camera."""
        return sum(episode.length for episode in self.episodes)

    @property
    def frames(self) -> int:
        """Number of frames of all cameras."""
        return self.rows * (len(self.streams) + len(self.images))

    @property
    def encodes(self) -> int:
        """Number of encodes: one per episode and camera that is not copied."""
        return sum(len(self.episodes) - len(stream.copied) for stream in self.streams)

    def commands(self) -> dict[str, list[str]]:
        """Return the command line of each camera that is encoded, for its first encoded episode."""
        commands = {}
        for stream in self.streams:
            episode = next((e for e in self.episodes if e.index not in stream.copied), None)
            if stream.encoding is not None and episode is not None:
                place = Path(VIDEO_PATH.format(video_key=stream.key, chunk_index=0, file_index=0))
                video = None
                if not isinstance(stream.camera.stored, ImageHeader):
                    video = video_input(self.clip(stream, episode), stream.encoding)
                commands[stream.key] = stream.encoding.command(place, video=video)
        return commands

    def clip(self, stream: Stream, episode: EpisodeRef) -> Clip:
        """Return an episode's frames of a video camera.

        Raises:
            SourceError: the file does not contain them, or not at the times in the table.
        """
        return clip_of(self.source.video(stream.key, episode), self.source.fps)
