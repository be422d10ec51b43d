import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ffenc.compiler.golden import golden_text, preset_commands
from ffenc.config.preset import load_preset, preset_names
from ffenc.version import VERSION
from tests.conftest import (
    DATASET,
    FIXTURES,
    TOP,
    decode,
    distances,
    everything_in,
    newest_program,
    pixels,
    psnr,
    system_if_long,
)
from tests.support.command_line import COMMANDS, process


@pytest.fixture
def robot(tmp_path):
    """A small preset file with two cameras."""
    path = tmp_path / "robot.yaml"
    path.write_text(
        "camera_encoder: {vcodec: h264}\n"
        "cameras:\n  a: {width: 64, height: 48}\n  b: {width: 64, height: 48}\n"
    )
    return path


# ---- help ----------------------------------------------------------------------------------------------


def test_help_lists_every_command_with_what_it_does(ffenc):
    text = ffenc.done("--help").out
    for command in COMMANDS:
        assert any(line.split()[:1] == [command] and len(line.split()) > 3 for line in text.splitlines())


@pytest.mark.parametrize("words", [[], *([command] for command in COMMANDS)], ids=" ".join)
def test_every_help_has_examples_on_lines_of_their_own(ffenc, words):
    text = ffenc.done(*words, "--help").out
    lines = [line.strip() for line in text.splitlines()]
    heads = [number for number, line in enumerate(lines) if line in ("Example:", "Examples:")]
    assert len(heads) == 1, text
    examples = [line for line in lines[heads[0] :] if line.startswith("ffenc ")]
    assert lines[heads[0] + 1] == examples[0]
    for example in examples:
        assert example.split()[1] == (words[0] if words else example.split()[1])
        assert example.split()[1] in COMMANDS
    assert "\b" not in text
    assert "\\b" not in text


def test_the_short_form_of_help_is_the_same(ffenc):
    assert ffenc.done("compile", "-h").out == ffenc.done("compile", "--help").out


@pytest.mark.parametrize("command", ["reencode", "encode", "compile"])
def test_help_shows_lerobots_spelling_of_settings_line_by_line(ffenc, command):
    lines = [line.strip() for line in ffenc.done(command, "--help").out.splitlines()]
    assert "--cameras.wrist.encoder.crf=20         (one camera)" in lines
    assert any(line.startswith("--dataset.camera_encoder.vcodec=h264") for line in lines)


@pytest.mark.parametrize(
    "line", ["compile so101", "compile reachy2 --encoder h264_nvenc --camera torso_rgb", "compile aloha"]
)
def test_the_examples_in_the_help_of_compile_run(ffenc, line):
    assert f"ffenc {line}" in ffenc.done("compile", "--help").out + ffenc.done("--help").out
    assert "ffmpeg " in ffenc.done(*line.split()).out


def test_help_of_compile_names_the_presets_there_are(ffenc):
    text = " ".join(ffenc.done("compile", "--help").out.split())
    assert ", ".join(preset_names()) in text


def test_version_is_printed(ffenc):
    assert ffenc.done("--version").out == f"ffenc, version {VERSION}\n"


# ---- compile -------------------------------------------------------------------------------------------


def test_compile_prints_the_command_line_of_each_camera_quoted_for_a_shell(ffenc):
    lines = ffenc.done("compile", "aloha").out.splitlines()
    commands = preset_commands(load_preset("aloha"))
    assert lines[::2] == [f"# {camera}" for camera in commands]
    assert [shlex.split(line) for line in lines[1::2]] == list(commands.values())
    assert "'[s2]'" in lines[1]


def test_compile_prints_json(ffenc):
    assert ffenc.done("compile", "aloha", "--json").json == preset_commands(load_preset("aloha"))


def test_compile_works_without_any_program_on_the_path():
    env = {"PATH": "", "FFENC_FFMPEG": "/nowhere/ffmpeg", "FFENC_FFPROBE": "/nowhere/ffprobe"}
    outcome = process("compile", "aloha", "--json", env=env)
    assert outcome.status == 0, outcome.err
    assert outcome.json == preset_commands(load_preset("aloha"))


def test_compile_takes_cameras_input_encoder_and_settings(ffenc):
    words = ["--camera", "torso_rgb", "--encoder", "h264_nvenc", "--input", "jpeg", "--json"]
    found = ffenc.done(
        "compile", "reachy2", *words, "--dataset.camera_encoder.crf=20", "--dataset.fps", "15"
    ).json
    expected = preset_commands(
        load_preset("reachy2", [(("camera_encoder", "crf"), 20), (("fps",), 15)]),
        cameras=["torso_rgb"],
        encoder="h264_nvenc",
        frames="jpeg",
    )
    assert found == expected
    assert ["-qp", "20"] in [found["torso_rgb"][i : i + 2] for i in range(len(found["torso_rgb"]))]


def test_compile_reads_a_file_and_settings_between_the_other_words(ffenc, robot):
    found = ffenc.done(
        "compile", "--cameras.a.encoder.crf", "20", robot, "--json", "--camera_encoder.g=5"
    ).json
    assert [found[camera][found[camera].index("-crf") + 1] for camera in "ab"] == ["20", "30"]
    assert [found[camera][found[camera].index("-g") + 1] for camera in "ab"] == ["5", "5"]


def test_compile_says_what_auto_stands_for(ffenc):
    outcome = ffenc.done("compile", "reachy2")
    assert "vcodec=auto is compiled as libsvtav1" in outcome.err
    assert "# torso_depth" in outcome.out
    assert "auto" not in ffenc.done("compile", "reachy2", "--encoder", "h264").err


def test_compile_refuses_settings_of_a_quantiser_of_depth_that_is_stored_without_one(ffenc, tmp_path):
    robot = tmp_path / "deep.yaml"
    robot.write_text("cameras: {deep: {depth: true, width: 64, height: 64}}")
    exact = ("--depth_encoder.vcodec=ffv1", "--depth_encoder.pix_fmt=gray16le")
    error = ffenc.refused("compile", robot, *exact, "--depth_encoder.depth_max=3")
    assert "--depth_encoder.depth_max would have no effect: gray16le stores depth as it is" in error
    assert "gray16le" in ffenc.done("compile", robot, *exact).out


def test_compile_refuses_a_setting_without_effect_in_one_line(ffenc, robot):
    error = ffenc.refused("compile", robot, "--camera", "a", "--camera_encoder.extra_options={crf: 5}")
    assert error.endswith("extra_options: crf=5 would have no effect, crf=30 is set; set crf instead\n")


# ---- golden files --------------------------------------------------------------------------------------


def test_golden_files_are_written_one_a_camera(ffenc, robot, tmp_path):
    outcome = ffenc.done("compile", robot, "--golden", tmp_path / "new" / "golden")
    assert "2 files written" in outcome.err
    assert everything_in(tmp_path / "new") == ["golden", "golden/robot.a.txt", "golden/robot.b.txt"]
    commands = preset_commands(load_preset(robot))
    for camera in "ab":
        text = (tmp_path / "new" / "golden" / f"robot.{camera}.txt").read_text()
        assert text == golden_text(commands[camera])


def test_check_finds_what_golden_has_written(ffenc, robot, tmp_path):
    ffenc.done("compile", robot, "--golden", tmp_path / "golden")
    outcome = ffenc.done("compile", robot, "--check", tmp_path / "golden")
    assert outcome.out == "2 command lines as they were\n"


def test_check_shows_a_change_as_a_diff_and_fails(ffenc, robot, tmp_path):
    ffenc.done("compile", robot, "--golden", tmp_path / "golden")
    outcome = ffenc.run("compile", robot, "--check", tmp_path / "golden", "--cameras.b.encoder.crf=20")
    assert outcome.status == 1
    lines = outcome.out.splitlines()
    assert lines[:2] == ["--- golden/robot.b.txt", "+++ compiled/robot.b.txt"]
    changes = [line for line in lines[2:] if line.startswith(("-", "+"))]
    assert changes == ["-  -crf 30 \\", "+  -crf 20 \\"]
    assert "robot.a.txt" not in outcome.out


def test_check_finds_a_stale_and_a_missing_file(ffenc, robot, tmp_path):
    golden = tmp_path / "golden"
    ffenc.done("compile", robot, "--golden", golden)
    (golden / "robot.a.txt").rename(golden / "robot.gone.txt")
    outcome = ffenc.run("compile", robot, "--check", golden)
    assert outcome.status == 1
    heads = [line for line in outcome.out.splitlines() if line.startswith(("--- ", "+++ "))]
    assert heads == [
        "--- /dev/null",
        "+++ compiled/robot.a.txt",
        "--- golden/robot.gone.txt",
        "+++ /dev/null",
    ]


def test_check_leaves_other_presets_files_alone(ffenc, robot, tmp_path):
    golden = tmp_path / "golden"
    other = robot.with_name("robot.two.yaml")
    other.write_text(robot.read_text())
    for preset in (robot, other, "so101"):
        ffenc.done("compile", preset, "--golden", golden)
    for preset in (robot, other, "so101"):
        ffenc.done("compile", preset, "--check", golden)


def test_check_looks_at_the_chosen_cameras_only(ffenc, robot, tmp_path):
    golden = tmp_path / "golden"
    ffenc.done("compile", robot, "--golden", golden)
    (golden / "robot.b.txt").write_text("changed\n")
    ffenc.done("compile", robot, "--check", golden, "--camera", "a")
    assert ffenc.run("compile", robot, "--check", golden, "--camera", "b").status == 1


def test_check_finds_each_of_several_chosen_cameras(ffenc, robot, tmp_path):
    ffenc.done("compile", robot, "--golden", tmp_path / "golden")
    outcome = ffenc.done("compile", robot, "--check", tmp_path / "golden", "--camera", "a", "--camera", "b")
    assert outcome.out == "2 command lines as they were\n"


def test_check_takes_a_preset_whose_name_holds_a_pattern(ffenc, robot, tmp_path):
    odd = robot.rename(robot.with_name("my[1]*.yaml"))
    ffenc.done("compile", odd, "--golden", tmp_path / "golden")
    ffenc.done("compile", odd, "--check", tmp_path / "golden")


def test_check_of_a_file_that_is_no_text_is_a_difference_or_a_refusal(ffenc, robot, tmp_path):
    ffenc.done("compile", robot, "--golden", tmp_path / "golden")
    (tmp_path / "golden" / "robot.a.txt").write_bytes(b"\xff")
    assert ffenc.run("compile", robot, "--check", tmp_path / "golden").status == 1


def test_check_together_with_golden_is_refused(ffenc, robot, tmp_path):
    """Else a check in CI that also names a folder to write would pass whatever has changed."""
    golden = tmp_path / "golden"
    ffenc.done("compile", robot, "--golden", golden)
    (golden / "robot.b.txt").write_text("changed\n")
    assert ffenc.run("compile", robot, "--check", golden, "--golden", tmp_path / "other").status != 0


def test_golden_in_a_folder_that_cannot_be_made_is_refused(ffenc, robot, tmp_path):
    (tmp_path / "file").write_text("")
    text = ffenc.refused("compile", robot, "--golden", tmp_path / "file" / "golden")
    assert "file" in text


# ---- messages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "parts"),
    [
        ("compile so102", 1, ["there is no preset 'so102'", "did you mean 'so10", "unitree_g1"]),
        ("compile nowhere/robot.yaml", 1, ["nowhere/robot.yaml does not exist"]),
        ("compile so101 --camera frnt", 1, ["no camera 'frnt'", "did you mean 'front'", "wrist"]),
        ("compile reachy2 --encoder libx264", 1, ["'libx264' is not known", "did you mean 'h264'"]),
        ("compile reachy2 --encoder auto", 1, ["auto"]),
        ("compile so101 --input bmp", 2, ["'bmp'", "'png', 'jpeg', 'rgb24'"]),
        ("compile so101 --check nowhere", 2, ["nowhere", "does not exist"]),
        ("compile so101 --encodr x", 2, ["--encodr", "--encoder"]),
        ("compile", 2, ["PRESET"]),
        ("compile so101 so100", 2, ["so100"]),
        ("compile so101 --camera_encoder.crf=many", 1, ["command line: camera_encoder.crf: 'many'"]),
        ("compile so101 --camera_encoder.crff=3", 1, ["camera_encoder.crff: unknown key", "mean 'crf'"]),
        ("compile so101 --camera_encoder.vcodec=libx264", 1, ["'libx264'", "did you mean 'h264'"]),
        ("compile so101 --camera_encoder.crf=22.5", 1, ["crf=22.5", "whole numbers"]),
        ("compile so101 --camera_encoder.crf", 2, ["--camera_encoder.crf needs a value"]),
        ("compile so101 --camera_encoder.crf=[[[", 2, ["--camera_encoder.crf", "'[[['"]),
        ("compile so101 --camera_encoder.crf=2024-99-99", 2, ["--camera_encoder.crf", "2024-99-99"]),
        ("compile so101 --camera_encodr.crf=3", 2, ["--camera_encodr.crf is not known", "did you mean"]),
        ("compile so101 --cameras.front.width=641", 1, ["641x480", "--resize 640x480", "yuv444p"]),
        ("compile so101 --cameras.frnt.encoder.crf=3", 1, ["frnt"]),
        ("compile so101 --dataset.fps=abc", 1, ["fps: 'abc' is not a frame rate"]),
        ("compile so101 --camera_encoder.vcodec=h264_v4l2m2m", 1, ["has no quality option", "b:v"]),
        ("encode", 2, ["FOLDER|VIDEO"]),
        ("encode . out.mp4", 2, ["--fps"]),
        ("encode nowhere out.mp4 --fps 30", 1, ["nowhere is neither a folder of frames nor"]),
        ("encode . out.mp4 --fps 30", 1, ["holds no PNG, JPEG or TIFF images"]),
        ("encode . out.mp4 --fps 30 --encoder-threads 0", 2, ["--encoder-threads", "0"]),
        ("encode . out.mp4 --fps 30 --preset so102", 1, ["there is no preset 'so102'"]),
        ("probe", 2, ["FILE"]),
        ("probe nowhere.mp4", 1, ["nowhere.mp4 does not exist"]),
        ("probe .", 1, ["is a folder", "regular file"]),
        ("reencode nowhere out", 1, ["nowhere"]),
        ("reencode", 2, ["SRC"]),
        ("recompile so101", 2, ["recompile"]),
        ("record so101 o --test --seconds nan", 2, ["--seconds", "'nan' is not a finite number"]),
        ("record so101 o --test --reset-seconds inf", 2, ["--reset-seconds", "'inf' is not a finite number"]),
        ("record so101 o --test --episodes 1_5", 2, ["--episodes", "'1_5' is not a whole number"]),
        ("record so101 o --test --fps 15 --dataset.fps=20", 2, ["--fps is 15, --dataset.fps is 20"]),
        ("record so101 o --test --resize=", 1, ["resize", "''"]),
        ("doctor so101 --seconds nan", 2, ["--seconds", "'nan' is not a finite number"]),
        ("verify o --max-depth-error nan", 2, ["--max-depth-error", "'nan' is not a finite number"]),
        ("verify o --same-program require", 2, ["--same-program has no effect without --on"]),
        ("verify o --metrics", 2, ["--metrics has no effect without --against"]),
        ("info o --overwrite", 2, ["--overwrite has no effect without --report"]),
        ("tune o --crf=-1", 2, ["--crf", "'-1'"]),
        ("tune o --g 0", 2, ["--g: 0 is not accepted"]),
        ("compile so101 --depth_encoder.crf=20", 1, ["none of front, wrist is a depth camera"]),
        ("doctor so101 --depth_encoder.crf=20", 1, ["none of front, wrist is a depth camera"]),
        ("record so101 o --test --depth_encoder.crf=20", 1, ["none of front, wrist is a depth camera"]),
        ("compile so101 --encoder h264_nvenc", 1, ["--encoder h264_nvenc would have no effect"]),
        ("compile reachy2 --encoder h264 --camera torso_depth", 1, ["--encoder h264 would have no effect"]),
        ("compile so101 --camera front --cameras.wrist.encoder.crf=20", 1, ["camera 'wrist' is left out"]),
        ("compile s3://x/y.yaml", 1, ["is an address", "download it first: aws s3 cp s3://x/y.yaml y.yaml"]),
        ("doctor --size ٦٤x64", 2, ["is not a size such as 640x480"]),
        ("tune o --budget ٩s", 2, ["is not a time such as 90s"]),
        ("compile so101 --check . --json", 2, ["--json has no effect with --golden"]),
        ("compare o x --overwrite", 2, ["--overwrite has no effect without --report or --sheet"]),
        ("tune o --overwrite", 2, ["--overwrite has no effect without --write or --report"]),
        ("tune o --target size=5", 2, ["size=5 has no unit", "5%", "5kB per frame"]),
        (
            "record so101 o --test --dataset.video=false --camera_encoder.crf=20",
            1,
            ["--camera_encoder.crf would have no effect: with video: false"],
        ),
        (
            "record so101 o --test --dataset.video=false --dataset.streaming_encoding=true",
            1,
            ["--dataset.streaming_encoding=true would have no effect"],
        ),
        ("reencode o x --dataset.streaming_encoding=true", 2, ["is a flag for recording, with ffenc record"]),
        ("reencode o x --dataset.vcodec=h264", 2, ["ffenc record", "use --camera_encoder.vcodec"]),
        ("encode . x.mp4 --fps 30 --camera top", 2, ["--camera has no effect without --preset"]),
        ("reencode o x --rotate 0", 2, ["--rotate", "'90', '180', '270'"]),
        ("reencode o x --episodes 0,x", 2, ["--episodes: 'x' is neither an episode number nor a range"]),
        ("edit o x --exclude-episodes=", 2, ["--exclude-episodes: '' is neither an episode number"]),
        ("reencode o x --shard 0/3", 2, ["--shard 0/3 is not accepted"]),
        ("reencode o x --fps nan", 2, ["--fps", "'nan' is not a frame rate"]),
        ("reencode o x --encoder-threads 2 --dataset.encoder_threads=1", 2, ["--encoder-threads is 2"]),
        ("encode o x.mp4 --fps 30 --dataset.fps=15", 2, ["--fps is 30, --dataset.fps is 15: pass one"]),
        (
            "compile so101 --camera_encoder.crf=20 --dataset.rgb_encoder.crf=30",
            2,
            ["--camera_encoder.crf is 20, --dataset.rgb_encoder.crf is 30: two names of one setting"],
        ),
        ("--bogus", 2, ["--bogus"]),
    ],
)
def test_a_mistake_is_answered_with_what_was_found_and_what_to_do(
    ffenc, words, status, parts, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    text = ffenc.refused(*words.split(), status=status)
    for part in parts:
        assert part in text
    assert text.splitlines()[-1].startswith(("ffenc: error: ", "Error: "))
    assert everything_in(tmp_path) == []


def test_an_error_in_a_preset_file_says_file_line_and_key(ffenc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "robot.yaml").write_text("fps: 30\ncamera_encoder:\n  crff: 3\n")
    text = ffenc.refused("compile", "robot.yaml")
    assert text.startswith(
        "ffenc: error: robot.yaml:3: camera_encoder.crff: unknown key; did you mean 'crf'?"
    )


def test_a_preset_without_cameras_is_refused(ffenc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "robot.yaml").write_text("fps: 30\n")
    assert "robot.yaml has no cameras" in ffenc.refused("compile", "robot.yaml")


@pytest.mark.parametrize(
    "data", [b"fps: 2024-99-99\n", b"fps: 'a\x01'\n", b"\xff\xfe", b"cameras: {a/b: {width: 2, height: 2}}\n"]
)
def test_a_preset_file_of_any_kind_leads_to_no_traceback(ffenc, tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "robot.yaml").write_bytes(data)
    assert "robot." in ffenc.refused("compile", "robot.yaml", "--golden", "golden")


@pytest.mark.parametrize(
    ("words", "status"), [("compile so102", 1), ("compile so101 --bogus", 2), ("probe nowhere.mp4", 1)]
)
def test_the_exit_status_is_the_processs_own(words, status):
    outcome = process(*words.split())
    assert outcome.status == status
    assert outcome.out == ""
    assert outcome.err


def test_output_that_nobody_reads_to_its_end_is_no_error():
    ran = subprocess.run(
        ["/bin/sh", "-c", f"{shlex.quote(sys.executable)} -m ffenc compile aloha --json | head -c 1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout == "{"
    assert ran.stderr == ""


# ---- probe ---------------------------------------------------------------------------------------------


def test_probe_prints_the_stream_fields_of_a_video(ffenc, tmp_path, toolchain):
    path = tmp_path / "it's 100%.mp4"
    subprocess.run(
        [newest_program("ffmpeg"), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=66x50:r=30000/1001:d=0.4"]
        + ["-c:v", "libx264", "-pix_fmt", "yuv444p", f"file:{path}"],
        check=True,
    )
    assert ffenc.done("probe", path).json == {
        "video.height": 50,
        "video.width": 66,
        "video.codec": "h264",
        "video.pix_fmt": "yuv444p",
        "video.fps": 30000 / 1001,
        "video.channels": 3,
        "has_audio": False,
    }


def test_probe_prints_the_audio_fields_of_a_video_with_sound(ffenc, tmp_path, toolchain):
    path = tmp_path / "sound.mp4"
    subprocess.run(
        [newest_program("ffmpeg"), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=0.5"]
        + [
            "-f",
            "lavfi",
            "-i",
            "sine=r=16000:d=0.5",
            "-ac",
            "2",
            "-c:v",
            "libx264",
            "-pix_fmt",
            "yuv420p",
            str(path),
        ],
        check=True,
    )
    found = ffenc.done("probe", path).json
    assert (found["video.fps"], found["video.pix_fmt"]) == (10, "yuv420p")
    assert found["has_audio"] is True
    assert (found["audio.codec"], found["audio.channels"], found["audio.sample_rate"]) == ("aac", 2, 16000)
    assert found["audio.channel_layout"] == "stereo"
    assert found["audio.bit_rate"] > 0


def test_probe_of_what_is_no_video_is_refused_by_name(ffenc, tmp_path, toolchain):
    (tmp_path / "note.mp4").write_text("no video")
    assert "note.mp4 cannot be read as a video" in ffenc.refused("probe", tmp_path / "note.mp4")


def test_probe_with_a_program_that_is_not_there_is_refused(ffenc):
    text = ffenc.refused("probe", SAMPLE, "--ffprobe", "/nowhere/ffprobe")
    assert "/nowhere/ffprobe" in text


# ---- encode --------------------------------------------------------------------------------------------

COUNT = 6


@pytest.fixture
def pictures(tmp_path, images):
    """A folder of a robot camera's frames as PNG files; and their pixels."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, image in enumerate(images[TOP][:COUNT]):
        (folder / f"frame-{i:06d}.png").write_bytes(image)
    return folder, np.stack([pixels(image) for image in images[TOP][:COUNT]])


def test_encode_makes_one_verified_file_of_a_folder(ffenc, tmp_path, pictures, toolchain, no_ffmpeg_left):
    folder, frames = pictures
    before = everything_in(folder)
    outcome = ffenc.done("encode", folder, tmp_path / "out.mp4", "--fps", "30", "--camera_encoder.crf=10")
    height, width = frames.shape[1:3]
    assert outcome.out.startswith(f"{tmp_path / 'out.mp4'}: {COUNT} frames {width}x{height} av1 yuv420p, ")
    assert outcome.out.endswith(", verified\n")
    assert outcome.err == ""
    found = decode(tmp_path / "out.mp4")
    assert found.shape == frames.shape
    assert all(psnr(a, b) > 35 for a, b in zip(found, frames, strict=True))
    assert everything_in(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "out.mp4"]


def test_encode_prints_json_and_takes_a_presets_camera(ffenc, tmp_path, pictures, toolchain):
    robot = tmp_path / "robot.yaml"
    robot.write_text(
        "camera_encoder: {vcodec: h264}\ncameras: {a: {width: 64, height: 48, encoder: {pix_fmt: yuv444p}}}\n"
    )
    target = tmp_path / "it's 100%d.mp4"
    words = ["--fps", "30000/1001", "--preset", robot, "--camera", "a", "--encoder-threads", "1", "--json"]
    found = ffenc.done("encode", pictures[0], target, *words).json
    assert found.pop("seconds") > 0
    assert found.pop("bytes") == target.stat().st_size
    assert found.pop("file") == str(target)
    assert found.pop("frames") == COUNT == len(decode(target))
    assert found == ffenc.done("probe", target).json
    assert (found["video.codec"], found["video.pix_fmt"]) == ("h264", "yuv444p")
    assert found["video.fps"] == 30000 / 1001


def test_encode_replaces_a_file_only_when_told_to(ffenc, tmp_path, pictures):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"mine")
    words = ["encode", pictures[0], target, "--fps", "30", "--camera_encoder.vcodec=h264"]
    assert f"{target} exists" in ffenc.refused(*words)
    assert target.read_bytes() == b"mine"
    ffenc.done(*words, "--overwrite")
    assert len(decode(target)) == COUNT


def test_encode_of_frames_with_a_gap_names_the_missing_one_and_writes_nothing(ffenc, tmp_path, pictures):
    (pictures[0] / "frame-000003.png").unlink()
    text = ffenc.refused("encode", pictures[0], tmp_path / "out.mp4", "--fps", "30")
    assert "frame 3 is missing" in text
    assert not (tmp_path / "out.mp4").exists()


def test_encode_takes_frames_that_start_elsewhere_when_told_so(ffenc, tmp_path, pictures):
    folder = pictures[0]
    (folder / "frame-000000.png").unlink()
    (folder / "frame-000001.png").unlink()
    words = ["encode", folder, tmp_path / "out.mp4", "--fps", "30", "--camera_encoder.vcodec=h264"]
    assert "--start-number 2" in ffenc.refused(*words)
    ffenc.done(*words, "--start-number", "2")
    assert len(decode(tmp_path / "out.mp4")) == COUNT - 2


@pytest.mark.parametrize(
    ("target", "words", "part"),
    [
        ("out.mkv", "--fps 30", "out.mkv: results are MP4 files"),
        ("nowhere/out.mp4", "--fps 30", "nowhere is not a folder"),
        ("out.mp4", "--fps abc", "'abc' is not a frame rate"),
        ("out.mp4", "--fps 30 --preset so101 --camera frnt", "'frnt'; did you mean 'front'"),
        ("out.mp4", "--fps 30 --start-number 3", "not number 3"),
        ("out.mp4", "--fps 30 --preset reachy2 --camera torso_depth", "is depth, but the frames are colour"),
        ("out.mp4", "--fps 30 --depth_encoder.crf=3", "would have no effect: the frames are colour"),
    ],
)
def test_encode_with_a_mistake_names_it_and_writes_nothing(
    ffenc, tmp_path, pictures, monkeypatch, target, words, part
):
    monkeypatch.chdir(tmp_path)
    outcome = ffenc.run("encode", pictures[0], target, *words.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames"]
    assert part in outcome.err
    assert outcome.status in (1, 2)


def test_encode_with_settings_that_cannot_be_encoded_writes_nothing(ffenc, tmp_path, pictures):
    text = ffenc.refused(
        "encode", pictures[0], tmp_path / "out.mp4", "--fps", "30", "--camera_encoder.vcodec=h264_v4l2m2m"
    )
    assert "b:v" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames"]


def test_encode_with_a_program_that_is_not_there_is_refused(ffenc, tmp_path, pictures, monkeypatch):
    monkeypatch.setenv("FFENC_FFMPEG", "/nowhere/ffmpeg")
    text = ffenc.refused("encode", pictures[0], tmp_path / "out.mp4", "--fps", "30")
    assert "'/nowhere/ffmpeg' does not exist or cannot be run" in text


SAMPLE = FIXTURES / f"aloha_video_v30/videos/{TOP}/chunk-000/file-000.mp4"


@system_if_long
def test_encode_takes_a_part_of_a_video(ffenc, tmp_path, toolchain, no_ffmpeg_left):
    target = tmp_path / "part.mp4"
    words = ["--start", "0.5", "--end", "1", "--camera_encoder.vcodec=h264", "--camera_encoder.crf=10"]
    outcome = ffenc.done("encode", SAMPLE, target, *words)
    assert outcome.out.startswith(f"{target}: 15 frames 320x240 h264 yuv420p, ")
    assert outcome.err == ""
    assert distances(decode(target), decode(SAMPLE)).argmin(axis=1).tolist() == list(range(15, 30))
    found = ffenc.done("encode", SAMPLE, target, "--overwrite", "--json", "--fps", "15", *words).json
    assert (found["frames"], found["video.fps"], found["file"]) == (15, 15, str(target))


def test_the_bar_of_a_part_of_a_video_counts_its_frames(ffenc, tmp_path, monkeypatch):
    from contextlib import contextmanager

    totals, done = [], []

    @contextmanager
    def bar(label, total):
        totals.append(total)
        yield done.append

    monkeypatch.setattr("ffenc.cli.encode.progress_bar", bar)
    ffenc.done("encode", SAMPLE, tmp_path / "o.mp4", "--start", "2", "--camera_encoder.vcodec=h264")
    assert totals == [12]
    assert done[-1] == 12


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("--start nan", "--start nan is not a time"),
        ("--start 2 --end 1", "--start 2 is not before --end 1"),
        ("--end 9", "--end 9 is outside the video"),
        ("--start x", "'x' is not a valid float"),
        ("--start-number 1", "--start-number applies to a folder"),
        ("--preset so101 --camera frnt", "did you mean 'front'"),
    ],
)
def test_encode_of_a_video_with_a_mistake_writes_nothing(ffenc, tmp_path, words, part):
    outcome = ffenc.run("encode", SAMPLE, tmp_path / "out.mp4", *words.split())
    assert part in outcome.err
    assert outcome.status in (1, 2)
    assert everything_in(tmp_path) == []


def test_a_recording_command_takes_lerobots_flags_and_keeps_its_own() -> None:
    import click
    from click.testing import CliRunner

    from ffenc.cli.common import RecordingCommand

    @click.command(cls=RecordingCommand)
    @click.option("--dataset.root", "root")
    def record(root: str, overrides: list[object]) -> None:
        click.echo(f"{root} {overrides}")

    words = ["--dataset.root", "out", "--robot.type=so101_follower", "--dataset.streaming_encoding=true"]
    answer = CliRunner().invoke(record, words)
    assert answer.output == "out [(('robot_type',), 'so101_follower'), (('encode',), 'live')]\n"
    assert "--robot.cameras=" in CliRunner().invoke(record, ["--help"]).output


def test_a_path_may_begin_with_the_home_folder_and_may_not_be_empty(ffenc, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    ffenc.done("reencode", DATASET, "~/out", "--cameras", "angle", "--episodes", "1")
    assert everything_in(tmp_path)[0] == "out"
    assert "a path is empty" in ffenc.refused("reencode", DATASET, "", status=2)
    assert "a path is empty" in ffenc.refused("info", "", status=2)
    assert "is the current folder" in ffenc.refused("reencode", DATASET, ".")


def test_arrow_does_not_load_pandas(tmp_path: Path) -> None:
    loaded = tmp_path / "loaded"
    (tmp_path / "pandas.py").write_text(f"open({str(loaded)!r}, 'w').close()\nraise ImportError\n")

    def run(*words: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(tmp_path)}
        subprocess.run([sys.executable, *words], check=True, env=env, capture_output=True)

    run("-m", "ffenc", "reencode", str(DATASET), str(tmp_path / "out"), "--cameras=top", "--episodes=0")
    run("-m", "ffenc", "verify", str(tmp_path / "out"))
    assert not loaded.exists()
    run("-c", "import pyarrow as pa; pa.array([1])")
    assert loaded.exists()


@pytest.mark.parametrize(
    ("program", "heavy"),
    [
        ("import ffenc", {"msgspec", "pyarrow", "numpy", "PIL", "rich", "yaml"}),
        (
            "from ffenc.cli.app import run; run(['--help'])",
            {"msgspec", "pyarrow", "numpy", "PIL", "rich", "yaml"},
        ),
        ("from ffenc.cli.app import run; run(['compile', 'so101'])", {"pyarrow", "numpy", "PIL"}),
        (
            f"from ffenc.cli.app import run; run(['info', {str(FIXTURES / 'aloha_image_v30')!r}])",
            {"PIL", "pyarrow.compute", "pyarrow.dataset", "pandas"},
        ),
        (  # Arrow's compute module alone takes longer to load than the tables of most datasets to read
            "from ffenc.cli.app import run; "
            f"run(['reencode', {str(DATASET)!r}, 'OUT', '--cameras=angle', '--episodes=1'])",
            {"PIL", "pyarrow.compute", "pyarrow.dataset", "pandas", "h5py", "zarr", "mcap", "rosbags"}
            | {"ray", "av", "huggingface_hub", "fsspec", "ffenc.dataset.sources.ros"},
        ),
        (
            "from ffenc.cli.app import run; "
            "run(['reencode', 'TREE', 'OUT', '--fps=10', '--task=lift', '--episodes=1'])",
            {"PIL", "pyarrow.compute", "pyarrow.dataset", "pandas", "h5py", "zarr", "mcap", "rosbags", "ray"},
        ),
    ],
    ids=["import", "help", "compile", "info", "reencode", "reencode-images"],
)
def test_a_start_loads_no_library_that_it_does_not_use(
    program: str, heavy: set[str], tmp_path: Path, png_tree: Path
) -> None:
    program = program.replace("OUT", str(tmp_path / "out")).replace("TREE", str(png_tree))
    ended = subprocess.run(
        [sys.executable, "-c", f"{program}; import sys; print('\\0'.join(sys.modules), file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(ended.stderr.strip().split("\0"))
    assert "ffenc" in loaded
    assert not heavy & loaded
