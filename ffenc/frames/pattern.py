"""Frames that load an encoder as a camera's do: a textured scene that moves, with sensor noise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ffenc.compiler.command import FrameFormat
from ffenc.errors import ConfigError

FRAMES = 16
_STEP = 3  # pixels the scene moves from frame to frame


@lru_cache(maxsize=4)
def pattern_frames(width: int, height: int, frames: FrameFormat) -> tuple[bytes, ...]:
    """Return a short series of raw frames; shown forwards and backwards it moves without a jump.

    Args:
        width, height: pixels.
        frames: ``rgb24``: shape ``(H, W, 3)``, uint8. ``gray12le``: ``(H, W)`` codes of 0..4095, uint16
            little endian, a surface with 1 % of holes. ``gray16le``: the same in millimetres, 0..65535.

    Returns:
        30 frames, each as bytes.

    Raises:
        ConfigError: a format that is not raw.
    """
    rng = np.random.default_rng(0)
    x = np.arange(width + FRAMES * _STEP, dtype=np.float32)
    y = np.arange(height, dtype=np.float32)[:, None]
    scene = np.sin(x / 17 + np.sin(y / 23)) + np.cos(y / 13 - x / 41) + np.sin((x + y) / 5) / 3
    scene = (scene + 2.4) / 4.8  # 0..1
    series = []
    for i in range(FRAMES):
        part = scene[:, i * _STEP : i * _STEP + width]
        if frames == "rgb24":
            colours = np.stack([part, 1 - part, part * part], axis=-1) * 220 + 16
            noise = rng.normal(0, 2, (height, width, 1)).astype(np.float32)
            series.append((colours + noise).clip(0, 255).astype(np.uint8).tobytes())
        elif frames in ("gray12le", "gray16le"):
            unit = 1.0 if frames == "gray12le" else 2.0
            depth = (part * 1500 + 800 + rng.normal(0, 2, (height, width))) * unit
            depth[rng.random((height, width)) < 0.01] = 0
            series.append(depth.astype("<u2").tobytes())
        else:
            raise ConfigError(f"frames={frames!r} are not raw frames")
    return (*series, *series[-2:0:-1])
