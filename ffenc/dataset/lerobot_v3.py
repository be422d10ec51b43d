"""Reading of a LeRobot v3.0 dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.dataset.columns import kept_rows, read_table
from ffenc.dataset.lerobot import LeRobotDataset, Listed
from ffenc.dataset.model import EpisodeRef, EpisodeVideo, Known
from ffenc.dataset.places import list_files
from ffenc.dataset.row_tables import ROWS_A_BATCH
from ffenc.dataset.videos import videos_of
from ffenc.errors import SourceError
from ffenc.frames.info_json import read_json
from ffenc.layout import (
    DATA_COLUMNS,
    DATA_PATH,
    EPISODES,
    STATISTICS,
    STATS,
    TASKS,
    VIDEO_PATH,
)
from ffenc.problem import Problem

_EPISODE_COLUMNS = ("episode_index", "length", *DATA_COLUMNS)


class LeRobotV3(LeRobotDataset):
    """A LeRobot v3.0 dataset; see :class:`LeRobotDataset`."""

    layout = "v3"
    episode_list = EPISODES
    data_path = DATA_PATH
    video_path = VIDEO_PATH

    @cached_property
    def _episode_files(self) -> list[Path]:
        return list_files(self.root)

    def _complete(self, *, partial: bool) -> None:
        self._episode_columns = set(pq.read_schema(self._episode_files[0]).names)

    def _data_file(self, first: int, second: int) -> Path:
        return self.root / self._data_path.format(chunk_index=first, file_index=second)

    def _video_file(self, key: str, first: int, second: int) -> Path:
        place = self._video_path.format(video_key=key, chunk_index=first, file_index=second)
        return self.root / place

    def _list_videos(self, key: str) -> list[EpisodeVideo]:
        return videos_of(self.root, key, self._video_path, self._damage.note)

    def _listed(self) -> Iterator[Listed]:
        data_file = lru_cache(maxsize=None)(self._data_file)
        for path in self._episode_files:
            for row, values in enumerate(_numbers(path, _EPISODE_COLUMNS)):
                index, length, chunk, file = map(_whole, values)
                if index is None:
                    self._damage.note(_not_whole(path, row, values))
                elif length is None or chunk is None or file is None:
                    self._damage.note(_not_whole(path, row, values), index)
                    yield Listed(str(path), index, length or 1, None)
                else:
                    yield Listed(str(path), index, length, data_file(chunk, file))

    def _count_tasks(self) -> int:
        path = self.root / TASKS
        try:
            table = read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path}: cannot be read: {error}") from None
        if "task_index" not in table.column_names:
            raise SourceError(f"{path}: has no column task_index")
        return int(table.num_rows)

    def info(self) -> dict[str, Any]:
        return dict(self._info)

    def stats(self) -> dict[str, Any]:
        path = self.root / STATS
        return read_json(path) if path.is_file() else {}

    def has_episode_stats(self, feature: str) -> bool:
        return all(f"stats/{feature}/{name}" in self._episode_columns for name in STATISTICS)

    def _known(self, episodes: Sequence[EpisodeRef]) -> Iterator[Known]:
        wanted = np.array([episode.index for episode in episodes], np.int64)
        for path in self._episode_files:
            try:
                with pq.ParquetFile(path, page_checksum_verification=True) as file:
                    for batch in file.iter_batches(ROWS_A_BATCH):
                        table = pa.Table.from_batches([batch])
                        chosen = kept_rows(table, np.isin(table["episode_index"].to_numpy(), wanted))
                        yield from (Known(chosen, row, path) for row in range(chosen.num_rows))
            except (pa.ArrowException, OSError) as error:
                raise SourceError(f"{path}: cannot be read: {error}") from None

    def tasks(self) -> Path:
        return self.root / TASKS


def _numbers(path: Path, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield rows of columns that should be integers."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = frozenset(file.schema_arrow.names)
            missing = [name for name in columns if name not in names]
            if missing:
                raise SourceError(f"{path}: has no column {', '.join(missing)}")
            table = file.read(columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from None
    yield from zip(*(table[name].to_pylist() for name in columns), strict=True)


def _whole(value: Any) -> int | None:
    """Return the value as an int; None if it is not a whole number."""
    return int(value) if isinstance(value, int | float) and value % 1 == 0 else None


def _not_whole(path: Path, row: int, values: Sequence[Any]) -> str:
    """Return what is wrong with a row of the episode list."""
    pairs = zip(values, _EPISODE_COLUMNS, strict=True)
    found, name = next(pair for pair in pairs if _whole(pair[0]) is None)
    said = "no value" if found is None else found
    return str(Problem(f"row {row} has {said} in {name}", "a whole number", str(path), "restore the file"))
