"""How large a job's result will be and how long it takes, and whether there is room for it."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from ffenc.dataset.model import EpisodeVideo
from ffenc.dataset.piece import PieceTask, Surroundings, run_piece
from ffenc.errors import DestinationError, FfencWarning
from ffenc.ffmpeg.machine import cores
from ffenc.frames.sources import EncodedFrame, FrameSource
from ffenc.spelling import argument
from ffenc.temporary import temporary_folder

if TYPE_CHECKING:
    from ffenc.dataset.plan import JobPlan

SAMPLE_FRAMES = 60
_FEW = 4  # of a second sample, which shows what an episode takes beside its frames
_ROOMY = 8  # times the source's size: with so much free, no result is too large
_TIGHT = 0.8  # of what is free: a sample of some frames is not more exact than that


class Estimate(Struct, frozen=True):
    """What a short sample says of a whole job.

    Attributes:
        video_bytes: the result's video.
        seconds: of work.
        sampled_frames: how many frames the sample had.
        disk_bytes: what the job needs on the disk at most: finished episodes are kept until the files that
            they are joined into are verified.
    """

    video_bytes: int
    seconds: float
    sampled_frames: int
    disk_bytes: int


def estimate(plan: JobPlan) -> Estimate:
    """Do pieces of two lengths of every camera to learn how large and how long the whole job will be."""
    video_bytes, seconds, sampled, kept = 0.0, 0.0, 0, 0.0
    with temporary_folder() as folder:
        for stream in plan.streams:
            todo = [one for one in plan.episodes if one.index not in stream.copied]
            frames = sum(one.length for one in todo)
            video_bytes += stream.source_bytes * (1 - frames / plan.rows)
            if stream.encoding is None or not todo:
                video_bytes += stream.source_bytes * frames / plan.rows
                continue
            sample = _Sample(stream.task(plan, todo[0], Path(folder)))
            seconds += sample.start * len(todo) + sample.frame * frames
            encoded = sample.bytes / sample.frames * frames
            video_bytes += encoded
            kept += encoded
            sampled += sample.frames
    images = sum(plan.source.camera_bytes(key, plan.episodes) for key in plan.images)
    return Estimate(
        round(video_bytes), seconds / min(plan.workers, cores()), sampled, round(video_bytes + kept) + images
    )


def check_space(plan: JobPlan, kept: int) -> None:
    """Refuse a job whose result does not fit on the disk.

    Args:
        plan: the job.
        kept: bytes of finished episodes that an earlier run has left.

    Raises:
        DestinationError: what a sample says is more than what is free.

    Warns:
        FfencWarning: it is nearly so much.
    """
    source = sum(stream.source_bytes for stream in plan.streams)
    source += sum(plan.source.camera_bytes(key, plan.episodes) for key in plan.images)
    if _free(plan.destination) + kept <= _ROOMY * source:
        refuse_space(plan.destination, estimate(plan).disk_bytes, kept)


def refuse_space(destination: Path, needed: int, kept: int = 0) -> None:
    """Refuse what does not fit on the disk.

    Args:
        destination: where it will be.
        needed: bytes that it needs.
        kept: those of them that are there already.

    Raises:
        DestinationError: it is more than what is free.

    Warns:
        FfencWarning: it is nearly so much.
    """
    free = _free(destination) + kept
    found = f"{destination} needs about {_megabytes(needed)}, {_megabytes(free)} are free on its disk"
    if needed > free:
        raise DestinationError(
            f"{found}. Make room, name a destination on another disk, or start anyway "
            f"with {argument('force_space', True)}"
        )
    if needed > _TIGHT * free:
        warnings.warn(f"{found}: that may not be enough", FfencWarning, stacklevel=4)


def _free(destination: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    folders = (destination.absolute(), *destination.absolute().parents)
    return shutil.disk_usage(next(folder for folder in folders if folder.exists())).free


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


class _Sample:
    """What the first frames of an episode take.

    Attributes:
        frames: how many there are.
        bytes: of the file.
        start: seconds of an episode, however short.
        frame: seconds of each frame.
    """

    def __init__(self, task: PieceTask) -> None:
        self.frames = min(task.episode.length, SAMPLE_FRAMES)
        few = min(self.frames, _FEW)
        self._run(task, few)  # the programs are loaded, and the first file of a kind takes another check
        short, _ = self._run(task, few)
        long, self.bytes = self._run(task, self.frames)
        self.frame = max(long - short, 0.0) / (self.frames - few) if self.frames > few else 0.0
        self.start = max(short - few * self.frame, 0.0)

    @staticmethod
    def _run(task: PieceTask, count: int) -> tuple[float, int]:
        """Seconds and bytes of so many frames."""
        frames = task.frames
        some = frames.beginning(count) if isinstance(frames, EpisodeVideo) else _First(frames, count)
        with temporary_folder(task.folder.parent) as folder:
            part = replace(
                task, episode=replace(task.episode, length=count), frames=some, folder=Path(folder)
            )
            began = time.monotonic()
            done = run_piece(part, Surroundings())
            return time.monotonic() - began, done.bytes


class _First:
    """The first frames of a source."""

    def __init__(self, frames: FrameSource, count: int) -> None:
        self._frames, self._count = frames, min(count, len(frames))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[EncodedFrame]:
        return islice(iter(self._frames), self._count)

    def fingerprint(self) -> str:
        return f"the first {self._count} of {self._frames.fingerprint()}"
