"""Facts about cameras of a LeRobot dataset that only ffenc records, in ``meta/ffenc.json``."""

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
    """Keep ffenc's own fields of a camera in memory until LeRobot writes its ``info`` block.

    Args:
        root: the dataset.
        key: the camera.
        block: its fields.
    """
    with _lock:
        _encoders[root.resolve(), key] = {name: block[name] for name in OWN_FIELDS if name in block}


def note_encoder(root: Path, key: str) -> bool:
    """Write the kept fields of a camera to ``meta/ffenc.json``; return whether there are any."""
    with _lock:
        own = _encoders.pop((root.resolve(), key), None)
        if own is None or not (root / OWN_INFO).parent.is_dir():
            return False
        path = root / OWN_INFO
        known = read_json(path).get("cameras", {}) if path.exists() else {}
        write_json(path, {"cameras": {**known, key: own}})
        return True


def check_alike(roots: Sequence[Path]) -> None:
    """Reject datasets whose depth would change its meaning when their files are merged.

    Args:
        roots: the datasets.

    Raises:
        ValueError: a camera stores holes differently; the text names it and both datasets.
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
    """Copy the notes on cameras of some datasets to another, if they agree.

    Args:
        roots: the datasets that it was created from.
        target: the new dataset, with its ``meta/info.json``.
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
