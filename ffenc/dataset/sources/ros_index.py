"""Index ROS 2 bags in one pass over their messages: times, first images, places of episodes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence, Set
from fractions import Fraction
from typing import Any

import numpy as np
from msgspec import Struct

from ffenc.config.mapping import CameraMapping, EpisodeMapping, SourceMapping, TimeMapping
from ffenc.config.preset import camera_name
from ffenc.dataset.sources.ros_bag import Bag
from ffenc.dataset.sources.ros_frames import numbered
from ffenc.dataset.sources.ros_messages import IMAGES, Numbers, frame_of, kind_of, stamp_of
from ffenc.dataset.sources.ros_time import Stream
from ffenc.dataset.sources.ros_video import Packets, decodable
from ffenc.errors import ConfigError, FfencWarning, SourceError
from ffenc.frames.sources import EncodedFrame
from ffenc.parallel.pool import run_units, share_cores


class Index(Struct, frozen=True):
    """The index of a recording.

    Attributes:
        streams: topic -> the times of its messages.
        first: camera -> its first image; cameras with video packets have none.
        packets: topic -> packets, for cameras with video.
    """

    streams: dict[str, Stream]
    first: dict[str, EncodedFrame]
    packets: dict[str, Packets]


def indexed(
    bags: Sequence[Bag],
    mapping: SourceMapping,
    cameras: Mapping[str, CameraMapping],
    topics: Set[str],
    *,
    rate: Fraction,
    half: int,
    time: TimeMapping,
    programs: tuple[str | None, str | None],
) -> list[Index]:
    """Index the messages of all recordings, several at once.

    Args:
        bags: the recordings.
        mapping: the meaning of the topics.
        cameras: key -> mapping, for the cameras to read.
        topics: topics of cameras and features.
        rate: frames per second.
        half: half the interval between two frames, in nanoseconds.
        time: which time stamps to use.
        programs: ffmpeg and ffprobe; None: those that are found.

    Raises:
        SourceError: a topic is missing, or a camera's topic has no images.
    """
    threads, _ = share_cores(max(len(bags), 1), None, None)
    look = _Look(mapping, cameras, topics, rate, half, time, programs)
    places = range(len(bags))
    found = dict(run_units(places, lambda n: look.at(bags[n]), threads=threads, stop=lambda: None))
    return [found[place] for place in places]


class _Look(Struct, frozen=True):
    """The parameters of indexing a recording; see :func:`indexed`."""

    mapping: SourceMapping
    cameras: Mapping[str, CameraMapping]
    topics: Set[str]
    rate: Fraction
    half: int
    time: TimeMapping
    programs: tuple[str | None, str | None]

    def at(self, bag: Bag) -> Index:
        """Index all messages that are needed; called from any thread."""
        wanted = set(self.topics)
        for section in (self.mapping.task, self.mapping.episodes):
            wanted |= {
                path for path in (getattr(section, "path", None), getattr(section, "topic", None)) if path
            }
        for topic in wanted:
            if topic not in bag.topics:
                names = ", ".join(list(bag.topics)[:20])
                raise SourceError(f"{bag.path}: there is no topic {topic}; it has {names}")
        for key, camera in self.cameras.items():
            _check_camera(bag, camera.path, key)
        received: dict[str, list[int]] = {topic: [] for topic in wanted}
        header: dict[str, list[int | None]] = {topic: [] for topic in wanted}
        size = dict.fromkeys(wanted, 0)
        first: dict[str, EncodedFrame] = {}
        for raw in bag.messages(wanted):
            message = bag.decoded(raw)
            received[raw.topic].append(raw.received)
            header[raw.topic].append(stamp_of(message))
            size[raw.topic] += len(raw.data)
            for key, camera in self.cameras.items():
                if kind_of(bag.topics[raw.topic].type) == "video":
                    continue
                if camera.path == raw.topic and key not in first:
                    first[key] = frame_of(message, camera, f"{bag.path}: {raw.topic}, message 0")
        for topic in sorted(wanted):
            stated, read = bag.topics[topic].count, len(received[topic])
            if read < stated:
                text = f"{bag.path}: {topic}: {read:,} messages are in the bag, which states {stated:,}"
                warnings.warn(text, FfencWarning, stacklevel=5)
        packets: dict[str, Packets] = {}
        streams = {
            topic: self._stream(bag, topic, received[topic], header[topic], size[topic], packets)
            for topic in wanted
        }
        return Index(streams, first, packets)

    def _stream(
        self,
        bag: Bag,
        topic: str,
        received: list[int],
        header: list[int | None],
        size: int,
        packets: dict[str, Packets],
    ) -> Stream:
        """Return the times of a topic; for video, limited to the packets that can be decoded."""
        own = np.array(header, np.int64) if header and None not in header else None
        stream = Stream(topic, np.array(received, np.int64), own, size, self.half)
        if kind_of(bag.topics[topic].type) != "video" or topic not in {c.path for c in self.cameras.values()}:
            return stream
        stream, packets[topic] = decodable(bag, stream, self.rate, self.time.stamps, self.programs)
        return stream


def _check_camera(bag: Bag, topic: str, key: str) -> None:
    kind = bag.topics[topic].type
    if not kind_of(kind):
        raise SourceError(
            f"{bag.path}: {topic}: its messages are {kind or 'of an unknown type'}, but the "
            f"mapping says that they are the camera {camera_name(key)}; {IMAGES} are images"
        )


def episode_spans(
    bag: Bag, streams: Mapping[str, Stream], episodes: EpisodeMapping | None, which: str
) -> list[tuple[int, int] | None]:
    """Return the time span of each episode of a recording; None: the whole recording.

    Args:
        bag: the recording.
        streams: topic -> the times of its messages.
        episodes: mapping of the episodes.
        which: which time stamps to use.

    Raises:
        SourceError: no episode begins according to the topic.
    """
    if episodes is None or episodes.topic is None:
        return [None]
    stream = streams[episodes.topic]
    stamps = stream.stamps(which)
    numbers = Numbers(bag.topics[episodes.topic].type, None, None)
    every = np.arange(len(stamps))
    values = [
        numbers.of(message, f"{bag.path}: {episodes.topic}")
        for _, message in numbered(bag, episodes.topic, every, stream.received)
    ]
    seen = [value if isinstance(value, str) else value.tolist() for value in values]
    for one in episodes.between or ():
        if seen and isinstance(one, str) != isinstance(seen[0], str):
            kind = "texts" if isinstance(seen[0], str) else "numbers"
            raise ConfigError(
                f"episodes.between: {one!r} is never a value of {episodes.topic}, which has {kind}"
            )
    spans: list[tuple[int, int] | None] = []
    begin, passed = 0, False
    for place in range(1, len(seen) + 1):
        if place < len(seen) and seen[place] == seen[begin]:
            continue
        end = int(stamps[place]) - 1 if place < len(seen) else np.iinfo(np.int64).max
        if _is_between(seen[begin], episodes.between):
            passed = True
        else:
            spans.append((int(stamps[begin]), int(end)))
        begin = place
    if not spans:
        what = "false, 0 or empty" if episodes.between is None else f"among {episodes.between}"
        raise SourceError(
            f"{bag.path}: {episodes.topic} begins no episode: all its values are {what}, which "
            "means between episodes. Set episodes.between in the mapping to the values that are "
            "between episodes"
        )
    numbers_seen = {tuple(one) for one in seen if not isinstance(one, str)}
    if passed and episodes.between is None and len(numbers_seen) > 2:
        warnings.warn(
            f"{bag.path}: {episodes.topic} has {len(numbers_seen)} values, and what is recorded "
            "while it is 0 is in no episode. If 0 is the first episode's number, write between: [] under "
            "episodes in the mapping; between: [0] excludes it without this warning",
            FfencWarning,
            stacklevel=5,
        )
    return spans


def _is_between(value: str | list[Any], between: Sequence[Any] | None) -> bool:
    """Return whether a value of the topic that separates episodes means "between episodes"."""
    if between is None:
        return not any(value)
    return value in between if isinstance(value, str) else all(one in between for one in value)
