"""The videos of a job's result: all episodes are encoded or copied, and joined to files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from msgspec import Struct

from ffenc.dataset.executors.local import AnyTask, Failures, Runner
from ffenc.dataset.job.joins import JoinRecord, JoinTask, LookTask
from ffenc.dataset.job.piece import PieceRecord, TakenUpTask, record_name
from ffenc.dataset.job.pieces import Piece, groups
from ffenc.dataset.job.plan import JobPlan, Stream
from ffenc.dataset.job.summary import failed
from ffenc.dataset.model import EpisodeRef, EpisodeVideo
from ffenc.dataset.places import FilePlace, Files, VideoPlace, videos_of
from ffenc.dataset.staging import Staging
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.layout import file_limit
from ffenc.parallel.progress import FrameCount

_TAKEN_UP = 250  # pieces of an earlier run per task


class JoinedFiles(Struct, frozen=True):
    """A camera's finished files.

    Attributes:
        places: place of each episode.
        files: path in the dataset -> the file.
    """

    places: list[VideoPlace]
    files: dict[str, JoinRecord]


class Work:
    """Runs the tasks of a job.

    Args:
        runner: runs them.
        progress: informed of completed frames.
    """

    def __init__(self, runner: Runner, progress: FrameCount) -> None:
        self._runner, self.progress = runner, progress
        self._cancellation = Cancellation()

    def do(self, tasks: Iterable[AnyTask], failures: Failures | None = None) -> Iterator[tuple[AnyTask, Any]]:
        """Run tasks; yield each with its result, in the order of completion.

        Args:
            tasks: taken one by one as there is room.
            failures: as for :class:`~ffenc.dataset.executors.local.Runner`.
        """
        return self._runner.run(
            tasks, progress=self.progress, cancellation=self._cancellation, failures=failures
        )


class JobVideos:
    """Makes the videos of a job's result.

    Args:
        plan: the plan.
        staging: the folder of the growing result.
        work: runs the tasks.
        keep_going: after a failure, finish all other episodes before the error.
    """

    def __init__(self, plan: JobPlan, staging: Staging, work: Work, *, keep_going: bool = False) -> None:
        self._plan, self._staging, self._work = plan, staging, work
        self._failures: Failures | None = [] if keep_going else None

    def make(self) -> tuple[dict[tuple[str, int], PieceRecord], dict[Stream, JoinedFiles]]:
        """Encode all episodes that have to be encoded, and join the files of all cameras.

        Returns:
            (camera, episode) -> record of its piece; and each camera's files.

        Raises:
            FfencError: an episode cannot be encoded or copied; with ``keep_going``, an error for all
                failures.
        """
        plan = self._plan
        done: dict[tuple[str, int], PieceRecord] = {}
        # Copies come first: a file that cannot be cut should fail before hours of encoding.
        joined = self._join([s for s in plan.streams if s.encoding is None and not s.compute_stats], done)
        for batch, records in self._work.do(self._taken_up()):
            for task, known in zip(batch.pieces, records, strict=True):
                if known is not None:
                    done[task.key, task.episode.index] = known
                    self._work.progress.add(task.counted)
        tasks = (
            stream.task(plan, episode, self._staging.pieces)
            for episode in plan.episodes
            for stream in plan.streams
            if self._is_task(stream, episode) and (stream.key, episode.index) not in done
        )
        for task, record in self._work.do(tasks, self._failures):
            done[task.key, task.episode.index] = record
        if self._failures:
            raise failed(plan, self._failures)
        return done, joined | self._join([stream for stream in plan.streams if stream not in joined], done)

    @staticmethod
    def _is_task(stream: Stream, episode: EpisodeRef) -> bool:
        return stream.compute_stats or episode.index not in stream.copied

    def _taken_up(self) -> Iterator[TakenUpTask]:
        """Yield tasks that check the pieces of an earlier run, many of a camera at once."""
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
    ) -> dict[Stream, JoinedFiles]:
        """Join the pieces of cameras to files up to the size limit."""
        plan, folders = self._plan, self._staging
        info = plan.source.info()
        limit, files = file_limit(info, "video"), Files(info)
        parts = {stream: self._parts(stream) for stream in streams}
        looked = dict(
            self._work.do(part for own in parts.values() for part in own if isinstance(part, LookTask))
        )
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

        records: dict[JoinTask, JoinRecord] = dict(self._work.do(tasks()))
        return {
            stream: JoinedFiles(
                [VideoPlace(file, start) for file, task in own for start in task.starts],
                {file.path: records[task] for file, task in own},
            )
            for stream, own in joins.items()
        }

    def _programs(self, stream: Stream) -> Toolchain:
        return stream.encoding.toolchain if stream.encoding else self._plan.toolchain

    def _parts(self, stream: Stream) -> list[EpisodeRef | LookTask]:
        """Return a camera's episodes in order; copied ones that are consecutive in a file are one part."""
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
        """Yield a camera's pieces in the order of the episodes."""
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
