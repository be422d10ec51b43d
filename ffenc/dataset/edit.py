"""Edit datasets: everything that is not changed is copied, packet by packet and image by image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from ffenc.arguments import check_kind
from ffenc.config.preset import chosen_cameras
from ffenc.config.transform import Transform
from ffenc.dataset.choice import Episodes, chosen_episodes
from ffenc.dataset.edited import EditedDataset, Edits
from ffenc.dataset.executors.local import Executor
from ffenc.dataset.identify import check_dataset
from ffenc.dataset.job.camera_settings import (
    Chooser,
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
from ffenc.dataset.model import Camera, EpisodeRef
from ffenc.dataset.quantiles import StatsChoice, wants_exact
from ffenc.dataset.reencode import refuse_nesting
from ffenc.dataset.remote import source_path
from ffenc.dataset.sources.lerobot import open_dataset
from ffenc.dataset.thinned import thinned
from ffenc.dataset.verify.metadata import Stale, check_source
from ffenc.errors import ConfigError
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.ffmpeg.toolchain import toolchains
from ffenc.frames.header import ImageHeader
from ffenc.parallel.pool import share_cores
from ffenc.spelling import argument
from ffenc.storage.upload import destination_path

OnProgress = Callable[[int, int], None] | None


def plan_edit(
    source: str | Path,
    destination: str | Path,
    *,
    edits: Edits | None = None,
    episodes: Episodes | None = None,
    exclude_episodes: Episodes | None = None,
    cameras: Sequence[str] | None = None,
    transform: Transform | None = None,
    transforms: Mapping[str, Transform | None] | None = None,
    fps: int | float | str | None = None,
    fps_nearest: bool = False,
    follow_links: bool = False,
    workers: int | None = None,
    encoder_threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    stats: StatsChoice = "exact",
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
) -> JobPlan:
    """Check an edit before anything is written.

    The arguments are those of :func:`edit_dataset`.
    """
    check_kind("edits", edits, Edits, "an Edits")
    _check_transforms(transform, transforms)
    edits = edits or Edits()
    chosen = (episodes, exclude_episodes, cameras, transform, transforms or None, fps)
    if not edits and all(one is None for one in chosen):
        raise ConfigError("no edit was requested; pass one, or copy the dataset with ffenc merge")
    target = destination_path(destination, resume=resume, overwrite=overwrite)
    check_free(target, resume=resume)
    folder = source_path(source, "metadata")
    refuse_nesting(folder, target)
    check_dataset(folder)
    partial = episodes is not None or exclude_episodes is not None
    base = open_dataset(
        folder,
        follow_links=follow_links,
        choose=(lambda listed: _picked(listed, episodes, exclude_episodes)) if partial else None,
        ffprobe=ffprobe,
    )
    opened = thinned(base, base.fps if fps is None else fps, nearest=fps_nearest)
    if fps is not None and opened is base:
        raise ConfigError(
            f"{argument('fps', fps)} would have no effect: it is the dataset's own rate; leave it out"
        )
    picked = _picked(opened.episodes, episodes, exclude_episodes)
    base.choose(picked)
    if cameras is not None:
        edits = _without_others(edits, [camera.key for camera in opened.cameras], cameras)
    edited = EditedDataset(opened, edits, picked)
    found = check_source(
        opened.root, cameras=edited.kept_cameras, episodes={episode.index for episode in picked}
    )
    stale = Stale(
        frozenset(map(edited.new_name, found.episodes)), frozenset(map(edited.new_name, found.total))
    )
    candidates = toolchains(ffmpeg, ffprobe)
    videos = [camera for camera in edited.cameras if isinstance(camera.stored, StreamInfo)]
    images = [camera.key for camera in edited.cameras if camera not in videos]
    count, threads = share_cores(max(len(videos) * len(picked), 1), workers, encoder_threads)
    wanted = _transforms(edited, transform, transforms or {})
    streams = _streams(Chooser(edited, candidates, threads), videos, picked, wanted, stale)
    changed = _changed_images(edited, wanted)
    edited.change_images(changed)
    moved = [stream.key for stream in streams if stream.transform is not None]
    check_changing(wanted, [*moved, *changed])
    check_threads(encoder_threads, streams)
    lacking = [key for key in without_statistics(edited, images, stale) if key not in changed]
    combined = opened is not base or len(picked) < len(opened.episodes) or bool(stale)
    return JobPlan(
        *(edited, target, picked, streams, count, candidates[0], images, lacking, stale),
        edits=edits.fields(),
        exact=wants_exact(stats, combined=combined),
        source_fps=base.fps if opened is not base else None,
        changed_images=changed,
    )


def edit_dataset(
    source: str | Path,
    destination: str | Path,
    *,
    edits: Edits | None = None,
    episodes: Episodes | None = None,
    exclude_episodes: Episodes | None = None,
    cameras: Sequence[str] | None = None,
    transform: Transform | None = None,
    transforms: Mapping[str, Transform | None] | None = None,
    fps: int | float | str | None = None,
    fps_nearest: bool = False,
    follow_links: bool = False,
    workers: int | None = None,
    encoder_threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    force_space: bool = False,
    stats: StatsChoice = "exact",
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
    on_progress: OnProgress = None,
    executor: Executor | None = None,
    keep_going: bool = False,
) -> JobSummary:
    """Write a LeRobot v3.0 dataset with a part of another, or with other names and tasks.

    Video is copied packet by packet, and images are copied unchanged. Only an episode that does not begin at
    a key frame, and a camera with a transform, is encoded, with its own settings. Transformed images stay
    images: colours become PNG, depth keeps its format. Rows, frames, files and episodes are numbered from 0.
    Statistics are those of the kept rows. The source is only read; the result appears complete and verified,
    or not at all.

    Args:
        source: a dataset of v3.0, v2.1 or v2.0.
        destination: the folder to write; must not exist, or be empty.
        edits: names, tasks and columns to change.
        episodes: the episodes to keep: indices, or a text such as ``0-9,12,20-``; None: all. In any case
            they stay in the order of the source.
        exclude_episodes: the episodes to drop, in the same form.
        cameras: names of the cameras to keep; None: all but ``edits.drop_cameras``.
        transform: transform of all cameras.
        transforms: name of a camera in the source -> its own transform instead; None: no transform.
        fps: a lower rate, at which some rows and frames are kept; it has to divide the dataset's rate.
        fps_nearest: accept any lower rate: for each new time, the nearest frame is kept.
        follow_links: follow symbolic links that lead out of the dataset; otherwise they are refused.
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
        ConfigError: nothing would change, an unknown name or index, or nothing would be left.
        SourceError: the dataset is damaged.
        DestinationError: the destination exists or cannot be written.
        FfmpegError, VerificationError: copying or encoding failed, or the result is not what was requested.
    """
    plan = plan_edit(
        source,
        destination,
        edits=edits,
        episodes=episodes,
        exclude_episodes=exclude_episodes,
        cameras=cameras,
        transform=transform,
        transforms=transforms,
        fps=fps,
        fps_nearest=fps_nearest,
        follow_links=follow_links,
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


def _check_transforms(transform: Transform | None, transforms: Mapping[str, Transform | None] | None) -> None:
    check_kind("transform", transform, Transform, "a Transform")
    what = "a mapping of cameras to a Transform or None"
    check_kind("transforms", transforms, Mapping, what)
    for one in (transforms or {}).values():
        check_kind("transforms", one, Transform, what)


def _picked(
    known: Sequence[EpisodeRef], episodes: Episodes | None, exclude: Episodes | None
) -> list[EpisodeRef]:
    """Return the episodes to keep, in order."""
    numbers = [episode.index for episode in known]
    kept = set(numbers if episodes is None else chosen_episodes(episodes, numbers, argument("episodes")))
    if episodes is not None and len(kept) == len(numbers):
        raise ConfigError(f"{argument('episodes')} selects all episodes; leave it out")
    if exclude is not None:
        out = chosen_episodes(exclude, numbers, argument("exclude_episodes"))
        if lost := sorted(set(out) - kept):
            raise ConfigError(
                f"{argument('exclude_episodes')}: episode {lost[0]} is not among {argument('episodes')}"
            )
        kept -= set(out)
    if not kept:
        raise ConfigError("no episode is left")
    return [episode for episode in known if episode.index in kept]


def _without_others(edits: Edits, keys: Sequence[str], names: Sequence[str]) -> Edits:
    """Return the edits that keep only some cameras."""
    if edits.drop_cameras:
        raise ConfigError(
            f"{argument('cameras')} selects cameras, {argument('drop_cameras')} leaves cameras "
            "out: pass one of them"
        )
    kept = chosen_cameras(keys, names)
    if len(kept) == len(keys):
        raise ConfigError(f"{argument('cameras')} selects all cameras; leave it out")
    return replace(edits, drop_cameras=[key for key in keys if key not in kept])


def _transforms(
    edited: EditedDataset, common: Transform | None, own: Mapping[str, Transform | None]
) -> dict[str, Transform | None]:
    """Return the transform of each camera, by its name in the result.

    Raises:
        ConfigError: an unknown camera.
    """
    named = {key: value for name, value in own.items() for key in chosen_cameras(edited.kept_cameras, [name])}
    return {edited.new_name(key): named.get(key, common) for key in edited.kept_cameras}


def _streams(
    chooser: Chooser,
    cameras: Sequence[Camera],
    picked: Sequence[EpisodeRef],
    wanted: Mapping[str, Transform | None],
    stale: Stale,
) -> list[Stream]:
    """Return the streams of video cameras: copied, unless a transform changes their frames.

    Raises:
        ConfigError: a transform cannot be applied, or what cannot be copied cannot be encoded.
    """
    source = chooser.source
    streams: list[Stream] = []
    for camera in cameras:
        try:
            streams.append(
                video_stream(
                    chooser,
                    camera,
                    own_settings(camera, {}),
                    picked,
                    compute_stats=bool(without_statistics(source, [camera.key], stale)),
                    source_bytes=source.camera_bytes(camera.key, picked),
                    force=False,
                    asked=(),
                    keep=True,
                    transform=changing(wanted[camera.key], camera),
                )
            )
        except ConfigError as error:
            raise error.within(f"camera {camera.key}") from None
    return streams


def _changed_images(edited: EditedDataset, wanted: Mapping[str, Transform | None]) -> dict[str, Transform]:
    """Return the transforms of image cameras.

    Raises:
        ConfigError: a transform cannot be applied to images of their size.
    """
    found: dict[str, Transform] = {}
    for camera in edited.cameras:
        if not isinstance(camera.stored, ImageHeader):
            continue
        try:
            own = changing(wanted[camera.key], camera)
        except ConfigError as error:
            raise error.within(f"camera {camera.key}") from None
        if own is not None:
            found[camera.key] = own
    return found
