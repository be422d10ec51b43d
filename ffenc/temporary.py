"""Folders that are gone when their work is, whenever a signal comes."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_folder(beside: Path | None = None, prefix: str = "ffenc-") -> Iterator[Path]:
    """Make a folder of a name that is not taken, and delete it with all that is in it.

    A signal can raise in any line of the main thread. :class:`tempfile.TemporaryDirectory` leaves its folder
    where that is the line after the folder was made; here it is already within reach of the deletion.

    Args:
        beside: where to make it; None: where the system has its temporary files.
        prefix: what its name begins with.

    Raises:
        OSError: it cannot be made.
    """
    folder = Path(beside or tempfile.gettempdir()) / f"{prefix}{secrets.token_hex(6)}"
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        except BaseException:  # a signal: once it has come, no other raises
            shutil.rmtree(folder, ignore_errors=True)
            raise
