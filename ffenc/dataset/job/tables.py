"""Write the tables of a job's result from its source."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec.structs import replace

from ffenc.dataset.columns import feature_type, is_numeric, row_schema
from ffenc.dataset.job.division import Division, RowDivision
from ffenc.dataset.listing import Listing, WrittenRows, listed_statistics, listings
from ffenc.dataset.model import Episode, EpisodeRef, EpisodeVideo, FinishedVideo
from ffenc.dataset.places import DATA, FilePlace, VideoPlace
from ffenc.dataset.quantiles import exact_quantiles
from ffenc.dataset.source import DatasetSource
from ffenc.dataset.staging import write_info
from ffenc.dataset.statistics import ACTION, relative_chunk
from ffenc.dataset.writer import DatasetWriter, NumberedRows, State
from ffenc.errors import Cancelled, FfencWarning, SourceError
from ffenc.frames.changed_images import ChangedImages
from ffenc.frames.parquet import IMAGE
from ffenc.frames.sources import FrameSource
from ffenc.frames.statistics import Stats, ValueCounts
from ffenc.layout import (
    CAMERA_TYPES,
    DATA_PATH,
    DEFAULT_FEATURES,
    EPISODES,
    QUANTILES,
    VIDEO_PATH,
    file_limit,
    frame_axes,
)
from ffenc.parallel.pool import run_units, share_cores

_Rows = tuple[Episode, NumberedRows]


class JobTables:
    """All tables of a job's result.

    Args:
        source: the source.
        root: folder of the new dataset.
        episodes: the selected episodes, in order; they are numbered from 0.
        cameras: keys of the cameras that are kept.
        videos: camera -> place of each selected episode, in order.
        blocks: camera -> info block.
        images: keys of cameras that stay images, in the table.
        recompute: features whose statistics in the source do not match its rows.
        reaggregate: features whose statistics in the source's ``stats.json`` do not match its episodes.
        changed: image cameras with a transform: their statistics are computed while they are written.
        on_images: called with the number of images written so far, from any thread.
        exact: compute the quantiles of all rows, instead of aggregating those of the episodes.
        together: combine the rows of small files; see :class:`~ffenc.dataset.job.division.RowDivision`.
        camera_stats: camera -> statistics of each selected episode, for cameras without any in the source.
        camera_values: camera -> histogram of all selected episodes, for the same cameras.
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
        files: dict[str, None] = {}
        with closing(self._write_rows()) as rows:  # after an error, ends its writers first
            self._write_list(self._noted(rows, files))
        self._write_stats([writer.folder / path for path in files])
        writer.write_tasks()
        info = {**self._info, "data_path": DATA_PATH, "video_path": VIDEO_PATH}
        write_info(writer.folder, writer.info({**info, "splits": {}} if self._subset else info))
        for path, place in self._source.extra_files():
            writer.copy(path, place)

    @staticmethod
    def _noted(rows: Iterable[WrittenRows], files: dict[str, None]) -> Iterator[WrittenRows]:
        """Record the files of the rows."""
        for one in rows:
            files[one.file.path] = None
            yield one

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
                f"{ACTION}: its statistics are of relative actions, which cannot be computed for "
                "a part of the episodes: statistics of the actions themselves are written instead; LeRobot's "
                "recompute_stats(relative_action=True) computes them for the result",
                FfencWarning,
                stacklevel=3,
            )

    def _features_to_compute(self) -> list[str]:
        """Return columns whose statistics are not in the source, or do not hold for the selected part."""
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

    def _write_rows(self) -> Generator[WrittenRows, None, None]:
        """Write the rows, one row group per episode; yield episodes in order, after they are written.

        Several files with images are written at once: compressing them is most of the work.
        """
        if not self._images:
            for file, episodes in self._files_of_rows():
                yield from self._write_file(file, episodes)
            return

        def write(unit: tuple[FilePlace, list[_Rows]]) -> list[WrittenRows]:
            return self._write_file(*unit)

        units = ((file, list(rows)) for file, rows in self._files_of_rows())
        threads, _ = share_cores(len(self._episodes), None, None)
        waiting: dict[int, list[WrittenRows]] = {}
        following = 0
        for _, written in run_units(units, write, threads=threads + 1, stop=self._stopped.set):
            waiting[written[0].number] = written
            while following in waiting:
                done = waiting.pop(following)
                following += len(done)
                yield from done

    def _files_of_rows(self) -> Iterator[tuple[FilePlace, Iterable[_Rows]]]:
        """Yield each file of the result with its episodes."""
        limit = file_limit(self._info, "data")
        division = RowDivision(self._source, self._images, limit, together=self._together)
        for _, rows in groupby(self._numbered(), key=lambda one: division.of(one[0], one[1].table)):
            yield self._writer.files.next(DATA), rows

    def _numbered(self) -> Iterator[_Rows]:
        """Read the episodes, and number them."""
        kinds = {
            key: feature_type(feature) for key, feature in self._features.items() if key in DEFAULT_FEATURES
        }
        for episode in self._source.read(self._episodes):
            rows = self._writer.number(episode, kinds)
            if episode.notes is not None:
                self._writer.write_notes(rows.number, episode.notes)
            yield episode, rows

    def _write_file(self, file: FilePlace, episodes: Iterable[_Rows]) -> list[WrittenRows]:
        """Write a data file, and compute the statistics of some features."""
        rows = iter(episodes)
        first = next(rows)
        schema = row_schema(self._with_images(first[1].table.schema))

        def parts() -> Iterator[tuple[NumberedRows, dict[str, FrameSource]]]:
            for episode, numbered in chain([first], rows):
                images = {key: _images_of(episode, key) for key in self._images}
                kept.append((numbered.number, images))
                yield numbered, images

        def count(rows: int) -> None:
            if self._stopped.is_set():
                raise Cancelled
            if self._images:
                self._count_images(rows * len(self._images))

        kept: list[tuple[int, dict[str, FrameSource]]] = []
        written = self._writer.write_rows(file, schema, parts(), self._computed, count)
        for number, images in kept:
            for key in self._changed:
                frames = images[key]
                assert isinstance(frames, ChangedImages)
                self._take_counts(key, number, frames)
        return written

    def _take_counts(self, key: str, number: int, frames: ChangedImages) -> None:
        """Store the statistics of an episode's images, which have been written."""
        values = frames.statistics.values()
        with self._counting:
            self._counted[key, number] = frames.statistics.statistics()
            known = self._camera_values.get(key)
            self._camera_values[key] = values if known is None else known + values

    def _count_images(self, count: int) -> None:
        with self._counting:
            self._images_done += count
            self._on_images(self._images_done)

    def _with_images(self, schema: pa.Schema) -> pa.Schema:
        """Return the columns of the table and of its images, in the order of the features."""
        fields = {field.name: field for field in schema}
        fields |= {key: pa.field(key, IMAGE) for key in self._images}
        order = dict.fromkeys((*(key for key in self._features if key in fields), *fields))
        return pa.schema([fields[name] for name in order], schema.metadata)

    def _write_list(self, rows: Iterable[WrittenRows]) -> None:
        division = Division(file_limit(self._info, "data"))

        def file_of(one: Listing) -> int | Path:
            return one.file or division.of(one.known)

        for _, some in groupby(listings(rows), key=file_of):
            file = self._writer.files.next(EPISODES)
            self._writer.write_list(file, (self._listed(one, file) for one in some))

    def _listed(self, listing: Listing, file: FilePlace) -> pa.Table:
        """Return rows of the list with the new indices, places and statistics."""
        rows = listing.rows
        part = slice(rows[0].number, rows[-1].number + 1)
        names = [name for name in listing.known.column_names if not name.startswith(self._gone)]
        stats = {key: computed[part] for key, computed in self._camera_stats.items()}
        stats |= {key: [self._counted[key, one.number] for one in rows] for key in self._changed}
        stats |= {key: [one.stats[key] for one in rows] for key in self._computed}
        videos = {camera: self._videos[camera][part] for camera in self._cameras}
        kept = replace(listing, known=listing.known.select(names))
        listed = self._writer.list_rows(kept, videos, stats, file)
        for key, row, own in listed_statistics(listed):
            if self._needs_aggregate(key):
                try:
                    self._writer.add_total(key, own)
                except ValueError as error:
                    where = f"meta/episodes: stats/{key} of episode {rows[row].index}"
                    raise SourceError(f"{where}: {error}") from None
        return listed

    @cached_property
    def _gone(self) -> tuple[str, ...]:
        """Return the prefixes of columns of dropped cameras."""
        kept = (*self._cameras, *self._images)
        return tuple(
            f"stats/{key}/"
            for key, feature in self._source.info()["features"].items()
            if feature.get("dtype") in CAMERA_TYPES and key not in kept
        )

    def _needs_aggregate(self, key: str) -> bool:
        return self._subset or key in (
            *self._computed,
            *self._camera_stats,
            *self._changed,
            *self._reaggregate,
        )

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
        """Return statistics with the quantiles of all rows, instead of the mean of the episodes' quantiles.

        A camera's pixels are only known if its statistics were computed here, and relative actions are not
        the values of the rows.
        """
        if key in self._camera_values:
            return {**stats, **self._camera_values[key].quantiles(stats["min"], stats["max"])}
        rows = sum(episode.length for episode in self._episodes)
        names = [name for name in QUANTILES if name in stats] or list(QUANTILES)  # v2.1 has none
        if not (is_numeric(self._features[key]) and stats["count"] == [rows]):
            return stats
        found = exact_quantiles(files, key)
        if np.shape(found[names[0]]) != np.shape(stats["mean"]):
            return stats  # v2.1 has them of each number
        return {**stats, **{name: found[name] for name in names}}


def _images_of(episode: Episode, key: str) -> FrameSource:
    """Return the images of a camera that stays images."""
    frames = episode.streams[key]
    assert not isinstance(frames, EpisodeVideo | FinishedVideo)
    return frames


def sized_feature(feature: Mapping[str, Any], width: int, height: int) -> dict[str, Any]:
    """Return a camera's feature with the size of its frames.

    Args:
        feature: its entry in ``info.json``.
        width, height: frame size in pixels.
    """
    axes = frame_axes(feature)
    if axes is None:
        return dict(feature)
    shape = list(feature["shape"])
    shape[axes[0]], shape[axes[1]] = height, width
    return {**feature, "shape": shape}
