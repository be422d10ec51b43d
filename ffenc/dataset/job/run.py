"""Write a video dataset: encode or copy all episodes, join them to files, and write the tables."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from ffenc.config.framerate import fps_number
from ffenc.dataset.checksums import write_checksums
from ffenc.dataset.executors.local import Executor, LocalExecutor
from ffenc.dataset.info_block import info_block, kept_block
from ffenc.dataset.job.estimate import check_space
from ffenc.dataset.job.finished import finished_cameras, record_job
from ffenc.dataset.job.image_stats import ImageStatsTask
from ffenc.dataset.job.plan import JobPlan, Stream
from ffenc.dataset.job.summary import JobSummary, camera_summary, done_before, planned
from ffenc.dataset.job.tables import JobTables
from ffenc.dataset.job.videos import JobVideos, Work
from ffenc.dataset.model import Camera
from ffenc.dataset.staging import Staging, unfinished
from ffenc.dataset.verify.metadata import check_result
from ffenc.errors import DestinationError
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.frames.statistics import Stats, ValueCounts
from ffenc.parallel.progress import FrameCount
from ffenc.spelling import argument
from ffenc.storage.upload import address_of, publishing


def run_plan(
    plan: JobPlan,
    *,
    resume: bool = False,
    force_space: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    executor: Executor | None = None,
    keep_going: bool = False,
    on_upload: Callable[[int, int], None] | None = None,
) -> JobSummary:
    """Run a plan. The destination appears complete and verified, or not at all.

    Args:
        plan: the plan.
        resume: continue an interrupted run; if an earlier run is complete, nothing is done.
        force_space: start even if the result seems to be larger than the free disk space.
        on_progress: called with the number of frames done and of all, from any thread.
        executor: where the encoders run; None: on this machine.
        keep_going: after a failure, finish all other episodes before the error.
        on_upload: if the destination is an address, called with the number of bytes uploaded and of all, from
            any thread.

    Returns:
        What the job did.

    Raises:
        SourceError: frames are missing or damaged.
        DestinationError: the destination exists, cannot be written, or has too little space.
        FfmpegError, VerificationError: an encode failed, or its result is not what was requested.
    """
    began = time.monotonic()
    place = address_of(plan.destination) or plan.destination
    with publishing(plan.destination, on_upload):
        cameras = finished_cameras(plan) if resume else None
        if cameras is not None:
            summary = done_before(plan, cameras)
        else:
            with staged(plan.destination, resume=resume) as staging:
                summary = run_staged(
                    plan,
                    staging,
                    force_space=force_space,
                    on_progress=on_progress,
                    executor=executor,
                    keep_going=keep_going,
                )
    summary.destination = place
    summary.seconds = time.monotonic() - began
    return summary


@contextmanager
def staged(destination: Path, *, resume: bool) -> Iterator[Staging]:
    """Yield the folder in which a dataset is written; errors of writing there name the destination.

    Raises:
        DestinationError: the destination exists or cannot be written.
    """
    try:
        with Staging(destination, resume=resume) as staging:
            yield staging
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        room = "free some space, and " if full else ""
        kept = "; free some space and run it again" if full else ""
        if unfinished(destination) is not None:
            kept = f". Finished episodes are kept; {room}continue with {argument('resume', True)}"
        raise DestinationError(f"{destination} cannot be written: {error.strerror or error}{kept}") from error


def run_staged(
    plan: JobPlan,
    staging: Staging,
    *,
    force_space: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    executor: Executor | None = None,
    keep_going: bool = False,
    check: Callable[[Path], None] = lambda _: None,
) -> JobSummary:
    """Run a plan in an open staging folder; see :func:`run_plan`.

    Args:
        plan, force_space, on_progress, executor, keep_going: as there.
        staging: the folder for the plan's destination.
        check: called with the folder of the complete result; raises if it must not be published.
    """
    began = time.monotonic()
    if not force_space:
        check_space(plan, staging.kept_bytes())
    summary = _Job(plan, staging, on_progress, executor or LocalExecutor(), keep_going).run(check)
    summary.seconds = time.monotonic() - began
    return summary


class _Job:
    """A run of a plan."""

    def __init__(
        self,
        plan: JobPlan,
        staging: Staging,
        on_progress: Callable[[int, int], None] | None,
        executor: Executor,
        keep_going: bool = False,
    ) -> None:
        self._plan, self._staging = plan, staging
        self._progress = FrameCount(plan.frames, on_progress)
        self._executor, self._keep_going = executor, keep_going

    def run(self, check: Callable[[Path], None]) -> JobSummary:
        plan = self._plan
        uses = [*plan.source.roots, *plan.source.temporary, self._staging.pieces]
        with self._executor.open(plan.workers, uses) as runner:
            work = Work(runner, self._progress)
            videos_made = JobVideos(plan, self._staging, work, keep_going=self._keep_going)
            done, joined = videos_made.make()
            image_stats = self._image_stats(work)
        summary = planned(plan)
        summary.resumed = sum(one.resumed for one in done.values())
        summary.outdated = sum(one.outdated for one in done.values())
        videos, blocks, stats = {}, {}, {}
        values: dict[str, ValueCounts] = {}
        for stream in plan.streams:
            made = joined[stream].files.values()
            info, size = next(iter(made)).info, sum(one.bytes for one in made)
            videos[stream.key] = joined[stream].places
            blocks[stream.key] = _block(stream, info, plan.source_fps)
            if stream.compute_stats:
                found = [done[stream.key, episode.index] for episode in plan.episodes]
                stats[stream.key] = [one.stats for one in found if one.stats is not None]
                values[stream.key] = _added_up(stream.camera, [one.values for one in found])
            summary.video_bytes += size
            summary.cameras[stream.key] = camera_summary(
                blocks[stream.key],
                copied=len(stream.copied),
                source_bytes=stream.source_bytes,
                video_bytes=size,
            )
        cameras = {camera.key: camera for camera in plan.source.cameras}
        for key, counted in image_stats.items():
            stats[key] = [own for own, _ in counted]
            values[key] = _added_up(cameras[key], [packed for _, packed in counted])
        with self._progress.part(plan.rows * len(plan.images)) as on_images:
            JobTables(
                plan.source,
                self._staging.dataset,
                episodes=plan.episodes,
                cameras=[stream.key for stream in plan.streams],
                videos=videos,
                blocks=blocks,
                camera_stats=stats,
                camera_values=values,
                images=plan.images,
                changed=plan.changed_images,
                recompute=plan.stale.episodes,
                reaggregate=plan.stale.total,
                on_images=on_images,
                exact=plan.exact,
                together=plan.together,
            ).write()
        files = {place: one for own in joined.values() for place, one in own.files.items()}
        if files:
            write_checksums(self._staging.dataset, {place: one.checksum for place, one in files.items()})
        known = {place: one.info for place, one in files.items()}
        check_result(self._staging.dataset, known, ffprobe=plan.toolchain.ffprobe)
        record_job(self._staging.dataset, plan)
        check(self._staging.dataset)
        self._staging.publish()
        return summary

    def _image_stats(self, work: Work) -> dict[str, list[tuple[Stats, str]]]:
        """Compute the statistics of image cameras, for each camera by episode."""
        plan = self._plan
        cameras = {camera.key: camera for camera in plan.source.cameras}
        tasks = (
            ImageStatsTask(
                key,
                episode,
                plan.source.frames(key, episode),
                cameras[key].header,
                cameras[key].unit,
                plan.toolchain,
            )
            for key in plan.image_stats
            for episode in plan.episodes
        )
        found = {(task.key, task.episode.index): own for task, own in work.do(tasks)}
        return {key: [found[key, episode.index] for episode in plan.episodes] for key in plan.image_stats}


def _block(stream: Stream, info: StreamInfo, source_fps: Fraction | None) -> dict[str, Any]:
    """Return the ``info`` block of a finished camera.

    Args:
        stream: the camera.
        info: stream fields of its first file.
        source_fps: the original rate, if it is lowered.
    """
    if stream.block is not None:
        block = kept_block(info, stream.block, stream.camera.depth)
    else:
        assert stream.encoding is not None
        block = info_block(info, stream.encoding, stream.camera.unit)
    return block if source_fps is None else {**block, "video.source_fps": fps_number(source_fps)}


def _added_up(camera: Camera, packed: Sequence[str | None]) -> ValueCounts:
    """Return the sum of all episodes' histograms of a camera."""
    per = {None: 255, "mm": 1, "m": 1000}[camera.unit]
    own = (ValueCounts.unpacked(one, channels=1 if camera.unit else 3, per=per) for one in packed if one)
    return reduce(add, own)
