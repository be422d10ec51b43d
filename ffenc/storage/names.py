"""Show local folders that stand for an address as the address."""

from __future__ import annotations

from pathlib import Path

_names: dict[str, str] = {}


def call(root: Path, address: object) -> None:
    """Show a folder as an address from now on."""
    _names[str(root)] = str(address)


def shown(text: str) -> str:
    """Return a text with such folders replaced by their addresses."""
    for root, address in _names.items():
        text = text.replace(root, address)
    return text
