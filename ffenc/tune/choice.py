"""Which candidates are worth looking at, and the one to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from ffenc.tune.search import Target

SHOWN = 8  # rows of a camera's table
_ALIKE = 1.2  # times that differ by less are one: they are measured on a machine that does other things too
_SLOWEST_READ = 1.5  # times the quickest, of a random frame


class Point(Struct, frozen=True):
    """What is weighed of a candidate.

    Attributes:
        bytes: a frame.
        quality: mean of the metric that decides.
        read: seconds for a random frame.
        encode_fps: frames a second, alone.
    """

    bytes: float
    quality: float
    read: float
    encode_fps: float


def beats(one: Point, other: Point) -> bool:
    """Whether a candidate is as good as another in size, quality and reading time, and better in one."""
    if one.bytes > other.bytes or one.quality < other.quality or one.read > other.read * _ALIKE:
        return False
    return one.bytes < other.bytes or one.quality > other.quality or one.read * _ALIKE < other.read


def front(points: Mapping[int, Point]) -> list[int]:
    """Return the candidates that no other beats, from the smallest to the largest."""
    found = [
        number
        for number, point in points.items()
        if not any(beats(other, point) for at, other in points.items() if at != number)
    ]
    return sorted(found, key=lambda number: points[number].bytes)


def shown(pareto: Sequence[int], always: Sequence[int], points: Mapping[int, Point]) -> list[int]:
    """Return the candidates of a table: some of the best, evenly, and those that must be there."""
    rest = [number for number in pareto if number not in always]
    room = max(0, SHOWN - len(always))
    if len(rest) > room:
        step = (len(rest) - 1) / max(1, room - 1)
        rest = [rest[round(i * step)] for i in range(room)]
    chosen = dict.fromkeys([*always, *rest])
    return sorted(chosen, key=lambda number: points[number].bytes)


class Recommendation(Struct, frozen=True):
    """The candidate to take.

    Attributes:
        number: which.
        meets: it reaches the target.
        reason: why it, in a sentence.
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
    """Choose: of those that meet the target, encode in real time and are quick to read, the smallest.

    With a size as the target, the one of the highest quality. What no candidate does is not asked for, and
    the reason says so.

    Args:
        points: the candidates; one at least.
        target: what is to be reached.
        metric: the name of the metric that ``quality`` is of.
        source_bytes: of a frame of the source.
        needed_fps: frames a second that a recording of all cameras needs of one encoder that is alone.
        cameras: how many there are.
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
