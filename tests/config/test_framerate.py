import io
import subprocess
from fractions import Fraction

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffenc.config.framerate import Pick, fps_number, fps_text, frame_ticks, parse_fps, time_scale
from ffenc.errors import ConfigError
from tests.conftest import newest_program


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
    + ["1e999999999", "1_5", "\u0663\u0660", True, False, None, [30], {}, 1e-9],
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
@given(st.fractions(min_value=Fraction(1, 100), max_value=100_000, max_denominator=20_000))
def test_a_rate_comes_back_from_its_text_if_it_has_one(rate):
    text = fps_text(rate)
    assert parse_fps(text) == rate if text is not None else rate.denominator > 10_000


@settings(deadline=None)
@given(st.fractions(min_value=Fraction(1, 1000), max_value=100_000, max_denominator=10**12))
def test_the_time_scale_fits_31_bits_and_every_frame_is_whole_ticks_of_it(rate):
    fps = parse_fps(rate)
    assert 10_000 <= time_scale(fps) < 2**31
    assert frame_ticks(fps) * fps == time_scale(fps)


RATES = [Fraction(n) for n in range(1, 1001)]
RATES += [Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120, 240)] + [
    Fraction(2997, 100),
    Fraction(1, 2),
]


def stored_scale(video: bytes) -> int:
    """The time scale in a track's media header."""
    place = video.index(b"mdhd") + len(b"mdhd") + 12
    return int.from_bytes(video[place : place + 4], "big")


def test_the_time_scale_is_the_muxers_own_choice_for_every_rate(toolchain, tmp_path):
    """What is written without saying a time scale, as LeRobot does it."""
    command = [toolchain.ffmpeg, "-v", "error", "-f", "lavfi", "-i", "color=size=16x16:rate=1:duration=1"]
    rates = RATES if toolchain.ffmpeg == newest_program("ffmpeg") else RATES[::7] + RATES[1000:]
    for number, rate in enumerate(rates):
        output = ["-map", "0:v", "-r", str(rate), "-frames:v", "1", "-c:v", "mjpeg", "-threads", "1"]
        command += [*output, str(tmp_path / f"{number}.mp4")]
    subprocess.run(command, check=True)
    found = [stored_scale((tmp_path / f"{number}.mp4").read_bytes()) for number in range(len(rates))]
    assert found == [time_scale(rate) for rate in rates]


def test_the_time_scale_is_what_pyav_writes():
    for rate in RATES:
        file = io.BytesIO()
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("mjpeg", rate)
            stream.width, stream.height, stream.pix_fmt = 16, 16, "yuvj420p"
            container.mux(stream.encode(av.VideoFrame(16, 16, "yuvj420p")))
        assert stored_scale(file.getvalue()) == time_scale(rate), rate


@pytest.mark.parametrize(
    ("old", "new"),
    [("30", "10"), ("30", "12"), ("30000/1001", "10"), ("50", "29.97"), ("30", "29"), ("7", "3")],
)
def test_the_nearest_frame_is_kept_for_each_new_time(old: str, new: str) -> None:
    pick = Pick(parse_fps(old), parse_fps(new))
    for length in (1, 2, 3, 7, 100, 1001):
        found = list(pick.indices(length))
        assert len(found) == pick.count(length)
        expected = []
        for j in range(length):
            wanted = j / pick.new * pick.old
            around = range(max(0, int(wanted) - 1), int(wanted) + 3)
            nearest = min(around, key=lambda i: (abs(i - wanted), -i))
            if nearest < length:
                expected.append(nearest)
        assert found == expected
    assert pick.count(0) == 0
