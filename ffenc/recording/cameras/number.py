"""A number in a picture that survives lossy encoding: to prove that a recording holds every frame once.

The lowest part of the picture is three rows of eight blocks, a bit each: 20 of the number, 4 of a checksum.
A block of upright stripes (in depth: one that is near) is 1, one of level stripes (far) is 0. Stripes,
because some encoders leave a plain block as it was in the frame before (SVT-AV1 4.2 from preset 11 on).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.frames.statistics import sample_tap

NUMBERS = 1_000_000  # then it starts again with 0
NEAR, FAR = 500, 3000  # millimetres, of the blocks in depth
MIN_SIZE = (64, 48)

_ROWS, _COLUMNS = 3, 8
_PART = 10  # a row of blocks is a tenth of the height


def code_top(height: int) -> int:
    """Return the first pixel row of the blocks: above it, a picture may show what it likes."""
    return height - _ROWS * (height // _PART)


def draw_number(frame: npt.NDArray[Any], number: int, one: Any = 255, zero: Any = 0) -> None:
    """Draw a number as blocks.

    Args:
        frame: ``(H, W, 3)`` or depth ``(H, W)``, 64x48 pixels or more; rows from :func:`code_top` on are
            written.
        number: 0 or more; what is above 999,999 starts again with 0.
        one, zero: what stripes, or blocks of depth, are drawn with; white and black by default.
    """
    height, width = frame.shape[:2]
    bits = _bits(number % NUMBERS)
    tall, top = height // _PART, code_top(height)
    # Blocks of whole pixels; the last takes the columns that are left over.
    columns = np.minimum(np.arange(width) // (width // _COLUMNS), _COLUMNS - 1)
    # Statistics are of every n-th pixel: stripes of so many give the same ones from whichever pixel on.
    every = max(1, width // sample_tap(1, width, height).width)
    stripe = max(2, tall // 8)
    stripe = min(-(-stripe // every) * every, max(stripe, tall // 2))
    upright = (np.arange(width) // stripe % 2).astype(bool)
    level = (np.arange(tall) // stripe % 2).astype(bool)[:, None]
    for row in range(_ROWS):
        filled = bits[row, columns]
        if frame.ndim == 3:
            filled = np.where(filled, upright, level)[..., None]
        frame[top + row * tall : top + (row + 1) * tall] = np.where(filled, one, zero)


def read_number(frame: npt.NDArray[Any]) -> int:
    """Read a number back.

    Args:
        frame: a picture as drawn or decoded: ``(H, W, 3)`` uint8, or depth ``(H, W)``, integers in
            millimetres or floats in metres.

    Raises:
        ValueError: there is none, or it cannot be read for sure.
    """
    height, width = frame.shape[:2]
    if width < MIN_SIZE[0] or height < MIN_SIZE[1]:
        raise ValueError(f"{width}x{height} frames are too small for the test number; expected 64x48 or more")
    tall, wide, top = height // _PART, width // _COLUMNS, code_top(height)
    bits = np.zeros((_ROWS, _COLUMNS), bool)
    for row in range(_ROWS):
        for column in range(_COLUMNS):
            y, x = top + row * tall, column * wide
            # Only the middle: encoders blur the edges.
            block = frame[y + tall // 4 : y + tall - tall // 4, x + wide // 4 : x + wide - wide // 4]
            if frame.ndim == 3:
                light = block.mean(axis=2)
                bits[row, column] = _change(light, 1) > _change(light, 0)
            else:
                value = float(np.median(block))
                distance = value * 1000 if frame.dtype.kind == "f" else value
                bits[row, column] = distance < (NEAR + FAR) / 2
    code = int(np.packbits(bits.reshape(-1)).view(">u1").astype(np.int64) @ [65536, 256, 1])
    number = code >> 4
    if number >= NUMBERS or _checksum(number) != code & 15:
        raise ValueError(f"this {width}x{height} frame contains no test number, or is damaged")
    return number


def _change(light: npt.NDArray[np.float64], axis: int) -> float:
    """How much the samples change from one to the next."""
    return float(np.abs(np.diff(light, axis=axis)).mean())


def _bits(number: int) -> npt.NDArray[np.bool_]:
    code = number << 4 | _checksum(number)
    return np.array([code >> bit & 1 for bit in range(_ROWS * _COLUMNS - 1, -1, -1)], bool).reshape(
        _ROWS, _COLUMNS
    )


def _checksum(number: int) -> int:
    # Odd weights: a change of one hex digit always changes the sum. All black and all white are no number.
    return (5 + sum((2 * i + 1) * (number >> 4 * i & 15) for i in range(5))) & 15
