"""Checks of texts that a dataset stores, such as tasks."""

from __future__ import annotations

from ffenc.errors import ConfigError
from ffenc.spelling import argument

FILLED = "a text that is not empty"


def check_text(name: str, value: object) -> None:
    """Check a text that a dataset stores, such as a task or the type of a robot.

    Args:
        name: the argument, for the error.
        value: the text; None: not given, which is accepted.

    Raises:
        ConfigError: see :func:`is_filled`.
    """
    if value is not None and not is_filled(value):
        raise ConfigError(f"{argument(name)}: {value!r} is not accepted", expected=FILLED)


def is_filled(value: object) -> bool:
    """Return whether a value is a text that is not empty and can be stored."""
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value and is_text(value)


def is_text(text: str) -> bool:
    """Return whether a text is valid Unicode: Python's may contain lone surrogates, as in file names."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
