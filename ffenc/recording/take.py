"""An episode during its recording: its cameras, and their frames so far."""

from __future__ import annotations

import contextlib
import logging
import shlex
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from ffenc.compiler.frames import FrameFormat
from ffenc.config.preset import camera_name
from ffenc.errors import ConfigError, DestinationError, FfencError, FfencWarning, SourceError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.frames.depth_images import DepthSamples
from ffenc.frames.depth_loss import warn_of_range
from ffenc.frames.encoding import Encoding
from ffenc.frames.images import has_end, read_header
from ffenc.recording.arguments import kind_of, seconds_of
from ffenc.recording.feed import Feed, FrameRing
from ffenc.recording.flush import Flusher
from ffenc.recording.results import AddedRow, CameraStatus
from ffenc.recording.rows import RowLog
from ffenc.recording.samples import SampleLog
from ffenc.recording.unfinished import RecordedCamera, UnfinishedEpisode, delete_episode
from ffenc.recording.uninterrupted import Uninterrupted

_log = logging.getLogger("ffenc.recording")


class Channel(Struct):
    """The parts of a camera that are kept between episodes."""

    name: str
    camera: RecordedCamera
    encoding: Encoding
    frames: FrameFormat  # as they arrive
    ring: FrameRing
    seen: bool = False  # whether a frame of depth was compared with the stored range

    def check(self, frame: Any) -> None:
        """Check that a frame fits this camera."""
        if self.frames == "jpeg":
            if not (isinstance(frame, bytes) and frame[:2] == b"\xff\xd8"):
                raise ConfigError(
                    f"got {kind_of(frame)}", expected="bytes of a JPEG image", where=f"camera {self.name}"
                )
            if len(frame) > self.ring.slots.shape[1]:
                raise ConfigError(
                    f"camera {self.name}: a JPEG of {len(frame)} bytes is larger than its pixels"
                )
            # Not decoded here: the encoder detects damage inside.
            try:
                header = read_header(frame, f"camera {self.name}")
            except SourceError as error:
                raise ConfigError(str(error)) from None
            width, height = self.camera.width, self.camera.height
            if (header.width, header.height) != (width, height) or not has_end(frame, header.format):
                found = header if has_end(frame, header.format) else f"{header} that is cut short"
                raise ConfigError(
                    f"got a {found}",
                    expected=f"a whole JPEG image of {width}x{height}",
                    where=f"camera {self.name}",
                )
            return
        slots = self.ring.slots
        shape = frame.shape if isinstance(frame, np.ndarray) else ()
        if self.camera.depth and shape[2:] == (1,):
            shape = shape[:2]
        if shape != slots.shape[1:] or frame.dtype != slots.dtype:
            unit = f" ({self.camera.unit}; see depth_unit)" if self.camera.depth else ""
            raise ConfigError(
                f"got {kind_of(frame)}",
                expected=f"a frame of shape {slots.shape[1:]}, {slots.dtype}{unit}",
                where=f"camera {self.name}",
            )


class Track(Struct):
    """A camera in one episode."""

    channel: Channel
    feed: Feed
    samples: DepthSamples | None
    counted: SampleLog | None
    dropped: int = 0
    repeated: int = 0
    timestamp: float | None = None
    images: int = 0  # number of images whose size is counted
    image_bytes: int = 0


class Take(Struct):
    """The episode that is being recorded."""

    episode: UnfinishedEpisode
    log: RowLog
    tracks: dict[str, Track]
    cancellation: Cancellation
    flusher: Flusher
    lock: threading.Lock = field(default_factory=threading.Lock)  # held while a row is added
    ended: bool = False  # it is being saved or discarded, and accepts no more rows
    rows: int = 0
    frames: int = 0  # number of rows, dropped ones included
    dropped: int = 0
    full: list[str] = field(default_factory=list)  # cameras without room for the next row
    error: FfencError | None = None


def gone(take: Take) -> DestinationError | None:
    """Return the error of an episode whose folder was moved or deleted, whatever was detected first."""
    if take.log.path.exists():
        return None
    return DestinationError(
        f"{take.episode.path}: was deleted or moved during the recording, so the episode cannot "
        "be saved; if it was moved, put it back and recover it"
    )


def check_ended(take: Take) -> None:
    """Refuse frames and rows after the episode's end.

    Raises:
        ConfigError: the episode is being saved or discarded.
    """
    if take.ended:
        raise ConfigError("the episode has ended and is being saved or discarded; call start_episode next")


def give(take: Take, camera: str, frame: npt.NDArray[Any] | bytes | None, timestamp: float | None) -> None:
    """Set a camera's frame for the next row; arguments and errors as for :meth:`Recorder.write`."""
    track = take.tracks.get(camera_name(camera)) if isinstance(camera, str) else None
    if track is None:
        raise ConfigError(f"there is no camera {camera!r}; there are {', '.join(take.tracks)}")
    feed = track.feed
    seconds = seconds_of(camera, timestamp)
    if feed.written or track.channel.name in take.full:
        raise ConfigError(f"camera {camera} already has a frame for row {take.rows}; call add_row first")
    if frame is None:
        if not take.rows:
            raise ConfigError(f"camera {camera}: the first row needs a frame")
    else:
        track.channel.check(frame)
        if track.channel.camera.depth:
            assert isinstance(frame, np.ndarray)
            frame = frame.reshape(frame.shape[:2])
            if not track.channel.seen:
                track.channel.seen = True
                warn_of_range(track.channel.encoding.config, [frame], track.channel.camera.unit)
    try:
        if not feed.write(frame):
            take.full.append(track.channel.name)
    except FfencError as error:
        check_ended(take)  # by another thread in the meantime
        take.error = gone(take) or error
        raise take.error from None
    track.timestamp = seconds


def add_row(take: Take, values: Mapping[str, Any], episode: int) -> AddedRow:
    """Write a row, and pass its frames on; if a camera has no room, drop it for all cameras.

    Args:
        take: the episode, with a frame of every camera.
        values: the row, checked.
        episode: its future index, for the log.

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
        _log.warning("episode %d, row %d: %s repeats the previous frame", episode, row, name)
    return AddedRow(take.rows - 1, repeated=tuple(repeated))


def _drop_row(take: Take, episode: int) -> AddedRow:
    """Drop a row, in the table and for all cameras."""
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
    """End a camera's encoder, and the thread that counts its frames."""
    track.feed.close()
    if track.counted is not None:
        track.counted.close()


def end(take: Take) -> None:
    """Let every encoder accept its waiting frames, and end.

    Raises:
        FfencError: an encoder has failed; the others' files are finished.
    """
    for track in take.tracks.values():
        close(track)
    take.flusher.stop()
    take.log.close()
    for track in take.tracks.values():
        if track.feed.error is not None:
            raise gone(take) or track.feed.error
        if track.feed.fed != take.rows:  # pragma: no cover - would be a fault in ffenc
            raise FfencError(f"{track.channel.name}: {track.feed.fed} frames of {take.rows} rows")


def abandon(take: Take) -> None:
    """End all that still runs for an episode that another error has ended."""
    with Uninterrupted():
        take.cancellation.cancel()
        for track in take.tracks.values():
            close(track)
        take.flusher.stop()
        with contextlib.suppress(OSError):
            take.log.close()


def recovery(root: Path) -> str:
    """Return the command that restores an interrupted recording."""
    return f"`ffenc recover {shlex.quote(str(root))}`"


def warn_kept(take: Take, root: Path, error: BaseException | None) -> None:
    """Warn where an episode is kept that was not saved, and why; one without rows is deleted."""
    if not take.rows:
        with contextlib.suppress(OSError):
            delete_episode(take.episode.path)
    elif take.episode.path.is_dir():
        why = f" ({': '.join((*error.places, error.cause))})" if isinstance(error, FfencError) else ""
        warnings.warn(
            f"an episode of {take.rows} rows was not saved{why}; it is kept in {take.episode.path}: "
            f"{recovery(root)} recovers it",
            FfencWarning,
            stacklevel=4,
        )


def camera_statuses(take: Take) -> dict[str, CameraStatus]:
    """Return the status of each camera, by name."""
    cameras = {}
    for name, track in take.tracks.items():
        feed, maxsize = track.feed, track.channel.ring.waiting
        queued = min(feed.queued, maxsize)
        cameras[name] = CameraStatus(
            feed.fed, queued, maxsize, track.dropped, track.repeated, stored_bytes(take, track)
        )
    return cameras


def stored_bytes(take: Take, track: Track) -> int:
    """Return the size of a camera's files so far, in bytes."""
    episode, camera = take.episode, track.channel.camera
    if camera.way == "live":
        with contextlib.suppress(OSError):
            return episode.video(camera).stat().st_size
        return 0
    for path in episode.images_from(camera, track.images):
        track.image_bytes += path.stat().st_size
        track.images += 1
    return track.image_bytes
