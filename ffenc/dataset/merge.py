"""Merge LeRobot datasets: packets and images are copied, everything else is numbered from 0."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ffenc.arguments import listed
from ffenc.config.framerate import fps_number
from ffenc.dataset.executors.local import Executor
from ffenc.dataset.identify import check_dataset
from ffenc.dataset.info_block import (
    ENCODER_FIELDS,
    camera_quantizer,
    depth_fields,
    encoder_fields,
    recorded_settings,
    stream_fields,
)
from ffenc.dataset.job.camera_settings import check_threads
from ffenc.dataset.job.finished import check_free
from ffenc.dataset.job.pieces import uncopied
from ffenc.dataset.job.plan import JobPlan, Stream, without_statistics
from ffenc.dataset.job.run import run_plan
from ffenc.dataset.job.summary import JobSummary
from ffenc.dataset.lerobot_videos import stream_kind
from ffenc.dataset.merged import Dataset, MergedDataset, refuse
from ffenc.dataset.model import Camera, EpisodeRef
from ffenc.dataset.quantiles import StatsChoice, wants_exact
from ffenc.dataset.reencode import refuse_nesting, say_shift
from ffenc.dataset.remote import source_path
from ffenc.dataset.sources.lerobot import open_dataset
from ffenc.dataset.verify.metadata import Stale, check_source
from ffenc.dataset.videos import clip_of
from ffenc.errors import ConfigError, FfencWarning
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.frames.encoding import Encoding
from ffenc.frames.prepare_clip import depth_config, prepare_clip
from ffenc.layout import DEPTH_FIELDS
from ffenc.parallel.pool import share_cores
from ffenc.spelling import argument, call
from ffenc.storage.upload import destination_path

# Fields that all files of a camera must share, because readers read them once.
STREAM_FIELDS = ("video.codec", "video.pix_fmt", "video.height", "video.width", "video.fps")


def plan_merge(
    sources: Sequence[str | Path],
    destination: str | Path,
    *,
    reencode: bool = False,
    follow_links: bool = False,
    retime: bool = False,
    workers: int | None = None,
    encoder_threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    stats: StatsChoice = "exact",
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
) -> JobPlan:
    """Check whether datasets can be merged, before anything is written; return the plan.

    The arguments are those of :func:`merge_datasets`.
    """
    target = destination_path(destination, resume=resume, overwrite=overwrite)
    check_free(target, resume=resume)
    sources = listed("sources", sources, "datasets")
    if not sources:
        raise ConfigError("no dataset to merge was named")
    folders = [source_path(source, name="sources") for source in sources]
    opened: dict[Path, Dataset] = {}
    for folder in folders:
        refuse_nesting(folder, target)
        check_dataset(folder)
        if folder not in opened:
            opened[folder] = open_dataset(folder, follow_links=follow_links, retime=retime, ffprobe=ffprobe)
    if retime:
        say_shift(list(opened.values()))
    merged = MergedDataset([opened[folder] for folder in folders])
    stale = Stale()
    for source in opened.values():
        stale |= check_source(source.root, cameras=[camera.key for camera in source.cameras])
    candidates = toolchains(ffmpeg, ffprobe)
    videos = [camera for camera in merged.cameras if camera.key not in merged.images]
    odd = {camera.key: _odd_ones(merged, camera.key) for camera in videos}
    _check_images(merged)
    _check_streams(merged, odd, reencode=reencode)
    encoded = {camera.key: _encoded(merged, camera.key, odd[camera.key], reencode) for camera in videos}
    count, threads = share_cores(max(sum(map(len, encoded.values())), 1), workers, encoder_threads)
    streams = [
        _stream(merged, camera, odd[camera.key], encoded[camera.key], candidates, threads, stale)
        for camera in videos
    ]
    check_threads(encoder_threads, streams)
    lacking = without_statistics(merged, merged.images, stale)
    exact = wants_exact(stats, combined=len(folders) > 1 or bool(stale))
    return JobPlan(
        *(merged, target, merged.episodes, streams, count, candidates[0], merged.images, lacking, stale),
        exact=exact,
        together=True,
    )


def merge_datasets(
    sources: Sequence[str | Path],
    destination: str | Path,
    *,
    reencode: bool = False,
    follow_links: bool = False,
    retime: bool = False,
    workers: int | None = None,
    encoder_threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    force_space: bool = False,
    stats: StatsChoice = "exact",
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    executor: Executor | None = None,
    keep_going: bool = False,
) -> JobSummary:
    """Merge LeRobot datasets to one of v3.0; the sources are only read.

    Packets and images are copied. Episodes, frames and tasks are numbered from 0; equal task texts become one
    task. Statistics are those of all rows, including quantiles; a camera's quantiles are aggregated, as in
    LeRobot. Encoder settings that all datasets share are kept in ``info.json``. A single dataset is converted
    to v3.0.

    Args:
        sources: datasets of v3.0, v2.1 or v2.0; the same one may occur more than once.
        destination: the folder to write; must not exist, or be empty.
        reencode: encode cameras whose codec or pixel format differs from that of most frames, with the
            settings of those frames; otherwise they are refused.
        follow_links: follow symbolic links that lead out of a dataset; otherwise they are refused.
        retime: set the timestamp of frame i to i / fps, for datasets whose timestamps were measured with a
            clock.
        workers: number of encodes at once; None: one per core.
        encoder_threads: number of threads of an encoder; None: its share of the cores.
        resume: continue an interrupted run; if an earlier run is complete, nothing is done.
        overwrite: if the destination is an address, replace the dataset there.
        force_space: start even if the result seems to be larger than the free disk space.
        stats: ``exact``: q01 ... q99 of all rows are computed; ``keep``: they are the mean of the episodes'
            quantiles, weighted by length, as in LeRobot.
        ffmpeg, ffprobe: programs to use instead of those that are found.
        on_progress: called with the number of frames done and of all, from any thread.
        executor: where the encoders run, such as a :class:`~ffenc.RayExecutor`; None: on this machine.
        keep_going: after a failure, finish all other episodes, then raise an error that lists those that
            failed.

    Returns:
        What the job did.

    Raises:
        SourceError: a dataset is damaged, or the datasets do not fit together.
        DestinationError: the destination exists or cannot be written.
        ToolchainError: no FFmpeg on this machine can do it.
        FfmpegError, VerificationError: copying or encoding failed, or the result is not what was requested.

    Warns:
        FfencWarning: encoder settings differ and are not kept.
    """
    plan = plan_merge(
        sources,
        destination,
        reencode=reencode,
        follow_links=follow_links,
        retime=retime,
        workers=workers,
        encoder_threads=encoder_threads,
        resume=resume,
        overwrite=overwrite,
        stats=stats,
        ffmpeg=ffmpeg,
        ffprobe=ffprobe,
    )
    return run_plan(
        plan,
        resume=resume,
        force_space=force_space,
        on_progress=on_progress,
        executor=executor,
        keep_going=keep_going,
    )


def _stored(camera: Camera) -> StreamInfo:
    assert isinstance(camera.stored, StreamInfo)
    return camera.stored


def _odd_ones(merged: MergedDataset, key: str) -> list[EpisodeRef]:
    """Return the episodes in which a camera's codec or pixel format differs from that of most frames."""
    kinds = [stream_kind(merged.stream(key, episode)) for episode in merged.episodes]
    frames: dict[tuple[str, str], int] = {}
    for kind, episode in zip(kinds, merged.episodes, strict=True):
        frames[kind] = frames.get(kind, 0) + episode.length
    usual = max(frames, key=lambda kind: frames[kind])  # of several, the first
    return [episode for kind, episode in zip(kinds, merged.episodes, strict=True) if kind != usual]


def _check_images(merged: MergedDataset) -> None:
    """Refuse image cameras that differ between datasets."""
    faults = []
    for camera in (camera for camera in merged.cameras if camera.key in merged.images):
        for other in merged.sources[1:]:
            found = merged.camera(other, camera.key)
            a, b = camera.header, found.header
            for name in ("width", "height", "depth"):
                if getattr(a, name) != getattr(b, name):
                    values = getattr(a, name), getattr(b, name)
                    faults.append(_difference(camera.key, name, *values, merged.sources[0], other))
            if camera.unit != found.unit:
                faults.append(
                    _difference(camera.key, "depth_unit", camera.unit, found.unit, merged.sources[0], other)
                )
    refuse(faults, "Make them equal first, with ffenc edit or ffenc reencode")


def _check_streams(merged: MergedDataset, odd: Mapping[str, Sequence[EpisodeRef]], *, reencode: bool) -> None:
    """Refuse video cameras that differ; the error names dataset, feature and both values."""
    first = merged.sources[0]
    reencodable: list[str] = []
    faults: list[str] = []
    for camera in (camera for camera in merged.cameras if camera.key in odd):
        for source in dict.fromkeys(merged.sources):
            mixed = merged.camera(source, camera.key)
            for index in sorted(mixed.odd)[:1]:
                path = source.video(camera.key, next(e for e in source.episodes if e.index == index)).path
                reencodable.append(
                    f"{camera.key}: {path} has another video.codec or pix_fmt than most of {source.root}"
                )
        own = stream_fields(_stored(camera)) | {"video.fps": fps_number(first.fps)}
        for other in dict.fromkeys(merged.sources[1:]):
            theirs = merged.camera(other, camera.key)
            found = stream_fields(_stored(theirs)) | {"video.fps": fps_number(other.fps)}
            for name in STREAM_FIELDS:
                if own[name] != found[name]:
                    place = reencodable if name in ("video.codec", "video.pix_fmt") else faults
                    place.append(_difference(camera.key, name, own[name], found[name], first, other))
            a, b = _depth_of(camera, first), _depth_of(theirs, other)
            for name in dict.fromkeys((*a, *b)):
                if a.get(name) != b.get(name):
                    faults.append(_difference(camera.key, name, a.get(name), b.get(name), first, other))
    refuse(
        faults,
        "The same samples would mean different depths, or frames have different sizes: re-encode "
        "from the original frames, or leave the camera out with "
        + call("reencode_dataset", source="SRC", destination="NEW", cameras="A,B"),
    )
    if reencodable and not reencode:
        ones = {merged.origin(episode)[0].root: None for own_odd in odd.values() for episode in own_odd}
        refuse(
            reencodable,
            f"Pass {argument('reencode', True)} to re-encode {', '.join(map(str, ones))} to match",
        )


def _encoded(merged: MergedDataset, key: str, odd: Sequence[EpisodeRef], reencode: bool) -> frozenset[int]:
    """Return the episodes of a camera to encode: all that differ, and those that cannot be copied."""
    others = set(odd)
    usual = [episode for episode in merged.episodes if episode not in others]
    reasons = uncopied(merged, key, usual)
    if reasons and not reencode:
        listed = [f"{key}: episode {number} of the result: {reason}" for number, reason in reasons.items()]
        refuse(
            listed,
            f"Pass {argument('reencode', True)} to encode these episodes with their own settings",
        )
    copied = {episode.index for episode in usual} - reasons.keys()
    return frozenset(episode.index for episode in merged.episodes) - copied


def _difference(key: str, name: str, a: Any, b: Any, first: Dataset, other: Dataset) -> str:
    return f"{key}: {name} is {a!r} in {first.root}, {b!r} in {other.root}"


def _depth_of(camera: Camera, source: Dataset) -> dict[str, Any]:
    """Return the fields that determine the meaning of a depth camera's samples."""
    if not camera.depth:
        return {"is_depth_map": False}
    fields: dict[str, Any] = {"is_depth_map": True, "depth_unit": camera.unit}
    if (quantizer := camera_quantizer(camera, _stored(camera), source.root)) is not None:
        fields |= {f"video.{name}": getattr(quantizer, name) for name in DEPTH_FIELDS}
    return fields


def _stream(
    merged: MergedDataset,
    camera: Camera,
    odd: Sequence[EpisodeRef],
    encoded: frozenset[int],
    candidates: Sequence[Toolchain],
    threads: int | None,
    stale: Stale,
) -> Stream:
    """Plan a camera: its packets are copied, except for episodes that are encoded."""
    others = set(odd)
    first = next(episode for episode in merged.episodes if episode not in others)
    like = merged.stream(camera.key, first)
    # The block of a dataset with mixed formats describes those of most of its frames.
    alike = [
        s for s in merged.sources if stream_kind(_stored(merged.camera(s, camera.key))) == stream_kind(like)
    ]
    usual = next(iter(alike), merged.origin(first)[0])
    pattern = replace(merged.camera(usual, camera.key), stored=like)
    encoding = _encoding(merged, pattern, usual.root, encoded, candidates, threads) if encoded else None
    lacking = bool(without_statistics(merged, [camera.key], stale))
    copied = frozenset(e.index for e in merged.episodes) - encoded
    blocks = {str(s.root): dict(merged.camera(s, camera.key).block) for s in alike or [usual]}
    if encoding is not None:
        made = encoder_fields(encoding.config)
        made |= depth_fields(encoding.config, camera.unit) if camera.unit is not None else {}
        blocks["what is re-encoded"] = {**dict(pattern.block), **made}
    quantizer = camera_quantizer(pattern, like, usual.root) if camera.depth else None
    size = merged.camera_bytes(camera.key, merged.episodes)
    block = merge_blocks(camera.key, blocks)
    # Fields on which all blocks agree, even if some do not have them.
    said = {name for own in blocks.values() for name in own}
    block |= {name: value for name, value in _depth_of(pattern, usual).items() if name in said}
    return Stream(replace(camera, stored=pattern.stored), encoding, lacking, size, copied, quantizer, block)


def _encoding(
    merged: MergedDataset,
    pattern: Camera,
    root: Path,
    encoded: frozenset[int],
    candidates: Sequence[Toolchain],
    threads: int | None,
) -> Encoding:
    """Return the encoding of episodes: the settings of the other ones, as far as their block has them.

    Args:
        merged: the datasets.
        pattern: the camera in the dataset ``root``, which has the settings.
        root: that dataset, for errors.
        encoded: the episodes to encode.
        candidates: the ffmpeg programs to try.
        threads: number of threads of an encoder; None: the encoder's default.
    """
    # One episode of each kind in the datasets.
    chosen = [episode for episode in reversed(merged.episodes) if episode.index in encoded]
    tried = {(merged.origin(e)[0].root, stream_kind(merged.stream(pattern.key, e))): e for e in chosen}
    *others, clip = (clip_of(merged.video(pattern.key, episode), merged.fps) for episode in tried.values())
    config = recorded_settings(_stored(pattern), pattern.block, pattern.depth, pattern.key)
    if pattern.depth:
        config = depth_config(config, clip, camera_quantizer(pattern, clip.info, root))
    return prepare_clip(
        clip, config, merged.fps, candidates=candidates, others=others, encoder_threads=threads
    )


def merge_blocks(key: str, blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields of a camera's ``info`` block that are not read from its files.

    Args:
        key: the camera.
        blocks: dataset -> its block. Fields with equal values are kept; encoder settings that differ become
            None (``{}`` for ``extra_options``).

    Warns:
        FfencWarning: lists the encoder settings that are not kept.
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
        listed = "; ".join(
            f"{name} is " + ", ".join(f"{block.get(name)!r} in {where}" for where, block in blocks.items())
            for name in lost
        )
        warnings.warn(f"{key}: settings differ and are not kept: {listed}", FfencWarning, stacklevel=2)
    return merged
