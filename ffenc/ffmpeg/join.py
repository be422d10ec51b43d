"""Copying of packets: join encoded files back to back, and cut parts out of them, without re-encoding."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from msgspec import Struct

from ffenc.compiler.inputs import file_url
from ffenc.compiler.packets import compile_cut, compile_join
from ffenc.errors import ConfigError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.process import run_fed
from ffenc.ffmpeg.toolchain import Toolchain

_MICROSECONDS = 1_000_000


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
    run_fed(command, [], cancellation=cancellation)
