"""Copying of packets: join encoded files back to back, and cut parts out of them, without re-encoding."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from ffenc.compiler.inputs import file_url
from ffenc.compiler.packets import compile_complete, compile_cut, compile_join
from ffenc.errors import ConfigError, FfmpegError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.probe import StreamInfo, probe
from ffenc.ffmpeg.process import run_fed
from ffenc.ffmpeg.toolchain import Toolchain

_MICROSECONDS = 1_000_000


_GAP = 1.5  # frames from one to the next


class Joined(Struct, frozen=True):
    """A file to be joined with others.

    Attributes:
        path: absolute path.
        frames: number of frames to copy.
        delay: as probed, see :attr:`~ffenc.ffmpeg.probe.StreamInfo.decode_delay`.
        first: index of the first frame to copy; the file has to be cuttable there.
        of: number of frames of the file; None: all are copied.
    """

    path: Path
    frames: int
    delay: int
    first: int = 0
    of: int | None = None


def join_files(
    pieces: Sequence[Joined],
    output: Path,
    *,
    fps: Fraction,
    tag: str | None,
    toolchain: Toolchain,
    cancellation: Cancellation | None = None,
) -> None:
    """Join files of the same codec, settings, size and frame rate without re-encoding.

    Args:
        pieces: the files in order; each with ffenc's time base (:func:`~ffenc.config.framerate.time_scale`).
        output: the file to write.
        fps: frame rate of the files; frame i of the result is at exactly i / fps.
        tag: stream tag of the codec; None: the muxer's default.
        toolchain: the programs.
        cancellation: can stop the program from another thread.

    Raises:
        FfmpegError: ffmpeg failed.
    """
    lines: list[str] = []
    frames = start = 0
    runs: list[tuple[int, int]] = []
    before: Joined | None = None
    for piece in pieces:
        again = before is not None and before.of is not None and piece.path == before.path
        if again and before is not None and piece.first >= before.first + before.frames:
            _add(runs, frames - (piece.of or piece.frames) + piece.first, piece.frames)
            before = piece
            continue
        _add(runs, frames + piece.first, piece.frames)
        before = piece
        frames += piece.of or piece.frames
        # Each start is computed from the first frame on, rounded to a microsecond, so errors do not
        # accumulate.
        end = round(frames / fps * _MICROSECONDS)
        lines += [file_line(piece.path), f"duration {end - start}us"]
        start = end
    delay = max(piece.delay for piece in pieces)
    command = compile_join(
        *(fps,),
        output=str(output),
        delay=delay,
        tag=tag,
        runs=() if runs == [(0, frames)] else runs,
        program=toolchain.ffmpeg,
    )
    run_fed(
        command,
        [list_of(lines)],
        cancellation=cancellation,
        inputs=[piece.path for piece in pieces],
    )


def file_line(path: Path) -> str:
    """Return the line that names a file in a list for the concat demuxer.

    Raises:
        ConfigError: its name has a line break, which such a list cannot contain.
    """
    if "\n" in str(path):
        raise ConfigError(
            f"{str(path)!r}: packets of a file with a line break in its path cannot be copied; rename it"
        )
    quoted = file_url(str(path)).replace("'", r"'\''")
    return f"file '{quoted}'"


def list_of(lines: Sequence[str]) -> bytes:
    """Return a list for the concat demuxer, as written to its standard input."""
    return os.fsencode("\n".join(["ffconcat version 1.0", *lines, ""]))


def _add(runs: list[tuple[int, int]], first: int, frames: int) -> None:
    """Append frames to the runs; extend the last run if they follow it."""
    if runs and sum(runs[-1]) == first:
        first, frames = runs[-1][0], runs.pop()[1] + frames
    runs.append((first, frames))


def cut_file(
    source: Path,
    output: Path,
    *,
    first: int,
    frames: int,
    fps: Fraction,
    tag: str | None,
    toolchain: Toolchain,
    cancellation: Cancellation | None = None,
    damaged: bool = False,
) -> None:
    """Copy a part of a file to a new file that can be joined.

    Args:
        source: the file.
        output: the file to write.
        first: index of the first frame, one of ``StreamInfo.closed``.
        frames: number of frames; they end at the end of the file or before another such frame.
        fps: frame rate of the file.
        tag: stream tag of the file.
        toolchain: the programs.
        cancellation: can stop the program from another thread.
        damaged: there is damage in packets that are not copied, which ffmpeg reports.

    Raises:
        FfmpegError: ffmpeg failed.
    """
    command = compile_cut(
        str(source),
        first=first,
        packets=frames,
        fps=fps,
        output=str(output),
        tag=tag,
        program=toolchain.ffmpeg,
    )
    try:
        run_fed(command, [], cancellation=cancellation)
    except FfmpegError as error:
        if error.returncode or not damaged:
            raise


def complete_part(path: Path, fps: Fraction, ffprobe: str | None) -> StreamInfo:
    """Return the stream fields of a truncated file's first frames, of which none is missing.

    The last packet may be incomplete. With B-frames, frames that are shown after a missing one are stored
    before it; they are left out.

    Args:
        path: the file.
        fps: its frame rate.
        ffprobe: the program.

    Raises:
        As :func:`probe`.
    """
    info = probe(path, times=True, ffprobe=ffprobe, complete=True)
    assert info.times is not None
    assert info.places is not None
    assert info.key_frames is not None
    ends = np.maximum.accumulate(np.argsort(info.places)) == np.arange(info.frames)
    gaps = np.diff(info.times, prepend=info.times[:1]) * float(info.time_base * fps) > _GAP
    count = info.frames
    for end in reversed(np.flatnonzero(ends).tolist()):  # frames up to this one are stored first
        before = np.flatnonzero(ends[:end])
        if not gaps[(int(before[-1]) if before.size else 0) + 1 : end + 1].any():
            count = end + 1
            break
    return replace(
        info,
        frames=count,
        times=info.times[:count],
        key_frames=tuple(key for key in info.key_frames if key < count),
        places=info.places[:count],
        sizes=info.sizes and info.sizes[:count],
        leading=info.leading and tuple(frame for frame in info.leading if frame < count),
    )


def copy_complete(
    source: Path, output: Path, part: StreamInfo, *, fps: Fraction, toolchain: Toolchain
) -> None:
    """Copy the first frames of a truncated file to a new file.

    Args:
        source: the file.
        output: the file to write.
        part: the frames, of :func:`complete_part`.
        fps: frame rate of the file.
        toolchain: the programs.

    Raises:
        FfmpegError: ffmpeg failed.
    """
    assert part.places is not None
    command = compile_complete(
        str(source),
        packets=max(part.places, default=-1) + 1,
        fps=fps,
        output=str(output),
        tag=part.tag,
        program=toolchain.ffmpeg,
    )
    try:
        run_fed(command, [])
    except FfmpegError as error:
        if error.returncode:  # that the end is missing is an error line, after which it ends as usual
            raise
