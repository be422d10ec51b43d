"""Depth to the 12-bit codes a video stores, and back: LeRobot's quantiser, as lookups.

The formula is that of ``lerobot.datasets.depth_utils``, which has it from BEHAVIOR-1K's ``obs_utils.py``.
With ``d`` the depth in the unit it arrives in, and the range converted to that unit::

    log:     code = rint(4095 * (ln(d + shift) - ln(depth_min + shift))
                              / (ln(depth_max + shift) - ln(depth_min + shift)))
    linear:  code = rint(4095 * (d - depth_min) / (depth_max - depth_min))

clipped to 0..4095. It is computed in float32, in LeRobot's order, so that codes are equal to the last one
with the same numpy on the same kind of processor: numpy's float32 logarithm is not everywhere the same in
its last bit, and a depth between two codes may take the other one (in LeRobot as here).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Struct
from msgspec.structs import force_setattr, replace

from ffenc.codecs.suggest import accepted
from ffenc.config.encoder import DepthEncoderConfig
from ffenc.errors import ConfigError
from ffenc.layout import DEPTH_FIELDS

if TYPE_CHECKING:
    from typing_extensions import Self

Unit = Literal["mm", "m"]
InputUnit = Literal["auto", "mm", "m"]
Invalid = Literal["keep", "clip"]

MAX_CODE = 4095
_UNITS = {"mm": 1000.0, "m": 1.0}  # how many of them are a metre
_INVALID = ("keep", "clip")
_MAX_MM = 65535
_BLOCK = 1 << 18  # values computed at once: their float32 stay in the processor's cache


class DepthQuantizer(Struct, frozen=True):
    """Depth to 12-bit codes and back, with one range.

    Args:
        depth_min, depth_max: the range that is stored, in metres; what is nearer or farther takes its ends.
        shift: added before the logarithm, in metres.
        use_log: quantise the logarithm of depth (finer near, coarser far) instead of depth itself.
        invalid: what becomes of pixels without depth, which are 0, below 0 or NaN. The default is LeRobot's
            way; a camera's config says ``keep`` by default.
            ``clip``: LeRobot's codes exactly. Such a pixel takes the code of depth that is too near, 0, and
            every reader, LeRobot's included, gets ``depth_min`` back: a surface where nothing is known.
            ``keep``: it takes code 0, which no depth takes: depth has 1..4095, and :meth:`dequantize` gives 0
            back. LeRobot's reader gets ``depth_min`` as with ``clip``, but only for such pixels; depth that
            ``clip`` gives code 0 reads one step farther there (1.2 mm with the defaults), all other the same.

    Raises:
        ConfigError: a wrong type, an empty range or one that is empty or infinite in float32, a logarithm of
            nothing, an unknown ``invalid``, or ``keep`` where ``depth_min`` is below 0, so that 0 is a depth.
    """

    depth_min: float = 0.01
    depth_max: float = 10.0
    shift: float = 3.5
    use_log: bool = True
    invalid: Invalid = "clip"

    def __post_init__(self) -> None:
        if self.invalid not in _INVALID:
            raise ConfigError(f"invalid={self.invalid!r} is not known{accepted(self.invalid, _INVALID)}")
        config = DepthEncoderConfig(
            depth_min=self.depth_min,
            depth_max=self.depth_max,
            shift=self.shift,
            use_log=self.use_log,
            invalid=self.invalid,
        )
        for name in ("depth_min", "depth_max", "shift"):  # an int is now a float
            force_setattr(self, name, getattr(config, name))
        for unit in _UNITS:
            _scale(self, unit)

    @classmethod
    def from_config(cls, config: DepthEncoderConfig) -> Self:
        """Return the quantiser of a camera's encoder config."""
        return cls(config.depth_min, config.depth_max, config.shift, config.use_log, config.invalid)

    @classmethod
    def from_video_info(cls, info: Mapping[str, Any]) -> Self:
        """Return the quantiser a stream was made with, from its info block in ``info.json``.

        A block without ``video.invalid`` is LeRobot's, whose code 0 is a depth: ``clip``.
        """
        block = {"video.invalid": "clip"} | {k: v for k, v in info.items() if v is not None}
        return cls(**{key: block[f"video.{key}"] for key in DEPTH_FIELDS if f"video.{key}" in block})

    def quantize(self, depth: npt.NDArray[Any], *, input_unit: InputUnit = "auto") -> npt.NDArray[np.uint16]:
        """Return the codes of depth.

        What is nearer than ``depth_min`` takes the lowest code (0, or 1 with ``invalid="keep"``), what is
        farther than ``depth_max`` and plus infinity take 4095. NaN, minus infinity and, unless ``depth_min``
        is below it, 0 and less take code 0.
        Integers of up to 16 bits are looked up in a table, which is made once for each range and dtype.

        Args:
            depth: integers or floats, computed with as float32. Shape ``(H, W)``, ``(H, W, 1)``,
                ``(1, H, W)`` or a batch of any of these; need not be contiguous or writable.
            input_unit: ``mm`` or ``m``; ``auto``: integers are millimetres and floats are metres.

        Returns:
            a new uint16 array of the same shape, values 0..4095.

        Raises:
            ConfigError: a wrong dtype, shape or unit.
        """
        _check_array("depth", depth, "iuf", "integers or floats")
        _check_unit("input_unit", input_unit, "auto")
        unit = input_unit
        if unit == "auto":
            unit = "m" if depth.dtype.kind == "f" else "mm"
        values = _flat(depth)
        if values.dtype.kind == "f" or values.dtype.itemsize > 2:
            codes = _computed(values, self, unit)
        else:
            unsigned = values.view(f"u{values.dtype.itemsize}")
            codes = _looked_up(_codes_of(self, unit, values.dtype), unsigned, np.uint16)
        return codes.reshape(depth.shape)

    def steps_mm(self) -> tuple[float, float]:
        """Return the least and the widest distance in millimetres between depths of neighbouring codes."""
        apart = np.diff(_inverse(replace(self, invalid="clip"), "m").astype(np.float64)) * 1000
        return float(apart.min()), float(apart.max())

    def dequantize(self, codes: npt.NDArray[Any], *, output_unit: Unit = "mm") -> npt.NDArray[Any]:
        """Return the depth of codes, as LeRobot computes it with numpy.

        LeRobot's torch path differs from its numpy path, and so from this, in the last bits of float32:
        for a few codes by one millimetre, because they are next to a half.

        Args:
            codes: integers 0..4095, shaped as :meth:`quantize` accepts.
            output_unit: ``mm`` or ``m``.

        Returns:
            a new array of the same shape, within ``depth_min`` and ``depth_max``. ``mm``: uint16, rounded to
            even, at most 65535 whatever ``depth_max`` is; ``m``: float32. With ``invalid="keep"`` 0 stands
            for code 0, and for no other: depth that rounds to 0 mm is 1 mm.

        Raises:
            ConfigError: a wrong dtype, shape or unit, or a code outside 0..4095. (LeRobot returns
                ``depth_max`` above 4095; samples of 16 bits, or 12 in the high bits, would pass as depth.)
        """
        _check_array("codes", codes, "iu", "integers")
        _check_unit("output_unit", output_unit)
        values = _flat(codes)
        for code in (values.min(initial=0), values.max(initial=0)):
            if not 0 <= code <= MAX_CODE:
                raise ConfigError(f"a code must be 0..{MAX_CODE}, got {code}; are these 12-bit samples?")
        dtype = np.uint16 if output_unit == "mm" else np.float32
        return _looked_up(_depths_of(self, output_unit), values, dtype).reshape(codes.shape)


def quantize_depth(
    depth: npt.NDArray[Any],
    *,
    depth_min: float = 0.01,
    depth_max: float = 10.0,
    shift: float = 3.5,
    use_log: bool = True,
    input_unit: InputUnit = "auto",
    invalid: Invalid = "clip",
) -> npt.NDArray[np.uint16]:
    """Return the 12-bit codes of depth: :meth:`DepthQuantizer.quantize`.

    Args:
        depth: integers or floats, shape ``(H, W)``, ``(H, W, 1)``, ``(1, H, W)`` or a batch of any of these.
        depth_min, depth_max, shift, use_log, invalid: as for :class:`DepthQuantizer`; lengths in metres.
        input_unit: ``mm`` or ``m``; ``auto``: integers are millimetres and floats are metres.

    Returns:
        a new uint16 array of the same shape, values 0..4095.

    Raises:
        ConfigError: a range, dtype, shape or name that cannot be accepted.
    """
    return DepthQuantizer(depth_min, depth_max, shift, use_log, invalid).quantize(
        depth, input_unit=input_unit
    )


def dequantize_depth(
    codes: npt.NDArray[Any],
    *,
    depth_min: float = 0.01,
    depth_max: float = 10.0,
    shift: float = 3.5,
    use_log: bool = True,
    output_unit: Unit = "mm",
    invalid: Invalid = "clip",
) -> npt.NDArray[Any]:
    """Return the depth of 12-bit codes: :meth:`DepthQuantizer.dequantize`.

    Args:
        codes: integers 0..4095, shape ``(H, W)``, ``(H, W, 1)``, ``(1, H, W)`` or a batch of any of these.
        depth_min, depth_max, shift, use_log, invalid: those the codes were made with.
        output_unit: ``mm`` for uint16, ``m`` for float32.

    Returns:
        a new array of the same shape.

    Raises:
        ConfigError: a range, dtype, shape, code or name that cannot be accepted.
    """
    return DepthQuantizer(depth_min, depth_max, shift, use_log, invalid).dequantize(
        codes, output_unit=output_unit
    )


class _Scale(NamedTuple):
    """The formula's numbers in one unit: ``(d + shift - offset) / span``, the sum's logarithm if log."""

    shift: np.float32
    offset: np.float32
    span: np.float32


def _scale(quantizer: DepthQuantizer, unit: str) -> _Scale:
    with np.errstate(all="ignore"):
        low, high, shift = (
            np.float32(metres * _UNITS[unit])
            for metres in (quantizer.depth_min, quantizer.depth_max, quantizer.shift)
        )
        if not quantizer.use_log:
            scale = _Scale(np.float32(0), low, high - low)
        elif low + shift > 0 and np.isfinite(high + shift):
            log_low = math.log(float(low + shift))
            span = math.log(float(high + shift)) - log_low
            scale = _Scale(shift, np.float32(log_low), np.float32(span))
        else:
            scale = _Scale(shift, low, np.float32(0))
    if not (scale.span > 0 and np.isfinite(scale.span)):
        raise ConfigError(
            f"depth_min={quantizer.depth_min}, depth_max={quantizer.depth_max}, shift={quantizer.shift}: "
            f"the range in {unit} is empty or infinite in float32, which depth is quantised in"
        )
    return scale


def _formula(depth: npt.NDArray[Any], quantizer: DepthQuantizer, unit: str) -> npt.NDArray[np.uint16]:
    """Compute codes as LeRobot does, one new array a step. What the tables are made of, and the reference."""
    shift, offset, span = _scale(quantizer, unit)
    with np.errstate(all="ignore"):
        values = depth.astype(np.float32)
        norm = ((np.log(values + shift) if quantizer.use_log else values) - offset) / span
        rounded = np.rint(norm * np.float32(MAX_CODE)).clip(0, MAX_CODE)
        codes = np.where(np.isnan(rounded), 0, rounded).astype(np.uint16)
        return np.where(values > 0, np.maximum(codes, 1), 0) if quantizer.invalid == "keep" else codes


def _computed(values: npt.NDArray[Any], quantizer: DepthQuantizer, unit: str) -> npt.NDArray[np.uint16]:
    """``_formula`` of a flat array, in one small buffer; code for code the same."""
    shift, offset, span = _scale(quantizer, unit)
    lowest = 1 if quantizer.invalid == "keep" else 0
    codes = np.empty(values.size, np.uint16)
    buffer = np.empty(min(_BLOCK, values.size), np.float32)
    with np.errstate(all="ignore"):
        for start in range(0, values.size, _BLOCK):
            block = values[start : start + _BLOCK].astype(np.float32, copy=False)
            out = codes[start : start + _BLOCK]
            work = buffer[: block.size]
            if quantizer.use_log:
                np.add(block, shift, out=work)
                np.log(work, out=work)
                np.subtract(work, offset, out=work)
            else:
                np.subtract(block, offset, out=work)
            np.divide(work, span, out=work)
            np.multiply(work, np.float32(MAX_CODE), out=work)
            np.rint(work, out=work)
            np.clip(work, lowest, MAX_CODE, out=work)
            np.copyto(out, work, casting="unsafe")
            if math.isnan(work.min()):  # what a NaN is cast to is the processor's choice
                np.multiply(out, np.isfinite(work), out=out)
                np.clip(out, lowest, MAX_CODE, out=out)
            if quantizer.invalid == "keep":
                np.multiply(out, block > 0, out=out)
    return codes


def _inverse(quantizer: DepthQuantizer, unit: str) -> npt.NDArray[Any]:
    """Compute the depth of every code as LeRobot does with numpy."""
    low, high, shift = quantizer.depth_min, quantizer.depth_max, quantizer.shift
    if quantizer.use_log:
        low, high = math.log(low + shift), math.log(high + shift)
    # The product is rounded to float32 from float64, all that follows is float32.
    depth = (np.arange(MAX_CODE + 1) * ((high - low) / MAX_CODE)).astype(np.float32)
    depth += np.float32(low)
    if quantizer.use_log:
        np.exp(depth, out=depth)
        depth -= np.float32(shift)
    np.clip(depth, np.float32(quantizer.depth_min), np.float32(quantizer.depth_max), out=depth)
    if unit == "mm":
        depth = np.rint(depth * np.float32(1000)).clip(0, _MAX_MM).astype(np.uint16)
    if quantizer.invalid == "keep":
        if unit == "mm":
            np.maximum(depth, 1, out=depth)
        depth[0] = 0
    return depth


@lru_cache(maxsize=32)
def _codes_of(quantizer: DepthQuantizer, unit: str, dtype: np.dtype[Any]) -> Any:
    """The code of every value of an integer dtype, in the order of its bits."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    values = np.arange(1 << 8 * dtype.itemsize).astype(unsigned).view(dtype)
    return pa.array(_formula(values, quantizer, unit))


@lru_cache(maxsize=32)
def _depths_of(quantizer: DepthQuantizer, unit: str) -> Any:
    return pa.array(_inverse(quantizer, unit))


def _looked_up(table: Any, indices: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    # numpy would widen every index to 8 bytes first: 1.6 times as long. The buffer is new and writable.
    import pyarrow.compute as pc  # noqa: PLC0415 - 50 ms, which a start without depth need not take

    picked = pc.take(table, pa.array(indices), boundscheck=False)
    return np.frombuffer(picked.buffers()[1], dtype, count=indices.size)


def _flat(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The values in order, in this machine's byte order; a view where that is possible."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(-1)


def _check_array(name: str, array: Any, kinds: str, expected: str) -> None:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds:
        found = str(array.dtype) if isinstance(array, np.ndarray) else type(array).__name__
        raise ConfigError(f"got {found}", expected=f"a numpy array of {expected}", where=name)
    if array.ndim < 2 or (array.ndim > 3 and 1 not in (array.shape[-3], array.shape[-1])):
        raise ConfigError(
            f"got the shape {array.shape}",
            expected="(H, W), (H, W, 1), (1, H, W) or a batch of these",
            where=name,
        )


def _check_unit(name: str, unit: Any, *others: str) -> None:
    known = (*others, *_UNITS)
    if unit not in known:
        raise ConfigError(f"{name}={unit!r} is not known{accepted(unit, known)}")
