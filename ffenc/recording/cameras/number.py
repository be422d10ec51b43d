"""A number in a picture that survives lossy encoding: to prove that a recording holds every frame once.

The lowest part of the picture is three rows of eight blocks, a bit each: 20 of the number, 4 of a checksum.
A block that is white (or near, in depth) is 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

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
        frame: ``(H, W, 3)`` or ``(H, W)``, 64x48 pixels or more; rows from :func:`code_top` on are written.
        number: 0 or more; what is above 999,999 starts again with 0.
        one, zero: a sample of a block, white and black by default.
    """
    height, width = frame.shape[:2]
    bits = _bits(number % NUMBERS)
    tall, top = height // _PART, code_top(height)
    # Blocks of whole pixels; the last takes the columns that are left over.
    columns = np.minimum(np.arange(width) // (width // _COLUMNS), _COLUMNS - 1)
    for row in range(_ROWS):
        line = np.where(bits[row, columns], one, zero).astype(frame.dtype)
        if frame.ndim == 3:
            line = np.repeat(line[:, None], frame.shape[2], axis=1)
        frame[top + row * tall : top + (row + 1) * tall] = line


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
        raise ValueError(f"{width}x{height} pixels hold no number; expected 64x48 or more")
    tall, wide, top = height // _PART, width // _COLUMNS, code_top(height)
    bits = np.zeros((_ROWS, _COLUMNS), bool)
    for row in range(_ROWS):
        for column in range(_COLUMNS):
            y, x = top + row * tall, column * wide
            # Only the middle: encoders blur the edges.
            block = frame[y + tall // 4 : y + tall - tall // 4, x + wide // 4 : x + wide - wide // 4]
            value = float(np.median(block))
            if frame.ndim == 3:
                bits[row, column] = value > 127
            else:
                distance = value * 1000 if frame.dtype.kind == "f" else value
                bits[row, column] = distance < (NEAR + FAR) / 2
    code = int(np.packbits(bits.reshape(-1)).view(">u1").astype(np.int64) @ [65536, 256, 1])
    number = code >> 4
    if number >= NUMBERS or _checksum(number) != code & 15:
        raise ValueError(f"there is no number in this {width}x{height} picture, or it is damaged")
    return number


def _bits(number: int) -> npt.NDArray[np.bool_]:
    code = number << 4 | _checksum(number)
    return np.array([code >> bit & 1 for bit in range(_ROWS * _COLUMNS - 1, -1, -1)], bool).reshape(
        _ROWS, _COLUMNS
    )


def _checksum(number: int) -> int:
    # Odd weights: a change of one hex digit always changes the sum. All black and all white are no number.
    return (5 + sum((2 * i + 1) * (number >> 4 * i & 15) for i in range(5))) & 15
