"""An error has its parts as attributes, whatever its text, and keeps them when it is pickled."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path

from ffenc.errors import FfencError, FfmpegError, FrameIndexError, SourceError, ToolchainError

LIBRARY = Path(__file__).parents[1] / "ffenc"
OTHERS = {
    "errors.py": "puts an error together again",
    "storage/store.py": "reads the words of fsspec's file systems",
}


def test_the_cause_of_a_crash_is_not_what_the_program_said_before() -> None:
    said = ["x265 [info]: tools: b-intra deblock sao", "free(): invalid next size (fast)"]
    crash = FfmpegError("ffmpeg crashed with signal 6", command=["ffmpeg"], returncode=-6, stderr=said)
    assert crash.cause == "ffmpeg crashed with signal 6"
    failure = FfmpegError("ffmpeg failed", command=["ffmpeg"], returncode=1, stderr=said)
    assert failure.cause == "tools: b-intra deblock sao"


def test_the_text_is_made_of_the_parts() -> None:
    error = SourceError("is cut short", where=Path("a/b.png"), fix="restore it")
    assert str(error) == "a/b.png: is cut short; restore it"
    assert (error.where, error.what, error.fix) == ("a/b.png", "is cut short", "restore it")
    assert error.described == "a/b.png: is cut short"
    assert error.within("top, episode 3") is error
    error.within("job")
    assert str(error) == "job: top, episode 3: a/b.png: is cut short; restore it"
    assert error.cause == "a/b.png: is cut short; restore it"
    error = SourceError("fps is 'x'", expected="a number above 0", where="info.json", fix="correct it")
    assert str(error) == "info.json: fps is 'x'; expected a number above 0; correct it"
    assert (error.problem.found, error.problem.expected) == ("fps is 'x'", "a number above 0")
    assert error.what == "fps is 'x'; expected a number above 0"
    assert str(SourceError("plain")) == "plain"
    assert str(FrameIndexError("no frame 9", where="a.mp4")) == "a.mp4: no frame 9"


def test_parts_travel_between_processes() -> None:
    program = FfmpegError("failed", command=["ffmpeg"], returncode=1, stderr=["[error] no"])
    for error in (
        SourceError("x", expected="w", where="y", fix="z"),
        ToolchainError("text", cause="why"),
        program,
    ):
        error.within("camera top")
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
        assert str(again).startswith("camera top: ")


# Words of other libraries: what they mean is nowhere else.
_OTHERS = {"storage/store.py": "fsspec's file systems"}


def test_nothing_is_decided_by_the_text_of_an_error() -> None:
    text = r"str\((error|errors\[\d\]|why|found)\)"
    matched = re.compile(
        rf"('[^']*'|\w+) (not )?in {text}|"
        rf"{text}\.(startswith|endswith|removeprefix|removesuffix|replace|rpartition)\(|\w+\.args = "
    )
    # What a module that has none of it says is not taken apart.
    hint = re.compile(r"str\((error|why|found)|\.args=")
    found = {
        f"{path.relative_to(LIBRARY)}:{node.lineno}: {said}"
        for path in LIBRARY.rglob("*.py")
        if path.relative_to(LIBRARY).as_posix() not in OTHERS
        and hint.search("".join(path.read_text().split()))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare | ast.Call | ast.Assign) and matched.match(said := ast.unparse(node))
    }
    assert not found, f"{FfencError.__name__} has attributes for that"
