"""Parts of all commands: how files are opened, which of their frames are read, the program's own options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import ffmpeg

from ffenc.compiler.frames import Excerpt
from ffenc.config.framerate import Pick, time_scale

# level+ marks lines with their level: FFmpeg reports a damaged image at error level and exits with 0.
PROGRAM_OPTIONS = ("-nostdin", "-hide_banner", "-loglevel", "level+warning", "-xerror")
# Demuxers that may open a file. FFmpeg selects by content: a text that is a playlist (concat, HLS, DASH, SDP)
# would make it open the files and addresses named there. None of these demuxers opens another file.
DEMUXERS = ("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "ogg", "nut", "ivf", "obu", "hevc", "h264")
PROTOCOLS = ("file", "pipe", "fd")
INPUT_LIMITS = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": ",".join(PROTOCOLS)}
# Each frame is written once, whatever its time. With the default time base, a tick per frame at the file's
# rate, frames at irregular times could get the same tick, which the muxer reports as an error.
EVERY_FRAME = {"fps_mode": "passthrough", "enc_time_base": "1:1000000"}
_TERMS = 25  # terms of a sum in a filter's expression


def file_url(path: str) -> str:
    """Return a path as a ``file:`` URL, in which ``-``, ``%d`` and ``:`` are taken literally."""
    return path if path.startswith("pipe:") else f"file:{path}"


def file_input(path: str, **options: Any) -> Any:
    """Return a video file, or ``pipe:0``, as an input that only video demuxers may open."""
    return ffmpeg.input(file_url(path), **INPUT_LIMITS, **options)


def listed_input(**options: Any) -> Any:
    """Return several files as one input; standard input lists them in the concat demuxer's format."""
    limits = INPUT_LIMITS | {"format_whitelist": ",".join(("concat", *DEMUXERS))}
    return ffmpeg.input("pipe:0", f="concat", safe=0, **limits, **options)


def excerpted(path: str, excerpt: Excerpt | None, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the selected frames of a file, and the output options that end the program after them."""
    opened: dict[str, Any] = {"noautorotate": None, **options}
    limit: dict[str, Any] = {}
    if excerpt is not None:
        opened["copyts"] = None  # keeps the file's own times, by which frames are selected
        limit["frames:v"] = excerpt.frames
        opened |= entered_at(excerpt.seek)
        if excerpt.rate is not None:
            opened["framerate"] = str(excerpt.rate)
    video = file_input(path, **opened)["v:0"]
    if excerpt is not None and excerpt.rate is not None:
        video = video.filter("settb", str(1 / excerpt.rate)).filter("setpts", "N")
    if excerpt is not None:
        video = picked(video.filter("select", within(excerpt.spans)), excerpt.pick)
    return video, limit


def picked(video: Any, pick: Pick | None) -> Any:
    """Select the frames of :meth:`Pick.indices`, in floating point, which is exact here."""
    if pick is None:
        return video
    p, q = pick.ratio.numerator, pick.ratio.denominator
    if q == 1:
        return video.filter("select", f"not(mod(n,{p}))")
    new = f"floor((2*n*{q}+{p})/{2 * p})"
    return video.filter("select", f"eq(floor((2*{new}*{p}+{q})/{2 * q}),n)")


def without_stop(command: list[str]) -> list[str]:
    """Return a command that continues after an error."""
    return [word for word in command if word != "-xerror"]


def entered_at(seek: Fraction | None) -> dict[str, Any]:
    """Return the options of a seek. No frame is dropped for its time: frames are selected later."""
    if seek is None:
        return {}
    return {"noaccurate_seek": None, "seek_timestamp": 1, "ss": f"{float(seek):.6f}"}


def within(spans: Sequence[tuple[int, int]]) -> str:
    """Return the expression that is true if a frame's time is within one of the spans."""
    return summed([f"between(pts,{first},{last})" for first, last in spans])


def summed(terms: Sequence[str]) -> str:
    """Return a sum for an expression: FFmpeg refuses sums of about 100 terms, but not sums of sums."""
    while len(terms) > _TERMS:
        terms = [f"({'+'.join(terms[i : i + _TERMS])})" for i in range(0, len(terms), _TERMS)]
    return "+".join(terms)


def raw_output(video: Any, pix_fmt: str, **limit: Any) -> Any:
    """Write frames as raw pixels to standard output, each of them once."""
    return ffmpeg.output(video, "pipe:1", f="rawvideo", pix_fmt=pix_fmt, **EVERY_FRAME, **limit)


def arguments(result: Any, program: str, *program_options: str) -> list[str]:
    """Return the argument list of an ffmpeg-python output."""
    command = [program, *PROGRAM_OPTIONS, *program_options]
    return [str(part) for part in ffmpeg.compile(result, cmd=command, overwrite_output=True)]


def time_base(rate: Fraction) -> dict[str, Any]:
    """Return the options that make every frame's time an exact number of ticks."""
    # The movie header has the track's time scale: edit lists are written in it, and with the default of
    # 1/1000 they could cut off a frame.
    return {"video_track_timescale": time_scale(rate), "movie_timescale": time_scale(rate)}
