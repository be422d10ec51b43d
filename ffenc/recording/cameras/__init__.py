"""Cameras for recordings: devices, files and test patterns."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from ffenc.config.source import CameraSource
from ffenc.errors import ConfigError
from ffenc.frames.depth import Unit
from ffenc.recording.cameras.camera import Camera, CameraStream, CapturedFrame, NoFrame
from ffenc.recording.cameras.folder import Folder
from ffenc.recording.cameras.newest import Newest
from ffenc.recording.cameras.number import read_number
from ffenc.recording.cameras.realsense import RealsenseDevice
from ffenc.recording.cameras.realsense_file import RealsenseFile
from ffenc.recording.cameras.test_pattern import TestPattern
from ffenc.recording.cameras.v4l2 import V4l2

__all__ = ["Camera", "CameraStream", "CapturedFrame", "Newest", "NoFrame", "open_camera", "read_number"]

_TEST_SIZE = (640, 480)


def open_camera(
    name: str,
    source: CameraSource,
    *,
    width: int | None,
    height: int | None,
    fps: Fraction,
    depth: bool = False,
    depth_unit: Unit | None = "mm",
    ffmpeg: str | None = None,
) -> Camera:
    """Create the camera of a source, without opening it.

    Args:
        name: name of the camera, without ``observation.images.``.
        source: the source of its frames.
        width, height: frame size in pixels; None: that of the source (640x480 for a ``test`` camera).
        fps: frames per second.
        depth: a depth camera (``test`` and ``folder``; a RealSense camera provides depth in addition to
            colours).
        depth_unit: unit of depth frames: ``mm`` (also for None): uint16, ``m``: float32.
        ffmpeg: the program that reads a ``v4l2`` camera; None: the first that is found.

    Raises:
        ConfigError: the source does not support the request.
    """
    unit: Unit = depth_unit or "mm"
    if depth and source.type in ("v4l2", "realsense"):
        instead = (
            "a folder, or a RealSense camera"
            if source.type == "v4l2"
            else f"the colour camera's source with use_depth: true, which also gives {name}_depth"
        )
        raise ConfigError(f"cameras.{name}: type: {source.type} does not give depth by itself; use {instead}")
    if source.type == "test":
        size = (width or _TEST_SIZE[0], height or _TEST_SIZE[1])
        return TestPattern(name, width=size[0], height=size[1], depth=depth, depth_unit=unit)
    if source.type == "folder":
        assert source.path is not None
        folder = Path(source.path).expanduser()
        return Folder(name, folder, width=width, height=height, depth=depth, depth_unit=unit)
    if source.type == "v4l2":
        if width is None or height is None:
            raise ConfigError(f"cameras.{name}: a v4l2 camera needs width and height")
        return V4l2(
            name,
            source.device_path,
            width=width,
            height=height,
            fps=fps,
            pixels=source.pixels,
            ffmpeg=ffmpeg,
        )
    if source.file is not None:
        file = Path(source.file).expanduser()
        return RealsenseFile(
            name, file, width=width, height=height, fps=fps, use_depth=source.use_depth, unit=unit
        )
    return RealsenseDevice(
        name,
        serial=source.serial,
        width=width,
        height=height,
        fps=fps,
        use_depth=source.use_depth,
        unit=unit,
    )
