"""The summary of a finished job, and the error for episodes that failed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from ffenc.dataset.choice import ranges_text
from ffenc.dataset.executors.local import Failures
from ffenc.dataset.job.plan import JobPlan
from ffenc.errors import FfencError, SourceError, VerificationError
from ffenc.spelling import argument
from ffenc.storage.address import Address
from ffenc.words import count

_SHOWN = 20  # failed episodes in an error


class JobSummary(Struct):
    """What a job did.

    Attributes:
        destination: the dataset; its address if it was uploaded.
        episodes: number of episodes.
        frames: number of frames of all cameras.
        source_bytes, video_bytes: size of the selected cameras before and after.
        seconds: duration of this run.
        resumed: number of encodes that an earlier run had finished.
        outdated: number of encodes of an earlier run that could not be used: other settings, versions or
            frames.
        copied: number of episodes, over all cameras, whose packets were copied.
        cameras: codec, encoder and size by camera.
        complete_before: an earlier run had finished the job, and nothing was done.
    """

    destination: Path | Address
    episodes: int
    frames: int
    source_bytes: int
    video_bytes: int = 0
    seconds: float = 0.0
    resumed: int = 0
    outdated: int = 0
    copied: int = 0
    cameras: dict[str, dict[str, Any]] = field(default_factory=dict)
    complete_before: bool = False

    @property
    def ratio(self) -> float:
        """The ratio of the sizes before and after."""
        return self.source_bytes / self.video_bytes if self.video_bytes else 0.0


def planned(plan: JobPlan) -> JobSummary:
    """Return the summary of a plan before it runs."""
    return JobSummary(
        plan.destination,
        len(plan.episodes),
        plan.frames,
        source_bytes=sum(stream.source_bytes for stream in plan.streams),
        copied=sum(len(stream.copied) for stream in plan.streams),
    )


def done_before(plan: JobPlan, cameras: dict[str, dict[str, Any]]) -> JobSummary:
    """Return the summary of a job that an earlier run had finished.

    Args:
        plan: its plan.
        cameras: as in :class:`JobSummary`.
    """
    summary = planned(plan)
    summary.video_bytes = sum(camera["video_bytes"] for camera in cameras.values())
    summary.cameras = cameras
    summary.complete_before = True
    return summary


def camera_summary(
    block: Mapping[str, Any], *, copied: int, source_bytes: int, video_bytes: int
) -> dict[str, Any]:
    """Return the summary of a camera.

    Args:
        block: its ``info`` block.
        copied: number of episodes whose packets were copied.
        source_bytes, video_bytes: size before and after.
    """
    return {
        **{name: block.get(f"video.{name}") for name in ("codec", "pix_fmt", "encoder")},
        "copied_episodes": copied,
        "source_bytes": source_bytes,
        "video_bytes": video_bytes,
    }


def failed(plan: JobPlan, failures: Failures) -> FfencError:
    """Return the error for failed episodes: which, why, and how to continue without them."""
    failures = sorted(failures, key=lambda one: (one[0].episode.index, one[0].key))
    numbers = {task.episode.index for task, _ in failures}
    kept = ranges_text([episode.index for episode in plan.episodes if episode.index not in numbers])
    lines = [
        f"  episode {task.episode.index}, {task.key}: {error.cause}" for task, error in failures[:_SHOWN]
    ]
    if len(failures) > _SHOWN:
        lines.append(f"  ... and {len(failures) - _SHOWN} more")
    whole = f" (episodes {kept} are complete)" if kept else ""
    text = (
        f"{count(len(failures), 'encode')} of {count(len(numbers), 'episode')} failed. The others "
        f"are finished and kept{whole}. Restore the following or leave them out, then continue with "
        f"{argument('resume', True)}\n"
    ) + "\n".join(lines)
    every = all(isinstance(error, SourceError) for _, error in failures)
    return SourceError(text) if every else VerificationError(text)
