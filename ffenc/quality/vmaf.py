"""VMAF: the quality that viewers would perceive, 0 to 100, by Netflix's model v0.6.1. Requires libvmaf.

Its values are in a log that the library writes: the filter does not attach them to the frames.
"""

from __future__ import annotations

import csv

from ffenc.quality.metric import Metric, arithmetic_mean


def _values(_: str, log: str) -> list[float]:
    return [float(row["vmaf"]) for row in csv.DictReader(log.splitlines())]


VMAF = Metric("vmaf", "VMAF", "libvmaf", "", 1, 100.0, _values, arithmetic_mean)
