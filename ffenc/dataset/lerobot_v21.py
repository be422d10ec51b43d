"""Reading of a LeRobot v2.1 or v2.0 dataset as a v3.0 dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from ffenc import paths
from ffenc.config.framerate import fps_number
from ffenc.dataset.columns import statistic_type
from ffenc.dataset.lerobot import LeRobotDataset, Listed
from ffenc.dataset.model import EpisodeRef, EpisodeVideo, Known
from ffenc.dataset.row_tables import ROWS_A_BATCH
from ffenc.dataset.statistics import Aggregate
from ffenc.errors import SourceError
from ffenc.frames.info_json import json_object
from ffenc.frames.statistics import Stats
from ffenc.layout import (
    DATA_PATH,
    DATA_PATH_V2,
    EPISODE_STATS_V2,
    EPISODES_V2,
    FILE_LIMITS,
    STATISTICS,
    TASKS_V2,
    VIDEO_PATH_V2,
)

_KEYS_GONE = ("total_chunks", "total_videos")
_INFO_ORDER = (
    *("codebase_version", "fps", "features", "total_episodes", "total_frames", "total_tasks", "chunks_size"),
    *("data_files_size_in_mb", "video_files_size_in_mb", "data_path", "video_path", "robot_type", "splits"),
)


class LeRobotV21(LeRobotDataset):
    """A LeRobot v2.1 dataset: one parquet and one video file per episode; see :class:`LeRobotDataset`.

    Missing statistics, as in v2.0, have to be computed.
    """

    layout = "v2"
    episode_list = EPISODES_V2
    data_path = DATA_PATH_V2
    video_path = VIDEO_PATH_V2

    def _complete(self, *, partial: bool) -> None:
        if not partial:
            self._check_no_other_files()
        self._table = _episode_table(self._lines, self.root / EPISODES_V2)
        del self._lines
        self._stats = _EpisodeStats(self.root / EPISODE_STATS_V2, len(self.episodes))

    def _data_file(self, first: int, second: int) -> Path:
        return self.root / self._data_path.format(episode_chunk=first, episode_index=second)

    def _video_file(self, key: str, first: int, second: int) -> Path:
        place = self._video_path.format(video_key=key, episode_chunk=first, episode_index=second)
        return self.root / place

    def _list_videos(self, key: str) -> list[EpisodeVideo]:
        chunks_size = self._chunks_size()
        return [
            EpisodeVideo(key, e.index, self._video_file(key, e.index // chunks_size, e.index), 0.0, e.length)
            for e in self.episodes
        ]

    def _chunks_size(self) -> int:
        return int(self._info.get("chunks_size") or FILE_LIMITS["chunks_size"])

    def _count_tasks(self) -> int:
        self._tasks: list[str] = []
        path = self.root / TASKS_V2
        for line in _numbered(path, "task_index", "task"):
            if not isinstance(line.content.get("task"), str):
                raise SourceError(
                    f"task is {line.content.get('task')!r}", expected="a text", where=line.where
                )
            self._tasks.append(line.content["task"])
        return len(self._tasks)

    def _listed(self) -> Iterator[Listed]:
        self._lines: list[dict[str, Any]] = []
        chunks_size = self._chunks_size()
        for line in _numbered(self.root / EPISODES_V2, "episode_index", "episode"):
            tasks = line.content.get("tasks")
            if not (isinstance(tasks, list) and all(isinstance(task, str) for task in tasks)):
                raise SourceError(f"tasks is {tasks!r}", expected="a list of texts", where=line.where)
            length = _whole(line, "length")
            self._lines.append(line.content)
            yield Listed(
                line.where, line.number, length, self._data_file(line.number // chunks_size, line.number)
            )

    def _check_no_other_files(self) -> None:
        """Refuse data files of episodes that are not listed, which would be dropped silently."""
        known = {place.path for place in self._places.values()}
        for path in sorted((self.root / "data").rglob("*.parquet")):
            if path not in known:
                raise SourceError(
                    f"belongs to no episode in {EPISODES_V2}; restore the line there, or move the file away",
                    where=path,
                )

    def info(self) -> dict[str, Any]:
        info: dict[str, Any] = dict(FILE_LIMITS)
        info |= {key: value for key, value in self._info.items() if key not in _KEYS_GONE}
        info |= {
            "codebase_version": "v3.0",
            "fps": fps_number(self.fps),
            "total_tasks": len(self._tasks),
            "data_path": DATA_PATH,
        }
        return {key: info[key] for key in dict.fromkeys((*_INFO_ORDER, *info)) if key in info}

    def stats(self) -> dict[str, Any]:
        return {key: aggregate.result() for key, aggregate in self._stats.aggregates.items()}

    def has_episode_stats(self, feature: str) -> bool:
        return feature in self._stats.aggregates

    def _known(self, episodes: Sequence[EpisodeRef]) -> Iterator[Known]:
        for start in range(0, len(episodes), ROWS_A_BATCH):
            indices = [episode.index for episode in episodes[start : start + ROWS_A_BATCH]]
            table = self._table.take(pa.array(indices))
            for name, values in self._stats.columns(indices).items():
                table = table.append_column(name, values)
            yield from (Known(table, row) for row in range(len(indices)))

    def tasks(self) -> Sequence[str]:
        return self._tasks


class Line(NamedTuple):
    """A line of a JSON Lines file."""

    path: Path
    line: int  # number of the line, from 1
    offset: int
    content: dict[str, Any]
    number: int = -1

    @property
    def where(self) -> str:
        """Return file and line, for errors."""
        return f"{self.path}: line {self.line}"


def read_lines(path: Path) -> Iterator[Line]:
    """Yield the objects of a JSON Lines file; empty lines are skipped.

    Raises:
        LineError: a line cannot be read.
        SourceError: the file cannot be read.
    """
    offset = 0
    try:
        for number, raw in enumerate(paths.read_lines(path), 1):
            if raw.strip():
                yield Line(path, number, offset, _object(raw, path, number))
            offset += len(raw)
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}", where=path, fix="restore it") from None


def _object(raw: bytes, path: Path, line: int) -> dict[str, Any]:
    try:
        return json_object(raw.rstrip())  # so that an error at the end has its column
    except ValueError as error:
        raise paths.LineError(str(error), path, line, fix="restore the file") from None


def _whole(line: Line, key: str) -> int:
    value = line.content.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise SourceError(f"{key} is {value!r}", expected="a whole number", where=line.where)
    return value


def _numbered(path: Path, key: str, what: str) -> list[Line]:
    """Read lines that are numbered from 0, in any order.

    LeRobot v3.0 finds an episode or a task by its position in the table, so none may be missing.
    """
    lines = [line._replace(number=_whole(line, key)) for line in read_lines(path)]
    lines.sort(key=lambda line: line.number)
    for expected, line in enumerate(lines):
        if line.number < expected:
            raise SourceError(f"{what} {line.number} is there twice; keep one", where=line.where)
        if line.number > expected:
            raise SourceError(
                f"{what} {expected} is missing, {what} {line.number} is there; "
                "restore it, or number the others from 0",
                where=path,
            )
    return lines


def _episode_table(lines: Sequence[Mapping[str, Any]], path: Path) -> pa.Table:
    """Return the episode list as a table, with all keys of its lines."""
    types = {"episode_index": pa.int64(), "tasks": pa.list_(pa.string()), "length": pa.int64()}
    columns = {}
    for key in dict.fromkeys((*types, *(key for line in lines for key in line))):
        try:
            columns[key] = pa.array([line.get(key) for line in lines], types.get(key))
        except (pa.ArrowException, OverflowError) as error:
            raise SourceError(
                f"{key} does not have the same type in all lines: {error}", where=path
            ) from None
    return pa.table(columns)


class _EpisodeStats:
    """The lines of ``episodes_stats.jsonl``, which are read on demand: they are long.

    Attributes:
        aggregates: feature -> the statistics of all episodes, for features with statistics of every episode.

    Args:
        path: the file; if it does not exist, there are no statistics.
        episodes: number of episodes.

    Raises:
        SourceError: a line is damaged, missing or duplicated.
    """

    def __init__(self, path: Path, episodes: int) -> None:
        self._path = path
        self._places: dict[int, tuple[int, int]] = {}  # number and byte offset of the line
        self.aggregates: dict[str, Aggregate] = {}
        self._types: dict[str, dict[str, pa.DataType]] = {}
        if not path.is_file():
            return
        for line in read_lines(path):
            index = _whole(line, "episode_index")
            if index in self._places or index >= episodes:
                what = "is there twice; keep one" if index < episodes else f"is not in {EPISODES_V2}"
                raise SourceError(f"episode {index} {what}", where=line.where)
            self._add(line)
            self._places[index] = (line.line, line.offset)
        missing = next((index for index in range(episodes) if index not in self._places), None)
        if missing is not None:
            raise SourceError(
                f"has no line of episode {missing}; restore it, or move the file away: missing "
                "statistics are computed",
                where=path,
            )

    def _add(self, line: Line) -> None:
        stats = {
            key: {name: value for name, value in own.items() if value is not None}
            for key, own in _stats_of(line).items()
        }
        if not self._places:
            self._types = {
                key: {n: statistic_type(n, v) for n, v in own.items()} for key, own in stats.items()
            }
            self.aggregates = {key: Aggregate() for key in self._types}
        for key, types in list(self._types.items()):
            there = stats.get(key, {})
            if not set(STATISTICS) <= set(there):
                del self.aggregates[key], self._types[key]
                continue
            self._types[key] = {name: kind for name, kind in types.items() if name in there}
            try:
                self.aggregates[key].add(there)
                for name, kind in self._types[key].items():
                    pa.array([there[name]], kind)
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise SourceError(
                    f"statistics of {key}: {error}", where=line.where, fix="restore the file"
                ) from None

    def columns(self, indices: Sequence[int]) -> dict[str, pa.Array]:
        """Return the statistics of some episodes as columns of the episode table."""
        values: dict[str, list[Any]] = {
            f"stats/{key}/{name}": [] for key, types in self._types.items() for name in types
        }
        if not values:
            return {}
        with self._path.open("rb") as file:
            for index in indices:
                line, offset = self._places[index]
                file.seek(offset)
                content = _object(file.readline(), self._path, line)
                stats = _stats_of(Line(self._path, line, offset, content))
                for key, types in self._types.items():
                    for name in types:
                        values[f"stats/{key}/{name}"].append(stats[key][name])
        kinds = [kind for types in self._types.values() for kind in types.values()]
        return {name: pa.array(own, kind) for (name, own), kind in zip(values.items(), kinds, strict=True)}


def _stats_of(line: Line) -> Mapping[str, Stats]:
    stats = line.content.get("stats")
    if not isinstance(stats, dict) or not all(isinstance(own, dict) for own in stats.values()):
        raise SourceError("has no stats of features", where=line.where, fix="restore the file")
    return stats
