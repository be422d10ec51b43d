"""What ffenc does inside LeRobot, and what LeRobot's encoder settings are called here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from msgspec import Struct

from ffenc.codecs.suggest import accepted
from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.plain_yaml import KeyPath
from ffenc.config.preset import RobotPreset, camera_name, load_preset
from ffenc.errors import ConfigError
from ffenc.spelling import argument

OnFull = Literal["repeat", "block"]

ON_FULL_VARIABLE = "FFENC_ON_FULL"
# LeRobot's default of depth, which only x265 takes; every other codec has a lossless setting of its own.
_X265_LOSSLESS = {"x265-params": "lossless=1"}


class Options(Struct, frozen=True):
    """How ffenc encodes inside LeRobot.

    Attributes:
        on_full: what is done with a frame whose encoder is behind by as many frames as may wait: ``repeat``
            stores the frame before again, ``block`` waits.
        preset: encoder settings of each camera; None: LeRobot's own settings.
    """

    on_full: OnFull = "repeat"
    preset: RobotPreset | None = None

    def settings(self, key: str, config: Any) -> VideoEncoderConfig:
        """Return how a camera is encoded.

        Args:
            key: its feature.
            config: LeRobot's settings of it.

        Raises:
            ConfigError: the preset has the camera as depth and LeRobot as colours, or the other way round.
        """
        if self.preset is None:
            return settings_of(config)
        depth = is_depth(config)
        camera = self.preset.cameras.get(camera_name(key))
        if camera is None:
            return self.preset.depth_encoder if depth else self.preset.camera_encoder
        if isinstance(camera.encoder, DepthEncoderConfig) != depth:
            kinds = ("depth", "colours") if depth else ("colours", "depth")
            raise ConfigError(
                f"camera {camera_name(key)} gives {kinds[0]}, but preset {self.preset.name} has "
                f"it as {kinds[1]}: set depth: {str(depth).lower()} there"
            )
        return camera.encoder

    def of_camera(self, key: str, config: Any) -> Any:
        """Return LeRobot's settings that say how a camera is encoded, as ``info.json`` records them.

        Args:
            key: its feature.
            config: LeRobot's settings, which hold without a preset.
        """
        if self.preset is None or config is None:
            return config
        settings = self.settings(key, config).resolve(config.vcodec)
        names = set(asdict(config))
        return type(config)(**{name: getattr(settings, name) for name in names})


def read_options(
    on_full: str | None, preset: str | Path | RobotPreset | None, overrides: Sequence[tuple[KeyPath, Any]]
) -> Options:
    """Check what :func:`ffenc.lerobot.use` was given, and read what it was not.

    Raises:
        ConfigError: a value that is not accepted, or a preset that cannot serve.
    """
    robot = None
    if preset is not None:
        robot = preset if isinstance(preset, RobotPreset) else load_preset(preset, overrides)
        changed = [name for name, camera in robot.cameras.items() if camera.transform is not None]
        if changed:
            raise ConfigError(
                f"preset {robot.name} transforms the frames of {', '.join(changed)}, but "
                "LeRobot's dataset has the cameras' own size. Remove the transform, and use "
                "ffenc edit afterwards"
            )
        if robot.encode != "live" or not robot.video:
            raise ConfigError(
                f"preset {robot.name} does not encode during the recording (encode: {robot.encode}, video: "
                f"{str(robot.video).lower()}): use LeRobot's "
                f"{argument('dataset.streaming_encoding')} and {argument('dataset.video')} instead"
            )
    elif overrides:
        raise ConfigError(f"settings that override a preset need one; pass {argument('preset', 'NAME')}")
    where = "on_full"
    if on_full is None and (said := os.environ.get(ON_FULL_VARIABLE)):
        on_full, where = said, ON_FULL_VARIABLE
    if on_full is None and robot is not None and "on_full" in robot.given:
        on_full, where = robot.on_full, f"preset {robot.name}: on_full"
    if on_full == "drop":
        raise ConfigError(
            f"{where}=drop is not possible in LeRobot, whose row would be kept without a frame; "
            "use repeat or block"
        )
    if on_full is not None and on_full not in get_args(OnFull):
        raise ConfigError(f"{where}={on_full!r} is not accepted{accepted(on_full, get_args(OnFull))}")
    return Options("block" if on_full == "block" else "repeat", robot)


def is_depth(config: Any) -> bool:
    """Whether LeRobot's settings are a depth camera's."""
    return hasattr(config, "depth_min")


def settings_of(config: Any) -> VideoEncoderConfig:
    """Return LeRobot's encoder settings as ffenc has them.

    What would have no effect is left out, as LeRobot leaves it. Depth gets LeRobot's codes to the last one.

    Args:
        config: a ``VideoEncoderConfig`` of LeRobot's, or one of its subclasses.

    Raises:
        ConfigError: a setting that no encoder here takes.
    """
    values = asdict(config)
    if not is_depth(config):
        return VideoEncoderConfig.in_force(values)
    if values["extra_options"] == _X265_LOSSLESS and values["vcodec"] != "hevc":
        del values["extra_options"]
        if values["vcodec"] == "auto":  # whatever it becomes is lossless too, where crf means nothing
            del values["crf"]
    return DepthEncoderConfig.in_force({**values, "invalid": "clip"})
