"""What happens in a recording session, as plain values for a screen or a program."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Struct, field

from ffenc.fields import fields_of
from ffenc.recording.results import CameraStatus, SavedEpisode


class Event(Struct, frozen=True):
    """Something that happened in a session."""

    kind: ClassVar[str]

    def fields(self) -> dict[str, Any]:
        """What is to be said of it, as plain values."""
        return {"event": self.kind, **fields_of(self)}


class CameraSettings(Struct, frozen=True):
    """How a camera is recorded.

    Attributes:
        width, height: pixels.
        depth: whether it holds depth.
        codec, pix_fmt: of the video; "png" and None where its frames stay images.
        encoder: the library and its version, "" where its frames stay images.
    """

    width: int
    height: int
    depth: bool
    codec: str
    pix_fmt: str | None
    encoder: str


class SessionStarted(Event, frozen=True):
    """All is open: the first episode can begin.

    Attributes:
        root: the dataset.
        task: the text of all episodes' task.
        fps: rows a second.
        episodes: how many are to be recorded.
        seconds: the length of each.
        encode: when frames are encoded: ``live``, ``after``, or ``never`` where images stay images.
        cameras: by name.
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
        episode: its number in the dataset.
        number, episodes: which of how many of this session, from 1 on.
        attempt: from 1 on; those before were discarded.
    """

    kind = "episode_started"
    episode: int
    number: int
    episodes: int
    attempt: int


class Status(Event, frozen=True):
    """What goes on, reported at regular times.

    Attributes:
        episode, number, episodes: as of :class:`EpisodeStarted`.
        rows: of the episode so far.
        dropped: rows that were left out.
        late: moments of the frame rate that have passed without a row.
        fps: rows a second, over the last second.
        seconds_left: until the episode's end.
        cameras: by name.
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
    """A row was left out, because an encoder was behind.

    Attributes:
        episode: its number.
        frame: number of the frame since the episode's start, those that were left out counted.
        row: the row that would have been it.
        cameras: those there was no room for.
    """

    kind = "row_dropped"
    episode: int
    frame: int
    row: int
    cameras: list[str]


class FrameRepeated(Event, frozen=True):
    """A row shows a camera's frame before again: no new one had come, or its encoder was behind.

    Attributes:
        episode, row, camera: where.
    """

    kind = "frame_repeated"
    episode: int
    row: int
    camera: str


class EpisodeEnded(Event, frozen=True):
    """An episode has its last row; it is not in the dataset yet.

    Attributes:
        episode: its number.
        rows: it has.
        reset_seconds: time to set the scene, before it is saved.
    """

    kind = "episode_ended"
    episode: int
    rows: int
    reset_seconds: float


class EpisodeSaving(Event, frozen=True):
    """An episode is put into the dataset: from now on it cannot be taken back.

    Attributes:
        episode: its number.
    """

    kind = "episode_saving"
    episode: int


class EpisodeEncoding(Event, frozen=True):
    """An episode whose frames went to disk first is encoded, reported at regular times.

    Attributes:
        episode: its number.
        frames: of all cameras, encoded so far.
        of: how many there are.
    """

    kind = "episode_encoding"
    episode: int
    frames: int
    of: int


class EpisodeSaved(Event, frozen=True):
    """An episode is in the dataset, read back and compared.

    Attributes:
        episode: its number.
        rows: it has.
        seconds: how long saving took.
        dropped: rows that were left out.
        late: moments of the frame rate that have passed without a row.
        repeated: camera -> rows that show the frame before again.
        bytes: camera -> of its video or its images.
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
        episode: the number it would have had; the next attempt has it.
        rows: it had.
        attempt: from 1 on.
        reset_seconds: time to set the scene, before the next attempt.
    """

    kind = "episode_discarded"
    episode: int
    rows: int
    attempt: int
    reset_seconds: float


class SessionEnded(Event, frozen=True):
    """Nothing more is recorded.

    Attributes:
        root: the dataset.
        episodes: those that were saved.
        rows: of all of them.
        interrupted: whether a signal has ended it.
        error: what has ended it; None where nothing went wrong.
    """

    kind = "session_ended"
    root: str
    episodes: int
    rows: int
    interrupted: bool
    error: str | None


class SessionSummary(Struct, frozen=True):
    """What a session has recorded.

    Attributes:
        episodes: those that were saved.
        discarded: how many were not.
        late: moments of the frame rate that have passed without a row.
        interrupted: whether a signal has ended it.
    """

    episodes: list[SavedEpisode] = field(default_factory=list)
    discarded: int = 0
    late: int = 0
    interrupted: bool = False
