"""Checks of the arguments of public functions; errors name the argument as the caller writes it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ffenc.errors import ConfigError
from ffenc.spelling import argument

_LIKE_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?!/)")


def check_kind(
    name: str, value: object, kind: type | tuple[type, ...], expected: str, *, optional: bool = True
) -> None:
    """Refuse an argument of another type, such as a dict in place of settings.

    Args:
        name: the argument.
        value: its value.
        kind: the types that are accepted.
        expected: the same in words.
        optional: None is accepted too: the argument was not passed.

    Raises:
        ConfigError: the value is not accepted.
    """
    if not (isinstance(value, kind) or (optional and value is None)):
        raise _refused(name, value, expected)


def check_number(name: str, value: object, least: int = 1) -> None:
    """Refuse an argument that is not a whole number of ``least`` or more; None: it was not passed.

    Raises:
        ConfigError: the value is not accepted.
    """
    if value is not None and not (type(value) is int and value >= least):
        raise _refused(name, value, f"a whole number of {least} or more")


def checked_path(name: str, value: str | PathLike[str]) -> Path:
    """Return an argument that is the path of a file or a folder.

    A relative path that begins like an address (``take:3``) becomes absolute: Arrow and FFmpeg would take it
    for one.

    Raises:
        ConfigError: it is not a path, or an empty text, which Python takes for the current folder.
    """
    place = fspath(value) if isinstance(value, str | PathLike) else None
    if not isinstance(place, str) or not place or "\0" in place:
        raise _refused(name, value, "a path")
    path = Path(place)
    return path.absolute() if _LIKE_ADDRESS.match(str(path)) else path


def listed(name: str, value: Any, what: str = "names") -> list[Any]:
    """Return the elements of a list; a single text, whose elements are its letters, is refused.

    Args:
        name: the argument.
        value: names or paths.
        what: what they are, in the plural.

    Raises:
        ConfigError: the value is not a list of texts or paths.
    """
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        found = list(value)
        if all(isinstance(one, str | PathLike) for one in found):
            return found
    raise _refused(name, value, f"a list of {what}")


def _refused(name: str, value: object, expected: str) -> ConfigError:
    return ConfigError(f"{argument(name)}: {value!r:.200} is not accepted", expected=expected)
