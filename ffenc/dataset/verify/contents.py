"""Compare what the frames of each episode show with its statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ffenc.dataset.verify.faults import Faults
from ffenc.dataset.verify.layout import Floats, Layout, Listing
from ffenc.dataset.verify.records import Shown
from ffenc.errors import ConfigError
from ffenc.frames.depth import DepthQuantizer
from ffenc.frames.statistics import Stats
from ffenc.layout import QUANTILES

# Differences between the decoded and the stored mean or std of an episode, on a scale of 0 to 1, measured on
# the sample at crf 30: 0.0015 at most, and nearly the same for all episodes of a camera (within 0.0003).
# Episodes of one scene differ from one another by 0.0025 to 0.009.
_NOISE, _OTHER = 0.002, 0.06
# For depth: differences of the logarithm of quantiles, which LeRobot estimates with an error of some percent.
_DEPTH_NOISE, _DEPTH_OTHER = 0.02, 0.7
_CLEARER = 0.4  # of a swap: greatest difference to the other's statistics, as a share of that to its own


def compare_statistics(layout: Layout, listing: Listing, key: str, shown: Shown, faults: Faults) -> None:
    """Compare what each episode of a camera shows with its statistics; find swapped episodes."""
    stored = listing.stats.get(key)
    stats = shown.stats
    at = np.array(sorted(stats), np.int64)
    if stored is None or not at.size:
        return
    depth = len(next(iter(stats.values()))["mean"]) == 1
    names = tuple(QUANTILES) if depth else ("mean", "std")
    if not set(names) <= set(stored):
        return
    noise, other = (_DEPTH_NOISE, _DEPTH_OTHER) if depth else (_NOISE, _OTHER)
    found = _numbers([stats[i] for i in at.tolist()], names)
    known = np.concatenate([stored[name] for name in names], axis=1)[at]
    if found.shape != known.shape or not np.isfinite(known).all():
        return
    if depth:
        low, high = depth_range(layout, key)
        ways = [found]
        if all(i in shown.measured for i in at.tolist()):
            ways += [
                _numbers(of_way, names)
                for of_way in zip(*(shown.measured[i] for i in at.tolist()), strict=True)
            ]
        known, *ways = (np.log(np.clip(values, low, high)) for values in (known, *ways))
        found = min(ways, key=lambda way: float(np.abs(way - known).max(axis=1).sum()))
        # Statistics may count some of the pixels without depth, as of 0 and NaN in the same camera.
        beyond = np.maximum(np.min(ways, axis=0) - known, known - np.max(ways, axis=0))
    # Lossy encoding shifts the statistics of all episodes of a camera alike.
    shift = np.median(found - known, axis=0)
    level = found - np.where(np.abs(shift) < other, shift, 0)
    away = level - known
    own = np.abs(away).max(axis=1)
    if depth:
        away = np.minimum(np.abs(away), beyond)
    else:
        # Encoding removes noise, more or less of it in each episode, which only lowers the std.
        spread = np.arange(known.shape[1]) >= known.shape[1] // 2
        away = np.abs(np.where(spread, np.maximum(away, 0), away))
    pairs = _swapped(level, known, np.flatnonzero(own > noise))
    places = listing.videos[key].files if key in listing.videos else listing.data
    for a, b in pairs.items():
        if a < b:
            first, second = (int(listing.index[at[i]]) for i in (a, b))
            faults.add(
                "swapped",
                f"episodes {first} and {second} seem swapped: the frames of each match the "
                "other's statistics",
                file=places[at[a]],
                camera=key,
                episode=first,
                other=second,
            )
    for a in np.flatnonzero(away.max(axis=1) > other).tolist():
        if a not in pairs:
            column = int(np.argmax(away[a]))
            name = names[column * len(names) // known.shape[1]]
            show = np.exp if depth else (lambda value: value)
            faults.add(
                "other-content",
                f"its frames do not match its statistics: {name} is {show(found[a, column]):.4g}, "
                f"{show(known[a, column]):.4g} is stored",
                file=places[at[a]],
                camera=key,
                episode=int(listing.index[at[a]]),
            )


def _numbers(stats: Sequence[Stats], names: Sequence[str]) -> Floats:
    """Return the named statistics of several episodes, shape ``(episodes, statistics)``."""
    return np.stack([np.concatenate([np.ravel(one[name]) for name in names]) for one in stats])


def _swapped(level: Floats, known: Floats, suspects: npt.NDArray[np.intp]) -> dict[int, int]:
    """Return the rows that match each other's stored statistics, both ways: row -> the other row.

    Args:
        level, known: computed and stored statistics, shape ``(episodes, statistics)``.
        suspects: rows that differ from their own stored statistics.
    """
    own = np.abs(level - known).max(axis=1)
    pairs: dict[int, int] = {}
    for a in suspects.tolist():
        if a in pairs:
            continue
        rest = suspects[suspects != a]
        across = np.maximum(
            np.abs(level[a] - known[rest]).max(axis=1), np.abs(level[rest] - known[a]).max(axis=1)
        )
        clear = across < _CLEARER * np.minimum(own[a], own[rest])
        candidates = [int(b) for b in rest[clear][np.argsort(across[clear])] if int(b) not in pairs]
        if candidates:
            pairs[a], pairs[candidates[0]] = candidates[0], a
    return pairs


def depth_range(layout: Layout, key: str) -> tuple[float, float]:
    """Return the least and greatest depth that a camera's video can store, in its unit."""
    block = layout.block(key)
    scale = 1 if block.get("depth_unit") == "m" else 1000
    try:
        quantizer = DepthQuantizer.from_video_info(block)
    except (ConfigError, TypeError):
        quantizer = DepthQuantizer()
    if key in layout.images or block.get("video.pix_fmt") == "gray16le":
        return 0.001 * scale, 65.535 * scale
    return max(quantizer.depth_min, 0.001) * scale, quantizer.depth_max * scale
