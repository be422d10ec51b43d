"""Names of the library's arguments and functions on the command line."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import click

from ffenc.spelling import Spelling, stands_for_value

# Arguments whose flag has another form: depth=False of VideoReader is --codes.
_OTHERWISE = {
    ("depth", "False"): "--codes",
    ("depth", "DepthQuantizer(...)"): "--depth_encoder.depth_min=...",
    ("address", None): "--on",
    ("executor", None): "--on",
}


class _Command(NamedTuple):
    name: str
    renamed: Mapping[str, str] = {}
    more: str = ""


_COMMANDS = {
    "edit_dataset": _Command("edit"),
    "encode": _Command("encode", {"output": "target"}),
    "contact_sheet": _Command("inspect", {"output": "sheet"}),
    "inspect_source": _Command("inspect", more=" --write-mapping FILE"),
    "merge_datasets": _Command("merge"),
    "recover": _Command("recover"),
    "reencode_dataset": _Command("reencode"),
    "repair_dataset": _Command("repair"),
    "restate": _Command("stats", {"root": "dataset"}),
    "verify_dataset": _Command("verify"),
}


class Flags(Spelling):
    """Spells arguments as flags of the running command, and functions as commands.

    Attributes:
        command: the running command; None before it is known.
    """

    def __init__(self, command: click.Command | None = None) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the command's name, for work in another process."""
        return _flags_of, (self.command.name if self.command is not None else None,)

    def argument(self, name: str, *value: Any) -> str:
        other = _OTHERWISE.get((name, str(value[0]) if value else None))
        if other is not None:
            return other
        if "." in name:  # an encoder setting in the spelling of LeRobot's command line
            return f"--{name}" + (f"={_text(value[0])}" if value else "")
        plain = _OTHERWISE.get((name, None)) or _flag(self.command, name)
        return plain if not value or value[0] is True else f"{plain} {_text(value[0])}"

    def call(self, function: str, arguments: dict[str, Any]) -> str:
        known = _COMMANDS[function]
        command = _command(known.name)
        given = {known.renamed.get(name, name): value for name, value in arguments.items()}
        words = [f"ffenc {known.name}"]
        for parameter in command.params:
            if isinstance(parameter, click.Argument) and parameter.name in given:
                words.append(_text(given.pop(parameter.name)))
        for name, value in given.items():
            plain = _flag(command, name)
            words.append(plain if value is True else f"{plain} {_text(value)}")
        return " ".join(words) + known.more


def _command(name: str) -> click.Command:
    found: click.Command = importlib.import_module(f"ffenc.cli.{name}").command
    return found


def _flags_of(name: str | None) -> Flags:
    """Return the flags of a command in another process."""
    return Flags(None if name is None else _command(name))


def _flag(command: click.Command | None, name: str) -> str:
    """Return a command's flag for an argument; if it has none, the flag of other commands for it."""
    for parameter in command.params if command is not None else ():
        if parameter.name == name and isinstance(parameter, click.Option):
            return parameter.opts[0]  # the others are LeRobot's names for it
    return f"--{name.replace('_', '-')}"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{_text(key)}={_text(one)}" for key, one in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(_text(one) for one in value)
    whole = isinstance(value, float) and value.is_integer()
    text = str(int(value) if whole else value)
    return text if stands_for_value(text) else shlex.quote(text)
