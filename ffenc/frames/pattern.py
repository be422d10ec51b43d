"""Synthetic frames that load an encoder like a camera's: a textured moving scene with sensor noise."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.compiler.frames import FrameFormat
from ffenc.errors import ConfigError

FRAMES = 16
_SERIES_BYTES = 128_000_000  # so there are fewer large frames
_TILE = 1024  # large frames consist of tiles: a scene of full size would take long to draw
_MAX_PIXELS = 1 << 27  # FFmpeg accepts twice as many, but no encoder does
_SAMPLE_BYTES = {"rgb24": 3, "gray12le": 2, "gray16le": 2}  # bytes per pixel
_STEP = 3  # pixels by which the scene moves per frame


@lru_cache(maxsize=4)
def pattern_frames(width: int, height: int, frames: FrameFormat) -> tuple[bytes, ...]:
    """Return a short series of raw frames without a jump when played forwards and backwards.

    Args:
        width, height: frame size in pixels.
        frames: ``rgb24``: shape ``(H, W, 3)``, uint8. ``gray12le``: ``(H, W)`` codes 0..4095, uint16 little
            endian, a surface with 1 % of pixels without depth. ``gray16le``: the same in millimetres,
            0..65535.

    Returns:
        2 to 30 frames, each as bytes.

    Raises:
        ConfigError: a format that is not raw, or frames larger than any encoder supports.
    """
    sample_bytes = _SAMPLE_BYTES.get(frames)
    if sample_bytes is None:
        raise ConfigError(f"frames={frames!r} are not raw frames")
    if width * height > _MAX_PIXELS:
        raise ConfigError(f"{width}x{height} frames are larger than any encoder takes")
    count = max(2, min(FRAMES, _SERIES_BYTES // (width * height * sample_bytes)))
    series = []
    for tile in _tiles(min(width, _TILE), min(height, _TILE), frames, count):
        times = (-(-height // tile.shape[0]), -(-width // tile.shape[1]), *(1,) * (tile.ndim - 2))
        series.append(np.tile(tile, times)[:height, :width].tobytes())
    return (*series, *series[-2:0:-1])


def _tiles(width: int, height: int, frames: FrameFormat, count: int) -> Iterator[npt.NDArray[Any]]:
    rng = np.random.default_rng(0)
    x = np.arange(width + count * _STEP, dtype=np.float32)
    y = np.arange(height, dtype=np.float32)[:, None]
    scene = np.sin(x / 17 + np.sin(y / 23)) + np.cos(y / 13 - x / 41) + np.sin((x + y) / 5) / 3
    scene = (scene + 2.4) / 4.8  # to 0..1
    for i in range(count):
        part = scene[:, i * _STEP : i * _STEP + width]
        if frames == "rgb24":
            colours = np.stack([part, 1 - part, part * part], axis=-1) * 220 + 16
            noise = rng.normal(0, 2, (height, width, 1)).astype(np.float32)
            yield (colours + noise).clip(0, 255).astype(np.uint8)
        else:
            unit = 1.0 if frames == "gray12le" else 2.0
            depth = (part * 1500 + 800 + rng.normal(0, 2, (height, width))) * unit
            depth[rng.random((height, width)) < 0.01] = 0
            yield depth.astype("<u2")
