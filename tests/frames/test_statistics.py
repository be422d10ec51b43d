"""Statistics of frames, against numpy on the same pixels."""

from __future__ import annotations

import numpy as np
import pytest

from ffenc.compiler.frames import SampleTap
from ffenc.frames.statistics import RgbHistogram, sample_tap
from ffenc.layout import QUANTILES


def test_all_statistics_are_those_of_the_pixels() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (5, 8, 6, 3), np.uint8) // np.array([1, 2, 5], np.uint8)
    histogram = RgbHistogram(SampleTap(1, 6, 8))
    data = frames.tobytes()
    for start in range(0, len(data), 100):  # cut anywhere
        histogram.feed(data[start : start + 100])
    stats = histogram.statistics()
    values = frames.reshape(-1, 3) / 255
    assert stats["count"] == [5]
    for name, expected in {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        **{name: np.quantile(values, q, axis=0) for name, q in QUANTILES.items()},
    }.items():
        assert np.shape(stats[name]) == (3, 1, 1)
        np.testing.assert_allclose(np.ravel(stats[name]), expected, atol=1e-12, err_msg=name)


def test_no_frames_have_no_statistics() -> None:
    with pytest.raises(ValueError, match="no frames"):
        RgbHistogram(SampleTap(1, 2, 2)).statistics()


@pytest.mark.parametrize(("frames", "step"), [(1, 1), (100, 1), (299, 2), (1000, 5), (20_000, 11)])
def test_samples_are_as_many_as_lerobot_takes(frames: int, step: int) -> None:
    tap = sample_tap(frames, 640, 480)
    assert (tap.step, tap.width, tap.height) == (step, 160, 120)
    assert sample_tap(frames, 160, 120).width == 160
