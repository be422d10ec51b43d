"""Pieces that the files of a video dataset are joined from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from ffenc.config.framerate import frame_ticks, time_scale
from ffenc.dataset.model import EpisodeRef
from ffenc.dataset.source import DatasetSource
from ffenc.dataset.verify.metadata import brief
from ffenc.dataset.videos import clip_of
from ffenc.errors import SourceError, VerificationError
from ffenc.ffmpeg.boxes import is_plain_mp4
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.frames.clip import Clip
from ffenc.frames.joining import why_not_copied
from ffenc.frames.verify import verify_joined
from ffenc.parallel.pool import run_units, share_cores
from ffenc.spelling import call

FILES_LOOKED_AT = 32
_ALIKE = ("codec", "configuration")  # fields that the pieces of a file share


class Piece(Struct, frozen=True):
    """Packets that are joined together: one encoded episode, or consecutive episodes of a source's file.

    Attributes:
        path: their file.
        first, frames: index of the first frame, and number of frames.
        starts: first frame of each episode, relative to ``first``.
        keys: those of ``starts`` that are key frames.
        bytes, packet_bytes: approximate size of the file, exact size of the packets.
        delay: its ``StreamInfo.decode_delay``.
        whole: the file contains nothing else, no audio either, and has ffenc's time base; otherwise it is cut
            first.
        tag: stream tag in MP4.
        asked: expected fields of ``StreamInfo`` of a file that begins with it, ``codec`` and
            ``configuration`` included.
        copied: it is a part of a source, not encoded by this job.
        of: number of frames of the file, if frames can be selected while joining; None if they have to be cut
            out first.
        plain: stream fields of the file, if joining its packets alone would give the same file.
        checksum: recorded SHA-256 of a copied file; the task that copies it compares it.
        part: some of the file's episodes are not copied.
    """

    path: Path
    first: int
    frames: int
    starts: tuple[int, ...]
    keys: tuple[int, ...]
    bytes: int
    packet_bytes: int
    delay: int
    whole: bool
    tag: str | None
    asked: Mapping[str, object]
    copied: bool = False
    of: int | None = None
    plain: StreamInfo | None = None
    checksum: str | None = None
    part: bool = False


def uncopied(source: DatasetSource, key: str, episodes: Sequence[EpisodeRef]) -> dict[int, str]:
    """Return index -> reason and file for a camera's episodes whose packets cannot be copied.

    For a camera with more than :data:`FILES_LOOKED_AT` files, only this number of evenly spaced files is
    probed, because listing all packets would take minutes. Other faults are found when a file is copied,
    which a job does before it encodes.

    Args:
        source: the source.
        key: the camera.
        episodes: the episodes to check.

    Raises:
        SourceError: a file does not contain them, or not at the times in the table.
    """
    by_file: dict[Path, list[EpisodeRef]] = {}
    for episode in episodes:
        by_file.setdefault(source.video(key, episode).path, []).append(episode)
    step = -(-len(by_file) // FILES_LOOKED_AT) or 1
    chosen = list(by_file)[::step]

    def look(path: Path) -> dict[int, str]:
        found = {}
        for episode in by_file[path]:
            reason = why_not_copied(clip_of(source.video(key, episode), source.fps, compare=False))
            if reason is not None:
                found[episode.index] = f"{path}: {reason}"
        return found

    threads, _ = share_cores(max(len(chosen), 1), None, None)
    found = dict(run_units(chosen, look, threads=threads, stop=lambda: None))
    return {index: reason for path in chosen for index, reason in found[path].items()}


def copied_piece(run: Sequence[Clip], fps: Fraction, checksum: str | None, *, part: bool) -> Piece:
    """Return consecutive episodes of a source's file as one piece.

    Args:
        run: the episodes; each starts where the one before ends.
        fps: frames per second.
        checksum: recorded SHA-256 of the file; None: unknown.
        part: some of the file's episodes are not copied.

    Raises:
        SourceError: they cannot be copied.
    """
    path, info, first = run[0].path, run[0].info, run[0].first
    assert info.key_frames is not None
    assert info.times is not None
    for clip in run:
        reason = why_not_copied(clip)
        if reason is not None:
            raise SourceError(
                f"{path}: {reason}. It has to be re-encoded: "
                + call("reencode_dataset", source="SRC", destination="NEW", force=True)
            )
    frames = sum(clip.frames for clip in run)
    end = first + frames
    ticks = frame_ticks(fps)
    exact = info.time_base == Fraction(1, time_scale(fps)) and all(
        time == number * ticks for number, time in enumerate(info.times)
    )
    # In a file with audio, the video may have any stream index: the concat demuxer joins by index.
    exact = exact and info.audio is None
    packet_bytes = sum((info.sizes or ())[first:end])
    keys = set(info.key_frames)
    starts = tuple(clip.first - first for clip in run)
    piece = Piece(
        path=path,
        first=first,
        frames=frames,
        starts=starts,
        keys=tuple(start for start in starts if first + start in keys),
        bytes=packet_bytes,
        packet_bytes=packet_bytes,
        delay=info.decode_delay,
        whole=exact and (first, end) == (0, info.frames),
        of=info.frames if exact and not info.hidden and is_plain_mp4(path) else None,
        tag=info.tag,
        asked=asked_of(info),
        copied=True,
        checksum=checksum,
        part=part,
    )
    return replace(piece, plain=brief(info, starts)) if _is_plain(piece, info, fps) else piece


def _is_plain(piece: Piece, info: StreamInfo, fps: Fraction) -> bool:
    """Return whether joining a file's packets alone would give the same file, so that it can be copied."""
    if info.hidden or not piece.whole or not is_plain_mp4(piece.path):
        return False
    try:
        verify_joined(
            piece.path,
            piece.asked,
            fps=fps,
            frames=piece.frames,
            packet_bytes=piece.packet_bytes,
            key_frames=piece.keys,
            read=lambda _: info,
        )
    except VerificationError:
        return False
    return True


def asked_of(info: StreamInfo) -> dict[str, object]:
    """Return the expected fields of a file that gets packets of another."""
    return {name: getattr(info, name) for name in ("codec", "pix_fmt", "width", "height", "configuration")}


def groups(pieces: Iterator[Piece], limit: float) -> Iterator[list[Piece]]:
    """Divide a camera's pieces into files: below the limit, with one decoder configuration each."""
    group: list[Piece] = []
    size = 0
    for piece in pieces:
        full = size + piece.bytes > limit
        other = group and any(piece.asked[name] != group[0].asked[name] for name in _ALIKE)
        if group and (full or other):
            yield group
            group, size = [], 0
        group.append(piece)
        size += piece.bytes
    yield group
