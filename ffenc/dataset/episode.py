"""Write what a dataset gets by one more episode, beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.dataset.checksums import file_checksum, read_checksums, write_checksums
from ffenc.dataset.columns import (
    WRITTEN,
    VideoPlace,
    feature_type,
    fitted,
    image_parts,
    is_numeric,
    numbers_of,
    read_table,
    row_schema,
    task_table,
    video_columns,
)
from ffenc.dataset.commit import Move, write_commit
from ffenc.dataset.episode_columns import (
    _dimensions,
    _shaped,
    all_features,
    check_features,
    column_as,
    episode_type,
    features_of_table,
    row_table,
)
from ffenc.dataset.fitting import GrowingCamera, recorded_features
from ffenc.dataset.info_block import kept_block
from ffenc.dataset.staging import write_info, write_json
from ffenc.dataset.statistics import Aggregate, column_stats
from ffenc.dataset.verify.metadata import brief, check_episode
from ffenc.errors import ConfigError, SourceError, VerificationError
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.frames.images import read_header
from ffenc.frames.sources import EncodedFrame, FrameSource, ImageFiles
from ffenc.frames.statistics import Stats, histogram_statistics
from ffenc.layout import (
    CHECKSUMS,
    DATA_COLUMNS,
    DATA_PATH,
    EPISODES_PATH,
    NOTES_PATH,
    STATS,
    TASKS,
    VIDEO_PATH,
    file_limit,
    files_in_chunk,
)

_STAGED = "new"
DATA, EPISODES = "data", "meta/episodes"
NumberedFile = tuple[int, int]  # of a chunk, and in it


@dataclass(frozen=True)
class NewEpisode:
    """One episode that a dataset gets.

    Attributes:
        task: its text.
        table: one row a frame, with the recorded columns only: numbers, texts, or lists of as many numbers
            in every row (fixed-size or not); no column of LeRobot's own numbering.
        length: frames of each camera, and rows.
        videos: camera -> its finished, verified MP4 file, inside the folder that is staged, and the probed
            fields of it. It is moved into the dataset when the episode is published, and stays until then.
        images: camera that stays images -> its images.
        stats: camera -> statistics, as :mod:`ffenc.frames.statistics` computes them.
        notes: what is kept of the recording in ``meta/recording/``; JSON, as the caller likes.
    """

    task: str
    table: pa.Table
    length: int
    videos: Mapping[str, tuple[Path, StreamInfo]] = field(default_factory=dict)
    images: Mapping[str, FrameSource] = field(default_factory=dict)
    stats: Mapping[str, Stats] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """A dataset between two episodes.

    Attributes:
        info, stats: of info.json and stats.json; without features before they are known.
        tasks: texts by number.
        rows, episodes: schemas of the tables; None before the first episode.
        last: the highest numbers in use, of ``data``, ``meta/episodes`` and each camera's videos.
    """

    info: dict[str, Any]
    stats: dict[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    rows: pa.Schema | None = None
    episodes: pa.Schema | None = None
    last: Mapping[str, NumberedFile] = field(default_factory=dict)

    @property
    def total_episodes(self) -> int:
        return int(self.info.get("total_episodes") or 0)

    @property
    def total_frames(self) -> int:
        return int(self.info.get("total_frames") or 0)


def list_to_grow(root: Path, state: State) -> str | None:
    """Return the file of the episode list that takes another episode; None: a new one has to.

    As in LeRobot's recordings it grows up to ``data_files_size_in_mb``. A file an episode would be read as
    well, but LeRobot's ``merge_datasets`` numbers the list's files wrongly where a dataset has several.
    """
    chunk, number = state.last.get(EPISODES, (0, -1))
    place = EPISODES_PATH.format(chunk_index=chunk, file_index=number)
    path = root / place
    return place if path.is_file() and path.stat().st_size < file_limit(state.info, "data") else None


class EpisodeWriter:
    """Writes what a dataset gets by one episode, beside it.

    Args:
        root: the dataset.
        folder: where it waits.
        cameras, fps, state: of the dataset.
        episode: what is to come in.
    """

    def __init__(
        self,
        root: Path,
        folder: Path,
        cameras: Mapping[str, GrowingCamera],
        fps: Fraction,
        state: State,
        episode: NewEpisode,
    ) -> None:
        self._root, self._folder, self._new = root, folder, folder / _STAGED
        self._cameras, self._fps, self._state, self._episode = cameras, fps, state, episode
        self._number = state.total_episodes
        self._info = self._next_info()
        self._features: dict[str, Any] = self._info["features"]
        self._last = dict(state.last)
        self._moves: list[Move] = []

    def rehearse(self) -> None:
        """Make the tables of an episode that has no files yet, and write nothing: what cannot be saved fails.

        Raises:
            ConfigError, SourceError: as :meth:`write`.
        """
        columns = {"episode_index": self._number, "tasks": [self._episode.task], "length": 1}
        rows = self._rows(0)
        for key in self._episode.images:
            if key not in self._row_schema.names:
                raise SourceError(f"{self._root}: its rows have no column {key}; ffenc verify says more")
        stats = self._statistics(rows)
        self._episode_table(columns, stats)
        self._task_table((*self._state.tasks, self._episode.task))
        self._total_stats(stats)

    def write(self) -> State:
        """Write and list everything; returns what the dataset will be."""
        state, episode = self._state, self._episode
        self._check()
        shutil.rmtree(self._new, ignore_errors=True)
        tasks = state.tasks if episode.task in state.tasks else (*state.tasks, episode.task)
        self._info["total_tasks"] = len(tasks)
        columns: dict[str, Any] = {
            "episode_index": self._number,
            "tasks": [episode.task],
            "length": episode.length,
        }
        videos, checksums = self._videos()
        rows = self._rows(tasks.index(episode.task))
        stats = self._statistics(rows)
        data = self._data(rows)
        columns |= dict(zip(DATA_COLUMNS, data, strict=True))
        columns |= {
            "dataset_from_index": state.total_frames,
            "dataset_to_index": state.total_frames + episode.length,
        }
        columns |= {name: column[0].as_py() for name, column in videos.items()}
        place, row = self._episode_row(columns, stats)
        if tasks != state.tasks:
            self._tasks(tasks)
        total = self._stats(stats)
        if checksums:
            (self._new / "meta").mkdir(parents=True, exist_ok=True)
            write_checksums(self._new, read_checksums(self._root) | checksums)
            self._add(CHECKSUMS, replaces=True)
        notes = NOTES_PATH.format(episode_index=self._number)
        write_json(self._new / notes, episode.notes)
        self._add(notes, replaces=True)
        own = write_info(self._new, self._info)
        read_back = {
            video: brief(episode.videos[key][1], [0])
            for video, key in zip(checksums, (k for k in self._features if k in episode.videos), strict=True)
        }
        check_episode(self._new, tasks, read_back)
        self._grow_list(place, row)
        for path in own:
            self._add(path, replaces=True)
        write_commit(self._folder, self._root, self._moves)
        return replace(
            state,
            info=self._info,
            stats=total,
            tasks=tasks,
            rows=self._row_schema,
            episodes=row.schema,
            last=self._last,
        )

    def _check(self) -> None:
        """Compare the episode with the dataset's cameras."""
        episode = self._episode
        # A table without columns has no rows: only cameras were recorded.
        unlike = episode.table.num_columns and episode.table.num_rows != episode.length
        if episode.length < 1 or unlike:
            raise ConfigError(
                f"the episode has {episode.table.num_rows} rows and {episode.length} frames; as many of "
                "both, and one at least, are expected"
            )
        for what, given, wanted in (
            ("videos", episode.videos, {key for key, c in self._cameras.items() if c.video}),
            ("images", episode.images, {key for key, c in self._cameras.items() if not c.video}),
            ("statistics", episode.stats, set(self._cameras)),
        ):
            if set(given) != wanted:
                raise ConfigError(
                    f"the episode has {what} of {sorted(given) or 'no camera'}; "
                    f"{sorted(wanted) or 'none'} are expected"
                )
        for key, (path, info) in episode.videos.items():
            self._check_video(self._cameras[key], path, info)
        for key, images in episode.images.items():
            if len(images) != episode.length:
                raise VerificationError(
                    f"{key}: has {len(images)} images, the episode {episode.length} frames"
                )

    def _check_video(self, camera: GrowingCamera, path: Path, info: StreamInfo) -> None:
        if not path.is_relative_to(self._folder):
            raise ConfigError(f"{path}: is not in {self._folder}, from where the episode is published")
        for name, found, wanted in (
            ("frames", info.frames, self._episode.length),
            ("frame rate", info.fps, self._fps),
            ("width", info.width, camera.width),
            ("height", info.height, camera.height),
            ("codec", info.codec, camera.codec or info.codec),
            ("pixel format", info.pix_fmt, camera.pix_fmt or info.pix_fmt),
        ):
            if found != wanted:
                raise VerificationError(f"{path}: {name} of {camera.key} is {found}, {wanted} is expected")

    def _next_info(self) -> dict[str, Any]:
        """info.json with this episode; with the first one, what was not known before."""
        info, episode = dict(self._state.info), self._episode
        if "features" not in info:
            found = features_of_table(episode.table)
            check_features(found, self._cameras)
            described = {"features": all_features(self._cameras, found)}
            info = {name: info[name] for name in ("codebase_version", "fps")} | described | info
        info["features"] = {key: dict(feature) for key, feature in info["features"].items()}
        for key, (_, stream) in episode.videos.items():
            if self._number == 0:
                camera = self._cameras[key]
                block = kept_block(stream, camera.block or {}, camera.unit is not None)
                info["features"][key]["info"] = block
        if not info.get("splits") or info["splits"] == {"train": f"0:{self._number}"}:
            info["splits"] = {"train": f"0:{self._number + 1}"}
        info["total_episodes"] = self._number + 1
        info["total_frames"] = self._state.total_frames + episode.length
        return info

    @cached_property
    def _numeric(self) -> list[str]:
        return [key for key, feature in self._features.items() if is_numeric(feature)]

    @cached_property
    def _row_schema(self) -> pa.Schema:
        """The columns of the rows: those of the files that are there, or as LeRobot writes them."""
        if self._state.rows is not None:
            return self._state.rows
        kinds = {key: feature_type(f) for key, f in self._features.items() if f["dtype"] != "video"}
        return row_schema(pa.schema(kinds, {"huggingface": '{"info": {}}'}))

    def _add(self, target: str, *, replaces: bool = False) -> None:
        self._moves.append(Move(f"{_STAGED}/{target}", target, replaces))

    def _place(self, key: str, template: str) -> tuple[str, NumberedFile]:
        """The next free place of a kind of file, and its numbers."""
        limit = files_in_chunk(self._info)
        chunk, number = self._last.get(key, (0, -1))
        while True:
            chunk, number = (chunk, number + 1) if number + 1 < limit else (chunk + 1, 0)
            place = template.format(video_key=key, chunk_index=chunk, file_index=number)
            if not (self._root / place).exists():
                self._last[key] = chunk, number
                return place, (chunk, number)

    def _videos(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Give each video its place; returns columns of the episode list, and checksums."""
        columns: dict[str, Any] = {}
        checksums = {}
        for key in (key for key in self._features if key in self._episode.videos):
            path, _ = self._episode.videos[key]
            place, (chunk, number) = self._place(key, VIDEO_PATH)
            self._moves.append(Move(path.relative_to(self._folder).as_posix(), place))
            checksums[place] = file_checksum(path)
            columns |= video_columns(key, [VideoPlace(chunk, number, 0)], [self._episode.length], self._fps)
        return columns, checksums

    def _rows(self, task: int) -> pa.Table:
        """The rows without images, in the dataset's types."""
        count, table = self._episode.length, self._episode.table
        wanted = recorded_features(self._info)
        unlike = sorted(set(wanted) ^ set(table.column_names))
        if unlike:
            whose = "the dataset has it" if unlike[0] in wanted else "the dataset has none of that name"
            raise ConfigError(f"the episode's column {unlike[0]}: {whose}; the same columns are expected")
        numbers = np.arange(count)
        own = {
            "timestamp": pa.array((numbers / float(self._fps)).astype(np.float32)),
            "frame_index": pa.array(numbers),
            "episode_index": pa.array(np.full(count, self._number)),
            "index": pa.array(numbers + self._state.total_frames),
            "task_index": pa.array(np.full(count, task)),
        }
        columns = {}
        for name in self._row_schema.names:
            kind = self._row_schema.field(name).type
            if name in own:
                columns[name] = own[name].cast(kind)
            elif name in wanted:
                columns[name] = column_as(table[name], kind, name)
            elif name not in self._cameras:
                raise SourceError(
                    f"{self._root}: its rows have a column {name}, which meta/info.json does not describe; "
                    "ffenc verify says more"
                )
        lost = sorted(set(wanted) - set(columns))
        if lost:
            raise SourceError(
                f"{self._root}: its rows have no column {lost[0]}, which meta/info.json describes; "
                "ffenc verify says more"
            )
        return pa.table(columns)

    def _statistics(self, rows: pa.Table) -> dict[str, Stats]:
        """The statistics of the episode: its cameras', as they were given, and its rows'."""
        stats = {key: self._episode.stats[key] for key in self._cameras}
        return stats | {key: column_stats(numbers_of(rows[key])) for key in self._numeric}

    def _data(self, rows: pa.Table) -> NumberedFile:
        """Write the rows, images among them, as one group or as many as memory asks for."""
        place, numbers = self._place(DATA, DATA_PATH)
        path = self._new / place
        path.parent.mkdir(parents=True, exist_ok=True)
        schema = self._row_schema
        images = {key: _ImagesOf(self._cameras[key], images) for key, images in self._episode.images.items()}
        with pq.ParquetWriter(path, schema, **WRITTEN) as writer:
            for part in image_parts(rows, images):
                writer.write_table(fitted(part, schema))
        self._add(place)
        return numbers

    def _episode_row(self, columns: Mapping[str, Any], stats: Mapping[str, Stats]) -> tuple[str, pa.Table]:
        """Write the episode's row of the episode list alone; returns the list's place, and the row."""
        place = list_to_grow(self._root, self._state)
        if place is None:
            place, (chunk, number) = self._place(EPISODES, EPISODES_PATH)
        else:
            chunk, number = self._state.last[EPISODES]
        numbers = {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": number}
        row = self._episode_table({**columns, **numbers}, stats)
        path = self._new / place
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(row, path, **WRITTEN)
        return place, row

    def _grow_list(self, place: str, row: pa.Table) -> None:
        """Put the episodes that are in the list before the new one's row."""
        there = self._root / place
        grows = list_to_grow(self._root, self._state) == place
        if grows:
            try:
                known = read_table(there)
                pq.write_table(pa.concat_tables([known, row]), self._new / place, **WRITTEN)
            except pa.ArrowException as error:
                raise SourceError(f"{there}: cannot take another episode: {error}") from None
        self._add(place, replaces=grows)

    def _episode_table(self, columns: Mapping[str, Any], stats: Mapping[str, Stats]) -> pa.Table:
        """The episode's row of the episode list, with the columns of the rows that are there."""
        values = {name: value for name, value in columns.items() if not name.startswith("meta/")}
        values |= {
            f"stats/{key}/{n}": stats[key][n] for key in self._features if key in stats for n in stats[key]
        }
        values |= {name: value for name, value in columns.items() if name.startswith("meta/")}
        schema = self._state.episodes
        if schema is None:
            kinds = {name: episode_type(name, value) for name, value in values.items()}
            schema = pa.schema(list(kinds.items()))
        arrays = []
        for wanted in schema:
            value = values.get(wanted.name)
            if wanted.name.startswith("stats/"):
                value = _shaped(value, _dimensions(wanted.type), wanted.name)
            try:
                arrays.append(pa.array([value], wanted.type))
            except (pa.ArrowException, ValueError, TypeError) as error:
                raise SourceError(
                    f"{self._root}: the episode list's column {wanted.name} is {wanted.type}, which cannot "
                    f"hold {value!r}: {error}"
                ) from None
        return pa.table(arrays, schema=schema)

    def _tasks(self, tasks: Sequence[str]) -> None:
        """Write the tasks table with the new task."""
        table = self._task_table(tasks)
        (self._new / "meta").mkdir(parents=True, exist_ok=True)
        pq.write_table(table, self._new / TASKS)
        self._add(TASKS, replaces=True)

    def _task_table(self, tasks: Sequence[str]) -> pa.Table:
        """The tasks, the last of which is new; what else the table holds of the others stays."""
        there = self._root / TASKS
        table = task_table(tasks)
        if self._state.tasks:
            known = read_table(there)
            added = table.slice(len(tasks) - 1)
            texts = "task" if "task" in known.column_names else known.column_names[-1]
            columns = {"task_index": added["task_index"], texts: added["task"]}
            try:
                row = [
                    columns[f.name].cast(f.type) if f.name in columns else pa.nulls(1, f.type)
                    for f in known.schema
                ]
                table = pa.concat_tables([known, pa.table(row, schema=known.schema)])
            except (pa.ArrowException, ValueError) as error:
                raise SourceError(f"{there}: cannot take another task: {error}") from None
        return table

    def _stats(self, stats: Mapping[str, Stats]) -> dict[str, Any]:
        """Write the statistics of all episodes."""
        total = self._total_stats(stats)
        write_json(self._new / STATS, total)
        self._add(STATS, replaces=True)
        return total

    def _total_stats(self, stats: Mapping[str, Stats]) -> dict[str, Any]:
        """The statistics of all episodes, which follow from those before and the new ones."""
        total = dict(self._state.stats)
        for key in (key for key in self._features if key in stats):
            aggregate = Aggregate()
            new = dict(stats[key])
            try:
                if key in total:
                    shape = np.shape(total[key]["min"])
                    new = {
                        n: v if n == "count" else np.asarray(v, np.float64).reshape(shape)
                        for n, v in new.items()
                    }
                    aggregate.add(total[key])
                aggregate.add(new)
            except (ValueError, TypeError, LookupError) as error:
                raise SourceError(f"{self._root / STATS}: {key}: {error}") from None
            total[key] = aggregate.result()
        return total


@dataclass(frozen=True)
class _ImagesOf:
    """A camera's images, each looked at when it is read: one of another size would be found by a reader."""

    camera: GrowingCamera
    images: FrameSource

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[EncodedFrame]:
        for frame in self.images:
            header = read_header(frame.data, frame.name)
            wanted = (self.camera.width, self.camera.height, self.camera.unit is not None)
            if (header.width, header.height, header.depth) != wanted:
                what = "depth" if wanted[2] else "colours"
                raise VerificationError(
                    f"{frame.name}: is a {header}, {wanted[0]}x{wanted[1]} of {what} is expected"
                )
            yield frame

    def fingerprint(self) -> str:
        return self.images.fingerprint()


def rehearsed(
    cameras: Mapping[str, GrowingCamera], features: Mapping[str, Mapping[str, Any]], task: str
) -> NewEpisode:
    """Return an episode of one row of zeros, without files."""
    zeros: dict[str, list[Any]] = {}
    for name, feature in features.items():
        zero = {"string": "", "bool": False}.get(feature["dtype"], 0)
        zeros[name] = [zero] if list(feature["shape"]) == [1] else [[zero] * feature["shape"][0]]
    counts = {
        key: np.eye(1, 256, dtype=np.int64).repeat(1 if c.unit is not None else 3, 0)
        for key, c in cameras.items()
    }
    stats = {key: histogram_statistics(own, np.arange(256) / 255, 1) for key, own in counts.items()}
    images = {key: ImageFiles([]) for key, camera in cameras.items() if not camera.video}
    return NewEpisode(task, row_table(zeros, features), 1, images=images, stats=stats)
