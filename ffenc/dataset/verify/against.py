"""Compare every frame of a dataset's videos with its source; episodes are paired by index."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from ffenc.codecs.pixel_formats import pixel_format
from ffenc.codecs.table import CODECS
from ffenc.config.framerate import Pick, parse_fps
from ffenc.config.mapping import SourceMapping
from ffenc.config.transform import Transform
from ffenc.dataset.job.finished import source_mapping
from ffenc.dataset.lerobot_v3 import LeRobotV3
from ffenc.dataset.lerobot_v21 import LeRobotV21
from ffenc.dataset.sources.kind import Opening
from ffenc.dataset.sources.registry import open_source
from ffenc.dataset.thinned import PickedFrames
from ffenc.dataset.verify.faults import CameraComparison, Faults
from ffenc.dataset.verify.layout import Layout, Listing, reason_of
from ffenc.dataset.verify.videos import Seen, VideoFile, frame_times, frames_at, is_depth
from ffenc.dataset.videos import clip_of
from ffenc.errors import ConfigError, FfmpegError, SourceError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.clip import Clip
from ffenc.frames.compare import Comparison, compare_episode
from ffenc.frames.depth import DepthQuantizer, Unit
from ffenc.frames.header import ImageHeader
from ffenc.frames.sources import FrameSource
from ffenc.frames.stream import DEPTH_FORMATS
from ffenc.layout import INFO

_ANOTHER_PICTURE = 15.0  # dB; the coarsest settings stay above 20, two pictures of one scene reach about 12
_ROUNDING = 0.01  # mm; depth decoded from codes is float32
_ITS_SOURCE = "pass the source it was made from, with the same episodes, and restore the damaged side"


class Source:
    """The source that a dataset is compared with: a dataset of images or video, a tree of images, or a file.

    Args:
        root: its folder, or the file.
        layout: of the compared dataset. A source without a frame rate gets that of the dataset.
        mapping: meaning of its arrays or topics; None: the mapping that the dataset was created with.
        follow_links: see :func:`~ffenc.paths.check_tree`.
        programs: ffmpeg and ffprobe; None: those that are found.

    Raises:
        SourceError: not a supported source, or damaged.
    """

    def __init__(
        self,
        root: Path,
        layout: Layout,
        *,
        follow_links: bool = False,
        mapping: SourceMapping | None = None,
        programs: tuple[str | None, str | None] = (None, None),
    ) -> None:
        fps = None if (root / INFO).is_file() else layout.fps
        opening = Opening(
            fps=fps,
            follow_links=follow_links,
            partial=True,
            mapping=mapping,
            usual_mapping=source_mapping(layout.root),
            programs=programs,
        )
        self._source = open_source(root, opening)
        self._layout = layout
        self._cameras = {camera.key: camera for camera in self._source.cameras}
        self._episodes = {episode.index: episode for episode in self._source.episodes}
        self.cameras = set(self._cameras)

    def reference(self, key: str, episode: int) -> tuple[FrameSource | Clip, ImageHeader | None, Unit | None]:
        """Return an episode's frames, and for images also their header and the unit of depth.

        Raises:
            SourceError: the source does not have this episode or its frames.
        """
        known = self._episodes.get(episode)
        if known is None:
            raise SourceError(f"the source has no episode {episode}")
        if isinstance(self._source, LeRobotV3 | LeRobotV21):
            self._source.check([known])
        camera = self._cameras[key]
        pick = self._pick(key)
        if isinstance(camera.stored, ImageHeader):
            frames = self._source.frames(key, known)
            return (frames if pick is None else PickedFrames(frames, pick)), camera.stored, camera.unit
        video = replace(self._source.video(key, known), pick=pick)
        return clip_of(video, self._source.fps), None, None

    def _pick(self, key: str) -> Pick | None:
        """Return which of the source's frames were kept, if the frame rate was lowered; otherwise None."""
        new, before = self._layout.fps, self._layout.block(key).get("video.source_fps")
        if new is None or before is None or parse_fps(before) != self._source.fps:
            return None
        return Pick(self._source.fps, parse_fps(new)) if parse_fps(new) < self._source.fps else None

    def transform(self, key: str, block: Mapping[str, Any]) -> Transform | None:
        """Return the changes of a camera's frames since the source; None: unchanged.

        Args:
            key: the camera.
            block: ``info`` block of the compared camera. The frames are unchanged if the source's block
                lists the same changes.

        Raises:
            ConfigError: the block's entry is invalid.
        """
        transform = Transform.from_block(block)
        return None if Transform.from_block(self._cameras[key].block) == transform else transform


def compare_file(
    video: VideoFile,
    seen: Seen,
    source: Source,
    faults: Faults,
    *,
    layout: Layout,
    listing: Listing,
    max_depth_error: float | None,
    candidates: Sequence[Toolchain],
    on_frames: Any,
    cancellation: Cancellation,
) -> list[tuple[int, Comparison]]:
    """Compare the episodes of one file; return the index and the comparison of each.

    ``max_depth_error`` is the greatest accepted error of depth in millimetres; None: :func:`accepted_error`.
    """
    assert video.camera is not None
    found = []
    times = frame_times(seen.info)
    for at in video.episodes:
        episode, frames = int(listing.index[at]), int(listing.length[at])
        where: dict[str, Any] = {"file": video.place, "camera": video.camera, "episode": episode}
        start = float(listing.videos[video.camera].start[at])
        if not math.isfinite(start):
            continue  # reported when the list was read
        first = frames_at(times, start)
        try:
            reference, header, unit = source.reference(video.camera, episode)
            quantizer = None
            if is_depth(layout, video.camera) and seen.info.pix_fmt == "gray12le":
                quantizer = DepthQuantizer.from_video_info(layout.block(video.camera))
            compared = compare_episode(
                Clip(video.path, seen.info, first, frames),
                reference,
                header=header,
                quantizer=quantizer,
                unit=unit,
                transform=source.transform(video.camera, layout.block(video.camera)),
                on_frames=on_frames(),
                cancellation=cancellation,
                candidates=candidates,
            )
        except (SourceError, ConfigError, TypeError) as error:
            faults.add("differs", f"cannot be compared: {reason_of(error)}", fix=_ITS_SOURCE, **where)
            continue
        except FfmpegError as error:
            if error.unable:
                raise
            faults.add("differs", f"cannot be compared: {error.cause}", fix=_ITS_SOURCE, **where)
            continue
        found.append((episode, compared))
        limit = accepted_error(quantizer) if max_depth_error is None else max_depth_error
        lossless = _is_lossless(layout, video.camera, seen.info)
        _judge(compared, limit, faults, where, lossless=lossless)
    return found


def _judge(
    compared: Comparison, limit: float, faults: Faults, where: Mapping[str, Any], *, lossless: bool
) -> None:
    """Find the faults that the comparison of an episode shows.

    Args:
        compared: the comparison.
        limit: greatest accepted error of depth in millimetres.
        faults: faults are added to it.
        where: place of the episode, for faults.
        lossless: the settings are those of lossless depth.
    """
    if compared.psnr_min < _ANOTHER_PICTURE and compared.differing is None:
        what = f"is a different picture from the source's: PSNR {compared.psnr_min:.1f} dB"
        faults.add("differs", what, frame=compared.worst, **where)
    # A neighbouring code is accepted: LeRobot's codes depend on the machine's logarithm.
    if lossless and (compared.max_steps or 0) > 1:
        what = (
            f"{compared.differing} depth samples differ from the source's, by up to "
            f"{compared.max_difference:.0f} mm, though the settings are lossless"
        )
        faults.add("differs", what, frame=compared.worst, **where)
    elif compared.max_difference is not None and compared.max_difference > limit + _ROUNDING:
        what = (
            f"depth is up to {compared.max_difference:.1f} mm off its source's, more than the "
            f"{limit:.1f} mm accepted; {compared.mean_difference:.2f} mm on average"
        )
        faults.add("depth-error", what, frame=compared.farthest, **where)


def accepted_error(quantizer: DepthQuantizer | None) -> float:
    """Return the default of the accepted error of depth in millimetres: the widest step of the codes."""
    return 1.0 if quantizer is None else quantizer.steps_mm()[1]


def _is_lossless(layout: Layout, key: str, info: StreamInfo) -> bool:
    """Return whether a depth camera's settings are lossless."""
    if info.pix_fmt not in DEPTH_FORMATS:
        return False
    options = layout.block(key).get("video.extra_options")
    bits = pixel_format(info.pix_fmt).bits
    rows = [row for row in CODECS.values() if row.stream == info.codec]
    return any(row.lossless(options if isinstance(options, dict) else {}, bits) for row in rows)


def together(compared: Sequence[tuple[int, Comparison]]) -> CameraComparison | None:
    """Return the comparison over all compared episodes of a camera; None if no episode was compared."""
    if not compared:
        return None
    frames = np.array([one.frames for _, one in compared])
    # PSNR is computed from the mean of the squared errors.
    errors = np.array([10 ** (-one.psnr_mean / 10) for _, one in compared])
    error = float((errors * frames).sum() / frames.sum())
    worst = min(compared, key=lambda pair: pair[1].psnr_min)
    dimmest = min(compared, key=lambda pair: -math.inf if math.isnan(pair[1].ssim_min) else pair[1].ssim_min)
    differing = [one.differing for _, one in compared if one.differing is not None]
    farthest = max(
        (one for one in compared if one[1].max_difference is not None),
        key=lambda pair: pair[1].max_difference or 0,
        default=None,
    )
    depth: dict[str, Any] = {}
    if farthest is not None:
        means = np.array([one.mean_difference or 0 for _, one in compared])
        depth = {
            "differing": sum(differing),
            "max_difference": farthest[1].max_difference,
            "mean_difference": float((means * frames).sum() / frames.sum()),
            "farthest": (farthest[0], farthest[1].farthest),
        }
    return CameraComparison(
        frames=int(frames.sum()),
        psnr_mean=-10 * math.log10(error) if error else math.inf,
        psnr_min=worst[1].psnr_min,
        psnr_worst=(worst[0], worst[1].worst),
        ssim_mean=float((np.array([one.ssim_mean for _, one in compared]) * frames).sum() / frames.sum()),
        ssim_min=dimmest[1].ssim_min,
        ssim_worst=(dimmest[0], dimmest[1].ssim_worst),
        **depth,
    )


def without_infinity(compared: Mapping[str, Any]) -> dict[str, Any]:
    """Return a comparison's fields for JSON, with None for infinity and NaN."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in compared.items()
    }
