"""Write a video dataset: encode or copy every episode, join them into files, and write the tables."""

from __future__ import annotations

import errno
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from ffenc.config.framerate import fps_number
from ffenc.config.transform import Transform
from ffenc.dataset.checksums import file_checksum, same_bytes, write_checksums
from ffenc.dataset.choice import ranges_text
from ffenc.dataset.columns import VideoPlace
from ffenc.dataset.estimate import check_space
from ffenc.dataset.executors.local import Executor, Failures, LocalExecutor
from ffenc.dataset.finished import finished_cameras, record_job
from ffenc.dataset.info_block import info_block, kept_block
from ffenc.dataset.piece import PieceRecord, PieceTask, video_input
from ffenc.dataset.pieces import Piece, asked_of, copied_piece, groups
from ffenc.dataset.source import Camera, DatasetSource, Episode, HasVideos
from ffenc.dataset.staging import Staging, unfinished
from ffenc.dataset.tables import TableWriter
from ffenc.dataset.verify.metadata import Stale, brief, check_result
from ffenc.dataset.videos import clip_of
from ffenc.errors import DestinationError, FfencError, FfmpegError, SourceError, VerificationError
from ffenc.ffmpeg.boxes import is_plain_mp4
from ffenc.ffmpeg.join import Joined, cut_file, join_files
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.probe import StreamInfo, probe
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.clip import Clip
from ffenc.frames.decoded import image_statistics
from ffenc.frames.depth import DepthQuantizer
from ffenc.frames.encoding import Encoding
from ffenc.frames.header import ImageHeader
from ffenc.frames.statistics import Stats, ValueCounts
from ffenc.frames.transcode import read_through
from ffenc.frames.verify import verify_joined
from ffenc.jobs.pool import run_units
from ffenc.layout import VIDEO_PATH, file_limit, files_in_chunk
from ffenc.spelling import argument
from ffenc.storage.address import Address
from ffenc.storage.upload import address_of, publish
from ffenc.words import count

_SHOWN = 20  # failed episodes, in an error


@dataclass(frozen=True, eq=False)
class Stream:
    """One camera of a job.

    Attributes:
        camera: what it is.
        encoding: how its frames are encoded; None where all its episodes are copied.
        compute_stats: the source has no statistics of it.
        source_bytes: bytes its images or video take.
        copied: the episodes whose packets are copied as they are.
        quantizer: of depth that is video already; None for all else.
        block: the fields of its ``info`` block that are not read from the file; None: those of ``encoding``.
        why: why it is copied, or encoded.
        uncopied: of a camera that is copied, the episodes that have to be encoded, and why.
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
        """How its pictures are changed."""
        return self.encoding.transform if self.encoding is not None else None

    @property
    def key(self) -> str:
        """Its feature."""
        return self.camera.key

    def task(self, plan: JobPlan, episode: Episode, folder: Path) -> PieceTask:
        """What is to be done of an episode."""
        camera, source = self.camera, plan.source
        images = isinstance(camera.stored, ImageHeader)
        if not images:
            assert isinstance(source, HasVideos)
        size = (camera.stored.width, camera.stored.height)
        if self.encoding is not None:
            size = self.encoding.stored_size
        return PieceTask(
            key=self.key,
            episode=episode,
            frames=source.frames(self.key, episode) if images else source.video(self.key, episode),  # type: ignore[attr-defined]
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


@dataclass(frozen=True)
class JobPlan:
    """What a job will do, checked as far as it can be before the first frame.

    Attributes:
        source: what is read.
        destination: the dataset to write.
        episodes: those chosen.
        streams: one a camera.
        workers: encodes at once.
        toolchain: the programs that copy packets.
        images: cameras that stay images, in the table.
        image_stats: those of them whose statistics are computed.
        changed_images: those of them whose pictures are changed, and how; their statistics are computed too.
        stale: features whose statistics are computed, since the source's are not those of its rows.
        edits: what the source changes of the dataset that it reads, as plain values.
        exact: compute the quantiles of all rows, where they would be made of the episodes'.
        source_fps: the frame rate that is lowered; None: it stays.
        job: the hash of what was asked for, where that is not what the plan itself says; see
            :mod:`~ffenc.dataset.finished`.
    """

    source: DatasetSource
    destination: Path
    episodes: list[Episode]
    streams: list[Stream]
    workers: int
    toolchain: Toolchain
    images: Sequence[str] = ()
    image_stats: Sequence[str] = ()
    stale: Stale = field(default_factory=Stale)
    edits: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = True
    source_fps: Fraction | None = None
    job: str | None = None
    changed_images: Mapping[str, Transform] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Frames of one camera."""
        return sum(episode.length for episode in self.episodes)

    @property
    def frames(self) -> int:
        """Frames of all cameras."""
        return self.rows * (len(self.streams) + len(self.images))

    @property
    def encodes(self) -> int:
        """How many encodes it takes: one an episode and camera that is not copied."""
        return sum(len(self.episodes) - len(stream.copied) for stream in self.streams)

    def commands(self) -> dict[str, list[str]]:
        """The command line of each camera that is encoded, for the first episode that is."""
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

    def clip(self, stream: Stream, episode: Episode) -> Clip:
        """An episode's frames, of a camera that is video.

        Raises:
            SourceError: the file does not hold them, or not where the table says.
        """
        assert isinstance(self.source, HasVideos)
        return clip_of(self.source.video(stream.key, episode), self.source.fps)


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

    Raises:
        SourceError: frames missing or damaged.
        DestinationError: the destination is taken, cannot be written, or has too little room.
        FfmpegError, VerificationError: an encode failed, or its result is not what was asked for.
    """
    began = time.monotonic()
    place = address_of(plan.destination) or plan.destination
    if resume and (cameras := finished_cameras(plan)) is not None:
        publish(plan.destination)
        return JobSummary(
            place,
            len(plan.episodes),
            plan.frames,
            source_bytes=sum(stream.source_bytes for stream in plan.streams),
            video_bytes=sum(camera["video_bytes"] for camera in cameras.values()),
            seconds=time.monotonic() - began,
            copied=sum(len(stream.copied) for stream in plan.streams),
            cameras=cameras,
            complete_before=True,
        )
    with staged(plan.destination, resume=resume) as staging:
        summary = run_staged(
            plan,
            staging,
            force_space=force_space,
            on_progress=on_progress,
            executor=executor,
            keep_going=keep_going,
        )
    publish(plan.destination)
    summary.destination = place
    summary.seconds = time.monotonic() - began
    return summary


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
class _File:
    """One finished file of a camera.

    Attributes:
        path: its path in the dataset.
        places: where each of its episodes is.
        info: what was read back of it, in brief.
        bytes: its size.
        checksum: SHA-256 of it.
    """

    path: str
    places: list[VideoPlace]
    info: StreamInfo
    bytes: int
    checksum: str


@dataclass(frozen=True)
class _Joined:
    """A camera's finished files, one or more."""

    files: list[_File]

    @property
    def places(self) -> list[VideoPlace]:
        """Where each episode is."""
        return [place for file in self.files for place in file.places]

    @property
    def info(self) -> StreamInfo:
        """Of the first file."""
        return self.files[0].info

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)


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
        self._progress = _Progress(plan.frames, on_progress)
        self._cancellation = Cancellation()
        self._executor = executor
        self._failures: Failures | None = [] if keep_going else None

    def run(self, check: Callable[[Path], None]) -> JobSummary:
        plan = self._plan
        done: dict[tuple[str, int], PieceRecord] = {}
        tasks = (
            stream.task(plan, episode, self._staging.pieces)
            for episode in plan.episodes
            for stream in plan.streams
            if stream.compute_stats or episode.index not in stream.copied
        )
        # What is only copied first: a file that cannot be cut is told before hours of encoding.
        joined: dict[Stream, _Joined] = {}
        early = [s for s in plan.streams if s.encoding is None and not s.compute_stats]
        self._join_all(early, done, joined)
        for task, record in self._executor.run(
            tasks,
            workers=plan.workers,
            progress=self._progress,
            cancellation=self._cancellation,
            failures=self._failures,
        ):
            done[task.key, task.episode.index] = record
        if self._failures:
            raise _failed(plan, self._failures)
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
        self._join_all([stream for stream in plan.streams if stream not in joined], done, joined)
        for stream in plan.streams:
            info, size = joined[stream].info, joined[stream].bytes
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
        for key, counted in self._image_stats().items():
            stats[key] = [own for own, _ in counted]
            values[key] = _added_up(cameras[key], [packed for _, packed in counted])
        with self._progress.part(plan.rows * len(plan.images)) as on_images:
            TableWriter(
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
            ).write()
        if joined:
            sums = {file.path: file.checksum for one in joined.values() for file in one.files}
            write_checksums(self._staging.dataset, sums)
        known = {file.path: file.info for one in joined.values() for file in one.files}
        check_result(self._staging.dataset, known, ffprobe=plan.toolchain.ffprobe)
        record_job(self._staging.dataset, plan)
        check(self._staging.dataset)
        self._staging.publish()
        return summary

    def _image_stats(self) -> dict[str, list[tuple[Stats, str]]]:
        """Compute the statistics of cameras that stay images; each camera's, episode by episode."""
        plan = self._plan
        cameras = {camera.key: camera for camera in plan.source.cameras}
        units = [(cameras[key], episode) for key in plan.image_stats for episode in plan.episodes]

        def work(unit: tuple[Camera, Episode]) -> tuple[Stats, str]:
            camera, episode = unit
            frames = plan.source.frames(camera.key, episode)
            own = image_statistics(frames, camera.header, camera.unit, check=self._cancellation.check)
            return own.statistics(), own.values().packed()

        found = {
            (camera.key, episode.index): own
            for (camera, episode), own in run_units(
                units, work, threads=plan.workers, stop=self._cancellation.cancel
            )
        }
        return {key: [found[key, episode.index] for episode in plan.episodes] for key in plan.image_stats}

    def _join_all(
        self,
        streams: Sequence[Stream],
        done: Mapping[tuple[str, int], PieceRecord],
        joined: dict[Stream, _Joined],
    ) -> None:
        """Make the files of several cameras, some at the same time."""
        info = self._plan.source.info()
        limit, in_chunk = file_limit(info, "video"), files_in_chunk(info)

        def units() -> Iterator[tuple[Stream, int, list[Piece]]]:
            for stream in streams:
                for number, group in enumerate(groups(self._pieces(stream, done), limit)):
                    yield stream, number, group

        def work(unit: tuple[Stream, int, list[Piece]]) -> _File:
            stream, number, group = unit
            return self._join(stream, *divmod(number, in_chunk), group)

        threads, stop = self._plan.workers + 1, self._cancellation.cancel
        found: dict[Stream, dict[int, _File]] = {}
        for (stream, number, _), file in run_units(units(), work, threads=threads, stop=stop):
            found.setdefault(stream, {})[number] = file
        joined |= {stream: _Joined([files[n] for n in sorted(files)]) for stream, files in found.items()}

    def _join(self, stream: Stream, chunk: int, file: int, group: Sequence[Piece]) -> _File:
        """Put pieces into one file."""
        place = VIDEO_PATH.format(video_key=stream.key, chunk_index=chunk, file_index=file)
        output = self._staging.dataset / place
        output.parent.mkdir(parents=True, exist_ok=True)
        whole = group[0] if len(group) == 1 else None
        info = self._copied_whole(whole, output) if whole is not None else None
        checksum = whole.checksum if whole is not None and info is not None else None
        if info is None:
            info = self._join_group(stream, group, output, place)
        offset = 0
        starts: list[int] = []
        for piece in group:
            starts += [offset + start for start in piece.starts]
            offset += piece.frames
        return _File(
            place,
            [VideoPlace(chunk, file, start) for start in starts],
            brief(info, starts),
            output.stat().st_size,
            checksum or file_checksum(output),
        )

    def _join_group(self, stream: Stream, group: Sequence[Piece], output: Path, place: str) -> StreamInfo:
        fps = self._plan.source.fps
        toolchain = stream.encoding.toolchain if stream.encoding else self._plan.toolchain
        cut: list[Path] = []
        parts: list[Joined] = []
        try:
            for piece in group:
                path = piece.path
                if not piece.whole:
                    path = (
                        self._staging.cuts
                        / f"{stream.key}-{output.parent.name}-{output.stem}-{len(parts):06d}.mp4"
                    )
                    cut.append(path)
                    with _damage_named(stream, piece, toolchain):
                        cut_file(
                            piece.path,
                            path,
                            first=piece.first,
                            frames=piece.frames,
                            fps=fps,
                            tag=piece.tag,
                            toolchain=toolchain,
                            cancellation=self._cancellation,
                        )
                parts.append(Joined(path, piece.frames, piece.delay))
            tag, asked = group[0].tag, group[0].asked
            if not group[0].whole:  # cut out of what may be another container
                like = probe(parts[0].path, ffprobe=toolchain.ffprobe)
                tag, asked = like.tag, asked_of(like)
            join_files(
                parts,
                output,
                fps=fps,
                tag=tag,
                toolchain=toolchain,
                cancellation=self._cancellation,
            )
        finally:
            for path in cut:
                path.unlink(missing_ok=True)
        keys: list[int] = []
        offset = 0
        for piece in group:
            keys += [offset + key for key in piece.keys]
            offset += piece.frames
        try:
            info = verify_joined(
                output,
                asked,
                fps=fps,
                frames=offset,
                packet_bytes=sum(piece.packet_bytes for piece in group),
                key_frames=keys,
                ffprobe=toolchain.ffprobe,
            )
        except VerificationError as error:
            raise VerificationError(f"{place}: {error}") from None
        copied = sum(piece.frames for piece in group if piece.path.parent != self._piece_folder(stream))
        with self._progress.part(copied):
            return info

    def _copied_whole(self, piece: Piece, output: Path) -> StreamInfo | None:
        """Copy a file of the source as it is, where it is what joining its packets would make.

        Returns:
            what it holds; None where it is not, and its packets have to be joined.
        """
        info = piece.info
        if info is None or info.hidden or not piece.whole or not is_plain_mp4(piece.path):
            return None
        try:
            verify_joined(
                piece.path,
                piece.asked,
                fps=self._plan.source.fps,
                frames=piece.frames,
                packet_bytes=piece.packet_bytes,
                key_frames=piece.keys,
                read=lambda _: info,
            )
        except VerificationError:
            return None
        with self._progress.part(piece.frames):
            shutil.copyfile(piece.path, output)
        if not same_bytes(piece.path, output):
            raise VerificationError(
                f"{output} is not, to the byte, what was copied from {piece.path}: the file has "
                "changed since, or disk or memory is faulty"
            )
        return info

    def _piece_folder(self, stream: Stream) -> Path:
        return self._staging.pieces / stream.key

    def _pieces(self, stream: Stream, done: Mapping[tuple[str, int], PieceRecord]) -> Iterator[Piece]:
        """A camera's pieces in the order of the episodes; those that stand together are copied together."""
        source, run = self._plan.source, list[Clip]()
        checksum: str | None = None
        for episode in self._plan.episodes:
            self._cancellation.check()
            if episode.index in stream.copied:
                assert isinstance(source, HasVideos)
                video = source.video(stream.key, episode)
                clip = clip_of(video, source.fps)
                if run and (run[-1].path, run[-1].first + run[-1].frames) != (clip.path, clip.first):
                    yield copied_piece(run, source.fps, checksum)
                    run = []
                run.append(clip)
                checksum = None if video.part else video.checksum
                continue
            if run:
                yield copied_piece(run, source.fps, checksum)
                run = []
            one = done[stream.key, episode.index]
            assert one.path is not None
            assert stream.encoding is not None
            asked = {**one.asked, "configuration": one.configuration}
            yield Piece(
                *(one.path, 0, one.frames, (0,), (0,), one.bytes),
                *(one.packet_bytes, one.delay, True, stream.encoding.codec.tag, asked),
            )
        if run:
            yield copied_piece(run, source.fps, checksum)


def _failed(plan: JobPlan, failures: Failures) -> FfencError:
    """One error for all episodes that could not be encoded: which, why, and how to go on without them."""
    failures = sorted(failures, key=lambda one: (one[0].episode.index, one[0].key))
    numbers = {task.episode.index for task, _ in failures}
    kept = ranges_text([episode.index for episode in plan.episodes if episode.index not in numbers])
    lines = [
        f"  episode {task.episode.index}, {task.key}: {error.cause.removeprefix(_named_as(task))}"
        for task, error in failures[:_SHOWN]
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


def _named_as(task: PieceTask) -> str:
    """How an error of a task begins."""
    return f"{task.key}, episode {task.episode.index}: "


def _added_up(camera: Camera, packed: Sequence[str | None]) -> ValueCounts:
    """All episodes' counts of a camera's values."""
    per = {None: 255, "mm": 1, "m": 1000}[camera.unit]
    own = (ValueCounts.unpacked(one, channels=1 if camera.unit else 3, per=per) for one in packed if one)
    return reduce(add, own)


@contextmanager
def _damage_named(stream: Stream, piece: Piece, toolchain: Toolchain) -> Iterator[None]:
    """Say in an error which frame of a camera was damaged: ffmpeg decodes some even where it only copies."""
    try:
        yield
    except FfmpegError as error:
        try:
            if error.returncode >= 0 and piece.info is not None:
                read_through(Clip(piece.path, piece.info, piece.first, piece.frames), toolchain)
        except SourceError as damage:
            raise SourceError(f"{stream.key}: {damage}") from None
        error.args = (f"{stream.key}: {error}",)
        raise


class _Progress:
    """Adds up the frames of encodes that run at the same time."""

    def __init__(self, total: int, on_progress: Callable[[int, int], None] | None) -> None:
        self._total, self._report = total, on_progress
        self._lock = threading.Lock()
        self._done = 0
        self._parts: dict[int, int] = {}

    @contextmanager
    def part(self, frames: int) -> Iterator[Callable[[int], None]]:
        """Give a function that takes the count of one encode; all its frames are done when the block ends."""
        token = threading.get_ident()

        def report(count: int) -> None:
            with self._lock:
                self._parts[token] = min(count, frames)
                self._tell()

        yield report
        with self._lock:
            self._parts.pop(token, None)
            self._done += frames
            self._tell()

    def _tell(self) -> None:
        if self._report is not None:
            self._report(min(self._total, self._done + sum(self._parts.values())), self._total)
