"""Tasks that copy packets: the copied parts of a source's file, and the files joined from pieces.

Like the tasks that encode (``dataset/job/piece.py``) they are plain data, and run wherever the executor runs
them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from msgspec.structs import replace

from ffenc.dataset.checksums import copy_file, file_checksum, same_bytes
from ffenc.dataset.job.piece import Surroundings
from ffenc.dataset.job.pieces import Piece, asked_of, copied_piece
from ffenc.dataset.model import EpisodeVideo
from ffenc.dataset.verify.metadata import brief
from ffenc.dataset.videos import clip_of, compare_checksum
from ffenc.errors import FfmpegError, SourceError, VerificationError
from ffenc.ffmpeg.boxes import check_complete
from ffenc.ffmpeg.index import index_reader
from ffenc.ffmpeg.join import Joined, cut_file, join_files
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.probe import StreamInfo, probe
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.clip import Clip
from ffenc.frames.transcode import read_through
from ffenc.frames.verify import verify_joined
from ffenc.spelling import call
from ffenc.storage.mirror import held
from ffenc.temporary import temporary_folder

if TYPE_CHECKING:
    from typing_extensions import Self


class _CopyTask(Struct, frozen=True, eq=False):
    """The common parts of tasks that copy; see :class:`~ffenc.dataset.executors.local.Task`."""

    key: str
    fps: Fraction
    programs: Toolchain
    threads: ClassVar[int] = 1
    device: ClassVar[str | None] = None

    def using(self, programs: Toolchain) -> Self:
        return replace(self, programs=programs)


class LookTask(_CopyTask, frozen=True, eq=False):
    """A file of a source, with the episodes in it whose packets are copied.

    Attributes:
        key: the camera's feature.
        fps: frames per second.
        programs: the programs.
        videos: the episodes, in the order of the result.
    """

    videos: tuple[EpisodeVideo, ...]

    def using(self, programs: Toolchain) -> Self:
        videos = tuple(replace(video, ffprobe=programs.ffprobe) for video in self.videos)
        return replace(self, programs=programs, videos=videos)

    @property
    def name(self) -> str:
        """Name of the task in errors."""
        return f"{self.key}, {self.videos[0].path.name}"

    @property
    def counted(self) -> int:
        """Number of the job's frames that it completes."""
        return 0

    def run(self, around: Surroundings) -> list[Piece]:
        """Return them as pieces: episodes that are consecutive in the file are one piece.

        Raises:
            SourceError: the file does not contain them, or they cannot be copied.
        """
        pieces: list[Piece] = []
        run: list[Clip] = []
        last = self.videos[-1]

        def ended() -> Piece:
            return copied_piece(run, self.fps, last.checksum, part=last.part)

        for video in self.videos:
            around.cancellation.check()
            clip = clip_of(video, self.fps, compare=False)  # the task that copies it compares the checksum
            if run and run[-1].first + run[-1].frames != clip.first:
                pieces.append(ended())
                run = []
            run.append(clip)
        return [*pieces, ended()]


_MOST_PICKED = 100  # pieces selected inside their files; each adds a term that is evaluated per packet


class JoinRecord(Struct, frozen=True):
    """A file of the result.

    Attributes:
        info: stream fields read back from it, without frame positions.
        bytes: its size.
        checksum: its SHA-256.
    """

    info: StreamInfo
    bytes: int
    checksum: str


class JoinTask(_CopyTask, frozen=True, eq=False):
    """A file of the result, and the pieces that it is joined from.

    Attributes:
        key: the camera's feature.
        fps: frames per second.
        programs: the programs.
        place: the file's path in the dataset.
        dataset: the dataset's folder.
        cuts: folder for parts that are cut out of a source, on the same disk.
        pieces: in order, with the same decoder configuration.
    """

    place: str
    dataset: Path
    cuts: Path
    pieces: tuple[Piece, ...]

    @property
    def name(self) -> str:
        """Name of the task in errors."""
        return self.place

    @property
    def counted(self) -> int:
        """Number of the job's frames that it completes: those of a source."""
        return sum(piece.frames for piece in self.pieces if piece.copied)

    @property
    def starts(self) -> list[int]:
        """Index of the first frame of each episode in the file."""
        starts: list[int] = []
        offset = 0
        for piece in self.pieces:
            starts += [offset + start for start in piece.starts]
            offset += piece.frames
        return starts

    def run(self, around: Surroundings) -> JoinRecord:
        """Write the file; it is flushed to disk when this returns.

        Raises:
            SourceError: the source is damaged.
            FfmpegError, VerificationError: joining failed, or the result does not match the pieces.
        """
        with around.progress(self.counted), temporary_folder(self.cuts) as folder:
            # In a folder outside of the dataset, because this process may be killed.
            made = Path(folder) / "joined.mp4"
            info, checksum = self._make(made, around)
            done = JoinRecord(
                info, made.stat().st_size, checksum or file_checksum(made, check=around.cancellation.check)
            )
            output = self.dataset / self.place
            output.parent.mkdir(parents=True, exist_ok=True)
            with made.open("rb") as file:
                os.fsync(file.fileno())
            made.replace(output)
        return done

    def _make(self, made: Path, around: Surroundings) -> tuple[StreamInfo, str | None]:
        """Write the file; return the stream fields read back, and its SHA-256 if known."""
        first = self.pieces[0]
        if len(self.pieces) == 1 and first.plain is not None:
            return first.plain, self._copy(first, made, around.cancellation)
        parts: list[Joined] = []
        picked = len(self.pieces) <= _MOST_PICKED
        for number, piece in enumerate(self.pieces):
            path = piece.path
            if picked and piece.of is not None:
                parts.append(Joined(path, piece.frames, piece.delay, piece.first, piece.of))
                continue
            if not piece.whole:
                path = made.with_name(f"cut-{number:06d}.mp4")
                with self._damage_named(piece):
                    cut_file(
                        piece.path,
                        path,
                        first=piece.first,
                        frames=piece.frames,
                        fps=self.fps,
                        tag=piece.tag,
                        toolchain=self.programs,
                        cancellation=around.cancellation,
                    )
            parts.append(Joined(path, piece.frames, piece.delay))
        tag, asked = first.tag, first.asked
        if parts[0].path != first.path:  # cut out, so the container may differ
            like = probe(parts[0].path, ffprobe=self.programs.ffprobe)
            tag, asked = like.tag, asked_of(like)
        with ThreadPoolExecutor(1, thread_name_prefix="ffenc-sum") as beside:
            # Both read the same bytes, and neither keeps a whole core busy.
            compared = beside.submit(self._compare_sources, around.cancellation)
            try:
                join_files(
                    parts,
                    made,
                    fps=self.fps,
                    tag=tag,
                    toolchain=self.programs,
                    cancellation=around.cancellation,
                )
            except FfmpegError as error:
                for path in dict.fromkeys(piece.path for piece in self.pieces if piece.copied):
                    _check_complete(path)
                error.within(self.name)
                raise
            finally:
                compared.result()  # that a source is damaged is more informative than FFmpeg's error
        keys: list[int] = []
        offset = 0
        for piece in self.pieces:
            keys += [offset + key for key in piece.keys]
            offset += piece.frames
        try:
            info = verify_joined(
                made,
                asked,
                fps=self.fps,
                frames=offset,
                packet_bytes=sum(piece.packet_bytes for piece in self.pieces),
                key_frames=keys,
                read=index_reader(self.programs.ffprobe).read,
            )
        except VerificationError as error:
            raise error.within(self.place) from None
        return brief(info, self.starts), None

    def _copy(self, piece: Piece, made: Path, cancellation: Cancellation) -> str:
        """Copy a whole file; return its SHA-256, computed from the copy.

        Raises:
            SourceError: the file does not match its checksum.
            VerificationError: the copy differs from the file.
        """
        with held(piece.path):
            copy_file(piece.path, made)
            found = file_checksum(made, check=cancellation.check)
            # A copy with the source's recorded checksum is equal to the source, and undamaged.
            if found != piece.checksum:
                if not same_bytes(piece.path, made):
                    raise VerificationError(
                        f"{self.place} is not, to the byte, what was copied from {piece.path}: the file has "
                        "changed since, or disk or memory is faulty"
                    )
                compare_checksum(piece.path, piece.checksum, piece.part, check=cancellation.check)
        return found

    def _compare_sources(self, cancellation: Cancellation) -> None:
        """Compare the source files whose packets are copied with their checksums.

        Raises:
            SourceError: a file does not match.
        """
        for path, (checksum, part) in {p.path: (p.checksum, p.part) for p in self.pieces if p.copied}.items():
            compare_checksum(path, checksum, part, check=cancellation.check)

    @contextmanager
    def _damage_named(self, piece: Piece) -> Iterator[None]:
        """Name the damaged frame in an error: ffmpeg decodes some frames even if it only copies."""
        try:
            yield
        except FfmpegError as error:
            try:
                _check_complete(piece.path)
                if error.returncode >= 0 and not error.unable:
                    info = probe(piece.path, times=True, ffprobe=self.programs.ffprobe)
                    read_through(Clip(piece.path, info, piece.first, piece.frames), self.programs)
            except SourceError as damage:
                raise damage.within(self.key) from None
            error.within(self.key)
            raise


def _check_complete(path: Path) -> None:
    """Refuse a source file whose end is missing; FFmpeg's error for it names no file."""
    repair = call("repair_dataset", source="DATASET", destination="NEW")
    check_complete(path, advice=f"restore the file, or write what is left to a new dataset: {repair}")
