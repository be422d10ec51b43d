"""A dataset's files as tasks of an executor: each is decoded or compared on the worker that reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from msgspec import Struct
from msgspec.structs import replace

from ffenc.config.mapping import SourceMapping
from ffenc.dataset.checksums import file_checksum
from ffenc.dataset.job.piece import Surroundings
from ffenc.dataset.verify.against import Source, compare_file
from ffenc.dataset.verify.deep import decode_images, decode_video
from ffenc.dataset.verify.faults import Fault, Faults
from ffenc.dataset.verify.layout import Layout, Listing, read_layout
from ffenc.dataset.verify.records import DecodeRecords, Shown
from ffenc.dataset.verify.videos import Seen, VideoFile
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.compare import Comparison
from ffenc.parallel.progress import FrameCount


class FileTask(Struct, frozen=True, eq=False):
    """A file whose frames are decoded or compared. Can be pickled.

    Attributes:
        key: the camera's feature.
        place: the file's path in the dataset.
        counted: number of frames that the task counts.
        candidates: one or more programs.
        look: does the work, and adds faults.
    """

    key: str
    place: str
    counted: int
    candidates: tuple[Toolchain, ...]
    look: Callable[[Faults, Sequence[Toolchain], FrameCount, Cancellation], Any]
    threads: ClassVar[int] = 1
    device: ClassVar[str | None] = None

    @property
    def name(self) -> str:
        """Name of the task in errors."""
        return f"{self.key}, {self.place}"

    @property
    def programs(self) -> Toolchain:
        """The first of the programs."""
        return self.candidates[0]

    def using(self, programs: Toolchain) -> FileTask:
        """Return the task with the first program replaced, for a machine where its path differs."""
        return self if programs == self.programs else replace(self, candidates=(programs,))

    def run(self, around: Surroundings) -> tuple[Any, list[Fault]]:
        """Return the result and the faults."""
        faults = Faults()
        with around.progress(self.counted) as report, around.slot:
            count = FrameCount(self.counted, lambda done, _: report(done))
            seen = self.look(faults, self.candidates, count, around.cancellation)
        return seen, [*faults.of("fault"), *faults.of("note")]


def slim(listing: Listing) -> Listing:
    """Return an episode list without its largest parts, which the checks of single files do not need."""
    return replace(listing, stats={key: {} for key in listing.stats}, tasks={}, episode_tasks=[])


def look_at_video(
    faults: Faults,
    candidates: Sequence[Toolchain],
    count: FrameCount,
    cancellation: Cancellation,
    *,
    video: VideoFile,
    seen: Seen,
    layout: Layout,
    listing: Listing,
    checksum: str | None,
    records: DecodeRecords,
) -> Shown:
    """Decode a video; see :func:`~ffenc.dataset.verify.deep.decode_video`."""
    return decode_video(
        *(video, seen, faults),
        layout=layout,
        listing=listing,
        candidates=candidates,
        count=count,
        cancellation=cancellation,
        checksum=checksum,
        records=records,
    )


def look_at_images(
    faults: Faults,
    candidates: Sequence[Toolchain],
    count: FrameCount,
    cancellation: Cancellation,
    *,
    layout: Layout,
    listing: Listing,
    key: str,
    place: str,
    episodes: Sequence[int],
    records: DecodeRecords,
) -> Shown:
    """Decode the images of a column, unless they are recorded and ``records`` includes images.

    See :func:`~ffenc.dataset.verify.deep.decode_images`.
    """

    def decode(faults: Faults) -> Shown:
        return decode_images(layout, listing, key, place, episodes, faults, count, cancellation)

    if not records.images:
        return decode(faults)
    length = listing.length[list(episodes)]
    parts = [place, key, episodes, listing.index[list(episodes)].tolist(), length.tolist(), layout.block(key)]
    found, known = records.shown(file_checksum(layout.root / place), parts, faults, decode)
    count.add(int(length.sum()) if known else 0)
    return replace(found, recorded=int(known))


class SourceToOpen(Struct, frozen=True):
    """The source of a comparison, to be opened where a task runs.

    Attributes:
        origin: its folder, or the file.
        root: the compared dataset.
        follow_links, mapping: see :class:`~ffenc.dataset.verify.against.Source`.
        run: differs between verifications, so that a process that serves several opens the source again.
    """

    origin: Path
    root: Path
    follow_links: bool
    mapping: SourceMapping | None
    run: str


def look_at_source(
    faults: Faults,
    candidates: Sequence[Toolchain],
    count: FrameCount,
    cancellation: Cancellation,
    *,
    video: VideoFile,
    seen: Seen,
    source: Source | SourceToOpen,
    layout: Layout,
    listing: Listing,
    max_depth_error: float | None,
) -> list[tuple[int, Comparison]]:
    """Compare a video with its source; see :func:`~ffenc.dataset.verify.against.compare_file`."""
    if isinstance(source, SourceToOpen):
        source = _opened(source, candidates[0].ffmpeg, candidates[0].ffprobe)
    return compare_file(
        *(video, seen, source, faults),
        layout=layout,
        listing=listing,
        max_depth_error=max_depth_error,
        candidates=candidates,
        on_frames=count.counter,
        cancellation=cancellation,
    )


@lru_cache(maxsize=2)  # a process checks many files of one source
def _opened(source: SourceToOpen, ffmpeg: str, ffprobe: str) -> Source:
    layout = read_layout(source.root, Faults())
    assert layout is not None
    return Source(
        *(source.origin, layout),
        follow_links=source.follow_links,
        mapping=source.mapping,
        programs=(ffmpeg, ffprobe),
    )
