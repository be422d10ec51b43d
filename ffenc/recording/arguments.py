"""Checks of a recorder's arguments."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from ffenc.config.preset import RobotPreset
from ffenc.dataset.job.camera_settings import check_changing
from ffenc.errors import ConfigError


def seconds_of(camera: str, timestamp: Any) -> float | None:
    """Return a timestamp as a float.

    Raises:
        ConfigError: it is not a finite number.
    """
    if timestamp is None:
        return None
    try:
        if isinstance(timestamp, (str, bytes, bytearray)) or np.ndim(timestamp):
            raise TypeError
        seconds = float(timestamp)
        if not math.isfinite(seconds):
            raise ValueError
    except (TypeError, ValueError, OverflowError, RuntimeError):
        text = (
            repr(timestamp) if not isinstance(timestamp, int) else f"an int of {timestamp.bit_length()} bits"
        )
        raise ConfigError(
            f"camera {camera}: timestamp={text[:80]} is not accepted", expected="a finite number of seconds"
        ) from None
    return seconds


def check_stall(seconds: Any) -> None:
    """Refuse a time after which an encoder counts as stopped that is not a finite number above 0.

    Raises:
        ConfigError: the value is not accepted.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise ConfigError(
            f"stall_seconds={seconds!r} is not accepted", expected="a finite number of seconds above 0"
        )


def check_preset(preset: RobotPreset, jpeg: Collection[str]) -> None:
    if not preset.cameras:
        raise ConfigError(f"{preset.name} has no cameras")
    for name, camera in preset.cameras.items():
        if camera.width is None or camera.height is None:
            raise ConfigError(f"{preset.name}: cameras.{name}: width and height are required to record it")
    transforms = {name: camera.transform for name, camera in preset.cameras.items()}
    sizes = {name: (camera.width or 0, camera.height or 0) for name, camera in preset.cameras.items()}
    check_changing(transforms, [n for n, one in transforms.items() if one and one.of(*sizes[n]).changes])
    for name in sorted(jpeg):
        if name not in preset.cameras or preset.cameras[name].depth:
            raise ConfigError(f"jpeg: {name!r} is not a colour camera of {preset.name}")


def kind_of(frame: Any) -> str:
    if isinstance(frame, np.ndarray):
        return f"{frame.dtype} {frame.shape}"
    return (
        f"{type(frame).__name__} of {len(frame)} bytes" if isinstance(frame, bytes) else type(frame).__name__
    )
