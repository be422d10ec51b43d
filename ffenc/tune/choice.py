"""Select the best candidates, and recommend one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from ffenc.tune.search import Target

SHOWN = 8  # rows in a camera's table
_ALIKE = 1.2  # times within this ratio count as equal, as other programs affect the measurement
_SLOWEST_READ = 1.5  # accepted time for a random frame, relative to the quickest candidate's


class Point(Struct, frozen=True):
    """The figures of a candidate that are compared.

    Attributes:
        bytes: per frame.
        quality: mean of the main metric.
        read: seconds to read a random frame.
        encode_fps: frames per second, without other encoders.
    """

    bytes: float
    quality: float
    read: float
    encode_fps: float


def beats(one: Point, other: Point) -> bool:
    """Return whether a candidate is at least as good in size, quality and reading time, and better in one."""
    if one.bytes > other.bytes or one.quality < other.quality or one.read > other.read * _ALIKE:
        return False
    return one.bytes < other.bytes or one.quality > other.quality or one.read * _ALIKE < other.read


def front(points: Mapping[int, Point]) -> list[int]:
    """Return the candidates that no other beats (the Pareto front), from the smallest to the largest."""
    found = [
        number
        for number, point in points.items()
        if not any(beats(other, point) for at, other in points.items() if at != number)
    ]
    return sorted(found, key=lambda number: points[number].bytes)


def shown(pareto: Sequence[int], always: Sequence[int], points: Mapping[int, Point]) -> list[int]:
    """Return the candidates for a table: some of the front, evenly spaced, and those in ``always``."""
    rest = [number for number in pareto if number not in always]
    room = max(0, SHOWN - len(always))
    if len(rest) > room:
        step = (len(rest) - 1) / max(1, room - 1)
        rest = [rest[round(i * step)] for i in range(room)]
    chosen = dict.fromkeys([*always, *rest])
    return sorted(chosen, key=lambda number: points[number].bytes)


class Recommendation(Struct, frozen=True):
    """The recommended candidate.

    Attributes:
        number: its number.
        meets: whether it reaches the target.
        reason: the reason, as a sentence.
    """

    number: int
    meets: bool
    reason: str


def recommend(
    points: Mapping[int, Point],
    target: Target,
    *,
    metric: str,
    source_bytes: float,
    needed_fps: float,
    cameras: int,
) -> Recommendation:
    """Recommend the smallest candidate that meets the target, encodes in real time and is quick to read.

    If the target is a size, recommend the one with the highest quality. A requirement that no candidate
    meets is dropped, which the reason states.

    Args:
        points: at least one candidate.
        target: the target.
        metric: name of the metric of ``quality``.
        source_bytes: bytes per frame of the source.
        needed_fps: frames per second that one encoder alone has to reach so that all cameras can be recorded.
        cameras: number of cameras.
    """

    def value(point: Point) -> float:
        return point.bytes if target.kind == "size" else point.quality

    meeting = [n for n, point in points.items() if target.met(value(point), source_bytes)]
    if not meeting:
        best = max(points, key=lambda n: -points[n].bytes if target.kind == "size" else points[n].quality)
        return Recommendation(
            best,
            False,
            ("is the smallest" if target.kind == "size" else f"has the highest {metric.upper()}")
            + f" of what was tried, which does not reach {target}",
        )
    name = str(target) if target.kind == "size" else f"{target.kind.upper()} {target.value:g}"
    live = [n for n in meeting if points[n].encode_fps >= needed_fps]
    pool = live or meeting
    quickest = min(points[n].read for n in pool)
    quick = [n for n in pool if points[n].read <= quickest * _SLOWEST_READ]
    asked = [f"reach {name} ({len(meeting)} of {len(points)})"]
    if live:
        many = f"{cameras} cameras" if cameras > 1 else "one camera"
        asked.append(f"encode {many} live ({needed_fps:.0f} frames/s)")
    asked.append(
        f"read a random frame within {_SLOWEST_READ:g} times the quickest's {quickest * 1000:.1f} ms"
    )
    if target.kind == "size":
        best = max(quick, key=lambda n: (points[n].quality, -points[n].bytes))
        what = f"has the highest {metric.upper()}"
    else:
        best = min(quick, key=lambda n: (points[n].bytes, -points[n].quality))
        what = "is the smallest"
    reason = f"{what} of those that {', '.join(asked[:-1])} and {asked[-1]}"
    if not live:
        reason += f"; none encodes {needed_fps:.0f} frames/s, which a recording of all cameras needs"
    return Recommendation(best, True, reason)
