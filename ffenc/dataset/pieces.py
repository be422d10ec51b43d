"""What the files of a video dataset are joined from."""

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
from ffenc.jobs.pool import run_units, share_cores
from ffenc.spelling import call

FILES_LOOKED_AT = 32
_ALIKE = ("codec", "configuration")  # what pieces of one file have in common


class Piece(Struct, frozen=True):
    """Packets that come into a file together: one encoded episode, or some that stand together in a source.

    Attributes:
        path: the file they are in.
        first, frames: which of its frames they are.
        starts: each episode's first frame, counted from ``first``.
        keys: those of ``starts`` that are key frames.
        bytes, packet_bytes: how many the file takes, about; how many its packets have, exactly.
        delay: its ``StreamInfo.decode_delay``.
        whole: the file holds nothing else, no sound either, and has ffenc's time base; else it is cut first.
        tag: the stream's tag in MP4.
        asked: fields of ``StreamInfo`` that a file which begins with it must have, ``codec`` and
            ``configuration`` among them.
        copied: it is of a source, not encoded by this job.
        of: how many frames the file has, where these can be picked out of it while files are joined; None
            where they have to be cut out first.
        plain: the file's fields, where the file is what joining its packets alone would make.
        checksum: SHA-256 that the file was written with, of one that is copied; whoever copies it compares.
        part: not all of the file's episodes are copied.
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
    """Return the episodes of a camera whose packets cannot be copied, by number, and why, each with its file.

    Of a camera with more than :data:`FILES_LOOKED_AT` files, so many are probed, evenly spread: to list the
    packets of all takes minutes. What is not found here is refused when the file is copied, which a job does
    before it encodes.

    Args:
        source: where they are.
        key: the camera.
        episodes: which to look at.

    Raises:
        SourceError: a file does not hold them, or not where the table says.
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
    """Return episodes that stand together in a source's file as one piece.

    Args:
        run: the episodes, each starting where the one before ends.
        fps: frames a second.
        checksum: SHA-256 that the file was written with, where that is known.
        part: not all of the file's episodes are copied.

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
    # Of a file with sound the pictures may be any stream: joining goes by their number.
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
    """Whether a file is what joining its packets alone would make, so that it can be copied as it is."""
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
    """Return the fields that a file must have which packets of another are copied into."""
    return {name: getattr(info, name) for name in ("codec", "pix_fmt", "width", "height", "configuration")}


def groups(pieces: Iterator[Piece], limit: float) -> Iterator[list[Piece]]:
    """Cut a camera's pieces into files: below the limit, and with one decoder configuration each."""
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
