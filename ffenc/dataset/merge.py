"""Merge LeRobot datasets into one: packets and images copied, everything else numbered anew."""

from __future__ import annotations

import filecmp
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ffenc.codecs.options import encoder_options
from ffenc.codecs.table import CODECS
from ffenc.config.encoder import DEPTH_FIELDS, DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.framerate import fps_number
from ffenc.dataset.info_block import ENCODER_FIELDS, depth_fields, encoder_fields, stream_fields
from ffenc.dataset.job import JobPlan, JobSummary, Stream, run_plan
from ffenc.dataset.lerobot import LeRobotV3
from ffenc.dataset.lerobot_v21 import LeRobotV21
from ffenc.dataset.reencode import open_dataset, refuse_nesting
from ffenc.dataset.source import Camera, Episode, EpisodeVideo
from ffenc.dataset.staging import check_destination
from ffenc.dataset.statistics import Aggregate
from ffenc.dataset.tables import FileNumbers, set_column, task_texts
from ffenc.dataset.videos import clip_of
from ffenc.errors import ConfigError, FfencWarning, SourceError
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.frames.encoding import Encoding
from ffenc.frames.images import ImageHeader
from ffenc.frames.info_json import CORRECT, block_quantizer
from ffenc.frames.sources import FrameSource
from ffenc.frames.statistics import Stats
from ffenc.frames.transcode import depth_config, prepare_clip, trial_frames
from ffenc.jobs.pool import share_cores

Dataset = LeRobotV3 | LeRobotV21

# What has to be the same in all files of a camera; a reader is told it once.
STREAM_FIELDS = ("video.codec", "video.pix_fmt", "video.height", "video.width", "video.fps")
_SHOWN = 8  # differences that are told at once


class MergedDataset:
    """Several datasets as one source, their episodes one after another.

    Args:
        sources: the datasets, of the same frame rate, robot and features.

    Raises:
        SourceError: they do not go together; the text names what differs, and where.
    """

    def __init__(self, sources: Sequence[Dataset]) -> None:
        self.sources = list(sources)
        first = self.sources[0]
        self._check_alike()
        self.root = first.root
        self.fps = first.fps
        self.cameras = first.cameras
        self.images = [camera.key for camera in self.cameras if isinstance(camera.stored, ImageHeader)]
        self._origins = [(source, episode) for source in self.sources for episode in source.episodes]
        self.episodes = [Episode(number, e.length) for number, (_, e) in enumerate(self._origins)]
        texts = [task_texts(source.tasks()) for source in self.sources]
        self._tasks = list(dict.fromkeys(text for own in texts for text in own))
        places = {text: number for number, text in enumerate(self._tasks)}
        self._task_numbers = [np.array([places[text] for text in own], np.int64) for own in texts]

    @cached_property
    def renumbered(self) -> frozenset[str]:
        """Columns whose values are new, or whose statistics not every dataset has."""
        moved: set[str] = set()
        if len(self.sources) > 1:
            moved |= {"index", "episode_index"}
            moved |= {
                key
                for key in self.info()["features"]
                if not all(s.has_episode_stats(key) for s in self.sources)
            }
        if any((own != np.arange(len(own))).any() for own in self._task_numbers):
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
        _refuse(faults, "Make them alike first")

    def origin(self, episode: Episode) -> tuple[Dataset, Episode]:
        """The dataset an episode comes from, and what it is there."""
        return self._origins[episode.index]

    def camera(self, source: Dataset, key: str) -> Camera:
        """A camera of one of the datasets."""
        return next(camera for camera in source.cameras if camera.key == key)

    def frames(self, camera: str, episode: Episode) -> FrameSource:
        source, own = self.origin(episode)
        return source.frames(camera, own)

    def video(self, camera: str, episode: Episode) -> EpisodeVideo:
        source, own = self.origin(episode)
        return source.video(camera, own)

    def camera_bytes(self, camera: str, episodes: Sequence[Episode]) -> int:
        return sum(source.camera_bytes(camera, source.episodes) for source in self.sources)

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
                continue  # not every dataset has them: they are computed
            stats = aggregate.result()
            # Those of other rows, or with a number missing, would spoil those of all: they are computed too.
            whole = key in cameras or stats["count"] == [rows]
            if whole and all(np.isfinite(value).all() for value in stats.values()):
                found[key] = stats
        return found

    def stats(self) -> dict[str, Any]:
        return self._stats if len(self.sources) > 1 else self.sources[0].stats()

    def has_episode_stats(self, feature: str) -> bool:
        return all(source.has_episode_stats(feature) for source in self.sources)

    def rows(self, episodes: Sequence[Episode]) -> Iterator[tuple[Episode, int, pa.Table]]:
        files = FileNumbers(self.info())
        number = start = 0
        schema: pa.Schema | None = None
        for source, tasks in zip(self.sources, self._task_numbers, strict=True):
            held = [source.camera_bytes(key, source.episodes) for key in self.images]
            image_bytes = sum(held) / sum(episode.length for episode in source.episodes)  # a row
            for own, _, table in source.rows(source.episodes):
                table = set_column(table, "episode_index", np.full(own.length, number))
                table = set_column(table, "index", np.arange(start, start + own.length))
                if "task_index" in table.column_names:
                    table = set_column(table, "task_index", tasks[table["task_index"].to_numpy()])
                schema = schema or table.schema
                table = _like(table, schema, f"{source.root}: the rows of episode {own.index}")
                images = int(image_bytes * own.length)
                yield self.episodes[number], files.of(table, images), table
                number, start = number + 1, start + own.length

    def episode_tables(self, episodes: Sequence[Episode]) -> Iterator[tuple[int, pa.Table]]:
        files = FileNumbers(self.info())
        schema = self._episode_schema()
        for source in self.sources:
            for _, table in source.episode_tables(source.episodes):
                for name in schema.names:
                    if name not in table.column_names:
                        table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
                table = _like(table.select(schema.names), schema, f"{source.root}: its episode list")
                yield files.of(table), table

    def _episode_schema(self) -> pa.Schema:
        """All columns that a dataset has, but only statistics that every one has."""
        schemas = [next(s.episode_tables(s.episodes[:1]))[1].schema for s in self.sources]
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
                        f"{path} and {other} differ, and rows point into them by number: subtasks are not "
                        "merged. Make the files alike first"
                    )
                left_out.append(path)
        if left_out:
            more = f" and {len(left_out) - 1} more files" if len(left_out) > 1 else ""
            warnings.warn(
                f"{left_out[0]}{more}: the first dataset has another, which is kept",
                FfencWarning,
                stacklevel=2,
            )
        return [(path, place) for place, path in found.items()]

    def tasks(self) -> Path | Sequence[str]:
        return self._tasks if len(self.sources) > 1 else self.sources[0].tasks()


def plan_merge(
    sources: Sequence[str | Path],
    destination: str | Path,
    *,
    reencode: bool = False,
    workers: int | None = None,
    encoder_threads: int | None = None,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
) -> JobPlan:
    """Check whether datasets go together, before anything is written.

    The arguments are those of :func:`merge_datasets`.
    """
    target = Path(destination)
    check_destination(target)
    if not sources:
        raise ConfigError("no dataset is named to be merged")
    folders = [Path(source) for source in sources]
    opened: dict[Path, Dataset] = {}
    for folder in folders:
        refuse_nesting(folder, target)
        if not (folder / "meta/info.json").is_file():
            raise SourceError(f"{folder}: is not a LeRobot dataset: it has no meta/info.json")
        if folder not in opened:
            opened[folder] = open_dataset(folder)
    merged = MergedDataset([opened[folder] for folder in folders])
    candidates = toolchains(ffmpeg, ffprobe)
    videos = [camera for camera in merged.cameras if camera.key not in merged.images]
    odd = {camera.key: _odd_ones(merged, camera.key) for camera in videos}
    _check_images(merged)
    _check_streams(merged, odd, reencode=reencode)
    encodes = sum(len(source.episodes) for ones in odd.values() for source in ones)
    count, threads = share_cores(max(encodes, 1), workers, encoder_threads)
    streams = [_stream(merged, camera, odd[camera.key], candidates, threads) for camera in videos]
    return JobPlan(merged, target, merged.episodes, streams, count, candidates[0], merged.images)


def merge_datasets(
    sources: Sequence[str | Path],
    destination: str | Path,
    *,
    reencode: bool = False,
    workers: int | None = None,
    encoder_threads: int | None = None,
    resume: bool = False,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> JobSummary:
    """Merge LeRobot datasets into one of v3.0; the sources are only read.

    Packets and images are copied. Episodes, frames and tasks are numbered anew; equal task texts become one.
    Statistics are aggregated by count: min, max, mean and std exactly, quantiles as LeRobot does.
    Encoder settings are kept in ``info.json`` where all agree. One dataset alone becomes v3.0 as it is.

    Args:
        sources: datasets of v3.0, v2.1 or v2.0; one may be there more than once.
        destination: the folder to write; must not exist, or be empty.
        reencode: encode cameras whose codec or pixel format is not that of most frames, with the settings of
            those, instead of refusing them.
        workers: encodes at once; by default one a core.
        encoder_threads: threads an encoder may use; by default the cores' share.
        resume: take up what an interrupted run has left.
        ffmpeg, ffprobe: programs to use instead of those found.
        on_progress: called with frames done and frames in all, from any thread.

    Raises:
        SourceError: a dataset is damaged, or they do not go together.
        DestinationError: the destination is taken or cannot be written.
        ToolchainError: no FFmpeg here can do it.
        FfmpegError, VerificationError: copying failed, or its result is not what was asked for.

    Warns:
        FfencWarning: of encoder settings that differ and are not kept.
    """
    plan = plan_merge(
        sources,
        destination,
        reencode=reencode,
        workers=workers,
        encoder_threads=encoder_threads,
        ffmpeg=ffmpeg,
        ffprobe=ffprobe,
    )
    return run_plan(plan, resume=resume, on_progress=on_progress)


def _stored(camera: Camera) -> StreamInfo:
    assert isinstance(camera.stored, StreamInfo)
    return camera.stored


def _kind(camera: Camera) -> tuple[str, str]:
    """What an encode can bring into line."""
    return _stored(camera).codec, _stored(camera).pix_fmt


def _odd_ones(merged: MergedDataset, key: str) -> list[Dataset]:
    """The datasets in which a camera is not of the codec and pixel format that most of its frames are of."""
    frames: dict[tuple[str, str], int] = {}
    for source in merged.sources:
        kind = _kind(merged.camera(source, key))
        frames[kind] = frames.get(kind, 0) + sum(episode.length for episode in source.episodes)
    usual = max(frames, key=lambda kind: frames[kind])  # the first of several
    return [s for s in dict.fromkeys(merged.sources) if _kind(merged.camera(s, key)) != usual]


def _check_images(merged: MergedDataset) -> None:
    """Refuse images that are not alike, and warn of those without statistics."""
    faults = []
    for camera in (camera for camera in merged.cameras if camera.key in merged.images):
        for other in merged.sources[1:]:
            found = merged.camera(other, camera.key)
            a, b = camera.header, found.header
            for name in ("width", "height", "depth"):
                if getattr(a, name) != getattr(b, name):
                    values = getattr(a, name), getattr(b, name)
                    faults.append(_told(camera.key, name, *values, merged.sources[0], other))
            if camera.unit != found.unit:
                faults.append(
                    _told(camera.key, "depth_unit", camera.unit, found.unit, merged.sources[0], other)
                )
        if camera.key not in merged.stats() or not merged.has_episode_stats(camera.key):
            text = f"{camera.key}: not every dataset has its statistics; ffenc reencode computes them"
            warnings.warn(text, FfencWarning, stacklevel=4)
    _refuse(faults, "Make them alike first")


def _check_streams(merged: MergedDataset, odd: Mapping[str, Sequence[Dataset]], *, reencode: bool) -> None:
    """Refuse cameras that are not alike; names dataset, feature and both values."""
    first = merged.sources[0]
    mendable: list[str] = []
    faults: list[str] = []
    for camera in (camera for camera in merged.cameras if camera.key in odd):
        own = stream_fields(_stored(camera)) | {"video.fps": fps_number(first.fps)}
        for other in dict.fromkeys(merged.sources[1:]):
            theirs = merged.camera(other, camera.key)
            found = stream_fields(_stored(theirs)) | {"video.fps": fps_number(other.fps)}
            for name in STREAM_FIELDS:
                if own[name] != found[name]:
                    place = mendable if name in ("video.codec", "video.pix_fmt") else faults
                    place.append(_told(camera.key, name, own[name], found[name], first, other))
            a, b = _depth_of(camera, first), _depth_of(theirs, other)
            for name in dict.fromkeys((*a, *b)):
                if a.get(name) != b.get(name):
                    faults.append(_told(camera.key, name, a.get(name), b.get(name), first, other))
    _refuse(
        faults,
        "The same samples would mean different depths, or frames of another size: re-encode from the frames "
        "they were made of, or leave the camera out with ffenc reencode --cameras",
    )
    if mendable and not reencode:
        ones = {source.root: None for sources in odd.values() for source in sources}
        _refuse(mendable, f"Say --reencode to bring {', '.join(map(str, ones))} into line")


def _told(key: str, name: str, a: Any, b: Any, first: Dataset, other: Dataset) -> str:
    return f"{key}: {name} is {a!r} in {first.root}, {b!r} in {other.root}"


def _depth_of(camera: Camera, source: Dataset) -> dict[str, Any]:
    """What the samples of a depth camera mean."""
    if not camera.depth:
        return {"is_depth_map": False}
    fields: dict[str, Any] = {"is_depth_map": True, "depth_unit": camera.unit}
    if _stored(camera).pix_fmt == "gray12le":
        where = f"{source.root / 'meta/info.json'}: {camera.key}"
        quantizer = block_quantizer(dict(camera.block), where, CORRECT)
        fields |= {f"video.{name}": getattr(quantizer, name) for name in DEPTH_FIELDS}
    return fields


def _refuse(faults: Sequence[str], how: str) -> None:
    if faults:
        more = [f"... and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        told = "\n".join(f"  {fault}" for fault in [*faults[:_SHOWN], *more])
        raise SourceError(f"these datasets cannot be merged as they are:\n{told}\n{how}")


def _stream(
    merged: MergedDataset,
    camera: Camera,
    odd: Sequence[Dataset],
    candidates: Sequence[Toolchain],
    threads: int | None,
) -> Stream:
    """Plan one camera: copied, but for the datasets that are brought into line."""
    usual = next(source for source in merged.sources if source not in odd)
    pattern = merged.camera(usual, camera.key)
    encoding = _encoding(merged, pattern, odd, candidates, threads) if odd else None
    known = camera.key in merged.stats() and merged.has_episode_stats(camera.key)
    copied = frozenset(e.index for e in merged.episodes if merged.origin(e)[0] not in odd)
    blocks = {
        str(source.root): dict(merged.camera(source, camera.key).block)
        for source in merged.sources
        if source not in odd
    }
    if encoding is not None:
        made = encoder_fields(encoding.config)
        made |= depth_fields(encoding.config, camera.unit) if camera.unit is not None else {}
        blocks["what is re-encoded"] = {**dict(pattern.block), **made}
    quantizer = None
    if camera.depth and _stored(pattern).pix_fmt == "gray12le":
        quantizer = block_quantizer(dict(pattern.block), str(usual.root / "meta/info.json"), CORRECT)
    size = merged.camera_bytes(camera.key, merged.episodes)
    block = merge_blocks(camera.key, blocks)
    # Which all agree on, though not every block may say it.
    said = {name for own in blocks.values() for name in own}
    block |= {name: value for name, value in _depth_of(pattern, usual).items() if name in said}
    return Stream(replace(camera, stored=pattern.stored), encoding, not known, size, copied, quantizer, block)


def _encoding(
    merged: MergedDataset,
    pattern: Camera,
    odd: Sequence[Dataset],
    candidates: Sequence[Toolchain],
    threads: int | None,
) -> Encoding:
    """How the odd ones are encoded: with the settings of the usual ones, as far as their block tells."""
    able = list(candidates)
    for source in odd:
        clip = clip_of(source.video(pattern.key, source.episodes[0]), merged.fps)
        able, _ = trial_frames(clip, able)
    stream = _stored(pattern)
    encoder = pattern.block.get("video.encoder")
    vcodec = encoder.get("vcodec") if isinstance(encoder, Mapping) else None
    if vcodec not in CODECS:
        vcodec = next(row.name for row in CODECS.values() if row.stream == stream.codec and not row.hardware)
    settings: dict[str, Any] = {"vcodec": vcodec, "pix_fmt": stream.pix_fmt}
    for name in ENCODER_FIELDS:
        if pattern.block.get(name) is None:
            continue
        more = {**settings, name.removeprefix("video."): pattern.block[name]}
        with suppress(ConfigError):  # it is another encoder's, as a hardware encoder's preset is
            encoder_options(CODECS[vcodec], VideoEncoderConfig(**more), None)
            settings = more
    config: VideoEncoderConfig
    if pattern.depth:
        quantizer = None
        if clip.info.pix_fmt == "gray12le":
            quantizer = block_quantizer(dict(pattern.block), pattern.key, CORRECT)
        config = depth_config(DepthEncoderConfig(**settings), clip, quantizer)
    else:
        config = VideoEncoderConfig(**settings)
    return prepare_clip(clip, config, merged.fps, candidates=able, encoder_threads=threads)


def merge_blocks(key: str, blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields of a camera's ``info`` block that are not read from its files.

    Args:
        key: the camera.
        blocks: dataset -> its block. What all agree on is kept; of the encoder's settings, what they do not
            agree on is None (``{}`` for ``extra_options``).

    Warns:
        FfencWarning: lists the encoder's settings that are not kept.
    """
    own = list(blocks.values())
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for block in own for name in block):
        if all(name in block and block[name] == own[0].get(name) for block in own):
            merged[name] = own[0][name]
    lost = [name for name in ENCODER_FIELDS if name not in merged and any(name in block for block in own)]
    for name in ENCODER_FIELDS:
        merged.setdefault(name, {} if name == "video.extra_options" else None)
    if lost:
        told = "; ".join(
            f"{name} is " + ", ".join(f"{block.get(name)!r} in {where}" for where, block in blocks.items())
            for name in lost
        )
        warnings.warn(f"{key}: settings differ and are not kept: {told}", FfencWarning, stacklevel=2)
    return merged


def _like(table: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    """Bring a table's columns into the order and the types of a schema."""
    if set(table.column_names) != set(schema.names):
        differing = sorted(set(table.column_names) ^ set(schema.names))
        raise SourceError(f"{what}: column {differing[0]} is there in one dataset and not in another")
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise SourceError(
            f"{what}: its columns are of other types than the first dataset's: {error}"
        ) from None
