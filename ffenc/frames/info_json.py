"""A dataset's ``info.json``: reading it, its path templates, and what it says of the depth in a file."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from ffenc.config.encoder import DEPTH_FIELDS
from ffenc.errors import ConfigError, SourceError
from ffenc.frames.depth import DepthQuantizer


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        SourceError: there is none; the text names the file.
    """
    content = _loaded(path)
    if not isinstance(content, dict):
        raise SourceError(f"{path}: is not a JSON object")
    return content


def _loaded(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from None


def path_pattern(template: str) -> re.Pattern[str]:
    """Return what paths of a template of info.json look like; the camera is the group ``video_key``."""
    known: set[str] = set()
    parts = []
    for part in re.split(r"(\{[^}]*\})", template):
        if not part.startswith("{"):
            parts.append(re.escape(part))
        elif re.match(r"\{video_key\b", part) and "video_key" not in known:
            known.add("video_key")
            parts.append("(?P<video_key>[^/]+)")
        else:
            parts.append(r"\d+" if ":" in part else "[^/]+")
    return re.compile("".join(parts))


def read_info(root: Path) -> dict[str, Any]:
    """Return a dataset's ``meta/info.json``.

    Raises:
        SourceError: it cannot be read, or is not an object with features that are objects.
    """
    path = root / "meta/info.json"
    info = _loaded(path)
    features = info.get("features") if isinstance(info, dict) else None
    if not isinstance(features, dict) or not all(
        isinstance(feature, dict) and isinstance(feature.get("info") or {}, dict)
        for feature in features.values()
    ):
        raise SourceError(f"{path}: features is not a mapping of names to descriptions")
    return dict(info)


def stored_quantizer(path: Path) -> DepthQuantizer | None:
    """Return the quantiser a depth video was made with, from the dataset it lies in.

    Args:
        path: the file. Folders are looked through upwards, as the path names them and then as links lead.

    Returns:
        None where the file lies in no dataset.

    Raises:
        SourceError: the dataset does not name the file as one of its videos, or says nothing usable of it.
    """
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - symbolic links stay as they are
    for place in dict.fromkeys((absolute, absolute.resolve())):
        for root in place.parents:
            if (root / "meta/info.json").is_file():
                return _of_feature(root, place.relative_to(root).as_posix())
    return None


CORRECT = "write there how its frames were quantised"
_GIVE = "give depth=DepthQuantizer(...), or depth=False for the stored codes"


def block_quantizer(block: dict[str, Any], where: str, how: str = _GIVE) -> DepthQuantizer:
    """Return the quantiser that a feature's ``info`` block names.

    Args:
        block: the block.
        where: what it is, for an error.
        how: what to do where it names none, for the error.

    Raises:
        SourceError: it names none, or one that cannot be; the text starts with ``where``.
    """
    if not any(block.get(f"video.{key}") is not None for key in DEPTH_FIELDS):
        raise SourceError(
            f"{where} says nothing of how depth was quantised (video.depth_min and so on); {how}"
        )
    try:
        return DepthQuantizer.from_video_info(block)
    except (ConfigError, TypeError) as error:
        raise SourceError(f"{where}: {error}") from None


def _of_feature(root: Path, place: str) -> DepthQuantizer:
    info = read_info(root)
    where = root / "meta/info.json"
    template = str(info.get("video_path") or "")
    match = path_pattern(template).fullmatch(place)
    if match is None or match.groupdict().get("video_key") not in info["features"]:
        raise SourceError(
            f"{where} has no feature whose video is {place}, so the depth quantiser is not known; give "
            "depth=DepthQuantizer(...), or depth=False for the stored codes"
        )
    key = match["video_key"]
    return block_quantizer(info["features"][key].get("info") or {}, f"{where}: {key}")
