"""A stretch of a video's frames, and whether its times are on a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from ffenc.compiler.colour import kept_tags, rgb_conversion
from ffenc.compiler.command import VideoInput
from ffenc.config.framerate import Pick
from ffenc.errors import (
    SourceError,
)
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.frames.excerpt import FrameIndex
from ffenc.frames.sources import files_fingerprint
from ffenc.frames.stream import DEPTH_FORMATS
from ffenc.layout import TIME_TOLERANCE


class Clip(Struct, frozen=True):
    """Frames of a video file, one after another.

    Attributes:
        path: the file.
        info: its fields, with ``times``.
        first: the first frame's index in the file.
        frames: how many frames of the file it covers, 1 or more.
        pick: which of those are taken; None: all.
        origin: what the file was made of, where it was made for one run; None: it is a source itself.
    """

    path: Path
    info: StreamInfo
    first: int
    frames: int
    pick: Pick | None = None
    origin: str | None = None

    def __len__(self) -> int:
        return self.frames if self.pick is None else self.pick.count(self.frames)

    def numbers(self) -> Sequence[int]:
        """The frames' indices in the file."""
        if self.pick is None:
            return range(self.first, self.first + self.frames)
        return [self.first + number for number in self.pick.indices(self.frames)]

    @property
    def depth(self) -> bool:
        """Whether it holds depth."""
        return self.info.pix_fmt in DEPTH_FORMATS

    @property
    def tags(self) -> Mapping[str, str]:
        """What is tagged in a video that is made of it."""
        info = self.info
        return kept_tags(info.pix_fmt, info.color_space, info.color_primaries, info.color_transfer)

    def seconds(self) -> list[Fraction]:
        """The frames' times in the file, in seconds."""
        assert self.info.times is not None
        times = self.info.times[self.first : self.first + self.frames]
        return [ticks * self.info.time_base for ticks in times]

    def part(self, first: int, frames: int) -> Clip:
        """Some of the frames that it covers, all of them, ``first`` counted from its own first."""
        return Clip(self.path, self.info, self.first + first, frames)

    def inputs(self) -> list[VideoInput]:
        """The frames as FFmpeg is asked for them, in the order to try.

        Entering a file may fail where key frames only say that they are: then it is read from its start.
        """
        return [self.input(), *([self.input(from_start=True)] if self.input().excerpt.seek else [])]

    def input(self, *, from_start: bool = False) -> VideoInput:
        """The frames as FFmpeg is asked for them."""
        index = FrameIndex(self.info)
        chosen = range(self.first, self.first + self.frames)
        conversion = None
        if not self.depth:
            conversion = rgb_conversion(self.info.pix_fmt, self.info.color_space, self.info.color_range)
        entry = None if from_start else index.entry(self.first, early=True)
        excerpt = replace(index.excerpt(chosen, entry), frames=len(self), pick=self.pick)
        return VideoInput(str(self.path), excerpt, conversion, self.tags)

    def fingerprint(self) -> str:
        """What the file is, without reading it."""
        picked = "" if self.pick is None else f"{self.pick} "
        return f"{self.first} {self.frames} {picked}{self.origin or files_fingerprint([self.path])}"


def check_spacing(clip: Clip, fps: Fraction, where: str, *, start: float | None = None) -> None:
    """Refuse frames that are not at i / fps from the first, by more than LeRobot's reader allows.

    Args:
        clip: the frames.
        fps: frames a second.
        where: what they are, for the error.
        start: where the first should be in the file, in seconds; None: where it is.

    Raises:
        SourceError: a frame is elsewhere; the text names it.
    """
    times = clip.seconds()
    base = times[0] if start is None else Fraction(start)
    number = off_grid(times, fps, base)
    if number is not None:
        raise SourceError(
            f"frame {number} is at {float(times[number]):.6f} s of {clip.path}: a frame is "
            "missing or duplicated",
            expected=f"{float(base + number / fps):.6f} s ({float(fps):g} fps)",
            where=where,
        )


def off_grid(
    times: Sequence[Fraction], fps: Fraction, base: Fraction, tolerance: float = TIME_TOLERANCE
) -> int | None:
    """Return the number of the first frame that is not at base + i / fps; None: all are.

    Args:
        times: of the frames, in seconds.
        fps: frames a second.
        base: where the first should be, in seconds.
        tolerance: how far off a frame may be, in seconds; by default what LeRobot's reader allows.
    """
    first, ticks, scale = float(base), fps.denominator, fps.numerator
    return next(
        (i for i, time in enumerate(times) if abs(float(time) - first - i * ticks / scale) > tolerance), None
    )
