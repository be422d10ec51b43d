import hashlib
import subprocess
import sys
from fractions import Fraction

import pytest

from ffenc.codecs.table import CODECS
from ffenc.compiler.capture import compile_capture
from ffenc.compiler.colour import rgb_conversion
from ffenc.compiler.command import VideoInput, compile_command
from ffenc.compiler.decode import compile_decode, compile_frame_list
from ffenc.compiler.frames import Excerpt, SampleTap
from ffenc.compiler.golden import golden_diff, golden_name, golden_text, preset_commands
from ffenc.compiler.packets import compile_cut, compile_join
from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.framerate import parse_fps
from ffenc.config.preset import load_preset, preset_names
from ffenc.config.transform import Transform
from tests.conftest import FIXTURES

GOLDEN = FIXTURES / "golden"


def video(config, **changes):
    settings = {"width": 640, "height": 480, "fps": 30, "output": "out.mp4"}
    return compile_command(config, **(settings | changes))


def codec_command(name):
    """A row of the codec table with the settings every row is compared by."""
    extra = {"b:v": "4M"} if name == "h264_v4l2m2m" else {}
    return video(VideoEncoderConfig(vcodec=name, extra_options=extra), encoder_threads=2)


H264 = VideoEncoderConfig(vcodec="h264")
WIN = {
    "b:v": "2M",
    "bf": 0,
    "profile:v": "high",
    "x264-params": "aq-mode=3:no-cabac",
    "refs": 2,
}

CHANGES = Transform(crop=(80, 0, 480, 480), rotate=90, flip="h", resize=(320, 240), pad=True)

CLIP = VideoInput(
    "it's.mp4", Excerpt(((24, 40),), 17, Fraction(97, 120)), rgb_conversion("yuv420p", None, "tv")
)
DEPTH_CLIP = VideoInput("depth.mp4", Excerpt(((0, 16),), 17), None)

CORNERS = {
    "fps_29.97": lambda: video(H264, fps=29.97),
    "fps_30000_1001": lambda: video(H264, fps="30000/1001"),
    "fps_0.5": lambda: video(H264, fps=0.5),
    "input_jpeg": lambda: video(H264, frames="jpeg", encoder_threads=1),
    "input_rgb24": lambda: video(H264, frames="rgb24", encoder_threads=1),
    "yuv444p_odd_size": lambda: video(H264.replace(pix_fmt="yuv444p"), width=641, height=481),
    "gbrp_odd_size": lambda: video(VideoEncoderConfig(vcodec="hevc", pix_fmt="gbrp"), width=641, height=481),
    "10_bit_vaapi": lambda: video(VideoEncoderConfig(vcodec="hevc_vaapi", pix_fmt="yuv420p10le")),
    "auto_is_nvenc": lambda: video(VideoEncoderConfig(vcodec="auto"), encoder="h264_nvenc"),
    "nothing_set": lambda: video(VideoEncoderConfig(vcodec="h264", g=None, crf=None)),
    "all_set": lambda: video(
        VideoEncoderConfig(vcodec="libsvtav1", g=10, crf=18, preset=6, fast_decode=1), encoder_threads=4
    ),
    "sample_tap": lambda: video(H264, tap=SampleTap(step=7, width=150, height=112)),
    "sample_tap_every_frame_vaapi": lambda: video(
        VideoEncoderConfig(vcodec="h264_vaapi"), tap=SampleTap(step=1, width=64, height=48)
    ),
    "transform": lambda: video(H264, transform=CHANGES, tap=SampleTap(step=2, width=80, height=60)),
    "transform_10_bit": lambda: video(
        VideoEncoderConfig(pix_fmt="yuv420p10le"), transform=Transform(resize=(320, 240))
    ),
    "transform_video": lambda: video(H264, video=CLIP, transform=CHANGES, frames="rgb24"),
    "transform_depth": lambda: video(DepthEncoderConfig(), transform=CHANGES, frames="gray12le"),
    "extra_options_win": lambda: video(H264.replace(crf=None, extra_options=WIN)),
    "output_apostrophe": lambda: video(H264, output="it's/top view.mp4"),
    "output_percent": lambda: video(H264, output="100%d.mp4"),
    "output_leading_dash": lambda: video(H264, output="-y.mp4"),
    "depth_exact": lambda: video(
        DepthEncoderConfig(vcodec="ffv1", pix_fmt="gray16le", extra_options={}), frames="gray16le"
    ),
    "depth_lossy": lambda: video(DepthEncoderConfig(crf=20, extra_options={}), frames="gray12le"),
    "program": lambda: video(H264, program="/opt/my ffmpeg/ffmpeg"),
    "join": lambda: compile_join(parse_fps(30), output="joined.mp4"),
    "join_hevc_29.97": lambda: compile_join(parse_fps(29.97), output="it's.mp4", delay=2, tag="hvc1"),
    "cut": lambda: compile_cut("it's 100%d.mp4", first=24, packets=17, fps=parse_fps(30), output="cut.mp4"),
    "video_to_video": lambda: video(H264, video=CLIP),
    "video_to_video_depth": lambda: video(DepthEncoderConfig(), frames="gray12le", video=DEPTH_CLIP),
    "decode_all": lambda: compile_decode("it's 100%d.mp4"),
    "decode_depth": lambda: compile_decode("depth.mp4", pix_fmt="gray12le"),
    "decode_rgb_excerpt": lambda: compile_decode(
        "top.mp4",
        pix_fmt="rgb24",
        conversion=rgb_conversion("yuv420p", "bt709", None),
        excerpt=Excerpt(spans=((250250, 252251), (260261, 261261)), frames=4, seek=Fraction(250500, 30000)),
    ),
    "decode_many_spans": lambda: compile_decode(
        "top.mp4", pix_fmt="gray12le", excerpt=Excerpt(tuple((i, i) for i in range(0, 60, 2)), frames=30)
    ),
    "capture_mjpeg": lambda: compile_capture(
        "/dev/video0", width=640, height=480, fps=parse_fps(30), pixels="mjpeg"
    ),
    "capture_raw": lambda: compile_capture(
        "/dev/v4l/by-id/usb-it's", width=1280, height=720, fps=parse_fps("30000/1001"), pixels="raw"
    ),
    "frame_list": lambda: compile_frame_list("top.mp4", seek=Fraction(1, 3), frames=1000),
}
# File name -> what compiles its command line.
CASES = {
    **{
        golden_name(preset, camera): lambda preset=preset, camera=camera: preset_commands(
            load_preset(preset)
        )[camera]
        for preset in preset_names()
        for camera in load_preset(preset).cameras
    },
    **{f"codec.{name}.txt": lambda name=name: codec_command(name) for name in CODECS},
    **{f"corner.{name}.txt": build for name, build in CORNERS.items()},
}


def compiled(name):
    return CASES[name]()


def kept(folder=GOLDEN):
    """What is in a folder of golden files: name -> text."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())}


def rewrite(folder, texts):
    """Make a folder hold these golden files and no others."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def texts(update_golden):
    """Every command line as it is compiled now; with --update-golden these are the ones kept."""
    found = {name: golden_text(compiled(name)) for name in CASES}
    if update_golden:
        rewrite(GOLDEN, found)
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_command_line_is_the_one_kept(texts, name):
    expected = {name: (GOLDEN / name).read_text(encoding="utf-8")} if (GOLDEN / name).is_file() else {}
    diff = golden_diff(expected, {name: texts[name]})
    if diff:
        pytest.fail(f"the command line has changed; keep it with --update-golden\n{diff}", pytrace=False)


def test_every_golden_file_is_still_produced(texts):
    assert sorted(kept()) == sorted(texts), "take files that are no longer produced away with --update-golden"


def test_there_is_a_golden_file_of_every_preset_camera_and_of_every_codec():
    names = {f"codec.{name}.txt" for name in CODECS}
    for preset in preset_names():
        names |= {f"{preset}.{camera}.txt" for camera in preset_commands(load_preset(preset))}
    assert names <= set(kept())


def test_updating_writes_what_is_new_and_takes_away_what_is_no_longer_produced(tmp_path):
    folder = tmp_path / "golden"
    rewrite(folder, {"a.txt": "1\n", "b.txt": "2\n"})
    rewrite(folder, {"b.txt": "3\n", "c.txt": "4\n"})
    assert kept(folder) == {"b.txt": "3\n", "c.txt": "4\n"}


@pytest.mark.parametrize("name", CASES)
def test_a_golden_file_pasted_into_a_shell_gives_the_same_arguments(texts, name):
    command = compiled(name)
    program, arguments = texts[name].split(" \\\n", 1)
    shell = f"printf '%s\\0' \\\n{arguments}"
    ran = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, check=True)
    assert ran.stdout.decode().split("\0")[:-1] == command[1:]
    assert program.strip("'") == command[0]


@pytest.mark.parametrize("name", CASES)
def test_a_golden_file_has_one_option_a_line(texts, name):
    lines = texts[name].replace(" \\\n", "\n").splitlines()
    options = [part for part in compiled(name) if part.startswith("-") and not part[1:].isdigit()]
    assert [line.split()[0] for line in lines if line.startswith("  -")] == options


def test_a_changed_command_line_reads_well_in_the_diff():
    before = {"r.a.txt": golden_text(["ffmpeg", "-crf", "30", "-map_metadata", "-1", "file:a.mp4", "-y"])}
    after = {"r.a.txt": golden_text(["ffmpeg", "-crf", "23", "-map_metadata", "-1", "file:a.mp4", "-y"])}
    assert golden_diff(before, after).splitlines() == [
        "--- golden/r.a.txt",
        "+++ compiled/r.a.txt",
        "@@ -1,5 +1,5 @@",
        " ffmpeg \\",
        "-  -crf 30 \\",
        "+  -crf 23 \\",
        "   -map_metadata -1 \\",
        "   file:a.mp4 \\",
        "   -y",
    ]
    assert golden_diff(before, before) == ""


def test_a_new_and_a_stale_golden_file_are_both_in_the_diff():
    diff = golden_diff({"old.txt": "a\n", "same.txt": "s\n"}, {"new.txt": "b\n", "same.txt": "s\n"})
    assert diff.splitlines() == [
        "--- /dev/null",
        "+++ compiled/new.txt",
        "@@ -0,0 +1 @@",
        "+b",
        "--- golden/old.txt",
        "+++ /dev/null",
        "@@ -1 +0,0 @@",
        "-a",
    ]


def test_the_same_input_gives_the_same_list_whatever_the_hash_seed(texts):
    script = """
import hashlib, warnings
from tests.compiler.test_golden import CASES, golden_text
warnings.simplefilter("ignore")
print(hashlib.sha256("".join(golden_text(build()) for build in CASES.values()).encode()).hexdigest())
"""
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            cwd=FIXTURES.parent,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {hashlib.sha256("".join(texts.values()).encode()).hexdigest()}
