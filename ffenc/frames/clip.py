"""A range of a video's frames, and the check that its times are on a grid."""

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
    """Consecutive frames of a video file.

    Attributes:
        path: the file.
        info: its stream fields, with ``times``.
        first: index of the first frame in the file.
        frames: number of frames in the range, 1 or more.
        pick: selects among these frames; None: all.
        origin: source of the file, if the file was made for one run; None: the file itself is the source.
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
        """Indices of the frames in the file."""
        if self.pick is None:
            return range(self.first, self.first + self.frames)
        return [self.first + number for number in self.pick.indices(self.frames)]

    @property
    def depth(self) -> bool:
        """Whether the video contains depth."""
        return self.info.pix_fmt in DEPTH_FORMATS

    @property
    def tags(self) -> Mapping[str, str]:
        """Colour tags of a video that is encoded from it."""
        info = self.info
        return kept_tags(info.pix_fmt, info.color_space, info.color_primaries, info.color_transfer)

    def seconds(self) -> list[Fraction]:
        """Times of the frames in the file, in seconds."""
        assert self.info.times is not None
        times = self.info.times[self.first : self.first + self.frames]
        return [ticks * self.info.time_base for ticks in times]

    def part(self, first: int, frames: int) -> Clip:
        """Return a range of all frames that it covers, with ``first`` relative to its first frame."""
        return Clip(self.path, self.info, self.first + first, frames)

    def inputs(self) -> list[VideoInput]:
        """Return the inputs for FFmpeg, in the order to try.

        A seek may fail if key frames are wrongly marked; the second input reads the file from its start.
        """
        return [self.input(), *([self.input(from_start=True)] if self.input().excerpt.seek else [])]

    def input(self, *, from_start: bool = False) -> VideoInput:
        """Return the frames as an input for FFmpeg."""
        index = FrameIndex(self.info)
        chosen = range(self.first, self.first + self.frames)
        conversion = None
        if not self.depth:
            conversion = rgb_conversion(self.info.pix_fmt, self.info.color_space, self.info.color_range)
        entry = None if from_start else index.entry(self.first, early=True)
        excerpt = replace(index.excerpt(chosen, entry), frames=len(self), pick=self.pick)
        return VideoInput(str(self.path), excerpt, conversion, self.tags)

    def fingerprint(self) -> str:
        """Return a text that identifies the file's version, without reading the file."""
        picked = "" if self.pick is None else f"{self.pick} "
        return f"{self.first} {self.frames} {picked}{self.origin or files_fingerprint([self.path])}"


def check_spacing(clip: Clip, fps: Fraction, where: str, *, start: float | None = None) -> None:
    """Check that frame i is at i / fps from the first one, within the tolerance of LeRobot's reader.

    Args:
        clip: the frames.
        fps: frames per second.
        where: name of the frames, for the error.
        start: expected time of the first frame in the file, in seconds; None: its actual time.

    Raises:
        SourceError: a frame is at another time; the text names it.
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
    """Return the index of the first frame that is not at base + i / fps, or None.

    Args:
        times: times of the frames, in seconds.
        fps: frames per second.
        base: expected time of the first frame, in seconds.
        tolerance: greatest accepted difference, in seconds; default that of LeRobot's reader.
    """
    first, ticks, scale = float(base), fps.denominator, fps.numerator
    return next(
        (i for i, time in enumerate(times) if abs(float(time) - first - i * ticks / scale) > tolerance), None
    )
