"""Run LeRobot's commands with ffenc as their video encoder."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from msgspec import Struct

from ffenc.codecs.suggest import accepted
from ffenc.config.overrides import split_overrides
from ffenc.config.plain_yaml import KeyPath
from ffenc.errors import ConfigError
from ffenc.lerobot.options import OnFull
from ffenc.spelling import Spelling, spelled

_OWN = "--ffenc."
# LeRobot's groups of encoder settings. Given with a preset they override it, as in other commands of ffenc.
_ENCODERS = re.compile(r"--dataset\.(rgb|camera|depth)_encoder\..+")


class Call(Struct, frozen=True):
    """A call of one of LeRobot's commands.

    Attributes:
        command: its name without ``lerobot-``.
        words: LeRobot's arguments.
        preset, on_full, overrides: arguments of :func:`ffenc.lerobot.use`.
    """

    command: str
    words: list[str]
    preset: str | None
    on_full: str | None
    overrides: list[tuple[KeyPath, Any]]


def run(words: Sequence[str]) -> None:
    """Run a command of the LeRobot in this environment; all its flags are supported.

    Args:
        words: its name without ``lerobot-``, and its arguments, including flags that begin with ``--ffenc.``.

    Raises:
        ConfigError: LeRobot is not installed or its version is unknown, it has no such command, or a flag of
            ffenc is invalid.
    """
    from ffenc.lerobot.seams import use  # noqa: PLC0415 - not for the list of commands

    call = read_call(words)
    with spelled(_Flags()):
        use(on_full=cast("OnFull | None", call.on_full), preset=call.preset, overrides=call.overrides)
        sys.argv = [f"lerobot-{call.command}", *call.words]
        importlib.import_module(_module(call.command)).main()


class _Flags(Spelling):
    """Spells arguments as flags of LeRobot's command line, including ffenc's."""

    def argument(self, name: str, *value: Any) -> str:
        flag = (
            f"--{name}"
            if name.startswith("dataset.")
            else f"--dataset.{name}"
            if "." in name
            else _OWN + name
        )
        return f"{flag}={value[0]}" if value else flag


def read_call(words: Sequence[str]) -> Call:
    """Split a command line into LeRobot's arguments and ffenc's.

    Raises:
        ConfigError: there is no such command, or a flag of ffenc is invalid.
    """
    known = commands()
    if not words or words[0] not in known:
        name = words[0] if words else ""
        raise ConfigError(f"LeRobot has no command {name!r}{accepted(name, known)}")
    given = _taken(words[1:], re.compile(re.escape(_OWN) + ".+"))
    own = {flag.removeprefix(_OWN): value for flag, value in given.taken}
    preset, on_full = own.pop("preset", None), own.pop("on_full", None)
    rest, settings = given.rest, [f"--{name}={value}" for name, value in own.items()]
    if preset is not None:
        encoders = _taken(rest, _ENCODERS)
        rest, settings = encoders.rest, [*settings, *(f"{flag}={value}" for flag, value in encoders.taken)]
    elif settings:
        raise ConfigError(
            f"{_OWN}{next(iter(own))} overrides a preset: pass one with {_OWN}preset=NAME, or use "
            "LeRobot's flag, --dataset.rgb_encoder.crf=23"
        )
    return Call(words[0], rest, preset, on_full, split_overrides(settings)[0])


class _Taken(Struct, frozen=True):
    taken: list[tuple[str, str]]
    rest: list[str]


def _taken(words: Sequence[str], wanted: re.Pattern[str]) -> _Taken:
    """Remove flags from a command line, in the forms ``--flag=value`` and ``--flag value``."""
    taken, rest = [], []
    left = iter(words)
    for word in left:
        flag, equals, value = word.partition("=")
        if not wanted.fullmatch(flag):
            rest.append(word)
            continue
        if not equals:
            following = next(left, None)
            if following is None or following.startswith("--"):
                raise ConfigError(f"{flag} needs a value: {flag}=VALUE")
            value = following
        taken.append((flag, value))
    return _Taken(taken, rest)


def commands() -> list[str]:
    """Return the names of LeRobot's commands, without ``lerobot-``.

    Raises:
        ConfigError: LeRobot is not installed in this environment.
    """
    found = importlib.util.find_spec("lerobot")
    places = [Path(place) / "scripts" for place in found.submodule_search_locations or ()] if found else []
    files = [file for place in places for file in place.glob("lerobot_*.py")]
    if not files:
        raise ConfigError(
            f"LeRobot is not installed in this environment ({sys.prefix}): install ffenc into "
            "LeRobot's environment, with its pip"
        )
    return sorted(file.stem.removeprefix("lerobot_").replace("_", "-") for file in files)


def _module(command: str) -> str:
    return f"lerobot.scripts.lerobot_{command.replace('-', '_')}"
