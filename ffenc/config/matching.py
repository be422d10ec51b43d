"""Checks that settings of cameras apply to a camera; unknown names are refused with the nearest one."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ffenc.codecs.suggest import accepted
from ffenc.config.plain_yaml import KeyPath
from ffenc.config.preset import RobotPreset
from ffenc.errors import ConfigError, FfencWarning
from ffenc.layout import DEPTH_FIELDS
from ffenc.spelling import argument

_NEAR = 0.75  # similarity of two names above which one is assumed to be a misspelling of the other
# Settings of a preset that only a recording uses.
_OF_RECORDINGS = ("on_full", "queue_maxsize", "encode", "video", "encoder_niceness", "encoder_cpus")

Overrides = Sequence[tuple[KeyPath, Any]]


def named(key: KeyPath) -> str:
    """Return the name of a setting for messages."""
    return argument(".".join(key))


def check_overrides(
    overrides: Overrides, cameras: Mapping[str, bool], left_out: Collection[str] = ()
) -> None:
    """Refuse settings of cameras that are not encoded.

    Args:
        overrides: (key path, value) pairs, as for :func:`ffenc.load_preset`.
        cameras: cameras that are encoded, short name -> whether it is depth.
        left_out: existing cameras that are not selected.

    Raises:
        ConfigError: a setting without effect; the text names it and the nearest camera.
    """
    for key, _ in overrides:
        _check_kept(key, left_out)
        if key[0] in _OF_RECORDINGS:
            raise ConfigError(
                f"{named(key)} would have no effect: it is a setting for recording, but these frames exist "
                "already; leave it out"
            )
        if key[0] == "cameras" and len(key) > 1:
            name = key[1]
            if name not in cameras:
                raise ConfigError(f"{named(key)}: there is no camera {name!r}{accepted(name, cameras)}")
            if key[2:3] not in (("encoder",), ("transform",)):
                raise ConfigError(
                    f"{named(key)} would have no effect: {'.'.join(key[2:])} is a setting for "
                    "recording, but these frames exist already; what can be set is "
                    f"{argument('cameras.NAME.encoder.FIELD')}, and "
                    "crop, rotate, flip, resize and pad"
                )
    check_kinds(overrides, cameras)


def _check_kept(key: KeyPath, left_out: Collection[str]) -> None:
    if key[0] == "cameras" and key[1:2] and key[1] in left_out:
        raise ConfigError(f"{named(key)} would have no effect: camera {key[1]!r} is left out")


def check_kinds(overrides: Overrides, cameras: Mapping[str, bool]) -> None:
    """Refuse settings of depth cameras if no camera is depth, and of colour cameras if all are.

    Args:
        overrides: (key path, value) pairs.
        cameras: short name -> whether it is depth; frames without a name are "".

    Raises:
        ConfigError: a setting without effect; the text names it.
    """
    for key, _ in overrides:
        if key[0] not in ("camera_encoder", "depth_encoder"):
            continue
        depth = key[0] == "depth_encoder"
        if depth in cameras.values():
            continue
        kind, other = ("a depth camera", "colour") if depth else ("a colour camera", "depth")
        names = ", ".join(cameras)
        of = f"none of {names} is {kind}" if names else f"the frames are {other}"
        raise ConfigError(f"{named(key)} would have no effect: {of}")


def check_quantisers(formats: Mapping[str, str], overrides: Overrides) -> None:
    """Refuse settings of a quantiser for depth that is stored without one.

    Args:
        formats: short name of a depth camera -> pixel format of its video; frames without a name are "".
        overrides: (key path, value) pairs.

    Raises:
        ConfigError: a setting without effect; the text names it.
    """
    for key, _ in overrides:
        if key[-1] not in DEPTH_FIELDS:
            continue
        of = list(formats) if key[:-1] == ("depth_encoder",) else []
        if key[0] == "cameras" and key[2:-1] == ("encoder",):
            of = [name for name in formats if name == key[1]]
        if of and all(formats[name] == "gray16le" for name in of):
            raise ConfigError(
                f"{named(key)} would have no effect: gray16le stores depth as it is, in millimetres; leave "
                "it out"
            )


def check_encoders(preset: RobotPreset, overrides: Overrides, names: Collection[str] | None = None) -> None:
    """Refuse settings of encoders that apply to no camera of a preset.

    Args:
        preset: the preset, with the overrides.
        overrides: (key path, value) pairs.
        names: the selected cameras; None: all.

    Raises:
        ConfigError: a setting without effect; the text names it.
    """
    cameras = {name: preset.cameras[name] for name in (preset.cameras if names is None else names)}
    check_kinds(overrides, {name: camera.depth for name, camera in cameras.items()})
    check_quantisers({n: camera.encoder.pix_fmt for n, camera in cameras.items() if camera.depth}, overrides)


def check_preset(preset: RobotPreset, cameras: Collection[str]) -> None:
    """Refuse a preset with cameras of which none is encoded.

    Args:
        preset: the robot.
        cameras: short names of the cameras that are encoded.

    Raises:
        ConfigError: no camera is in both; the text names both lists and the nearest name.

    Warns:
        FfencWarning: names the cameras that are not in the preset and get its general settings.
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


def check_named(
    overrides: Overrides, names: Collection[str], where: str, left_out: Collection[str] = ()
) -> None:
    """Refuse settings of a camera that a preset does not have, or that is not selected.

    Args:
        overrides: (key path, value) pairs.
        names: the preset's cameras.
        where: the preset, for the error.
        left_out: those of its cameras that are not selected.

    Raises:
        ConfigError: an unknown camera, of which the text contains the nearest name, or one that is left out.
    """
    for key, _ in overrides:
        _check_kept(key, left_out)
        if key[0] == "cameras" and len(key) > 1 and key[1] not in names:
            raise ConfigError(f"{named(key)}: {where} has no camera {key[1]!r}{accepted(key[1], names)}")


def check_added(name: str, names: Collection[str], where: str) -> None:
    """Refuse to add a camera whose name is very similar to that of an existing one.

    Raises:
        ConfigError: the name is too similar; the text contains the existing one.
    """
    if name in names:
        return
    if near := difflib.get_close_matches(name, names, 1, _NEAR):
        raise ConfigError(
            f"{where} has no camera {name!r}; did you mean {near[0]!r}? Its cameras: "
            f"{', '.join(names)}. To add a camera with such a name, write it into your own preset"
        )
