"""Reading of a LeRobot dataset: the common parts of its layouts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct
from msgspec.structs import replace

from ffenc.config.framerate import parse_fps
from ffenc.dataset.columns import task_texts
from ffenc.dataset.damage import Damage
from ffenc.dataset.extra_files import extra_files
from ffenc.dataset.identify import features_of, wrong_limits
from ffenc.dataset.lerobot_videos import DatasetVideos, checked_unit
from ffenc.dataset.model import Camera, Episode, EpisodeRef, EpisodeVideo, Known
from ffenc.dataset.remote import fetch_rows
from ffenc.dataset.row_checks import episode_rows, wrong_time
from ffenc.dataset.row_tables import TASK_COLUMN, runs_of_rows
from ffenc.dataset.source import Streams, check_key
from ffenc.errors import SourceError
from ffenc.frames.images import read_header
from ffenc.frames.info_json import feature_block, read_info
from ffenc.frames.parquet import ParquetImages, RowRange
from ffenc.layout import (
    CAMERA_TYPES,
    INFO,
    NOTES_PATH,
    NUMBERING,
    TIME_TOLERANCE,
    frame_axes,
    says_depth,
)
from ffenc.paths import check_template, template_fields

Choice = Callable[[Sequence[EpisodeRef]], Sequence[EpisodeRef]]
"""Given the episodes of a dataset, returns those that are selected."""


class _Place(Struct, frozen=True):
    """The place of an episode's rows."""

    path: Path
    first_row: int


class Listed(Struct, frozen=True):
    """An episode in the episode list.

    Attributes:
        where: the file or line, for errors.
        index: its index.
        length: expected number of rows.
        path: the data file; None: unknown.
    """

    where: str
    index: int
    length: int
    path: Path | None


class LeRobotDataset(ABC):
    """A LeRobot dataset; its cameras are image columns of its parquet files, or video files.

    Opening it reads its whole table except images, and compares it with the episode list: if a row were
    missing, duplicated or misplaced, another row's frame would be shown for it.

    Args:
        root: its folder.
        retime: set the timestamp of frame i to i / fps, whatever it was.
        partial: only some episodes will be read: faults of single ones are raised by :meth:`check`.
        choose: returns the episodes that will be read, given the listed ones. This implies ``partial``, and
            files without any of them are not opened. None: unknown.
        ffprobe: the program that reads the videos; None: the one that is found.

    Attributes:
        layout: prefix of its ``codebase_version``.
        episode_list: path of the episode list, for errors.
        data_path, video_path: path templates that are used if info.json has none.
        largest_shift: greatest distance of a row's timestamp from frame_index / fps, in seconds.

    Raises:
        SourceError: not such a dataset, or a damaged one; the text names file, episode and row.
    """

    layout: ClassVar[str]
    episode_list: ClassVar[str]
    data_path: ClassVar[str]
    video_path: ClassVar[str]

    temporary: Sequence[Path] = ()

    def __init__(
        self,
        root: Path,
        *,
        retime: bool = False,
        partial: bool = False,
        choose: Choice | None = None,
        ffprobe: str | None = None,
    ) -> None:
        partial = partial or choose is not None
        self.root = root
        self._retime = retime
        self._damage = Damage(root, repairable=self.layout == "v3")
        self._chosen: frozenset[int] | None = None
        self.largest_shift = 0.0
        self._off_time = False
        self.roots = (root,)
        self._info = read_info(root)
        self._features = self._check_info()
        self.fps = parse_fps(self._info["fps"])
        self._image_keys = [k for k, f in self._features.items() if f["dtype"] == "image"]
        self._video_keys = [k for k, f in self._features.items() if f["dtype"] == "video"]
        self._places: dict[int, _Place] = {}
        tasks, files = self._count_tasks(), self._list_episodes()
        self._opened = self.episodes if choose is None else list(choose(self.episodes))
        self._read_files(files, tasks)
        self._check_totals()
        if not partial or all(self._damage.of(episode.index) for episode in self._opened):
            self.check(self.episodes)
        self._damage.at_videos = True
        self._videos = DatasetVideos(root, self.fps, self.episodes, self._damage, ffprobe)
        for key in self._video_keys:
            self._videos.find(key, self._list_videos(key))
        self.cameras = [
            self._image_camera(key) if key in self._image_keys else self._video_camera(key)
            for key in self._features
            if key in self._image_keys or key in self._video_keys
        ]
        if not partial:
            self.check(self.episodes)
        self._complete(partial=partial)

    def check(self, episodes: Sequence[EpisodeRef], *, videos: bool = True) -> None:
        """Raise faults of some episodes; see :meth:`Damage.check <ffenc.dataset.damage.Damage.check>`."""
        self._damage.check(episodes, videos=videos)

    def damaged(self) -> dict[int, str]:
        """Return episode -> its first fault."""
        return self._damage.by_episode()

    def choose(self, episodes: Sequence[EpisodeRef]) -> None:
        """Set the episodes that will be read; checksum errors of files with other episodes are then warnings.

        Raises:
            SourceError: see :meth:`check`.
        """
        self.check(episodes)
        self._chosen = frozenset(episode.index for episode in episodes)

    def _sound(self) -> list[EpisodeRef]:
        """Return the episodes to read that are not known to be damaged; if all are, return all."""
        return [episode for episode in self._opened if not self._damage.of(episode.index)] or self._opened

    @abstractmethod
    def _complete(self, *, partial: bool) -> None:
        """Read and check what only this layout has, after everything else."""

    @abstractmethod
    def _listed(self) -> Iterator[Listed]:
        """Yield the entries of the episode list, in order."""

    @abstractmethod
    def _count_tasks(self) -> int:
        """Check the tasks table; return the number of tasks."""

    @abstractmethod
    def _data_file(self, first: int, second: int) -> Path:
        """Return the data file for the two numbers of the layout's path template."""

    @abstractmethod
    def _video_file(self, key: str, first: int, second: int) -> Path:
        """Return the video file of a camera for the two numbers of the layout's path template."""

    @abstractmethod
    def _list_videos(self, key: str) -> list[EpisodeVideo]:
        """Return the place of each episode of a camera, in order."""

    def _check_info(self) -> dict[str, Any]:
        """Check the fields of info.json that are used; return the features."""
        where = self.root / INFO
        version = str(self._info.get("codebase_version", ""))
        if not version.startswith(self.layout):
            raise SourceError(
                f"{self.root}: is a LeRobot dataset of layout {version or 'unknown'}; v3.0, v2.1 and v2.0 "
                "are read. Convert it with LeRobot's own converters first"
            )
        features = features_of(self._info, where)
        for fault in wrong_limits(self._info):
            raise SourceError(f"{where}: {fault}")
        self._data_path, self._video_path = (
            check_template(self._info.get(name) or usual, f"{where}: {name}", template_fields(usual))
            for name, usual in (("data_path", self.data_path), ("video_path", self.video_path))
        )
        for key, feature in features.items():
            if feature["dtype"] in CAMERA_TYPES:
                check_key(key, where)
        self._info["features"] = {key: readable_feature(feature) for key, feature in features.items()}
        return dict(self._info["features"])

    def _list_episodes(self) -> dict[Path, dict[int, int]]:
        """Read the episode list; return data file -> episode -> expected number of rows."""
        listed: dict[int, int] = {}
        files: dict[Path, dict[int, int]] = {}
        for one in self._listed():
            if listed and one.index <= next(reversed(listed)):
                self._damage.note(
                    f"{one.where}: episode {one.index} is duplicated or out of order", one.index
                )
                continue
            listed[one.index] = max(1, one.length)
            if one.length < 1:
                self._damage.note(f"{one.where}: episode {one.index} has length {one.length}", one.index)
            elif one.path is not None:
                files.setdefault(one.path, {})[one.index] = one.length
        if not listed:
            raise SourceError(f"{self.root / self.episode_list}: holds no episodes")
        self.episodes = [EpisodeRef(index, length) for index, length in listed.items()]
        self._damage.total = len(self.episodes)
        return files

    def _read_files(self, files: Mapping[Path, Mapping[int, int]], tasks: int) -> None:
        """Find and check each episode's rows in the data files that are read."""
        columns = [key for key, feature in self._features.items() if feature["dtype"] != "video"]
        wanted = {episode.index for episode in self._opened}
        read = {path: listed for path, listed in files.items() if not wanted.isdisjoint(listed)}
        fetch_rows(list(read))
        for path, listed in read.items():
            self._read_file(path, listed, columns, tasks)

    def _read_file(self, path: Path, listed: Mapping[int, int], columns: Sequence[str], tasks: int) -> None:
        """Find and check the rows of a data file's episodes."""
        try:
            found = episode_rows(path, float(self.fps), columns, tasks)
        except SourceError as error:
            self._damage.note(str(error), *listed)
            return
        for index, rows in found.items():
            if index not in listed:
                self._damage.note(
                    f"{path}: has rows of episode {index}, which according to {self.episode_list} "
                    "are elsewhere"
                )
            elif rows.wrong is not None:
                self._damage.note(rows.wrong, index)
            elif rows.shift > TIME_TOLERANCE and not self._retime:
                self._damage.note(wrong_time(path, index, float(self.fps), rows), index)
            else:
                self.largest_shift = max(self.largest_shift, rows.shift)
                self._off_time |= not rows.exact
        for index, length in listed.items():
            if index not in found:
                self._damage.note(f"{path}: has no rows of episode {index}", index)
                continue
            rows = found[index]
            if rows.length != length and rows.wrong is None:
                self._damage.note(
                    f"{path}: episode {index} has {rows.length} rows, its length in {self.episode_list} is "
                    f"{length}",
                    index,
                )
            self._places[index] = _Place(path, rows.first)
        if [index for index in found if index in listed] != [index for index in listed if index in found]:
            self._damage.note(
                f"{path}: its episodes are in another order than in {self.episode_list}", *listed
            )

    def _check_totals(self) -> None:
        for key, found in (
            ("total_episodes", len(self.episodes)),
            ("total_frames", sum(episode.length for episode in self.episodes)),
        ):
            said = self._info.get(key)
            if said is not None and said != found:
                self._damage.note(
                    f"{self.root}: meta/info.json says {key} {said}, {self.episode_list} has {found}; "
                    "a file of the dataset is missing, or info.json is wrong"
                )

    def _video_camera(self, key: str) -> Camera:
        return self._videos.camera(key, self._features[key], self._sound())

    def _image_camera(self, key: str) -> Camera:
        info = feature_block(self._features[key])
        first = self._sound()[0]
        frame = next(iter(self.frames(key, replace(first, length=1))), None)
        if frame is None:
            raise SourceError(f"{self.root}: episode {first.index} has no frames")
        header = read_header(frame.data, frame.name)
        if not (says_depth(info) or header.depth):
            return Camera(key, False, header, None, info)
        if not header.depth:
            raise SourceError(
                f"{frame.name}: is a {header}, but meta/info.json says that {key} holds depth maps; "
                "they are TIFF images, or PNG of 16 bits"
            )
        unit = info.get("depth_unit") or header.unit
        return Camera(key, True, header, checked_unit(self.root, key, unit), info)

    def frames(self, camera: str, episode: EpisodeRef) -> ParquetImages:
        place = self._places[episode.index]
        return ParquetImages([RowRange(place.path, place.first_row, episode.length)], camera)

    def video(self, camera: str, episode: EpisodeRef) -> EpisodeVideo:
        return self._videos.of(camera, episode, self._chosen)

    def camera_bytes(self, camera: str, episodes: Sequence[EpisodeRef]) -> int:
        videos = camera in self._video_keys
        return self._videos.bytes_of(camera, episodes) if videos else self._image_bytes(camera, episodes)

    def _image_bytes(self, camera: str, episodes: Sequence[EpisodeRef]) -> int:
        wanted: dict[Path, int] = {}
        for episode in episodes:
            path = self._places[episode.index].path
            wanted[path] = wanted.get(path, 0) + episode.length
        total = 0
        for path, rows in wanted.items():
            metadata = pq.read_metadata(path)
            stored = sum(
                group.column(i).total_compressed_size
                for group in map(metadata.row_group, range(metadata.num_row_groups))
                for i in range(group.num_columns)
                if group.column(i).path_in_schema == f"{camera}.bytes"
            )
            total += stored * rows // max(1, metadata.num_rows)
        return total

    @property
    def renumbered(self) -> frozenset[str]:
        moved = {"timestamp"} if self._off_time else set()
        if len(set(self._texts)) < len(self._texts):
            moved.add("task_index")  # of two tasks with one text, rows get the first
        return frozenset(moved)

    @cached_property
    def _texts(self) -> list[str]:
        """Return the texts of the tasks by index; empty if rows have none."""
        return task_texts(self.tasks()) if TASK_COLUMN in self._features else []

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """Return the contents of ``info.json`` of v3.0."""

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """Return the statistics of all episodes."""

    @abstractmethod
    def has_episode_stats(self, feature: str) -> bool:
        """Return whether a feature's statistics are known for every episode."""

    @abstractmethod
    def tasks(self) -> Path | Sequence[str]:
        """Return the tasks table, or the texts by index."""

    @abstractmethod
    def _known(self, episodes: Sequence[EpisodeRef]) -> Iterator[Known]:
        """Yield the known fields of episodes, in order; many share a table."""

    def read(self, episodes: Sequence[EpisodeRef]) -> Iterator[Episode]:
        tables = self._tables(episodes)
        for ref, (path, table), known in zip(episodes, tables, self._known(episodes), strict=True):
            one = Episode(
                ref.length,
                table.drop_columns([name for name in table.column_names if name in NUMBERING]),
                streams=Streams(self, ref),
                known=known,
                notes=self._notes(ref),
                index=ref.index,
                file=path if self.layout == "v3" else None,  # v2 has one file per episode
            )
            if TASK_COLUMN in table.column_names:
                one = one.with_tasks(self._texts, table[TASK_COLUMN].to_numpy())
            yield one

    def _tables(self, episodes: Sequence[EpisodeRef]) -> Iterator[tuple[Path, pa.Table]]:
        """Yield each episode's rows with their original numbering, and their file."""
        for path, some in groupby(episodes, key=lambda episode: self._places[episode.index].path):
            wanted = {one.index: one for one in some}
            places = [(self._places[one.index].first_row, one.length) for one in wanted.values()]
            for table in runs_of_rows(path, self._image_keys, places):
                if int(table["episode_index"][0].as_py()) in wanted:
                    yield path, table

    def data_files(self) -> list[Path]:
        """Return the data files, in the order of the episodes."""
        return list(dict.fromkeys(self._places[episode.index].path for episode in self.episodes))

    def row_schemas(self) -> list[pa.Schema]:
        """Return the distinct schemas of the recorded columns in the data files."""
        found: list[pa.Schema] = []
        for path in dict.fromkeys(place.path for place in self._places.values()):
            schema = pq.read_schema(path)
            left_out = {*self._image_keys, *NUMBERING}
            own = pa.schema([f for f in schema if f.name not in left_out], schema.metadata)
            if not any(own.equals(other) for other in found):
                found.append(own)
        return found

    def known_schema(self) -> pa.Schema:
        """Return the columns of the known fields of episodes."""
        return next(self._known(self.episodes[:1])).table.schema

    def _notes(self, episode: EpisodeRef) -> Path | None:
        path = self.root / NOTES_PATH.format(episode_index=episode.index)
        return path if path.is_file() else None

    def extra_files(self) -> list[tuple[Path, str]]:
        """See :func:`~ffenc.dataset.extra_files.extra_files`."""
        return extra_files(self.root)


def readable_feature(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Return a feature of ``info.json`` in a form that LeRobot can use.

    A camera without names gets those of its shape, because LeRobot's policies index them. The shape ``[]`` of
    a single number, which LeRobot cannot load, becomes ``[1]``.
    """
    axes = frame_axes(feature)
    if feature["dtype"] in CAMERA_TYPES and feature.get("names") is None and axes is not None:
        names = ["channels"] * 3
        names[axes[0]], names[axes[1]] = "height", "width"
        return {**feature, "names": names}
    if feature["dtype"] not in CAMERA_TYPES and feature.get("shape") == []:
        return {**feature, "shape": [1]}
    return dict(feature)
