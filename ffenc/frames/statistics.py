"""Statistics of RGB frames as LeRobot stores them: per channel, scaled to [0, 1]."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from ffenc.compiler.frames import SampleTap
from ffenc.layout import QUANTILES

Stats = dict[str, Any]


def sample_tap(frames: int, width: int, height: int) -> SampleTap:
    """Return which pixels statistics are computed over, by LeRobot's rule.

    About ``frames ** 0.75`` frames, at least 100 and at most 10,000; frames with a longer side of 300 pixels
    or more are thinned to about 150 (``estimate_num_samples``, ``auto_downsample_height_width``).
    """
    samples = max(min(100, frames), min(int(frames**0.75), 10_000))
    longer = max(width, height)
    factor = int(longer / 150) if longer >= 300 else 1
    return SampleTap(
        step=max(1, frames // max(1, samples)), width=max(1, width // factor), height=max(1, height // factor)
    )


def thinned(frame: npt.NDArray[Any], tap: SampleTap) -> npt.NDArray[Any]:
    """Return a regular selection of a frame's pixels, ``(H, W, ...)``: about the tap's size, never fewer."""
    return frame[:: frame.shape[0] // tap.height, :: frame.shape[1] // tap.width]


class ValueCounts(Struct, frozen=True):
    """Histogram of a camera's sample values, which can be added over episodes.

    Attributes:
        counts: shape ``(C, V)``: number of samples per channel and value.
        per: value number v is v / per in the statistics.
    """

    counts: npt.NDArray[np.int64]
    per: int

    def __add__(self, other: ValueCounts) -> ValueCounts:
        return ValueCounts(self.counts + other.counts, self.per)

    def quantiles(self, low: Any, high: Any) -> Stats:
        """Return q01..q99, shape ``(C, 1, 1)``, clipped to ``low`` and ``high`` of the same shape."""
        found = _quantiles(self.counts, np.arange(self.counts.shape[1]) / self.per)
        return {name: np.clip(values, low, high).tolist() for name, values in found.items()}

    def packed(self) -> str:
        """Return the histogram as a short text."""
        return base64.b64encode(zlib.compress(self.counts.astype("<i8").tobytes())).decode()

    @classmethod
    def unpacked(cls, text: str, *, channels: int, per: int) -> ValueCounts:
        """Return the histogram of a text from :meth:`packed`.

        Raises:
            ValueError: the text is not valid.
        """
        try:
            counts = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i8")
        except zlib.error as error:
            raise ValueError(str(error)) from None
        return cls(counts.reshape(channels, -1).astype(np.int64), per)


class Picking:
    """Selection of the sampled frames of an episode.

    Args:
        tap: step and size of the samples.
    """

    def __init__(self, tap: SampleTap) -> None:
        self.tap = tap
        self._seen = 0

    @property
    def picks_next(self) -> bool:
        """Return whether the next frame is sampled."""
        return self._seen % self.tap.step == 0

    def pass_over(self) -> None:
        """Skip a frame that is not sampled."""
        self._seen += 1


class RgbHistogram(Picking):
    """Histogram of every channel, from which all statistics follow exactly.

    Args:
        tap: step and size of the samples.
    """

    def __init__(self, tap: SampleTap) -> None:
        super().__init__(tap)
        self._frame_bytes = tap.width * tap.height * 3
        self.clear()

    def clear(self) -> None:
        """Remove all frames."""
        self._pending = bytearray()
        self._seen = 0
        self.frames = 0
        self.counts = np.zeros((3, 256), np.int64)

    def feed(self, data: bytes) -> None:
        """Add raw rgb24 bytes, in pieces of any size."""
        self._pending += data
        whole = len(self._pending) // self._frame_bytes * self._frame_bytes
        if whole:
            pixels = np.frombuffer(bytes(self._pending[:whole]), np.uint8).reshape(-1, 3)
            del self._pending[:whole]
            for channel in range(3):
                self.counts[channel] += np.bincount(pixels[:, channel], minlength=256)
            self.frames += whole // self._frame_bytes

    def add(self, frame: npt.NDArray[np.uint8]) -> None:
        """Add a frame of shape ``(H, W, 3)``, thinned to about the tap's size, if it is sampled."""
        if not self.picks_next:
            self.pass_over()
            return
        self._seen += 1
        thin = thinned(frame, self.tap)
        self.counts += np.stack([np.bincount(thin[..., c].ravel(), minlength=256) for c in range(3)])
        self.frames += 1

    def statistics(self) -> Stats:
        """Return min, max, mean, std and q01..q99, shaped ``[[[r]], [[g]], [[b]]]`` in [0, 1], and count.

        Raises:
            ValueError: no frame was added.
        """
        return histogram_statistics(self.counts, np.arange(256) / 255, self.frames)

    def values(self) -> ValueCounts:
        """Return the histogram."""
        return ValueCounts(self.counts, 255)


def histogram_statistics(
    counts: npt.NDArray[np.int64], values: npt.NDArray[np.float64], frames: int
) -> Stats:
    """Return the statistics of a histogram.

    Args:
        counts: shape ``(C, V)``: number of samples per channel and value.
        values: shape ``(V,)``, ascending.
        frames: number of frames.

    Returns:
        min, max, mean, std and q01..q99, shape ``(C, 1, 1)``, and ``count``.

    Raises:
        ValueError: the histogram is empty.
    """
    if not frames:
        raise ValueError("there are no frames to compute statistics from")
    total = counts.sum(axis=1)
    mean = counts @ values / total
    variance = counts @ values**2 / total - mean**2
    present = counts > 0
    columns = {
        "min": values[present.argmax(axis=1)],
        "max": values[counts.shape[1] - 1 - present[:, ::-1].argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(variance, 0)),
        "count": None,
    }
    stats: Stats = {}
    for name, column in columns.items():
        stats[name] = [frames] if column is None else _image_shape(column)
    return stats | _quantiles(counts, values)


def _quantiles(counts: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> Stats:
    total, cumulative = counts.sum(axis=1), counts.cumsum(axis=1)
    stats: Stats = {}
    for name, quantile in QUANTILES.items():
        # numpy's default definition: linear between the neighbours of rank q (n - 1)
        rank = quantile * (total - 1)
        low = (cumulative > np.floor(rank)[:, None]).argmax(axis=1)
        high = (cumulative > np.ceil(rank)[:, None]).argmax(axis=1)
        stats[name] = _image_shape(values[low] + (rank - np.floor(rank)) * (values[high] - values[low]))
    return stats


def _image_shape(column: Any) -> list[list[list[float]]]:
    return [[[float(value)]] for value in column]
