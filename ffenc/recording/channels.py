"""Cameras of a recording: trials of their settings, and memory for their frames."""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import psutil

from ffenc.codecs.pixel_formats import pixel_format
from ffenc.codecs.table import codec_for
from ffenc.compiler.command import check_size
from ffenc.compiler.frames import FrameFormat, raw_format
from ffenc.config.encoder import DepthEncoderConfig
from ffenc.config.preset import CameraPreset, RobotPreset, camera_key
from ffenc.config.transform import Transform
from ffenc.dataset.info_block import encoding_block
from ffenc.errors import ConfigError
from ffenc.ffmpeg.toolchain import toolchains
from ffenc.frames.depth import Unit
from ffenc.frames.prepare import Absent, prepare
from ffenc.recording.feed import FrameRing
from ffenc.recording.take import Channel
from ffenc.recording.trial import trial_frames, untried
from ffenc.recording.unfinished import (
    RecordedCamera,
    Way,
)


def prepared_channels(
    robot: RobotPreset,
    fps: Fraction,
    jpeg: Collection[str],
    *,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
) -> dict[str, Channel]:
    """Try every camera's settings, and allocate the memory for its frames.

    Args:
        robot: the preset; its cameras have a width and a height.
        fps: frames per second.
        jpeg: cameras that provide JPEG images, by short name.
        ffmpeg, ffprobe: programs to use instead of those that are found.

    Raises:
        ConfigError: settings that cannot be encoded, or more memory than is available.
        ToolchainError: no FFmpeg on this machine can do it.
    """
    channels: dict[str, Channel] = {}
    candidates = toolchains(ffmpeg, ffprobe)
    absent: Absent = {}
    way: Way = "images" if not robot.video else robot.encode
    for name, preset in robot.cameras.items():
        assert preset.width is not None
        assert preset.height is not None
        size = preset.width, preset.height
        depth = isinstance(preset.encoder, DepthEncoderConfig)
        unit: Unit | None = preset.depth_unit if depth else None
        frames: FrameFormat = "jpeg" if name in jpeg else raw_format(preset.encoder)
        encoded: FrameFormat = frames if depth or way == "live" else "png"
        try:
            transform = _transform(preset.transform, size, way)
            stored = size if transform is None else transform.size(*size)
            if way != "images":
                check_size(preset.encoder, *stored, transform, name if len(robot.cameras) > 1 else None)
            encoding = (
                untried(preset.encoder, size, fps, encoded, candidates[0])
                if way == "images"
                else prepare(
                    preset.encoder,
                    trial_frames(*(stored if depth else size), encoded),
                    width=preset.width,
                    height=preset.height,
                    fps=fps,
                    frames=encoded,
                    encoder_threads=robot.encoder_threads,
                    candidates=candidates,
                    absent=absent,
                    transform=transform,
                )
            )
        except ConfigError as error:
            raise error.within(f"camera {name}") from None
        config = encoding.config
        camera = RecordedCamera(
            camera_key(name),
            *size,
            unit,
            way,
            config,
            encoding_block(encoding, unit),
            codec_for(config.vcodec).stream,
            pixel_format(config.pix_fmt).stored,
            transform,
        )
        channels[name] = Channel(name, camera, encoding, frames, _ring(robot, preset, frames))
    return channels


def _ring(robot: RobotPreset, preset: CameraPreset, frames: FrameFormat) -> FrameRing:
    assert preset.width is not None
    assert preset.height is not None
    shape: tuple[int, ...] = (preset.height, preset.width)
    dtype: npt.DTypeLike = np.uint8
    if preset.depth:
        dtype = np.float32 if preset.depth_unit == "m" else np.uint16
    elif frames == "jpeg":
        shape = (preset.height * preset.width * 3,)
    else:
        shape = (*shape, 3)
    size = robot.queue_maxsize * int(np.prod(shape)) * np.dtype(dtype).itemsize
    check_memory(f"queue_maxsize={robot.queue_maxsize}", size, len(robot.cameras))
    return FrameRing(shape, dtype, robot.queue_maxsize, encoded=frames == "jpeg")


def check_memory(setting: str, size: int, cameras: int = 1) -> None:
    """Refuse a queue that does not fit into the available memory, if the system says how much that is.

    Args:
        setting: what it is set by, for the error.
        size: its bytes.
        cameras: number of cameras that have such a queue.

    Raises:
        ConfigError: it does not fit.
    """
    try:
        there = psutil.virtual_memory().available // cameras
    except OSError:  # a container without /proc
        return
    if size > there:
        raise ConfigError(
            f"{setting} takes {size >> 20} MiB of memory per camera; {there >> 20} MiB are available"
        )


def _transform(transform: Transform | None, size: tuple[int, int], way: Way) -> Transform | None:
    """Return the transform of a camera's frames; None if it changes nothing.

    Raises:
        ConfigError: it cannot be applied to frames of this size, or the frames stay images.
    """
    if transform is None or not transform.of(*size).changes:
        return None
    if way == "images":
        raise ConfigError(
            f"{transform}: would have no effect, because its frames are stored as images (video: "
            "false); transform the dataset afterwards with ffenc edit or ffenc reencode"
        )
    return transform
