"""The description of a quality metric."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from msgspec import Struct

from ffenc.compiler.quality import QualityFilter


class Metric(Struct, frozen=True):
    """A measure of the similarity of two frames; a greater value is better.

    Attributes:
        name: its name in JSON and on the command line.
        label: its usual spelling, for tables and plots.
        filter: FFmpeg's filter that computes it.
        unit: unit of its values; "" if they have none.
        digits: number of significant digits after the decimal point.
        best: value of identical frames; infinite for metrics in dB.
        values: returns the value of each frame, in order, from FFmpeg's output and VMAF's log.
        mean: returns the mean over all frames from the values of each.
    """

    name: str
    label: str
    filter: QualityFilter
    unit: str
    digits: int
    best: float
    values: Callable[[str, str], list[float]]
    mean: Callable[[Sequence[float]], float]


def printed_values(key: str) -> Callable[[str, str], list[float]]:
    """Return a function that reads the values of a key from the output of the metadata filter."""
    line = re.compile(rf"^lavfi\.{re.escape(key)}=(\S+)$", re.MULTILINE)
    return lambda printed, _: [float(value) for value in line.findall(printed)]


def arithmetic_mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return math.fsum(values) / len(values)


def mean_of_errors(values: Sequence[float]) -> float:
    """Return the mean error in decibels; an identical frame has no error, instead of an infinite value."""
    error = math.fsum(10 ** (-value / 10) for value in values) / len(values)
    return -10 * math.log10(error) if error else math.inf
