"""Convert the rows of an array to images, according to a mapping."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from ffenc.config.mapping import CameraMapping
from ffenc.dataset.sources.array_parts import Part
from ffenc.dataset.sources.arrays import Array, ArrayInfo, ArrayReader
from ffenc.errors import ConfigError, SourceError
from ffenc.frames.header import MAX_FILE_BYTES, MAX_PIXELS, MAX_SIDE, ImageHeader
from ffenc.frames.images import read_header
from ffenc.frames.sources import EncodedFrame
from ffenc.frames.tiff import tiff_of
from ffenc.spelling import call

_AT_ONCE = 8 << 20  # bytes of images that are read at once, unless chunks are larger
_MOST_AT_ONCE = 256 << 20  # bytes of a chunk, which is decompressed as a whole
_OVERSHOOT = 0.25  # of white; pixels that a resize filter has made darker than black or brighter than white
_ORDERS = {"rgb": "rgb24", "bgr": "bgr24", "rgba": "rgba", "bgra": "bgra", "gray": "gray"}
_CHANNELS = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "gray": 1}
_DEPTH_KINDS = ("uint16", "int16", "uint32", "int32", "float16", "float32", "float64")


class Pixels(Struct, frozen=True):
    """How to convert the rows of an array to images.

    Attributes:
        header: header of the images.
        chw: the colour axis comes first.
        white: for floats, the value of white.
    """

    header: ImageHeader
    chw: bool = False
    white: float | None = None

    def rows(self, block: Array, names: Sequence[str]) -> Iterator[EncodedFrame]:
        """Yield the rows of an array as images."""
        header = self.header
        if header.format not in ("raw", "tiff"):
            for name, row in zip(names, block, strict=True):
                yield EncodedFrame(name, _bytes(row), order=header.order)
            return
        block = block.reshape(len(block), header.channels, header.height, header.width) if self.chw else block
        block = np.moveaxis(block, 1, -1) if self.chw else block
        if header.depth:
            block = block.reshape(len(block), header.height, header.width)
            with np.errstate(over="ignore"):  # what does not fit is infinitely far
                block = block.astype(np.float32) if block.dtype.kind == "f" else block
            for name, row in zip(names, block, strict=True):
                yield EncodedFrame(name, tiff_of(row))
            return
        if self.white is not None:
            _check_white(block, self.white, names)
            block = np.rint(np.clip(block * (255 / self.white), 0, 255)).astype(np.uint8)
        for name, row in zip(names, block, strict=True):
            yield EncodedFrame(name, row.tobytes(), raw=header)


def _check_white(block: Array, white: float, names: Sequence[str]) -> None:
    """Refuse pixels that are not between black and white, apart from the overshoot of a resize filter.

    Raises:
        SourceError: a pixel is far outside, or not a number; the text names the frame.
    """
    low, high = block.min(), block.max()
    if low >= -_OVERSHOOT * white and high <= (1 + _OVERSHOOT) * white:
        return
    for name, row in zip(names, block, strict=True):
        low, high = float(row.min()), float(row.max())
        if not (low >= -_OVERSHOOT * white and high <= (1 + _OVERSHOOT) * white):
            found = "that are not numbers (NaN)" if np.isnan(low) else f"from {low:g} to {high:g}"
            raise SourceError(f"has pixels {found}", expected=f"0 (black) to {white:g} (white)", where=name)


class ArrayFrames:
    """Rows of an array as a frame source; the file is open only during iteration.

    Args:
        part: the episode.
        path: path of the array in the episode.
        pixels: how to convert its rows to images.
    """

    def __init__(self, part: Part, path: str, pixels: Pixels) -> None:
        self._part, self._place, self._pixels = part, part.place(path), pixels

    def __len__(self) -> int:
        return self._part.length

    def __iter__(self) -> Iterator[EncodedFrame]:
        part, place = self._part, self._place
        where = f"{part.file.path}: {place}, row"
        with part.file.open() as reader:
            step = _rows_at_once(reader.array(place), part.file.path)
            for first in range(0, part.length, step):
                count = min(step, part.length - first)
                start = part.first + first
                block = reader.read(place, start, start + count)
                names = [f"{where} {start + i}" for i in range(count)]
                yield from self._pixels.rows(block, names)

    def fingerprint(self) -> str:
        part, pixels = self._part, self._pixels
        return f"{part.file.fingerprint(self._place)} {self._place} {part.first} {pixels}"


def _rows_at_once(info: ArrayInfo, path: Path) -> int:
    if info.dtype.kind in "OT":
        return max(1, min(info.chunk or 16, 16))
    chunk = max(1, info.chunk)
    if chunk * info.row_bytes > _MOST_AT_ONCE and info.chunk:
        raise SourceError(
            f"{path}: {info.path}: {chunk:,} rows of {info.row_bytes:,} bytes are compressed together; at "
            "most "
            f"{_MOST_AT_ONCE >> 20} MB are read at once. Write it with smaller chunks, ideally of one row"
        )
    return max(1, _AT_ONCE // max(1, chunk * info.row_bytes)) * chunk


def _bytes(row: Any) -> bytes:
    if isinstance(row, (bytes, bytearray)):
        return bytes(row)
    return np.asarray(row).tobytes()


def pixels_of(camera: CameraMapping, part: Part, info: ArrayInfo, reader: ArrayReader, where: str) -> Pixels:
    """Return how to convert the rows of an array to the images of a camera.

    Args:
        camera: its mapping.
        part: an episode.
        info: the array.
        reader: the open file.
        where: the camera's key in the mapping, for errors.

    Raises:
        ConfigError: the array does not fit the mapping.
        SourceError: its frames are too large, or the first one is damaged.
    """
    if info.encoded:
        return _encoded_pixels(camera, part, info, reader, where)
    return _raw_pixels(camera, part, info, where)


def _encoded_pixels(
    camera: CameraMapping, part: Part, info: ArrayInfo, reader: ArrayReader, where: str
) -> Pixels:
    for name in ("axes", "white"):
        if getattr(camera, name) is not None:
            raise ConfigError(f"{where}.{name}: does not apply to encoded images, which {info.path} holds")
    if camera.channels not in (None, "rgb", "bgr"):
        raise ConfigError(
            f"{where}.channels: for encoded images only rgb or bgr is accepted, not {camera.channels}"
        )
    if info.row_bytes > MAX_FILE_BYTES:
        raise SourceError(f"{part}: {info.path} has rows of {info.row_bytes:,} bytes; no image is that large")
    name = f"{part.file.path}: {info.path}, row {part.first}"
    header = read_header(_bytes(reader.read(info.path, part.first, part.first + 1)[0]), name)
    if header.depth != camera.depth:
        said = "says depth: true" if camera.depth else "does not say depth: true"
        raise ConfigError(f"{where}: {name} is a {header}, and the mapping {said}")
    order = "bgr" if camera.channels == "bgr" else ""
    return Pixels(
        ImageHeader(header.format, *_size(header), header.bits, header.channels, header.samples, order)
    )


def _size(header: ImageHeader) -> tuple[int, int]:
    return header.width, header.height


def _raw_pixels(camera: CameraMapping, part: Part, info: ArrayInfo, where: str) -> Pixels:
    shape, kind = info.shape[1:], info.dtype
    if camera.depth:
        if kind.name not in _DEPTH_KINDS:
            raise ConfigError(
                f"{where}: {info.path} is {info}; depth is 16- or 32-bit integers (millimetres) or floats "
                "(metres)"
            )
        wanted = [shape] if len(shape) == 2 else []
        wanted += [shape[:2]] if len(shape) == 3 and shape[2] == 1 else []
        wanted += [shape[1:]] if len(shape) == 3 and shape[0] == 1 else []
        if not wanted:
            raise ConfigError(f"{where}: {info.path} is {info}; depth maps have one number per pixel")
        height, width = wanted[0]
        bits = 32 if kind.kind == "f" else kind.itemsize * 8
        names: dict[str, Any] = {"u": "unsigned", "i": "signed", "f": "float"}
        return Pixels(_checked(ImageHeader("tiff", width, height, bits, 1, names[kind.kind]), part, info))
    floats = kind.kind == "f"
    if kind != np.uint8 and not floats:
        hint = "; write depth: true if it is depth" if kind.name in _DEPTH_KINDS else ""
        raise ConfigError(f"{where}: {info.path} is {info}; pixels are uint8, or floats{hint}")
    if floats and camera.white is None:
        raise ConfigError(
            f"{where}.white: is missing: {info.path} is {info}; write which value is white, such as 1 or 255"
        )
    if not floats and camera.white is not None:
        raise ConfigError(f"{where}.white: does not apply to {info.path}, which is {info}")
    chw, (height, width, channels) = _axes(camera, info, where)
    order = camera.channels
    if order is None and channels != 1:
        raise ConfigError(
            f"{where}.channels: is missing: {info.path} holds raw pixels, and the file does not "
            "state whether they are rgb or bgr. "
            f"{call('contact_sheet', path='FILE', output='PNG')} shows them"
        )
    order = order or "gray"
    if _CHANNELS[order] != channels:
        raise ConfigError(
            f"{where}.channels: {order} has {_CHANNELS[order]} values per pixel, {info.path} has {channels}"
        )
    header = ImageHeader("raw", width, height, 8, channels, order=_ORDERS[order])
    return Pixels(_checked(header, part, info), chw, camera.white)


def _axes(camera: CameraMapping, info: ArrayInfo, where: str) -> tuple[bool, tuple[int, int, int]]:
    """Return whether the colour axis comes first, and height, width and number of colours."""
    shape = info.shape[1:]
    if len(shape) == 2:
        if camera.axes is not None:
            raise ConfigError(f"{where}.axes: does not apply to {info.path}, which is {info}")
        return False, (shape[0], shape[1], 1)
    if len(shape) != 3:
        raise ConfigError(f"{where}: {info.path} is {info}; images are frames x height x width x colours")
    last, first = shape[2] in (1, 3, 4), shape[0] in (1, 3, 4)
    if camera.axes is None and last == first:
        raise ConfigError(
            f"{where}.axes: is missing: {info.path} is {info}; write hwc or chw, by the position "
            "of its 1, 3 or 4 channels"
        )
    chw = camera.axes == "chw" if camera.axes is not None else first
    height, width, channels = (shape[1], shape[2], shape[0]) if chw else shape
    return chw, (height, width, channels)


def _checked(header: ImageHeader, part: Part, info: ArrayInfo) -> ImageHeader:
    if (
        not (header.width and header.height)
        or max(_size(header)) > MAX_SIDE
        or (header.width * header.height > MAX_PIXELS)
    ):
        raise SourceError(
            f"{part}: {info.path} has frames of {header.width}x{header.height}; 1 to {MAX_SIDE} pixels a "
            "side "
            f"and {MAX_PIXELS:,} in all are read"
        )
    return header
