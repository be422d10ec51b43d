"""A dataset's ``info.json``: reading, path templates, and the quantisers of depth videos.

What only ffenc stores for a camera is in ``meta/ffenc.json``, because LeRobot merges datasets only if their
features are equal. In memory it is in the feature's ``info`` block, where earlier versions wrote it.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffenc.errors import ConfigError, FfencWarning, SourceError
from ffenc.layout import DEPTH_FIELDS, INFO, OWN_FIELDS, OWN_INFO, says_depth
from ffenc.paths import check_template, read_text, template_pattern
from ffenc.spelling import argument

if TYPE_CHECKING:
    from ffenc.frames.depth import DepthQuantizer


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        SourceError: the file contains none; the text names the file.
    """
    try:
        return json_object(read_text(path))
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}", where=path) from None
    except ValueError as error:
        raise SourceError(f"cannot be read: {error}", where=path) from None


def json_object(text: str | bytes) -> dict[str, Any]:
    """Return the object in a JSON text.

    Raises:
        ValueError: it is not an object, is nested too deeply, or contains numbers that are too long; the text
            says which.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(f"is not JSON: {error.msg} at {place}column {error.colno}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text: byte {error.start}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError:
        raise ValueError("contains a number with too many digits") from None
    if not isinstance(content, dict):
        raise ValueError("is not a JSON object")
    return content


def read_info(root: Path) -> dict[str, Any]:
    """Return a dataset's ``meta/info.json``, with the fields of ``meta/ffenc.json`` in the cameras' blocks.

    Raises:
        SourceError: one of the files cannot be read.
    """
    info = read_json(root / INFO)
    own = _read_own(root)
    features = info.get("features")
    if own and isinstance(features, dict):
        info["features"] = {key: _with_own(feature, own.get(key)) for key, feature in features.items()}
    return info


def _read_own(root: Path) -> dict[str, Any]:
    """Return the contents of ``meta/ffenc.json``: camera -> its fields."""
    path = root / OWN_INFO
    if not os.path.lexists(path):
        return {}
    cameras = read_json(path).get("cameras", {})
    if not isinstance(cameras, dict) or not all(isinstance(fields, dict) for fields in cameras.values()):
        raise SourceError(
            "cameras is not a mapping of names to fields; restore the file, or move it away: "
            "without it, pixels without depth are read as the nearest depth",
            where=path,
        )
    return cameras


def _with_own(feature: Any, own: Any) -> Any:
    block = feature.get("info") if isinstance(feature, dict) else None
    if not (own and block and isinstance(block, dict)):
        return feature
    return {**feature, "info": block | {field: own[field] for field in OWN_FIELDS if field in own}}


def split_info(info: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate an info as returned by :func:`read_info` into the contents of the two files.

    Returns:
        The contents of ``meta/info.json`` and of ``meta/ffenc.json``; the latter is empty if there is nothing
        to store in it.
    """
    features: dict[str, Any] = {}
    cameras: dict[str, Any] = {}
    for key, feature in info["features"].items():
        block = feature.get("info")
        own = {field: block[field] for field in OWN_FIELDS if field in block} if block else {}
        features[key] = feature
        if own:
            cameras[key] = own
            rest = {field: value for field, value in block.items() if field not in own}
            features[key] = {**feature, "info": rest}
    return {**info, "features": features}, {"cameras": cameras} if cameras else {}


def feature_block(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Return a feature's ``info`` block, which older versions name ``video_info``."""
    blocks = (feature.get("info"), feature.get("video_info"))
    return next((dict(block) for block in blocks if block and isinstance(block, dict)), {})


def info_features(info: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Return the features of an info.json.

    Args:
        info: its contents.
        where: its path, for errors.

    Raises:
        SourceError: they are not a mapping of names to objects, or an ``info`` is not an object.
    """
    features = info.get("features")
    if not isinstance(features, dict) or not all(
        isinstance(feature, dict)
        and all(isinstance(feature.get(name) or {}, dict) for name in ("info", "video_info"))
        for feature in features.values()
    ):
        raise SourceError("features is not a mapping of names to descriptions", where=where)
    return features


def recorded_fields(path: Path) -> dict[str, Any]:
    """Return the fields of a depth video's quantiser that its dataset's metadata contains.

    Args:
        path: the file, as for :func:`stored_quantizer`.

    Returns:
        Field -> value; empty if the file is not in a dataset, or the metadata cannot be used.
    """
    try:
        found = _block_of(path)
    except SourceError:
        return {}
    block = found[0] if found is not None else {}
    return {name: value for name in DEPTH_FIELDS if (value := block.get(f"video.{name}")) is not None}


def stored_quantizer(path: Path) -> DepthQuantizer | None:
    """Return the quantiser of a depth video, from the dataset that contains it.

    Args:
        path: the file. Parent folders are searched upwards, first as named in the path, then with links
            resolved.

    Returns:
        The quantiser; None if the file is not in a dataset.

    Raises:
        SourceError: the dataset does not list the file among its videos, or its info block is not usable.
    """
    found = _block_of(path)
    return None if found is None else block_quantizer(*found)


def _block_of(path: Path) -> tuple[dict[str, Any], str] | None:
    """Return the ``info`` block of a video's feature, and its place for errors; None: not in a dataset."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - keeps symbolic links
    for place in dict.fromkeys((absolute, absolute.resolve())):
        for root in place.parents:
            if (root / INFO).is_file():
                return _of_feature(root, place.relative_to(root).as_posix())
    return None


CORRECT = "write there how its frames were quantised"


def _give() -> str:
    return (
        f"pass {argument('depth', 'DepthQuantizer(...)')}, or {argument('depth', False)} for the stored codes"
    )


def block_quantizer(block: dict[str, Any], where: str, how: str | None = None) -> DepthQuantizer:
    """Return the quantiser of a feature's ``info`` block; missing fields have LeRobot's defaults.

    Args:
        block: the block, see :func:`feature_block`.
        where: name of the feature, for errors.
        how: what to do if the block has no quantiser or an invalid one; None: what a reader of the video can
            do.

    Raises:
        SourceError: the quantiser is invalid; the text starts with ``where``.

    Warns:
        FfencWarning: the block has no quantiser.
    """
    how = how or _give()
    try:
        from ffenc.frames.depth import DepthQuantizer  # noqa: PLC0415 - not needed for info.json

        quantizer = DepthQuantizer.from_video_info(block)
    except (ConfigError, TypeError) as error:
        raise SourceError(f"{error}; {how}", where=where) from None
    if not any(block.get(f"video.{key}") is not None for key in DEPTH_FIELDS):
        marked = "" if says_depth(block) else ", nor that it is depth (is_depth_map): LeRobot shows it as RGB"
        warnings.warn(
            f"{where} does not say how depth was quantised (video.depth_min and so on){marked}; its 12-bit "
            f"codes are read by LeRobot's defaults, {quantizer.depth_min:g} to "
            f"{quantizer.depth_max:g} m. If they were quantised otherwise, {how}",
            FfencWarning,
            stacklevel=3,
        )
    return quantizer


def _of_feature(root: Path, place: str) -> tuple[dict[str, Any], str]:
    info = read_info(root)
    where = root / INFO
    features = info_features(info, where)
    template = check_template(info.get("video_path"), f"{where}: video_path")
    match = template_pattern(template).fullmatch(place)
    if match is None or match.groupdict().get("video_key") not in features:
        raise SourceError(
            f"{where} has no feature whose video is {place}, so the depth quantiser is not known; {_give()}"
        )
    key = match["video_key"]
    return feature_block(features[key]), f"{where}: {key}"
