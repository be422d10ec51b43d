"""Events of a recording session, as plain values for a display or a program."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Struct, field

from ffenc.fields import plain_fields
from ffenc.recording.results import CameraStatus, SavedEpisode


class Event(Struct, frozen=True):
    """An event in a session."""

    kind: ClassVar[str]

    def fields(self) -> dict[str, Any]:
        """Return the event's attributes as plain values."""
        return {"event": self.kind, **plain_fields(self)}


class CameraSettings(Struct, frozen=True):
    """How a camera is recorded.

    Attributes:
        width, height: frame size in pixels.
        depth: whether it is a depth camera.
        codec, pix_fmt: of the video; "png" and None if its frames stay images.
        encoder: the library and its version, "" if its frames stay images.
    """

    width: int
    height: int
    depth: bool
    codec: str
    pix_fmt: str | None
    encoder: str


class SessionStarted(Event, frozen=True):
    """All cameras are open, and the first episode can begin.

    Attributes:
        root: the dataset.
        task: the task's text for all episodes.
        fps: rows per second.
        episodes: number of episodes to record.
        seconds: duration of each.
        encode: when frames are encoded: ``live``, ``after``, or ``never`` if they stay images.
        cameras: settings by camera name.
    """

    kind = "session_started"
    root: str
    task: str
    fps: float
    episodes: int
    seconds: float
    encode: str
    cameras: dict[str, CameraSettings]


class EpisodeStarted(Event, frozen=True):
    """An episode begins.

    Attributes:
        episode: its index in the dataset.
        number, episodes: its number in this session, from 1, and the number of episodes to record.
        attempt: number of the attempt, from 1; earlier ones were discarded.
    """

    kind = "episode_started"
    episode: int
    number: int
    episodes: int
    attempt: int


class Status(Event, frozen=True):
    """The status of the recording, at regular intervals.

    Attributes:
        episode, number, episodes: as in :class:`EpisodeStarted`.
        rows: number of rows of the episode so far.
        dropped: number of dropped rows.
        late: number of due times that passed without a row.
        fps: rows per second, over the last second.
        seconds_left: time to the episode's end.
        cameras: status by camera name.
    """

    kind = "status"
    episode: int
    number: int
    episodes: int
    rows: int
    dropped: int
    late: int
    fps: float
    seconds_left: float
    cameras: dict[str, CameraStatus]


class RowDropped(Event, frozen=True):
    """A row was dropped, because an encoder was too slow.

    Attributes:
        episode: index of the episode.
        frame: number of the frame since the episode's start, dropped ones included.
        row: index that the row would have had.
        cameras: the cameras whose queues were full.
    """

    kind = "row_dropped"
    episode: int
    frame: int
    row: int
    cameras: list[str]


class FrameRepeated(Event, frozen=True):
    """A row repeats a camera's previous frame: there was no new one, or its encoder was too slow.

    Attributes:
        episode, row, camera: the place.
    """

    kind = "frame_repeated"
    episode: int
    row: int
    camera: str


class EpisodeEnded(Event, frozen=True):
    """An episode has its last row; it is not in the dataset yet.

    Attributes:
        episode: index of the episode.
        rows: number of its rows.
        reset_seconds: time to reset the scene before it is saved.
    """

    kind = "episode_ended"
    episode: int
    rows: int
    reset_seconds: float


class EpisodeSaving(Event, frozen=True):
    """An episode is being added to the dataset, and can no longer be discarded.

    Attributes:
        episode: index of the episode.
    """

    kind = "episode_saving"
    episode: int


class EpisodeEncoding(Event, frozen=True):
    """Progress of encoding an episode whose frames were stored first, at regular intervals.

    Attributes:
        episode: index of the episode.
        frames: number of frames encoded so far, over all cameras.
        of: total number of frames.
    """

    kind = "episode_encoding"
    episode: int
    frames: int
    of: int


class EpisodeSaved(Event, frozen=True):
    """An episode is in the dataset, and its files were read back and compared.

    Attributes:
        episode: index of the episode.
        rows: number of its rows.
        seconds: time that saving took.
        dropped: number of dropped rows.
        late: number of due times that passed without a row.
        repeated: camera -> number of rows that repeat the previous frame.
        bytes: camera -> size of its video or its images.
    """

    kind = "episode_saved"
    episode: int
    rows: int
    seconds: float
    dropped: int
    late: int
    repeated: dict[str, int]
    bytes: dict[str, int]


class EpisodeDiscarded(Event, frozen=True):
    """An episode was deleted.

    Attributes:
        episode: index that it would have had; the next attempt gets it.
        rows: number of its rows.
        attempt: number of the attempt, from 1.
        reset_seconds: time to reset the scene before the next attempt.
    """

    kind = "episode_discarded"
    episode: int
    rows: int
    attempt: int
    reset_seconds: float


class SessionEnded(Event, frozen=True):
    """The session has ended.

    Attributes:
        root: the dataset.
        episodes: number of saved episodes.
        rows: total number of their rows.
        interrupted: whether a signal ended it.
        error: the error that ended it; None: there was none.
    """

    kind = "session_ended"
    root: str
    episodes: int
    rows: int
    interrupted: bool
    error: str | None


class SessionSummary(Struct, frozen=True):
    """The result of a session.

    Attributes:
        episodes: the saved episodes.
        discarded: number of discarded episodes.
        late: number of due times that passed without a row.
        interrupted: whether a signal ended it.
    """

    episodes: list[SavedEpisode] = field(default_factory=list)
    discarded: int = 0
    late: int = 0
    interrupted: bool = False
