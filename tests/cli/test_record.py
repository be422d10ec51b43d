"""``ffenc record`` and ``ffenc recover``, as they are typed: keys, signals, what is printed."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ffenc import load_preset
from ffenc.cli.keys import parse_keys
from ffenc.recording.cameras import read_number
from tests.conftest import FIXTURES, decode, find_toolchain
from tests.recording.recording import assert_sound, encoders_of, episodes, wait_for
from tests.stand_in import V4L2_STAND_IN
from tests.support.make import numbered_images

pytestmark = pytest.mark.usefixtures("no_ffmpeg_left")

KEY = "observation.images.front"
RIGHT, LEFT, ESCAPE, CTRL_C = b"\x1b[C", b"\x1b[D", b"\x1b", b"\x03"


@pytest.fixture
def robot(tmp_path: Path) -> Path:
    """A preset with one small camera that has no source."""
    path = tmp_path / "robot.yaml"
    path.write_text(
        "camera_encoder: {vcodec: h264, preset: ultrafast}\ncameras: {front: {width: 64, height: 48}}\n"
    )
    return path


def numbers(root: Path, episode: int) -> list[int]:
    """What the pictures of an episode say."""
    row = episodes(root)[episode]
    path = root / f"videos/{KEY}/chunk-000/file-{row[f'videos/{KEY}/file_index']:03d}.mp4"
    found = [read_number(frame) for frame in decode(path)]
    assert len(found) == row["length"]
    return found


# ---- what is recorded, and what is said --------------------------------------------------------------------


def test_the_events_are_lines_of_json(ffenc, robot, tmp_path, monkeypatch):
    monkeypatch.setattr("ffenc.cli.record_screen.JsonLines.status_seconds", 0.1)
    words = ["--test", "--episodes", "2", "--seconds", "0.4", "--task", "lift", "--no-check", "--json"]
    outcome = ffenc.done("record", robot, tmp_path / "d", *words)
    events = [json.loads(line) for line in outcome.out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "session_started"
    assert [kind for kind in kinds if kind != "status"][1:] == [
        *["episode_started", "episode_ended", "episode_saving", "episode_saved"] * 2,
        "session_ended",
    ]
    status = next(event for event in events if event["event"] == "status")
    assert set(status["cameras"]["front"]) >= {"queued", "queue_maxsize", "dropped", "repeated", "bytes"}
    assert events[-1] == {
        "event": "session_ended",
        "root": str(tmp_path / "d"),
        "episodes": 2,
        "rows": 24,
        "interrupted": False,
        "error": None,
    }
    assert numbers(tmp_path / "d", 1) == list(range(12))
    assert_sound(tmp_path / "d")


def test_lerobots_flags_are_taken_and_a_later_run_adds_episodes(ffenc, robot, tmp_path):
    root = tmp_path / "d"
    cameras = (
        "{front: {type: opencv, index_or_path: 0, width: 64, height: 48, fps: 15},"
        " gone: {type: opencv, index_or_path: 2, width: 64, height: 48, fps: 15}}"
    )
    flags = [
        "--robot.type=so101_follower",
        f"--robot.cameras={cameras}",
        f"--dataset.root={root}",
        "--dataset.fps=15",
        "--dataset.num_episodes=1",
        "--dataset.episode_time_s",
        "0.4",
        "--dataset.reset_time_s=0",
        "--dataset.single_task=Grab the cube",
        "--dataset.streaming_encoding=true",
        "--dataset.encoder_queue_maxsize=60",
        "--dataset.rgb_encoder.crf=28",
    ]
    plan = ffenc.done("record", robot, *flags, "--dry-run", "--json").json
    assert plan["fps"] == 15
    assert list(plan["cameras"]) == ["front", "gone"]
    assert plan["cameras"]["gone"]["source"] == {"type": "v4l2", "device": 2}
    assert "28" in plan["cameras"]["front"]["command"]
    assert not root.exists()
    words = ["--camera", "front=test", "--camera", "gone=test", "--no-check"]
    for _ in range(2):
        outcome = ffenc.done("record", robot, *flags, *words)
    assert f"{root}: 1 episode" in outcome.out
    assert f"ffenc verify {root}" in outcome.out
    info = json.loads((root / "meta/info.json").read_text())
    assert (info["robot_type"], info["fps"], info["total_frames"]) == ("so101_follower", 15, 12)
    assert [row["tasks"] for row in episodes(root)] == [["Grab the cube"]] * 2
    assert_sound(root)


def test_a_recording_of_a_realsense_gives_colours_and_depth(ffenc, robot, tmp_path):
    root = tmp_path / "d"
    source = f"front={FIXTURES / 'realsense.db3'}+depth"
    robot.write_text("camera_encoder: {vcodec: h264, preset: ultrafast}\n")
    ffenc.done("record", robot, root, "--camera", source, "--seconds", "60")
    [row] = episodes(root)
    assert numbers(root, 0) == list(range(row["length"]))
    info = json.loads((root / "meta/info.json").read_text())
    assert info["features"][f"{KEY}_depth"]["info"]["is_depth_map"] is True
    assert_sound(root)


def test_a_machine_that_does_not_keep_up_records_nothing_and_names_flags_that_do(
    ffenc, robot, tmp_path, monkeypatch
):
    monkeypatch.setattr("ffenc.recording.keep_up.MAX_ROUNDS", 2)
    monkeypatch.setattr("ffenc.cli.record._CHECK_SECONDS", 0.5)
    monkeypatch.setenv("FFENC_FFMPEG", find_toolchain("newest").ffmpeg)
    slow = ["--camera_encoder.vcodec=libaom-av1", "--camera_encoder.preset=0", "--cameras.front.width=320"]
    root = tmp_path / "d"
    outcome = ffenc.run("record", robot, root, "--test", *slow, "--cameras.front.height=240")
    assert (outcome.status, outcome.out) == (1, "")
    assert "falls behind" in outcome.err
    assert "--camera_encoder.vcodec=h264" in outcome.err.replace("cameras.front.encoder", "camera_encoder")
    assert not root.exists()


def test_a_camera_without_a_source_and_a_root_that_is_missing_are_refused(ffenc, robot, tmp_path):
    assert "--camera front=/dev/video0" in ffenc.refused("record", robot, tmp_path / "d")
    assert "ROOT" in ffenc.refused("record", robot, "--test", status=2)
    assert "is not of the form NAME=SOURCE" in ffenc.refused(
        "record", robot, "d", "--camera", "test", status=2
    )
    words = ["--test", "--seconds", "1", "--task", ""]
    assert "--task: '' is not accepted" in ffenc.refused("record", robot, tmp_path / "d", *words)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("own", "lerobots", "values", "said"),
    [
        ("--episodes", "--dataset.num_episodes", ("2", "3"), "the values 2, 3"),
        ("--seconds", "--dataset.episode_time_s", ("0.5", "1e0"), "the values 0.5, 1.0"),
        ("--reset-seconds", "--dataset.reset_time_s", ("1", "2"), "the values 1.0, 2.0"),
        ("--task", "--dataset.single_task", ("fold it", "lift it"), "the values fold it, lift it"),
    ],
)
def test_two_names_of_one_setting_with_different_values_are_refused(
    ffenc, robot, own, lerobots, values, said
):
    words = ("record", robot, "d", "--camera", "front=test", "--dry-run")
    error = ffenc.refused(*words, own, values[0], lerobots, values[1], status=2)
    assert f"{own} and {lerobots} are two names of one setting, which has {said}: pass one" in error
    ffenc.done(*words, own, values[0], f"{lerobots}={values[0]}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--episodes", "1.5"), "'1.5' is not a whole number such as 12"),
        (("--episodes", "1_5"), "'1_5' is not a whole number such as 12"),
        (("--episodes", "0"), "0 is not in the range x>=1"),
        (("--seconds", "1s"), "'1s' is not a finite number such as 2.5"),
        (("--seconds", "inf"), "'inf' is not a finite number such as 2.5"),
        (("--seconds", "1e999"), "'1e999' is not a finite number such as 2.5"),
    ],
)
def test_misread_numbers_are_refused(ffenc, robot, words, said):
    assert said in ffenc.refused("record", robot, "d", "--test", *words, status=2)


def test_a_live_camera_is_recorded_at_its_own_pace(ffenc, tmp_path):
    images = numbered_images(tmp_path / "images", ".jpg", count=1800)  # a minute: no machine starts slower
    (tmp_path / "stream").write_bytes(b"".join(images))
    device, program = tmp_path / "video0", tmp_path / "ffmpeg"
    device.touch()
    swap = ["-re", "-f", "mjpeg", "-framerate", "30", "-i", str(tmp_path / "stream")]
    real = find_toolchain("system").ffmpeg
    program.write_text(V4L2_STAND_IN.format(python=sys.executable, real=real, swap=swap, said=""))
    program.chmod(0o755)
    robot = tmp_path / "robot.yaml"
    robot.write_text(
        "camera_encoder: {vcodec: h264, preset: ultrafast}\n"
        f"cameras: {{front: {{width: 64, height: 48, source: {{type: v4l2, device: {device}}}}}}}\n"
    )
    root = tmp_path / "d"
    words = ["--seconds", "0.5", "--no-check", "--json", "--ffmpeg", program]
    events = [json.loads(line) for line in ffenc.done("record", robot, root, *words).out.splitlines()]
    repeated = [event["row"] for event in events if event["event"] == "frame_repeated"]
    shown = numbers(root, 0)
    assert len(shown) == 15
    assert shown == sorted(shown)
    assert [i for i in range(1, 15) if shown[i] == shown[i - 1]] == repeated
    assert json.loads((root / "meta/recording/episode_000000.json").read_text())["on_full"] == "repeat"
    assert_sound(root)


# ---- keys and signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "pressed"),
    [
        (b"\x1b[C", ["right"]),
        (b"\x1bOD", ["left"]),
        (b"\x1b", ["escape"]),
        (b"x\x1b[A\x1b[1;5C\x1b", ["right", "escape"]),
        (b"\x1bx\x1b[3~q", []),
    ],
)
def test_bytes_of_a_terminal_are_keys_however_they_arrive(data, pressed):
    assert parse_keys(data, complete=True) == (pressed, b"")
    found, pending = [], b""
    for i in range(len(data)):
        keys, pending = parse_keys(pending + data[i : i + 1], complete=False)
        found += keys
    found += parse_keys(pending, complete=True)[0]
    assert found == pressed


class Terminal:
    """The command in a terminal of its own."""

    def __init__(self, *words: object) -> None:
        self._own, theirs = pty.openpty()
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_TERMINAL, "record", *map(str, words)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
        )

    def until(self, text: str, limit: float = 30.0) -> None:
        """Wait until the screen has shown a text; what it showed before is forgotten."""
        end = time.monotonic() + limit
        while text not in self.shown:
            assert time.monotonic() < end, f"{text!r} is not shown: {self.shown[-2000:]}"
            self._read()
        self.shown = self.shown.partition(text)[2]

    def press(self, keys: bytes) -> None:
        os.write(self._own, keys)

    def ended(self, limit: float = 30.0) -> int:
        """Wait for the end; its exit status."""
        end = time.monotonic() + limit
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it does not end: {self.shown[-2000:]}"
            self._read()
        self._read()
        assert "Traceback" not in self.shown
        assert termios.tcgetattr(self._theirs) == self.before, "the terminal is left as it was found"
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        os.close(self._own)
        os.close(self._theirs)

    def _read(self) -> None:
        while select.select([self._own], [], [], 0.05)[0]:
            self.shown += os.read(self._own, 65536).decode(errors="replace")


# The terminal has to be the one that its keys' signals come from.
_IN_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from ffenc.cli.main import main
main()
"""


@contextlib.contextmanager
def terminal(*words: object) -> Iterator[Terminal]:
    opened = Terminal(*words)
    try:
        yield opened
    finally:
        opened.close()


def test_the_keys_are_lerobots(robot, tmp_path):
    root = tmp_path / "d"
    with terminal(robot, root, "--test", "--episodes", "9", "--seconds", "60", "--no-check") as screen:
        screen.until("episode 0 (1 of 9): ")
        screen.until(" rows/s")
        screen.until("Esc stop")
        screen.press(RIGHT)
        screen.until("episode 0: ")
        screen.until("episode 1 (2 of 9): ")
        screen.until(" rows/s")
        screen.press(LEFT)
        screen.until("attempt 1 at episode 1: ")
        screen.until("episode 1 (2 of 9), attempt 2: ")
        screen.until(" rows/s")
        screen.press(ESCAPE)
        assert screen.ended() == 0
        assert "2 episodes" in screen.shown
    for episode in range(2):
        found = numbers(root, episode)
        assert found == list(range(len(found)))
    assert_sound(root)


def test_a_key_pressed_twice_or_while_it_is_saved_counts_once_and_the_reset_is_counted_down(robot, tmp_path):
    root = tmp_path / "d"
    words = ["--test", "--episodes", "2", "--seconds", "60", "--reset-seconds", "3", "--no-check"]
    with terminal(robot, root, *words) as screen:
        screen.until('the episodes is "unspecified"')
        screen.until("episode 0 (1 of 2): ")
        screen.until(" rows/s")
        screen.press(RIGHT)
        screen.press(RIGHT)
        for left in (3, 2, 1):
            screen.until(f"; {left} s left to set up the scene")
        screen.until("episode 1 (2 of 2): ")
        screen.until(" rows/s")
        screen.press(RIGHT + RIGHT)
        assert screen.ended() == 0
        assert "2 episodes" in screen.shown
    assert all(row["length"] > 1 for row in episodes(root))


def test_each_result_is_said_once_whatever_the_outputs_are(ffenc, robot, tmp_path):
    root = tmp_path / "d"
    words = ["--test", "--episodes", "2", "--seconds", "0.2", "--no-check"]
    outcome = ffenc.done("record", robot, root, *words, "--task", "lift")
    both = outcome.out.splitlines() + outcome.err.splitlines()
    for episode in range(2):
        assert len([line for line in both if line.startswith(f"episode {episode}: 6 rows, ")]) == 1
    assert len(both) == len(set(both))
    assert [line.partition(":")[0] for line in outcome.out.splitlines()[:2]] == ["episode 0", "episode 1"]
    assert "unspecified" not in outcome.err
    quiet = ffenc.done("record", robot, root, *words, "--quiet")
    assert quiet.out == quiet.err == ""


@pytest.mark.parametrize("kept", ["keep", "discard"])
def test_ctrl_c_ends_in_order_and_keeps_or_discards(robot, tmp_path, kept):
    root = tmp_path / "d"
    with terminal(robot, root, "--test", "--seconds", "60", "--no-check", "--on-interrupt", kept) as screen:
        screen.until(" rows/s")
        screen.press(CTRL_C)
        assert screen.ended() == 130
        assert ("1 episode" in screen.shown) == (kept == "keep")
        assert "interrupted" in screen.shown
    if kept == "keep":
        assert numbers(root, 0) == list(range(len(numbers(root, 0))))
        assert_sound(root)
    else:
        assert not root.exists()


# ---- what is interrupted -----------------------------------------------------------------------------------


def test_after_kill_9_recover_brings_every_row_back(ffenc, robot, tmp_path):
    root = tmp_path / "d"
    words = [robot, root, "--test", "--seconds", "60", "--no-check", "--task", "lift"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ffenc", "record", *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: any(path.stat().st_size > 20_000 for path in root.glob(".recording/*/*.mp4")))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    wait_for(lambda: not encoders_of(root, "front"))
    [log] = root.glob(".recording/*/rows.jsonl")
    recorded = log.read_bytes().count(b"\n")
    outcome = ffenc.done("recover", root)
    [row] = episodes(root)
    lost = recorded - row["length"]
    said = f"{lost} lost of {recorded}" if lost else "none lost"
    assert f"episode 0: {row['length']} rows recovered, {said}" in outcome.out
    assert numbers(root, 0) == list(range(row["length"]))
    # The last second and a half, and the 30 frames (queue_maxsize) that an encoder may be behind.
    assert lost <= 45 + 30
    assert row["tasks"] == ["lift"]
    assert_sound(root)
    assert ffenc.done("recover", root).out == f"{root}: nothing to recover\n"


def test_an_episode_that_cannot_be_brought_back_is_told_and_stays(ffenc, tmp_path):
    folder = tmp_path / "d/.recording/20260101-000000-abcdef"
    folder.mkdir(parents=True)
    (folder / "episode.json").write_text("{")
    outcome = ffenc.run("recover", tmp_path / "d", "--json")
    assert outcome.status == 1
    [told] = outcome.json["episodes"]
    assert "episode.json: cannot be read" in told["error"]
    assert folder.is_dir()
    assert str(folder) in ffenc.done("recover", tmp_path / "d", "--discard").out
    assert not folder.exists()


def test_the_presets_names_work(ffenc, tmp_path):
    """Every preset that comes with ffenc can be planned with test pictures."""
    plan = ffenc.done("record", "so101", tmp_path / "d", "--test", "--dry-run").out
    for name in load_preset("so101").cameras:
        assert f"  {name}: test, " in plan
