"""The plain values of a preset: files that extend each other, and overrides, with the place of each key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ffenc.codecs.suggest import accepted
from ffenc.config.mapping import IMAGE_PREFIX
from ffenc.config.plain_yaml import KeyPath, read_keys
from ffenc.config.validation import SettingError
from ffenc.errors import ConfigError

OUTSIDE = "command line"


class Merged:
    """The plain values of a preset, and the place of each key."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.places: dict[KeyPath, str] = {}
        self.file = "defaults"

    def place(self, error: SettingError) -> str:
        """Return the place of the field that an error names, of its key, or of the nearest key above it."""
        keys = [error.key]
        match error.key:  # settings that a camera takes from those of all cameras
            case "cameras", _, "transform", *below:
                keys.append(("transform", *below))
            case "cameras", camera, "encoder", *below:
                depth = (self.values.get("cameras") or {}).get(camera, {}).get("depth") is True
                keys.append(("depth_encoder" if depth else "camera_encoder", *below))
        words = re.findall(r"\w+", error.problem.found)
        named = [self.places[(*key, word)] for key in keys for word in words if (*key, word) in self.places]
        if named:
            return OUTSIDE if OUTSIDE in named else named[0]
        found = next((key for key in keys if key in self.places), error.key)
        while found and found not in self.places:
            found = found[:-1]
        return self.places.get(found, self.file)

    def override(self, key: KeyPath) -> None:
        """Mark a key and all below it as overridden; replaced cameras keep the places of their encoders."""
        for place in list(self.places):
            if place[: len(key)] == key and not (key == ("cameras",) and "encoder" in place[2:3]):
                del self.places[place]
        self.places[key] = OUTSIDE


def read_preset(path: Path, find: Callable[[str, Path], Path], extended_by: tuple[Path, ...] = ()) -> Merged:
    """Read a file and the preset that it extends.

    Args:
        path: the file.
        find: returns the file of a preset, from its name or path and the folder that the path is relative to.
        extended_by: files that extend it.

    Raises:
        ConfigError: a file cannot be read, extends itself, or removes a camera that does not exist.
    """
    if path.resolve() in extended_by:
        raise ConfigError(f"{path}: extends itself, through " + " -> ".join(p.name for p in extended_by))
    own, places = read_keys(path, "a preset", _named)
    parent = own.pop("extends", None)
    if parent is not None and not isinstance(parent, str):
        raise ConfigError(
            f"extends: {parent!r} is not accepted",
            expected="the name or path of a preset",
            where=places[("extends",)],
        )
    merged = Merged()
    if parent is not None:
        try:
            base = find(parent, path.parent)
        except ConfigError as error:
            raise ConfigError(f"{places[('extends',)]}: extends: {error}") from None
        merged = read_preset(base, find, (*extended_by, path.resolve()))
    merged.file = str(path)
    merged.places |= places
    removed = own.get("cameras")
    for camera, settings in removed.items() if isinstance(removed, dict) else ():
        if settings is None:
            try:
                _check_removed(camera, merged.values)
            except SettingError as error:
                raise ConfigError(f"{merged.place(error)}: {error}") from None
    merged.values = _deep_merge(merged.values, own)
    return merged


def _check_removed(camera: str, values: Mapping[str, Any]) -> None:
    """Check that there is a camera to remove.

    Args:
        camera: the camera, whose settings are null.
        values: those from which it is removed.
    """
    found = values.get("cameras")
    known = [name for name, one in found.items() if one is not None] if isinstance(found, dict) else []
    if camera not in known:
        raise SettingError(
            ("cameras", camera),
            f"null removes a camera, and no camera has this name{accepted(camera, known)}; for a camera "
            "without settings of its own write {}",
        )


def _named(above: KeyPath, name: str) -> str:
    """Return the short name of a camera; other names unchanged."""
    return name.removeprefix(IMAGE_PREFIX) if above == ("cameras",) else name


def plain(value: Any) -> Any:
    return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def _deep_merge(base: Mapping[str, Any], over: Mapping[str, Any], above: KeyPath = ()) -> dict[str, Any]:
    """Merge mappings key by key; extra_options and a camera's source are replaced as a whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        whole = key == "extra_options" or (key == "source" and len(above) == 2)
        if not whole and isinstance(value, dict) and isinstance(below, dict):
            merged[key] = _deep_merge(below, value, (*above, key))
        else:
            merged[key] = value
    return merged


def pairs(overrides: Any) -> Iterator[tuple[KeyPath, Any]]:
    for pair in overrides if isinstance(overrides, Iterable) else [overrides]:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], tuple) and pair[0]):
            raise ConfigError(
                f"overrides holds {pair!r}",
                expected='(key path, value) pairs, such as (("depth_encoder", "vcodec"), "ffv1")',
            )
        yield pair[0], pair[1]


def override(values: dict[str, Any], key: KeyPath, value: Any) -> None:
    """Apply one override; for a field of all cameras, remove the cameras' own values."""
    target = values
    for part in key[:-1]:
        below = target.get(part)
        if below is None:
            below = target[part] = {}
        if not isinstance(below, dict):
            raise SettingError(key, f"{part} is not a mapping")
        target = below
    if value is None and len(key) == 2 and key[0] == "cameras":
        _check_removed(key[1], values)
    if key == ("cameras",):
        value = _with_encoders(value, values.get("cameras"))
    target[key[-1]] = value
    if len(key) > 1 and key[0] in ("camera_encoder", "depth_encoder"):
        cameras = values.get("cameras")
        for camera in cameras.values() if isinstance(cameras, dict) else ():
            if isinstance(camera, dict) and bool(camera.get("depth")) == (key[0] == "depth_encoder"):
                own = camera.get("encoder")
                if isinstance(own, dict):
                    own.pop(key[1], None)
    if len(key) > 1 and key[0] == "transform":
        cameras = values.get("cameras")
        for camera in cameras.values() if isinstance(cameras, dict) else ():
            own = camera.get("transform") if isinstance(camera, dict) else None
            if isinstance(own, dict):
                own.pop(key[1], None)


def _with_encoders(cameras: Any, before: Any) -> Any:
    """Return the replacing cameras with the encoder settings of those that they replace."""
    if not isinstance(cameras, dict) or not isinstance(before, dict):
        return cameras
    kept = {}
    for name, camera in cameras.items():
        known = before.get(name)
        kept[name] = camera
        if not isinstance(known, dict) or not isinstance(camera, dict) or "encoder" not in known:
            continue
        if bool(known.get("depth")) == bool(camera.get("depth")):
            kept[name] = {"encoder": known["encoder"], **camera}
    return kept
