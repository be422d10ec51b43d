"""ffenc's options inside LeRobot, and the conversion of LeRobot's encoder settings."""

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
# LeRobot's default for depth, which only x265 accepts; every other codec has its own lossless setting.
_X265_LOSSLESS = {"x265-params": "lossless=1"}


class Options(Struct, frozen=True):
    """How ffenc encodes inside LeRobot.

    Attributes:
        on_full: what to do with a frame if as many frames as allowed are waiting for the encoder: ``repeat``
            stores the previous frame again, ``block`` waits.
        preset: encoder settings of each camera; None: LeRobot's own settings.
    """

    on_full: OnFull = "repeat"
    preset: RobotPreset | None = None

    def settings(self, key: str, config: Any) -> VideoEncoderConfig:
        """Return the encoder settings of a camera.

        Args:
            key: its feature.
            config: LeRobot's settings for it.

        Raises:
            ConfigError: the camera is depth in the preset and colour in LeRobot, or the reverse.
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
        """Return the encoder settings of a camera as LeRobot's settings, for ``info.json``.

        Args:
            key: its feature.
            config: LeRobot's settings, which are used without a preset.
        """
        if self.preset is None or config is None:
            return config
        settings = self.settings(key, config).resolve(config.vcodec)
        names = set(asdict(config))
        return type(config)(**{name: getattr(settings, name) for name in names})


def read_options(
    on_full: str | None, preset: str | Path | RobotPreset | None, overrides: Sequence[tuple[KeyPath, Any]]
) -> Options:
    """Check the arguments of :func:`ffenc.lerobot.use`, and read defaults from the environment and preset.

    Raises:
        ConfigError: an invalid value, or a preset that cannot be used.
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
    """Return whether LeRobot's settings are for a depth camera."""
    return hasattr(config, "depth_min")


def settings_of(config: Any) -> VideoEncoderConfig:
    """Convert LeRobot's encoder settings to ffenc's.

    Settings without effect are ignored, as in LeRobot. Depth codes are exactly those of LeRobot.

    Args:
        config: LeRobot's ``VideoEncoderConfig`` or one of its subclasses.

    Raises:
        ConfigError: a setting that no encoder on this machine accepts.
    """
    values = asdict(config)
    if not is_depth(config):
        return VideoEncoderConfig.in_force(values)
    if values["extra_options"] == _X265_LOSSLESS and values["vcodec"] != "hevc":
        del values["extra_options"]
        if values["vcodec"] == "auto":  # the selected encoder is lossless as well, without crf
            del values["crf"]
    return DepthEncoderConfig.in_force({**values, "invalid": "clip"})
