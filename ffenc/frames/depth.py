"""Depth to the 12-bit codes of a video and back: LeRobot's quantiser, with lookup tables.

The formula is that of ``lerobot.datasets.depth_utils``, taken from BEHAVIOR-1K's ``obs_utils.py``. With ``d``
the depth in its input unit, and the range converted to that unit::

    log:     code = rint(4095 * (ln(d + shift) - ln(depth_min + shift))
                              / (ln(depth_max + shift) - ln(depth_min + shift)))
    linear:  code = rint(4095 * (d - depth_min) / (depth_max - depth_min))

clipped to 0..4095. It is computed in float32, in LeRobot's order, so that all codes are equal to LeRobot's
with the same numpy on the same kind of processor. The last bit of numpy's float32 logarithm differs between
processors, and a depth between two codes may get the other one (in LeRobot as well).
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
_UNITS = {"mm": 1000.0, "m": 1.0}  # units per metre
_INVALID = ("keep", "clip")
_MAX_MM = 65535
_BLOCK = 1 << 18  # values computed at once, so that their float32 stay in the processor's cache


class DepthQuantizer(Struct, frozen=True):
    """Quantiser of depth to 12-bit codes and back, with one range.

    Args:
        depth_min, depth_max: stored range in metres; depth outside it gets the code of its nearest end.
        shift: offset added before the logarithm, in metres.
        use_log: quantise the logarithm of depth (finer near, coarser far) instead of depth itself.
        invalid: how pixels without depth (0, below 0, or NaN) are stored. The default is LeRobot's; the
            default of a camera's config is ``keep``.
            ``clip``: LeRobot's codes exactly. Such a pixel gets code 0, that of too near depth, and every
                reader, LeRobot's included, returns ``depth_min`` for it: a surface where nothing was
                measured.
            ``keep``: such a pixel gets code 0, and depth gets only 1..4095; :meth:`dequantize` returns 0 for
                code 0. LeRobot's reader returns ``depth_min``, but only for such pixels. Depth with code 0 in
                ``clip`` is read one step farther (1.2 mm with the defaults), all other depth is the same.

    Raises:
        ConfigError: a wrong type, a range that is empty, or empty or infinite in float32, a logarithm of a
            number that is not positive, an unknown ``invalid``, or ``keep`` with a ``depth_min`` below 0, so
            that 0 is a depth.

    Example:
        >>> quantizer = DepthQuantizer(depth_min=0.1, depth_max=5.0)
        >>> codes = quantizer.quantize(np.array([[0, 500, 5000]], np.uint16))  # millimetres
        >>> quantizer.dequantize(codes)
        array([[ 100,  500, 5000]], dtype=uint16)
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
        for name in ("depth_min", "depth_max", "shift"):  # converts ints to floats
            force_setattr(self, name, getattr(config, name))
        for unit in _UNITS:
            _scale(self, unit)

    @classmethod
    def from_config(cls, config: DepthEncoderConfig) -> Self:
        """Return the quantiser of a camera's encoder config."""
        return cls(config.depth_min, config.depth_max, config.shift, config.use_log, config.invalid)

    @classmethod
    def from_video_info(cls, info: Mapping[str, Any]) -> Self:
        """Return the quantiser of a stream, from its info block in ``info.json``.

        A block without ``video.invalid`` is LeRobot's, in which code 0 is a depth: ``clip``.
        """
        block = {"video.invalid": "clip"} | {k: v for k, v in info.items() if v is not None}
        return cls(**{key: block[f"video.{key}"] for key in DEPTH_FIELDS if f"video.{key}" in block})

    def quantize(self, depth: npt.NDArray[Any], *, input_unit: InputUnit = "auto") -> npt.NDArray[np.uint16]:
        """Return the codes of depth.

        Depth below ``depth_min`` gets the lowest code (0, or 1 with ``invalid="keep"``), depth above
        ``depth_max`` and plus infinity get 4095. NaN and minus infinity get code 0, as do 0 and negative
        values unless ``depth_min`` is negative. Integers of up to 16 bits are looked up in a table, which is
        computed once for each range and dtype.

        Args:
            depth: integers or floats, which are converted to float32. Shape ``(H, W)``, ``(H, W, 1)``, ``(1,
                H, W)`` or a batch of any of these; need not be contiguous or writable.
            input_unit: ``mm`` or ``m``; ``auto``: integers are millimetres and floats are metres.

        Returns:
            A new uint16 array of the same shape with values 0..4095.

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
        """Return the least and greatest distance between depths of neighbouring codes, in millimetres."""
        apart = np.diff(_inverse(replace(self, invalid="clip"), "m").astype(np.float64)) * 1000
        return float(apart.min()), float(apart.max())

    def dequantize(self, codes: npt.NDArray[Any], *, output_unit: Unit = "mm") -> npt.NDArray[Any]:
        """Return the depth of codes, as LeRobot computes it with numpy.

        LeRobot's torch code differs from its numpy code, and so from this method, in the last bits of
        float32: a few codes close to a half are rounded to another millimetre.

        Args:
            codes: integers 0..4095, shaped as for :meth:`quantize`.
            output_unit: ``mm`` or ``m``.

        Returns:
            A new array of the same shape with values from ``depth_min`` to ``depth_max``. ``mm``: uint16,
            rounded half to even, at most 65535 for any ``depth_max``; ``m``: float32. With ``invalid="keep"``
            code 0, and no other code, gives 0: depth that rounds to 0 mm becomes 1 mm.

        Raises:
            ConfigError: a wrong dtype, shape or unit, or a code outside 0..4095. (LeRobot returns
                ``depth_max`` for codes above 4095; samples of 16 bits, or of 12 bits in the high bits, would
                be accepted as depth.)
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
    """Return the 12-bit codes of depth, as :meth:`DepthQuantizer.quantize`.

    Args:
        depth: integers or floats, shape ``(H, W)``, ``(H, W, 1)``, ``(1, H, W)`` or a batch of any of these.
        depth_min, depth_max, shift, use_log, invalid: as for :class:`DepthQuantizer`; lengths in metres.
        input_unit: ``mm`` or ``m``; ``auto``: integers are millimetres and floats are metres.

    Returns:
        A new uint16 array of the same shape with values 0..4095.

    Raises:
        ConfigError: a range, dtype, shape or unit that is not accepted.
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
    """Return the depth of 12-bit codes, as :meth:`DepthQuantizer.dequantize`.

    Args:
        codes: integers 0..4095, shape ``(H, W)``, ``(H, W, 1)``, ``(1, H, W)`` or a batch of any of these.
        depth_min, depth_max, shift, use_log, invalid: the values that the codes were quantised with.
        output_unit: ``mm`` for uint16, ``m`` for float32.

    Returns:
        A new array of the same shape.

    Raises:
        ConfigError: a range, dtype, shape, code or unit that is not accepted.
    """
    return DepthQuantizer(depth_min, depth_max, shift, use_log, invalid).dequantize(
        codes, output_unit=output_unit
    )


class _Scale(NamedTuple):
    """Constants of the formula in one unit: ``(d + shift - offset) / span``, or with the sum's logarithm."""

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
    """Compute codes as LeRobot does, with a new array per step: for the tables, and as a reference."""
    shift, offset, span = _scale(quantizer, unit)
    with np.errstate(all="ignore"):
        values = depth.astype(np.float32)
        norm = ((np.log(values + shift) if quantizer.use_log else values) - offset) / span
        rounded = np.rint(norm * np.float32(MAX_CODE)).clip(0, MAX_CODE)
        codes = np.where(np.isnan(rounded), 0, rounded).astype(np.uint16)
        return np.where(values > 0, np.maximum(codes, 1), 0) if quantizer.invalid == "keep" else codes


def _computed(values: npt.NDArray[Any], quantizer: DepthQuantizer, unit: str) -> npt.NDArray[np.uint16]:
    """Compute ``_formula`` for a flat array with one small buffer; all codes are equal."""
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
            if math.isnan(work.min()):  # the result of casting a NaN depends on the processor
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
    # The product is computed in float64 and rounded to float32; all later steps are float32.
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
    """Return the code of every value of an integer dtype, in the order of its bits."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    values = np.arange(1 << 8 * dtype.itemsize).astype(unsigned).view(dtype)
    return pa.array(_formula(values, quantizer, unit))


@lru_cache(maxsize=32)
def _depths_of(quantizer: DepthQuantizer, unit: str) -> Any:
    return pa.array(_inverse(quantizer, unit))


def _looked_up(table: Any, indices: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    # numpy would first widen every index to 8 bytes, which takes 1.6 times as long. The buffer is new and
    # writable.
    import pyarrow.compute as pc  # noqa: PLC0415 - 50 ms, only needed for depth

    picked = pc.take(table, pa.array(indices), boundscheck=False)
    return np.frombuffer(picked.buffers()[1], dtype, count=indices.size)


def _flat(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values in order, in this machine's byte order; a view if possible."""
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
