"""Depth maps as images: decode 16-bit PNG or TIFF to raw samples for the encoder.

They are decoded in Python, because the codes have to be computed there to be equal to LeRobot's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.compiler.frames import SampleTap
from ffenc.config.encoder import DepthEncoderConfig
from ffenc.config.transform import Geometry
from ffenc.errors import ConfigError, SourceError
from ffenc.frames.crc import crc32
from ffenc.frames.depth import DepthQuantizer, Unit
from ffenc.frames.header import ImageHeader
from ffenc.frames.images import read_header, require_alike
from ffenc.frames.pillow import decode
from ffenc.frames.sources import EncodedFrame
from ffenc.frames.statistics import Picking, Stats, ValueCounts, histogram_statistics, thinned
from ffenc.frames.tiff import raw_samples
from ffenc.layout import QUANTILES

Depth = npt.NDArray[Any]
_MAX_MM = 65535
_COUNTED_AT_ONCE = 1 << 19


def read_depth(frame: EncodedFrame) -> Depth:
    """Decode a depth map.

    Returns:
        Shape ``(H, W)``; uint16, int32 or uint32 for integers, float32 for floats.

    Raises:
        SourceError: not an image with one channel, or damaged; the text names it.
    """
    return _decoded(frame, read_header(frame.data, frame.name))


def _decoded(frame: EncodedFrame, header: ImageHeader) -> Depth:
    if header.channels != 1 or header.bits == 1:
        colours = "; colours need 8 bits: convert them with `ffmpeg -i IN -pix_fmt rgb24 OUT`"
        raise SourceError(
            f"{frame.name}: is {header}, samples per pixel: {header.channels}; "
            "a depth image has one of 8, 16 or 32 bits" + (colours if header.bits == 16 else "")
        )
    if header.format == "tiff" and (raw := raw_samples(frame.data, header)) is not None:
        return raw.astype(raw.dtype.newbyteorder("="), copy=False)
    _, depth = decode(frame.data, frame.name)
    # Pillow has no unsigned 32-bit numbers.
    unsigned = header.samples == "unsigned" and depth.dtype == np.int32
    return depth.view(np.uint32) if unsigned else depth


def read_alike(frame: EncodedFrame, header: ImageHeader) -> Depth:
    """Decode a depth map of a camera whose other maps have ``header``.

    Raises:
        SourceError: it is damaged, or has another size or unit; the text names it.
    """
    own = read_header(frame.data, frame.name)
    require_alike(own, header, frame.name)
    return _decoded(frame, own)


def changed(depth: Depth, geometry: Geometry | None) -> Depth:
    """Return a frame cropped, rotated, flipped, scaled and padded.

    Depth is scaled with the nearest pixel, without interpolation, so pixels without depth stay so. Colours
    are scaled with Pillow's bicubic filter. Padding has no depth (0), or is black.

    Args:
        depth: shape ``(H, W)``; or colours, ``(H, W, 3)`` uint8.
        geometry: the transform; None: the frame is returned unchanged.
    """
    if geometry is None:
        return depth
    if geometry.crop is not None:
        x, y, width, height = geometry.crop
        depth = depth[y : y + height, x : x + width]
    depth = np.rot90(depth, -geometry.rotate // 90)
    for way in geometry.flip:
        depth = np.flip(depth, 1 if way == "h" else 0)
    if geometry.scale is not None:
        depth = _scaled(depth, *geometry.scale)
    if geometry.pad is not None:
        width, height, x, y = geometry.pad
        padded = np.zeros((height, width, *depth.shape[2:]), depth.dtype)
        padded[y : y + depth.shape[0], x : x + depth.shape[1]] = depth
        depth = padded
    return depth


def _scaled(picture: Depth, width: int, height: int) -> Depth:
    if picture.ndim == 3:
        from PIL import Image  # noqa: PLC0415 - only needed to scale colours

        image = Image.fromarray(np.ascontiguousarray(picture))
        return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for new, old in zip((height, width), picture.shape, strict=True)
    )
    nearest: Depth = picture[rows[:, None], columns]
    return nearest


def depth_unit(depth: Depth) -> Unit:
    """Return the unit of depth if none is specified: floats are metres, integers millimetres."""
    return "m" if depth.dtype.kind == "f" else "mm"


class DepthSamples:
    """Converts depth maps to the stored samples, and records a checksum of each map.

    Args:
        config: the encoder settings. ``gray12le`` stores codes, ``gray16le`` millimetres.
        unit: unit of the depth, ``mm`` or ``m``; None: :func:`depth_unit` of the first map, which the others
            have to share.

    Attributes:
        checksums: of each frame passed to the encoder, in order.

    Raises:
        ConfigError: the settings are not for depth, or have another pixel format.
    """

    def __init__(self, config: object, unit: Unit | None = None) -> None:
        if not isinstance(config, DepthEncoderConfig):
            raise ConfigError("these are depth images: pass a depth camera's settings (DepthEncoderConfig)")
        if config.pix_fmt not in ("gray12le", "gray16le"):
            raise ConfigError(f"pix_fmt={config.pix_fmt!r} does not hold depth; accepted: gray12le, gray16le")
        self._quantizer = DepthQuantizer.from_config(config) if config.pix_fmt == "gray12le" else None
        self._unit, self._given = unit, unit is not None
        self.checksums: list[int] = []

    def of(self, depth: Depth) -> Depth:
        """Return the samples of a map, uint16 little endian, of the same shape.

        Raises:
            ConfigError: no unit was given, and the maps mix floats and integers.
        """
        if self._unit is None:
            self._unit = depth_unit(depth)
        elif not self._given and depth_unit(depth) != self._unit:
            raise ConfigError(
                f"depth frame {len(self.checksums)} is {depth.dtype}, so in {depth_unit(depth)}, but the "
                f"frames before it are in {self._unit}: convert it, or set their unit (depth_unit)"
            )
        if self._quantizer is not None:
            samples = self._quantizer.quantize(depth, input_unit=self._unit)
        else:
            samples = millimetres(depth, self._unit)
        samples = np.ascontiguousarray(samples, "<u2")
        self.checksums.append(crc32(samples.data))
        return samples

    def sent(self, first: int, count: int) -> list[int]:
        """Return the checksums of some frames; fewer at the end."""
        return self.checksums[first : first + count]


def millimetres(depth: Depth, unit: Unit | None = None) -> npt.NDArray[np.uint16]:
    """Return depth in whole millimetres, 0..65535; NaN and negative values become 0.

    Args:
        depth: integers or floats, any shape.
        unit: ``mm`` or ``m``; None: :func:`depth_unit`.
    """
    unit = unit or depth_unit(depth)
    if depth.dtype == np.uint16 and unit == "mm":
        return depth
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(depth.astype(np.float64) * (1000 if unit == "m" else 1))
    return np.nan_to_num(scaled, nan=0, posinf=_MAX_MM, neginf=0).clip(0, _MAX_MM).astype(np.uint16)


def samples_in_mm(samples: Depth, quantizer: DepthQuantizer | None) -> npt.NDArray[np.float64]:
    """Return the depth of stored samples in millimetres.

    Args:
        samples: uint16, shape ``(N,)``.
        quantizer: quantiser of the samples; None: they are millimetres.
    """
    if quantizer is None:
        return samples.astype(np.float64)
    metres = quantizer.dequantize(samples[None], output_unit="m")[0]
    return np.asarray(metres.astype(np.float64) * 1000)


def depth_pieces(
    frames: Iterable[EncodedFrame],
    header: ImageHeader,
    samples: DepthSamples,
    statistics: DepthStatistics | None = None,
    geometry: Geometry | None = None,
) -> Iterator[memoryview]:
    """Yield each depth map's samples for the encoder's pipe.

    Raises:
        SourceError: an image is damaged, or has another size; the text names it.
    """
    for frame in frames:
        depth = changed(read_alike(frame, header), geometry)
        if statistics is not None:
            statistics.add(depth)
        yield samples.of(depth).data.cast("B")


class DepthStatistics(Picking):
    """Statistics of depth maps in their own unit, over the pixels that LeRobot's rule selects.

    Args:
        tap: the sampled frames and pixels.
        unit: unit of the maps.
    """

    def __init__(self, tap: SampleTap, unit: Unit) -> None:
        super().__init__(tap)
        self.unit: Unit = unit
        self._frames = self._pixels = 0
        self._low, self._high = np.inf, -np.inf
        self._sum = self._squares = 0.0
        self._counts = np.zeros(_MAX_MM + 1, np.int64)
        self._waiting: list[npt.NDArray[np.uint16]] = []

    def add(self, depth: Depth) -> None:
        """Add a frame, if it is selected."""
        if not self.picks_next:
            self.pass_over()
            return
        self._seen += 1
        self._frames += 1
        pixels = thinned(depth, self.tap)
        if pixels.dtype == np.uint16 and self.unit == "mm":
            self._waiting.append(pixels.flatten())  # a copy: the caller reuses the frame's memory
            if sum(map(len, self._waiting)) > _COUNTED_AT_ONCE:
                self._count_waiting()
            return
        floats = pixels.astype(np.float64)
        floats = floats[np.isfinite(floats)]
        # Quantiles are computed from whole millimetres; all other statistics are exact.
        counted = millimetres(floats if pixels.dtype.kind == "f" else pixels, self.unit).reshape(-1)
        self._counts += np.bincount(counted, minlength=_MAX_MM + 1)
        if floats.size:
            self._low = min(self._low, float(floats.min()))
            self._high = max(self._high, float(floats.max()))
            self._sum += float(floats.sum())
            self._squares += float((floats**2).sum())
            self._pixels += floats.size

    def _count_waiting(self) -> None:
        """Add whole millimetres of several frames to the histogram at once: the histogram is large."""
        if not self._waiting:
            return
        counts = np.bincount(np.concatenate(self._waiting), minlength=_MAX_MM + 1)
        self._waiting.clear()
        self._counts += counts
        # These are whole numbers, so the sums are exact. A matrix product is avoided: BLAS's threads would
        # spin until the next one, on processors that the encoders need.
        there = np.flatnonzero(counts)
        sums = counts[there] * there
        self._low, self._high = min(self._low, float(there[0])), max(self._high, float(there[-1]))
        self._sum += float(sums.sum())
        self._squares += float((sums * there).sum())
        self._pixels += int(counts.sum())

    def statistics(self) -> Stats:
        """Return min, max, mean, std, count and quantiles, shaped ``(1, 1, 1)``.

        Raises:
            ValueError: no frame was added.
        """
        self._count_waiting()
        if not self._pixels:
            self._counts[0] = 1  # only NaN and infinity, which count as 0
        there = np.flatnonzero(self._counts)
        values = there / (1000 if self.unit == "m" else 1)
        stats = histogram_statistics(self._counts[None, there], values, self._frames)
        if self._pixels:
            for name in QUANTILES:  # rounding may have moved them out of the range
                stats[name] = np.clip(stats[name], self._low, self._high).tolist()
            mean = self._sum / self._pixels
            exact = {
                "min": self._low,
                "max": self._high,
                "mean": mean,
                "std": float(np.sqrt(max(self._squares / self._pixels - mean**2, 0.0))),
            }
            stats |= {name: [[[value]]] for name, value in exact.items()}
        return stats

    def quantiles_without(self, depths: Sequence[int], found: Stats) -> Stats:
        """Return the quantiles without the pixels of some depths; those of all pixels if no others are left.

        Args:
            depths: whole millimetres.
            found: the statistics of all pixels.
        """
        counts = self._counts.copy()
        counts[list(depths)] = 0
        if not counts.any() or counts.sum() == self._counts.sum():
            return {name: found[name] for name in QUANTILES}
        values = ValueCounts(counts[None], 1000 if self.unit == "m" else 1)
        return values.quantiles(found["min"], found["max"])

    def values(self) -> ValueCounts:
        """Return the histogram in whole millimetres."""
        self._count_waiting()
        return ValueCounts(self._counts[None], 1000 if self.unit == "m" else 1)
