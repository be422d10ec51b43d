"""The unit of work of a job: one episode of one camera.

A task is plain data, and gives the same bytes wherever it runs. An executor (``dataset/executors``)
determines where tasks run, and how many at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from msgspec import Struct, field
from msgspec.structs import replace

from ffenc.compiler.colour import COLOUR_TAGS
from ffenc.compiler.command import VideoInput
from ffenc.dataset.checksums import file_checksum
from ffenc.dataset.model import EpisodeRef, EpisodeVideo
from ffenc.dataset.staging import write_json
from ffenc.dataset.videos import clip_of
from ffenc.errors import FfmpegError, SourceError, VerificationError
from ffenc.ffmpeg.index import PieceReader
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.clip import Clip
from ffenc.frames.depth import DepthQuantizer, Unit
from ffenc.frames.depth_images import DepthSamples, DepthStatistics
from ffenc.frames.encode import encode_frames, verify_encoded
from ffenc.frames.encoding import Encoding
from ffenc.frames.header import ImageHeader
from ffenc.frames.publish import published
from ffenc.frames.sources import FrameSource, ReadAhead, using
from ffenc.frames.statistics import RgbHistogram, Stats, sample_tap
from ffenc.frames.transcode import clip_statistics, damage_named, transcode


class PieceTask(Struct, frozen=True):
    """The task of encoding one episode of one camera. It can be pickled.

    Attributes:
        key: the camera's feature.
        episode: the episode.
        frames: its images, or its place in a video file.
        fps: frames per second of the source.
        header: header of images.
        unit: unit of depth; None for colours.
        encoding: encoding of its frames; None: they are not encoded.
        copied: its packets are copied when files are joined; only statistics are computed here.
        size: width and height of the frames for statistics; None: no statistics.
        quantizer: quantiser of depth that is already video.
        toolchain: the programs that decode it, if it is not encoded.
        folder: folder of the piece and its record.
    """

    key: str
    episode: EpisodeRef
    frames: FrameSource | EpisodeVideo
    fps: Fraction
    header: ImageHeader | None
    unit: Unit | None
    encoding: Encoding | None
    copied: bool
    size: tuple[int, int] | None
    quantizer: DepthQuantizer | None
    toolchain: Toolchain
    folder: Path

    @property
    def name(self) -> str:
        """Name of the task in errors."""
        return f"{self.key}, episode {self.episode.index}"

    @property
    def counted(self) -> int:
        """Number of the job's frames that it completes: those that it encodes."""
        return 0 if self.copied else self.episode.length

    @property
    def threads(self) -> int:
        """Number of cores that it keeps busy."""
        return (self.encoding.encoder_threads if self.encoding is not None else None) or 1

    @property
    def device(self) -> str | None:
        """Name of the encoder if it uses a device; otherwise None."""
        encoding = self.encoding
        return encoding.codec.encoder if encoding and not self.copied and encoding.codec.hardware else None

    @property
    def programs(self) -> Toolchain:
        """The programs that it runs."""
        return self.encoding.toolchain if self.encoding is not None else self.toolchain

    def using(self, programs: Toolchain) -> PieceTask:
        """Return the task for a machine with the same programs at other paths."""
        encoding = replace(self.encoding, toolchain=programs) if self.encoding is not None else None
        if isinstance(self.frames, EpisodeVideo):
            frames: FrameSource | EpisodeVideo = replace(self.frames, ffprobe=programs.ffprobe)
        else:
            frames = using(self.frames, programs)
        return replace(self, frames=frames, toolchain=programs, encoding=encoding)

    def run(self, around: Surroundings) -> PieceRecord:
        """See :func:`run_piece`."""
        return run_piece(self, around)

    def clip(self, *, check: Callable[[], object] = lambda: None) -> Clip | None:
        """Return the frames in their video file, after checking them; None for images.

        Args:
            check: called again and again while the file is compared with its checksum; may raise.

        Raises:
            SourceError: the file does not contain them.
        """
        if not isinstance(self.frames, EpisodeVideo):
            return None
        return clip_of(self.frames, self.fps, check=check)

    @property
    def path(self) -> Path:
        """Path of the piece."""
        return self.folder / f"{_stem(self.episode)}.mp4"

    @property
    def record(self) -> Path:
        """Path of its record; if the record exists, the piece is complete."""
        return self.folder / record_name(self.episode)

    def asked(self, clip: Clip | None) -> Mapping[str, object]:
        """Return the expected stream fields of the piece."""
        return self.encoding.asked(_tags(clip)) if self.encoding and not self.copied else {}

    def statistics(self, frames: int) -> RgbHistogram | DepthStatistics | None:
        """Return an object that computes statistics of ``frames`` frames; None: no statistics."""
        if self.size is None:
            return None
        tap = sample_tap(frames, *self.size)
        return DepthStatistics(tap, self.unit) if self.unit is not None else RgbHistogram(tap)

    def fingerprint(self, clip: Clip | None) -> str:
        """Return a hash of all that determines the piece's bytes: frames, command, versions."""
        frames = clip.fingerprint() if clip is not None else self._source().fingerprint()
        encoding = self.encoding
        parts: list[Any] = [self.episode.length, self.size is not None, self.unit, frames]
        if encoding is not None and not self.copied:
            video = video_input(clip, encoding) if clip is not None else None
            if video is not None:
                parts.append(repr(video.excerpt))
            parts.append(_settings(_Kind.of(encoding, video)))
        elif self.quantizer is not None:
            parts.append(repr(self.quantizer))  # determines the statistics of copied codes
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _source(self) -> FrameSource:
        assert not isinstance(self.frames, EpisodeVideo)
        return self.frames


def record_name(episode: EpisodeRef) -> str:
    """Return the name of a piece's record in its camera's folder."""
    return f"{_stem(episode)}.json"


def _stem(episode: EpisodeRef) -> str:
    return f"episode-{episode.index:06d}"


class _Kind(Struct, frozen=True, eq=False):
    """Pieces whose commands differ only in file names and numbers.

    Attributes:
        key: a text that identifies the kind.
        encoding, video: of one of the pieces, without name and numbers.
    """

    key: str
    encoding: Encoding
    video: VideoInput | None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kind) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @classmethod
    def of(cls, encoding: Encoding, video: VideoInput | None) -> _Kind:
        """Return the kind of a piece."""
        if video is not None:
            asked = video.excerpt
            excerpt = replace(
                asked,
                spans=((0, 1),) * len(asked.spans),
                frames=min(asked.frames, 2),  # the command for a single frame differs
                seek=None if asked.seek is None else Fraction(1),
            )
            video = replace(video, path="", excerpt=excerpt)
        return cls(repr((encoding, video)), encoding, video)


@lru_cache(maxsize=256)
def _settings(kind: _Kind) -> str:
    """Return a hash of a kind's command and versions; cached, as compiling takes milliseconds."""
    encoding = kind.encoding
    parts = [
        encoding.command(Path("piece.mp4"), video=kind.video)[1:],
        repr(encoding.config),  # the command does not contain a depth camera's quantiser
        encoding.toolchain.version,
        encoding.encoder_version,
        *([encoding.transform.fields()] if encoding.transform is not None else []),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class PieceRecord(Struct, frozen=True):
    """The result of a task; for a piece that is only copied, its statistics.

    Attributes:
        frames: number of frames.
        path: the file; None if it is only copied.
        bytes, packet_bytes: size of the file and of its packets.
        configuration, delay: see ``StreamInfo``.
        stats: statistics of the episode, if computed.
        values: packed histogram.
        resumed: an earlier run had made it.
        outdated: an earlier run had made it with other settings, versions or frames.
        asked: expected stream fields of the file; they follow from the job, and are not recorded.
    """

    frames: int
    path: Path | None
    bytes: int
    packet_bytes: int
    configuration: str | None
    delay: int
    stats: Stats | None
    values: str | None
    resumed: bool
    outdated: bool = False
    asked: Mapping[str, object] = field(default_factory=dict)


class TakenUpTask(Struct, frozen=True):
    """A check of recorded pieces: which of them an earlier run has made in the same way.

    Attributes:
        pieces: tasks of one camera; checking many at once costs less than a task for each.
    """

    pieces: tuple[PieceTask, ...]
    counted: ClassVar[int] = 0
    threads: ClassVar[int] = 1
    device: ClassVar[str | None] = None

    @property
    def name(self) -> str:
        """Name of the task in errors."""
        first, last = self.pieces[0], self.pieces[-1]
        return f"{first.key}, episodes {first.episode.index} to {last.episode.index}"

    @property
    def programs(self) -> Toolchain:
        """The programs of the pieces."""
        return self.pieces[0].programs

    def using(self, programs: Toolchain) -> TakenUpTask:
        """Return the task for a machine with the same programs at other paths."""
        return replace(self, pieces=tuple(piece.using(programs) for piece in self.pieces))

    def run(self, around: Surroundings) -> list[PieceRecord | None]:
        """Return the record of each piece; None if it has to be made, or its source is damaged."""
        found: list[PieceRecord | None] = []
        for piece in self.pieces:
            around.cancellation.check()
            known = None
            with suppress(SourceError):
                clip = piece.clip(check=around.cancellation.check)
                known = _read_record(piece.path, piece.record, piece.fingerprint(clip))
                known = known and replace(known, asked=piece.asked(clip))
            found.append(known)
        return found


_AHEAD_BYTES = 256 << 20  # of raw pixels; longer episodes would take too much memory
_KEPT = ("frames", "bytes", "packet_bytes", "configuration", "delay", "stats", "values")


class Surroundings(Struct, frozen=True):
    """What an executor provides to tasks: limits, progress reports and cancellation.

    Attributes:
        progress: given the number of a piece's frames, yields a callback for the number done.
        slot: held while the encoder runs; not held during verification.
        cancellation: can stop the task from another thread.
    """

    progress: Callable[[int], AbstractContextManager[Callable[[int], None]]] = lambda _: nullcontext(
        lambda _: None
    )
    slot: AbstractContextManager[Any] = field(default_factory=nullcontext)
    cancellation: Cancellation = field(default_factory=Cancellation)


@lru_cache(maxsize=16)
def _reader(ffprobe: str, ffmpeg: str, encoder: str) -> PieceReader:
    """Return the reader of an encoder's pieces: the first of a kind with ffprobe, others from the index."""
    return PieceReader(ffprobe, ffmpeg, encoder)


def video_input(clip: Clip, encoding: Encoding) -> VideoInput | None:
    """Return the input for FFmpeg; None for depth that is transformed in this process, frame by frame."""
    if clip.depth and (encoding.transform is not None or clip.pick is not None):
        return None
    return clip.input()


def run_piece(task: PieceTask, around: Surroundings) -> PieceRecord:
    """Encode an episode of a camera, unless an earlier run has done so.

    Raises:
        SourceError: frames are missing or damaged.
        FfmpegError, VerificationError: the encode failed, or its result is not what was requested.
    """
    path, record = task.path, task.record
    clip = task.clip(check=around.cancellation.check)
    frames = clip if clip is not None else task._source()
    fingerprint = task.fingerprint(clip)
    asked = task.asked(clip)
    known = _read_record(path, record, fingerprint)
    if known is not None:
        with around.progress(task.counted):
            return replace(known, asked=asked)
    outdated = record.exists()
    record.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    statistics = task.statistics(len(frames))
    with _named(task):
        if clip is not None and statistics is not None:
            clip_statistics(
                clip,
                statistics,
                quantizer=task.quantizer,
                toolchain=task.programs,
                geometry=task.encoding.geometry if task.encoding else None,
                cancellation=around.cancellation,
            )
        if task.copied:
            done = PieceRecord(task.episode.length, None, 0, 0, None, 0, None, None, resumed=False)
        else:
            done = _encode(task, clip, path, None if clip is not None else statistics, around)
    stats = statistics.statistics() if statistics else None
    values = statistics.values().packed() if statistics else None
    done = replace(done, stats=stats, values=values, outdated=outdated, asked=asked)
    write_record(record, done, fingerprint)
    return done


def write_record(record: Path, done: PieceRecord, fingerprint: str) -> None:
    """Record that a piece is complete, for ``--resume``.

    Args:
        record: path of the record.
        done: the result.
        fingerprint: see :meth:`PieceTask.fingerprint`.
    """
    content = {"fingerprint": fingerprint} | {name: getattr(done, name) for name in _KEPT}
    write_json(record, content | {"sha256": file_checksum(done.path) if done.path else None})


def _encode(
    task: PieceTask,
    clip: Clip | None,
    path: Path,
    statistics: RgbHistogram | DepthStatistics | None,
    around: Surroundings,
) -> PieceRecord:
    encoding = task.encoding
    assert encoding is not None
    sent: Callable[[int, int], Sequence[int]] | None = None
    with around.progress(task.episode.length) as on_frames, published(path) as temporary:
        if clip is not None:
            with around.slot:
                sent = transcode(
                    encoding, clip, temporary, on_frames=on_frames, cancellation=around.cancellation
                )
        else:
            assert task.header is not None
            depth = DepthSamples(encoding.config, task.unit) if task.unit is not None else None
            source = task._source()
            ahead = task.episode.length * task.header.raw_bytes <= _AHEAD_BYTES
            # The first image is read while the encoders of other tasks fill the cores.
            with ReadAhead(source) if ahead else nullcontext(source) as frames, around.slot:
                encode_frames(
                    encoding,
                    frames,
                    task.header,
                    temporary,
                    depth=depth,
                    statistics=statistics,
                    on_frames=on_frames,
                    cancellation=around.cancellation,
                )
            sent = depth.sent if depth else None
        with damage_named(clip, encoding.toolchain) if clip is not None else nullcontext():
            info = verify_encoded(
                encoding,
                temporary,
                task.episode.length,
                sent,
                around.cancellation,
                _tags(clip),
                _reader(encoding.toolchain.ffprobe, encoding.toolchain.version, encoding.codec.encoder).read,
            )
    size, packet_bytes, delay = path.stat().st_size, sum(info.sizes or ()), info.decode_delay
    return PieceRecord(
        *(task.episode.length, path, size, packet_bytes, info.configuration, delay, None, None), resumed=False
    )


def _tags(clip: Clip | None) -> Mapping[str, str]:
    """Return the colour tags for an encode of images, or of a clip."""
    return COLOUR_TAGS if clip is None else clip.tags


@contextmanager
def _named(task: PieceTask) -> Iterator[None]:
    """Name camera and episode in an error."""
    try:
        yield
    except (FfmpegError, VerificationError, SourceError) as error:
        if isinstance(error, SourceError) and task.header is not None:
            raise  # the image's name contains it
        error.within(task.name)
        raise


def _read_record(path: Path, record: Path, fingerprint: str) -> PieceRecord | None:
    """Return the piece of an earlier run, if it is complete and was made in the same way."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        size = path.stat().st_size if content["bytes"] else 0
        if content["fingerprint"] != fingerprint or content["bytes"] != size:
            return None
        if size and content["sha256"] != file_checksum(path):  # damaged since, without a change of its size
            return None
        own = {name: content[name] for name in _KEPT}
        return PieceRecord(**own, path=path if size else None, resumed=True)
    except (OSError, ValueError, LookupError, TypeError):
        return None
