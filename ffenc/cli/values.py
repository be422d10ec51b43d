"""Types of options' values. What they refuse is a mistake in the command line: exit status 2."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ffenc.errors import ConfigError

if TYPE_CHECKING:  # click's types have parameters only in its newest versions
    ValueType = click.ParamType[Any]
    Choice = click.Choice[str]
else:
    ValueType, Choice = click.ParamType, click.Choice

_WHOLE = re.compile(r"[+-]?[0-9]+")
_PLAIN = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@contextmanager
def usage(ctx: click.Context | None = None) -> Iterator[None]:
    """Report a ConfigError as a mistake in the command line; ``ctx`` is by default the running command's."""
    try:
        yield
    except ConfigError as error:
        raise click.UsageError(str(error), ctx or click.get_current_context()) from None


class Whole(click.IntRange):
    """A whole number in the digits 0 to 9."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not _WHOLE.fullmatch(value):  # Python also reads 1_5 as 15
            self.fail(f"{value!r} is not a whole number such as 12", param, ctx)
        return super().convert(value, param, ctx)


class Real(click.FloatRange):
    """A finite number in the digits 0 to 9."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not (_PLAIN.fullmatch(value) and math.isfinite(float(value))):
            self.fail(f"{value!r} is not a finite number such as 2.5", param, ctx)
        return super().convert(value, param, ctx)


class Turn(Choice):
    """A rotation in degrees; without a rotation the option is left out."""

    def __init__(self) -> None:
        super().__init__(["90", "180", "270"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return int(super().convert(value, param, ctx))


class Checked(ValueType):
    """A text that the library's own check accepts.

    Args:
        name: what it is.
        check: raises ConfigError; it imports what it needs when it is called, to keep ``--help`` quick.
    """

    def __init__(self, name: str, check: Callable[[str], object]) -> None:
        self.name = name
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            self._check(value)
        except ConfigError as error:
            if error.what.startswith("--"):  # names the flag itself
                raise click.UsageError(error.what, ctx) from None
            self.fail(error.what, param, ctx)
        return value


def _rate(text: str) -> None:
    from ffenc.config.framerate import parse_fps  # noqa: PLC0415

    parse_fps(text)


def _shard(text: str) -> None:
    from ffenc.dataset.choice import parse_shard  # noqa: PLC0415

    parse_shard(text)


def _episodes(flag: str) -> Checked:
    def check(text: str) -> None:
        from ffenc.dataset.choice import parse_episodes  # noqa: PLC0415

        parse_episodes(text, flag)

    return Checked("episodes", check)


RATE = Checked("rate", _rate)
SHARD = Checked("shard", _shard)
EPISODES, EXCLUDED = _episodes("--episodes"), _episodes("--exclude-episodes")
