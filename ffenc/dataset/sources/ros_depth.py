"""Decode depth maps of ROS's compressed_depth_image_transport: PNG or RVL, of depth or disparities.

RVL is A. Wilson's "Fast Lossless Depth Image Compression" (2017): runs of empty and of non-empty pixels; the
differences between non-empty pixels are coded as numbers with three bits per nibble.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from ffenc.errors import SourceError
from ffenc.frames.header import MAX_PIXELS, MAX_SIDE
from ffenc.frames.pillow import decode
from ffenc.frames.png import is_png
from ffenc.frames.sources import EncodedFrame
from ffenc.frames.tiff import tiff_of

_HEADER = struct.Struct("<iff")  # the format, and the two parameters of disparities
_SIZE = struct.Struct("<II")
_MOST_NIBBLES = 10  # for a number of 30 bits


def compressed_depth(data: bytes, kind: str, name: str) -> EncodedFrame:
    """Return the depth map of a message: PNG or TIFF in millimetres, or TIFF in metres.

    Args:
        data: data of the message: a header of 12 bytes, and PNG or RVL.
        kind: format of the message, such as ``16UC1; compressedDepth rvl``.
        name: name of the image in errors.

    Raises:
        SourceError: it is damaged, or its format is not supported.
    """
    image = data[_HEADER.size :]
    png = is_png(image)
    if not png and "rvl" not in kind.partition(";")[2]:
        raise SourceError(
            f"{name}: its format is {kind!r}, and it contains no PNG; compressedDepth is read as PNG and RVL"
        )
    if not kind.startswith("32FC1"):
        return EncodedFrame(name, image if png else tiff_of(rvl(image, name)))
    _, a, b = _HEADER.unpack_from(data)
    codes = decode(image, name)[1] if png else rvl(image, name)
    there = codes > 0
    with np.errstate(all="ignore"):
        metres = np.where(there, np.float32(a) / (codes.astype(np.float32) - np.float32(b)), 0)
    if not (np.isfinite(metres).all() and (metres[there] > 0).all()):
        raise SourceError(
            f"{name}: is damaged: its header's {a:g} and {b:g} do not convert its codes to distances"
        )
    return EncodedFrame(name, tiff_of(metres.astype(np.float32)))


def rvl(data: bytes, name: str) -> npt.NDArray[np.uint16]:
    """Decode RVL.

    Args:
        data: width and height, 4 bytes each, and words of 4 bytes with 8 nibbles each.
        name: name of the image in errors.

    Returns:
        Shape ``(H, W)``, 0 for pixels without depth.

    Raises:
        SourceError: it is truncated, or its number of pixels differs from width x height.
    """
    if len(data) < _SIZE.size:
        raise SourceError(
            f"{name}: is cut short: RVL begins with {_SIZE.size} bytes, and this has {len(data)}"
        )
    width, height = _SIZE.unpack_from(data)
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise SourceError(f"{name}: is {width}x{height}; at most {MAX_SIDE} pixels a side are read")
    try:
        values = _numbers(data[_SIZE.size : _SIZE.size + (len(data) - _SIZE.size) // 4 * 4])
    except ValueError as error:
        raise SourceError(f"{name}: is damaged: {error}, where at most {_MOST_NIBBLES} are read") from None
    heads = _heads(values)
    runs = np.stack([values[heads], values[heads + 1]], 1)  # numbers of pixels without depth, and with depth
    ends = runs.sum(1).cumsum()
    last = int(np.searchsorted(ends, width * height))
    if last >= len(ends) or int(ends[last]) != width * height:
        found = "more" if last < len(ends) else int(ends[-1]) if len(ends) else 0
        raise SourceError(f"is damaged: holds {found} pixels", expected=f"{width}x{height}", where=name)
    heads, runs = heads[: last + 1], runs[: last + 1]
    count = int(runs[:, 1].sum())
    coded = np.ones(len(values), bool)
    coded[heads] = coded[heads + 1] = False
    steps = values[coded][:count]
    if len(steps) < count:
        raise SourceError(f"is cut short: has depth of {len(steps)} pixels", expected=str(count), where=name)
    there = np.repeat(np.tile([False, True], len(runs)), runs.reshape(-1))
    pixels = np.zeros(width * height, np.uint16)
    pixels[there] = np.cumsum((steps >> 1) ^ -(steps & 1)).astype(np.uint16)
    return pixels.reshape(height, width)


def _numbers(words: bytes) -> npt.NDArray[np.int64]:
    """Return the numbers in a stream of words: three bits per nibble, lowest first; bit four: continued."""
    packed = np.frombuffer(words, "<u4").astype(">u4").view(np.uint8)
    nibbles = np.stack([packed >> 4, packed & 15], 1).reshape(-1)
    ends = np.flatnonzero(nibbles < 8)
    if not len(ends):
        return np.zeros(0, np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    longest = int((ends - starts).max()) + 1
    if longest > _MOST_NIBBLES:
        raise ValueError(f"a number of {longest} nibbles")
    low = nibbles & 7
    found: npt.NDArray[np.int64] = low[starts].astype(np.int64)
    for place in range(1, longest):  # position of the nibble in its number, at most ten
        more = np.flatnonzero(ends - starts >= place)
        found[more] |= low[starts[more] + place].astype(np.int64) << 3 * place
    return found


def _heads(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the positions at which runs begin: with two numbers; the second one is how many more follow.

    Each position gives the next one. Doubling the step (1, 2, 4 ...) reaches all from the first one.
    """
    end = len(values) - 1  # positions below this have a second value
    if end < 1:
        return np.zeros(0, np.int64)
    after = np.arange(2, end + 2) + values[1:]
    jump = np.append(np.minimum(after, end), end)
    heads = np.zeros(1, np.int64)
    while True:
        more = jump[heads]
        more = more[more < end]
        if not len(more):
            return heads
        heads = np.concatenate([heads, more])  # ascending: each is 2^k runs after one of 2^k
        jump = jump[jump]
