"""Whether what is said of cameras reaches one: names that match nothing are refused with the nearest."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ffenc.codecs.suggest import accepted
from ffenc.config.plain_yaml import KeyPath
from ffenc.config.preset import RobotPreset
from ffenc.errors import ConfigError, FfencWarning
from ffenc.spelling import argument

_NEAR = 0.75  # how alike two names are of which one is taken for a slip of the other

Overrides = Sequence[tuple[KeyPath, Any]]


def named(key: KeyPath) -> str:
    """Return how a setting is named in a message."""
    return argument(".".join(key))


def check_overrides(
    overrides: Overrides, cameras: Mapping[str, bool], left_out: Collection[str] = ()
) -> None:
    """Refuse settings of cameras that frames which exist are not encoded with.

    Args:
        overrides: (key path, value) pairs, as for :func:`ffenc.load_preset`.
        cameras: those that are encoded, by short name, and whether each is depth.
        left_out: cameras that are there and are not chosen.

    Raises:
        ConfigError: a setting would have no effect; the text names it, and the nearest camera.
    """
    for key, _ in overrides:
        if key[0] == "cameras" and len(key) > 1:
            name = key[1]
            if name in left_out:
                raise ConfigError(f"{named(key)} would have no effect: camera {name!r} is left out")
            if name not in cameras:
                raise ConfigError(f"{named(key)}: there is no camera {name!r}{accepted(name, cameras)}")
            if key[2:3] not in (("encoder",), ("transform",)):
                raise ConfigError(
                    f"{named(key)} would have no effect: {'.'.join(key[2:])} is a setting for "
                    "recording, but these frames exist already; what can be set is "
                    f"{argument('cameras.NAME.encoder.FIELD')}, and "
                    "crop, rotate, flip, resize and pad"
                )
        elif key[0] in ("camera_encoder", "depth_encoder"):
            depth = key[0] == "depth_encoder"
            if depth not in cameras.values():
                kind = "a depth camera" if depth else "a camera of colours"
                raise ConfigError(
                    f"{named(key)} would have no effect: none of {', '.join(cameras)} is {kind}"
                )


def check_preset(preset: RobotPreset, cameras: Collection[str]) -> None:
    """Refuse a preset that has cameras of which none is there.

    Args:
        preset: the robot.
        cameras: those that are encoded, by short name.

    Raises:
        ConfigError: none is; the text names both, and the nearest.

    Warns:
        FfencWarning: of the cameras that are not in the preset and take its general settings.
    """
    if not preset.cameras:
        return
    unnamed = [name for name in cameras if name not in preset.cameras]
    if len(unnamed) == len(cameras):
        near = (pair for name in unnamed for pair in difflib.get_close_matches(name, preset.cameras, 1))
        question = "".join(f" (did you mean {name!r}?)" for name in list(near)[:1])
        raise ConfigError(
            f"preset {preset.name} is for cameras {', '.join(preset.cameras)}, none of which "
            f"exists; found {', '.join(unnamed)}{question}. Choose another preset, or write one "
            "with these cameras"
        )
    if unnamed:
        warnings.warn(
            f"preset {preset.name} does not name {', '.join(unnamed)}: its settings for all cameras are used "
            "for them",
            FfencWarning,
            stacklevel=3,
        )


def check_named(overrides: Overrides, names: Collection[str], where: str) -> None:
    """Refuse settings of a camera that a preset does not have.

    Args:
        overrides: (key path, value) pairs.
        names: the preset's cameras.
        where: the preset, for the error.

    Raises:
        ConfigError: there is no such camera; the text names the nearest.
    """
    for key, _ in overrides:
        if key[0] == "cameras" and len(key) > 1 and key[1] not in names:
            raise ConfigError(f"{named(key)}: {where} has no camera {key[1]!r}{accepted(key[1], names)}")


def check_added(name: str, names: Collection[str], where: str) -> None:
    """Refuse to add a camera whose name is nearly that of one that is there.

    Raises:
        ConfigError: it is; the text names that camera.
    """
    if name in names:
        return
    if near := difflib.get_close_matches(name, names, 1, _NEAR):
        raise ConfigError(
            f"{where} has no camera {name!r}; did you mean {near[0]!r}? Its cameras: "
            f"{', '.join(names)}. To add a camera with such a name, write it into your own preset"
        )
