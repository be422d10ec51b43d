"""Re-encode a dataset of images into a dataset of video."""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

from ffenc.codecs.table import codec_for
from ffenc.config.framerate import fps_number, parse_fps
from ffenc.config.preset import KeyPath, RobotPreset, chosen_cameras, load_preset
from ffenc.dataset.info_block import info_block
from ffenc.dataset.lerobot import LeRobotImages
from ffenc.dataset.lerobot_v21 import LeRobotImagesV21
from ffenc.dataset.png_tree import PngTree
from ffenc.dataset.source import VIDEO_PATH, Camera, DatasetSource, Episode
from ffenc.dataset.staging import Staging, check_destination, write_json
from ffenc.dataset.tables import TableWriter, VideoPlace
from ffenc.errors import ConfigError, DestinationError, FfmpegError, SourceError, VerificationError
from ffenc.ffmpeg.join import join_files
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.ffmpeg.process import Cancellation
from ffenc.ffmpeg.toolchain import toolchains
from ffenc.frames.depth import Unit
from ffenc.frames.depth_images import DepthSamples, DepthStatistics
from ffenc.frames.encode import encode_frames, first_frames, frame_format, published, verify_encoded
from ffenc.frames.encoding import Encoding
from ffenc.frames.images import ImageHeader
from ffenc.frames.info_json import read_json
from ffenc.frames.prepare import Absent, prepare
from ffenc.frames.sources import EncodedFrame
from ffenc.frames.statistics import RgbHistogram, Stats, sample_tap
from ffenc.jobs.pool import run_units, share_cores

DEFAULT_TASK = "unspecified"
SAMPLE_FRAMES = 60
_MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Stream:
    """One camera of a job.

    Attributes:
        camera: its feature key.
        header: kind and size of its images.
        encoding: how it is encoded.
        compute_stats: the source has no statistics of it.
        image_bytes: bytes its images take.
        unit: what its depth is in, ``mm`` or ``m``; None for a camera of colours.
    """

    camera: str
    header: ImageHeader
    encoding: Encoding
    compute_stats: bool
    image_bytes: int
    unit: Unit | None = None

    def depth_samples(self) -> DepthSamples | None:
        """What makes samples of a depth camera's maps."""
        return DepthSamples(self.encoding.config, self.unit) if self.unit is not None else None

    def statistics(self, frames: int) -> RgbHistogram | DepthStatistics | None:
        """What counts the statistics of so many frames, where the source has none."""
        if not self.compute_stats:
            return None
        tap = sample_tap(frames, self.header.width, self.header.height)
        return DepthStatistics(tap, self.unit) if self.unit is not None else RgbHistogram(tap)


@dataclass(frozen=True)
class ReencodePlan:
    """What a job will do, checked as far as it can be before the first frame.

    Attributes:
        source: what is read.
        destination: the dataset to write.
        episodes: those chosen.
        streams: one a camera.
        workers: encodes at once.
    """

    source: DatasetSource
    destination: Path
    episodes: list[Episode]
    streams: list[Stream]
    workers: int

    @property
    def rows(self) -> int:
        """Frames of one camera."""
        return sum(episode.length for episode in self.episodes)

    @property
    def frames(self) -> int:
        """Frames of all cameras."""
        return self.rows * len(self.streams)

    def commands(self) -> dict[str, list[str]]:
        """Each camera's command line, for its first episode."""
        return {
            s.camera: s.encoding.command(
                Path(VIDEO_PATH.format(video_key=s.camera, chunk_index=0, file_index=0))
            )
            for s in self.streams
        }


@dataclass(frozen=True)
class Estimate:
    """What a short sample says of a whole job: bytes of video, seconds of work, frames the sample had."""

    video_bytes: int
    seconds: float
    sampled_frames: int


@dataclass
class ReencodeSummary:
    """What a job did.

    Attributes:
        destination: the dataset.
        episodes: how many.
        frames: of all cameras.
        image_bytes, video_bytes: of the chosen cameras before and after.
        seconds: of this run.
        resumed: encodes that an earlier run had finished.
        outdated: encodes of an earlier run that did not fit: other settings, versions or frames.
        cameras: for each, its codec, encoder and bytes.
    """

    destination: Path
    episodes: int
    frames: int
    image_bytes: int
    video_bytes: int = 0
    seconds: float = 0.0
    resumed: int = 0
    outdated: int = 0
    cameras: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """How many times smaller the video is."""
        return self.image_bytes / self.video_bytes if self.video_bytes else 0.0


@dataclass(frozen=True)
class _Unit:
    """One episode of one camera: the piece of work that is done, or not."""

    stream: Stream
    episode: Episode


@dataclass(frozen=True)
class _Piece:
    """A finished unit."""

    path: Path
    frames: int
    bytes: int
    configuration: str | None
    stats: Stats | None
    resumed: bool
    outdated: bool = False


def open_source(
    root: str | Path,
    *,
    fps: int | float | str | Fraction | None,
    task: str | None = None,
    robot_type: str | None = None,
    cameras: Sequence[str] | None = None,
    start_number: int | None = None,
) -> DatasetSource:
    """Open a LeRobot image dataset or a PNG tree.

    Args:
        root: its folder.
        fps: frames a second of a PNG tree; a dataset has its own.
        task, robot_type, cameras, start_number: see :class:`PngTree`.

    Raises:
        SourceError: neither, or damaged.
        ConfigError: a PNG tree without a frame rate, or a frame rate that is not the dataset's.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder")
    if (folder / "meta/info.json").is_file():
        version = str(read_json(folder / "meta/info.json").get("codebase_version"))
        dataset = (LeRobotImagesV21 if version.startswith("v2") else LeRobotImages)(folder)
        for name, value in (("--task", task), ("--start-number", start_number)):
            if value is not None:
                raise ConfigError(f"{name} is for PNG trees; this is a dataset, which has its own")
        return dataset
    if fps is None:
        raise ConfigError(
            f"{folder} is a tree of images, which has no frame rate: say --fps, or use a --preset"
        )
    return PngTree(
        folder,
        fps=parse_fps(fps),
        task=DEFAULT_TASK if task is None else task,
        robot_type=robot_type,
        cameras=cameras,
        start_number=start_number,
    )


def plan_reencode(
    source: str | Path,
    destination: str | Path,
    *,
    preset: str | Path | RobotPreset | None = None,
    overrides: Sequence[tuple[KeyPath, Any]] = (),
    cameras: Sequence[str] | None = None,
    episodes: Sequence[int] | None = None,
    fps: int | float | str | Fraction | None = None,
    task: str | None = None,
    start_number: int | None = None,
    workers: int | None = None,
    encoder_threads: int | None = None,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
) -> ReencodePlan:
    """Check everything that can be checked before the first frame, and choose the encoders.

    The arguments are those of :func:`reencode_dataset`.
    """
    target = Path(destination)
    check_destination(target)
    if isinstance(preset, RobotPreset) and overrides:
        raise ConfigError("overrides are for a preset that is named; give them to load_preset")
    robot = preset if isinstance(preset, RobotPreset) else load_preset(preset, overrides)
    _refuse_nesting(Path(source), target)
    said = robot.fps if any(key == ("fps",) for key, _ in overrides) else None
    fps = said if fps is None else fps
    opened = open_source(
        source,
        fps=robot.fps if fps is None and preset is not None else fps,
        task=task,
        robot_type=robot.robot_type,
        cameras=cameras,
        start_number=start_number,
    )
    if fps is not None and parse_fps(fps) != opened.fps:
        raise ConfigError(
            f"--fps {fps} is not the dataset's {fps_number(opened.fps)}; --fps is for PNG trees"
        )
    chosen = _choose_cameras(opened, cameras)
    picked = _choose_episodes(opened, episodes)
    count, threads = share_cores(len(chosen) * len(picked), workers, encoder_threads or robot.encoder_threads)
    candidates = toolchains(ffmpeg, ffprobe)
    streams: list[Stream] = []
    prepared: dict[str, Encoding] = {}
    absent: Absent = {}
    for camera in chosen:
        config = robot.encoder_for(camera.key, depth=camera.depth)
        header = camera.header
        same = json.dumps([repr(config), header.width, header.height, header.format])
        try:
            if same not in prepared:
                frames = opened.frames(camera.key, picked[0])
                prepared[same] = prepare(
                    config,
                    first_frames(frames, header, config, 2, camera.unit),
                    width=header.width,
                    height=header.height,
                    fps=opened.fps,
                    frames=frame_format(header, config),
                    encoder_threads=threads,
                    candidates=candidates,
                    absent=absent,
                )
        except ConfigError as error:
            raise ConfigError(f"camera {camera.key}: {error}") from None
        known = camera.key in opened.stats() and opened.has_episode_stats(camera.key)
        size = opened.image_bytes(camera.key, picked)
        streams.append(Stream(camera.key, header, prepared[same], not known, size, camera.unit))
    return ReencodePlan(opened, target, picked, streams, count)


def reencode_dataset(
    source: str | Path,
    destination: str | Path,
    *,
    preset: str | Path | RobotPreset | None = None,
    overrides: Sequence[tuple[KeyPath, Any]] = (),
    cameras: Sequence[str] | None = None,
    episodes: Sequence[int] | None = None,
    fps: int | float | str | Fraction | None = None,
    task: str | None = None,
    start_number: int | None = None,
    workers: int | None = None,
    encoder_threads: int | None = None,
    resume: bool = False,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ReencodeSummary:
    """Re-encode a dataset of images into a LeRobot v3.0 video dataset.

    The destination appears whole and verified, or not at all; the source is only read. Finished episodes
    of a run that was ended are kept in a hidden folder beside the destination for ``resume``.

    Args:
        source: a LeRobot v3.0, v2.1 or v2.0 image dataset, or a PNG or JPEG tree.
        destination: the folder to write; must not exist, or be empty.
        preset: a robot's preset, its name or path; None for the default settings.
        overrides: see :func:`ffenc.load_preset`.
        cameras: which to keep, with or without ``observation.images.``; None: all.
        episodes: which to keep, by number; None: all.
        fps: frames a second of a PNG tree; else the preset's. A dataset's own holds.
        task: the task's text, for a PNG tree.
        start_number: number of a PNG tree's first frames; by default 0 or 1.
        workers: encodes at once; by default one a core.
        encoder_threads: threads an encoder may use; by default the preset's, else the cores' share.
        resume: take up what an interrupted run has left.
        ffmpeg, ffprobe: programs to use instead of those found.
        on_progress: called with frames done and frames in all, from any thread.

    Raises:
        SourceError: frames missing, damaged or unlike each other.
        ConfigError: settings that cannot be used.
        DestinationError: the destination is taken or cannot be written.
        ToolchainError: no FFmpeg here can do it.
        FfmpegError, VerificationError: an encode failed, or its result is not what was asked for.
    """
    plan = plan_reencode(
        source,
        destination,
        preset=preset,
        overrides=overrides,
        cameras=cameras,
        episodes=episodes,
        fps=fps,
        task=task,
        start_number=start_number,
        workers=workers,
        encoder_threads=encoder_threads,
        ffmpeg=ffmpeg,
        ffprobe=ffprobe,
    )
    return run_plan(plan, resume=resume, on_progress=on_progress)


def run_plan(
    plan: ReencodePlan, *, resume: bool = False, on_progress: Callable[[int, int], None] | None = None
) -> ReencodeSummary:
    """Do what a plan says; see :func:`reencode_dataset`."""
    began = time.monotonic()
    try:
        with Staging(plan.destination, resume=resume) as staging:
            job = _Job(plan, staging, on_progress)
            summary = job.run()
    except OSError as error:
        raise DestinationError(
            f"{plan.destination} cannot be written: {error.strerror or error}. Finished episodes are kept: "
            "once there is room, go on with --resume"
        ) from error
    summary.seconds = time.monotonic() - began
    return summary


def estimate(plan: ReencodePlan) -> Estimate:
    """Encode the first frames of every camera to learn how large and how long the whole job will be."""
    video_bytes, seconds, sampled = 0.0, 0.0, 0
    with tempfile.TemporaryDirectory(prefix="ffenc-") as folder:
        for stream in plan.streams:
            frames = _First(plan.source.frames(stream.camera, plan.episodes[0]), SAMPLE_FRAMES)
            output = Path(folder) / "sample.mp4"
            began = time.monotonic()
            encode_frames(stream.encoding, frames, stream.header, output, depth=stream.depth_samples())
            seconds += (time.monotonic() - began) / len(frames) * plan.rows
            video_bytes += output.stat().st_size / len(frames) * plan.rows
            sampled += len(frames)
    return Estimate(round(video_bytes), seconds / plan.workers, sampled)


def _refuse_nesting(source: Path, destination: Path) -> None:
    """A source is only read; a result inside it would change it."""
    outer, inner = source.resolve(), destination.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise DestinationError(f"{destination} and {source} are inside each other; choose a folder beside it")


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


def _choose_cameras(source: DatasetSource, names: Sequence[str] | None) -> list[Camera]:
    keys = [camera.key for camera in source.cameras]
    wanted = keys if names is None else chosen_cameras(keys, names)
    cameras = [camera for camera in source.cameras if camera.key in wanted]
    if not cameras:
        raise ConfigError("--cameras names no camera")
    return cameras


def _choose_episodes(source: DatasetSource, numbers: Sequence[int] | None) -> list[Episode]:
    if numbers is None:
        return source.episodes
    known = {episode.index: episode for episode in source.episodes}
    unknown = sorted(set(numbers) - set(known))
    if unknown or not numbers:
        what = f"there is no episode {unknown[0]}" if unknown else "no episode is named"
        raise ConfigError(f"--episodes: {what}; there are {min(known)} to {max(known)}")
    return [known[number] for number in sorted(set(numbers))]


class _Job:
    """One run of a plan."""

    def __init__(
        self, plan: ReencodePlan, staging: Staging, on_progress: Callable[[int, int], None] | None
    ) -> None:
        self._plan, self._staging = plan, staging
        self._progress = _Progress(plan.frames, on_progress)
        self._cancellation = Cancellation()
        # An encode holds a slot while its process runs; the thread goes on to verify without one, so that
        # the next encode starts meanwhile.
        self._slots = threading.Semaphore(plan.workers)

    def run(self) -> ReencodeSummary:
        plan = self._plan
        pieces: dict[tuple[str, int], _Piece] = {}
        units = (_Unit(stream, episode) for episode in plan.episodes for stream in plan.streams)
        for unit, piece in run_units(
            units, self._encode, threads=plan.workers + 1, stop=self._cancellation.cancel
        ):
            pieces[unit.stream.camera, unit.episode.index] = piece
        summary = ReencodeSummary(
            plan.destination,
            len(plan.episodes),
            plan.frames,
            image_bytes=sum(stream.image_bytes for stream in plan.streams),
            resumed=sum(piece.resumed for piece in pieces.values()),
            outdated=sum(piece.outdated for piece in pieces.values()),
        )
        videos, blocks, stats = {}, {}, {}
        for stream in plan.streams:
            own = [pieces[stream.camera, episode.index] for episode in plan.episodes]
            videos[stream.camera], info, size = self._join(stream, own)
            blocks[stream.camera] = info_block(info, stream.encoding, stream.unit)
            if stream.compute_stats:
                stats[stream.camera] = [piece.stats for piece in own if piece.stats is not None]
            summary.video_bytes += size
            summary.cameras[stream.camera] = {
                **{name: blocks[stream.camera][f"video.{name}"] for name in ("codec", "pix_fmt", "encoder")},
                "image_bytes": stream.image_bytes,
                "video_bytes": size,
            }
        TableWriter(
            plan.source,
            self._staging.dataset,
            episodes=plan.episodes,
            cameras=[stream.camera for stream in plan.streams],
            videos=videos,
            blocks=blocks,
            image_stats=stats,
        ).write()
        self._staging.publish()
        return summary

    def _encode(self, unit: _Unit) -> _Piece:
        """Encode one episode of one camera, unless an earlier run has done so."""
        stream, episode = unit.stream, unit.episode
        frames = self._plan.source.frames(stream.camera, episode)
        path = self._staging.pieces / stream.camera / f"episode-{episode.index:06d}.mp4"
        record = path.with_suffix(".json")
        fingerprint = self._fingerprint(unit, frames.fingerprint())
        known = _read_record(path, record, fingerprint)
        if known is not None:
            with self._progress.part(known.frames):
                return known
        outdated = record.exists()
        record.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        depth, statistics = stream.depth_samples(), stream.statistics(len(frames))
        with _named(unit), self._progress.part(episode.length) as on_frames, published(path) as temporary:
            with self._slots:
                encode_frames(
                    stream.encoding,
                    frames,
                    stream.header,
                    temporary,
                    depth=depth,
                    statistics=statistics,
                    on_frames=on_frames,
                    cancellation=self._cancellation,
                )
            info = verify_encoded(stream.encoding, temporary, episode.length, depth, self._cancellation)
        stats = statistics.statistics() if statistics else None
        piece = _Piece(path, episode.length, path.stat().st_size, info.extradata_hash, stats, False, outdated)
        content = {"fingerprint": fingerprint, "frames": piece.frames, "bytes": piece.bytes}
        write_json(record, {**content, "configuration": piece.configuration, "stats": stats})
        return piece

    def _fingerprint(self, unit: _Unit, frames: str) -> str:
        encoding = unit.stream.encoding
        parts = [
            encoding.command(Path("piece.mp4"))[1:],
            repr(encoding.config),  # a depth camera's quantiser is not in the command
            unit.stream.unit,
            encoding.toolchain.version,
            encoding.encoder_version,
            unit.episode.length,
            unit.stream.compute_stats,
            frames,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _join(self, stream: Stream, pieces: Sequence[_Piece]) -> tuple[list[VideoPlace], StreamInfo, int]:
        """Join a camera's pieces into files up to the size limit; every episode starts on a key frame."""
        source_info = self._plan.source.info()
        limit = float(source_info.get("video_files_size_in_mb") or 200) * _MEGABYTE
        chunks_size = int(source_info.get("chunks_size") or 1000)
        places: list[VideoPlace] = []
        first: StreamInfo | None = None
        total = 0
        for number, group in enumerate(_groups(pieces, limit)):
            chunk, file = divmod(number, chunks_size)
            place = VIDEO_PATH.format(video_key=stream.camera, chunk_index=chunk, file_index=file)
            output = self._staging.dataset / place
            output.parent.mkdir(parents=True, exist_ok=True)
            codec = codec_for(stream.encoding.config.vcodec)
            join_files(
                [piece.path for piece in group],
                output,
                fps=stream.encoding.fps,
                tag=codec.tag,
                toolchain=stream.encoding.toolchain,
                cancellation=self._cancellation,
            )
            starts = [sum(piece.frames for piece in group[:i]) for i in range(len(group))]
            info = stream.encoding.verify(output, sum(piece.frames for piece in group), starts)
            if info.extradata_hash != group[0].configuration:
                raise VerificationError(
                    f"{place}: the decoder configuration changed while its episodes were joined"
                )
            places += [VideoPlace(chunk, file, start) for start in starts]
            total += output.stat().st_size
            first = first or info
        assert first is not None
        return places, first, total


@contextmanager
def _named(unit: _Unit) -> Iterator[None]:
    """Say in an error which episode of which camera it is about."""
    try:
        yield
    except (FfmpegError, VerificationError) as error:
        error.args = (f"{unit.stream.camera}, episode {unit.episode.index}: {error}",)
        raise


def _groups(pieces: Sequence[_Piece], limit: float) -> Iterator[list[_Piece]]:
    """Cut a camera's pieces into files: below the limit, and with one decoder configuration each."""
    group: list[_Piece] = []
    size = 0
    for piece in pieces:
        full = size + piece.bytes > limit
        if group and (full or piece.configuration != group[0].configuration):
            yield group
            group, size = [], 0
        group.append(piece)
        size += piece.bytes
    yield group


def _read_record(path: Path, record: Path, fingerprint: str) -> _Piece | None:
    """Return the piece of an earlier run, if whole and made from the same frames in the same way."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        size = path.stat().st_size
    except (OSError, ValueError):
        return None
    if content.get("fingerprint") != fingerprint or content.get("bytes") != size:
        return None
    return _Piece(path, content["frames"], size, content["configuration"], content["stats"], resumed=True)


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
