"""The common form of data between a source and its destination: an episode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Struct, field
from msgspec.structs import replace

from ffenc.config.framerate import Pick
from ffenc.dataset.columns import statistic_type, whole_numbers
from ffenc.frames.header import ImageHeader
from ffenc.frames.sources import FrameSource

if TYPE_CHECKING:
    from ffenc.ffmpeg.probe import StreamInfo
    from ffenc.frames.depth import Unit
    from ffenc.frames.statistics import Stats


class Camera(Struct, frozen=True):
    """A camera of a source.

    Attributes:
        key: its feature, such as ``observation.images.top``.
        depth: whether it is a depth camera.
        stored: header of its images; for a video camera, stream fields of its first file.
        unit: unit of depth, ``mm`` or ``m``; None for a colour camera.
        block: the feature's ``info`` in ``info.json``.
        odd: for a video camera, the episodes with another codec or pixel format than most of its frames.
    """

    key: str
    depth: bool
    stored: ImageHeader | StreamInfo
    unit: Unit | None = None
    block: Mapping[str, Any] = field(default_factory=dict)
    odd: frozenset[int] = frozenset()

    @property
    def header(self) -> ImageHeader:
        """Header of the images of a camera that is not video."""
        assert isinstance(self.stored, ImageHeader)
        return self.stored


class EpisodeRef(Struct, frozen=True):
    """A reference to an episode of a source, for plans and tasks; no data has to be read for it.

    Attributes:
        index: its index in the source.
        length: number of frames of each camera, and of rows.
    """

    index: int
    length: int


class EpisodeVideo(Struct, frozen=True):
    """An episode of a camera in a video file.

    Attributes:
        camera: its feature, such as ``observation.images.top``.
        episode: its index.
        path: the file.
        start: time in the file at which it starts, in seconds.
        frames: number of frames.
        like: stream fields of the camera's first file, which its other files have to share.
        needed: required number of frames of the file, for all its episodes.
        checksum: recorded SHA-256 of the file; None: unknown.
        part: some of the file's episodes are not read, so their damage does not matter.
        pick: selects frames for a lower rate; None: all.
        origin: source of the file, if the file was made for one run; None: the file itself is the source.
        ffprobe: the program that reads the file; None: the one that is found.
    """

    camera: str
    episode: int
    path: Path
    start: float
    frames: int
    like: StreamInfo | None = None
    needed: int = 0
    checksum: str | None = None
    part: bool = False
    pick: Pick | None = None
    origin: str | None = None
    ffprobe: str | None = None

    def beginning(self, count: int) -> EpisodeVideo:
        """Return the episode up to the frame that is the last of ``count`` selected frames."""
        last = count - 1 if self.pick is None else self.pick.indices(self.frames)[count - 1]
        return replace(self, frames=last + 1)


class FinishedVideo(Struct, frozen=True):
    """An episode of a camera as a separate file, which becomes a file of the dataset.

    Attributes:
        path: the file, finished and verified.
        info: its stream fields.
    """

    path: Path
    info: StreamInfo


CameraStream = FrameSource | EpisodeVideo | FinishedVideo
"""The frames of a camera in an episode: images, a part of a video file, or a finished file."""


class Known(Struct, frozen=True):
    """The known fields of an episode, in addition to rows and frames, as columns of LeRobot's episode list.

    Attributes:
        table: rows of several episodes, with statistics (``stats/FEATURE/STATISTIC``), texts of ``tasks`` and
            all other listed columns. Indices and places in it are the source's.
        row: row of the episode in the table.
        file: the file of the source's list that contains it, which stays a file; None: it is in no such file.
    """

    table: pa.Table
    row: int = 0
    file: Path | None = None

    @classmethod
    def of(cls, stats: Mapping[str, Stats]) -> Known:
        """Return computed statistics (feature -> statistics) as the known fields of an episode."""
        columns = {
            f"stats/{key}/{name}": pa.array([value], statistic_type(name, value))
            for key, own in stats.items()
            for name, value in own.items()
        }
        return cls(pa.table(columns))

    @property
    def features(self) -> set[str]:
        """Names of the features with statistics."""
        names = [name for name in self.table.column_names if name.startswith("stats/")]
        return {name.removeprefix("stats/").rpartition("/")[0] for name in names}


class Episode(Struct, frozen=True):
    """An episode, as yielded by a source and accepted by a writer.

    Attributes:
        length: number of frames of each camera, and of rows.
        rows: one row per frame, with the recorded columns only: without images and LeRobot's own numbering,
            which the writer adds. A table without columns if only cameras were recorded.
        tasks: texts of its tasks, in the order of the rows.
        row_tasks: shape ``(length,)``, index in ``tasks`` for each row; None: all rows have the first.
        streams: camera -> its frames.
        known: its known fields; None: no field is known.
        notes: a JSON file, or its contents, stored for the episode; None: no notes.
        index: its index in the source.
        file: the source's file of several episodes that contains its rows; None: no such file.
    """

    length: int
    rows: pa.Table
    tasks: Sequence[str] = ()
    row_tasks: npt.NDArray[np.int64] | None = None
    streams: Mapping[str, CameraStream] = field(default_factory=dict)
    known: Known | None = None
    notes: Path | Mapping[str, Any] | None = None
    index: int = 0
    file: Path | None = None

    @property
    def ref(self) -> EpisodeRef:
        """Its reference in plans and tasks."""
        return EpisodeRef(self.index, self.length)

    def with_tasks(self, texts: Sequence[str], numbers: npt.NDArray[np.int64]) -> Episode:
        """Return the episode with other tasks.

        Args:
            texts: texts by index, not necessarily distinct.
            numbers: index of each row's task, shape ``(length,)``.
        """
        if (numbers == numbers[0]).all():  # the usual case
            return replace(self, tasks=[texts[int(numbers[0])]], row_tasks=None)
        found = whole_numbers(pa.chunked_array([pa.array(numbers)]))
        tasks = list(dict.fromkeys(texts[number] for number in found))
        if len(tasks) == 1:
            return replace(self, tasks=tasks, row_tasks=None)
        places = np.zeros(max(found) + 1, np.int64)
        for number in found:
            places[number] = tasks.index(texts[number])
        return replace(self, tasks=tasks, row_tasks=places[numbers])


def with_known(episodes: Iterator[Episode], change: Callable[[pa.Table], pa.Table]) -> Iterator[Episode]:
    """Change the known fields of episodes; each shared table is changed once.

    Args:
        episodes: in order.
        change: returns a table with the same number of rows.
    """
    before: pa.Table | None = None
    after: pa.Table | None = None
    for one in episodes:
        if one.known is None:
            yield one
            continue
        if one.known.table is not before:
            before = one.known.table
            after = change(before)
        yield replace(one, known=replace(one.known, table=after))
