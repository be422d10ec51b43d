"""Write the tables of a video dataset: frame rows, episodes, tasks, statistics, info."""

from __future__ import annotations

import shutil
import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.dataset.columns import (
    WRITTEN,
    VideoPlace,
    fitted,
    is_numeric,
    list_of,
    misread_tasks,
    numbers_of,
    read_table,
    readable_tasks,
    row_schema,
    set_column,
    task_table,
    task_texts,
    video_columns,
    whole_numbers,
)
from ffenc.dataset.image_rows import write_image_rows
from ffenc.dataset.quantiles import exact_quantiles
from ffenc.dataset.source import DatasetSource, Episode
from ffenc.dataset.staging import write_info, write_json
from ffenc.dataset.statistics import ACTION, Aggregate, alike, column_stats, relative_chunk
from ffenc.errors import Cancelled, FfencWarning, SourceError
from ffenc.frames.changed_images import ChangedImages
from ffenc.frames.parquet import IMAGE
from ffenc.frames.statistics import Stats, ValueCounts
from ffenc.jobs.pool import run_units, share_cores
from ffenc.layout import (
    CAMERA_TYPES,
    DATA_PATH,
    DEFAULT_FEATURES,
    EPISODES_PATH,
    NOTES_PATH,
    QUANTILES,
    STATISTICS,
    STATS,
    TASKS,
    VIDEO_PATH,
    files_in_chunk,
)
from ffenc.storage.mirror import held


@dataclass(frozen=True)
class _RowPlace:
    chunk: int
    file: int
    start: int
    tasks: list[int]  # of its rows, in their order


class _Rows(NamedTuple):
    episode: Episode
    file: int
    start: int
    table: pa.Table


class TableWriter:
    """Writes all tables of the destination from a source's.

    Args:
        source: what is re-encoded.
        root: folder of the new dataset.
        episodes: those chosen, in order; they are numbered from 0.
        cameras: keys of the cameras that are kept.
        videos: camera -> each chosen episode's place, in order.
        blocks: camera -> info block.
        images: keys of cameras that stay images, in the table.
        recompute: features whose statistics in the source are not those of its rows.
        reaggregate: features whose statistics in the source's ``stats.json`` are not those of its episodes.
        changed: those of them whose pictures are changed: their statistics are counted as they are written.
        on_images: called with the number of images written so far, from any thread.
        exact: compute the quantiles of all rows, where they would be made of the episodes'.
        camera_stats: camera -> each chosen episode's statistics, for cameras without any in the source.
        camera_values: camera -> of all chosen episodes of those, how often each value was seen.
    """

    def __init__(
        self,
        source: DatasetSource,
        root: Path,
        *,
        episodes: Sequence[Episode],
        cameras: Sequence[str],
        videos: Mapping[str, Sequence[VideoPlace]],
        blocks: Mapping[str, Mapping[str, Any]],
        camera_stats: Mapping[str, Sequence[Stats]],
        camera_values: Mapping[str, ValueCounts],
        images: Sequence[str] = (),
        changed: Collection[str] = (),
        recompute: Collection[str] = (),
        reaggregate: Collection[str] = (),
        on_images: Callable[[int], None] = lambda _: None,
        exact: bool = True,
    ) -> None:
        self._exact = exact
        self._source, self._root = source, root
        self._episodes, self._cameras, self._images = episodes, cameras, images
        self._on_images, self._images_done = on_images, 0
        self._counting, self._stopped = threading.Lock(), threading.Event()
        self._videos, self._blocks = videos, blocks
        self._camera_stats, self._camera_values = dict(camera_stats), dict(camera_values)
        self._changed = changed
        self._counted: dict[tuple[str, int], Stats] = {}
        self._recompute, self._reaggregate = recompute, reaggregate
        self._subset = [e.index for e in episodes] != list(range(len(source.episodes)))
        self._files_in_chunk = files_in_chunk(source.info())
        self._features = self._make_features()
        self._warn_of_relative_actions()
        self._computed = self._features_to_compute()

    def write(self) -> None:
        """Write every table."""
        rows, table_stats = self._write_rows()
        for key in self._changed:
            self._camera_stats[key] = [self._counted[key, one.index] for one in self._episodes]
        self._write_episodes(rows, table_stats)
        self._write_tasks()
        self._write_info()
        others = self._source.extra_files()
        for number, episode in enumerate(self._episodes):
            notes, place = self._source.notes(episode), NOTES_PATH.format(episode_index=number)
            if isinstance(notes, Path):
                others.append((notes, place))
            elif notes is not None:
                (self._root / place).parent.mkdir(parents=True, exist_ok=True)
                write_json(self._root / place, notes)
        for path, place in others:
            target = self._root / place
            target.parent.mkdir(parents=True, exist_ok=True)
            with held(path):
                shutil.copy2(path, target)

    def _make_features(self) -> dict[str, Any]:
        features: dict[str, Any] = {}
        for key, feature in self._source.info()["features"].items():
            if feature.get("dtype") not in CAMERA_TYPES:
                features[key] = feature
            elif key in self._cameras:
                kept = {name: value for name, value in feature.items() if name != "video_info"}
                block = dict(self._blocks[key])
                sized = sized_feature(kept, block["video.width"], block["video.height"])
                features[key] = {**sized, "dtype": "video", "info": block}
            elif key in self._images:
                features[key] = feature
        return features

    def _warn_of_relative_actions(self) -> None:
        count = self._source.stats().get(ACTION, {}).get("count")
        lengths = [episode.length for episode in self._source.episodes]
        if self._subset and count is not None and relative_chunk(int(np.ravel(count)[0]), lengths):
            warnings.warn(
                f"{ACTION}: its statistics are of relative actions, which cannot be computed for a part of "
                "the episodes: those of the actions themselves are written instead; LeRobot's "
                "recompute_stats(relative_action=True) computes the others",
                FfencWarning,
                stacklevel=3,
            )

    def _features_to_compute(self) -> list[str]:
        """Table columns whose statistics are not in the source, or do not hold for a part of it."""
        stats = self._source.stats()
        lacking = []
        for key, feature in self._features.items():
            if not is_numeric(feature):
                continue
            moved = key in self._source.renumbered or (self._subset and key in ("index", "episode_index"))
            moved = moved or key in (*self._recompute, *self._reaggregate)
            partial = self._subset and not self._source.has_episode_stats(key)
            if moved or partial or key not in stats:
                lacking.append(key)
        return lacking

    def _stale_numbering(self, computed: Sequence[Mapping[str, Stats]]) -> set[str]:
        """Features of the numbering whose statistics are not of these rows, as LeRobot's edits leave them.

        Args:
            computed: those of each episode's rows.
        """
        candidates = set(computed[0]) - set(self._computed)
        listed = {key for key in candidates if self._source.has_episode_stats(key)}
        stale: set[str] = set()
        done = 0
        for _, table in self._source.episode_tables(self._episodes) if listed else ():
            for key in listed:
                names = [f"stats/{key}/{name}" for name in STATISTICS]
                stored = table.select(names).rename_columns(list(STATISTICS)).to_pylist()
                if not all(alike(own, computed[done + row][key]) for row, own in enumerate(stored)):
                    stale.add(key)
            done += table.num_rows
        totals = {} if self._subset else self._source.stats()
        for key in candidates & set(totals):
            aggregate = Aggregate()
            for own in computed:
                aggregate.add(own[key])
            if not alike(totals[key], aggregate.result()):
                stale.add(key)
        return stale

    def _place(self, number: int) -> tuple[int, int]:
        return divmod(number, self._files_in_chunk)

    def _write_rows(self) -> tuple[list[_RowPlace], list[dict[str, Stats]]]:
        """Write the frame rows, a row group an episode, in as many files as the source has.

        Files with images are written several at once: compressing them is most of the work.
        """
        keys = [key for key in self._features if key in self._computed or key in DEFAULT_FEATURES]
        files = groupby(self._numbered_rows(), key=lambda one: one.file)
        done: dict[int, list[tuple[_RowPlace, dict[str, Stats]]]] = {}
        if self._images:
            units = ((file, list(rows)) for file, rows in files)
            threads, _ = share_cores(len(self._episodes), None, None)
            for (file, _), written in run_units(
                units, lambda unit: self._write_file(*unit, keys), threads=threads + 1, stop=self._stopped.set
            ):
                done[file] = written
        else:
            for file, rows in files:
                done[file] = self._write_file(file, rows, keys)
        places, stats = map(list, zip(*(one for file in sorted(done) for one in done[file]), strict=True))
        stale = self._stale_numbering(stats)
        self._computed = [key for key in keys if key in self._computed or key in stale]
        return places, stats

    def _numbered_rows(self) -> Iterator[_Rows]:
        """The rows of each episode, with its numbers in the new dataset."""
        start = 0
        for number, (episode, file, table) in enumerate(self._source.rows(self._episodes)):
            table = set_column(table, "episode_index", np.full(episode.length, number))
            table = set_column(table, "index", np.arange(start, start + episode.length))
            yield _Rows(episode, file, start, table)
            start += episode.length

    def _write_file(
        self, file: int, episodes: Iterable[_Rows], keys: Sequence[str]
    ) -> list[tuple[_RowPlace, dict[str, Stats]]]:
        """Write one file; returns each episode's place, and the statistics of some features."""
        chunk, index = self._place(file)
        path = self._root / DATA_PATH.format(chunk_index=chunk, file_index=index)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._images:
            return self._write_images(path, list(episodes), keys, chunk, index)
        written: list[tuple[_RowPlace, dict[str, Stats]]] = []
        writer: pq.ParquetWriter | None = None
        try:
            for _, _, start, table in episodes:
                if writer is None:
                    schema = row_schema(self._with_images(table.schema))
                    writer = pq.ParquetWriter(path, schema, **WRITTEN)
                writer.write_table(fitted(table, schema))
                written.append(_described(table, keys, chunk, index, start))
        finally:
            if writer is not None:
                writer.close()
        return written

    def _write_images(
        self, path: Path, episodes: Sequence[_Rows], keys: Sequence[str], chunk: int, index: int
    ) -> list[tuple[_RowPlace, dict[str, Stats]]]:
        def count(rows: int) -> None:
            if self._stopped.is_set():
                raise Cancelled
            self._count_images(rows * len(self._images))

        parts = [
            (one.table, {key: self._source.frames(key, one.episode) for key in self._images})
            for one in episodes
        ]
        write_image_rows(path, row_schema(self._with_images(episodes[0].table.schema)), parts, count)
        for one, (_, images) in zip(episodes, parts, strict=True):
            for key in self._changed:
                frames = images[key]
                assert isinstance(frames, ChangedImages)
                self._take_counts(key, one.episode, frames)
        return [_described(one.table, keys, chunk, index, one.start) for one in episodes]

    def _take_counts(self, key: str, episode: Episode, frames: ChangedImages) -> None:
        """Keep the statistics of an episode's images, which have been written."""
        values = frames.statistics.values()
        with self._counting:
            self._counted[key, episode.index] = frames.statistics.statistics()
            known = self._camera_values.get(key)
            self._camera_values[key] = values if known is None else known + values

    def _count_images(self, count: int) -> None:
        with self._counting:
            self._images_done += count
            self._on_images(self._images_done)

    def _with_images(self, schema: pa.Schema) -> pa.Schema:
        """The columns of the table and of images that stay there, in the order of the features."""
        fields = {field.name: field for field in schema}
        fields |= {key: pa.field(key, IMAGE) for key in self._images}
        order = dict.fromkeys((*(key for key in self._features if key in fields), *fields))
        return pa.schema([fields[name] for name in order], schema.metadata)

    def _write_episodes(self, rows: Sequence[_RowPlace], table_stats: Sequence[dict[str, Stats]]) -> None:
        aggregates: dict[str, Aggregate] = {}
        writer: pq.ParquetWriter | None = None
        current, done, files = -1, 0, -1
        try:
            for file, table in self._source.episode_tables(self._episodes):
                part = slice(done, done + table.num_rows)
                if file != current:
                    if writer is not None:
                        writer.close()
                        writer = None
                    current, files = file, files + 1
                table = self._episode_columns(table, part, rows, table_stats, files, aggregates)
                if writer is None:
                    chunk, index = self._place(files)
                    path = self._root / EPISODES_PATH.format(chunk_index=chunk, file_index=index)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    writer = pq.ParquetWriter(path, table.schema, **WRITTEN)
                writer.write_table(table)
                done += table.num_rows
        finally:
            if writer is not None:
                writer.close()
        places = dict.fromkeys((place.chunk, place.file) for place in rows)
        paths = [self._root / DATA_PATH.format(chunk_index=c, file_index=f) for c, f in places]
        self._write_stats(aggregates, paths)

    def _episode_columns(
        self,
        table: pa.Table,
        part: slice,
        rows: Sequence[_RowPlace],
        table_stats: Sequence[dict[str, Stats]],
        file: int,
        aggregates: dict[str, Aggregate],
    ) -> pa.Table:
        """The source's columns, with the new places and the statistics that were computed."""
        features = self._source.info()["features"]
        gone = [
            key
            for key, f in features.items()
            if f.get("dtype") in CAMERA_TYPES and key not in (*self._cameras, *self._images)
        ]
        keep = [
            name
            for name in table.column_names
            if not name.startswith("videos/") and not any(name.startswith(f"stats/{key}/") for key in gone)
        ]
        columns: dict[str, Any] = {name: table[name] for name in keep if "stats/" not in name}
        numbers = range(part.start, part.stop)
        lengths = [self._episodes[n].length for n in numbers]
        columns["episode_index"] = pa.array(numbers, pa.int64())
        columns = self._with_tasks(columns, rows[part])
        columns["data/chunk_index"] = pa.array([p.chunk for p in rows[part]], pa.int64())
        columns["data/file_index"] = pa.array([p.file for p in rows[part]], pa.int64())
        columns["dataset_from_index"] = pa.array([p.start for p in rows[part]], pa.int64())
        columns["dataset_to_index"] = pa.array(
            [p.start + n for p, n in zip(rows[part], lengths, strict=True)], pa.int64()
        )
        for camera in self._cameras:
            columns |= video_columns(camera, self._videos[camera][part], lengths, self._source.fps)
        stats = {name: table[name] for name in keep if name.startswith("stats/")}
        for key, computed in self._stats_of(part, table_stats).items():
            for name in computed[0]:
                stats[f"stats/{key}/{name}"] = pa.array([s[name] for s in computed])
        for key in filter(self._needs_aggregate, {name.split("/")[1] for name in stats}):
            prefix = f"stats/{key}/"
            named = {name.removeprefix(prefix): stats[name] for name in stats if name.startswith(prefix)}
            for row in range(table.num_rows):
                values = {name: column[row].as_py() for name, column in named.items()}
                try:
                    aggregates.setdefault(key, Aggregate()).add(values)
                except ValueError as error:
                    number = self._episodes[part.start + row].index
                    raise SourceError(f"meta/episodes: stats/{key} of episode {number}: {error}") from None
        last = {
            "meta/episodes/chunk_index": pa.array([self._place(file)[0]] * len(lengths), pa.int64()),
            "meta/episodes/file_index": pa.array([self._place(file)[1]] * len(lengths), pa.int64()),
        }
        ordered = {k: v for k, v in columns.items() if k not in last}
        return pa.table({**ordered, **stats, **last}).replace_schema_metadata(table.schema.metadata)

    def _with_tasks(self, columns: dict[str, Any], rows: Sequence[_RowPlace]) -> dict[str, Any]:
        """The columns with each episode's task texts, which LeRobot's own conversion leaves out."""
        there = columns["tasks"].to_pylist() if "tasks" in columns else [None] * len(rows)
        if None not in there or not all(place.tasks for place in rows):
            return columns
        texts = [
            own or [self._task_texts[task] for task in row.tasks]
            for own, row in zip(there, rows, strict=True)
        ]
        kind = columns["tasks"].type if "tasks" in columns else list_of(pa.string())
        first = {"episode_index": columns["episode_index"], "tasks": pa.array(texts, kind)}
        return {**first, **columns, "tasks": first["tasks"]}

    @cached_property
    def _task_texts(self) -> list[str]:
        return task_texts(self._source.tasks())

    def _stats_of(self, part: slice, table_stats: Sequence[dict[str, Stats]]) -> dict[str, Sequence[Stats]]:
        computed: dict[str, Sequence[Stats]] = {key: stats[part] for key, stats in self._camera_stats.items()}
        for key in self._computed:
            computed[key] = [stats[key] for stats in table_stats[part]]
        return computed

    def _needs_aggregate(self, key: str) -> bool:
        return self._subset or key in (*self._computed, *self._camera_stats, *self._reaggregate)

    def _write_stats(self, aggregates: Mapping[str, Aggregate], files: Sequence[Path]) -> None:
        known = self._source.stats()
        stats = {key: value for key, value in known.items() if key in self._features and not self._subset}
        stats |= {key: aggregate.result() for key, aggregate in aggregates.items() if key in self._features}
        combined = set(stats) if len(self._source.roots) > 1 else set(aggregates)
        for key in combined if self._exact else ():
            stats[key] = self._with_exact_quantiles(key, stats[key], files)
        order = [key for key in (*known, *self._features) if key in stats]
        write_json(self._root / STATS, {key: stats[key] for key in dict.fromkeys(order)})

    def _with_exact_quantiles(self, key: str, stats: Stats, files: Sequence[Path]) -> Stats:
        """The statistics of all rows with their quantiles, instead of a mean of the episodes'.

        Frames of a camera are only known where its statistics were computed, and relative actions are other
        numbers than these.
        """
        if key in self._camera_values:
            return {**stats, **self._camera_values[key].quantiles(stats["min"], stats["max"])}
        rows = sum(episode.length for episode in self._episodes)
        names = [name for name in QUANTILES if name in stats]
        if not (names and is_numeric(self._features[key]) and stats["count"] == [rows]):
            return stats
        found = exact_quantiles(files, key)
        if any(np.shape(found[name]) != np.shape(stats[name]) for name in names):
            return stats  # v2.1 has them of each number
        return {**stats, **{name: found[name] for name in names}}

    def _write_tasks(self) -> None:
        tasks = self._source.tasks()
        path = self._root / TASKS
        if not isinstance(tasks, Path):
            pq.write_table(task_table(tasks), path)
            return
        table = read_table(tasks)
        if misread_tasks(table) is None:
            shutil.copyfile(tasks, path)
        else:
            pq.write_table(readable_tasks(table), path)

    def _write_info(self) -> None:
        info = self._source.info()
        info["features"] = self._features
        info["total_episodes"] = len(self._episodes)
        info["total_frames"] = sum(episode.length for episode in self._episodes)
        info["data_path"] = DATA_PATH
        info["video_path"] = VIDEO_PATH
        if self._subset or not info.get("splits"):
            info["splits"] = {"train": f"0:{len(self._episodes)}"}
        write_info(self._root, info)


def sized_feature(feature: Mapping[str, Any], width: int, height: int) -> dict[str, Any]:
    """Return a camera's feature with the size of its pictures.

    Args:
        feature: of ``info.json``.
        width, height: in pixels.
    """
    shape, names = list(feature.get("shape") or ()), list(feature.get("names") or ())
    if len(shape) == len(names) == 3:
        for name, size in (("height", height), ("width", width)):
            if name in names:
                shape[names.index(name)] = size
    return {**feature, "shape": shape} if "shape" in feature else dict(feature)


def _described(
    table: pa.Table, keys: Sequence[str], chunk: int, file: int, start: int
) -> tuple[_RowPlace, dict[str, Stats]]:
    """Where an episode's rows are, and the statistics of some features."""
    own = {key: column_stats(numbers_of(table[key])) for key in keys}
    tasks = whole_numbers(table["task_index"]) if "task_index" in table.column_names else []
    return _RowPlace(chunk, file, start, tasks), own
