"""Write the tables of a job's result from what its source says."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ffenc.dataset.columns import is_numeric, numbers_of, row_schema
from ffenc.dataset.division import Division, RowDivision
from ffenc.dataset.quantiles import exact_quantiles
from ffenc.dataset.source import DatasetSource, EpisodeRef
from ffenc.dataset.staging import write_info
from ffenc.dataset.statistics import ACTION, alike, alike_arrays, relative_chunk
from ffenc.dataset.writer import (
    DATA,
    EPISODES,
    DatasetWriter,
    FilePlace,
    NumberedRows,
    State,
    VideoPlace,
    WrittenRows,
)
from ffenc.errors import Cancelled, FfencWarning, SourceError
from ffenc.frames.changed_images import ChangedImages
from ffenc.frames.parquet import IMAGE
from ffenc.frames.sources import FrameSource
from ffenc.frames.statistics import Stats, ValueCounts
from ffenc.jobs.pool import run_units, share_cores
from ffenc.layout import (
    CAMERA_TYPES,
    DATA_PATH,
    DEFAULT_FEATURES,
    QUANTILES,
    STATISTICS,
    VIDEO_PATH,
    file_limit,
)

_Rows = tuple[EpisodeRef, NumberedRows]


class JobTables:
    """All tables of a job's result.

    Args:
        source: what is read.
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
        together: put the rows of small files together; see :class:`~ffenc.dataset.division.RowDivision`.
        camera_stats: camera -> each chosen episode's statistics, for cameras without any in the source.
        camera_values: camera -> of all chosen episodes of those, how often each value was seen.
    """

    def __init__(
        self,
        source: DatasetSource,
        root: Path,
        *,
        episodes: Sequence[EpisodeRef],
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
        together: bool = False,
    ) -> None:
        self._exact, self._together = exact, together
        self._source = source
        self._episodes, self._cameras, self._images = episodes, cameras, images
        self._on_images, self._images_done = on_images, 0
        self._counting, self._stopped = threading.Lock(), threading.Event()
        self._videos, self._blocks = videos, blocks
        self._camera_stats, self._camera_values = dict(camera_stats), dict(camera_values)
        self._changed = changed
        self._counted: dict[tuple[str, int], Stats] = {}
        self._recompute, self._reaggregate = recompute, reaggregate
        self._subset = [e.index for e in episodes] != list(range(len(source.episodes)))
        self._features = self._make_features()
        self._warn_of_relative_actions()
        self._computed = self._features_to_compute()
        self._info = self._source.info() | {"features": self._features}
        nothing = {"total_episodes": 0, "total_frames": 0}
        self._writer = DatasetWriter(
            root, source.fps, State(self._info | nothing), tasks=self._source.tasks()
        )

    def write(self) -> None:
        """Write every table."""
        writer = self._writer
        rows = self._write_rows()
        for key in self._changed:
            self._camera_stats[key] = [self._counted[key, one.index] for one in self._episodes]
        self._write_episodes(rows)
        self._write_stats([writer.folder / path for path in dict.fromkeys(one.file.path for one in rows)])
        writer.write_tasks()
        info = {**self._info, "data_path": DATA_PATH, "video_path": VIDEO_PATH}
        write_info(writer.folder, writer.info({**info, "splits": {}} if self._subset else info))
        for path, place in self._source.extra_files():
            writer.copy(path, place)
        for number, episode in enumerate(self._episodes):
            notes = self._source.notes(episode)
            if notes is not None:
                writer.write_notes(number, notes)

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
        found = {key: _together([own[key] for own in computed]) for key in candidates}
        listed = {key for key in candidates if self._source.has_episode_stats(key)}
        stale: set[str] = set()
        done = 0
        for _, table in self._source.episode_tables(self._episodes) if listed else ():
            part = slice(done, done + table.num_rows)
            for key in listed:
                try:
                    stored = {n: _rows_of(table[f"stats/{key}/{n}"]) for n in STATISTICS}
                    same = alike_arrays(stored, {n: values[part] for n, values in found[key].items()})
                except (ValueError, TypeError, pa.ArrowException):  # lists that are not alike
                    same = False
                if not same:
                    stale.add(key)
            done += table.num_rows
        totals = {} if self._subset else self._source.stats()
        for key in candidates & set(totals):
            if not alike(totals[key], _combined(found[key])):
                stale.add(key)
        return stale

    def _write_rows(self) -> list[WrittenRows]:
        """Write the frame rows, a row group an episode.

        Files with images are written several at once: compressing them is most of the work.
        """
        keys = [key for key in self._features if key in self._computed or key in DEFAULT_FEATURES]
        if self._images:

            def write(unit: tuple[FilePlace, list[_Rows]]) -> list[WrittenRows]:
                return self._write_file(*unit, keys)

            units = ((file, list(rows)) for file, rows in self._files_of_rows())
            threads, _ = share_cores(len(self._episodes), None, None)
            several = run_units(units, write, threads=threads + 1, stop=self._stopped.set)
            done = sorted((written for _, written in several), key=lambda written: written[0].number)
        else:
            done = [self._write_file(file, rows, keys) for file, rows in self._files_of_rows()]
        found = [one for written in done for one in written]
        stale = self._stale_numbering([one.stats for one in found])
        self._computed = [key for key in keys if key in self._computed or key in stale]
        return found

    def _files_of_rows(self) -> Iterator[tuple[FilePlace, Iterable[_Rows]]]:
        """Each file of the result, and what comes into it."""
        limit = file_limit(self._info, "data")
        division = RowDivision(self._source, self._images, limit, together=self._together)
        for _, rows in groupby(self._source.rows(self._episodes), key=division.of):
            file = self._writer.files.next(DATA)
            yield file, ((episode, self._writer.number(table)) for episode, _, table in rows)

    def _write_file(
        self, file: FilePlace, episodes: Iterable[_Rows], keys: Sequence[str]
    ) -> list[WrittenRows]:
        """Write a data file; the statistics of some features are computed."""
        rows = iter(episodes)
        first = next(rows)
        schema = row_schema(self._with_images(first[1].table.schema))

        def parts() -> Iterator[tuple[NumberedRows, dict[str, FrameSource]]]:
            for episode, numbered in chain([first], rows):
                images = {key: self._source.frames(key, episode) for key in self._images}
                kept.append((episode, images))
                yield numbered, images

        def count(rows: int) -> None:
            if self._stopped.is_set():
                raise Cancelled
            if self._images:
                self._count_images(rows * len(self._images))

        kept: list[tuple[EpisodeRef, dict[str, FrameSource]]] = []
        written = self._writer.write_rows(file, schema, parts(), keys, count)
        for episode, images in kept:
            for key in self._changed:
                frames = images[key]
                assert isinstance(frames, ChangedImages)
                self._take_counts(key, episode, frames)
        return written

    def _take_counts(self, key: str, episode: EpisodeRef, frames: ChangedImages) -> None:
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

    def _write_episodes(self, rows: Sequence[WrittenRows]) -> None:
        done = iter(rows)

        def listed(file: FilePlace, tables: Iterable[tuple[Path | None, pa.Table]]) -> Iterator[pa.Table]:
            for _, table in tables:
                yield self._listed(table, list(islice(done, table.num_rows)), file)

        division = Division(file_limit(self._info, "data"))

        def file_of(one: tuple[Path | None, pa.Table]) -> int | Path:
            return one[0] or division.of(one[1])

        for _, tables in groupby(self._source.episode_tables(self._episodes), key=file_of):
            file = self._writer.files.next(EPISODES)
            self._writer.write_list(file, listed(file, tables))

    def _listed(self, table: pa.Table, rows: Sequence[WrittenRows], file: FilePlace) -> pa.Table:
        """The source's rows of the episode list with the new numbers, places and statistics."""
        part = slice(rows[0].number, rows[-1].number + 1)
        features = self._source.info()["features"]
        gone = [
            f"stats/{key}/"
            for key, feature in features.items()
            if feature.get("dtype") in CAMERA_TYPES and key not in (*self._cameras, *self._images)
        ]
        known = {name: table[name] for name in table.column_names if not name.startswith(tuple(gone))}
        stats = {key: computed[part] for key, computed in self._camera_stats.items()}
        stats |= {key: [one.stats[key] for one in rows] for key in self._computed}
        videos = {camera: self._videos[camera][part] for camera in self._cameras}
        listed = self._writer.list_rows(known, rows, videos, stats, file)
        self._add_to_totals(listed, part)
        return listed.replace_schema_metadata(table.schema.metadata)

    def _add_to_totals(self, listed: pa.Table, part: slice) -> None:
        columns: dict[str, dict[str, pa.ChunkedArray]] = {}
        for name in listed.column_names:
            if name.startswith("stats/"):
                key, _, statistic = name.removeprefix("stats/").rpartition("/")
                columns.setdefault(key, {})[statistic] = listed[name]
        for key, own in columns.items():
            if not self._needs_aggregate(key):
                continue
            for row, episode in enumerate(self._episodes[part]):
                try:
                    self._writer.add_total(key, {name: column[row].as_py() for name, column in own.items()})
                except ValueError as error:
                    raise SourceError(
                        f"meta/episodes: stats/{key} of episode {episode.index}: {error}"
                    ) from None

    def _needs_aggregate(self, key: str) -> bool:
        return self._subset or key in (*self._computed, *self._camera_stats, *self._reaggregate)

    def _write_stats(self, files: Sequence[Path]) -> None:
        known, totals = self._source.stats(), self._writer.totals
        stats = {key: value for key, value in known.items() if key in self._features and not self._subset}
        stats |= {key: total for key, total in totals.items() if key in self._features}
        combined = set(stats) if len(self._source.roots) > 1 else set(totals)
        for key in combined if self._exact else ():
            stats[key] = self._with_exact_quantiles(key, stats[key], files)
        order = [key for key in (*known, *self._features) if key in stats]
        self._writer.write_stats({key: stats[key] for key in dict.fromkeys(order)})

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


def _together(stats: Sequence[Stats]) -> dict[str, npt.NDArray[np.float64]]:
    """Statistics of many episodes, each of shape (episodes, D)."""
    return {name: np.array([own[name] for own in stats], np.float64) for name in STATISTICS}


def _rows_of(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A column of lists of numbers, as shape (rows, D)."""
    return np.asarray(numbers_of(column), np.float64).reshape(len(column), -1)


def _combined(stats: Mapping[str, npt.NDArray[np.float64]]) -> Stats:
    """The statistics of all episodes together, for a comparison: their last digits may differ."""
    count = stats["count"][:, :1]
    mean = (stats["mean"] * count).sum(axis=0) / count.sum()
    squares = (stats["std"] ** 2 + (stats["mean"] - mean) ** 2) * count
    return {
        "min": stats["min"].min(axis=0).tolist(),
        "max": stats["max"].max(axis=0).tolist(),
        "mean": mean.tolist(),
        "std": np.sqrt(squares.sum(axis=0) / count.sum()).tolist(),
        "count": [int(count.sum())],
    }


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
