"""What ffenc alone knows of a camera of a LeRobot dataset, kept in its ``meta/ffenc.json``."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ffenc.dataset.staging import write_json
from ffenc.frames.info_json import read_json
from ffenc.layout import INFO, OWN_FIELDS, OWN_INFO

_HOLES, _AS_LEROBOT = "video.invalid", "clip"
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


def check_alike(roots: Sequence[Path]) -> None:
    """Refuse datasets whose depth would mean something else once their files are one dataset.

    Args:
        roots: the datasets.

    Raises:
        ValueError: a camera stores holes in other ways; the text names it and both datasets.
    """
    found = [_of_cameras(root) for root in roots]
    for key in sorted(set().union(*found)):
        first, *others = (own.get(key, {}).get(_HOLES, _AS_LEROBOT) for own in found)
        for root, other in zip(roots[1:], others, strict=True):
            if other != first:
                raise ValueError(
                    f"{key}: {_HOLES} is {first!r} in {roots[0]}, {other!r} in {root}: the same "
                    "code is a pixel without depth in one and a depth in the other. Re-encode "
                    "one with the setting of the other first"
                )


def keep_notes(roots: Iterable[Path], target: Path) -> None:
    """Take along what datasets have noted of their cameras, where they all say the same.

    Args:
        roots: the datasets that another was made of.
        target: that one, with its ``meta/info.json``.
    """
    found = [_of_cameras(root) for root in roots]
    features = read_json(target / INFO).get("features", {})
    kept = {}
    for key in found[0]:
        fields = {
            name: value
            for name, value in found[0][key].items()
            if name in OWN_FIELDS and all(own.get(key, {}).get(name) == value for own in found)
        }
        if fields and key in features:
            kept[key] = fields
    if kept:
        write_json(target / OWN_INFO, {"cameras": kept})


def _of_cameras(root: Path) -> dict[str, Any]:
    path = root / OWN_INFO
    cameras: dict[str, Any] = read_json(path).get("cameras", {}) if path.exists() else {}
    return cameras
