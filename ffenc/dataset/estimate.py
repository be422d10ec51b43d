"""How large a job's result will be and how long it takes, and whether there is room for it."""

from __future__ import annotations

import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffenc.errors import DestinationError, FfencWarning
from ffenc.frames.depth_images import DepthSamples
from ffenc.frames.encode import encode_frames
from ffenc.frames.encoding import Encoding
from ffenc.frames.images import ImageHeader
from ffenc.frames.sources import EncodedFrame
from ffenc.frames.transcode import transcode

if TYPE_CHECKING:
    from ffenc.dataset.job import JobPlan, Stream

SAMPLE_FRAMES = 60
_ROOMY = 8  # times the source's size: with so much free, no result is too large
_TIGHT = 0.8  # of what is free: a sample of some frames is not more exact than that


@dataclass(frozen=True)
class Estimate:
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
    """Encode the first frames of every camera to learn how large and how long the whole job will be."""
    video_bytes, seconds, sampled, kept = 0.0, 0.0, 0, 0.0
    with tempfile.TemporaryDirectory(prefix="ffenc-") as folder:
        for stream in plan.streams:
            if stream.encoding is None:
                video_bytes += stream.source_bytes
                continue
            output = Path(folder) / "sample.mp4"
            began = time.monotonic()
            count = _encode_sample(plan, stream, stream.encoding, output)
            frames = sum(one.length for one in plan.episodes if one.index not in stream.copied)
            seconds += (time.monotonic() - began) / count * frames
            encoded = output.stat().st_size / count * frames
            video_bytes += encoded + stream.source_bytes * (1 - frames / plan.rows)
            kept += encoded
            sampled += count
    images = sum(plan.source.camera_bytes(key, plan.episodes) for key in plan.images)
    return Estimate(round(video_bytes), seconds / plan.workers, sampled, round(video_bytes + kept) + images)


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
            f"{found}. Make room, name a destination on another disk, or start anyway with --force-space"
        )
    if needed > _TIGHT * free:
        warnings.warn(f"{found}: that may not be enough", FfencWarning, stacklevel=4)


def _free(destination: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    folders = (destination.absolute(), *destination.absolute().parents)
    return shutil.disk_usage(next(folder for folder in folders if folder.exists())).free


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _encode_sample(plan: JobPlan, stream: Stream, encoding: Encoding, output: Path) -> int:
    """Encode the first frames of the first episode; returns how many."""
    camera, episode = stream.camera, plan.episodes[0]
    if not isinstance(camera.stored, ImageHeader):
        clip = plan.clip(stream, episode)
        clip = clip.part(0, min(clip.frames, SAMPLE_FRAMES))
        transcode(encoding, clip, output)
        return clip.frames
    frames = _First(plan.source.frames(camera.key, episode), SAMPLE_FRAMES)
    depth = DepthSamples(encoding.config, camera.unit) if camera.unit is not None else None
    encode_frames(encoding, frames, camera.header, output, depth=depth)
    return len(frames)


class _First:
    """The first frames of a source."""

    def __init__(self, frames: Any, count: int) -> None:
        self._frames, self._count = frames, min(count, len(frames))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[EncodedFrame]:
        return islice(iter(self._frames), self._count)

    def fingerprint(self) -> str:
        return str(self._frames.fingerprint())
