"""Estimate of a job's result size and duration, and check of the disk space."""

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

from ffenc.dataset.job.piece import PieceTask, Surroundings, run_piece
from ffenc.dataset.model import EpisodeVideo
from ffenc.errors import DestinationError, FfencWarning
from ffenc.ffmpeg.machine import cores
from ffenc.frames.sources import EncodedFrame, FrameSource
from ffenc.spelling import argument
from ffenc.temporary import temporary_folder

if TYPE_CHECKING:
    from ffenc.dataset.job.plan import JobPlan

SAMPLE_FRAMES = 60
_FEW = 4  # frames of a second sample, which shows the fixed cost per episode
_ROOMY = 8  # times the source's size: with so much free space, any result fits
_TIGHT = 0.8  # of the free space: an estimate from a few frames is not more exact


class Estimate(Struct, frozen=True):
    """The estimate of a job from a short sample.

    Attributes:
        video_bytes: size of the result's video.
        seconds: duration of the job.
        sampled_frames: number of frames in the sample.
        disk_bytes: greatest size on disk: finished episodes are kept until the files joined from them are
            verified.
    """

    video_bytes: int
    seconds: float
    sampled_frames: int
    disk_bytes: int


def estimate(plan: JobPlan) -> Estimate:
    """Encode pieces of two lengths of every camera, and extrapolate to the whole job."""
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
        kept: size of finished episodes of an earlier run, in bytes.

    Raises:
        DestinationError: the estimate is greater than the free space.

    Warns:
        FfencWarning: the estimate is close to the free space.
    """
    source = sum(stream.source_bytes for stream in plan.streams)
    source += sum(plan.source.camera_bytes(key, plan.episodes) for key in plan.images)
    if _free(plan.destination) + kept <= _ROOMY * source:
        refuse_space(plan.destination, estimate(plan).disk_bytes, kept)


def refuse_space(destination: Path, needed: int, kept: int = 0) -> None:
    """Refuse a result that does not fit on the disk.

    Args:
        destination: its place.
        needed: its size in bytes.
        kept: the part of it that is already on the disk, in bytes.

    Raises:
        DestinationError: it is greater than the free space.

    Warns:
        FfencWarning: it is close to the free space.
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
    """Return the free bytes where a folder is or will be."""
    folders = (destination.absolute(), *destination.absolute().parents)
    return shutil.disk_usage(next(folder for folder in folders if folder.exists())).free


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


class _Sample:
    """The cost of the first frames of an episode.

    Attributes:
        frames: number of frames.
        bytes: size of the file.
        start: seconds per episode, whatever its length.
        frame: seconds per frame.
    """

    def __init__(self, task: PieceTask) -> None:
        self.frames = min(task.episode.length, SAMPLE_FRAMES)
        few = min(self.frames, _FEW)
        self._run(task, few)  # loads the programs; the first file of a kind takes an additional check
        short, _ = self._run(task, few)
        long, self.bytes = self._run(task, self.frames)
        self.frame = max(long - short, 0.0) / (self.frames - few) if self.frames > few else 0.0
        self.start = max(short - few * self.frame, 0.0)

    @staticmethod
    def _run(task: PieceTask, count: int) -> tuple[float, int]:
        """Return seconds and bytes of a number of frames."""
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
