"""The folder for reproducible data: outputs of programs, copies of remote files, pending uploads."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder: ``FFENC_CACHE``, or the user's cache folder."""
    import platformdirs  # noqa: PLC0415 - many commands keep nothing

    try:
        folder = os.environ.get("FFENC_CACHE") or platformdirs.user_cache_dir("ffenc")
    except RuntimeError:  # a user without a home directory, as in a container
        folder = os.devnull
    # Older versions of platformdirs return a path with "~", which must not become a folder of this name.
    folder = os.path.expanduser(folder)  # noqa: PTH111 - never fails
    return Path(os.devnull if folder.startswith("~") else folder)


def real_cache_folder() -> Path:
    """Return the folder without symbolic links: its contents are recognised by their path."""
    return cache_folder().resolve()
