"""Positions of frames in a file: their times, and where decoding can start for them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from ffenc.compiler.frames import Excerpt
from ffenc.ffmpeg.probe import StreamInfo


class FrameIndex:
    """Positions of a file's frames by index.

    Args:
        info: stream fields of the file, with ``times``.
    """

    def __init__(self, info: StreamInfo) -> None:
        assert info.times is not None
        assert info.key_frames is not None
        assert info.closed is not None
        self.times = info.times
        # H.264's decoder reports an error if frames after an open key frame lack their references.
        self._keys = info.closed if info.codec == "h264" else info.key_frames
        self._time_base, self._raw = info.time_base, info.raw
        self._delay = info.delay or 0

    def key(self, index: int) -> int:
        """Return the last key frame up to a frame, 0 if there is none."""
        place = bisect_right(self._keys, index)
        return self._keys[place - 1] if place else 0

    def entry(self, index: int, *, early: bool = False) -> Fraction | None:
        """Return the time in seconds to seek to for a frame; None: the start of the file.

        Args:
            index: the frame.
            early: return a time so far before the key frame that no container's seek lands after it, whether
                it uses decode or presentation times.
        """
        key = self.key(index)
        if early:
            key = self.key(max(0, key - self._delay))
        if key == 0 or self.times[key] <= 0:
            return None
        return self.after(key)

    def after(self, index: int) -> Fraction:
        """Return a time slightly after that of a frame, in seconds: FFmpeg rounds to microseconds."""
        times = self.times
        later = times[index + 1] if index + 1 < len(times) else times[index] + 1
        return (times[index] + Fraction(later - times[index], 4)) * self._time_base

    def excerpt(self, indices: Sequence[int], seek: Fraction | None) -> Excerpt:
        """Return the excerpt of ascending frame indices."""
        starts = [0, len(indices)]
        if not (isinstance(indices, range) and indices.step == 1):
            starts[1:1] = (i + 1 for i, (a, b) in enumerate(pairwise(indices)) if b != a + 1)
        series = [(indices[a], indices[b - 1]) for a, b in pairwise(starts)]
        spans = tuple((self._tick(first), self._tick(last + 1) - 1) for first, last in series)
        return Excerpt(spans, len(indices), seek, 1 / self._time_base if self._raw else None)

    def _tick(self, index: int) -> int:
        """Return the first tick that is nearer to a frame than to the one before."""
        times = self.times
        if index == 0:
            return times[0]
        if index == len(times):
            return times[-1] + 1
        return (times[index - 1] + times[index]) // 2 + 1
