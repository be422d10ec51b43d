"""How messages name arguments: in Python's spelling, or as flags while the command line runs.

For the same line of code, a caller of ``reencode_dataset`` reads "pass overwrite=True", and a user of ``ffenc
reencode`` reads "pass --overwrite". Messages name arguments with :func:`argument` and calls with
:func:`call`; ``cli/flags.py`` replaces the spelling while a command runs, as gettext replaces a language.
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
        """Return an argument with its value, or only its name: ``resume=True``, ``fps``."""
        return f"{name}={_python(value[0])}" if value else name

    def call(self, function: str, arguments: dict[str, Any]) -> str:
        """Return a call: ``merge_datasets(sources=[DATASET], destination=NEW)``."""
        given = ", ".join(self.argument(name, value) for name, value in arguments.items())
        return f"{function}({given})"


_spelling: Spelling = Spelling()


def argument(name: str, value: Any = _UNSAID, *, camera: str | None = None) -> str:
    """Return an argument as the caller writes it.

    Args:
        name: name of a parameter of a public function: ``overwrite``; with a dot, an encoder setting as in
            ``overrides``: ``depth_encoder.pix_fmt``.
        value: its value; a text without lower-case letters (``FILE``), or one that ends in dots, is a
            placeholder. If omitted, only the name is returned.
        camera: name of the camera that it is for; None: all cameras.
    """
    name = name if camera is None else f"cameras.{camera}.{name}"
    return _spelling.argument(name) if value is _UNSAID else _spelling.argument(name, value)


def call(function: str, **arguments: Any) -> str:
    """Return a call of a public function as the caller writes it.

    Args:
        function: its name in ``ffenc``.
        arguments: by name, with values as for :func:`argument`.
    """
    return f"`{_spelling.call(function, arguments)}`"


def current() -> Spelling:
    """Return the current spelling of this process, to use it in another one with :func:`spelled`."""
    return _spelling


@contextmanager
def spelled(spelling: Spelling) -> Iterator[None]:
    """Use another spelling of arguments in messages, in all threads of this process."""
    global _spelling  # noqa: PLW0603 - one process has one user
    before, _spelling = _spelling, spelling
    try:
        yield
    finally:
        _spelling = before


def stands_for_value(text: str) -> bool:
    """Return whether a text is a placeholder of a value: ``FILE``, ``MM``, ``...``."""
    return text.endswith("...") or text.endswith("...)") or (text.upper() == text and text.lower() != text)


def _python(value: Any) -> str:
    if isinstance(value, str):
        return value if stands_for_value(value) else repr(value)
    if isinstance(value, Sequence):
        return f"[{', '.join(_python(one) for one in value)}]"
    return repr(str(value)) if isinstance(value, PathLike) else str(value)
