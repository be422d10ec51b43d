"""The files that one more episode adds to a dataset, written beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct
from msgspec.structs import replace

from ffenc.dataset.checksums import file_checksum, read_checksums, write_checksums
from ffenc.dataset.columns import UNDESCRIBED, feature_type, is_numeric, read_table, row_schema
from ffenc.dataset.commit import Move, write_commit
from ffenc.dataset.episode_columns import (
    all_features,
    check_features,
    column_as,
    features_of_table,
    fitted_list_row,
    row_table,
)
from ffenc.dataset.fitting import GrowingCamera, recorded_features
from ffenc.dataset.info_block import kept_block
from ffenc.dataset.listing import WrittenRows, listed_statistics, listings
from ffenc.dataset.model import Episode, EpisodeVideo, FinishedVideo, Known
from ffenc.dataset.places import DATA, FilePlace, VideoPlace, numbered_file, videos_of
from ffenc.dataset.staging import write_info
from ffenc.dataset.verify.metadata import brief, check_episode
from ffenc.dataset.writer import DatasetWriter, NumberedRows, State, described_rows
from ffenc.errors import ConfigError, SourceError, VerificationError
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.frames.images import read_header
from ffenc.frames.sources import EncodedFrame, FrameSource, ImageFiles
from ffenc.frames.statistics import histogram_statistics
from ffenc.layout import CHECKSUMS, EPISODES, NUMBERING, STATS, TASKS, file_limit

_STAGED = "new"


def list_to_grow(root: Path, state: State) -> FilePlace | None:
    """Return the file of the episode list that another episode is added to; None: a new file.

    As in LeRobot's recordings, it grows up to ``data_files_size_in_mb``. One file per episode could be read
    too, but LeRobot's ``merge_datasets`` numbers the list's files wrongly if a dataset has several.
    """
    file = numbered_file(EPISODES, *state.last.get(EPISODES, (0, -1)))
    path = root / file.path
    return file if path.is_file() and path.stat().st_size < file_limit(state.info, "data") else None


class StagedEpisode:
    """The files that an episode adds to a dataset, in a folder beside it.

    Args:
        root: the dataset.
        folder: the folder.
        cameras, fps, state: of the dataset.
        episode: the episode: its videos are files in the folder, which are moved to the dataset when it is
            published; the statistics of all cameras are known.
    """

    def __init__(
        self,
        root: Path,
        folder: Path,
        cameras: Mapping[str, GrowingCamera],
        fps: Fraction,
        state: State,
        episode: Episode,
    ) -> None:
        self._root, self._folder = root, folder
        self._cameras, self._fps, self._state, self._episode = cameras, fps, state, episode
        streams = episode.streams.items()
        self._videos = {key: own for key, own in streams if isinstance(own, FinishedVideo)}
        self._images = {key: own for key, own in streams if not isinstance(own, FinishedVideo | EpisodeVideo)}
        self._info = self._described_info()
        self._features: dict[str, Any] = self._info["features"]
        self._writer = DatasetWriter(
            folder / _STAGED,
            fps,
            state,
            tasks=root / TASKS if state.tasks else (),
            taken=lambda place: (root / place).exists(),
        )
        self._moves: list[Move] = []

    def rehearse(self) -> None:
        """Make the tables of an episode without files, and write nothing, to detect what cannot be saved.

        Raises:
            ConfigError, SourceError: as for :meth:`write`.
        """
        numbered = self._rows()
        for key in self._images:
            if key not in self._row_schema.names:
                raise SourceError(f"{self._root}: its rows have no column {key}; ffenc verify says more")
        rows = described_rows(numbered, self._writer.files.next(DATA), self._numeric)
        listed = self._list_row(rows, {}, self._writer.files.next(EPISODES))
        if self._state.episodes is not None:
            fitted_list_row(listed, self._state.episodes, self._root)
        self._writer.task_rows()
        self._total_stats(listed)

    def write(self) -> State:
        """Write and list all files; return the new state of the dataset."""
        state, episode, writer = self._state, self._episode, self._writer
        self._check()
        shutil.rmtree(writer.folder, ignore_errors=True)
        videos, checksums = self._placed_videos()
        numbered = self._rows()
        images = {key: _ImagesOf(self._cameras[key], own) for key, own in self._images.items()}
        data = writer.files.next(DATA)
        [rows] = writer.write_rows(data, self._row_schema, [(numbered, images)], self._numeric)
        self._add(data.path)
        grows = list_to_grow(self._root, state)
        list_file = grows or writer.files.next(EPISODES)
        listed = self._list_row(rows, videos, list_file)
        row = listed if state.episodes is None else fitted_list_row(listed, state.episodes, self._root)
        writer.write_list(list_file, [row])  # written alone first, because it is checked
        new_task = tuple(writer.tasks) != state.tasks
        if new_task:
            writer.write_tasks()
            self._add(TASKS, replaces=True)
        total = self._total_stats(listed)
        writer.write_stats(total)
        self._add(STATS, replaces=True)
        if checksums:
            write_checksums(writer.folder, read_checksums(self._root) | checksums)
            self._add(CHECKSUMS, replaces=True)
        self._add(writer.write_notes(rows.number, episode.notes or {}), replaces=True)
        info = writer.info({**self._info, "total_tasks": len(writer.tasks)})
        own = write_info(writer.folder, info)
        read_back = {
            video: brief(self._videos[key].info, [0]) for video, key in zip(checksums, videos, strict=True)
        }
        check_episode(writer.folder, writer.tasks, read_back)
        self._write_list(list_file, row, grows=grows is not None)
        for path in own:
            self._add(path, replaces=True)
        write_commit(self._folder, self._root, self._moves)
        return replace(
            state,
            info=info,
            stats=total,
            tasks=tuple(writer.tasks),
            rows=self._row_schema,
            episodes=row.schema,
            last=writer.files.last,
        )

    def _check(self) -> None:
        """Compare the episode with the dataset's cameras."""
        episode = self._episode
        # A table without columns has no rows: only cameras were recorded.
        unlike = episode.rows.num_columns and episode.rows.num_rows != episode.length
        if episode.length < 1 or unlike:
            raise ConfigError(
                f"the episode has {episode.rows.num_rows} rows and {episode.length} frames",
                expected="as many of both, and one at least",
            )
        for what, given, wanted in (
            ("videos", self._videos, {key for key, c in self._cameras.items() if c.video}),
            ("images", self._images, {key for key, c in self._cameras.items() if not c.video}),
            ("statistics", episode.known.features if episode.known else (), set(self._cameras)),
        ):
            if set(given) != wanted:
                raise ConfigError(
                    f"the episode has {what} of {sorted(given) or 'no camera'}",
                    expected=f"{sorted(wanted) or 'none'}",
                )
        for key, video in self._videos.items():
            self._check_video(self._cameras[key], video.path, video.info)
        for key, images in self._images.items():
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
                raise VerificationError(
                    f"{name} of {camera.key} is {found}", expected=str(wanted), where=path
                )

    def _described_info(self) -> dict[str, Any]:
        """Return info.json without this episode; for the first one, with the newly known fields."""
        info, episode = dict(self._state.info), self._episode
        if "features" not in info:
            found = features_of_table(episode.rows)
            check_features(found, self._cameras)
            described = {"features": all_features(self._cameras, found)}
            info = {name: info[name] for name in ("codebase_version", "fps")} | described | info
        info["features"] = {key: dict(feature) for key, feature in info["features"].items()}
        for key, video in self._videos.items():
            if not self._state.total_episodes:
                camera = self._cameras[key]
                block = kept_block(video.info, camera.block or {}, camera.unit is not None)
                info["features"][key]["info"] = block
        return info

    @cached_property
    def _numeric(self) -> list[str]:
        return [key for key, feature in self._features.items() if is_numeric(feature)]

    @cached_property
    def _row_schema(self) -> pa.Schema:
        """Return the columns of the rows: those of existing files, or LeRobot's."""
        if self._state.rows is not None:
            return self._state.rows
        kinds = {key: feature_type(f) for key, f in self._features.items() if f["dtype"] != "video"}
        return row_schema(pa.schema(kinds, UNDESCRIBED))

    def _add(self, target: str, *, replaces: bool = False) -> None:
        self._moves.append(Move(f"{_STAGED}/{target}", target, replaces))

    def _placed_videos(self) -> tuple[dict[str, list[VideoPlace]], dict[str, str]]:
        """Assign a place to each video; return the places by camera, and checksums by path."""
        places, checksums = {}, {}
        for key in (key for key in self._features if key in self._videos):
            path = self._videos[key].path
            file = self._writer.files.next(videos_of(key))
            self._moves.append(Move(path.relative_to(self._folder).as_posix(), file.path))
            places[key] = [VideoPlace(file, 0)]
            checksums[file.path] = file_checksum(path)
        return places, checksums

    def _rows(self) -> NumberedRows:
        """Return the rows without images, with the dataset's types."""
        table = self._episode.rows
        wanted = recorded_features(self._info)
        unlike = sorted(set(wanted) ^ set(table.column_names))
        if unlike:
            whose = "the dataset has it" if unlike[0] in wanted else "the dataset has none of that name"
            raise ConfigError(f"the episode's column {unlike[0]}: {whose}", expected="the same columns")
        columns, kinds = {}, {}
        for name in self._row_schema.names:
            kind = self._row_schema.field(name).type
            if name in NUMBERING:
                kinds[name] = kind
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
        return self._writer.number(replace(self._episode, rows=pa.table(columns)), kinds)

    def _list_row(
        self, rows: WrittenRows, videos: Mapping[str, list[VideoPlace]], file: FilePlace
    ) -> pa.Table:
        """Return the episode's row of the episode list."""
        [listing] = listings([rows])
        names = listing.known.column_names
        ordered = [n for key in self._features for n in names if n.rpartition("/")[0] == f"stats/{key}"]
        listing = replace(listing, known=listing.known.select(ordered))
        stats = {key: [rows.stats[key]] for key in self._features if key in rows.stats}
        return self._writer.list_rows(listing, videos, stats, file)

    def _write_list(self, file: FilePlace, row: pa.Table, *, grows: bool) -> None:
        """Put the existing episodes of the list before the row of the new one."""
        if grows:
            there = self._root / file.path
            try:
                self._writer.write_list(file, [pa.concat_tables([read_table(there), row])])
            except pa.ArrowException as error:
                raise SourceError(f"{there}: cannot take another episode: {error}") from None
        self._add(file.path, replaces=grows)

    def _total_stats(self, listed: pa.Table) -> dict[str, Any]:
        """Return the statistics of all episodes, from the old ones and those of the new episode."""
        for key, _, own in listed_statistics(listed):
            try:
                self._writer.add_total(key, own)
            except (ValueError, TypeError, LookupError) as error:
                raise SourceError(f"{self._root / STATS}: {key}: {error}") from None
        return self._state.stats | self._writer.totals


class _ImagesOf(Struct, frozen=True):
    """A camera's images, each checked when it is read: a reader would fail on one of another size."""

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
                size = f"{wanted[0]}x{wanted[1]}"
                raise VerificationError(f"is a {header}", expected=f"{size} of {what}", where=frame.name)
            yield frame

    def fingerprint(self) -> str:
        return self.images.fingerprint()


def rehearsed(
    cameras: Mapping[str, GrowingCamera], features: Mapping[str, Mapping[str, Any]], task: str
) -> Episode:
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
    return Episode(1, row_table(zeros, features), [task], streams=images, known=Known.of(stats))
