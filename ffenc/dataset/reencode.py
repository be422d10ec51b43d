"""Re-encode a dataset to a LeRobot v3.0 video dataset."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from ffenc.arguments import listed
from ffenc.config.encoder import VideoEncoderConfig
from ffenc.config.mapping import OnGap, SourceMapping, as_mapping
from ffenc.config.matching import check_overrides, check_preset, check_quantisers
from ffenc.config.plain_yaml import KeyPath
from ffenc.config.preset import RobotPreset, camera_name, chosen_cameras, load_preset
from ffenc.dataset.choice import Episodes, picked_episodes
from ffenc.dataset.executors.local import Executor
from ffenc.dataset.job.camera_settings import (
    Chooser,
    changed_settings,
    changing,
    check_changing,
    check_threads,
    own_settings,
    video_stream,
)
from ffenc.dataset.job.finished import check_free
from ffenc.dataset.job.plan import JobPlan, Stream, without_statistics
from ffenc.dataset.job.run import run_plan
from ffenc.dataset.job.summary import JobSummary
from ffenc.dataset.lerobot_v3 import LeRobotV3
from ffenc.dataset.lerobot_v21 import LeRobotV21
from ffenc.dataset.model import Camera, EpisodeRef
from ffenc.dataset.quantiles import StatsChoice, wants_exact
from ffenc.dataset.remote import source_path
from ffenc.dataset.source import DatasetSource
from ffenc.dataset.sources.kind import Opening
from ffenc.dataset.sources.plain import PlainSource
from ffenc.dataset.sources.registry import open_source
from ffenc.dataset.thinned import thinned
from ffenc.dataset.verify.metadata import Stale, check_source
from ffenc.errors import ConfigError, DestinationError, FfencWarning, SourceError
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.ffmpeg.toolchain import toolchains
from ffenc.frames.header import ImageHeader
from ffenc.layout import TIME_TOLERANCE
from ffenc.parallel.pool import even_rounds, share_cores
from ffenc.spelling import argument, call
from ffenc.storage.mirror import mirror_of
from ffenc.storage.upload import address_of, destination_path

# If all images of a job fit in this memory, slightly more encodes than cores run at once.
_SMALL_BYTES = 512 << 20


def say_shift(sources: Sequence[LeRobotV3 | LeRobotV21]) -> None:
    """Report how far ``--retime`` moves the rows of datasets that were opened with it.

    Raises:
        ConfigError: no row is moved.

    Warns:
        FfencWarning: contains the greatest shift.
    """
    largest = max(sources, key=lambda source: source.largest_shift)
    if largest.largest_shift <= TIME_TOLERANCE:
        raise ConfigError(
            f"{argument('retime', True)}: every timestamp is frame_index / fps already; leave it out"
        )
    warnings.warn(
        f"{largest.root}: timestamps of frame i are set to i / fps; the largest shift of a timestamp is "
        f"{largest.largest_shift:.3f} s",
        FfencWarning,
        stacklevel=3,
    )


def plan_reencode(
    source: str | Path,
    destination: str | Path,
    *,
    preset: str | Path | RobotPreset | None = None,
    overrides: Sequence[tuple[KeyPath, Any]] = (),
    cameras: Sequence[str] | None = None,
    episodes: Episodes | None = None,
    shard: str | None = None,
    fps: int | float | str | Fraction | None = None,
    fps_nearest: bool = False,
    task: str | None = None,
    start_number: int | None = None,
    mapping: str | Path | SourceMapping | None = None,
    on_gap: OnGap | None = None,
    workers: int | None = None,
    encoder_threads: int | None = None,
    force: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    follow_links: bool = False,
    retime: bool = False,
    stats: StatsChoice = "exact",
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
) -> JobPlan:
    """Check a re-encode as far as possible without decoding, and select the encoders; return the plan.

    The arguments are those of :func:`reencode_dataset`.
    """
    target = destination_path(destination, resume=resume, overwrite=overwrite)
    check_free(target, resume=resume)
    if isinstance(preset, RobotPreset) and overrides:
        raise ConfigError("overrides apply to a preset's name; pass them to load_preset")
    robot = preset if isinstance(preset, RobotPreset) else load_preset(preset, overrides)
    source = source_path(source, "metadata")
    refuse_nesting(source, target)
    said = robot.fps if any(key == ("fps",) for key, _ in overrides) else None
    fps = said if fps is None else fps
    partial = episodes is not None or shard is not None

    def choose(known: Sequence[EpisodeRef]) -> list[EpisodeRef]:
        return picked_episodes(known, episodes, shard)

    base = open_source(
        source,
        Opening(
            fps=fps,
            usual_fps=robot.fps if preset is not None else None,
            task=task,
            robot_type=robot.robot_type,
            cameras=None if cameras is None else tuple(listed("cameras", cameras)),
            start_number=start_number,
            follow_links=follow_links,
            retime=retime,
            partial=partial,
            # With a lower rate, shards are balanced by the frames that are kept.
            choose=choose if partial and (shard is None or fps is None) else None,
            mapping=as_mapping(mapping),
            usual_mapping=robot.source,
            programs=(ffmpeg, ffprobe),
            on_gap=on_gap,
        ),
    )
    opened = _at_rate(base, fps, overrides, nearest=fps_nearest, retime=retime)
    chosen = _choose_cameras(opened, cameras)
    named = {camera_name(camera.key): camera.depth for camera in chosen}
    check_overrides(overrides, named, [n for c in opened.cameras if (n := camera_name(c.key)) not in named])
    if preset is not None:
        check_preset(robot, named)
    picked = choose(opened.episodes)
    stale = _check_picked(base, picked, chosen)
    threads = robot.encoder_threads if encoder_threads is None else encoder_threads
    count, threads = share_cores(len(chosen) * len(picked), workers, threads)
    candidates = toolchains(ffmpeg, ffprobe)
    streams = _streams(
        *(Chooser(opened, candidates, threads), opened, chosen, picked, robot, overrides),
        keep=preset is None,
        stale=stale,
        force=force,
    )
    given = any(key == ("encoder_threads",) for key, _ in overrides)
    check_threads(robot.encoder_threads if given and encoder_threads is None else encoder_threads, streams)
    if force and all(isinstance(camera.stored, ImageHeader) for camera in chosen):
        raise ConfigError(
            f"{argument('force', True)} would have no effect: the frames are images, which are "
            "always encoded; leave it out"
        )
    if workers is None and sum(stream.source_bytes for stream in streams) <= _SMALL_BYTES:
        count = even_rounds(len(chosen) * len(picked), count)
    combined = opened is not base or len(picked) < len(opened.episodes) or bool(stale)
    exact = wants_exact(stats, combined=combined)
    edits: dict[str, Any] = {}
    if isinstance(opened, PlainSource):
        edits = {**opened.reading, **({"robot_type": robot.robot_type} if robot.robot_type else {})}
    return JobPlan(
        *(opened, target, picked, streams, count, candidates[0]),
        stale=stale,
        edits=edits,
        exact=exact,
        source_fps=base.fps if opened is not base else None,
    )


def _check_picked(source: DatasetSource, picked: Sequence[EpisodeRef], cameras: Sequence[Camera]) -> Stale:
    """Check the selected episodes of a source; return the features with wrong statistics.

    Raises:
        SourceError: frames are missing, or a fault that the result would keep.
    """
    if isinstance(source, PlainSource):
        source.check(picked)
    if not isinstance(source, LeRobotV3 | LeRobotV21):
        return Stale()
    source.choose(picked)
    return check_source(
        source.root, cameras=[c.key for c in cameras], episodes={episode.index for episode in picked}
    )


def _at_rate(
    opened: DatasetSource,
    fps: int | float | str | Fraction | None,
    overrides: Sequence[tuple[KeyPath, Any]],
    *,
    nearest: bool,
    retime: bool,
) -> DatasetSource:
    """Return a source at a lower frame rate (None: its own), after refusing settings without effect.

    Raises:
        ConfigError: a setting without effect, or a rate that is not accepted.
    """
    if isinstance(opened, LeRobotV3 | LeRobotV21):
        if any(key == ("robot_type",) for key, _ in overrides):
            raise ConfigError(
                f"{argument('robot_type')} would have no effect: a dataset keeps its own; change it with "
                f"{argument('robot_type', 'NAME')} of {call('edit_dataset', source='SRC', destination='NEW')}"
            )
        if retime:
            say_shift([opened])
        return thinned(opened, opened.fps if fps is None else fps, nearest=nearest)
    if nearest:
        raise ConfigError(
            f"{argument('fps_nearest', True)} applies to datasets; other sources get the rate of "
            f"{argument('fps')}"
        )
    return opened


def _streams(
    chooser: Chooser,
    source: DatasetSource,
    chosen: Sequence[Camera],
    picked: Sequence[EpisodeRef],
    robot: RobotPreset,
    overrides: Sequence[tuple[KeyPath, Any]],
    *,
    keep: bool,
    stale: Stale,
    force: bool,
) -> list[Stream]:
    """Select the settings and the encoder of each camera.

    Args:
        chooser: tries the settings.
        source: the source, at its rate.
        chosen, picked: the selected cameras and episodes.
        robot: the preset, with the overrides.
        overrides: settings that were passed.
        keep: no preset was named, so a video keeps the settings that are not overridden.
        stale: statistics that are not those of the rows.
        force: encode also a video that has its settings already.

    Raises:
        ConfigError: settings that do not apply, or cannot be encoded.
        ToolchainError: no FFmpeg on this machine can do it.
    """
    asked = {key[-1] for key, _ in overrides}
    streams: list[Stream] = []
    wanted = {camera.key: robot.transform_for(camera.key) for camera in chosen}
    changes = {camera.key: changed_settings(overrides, camera) for camera in chosen}
    configs: dict[str, VideoEncoderConfig | None] = {}
    for camera in chosen:
        configs[camera.key] = robot.encoder_for(camera.key, depth=camera.depth)
        if keep and "vcodec" not in changes[camera.key] and isinstance(camera.stored, StreamInfo):
            # Default settings are for images; a video keeps the settings that are not overridden.
            configs[camera.key] = own_settings(camera, changes[camera.key])
    depth = {camera_name(c.key): one.pix_fmt for c in chosen if c.depth and (one := configs[c.key])}
    check_quantisers(depth, overrides)
    for camera in chosen:
        config = configs[camera.key]
        lacking = bool(without_statistics(source, [camera.key], stale))
        size = source.camera_bytes(camera.key, picked)
        try:
            transform = changing(wanted[camera.key], camera)
            if isinstance(camera.stored, ImageHeader):
                assert config is not None
                encoding = chooser.for_images(camera, config, picked[0], transform)
                computed = transform is not None or lacking
                why = "its frames are images" + (f"; {transform}" if transform is not None else "")
                streams.append(Stream(camera, encoding, computed, size, why=why))
            else:
                streams.append(
                    video_stream(
                        chooser,
                        camera,
                        config,
                        picked,
                        compute_stats=lacking,
                        source_bytes=size,
                        force=force,
                        asked=asked,
                        keep=keep and not changes[camera.key],
                        transform=transform,
                    )
                )
        except ConfigError as error:
            raise error.within(f"camera {camera.key}") from None
    check_changing(wanted, [stream.key for stream in streams if stream.transform is not None])
    return streams


def reencode_dataset(
    source: str | Path,
    destination: str | Path,
    *,
    preset: str | Path | RobotPreset | None = None,
    overrides: Sequence[tuple[KeyPath, Any]] = (),
    cameras: Sequence[str] | None = None,
    episodes: Episodes | None = None,
    shard: str | None = None,
    fps: int | float | str | Fraction | None = None,
    fps_nearest: bool = False,
    task: str | None = None,
    start_number: int | None = None,
    mapping: str | Path | SourceMapping | None = None,
    on_gap: OnGap | None = None,
    workers: int | None = None,
    encoder_threads: int | None = None,
    force: bool = False,
    follow_links: bool = False,
    retime: bool = False,
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
    """Re-encode a dataset of images or video to a LeRobot v3.0 video dataset.

    Video is decoded and encoded in one ffmpeg, frame by frame. A video camera is copied packet by packet if
    it already has the requested settings, or if none are requested; an episode that cannot be cut out is
    encoded with the camera's own settings. Depth keeps its codes and its quantiser.

    The destination appears complete and verified, or not at all; the source is only read. Finished episodes
    of an interrupted run are kept in a hidden folder beside the destination for ``resume``.

    Args:
        source: a LeRobot v3.0, v2.1 or v2.0 dataset, a PNG or JPEG tree, an HDF5 file, a zarr store, a ROS 2
            bag or MCAP file, or a folder of such files.
        destination: the folder to write; must not exist, or be empty.
        preset: a robot's preset, its name or path; None: images get the default settings, video keeps its own
            settings except for ``overrides``.
        overrides: see :func:`ffenc.load_preset`.
        cameras: the cameras to keep, with or without ``observation.images.``; None: all.
        episodes: the episodes to keep: indices, or a text such as ``0,2,5-9,20-``; None: all. In any case
            they stay in the order of the source.
        shard: ``K/N``: of these episodes, the K-th of N consecutive shards with about the same number of
            frames; merged in order, the shards give the complete dataset.
        fps: frames per second of a source without a rate; None: the preset's. For a dataset, a lower rate, at
            which some rows and frames are kept; it has to divide the dataset's rate.
        fps_nearest: accept any lower rate: for each new time, the nearest frame is kept.
        task: the task's text, for sources that are not datasets.
        start_number: number of the first frames in a PNG tree; None: 0 or 1.
        mapping: mapping of a source's arrays or topics, or a YAML file with one; None: the preset's, or that
            of a known layout.
        on_gap: for a bag, the action if no message is near enough to a frame: ``error``, ``repeat`` the one
            before, ``split`` the episode there, or ``drop-episode``; None: the mapping's.
        workers: number of encodes at once; None: one per core, and a few more for a small job, so that no
            core is idle at its end.
        encoder_threads: number of threads of an encoder; None: the preset's, or its share of the cores.
        force: re-encode a video camera that already has the requested settings; otherwise its packets are
            copied.
        follow_links: follow symbolic links that lead out of the source; otherwise they are refused.
        retime: set the timestamp of frame i to i / fps, for a dataset whose timestamps were measured with a
            clock.
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
        SourceError: frames are missing, damaged or of different sizes or kinds.
        ConfigError: settings that cannot be used.
        DestinationError: the destination exists or cannot be written.
        ToolchainError: no FFmpeg on this machine can do it.
        FfmpegError, VerificationError: an encode failed, or its result is not what was requested.
    """
    plan = plan_reencode(
        source,
        destination,
        preset=preset,
        overrides=overrides,
        cameras=cameras,
        episodes=episodes,
        shard=shard,
        fps=fps,
        fps_nearest=fps_nearest,
        task=task,
        start_number=start_number,
        mapping=mapping,
        on_gap=on_gap,
        workers=workers,
        encoder_threads=encoder_threads,
        force=force,
        resume=resume,
        overwrite=overwrite,
        stats=stats,
        follow_links=follow_links,
        retime=retime,
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


def refuse_nesting(source: Path, destination: Path) -> None:
    """Refuse a destination inside the source, which must not be changed."""
    mirror, address = mirror_of(source), address_of(destination)
    if mirror is not None and address is not None:
        if address.within(mirror.address) or mirror.address.within(address):
            raise DestinationError(f"{address} and {mirror.address} overlap; choose an address outside of it")
        return
    # Not resolve(), which raises RuntimeError for a link to itself before Python 3.13.
    outer, inner = (Path(os.path.realpath(path)) for path in (source, destination))
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise DestinationError(f"{destination} and {source} overlap; choose a folder outside of it")


def _choose_cameras(source: DatasetSource, names: Sequence[str] | None) -> list[Camera]:
    keys = [camera.key for camera in source.cameras]
    if not keys:
        raise SourceError(
            "it has no cameras",
            expected="a dataset of images or video",
            where=source.root,
            fix="ffenc merge copies one without cameras",
        )
    wanted = keys if names is None else chosen_cameras(keys, names)
    cameras = [camera for camera in source.cameras if camera.key in wanted]
    if not cameras:
        raise ConfigError(f"{argument('cameras')} names no camera")
    return cameras
