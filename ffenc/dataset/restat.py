"""Statistics of a dataset's rows, computed again and compared with the stored ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from ffenc.dataset.columns import is_numeric
from ffenc.dataset.identify import check_dataset
from ffenc.dataset.info_block import camera_quantizer
from ffenc.dataset.lerobot_v3 import LeRobotV3
from ffenc.dataset.lerobot_v21 import LeRobotV21
from ffenc.dataset.model import Camera, EpisodeRef
from ffenc.dataset.quantiles import exact_quantiles, feature_rows
from ffenc.dataset.remote import source_path
from ffenc.dataset.sources.lerobot import open_dataset
from ffenc.dataset.staging import write_json
from ffenc.dataset.statistics import ACTION, Aggregate, moments, relative_chunk, stored_numbers
from ffenc.dataset.videos import clip_of
from ffenc.errors import DestinationError, SourceError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.frames.decoded import image_statistics
from ffenc.frames.depth import DepthQuantizer
from ffenc.frames.depth_images import DepthStatistics
from ffenc.frames.header import ImageHeader
from ffenc.frames.publish import claimed, published
from ffenc.frames.statistics import RgbHistogram, Stats, ValueCounts, sample_tap
from ffenc.frames.transcode import clip_statistics
from ffenc.layout import QUANTILES, STATISTICS, STATS
from ffenc.parallel.pool import run_units, share_cores
from ffenc.parallel.progress import FrameCount
from ffenc.spelling import argument, call
from ffenc.storage.address import Address, parse_address

OLD_STATS = "meta/.stats.json.old"
_CLOSE = 2e-5  # of the span from min to max: differences caused by float32
_CAMERA_CLOSE = 0.01  # encoding removes noise, and so some of the values beyond q01 and q99


class Difference(Struct, frozen=True):
    """A stored statistic that differs from that of the rows.

    Attributes:
        feature, name: such as ``action`` and ``q99``.
        stored: value in ``stats.json``; None: not in the file.
        exact: value computed from the rows.
        share: greatest difference relative to the feature's span from min to max; 1 if no value is stored.
        at: index of the feature's number with this difference.
    """

    feature: str
    name: str
    stored: Any
    exact: Any
    share: float
    at: int = 0


class Restated(Struct, frozen=True):
    """The statistics of a dataset's rows.

    Attributes:
        root: the dataset.
        differences: stored values that differ, the greatest difference first.
        stats: correct contents of ``stats.json``; cameras are unchanged, except for requested quantiles.
        left: features whose statistics are not changed, and why.
        written: whether ``stats.json`` was replaced.
    """

    root: Path
    differences: list[Difference]
    stats: Mapping[str, Any]
    left: Mapping[str, str]
    written: bool = False


def restate(
    root: str | Path,
    *,
    write: bool = False,
    cameras: bool = False,
    follow_links: bool = False,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> Restated:
    """Compute the statistics of every numeric column over all rows, and compare them with ``stats.json``.

    Args:
        root: a LeRobot v3.0 dataset.
        write: replace ``stats.json``; the old one is kept as :data:`OLD_STATS`. No other file is written.
        cameras: also compute the quantiles of cameras, over the frames of each episode that LeRobot's rule
            selects, which are decoded. Other statistics of cameras are not changed: they may be those of the
            frames before encoding.
        follow_links: follow symbolic links that lead out of the dataset; otherwise they are refused.
        ffmpeg, ffprobe: programs to use instead of those that are found, with ``cameras``.
        on_progress: called with the number of frames decoded so far and of all, with ``cameras``.

    Returns:
        The differences that are greater than those caused by float32, for cameras by encoding.

    Raises:
        SourceError: not such a dataset, or a damaged one.
        DestinationError: it cannot be written, or another run is correcting it.
    """
    if write and isinstance(parse_address(root, "root"), Address):
        raise DestinationError(
            f"{root}: statistics can only be corrected in a local dataset: download it first, or "
            "merge it alone to another address"
        )
    folder = source_path(root, name="root")
    check_dataset(folder)
    # Claimed before the old statistics are read: two runs may not keep each other's result as the old file.
    with claimed(folder / STATS) if write else nullcontext():
        return _restated(
            folder,
            write=write,
            cameras=cameras,
            follow_links=follow_links,
            ffmpeg=ffmpeg,
            ffprobe=ffprobe,
            on_progress=on_progress,
        )


def _restated(
    folder: Path,
    *,
    write: bool,
    cameras: bool,
    follow_links: bool,
    ffmpeg: str | None,
    ffprobe: str | None,
    on_progress: Callable[[int, int], None],
) -> Restated:
    opened = open_dataset(folder, follow_links=follow_links, partial=True, ffprobe=ffprobe)
    opened.check(opened.episodes, videos=cameras)  # statistics of rows need no videos
    if isinstance(opened, LeRobotV21):
        raise SourceError(
            f"{folder} is of an older layout, whose statistics are stored by episode; "
            f"{call('merge_datasets', sources=[folder], destination='NEW')} converts it to v3.0, "
            "with statistics of all rows"
        )
    stored = opened.stats()
    stats = dict(stored)
    files = opened.data_files()
    lengths = [episode.length for episode in opened.episodes]
    differences: list[Difference] = []
    left: dict[str, str] = {}
    for key, feature in opened.info()["features"].items():
        own = stored.get(key)
        own = own if isinstance(own, dict) else {}
        if not is_numeric(feature):
            continue
        if key == ACTION and (chunk := _relative(own, lengths)):
            left[key] = f"of actions relative to the state, over chunks of {chunk} rows"
            continue
        exact = _of_rows(files, key)
        shape = np.shape(own["min"]) if "min" in own else None
        if shape is not None and shape != np.shape(exact["min"]):
            left[key] = f"of shape {shape}, of the rows they have {np.shape(exact['min'])}"
            continue
        names = [*STATISTICS, *(name for name in QUANTILES if name in own or not own)]
        found = {name: exact[name] for name in names}
        differences += _differing(key, own, found)
        stats[key] = {**own, **found}
    if cameras:
        cameras_of = {camera.key: camera for camera in opened.cameras}
        for key, found in _of_cameras(opened, toolchains(ffmpeg, ffprobe)[0], on_progress).items():
            own = stored.get(key)
            if not isinstance(own, dict) or np.shape(own.get("min", ())) != np.shape(found["q01"]):
                left[key] = "has no usable min and max; `ffenc merge` computes them"
                continue
            if _before_quantising(cameras_of[key], own):
                left[key] = (
                    f"are of depth before it was quantised; a re-encode with "
                    f"{argument('force', True)} computes them"
                )
                continue
            found = {n: np.clip(v, own["min"], own["max"]).tolist() for n, v in found.items() if n in own}
            span = {name: own[name] for name in ("min", "max")}
            differences += _differing(key, own, found, span=span, close=_CAMERA_CLOSE)
            stats[key] = {**own, **found}
    differences.sort(key=lambda one: -one.share)
    if write and differences:
        _replace(folder, stats)
    return Restated(folder, differences, stats, left, write and bool(differences))


def _relative(own: Mapping[str, Any], lengths: list[int]) -> int | None:
    try:
        count = int(stored_numbers(own["count"]).reshape(-1)[0])
    except (LookupError, ValueError, OverflowError):
        return None
    return relative_chunk(count, lengths)


def _of_rows(files: list[Path], key: str) -> Stats:
    """Return the statistics of a feature's rows: sums in parts, quantiles of all values."""
    aggregate = Aggregate()
    for values in feature_rows(files, key):
        aggregate.add(moments(values))
    stats = aggregate.result()
    return {**{name: stats[name] for name in STATISTICS}, **exact_quantiles(files, key)}


def _of_cameras(
    opened: LeRobotV3, toolchain: Toolchain, on_progress: Callable[[int, int], None]
) -> dict[str, Stats]:
    """Return the quantiles of each camera's values, over all episodes."""
    units = [(camera, episode) for camera in opened.cameras for episode in opened.episodes]
    progress = FrameCount(sum(episode.length for _, episode in units), on_progress)
    totals: dict[str, ValueCounts] = {}
    cancellation = Cancellation()

    def work(unit: tuple[Camera, EpisodeRef]) -> ValueCounts:
        camera, episode = unit
        if isinstance(camera.stored, ImageHeader):
            frames = opened.frames(camera.key, episode)
            counted = image_statistics(frames, camera.stored, camera.unit, check=cancellation.check)
        else:
            clip = clip_of(opened.video(camera.key, episode), opened.fps)
            tap = sample_tap(clip.frames, clip.info.width, clip.info.height)
            counted = RgbHistogram(tap) if camera.unit is None else DepthStatistics(tap, camera.unit)
            quantizer = camera_quantizer(camera, clip.info, opened.root)
            clip_statistics(
                clip, counted, quantizer=quantizer, toolchain=toolchain, cancellation=cancellation
            )
        progress.add(episode.length)
        return counted.values()

    threads, _ = share_cores(max(len(units), 1), None, None)
    for (camera, _), own in run_units(units, work, threads=threads, stop=cancellation.cancel):
        totals[camera.key] = totals[camera.key] + own if camera.key in totals else own
    return {key: own.quantiles(-np.inf, np.inf) for key, own in totals.items()}


def _before_quantising(camera: Camera, stored: Mapping[str, Any]) -> bool:
    """Return whether statistics contain depths that the camera's codes cannot represent."""
    if camera.unit is None or isinstance(camera.stored, ImageHeader) or camera.stored.pix_fmt != "gray12le":
        return False
    most = DepthQuantizer.from_video_info(camera.block).depth_max * (1 if camera.unit == "m" else 1000)
    return bool(stored_numbers(stored["max"]).max() > most)


def _differing(
    key: str,
    stored: Mapping[str, Any],
    exact: Mapping[str, Any],
    span: Mapping[str, Any] | None = None,
    close: float = _CLOSE,
) -> list[Difference]:
    """Return the stored statistics that differ; ``span`` has min and max if ``exact`` does not."""
    low, high = (stored_numbers((span or exact)[name]) for name in ("min", "max"))
    width = np.maximum(high - low, np.maximum(np.abs(low), np.abs(high)) * 1e-3)
    width[width == 0] = 1.0
    differences = []
    for name, wanted in exact.items():
        try:
            found = stored_numbers(stored[name])
            off = np.abs(found - stored_numbers(wanted))
        except (LookupError, ValueError):
            differences.append(Difference(key, name, stored.get(name), wanted, 1.0))
            continue
        shares = (off > 0).astype(float) if name == "count" else np.nan_to_num(off / width, nan=1.0)
        at = int(np.argmax(shares))
        if (share := float(shares.ravel()[at])) > close:
            differences.append(Difference(key, name, stored[name], wanted, share, at))
    return differences


def _replace(root: Path, stats: Mapping[str, Any]) -> None:
    """Replace stats.json atomically, and keep the old one."""
    path, old = root / STATS, root / OLD_STATS
    try:
        with published(path) as temporary:
            write_json(temporary, stats)
            if path.exists():
                old.unlink(missing_ok=True)
                try:
                    os.link(path, old)
                except OSError:  # a file system without hard links
                    shutil.copy2(path, old)
    except OSError as error:
        raise DestinationError(f"{path} cannot be written: {error.strerror}") from error
