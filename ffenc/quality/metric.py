"""What a quality metric is."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from msgspec import Struct

from ffenc.compiler.quality import QualityFilter


class Metric(Struct, frozen=True):
    """A measure of how alike two pictures are; larger is better.

    Attributes:
        name: as it is called in JSON and on the command line.
        label: as people write it.
        filter: FFmpeg's filter that computes it.
        unit: of its values, "" where it has none.
        digits: behind the point, that mean something.
        best: of a picture and itself; infinite for those in dB.
        values: picks a value for each frame out of what FFmpeg has printed and of VMAF's log, in order.
        mean: of all frames together, of the values of each.
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
    """Return what picks the values of a key that the metadata filter has printed."""
    line = re.compile(rf"^lavfi\.{re.escape(key)}=(\S+)$", re.MULTILINE)
    return lambda printed, _: [float(value) for value in line.findall(printed)]


def arithmetic_mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return math.fsum(values) / len(values)


def mean_of_errors(values: Sequence[float]) -> float:
    """Return the decibels of the mean error: a frame that is identical lowers the error and no more."""
    error = math.fsum(10 ** (-value / 10) for value in values) / len(values)
    return -10 * math.log10(error) if error else math.inf
