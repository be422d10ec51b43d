from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffenc.config.framerate import fps_number, parse_fps
from ffenc.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "rate"),
    [
        (30, Fraction(30)),
        (30.0, Fraction(30)),
        ("30", Fraction(30)),
        (29.97, Fraction(2997, 100)),
        ("29.97", Fraction(2997, 100)),
        ("30000/1001", Fraction(30000, 1001)),
        (Fraction(30000, 1001), Fraction(30000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
        ("59.94005994", Fraction(60000, 1001)),
        (23.976, Fraction(2997, 125)),
        (0.5, Fraction(1, 2)),
        ("1/10", Fraction(1, 10)),
        (1, Fraction(1)),
        (100_000, Fraction(100_000)),
    ],
)
def test_a_frame_rate_is_the_fraction_it_says(value, rate):
    assert parse_fps(value) == rate


@pytest.mark.parametrize(
    "value",
    [0, -30, "-30", "", "abc", "30/0", "30/", "30 fps", float("nan"), float("inf"), "nan", "inf", 100_001]
    + ["1e999999999", True, False, None, [30], {}, 1e-9],
)
def test_what_is_no_frame_rate_is_refused_with_what_was_found(value):
    with pytest.raises(ConfigError, match="is not a frame rate") as caught:
        parse_fps(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("rate", "number"),
    [(Fraction(30), 30), (Fraction(2997, 100), 29.97), (Fraction(30000, 1001), 30000 / 1001)],
)
def test_a_whole_rate_is_written_as_an_int_and_another_as_a_float(rate, number):
    assert fps_number(rate) == number
    assert type(fps_number(rate)) is type(number)


@settings(deadline=None)
@given(st.fractions(min_value=Fraction(1, 100), max_value=100_000, max_denominator=10_000))
def test_a_rate_comes_back_from_the_number_in_info_json(rate):
    assert parse_fps(fps_number(rate)) == rate


@settings(deadline=None)
@given(st.fractions(min_value=Fraction(1, 1000), max_value=100_000, max_denominator=10**12))
def test_the_numerator_fits_a_31_bit_time_scale(rate):
    assert parse_fps(rate).numerator < 2**31
