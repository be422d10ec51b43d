"""Read a LeRobot v3.0 image dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.config.framerate import parse_fps
from ffenc.dataset.source import DATA_PATH, Camera, Episode
from ffenc.errors import ConfigError, SourceError
from ffenc.frames.images import read_header
from ffenc.frames.parquet import ParquetImages, RowRange

_ROWS_A_BATCH = 1000
_TIME_TOLERANCE = 1e-4  # LeRobot's reader raises beyond it


@dataclass(frozen=True)
class _Place:
    """Where an episode's rows are."""

    chunk: int
    file: int
    first_row: int


class LeRobotImages:
    """A LeRobot v3.0 dataset whose cameras are image columns in its parquet files.

    Args:
        root: its folder.

    Raises:
        SourceError: not such a dataset, or one that is damaged.

    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._info = _json(root / "meta/info.json")
        self._check_version()
        try:
            self.fps = parse_fps(self._info["fps"])
            self._features: dict[str, Any] = self._info["features"]
            self._data_path: str = self._info.get("data_path") or DATA_PATH
        except (KeyError, ConfigError) as error:
            raise SourceError(f"{root / 'meta/info.json'}: {error}") from None
        self._image_keys = [k for k, f in self._features.items() if f.get("dtype") == "image"]
        self._episode_files = sorted((root / "meta/episodes").glob("*/*.parquet"))
        self._places: dict[int, _Place] = {}
        self.episodes = self._read_episodes()
        self._episode_columns = set(pq.read_schema(self._episode_files[0]).names)
        self.cameras = [self._camera(key) for key in self._image_keys]

    def _check_version(self) -> None:
        version = str(self._info.get("codebase_version", ""))
        features = self._info.get("features")
        if not version.startswith("v3"):
            raise SourceError(
                f"{self.root}: is a LeRobot dataset of layout {version or 'unknown'}; v3.0 is read. "
                "Convert it with LeRobot's convert_dataset_v21_to_v30 first"
            )
        if not isinstance(features, dict) or not any(f.get("dtype") == "image" for f in features.values()):
            videos = [k for k, f in (features or {}).items() if f.get("dtype") == "video"]
            kind = f"its cameras are video already ({', '.join(videos)})" if videos else "it has no cameras"
            raise SourceError(f"{self.root}: {kind}; a dataset of images is expected")
        videos = [k for k, f in features.items() if f.get("dtype") == "video"]
        if videos:
            raise SourceError(
                f"{self.root}: mixes image and video cameras ({', '.join(videos)} are video); "
                "only datasets whose cameras are all images are re-encoded for now"
            )

    def _read_episodes(self) -> list[Episode]:
        columns = ["episode_index", "length", "data/chunk_index", "data/file_index", "dataset_from_index"]
        episodes: list[Episode] = []
        firsts: dict[tuple[int, int], int] = {}
        for path in self._episode_files:
            try:
                table = pq.read_table(path, columns=columns)
            except (pa.ArrowException, OSError) as error:
                raise SourceError(f"{path}: cannot be read: {error}") from None
            if table.num_columns != len(columns):
                missing = sorted(set(columns) - set(table.column_names))
                raise SourceError(f"{path}: has no column {', '.join(missing)}")
            for row in zip(*(table[name].to_pylist() for name in columns), strict=True):
                index, length, chunk, file, start = map(int, row)
                first = firsts.setdefault((chunk, file), start)
                self._places[index] = _Place(chunk, file, start - first)
                episodes.append(Episode(index, length))
        if not episodes:
            raise SourceError(f"{self.root / 'meta/episodes'}: holds no episodes")
        numbers = [episode.index for episode in episodes]
        if numbers != sorted(set(numbers)):
            raise SourceError(f"{self.root / 'meta/episodes'}: episodes are doubled or out of order")
        return episodes

    def _camera(self, key: str) -> Camera:
        info = self._features[key].get("info") or {}
        if info.get("is_depth_map") or info.get("video.is_depth_map"):
            return Camera(key, True, None)
        frame = next(iter(self.frames(key, self.episodes[0])), None)
        if frame is None:
            raise SourceError(f"{self.root}: episode {self.episodes[0].index} has no frames")
        return Camera(key, False, read_header(frame.data, frame.name))

    def frames(self, camera: str, episode: Episode) -> ParquetImages:
        place = self._places[episode.index]
        return ParquetImages([RowRange(self._data_file(place), place.first_row, episode.length)], camera)

    def image_bytes(self, camera: str, episodes: Sequence[Episode]) -> int:
        wanted: dict[Path, int] = {}
        for episode in episodes:
            path = self._data_file(self._places[episode.index])
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

    def info(self) -> dict[str, Any]:
        return dict(self._info)

    def stats(self) -> dict[str, Any]:
        path = self.root / "meta/stats.json"
        return _json(path) if path.is_file() else {}

    def has_episode_stats(self, feature: str) -> bool:
        return f"stats/{feature}/mean" in self._episode_columns

    def rows(self, episodes: Sequence[Episode]) -> Iterator[tuple[Episode, int, pa.Table]]:
        wanted = {episode.index: episode for episode in episodes}
        files: dict[Path, None] = dict.fromkeys(self._data_file(self._places[e.index]) for e in episodes)
        for number, path in enumerate(files):
            for table in _runs(path, self._image_keys):
                episode = wanted.pop(int(table["episode_index"][0].as_py()), None)
                if episode is not None:
                    self._check_rows(path, episode, table)
                    yield episode, number, table
        if wanted:
            raise SourceError(f"{self.root}: the data files have no rows of episode {min(wanted)}")

    def _check_rows(self, path: Path, episode: Episode, table: pa.Table) -> None:
        """A table that does not match its own episode list would not match its video either."""
        where = f"{path}: episode {episode.index}"
        if table.num_rows != episode.length:
            raise SourceError(
                f"{where} has {table.num_rows} rows, its length in meta/episodes is {episode.length}"
            )
        numbers = table["frame_index"].to_numpy()
        wrong = np.flatnonzero(numbers != np.arange(len(numbers)))
        if wrong.size:
            at = int(wrong[0])
            raise SourceError(
                f"{where}: row {at} has frame_index {numbers[at]}; a frame is missing or doubled"
            )
        late = np.abs(table["timestamp"].to_numpy() - numbers / float(self.fps))
        if late.max() > _TIME_TOLERANCE:
            at = int(late.argmax())
            raise SourceError(
                f"{where}: row {at} has timestamp {table['timestamp'][at].as_py():.6f}, frame {at} at "
                f"{float(self.fps):g} fps is {at / float(self.fps):.6f}; LeRobot could not find it in a video"
            )

    def episode_tables(self, episodes: Sequence[Episode]) -> Iterator[tuple[int, pa.Table]]:
        wanted = pa.array([episode.index for episode in episodes], pa.int64())
        for number, path in enumerate(self._episode_files):
            for batch in pq.ParquetFile(path).iter_batches(_ROWS_A_BATCH):
                table = pa.Table.from_batches([batch])
                chosen = table.filter(pa.compute.is_in(table["episode_index"], value_set=wanted))
                if chosen.num_rows:
                    yield number, chosen

    def extra_files(self) -> list[tuple[Path, str]]:
        """Whatever else lies in the dataset: a README, subtasks, annotations."""
        own = {"meta/info.json", "meta/stats.json", "meta/tasks.parquet"}
        places = []
        for path in sorted(self.root.rglob("*")):
            place = path.relative_to(self.root)
            hidden = any(part.startswith(".") for part in place.parts)
            if hidden or not path.is_file() or place.as_posix() in own:
                continue
            if place.parts[0] in ("data", "images", "videos") or place.parts[:2] == ("meta", "episodes"):
                continue
            places.append((path, place.as_posix()))
        return places

    def tasks(self) -> Path:
        path = self.root / "meta/tasks.parquet"
        if not path.is_file():
            raise SourceError(f"{path} is missing")
        return path

    def _data_file(self, place: _Place) -> Path:
        return self.root / self._data_path.format(chunk_index=place.chunk, file_index=place.file)


def _runs(path: Path, without: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the rows of each episode in a data file, whatever row groups they are in."""
    try:
        file = pq.ParquetFile(path)
        columns = [name for name in file.schema_arrow.names if name not in without]
        missing = {"episode_index", "frame_index", "timestamp", "index"} - set(columns)
        if missing:
            raise SourceError(f"{path}: has no column {', '.join(sorted(missing))}")
        pending: pa.Table | None = None
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=columns)
            if pending is not None:
                table = pa.concat_tables([pending, table])
            numbers = table["episode_index"].to_numpy()
            cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
            for start, end in pairwise(cuts[:-1]):
                yield table.slice(start, end - start)
            pending = table.slice(cuts[-2])
        if pending is not None and pending.num_rows:
            yield pending
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise SourceError(f"{path}: is not a JSON object")
    return content
