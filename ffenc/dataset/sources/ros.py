"""ROS 2 bags and MCAP files as episodes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Struct
from msgspec.structs import replace

from ffenc.config.mapping import SourceMapping, TimeMapping, refuse_fields
from ffenc.config.preset import camera_key, camera_name, chosen_cameras
from ffenc.config.validation import field_names
from ffenc.dataset.columns import column_of, dtype_of
from ffenc.dataset.model import Camera, EpisodeRef, EpisodeVideo
from ffenc.dataset.sources.kind import Opening, SourceKind, warn_of_left_out
from ffenc.dataset.sources.mapped import check_finite, mapped_values
from ffenc.dataset.sources.plain import DEFAULT_TASK, PlainSource
from ffenc.dataset.sources.ros_bag import Bag
from ffenc.dataset.sources.ros_frames import MessageFrames, numbered
from ffenc.dataset.sources.ros_index import Index, episode_spans, indexed
from ffenc.dataset.sources.ros_messages import Numbers
from ffenc.dataset.sources.ros_rosbag2 import bags_of, unread_files
from ffenc.dataset.sources.ros_suggest import suggest
from ffenc.dataset.sources.ros_time import Piece, Stream, check_clock, left_out, on_grid, set_back
from ffenc.dataset.sources.ros_values import values_at
from ffenc.dataset.sources.ros_video import DecodedFrames, Packets
from ffenc.errors import ConfigError, FfencWarning, SourceError
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.frames.sources import EncodedFrame, FrameSource
from ffenc.paths import check_tree
from ffenc.spelling import argument, call

_SECOND = 1_000_000_000
_STAMPS = "observation.stamps."


class _Take(Struct, frozen=True):
    """One episode: the messages for its frames.

    Attributes:
        bag: the recording.
        streams: topic -> the times of its messages.
        piece: the message of each stream for each frame.
    """

    bag: Bag
    streams: Mapping[str, Stream]
    piece: Piece

    @property
    def length(self) -> int:
        return len(self.piece.times)


class RosSource(PlainSource):
    """ROS 2 bags or MCAP files; each is an episode, or split into episodes by a topic.

    Args:
        root: the file or folder.
        bags: the recordings.
        mapping: the meaning of the topics.
        fps: frames per second.
        on_gap: what to do if a frame has no message within the tolerance; None: as in the mapping.
        task: text of the task, which overrides the mapping's; None: as in the mapping.
        robot_type: LeRobot's name for the robot, or None.
        cameras: keys to read, with or without ``observation.images.``; None: all.
        programs: ffmpeg and ffprobe; None: those that are found.

    Raises:
        SourceError: a bag is damaged, a topic is missing, or a frame has no message.
        ConfigError: a topic does not fit the mapping.
    """

    def __init__(
        self,
        root: Path,
        bags: Sequence[Bag],
        mapping: SourceMapping,
        *,
        fps: Fraction,
        on_gap: str | None = None,
        task: str | None = None,
        robot_type: str | None = None,
        cameras: Sequence[str] | None = None,
        programs: tuple[str | None, str | None] = (None, None),
    ) -> None:
        _check_mapping(mapping)
        keys = {camera_key(name): one for name, one in mapping.cameras.items()}
        if cameras is not None:
            keys = {key: keys[key] for key in chosen_cameras(list(keys), cameras)}
        self._mapping, self._keys = mapping, keys
        self._time = mapping.time or TimeMapping()
        self._on_gap = on_gap or self._time.on_gap
        self._half = int(_SECOND / (2 * fps)) + 1
        self._programs = programs
        self.reading = {
            "mapping": {**mapping.plain(), "time": {**self._time.as_plain(), "on_gap": self._on_gap}}
        }
        self._first: dict[str, EncodedFrame] = {}
        self._packets: dict[tuple[Path, str], Packets] = {}
        self._numbers: dict[tuple[str, str, str], Numbers] = {}
        self._takes: list[_Take] = []
        self._task_takes: list[npt.NDArray[np.int64]] = []
        texts: dict[str, int] = {}
        indexes = indexed(
            *(bags, mapping, keys, set(self._topics().values())),
            rate=fps,
            half=self._half,
            time=self._time,
            programs=programs,
        )
        for bag, index in zip(bags, indexes, strict=True):
            self._read(bag, index, fps, texts, task)
        if not self._takes:
            raise SourceError(f"{root}: none of the {len(bags)} recordings has a usable episode")
        super().__init__(
            root,
            fps=fps,
            cameras=[self._camera(key) for key in keys],
            lengths=[take.length for take in self._takes],
            features=self._describe(),
            tasks=list(texts) or [task or DEFAULT_TASK],
            robot_type=robot_type,
        )

    # ---- checks -------------------------------------------------------------------------------------------

    def _read(self, bag: Bag, index: Index, fps: Fraction, texts: dict[str, int], task: str | None) -> None:
        """Add the episodes of a recording."""
        streams = index.streams
        self._first = {**index.first, **self._first}
        self._packets |= {(bag.path, topic): packets for topic, packets in index.packets.items()}
        if bag.remark:
            warnings.warn(bag.remark, FfencWarning, stacklevel=4)
        # A single text is the task of all rows, whenever it was sent.
        single = self._mapping.task.path if self._mapping.task is not None else None
        compared = [one for one in streams.values() if one.topic != single or len(one.received) > 1]
        check_clock(compared, self._time.stamps, str(bag.path))
        for topic in dict.fromkeys(self._topics().values()):
            if text := set_back(streams[topic], self._time.stamps):
                warnings.warn(f"{bag.path}: {text}", FfencWarning, stacklevel=4)
        spans = episode_spans(bag, streams, self._mapping.episodes, self._time.stamps)
        used = {name: streams[topic] for name, topic in self._topics().items()}
        for span in spans:
            pieces = on_grid(
                self._tolerant(used),
                fps,
                which=self._time.stamps,
                on_gap=self._on_gap,
                where=str(bag.path),
                span=span,
            )
            for text in left_out(list(used.values()), pieces[0].cut, self._time.stamps) if pieces else ():
                warnings.warn(f"{bag.path}: {text}", FfencWarning, stacklevel=4)
            if not pieces and self._on_gap == "drop-episode":
                text = f"{bag.path}: left out, because some frames have no message near enough"
                warnings.warn(text, FfencWarning, stacklevel=4)
            if len(pieces) > 1:
                text = (
                    f"{bag.path}: split into {len(pieces)} episodes, because some frames have no "
                    "message near enough"
                )
                warnings.warn(text, FfencWarning, stacklevel=4)
            for piece in pieces:
                for name, rows in piece.repeated.items():
                    if rows:
                        text = (
                            f"{bag.path}: {used[name].topic}: {len(rows)} frames repeat the previous message"
                        )
                        warnings.warn(text, FfencWarning, stacklevel=4)
                self._takes.append(_Take(bag, streams, piece))
                self._task_takes.append(self._task_rows(bag, streams, piece, texts, task))

    def _topics(self) -> dict[str, str]:
        """Return stream -> topic: cameras by their keys, features by one stream for each topic."""
        found = {key: camera.path for key, camera in self._keys.items()}
        for name, feature in self._mapping.features.items():
            found |= {f"{name}\0{path}": path for path in feature.paths}
        return found

    def _tolerant(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        """Return the streams with their tolerances in the mapping."""
        usual = self._time.tolerance
        found = {}
        for name, stream in streams.items():
            own = (self._keys.get(name) or self._mapping.features[name.partition("\0")[0]]).tolerance
            seconds = own if own is not None else usual
            found[name] = replace(
                stream, tolerance=self._half if seconds is None else round(seconds * _SECOND)
            )
        return found

    def _task_rows(
        self, bag: Bag, streams: Mapping[str, Stream], piece: Piece, texts: dict[str, int], task: str | None
    ) -> npt.NDArray[np.int64]:
        """Return the task index of each frame; new tasks are added to ``texts``."""
        mapping = self._mapping.task
        count = len(piece.times)
        if task is not None or mapping is None or mapping.path is None:
            text = task or (
                mapping.text if mapping is not None and mapping.text is not None else DEFAULT_TASK
            )
            return np.full(count, texts.setdefault(text, len(texts)))
        stream = streams[mapping.path]
        numbers = Numbers(bag.topics[mapping.path].type, None, None)
        stamps = stream.stamps(self._time.stamps)
        if not len(stamps):
            raise SourceError(f"{bag.path}: {mapping.path} has no messages, but task.path names it")
        said = []
        for _, message in numbered(bag, mapping.path, np.arange(len(stamps)), stream.received):
            spoken = numbers.of(message, f"{bag.path}: {mapping.path}")
            if not isinstance(spoken, str):
                kind = bag.topics[mapping.path].type
                raise ConfigError(f"task.path: {mapping.path} has messages of {kind}", expected="texts")
            said.append(texts.setdefault(spoken, len(texts)))
        order = np.argsort(stamps, kind="stable")
        before = np.searchsorted(stamps[order], piece.times, side="right") - 1
        return np.array(said, np.int64)[order[np.maximum(before, 0)]]

    def _camera(self, key: str) -> Camera:
        if (whole := self._as_video(key)) is not None:
            return Camera(key, False, whole)
        path = self._keys[key].path
        packets = self._packets.get((self._takes[0].bag.path, path))
        header = self._first[key].header() if packets is None else packets.header
        if not header.depth:
            return Camera(key, False, header)
        return Camera(key, True, header, self._keys[key].unit or header.unit)

    def _describe(self) -> dict[str, dict[str, Any]]:
        take = self._takes[0]
        first = replace(
            take.piece,
            times=take.piece.times[:1],
            picks={k: v[:1] for k, v in take.piece.picks.items()},
            repeated={},
        )
        described: dict[str, dict[str, Any]] = {}
        for name, values in self._values(replace(take, piece=first)).items():
            width = values.shape[1] if values.ndim == 2 else 1
            names = self._mapping.features[name].names if name in self._mapping.features else None
            if names is not None and len(names) != width:
                raise ConfigError(
                    f"features.{name}.names: has {len(names)} names, and there are {width} numbers"
                )
            dtype = "string" if values.dtype.kind == "O" else dtype_of(pa.from_numpy_dtype(values.dtype))
            described[name] = {"dtype": dtype, "shape": [width], "names": names}
        return described

    # ---- the source's interface ---------------------------------------------------------------------------

    @property
    def temporary(self) -> Sequence[Path]:
        return [packets.path.parent for packets in self._packets.values()]

    def _as_video(self, key: str) -> StreamInfo | None:
        """Return the fields of a camera's video if all episodes use consecutive packets; otherwise None."""
        path, found = self._keys[key].path, None
        for take in self._takes:
            packets = self._packets.get((take.bag.path, path))
            if packets is None or packets.reordered:
                return None
            places = [packets.places[number] for number in take.piece.picks[key].tolist()]
            if (np.diff(places) != 1).any():
                return None
            found = found or packets.info
        return found

    def video(self, camera: str, episode: EpisodeRef) -> EpisodeVideo:
        take = self._takes[episode.index]
        packets = self._packets[take.bag.path, self._keys[camera].path]
        start = float(packets.places[int(take.piece.picks[camera][0])] / self.fps)
        like = next(one.stored for one in self.cameras if one.key == camera)
        assert isinstance(like, StreamInfo)
        return EpisodeVideo(
            camera,
            episode.index,
            packets.path,
            start,
            episode.length,
            like,
            origin=packets.origin,
            ffprobe=self._programs[1],
        )

    def frames(self, camera: str, episode: EpisodeRef) -> FrameSource:
        take, mapped = self._takes[episode.index], self._keys[camera]
        if (packets := self._packets.get((take.bag.path, mapped.path))) is not None:
            return DecodedFrames(packets, take.piece.picks[camera])
        received = take.streams[mapped.path].received
        return MessageFrames(take.bag, mapped.path, take.piece.picks[camera], received, mapped)

    def camera_bytes(self, camera: str, episodes: Sequence[EpisodeRef]) -> int:
        total = 0
        for episode in episodes:
            stream = self._takes[episode.index].streams[self._keys[camera].path]
            total += stream.bytes * episode.length // max(1, len(stream.received))
        return total

    def check(self, episodes: Sequence[EpisodeRef]) -> None:
        for episode in episodes:
            take = self._takes[episode.index]
            for name, values in self._values(take).items():
                feature = self._mapping.features.get(name)
                topics = f": {', '.join(feature.paths)}" if feature is not None else ""
                check_finite(name, values, f"{take.bag.path}{topics}, episode {episode.index}")

    def columns(self, episode: EpisodeRef) -> Mapping[str, Any]:
        values = self._values(self._takes[episode.index])
        return {name: column_of(own, self._features[name]) for name, own in values.items()}

    def task_numbers(self, episode: EpisodeRef) -> npt.NDArray[np.int64]:
        return self._task_takes[episode.index]

    def notes(self, episode: EpisodeRef) -> Mapping[str, Any]:
        take = self._takes[episode.index]
        units = {name: one.unit for name, one in self._mapping.features.items() if one.unit is not None}
        which = self._time.stamps
        stamps = {
            _stream_name(name): take.streams[topic].stamps(which)[take.piece.picks[name]].tolist()
            for name, topic in self._topics().items()
        }
        return {
            "source": {
                "file": take.bag.path.name,
                "begin_ns": take.piece.begin,
                "cut_seconds": list(take.piece.cut),
            },
            "stamps": which,
            "on_gap": self._on_gap,
            "repeated": {_stream_name(name): rows for name, rows in take.piece.repeated.items() if rows},
            "streams": [stream.report(which) for _, stream in sorted(take.streams.items())],
            "stamps_ns": stamps,
            **({"recovered": take.bag.remark} if take.bag.remark else {}),
            **({"units": units} if units else {}),
        }

    def _numbers_of(self, bag: Bag, name: str, path: str) -> Numbers:
        """Return what extracts a feature's values; it compares the order of joints in all episodes."""
        feature, kind = self._mapping.features[name], bag.topics[path].type
        return self._numbers.setdefault((name, path, kind), Numbers(kind, feature.field, feature.names))

    def _values(self, take: _Take) -> dict[str, npt.NDArray[Any]]:
        """Return the features' values in an episode."""
        found: dict[str, npt.NDArray[Any]] = {}
        for name, feature in self._mapping.features.items():
            arrays = [
                values_at(
                    take.bag,
                    take.streams[path],
                    feature,
                    numbers=self._numbers_of(take.bag, name, path),
                    picks=take.piece.picks[f"{name}\0{path}"],
                    times=take.piece.times,
                    repeated=take.piece.repeated.get(f"{name}\0{path}", ()),
                    which=self._time.stamps,
                )
                for path in feature.paths
            ]
            found[name] = mapped_values(name, feature, arrays, str(take.bag.path))
        if self._time.keep:
            for name, topic in self._topics().items():
                stamps = take.streams[topic].stamps(self._time.stamps)[take.piece.picks[name]]
                found[_STAMPS + _stream_name(name)] = (stamps - take.piece.begin) / _SECOND
        return found


def _stream_name(name: str) -> str:
    """Return a stream's name in notes: a camera's short name, or the feature and its topic."""
    feature, _, topic = name.partition("\0")
    return f"{feature}{topic.replace('/', '.')}" if topic else camera_name(feature)


def _check_mapping(mapping: SourceMapping) -> None:
    what = "ROS 2 bags"
    for name, camera in mapping.cameras.items():
        refuse_fields(camera, ("cameras", name), ("path", "channels", "depth", "unit", "tolerance"), what)
    for name, feature in mapping.features.items():
        if name.startswith(_STAMPS) and mapping.time is not None and mapping.time.keep:
            raise ConfigError(f"features.{name}: is the name of a time that keep stores; choose another")
        refuse_fields(
            feature, ("features", name), tuple(f for f in field_names(type(feature)) if f != "flatten"), what
        )
    if mapping.episodes is not None:
        refuse_fields(mapping.episodes, ("episodes",), ("topic", "between"), what)
    if mapping.task is not None:
        refuse_fields(mapping.task, ("task",), ("text", "path"), what)


# ---- the kind ------------------------------------------------------------------------------------------


def _open(path: Path, opening: Opening) -> RosSource:
    if path.is_dir():
        check_tree(path, follow_links=opening.follow_links)
    mapping = opening.mapping or opening.usual_mapping
    if mapping is None:
        count = len(bags_of(path)[0].topics)
        raise ConfigError(
            f"{path} is a ROS 2 bag: describe its {count} topics with "
            f"{argument('mapping', 'FILE')}. {call('inspect_source', path=path)} suggests one"
        )
    bags = bags_of(path)
    warn_of_left_out(unread_files(path, bags))
    return RosSource(
        path,
        bags,
        mapping,
        fps=opening.rate(path, KIND.what, mapping.fps),
        on_gap=opening.on_gap,
        task=opening.task,
        robot_type=opening.robot_type,
        cameras=opening.cameras,
        programs=opening.programs,
    )


KIND = SourceKind(
    "a ROS 2 bag or MCAP file",
    "ROS 2 bags",
    recognises=lambda path: bool(bags_of(path)),
    open=_open,
    takes=frozenset(["task", "mapping", "on_gap"]),
    look=suggest,
)
