"""An episode's video in which missing or damaged frames repeat the frame before them."""

from __future__ import annotations

import contextlib
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from ffenc.config.encoder import VideoEncoderConfig
from ffenc.errors import SourceError
from ffenc.ffmpeg.join import cut_file
from ffenc.ffmpeg.probe import probe
from ffenc.ffmpeg.process import run_fed
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.clip import Clip
from ffenc.frames.prepare_clip import prepare_clip
from ffenc.frames.reader import VideoReader

_NEAR = Fraction(1, 2)  # frames; a frame nearer than this to a row's time belongs to the row


def shown_frames(clip: Clip, rows: int, fps: Fraction, damaged: Collection[int]) -> list[int]:
    """Return the frame of a file that each row of an episode shows, if some frames cannot be decoded.

    After a damaged frame, no frame can be decoded until the next key frame. Rows without a frame of their own
    show the one before.

    Args:
        clip: the existing frames of the episode.
        rows: number of rows.
        fps: frames per second.
        damaged: rows whose frames cannot be decoded.

    Raises:
        SourceError: the first row has no frame.
    """
    info = clip.info
    assert info.times is not None
    assert info.key_frames is not None
    base, keys = info.times[clip.first] * info.time_base, info.key_frames
    end = clip.first + clip.frames
    shown: list[int] = []
    blocked = -1  # frames before this one cannot be decoded
    for row in range(rows):
        due = (base + row / fps) / info.time_base
        after = bisect_left(info.times, due, clip.first, end)
        near = [at for at in (after - 1, after) if clip.first <= at < end]
        own = min(near, key=lambda at: abs(info.times[at] - due), default=None)  # type: ignore[index]
        there = own is not None and abs(info.times[own] - due) * info.time_base <= _NEAR / fps
        if row in damaged and own is not None and there:
            following = bisect_left(keys, own + 1)
            blocked = keys[following] if following < len(keys) else info.frames
        if own is not None and there and own >= blocked and row not in damaged:
            shown.append(own)
        elif shown:
            shown.append(shown[-1])
        else:
            raise SourceError(
                f"{clip.path}: frame {clip.first} cannot be decoded, and there is no previous frame"
            )
    return shown


def repeated_rows(shown: Sequence[int]) -> list[tuple[int, int]]:
    """Return the first and the last row of each run that repeats the frame before it."""
    stretches: list[tuple[int, int]] = []
    for row in range(1, len(shown)):
        if shown[row] == shown[row - 1]:
            if stretches and stretches[-1][1] == row - 1:
                stretches[-1] = (stretches[-1][0], row)
            else:
                stretches.append((row, row))
    return stretches


def write_shown(
    clip: Clip,
    shown: Sequence[int],
    config: VideoEncoderConfig,
    fps: Fraction,
    output: Path,
    programs: Sequence[Toolchain],
) -> None:
    """Encode frames of a file, some of them several times.

    Args:
        clip: the existing frames.
        shown: index in the file for each frame of the result, ascending.
        config: encoder settings.
        fps: frames per second of the result.
        output: the file to write.
        programs: the programs to select from.

    Raises:
        SourceError: a frame is damaged.
        ToolchainError, FfmpegError: it cannot be encoded.
    """
    numbers, counts = np.unique(np.asarray(shown), return_counts=True)
    runs = np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers) != 1) + 1)
    with _part(clip, numbers[runs[0]].tolist(), fps, output, programs[0]) as intact:
        encoding = prepare_clip(intact, config, fps, candidates=programs)
    toolchain = encoding.toolchain

    def pieces() -> Iterator[memoryview]:
        for run in runs:
            with (
                _part(clip, numbers[run].tolist(), fps, output, programs[0]) as intact,
                VideoReader(
                    intact.path,
                    depth=False if clip.depth else None,
                    ffmpeg=toolchain.ffmpeg,
                    ffprobe=toolchain.ffprobe,
                ) as reader,
            ):
                frames = reader.each(range(intact.first, intact.first + intact.frames))
                for place, frame in zip(run.tolist(), frames, strict=True):
                    data = np.ascontiguousarray(frame).data.cast("B")
                    for _ in range(int(counts[place])):
                        yield data

    run_fed(encoding.command(output), pieces())


@contextlib.contextmanager
def _part(
    clip: Clip, frames: Sequence[int], fps: Fraction, output: Path, toolchain: Toolchain
) -> Iterator[Clip]:
    """Copy the packets of frames, from a key frame on; a decoder of the file would read on, up to damage.

    Args:
        clip: the episode.
        frames: consecutive frames of its file.
        fps: frames per second of the result.
        output: the file to write; the copy is beside it, and is deleted.
        toolchain: the programs.

    Yields:
        The frames in the copy; in the original if it cannot be cut there.
    """
    info, first, last = clip.info, frames[0], frames[-1]
    assert info.places is not None
    assert info.key_frames is not None
    place = bisect_right(info.key_frames, first) - 1
    key = info.key_frames[place] if place >= 0 else -1
    if key not in (info.closed or ()):
        yield Clip(clip.path, info, first, len(frames))
        return
    part = output.with_name(f"{output.stem}-part.mp4")
    try:
        count = max(info.places[key : last + 1]) + 1 - key
        cut_file(
            *(clip.path, part),
            first=key,
            frames=count,
            fps=fps,
            tag=info.tag,
            toolchain=toolchain,
            damaged=True,
        )
        yield Clip(part, probe(part, times=True, ffprobe=toolchain.ffprobe), first - key, len(frames))
    finally:
        part.unlink(missing_ok=True)
