"""Check whether a folder is a supported LeRobot dataset, and whether its info.json is consistent.

This module does not load the libraries that read a dataset: ``ffenc info`` starts with it alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ffenc.config.framerate import parse_fps
from ffenc.errors import ConfigError, SourceError
from ffenc.layout import INFO
from ffenc.problem import Problem


def check_dataset(folder: Path) -> None:
    """Refuse a folder that is not a LeRobot dataset of a supported layout.

    Raises:
        SourceError: not a LeRobot dataset, or a layout before v2.0.
    """
    if (folder / INFO).is_file():
        return
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder", expected="the folder of a dataset")
    check_not_v1(folder)
    raise SourceError("is not a LeRobot dataset: it has no meta/info.json", where=folder)


def check_not_v1(folder: Path) -> None:
    """Refuse a dataset of a layout before v2.0, whose metadata is in ``meta_data``.

    Raises:
        SourceError: it is one.
    """
    if (folder / "meta_data").is_dir():
        raise SourceError(
            "is a LeRobot dataset of a layout before v2.0 (it has meta_data/); v3.0, v2.1 and "
            "v2.0 are read. Convert it first with convert_dataset_v1_to_v2.py of LeRobot 0.1 to 0.3",
            where=folder,
        )


def wrong_limits(info: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield faults of the file limits in an info.json: each has to be a number above 0."""
    for key, kind in (
        ("chunks_size", int),
        ("data_files_size_in_mb", (int, float)),
        ("video_files_size_in_mb", (int, float)),
    ):
        value = info.get(key)
        if value is not None and not (isinstance(value, kind) and value > 0):
            yield Problem(f"{key} is {value!r}", expected="a number above 0")


def features_of(info: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Return the features of an info.json after checking frame rate and features.

    Args:
        info: its contents.
        where: its path, for errors.

    Raises:
        SourceError: they are not valid.
    """
    try:
        parse_fps(info.get("fps", "missing"))
    except ConfigError as error:
        raise SourceError(str(error), where=where) from None
    features = info.get("features")
    if not isinstance(features, dict) or not all(
        isinstance(f, dict) and isinstance(f.get("dtype"), str) and isinstance(f.get("info") or {}, dict)
        for f in features.values()
    ):
        raise SourceError("features is not a mapping of names to descriptions with a dtype", where=where)
    return features
