"""The argument lists that copy packets without decoding them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

import ffmpeg

from ffenc.codecs.options import CONTAINER_OPTIONS
from ffenc.compiler.inputs import arguments, file_input, file_url, listed_input, summed, time_base
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

    The list of files is read from standard input in the concat demuxer's format. This demuxer rounds each
    file's start to a microsecond, so the time of every packet is rounded back to the frame grid.

    Args:
        fps: frame rate of all files; they have the time base of :func:`compile_command`.
        output: path of the result.
        delay: number of frames by which decode times begin before the first frame: the greatest
            ``StreamInfo.decode_delay`` of the files.
        tag: stream tag of the codec; None: the muxer's default.
        runs: ranges of frames to keep, counted over all files, ascending: first frame and number of frames.
            Each file has to be cuttable at both ends of a range. Empty: all frames.
        program: the ffmpeg to run.
    """
    ticks = frame_ticks(fps)
    place, drop = f"round(PTS/{ticks})", ""
    if runs:
        kept, shifts = 0, []
        for first, count in runs:
            shifts.append(f"between(N\\,{kept}\\,{kept + count - 1})*{first - kept}")
            kept += count
        inside = summed([f"between(n\\,{first}\\,{first + count - 1})" for first, count in runs])
        place, drop = f"({place}-({summed(shifts)}))", f"noise=drop=not({inside}),"
    # Only files with the same decoder configuration are joined, so no packet has to be converted.
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
    """Compile the argument list that copies packets of a file to the time base of :func:`compile_command`.

    The file is read from its start: a seek in a file with B-frames may land after the requested packet.

    Args:
        path: the file.
        first: position of the first packet in stored order; it has to be a key frame.
        packets: number of packets.
        fps: frame rate of the file.
        output: path of the result.
        tag: stream tag of the file.
        program: the ffmpeg to run.
    """
    outside = f"lt(n\\,{first})+gte(n\\,{first + packets})"
    moved = "setts=pts=PTS-STARTPTS:dts=DTS-STARTPTS"
    source = file_input(path, copyts=None)
    return arguments(_copied(source, f"noise=drop={outside},{moved}", fps, output, tag), program)


def compile_complete(
    path: str, *, packets: int, fps: Fraction, output: str, tag: str | None = None, program: str = "ffmpeg"
) -> list[str]:
    """Compile the argument list that copies the first packets of a truncated file, in stored order.

    Args:
        path: the file.
        packets: number of packets; all of them are complete.
        fps: frame rate of the file.
        output: path of the result.
        tag: stream tag of the file.
        program: the ffmpeg to run.
    """
    source = file_input(path, copyts=None, fflags="+discardcorrupt")
    return arguments(_copied(source, f"noise=drop=gte(n\\,{packets})", fps, output, tag), program)


def compile_fed_packets(
    codec: Literal["h264", "hevc"], *, fps: Fraction, output: str, tag: str | None, program: str = "ffmpeg"
) -> list[str]:
    """Compile the argument list that copies packets from standard input to a file, with frame i at i / fps.

    Args:
        codec: codec of the packets. Each contains one frame, in display order, with start codes (Annex B).
        fps: frames per second.
        output: path of the result.
        tag: stream tag of the result; None: the muxer's default.
        program: the ffmpeg to run.
    """
    source = ffmpeg.input("pipe:0", f=codec, framerate=str(fps))
    # In ticks of an elementary stream, which are far finer than the file's: rounding has no effect.
    stamp = f"round(N*{fps.denominator}/{fps.numerator}/TB)"
    stamps = f"setts=pts={stamp}:dts={stamp}:duration=round({fps.denominator}/{fps.numerator}/TB)"
    return arguments(_copied(source, stamps, fps, output, tag), program)


def compile_header_trace(path: str, *, program: str = "ffmpeg") -> list[str]:
    """Compile the argument list that prints the fields of all headers of an elementary stream as messages."""
    result = ffmpeg.output(
        file_input(path)["v:0"], "pipe:1", **{"c": "copy", "bsf:v": "trace_headers", "f": "null"}
    )
    command = arguments(result, program)
    command[command.index("level+warning")] = "repeat+level+info"
    return command


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
