"""The frames that settings are tested on: from a dataset, a tree of frames, or a video, camera by camera."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from fractions import Fraction
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field
from msgspec.structs import replace

from ffenc.compiler.quality import compile_rgb
from ffenc.config.framerate import parse_fps
from ffenc.config.mapping import SourceMapping, as_mapping
from ffenc.config.preset import camera_name, chosen_cameras
from ffenc.dataset.choice import Episodes, picked_episodes
from ffenc.dataset.lerobot_v3 import LeRobotV3
from ffenc.dataset.lerobot_v21 import LeRobotV21
from ffenc.dataset.model import Camera, EpisodeRef
from ffenc.dataset.source import DatasetSource
from ffenc.dataset.sources.array_source import ArraySource
from ffenc.dataset.sources.kind import Opening
from ffenc.dataset.sources.registry import kinds, open_source
from ffenc.dataset.videos import clip_of
from ffenc.errors import ConfigError, FfmpegError, SourceError, ToolchainError
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.frames.clip import Clip
from ffenc.frames.compare import reference_side
from ffenc.frames.depth_images import millimetres, read_alike
from ffenc.frames.encode import check_frames
from ffenc.frames.header import ImageHeader
from ffenc.frames.pictures import rgb_pictures
from ffenc.frames.reader import VideoReader
from ffenc.frames.sources import EncodedFrame, FrameSource, ImageFiles
from ffenc.frames.stream import DEPTH_FORMATS
from ffenc.frames.trim import frame_rate, trimmed
from ffenc.paths import regular
from ffenc.spelling import argument

Picture = npt.NDArray[Any]


class Footage(Struct, frozen=True):
    """The frames of one camera.

    Attributes:
        name: short name of the camera.
        key: its feature in a dataset; for a file the file's name.
        depth: it is a depth camera: frames are uint16 millimetres ``(H, W)``, 0 for no depth. Otherwise they
            are RGB as readers return it, uint8 ``(H, W, 3)``.
        width, height: in pixels.
        fps: frames per second.
        bytes_per_frame: mean stored size in the source.
        stored: description of the stored format: ``png`` or ``av1 yuv420p``.
        episodes: episode index -> length.
        read: yields ``count`` frames of an episode from ``first`` on.
        pick: yields an episode's frames at ascending indices.
        frames: returns an episode's frames as they are stored.
        header: header of the images; None for video.
        block: the feature's ``info`` block in ``info.json``.
    """

    name: str
    key: str
    depth: bool
    width: int
    height: int
    fps: Fraction
    bytes_per_frame: float
    stored: str
    episodes: dict[int, int]
    read: Callable[[int, int, int], Iterator[Picture]]
    pick: Callable[[int, Sequence[int]], Iterator[Picture]]
    frames: Callable[[int], Clip | FrameSource]
    header: ImageHeader | None = None
    block: Mapping[str, Any] = field(default_factory=dict)


def open_footage(
    source: Path,
    closing: ExitStack,
    *,
    fps: int | float | str | Fraction | None = None,
    cameras: Sequence[str] | None = None,
    episodes: Episodes | None = None,
    follow_links: bool = False,
    scattered: bool = False,
    on_damage: Callable[[int, str], None] | None = None,
    usual_fps: int | float | str | None = None,
    mapping: str | Path | SourceMapping | None = None,
    usual_mapping: SourceMapping | None = None,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
) -> list[Footage]:
    """Open a dataset, a tree of frames or a video file.

    Args:
        source: its path.
        closing: closes the opened files.
        fps: frame rate of a tree or recording, or of a video file whose frames are not evenly spaced; for a
            dataset it must equal its own.
        cameras, episodes: those to open, for a dataset or tree; None: all.
        follow_links: see :func:`~ffenc.paths.check_tree`.
        scattered: single frames will be read; PyAV is used for this if it is installed.
        on_damage: called with the index of an episode that is skipped in a LeRobot dataset, and the damage;
            None: damage of a selected episode is an error.
        usual_fps: frame rate of a tree or recording without one of its own.
        mapping: meaning of a recording's arrays or topics.
        usual_mapping: used if ``mapping`` is None and the source is such a recording.
        ffmpeg, ffprobe: programs to use instead of those that are found.

    Raises:
        SourceError: nothing can be read.
        ConfigError: an unknown camera or episode, or another frame rate.
    """
    readers = _Readers(closing, ffmpeg, ffprobe, scattered=scattered)
    if is_video_file(source):
        if cameras is not None or episodes is not None:
            raise ConfigError(f"{source} is one file; cameras and episodes can only be selected in a dataset")
        if mapping is not None:
            raise ConfigError(f"{argument('mapping')} does not apply to {source}, which is a video")
        path = regular(source)
        rate = None if fps is None else parse_fps(fps)
        clip = trimmed(path, ffmpeg=ffmpeg, ffprobe=ffprobe)
        return [_of_file(path, clip, rate or frame_rate(clip), readers)]
    names = None if cameras is None else tuple(cameras)
    partial = episodes is not None or on_damage is not None
    programs = ffmpeg, ffprobe

    def choose(known: Sequence[EpisodeRef]) -> list[EpisodeRef]:
        return picked_episodes(known, episodes, None)

    opening = Opening(
        fps=fps,
        usual_fps=usual_fps,
        cameras=names,
        follow_links=follow_links,
        partial=partial,
        choose=None if episodes is None or on_damage is not None else choose,
        mapping=as_mapping(mapping),
        usual_mapping=usual_mapping,
        programs=programs,
    )
    opened = open_source(source, opening)
    if fps is not None and parse_fps(fps) != opened.fps:
        raise ConfigError(
            f"{source} has {float(opened.fps):g} frames per second; leave {argument('fps')} out"
        )
    keys = [camera.key for camera in opened.cameras]
    wanted = chosen_cameras(keys, cameras) if cameras is not None else keys
    if not wanted:
        raise SourceError(f"{source}: has no cameras")
    chosen = choose(opened.episodes)
    if isinstance(opened, LeRobotV3 | LeRobotV21):
        damage = opened.damaged() if on_damage is not None else {}
        for episode in [episode for episode in chosen if episode.index in damage]:
            assert on_damage is not None
            on_damage(episode.index, damage[episode.index])
            chosen.remove(episode)
        opened.choose(chosen)
    elif isinstance(opened, ArraySource):
        opened.check(chosen)
    found = []
    for camera in opened.cameras:
        if camera.key not in wanted:
            continue
        if isinstance(camera.stored, ImageHeader):
            found.append(_of_images(opened, camera, chosen, toolchains(ffmpeg, ffprobe)))
        else:
            found.append(_of_video(opened, camera, chosen, readers))
    return found


def is_video_file(source: Path) -> bool:
    """Return whether a source is a single file, and not a recording."""
    return source.exists() and not source.is_dir() and not any(kind.recognises(source) for kind in kinds())


class _Readers:
    """Opens each video file once, as listing the times of a long file takes time."""

    def __init__(
        self, closing: ExitStack, ffmpeg: str | None, ffprobe: str | None, *, scattered: bool
    ) -> None:
        self._closing, self._programs, self._scattered = closing, (ffmpeg, ffprobe), scattered
        self._open: dict[Path, VideoReader] = {}

    def of(self, path: Path) -> VideoReader:
        if path not in self._open:
            ffmpeg, ffprobe = self._programs
            reader: VideoReader | None = None
            if self._scattered:
                with suppress(ConfigError, ToolchainError):  # not installed, or it cannot read this codec
                    reader = VideoReader(path, ffmpeg=ffmpeg, ffprobe=ffprobe, decoder="pyav")
            reader = reader or VideoReader(path, ffmpeg=ffmpeg, ffprobe=ffprobe)
            self._open[path] = self._closing.enter_context(reader)
        return self._open[path]


def _of_file(path: Path, clip: Clip, fps: Fraction, readers: _Readers) -> Footage:
    return _of_clips(path.stem, path.stem, clip.info, fps, {0: len(clip)}, lambda _: clip, readers)


def _of_video(
    source: DatasetSource, camera: Camera, episodes: Sequence[EpisodeRef], readers: _Readers
) -> Footage:
    assert isinstance(camera.stored, StreamInfo)
    by_number = {episode.index: episode for episode in episodes}

    @cache
    def clip(number: int) -> Clip:
        return clip_of(source.video(camera.key, by_number[number]), source.fps)

    lengths = {episode.index: episode.length for episode in episodes}
    name = camera_name(camera.key)
    found = _of_clips(name, camera.key, camera.stored, source.fps, lengths, clip, readers)
    size = source.camera_bytes(camera.key, episodes) / max(1, sum(lengths.values()))
    return replace(found, block=camera.block, bytes_per_frame=size)


def _of_clips(
    name: str,
    key: str,
    info: StreamInfo,
    fps: Fraction,
    lengths: dict[int, int],
    clip: Callable[[int], Clip],
    readers: _Readers,
) -> Footage:
    def pick(episode: int, frames: Sequence[int]) -> Iterator[Picture]:
        found = clip(episode)
        return readers.of(found.path).each([found.first + frame for frame in frames])

    def read(episode: int, first: int, count: int) -> Iterator[Picture]:
        found = clip(episode)
        return readers.of(found.path).each(range(found.first + first, found.first + first + count))

    first = clip(next(iter(lengths))) if len(lengths) == 1 else None
    size = first.path.stat().st_size / max(1, first.info.frames) if first is not None else 0.0
    return Footage(
        *(name, key, info.pix_fmt in DEPTH_FORMATS, info.width, info.height, fps, size),
        *(f"{info.codec} {info.pix_fmt}", lengths, read, pick, clip),
    )


def _of_images(
    source: DatasetSource, camera: Camera, episodes: Sequence[EpisodeRef], programs: Sequence[Toolchain]
) -> Footage:
    header = camera.header
    by_number = {episode.index: episode for episode in episodes}

    def decoded(frames: Iterator[EncodedFrame]) -> Iterator[Picture]:
        if camera.depth:
            return (millimetres(read_alike(frame, header), camera.unit) for frame in frames)
        return _rgb(list(frames), header, programs)

    def read(number: int, first: int, count: int) -> Iterator[Picture]:
        return decoded(islice(iter(source.frames(camera.key, by_number[number])), first, first + count))

    def pick(number: int, wanted: Sequence[int]) -> Iterator[Picture]:
        frames = islice(iter(source.frames(camera.key, by_number[number])), max(wanted) + 1)
        return decoded(frame for at, frame in enumerate(frames) if at in wanted)

    total = sum(episode.length for episode in episodes)
    return Footage(
        camera_name(camera.key),
        camera.key,
        camera.depth,
        header.width,
        header.height,
        source.fps,
        source.camera_bytes(camera.key, episodes) / max(1, total),
        header.format,
        {episode.index: episode.length for episode in episodes},
        read,
        pick,
        lambda number: source.frames(camera.key, by_number[number]),
        header,
        camera.block,
    )


def _rgb(
    frames: Sequence[EncodedFrame], header: ImageHeader, programs: Sequence[Toolchain]
) -> Iterator[Picture]:
    """Decode images in the same way as for encoding."""
    side = reference_side(ImageFiles([]), header)
    errors: list[FfmpegError] = []
    for toolchain in programs:
        command = compile_rgb(side, program=toolchain.ffmpeg)
        fed = check_frames(frames, header)
        try:
            return iter(rgb_pictures(command, fed, len(frames), width=header.width, height=header.height))
        except FfmpegError as error:
            if error.unable:
                raise
            errors.append(error)
    names = f"{frames[0].name} to {frames[-1].name}"
    raise SourceError(f"{names}: one of these images cannot be decoded: {errors[-1].cause}; restore it")


def contiguous(pictures: Iterator[Picture], depth: bool) -> Iterator[Picture]:
    """Yield frames as contiguous arrays: RGB bytes, or little-endian 16-bit millimetres."""
    for picture in pictures:
        yield np.ascontiguousarray(picture, "<u2" if depth else np.uint8)
