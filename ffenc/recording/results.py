"""Results of a recorder: status, added rows and saved episodes."""

from __future__ import annotations

from msgspec import Struct


class CameraStatus(Struct, frozen=True):
    """The status of a camera.

    Attributes:
        frames: number of frames passed to the encoder in this episode.
        queued: number of frames that wait for it.
        queue_maxsize: greatest number of waiting frames.
        dropped, repeated: number of rows of this episode that were dropped because of it, or that repeat its
            previous frame.
        bytes: size on disk so far.
    """

    frames: int
    queued: int
    queue_maxsize: int
    dropped: int
    repeated: int
    bytes: int


class RecorderStatus(Struct, frozen=True):
    """The status of a recorder.

    Attributes:
        episode: index of the episode that is being recorded, or of the next one.
        recording: whether an episode is being recorded.
        rows: number of its rows so far.
        dropped: number of its dropped rows.
        cameras: status by camera name.
    """

    episode: int
    recording: bool
    rows: int
    dropped: int
    cameras: dict[str, CameraStatus]


class AddedRow(Struct, frozen=True):
    """The result of adding a row.

    Attributes:
        number: index of the row in its episode; None if it was dropped, with all its frames.
        dropped: the cameras whose encoders were too slow, so that the row was dropped.
        repeated: the cameras that repeat their previous frame.
    """

    number: int | None
    dropped: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()


class SavedEpisode(Struct, frozen=True):
    """An episode that was added to the dataset.

    Attributes:
        index: its index in the dataset.
        rows: number of rows, and of frames of every camera.
        seconds: time that saving took.
        waited: part of this time until the encoders had accepted all waiting frames and ended.
        bytes: camera -> size of its video or its images.
        dropped: number of dropped rows.
        repeated: camera -> number of rows that repeat the previous frame.
    """

    index: int
    rows: int
    seconds: float
    waited: float
    bytes: dict[str, int]
    dropped: int
    repeated: dict[str, int]
