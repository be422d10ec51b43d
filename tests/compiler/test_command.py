from fractions import Fraction

import pytest

from ffenc.codecs.table import CODECS
from ffenc.compiler.command import compile_command
from ffenc.compiler.frames import SampleTap
from ffenc.compiler.golden import preset_commands
from ffenc.compiler.packets import compile_join
from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.preset import load_preset
from ffenc.errors import ConfigError


def compiled(config=None, **changes):
    settings = {"width": 640, "height": 480, "fps": 30, "output": "out.mp4"}
    return compile_command(config or VideoEncoderConfig(vcodec="h264"), **(settings | changes))


def value(command, option):
    """The value of an option of the output; it has to stand exactly once."""
    output = command[command.index("-i") + 2 :]
    assert output.count(option) == 1
    return output[output.index(option) + 1]


def value_of_first(command, option):
    return command[command.index(option) + 1]


def inputs(command):
    return command[: command.index("-i") + 2]


def filters(command):
    """The filter chain without the labels between the filters."""
    parts = value(command, "-filter_complex").split(";")
    return [part[part.index("]") + 1 : part.rindex("[")] for part in parts]


@pytest.fixture(params=CODECS)
def any_codec(request):
    extra = {"b:v": "4M"} if request.param == "h264_v4l2m2m" else {}
    return VideoEncoderConfig(vcodec=request.param, extra_options=extra)


def test_every_command_answers_no_questions_and_stops_at_the_first_error(any_codec):
    command = compiled(any_codec)
    assert command[0] == "ffmpeg"
    assert command[-1] == "-y"
    for switch in ("-nostdin", "-hide_banner", "-xerror"):
        assert switch in inputs(command)


def test_every_command_writes_mp4_with_no_frame_added_or_dropped_and_no_metadata(any_codec):
    command = compiled(any_codec)
    assert value(command, "-f") == "mp4"
    assert value(command, "-fps_mode") == "passthrough"
    assert value(command, "-movflags") == "+faststart"
    assert value(command, "-map_metadata") == "-1"
    assert value(command, "-fflags") == "+bitexact"
    assert value(command, "-flags:v") == "+bitexact+cgop"


def test_every_option_of_the_output_stands_once(any_codec):
    command = compiled(any_codec, encoder_threads=2)
    output = command[len(inputs(command)) :]
    names = [part for part in output if part.startswith("-") and not part[1:].isdigit()]
    assert sorted(set(names)) == sorted(names)


def test_every_argument_is_text(any_codec):
    command = compiled(any_codec, tap=SampleTap(2, 64, 48), encoder_threads=2)
    assert {type(part) for part in command} == {str}


def test_the_encoder_and_its_options_are_those_of_the_config(any_codec):
    command = compiled(any_codec, encoder_threads=2)
    assert value(command, "-c:v") == CODECS[any_codec.vcodec].encoder
    options = any_codec.get_codec_options(2)
    assert options
    for name, setting in options.items():
        assert value(command, f"-{name}") == str(setting)


@pytest.mark.parametrize("vcodec", ["hevc", "hevc_nvenc", "hevc_vaapi", "hevc_qsv", "hevc_videotoolbox"])
def test_hevc_is_tagged_as_players_expect(vcodec):
    assert value(compiled(VideoEncoderConfig(vcodec=vcodec)), "-tag:v") == "hvc1"


def test_other_codecs_keep_the_containers_own_tag():
    for vcodec in ("h264", "libsvtav1", "ffv1", "h264_vaapi"):
        assert "-tag:v" not in compiled(VideoEncoderConfig(vcodec=vcodec))


# ---- time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fps", "framerate", "scale"),
    [
        (30, "30", "15360"),
        (30.0, "30", "15360"),
        (29.97, "2997/100", "11988"),
        ("30000/1001", "30000/1001", "30000"),
        (Fraction(1, 2), "1/2", "16384"),
    ],
)
def test_the_time_scale_makes_every_frames_time_an_exact_integer(fps, framerate, scale):
    command = compiled(fps=fps)
    assert inputs(command)[inputs(command).index("-framerate") + 1] == framerate
    assert value(command, "-video_track_timescale") == value(command, "-movie_timescale") == scale


@pytest.mark.parametrize("fps", [0, "abc", None, 1e9])
def test_what_is_no_frame_rate_is_refused(fps):
    with pytest.raises(ConfigError, match="is not a frame rate"):
        compiled(fps=fps)


# ---- input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "decoder"), [("png", "png"), ("jpeg", "mjpeg")])
def test_encoded_images_are_decoded_by_ffmpeg_which_stops_at_a_damaged_one(frames, decoder):
    head = " ".join(inputs(compiled(frames=frames)))
    for part in ("-f image2pipe ", f"-c:v {decoder} ", "-err_detect crccheck+explode "):
        assert part in head
    assert head.endswith("-i pipe:0")
    assert "-threads" not in head


def test_frames_are_taken_as_they_are_stored_whatever_an_exif_tag_says():
    """FFmpeg 9 takes no value after the switch: ``-autorotate 0`` makes a file called 0 of it."""
    for frames in ("png", "jpeg"):
        head = inputs(compiled(frames=frames))
        assert "-noautorotate" in head
        assert "-autorotate" not in head


def test_raw_frames_come_with_their_size_and_format():
    head = " ".join(inputs(compiled(frames="rgb24", width=320, height=240)))
    assert "-f rawvideo" in head
    assert "-pix_fmt rgb24" in head
    assert "-video_size 320x240" in head


def test_the_threads_of_an_encode_bound_its_decoder_too():
    head = inputs(compiled(encoder_threads=2))
    assert head[head.index("-threads") + 1] == "2"


def test_an_unknown_form_of_frames_is_refused():
    with pytest.raises(ConfigError, match=r"bmp.*png.*jpeg.*rgb24"):
        compiled(frames="bmp")


# ---- colour --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv422p10le", "gray"])
@pytest.mark.parametrize("size", [(64, 48), (1920, 1080)])
def test_rgb_is_converted_with_bt601_limited_range_at_every_size_and_tagged_so(pix_fmt, size):
    config = VideoEncoderConfig(vcodec="h264", pix_fmt=pix_fmt)
    scale, to, tags = filters(compiled(config, width=size[0], height=size[1]))
    assert scale == "scale=flags=bicubic:out_color_matrix=bt601:out_range=tv"
    assert to == f"format={pix_fmt}"
    assert tags == "setparams=color_primaries=bt709:color_trc=bt709:colorspace=smpte170m:range=tv"


@pytest.mark.parametrize("pix_fmt", ["gbrp", "gbrp10le", "bgr0"])
def test_rgb_formats_are_not_converted_and_carry_no_matrix(pix_fmt):
    assert filters(compiled(VideoEncoderConfig(vcodec="hevc", pix_fmt=pix_fmt))) == [f"format={pix_fmt}"]


@pytest.mark.parametrize(
    ("pix_fmt", "memory"),
    [("yuv420p", "nv12"), ("nv12", "nv12"), ("yuv420p10le", "p010le"), ("p010le", "p010le")],
)
def test_hardware_gets_frames_in_its_own_layout(pix_fmt, memory):
    vaapi = compiled(VideoEncoderConfig(vcodec="hevc_vaapi", pix_fmt=pix_fmt))
    assert filters(vaapi)[1] == f"format={memory}"
    assert filters(vaapi)[-1] == "hwupload"
    assert "-vaapi_device /dev/dri/renderD128" in " ".join(inputs(vaapi))
    qsv = compiled(VideoEncoderConfig(vcodec="hevc_qsv", pix_fmt=pix_fmt))
    assert filters(qsv)[1] == f"format={memory}"
    assert "hwupload" not in filters(qsv)
    assert "-init_hw_device qsv=hw" in " ".join(inputs(qsv))


@pytest.mark.parametrize(
    ("vcodec", "accepted"),
    [
        ("h264_vaapi", "yuv420p, nv12"),
        ("h264_qsv", "yuv420p, nv12"),
        ("h264_v4l2m2m", "yuv420p, nv12"),
    ],
)
def test_a_format_the_hardware_does_not_take_is_refused_with_those_it_does(vcodec, accepted):
    extra = {"b:v": "4M"} if vcodec == "h264_v4l2m2m" else {}
    config = VideoEncoderConfig(vcodec=vcodec, pix_fmt="yuv444p", extra_options=extra)
    with pytest.raises(ConfigError, match=f"yuv444p.*{vcodec}.*accepted: {accepted}$"):
        compiled(config)


# ---- size ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pix_fmt", "width", "height", "even"),
    [
        ("yuv420p", 641, 480, "640x480"),
        ("yuv420p", 640, 481, "640x480"),
        ("yuv420p10le", 641, 481, "640x480"),
        ("nv12", 641, 481, "640x480"),
        ("yuv422p", 641, 481, "640x481"),
        ("yuv440p", 641, 481, "641x480"),
    ],
)
def test_an_odd_size_with_subsampled_chroma_is_refused_with_ways_out(pix_fmt, width, height, even):
    with pytest.raises(ConfigError) as caught:
        compiled(VideoEncoderConfig(vcodec="h264", pix_fmt=pix_fmt), width=width, height=height)
    text = str(caught.value)
    assert f"{width}x{height}" in text
    assert pix_fmt in text
    assert even in text
    assert "yuv444p" in text


@pytest.mark.parametrize(
    ("pix_fmt", "width", "height"),
    [
        ("yuv444p", 641, 481),
        ("gbrp", 641, 481),
        ("gray", 17, 19),
        ("yuv422p", 640, 481),
        ("yuv440p", 641, 480),
    ],
)
def test_an_odd_size_is_taken_where_the_format_holds_it(pix_fmt, width, height):
    config = VideoEncoderConfig(vcodec="hevc", pix_fmt=pix_fmt)
    assert compiled(config, width=width, height=height)[-2:] == ["file:out.mp4", "-y"]


@pytest.mark.parametrize(("width", "height"), [(0, 480), (640, 0), (-2, 480)])
def test_what_is_no_size_is_refused(width, height):
    with pytest.raises(ConfigError, match=f"{width}x{height} is not a frame size"):
        compiled(width=width, height=height)


@pytest.mark.parametrize(
    "arguments",
    [{"width": "64"}, {"config": {"crf": 3}}, {"transform": {"rotate": 90}}, {"fragment_seconds": "x"}],
    ids=["width", "config", "transform", "fragment_seconds"],
)
def test_an_argument_of_another_type_is_refused(arguments):
    with pytest.raises(ConfigError, match="is not accepted; expected"):
        compiled(**arguments)


def test_no_size_without_pixels_is_proposed():
    with pytest.raises(ConfigError) as caught:
        compiled(width=1, height=1)
    assert "0x0" not in str(caught.value)


# ---- what cannot be compiled ---------------------------------------------------------------------------


def test_auto_unresolved_is_refused():
    with pytest.raises(ConfigError, match=r'vcodec="auto" has to be resolved first'):
        compiled(VideoEncoderConfig(vcodec="auto"))


@pytest.mark.parametrize("answer", ["auto", "libx264", "zzz"])
def test_auto_resolved_to_no_codec_is_refused(answer):
    with pytest.raises(ConfigError):
        compiled(VideoEncoderConfig(vcodec="auto"), encoder=answer)


def test_auto_is_the_machines_answer_and_a_named_codec_is_not():
    assert value(compiled(VideoEncoderConfig(vcodec="auto"), encoder="hevc_nvenc"), "-c:v") == "hevc_nvenc"
    assert value(compiled(VideoEncoderConfig(vcodec="auto"), encoder="av1"), "-preset") == "12"
    assert value(compiled(encoder="hevc_nvenc"), "-c:v") == "libx264"


def test_v4l2m2m_without_a_bit_rate_is_refused():
    with pytest.raises(ConfigError, match=r"h264_v4l2m2m has no quality option.*b:v"):
        compiled(VideoEncoderConfig(vcodec="h264_v4l2m2m"))


@pytest.mark.parametrize("name", ["b:v", "b", "vb"])
def test_v4l2m2m_takes_a_bit_rate_under_any_spelling(name):
    config = VideoEncoderConfig(vcodec="h264_v4l2m2m", extra_options={name: "4M"})
    assert value(compiled(config), f"-{name}") == "4M"


def test_a_setting_without_effect_is_refused_where_the_command_is_compiled():
    with pytest.raises(ConfigError, match="bf:v=3 would have no effect, bf=2 is set"):
        compiled(VideoEncoderConfig(vcodec="h264", extra_options={"bf": 2, "bf:v": 3}))


@pytest.mark.parametrize(
    ("vcodec", "width", "height", "takes", "others"),
    [
        ("hevc", 14, 64, "libx265 takes 16x16 to 65536x65536", "libsvtav1, h264, libaom-av1, ffv1"),
        ("libsvtav1", 64, 8706, "libsvtav1 takes 1x1 to 16384x8704", "h264, hevc, libaom-av1, ffv1"),
        ("h264", 16386, 64, "libx264 takes 1x1 to 16384x16384", "hevc, libaom-av1, ffv1"),
        ("libaom-av1", 65538, 64, "libaom-av1 takes 1x1 to 65536x65536", None),
        ("ffv1", 2, 2, "ffv1 takes 4x4 to 65536x65536", "libsvtav1, h264, libaom-av1"),
    ],
)
def test_a_size_that_an_encoder_does_not_take_is_refused_with_those_that_do(
    vcodec, width, height, takes, others
):
    with pytest.raises(ConfigError, match=f"{width}x{height}.*{takes}") as caught:
        compiled(VideoEncoderConfig(vcodec=vcodec), width=width, height=height)
    assert str(caught.value).endswith(f"; {others} can encode this size" if others else takes)


def test_a_rate_that_an_encoder_does_not_take_is_refused_with_those_that_do():
    assert compiled(VideoEncoderConfig(vcodec="av1"), fps=240)
    said = (
        "300 frames per second cannot be encoded with libsvtav1: libsvtav1 takes at most 240; "
        "h264, hevc, libaom-av1, ffv1 can encode this rate"
    )
    with pytest.raises(ConfigError, match=said):
        compiled(VideoEncoderConfig(vcodec="av1"), fps=300)


def test_ffv1_gets_as_many_slices_as_a_large_frame_needs():
    config = VideoEncoderConfig(vcodec="ffv1")
    assert value(compiled(config, width=8192, height=4320), "-slices") == "9"


# ---- output --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["-y.mp4", "100%d.mp4", "it's.mp4", "a:b.mp4", "/tmp/a b.mp4", "$(x).mp4"])
def test_an_output_is_a_file_url_whatever_its_name(path):
    assert compiled(output=path)[-2:] == [f"file:{path}", "-y"]
    assert compile_join(Fraction(30), output=path)[-2:] == [f"file:{path}", "-y"]


def test_a_pipe_stays_a_pipe():
    assert compiled(output="pipe:1")[-2] == "pipe:1"


def test_the_program_comes_first_as_it_is():
    assert compiled(program="/opt/my ffmpeg")[0] == "/opt/my ffmpeg"


# ---- samples -------------------------------------------------------------------------------------------


def test_a_tap_writes_every_nth_frame_small_to_standard_output():
    command = compiled(tap=SampleTap(step=7, width=150, height=112))
    graph = value_of_first(command, "-filter_complex")
    assert "split" in graph
    assert "select=not(mod(n" in graph
    assert "scale=150:112:flags=neighbor" in graph
    assert "format=rgb24" in graph
    assert command.count("-map") == 2
    tail = command[command.index("file:out.mp4") + 1 :]
    assert tail[-2:] == ["pipe:1", "-y"]
    assert "-f rawvideo -fps_mode passthrough" in " ".join(tail)


def test_a_tap_of_every_frame_selects_none():
    assert "select" not in value_of_first(compiled(tap=SampleTap(1, 150, 112)), "-filter_complex")


def test_a_tap_does_not_change_the_options_of_the_video():
    plain = compiled()
    tapped = compiled(tap=SampleTap(7, 150, 112))
    start, end = plain.index("-f", len(inputs(plain))), plain.index("file:out.mp4")
    assert " ".join(plain[start:end]) in " ".join(tapped)


# ---- join ----------------------------------------------------------------------------------------------


def test_a_join_copies_packets_onto_the_frame_grid():
    command = compile_join(Fraction(30000, 1001), output="all.mp4", delay=2, program="ff")
    assert command[0] == "ff"
    head = " ".join(inputs(command))
    assert "-f concat" in head
    assert "-safe 0" in head
    assert "-protocol_whitelist file,pipe,fd" in head
    assert value(command, "-map") == "0:v:0"
    assert value(command, "-c") == "copy"
    assert value(command, "-bsf:v") == "setts=pts=round(PTS/1001)*1001:dts=(N-2)*1001:duration=1001"
    assert value(command, "-video_track_timescale") == value(command, "-movie_timescale") == "30000"
    assert value(command, "-fflags") == "+bitexact"
    assert value(command, "-movflags") == "+faststart"
    assert "-filter_complex" not in command
    assert "-tag:v" not in command


def test_a_join_keeps_the_stream_tag():
    assert value(compile_join(Fraction(30), output="all.mp4", tag="hvc1"), "-tag:v") == "hvc1"


# ---- presets -------------------------------------------------------------------------------------------


def test_a_preset_compiles_each_rgb_camera_with_its_own_settings():
    commands = preset_commands(load_preset("aloha"))
    assert list(commands) == ["cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist"]
    assert [value(command, "-crf") for command in commands.values()] == ["30", "30", "26", "26"]
    assert [command[-2] for command in commands.values()] == [f"file:{name}.mp4" for name in commands]


def test_a_presets_depth_cameras_get_their_codes_raw_and_unconverted():
    command = preset_commands(load_preset("unitree_g1"))["head_depth"]
    assert value_of_first(command, "-pix_fmt") == "gray12le"
    assert "scale" not in value(command, "-filter_complex")
    assert value(command, "-x265-params") == "open-gop=0:pools=2:lossless=1"


def test_auto_of_a_depth_camera_is_an_encoder_that_carries_its_bits():
    auto = load_preset("reachy2", [(("depth_encoder", "vcodec"), "auto")])
    assert value(preset_commands(auto)["torso_depth"], "-c:v") == "libx265"
    settings = {"pix_fmt": "gray16le", "extra_options": {}, "preset": None}
    exact = [(("depth_encoder", name), setting) for name, setting in settings.items()]
    auto = load_preset("reachy2", [(("depth_encoder", "vcodec"), "auto"), *exact])
    assert value(preset_commands(auto, encoder="h264_nvenc")["torso_depth"], "-c:v") == "ffv1"


def test_depth_is_never_converted_to_another_format():
    for config, frames in (
        (DepthEncoderConfig(), "gray16le"),
        (DepthEncoderConfig(pix_fmt="gray16le"), "gray12le"),
        (VideoEncoderConfig(), "gray12le"),
    ):
        with pytest.raises(ConfigError, match=f"would change {frames} depth"):
            compile_command(config, width=64, height=48, fps=30, output="o.mp4", frames=frames)


def test_a_presets_threads_and_rate_are_in_its_commands():
    command = preset_commands(load_preset("raspberry_pi5", [(("fps",), "30000/1001")]))["front"]
    assert value(command, "-threads") == "1"
    assert value(command, "-video_track_timescale") == "30000"


def test_a_camera_without_a_size_has_no_command_line(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text("cameras: {front: {}}\n")
    with pytest.raises(ConfigError, match="cameras.front has no width and height"):
        preset_commands(load_preset(path))


def test_auto_in_a_preset_is_libsvtav1_unless_named():
    preset = load_preset("reachy2")
    assert value(preset_commands(preset)["torso_rgb"], "-c:v") == "libsvtav1"
    named = preset_commands(preset, encoder="h264_nvenc", cameras=["torso_rgb"])
    assert list(named) == ["torso_rgb"]
    assert value(named["torso_rgb"], "-c:v") == "h264_nvenc"


def test_a_file_in_fragments_is_written_as_it_comes():
    command = compiled(fragment_seconds=0.5)
    assert value(command, "-movflags") == "+empty_moov+delay_moov+default_base_moof"
    assert value(command, "-frag_duration") == "500000"
    assert value(command, "-flush_packets") == "1"
    for seconds in (0, -1, 61, float("nan")):
        with pytest.raises(ConfigError, match="fragment_seconds"):
            compiled(fragment_seconds=seconds)
