"""An episode that is being recorded: its cameras, and what they have given so far."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ffenc.compiler.frames import FrameFormat
from ffenc.config.preset import camera_name
from ffenc.errors import ConfigError, DestinationError, FfencError, SourceError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.frames.depth_images import DepthSamples
from ffenc.frames.encoding import Encoding
from ffenc.frames.images import has_end, read_header
from ffenc.recording.arguments import kind_of
from ffenc.recording.feed import Feed, FrameRing
from ffenc.recording.flush import Flusher
from ffenc.recording.results import AddedRow
from ffenc.recording.rows import RowLog
from ffenc.recording.samples import SampleLog
from ffenc.recording.unfinished import RecordedCamera, UnfinishedEpisode
from ffenc.recording.uninterrupted import Uninterrupted

_log = logging.getLogger("ffenc.recording")


@dataclass
class Channel:
    """A camera with what stays from episode to episode."""

    name: str
    camera: RecordedCamera
    encoding: Encoding
    frames: FrameFormat  # as they come
    ring: FrameRing

    def check(self, frame: Any) -> None:
        """Refuse what is no frame of it."""
        if self.frames == "jpeg":
            if not (isinstance(frame, bytes) and frame[:2] == b"\xff\xd8"):
                raise ConfigError(
                    f"camera {self.name}: bytes of a JPEG image are expected, got {kind_of(frame)}"
                )
            if len(frame) > self.ring.slots.shape[1]:
                raise ConfigError(
                    f"camera {self.name}: a JPEG of {len(frame)} bytes is larger than its pixels"
                )
            # Not decoded here: what is damaged inside is found by the encoder.
            try:
                header = read_header(frame, f"camera {self.name}")
            except SourceError as error:
                raise ConfigError(str(error)) from None
            width, height = self.camera.width, self.camera.height
            if (header.width, header.height) != (width, height) or not has_end(frame, header.format):
                found = header if has_end(frame, header.format) else f"{header} that is cut short"
                raise ConfigError(
                    f"camera {self.name}: a whole JPEG image of {width}x{height} is expected, got a {found}"
                )
            return
        slots = self.ring.slots
        shape = frame.shape if isinstance(frame, np.ndarray) else ()
        if self.camera.depth and shape[2:] == (1,):
            shape = shape[:2]
        if shape != slots.shape[1:] or frame.dtype != slots.dtype:
            unit = f" ({self.camera.unit}; see depth_unit)" if self.camera.depth else ""
            raise ConfigError(
                f"camera {self.name}: a frame of shape {slots.shape[1:]}, {slots.dtype}{unit}, is expected, "
                f"got {kind_of(frame)}"
            )


@dataclass
class Track:
    """A camera in one episode."""

    channel: Channel
    feed: Feed
    samples: DepthSamples | None
    counted: SampleLog | None
    dropped: int = 0
    repeated: int = 0
    timestamp: float | None = None
    images: int = 0  # those whose bytes are counted
    image_bytes: int = 0


@dataclass
class Take:
    """The episode that is being recorded."""

    episode: UnfinishedEpisode
    log: RowLog
    tracks: dict[str, Track]
    cancellation: Cancellation
    flusher: Flusher
    lock: threading.Lock = field(default_factory=threading.Lock)  # held while a row is added
    ended: bool = False  # it is being saved or discarded, and takes no more
    rows: int = 0
    frames: int = 0  # rows that were asked for
    dropped: int = 0
    full: list[str] = field(default_factory=list)  # cameras without room for the row to come
    error: FfencError | None = None


def gone(take: Take) -> DestinationError | None:
    """Why an episode has failed whose folder is not in its place, whatever was noticed first."""
    if take.log.path.exists():
        return None
    return DestinationError(
        f"{take.episode.path}: was deleted or moved while the episode was recorded, so it cannot be saved; "
        "if it was moved, put it back and recover it"
    )


def add_row(take: Take, values: Mapping[str, Any], episode: int) -> AddedRow:
    """Write a row, and pass its frames on; where a camera has no room, leave it out of all.

    Args:
        take: the episode, with a frame of every camera.
        values: the row, checked.
        episode: its number to be, for the log.

    Raises:
        FfencError: an encoder has ended.
        OSError: the row cannot be written.
    """
    tracks = take.tracks.values()
    for track in tracks:
        track.feed.check()
    if take.full:
        return _drop_row(take, episode)
    repeated = [name for name, track in take.tracks.items() if track.feed.repeated]
    stamps = {name: track.timestamp for name, track in take.tracks.items()}
    take.log.row(values, stamps, repeated)
    for track in tracks:
        track.feed.commit()
        track.timestamp = None
    take.rows += 1
    take.frames += 1
    for name in repeated:
        take.tracks[name].repeated += 1
        row = take.rows - 1
        _log.warning("episode %d, row %d: %s shows the frame before again", episode, row, name)
    return AddedRow(take.rows - 1, repeated=tuple(repeated))


def _drop_row(take: Take, episode: int) -> AddedRow:
    """Leave a row out, of the table and of all cameras."""
    take.log.dropped(take.rows, take.frames, take.full)
    _log.warning(
        "episode %d: frame %d is dropped, before row %d: no room for %s",
        *(episode, take.frames, take.rows, ", ".join(take.full)),
    )
    for name in take.full:
        take.tracks[name].dropped += 1
    for track in take.tracks.values():
        track.feed.release()
        track.timestamp = None
    take.dropped += 1
    take.frames += 1
    added = AddedRow(None, dropped=tuple(take.full))
    take.full.clear()
    return added


def close(track: Track) -> None:
    """Have a camera's encoder end, and what counts its frames."""
    track.feed.close()
    if track.counted is not None:
        track.counted.close()


def end(take: Take) -> None:
    """Have every encoder take what waits, and end.

    Raises:
        FfencError: one has failed; the others' files are finished.
    """
    for track in take.tracks.values():
        close(track)
    take.flusher.stop()
    take.log.close()
    for track in take.tracks.values():
        if track.feed.error is not None:
            raise gone(take) or track.feed.error
        if track.feed.fed != take.rows:  # pragma: no cover - would be a fault of ours
            raise FfencError(f"{track.channel.name}: {track.feed.fed} frames of {take.rows} rows")


def abandon(take: Take) -> None:
    """End what still runs of an episode, wherever something else has ended it."""
    with Uninterrupted():
        take.cancellation.cancel()
        for track in take.tracks.values():
            close(track)
        take.flusher.stop()
        with contextlib.suppress(OSError):
            take.log.close()


def stored_bytes(take: Take, key: str) -> int:
    """Return what a camera has on disk."""
    track = take.tracks[camera_name(key)]
    episode, camera = take.episode, track.channel.camera
    if camera.way == "live":
        with contextlib.suppress(OSError):
            return episode.video(camera).stat().st_size
        return 0
    for path in episode.images_from(camera, track.images):
        track.image_bytes += path.stat().st_size
        track.images += 1
    return track.image_bytes
