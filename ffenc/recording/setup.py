"""Preparation of a recording: sources of the cameras, open cameras, and the preset with their sizes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from ffenc.config.framerate import parse_fps
from ffenc.config.matching import check_added, check_encoders, check_named, named
from ffenc.config.plain_yaml import KeyPath
from ffenc.config.preset import CameraPreset, RobotPreset, camera_name, load_preset
from ffenc.config.source import CameraSource
from ffenc.errors import ConfigError
from ffenc.recording.cameras import Camera, open_camera
from ffenc.spelling import argument

_RECORDINGS = (".db3", ".bag")
_DEPTH = "+depth"
# These sources provide the requested size; every USB camera supports the usual one.
_SIZED, _USUAL_SIZE = ("v4l2", "test"), (640, 480)
_ACCEPTED = "test, /dev/video0 or its number, realsense, realsense:SERIAL, a .db3 or .bag recording, a folder"

Overrides = Sequence[tuple[KeyPath, Any]]


class Chosen(Struct, frozen=True):
    """The cameras of a recording.

    Attributes:
        preset: with a source for each camera, or for the one that provides its depth.
        build: returns the preset with additional overrides.
    """

    preset: RobotPreset
    build: Callable[[Overrides], RobotPreset]

    def known(self) -> OpenCameras | None:
        """Return the result of opening the cameras if it is known without opening; otherwise None."""
        cameras = self.preset.cameras
        if not all(_is_sized(camera) and camera.width and camera.height for camera in cameras.values()):
            return None
        jpeg = {name for name, camera in cameras.items() if _is_jpeg(camera.source)}
        return OpenCameras((), self.preset, frozenset(jpeg))


class OpenCameras(Struct, frozen=True):
    """Open cameras.

    Attributes:
        cameras: all cameras.
        preset: with the size of every stream.
        jpeg: the streams that are JPEG images.
    """

    cameras: Sequence[Camera]
    preset: RobotPreset
    jpeg: frozenset[str]

    @property
    def paced(self) -> bool:
        """Whether they have to be recorded in real time."""
        return any(camera.paced for camera in self.cameras)


def parse_source(text: str) -> dict[str, Any]:
    """Parse a camera's source from the command line.

    Args:
        text: ``test``; a V4L2 device, ``/dev/video0`` or ``0``; ``realsense`` or ``realsense:SERIAL``, or a
            recording of one (``.db3``, ``.bag``), each with ``+depth`` at the end to record its depth too; or
            a folder of frames.

    Returns:
        The value of ``source`` in a preset.

    Raises:
        ConfigError: the text is none of these.
    """
    plain = text.removesuffix(_DEPTH)
    depth = {"use_depth": True} if plain != text else {}
    if plain == "realsense" or plain.startswith("realsense:"):
        serial = plain.partition(":")[2]
        return {"type": "realsense", **({"serial": serial} if serial else {}), **depth}
    if plain.endswith(_RECORDINGS):
        return {"type": "realsense", "file": plain, **depth}
    if text == "test":
        return {"type": "test"}
    if re.fullmatch(r"\d+", text, re.ASCII):
        return {"type": "v4l2", "device": f"/dev/video{int(text)}"}
    if text.startswith("/dev/"):
        return {"type": "v4l2", "device": text}
    if Path(text).is_dir():
        return {"type": "folder", "path": text}
    if depth:
        raise ConfigError(f"{text!r}: {_DEPTH} applies only to a realsense camera or its recording")
    raise ConfigError(f"{text!r} is neither an existing folder nor another source; accepted are {_ACCEPTED}")


def choose_cameras(
    preset: str | Path | None,
    overrides: Overrides = (),
    *,
    sources: Mapping[str, Mapping[str, Any]] | None = None,
    test: bool = False,
) -> Chosen:
    """Determine the source of each camera.

    Args:
        preset: name or path, as for :func:`ffenc.load_preset`.
        overrides: settings that take precedence over the preset.
        sources: camera -> its source, instead of the preset's; unknown cameras are added. If it is given,
            cameras without any source are dropped.
        test: cameras that are not in ``sources`` show a test pattern, whatever the preset says.

    Raises:
        ConfigError: a setting is not accepted, a camera has no source, or no camera is left.
    """
    sources = {camera_name(name): dict(source) for name, source in (sources or {}).items()}
    given: list[tuple[KeyPath, Any]] = [
        *overrides,
        *((("cameras", name, "source"), source) for name, source in sources.items()),
    ]
    _check_names(preset, overrides, sources)
    robot = load_preset(preset, given)
    depth = {f"{name}_depth": name for name, camera in robot.cameras.items() if _gives_depth(camera.source)}
    for name, giver in depth.items():
        known = robot.cameras.get(name)
        if known is None:
            given.append((("cameras", name, "depth"), True))
        elif known.source is not None or not known.depth:
            raise ConfigError(
                f"camera {giver} gives the depth of camera {name}, which has "
                + ("a source of its own" if known.source is not None else "no depth: true")
            )
    without = [name for name, camera in robot.cameras.items() if camera.source is None and name not in depth]
    if test:
        own = {*sources, *(name for name, giver in depth.items() if giver in sources)}
        shown = [name for name in dict.fromkeys((*robot.cameras, *depth)) if name not in own]
        given += [(("cameras", name, "source"), {"type": "test"}) for name in shown]
    elif sources:
        given += [(("cameras", name), None) for name in without]
    elif without:
        raise ConfigError(
            f"{robot.name}: no source of frames is set for {', '.join(without)}; pass "
            f"{argument('sources', {without[0]: '/dev/video0'})} for each, write source: "
            f"{{type: v4l2, device: /dev/video0}} into the preset, or use test frames with "
            f"{argument('test', True)}"
        )
    robot = load_preset(preset, given)
    for name, camera in robot.cameras.items():
        if _is_sized(camera) and camera.width is None and camera.height is None:
            width, height = _USUAL_SIZE
            given += [(("cameras", name, "width"), width), (("cameras", name, "height"), height)]
    robot = load_preset(preset, given)
    if not robot.cameras:
        raise ConfigError(
            f"{robot.name} has no cameras: add one with {argument('sources', {'front': '/dev/video0'})}"
        )
    check_encoders(robot, overrides)
    _check_video(robot, overrides)
    return Chosen(robot, lambda more: load_preset(preset, [*given, *more]))


def _check_video(robot: RobotPreset, overrides: Overrides) -> None:
    """Refuse settings of encoders in a recording of images."""
    for key, value in overrides if not robot.video else ():
        if (
            key[0] in ("camera_encoder", "depth_encoder", "encoder_threads", "encoder_cpus")
            or (key[0] == "cameras" and key[2:3] == ("encoder",))
            or (key, value) == (("encode",), "live")
        ):
            name = argument("dataset.streaming_encoding", "true") if key == ("encode",) else named(key)
            raise ConfigError(
                f"{name} would have no effect: with video: false the frames are stored as images; leave it "
                "out"
            )


def _check_names(
    preset: str | Path | None, overrides: Overrides, sources: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse settings of cameras that are not recorded, and new cameras with nearly the name of another."""
    # Cameras that are given as a whole may contain a frame rate, which has to be the recording's.
    whole = [(key, value) for key, value in overrides if key in (("cameras",), ("fps",))]
    names = list(load_preset(preset, whole).cameras)
    where = str(preset) if preset is not None else "the defaults"
    source = (("source",), ("source", "type"))
    given = {key[1] for key, _ in overrides if key[0] == "cameras" and key[2:] in source}
    added = [*sources, *sorted(given)]
    for name in added:
        check_added(name, names, where)
    # A RealSense camera may also provide NAME_depth.
    depth = [f"{name}_depth" for name in (*names, *added)]
    known = [*names, *(name for name in added if name not in names)]
    check_named([(key, v) for key, v in overrides if key[1:2] != () and key[1] not in depth], known, where)


def _depth_of(robot: RobotPreset, name: str) -> CameraPreset:
    """Return the camera that determines a depth unit: NAME_depth for a camera that provides both."""
    preset = robot.cameras[name]
    return robot.cameras[f"{name}_depth"] if _gives_depth(preset.source) else preset


def _is_jpeg(source: CameraSource | None) -> bool:
    return source is not None and source.type == "v4l2" and source.pixels == "mjpeg"


def _is_sized(camera: CameraPreset) -> bool:
    return camera.source is not None and camera.source.type in _SIZED


def _gives_depth(source: CameraSource | None) -> bool:
    return source is not None and source.use_depth


@contextmanager
def open_cameras(chosen: Chosen, ffmpeg: str | None = None) -> Iterator[OpenCameras]:
    """Open every camera, until the block ends.

    Args:
        chosen: the cameras.
        ffmpeg: the program that reads a V4L2 camera; None: the first that is found.

    Raises:
        CameraError: a camera cannot be opened.
        ConfigError: a camera provides other frames than the preset requires.
    """
    robot = chosen.preset
    fps = parse_fps(robot.fps)
    with ExitStack() as resources:
        cameras: list[Camera] = []
        settled: list[tuple[KeyPath, Any]] = []
        jpeg = set()
        for name, preset in robot.cameras.items():
            if preset.source is None:
                continue  # another camera provides it
            camera = open_camera(
                name,
                preset.source,
                width=preset.width,
                height=preset.height,
                fps=fps,
                depth=preset.depth,
                depth_unit=_depth_of(robot, name).depth_unit,
                ffmpeg=ffmpeg,
            )
            resources.callback(camera.close)
            camera.open()
            for stream in camera.streams:
                own = robot.cameras[stream.name]
                for what, said, found in (
                    ("width", own.width, stream.width),
                    ("height", own.height, stream.height),
                ):
                    if said not in (None, found):
                        raise ConfigError(
                            f"camera {stream.name}: its frames are {stream.width}x{stream.height}, and its "
                            f"{what} is {said}: set {what}: {found}, or leave it out"
                        )
                settled += [
                    (("cameras", stream.name, "width"), stream.width),
                    (("cameras", stream.name, "height"), stream.height),
                ]
                jpeg |= {stream.name} if stream.format == "jpeg" else set()
            cameras.append(camera)
        if any(camera.live for camera in cameras) and "on_full" not in robot.given:
            # The robot moves on whether the recorder waits or not, and a dropped row would be a jump in its
            # motion.
            settled.append((("on_full",), "repeat"))
        yield OpenCameras(cameras, chosen.build(settled), frozenset(jpeg))
