"""Who encoded a camera of a LeRobot dataset, kept in its ``meta/ffenc.json``."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ffenc.dataset.staging import write_json
from ffenc.frames.info_json import read_json
from ffenc.layout import OWN_FIELDS, OWN_INFO

_encoders: dict[tuple[Path, str], dict[str, Any]] = {}
_lock = threading.Lock()


def remember_encoder(root: Path, key: str, block: Mapping[str, Any]) -> None:
    """Remember ffenc's own fields of a camera, until LeRobot writes its ``info`` block.

    Args:
        root: the dataset.
        key: the camera.
        block: its fields.
    """
    with _lock:
        _encoders[root.resolve(), key] = {name: block[name] for name in OWN_FIELDS if name in block}


def note_encoder(root: Path, key: str) -> bool:
    """Write what is remembered of a camera into ``meta/ffenc.json``; returns whether there is something."""
    with _lock:
        own = _encoders.pop((root.resolve(), key), None)
        if own is None or not (root / OWN_INFO).parent.is_dir():
            return False
        path = root / OWN_INFO
        known = read_json(path).get("cameras", {}) if path.exists() else {}
        write_json(path, {"cameras": {**known, key: own}})
        return True
