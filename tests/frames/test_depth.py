"""Depth to codes and back, against the formula in float32 as LeRobot computes it and in exact arithmetic."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ffenc import ConfigError, DepthEncoderConfig
from ffenc.frames.depth import (
    MAX_CODE,
    DepthQuantizer,
    _computed,
    _formula,
    dequantize_depth,
    quantize_depth,
)

EVERY = np.arange(65536).astype(np.uint16).reshape(256, 256)
CODES = np.arange(4096, dtype=np.uint16).reshape(64, 64)
RANGES: list[dict[str, Any]] = [
    {},
    {"depth_min": 0.1, "depth_max": 3.3, "shift": 0.7},
    {"depth_min": 0.3, "depth_max": 65.0, "shift": 0},
    {"depth_min": 0, "depth_max": 1, "shift": 0.001},
    {"depth_min": 2.0, "depth_max": 8.0, "shift": -1.5},
    {"depth_min": 0.05, "depth_max": 200.0, "shift": 12.345},
    {"depth_min": 1.0, "depth_max": 1.0001, "shift": 0.0},
    {"depth_min": 1e-4, "depth_max": 0.05, "shift": 0.0},
]
QUANTIZERS = [
    DepthQuantizer(**fields, use_log=use_log, invalid=invalid)
    for fields in RANGES
    for use_log in (True, False)
    for invalid in ("clip", "keep")
] + [DepthQuantizer(-1.0, 2.0, 1.5, use_log, "clip") for use_log in (True, False)]
MILLIMETRES = (0, 1, 10, 11, 12, 250, 500, 999, 1000, 2000, 4321, 9999, 10000, 10001, 65535)
SPECIAL = np.array([[np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, -9.0, 1e38, -1e38, 1e-30]], np.float32)


@pytest.fixture(params=QUANTIZERS, ids=str)
def quantizer(request: pytest.FixtureRequest) -> DepthQuantizer:
    found: DepthQuantizer = request.param
    return found


def written_out(depth: np.ndarray, quantizer: DepthQuantizer, unit: float) -> np.ndarray:
    """The formula in float64, before rounding."""
    low, high, shift = (unit * x for x in (quantizer.depth_min, quantizer.depth_max, quantizer.shift))
    d = depth.astype(np.float64).clip(low, high)
    if not quantizer.use_log:
        return 4095 * (d - low) / (high - low)
    return 4095 * (np.log(d + shift) - np.log(low + shift)) / (np.log(high + shift) - np.log(low + shift))


# What LeRobot 0.6 gives for MILLIMETRES as uint16, and for the same depth as float32 metres.
@pytest.mark.parametrize(
    ("fields", "codes"),
    [
        ({}, [0, 0, 0, 1, 2, 201, 397, 755, 755, 1365, 2436, 4095, 4095, 4095, 4095]),
        ({"use_log": False}, [0, 0, 0, 0, 1, 98, 201, 405, 406, 816, 1767, 4095, 4095, 4095, 4095]),
        (
            {"depth_min": 0.1, "depth_max": 3.3, "shift": 0.7},
            [0, 0, 0, 0, 0, 437, 1032, 1916, 1918, 3095, 4095, 4095, 4095, 4095, 4095],
        ),
    ],
)
def test_codes_are_lerobots(fields: dict[str, Any], codes: list[int]) -> None:
    depth = np.array([MILLIMETRES], np.uint16)
    assert quantize_depth(depth, invalid="clip", **fields).tolist() == [codes]
    assert quantize_depth((depth / 1000).astype(np.float32), invalid="clip", **fields).tolist() == [codes]


def test_depths_are_lerobots() -> None:
    codes = np.array([[0, 1, 2, 100, 2048, 4094, 4095]], np.uint16)
    assert dequantize_depth(codes, invalid="clip").tolist() == [[10, 11, 12, 127, 3385, 9996, 10000]]
    metres = dequantize_depth(codes, output_unit="m", invalid="clip")
    np.testing.assert_allclose(
        metres, [[0.01, 0.011154, 0.01231, 0.127384, 3.384809, 9.99556, 10.0]], rtol=0, atol=3e-6
    )


def test_every_integer_takes_the_formulas_code(quantizer: DepthQuantizer) -> None:
    for depth in (EVERY, EVERY.view(np.int16), EVERY.astype(np.uint8), EVERY.astype(np.int8)):
        for unit in ("mm", "m"):
            codes = quantizer.quantize(depth, input_unit=unit)  # type: ignore[arg-type]
            assert codes.dtype == np.uint16
            np.testing.assert_array_equal(codes, _formula(depth, quantizer, unit))


def test_integers_too_wide_for_a_table_take_the_same_codes(quantizer: DepthQuantizer) -> None:
    expected = quantizer.quantize(EVERY)
    for dtype in (np.uint32, np.int32, np.uint64, np.int64):
        np.testing.assert_array_equal(quantizer.quantize(EVERY.astype(dtype)), expected)
    np.testing.assert_array_equal(
        quantizer.quantize(EVERY.view(np.int16).astype(np.int64)), quantizer.quantize(EVERY.view(np.int16))
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_take_the_formulas_code(quantizer: DepthQuantizer, dtype: type) -> None:
    rng = np.random.default_rng(3)
    near = rng.uniform(-1, 2 * quantizer.depth_max, 30_000)
    wide = 10 ** rng.uniform(-6, 4.8, 20_000)
    depth = np.concatenate([near, wide, SPECIAL[0, :6], np.zeros(94)]).clip(-60_000, 60_000).astype(dtype)
    depth = depth.reshape(50, -1)
    for unit in ("mm", "m"):
        codes = quantizer.quantize(depth, input_unit=unit)  # type: ignore[arg-type]
        np.testing.assert_array_equal(codes, _formula(depth, quantizer, unit))


def test_floats_of_more_than_one_block_take_the_formulas_code() -> None:
    depth = np.random.default_rng(4).uniform(-1, 12, (3, 480, 640)).astype(np.float32)
    depth[1, :100] = np.nan
    for invalid in ("clip", "keep"):
        quantizer = DepthQuantizer(invalid=invalid)  # type: ignore[arg-type]
        np.testing.assert_array_equal(quantizer.quantize(depth), _formula(depth, quantizer, "m"))


def test_codes_are_the_exact_formulas_but_for_ties() -> None:
    for use_log in (True, False):
        quantizer = DepthQuantizer(use_log=use_log, invalid="clip")
        exact = written_out(EVERY, quantizer, 1000)
        codes = quantizer.quantize(EVERY)
        clear = np.abs(exact - np.floor(exact) - 0.5) > 0.01
        assert clear.mean() > 0.97
        np.testing.assert_array_equal(codes[clear], np.rint(exact[clear]))
        assert np.abs(codes - exact).max() < 0.51


def test_the_unit_follows_the_dtype_unless_it_is_given() -> None:
    millimetres = EVERY[:40]
    metres = (millimetres / 1000).astype(np.float32)
    np.testing.assert_array_equal(
        quantize_depth(millimetres.astype(np.float32), input_unit="mm"), quantize_depth(millimetres)
    )
    np.testing.assert_array_equal(quantize_depth(metres, input_unit="m"), quantize_depth(metres))
    whole = np.array([[0, 1, 5, 10, 11]])
    np.testing.assert_array_equal(
        quantize_depth(whole, input_unit="m"), quantize_depth(whole.astype(np.float32))
    )
    assert quantize_depth(whole.astype(np.uint16), input_unit="m")[0, 2] > 2000
    assert quantize_depth(whole)[0, 2] == 0
    for depth in (millimetres, metres):  # as LeRobot's function takes it
        np.testing.assert_array_equal(quantize_depth(depth, input_unit="auto"), quantize_depth(depth))


def test_values_that_are_no_depth_have_their_code_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for use_log in (True, False):
            clipped = quantize_depth(SPECIAL, use_log=use_log, invalid="clip")
            assert clipped.tolist() == [[0, 4095, 0, 0, 0, 0, 0, 4095, 0, 0]]
            kept = quantize_depth(SPECIAL, use_log=use_log, invalid="keep")
            assert kept.tolist() == [[0, 4095, 0, 0, 0, 0, 0, 4095, 0, 1]]
            huge = np.array([[1e300, -1e300, np.nan]])
            assert quantize_depth(huge, use_log=use_log).tolist() == [[4095, 0, 0]]
            signed = np.array([[-32768, -3500, -1, 0]], np.int16)
            assert quantize_depth(signed, use_log=use_log, invalid="clip").tolist() == [[0] * 4]
            assert quantize_depth(signed, use_log=use_log, invalid="keep").tolist() == [[0] * 4]


def test_depth_too_near_for_the_logarithm_is_near_not_missing() -> None:
    quantizer = DepthQuantizer(2.0, 8.0, -1.5, invalid="keep")  # 0.5 m - 1.5 m has no logarithm
    assert quantizer.quantize(np.array([[np.nan, 0.0, 0.5, 2.0, 8.0]])).tolist() == [[0, 0, 1, 1, 4095]]
    assert quantizer.quantize(np.array([[0, 500, 2000, 8000]], np.uint16)).tolist() == [[0, 1, 1, 4095]]


@pytest.mark.parametrize("unit", ["mm", "m"])
def test_holes_that_are_kept_come_back_as_holes(unit: Any) -> None:
    depth = np.array([[0, 1, 9, 10, 11, 12, 5000, 10_000, 20_000]], np.uint16)
    keep, clip = DepthQuantizer(invalid="keep"), DepthQuantizer(invalid="clip")
    codes = keep.quantize(depth)
    assert codes[0, 0] == 0
    assert (codes[0, 1:] >= 1).all()
    np.testing.assert_array_equal(codes[0, 1:], np.maximum(clip.quantize(depth)[0, 1:], 1))
    back = keep.dequantize(CODES, output_unit=unit)
    assert back.flat[0] == 0
    assert (back.flat[1:] > 0).all()
    np.testing.assert_array_equal(back.flat[1:], clip.dequantize(CODES, output_unit=unit).flat[1:])
    nearest = clip.dequantize(CODES, output_unit=unit).flat[0]
    assert nearest == pytest.approx(10 if unit == "mm" else 0.01, abs=1e-6)


def test_no_depth_comes_back_as_a_hole_in_millimetres() -> None:
    keep = DepthQuantizer(0.0, 0.2, 0.01, invalid="keep")
    assert keep.dequantize(np.array([[0, 1, 2]])).tolist() == [[0, 1, 1]]
    assert DepthQuantizer(0.0, 0.2, 0.01, invalid="clip").dequantize(np.array([[0, 1]])).tolist() == [[0, 0]]


def test_every_code_survives_the_way_to_metres_and_back(quantizer: DepthQuantizer) -> None:
    metres = quantizer.dequantize(CODES, output_unit="m")
    assert metres.dtype == np.float32
    valid = metres.flat[1:]
    assert (np.diff(valid) >= 0).all()
    assert valid.min() >= np.float32(quantizer.depth_min)
    assert valid.max() <= np.float32(quantizer.depth_max)
    if quantizer.depth_max - quantizer.depth_min > 0.01:  # else a step is finer than float32
        np.testing.assert_array_equal(quantizer.quantize(metres), CODES)


@pytest.mark.parametrize("use_log", [True, False])
def test_millimetres_survive_the_way_to_codes_and_back_within_half_a_step(use_log: bool) -> None:
    quantizer = DepthQuantizer(use_log=use_log)
    depth = np.arange(10, 10_001, dtype=np.uint16).reshape(1, -1)
    codes = quantizer.quantize(depth)
    metres = quantizer.dequantize(codes, output_unit="m")
    step = (np.log(13.5 / 3.51) * (depth / 1000 + 3.5) if use_log else 9.99) / 4095
    assert (np.abs(metres - depth / 1000) <= step / 2 * 1.001 + 1e-5).all()
    millimetres = quantizer.dequantize(codes)
    assert millimetres.dtype == np.uint16
    assert (np.abs(millimetres.astype(float) - depth) <= 1000 * (step / 2 * 1.001 + 1e-5) + 0.5).all()
    np.testing.assert_array_equal(millimetres, np.rint(metres * np.float32(1000)))


def test_millimetres_end_at_65535() -> None:
    assert dequantize_depth(np.array([[4095]]), depth_max=200.0).tolist() == [[65535]]
    assert dequantize_depth(np.array([[4095]]), depth_max=200.0, output_unit="m") == pytest.approx(200)


@settings(deadline=None, max_examples=60)
@given(
    depth_min=st.floats(0, 5),
    extent=st.floats(0.05, 60),
    shift=st.floats(0.001, 20),
    use_log=st.booleans(),
    invalid=st.sampled_from(["clip", "keep"]),
)
def test_any_range(depth_min: float, extent: float, shift: float, use_log: bool, invalid: Any) -> None:
    quantizer = DepthQuantizer(depth_min, depth_min + extent, shift, use_log, invalid)
    codes = quantizer.quantize(EVERY)
    np.testing.assert_array_equal(codes, _formula(EVERY, quantizer, "mm"))
    np.testing.assert_array_equal(codes.ravel(), _computed(EVERY.ravel(), quantizer, "mm"))
    assert (np.diff(codes.ravel().astype(int)) >= 0).all()
    exact = written_out(EVERY[EVERY > 0], quantizer, 1000)
    # float32 holds a logarithm to 1e-7 of itself, which is more of a step the smaller the range.
    assume(not use_log or np.log((depth_min + extent + shift) / (depth_min + shift)) > 0.05)
    assert np.abs(codes[EVERY > 0] - exact).max() < (1.1 if invalid == "keep" else 0.6)


@pytest.mark.parametrize(
    "shape", [(6, 8), (6, 8, 1), (1, 6, 8), (3, 6, 8), (3, 6, 8, 1), (3, 1, 6, 8), (2, 3, 1, 6, 8), (0, 6, 8)]
)
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_the_shape_stays(shape: tuple[int, ...], dtype: type) -> None:
    depth = (np.arange(np.prod(shape)).reshape(shape) * 50).astype(dtype)
    codes = quantize_depth(depth, input_unit="mm")
    assert codes.shape == shape
    np.testing.assert_array_equal(codes.ravel(), quantize_depth(depth.reshape(1, -1), input_unit="mm")[0])
    for unit, returned in (("mm", np.uint16), ("m", np.float32)):
        back = dequantize_depth(codes, output_unit=unit)  # type: ignore[arg-type]
        assert back.shape == shape
        assert back.dtype == returned


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.float32])
def test_how_an_array_lies_in_memory_does_not_matter(dtype: type) -> None:
    depth = np.random.default_rng(1).integers(0, 12_000, (40, 60)).astype(dtype)
    expected = quantize_depth(depth, input_unit="mm")
    unaligned = np.frombuffer(b"x" + depth.tobytes(), np.uint8)[1:].view(dtype).reshape(depth.shape)
    assert not unaligned.flags.aligned
    readonly = depth.copy()
    readonly.setflags(write=False)
    big_endian = depth.astype(depth.dtype.newbyteorder(">"))
    for other in (np.asfortranarray(depth), readonly, big_endian, unaligned):
        np.testing.assert_array_equal(quantize_depth(other, input_unit="mm"), expected)
    np.testing.assert_array_equal(quantize_depth(depth[::-2, ::3], input_unit="mm"), expected[::-2, ::3])
    np.testing.assert_array_equal(
        dequantize_depth(expected[::-2, ::3]), np.ascontiguousarray(dequantize_depth(expected))[::-2, ::3]
    )
    np.testing.assert_array_equal(dequantize_depth(expected.astype(">u2")), dequantize_depth(expected))


def test_what_comes_back_is_the_callers_own() -> None:
    for depth in (EVERY, EVERY.astype(np.float32)):
        before = depth.copy()
        first = quantize_depth(depth)
        again = first.copy()
        first[:] = 7  # neither the input nor the cached table
        np.testing.assert_array_equal(depth, before)
        np.testing.assert_array_equal(quantize_depth(depth), again)
    for unit in ("mm", "m"):
        first = dequantize_depth(CODES, output_unit=unit)  # type: ignore[arg-type]
        again = first.copy()
        first[:] = 7
        np.testing.assert_array_equal(dequantize_depth(CODES, output_unit=unit), again)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.int64, np.uint64])
def test_codes_may_be_of_any_integer(dtype: type) -> None:
    np.testing.assert_array_equal(dequantize_depth(CODES.astype(dtype)), dequantize_depth(CODES))


def test_functions_and_quantizer_agree_with_the_config() -> None:
    config = DepthEncoderConfig(depth_min=0.2, depth_max=4.0, shift=1.0, use_log=False)
    quantizer = DepthQuantizer.from_config(config)
    fields: dict[str, Any] = {"depth_min": 0.2, "depth_max": 4.0, "shift": 1.0, "use_log": False}
    assert quantizer == DepthQuantizer(**fields, invalid="keep")
    np.testing.assert_array_equal(quantizer.quantize(EVERY), quantize_depth(EVERY, **fields, invalid="keep"))
    np.testing.assert_array_equal(
        quantizer.dequantize(CODES), dequantize_depth(CODES, **fields, invalid="keep")
    )
    assert DepthQuantizer.from_config(DepthEncoderConfig(invalid="clip")) == DepthQuantizer()
    assert DepthQuantizer.from_config(DepthEncoderConfig()) == DepthQuantizer(invalid="keep")
    for function in (quantize_depth, dequantize_depth):
        defaults = {name: p.default for name, p in inspect.signature(function).parameters.items()}
        assert (
            DepthQuantizer(**{name: defaults[name] for name in DepthQuantizer.__struct_fields__})
            == DepthQuantizer()
        )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"depth_min": 2.0, "depth_max": 2.0}, "must be below"),
        ({"depth_min": 3.0, "depth_max": 2.0}, "must be below"),
        ({"depth_max": float("inf")}, "finite"),
        ({"depth_min": float("nan")}, "finite"),
        ({"shift": float("-inf")}, "finite"),
        ({"shift": -0.01}, "must be above 0"),
        ({"depth_min": "near"}, "depth_min"),
        ({"use_log": 1}, "true or false"),
        ({"invalid": "drop"}, "accepted: keep, clip"),
        ({"invalid": "kep"}, "did you mean 'keep'"),
        ({"invalid": None}, "accepted: keep, clip"),
        ({"depth_min": -0.5, "invalid": "keep"}, "must be 0 or more"),
        ({"depth_min": 1.0, "depth_max": 1.0 + 1e-9}, "in mm is empty or infinite in float32"),
        ({"depth_min": 1.0, "depth_max": 1.0 + 1e-9, "use_log": False}, "empty or infinite"),
        ({"depth_max": 1e37}, "empty or infinite"),
        ({"shift": 1e37}, "empty or infinite"),
        ({"depth_min": 1.0, "shift": -1.0 + 1e-12}, "empty or infinite"),
    ],
)
def test_a_range_that_cannot_be_is_refused(fields: dict[str, Any], text: str) -> None:
    for call in (
        DepthQuantizer,
        lambda **f: quantize_depth(EVERY, **f),
        lambda **f: dequantize_depth(CODES, **f),
    ):
        with pytest.raises(ConfigError, match=text):
            call(**fields)


def test_the_shift_of_a_linear_range_is_not_looked_at() -> None:
    np.testing.assert_array_equal(
        quantize_depth(EVERY, use_log=False, shift=-5), quantize_depth(EVERY, use_log=False)
    )


@pytest.mark.parametrize("call", [quantize_depth, dequantize_depth])
@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((2, 2), bool), "got bool"),
        (np.zeros((2, 2), complex), "got complex128"),
        (np.zeros((2, 2), object), "got object"),
        (np.zeros((2, 2), "S2"), "got |S2"),
        ([[1, 2]], "got list"),
        (np.uint16(3), "got uint16"),
        (np.zeros(4, np.uint16), r"got the shape \(4,\); expected \(H, W\)"),
        (np.array(4, np.uint16), r"got the shape \(\)"),
        (np.zeros((2, 3, 4, 5), np.uint16), r"got the shape \(2, 3, 4, 5\)"),
    ],
)
def test_an_array_that_is_no_depth_is_refused(call: Any, array: Any, found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        call(array)


def test_codes_that_are_floats_are_refused() -> None:
    with pytest.raises(ConfigError, match="got float32; expected a numpy array of integers"):
        dequantize_depth(CODES.astype(np.float32))


@pytest.mark.parametrize(
    ("code", "dtype"), [(MAX_CODE + 1, np.uint16), (65535, np.uint16), (-1, np.int8), (2**40, np.int64)]
)
def test_a_code_outside_12_bits_is_refused(code: int, dtype: type) -> None:
    with pytest.raises(ConfigError, match=rf"0\.\.4095, got {code};"):
        dequantize_depth(np.array([[1, code, 3]], dtype))


@pytest.mark.parametrize("unit", ["cm", "MM", "", 1, ["mm"], None])
def test_an_unknown_unit_is_refused_with_the_known_ones(unit: Any) -> None:
    with pytest.raises(ConfigError, match=r"input_unit=.*ccepted: auto, mm, m"):
        quantize_depth(EVERY, input_unit=unit)
    with pytest.raises(ConfigError, match=r"output_unit=.*ccepted: mm, m"):
        dequantize_depth(CODES, output_unit=unit)
    with pytest.raises(ConfigError, match="output_unit='auto' is not known"):
        dequantize_depth(CODES, output_unit="auto")  # type: ignore[arg-type]


def test_a_block_without_the_key_is_lerobots_and_has_no_holes() -> None:
    lerobots = {"video.depth_min": 0.2, "video.depth_max": 4.0, "video.shift": 1.0, "video.use_log": False}
    assert DepthQuantizer.from_video_info(lerobots) == DepthQuantizer(0.2, 4.0, 1.0, False, "clip")
    ours = lerobots | {"video.invalid": "keep", "video.codec": "hevc"}
    assert DepthQuantizer.from_video_info(ours) == DepthQuantizer(0.2, 4.0, 1.0, False, "keep")
    assert DepthQuantizer.from_video_info({"video.shift": None}) == DepthQuantizer()
