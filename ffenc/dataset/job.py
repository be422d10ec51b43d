"""Write a video dataset: encode or copy every episode, join them into files, and write the tables."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice
from operator import add
from pathlib import Path
from typing import Any

from ffenc.config.framerate import fps_number
from ffenc.dataset.checksums import write_checksums
from ffenc.dataset.choice import ranges_text
from ffenc.dataset.estimate import check_space
from ffenc.dataset.executors.local import AnyTask, Executor, Failures, LocalExecutor
from ffenc.dataset.finished import finished_cameras, record_job
from ffenc.dataset.info_block import info_block, kept_block
from ffenc.dataset.joins import JoinRecord, JoinTask, LookTask
from ffenc.dataset.piece import ImageStatsTask, PieceRecord, TakenUpTask, record_name
from ffenc.dataset.pieces import Piece, groups
from ffenc.dataset.plan import JobPlan, Stream
from ffenc.dataset.source import Camera, EpisodeRef, EpisodeVideo
from ffenc.dataset.staging import Staging, unfinished
from ffenc.dataset.tables import JobTables
from ffenc.dataset.verify.metadata import check_result
from ffenc.dataset.writer import FilePlace, Files, VideoPlace, videos_of
from ffenc.errors import DestinationError, FfencError, SourceError, VerificationError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.statistics import Stats, ValueCounts
from ffenc.jobs.progress import FrameCount
from ffenc.layout import file_limit
from ffenc.spelling import argument
from ffenc.storage.address import Address
from ffenc.storage.upload import address_of, publishing
from ffenc.words import count

_SHOWN = 20  # failed episodes, in an error
_TAKEN_UP = 250  # pieces of an earlier run that a task looks at


@dataclass
class JobSummary:
    """What a job did.

    Attributes:
        destination: the dataset; where it was uploaded, its address.
        episodes: how many.
        frames: of all cameras.
        source_bytes, video_bytes: of the chosen cameras before and after.
        seconds: of this run.
        resumed: encodes that an earlier run had finished.
        outdated: encodes of an earlier run that did not fit: other settings, versions or frames.
        copied: episodes, over all cameras, whose packets were copied.
        cameras: for each, its codec, encoder and bytes.
        complete_before: an earlier run had finished all of it, and nothing was done.
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
        """How many times smaller the video is."""
        return self.source_bytes / self.video_bytes if self.video_bytes else 0.0


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
    """Do what a plan says. The destination appears whole and verified, or not at all.

    Args:
        plan: what to do.
        resume: take up what an interrupted run has left; where an earlier run has done all of it, nothing
            is done.
        force_space: start even where the result seems to be larger than what is free on the disk.
        on_progress: called with frames done and frames in all, from any thread.
        executor: where the pieces are made; None: on this machine.
        keep_going: where an episode cannot be encoded, finish all others before the error.
        on_upload: called with bytes uploaded and in all, from any thread, where the destination is a bucket.

    Raises:
        SourceError: frames missing or damaged.
        DestinationError: the destination is taken, cannot be written, or has too little room.
        FfmpegError, VerificationError: an encode failed, or its result is not what was asked for.
    """
    began = time.monotonic()
    place = address_of(plan.destination) or plan.destination
    with publishing(plan.destination, on_upload):
        cameras = finished_cameras(plan) if resume else None
        if cameras is not None:
            summary = _summary_before(plan, cameras)
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


def _summary_before(plan: JobPlan, cameras: dict[str, dict[str, Any]]) -> JobSummary:
    """What an earlier run has done, which was all."""
    return JobSummary(
        plan.destination,
        len(plan.episodes),
        plan.frames,
        source_bytes=sum(stream.source_bytes for stream in plan.streams),
        video_bytes=sum(camera["video_bytes"] for camera in cameras.values()),
        copied=sum(len(stream.copied) for stream in plan.streams),
        cameras=cameras,
        complete_before=True,
    )


@contextmanager
def staged(destination: Path, *, resume: bool) -> Iterator[Staging]:
    """Give the folder in which a dataset grows; what cannot be written there is said of the destination.

    Raises:
        DestinationError: the destination is taken or cannot be written.
    """
    try:
        with Staging(destination, resume=resume) as staging:
            yield staging
    except OSError as error:
        kept = ""
        if unfinished(destination) is not None:
            kept = f". Finished episodes are kept: once there is room, go on with {argument('resume', True)}"
        elif error.errno == errno.ENOSPC:
            kept = "; free some space and run it again"
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
    """Do what a plan says, in a folder that is open; see :func:`run_plan`.

    Args:
        plan, force_space, on_progress, executor, keep_going: as there.
        staging: of the plan's destination.
        check: given the folder of the whole result, raises where it is not to be published.
    """
    began = time.monotonic()
    if not force_space:
        check_space(plan, staging.kept_bytes())
    summary = _Job(plan, staging, on_progress, executor or LocalExecutor(), keep_going).run(check)
    summary.seconds = time.monotonic() - began
    return summary


@dataclass(frozen=True)
class _Joined:
    """A camera's finished files.

    Attributes:
        places: where each episode is.
        files: path in the dataset -> the file.
    """

    places: list[VideoPlace]
    files: dict[str, JoinRecord]


class _Job:
    """One run of a plan."""

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
        self._cancellation = Cancellation()
        self._executor = executor
        self._failures: Failures | None = [] if keep_going else None

    def run(self, check: Callable[[Path], None]) -> JobSummary:
        plan = self._plan
        with self._executor.open(plan.workers) as self._runner:
            done, joined = self._make_videos()
            image_stats = self._image_stats()
        summary = JobSummary(
            plan.destination,
            len(plan.episodes),
            plan.frames,
            source_bytes=sum(stream.source_bytes for stream in plan.streams),
            resumed=sum(one.resumed for one in done.values()),
            outdated=sum(one.outdated for one in done.values()),
            copied=sum(len(stream.copied) for stream in plan.streams),
        )
        videos, blocks, stats = {}, {}, {}
        values: dict[str, ValueCounts] = {}
        for stream in plan.streams:
            files = joined[stream].files.values()
            info, size = next(iter(files)).info, sum(one.bytes for one in files)
            videos[stream.key] = joined[stream].places
            if stream.block is not None:
                blocks[stream.key] = kept_block(info, stream.block, stream.camera.depth)
            else:
                assert stream.encoding is not None
                blocks[stream.key] = info_block(info, stream.encoding, stream.camera.unit)
            if plan.source_fps is not None:
                blocks[stream.key]["video.source_fps"] = fps_number(plan.source_fps)
            if stream.compute_stats:
                found = [done[stream.key, episode.index] for episode in plan.episodes]
                stats[stream.key] = [one.stats for one in found if one.stats is not None]
                values[stream.key] = _added_up(stream.camera, [one.values for one in found])
            summary.video_bytes += size
            summary.cameras[stream.key] = {
                **{name: blocks[stream.key].get(f"video.{name}") for name in ("codec", "pix_fmt", "encoder")},
                "copied_episodes": len(stream.copied),
                "source_bytes": stream.source_bytes,
                "video_bytes": size,
            }
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
        if joined:
            sums = {place: one.checksum for own in joined.values() for place, one in own.files.items()}
            write_checksums(self._staging.dataset, sums)
        known = {place: one.info for own in joined.values() for place, one in own.files.items()}
        check_result(self._staging.dataset, known, ffprobe=plan.toolchain.ffprobe)
        record_job(self._staging.dataset, plan)
        check(self._staging.dataset)
        self._staging.publish()
        return summary

    def _image_stats(self) -> dict[str, list[tuple[Stats, str]]]:
        """Compute the statistics of cameras that stay images; each camera's, episode by episode."""
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
        found = {(task.key, task.episode.index): own for task, own in self._do(tasks)}
        return {key: [found[key, episode.index] for episode in plan.episodes] for key in plan.image_stats}

    def _do(
        self, tasks: Iterable[AnyTask], failures: Failures | None = None
    ) -> Iterator[tuple[AnyTask, Any]]:
        """Have tasks done; yields each with its result, as they are done."""
        return self._runner.run(
            tasks, progress=self._progress, cancellation=self._cancellation, failures=failures
        )

    def _make_videos(self) -> tuple[dict[tuple[str, int], PieceRecord], dict[Stream, _Joined]]:
        """Encode what is encoded, and make the files of all cameras."""
        plan = self._plan
        done: dict[tuple[str, int], PieceRecord] = {}
        # Copies come first: a file that cannot be cut is an error before hours of encoding.
        joined = self._join([s for s in plan.streams if s.encoding is None and not s.compute_stats], done)
        for batch, records in self._do(self._taken_up()):
            for task, known in zip(batch.pieces, records, strict=True):
                if known is not None:
                    done[task.key, task.episode.index] = known
                    self._progress.add(task.counted)
        tasks = (
            stream.task(plan, episode, self._staging.pieces)
            for episode in plan.episodes
            for stream in plan.streams
            if self._is_task(stream, episode) and (stream.key, episode.index) not in done
        )
        for task, record in self._do(tasks, self._failures):
            done[task.key, task.episode.index] = record
        if self._failures:
            raise _failed(plan, self._failures)
        return done, joined | self._join([stream for stream in plan.streams if stream not in joined], done)

    @staticmethod
    def _is_task(stream: Stream, episode: EpisodeRef) -> bool:
        return stream.compute_stats or episode.index not in stream.copied

    def _taken_up(self) -> Iterator[TakenUpTask]:
        """What an earlier run has left, many pieces of a camera at once."""
        plan, folder = self._plan, self._staging.pieces
        for stream in plan.streams:
            names = self._staging.recorded(stream.key)
            left = (
                stream.task(plan, episode, folder)
                for episode in (plan.episodes if names else ())
                if record_name(episode) in names and self._is_task(stream, episode)
            )
            size = max(1, min(_TAKEN_UP, len(names) // (4 * plan.workers)))
            while batch := tuple(islice(left, size)):
                yield TakenUpTask(batch)

    def _join(
        self, streams: Sequence[Stream], done: Mapping[tuple[str, int], PieceRecord]
    ) -> dict[Stream, _Joined]:
        """Put the pieces of cameras into files up to the size limit."""
        plan, folders = self._plan, self._staging
        info = plan.source.info()
        limit, files = file_limit(info, "video"), Files(info)
        parts = {stream: self._parts(stream) for stream in streams}
        looked = dict(self._do(part for own in parts.values() for part in own if isinstance(part, LookTask)))
        joins: dict[Stream, list[tuple[FilePlace, JoinTask]]] = {stream: [] for stream in streams}

        def tasks() -> Iterator[JoinTask]:
            for stream in streams:
                pieces = self._pieces(stream, parts[stream], looked, done)
                for group in groups(pieces, limit):
                    file = files.next(videos_of(stream.key))
                    task = JoinTask(
                        stream.key,
                        plan.source.fps,
                        self._programs(stream),
                        file.path,
                        folders.dataset,
                        folders.cuts,
                        tuple(group),
                    )
                    joins[stream].append((file, task))
                    yield task

        records: dict[JoinTask, JoinRecord] = dict(self._do(tasks()))
        return {
            stream: _Joined(
                [VideoPlace(file, start) for file, task in own for start in task.starts],
                {file.path: records[task] for file, task in own},
            )
            for stream, own in joins.items()
        }

    def _programs(self, stream: Stream) -> Toolchain:
        return stream.encoding.toolchain if stream.encoding else self._plan.toolchain

    def _parts(self, stream: Stream) -> list[EpisodeRef | LookTask]:
        """A camera's episodes in order; those that are copied, and follow each other in a file, as one."""
        source = self._plan.source
        parts: list[EpisodeRef | LookTask] = []
        run: list[EpisodeVideo] = []

        def end() -> None:
            if run:
                parts.append(LookTask(stream.key, source.fps, self._programs(stream), tuple(run)))
                run.clear()

        for episode in self._plan.episodes:
            if episode.index not in stream.copied:
                end()
                parts.append(episode)
                continue
            video = source.video(stream.key, episode)
            if run and run[-1].path != video.path:
                end()
            run.append(video)
        end()
        return parts

    def _pieces(
        self,
        stream: Stream,
        parts: Sequence[EpisodeRef | LookTask],
        looked: Mapping[LookTask, Sequence[Piece]],
        done: Mapping[tuple[str, int], PieceRecord],
    ) -> Iterator[Piece]:
        """A camera's pieces in the order of the episodes."""
        for part in parts:
            if isinstance(part, LookTask):
                yield from looked[part]
                continue
            one = done[stream.key, part.index]
            assert one.path is not None
            assert stream.encoding is not None
            asked = {**one.asked, "configuration": one.configuration}
            yield Piece(
                *(one.path, 0, one.frames, (0,), (0,), one.bytes),
                *(one.packet_bytes, one.delay, True, stream.encoding.codec.tag, asked),
            )


def _failed(plan: JobPlan, failures: Failures) -> FfencError:
    """One error for all episodes that could not be encoded: which, why, and how to go on without them."""
    failures = sorted(failures, key=lambda one: (one[0].episode.index, one[0].key))
    numbers = {task.episode.index for task, _ in failures}
    kept = ranges_text([episode.index for episode in plan.episodes if episode.index not in numbers])
    lines = [
        f"  episode {task.episode.index}, {task.key}: {error.cause}" for task, error in failures[:_SHOWN]
    ]
    if len(failures) > _SHOWN:
        lines.append(f"  ... and {len(failures) - _SHOWN} more")
    whole = f" (whole are episodes {kept})" if kept else ""
    text = (
        f"{count(len(failures), 'encode')} of {count(len(numbers), 'episode')} failed. The others are "
        f"finished and kept{whole}: once these are restored or left out, "
        f"go on with {argument('resume', True)}\n"
    ) + "\n".join(lines)
    every = all(isinstance(error, SourceError) for _, error in failures)
    return SourceError(text) if every else VerificationError(text)


def _added_up(camera: Camera, packed: Sequence[str | None]) -> ValueCounts:
    """All episodes' counts of a camera's values."""
    per = {None: 255, "mm": 1, "m": 1000}[camera.unit]
    own = (ValueCounts.unpacked(one, channels=1 if camera.unit else 3, per=per) for one in packed if one)
    return reduce(add, own)
