"""Read numbers and texts of topics at the times of frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.config.mapping import FeatureMapping
from ffenc.dataset.sources.ros_bag import Bag
from ffenc.dataset.sources.ros_frames import numbered
from ffenc.dataset.sources.ros_messages import Numbers
from ffenc.dataset.sources.ros_time import Stamps, Stream, nearest
from ffenc.errors import SourceError


def values_at(
    bag: Bag,
    stream: Stream,
    feature: FeatureMapping,
    *,
    numbers: Numbers,
    picks: npt.NDArray[np.int64],
    times: Stamps,
    repeated: Sequence[int],
    which: str,
) -> npt.NDArray[Any]:
    """Return a topic's values for each frame.

    Args:
        bag: the recording.
        stream: times of the topic.
        feature: its mapping.
        numbers: extracts the values; the same one for all episodes.
        picks: index of the message nearest to each frame.
        times: times of the frames, in nanoseconds.
        repeated: frames that repeat the previous message: it is not interpolated.
        which: time stamps to use, ``header`` or ``received``.

    Returns:
        Shape ``(N,)`` for one value per message, otherwise ``(N, D)``; texts as objects.

    Raises:
        SourceError: a message is damaged, lacks the field or a joint, or has another number of values.
    """
    where = f"{bag.path}: {stream.topic}"
    stamps = stream.stamps(which)
    others = picks
    if feature.interpolate:
        others = _other_side(stamps, times)
        others[list(repeated)] = picks[list(repeated)]
    wanted = np.unique(np.concatenate([picks, others]))
    values: dict[int, Any] = {}
    for number, message in numbered(bag, stream.topic, wanted, stream.received):
        values[number] = numbers.of(message, f"{where}, message {number}")
    if len({np.shape(value) for value in values.values()}) > 1:
        raise SourceError(f"{where}: its messages have different numbers of values")
    if any(isinstance(value, str) for value in values.values()):
        return np.array([values[number] for number in picks.tolist()], object)
    near = np.stack([values[number] for number in picks.tolist()])
    if not near.shape[1] or near.dtype.kind not in "biuf":
        place = f"field {feature.field!r}" if feature.field else "its messages"
        raise SourceError(f"{where}: {place} of type {bag.topics[stream.topic].type} holds no numbers")
    if feature.interpolate:
        far = np.stack([values[number] for number in others.tolist()]).astype(np.float64)
        span = stamps[others] - stamps[picks]
        share = np.where(span != 0, (times - stamps[picks]) / np.where(span == 0, 1, span), 0.0)
        near = near.astype(np.float64) + (far - near) * share[:, None]
    return near[:, 0] if near.shape[1] == 1 else near


def _other_side(stamps: Stamps, times: Stamps) -> npt.NDArray[np.int64]:
    """Return for each time the message on the opposite side of the nearest one; at an end the nearest one."""
    order = np.argsort(stamps, kind="stable")
    near, _ = nearest(stamps[order], times)
    towards = np.sign(times - stamps[order][near]).astype(np.int64)
    other: npt.NDArray[np.int64] = order[np.clip(near + towards, 0, len(stamps) - 1)]
    return other
