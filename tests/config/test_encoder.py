import subprocess
import sys

import pytest

from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.dataset.info_block import encoder_fields
from ffenc.errors import ConfigError, FfencError


def as_yaml(value):
    """Return a value as errors show it."""
    return {"None": "null", "True": "true"}.get(repr(value), repr(value))


# ---- defaults ------------------------------------------------------------------------------------------


def test_the_defaults_are_lerobots():
    assert VideoEncoderConfig().as_plain() == {
        "vcodec": "libsvtav1",
        "pix_fmt": "yuv420p",
        "g": 2,
        "crf": 30,
        "preset": 12,
        "fast_decode": 0,
        "video_backend": "pyav",
        "extra_options": {},
    }


def test_the_depth_defaults_are_lerobots():
    assert DepthEncoderConfig().as_plain() == {
        "vcodec": "hevc",
        "pix_fmt": "gray12le",
        "g": 2,
        "crf": 30,
        "preset": None,
        "fast_decode": 0,
        "video_backend": "pyav",
        "extra_options": {"x265-params": "lossless=1"},
        "depth_min": 0.01,
        "depth_max": 10.0,
        "shift": 3.5,
        "use_log": True,
        "invalid": "keep",  # ffenc's own; for LeRobot's reader it changes nothing it can tell
    }


def test_av1_is_another_name_of_libsvtav1():
    assert VideoEncoderConfig(vcodec="av1") == VideoEncoderConfig(vcodec="libsvtav1")
    assert VideoEncoderConfig(vcodec="av1").vcodec == "libsvtav1"


@pytest.mark.parametrize(
    ("vcodec", "preset"),
    [("libsvtav1", 12), ("av1", 12), ("h264", None), ("libaom-av1", None), ("auto", None)],
)
def test_only_libsvtav1_has_a_preset_of_its_own(vcodec, preset):
    assert VideoEncoderConfig(vcodec=vcodec).preset == preset
    assert VideoEncoderConfig(vcodec=vcodec, preset=None).preset == preset


def test_a_preset_of_0_is_kept():
    assert VideoEncoderConfig(preset=0).preset == 0


def test_a_config_cannot_be_changed():
    config = VideoEncoderConfig()
    with pytest.raises(AttributeError, match="immutable"):
        config.crf = 20
    assert config.crf == 30


def test_two_configs_share_no_extra_options():
    options = {"bf": 2}
    config = VideoEncoderConfig(extra_options=options)
    options["bf"] = 3
    assert config.extra_options == {"bf": 2}
    assert VideoEncoderConfig().extra_options is not VideoEncoderConfig().extra_options
    assert DepthEncoderConfig().extra_options is not DepthEncoderConfig().extra_options


def test_constructing_and_compiling_start_no_process():
    """With an empty PATH and every way to start a process made to fail."""
    script = """
import subprocess, sys

def refuse(event, _):
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty"):
        raise AssertionError(f"{event} was used")

sys.addaudithook(refuse)
import ffenc
for vcodec in ("libsvtav1", "h264", "auto", "h264_nvenc"):
    config = ffenc.VideoEncoderConfig(vcodec=vcodec).resolve("h264")
    ffenc.compile_command(config, width=64, height=48, fps=30, output="a.mp4")
ffenc.VideoEncoderConfig.from_video_info({"video.codec": "h264"})
ffenc.DepthEncoderConfig()
ffenc.load_preset("so101")
try:
    subprocess.Popen([sys.executable, "-c", ""])
except AssertionError as caught:
    print("guarded:", caught)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={"PATH": ""}, check=False
    )
    assert ran.stderr == ""
    assert ran.stdout == "guarded: subprocess.Popen was used\n"


# ---- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("libx264", "h264"),
        ("x264", "h264"),
        ("avc", "h264"),
        ("H264", "h264"),
        ("h265", "hevc"),
        ("x265", "hevc"),
        ("libx265", "hevc"),
        ("svtav1", "libsvtav1"),
        ("libsvtav", "libsvtav1"),
        ("h264_nvencc", "h264_nvenc"),
        ("libaom", "libaom-av1"),
    ],
)
def test_an_unknown_codec_is_refused_with_the_accepted_and_the_nearest(name, nearest):
    with pytest.raises(ConfigError) as caught:
        VideoEncoderConfig(vcodec=name)
    text = str(caught.value)
    assert repr(name) in text
    assert f"did you mean {nearest!r}" in text
    for known in ("libsvtav1", "hevc_vaapi", "h264_v4l2m2m", "av1", "auto"):
        assert known in text.split("Accepted: ")[1].split(", ")


def test_a_codec_unlike_any_other_is_refused_without_a_guess():
    with pytest.raises(ConfigError, match="accepted: libsvtav1, h264") as caught:
        VideoEncoderConfig(vcodec="zzz")
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("yuv420", "yuv420p"), ("yuv420p10", "yuv420p10le"), ("grey", "gray"), ("nv21", "nv12")],
)
def test_an_unknown_pixel_format_is_refused_with_the_accepted_and_the_nearest(name, nearest):
    with pytest.raises(ConfigError) as caught:
        VideoEncoderConfig(pix_fmt=name)
    text = str(caught.value)
    assert f"did you mean {nearest!r}" in text
    assert "yuv444p12le" in text


def test_a_full_range_format_is_refused_with_the_one_to_use():
    with pytest.raises(ConfigError, match=r"yuvj422p.*use 'yuv422p'"):
        VideoEncoderConfig(pix_fmt="yuvj422p")


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("vcodecc", "vcodec"), ("pixfmt", "pix_fmt"), ("fast_decod", "fast_decode"), ("gop", None)],
)
def test_an_unknown_key_is_refused_with_the_accepted_and_the_nearest(key, nearest):
    with pytest.raises(ConfigError) as caught:
        VideoEncoderConfig(**{key: 1})
    text = str(caught.value)
    assert text.startswith(f"{key}: unknown key")
    assert "crf, preset" in text
    assert (f"did you mean {nearest!r}" in text) if nearest else ("did you mean" not in text)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("vcodec", 5, "a codec name"),
        ("vcodec", None, "a codec name"),
        ("pix_fmt", 1, "an FFmpeg pixel format name"),
        ("g", 0, "a whole number of 1 or more, or null"),
        ("g", -2, "a whole number of 1 or more, or null"),
        ("g", 2.0, "a whole number of 1 or more, or null"),
        ("g", "2", "a whole number of 1 or more, or null"),
        ("g", True, "a whole number of 1 or more, or null"),
        ("crf", -1, "0 or more"),
        ("crf", -0.5, "0 or more"),
        ("crf", float("nan"), "0 or more"),
        ("crf", float("inf"), "0 or more"),
        pytest.param("crf", 10**400, "0 or more", id="crf-beyond every float"),
        ("crf", "23", "0 or more"),
        ("crf", True, "0 or more"),
        ("preset", True, "a whole number, a preset name, or null"),
        ("preset", 1.5, "a whole number, a preset name, or null"),
        ("fast_decode", True, "0 off, 1 or 2 on"),
        ("fast_decode", None, "0 off, 1 or 2 on"),
        ("fast_decode", "1", "0 off, 1 or 2 on"),
        ("video_backend", "torchcodec", "'pyav'"),
        ("extra_options", None, "a mapping"),
        ("extra_options", [("bf", 1)], "a mapping"),
        ("extra_options", "bf=1", "a mapping"),
        ("extra_options", {5: 1}, "a mapping"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_found_and_what_is_expected(field, value, expected):
    with pytest.raises(ConfigError) as caught:
        VideoEncoderConfig(**{field: value})
    text = str(caught.value)
    assert text.startswith(f"{field}: ")
    assert as_yaml(value)[:100] in text
    assert expected in text


def test_a_refusal_is_also_a_value_error():
    with pytest.raises(ValueError, match="vcodec") as caught:
        VideoEncoderConfig(vcodec="zzz")
    assert isinstance(caught.value, FfencError)


# ---- depth ---------------------------------------------------------------------------------------------


def test_whole_numbers_of_metres_are_accepted():
    config = DepthEncoderConfig(depth_min=1, depth_max=4, shift=0)
    assert (config.depth_min, config.depth_max, config.shift) == (1.0, 4.0, 0.0)


@pytest.mark.parametrize(
    "fields", [{"depth_min": 10.0}, {"depth_min": 4, "depth_max": 3}, {"depth_max": 0.01}]
)
def test_an_empty_depth_range_is_refused(fields):
    with pytest.raises(ConfigError, match=r"depth_min=.* must be below depth_max="):
        DepthEncoderConfig(**fields)


def test_a_logarithm_of_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"depth_min=0\.01 \+ shift=-0\.01 must be above 0"):
        DepthEncoderConfig(shift=-0.01)
    with pytest.raises(ConfigError, match="must be above 0"):
        DepthEncoderConfig(depth_min=-3.5)
    assert DepthEncoderConfig(shift=-0.01, use_log=False).shift == -0.01
    assert DepthEncoderConfig(depth_min=-3.4).depth_min == -3.4


@pytest.mark.parametrize("field", ["depth_min", "depth_max", "shift"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "0.5", True, [1.0]])
def test_what_is_no_number_of_metres_is_refused(field, value):
    with pytest.raises(ConfigError, match=f"{field}: .*expected a finite number of metres") as caught:
        DepthEncoderConfig(**{field: value})
    assert as_yaml(value) in str(caught.value)


@pytest.mark.parametrize("value", [1, 0, "true", None])
def test_use_log_is_true_or_false(value):
    with pytest.raises(ConfigError, match="use_log: .*expected true or false"):
        DepthEncoderConfig(use_log=value)


def test_depth_settings_are_refused_for_an_rgb_camera():
    with pytest.raises(ConfigError, match="depth_min: unknown key"):
        VideoEncoderConfig(depth_min=0.1)


# ---- replace and resolve -------------------------------------------------------------------------------


def test_replace_changes_what_is_named_and_nothing_else():
    config = VideoEncoderConfig(vcodec="h264", crf=20, preset="slow", extra_options={"bf": 0})
    changed = config.replace(crf=25)
    assert changed == VideoEncoderConfig(vcodec="h264", crf=25, preset="slow", extra_options={"bf": 0})
    assert config.crf == 20


def test_replace_validates():
    with pytest.raises(ConfigError, match="crf"):
        VideoEncoderConfig().replace(crf=-1)
    with pytest.raises(ConfigError, match="nope: unknown key"):
        VideoEncoderConfig().replace(nope=1)


def test_a_default_preset_follows_a_change_of_codec_and_a_chosen_one_stays():
    assert VideoEncoderConfig().replace(vcodec="h264").preset is None
    assert VideoEncoderConfig(vcodec="h264").replace(vcodec="libsvtav1").preset == 12
    assert VideoEncoderConfig(preset=8).replace(vcodec="libaom-av1").preset == 8


def test_replace_keeps_the_kind_of_config():
    changed = DepthEncoderConfig(depth_max=4.0).replace(crf=None)
    assert changed == DepthEncoderConfig(depth_max=4.0, crf=None)


def test_auto_resolves_to_the_machines_answer():
    config = VideoEncoderConfig(vcodec="auto", crf=23)
    assert config.resolve("h264_nvenc") == VideoEncoderConfig(vcodec="h264_nvenc", crf=23)
    assert config.resolve("av1") == VideoEncoderConfig(vcodec="libsvtav1", crf=23, preset=12)


def test_auto_without_an_answer_is_refused():
    with pytest.raises(ConfigError, match=r'vcodec="auto" has to be resolved first.*h264_nvenc.*libsvtav1'):
        VideoEncoderConfig(vcodec="auto").resolve()


@pytest.mark.parametrize("answer", ["auto", "libx264", "", "zzz"])
def test_auto_with_an_answer_that_is_no_codec_is_refused(answer):
    with pytest.raises(ConfigError):
        VideoEncoderConfig(vcodec="auto").resolve(answer)


def test_a_named_codec_is_not_resolved_to_another():
    config = VideoEncoderConfig(vcodec="h264")
    assert config.resolve("h264_nvenc") is config


# ---- from info.json ------------------------------------------------------------------------------------


@pytest.mark.parametrize("info", [None, {}, {"video.codec": None}, {"video.fps": 30, "has_audio": False}])
def test_a_block_without_settings_means_the_defaults(info):
    assert VideoEncoderConfig.from_video_info(info) == VideoEncoderConfig()
    assert DepthEncoderConfig.from_video_info(info) == DepthEncoderConfig()


@pytest.mark.parametrize("key", ["pix_fmt", "g", "crf", "preset", "fast_decode", "extra_options"])
@pytest.mark.parametrize("nothing", [None, {}])
def test_null_and_an_empty_mapping_mean_the_default(key, nothing):
    assert VideoEncoderConfig.from_video_info({f"video.{key}": nothing}) == VideoEncoderConfig()


@pytest.mark.parametrize(
    ("stream", "vcodec"),
    [
        ("av1", "libsvtav1"),
        ("h264", "h264"),
        ("hevc", "hevc"),
        ("ffv1", "ffv1"),
        ("libaom-av1", "libaom-av1"),
    ],
)
def test_the_stream_names_the_codec(stream, vcodec):
    assert VideoEncoderConfig.from_video_info({"video.codec": stream}).vcodec == vcodec


@pytest.mark.parametrize(
    ("stream", "exact", "vcodec"),
    [
        ("av1", "libaom-av1", "libaom-av1"),
        ("av1", "av1_nvenc", "av1_nvenc"),
        ("h264", "h264_vaapi", "h264_vaapi"),
        ("h264", "hevc_nvenc", "h264"),
        ("hevc", "h264", "hevc"),
        ("h264", "unheard_of", "h264"),
        ("h264", None, "h264"),
    ],
)
def test_an_encoder_that_writes_the_stream_is_more_exact_than_the_stream(stream, exact, vcodec):
    info = {"video.codec": stream, "video.encoder": {"vcodec": exact, "encoder_version": "1"}}
    assert VideoEncoderConfig.from_video_info(info).vcodec == vcodec


@pytest.mark.parametrize("encoder", ["h264_nvenc", [], {}, {"vcodec": ["h264"]}, {"vcodec": {}}, 5])
def test_an_encoder_entry_of_another_shape_is_not_used(encoder):
    info = {"video.codec": "h264", "video.encoder": encoder}
    assert VideoEncoderConfig.from_video_info(info) == VideoEncoderConfig(vcodec="h264")


def test_the_block_of_another_program_is_read_as_far_as_it_goes():
    info = {
        "video.height": 480,
        "video.codec": "h264",
        "video.pix_fmt": "yuv444p",
        "video.g": 30,
        "video.crf": 18.5,
        "video.preset": "slow",
        "video.fast_decode": 1,
        "video.video_backend": "torchcodec",
        "video.extra_options": {"bf": 0},
        "is_depth_map": False,
    }
    assert VideoEncoderConfig.from_video_info(info) == VideoEncoderConfig(
        vcodec="h264",
        pix_fmt="yuv444p",
        g=30,
        crf=18.5,
        preset="slow",
        fast_decode=1,
        extra_options={"bf": 0},
    )


@pytest.mark.parametrize(
    ("key", "value"), [("codec", "vp9"), ("codec", 5), ("pix_fmt", "rgb48"), ("g", 0), ("crf", "thirty")]
)
def test_a_block_with_settings_that_are_not_accepted_is_refused(key, value):
    with pytest.raises(ConfigError, match="vcodec" if key == "codec" else key):
        VideoEncoderConfig.from_video_info({f"video.{key}": value})


STREAMS = {"libsvtav1": "av1", "libaom-av1": "av1", "av1_qsv": "av1", "hevc": "hevc", "h264_vaapi": "h264"}


def block(config):
    """What info.json holds of a config."""
    return {
        "video.codec": STREAMS[config.vcodec],
        "video.pix_fmt": config.pix_fmt,
        "video.encoder": {"vcodec": config.vcodec},
        **encoder_fields(config),
    }


@pytest.mark.parametrize(
    "config",
    [
        VideoEncoderConfig(),
        VideoEncoderConfig(preset=8, fast_decode=2, g=30, crf=23),
        VideoEncoderConfig(vcodec="libaom-av1", preset=6),
        VideoEncoderConfig(vcodec="av1_qsv", preset="fast", pix_fmt="p010le"),
        VideoEncoderConfig(
            vcodec="hevc", crf=18.5, pix_fmt="yuv444p12le", extra_options={"x265-params": "aq-mode=3"}
        ),
        VideoEncoderConfig(vcodec="h264_vaapi", extra_options={"bf": 0, "profile:v": "high"}),
    ],
    ids=lambda config: config.vcodec,
)
def test_a_config_comes_back_from_its_own_block(config):
    assert VideoEncoderConfig.from_video_info(block(config)) == config


def test_a_depth_config_comes_back_from_its_own_block():
    config = DepthEncoderConfig(depth_min=0.2, depth_max=4.0, shift=1.0, use_log=False, preset="ultrafast")
    ranges = {
        f"video.{name}": getattr(config, name) for name in ("depth_min", "depth_max", "shift", "use_log")
    }
    assert DepthEncoderConfig.from_video_info(block(config) | ranges) == config


def test_holes_are_kept_unless_zero_is_a_depth():
    assert DepthEncoderConfig().invalid == "keep"
    assert DepthEncoderConfig(depth_min=-1.0).invalid == "clip"
    with pytest.raises(ConfigError, match="depth_min=-1.0 must be 0 or more with invalid: keep"):
        DepthEncoderConfig(depth_min=-1.0, invalid="keep")
    with pytest.raises(ConfigError, match="'drop' .*'keep' or 'clip'"):
        DepthEncoderConfig(invalid="drop")
