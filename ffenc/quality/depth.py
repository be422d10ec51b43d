"""Errors of decoded depth in millimetres."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from ffenc.frames.depth import DepthQuantizer

# Sensors return values within 1 % of the greatest 16-bit number, with noise, for surfaces beyond their range;
# 0 is a pixel without depth.
NO_READING = 64880
BANDS_M = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 66.0)
_STEP = 0.1  # mm, of the histogram of errors
_BINS = 1 << 16
_EDGE_MM, _EDGE_SHARE = 50, 0.05  # a step between neighbours of more than both is an edge
_OUTSIDE = 0.001  # share of pixels that a suggested range may leave out at either end
_LARGEST_MM = 65535
_GAP = 2.5  # times as far, with nothing between
_BACKGROUND = 0.1  # share of the depths that may be background
_STRAY = 1e-6  # share of the depths at one millimetre that is nothing


class Errors(Struct, frozen=True):
    """Errors over some pixels, in millimetres; all 0 if there are no pixels.

    Attributes:
        share: share of these pixels in the pixels with depth.
        p50, p99: median, and 99th percentile.
        max: greatest error.
    """

    share: float
    p50: float
    p99: float
    max: float


class DepthError(Struct, frozen=True):
    """The error of decoded depth.

    Attributes:
        all: errors of all pixels with a depth inside the stored range that are decoded with a depth.
        edges: errors of those of them that are beside a step of the depth.
        bands: limits of a distance in metres, and the errors of its pixels.
        saturated: share of the pixels with depth that are outside the stored range.
        holes: share of all pixels without depth.
        holes_filled: share of the pixels without depth that are decoded with a depth.
        holes_made: share of the pixels with depth that are decoded without.
    """

    all: Errors
    edges: Errors
    bands: tuple[tuple[float, float, Errors], ...]
    saturated: float
    holes: float
    holes_filled: float
    holes_made: float


class DepthErrors:
    """Adds up the errors of depth maps.

    Args:
        quantizer: how depth was quantised; None: all of 16 bits is stored.

    Attributes:
        range: the least and greatest stored depth in millimetres.
    """

    def __init__(self, quantizer: DepthQuantizer | None) -> None:
        low, high = (quantizer.depth_min, quantizer.depth_max) if quantizer else (0.0, np.inf)
        self.range = round(low * 1000, 6), round(high * 1000, 6)  # 0.07 * 1000 is more than 70
        bands = len(BANDS_M) - 1
        self._counts = np.zeros((bands + 1, _BINS), np.int64)  # the last: at edges
        self._largest = np.zeros(bands + 1)
        self._pixels = self._holes = self._filled = self._made = self._saturated = self._depths = 0

    def add(self, given: npt.NDArray[np.uint16], shown: npt.NDArray[Any]) -> float:
        """Compare a depth map with its decoded version, and return the greatest error in millimetres.

        Args:
            given: millimetres, ``(H, W)``; 0 is a pixel without depth. Pixels of 64880 and more are beyond
                the sensor's range, and are not compared.
            shown: the decoded depth in millimetres, integers or floats, of the same shape.
        """
        hole, back = given == 0, shown > 0
        real = ~hole & (given < NO_READING)
        inside = real & (given >= self.range[0]) & (given <= self.range[1])
        self._pixels += given.size
        self._holes += int(hole.sum())
        self._filled += int((hole & back).sum())
        self._made += int((real & ~back).sum())
        self._depths += int(real.sum())
        self._saturated += int((real & ~inside).sum())
        compared = inside & back
        depths = given[compared]
        errors = np.abs(depths.astype(np.float64) - shown[compared])
        bins = np.minimum(np.rint(errors / _STEP).astype(np.int64), _BINS - 1)
        band = np.digitize(depths / 1000, BANDS_M[1:-1])
        flat = np.bincount(band * _BINS + bins, minlength=(len(BANDS_M) - 1) * _BINS)
        self._counts[:-1] += flat.reshape(-1, _BINS)
        np.maximum.at(self._largest, band, errors)
        beside = edges(given)[compared]
        self._counts[-1] += np.bincount(bins[beside], minlength=_BINS)
        self._largest[-1] = max(self._largest[-1], errors[beside].max(initial=0))
        return float(errors.max(initial=0))

    def result(self) -> DepthError:
        """Return the errors over all depth maps that were added."""
        total = int(self._counts[:-1].sum())
        bands = [
            (low, high, _errors(counts, largest, total))
            for low, high, counts, largest in zip(
                BANDS_M[:-1], BANDS_M[1:], self._counts[:-1], self._largest[:-1], strict=True
            )
            if counts.any()
        ]
        depths = max(self._depths, 1)
        return DepthError(
            _errors(self._counts[:-1].sum(axis=0), float(self._largest[:-1].max()), total),
            _errors(self._counts[-1], self._largest[-1], total),
            tuple(bands),
            saturated=self._saturated / depths,
            holes=self._holes / max(self._pixels, 1),
            holes_filled=self._filled / max(self._holes, 1),
            holes_made=self._made / depths,
        )


def _errors(counts: npt.NDArray[np.int64], largest: float, total: int) -> Errors:
    own = int(counts.sum())
    if not own:
        return Errors(0.0, 0.0, 0.0, 0.0)
    sums = counts.cumsum()
    p50, p99 = (min(float(np.searchsorted(sums, own * q) * _STEP), float(largest)) for q in (0.5, 0.99))
    return Errors(own / max(total, 1), round(p50, 2), round(p99, 2), round(float(largest), 2))


def edges(depth: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """Return which pixels differ from a neighbour with depth by more than both 50 mm and 5 %."""
    found = np.zeros(depth.shape, bool)
    wide = depth.astype(np.int32)
    there = (depth > 0) & (depth < NO_READING)
    for axis in (0, 1):
        one = [slice(None)] * 2
        other = [slice(None)] * 2
        one[axis], other[axis] = slice(None, -1), slice(1, None)
        near, far = wide[tuple(one)], wide[tuple(other)]
        limit = np.maximum(_EDGE_MM, _EDGE_SHARE * np.minimum(near, far))
        step = (np.abs(near - far) > limit) & there[tuple(one)] & there[tuple(other)]
        found[tuple(one)] |= step
        found[tuple(other)] |= step
    return found


class DepthRange(Struct, frozen=True):
    """A range for storing depth.

    Attributes:
        depth_min, depth_max: in metres.
        saturated: share of the pixels with depth that are outside.
        no_reading: share of all pixels at the sensor's limit, which have no depth.
    """

    depth_min: float
    depth_max: float
    saturated: float
    no_reading: float


class DepthHistory:
    """Counts which depths there are, to suggest a range."""

    def __init__(self) -> None:
        self._counts = np.zeros(_LARGEST_MM + 1, np.int64)

    def add(self, millimetres: npt.NDArray[np.uint16]) -> None:
        """Count a depth map."""
        self._counts += np.bincount(millimetres.reshape(-1), minlength=_LARGEST_MM + 1)

    def within(self, depth_min: float, depth_max: float) -> DepthRange:
        """Return a range with the shares of pixels that it excludes; the limits are in metres."""
        counts = self._counts[1:NO_READING]
        low, high = (min(max(round(metres * 1000), 1), NO_READING) for metres in (depth_min, depth_max))
        inside = int(counts[low - 1 : high].sum())
        depths = int(counts.sum())
        return DepthRange(
            depth_min,
            depth_max,
            1 - inside / depths if depths else 0.0,
            float(self._counts[NO_READING:].sum() / max(1, self._counts.sum())),
        )

    def suggested(self) -> DepthRange | None:
        """Return a range that excludes a thousandth of the depths at either end, widened a little.

        A few depths far behind all others, with none in between, are a background that the sensor does not
        measure, and are excluded.

        Returns:
            None if there is no depth.
        """
        counts = self._counts[1:NO_READING].copy()
        depths = int(counts.sum())
        if not depths:
            return None
        counts[_background(counts) :] = 0
        kept = int(counts.sum())
        sums = counts.cumsum()
        near = int(np.searchsorted(sums, kept * _OUTSIDE)) + 1
        far = int(np.searchsorted(sums, kept * (1 - _OUTSIDE))) + 1
        # A twentieth wider, to whole centimetres: other episodes are a little nearer, and a little farther.
        low = max(0.01, np.floor(near * 0.95 / 10) / 100)
        high = max(low + 0.1, np.ceil(far * 1.05 / 10) / 100)
        return self.within(round(float(low), 2), round(float(high), 2))


def _background(counts: npt.NDArray[np.int64]) -> int:
    """Return the index in ``counts`` (from 1 mm on) where the background begins; without one, its length."""
    depths = counts.sum()
    there = np.flatnonzero(counts > depths * _STRAY)
    steps = (there[1:] + 1) / (there[:-1] + 1)
    for place in np.flatnonzero(steps >= _GAP):
        end = int(there[place]) + 1
        if counts[end:].sum() <= depths * _BACKGROUND:
            return end
    return len(counts)
