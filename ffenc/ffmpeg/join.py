"""Join encoded files back to back, packet by packet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from ffenc.compiler.command import compile_join, file_url
from ffenc.ffmpeg.process import Cancellation, run_fed
from ffenc.ffmpeg.toolchain import Toolchain


def join_files(
    pieces: Sequence[Path],
    output: Path,
    *,
    fps: Fraction,
    tag: str | None,
    toolchain: Toolchain,
    cancellation: Cancellation | None = None,
) -> None:
    """Join files of the same codec, settings, size and frame rate without re-encoding.

    Args:
        pieces: absolute paths, in order.
        output: the file to write.
        fps: their frame rate; frame i of the result sits at exactly i / fps.
        tag: the codec's stream tag, if it needs one.
        toolchain: the programs.
        cancellation: who may end it.

    Raises:
        FfmpegError: ffmpeg failed.
    """
    lines = ["ffconcat version 1.0"]
    for piece in pieces:
        quoted = file_url(str(piece)).replace("'", r"'\''")
        lines.append(f"file '{quoted}'")
    command = compile_join(fps, output=str(output), tag=tag, program=toolchain.ffmpeg)
    run_fed(command, [os.fsencode("\n".join(lines)) + b"\n"], cancellation=cancellation)
