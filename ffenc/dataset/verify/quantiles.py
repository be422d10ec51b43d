"""Check whether quantiles in stats.json are those of all rows, and compute how far off they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ffenc.dataset.quantiles import exact_quantiles
from ffenc.dataset.statistics import stored_numbers
from ffenc.dataset.verify.contents import depth_range
from ffenc.dataset.verify.faults import Faults
from ffenc.dataset.verify.metadata import Tables
from ffenc.dataset.verify.records import Shown
from ffenc.dataset.verify.videos import is_depth
from ffenc.frames.info_json import read_json
from ffenc.frames.statistics import Stats
from ffenc.layout import NUMBERING, STATS
from ffenc.spelling import argument, call

_OFF = 0.01  # share of the span from min to max; a smaller error does not matter to a policy
_SHOWN = 3


def note_quantiles(tables: Tables, shown: Mapping[str, Shown] | None, faults: Faults) -> None:
    """Add a note with the features whose quantiles are computed from the episodes' quantiles.

    Args:
        tables: the checked lists and statistics.
        shown: what all frames of each camera show, if all were decoded. Then the exact quantiles of all rows
            and frames are computed, and the note gives the error of the stored quantiles if it is large.
        faults: the note is added to it.
    """
    layout, listing = tables.layout, tables.listing
    names = [feature for feature in tables.aggregated if feature not in NUMBERING]
    stored = read_json(layout.root / STATS) if names else {}
    files = [layout.root / place for place in dict.fromkeys(listing.data)]
    if shown is None:
        # If it is not certain, the rows decide; a camera's frames are not decoded for it.
        names = [
            feature
            for feature in names
            if tables.aggregated[feature]
            or feature not in layout.numeric
            or _distance(feature, stored[feature], exact_quantiles(files, feature))[0] > _OFF
        ]
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            what = (
                f"quantiles of {', '.join(names[:_SHOWN])}{more} are aggregated from the episodes' "
                f"quantiles, and may be far from those of all rows; {argument('deep', True)} measures how far"
            )
            faults.add("quantiles", what, file=STATS, fix=_fix(tables, names))
        return
    distances: dict[str, tuple[float, str]] = {}
    for feature in names:
        if feature in layout.numeric:
            exact: Stats = exact_quantiles(files, feature)
        else:
            seen = shown.get(feature)
            if seen is None or seen.values is None or len(seen.stats) < len(listing):
                continue  # not all frames are known
            exact = seen.values.quantiles(-np.inf, np.inf)
            if feature in layout.videos and is_depth(layout, feature):
                _, high = depth_range(layout, feature)
                if stored_numbers(stored[feature]["max"]).max() > high:
                    continue  # the stored quantiles are of the depth before quantisation
        share, what = _distance(feature, stored[feature], exact)
        if share > _OFF:
            distances[feature] = share, what
    if distances:
        worst = max(distances, key=lambda feature: distances[feature])
        others = len(distances) - 1
        more = f"; {others} other feature{'s are' if others > 1 else ' is'} off too" if others else ""
        faults.add(
            "quantiles",
            f"{distances[worst][1]}, because it is aggregated from the episodes' quantiles{more}",
            file=STATS,
            camera=worst,
            fix=_fix(tables, distances),
        )


def _fix(tables: Tables, features: Iterable[str]) -> str | None:
    """Return what to do if a feature is a camera; None: what the kind of note says."""
    if all(feature in tables.layout.numeric for feature in features):
        return None
    return f"{call('restate', root='DATASET', cameras=True, write=True)} computes them from all rows"


def _distance(feature: str, stored: Stats, exact: Stats) -> tuple[float, str]:
    """Return the greatest error of a quantile as a share of the span from min to max, and a description."""
    low, high = (stored_numbers(stored[name]).ravel() for name in ("min", "max"))
    span = np.where(high > low, high - low, 1.0)
    worst = (0.0, "")
    for name in exact.keys() & stored.keys():
        have, said = stored_numbers(exact[name]).ravel(), stored_numbers(stored[name]).ravel()
        if have.shape != span.shape or said.shape != span.shape:
            return 0.0, ""
        off = np.abs(have - said) / span
        at = int(np.argmax(off))
        which = f"[{at}]" if span.size > 1 else ""
        what = (
            f"{name} of {feature}{which} is {said[at]:.6g}, but {have[at]:.6g} over all rows, off by "
            f"{off[at]:.0%} of the range from min to max"
        )
        worst = max(worst, (float(off[at]), what))
    return worst
