"""Find the crf that meets a target, in few encodes: by interpolation between those that were tried."""

from __future__ import annotations

import math
import re
from typing import Literal

from msgspec import Struct, field

from ffenc.codecs.suggest import accepted
from ffenc.errors import ConfigError
from ffenc.spelling import argument

TargetKind = Literal["vmaf", "ssim", "psnr", "xpsnr", "size"]

# How far above the target a result may be for the search to end; quality that is not asked for costs bytes.
_CLOSE = {"vmaf": 0.3, "ssim": 0.0008, "psnr": 0.15, "xpsnr": 0.15}
_CLOSE_SIZE = 0.03  # of the size asked for
_MOST_TRIES = 8
_FIRST_STEP = 6  # crf
_RANGES = {"vmaf": (0, 100), "ssim": (0, 1), "psnr": (0, 100), "xpsnr": (0, 100)}
_UNITS = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6}


class Target(Struct, frozen=True):
    """What settings have to reach.

    Attributes:
        kind: a metric whose mean is to be ``value`` or more; or ``size``, which is to be ``value`` or less.
        value: the metric's; of ``size`` bytes a frame, or with ``share`` a part of the source's bytes.
        share: see ``value``.
    """

    kind: TargetKind
    value: float
    share: bool = False

    def limit(self, source_bytes: float) -> float:
        """The value; of ``size`` in bytes a frame, for a source of so many bytes a frame."""
        return self.value * source_bytes if self.share else self.value

    def met(self, found: float, source_bytes: float) -> bool:
        """Whether a value (of ``size`` bytes a frame) reaches it."""
        limit = self.limit(source_bytes)
        return found <= limit if self.kind == "size" else found >= limit

    def __str__(self) -> str:
        if self.kind != "size":
            return f"{self.kind}={self.value:g}"
        return f"size={self.value * 100:g}%" if self.share else f"size={self.value:g}B"


def read_target(text: str) -> Target:
    """Read ``vmaf=95``, ``ssim=0.98``, ``psnr=40``, ``size=4kB`` (a frame) or ``size=5%`` (of the source).

    Raises:
        ConfigError: not such a target.
    """
    kind, equals, value = (part.strip().lower() for part in text.partition("="))
    kinds = [*_RANGES, "size"]
    if kind not in kinds or not equals:
        raise ConfigError(
            f"{argument('target', text)} is not accepted",
            expected=f"a target such as vmaf=95 or size=5%{accepted(kind, kinds)}",
        )
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(%|[km]?b)?", value)
    if match is None or (kind != "size" and match[2]):
        raise ConfigError(
            f"{argument('target', text)}: {value!r} is not a number" + (" of bytes" if kind == "size" else "")
        )
    number = float(match[1])
    if kind == "size":
        share = match[2] == "%"
        number = number / 100 if share else number * _UNITS[match[2] or ""]
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
    """The search for one set of settings: which crf to try next, until one meets the target closely.

    A larger crf is taken to mean a smaller file of lower quality.

    Args:
        target: what is to be met; its ``limit`` for the camera.
        limit: see :meth:`Target.limit`.
        low, high: the crf's range.
        start: the crf to begin with.
        step: the smallest difference of two crf.
    """

    target: Target
    limit: float
    low: float
    high: float
    start: float
    step: float = 1
    found: dict[float, float] = field(default_factory=dict)

    def add(self, crf: float, value: float) -> None:
        """Note what a crf has given: the metric's mean, or bytes a frame."""
        self.found[crf] = value

    def next(self) -> float | None:
        """The crf to try next; None: the search has ended."""
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
        """Whether something that meets the target is so near that better is not worth an encode."""
        slack = self.limit * _CLOSE_SIZE if self.target.kind == "size" else _CLOSE[self.target.kind]
        return any(self._meets(value) and abs(value - self.limit) <= slack for value in self.found.values())

    def _bounds(self) -> tuple[float | None, float | None]:
        """The nearest crf on either side of the target: too good, or too small a crf, and the other."""
        # Of quality what meets is below, of size what does not.
        finer = [
            crf for crf, value in self.found.items() if self._meets(value) != (self.target.kind == "size")
        ]
        coarser = [crf for crf in self.found if crf not in finer]
        return max(finer, default=None), min(coarser, default=None)

    def _interpolated(self) -> float:
        """Where the line between the nearest points meets the target; sizes in logarithms."""
        below, above = self._bounds()
        if below is None or above is None:
            return self._extrapolated()
        sides = [self._meets(value) for value in list(self.found.values())[-2:]]
        low, high = self._linear(self.found[below]), self._linear(self.found[above])
        if len(self.found) > 2 and sides[0] == sides[1]:
            # The line misses on the same side again and again where quality falls faster and faster.
            return (below + above) / 2
        return below + (self._linear(self.limit) - low) * (above - below) / (high - low)

    def _extrapolated(self) -> float:
        """Outside of what was tried, by the line through the two points that are nearest to the target."""
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
        return value if math.isfinite(value) else 120.0  # identical: far above any target

    def _rounded(self, crf: float) -> float:
        # Towards what meets the target: it is not to be nearly met.
        steps = crf / self.step
        rounded = (
            math.ceil(steps - 1e-6) if self.target.kind == "size" else math.floor(steps + 1e-6)
        ) * self.step
        rounded = max(self.low, min(self.high, rounded))
        return int(rounded) if rounded == int(rounded) else rounded
