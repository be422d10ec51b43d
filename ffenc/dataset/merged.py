"""Several LeRobot datasets as one source."""

from __future__ import annotations

import filecmp
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec.structs import replace

from ffenc.config.framerate import fps_number
from ffenc.dataset.columns import common_type, fitted, task_texts
from ffenc.dataset.lerobot_v3 import LeRobotV3
from ffenc.dataset.lerobot_v21 import LeRobotV21
from ffenc.dataset.model import Camera, Episode, EpisodeRef, EpisodeVideo, with_known
from ffenc.dataset.source import Streams
from ffenc.dataset.statistics import ACTION, Aggregate, relative_chunk
from ffenc.errors import FfencWarning, SourceError
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.frames.header import ImageHeader
from ffenc.frames.sources import FrameSource
from ffenc.frames.statistics import Stats

Dataset = LeRobotV3 | LeRobotV21

_SHOWN = 8  # differences in an error


class MergedDataset:
    """Several datasets as one source, with their episodes in sequence.

    Args:
        sources: the datasets, with the same frame rate, robot and features.

    Raises:
        SourceError: they differ; the text names the differences and datasets.
    """

    temporary: Sequence[Path] = ()

    def __init__(self, sources: Sequence[Dataset]) -> None:
        self.sources = list(sources)
        first = self.sources[0]
        self._check_alike()
        self.root = first.root
        self.roots = tuple(source.root for source in self.sources)
        self.fps = first.fps
        self.cameras = first.cameras
        self.images = [camera.key for camera in self.cameras if isinstance(camera.stored, ImageHeader)]
        self._origins = [(source, episode) for source in self.sources for episode in source.episodes]
        self.episodes = [EpisodeRef(number, e.length) for number, (_, e) in enumerate(self._origins)]
        texts = [task_texts(source.tasks()) for source in self.sources]
        self._tasks = list(dict.fromkeys(text for own in texts for text in own))
        places = {text: number for number, text in enumerate(self._tasks)}
        self._task_numbers = [[places[text] for text in own] for own in texts]

    @cached_property
    def renumbered(self) -> frozenset[str]:
        """Columns with new values, or without statistics in some dataset."""
        moved = set().union(*(source.renumbered for source in self.sources))
        if len(self.sources) > 1:
            moved |= {"index", "episode_index"}
            moved |= {
                key
                for key in self.info()["features"]
                if not all(s.has_episode_stats(key) for s in self.sources)
            }
        if any(own != list(range(len(own))) for own in self._task_numbers):
            moved.add("task_index")
        return frozenset(moved)

    def _check_alike(self) -> None:
        first = self.sources[0]
        faults = []
        for other in self.sources[1:]:
            pairs: list[tuple[str, Any, Any]] = [
                ("fps", fps_number(first.fps), fps_number(other.fps)),
                ("robot_type", first.info().get("robot_type"), other.info().get("robot_type")),
            ]
            own, others = first.info()["features"], other.info()["features"]
            for key in dict.fromkeys((*own, *others)):
                if key not in own or key not in others:
                    where = first.root if key in own else other.root
                    faults.append(f"feature {key} is only in {where}")
                    continue
                for field in ("dtype", "shape", "names"):
                    pairs.append((f"{key}: {field}", own[key].get(field), others[key].get(field)))
            faults += [
                f"{what} is {a!r} in {first.root}, {b!r} in {other.root}" for what, a, b in pairs if a != b
            ]
        refuse(faults, "Make them equal first, with ffenc edit or ffenc reencode")

    def origin(self, episode: EpisodeRef) -> tuple[Dataset, EpisodeRef]:
        """Return the dataset of an episode, and the episode in it."""
        return self._origins[episode.index]

    def camera(self, source: Dataset, key: str) -> Camera:
        """Return a camera of one of the datasets."""
        return next(camera for camera in source.cameras if camera.key == key)

    def frames(self, camera: str, episode: EpisodeRef) -> FrameSource:
        source, own = self.origin(episode)
        return source.frames(camera, own)

    def video(self, camera: str, episode: EpisodeRef) -> EpisodeVideo:
        source, own = self.origin(episode)
        return source.video(camera, own)

    def stream(self, camera: str, episode: EpisodeRef) -> StreamInfo:
        """Return the stream fields of the file of an episode of a video camera."""
        found = self.video(camera, episode).like
        assert found is not None
        return found

    def camera_bytes(self, camera: str, episodes: Sequence[EpisodeRef]) -> int:
        chosen: dict[int, tuple[Dataset, list[EpisodeRef]]] = {}
        for episode in episodes:
            source, own = self.origin(episode)
            chosen.setdefault(id(source), (source, []))[1].append(own)
        return sum(source.camera_bytes(camera, own) for source, own in chosen.values())

    def info(self) -> dict[str, Any]:
        info = self.sources[0].info()
        info["total_tasks"] = len(self._tasks)
        if len(self.sources) > 1:
            info.pop("splits", None)
        return info

    @cached_property
    def _stats(self) -> dict[str, Stats]:
        found: dict[str, Stats] = {}
        known = [source.stats() for source in self.sources]
        rows = sum(episode.length for episode in self.episodes)
        cameras = {camera.key for camera in self.cameras}
        for key in known[0]:
            aggregate = Aggregate()
            try:
                for own in known:
                    aggregate.add(own[key])
            except (LookupError, TypeError, ValueError):
                continue  # missing in some dataset: they are computed
            stats = aggregate.result()
            # Statistics of other rows, or with a missing number, would spoil the aggregate: they are computed
            # too.
            whole = key in cameras or stats["count"] == [rows] or (key == ACTION and self._relative(known))
            if whole and all(np.isfinite(value).all() for value in stats.values()):
                found[key] = stats
        return found

    def _relative(self, known: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether all datasets have statistics of relative actions, over chunks of the same length."""
        chunks = {
            relative_chunk(int(np.ravel(own[ACTION]["count"])[0]), [e.length for e in source.episodes])
            for source, own in zip(self.sources, known, strict=True)
        }
        if chunks != {None} and len(chunks) > 1:
            warnings.warn(
                f"{ACTION}: not every dataset has statistics of relative actions over chunks of "
                "the same length: statistics of the actions themselves are written instead; LeRobot's "
                "recompute_stats(relative_action=True) computes them for the result",
                FfencWarning,
                stacklevel=2,
            )
        return len(chunks) == 1 and None not in chunks

    def stats(self) -> dict[str, Any]:
        return self._stats if len(self.sources) > 1 else self.sources[0].stats()

    def has_episode_stats(self, feature: str) -> bool:
        return all(source.has_episode_stats(feature) for source in self.sources)

    def read(self, episodes: Sequence[EpisodeRef]) -> Iterator[Episode]:
        wanted = {episode.index for episode in episodes}
        schema = self._known_schema()
        first = 0
        for source in self.sources:
            all_refs = self.episodes[first : first + len(source.episodes)]
            first += len(source.episodes)
            refs = [ref for ref in all_refs if ref.index in wanted]
            found = source.read([self.origin(ref)[1] for ref in refs])
            alike = with_known(found, partial(_known_like, schema, source))
            for own, ref in zip(alike, refs, strict=True):
                what = f"{source.root}: the rows of episode {own.index}"
                yield replace(
                    own,
                    rows=_like(own.rows, self._row_schema, what),
                    streams=Streams(self, ref),
                    # The dataset's list is one of several, whose files are not kept.
                    known=None if own.known is None else replace(own.known, file=None),
                    index=ref.index,
                )

    @cached_property
    def _row_schema(self) -> pa.Schema:
        """Return the columns of the first rows; a column without values there gets the type of the others."""
        schemas = [schema for source in self.sources for schema in source.row_schemas()]
        kinds = {field.name: field.type for field in schemas[0]}
        for other in schemas[1:]:
            kinds |= {f.name: common_type(kinds[f.name], f.type) for f in other if f.name in kinds}
        return pa.schema([f.with_type(kinds[f.name]) for f in schemas[0]], schemas[0].metadata)

    def _known_schema(self) -> pa.Schema:
        """Return all columns of the lists, but only statistics that every dataset has."""
        schemas = [s.known_schema() for s in self.sources]
        fields: dict[str, pa.Field] = {}
        for schema in schemas:
            for field in schema:
                shared = all(field.name in other.names for other in schemas)
                if shared or not field.name.startswith(("stats/", "videos/")):
                    fields.setdefault(field.name, field)
        return pa.schema(list(fields.values()), schemas[0].metadata)

    def extra_files(self) -> list[tuple[Path, str]]:
        found: dict[str, Path] = {}
        left_out = []
        for source in self.sources:
            for path, place in source.extra_files():
                other = found.setdefault(place, path)
                if other == path or filecmp.cmp(path, other, shallow=False):
                    continue
                if place == "meta/subtasks.parquet":
                    raise SourceError(
                        f"{path} and {other} differ, and rows refer to them by number: subtasks "
                        "cannot be merged. Make the files equal first"
                    )
                left_out.append(path)
        if left_out:
            more = f" and {len(left_out) - 1} more files" if len(left_out) > 1 else ""
            warnings.warn(
                f"{left_out[0]}{more}: the first dataset's version is kept",
                FfencWarning,
                stacklevel=2,
            )
        return [(path, place) for place, path in found.items()]

    def tasks(self) -> Path | Sequence[str]:
        return self._tasks if len(self.sources) > 1 else self.sources[0].tasks()


def refuse(faults: Sequence[str], how: str) -> None:
    """Raise :class:`SourceError` with the first differences if datasets do not fit together."""
    if faults:
        more = [f"... and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        listed = "\n".join(f"  {fault}" for fault in [*faults[:_SHOWN], *more])
        raise SourceError(f"these datasets cannot be merged as they are:\n{listed}\n{how}")


def _known_like(schema: pa.Schema, source: Dataset, table: pa.Table) -> pa.Table:
    """Return the known fields of a dataset's episodes with the columns of a schema."""
    columns = frozenset(table.column_names)
    for name in schema.names:
        if name not in columns:
            table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
    return _like(table.select(schema.names), schema, f"{source.root}: its episode list")


def _like(table: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    """Return a table with a schema's column order and types."""
    if set(table.column_names) != set(schema.names):
        differing = sorted(set(table.column_names) ^ set(schema.names))
        raise SourceError(f"{what}: column {differing[0]} is missing in one of the datasets")
    try:
        return fitted(table, schema)
    except (pa.ArrowException, ValueError) as error:
        raise SourceError(
            f"{what}: its columns have other types than in the first dataset: {error}"
        ) from None
