"""How messages name arguments: as Python does to who calls, as flags to who types."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import click
import pytest

from ffenc import ConfigError, merge_datasets, reencode_dataset, verify_dataset
from ffenc.cli.app import cli
from ffenc.cli.flags import Flags
from ffenc.dataset.verify.faults import KINDS
from ffenc.spelling import Spelling, argument, call, spelled
from tests.conftest import FIXTURES
from tests.support.command_line import CommandLine

LIBRARY = Path(__file__).parents[1] / "ffenc"
VIDEO = FIXTURES / "aloha_video_v30"
FLAG = re.compile(r"(?<![\w-])--([a-z]|$)")

# Whose subject is another program's command line.
OTHERS = {
    "config/overrides.py": "reads LeRobot's command line",
    "lerobot/command.py": "takes ffenc's flags out of LeRobot's command line",
    "ffmpeg/launch.py": "starts setpriv",
    "recording/cameras/v4l2.py": "names v4l2-ctl",
}


@lru_cache
def modules() -> dict[str, list[ast.AST]]:
    """The library, without the command line: place -> what it says, as :func:`ast.walk` gives it."""
    files = [path for path in LIBRARY.rglob("*.py") if "cli" not in path.relative_to(LIBRARY).parts]
    return {
        path.relative_to(LIBRARY).as_posix(): list(ast.walk(ast.parse(path.read_text()))) for path in files
    }


def texts(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """Every text but docstrings."""
    alone = {
        id(node.value)
        for node in nodes
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.lineno, node.value


def calls_of(function: str) -> Iterator[tuple[str, ast.Call]]:
    """The calls whose first argument is a text; methods may have the same name."""
    for place, nodes in modules().items():
        for node in nodes:
            named = (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function
            )
            if named and node.args and isinstance(node.args[0], ast.Constant):
                yield f"{place}:{node.lineno}", node


@lru_cache
def accepted() -> dict[str, set[str]]:
    """Function or class -> the names of its arguments."""
    found: dict[str, set[str]] = {}
    for nodes in modules().values():
        for node in nodes:
            if isinstance(node, ast.FunctionDef):
                own = {one.arg for one in (*node.args.args, *node.args.kwonlyargs)}
            elif isinstance(node, ast.ClassDef):
                fields = (one for one in node.body if isinstance(one, ast.AnnAssign))
                own = {one.target.id for one in fields if isinstance(one.target, ast.Name)}
            else:
                continue
            found.setdefault(node.name, set()).update(own)
    return found


def commands() -> list[click.Command]:
    context = click.Context(cli)
    return [command for name in cli.list_commands(context) if (command := cli.get_command(context, name))]


def test_the_library_names_no_flags() -> None:
    found = {
        f"{place}:{line}: {text}"
        for place, nodes in modules().items()
        if place not in OTHERS
        for line, text in texts(nodes)
        if FLAG.search(text)
    }
    assert not found, "name the argument with ffenc.spelling.argument"
    assert OTHERS.keys() <= modules().keys()


def test_an_argument_that_is_named_is_one_and_has_a_flag() -> None:
    known = set[str]().union(*accepted().values())
    flags = {parameter.name for command in commands() for parameter in command.params}
    named = {place: str(ast.literal_eval(node.args[0])) for place, node in calls_of("argument")}
    assert len(named) > 80
    assert {place: name for place, name in named.items() if "." not in name and name not in known} == {}
    plain = {place: name for place, name in named.items() if "." not in name and name not in flags}
    assert set(plain.values()) <= {"address", "depth", "executor"}, plain  # flags of another shape


def test_a_call_that_is_named_can_be_made_and_typed() -> None:
    made = list(calls_of("call"))
    assert len(made) > 10
    for place, node in made:
        function = str(ast.literal_eval(node.args[0]))
        names = {one.arg for one in node.keywords if one.arg is not None}
        assert names <= accepted()[function], place
        line = Flags().call(function, dict.fromkeys(names, "VALUE"))
        command = next(one for one in commands() if one.name == line.split()[1])
        options = {flag for one in command.params for flag in one.opts}
        assert {word for word in line.split() if word.startswith("--")} <= options, place


def test_values_in_python() -> None:
    assert argument("resume") == "resume"
    assert argument("overwrite", True) == "overwrite=True"
    assert argument("unit", "mm") == "unit='mm'"
    assert argument("mapping", "FILE") == "mapping=FILE"
    assert argument("task_of", {3: "pick"}) == "task_of={3: 'pick'}"
    said = call("merge_datasets", sources=[Path("a")], destination="NEW", retime=True)
    assert said == "`merge_datasets(sources=['a'], destination=NEW, retime=True)`"


def test_values_on_the_command_line() -> None:
    flags = Flags()
    with spelled(flags):
        assert argument("force_space", True) == "--force-space"
        assert argument("task", "pick up") == "--task 'pick up'"
        assert argument("depth_encoder.vcodec", "ffv1") == "--depth_encoder.vcodec=ffv1"
        assert argument("depth", False) == "--codes"
        assert argument("address", "ray://head") == "--on ray://head"
        said = call("merge_datasets", sources=[Path("a b")], destination="NEW", retime=True)
        assert said == "`ffenc merge 'a b' --out NEW --retime`"
        flags.command = next(one for one in commands() if one.name == "edit")
        assert argument("rename_cameras", {"a": "b"}) == "--rename-camera a=b"
    assert argument("force_space", True) == "force_space=True"


def test_the_same_refusal_in_both(tmp_path: Path, ffenc: CommandLine) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"^max_depth_error applies to .* pass against=SRC too$"):
        verify_dataset(VIDEO, max_depth_error=3)
    said = ffenc.refused("verify", VIDEO, "--max-depth-error", 3)
    assert "--max-depth-error applies to a comparison; pass --against SRC too" in said
    with pytest.raises(ConfigError, match=r"^retime=True: every timestamp is frame_index / fps already"):
        merge_datasets([VIDEO, VIDEO], out, retime=True)
    assert ": --retime: every timestamp" in ffenc.refused("merge", VIDEO, VIDEO, "--out", out, "--retime")
    with pytest.raises(ConfigError, match=r"^shard='5/4' is not accepted"):
        reencode_dataset(VIDEO, out, shard="5/4")
    assert "--shard 5/4 is not accepted" in ffenc.refused("reencode", VIDEO, out, "--shard", "5/4", status=2)


def test_every_advice_of_verify_is_complete() -> None:
    for spelling in (Spelling(), Flags()):
        with spelled(spelling):
            advice = [kind.advice for kind in KINDS.values()]
        typed = isinstance(spelling, Flags)
        assert not [text for text in advice if "{" in text]
        assert typed or not [text for text in advice if FLAG.search(text)]
        assert typed is any("`ffenc merge DATASET --out NEW`" in text for text in advice)
