"""Statistics of a dataset's rows, computed again and compared with those that are stored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ffenc.dataset.columns import is_numeric
from ffenc.dataset.identify import check_dataset
from ffenc.dataset.lerobot_v21 import LeRobotV21
from ffenc.dataset.quantiles import exact_quantiles, feature_tables
from ffenc.dataset.sources.lerobot import open_dataset
from ffenc.dataset.staging import write_json
from ffenc.dataset.statistics import ACTION, Aggregate, moments, relative_chunk, stored_numbers
from ffenc.errors import DestinationError, SourceError
from ffenc.frames.publish import sync_folder
from ffenc.frames.statistics import Stats
from ffenc.layout import QUANTILES, STATISTICS, STATS

OLD_STATS = "meta/.stats.json.old"
_CLOSE = 2e-5  # of the span from min to max: what float32 and its sums make


@dataclass(frozen=True)
class Difference:
    """A statistic that is stored otherwise than the rows have it.

    Attributes:
        feature, name: such as ``action`` and ``q99``.
        stored: what ``stats.json`` has; None: nothing.
        exact: what the rows have.
        share: the largest difference, as a share of the feature's span from min to max; 1 where none is
            stored.
        at: which of the feature's numbers that is of.
    """

    feature: str
    name: str
    stored: Any
    exact: Any
    share: float
    at: int = 0


@dataclass(frozen=True)
class Restated:
    """The statistics of a dataset's rows.

    Attributes:
        root: the dataset.
        differences: what is stored otherwise, the largest difference first.
        stats: all of ``stats.json`` as it should be; cameras are as they were.
        left: features whose statistics are left as they are, and why.
        written: whether ``stats.json`` was replaced.
    """

    root: Path
    differences: list[Difference]
    stats: Mapping[str, Any]
    left: Mapping[str, str]
    written: bool = False


def restate(root: str | Path, *, write: bool = False, follow_links: bool = False) -> Restated:
    """Compute the statistics of every column of numbers over all rows, and compare them with ``stats.json``.

    Args:
        root: a LeRobot v3.0 dataset.
        write: replace ``stats.json``; the old one is kept as :data:`OLD_STATS`. Nothing else is written.
        follow_links: follow symbolic links that lead out of the dataset; else they are refused by name.

    Returns:
        what differs by more than float32 explains.

    Raises:
        SourceError: not such a dataset, or one that is damaged.
        DestinationError: it cannot be written.
    """
    folder = Path(root)
    check_dataset(folder)
    opened = open_dataset(folder, follow_links=follow_links)
    if isinstance(opened, LeRobotV21):
        raise SourceError(
            f"{folder} is of an older layout, whose statistics are kept by episode; `ffenc merge {folder} "
            "--out NEW` makes v3.0 of it, with statistics of all rows"
        )
    stored = opened.stats()
    stats = dict(stored)
    files = opened.data_files()
    lengths = [episode.length for episode in opened.episodes]
    differences: list[Difference] = []
    left: dict[str, str] = {}
    for key, feature in opened.info()["features"].items():
        own = stored.get(key)
        own = own if isinstance(own, dict) else {}
        if not is_numeric(feature):
            continue
        if key == ACTION and (chunk := _relative(own, lengths)):
            left[key] = f"of actions relative to the state, over chunks of {chunk} rows"
            continue
        exact = _of_rows(files, key)
        shape = np.shape(own["min"]) if "min" in own else None
        if shape is not None and shape != np.shape(exact["min"]):
            left[key] = f"of shape {shape}, of the rows they have {np.shape(exact['min'])}"
            continue
        names = [*STATISTICS, *(name for name in QUANTILES if name in own or not own)]
        found = {name: exact[name] for name in names}
        differences += _differing(key, own, found)
        stats[key] = {**own, **found}
    differences.sort(key=lambda one: -one.share)
    if write and differences:
        _replace(folder, stats)
    return Restated(folder, differences, stats, left, write and bool(differences))


def _relative(own: Mapping[str, Any], lengths: list[int]) -> int | None:
    try:
        count = int(stored_numbers(own["count"]).reshape(-1)[0])
    except (LookupError, ValueError, OverflowError):
        return None
    return relative_chunk(count, lengths)


def _of_rows(files: list[Path], key: str) -> Stats:
    """The statistics of a feature's rows: sums a part at a time, quantiles of all."""
    aggregate = Aggregate()
    for values in feature_tables(files, key):
        aggregate.add(moments(values))
    stats = aggregate.result()
    return {**{name: stats[name] for name in STATISTICS}, **exact_quantiles(files, key)}


def _differing(key: str, stored: Mapping[str, Any], exact: Mapping[str, Any]) -> list[Difference]:
    low, high = (stored_numbers(exact[name]) for name in ("min", "max"))
    span = np.maximum(high - low, np.maximum(np.abs(low), np.abs(high)) * 1e-3)
    span[span == 0] = 1.0
    differences = []
    for name, wanted in exact.items():
        try:
            found = stored_numbers(stored[name])
            off = np.abs(found - stored_numbers(wanted))
        except (LookupError, ValueError):
            differences.append(Difference(key, name, stored.get(name), wanted, 1.0))
            continue
        shares = (off > 0).astype(float) if name == "count" else np.nan_to_num(off / span, nan=1.0)
        at = int(np.argmax(shares))
        if (share := float(shares.ravel()[at])) > _CLOSE:
            differences.append(Difference(key, name, stored[name], wanted, share, at))
    return differences


def _replace(root: Path, stats: Mapping[str, Any]) -> None:
    """Replace stats.json, whole or not at all, and keep the old one."""
    path, old, new = root / STATS, root / OLD_STATS, root / "meta/.stats.json.new"
    try:
        write_json(new, stats)
        if path.exists():
            old.unlink(missing_ok=True)
            os.link(path, old)
        new.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise DestinationError(f"{path} cannot be written: {error.strerror}") from error
