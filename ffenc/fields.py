"""Structs as dictionaries of plain values, for JSON."""

from __future__ import annotations

import os
from fractions import Fraction
from typing import Any

import msgspec


def fields_of(struct: msgspec.Struct) -> dict[str, Any]:
    """Return the fields of a struct, those of structs in it too.

    Args:
        struct: a path or a fraction in it becomes its text, a number of NumPy's one of Python's.

    Raises:
        TypeError: there is something else in it that is no plain value.
    """
    fields: dict[str, Any] = msgspec.to_builtins(struct, enc_hook=_plain)
    return fields


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike | Fraction):
        return str(value)
    if hasattr(value, "item"):  # without loading NumPy
        return value.item()
    raise NotImplementedError(f"{value!r} has no plain form")
