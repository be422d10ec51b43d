import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffenc.codecs.options import merged_options
from ffenc.codecs.table import CODECS
from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.errors import ConfigError


def compiled(config, threads=None):
    """The options of a config, and the texts with which those that have no effect are refused."""
    merged = merged_options(CODECS[config.vcodec], config, threads)
    if not merged.unused:
        assert config.get_codec_options(threads) == merged.values
        return merged.values, []
    with pytest.raises(ConfigError) as refused:
        config.get_codec_options(threads)
    assert str(refused.value).splitlines() == list(merged.unused.values())
    return merged.values, list(merged.unused.values())


ENCODERS = {
    "libsvtav1": ("libsvtav1", "av1"),
    "h264": ("libx264", "h264"),
    "hevc": ("libx265", "hevc"),
    "libaom-av1": ("libaom-av1", "av1"),
    "ffv1": ("ffv1", "ffv1"),
    "h264_videotoolbox": ("h264_videotoolbox", "h264"),
    "hevc_videotoolbox": ("hevc_videotoolbox", "hevc"),
    "h264_nvenc": ("h264_nvenc", "h264"),
    "hevc_nvenc": ("hevc_nvenc", "hevc"),
    "av1_nvenc": ("av1_nvenc", "av1"),
    "h264_vaapi": ("h264_vaapi", "h264"),
    "hevc_vaapi": ("hevc_vaapi", "hevc"),
    "av1_vaapi": ("av1_vaapi", "av1"),
    "h264_qsv": ("h264_qsv", "h264"),
    "hevc_qsv": ("hevc_qsv", "hevc"),
    "av1_qsv": ("av1_qsv", "av1"),
    "h264_v4l2m2m": ("h264_v4l2m2m", "h264"),
}

# What each row makes of crf=30, g=2 and nothing else.
DEFAULTS = {
    "libsvtav1": {"g": 2, "crf": 30, "preset": 12, "svtav1-params": "fast-decode=0"},
    "h264": {"g": 2, "crf": 30},
    "hevc": {"g": 2, "crf": 30, "x265-params": "open-gop=0"},
    "libaom-av1": {"g": 2, "lag-in-frames": 2, "crf": 30},
    "ffv1": {"g": 1, "level": 3, "slicecrc": 1, "slices": 4},
    "h264_videotoolbox": {"g": 2, "q:v": 40},
    "hevc_videotoolbox": {"g": 2, "q:v": 40},
    "h264_nvenc": {"g": 2, "rc": 0, "qp": 30},
    "hevc_nvenc": {"g": 2, "rc": 0, "qp": 30},
    "av1_nvenc": {"g": 2, "rc": 0, "qp": 30},
    "h264_vaapi": {"g": 2, "qp": 30},
    "hevc_vaapi": {"g": 2, "qp": 30},
    "av1_vaapi": {"g": 2, "rc_mode": "CQP", "global_quality": 30},
    "h264_qsv": {"g": 2, "global_quality": 30},
    "hevc_qsv": {"g": 2, "global_quality": 30, "idr_interval": 1},
    "av1_qsv": {"g": 2, "global_quality": 30},
    "h264_v4l2m2m": {"g": 2},
}

# (vcodec, fields, encoder_threads, options)
CASES = [
    ("libsvtav1", {"crf": 23}, None, {"g": 2, "crf": 23, "preset": 12, "svtav1-params": "fast-decode=0"}),
    ("libsvtav1", {"preset": 8}, None, {"g": 2, "crf": 30, "preset": 8, "svtav1-params": "fast-decode=0"}),
    ("libsvtav1", {"preset": 0}, None, {"g": 2, "crf": 30, "preset": 0, "svtav1-params": "fast-decode=0"}),
    (
        "libsvtav1",
        {"fast_decode": 1},
        None,
        {"g": 2, "crf": 30, "preset": 12, "svtav1-params": "fast-decode=1"},
    ),
    (
        "libsvtav1",
        {"fast_decode": 2},
        None,
        {"g": 2, "crf": 30, "preset": 12, "svtav1-params": "fast-decode=2"},
    ),
    ("libsvtav1", {}, 4, {"g": 2, "crf": 30, "preset": 12, "svtav1-params": "fast-decode=0:lp=4"}),
    (
        "libsvtav1",
        {"fast_decode": 1, "crf": None, "g": None},
        1,
        {"preset": 12, "svtav1-params": "fast-decode=1:lp=1"},
    ),
    ("av1", {"crf": 20}, None, {"g": 2, "crf": 20, "preset": 12, "svtav1-params": "fast-decode=0"}),
    ("h264", {"crf": 22.5}, None, {"g": 2, "crf": 22.5}),
    ("h264", {"crf": 0}, None, {"g": 2, "crf": 0}),
    ("h264", {"preset": 5}, None, {"g": 2, "crf": 30, "preset": 5}),
    ("hevc", {"preset": 0}, None, {"g": 2, "crf": 30, "preset": 0, "x265-params": "open-gop=0"}),
    ("h264", {"preset": "veryfast"}, None, {"g": 2, "crf": 30, "preset": "veryfast"}),
    ("h264", {"fast_decode": 1}, None, {"g": 2, "crf": 30, "tune": "fastdecode"}),
    ("h264", {"fast_decode": 2}, None, {"g": 2, "crf": 30, "tune": "fastdecode"}),
    ("h264", {}, 4, {"g": 2, "crf": 30, "threads": 4}),
    ("hevc", {"crf": 22.5}, None, {"g": 2, "crf": 22.5, "x265-params": "open-gop=0"}),
    (
        "hevc",
        {"preset": "ultrafast"},
        None,
        {"g": 2, "crf": 30, "preset": "ultrafast", "x265-params": "open-gop=0"},
    ),
    (
        "hevc",
        {"fast_decode": 1},
        None,
        {"g": 2, "crf": 30, "tune": "fastdecode", "x265-params": "open-gop=0"},
    ),
    (
        "hevc",
        {},
        40,  # x265 refuses more than 16 frame threads
        {"g": 2, "crf": 30, "threads": 16, "x265-params": "open-gop=0:pools=40"},
    ),
    ("hevc", {}, 4, {"g": 2, "crf": 30, "threads": 4, "x265-params": "open-gop=0:pools=4"}),
    ("libaom-av1", {"crf": 20, "preset": 6}, None, {"g": 2, "lag-in-frames": 2, "crf": 20, "cpu-used": 6}),
    ("libaom-av1", {"preset": 0}, None, {"g": 2, "lag-in-frames": 2, "crf": 30, "cpu-used": 0}),
    ("libaom-av1", {"g": 35}, None, {"g": 35, "crf": 30}),
    ("libaom-av1", {"g": 34}, None, {"g": 34, "lag-in-frames": 34, "crf": 30}),
    ("libaom-av1", {}, 4, {"g": 2, "lag-in-frames": 2, "crf": 30, "threads": 4, "row-mt": 1}),
    ("ffv1", {"crf": None, "g": 1}, None, {"g": 1, "level": 3, "slicecrc": 1, "slices": 4}),
    ("ffv1", {"g": None}, None, {"g": 1, "level": 3, "slicecrc": 1, "slices": 4}),
    ("ffv1", {}, 1, {"g": 1, "level": 3, "slicecrc": 1, "slices": 4, "threads": 1}),
    ("ffv1", {}, 4, {"g": 1, "level": 3, "slicecrc": 1, "slices": 4, "threads": 4}),
    ("ffv1", {}, 5, {"g": 1, "level": 3, "slicecrc": 1, "slices": 6, "threads": 5}),
    ("ffv1", {}, 8, {"g": 1, "level": 3, "slicecrc": 1, "slices": 9, "threads": 8}),
    ("ffv1", {}, 16, {"g": 1, "level": 3, "slicecrc": 1, "slices": 16, "threads": 16}),
    ("h264_videotoolbox", {"crf": 0}, None, {"g": 2, "q:v": 100}),
    ("h264_videotoolbox", {"crf": 22.5}, None, {"g": 2, "q:v": 55}),
    ("hevc_videotoolbox", {"crf": 49.5}, 4, {"g": 2, "q:v": 1}),
    ("h264_nvenc", {"crf": 23, "preset": "p4"}, None, {"g": 2, "rc": 0, "qp": 23, "preset": "p4"}),
    ("hevc_nvenc", {"crf": 0, "preset": 12}, 4, {"g": 2, "rc": 0, "qp": 0, "preset": 12}),
    ("av1_nvenc", {"crf": 120}, None, {"g": 2, "rc": 0, "qp": 120}),
    ("h264_vaapi", {"crf": 23, "g": 30}, 4, {"g": 30, "qp": 23}),
    ("hevc_vaapi", {"crf": 23}, None, {"g": 2, "qp": 23}),
    ("av1_vaapi", {"crf": 120}, 4, {"g": 2, "rc_mode": "CQP", "global_quality": 120}),
    (
        "h264_qsv",
        {"crf": 23, "preset": "veryfast"},
        None,
        {"g": 2, "global_quality": 23, "preset": "veryfast"},
    ),
    ("hevc_qsv", {"crf": 23, "preset": 7}, None, DEFAULTS["hevc_qsv"] | {"global_quality": 23, "preset": 7}),
    ("av1_qsv", {"crf": 60}, 4, {"g": 2, "global_quality": 60}),
    (
        "h264_v4l2m2m",
        {"g": 30, "extra_options": {"b:v": "4M"}},
        4,
        {"g": 30, "b:v": "4M"},
    ),
]


def test_every_row_of_the_table_has_its_expectations_here():
    assert set(CODECS) == set(ENCODERS) == set(DEFAULTS)
    assert set(CODECS) <= {vcodec for vcodec, *_ in CASES}


@pytest.mark.parametrize("vcodec", ENCODERS)
def test_a_row_names_its_encoder_and_the_stream_it_writes(vcodec):
    row = CODECS[vcodec]
    assert (row.name, row.encoder, row.stream) == (vcodec, *ENCODERS[vcodec])


@pytest.mark.parametrize("vcodec", [name for name in DEFAULTS if name != "h264_v4l2m2m"])
def test_default_settings_become_the_options_of_the_row(vcodec):
    assert compiled(VideoEncoderConfig(vcodec=vcodec)) == (DEFAULTS[vcodec], [])


@pytest.mark.parametrize(("vcodec", "fields", "threads", "expected"), CASES)
def test_settings_become_the_options_of_the_row(vcodec, fields, threads, expected):
    assert compiled(VideoEncoderConfig(vcodec=vcodec, **fields), threads) == (expected, [])


@pytest.mark.parametrize("vcodec", DEFAULTS)
def test_unset_g_and_crf_emit_nothing(vcodec):
    """Only ffv1, which is all key frames and has no quality, keeps its fixed options."""
    options, texts = compiled(VideoEncoderConfig(vcodec=vcodec, g=None, crf=None))
    remaining = {
        "libsvtav1": {"preset": 12, "svtav1-params": "fast-decode=0"},
        "hevc": {"x265-params": "open-gop=0"},
        "hevc_qsv": {"idr_interval": 1},
        "ffv1": {"g": 1, "level": 3, "slicecrc": 1, "slices": 4},
    }
    assert options == remaining.get(vcodec, {})
    assert texts == []


def test_v4l2m2m_has_no_quality_option_and_says_so():
    options, texts = compiled(VideoEncoderConfig(vcodec="h264_v4l2m2m", crf=23))
    assert options == {"g": 2}
    assert len(texts) == 1
    assert "crf=23" in texts[0]
    assert "b:v" in texts[0]


@pytest.mark.parametrize("vcodec", ["h264_videotoolbox", "hevc_videotoolbox", "h264_vaapi", "hevc_vaapi"])
def test_a_preset_for_an_encoder_without_presets_is_refused(vcodec):
    options, texts = compiled(VideoEncoderConfig(vcodec=vcodec, preset="fast"))
    assert options == DEFAULTS[vcodec]
    assert len(texts) == 1
    assert "preset='fast'" in texts[0]
    assert vcodec in texts[0]


@pytest.mark.parametrize("vcodec", DEFAULTS)
def test_as_strings_gives_the_same_options_as_text(vcodec):
    config = VideoEncoderConfig(
        vcodec=vcodec, crf=None, extra_options={"maxrate": 4000000, "bf": 0, "refs": "3"}
    )
    numbers = config.get_codec_options(2)
    texts = config.get_codec_options(2, as_strings=True)
    assert texts == {key: str(value) for key, value in numbers.items()}
    assert texts["maxrate"] == "4000000"


def test_the_default_depth_config_is_lossless_whatever_the_threads():
    assert compiled(DepthEncoderConfig())[0]["x265-params"] == "open-gop=0:lossless=1"
    params = compiled(DepthEncoderConfig(), 2)[0]["x265-params"]
    assert sorted(params.split(":")) == ["lossless=1", "open-gop=0", "pools=2"]


# ---- extra_options -------------------------------------------------------------------------------------

# Every spelling here of one and the same FFmpeg option, by hand.
SPELLINGS = {
    "c": ["c", "c:v", "c:v:0", "codec", "codec:v", "vcodec"],
    "pix_fmt": ["pix_fmt", "pix_fmt:v", "pix_fmt:v:0"],
    "crf": ["crf", "crf:v", "crf:v:0"],
    "g": ["g", "g:v", "g:v:0"],
    "preset": ["preset", "preset:v"],
    "cpu-used": ["cpu-used", "cpu-used:v"],
    "q": ["q", "q:v", "qscale", "qscale:v", "global_quality", "global_quality:v"],
    "qp": ["qp", "qp:v"],
    "cq": ["cq", "cq:v"],
    "b": ["b", "b:v", "vb"],
    "rc": ["rc", "rc:v"],
    "rc_mode": ["rc_mode", "rc_mode:v"],
    "tune": ["tune", "tune:v"],
    "threads": ["threads", "threads:v"],
    "row-mt": ["row-mt", "row-mt:v"],
    "slices": ["slices", "slices:v"],
    "slicecrc": ["slicecrc", "slicecrc:v"],
    "level": ["level", "level:v"],
    "lag-in-frames": ["lag-in-frames", "lag-in-frames:v"],
}
PARAMS = {
    "libsvtav1": ["svtav1-params", "svtav1-params:v"],
    "h264": ["x264-params", "x264opts", "x264-params:v"],
    "hevc": ["x265-params", "x265-params:v"],
    "libaom-av1": ["aom-params"],
}
PARAMS_NAMES = [name for names in PARAMS.values() for name in names]
PARAMS_OPTION = {name: names[0] for names in PARAMS.values() for name in names}
HARMLESS = ["bf", "refs", "profile:v", "sc_threshold", "maxrate:v", "bufsize", "aq-mode", "my_own.option"]
PLAIN_FAMILY = {name: family for family, names in SPELLINGS.items() for name in names}
FAMILY = PLAIN_FAMILY | PARAMS_OPTION
# With crf set, none of these may take its place; these two have no quality option to be replaced.
RATE_CONTROL = {"b", "crf", "cq", "q", "qp", "rc", "rc_mode"}
WITHOUT_QUALITY = {"ffv1", "h264_v4l2m2m"}

# Sub-keys of a params option, by the setting whose value they would change.
SUB_KEYS = {
    "crf": ["crf", "qp"],
    "g": ["keyint", "intra-period"],
    "preset": ["preset"],
    "fast_decode": ["fast-decode", "fast_decode"],
    "threads": ["lp", "pools", "threads", "frame_threads"],
    "always": ["colorprim", "colormatrix", "color_range", "fps", "input-csp", "width"],
    None: ["enable-overlays", "bframes", "rc-lookahead", "scm", "no-cabac", "aq-strength"],
}
SETTING_OF = {name: setting for setting, names in SUB_KEYS.items() for name in names}

values = st.one_of(
    st.integers(-1000, 1000),
    st.floats(-1000, 1000, allow_nan=False).map(lambda f: round(f, 3)),
    st.from_regex(r"[a-z0-9+./]{1,6}", fullmatch=True),
)
sub_keys = st.dictionaries(st.sampled_from(list(SETTING_OF)), st.integers(0, 1), min_size=1, max_size=5)
params_values = sub_keys.map(lambda subs: ":".join(f"{key}={value}" for key, value in subs.items()))
unhurried = settings(deadline=None, max_examples=40)  # a busy machine is no failure


@st.composite
def configs(draw):
    """Any codec with any settings it takes."""
    vcodec = draw(st.sampled_from(list(CODECS)))
    names = {
        "libsvtav1": st.integers(-2, 13),
        "libaom-av1": st.integers(0, 8),
        "h264": st.sampled_from(["ultrafast", "medium"]),
        "hevc": st.sampled_from(["ultrafast", "medium"]),
        "h264_nvenc": st.sampled_from(["p1", "p7"]),
    }
    config = VideoEncoderConfig(
        vcodec=vcodec,
        pix_fmt=draw(st.sampled_from(["yuv420p", "yuv444p"])),
        g=draw(st.none() | st.integers(1, 300)),
        crf=draw(st.none() | st.integers(1, 49)) if CODECS[vcodec].has_crf else None,
        preset=draw(st.none() | names[vcodec]) if vcodec in names else None,
        fast_decode=draw(st.integers(0, 2)) if CODECS[vcodec].has_fast_decode else 0,
    )
    return config, draw(st.none() | st.integers(1, 40))


@st.composite
def extras(draw):
    """Extra options under any spelling, in any order."""
    plain = draw(st.dictionaries(st.sampled_from([*PLAIN_FAMILY, *HARMLESS]), values, max_size=6))
    # Unknown words of these are refused.
    for name in plain.keys() & {"tune", "profile:v"}:
        plain[name] = draw(st.integers(0, 3))
    params = draw(st.dictionaries(st.sampled_from(PARAMS_NAMES), params_values, max_size=3))
    items = draw(st.permutations([*plain.items(), *params.items()]))
    return dict(items)


def parsed(text):
    return dict(part.partition("=")[::2] for part in str(text).split(":"))


def own_params(vcodec):
    return PARAMS.get(vcodec, [])


def with_extras(config, threads, extra):
    """The structured options without the extras, the merged options, and the refusals of extras."""
    structured, before = compiled(config, threads)
    merged, after = compiled(config.replace(extra_options=extra), threads)
    about_extras = [text for text in after if "extra_options:" in text]
    assert {text for text in after if text not in about_extras} <= set(before)
    return structured, merged, about_extras


def about(texts, setting):
    """The texts that say a setting, with its value, would have no effect."""
    return [text for text in texts if f"extra_options: {setting} would have no effect, " in text]


def decided(config, structured):
    """What the config and ffenc have decided: family -> value."""
    values = {FAMILY[name]: value for name, value in structured.items() if name in FAMILY}
    values |= {"c": ENCODERS[config.vcodec][0], "pix_fmt": config.pix_fmt}
    if config.crf is not None and config.vcodec not in WITHOUT_QUALITY:
        values = dict.fromkeys(RATE_CONTROL, config.crf) | values
    return values


@unhurried
@given(configs(), extras())
def test_no_extra_option_changes_a_structured_value(case, extra):
    config, threads = case
    structured, merged, _ = with_extras(config, threads, extra)
    params = own_params(config.vcodec)
    for name, value in structured.items():
        if name in params:
            assert parsed(value).items() <= parsed(merged[name]).items()
        else:
            assert merged[name] == value
            rivals = [key for key in merged if key != name and FAMILY.get(key, key) == FAMILY.get(name, name)]
            assert rivals == [], "another spelling of the same option would override it"


@unhurried
@given(configs(), extras())
def test_every_extra_option_that_lost_is_named_once_with_its_value_and_the_value_that_won(case, extra):
    config, threads = case
    structured, merged, texts = with_extras(config, threads, extra)
    won_by_us = decided(config, structured)
    for name, value in extra.items():
        if name in own_params(config.vcodec) or (name in merged and merged[name] == value):
            continue
        about_it = about(texts, f"{name}={value}")
        assert len(about_it) == 1
        family = FAMILY[name]
        winner = won_by_us.get(family)
        if winner is None:  # an earlier extra option under another spelling
            earlier = list(extra)[: list(extra).index(name)]
            winner = next(extra[other] for other in earlier if FAMILY.get(other) == family)
        assert f"={winner} is set" in about_it[0]


@unhurried
@given(configs(), extras())
def test_every_sub_key_that_lost_is_named_once_with_its_value_and_the_value_that_won(case, extra):
    config, threads = case
    _, merged, texts = with_extras(config, threads, extra)
    in_force = {
        "crf": config.crf,
        "g": config.g,
        "preset": config.preset,
        "fast_decode": config.fast_decode if config.fast_decode or config.vcodec == "libsvtav1" else None,
        "threads": threads,
        "always": True,
    }
    given_before = {}
    for name in own_params(config.vcodec):
        assert name == PARAMS_OPTION[name] or name not in merged
    for name, text in extra.items():
        if name not in own_params(config.vcodec):
            continue
        result = parsed(merged.get(PARAMS_OPTION[name], ""))
        for key, value in parsed(text).items():
            lost_to = in_force.get(SETTING_OF[key])
            plain = key.replace("_", "-")
            if lost_to is None and plain not in given_before:
                given_before[plain] = value
                assert result[key] == value
                continue
            about_it = about(texts, f"{name} {key}={value}")
            assert len(about_it) == 1
            assert " is set" in about_it[0]
            if lost_to is None:
                assert f"={given_before[plain]} is set" in about_it[0]
            elif SETTING_OF[key] in ("crf", "g", "preset"):
                assert f"={lost_to} is set" in about_it[0]
            elif SETTING_OF[key] == "threads":
                assert f"={threads} is set" in about_it[0]


@unhurried
@given(configs(), extras())
def test_every_harmless_extra_option_arrives_as_given(case, extra):
    config, threads = case
    structured, merged, texts = with_extras(config, threads, extra)
    taken = decided(config, structured)
    for name, value in extra.items():
        if name in own_params(config.vcodec):
            continue
        rivals = [other for other in extra if other != name and FAMILY.get(other) == FAMILY.get(name)]
        if name in HARMLESS or (FAMILY[name] not in taken and not rivals):
            assert merged[name] == value
            assert about(texts, f"{name}={value}") == []


@unhurried
@given(configs(), extras())
def test_nothing_but_structured_and_extra_options_is_in_the_result(case, extra):
    config, threads = case
    structured, merged, _ = with_extras(config, threads, extra)
    assert set(merged) <= set(structured) | set(extra) | set(own_params(config.vcodec)[:1])


RESERVED = """
    i map f filter_complex filter_complex_script lavfi y n vf af filter filter:v filter_script vn an sn dn
    c c:v codec codec:v vcodec acodec pix_fmt pix_fmt:v r r:v s s:v aspect t to ss sseof fs
    movflags movie_timescale video_track_timescale use_editlist brand frag_duration
    empty_hdlr_name frag_interleave moov_size use_stream_ids_as_track_ids write_btrt write_prft write_tmcd
    fflags flags flags:v metadata metadata:s:v:0 map_metadata map_chapters disposition program
    fps_mode fps_mode:v vsync enc_time_base time_base copyts start_at_zero output_ts_offset
    avoid_negative_ts itsoffset force_key_frames frames frames:v vframes shortest stream_loop re readrate
    tag tag:v vtag bsf bsf:v vbsf timecode timestamp target
    colorspace color_range color_primaries color_trc chroma_sample_location colorspace:v
    pass attach dump sdp_file report loglevel v hide_banner nostdin stdin nostats progress
    vstats vstats_file xerror abort_on benchmark help h L version codecs encoders formats
    hwaccel hwaccel_device init_hw_device filter_hw_device vaapi_device qsv_device
    err_detect framerate video_size format filename video_bitrate audio_bitrate
""".split()


@pytest.mark.parametrize("name", RESERVED)
def test_what_ffenc_decides_itself_cannot_be_set_by_an_extra_option(name):
    for vcodec in ("libsvtav1", "h264", "h264_vaapi", "ffv1"):
        config = VideoEncoderConfig(vcodec=vcodec, crf=None, g=None)
        structured, merged, texts = with_extras(config, None, {name: "given", "bf": 3})
        assert merged == structured | {"bf": 3}
        assert len(texts) == 1
        assert f"{name}=given would have no effect" in texts[0]
        assert texts[0].endswith((" is set", " set by ffenc itself"))


@pytest.mark.parametrize(
    ("name", "won"),
    [
        ("codec:v", "=libx265 is set"),
        ("pix_fmt", "=yuv444p is set"),
        ("f", "=mp4 is set"),
        ("vsync", "=passthrough is set"),
        ("movflags", "=+faststart is set"),
        ("vtag", "=hvc1 is set"),
    ],
)
def test_a_reserved_option_with_a_value_of_its_own_is_refused_with_that_value(name, won):
    config = VideoEncoderConfig(vcodec="hevc", pix_fmt="yuv444p", extra_options={name: "given"})
    (text,) = compiled(config)[1]
    assert won in text


@pytest.mark.parametrize(
    ("fields", "threads", "name", "given", "option", "expected"),
    [
        (
            {},
            None,
            "svtav1-params",
            "tune=0:film-grain=8",
            "svtav1-params",
            "fast-decode=0:tune=0:film-grain=8",
        ),
        ({}, 2, "svtav1-params", "scd=1", "svtav1-params", "fast-decode=0:lp=2:scd=1"),
        ({"fast_decode": 1}, None, "svtav1-params", "tune=0", "svtav1-params", "fast-decode=1:tune=0"),
        (
            {"vcodec": "libaom-av1"},
            None,
            "aom-params",
            "tune=ssim",
            "aom-params",
            "tune=ssim",
        ),
        ({"vcodec": "h264"}, None, "x264-params", "bframes=0:no-cabac", "x264-params", "bframes=0:no-cabac"),
        ({"vcodec": "h264"}, 2, "x264opts", "bframes=0:aq-mode=2", "x264-params", "bframes=0:aq-mode=2"),
        ({"vcodec": "hevc"}, None, "x265-params", "bframes=0", "x265-params", "open-gop=0:bframes=0"),
        ({"vcodec": "hevc"}, 2, "x265-params:v", "bframes=0", "x265-params", "open-gop=0:pools=2:bframes=0"),
        ({"vcodec": "h264", "crf": None}, None, "x264-params", "crf=18", "x264-params", "crf=18"),
        ({"vcodec": "h264", "g": None}, None, "x264-params", "keyint=9", "x264-params", "keyint=9"),
        ({"vcodec": "h264"}, None, "x264-params", "threads=1", "x264-params", "threads=1"),
    ],
)
def test_other_sub_keys_of_a_params_option_are_merged_in(fields, threads, name, given, option, expected):
    options, texts = compiled(VideoEncoderConfig(**fields, extra_options={name: given}), threads)
    assert texts == []
    assert sorted(options[option].split(":")) == sorted(expected.split(":"))
    assert name == option or name not in options


@pytest.mark.parametrize(
    ("fields", "threads", "name", "given", "won"),
    [
        ({}, None, "svtav1-params", "fast-decode=2", "fast-decode=0"),
        ({}, None, "svtav1-params", "fast_decode=2", "=0"),
        ({}, None, "svtav1-params", "crf=5", "crf=30"),
        ({}, None, "svtav1-params", " crf = 5", "crf=30"),
        ({}, None, "svtav1-params", "--crf=5", "crf=30"),
        ({}, None, "svtav1-params", "CRF=5", "crf=30"),
        ({"vcodec": "h264"}, None, "x264-params", "no-keyint=1", "g=2"),
        ({}, None, "svtav1-params", "preset=3", "preset=12"),
        ({}, None, "svtav1-params", "keyint=99", "g=2"),
        ({}, 2, "svtav1-params", "lp=8", "lp=2"),
        ({"vcodec": "h264", "crf": 23.5}, None, "x264opts", "crf=5", "crf=23.5"),
        ({"vcodec": "h264"}, None, "x264-params", "qp=5", "crf=30"),
        ({"vcodec": "h264"}, 2, "x264-params", "threads=8", "encoder_threads=2"),
        ({"vcodec": "hevc"}, None, "x265-params", "keyint=99", "g=2"),
        ({"vcodec": "hevc"}, 2, "x265-params", "pools=8", "pools=2"),
        ({"vcodec": "hevc"}, 2, "x265-params", "frame-threads=8", "encoder_threads=2"),
        ({"vcodec": "libaom-av1", "preset": 6}, None, "aom-params", "cpu-used=0", "preset=6"),
        ({"vcodec": "libaom-av1"}, None, "aom-params", "end-usage=vbr", "crf=30"),
    ],
)
def test_a_sub_key_that_a_setting_has_already_is_left_out_and_named(fields, threads, name, given, won):
    config = VideoEncoderConfig(**fields)
    structured, merged, texts = with_extras(config, threads, {name: given})
    assert merged == structured
    assert len(texts) == 1
    assert f"{name} {given} would have no effect" in texts[0]
    assert f"{won} is set" in texts[0]


@pytest.mark.parametrize(
    "sub_key", ["colorprim=bt2020", "range=full", "fullrange=1", "color-range=1", "fps=5"]
)
@pytest.mark.parametrize(
    ("vcodec", "name"), [("h264", "x264-params"), ("hevc", "x265-params"), ("av1", "svtav1-params")]
)
def test_colour_and_time_cannot_be_set_through_a_params_option(vcodec, name, sub_key):
    config = VideoEncoderConfig(vcodec=vcodec)
    structured, merged, texts = with_extras(config, None, {name: sub_key})
    assert merged == structured
    assert len(texts) == 1
    assert f"{sub_key} would have no effect" in texts[0]


@pytest.mark.parametrize("name", ["b:v", "b", "vb", "qp", "cq", "q:v", "qscale", "rc"])
@pytest.mark.parametrize("vcodec", ["libsvtav1", "h264", "libaom-av1"])
def test_another_rate_control_does_not_take_the_place_of_a_crf_that_is_set(vcodec, name):
    config = VideoEncoderConfig(vcodec=vcodec, crf=28)
    structured, merged, texts = with_extras(config, None, {name: "7"})
    assert merged == structured
    assert texts == [
        f"extra_options: {name}=7 would have no effect, crf=28 is set; to use it, set crf to null"
    ]
    free, texts = compiled(config.replace(crf=None, extra_options={name: "7"}))
    assert free[name] == "7"
    assert texts == []


def test_a_largest_bit_rate_is_taken_beside_crf():
    config = VideoEncoderConfig(vcodec="h264", extra_options={"maxrate": "4M", "bufsize": "8M"})
    assert compiled(config) == ({"g": 2, "crf": 30, "maxrate": "4M", "bufsize": "8M"}, [])


@pytest.mark.parametrize("text", ["crf='5'", 'a="b:crf=5"', r"a=b\:crf=5", "'crf=5'"])
def test_quotes_and_backslashes_that_would_hide_a_sub_key_are_refused(text):
    config = VideoEncoderConfig(vcodec="h264", extra_options={"x264-params": text})
    with pytest.raises(ConfigError, match="x264-params.*quotes and backslashes"):
        config.get_codec_options()


def test_of_two_spellings_of_an_extra_option_the_first_is_used_and_the_second_named():
    options, texts = compiled(VideoEncoderConfig(vcodec="h264", extra_options={"bf:v": 1, "bf": 2}))
    assert options["bf:v"] == 1
    assert "bf" not in options
    assert len(texts) == 1
    assert "bf=2 would have no effect, bf:v=1 is set" in texts[0]


# ---- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", "-bf", "--bf", "b f", "bf=3", "bf\n", "bf\0", "9bf", ":v", "bf:", "bf::v", "/filter", "bf;y", "é"],
)
def test_what_is_no_option_name_is_refused(name):
    with pytest.raises(ConfigError, match="is not an FFmpeg option name"):
        VideoEncoderConfig(extra_options={name: 1})


@pytest.mark.parametrize(
    "name", ["bf", "profile:v", "b:v:0", "metadata:s:v:0", "x264-params", "me_range", "a.b+c"]
)
def test_a_plausible_option_name_is_accepted(name):
    assert VideoEncoderConfig(extra_options={name: 1}).extra_options == {name: 1}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "is not a text or a number"),
        (False, "is not a text or a number"),
        (None, "is not a text or a number"),
        ([1], "is not a text or a number"),
        ({"a": 1}, "is not a text or a number"),
        (float("nan"), "is not a finite number"),
        (float("inf"), "is not a finite number"),
        ("a\0b", "a NUL or a newline"),
        ("a\nb", "a NUL or a newline"),
        ("a\rb", "a NUL or a newline"),
    ],
)
def test_what_is_no_option_value_is_refused_by_name(value, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        VideoEncoderConfig(extra_options={"bf": value})
    assert "bf" in str(caught.value)


@pytest.mark.parametrize(
    ("vcodec", "preset", "nearest"),
    [
        ("h264", "ultrafst", "ultrafast"),
        ("h264", 10, None),
        ("hevc", -1, None),
        ("hevc", "veryfst", "veryfast"),
        ("libsvtav1", "slow", None),
        ("libsvtav1", 14, None),
        ("libsvtav1", -3, None),
        ("libaom-av1", "good", None),
        ("libaom-av1", -1, None),
    ],
)
def test_an_unknown_preset_is_refused_with_those_there_are(vcodec, preset, nearest):
    with pytest.raises(ConfigError) as caught:
        VideoEncoderConfig(vcodec=vcodec, preset=preset).get_codec_options()
    text = str(caught.value)
    assert f"preset={preset!r}" in text
    assert vcodec in text
    assert ("veryslow, placebo, 0, 1" if vcodec in ("h264", "hevc") else "5, 6, 7, 8") in text
    assert nearest is None or f"did you mean {nearest!r}" in text


@pytest.mark.parametrize("preset", [9, 10, 11])
def test_a_preset_beyond_the_range_of_cpu_used_is_refused(preset):
    """``ffmpeg -h encoder=libaom-av1`` says 0 to 8, in 5.1 as in 9.0, and fails on more."""
    with pytest.raises(ConfigError, match=f"preset={preset} "):
        VideoEncoderConfig(vcodec="libaom-av1", preset=preset).get_codec_options()


@pytest.mark.parametrize(
    "vcodec", ["libsvtav1", "libaom-av1", "h264_nvenc", "h264_vaapi", "av1_vaapi", "h264_qsv"]
)
def test_a_fractional_crf_is_refused_where_the_encoder_takes_whole_numbers(vcodec):
    with pytest.raises(ConfigError, match=r"crf=22\.5.*whole numbers"):
        VideoEncoderConfig(vcodec=vcodec, crf=22.5).get_codec_options()


def test_a_crf_of_0_does_not_become_an_unset_crf():
    """FFmpeg reads libsvtav1's crf 0 as unset and encodes with 35; only svtav1-params takes a real 0."""
    try:
        options, texts = compiled(VideoEncoderConfig(vcodec="libsvtav1", crf=0))
    except ConfigError as refusal:
        assert "crf=0" in str(refusal)
    else:
        assert any("crf=0" in text for text in texts) or "crf=0" in options["svtav1-params"].split(":")


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "2"])
def test_encoder_threads_that_are_no_whole_number_of_1_or_more_are_refused(threads):
    with pytest.raises(ConfigError, match="encoder_threads"):
        VideoEncoderConfig().get_codec_options(threads)


def test_auto_has_no_options_before_it_is_resolved():
    with pytest.raises(ConfigError, match="auto.*libsvtav1"):
        VideoEncoderConfig(vcodec="auto").get_codec_options()


@pytest.mark.parametrize(
    ("vcodec", "fields", "text"),
    [
        ("h264", {"crf": 99}, r"crf=99 is out of range: h264 takes 0 to 51"),
        ("hevc", {"crf": 51.5}, r"crf=51\.5 is out of range: hevc takes 0 to 51"),
        ("libsvtav1", {"crf": 64}, r"crf=64 is out of range: libsvtav1 takes 0 to 63"),
        ("h264_videotoolbox", {"crf": 50}, r"crf=50 is out of range: h264_videotoolbox takes 0 to 49\.5"),
        ("h264_nvenc", {"crf": 52}, r"crf=52 is out of range: h264_nvenc takes 0 to 51"),
        ("ffv1", {"crf": 20}, r"crf=20 would have no effect, ffv1 has no quality option; it is lossless"),
        ("ffv1", {"crf": None, "g": 10}, r"g=10 would have no effect, all frames of ffv1 are key frames"),
        ("ffv1", {"preset": 3}, r"preset=3 would have no effect, ffv1 has no presets"),
        ("libaom-av1", {"fast_decode": 1}, r"fast_decode=1 .* libsvtav1, h264, hevc have it"),
        ("h264", {"extra_options": {"x264-params": "bframes=999"}}, r"x264-params bframes=999 .* 0 to 16"),
        ("h264", {"extra_options": {"x264opts": "--me_range=3"}}, r"x264opts --me_range=3 .* 4 to 1024"),
        ("hevc", {"extra_options": {"x265-params": "aq-mode=9"}}, r"x265-params aq-mode=9 .* 0 to 5"),
        (
            "libsvtav1",
            {"extra_options": {"svtav1-params": "film-grain=51"}},
            r"svtav1-params film-grain=51 is out of range: libsvtav1 takes 0 to 50",
        ),
        ("h264", {"extra_options": {"tune": "flim"}}, r"tune=flim.*mean 'film'\? Accepted: film, animation"),
        ("h264", {"extra_options": {"profile:v": "main8"}}, r"profile:v=main8: 'main8' is not one of"),
        ("h264", {"extra_options": {"tune": "film,zerolat"}}, r"'zerolat' .*did you mean 'zerolatency'"),
        ("hevc", {"extra_options": {"tune": "film"}}, r"values of libx265; accepted: psnr, ssim, grain"),
        ("hevc", {"extra_options": {"x265-params": "me=hxe"}}, r"x265-params me=hxe.*Accepted: dia, hex"),
    ],
)
def test_a_value_that_the_encoder_would_clip_or_not_read_is_refused(vcodec, fields, text):
    with pytest.raises(ConfigError, match=text):
        VideoEncoderConfig(vcodec=vcodec, **fields).get_codec_options()


@pytest.mark.parametrize("level", [-1, 3])
def test_fast_decode_has_three_levels(level):
    with pytest.raises(ConfigError, match=r"fast_decode: .* expected a whole number: 0 off, 1 or 2 on"):
        VideoEncoderConfig(fast_decode=level)


def test_a_shift_without_a_logarithm_is_refused_and_one_of_a_dataset_is_passed_over():
    linear = {"use_log": False, "shift": 2.0}
    with pytest.raises(ConfigError, match=r"shift=2\.0 would have no effect.* use_log is false"):
        DepthEncoderConfig(**linear).get_codec_options()
    recorded = DepthEncoderConfig.in_force(linear)
    assert (recorded.shift, recorded.given) == (2.0, {"use_log"})
    assert recorded.get_codec_options() == DepthEncoderConfig(use_log=False).get_codec_options()


def test_a_crf_beside_lossless_settings_is_refused():
    with pytest.raises(
        ConfigError, match=r"crf=20 .* the settings are lossless \(x265-params=.*lossless=1\)"
    ):
        DepthEncoderConfig(crf=20).get_codec_options()
    assert DepthEncoderConfig(crf=20, extra_options={}).get_codec_options()["crf"] == 20


@pytest.mark.parametrize(
    ("vcodec", "extras"),
    [("hevc", {"x265-params": "lossless=1"}), ("libaom-av1", {"aom-params": "lossless=1"}), ("ffv1", {})],
)
def test_depth_is_lossless_by_default_with_each_codec_that_can_be(vcodec, extras):
    config = DepthEncoderConfig(vcodec=vcodec)
    assert config.extra_options == extras
    assert CODECS[vcodec].lossless(config.get_codec_options(), 12)
    assert DepthEncoderConfig().replace(vcodec=vcodec).extra_options == extras


def test_ffv1_cuts_large_frames_into_more_slices():
    codec = CODECS["ffv1"]
    assert codec.fit({"slices": 4}, 640, 480, 3, 8) == {"slices": 4}
    assert codec.fit({"slices": 4}, 8192, 4320, 3, 8) == {"slices": 9}
    assert codec.fit({"slices": 12}, 8192, 4320, 3, 8) == {"slices": 12}
    assert codec.fit({"slices": 4}, 8192, 4320, 1, 12) == {"slices": 4}
