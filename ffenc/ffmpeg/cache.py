"""A cache of programs' answers on disk. Losing it costs time, but changes no result."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ffenc.storage.folder import cache_folder
from ffenc.version import VERSION

MAX_AGE_DAYS = 30
_SWEPT = "ffenc-swept"  # its modification time is that of the last search for old entries
_SWEEP_DAYS = 1
# Only files with such names are deleted: the folder may contain files of the user.
_OWN_FILE = re.compile(r"ffenc-([0-9a-f]{32}\.json|\w{8}\.new)")


def recall(key: Sequence[Any]) -> Any | None:
    """Return the answer stored under a key; None: not stored, too old, damaged, or of another ffenc version.

    Args:
        key: plain values that the answer depends on.
    """
    path, text = _entry(key)
    try:
        if time.time() - path.stat().st_mtime > MAX_AGE_DAYS * 86400:
            return None
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return entry.get("answer") if isinstance(entry, dict) and entry.get("key") == text else None


def remember(key: Sequence[Any], answer: Any) -> None:
    """Store an answer. If this is not possible (read-only, full disk), it is not an error."""
    path, text = _entry(key)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written to another name first, so that a concurrent run never reads half an entry.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix="ffenc-", suffix=".new")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"key": text, "answer": answer}, file)
            os.replace(name, path)  # noqa: PTH105 - mkstemp returns a text
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)  # noqa: PTH108
            raise
        _sweep(path.parent)


def _entry(key: Sequence[Any]) -> tuple[Path, str]:
    text = json.dumps([VERSION, *key])
    return cache_folder() / f"ffenc-{hashlib.sha256(text.encode()).hexdigest()[:32]}.json", text


def _sweep(folder: Path) -> None:
    """Delete entries that are too old, at most once a day: there may be many thousands."""
    mark, now = folder / _SWEPT, time.time()
    with contextlib.suppress(OSError):
        if abs(now - mark.stat().st_mtime) < _SWEEP_DAYS * 86400:
            return
    mark.touch()
    oldest = now - MAX_AGE_DAYS * 86400
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):
            if _OWN_FILE.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_mtime < oldest:
                os.unlink(entry.path)  # noqa: PTH108
