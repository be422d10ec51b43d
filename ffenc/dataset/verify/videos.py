"""Check a camera's video files against info.json and the episode list, without decoding them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from ffenc.config.framerate import parse_fps, time_scale
from ffenc.dataset.info_block import stream_fields
from ffenc.dataset.verify.faults import Faults
from ffenc.dataset.verify.layout import Floats, Layout, Listing, reason_of
from ffenc.errors import ConfigError, SourceError
from ffenc.ffmpeg.boxes import missing_bytes
from ffenc.ffmpeg.probe import StreamInfo, probe
from ffenc.frames.depth import DepthQuantizer
from ffenc.frames.stream import DEPTH_FORMATS
from ffenc.layout import INFO, LEROBOTS_BACKEND, TIME_TOLERANCE, frame_size, says_depth
from ffenc.words import count

_QUANTISER = ("depth_min", "depth_max", "shift", "use_log")
# The codecs for which LeRobot creates an encoder config when it opens a depth dataset.
_LEROBOTS_DEPTH = ("h264", "hevc", "av1", "libsvtav1", "libaom-av1")


class VideoFile(Struct, frozen=True):
    """A video file, and the episodes that it should contain.

    Attributes:
        path: path of the file; ``place`` is its path in the dataset.
        camera: its feature; None for a single file.
        episodes: positions in the list, in its order; empty for a single file.
    """

    path: Path
    place: str
    camera: str | None
    episodes: tuple[int, ...] = ()


class Seen(Struct, frozen=True):
    """The fields of a readable file.

    Attributes:
        info: its stream fields.
        deviation: greatest distance of a frame from its time on the grid, in seconds.
        whole: it has as many frames as its episodes.
    """

    info: StreamInfo
    deviation: float
    whole: bool


def video_files(layout: Layout, listing: Listing) -> list[VideoFile]:
    """Return the files of all cameras according to the episode list."""
    found = []
    for key in layout.videos:
        places = listing.videos.get(key)
        files: dict[str, list[int]] = {}
        for at, place in enumerate(places.files if places else []):
            if place:
                files.setdefault(place, []).append(at)
        found += [VideoFile(layout.root / place, place, key, tuple(own)) for place, own in files.items()]
    return found


def check_feature(layout: Layout, key: str, faults: Faults) -> None:
    """Check what ``info.json`` says of a video camera, without its files."""
    block = layout.block(key)
    place = INFO
    if not block:
        faults.add("video-block", "has no info block that describes the stream", file=place, camera=key)
    if not is_depth(layout, key):
        return  # whether the files contain depth is checked with the files
    backend = block.get("video.video_backend")
    if backend not in (None, LEROBOTS_BACKEND):
        only = f"LeRobot opens a depth dataset only where it is {LEROBOTS_BACKEND!r}"
        what, fix = f"video.video_backend is {backend!r}; {only}", "set it there; the videos need no change"
        faults.add("depth", what, file=place, camera=key, fix=fix)
    codec = block.get("video.codec")
    if isinstance(codec, str) and codec not in _LEROBOTS_DEPTH and "_" not in codec:
        what = f"is {codec}, which ffenc reads and LeRobot does not, because it supports other depth codecs"
        faults.add("depth-codec", what, file=place, camera=key)
    if block.get("video.pix_fmt") == "gray16le":
        return
    missing = [f"video.{name}" for name in _QUANTISER if block.get(f"video.{name}") is None]
    fix = "write how depth was quantised; without it the codes cannot be converted back to depth"
    if missing:
        what = f"has no {', '.join(missing)}: readers assume LeRobot's defaults"
        faults.add("depth-defaults", what, file=place, camera=key)
    try:
        DepthQuantizer.from_video_info(block)
    except (ConfigError, TypeError) as error:
        faults.add("depth", reason_of(error), file=place, camera=key, fix=fix)


def is_depth(layout: Layout, key: str) -> bool:
    """Return whether ``info.json`` marks a feature as depth."""
    return says_depth(layout.block(key))


def check_video(
    video: VideoFile,
    faults: Faults,
    *,
    layout: Layout | None = None,
    listing: Listing | None = None,
    ffprobe: str | None = None,
    known: StreamInfo | None = None,
) -> Seen | None:
    """Check one file.

    Args:
        video: the file.
        faults: faults are added to it.
        layout, listing: of its dataset; None for a single file.
        ffprobe: the program.
        known: its stream fields, if it was already read back and every frame is at exactly its index / fps.

    Returns:
        Its fields; None if it cannot be read.
    """
    where: dict[str, Any] = {"file": video.place, "camera": video.camera}
    if known is None and not video.path.is_file():
        whose = ""
        if listing is not None and video.episodes:
            numbers = listing.index[list(video.episodes)]
            whose = f"; episodes {numbers[0]} to {numbers[-1]} should be in it"
        faults.add("video-missing", f"is missing{whose}", **where)
        return None
    try:
        missing = 0 if known else missing_bytes(video.path)
        info = known or probe(video.path, times=True, ffprobe=ffprobe)
    except (SourceError, OSError) as error:
        reason = reason_of(error).removeprefix(f"{video.path} ")  # the fault has the file's name
        faults.add("video-unreadable", f"{reason}; it is truncated, or not a video", **where)
        return None
    assert info.key_frames is not None
    if missing:
        faults.add("video-cut", f"is cut short: {missing:,} bytes are missing at its end", **where)
    if not info.frames:
        faults.add("frame-count", "has no frames", **where)
        return None
    fps = layout.fps if layout is not None else info.fps
    times = frame_times(info)
    deviation = _check_times(times, info.fps, fps, faults, where)
    whole = True
    missed = [frame for frame in info.missed or () if frame < info.frames]
    if missed:
        many = f" ({len(missed)} frames are)" if len(missed) > 1 else ""
        what = (
            "is lost to a reader that seeks to it, as LeRobot's does: it enters the file at a key frame of "
            f"an open group, which needs the previous group{many}"
        )
        fix = None if layout is not None else "`ffenc encode FILE NEW` encodes it with closed groups"
        faults.add("open-groups", what, frame=missed[0], fix=fix, **where)
    if layout is not None and info.time_base != (scale := Fraction(1, time_scale(parse_fps(fps)))):
        what = (
            f"has the time base {info.time_base}: LeRobot cannot join it with other files, which have {scale}"
        )
        faults.add("time-scale", what, **where)
    if layout is not None and listing is not None and video.camera is not None:
        _check_fields(layout, video.camera, info, faults, where)
        lengths = listing.length[list(video.episodes)]
        whole = info.frames == lengths.sum()
        if not whole:
            what = f"has {info.frames} frames, its {len(lengths)} episodes have {lengths.sum()}"
            faults.add("frame-count", what, **where)
        _check_places(layout, listing, video, times, set(info.key_frames), faults, whole=whole)
    elif 0 not in info.key_frames and not info.hidden:  # the key frame can be a hidden one
        faults.add("key-frame", "its first frame is no key frame", frame=0, **where)
    if info.hidden:
        what = f"{count(info.hidden, 'frame')} stored in it but hidden by an edit list: no reader shows them"
        faults.add("hidden-frames", what, **where)
    return Seen(info, deviation, whole and not missing)


def _check_times(
    times: Floats, average: Fraction, fps: Fraction, faults: Faults, where: Mapping[str, Any]
) -> float:
    """Check that every frame is at its index / fps; return the greatest deviation in seconds."""
    if average <= 0 or fps <= 0:
        faults.add("frame-rate", "has no frame rate", **where)
        return 0.0
    off = np.abs(times - np.arange(len(times)) / float(fps))
    wrong = np.flatnonzero(off > TIME_TOLERANCE)
    if wrong.size:
        at = int(wrong[0])
        many = f" ({wrong.size} frames are off, by up to {off.max() * 1000:.3f} ms)" if wrong.size > 1 else ""
        expected = f"{at}/{float(fps):.6g} = {at / float(fps):.6f} s"
        faults.add("frame-times", f"is at {times[at]:.6f} s, not at {expected}{many}", frame=at, **where)
    numbers = np.arange(len(times))
    missed = np.flatnonzero(np.rint(numbers / float(fps) * float(average)) != numbers)
    if missed.size:
        what = f"its average rate is {float(average):.6g}, not {float(fps):.6g}: LeRobot would show another "
        faults.add("frame-rate", f"{what}frame than {missed[0]} for it", **where)
    return float(off.max())


def _check_fields(
    layout: Layout, key: str, info: StreamInfo, faults: Faults, where: Mapping[str, Any]
) -> None:
    block = layout.block(key)
    found = stream_fields(info)
    lost_depth = is_depth(layout, key) and info.pix_fmt not in DEPTH_FORMATS  # reported below
    for name, value in found.items():
        said = block.get(name)
        if name.startswith("audio.") or said is None or said == value or name == "video.fps":
            continue
        if lost_depth and name in ("video.pix_fmt", "video.channels"):
            continue
        faults.add("video-fields", f"info.json has {name} {said!r}, the file is {value!r}", **where)
    rate = block.get("video.fps")
    if rate is not None and not (isinstance(rate, int | float) and abs(rate - float(layout.fps)) < 1e-3):
        what = f"info.json has video.fps {rate!r}, the dataset's fps is {float(layout.fps):g}"
        faults.add("video-fields", what, **where)
    size = frame_size(layout.features[key])
    if size is not None and size != (info.width, info.height):
        what = f"info.json has shape {size[0]}x{size[1]}, the file is {info.width}x{info.height}"
        faults.add("video-fields", what, **where)
    if info.pix_fmt in DEPTH_FORMATS and not is_depth(layout, key):
        what = f"is {info.pix_fmt}, but meta/info.json does not mark {key} as depth: LeRobot shows it as RGB"
        faults.add("depth", what, fix='write "is_depth_map": true in its info block there', **where)
    if lost_depth:
        became = (
            "" if re.search(r"\d(le|be)$", info.pix_fmt) else ": 12-bit depth was silently stored as 8-bit"
        )
        what = f"is {info.pix_fmt}{became}"
        faults.add("depth", f"{what}", expected="gray12le or gray16le", **where)


def _check_places(
    layout: Layout,
    listing: Listing,
    video: VideoFile,
    times: Floats,
    keys: set[int],
    faults: Faults,
    *,
    whole: bool,
) -> None:
    """Check that each episode begins on a key frame, where the previous one ends."""
    assert video.camera is not None
    places = listing.videos[video.camera]
    fps = float(layout.fps)
    expected = 0.0
    for at in video.episodes:
        start, end, length = places.start[at], places.end[at], int(listing.length[at])
        where: dict[str, Any] = {
            "file": layout.list_place if not layout.old else video.place,
            "camera": video.camera,
            "episode": int(listing.index[at]),
        }
        if not (np.isfinite(start) and np.isfinite(end)):
            expected = float("nan")
            continue  # reported by the check of the list
        nearest = int(np.argmin(np.abs(times - start)))
        if start > times[-1] + TIME_TOLERANCE and not whole:
            pass  # its frames are the missing ones
        elif abs(times[nearest] - start) > TIME_TOLERANCE:
            what = (
                f"from_timestamp is {start:.6f} s; the nearest frame, {nearest}, is at {times[nearest]:.6f} s"
            )
            faults.add("episode-place", what, **where)
        elif nearest not in keys:
            faults.add("key-frame", f"its first frame, {nearest} in {video.place}, is no key frame", **where)
        if abs(end - start - length / fps) > TIME_TOLERANCE:
            what = (
                f"from_timestamp {start:.6f} to to_timestamp {end:.6f} is {(end - start) * fps:.2f} frames, "
                f"its length is {length}"
            )
            faults.add("episode-place", what, **where)
        if abs(start - expected) > TIME_TOLERANCE:
            due = f"{expected:.6f} s, the end of the previous episode in the file"
            faults.add("episode-place", f"from_timestamp is {start:.6f} s", expected=due, **where)
        expected = end


def frame_times(info: StreamInfo) -> Floats:
    """Return the time of every frame in seconds; index / fps if times are not listed."""
    if info.times is None:
        return np.asarray(np.arange(info.frames) / float(info.fps), np.float64)
    return np.asarray(np.array(info.times, np.int64) * float(info.time_base), np.float64)


def frames_at(times: npt.NDArray[np.float64], start: float) -> int:
    """Return the index of the frame nearest to a time."""
    return int(np.argmin(np.abs(times - start)))
