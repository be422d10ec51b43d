"""How a message names an argument: as Python does, or as a flag while the command line runs.

Whoever calls ``reencode_dataset`` reads "pass overwrite=True", whoever runs ``ffenc reencode`` reads "pass
--overwrite" of the same line of code. Messages name arguments by :func:`argument` and calls by :func:`call`;
``cli/flags.py`` replaces the spelling while a command runs, as gettext replaces a language.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

_UNSAID = object()


class Spelling:
    """Python's spelling of arguments and calls."""

    def argument(self, name: str, *value: Any) -> str:
        """Return an argument with its value, or its name alone: ``resume=True``, ``fps``."""
        return f"{name}={_python(value[0])}" if value else name

    def call(self, function: str, arguments: dict[str, Any]) -> str:
        """Return a call: ``merge_datasets(sources=[DATASET], destination=NEW)``."""
        given = ", ".join(self.argument(name, value) for name, value in arguments.items())
        return f"{function}({given})"


_spelling: Spelling = Spelling()


def argument(name: str, value: Any = _UNSAID) -> str:
    """Return how the caller writes an argument.

    Args:
        name: as the public functions have it: ``overwrite``; with a point in it, an encoder setting as
            ``overrides`` has it: ``depth_encoder.pix_fmt``.
        value: what it is, or is to be; a text without small letters (``FILE``), or that ends in dots, stands
            for any. Left out: the name alone.
    """
    return _spelling.argument(name) if value is _UNSAID else _spelling.argument(name, value)


def call(function: str, **arguments: Any) -> str:
    """Return how the caller writes a call of one of ffenc's public functions.

    Args:
        function: its name in ``ffenc``.
        arguments: by their names, with values as of :func:`argument`.
    """
    return f"`{_spelling.call(function, arguments)}`"


def current() -> Spelling:
    """Return the spelling that holds in this process, for :func:`spelled` in another one."""
    return _spelling


@contextmanager
def spelled(spelling: Spelling) -> Iterator[None]:
    """Have messages name arguments in another way, in all threads of this process."""
    global _spelling  # noqa: PLW0603 - one process has one user
    before, _spelling = _spelling, spelling
    try:
        yield
    finally:
        _spelling = before


def stands_for_value(text: str) -> bool:
    """Whether a text stands for a value: ``FILE``, ``MM``, ``...``."""
    return text.endswith("...") or text.endswith("...)") or (text.upper() == text and text.lower() != text)


def _python(value: Any) -> str:
    if isinstance(value, str):
        return value if stands_for_value(value) else repr(value)
    if isinstance(value, Sequence):
        return f"[{', '.join(_python(one) for one in value)}]"
    return repr(str(value)) if isinstance(value, PathLike) else str(value)
