"""What a recorder says of itself, of a row and of an episode."""

from __future__ import annotations

from msgspec import Struct


class CameraStatus(Struct, frozen=True):
    """What a camera does at the moment.

    Attributes:
        frames: given to the encoder so far, in this episode.
        queued: frames that wait for it.
        queue_maxsize: how many may.
        dropped, repeated: rows of this episode that were left out for it, or show its frame before again.
        bytes: on disk so far.
    """

    frames: int
    queued: int
    queue_maxsize: int
    dropped: int
    repeated: int
    bytes: int


class RecorderStatus(Struct, frozen=True):
    """What a recorder does at the moment.

    Attributes:
        episode: number of the episode that is recorded, or comes next.
        recording: whether one is.
        rows: it has so far.
        dropped: rows that were left out.
        cameras: by name.
    """

    episode: int
    recording: bool
    rows: int
    dropped: int
    cameras: dict[str, CameraStatus]


class AddedRow(Struct, frozen=True):
    """What became of a row.

    Attributes:
        number: of the row in its episode; None where it was dropped, with all its frames.
        dropped: the cameras without room for it, because their encoders were behind.
        repeated: the cameras that show their frame before again.
    """

    number: int | None
    dropped: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()


class SavedEpisode(Struct, frozen=True):
    """An episode that is in the dataset.

    Attributes:
        index: its number.
        rows: of the table, and frames of every camera.
        seconds: how long saving took.
        waited: how much of that until the encoders had taken what waited for them, and ended.
        bytes: camera -> of its video or its images.
        dropped: rows that were left out.
        repeated: camera -> how many rows show the frame before again.
    """

    index: int
    rows: int
    seconds: float
    waited: float
    bytes: dict[str, int]
    dropped: int
    repeated: dict[str, int]
