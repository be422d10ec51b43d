"""The one shape that data has between its source and its destination: an episode."""

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
    """One image stream.

    Attributes:
        key: its feature, such as ``observation.images.top``.
        depth: holds depth maps.
        stored: shape and kind of its images; of a camera that is video, what its first file holds.
        unit: what depth is in, ``mm`` or ``m``; None for a camera of colours.
        block: the feature's ``info`` in ``info.json``.
        odd: of a camera that is video, the episodes of another codec or pixel format than most of its frames.
    """

    key: str
    depth: bool
    stored: ImageHeader | StreamInfo
    unit: Unit | None = None
    block: Mapping[str, Any] = field(default_factory=dict)
    odd: frozenset[int] = frozenset()

    @property
    def header(self) -> ImageHeader:
        """Kind and size of the images of a camera that is not video."""
        assert isinstance(self.stored, ImageHeader)
        return self.stored


class EpisodeRef(Struct, frozen=True):
    """Which episode of a source, for plans and tasks: nothing of it has to be read for that.

    Attributes:
        index: its number there.
        length: frames of each camera, and rows of the table.
    """

    index: int
    length: int


class EpisodeVideo(Struct, frozen=True):
    """One episode of one camera in a video file.

    Attributes:
        camera: its feature, such as ``observation.images.top``.
        episode: its number.
        path: the file it is in.
        start: seconds in the file at which it starts.
        frames: how many it has.
        like: what the camera's first file holds; its others have to hold the same.
        needed: how many frames the file has to have for all its episodes.
        checksum: SHA-256 that the file was written with, where that is known.
        part: not all of the file's episodes are read, so that damage of others does not matter.
        pick: which of its frames are taken, where the rate is lowered; None: all.
        origin: what the file was made of, where it was made for one run; None: it is a source itself.
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

    def beginning(self, count: int) -> EpisodeVideo:
        """Return it up to the frame that is taken as the last of ``count``."""
        last = count - 1 if self.pick is None else self.pick.indices(self.frames)[count - 1]
        return replace(self, frames=last + 1)


class FinishedVideo(Struct, frozen=True):
    """One episode of one camera as a file of its own, which becomes a file of the dataset.

    Attributes:
        path: the file, finished and verified.
        info: its probed fields.
    """

    path: Path
    info: StreamInfo


CameraStream = FrameSource | EpisodeVideo | FinishedVideo
"""The frames of a camera in an episode: images, a part of a video file, or a file that is finished."""


class Known(Struct, frozen=True):
    """What is known of an episode beside its rows and frames, as columns of LeRobot's episode list.

    Attributes:
        table: rows of several episodes, with statistics (``stats/FEATURE/STATISTIC``), texts of ``tasks`` and
            whatever else was listed. Numbers and places in it are the source's.
        row: the episode's.
        file: the file of the source's list that it stands in, which stays a file; None: there is none.
    """

    table: pa.Table
    row: int = 0
    file: Path | None = None

    @classmethod
    def of(cls, stats: Mapping[str, Stats]) -> Known:
        """Return statistics that were computed, feature -> statistics, as what is known of one episode."""
        columns = {
            f"stats/{key}/{name}": pa.array([value], statistic_type(name, value))
            for key, own in stats.items()
            for name, value in own.items()
        }
        return cls(pa.table(columns))

    @property
    def features(self) -> set[str]:
        """The features of which there are statistics."""
        names = [name for name in self.table.column_names if name.startswith("stats/")]
        return {name.removeprefix("stats/").rpartition("/")[0] for name in names}


class Episode(Struct, frozen=True):
    """One episode: what a source yields, and a writer takes.

    Attributes:
        length: frames of each camera, and rows.
        rows: one row a frame, with the recorded columns only: no images, and nothing of LeRobot's own
            numbering, which the writer adds. A table without columns where only cameras were recorded.
        tasks: texts of its tasks, in the order in which its rows have them.
        row_tasks: shape ``(length,)``, which of ``tasks`` each row has; None: all have the first.
        streams: camera -> its frames.
        known: what else is known of it; None: nothing.
        notes: a file of JSON, or its contents, kept beside the episode; None: nothing.
        index: its number in its source.
        file: the file of several episodes in the source that its rows stand in; None: there is none.
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
        """What plans and tasks call it."""
        return EpisodeRef(self.index, self.length)

    def with_tasks(self, texts: Sequence[str], numbers: npt.NDArray[np.int64]) -> Episode:
        """Return it with other tasks.

        Args:
            texts: by number; two may be alike.
            numbers: of each row's task, shape ``(length,)``.
        """
        if (numbers == numbers[0]).all():  # which is nearly always so
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
    """Change what is known of episodes; each table that several share is changed once.

    Args:
        episodes: in order.
        change: returns a table of as many rows.
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
