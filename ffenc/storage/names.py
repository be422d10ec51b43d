"""What is shown of the local folders that stand for an address: the address."""

from __future__ import annotations

from pathlib import Path

_names: dict[str, str] = {}


def call(root: Path, address: object) -> None:
    """From now on, a folder is shown as the address it stands for."""
    _names[str(root)] = str(address)


def shown(text: str) -> str:
    """Return a text in which such folders are named by their addresses."""
    for root, address in _names.items():
        text = text.replace(root, address)
    return text
