"""Where frames are in a file: which times they have, and where it can be entered for them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from ffenc.compiler.frames import Excerpt
from ffenc.ffmpeg.probe import StreamInfo


class FrameIndex:
    """The frames of a file by their index.

    Args:
        info: its fields, with ``times``.
    """

    def __init__(self, info: StreamInfo) -> None:
        assert info.times is not None
        assert info.key_frames is not None
        assert info.closed is not None
        self.times = info.times
        # H.264's decoder calls it a fault that frames behind an open key frame lack what they refer to.
        self._keys = info.closed if info.codec == "h264" else info.key_frames
        self._time_base, self._raw = info.time_base, info.raw
        self._delay = info.delay or 0

    def key(self, index: int) -> int:
        """The last key frame until a frame, 0 where there is none."""
        place = bisect_right(self._keys, index)
        return self._keys[place - 1] if place else 0

    def entry(self, index: int, *, early: bool = False) -> Fraction | None:
        """Where to enter the file for a frame, in seconds; None: at its start.

        Args:
            index: the frame.
            early: so much before the key frame as no container's seek can land behind it, whether it goes by
                the times at which frames are decoded or are shown.
        """
        key = self.key(index)
        if early:
            key = self.key(max(0, key - self._delay))
        if key == 0 or self.times[key] <= 0:
            return None
        return self.after(key)

    def after(self, index: int) -> Fraction:
        """A time a little after a frame's, in seconds: FFmpeg rounds to microseconds."""
        times = self.times
        later = times[index + 1] if index + 1 < len(times) else times[index] + 1
        return (times[index] + Fraction(later - times[index], 4)) * self._time_base

    def excerpt(self, indices: Sequence[int], seek: Fraction | None) -> Excerpt:
        """What to ask of FFmpeg for ascending indices."""
        starts = [0, len(indices)]
        if not (isinstance(indices, range) and indices.step == 1):
            starts[1:1] = (i + 1 for i, (a, b) in enumerate(pairwise(indices)) if b != a + 1)
        series = [(indices[a], indices[b - 1]) for a, b in pairwise(starts)]
        spans = tuple((self._tick(first), self._tick(last + 1) - 1) for first, last in series)
        return Excerpt(spans, len(indices), seek, 1 / self._time_base if self._raw else None)

    def _tick(self, index: int) -> int:
        """The first tick that is nearer to a frame than to the one before."""
        times = self.times
        if index == 0:
            return times[0]
        if index == len(times):
            return times[-1] + 1
        return (times[index - 1] + times[index]) // 2 + 1
