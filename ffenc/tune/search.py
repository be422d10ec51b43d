"""Find the crf that meets a target with few encodes, by interpolation."""

from __future__ import annotations

import math
import re
from typing import Literal

from msgspec import Struct, field

from ffenc.codecs.suggest import accepted
from ffenc.errors import ConfigError
from ffenc.spelling import argument

TargetKind = Literal["vmaf", "ssim", "psnr", "xpsnr", "size"]

# The search ends if a result exceeds the target by less than this; more quality only costs bytes.
_CLOSE = {"vmaf": 0.3, "ssim": 0.0008, "psnr": 0.15, "xpsnr": 0.15}
_CLOSE_SIZE = 0.03  # share of the target size
_MOST_TRIES = 8
_FIRST_STEP = 6  # crf
_RANGES = {"vmaf": (0, 100), "ssim": (0, 1), "psnr": (0, 100), "xpsnr": (0, 100)}
_UNITS = {"b": 1, "kb": 1e3, "mb": 1e6}


class Target(Struct, frozen=True):
    """The target of the settings.

    Attributes:
        kind: a metric, whose mean must be at least ``value``; or ``size``, which must be at most ``value``.
        value: of the metric; for ``size`` bytes per frame, or with ``share`` a share of the source's bytes.
        share: see ``value``.
    """

    kind: TargetKind
    value: float
    share: bool = False

    def limit(self, source_bytes: float) -> float:
        """Return the value; for ``size`` in bytes per frame, given the source's bytes per frame."""
        return self.value * source_bytes if self.share else self.value

    def met(self, found: float, source_bytes: float) -> bool:
        """Return whether a value (for ``size``, bytes per frame) reaches the target."""
        limit = self.limit(source_bytes)
        return found <= limit if self.kind == "size" else found >= limit

    def __str__(self) -> str:
        if self.kind != "size":
            return f"{self.kind}={self.value:g}"
        return f"size={self.value * 100:g}%" if self.share else f"size={self.value:g}B"


def read_target(text: str) -> Target:
    """Parse ``vmaf=95``, ``ssim=0.98``, ``psnr=40``, ``size=4kB`` (per frame) or ``size=5%`` (of the source).

    Raises:
        ConfigError: not a valid target.
    """
    kind, equals, value = (part.strip().lower() for part in text.partition("="))
    kinds = [*_RANGES, "size"]
    if kind not in kinds or not equals:
        raise ConfigError(
            f"{argument('target', text)} is not accepted",
            expected=f"a target such as vmaf=95 or size=5%{accepted(kind, kinds)}",
        )
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(%|[km]?b)?", value, re.ASCII)
    if match is None or (kind != "size" and match[2]):
        raise ConfigError(
            f"{argument('target', text)}: {value!r} is not a number" + (" of bytes" if kind == "size" else "")
        )
    number = float(match[1])
    if kind == "size":
        if match[2] is None:
            raise ConfigError(
                f"{argument('target', text)} has no unit",
                expected=f"{value}% of the source's size, or {value}B or {value}kB per frame",
            )
        share = match[2] == "%"
        number = number / 100 if share else number * _UNITS[match[2]]
        if not number > 0:
            raise ConfigError(f"{argument('target', text)} is not accepted", expected="a size above 0")
        return Target("size", number, share)
    low, high = _RANGES[kind]
    if not low < number < high:
        raise ConfigError(
            f"{argument('target', text)} is not accepted", expected=f"a number between {low} and {high}"
        )
    return Target(kind, number)  # type: ignore[arg-type]


class CrfSearch(Struct):
    """The search for one combination of settings: the next crf to test, until one meets the target closely.

    The search assumes that a greater crf means a smaller file of lower quality.

    Args:
        target: the target; ``limit`` is its value for the camera.
        limit: see :meth:`Target.limit`.
        low, high: range of crf.
        start: the first crf.
        step: smallest difference between two values of crf.
    """

    target: Target
    limit: float
    low: float
    high: float
    start: float
    step: float = 1
    found: dict[float, float] = field(default_factory=dict)

    def add(self, crf: float, value: float) -> None:
        """Record the result of a crf: the metric's mean, or bytes per frame."""
        self.found[crf] = value

    def next(self) -> float | None:
        """Return the next crf to test; None: the search has ended."""
        if not self.found:
            return self._rounded(self.start)
        if len(self.found) >= _MOST_TRIES or self._close():
            return None
        below, above = self._bounds()
        if below is not None and above is not None and above - below <= self.step * 1.001:
            return None
        wanted = self._interpolated()
        least = below + self.step if below is not None else self.low
        most = above - self.step if above is not None else self.high
        crf = self._rounded(max(least, min(most, wanted)))
        return None if crf in self.found else crf

    def _meets(self, value: float) -> bool:
        return value <= self.limit if self.target.kind == "size" else value >= self.limit

    def _close(self) -> bool:
        """Return whether a result meets the target so closely that another encode is not worthwhile."""
        slack = self.limit * _CLOSE_SIZE if self.target.kind == "size" else _CLOSE[self.target.kind]
        return any(self._meets(value) and abs(value - self.limit) <= slack for value in self.found.values())

    def _bounds(self) -> tuple[float | None, float | None]:
        """Return the greatest crf on the finer side of the target and the least one on the coarser side."""
        # For quality, results that meet the target are finer; for size, those that do not.
        finer = [
            crf for crf, value in self.found.items() if self._meets(value) != (self.target.kind == "size")
        ]
        coarser = [crf for crf in self.found if crf not in finer]
        return max(finer, default=None), min(coarser, default=None)

    def _interpolated(self) -> float:
        """Interpolate the crf linearly between the nearest results; sizes as logarithms."""
        below, above = self._bounds()
        if below is None or above is None:
            return self._extrapolated()
        sides = [self._meets(value) for value in list(self.found.values())[-2:]]
        low, high = self._linear(self.found[below]), self._linear(self.found[above])
        if len(self.found) > 2 and sides[0] == sides[1]:
            # Where quality falls faster and faster, interpolation misses on the same side repeatedly: bisect.
            return (below + above) / 2
        return below + (self._linear(self.limit) - low) * (above - below) / (high - low)

    def _extrapolated(self) -> float:
        """Extrapolate the crf linearly from the two results nearest to the target."""
        goal = self._linear(self.limit)
        points = [(crf, self._linear(value)) for crf, value in self.found.items()]
        (x, y), *others = sorted(points, key=lambda point: abs(point[1] - goal))
        step = float(_FIRST_STEP)
        if others and others[0][1] != y:
            other, height = others[0]
            step = abs((goal - y) * (other - x) / (height - y))
        step = min(step, 2 * _FIRST_STEP)
        below, _ = self._bounds()
        return x - step if below is None else x + step

    def _linear(self, value: float) -> float:
        if self.target.kind == "size":
            return math.log(max(value, 1e-9))
        return value if math.isfinite(value) else 120.0  # identical frames; far above any target

    def _rounded(self, crf: float) -> float:
        # Round towards the side that meets the target.
        steps = crf / self.step
        rounded = (
            math.ceil(steps - 1e-6) if self.target.kind == "size" else math.floor(steps + 1e-6)
        ) * self.step
        rounded = max(self.low, min(self.high, rounded))
        return int(rounded) if rounded == int(rounded) else rounded
