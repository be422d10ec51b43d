"""What a person reads: how much of it, where it goes, and that it only shows what it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ffenc.cli import app
from ffenc.cli.failure import report
from ffenc.cli.output import json_text, printable
from tests.conftest import ANGLE, FIXTURES
from tests.support.command_line import COMMANDS, CommandLine, process

VIDEO = FIXTURES / f"aloha_video_v30/videos/{ANGLE}/chunk-000/file-000.mp4"
H264 = "--camera_encoder.vcodec=h264"


# ---- text that is not ffenc's own --------------------------------------------------------------------------


def test_what_a_terminal_obeys_is_shown_and_not_done() -> None:
    assert printable("a\x1b[2Jb\x9bc\x07d\x7f") == r"a\x1b[2Jb\x9bc\x07d\x7f"
    assert printable("left\u202eright\u2066") == r"left\u202eright\u2066"
    assert printable(os.fsdecode(b"na\xffme")) == r"na\xffme"
    assert printable("two\nlines\tand → é 手") == "two\nlines\tand → é 手"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A dataset whose name and robot hold what a terminal obeys."""
    root = tmp_path / "bad\x1b[31mname"
    shutil.copytree(FIXTURES / "aloha_video_v30", root)
    info = json.loads((root / "meta/info.json").read_text())
    info["robot_type"] = "arm\x1b]0;title\x07\x9b2J\u202e"
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


@pytest.mark.parametrize(
    "words", [["info"], ["info", "--json"], ["verify"], ["verify", "--json"], ["probe"], ["decode", "OUT"]]
)
def test_no_command_prints_what_a_terminal_obeys(
    ffenc: CommandLine, hostile: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(hostile.parent)
    outcome = ffenc.run(words[0], hostile, *words[1:])
    said = outcome.out + outcome.err
    assert "bad" in said or words[0] == "decode"
    assert not set(said) & set("\x1b\x07\x9b\u202e")
    if "--json" in words:
        assert str(hostile) in outcome.json.values()


def test_a_name_that_is_no_text_is_refused_by_name(ffenc: CommandLine, tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"na\xffme")
    shutil.copytree(FIXTURES / "aloha_video_v30", root)
    assert r"na\xffme" in ffenc.refused("info", root)


def test_json_is_the_same_whatever_the_output_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"a": "\x1b\x9b\u202eé手\udcff"}
    for encoding in ("utf-8", "ascii"):
        monkeypatch.setattr(sys, "stdout", open(os.devnull, "w", encoding=encoding))  # noqa: PTH123, SIM115
        text = json_text(content)
        sys.stdout.close()
        assert json.loads(text) == content
        assert not set(text) & set("\x1b\x9b\u202e\udcff")
        text.encode(encoding)


def test_a_file_name_that_is_no_text_is_named_alone(ffenc: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"na\xffme.mp4")
    shutil.copy(VIDEO, path)
    said = ffenc.refused("decode", path, tmp_path / "out")
    assert said.endswith(r"na\xffme.mp4" + "\n")
    assert len(said) < 200 + len(str(path))


def test_a_relative_name_that_begins_like_an_address_is_a_path(
    ffenc: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow takes it for an address, and FFmpeg for one of its protocols."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(FIXTURES / "aloha_video_v30", tmp_path / "take:3")
    shutil.copy(VIDEO, tmp_path / "pipe:1.mp4")
    ffenc.done("info", "take:3")
    ffenc.done("verify", "take:3")
    ffenc.done("edit", "take:3", "cut:1", "--exclude-episodes", "1")
    ffenc.done("repair", "take:3", "sound:1", "--dry-run")
    ffenc.done("compare", "take:3", "./take:3", "--cameras", "angle", "--episodes", "0")
    ffenc.done("probe", "pipe:1.mp4")
    ffenc.done("encode", "pipe:1.mp4", "pipe:2.mp4", H264)
    ffenc.done("decode", "pipe:2.mp4", "file:3")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("take:3", "cut:1", "pipe:1.mp4", "pipe:2.mp4", "file:3")
    }


def test_packets_of_a_path_with_a_line_break_are_refused_by_name(ffenc: CommandLine, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "aloha_video_v30", tmp_path / "a\nb")
    said = ffenc.refused("merge", tmp_path / "a\nb", tmp_path / "a\nb", "--out", tmp_path / "out")
    assert "packets of a file with a line break in its path cannot be copied; rename it" in said
    assert [path.name for path in tmp_path.iterdir()] == ["a\nb"]


def test_a_dataset_with_the_longest_possible_name_is_verified(ffenc: CommandLine, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "aloha_video_v30", tmp_path / ("n" * 255))
    ffenc.done("verify", tmp_path / ("n" * 255))


# ---- how much is said --------------------------------------------------------------------------------------


def test_quiet_says_nothing_of_what_went_well_and_still_answers(ffenc: CommandLine, tmp_path: Path) -> None:
    for target, words in [("a.mp4", ["--quiet", "encode"]), ("b.mp4", ["encode", "-q"])]:
        outcome = ffenc.done(*words, VIDEO, tmp_path / target, H264)
        assert (outcome.out, outcome.err) == ("", "")
        assert (tmp_path / target).exists()
    assert ffenc.done("info", FIXTURES / "aloha_video_v30", "--quiet").out
    assert ffenc.done("probe", VIDEO, "--quiet").json
    assert ffenc.refused("--quiet", "info", "nowhere") == (
        "ffenc: error: nowhere is not a folder; expected the folder of a dataset\n"
    )


def test_verbose_says_what_is_run_and_a_log_file_keeps_it_all(ffenc: CommandLine, tmp_path: Path) -> None:
    log = tmp_path / "log"
    quiet = ["--quiet", "--log-file", log]
    loud = ffenc.done("encode", VIDEO, tmp_path / "a.mp4", H264, "--verbose")
    assert "libx264" in loud.err
    assert "runs " in loud.err
    ffenc.done("encode", VIDEO, tmp_path / "b.mp4", H264, *quiet)
    ffenc.done("info", FIXTURES / "aloha_video_v30", *quiet)
    ffenc.refused("info", tmp_path / "nowhere", *quiet)
    kept = log.read_text()
    for part in ("DEBUG runs ", "b.mp4: 72 frames 160x120", "3 episodes, 72 frames", "angle_depth"):
        assert part in kept
    assert "ERROR" in kept
    assert "nowhere is not a folder" in kept
    assert kept[:2] == "20", "each entry begins with its time"


def test_a_log_file_that_cannot_be_written_is_refused_first(ffenc: CommandLine, tmp_path: Path) -> None:
    words = ["encode", VIDEO, tmp_path / "a.mp4", "--log-file", tmp_path / "no/log"]
    assert "no/log cannot be written" in ffenc.refused(*words, status=2)
    assert list(tmp_path.iterdir()) == []


def test_a_log_file_on_a_full_disk_is_a_warning_and_the_work_goes_on(ffenc: CommandLine) -> None:
    outcome = ffenc.done("info", FIXTURES / "aloha_video_v30", "--log-file", "/dev/full")
    assert "3 episodes, 72 frames" in outcome.out
    assert outcome.err.count("/dev/full: No space left on device; messages are missing") == 1


def test_quiet_and_verbose_exclude_each_other(ffenc: CommandLine) -> None:
    assert "--quiet and --verbose" in ffenc.refused("--quiet", "info", "x", "--verbose", status=2)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_options_of_output(ffenc: CommandLine, name: str) -> None:
    text = ffenc.done(name, "--help").out
    assert all(
        text.count(f"  {option} ") == 1 for option in ("-q, --quiet", "-v, --verbose", "--log-file FILE")
    )


def test_columns_and_no_color_hold_in_a_pipe() -> None:
    words = ["info", FIXTURES / "aloha_video_v30"]
    wide = process(*words, env={"COLUMNS": "150", "NO_COLOR": "1", "FORCE_COLOR": ""}).out.splitlines()
    narrow = process(*words, env={"COLUMNS": "60"}).out.splitlines()
    odd = process(*words, env={"COLUMNS": "many"}).out.splitlines()
    assert max(map(len, narrow[1:])) <= 60 < max(map(len, odd[1:])) <= 110
    assert len(wide) <= len(odd) < len(narrow)
    assert "kind: video, depth" in narrow  # no cell is squeezed to a letter a line
    assert not any("\x1b" in line for line in wide)


# ---- failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (MemoryError(), "not enough memory"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (ValueError("Exceeds the limit (4300 digits) for integer string conversion"), "4300 digits"),
        (OSError("odd"), "odd"),
        (OSError(28, "No space left on device"), "standard output: No space left on device"),
        (OSError(40, "Too many levels of symbolic links", "/a/b"), "/a/b: Too many levels"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (KeyError("x"), "(KeyError)"),
        (ImportError("libarrow.so"), "a Python package cannot be loaded"),
        (ImportError("libarrow.so: failed to map segment from shared object"), "not enough memory"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_is_raised_is_one_line_and_the_rest_is_there_for_who_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, part: str
) -> None:
    def fail() -> Any:
        raise error

    monkeypatch.setattr(app, "check_threads", fail)
    for environment, lines in [("", 1), ("1", 2)]:
        monkeypatch.setenv("FFENC_DEBUG", environment)
        hooks = sys.unraisablehook, threading.excepthook
        assert app.run(["info", "x"]) == 1
        assert (sys.unraisablehook, threading.excepthook) == hooks
        said = capsys.readouterr().err
        assert said.startswith("ffenc: error: ")
        assert part in said.splitlines()[0]
        assert ("Traceback" in said) == bool(environment)
        assert len(said.splitlines()) >= lines
        assert environment or len(said.splitlines()) == 1


def test_a_failure_names_the_file_that_was_being_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As the innermost function of ffenc had it."""
    from ffenc.dataset.staging import write_json

    with pytest.raises(TypeError) as caught:
        write_json(tmp_path / "x.json", {"a": object()})
    assert report(caught.value) == 1
    assert f"{tmp_path / 'x.json'}: " in capsys.readouterr().err


# ---- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (
            ["info", "lerobot/pusht"],
            "or download it: ffenc pull lerobot/pusht pusht",
        ),
        (["tune", "hf://datasets/a/b@v2.0"], "download it first: ffenc pull a/b@v2.0 b"),
        (["probe", "s3://bucket/some data"], "aws s3 cp --recursive 's3://bucket/some data' 'some data'"),
        (["decode", "https://x.org/a.mp4", "out"], "addresses with https://"),
        (["record", "so101", "gs://bucket/all"], "and then: gcloud storage cp -r FOLDER gs://bucket/all"),
        (["encode", "x", "hf://datasets/a/b"], "and then: ffenc push FOLDER a/b"),
        (["info", "file:///data/x"], "/data/x is not a folder"),
    ],
)
def test_what_is_not_on_this_machine_is_answered_with_what_to_do(
    ffenc: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "none"))
    assert part in ffenc.refused(*words)


def test_a_dataset_that_lerobot_has_downloaded_is_found(
    ffenc: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache/lerobot/pusht").mkdir(parents=True)
    assert f"keeps it in {tmp_path / 'cache/lerobot/pusht'}" in ffenc.refused("info", "lerobot/pusht")


def test_a_path_that_is_misspelt_is_not_taken_for_a_name_of_the_hub(
    ffenc: CommandLine, tmp_path: Path
) -> None:
    assert "ffenc pull" not in ffenc.refused("info", FIXTURES / "aloha")
    assert "ffenc pull" not in ffenc.refused("probe", "videos/top.mp4")


def test_a_shell_completes_commands_and_options() -> None:
    def completed(*words: str) -> list[str]:
        env = {"_FFENC_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["ffenc", *words])}
        ran = subprocess.run(
            [sys.executable, "-m", "ffenc"],
            env=os.environ | env | {"COMP_CWORD": str(len(words))},
            capture_output=True,
            text=True,
            check=True,
        )
        return ran.stdout.splitlines()

    assert completed("re") == ["plain,record", "plain,recover", "plain,reencode", "plain,repair"]
    assert completed("reencode", "--dry") == ["plain,--dry-run"]


def test_a_program_that_calls_the_command_line_keeps_its_own_exit() -> None:
    script = """
import atexit, sys
from ffenc.cli.main import main
def call():
    try:
        main()
    except SystemExit as end:
        print("status", end.code)
atexit.register(print, "its own handler")
sys.argv = ["ffenc", "nosuch"]
call()
sys.exit(3)
"""
    result = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (3, "status 2\nits own handler\n")
