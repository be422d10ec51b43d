"""Conversion of structs to dictionaries of plain values, for JSON."""

from __future__ import annotations

import os
from fractions import Fraction
from typing import Any

import msgspec


def plain_fields(struct: msgspec.Struct) -> dict[str, Any]:
    """Return the fields of a struct as plain values, including those of nested structs.

    Args:
        struct: paths and fractions in it become texts, NumPy's numbers Python's.

    Raises:
        TypeError: it contains another value that is not plain.
    """
    fields: dict[str, Any] = msgspec.to_builtins(struct, enc_hook=_plain)
    return fields


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike | Fraction):
        return str(value)
    if hasattr(value, "item"):  # without loading NumPy
        return value.item()
    raise TypeError(f"{value!r} has no plain form")
