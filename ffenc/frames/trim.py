"""Selection of a video file's frames by time, and determination of their frame rate."""

from __future__ import annotations

import math
import warnings
from bisect import bisect_left
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from ffenc.config.framerate import parse_fps
from ffenc.errors import ConfigError, FfencWarning, SourceError
from ffenc.ffmpeg.boxes import check_complete
from ffenc.ffmpeg.numbering import check_numbering
from ffenc.ffmpeg.probe import StreamInfo, probe
from ffenc.ffmpeg.toolchain import toolchains
from ffenc.frames.clip import Clip, off_grid
from ffenc.layout import TIME_TOLERANCE
from ffenc.spelling import argument
from ffenc.words import count

_ROUNDING = Fraction(1, 1_000_000)  # seconds; a time this near to a frame's is taken for it
_MILLISECOND = Fraction(1, 1000)
_TICKS_A_FRAME = 4  # with fewer ticks per frame, a missing frame could be taken for a rounded time


def trimmed(
    path: Path,
    *,
    start: float | None = None,
    end: float | None = None,
    rate: Fraction | None = None,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
) -> Clip:
    """Return the frames of a file with times in ``[start, end)``.

    Args:
        path: the file.
        start, end: times in the file, in seconds; None: from the first frame, to the last. A time within a
            microsecond of a frame's is taken for it.
        rate: frames per second of an elementary stream.
        ffmpeg, ffprobe: the programs; None: those that are found.

    Raises:
        ConfigError: not times, or no frames between them.
        SourceError: not a video, a truncated one, or an elementary stream that lacks frames.
        ToolchainError: there are no such programs.
    """
    since, until = _seconds("start", start), _seconds("end", end)
    if since is not None and until is not None and since >= until:
        raise ConfigError(f"{argument('start', start)} is not before {argument('end', end)}")
    info = probe(path, times=True, rate=rate, ffprobe=ffprobe)
    if not info.times:
        raise SourceError(f"{path} has no frames")
    # FFmpeg's list does not contain the missing frames, so nothing else would detect this.
    check_complete(path)
    if info.raw:
        check_numbering(path, info.codec, ffmpeg=toolchains(ffmpeg, ffprobe)[0].ffmpeg)
    return _between(Clip(path, info, 0, info.frames), since, until)


def _between(whole: Clip, since: Fraction | None, until: Fraction | None) -> Clip:
    times = whole.seconds()
    after = times[-1] + _usual_step(whole.info)
    there = f"{whole.path} has frames from {float(times[0]):.6f} s to {float(after):.6f} s"
    for name, time in (("start", since), ("end", until)):
        if time is not None and time > after + _ROUNDING:
            raise ConfigError(f"{argument(name, float(time))} is outside the video: {there}")
    first = 0 if since is None else bisect_left(times, since - _ROUNDING)
    last = len(times) if until is None else bisect_left(times, until - _ROUNDING)
    if first >= last:
        behind = "" if until is None else f" and before {float(until):g} s"
        raise ConfigError(f"there is no frame at {float(since or 0):g} s or later{behind}: {there}")
    return whole.part(first, last - first)


def _seconds(name: str, value: float | None) -> Fraction | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction) or not math.isfinite(value):
        raise ConfigError(f"{argument(name, value)} is not a time in seconds")
    if value < 0:
        raise ConfigError(f"{argument(name, value)} is before the file's start; times are 0 or more")
    return Fraction(value)


def frame_rate(clip: Clip) -> Fraction:
    """Return a file's frame rate after checking that the clip's frames are evenly spaced.

    Raises:
        SourceError: they are not; the text names the first frame at another time.
    """
    fps = _own_rate(clip.info)
    times = clip.seconds()
    number = off_grid(times, fps, times[0], _rounding(clip.info, fps))
    if number is not None:
        raise SourceError(
            f"frame {clip.first + number} is at {float(times[number]):.6f} s: the frames are not evenly "
            "spaced, because the rate is variable or a frame was dropped",
            expected=f"{float(times[0] + number / fps):.6f} s ({float(fps):g} fps)",
            where=clip.path,
            fix=_pass_fps(),
        )
    return fps


def _rounding(info: StreamInfo, fps: Fraction) -> float:
    """Return the greatest accepted difference of a frame's time from a constant rate, in seconds.

    A container that counts in milliseconds, such as Matroska, rounds each time to a tick.
    """
    tick = _tick(info)
    return max(TIME_TOLERANCE, float(tick)) if tick * _TICKS_A_FRAME <= 1 / fps else TIME_TOLERANCE


def _tick(info: StreamInfo) -> Fraction:
    """Return the tick of a file's times.

    A .ts that was remuxed from Matroska has a time base of 1/90000 s, but all times are whole milliseconds.
    """
    assert info.times is not None
    ticks = _MILLISECOND / info.time_base
    whole = ticks.denominator == 1 and all((b - a) % int(ticks) == 0 for a, b in pairwise(info.times))
    return _MILLISECOND if whole else info.time_base


def warn_of_rotation(path: Path, info: StreamInfo) -> None:
    """Warn that the frames of a video that players rotate are kept as stored."""
    if info.rotation % 360:
        warnings.warn(
            f"{path}: a tag says to rotate it by {info.rotation} degrees for display; its pixels "
            "are used as stored, and readers that ignore the tag, as LeRobot's, show them that "
            "way. `ffmpeg -i IN OUT` makes a file whose pixels are rotated",
            FfencWarning,
            stacklevel=5,
        )


def warn_of_others(path: Path, info: StreamInfo) -> None:
    """Warn that a file has further video streams, of which nothing is read."""
    if info.others:
        warnings.warn(
            f"{path}: only its first video stream is read; {count(info.others, 'other')} left out. "
            "`ffmpeg -i IN -map 0:v:1 -c copy OUT` extracts the second one",
            FfencWarning,
            stacklevel=5,
        )


def warn_of_hidden(path: Path, info: StreamInfo) -> None:
    """Warn that a video has frames that readers do not show, and that they are dropped.

    Args:
        path: the file.
        info: its stream fields, with times.
    """
    if info.hidden:
        warnings.warn(
            f"{path}: {count(info.hidden, 'frame')} hidden by its edit list left out, as players do",
            FfencWarning,
            stacklevel=5,
        )


def _own_rate(info: StreamInfo) -> Fraction:
    """Return the average rate if all frames fit it to the tick, otherwise a usual rate that more frames fit.

    A dropped frame, a last frame with a longer duration, or jitter changes the average.
    """
    assert info.times is not None
    times = [ticks * info.time_base for ticks in info.times]
    average = parse_fps(info.fps) if info.fps else None
    if average is not None and off_grid(times, average, times[0], float(_tick(info))) is None:
        return average
    step = _usual_step(info)
    if not step:
        raise SourceError("the file does not state its frame rate", fix=_pass_fps())
    whole = round(average or 1 / step)
    rates = [rate for rate in (Fraction(whole), Fraction(whole * 1000, 1001), parse_fps(1 / step)) if rate]

    def kept(rate: Fraction) -> int:
        number = off_grid(times, rate, times[0], _rounding(info, rate))
        return len(times) if number is None else number

    return max(rates, key=kept)


def _usual_step(info: StreamInfo) -> Fraction:
    """Return the most frequent distance between frames in seconds; 0 if unknown."""
    assert info.times is not None
    steps = sorted(b - a for a, b in pairwise(info.times))
    if steps:
        return steps[len(steps) // 2] * info.time_base
    return 1 / info.fps if info.fps else Fraction(0)


def _pass_fps() -> str:
    rate = argument("fps", "RATE")
    return f"pass {rate} to set the time of frame i to i / RATE, whatever the frames' times are"
