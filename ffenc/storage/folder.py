"""Where ffenc keeps what can be had again: answers of programs, copies of remote files, uploads that wait."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where they are kept: ``FFENC_CACHE``, or the user's cache folder."""
    import platformdirs  # noqa: PLC0415 - many commands keep nothing

    try:
        folder = os.environ.get("FFENC_CACHE") or platformdirs.user_cache_dir("ffenc")
    except RuntimeError:  # a user without a home, as in a container
        folder = os.devnull
    # Older versions answer with a "~", which is to become no folder of this name here.
    folder = os.path.expanduser(folder)  # noqa: PTH111 - never fails
    return Path(os.devnull if folder.startswith("~") else folder)


def real_cache_folder() -> Path:
    """The same without links: what lies in it is known by its path, however code writes that."""
    return cache_folder().resolve()
