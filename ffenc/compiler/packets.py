"""Commands that move packets without decoding them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

import ffmpeg

from ffenc.codecs.options import CONTAINER_OPTIONS
from ffenc.compiler.inputs import arguments, file_input, file_url, listed_input, time_base
from ffenc.config.framerate import frame_ticks


def compile_join(
    fps: Fraction,
    *,
    output: str,
    delay: int = 0,
    tag: str | None = None,
    runs: Sequence[tuple[int, int]] = (),
    program: str = "ffmpeg",
) -> list[str]:
    """Compile the argument list that joins encoded files back to back without re-encoding.

    The list of files is read from standard input in the concat demuxer's format. That demuxer rounds each
    file's start to a microsecond, so every packet is put back on its exact place on the frame grid.

    Args:
        fps: frame rate of all the files; their time base is the one :func:`compile_command` gives.
        output: path of the result.
        delay: how many frames the decode times begin before the first frame, the most of any of the files
            (``StreamInfo.decode_delay``).
        tag: stream tag of the codec, if it needs one.
        runs: which of all the files' frames are kept, ascending: the first of each run, and how many; a run
            can be cut out. Empty: all.
        program: the ffmpeg to run.
    """
    ticks = frame_ticks(fps)
    place, drop = f"round(PTS/{ticks})", ""
    if runs:
        kept, shifts = 0, []
        for first, count in runs:
            shifts.append(f"between(N\\,{kept}\\,{kept + count - 1})*{first - kept}")
            kept += count
        inside = "+".join(f"between(n\\,{first}\\,{first + count - 1})" for first, count in runs)
        place, drop = f"({place}-{'-'.join(shifts)})", f"noise=drop=not({inside}),"
    # Files are joined only where their decoder configuration is the same, so no packet has to be converted.
    source = listed_input(auto_convert=0)
    stamps = f"{drop}setts=pts={place}*{ticks}:dts=(N-{delay})*{ticks}:duration={ticks}"
    return arguments(_copied(source, stamps, fps, output, tag), program)


def compile_cut(
    path: str,
    *,
    first: int,
    packets: int,
    fps: Fraction,
    output: str,
    tag: str | None = None,
    program: str = "ffmpeg",
) -> list[str]:
    """Compile the argument list that copies packets of a file, in the time base of :func:`compile_command`.

    The file is read from its start: seeking in a file with B-frames may land behind what is sought.

    Args:
        path: the file.
        first: the first packet, in the order they are stored in; the frame has to be a key frame.
        packets: how many.
        fps: its frame rate.
        output: path of the result.
        tag: the stream tag it has.
        program: the ffmpeg to run.
    """
    outside = f"lt(n\\,{first})+gte(n\\,{first + packets})"
    moved = "setts=pts=PTS-STARTPTS:dts=DTS-STARTPTS"
    source = file_input(path, copyts=None)
    return arguments(_copied(source, f"noise=drop={outside},{moved}", fps, output, tag), program)


def compile_fed_packets(
    codec: Literal["h264", "hevc"], *, fps: Fraction, output: str, tag: str | None, program: str = "ffmpeg"
) -> list[str]:
    """Compile the argument list that copies packets from standard input into a file, frame i at i / fps.

    Args:
        codec: of the packets, one frame each, in the order they are shown, with start codes (Annex B).
        fps: frames a second.
        output: path of the result.
        tag: the stream tag it gets.
        program: the ffmpeg to run.
    """
    source = ffmpeg.input("pipe:0", f=codec, framerate=str(fps))
    # In ticks of a stream without a container, far finer than the file's: rounding leaves no trace.
    stamp = f"round(N*{fps.denominator}/{fps.numerator}/TB)"
    stamps = f"setts=pts={stamp}:dts={stamp}:duration=round({fps.denominator}/{fps.numerator}/TB)"
    return arguments(_copied(source, stamps, fps, output, tag), program)


def _copied(source: Any, bitstream_filters: str, fps: Fraction, output: str, tag: str | None) -> Any:
    container = {k: v for k, v in CONTAINER_OPTIONS.items() if k not in ("flags:v", "fps_mode")}
    return ffmpeg.output(
        source["v:0"],
        file_url(output),
        **container,
        **time_base(fps),
        **{"c": "copy", "bsf:v": bitstream_filters},
        **({"tag:v": tag} if tag else {}),
    )
