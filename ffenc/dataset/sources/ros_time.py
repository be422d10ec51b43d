"""Assign messages that arrive at rates of their own to frames at a constant rate."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from ffenc.errors import SourceError
from ffenc.spelling import argument
from ffenc.words import count

Stamps = npt.NDArray[np.int64]

_SECOND = 1_000_000_000
_JUMP = 1.0  # seconds; a greater step back is a clock that was set, not a late message
_LONG = 1.0  # seconds; a recorder starts and stops its topics within less
_MANY = 5  # successive messages behind an earlier one: more than are late, unless a clock was set back
_SAME_CLOCK = 5.0  # seconds; two clocks of one machine, or synchronised ones, do not differ by as much
_MOST_FRAMES = 10_000_000  # of a recording: more than three days at 30 frames per second


class Stream(Struct, frozen=True):
    """The times of a topic's messages, in the order of recording.

    Attributes:
        topic: name of the topic.
        received: time of recording of each message, in nanoseconds.
        header: time stamp in each message, in nanoseconds; None: messages have none.
        bytes: size of all messages.
        tolerance: greatest distance of a message from its frame's time, in nanoseconds.
        taken: indices of the messages that can be used; None: all. Some packets of video cannot be decoded.
        notes: remarks for the report.
    """

    topic: str
    received: Stamps
    header: Stamps | None
    bytes: int
    tolerance: int
    taken: npt.NDArray[np.int64] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def stamps(self, which: str) -> Stamps:
        """Return the time stamps to use: ``header`` if messages have them, otherwise ``received``."""
        return self.received if which == "received" or self.header is None else self.header

    def report(self, which: str) -> dict[str, Any]:
        """Return a report on the times, as plain values; in seconds, except for counts."""
        stamps = self.stamps(which)
        found: dict[str, Any] = {"topic": self.topic, "messages": len(stamps), **self.notes}
        if len(stamps) < 2:
            return found
        steps = np.diff(stamps) / _SECOND
        ordered = np.sort(stamps)
        gaps = np.diff(ordered)[np.diff(ordered) > 0] / _SECOND
        if gaps.size:
            found |= {
                "rate": round(float(1 / np.median(gaps)), 3),
                "jitter": round(float(np.percentile(np.abs(gaps - np.median(gaps)), 95)), 6),
                "longest_gap": round(float(gaps.max()), 6),
            }
        for name, number in (
            ("duplicates", int((np.diff(ordered) == 0).sum())),
            ("out_of_order", int((steps < 0).sum())),
            ("clock_jumps", int((np.abs(steps) > max(_JUMP, 20 * float(np.median(np.abs(steps))))).sum())),
        ):
            if number:
                found[name] = number
        if self.header is not None:
            late = (self.received - self.header) / _SECOND
            found["received_after_header"] = [round(float(v), 6) for v in (np.median(late), late.max())]
        return found


class Piece(Struct, frozen=True):
    """Frames that form an episode.

    Attributes:
        begin: time of the first frame, in nanoseconds.
        times: time of each frame, in nanoseconds.
        picks: stream -> index of the message for each frame.
        repeated: stream -> frames that repeat the previous message, as none was within the tolerance.
        cut: seconds of the recording before and after it that belong to no episode.
    """

    begin: int
    times: Stamps
    picks: Mapping[str, npt.NDArray[np.int64]]
    repeated: Mapping[str, list[int]]
    cut: tuple[float, float]


def on_grid(
    streams: Mapping[str, Stream],
    fps: Fraction,
    *,
    which: str,
    on_gap: str,
    where: str,
    span: tuple[int, int] | None = None,
) -> list[Piece]:
    """Choose for each frame the message of each stream that is nearest to the frame's time.

    The grid begins at the first message of the first stream after all streams have begun, and ends when the
    first of the streams ends.

    Args:
        streams: by name; the first one is the stream that the grid begins with.
        fps: frames per second.
        which: time stamps to use, ``header`` or ``received``.
        on_gap: ``error``, ``repeat``, ``split`` or ``drop-episode``.
        where: name of the recording, for errors.
        span: use only messages between these two times, in nanoseconds; None: all.

    Returns:
        The episodes: one; several with ``split``; none with ``drop-episode``, or if no frame is left.

    Raises:
        SourceError: a frame has no message within the tolerance.
    """
    ordered: dict[str, tuple[Stamps, npt.NDArray[np.int64]]] = {}
    for name, stream in streams.items():
        taken = np.arange(len(stream.received)) if stream.taken is None else stream.taken
        stamps = stream.stamps(which)[taken]
        if not len(stamps):
            raise SourceError(f"{where}: {stream.topic} has no messages; leave it out of the mapping")
        if which == "header" and stream.header is not None and not stream.header.any():
            raise SourceError(
                f"{where}: the headers of {stream.topic} have no timestamps (all are 0); write "
                "stamps: received under time in the mapping"
            )
        recorded = _recorded(stream, which, taken)
        _refuse_set_back(stream.stamps(which)[recorded], recorded, stream, where)
        order = np.argsort(stamps, kind="stable")
        ordered[name] = stamps[order], taken[order]
    begin = max(int(stamps[0]) - streams[name].tolerance for name, (stamps, _) in ordered.items())
    end = min(int(stamps[-1]) + streams[name].tolerance for name, (stamps, _) in ordered.items())
    first, _ = next(iter(ordered.values()))
    end = min(end, int(first[-1] + _SECOND / (2 * fps)))  # no frame after the end of the grid's own stream
    if span is not None:
        begin, end = max(begin, span[0]), min(end, span[1])
    at = int(np.searchsorted(first, begin))
    if at >= len(first) or int(first[at]) > end:
        return _none(streams, ordered, where, span)
    start = int(first[at])
    count = int((end - start) * fps // _SECOND) + 1
    if count > _MOST_FRAMES:
        raise SourceError(
            f"{where}: its stamps are {(end - start) / _SECOND:,.0f} s from first to last, {count:,} "
            f"frames; at most {_MOST_FRAMES:,} are read. If a clock was set meanwhile, write "
            "stamps: received under time in the mapping"
        )
    # i / fps, rounded down to a nanosecond; in two parts, as the product may not fit into 64 bits
    step, rest = divmod(fps.denominator * _SECOND, fps.numerator)
    frames = np.arange(count, dtype=np.int64)
    times = start + frames * step + (frames * rest) // fps.numerator
    picks: dict[str, npt.NDArray[np.int64]] = {}
    repeated: dict[str, list[int]] = {}
    missing = np.zeros(count, bool)
    for name, (stamps, order) in ordered.items():
        near, far = nearest(stamps, times)
        lacking = far > streams[name].tolerance
        if lacking.any() and on_gap == "error":
            raise SourceError(_gap(where, streams[name], stamps, times, lacking, fps))
        if on_gap == "repeat" and lacking.any():
            before = np.maximum(np.searchsorted(stamps, times, side="right") - 1, 0)
            near = np.where(lacking, before, near)
            repeated[name] = np.flatnonzero(lacking).tolist()
        else:
            missing |= lacking
        picks[name] = order[near]
    whole = min(int(s[0]) for s, _ in ordered.values()), max(int(s[-1]) for s, _ in ordered.values())
    lo, hi = whole if span is None else (max(whole[0], span[0]), min(whole[1], span[1]))
    cut = (max(0.0, (start - lo) / _SECOND), max(0.0, (hi - int(times[-1])) / _SECOND))
    if on_gap == "drop-episode" and missing.any():
        return []
    return [
        Piece(
            int(times[run.start]),
            times[run],
            {name: chosen[run] for name, chosen in picks.items()},
            {
                name: [i - run.start for i in rows if run.start <= i < run.stop]
                for name, rows in repeated.items()
            },
            cut,
        )
        for run in _runs(~missing)
    ]


def _recorded(stream: Stream, which: str, taken: Stamps) -> Stamps:
    """Return some messages in the order of recording; the files of a bag may be in another order."""
    if which == "received" or stream.header is None:
        return taken
    return taken[np.argsort(stream.received[taken], kind="stable")]


def _refuse_set_back(stamps: Stamps, numbers: Stamps, stream: Stream, where: str) -> None:
    """Reject times of a clock that was set back, as messages of different times would have the same time."""
    steps = np.diff(stamps)
    if not len(steps) or steps.min() >= -max(_JUMP * _SECOND, 20 * float(np.median(np.abs(steps)))):
        return
    place = int(steps.argmin())
    raise SourceError(
        f"{where}: {stream.topic}: its clock was set back by {-steps[place] / _SECOND:.3f} s before message "
        f"{numbers[place + 1]}; write stamps: received under time in the mapping"
    )


def left_out(streams: Collection[Stream], cut: tuple[float, float], which: str) -> list[str]:
    """Return warnings of the seconds at both ends that no episode has, with the topics that cause them."""
    stamps = {stream.topic: stream.stamps(which) for stream in streams}
    last = max(stamps, key=lambda topic: int(stamps[topic].min()))
    first = min(stamps, key=lambda topic: int(stamps[topic].max()))
    before, after = cut
    found = [f"the first {before:,.1f} s are left out: {last} begins later"] if before > _LONG else []
    return found + ([f"the last {after:,.1f} s are left out: {first} ends earlier"] if after > _LONG else [])


def set_back(stream: Stream, which: str) -> str:
    """Return a warning if a clock seems to have been set back by less than is refused; otherwise "".

    A late message is followed by messages in their order; after a clock was set back, many messages have
    times of earlier ones. Packets of video are not examined: B-frames are recorded in another order.
    """
    if stream.taken is not None or len(stream.received) < 2:
        return ""
    recorded = _recorded(stream, which, np.arange(len(stream.received)))
    stamps = stream.stamps(which)[recorded]
    behind = np.append(False, stamps[1:] <= np.maximum.accumulate(stamps)[:-1])
    runs = [
        run
        for run in _runs(behind)
        if run.stop - run.start >= _MANY and stamps[run.start] < stamps[run.start - 1]
    ]
    if not runs:
        return ""
    run = runs[0]
    back = (stamps[run.start - 1] - stamps[run.start]) / _SECOND
    first = recorded[run.start]
    return (
        f"{stream.topic}: the time stamps go back by {back:.3f} s at message {first}, and "
        f"{run.stop - run.start:,} messages have times of earlier ones. If a clock was set back, write "
        "stamps: received under time in the mapping"
    )


def check_clock(streams: Collection[Stream], which: str, where: str) -> None:
    """Refuse to compare time stamps of one clock with times of recording by another clock.

    Args:
        streams: all streams that are compared with each other.
        which: time stamps to use, ``header`` or ``received``.
        where: name of the recording, for errors.

    Raises:
        SourceError: some messages have no time stamps, and those of others differ from the times at which
            they were recorded.
    """
    bare = [stream.topic for stream in streams if stream.header is None]
    for stream in streams if which == "header" and bare else ():
        if stream.header is None or not stream.header.any():
            continue
        late = float(np.median((stream.received - stream.header) / _SECOND))
        if abs(late) > _SAME_CLOCK:
            raise SourceError(
                f"{where}: the time stamps of {stream.topic} differ by {abs(late):,.3f} s from the times of "
                f"recording, so they cannot be compared with {bare[0]}, whose messages have no time "
                "stamps; write stamps: received under time in the mapping"
            )


def nearest(stamps: Stamps, times: Stamps) -> tuple[npt.NDArray[np.int64], Stamps]:
    """Return the index of the stamp nearest to each time, and its distance; stamps ascend."""
    right = np.clip(np.searchsorted(stamps, times), 1, max(1, len(stamps) - 1))
    left = right - 1
    right = np.minimum(right, len(stamps) - 1)
    near = np.where(np.abs(stamps[right] - times) < np.abs(times - stamps[left]), right, left)
    return near.astype(np.int64), np.abs(stamps[near] - times)


def _none(
    streams: Mapping[str, Stream],
    ordered: Mapping[str, tuple[Stamps, npt.NDArray[np.int64]]],
    where: str,
    span: tuple[int, int] | None,
) -> list[Piece]:
    """Return no episodes; for a whole recording, raise an error that its streams have no time in common."""
    if span is not None:
        return []
    spans = ", ".join(
        f"{streams[name].topic} {stamps[0] / _SECOND:.3f} to {stamps[-1] / _SECOND:.3f} s"
        for name, (stamps, _) in ordered.items()
    )
    raise SourceError(
        f"{where}: its topics have no time in common: {spans}. If some timestamps come from "
        "another clock, write stamps: received under time in the mapping"
    )


def _gap(
    where: str, stream: Stream, stamps: Stamps, times: Stamps, lacking: npt.NDArray[np.bool_], fps: Fraction
) -> str:
    frame = int(np.argmax(lacking))
    _, far = nearest(stamps, times[frame : frame + 1])
    more = int(lacking.sum()) - 1
    return (
        f"{where}: {stream.topic} has no message within {stream.tolerance / _SECOND:.4g} s of frame {frame} "
        "(at "
        f"{(times[frame] - times[0]) / _SECOND:.3f} s; the nearest is {far[0] / _SECOND:.4g} s away)"
        + (f", nor of {count(more, 'more frame')}" if more else "")
        + f", at {float(fps):g} fps. Set {argument('on_gap')} to repeat (the previous message), "
        "split (the episode there) or drop-episode, or set a larger tolerance in the mapping"
    )


def _runs(good: npt.NDArray[np.bool_]) -> list[slice]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(np.int8)))
    return [slice(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
