"""``ffenc edit`` and ``ffenc split``: words of the command line become edits."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ffenc import verify_dataset
from tests.conftest import DEPTH, FIXTURES, TOP, everything_in
from tests.support.command_line import CommandLine

VIDEO = FIXTURES / "aloha_video_v30"


def test_an_edit_is_planned_and_made(ffenc: CommandLine, tmp_path: Path) -> None:
    words = ["edit", VIDEO, tmp_path / "out", "--episodes", "0,2-", "--rename-camera", "top=front"]
    words += ["--rename-camera", "angle=side", "--drop-cameras", "angle_depth", "--task-of", "2=a = b"]
    plan = json.loads(ffenc.done(*words, "--dry-run", "--json").out)
    assert plan["episodes"] == [0, 2]
    assert list(plan["cameras"]) == ["observation.images.front", "observation.images.side"]
    assert plan["edits"]["task_of"] == {"2": "a = b"}
    said = ffenc.done(*words, "--dry-run").out
    assert "2 episodes, 55 frames x 2 cameras" in said
    assert "observation.images.front: 2 episodes copied" in said
    assert everything_in(tmp_path) == []
    made = json.loads(ffenc.done(*words, "--json").out)
    assert (made["episodes"], made["copied_episodes"]) == (2, 4)
    assert verify_dataset(tmp_path / "out").sound
    assert pq.read_table(tmp_path / "out/meta/tasks.parquet")["task"].to_pylist()[1] == "a = b"
    rows = ffenc.done("edit", tmp_path / "out", tmp_path / "rows", "--drop-cameras", "front,side").out
    assert f"{tmp_path / 'rows'}: 2 episodes without cameras, in " in rows


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rename-camera", "top"], "not of the form OLD=NEW"),
        (["--rename-camera", "top=a", "--rename-camera", "top=b"], "top is given twice"),
        (["--task-of", "x=a"], "'x' is not an episode's number"),
        (["--episodes", "0,a"], "'a' is neither an episode number"),
        (["--drop-cameras", TOP + "p"], "did you mean"),
        ([], "no edit was requested"),
    ],
)
def test_words_that_mean_nothing_are_refused(
    ffenc: CommandLine, tmp_path: Path, words: list[str], said: str
) -> None:
    outcome = ffenc.run("edit", VIDEO, tmp_path / "out", *words)
    assert outcome.status in (1, 2)
    assert said in " ".join(outcome.err.split())
    assert everything_in(tmp_path) == []


def test_a_split_is_planned_and_made(ffenc: CommandLine, tmp_path: Path) -> None:
    words = ["split", VIDEO, tmp_path / "parts", "--into", "a=0,2,b=1-1"]
    plan = json.loads(ffenc.done(*words, "--dry-run", "--json").out)
    assert {name: part["episodes"] for name, part in plan.items()} == {"a": [0, 2], "b": [1]}
    assert everything_in(tmp_path) == []
    said = ffenc.done(*words).out
    assert said.count("verified") == 2
    assert [verify_dataset(tmp_path / "parts" / name).sound for name in "ab"] == [True, True]
    assert DEPTH in said
    refused = ffenc.refused("split", VIDEO, tmp_path / "more", "--into", "a=0.5,=0.5", status=2)
    assert "not of the form NAME=SHARE" in " ".join(refused.split())


def test_reencode_takes_the_same_ranges(ffenc: CommandLine, tmp_path: Path) -> None:
    said = ffenc.refused("reencode", VIDEO, tmp_path / "out", "--episodes", "5-2", status=2)
    assert "'5-2' is neither an episode number nor a range such as 5-9" in " ".join(said.split())
    plan = json.loads(
        ffenc.done("reencode", VIDEO, tmp_path / "out", "--episodes", "1-", "--dry-run", "--json").out
    )
    assert plan["episodes"] == [1, 2]


def test_statistics_are_compared_and_corrected(ffenc: CommandLine, tmp_path: Path) -> None:
    root = Path(shutil.copytree(VIDEO, tmp_path / "root"))
    said = ffenc.done("stats", root).out
    assert "of all rows" in said
    assert "--write corrects them" in said
    found = json.loads(ffenc.done("stats", root, "--json").out)
    assert found["written"] is False
    assert {one["name"] for one in found["differences"]} <= {"q01", "q10", "q50", "q90", "q99"}
    assert "corrected" in ffenc.done("stats", root, "--write").out
    assert "all statistics match its rows" in ffenc.done("stats", root).out


def test_a_merge_is_planned_in_the_same_words(ffenc: CommandLine, tmp_path: Path) -> None:
    words = ["merge", VIDEO, VIDEO, "--out", tmp_path / "out", "--dry-run"]
    assert f"{TOP}: 6 episodes copied" in ffenc.done(*words).out
    plan = json.loads(ffenc.done(*words, "--json").out)
    assert plan["episodes"] == list(range(6))
    assert plan["cameras"][TOP]["copied_episodes"] == 6
    assert everything_in(tmp_path) == []
