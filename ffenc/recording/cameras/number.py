"""A number in a frame that survives lossy encoding, to prove that a recording contains every frame once.

The lowest part of the frame has three rows of eight blocks with one bit each: 20 for the number, 4 for a
checksum. A block of vertical stripes (in depth: a near one) is 1, one of horizontal stripes (far) is 0.
Stripes are used because some encoders leave a plain block as it was in the frame before (SVT-AV1 4.2 from
preset 11 on).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.frames.statistics import sample_tap

NUMBERS = 1_000_000  # then it starts from 0 again
NEAR, FAR = 500, 3000  # depth of the blocks, in millimetres
MIN_SIZE = (64, 48)

_ROWS, _COLUMNS = 3, 8
_PART = 10  # the height of a row of blocks is a tenth of the frame's


def code_top(height: int) -> int:
    """Return the first pixel row of the blocks; the rows above may show anything."""
    return height - _ROWS * (height // _PART)


def draw_number(frame: npt.NDArray[Any], number: int, one: Any = 255, zero: Any = 0) -> None:
    """Draw a number as blocks.

    Args:
        frame: ``(H, W, 3)`` or depth ``(H, W)``, at least 64x48 pixels; rows from :func:`code_top` on are
            overwritten.
        number: 0 or more; numbers above 999,999 start from 0 again.
        one, zero: values of the stripes, or of blocks of depth; default white and black.
    """
    height, width = frame.shape[:2]
    bits = _bits(number % NUMBERS)
    tall, top = height // _PART, code_top(height)
    # Blocks have whole pixels; the last one includes the remaining columns.
    columns = np.minimum(np.arange(width) // (width // _COLUMNS), _COLUMNS - 1)
    # Statistics use every n-th pixel: stripes of this width give the same ones from any starting pixel.
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
    """Read a number.

    Args:
        frame: a drawn or decoded frame: ``(H, W, 3)`` uint8, or depth ``(H, W)``, integers in millimetres or
            floats in metres.

    Raises:
        ValueError: there is none, or it cannot be read with certainty.
    """
    height, width = frame.shape[:2]
    if width < MIN_SIZE[0] or height < MIN_SIZE[1]:
        raise ValueError(f"{width}x{height} frames are too small for the test number; expected 64x48 or more")
    tall, wide, top = height // _PART, width // _COLUMNS, code_top(height)
    bits = np.zeros((_ROWS, _COLUMNS), bool)
    for row in range(_ROWS):
        for column in range(_COLUMNS):
            y, x = top + row * tall, column * wide
            # Only the middle of a block: encoders blur its edges.
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
    """Return the sum of changes from each sample to the next."""
    return float(np.abs(np.diff(light, axis=axis)).mean())


def _bits(number: int) -> npt.NDArray[np.bool_]:
    code = number << 4 | _checksum(number)
    return np.array([code >> bit & 1 for bit in range(_ROWS * _COLUMNS - 1, -1, -1)], bool).reshape(
        _ROWS, _COLUMNS
    )


def _checksum(number: int) -> int:
    # Odd weights: changing one hex digit always changes the sum. All black or all white is not a number.
    return (5 + sum((2 * i + 1) * (number >> 4 * i & 15) for i in range(5))) & 15
