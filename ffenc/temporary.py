"""Temporary folders that are removed also if a signal arrives."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_folder(beside: Path | None = None, prefix: str = "ffenc-") -> Iterator[Path]:
    """Create a folder with an unused name; remove it with its contents at the end.

    A signal can raise an exception at any line of the main thread. :class:`tempfile.TemporaryDirectory`
    leaves its folder behind if that is the line after its creation; this function removes it.

    Args:
        beside: folder to create it in; None: the system's temporary folder.
        prefix: prefix of its name.

    Raises:
        OSError: it cannot be created.
    """
    folder = Path(beside or tempfile.gettempdir()) / f"{prefix}{secrets.token_hex(6)}"
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        except BaseException:  # a signal: no second one raises after it
            shutil.rmtree(folder, ignore_errors=True)
            raise
