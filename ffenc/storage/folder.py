"""The folders in which ffenc keeps files for the user, outside of datasets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal


def cache_folder() -> Path:
    """Return the folder for reproducible data: outputs of programs, copies of remote files, pending uploads.

    It is ``FFENC_CACHE``, or the user's cache folder.
    """
    return own_folder("cache")


def own_folder(kind: Literal["cache", "state"]) -> Path:
    """Return the folder that ``FFENC_CACHE`` or ``FFENC_STATE`` names, or else the system's for this user.

    For a user without a home directory it is ``os.devnull``.
    """
    import platformdirs  # noqa: PLC0415 - many commands keep nothing

    try:
        folder = os.environ.get(f"FFENC_{kind.upper()}")
        folder = folder or getattr(platformdirs, f"user_{kind}_dir")("ffenc")
    except RuntimeError:  # a user without a home directory, as in a container
        folder = os.devnull
    # Older versions of platformdirs return a path with "~", which must not become a folder of this name.
    folder = os.path.expanduser(folder)  # noqa: PTH111 - never fails
    return Path(os.devnull if folder.startswith("~") else folder)


def real_cache_folder() -> Path:
    """Return the folder without symbolic links: its contents are recognised by their path."""
    return cache_folder().resolve()
