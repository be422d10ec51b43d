"""Compare the stored statistics of a dataset's rows with statistics that are computed in batches."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.dataset.statistics import ACTION, relative_chunk, stored_numbers
from ffenc.dataset.verify.faults import Faults
from ffenc.dataset.verify.layout import Floats, Integers, Layout, Listing, reason_of
from ffenc.errors import SourceError
from ffenc.frames.info_json import read_json
from ffenc.layout import NUMBERING, QUANTILES, STATISTICS, STATS

_COMPARED = ("min", "max", "mean", "std")
# Statistics may have been computed in float32, with the variance as a difference of squares.
_CLOSE = 2e-5
_CAMERA_CLOSE = 0.1  # share of the greatest value
_APART = 1e-3  # share of the greatest value: quantiles of episodes that are closer count as equal
_SWAPS = 2000  # greatest number of episodes among which swapped ones are searched


class Sums:
    """Sums from which the statistics of each episode are computed.

    The sums are of differences to the episode's first row: squares of large numbers would lose precision.
    """

    def __init__(self, episodes: int, width: int) -> None:
        self.width = width
        self.count = np.zeros(episodes, np.int64)
        self._shift = np.zeros((episodes, width))
        self._sum = np.zeros((episodes, width))
        self._squares = np.zeros((episodes, width))
        self.min = np.full((episodes, width), np.inf)
        self.max = np.full((episodes, width), -np.inf)

    def add(self, values: Floats, starts: Integers, sizes: Integers, at: Integers) -> None:
        """Add runs of rows; ``at`` is the episode of each."""
        new = self.count[at] == 0
        self._shift[at[new]] = values[starts[new]]
        np.add.at(self.count, at, sizes)
        np.minimum.at(self.min, at, np.minimum.reduceat(values, starts))
        np.maximum.at(self.max, at, np.maximum.reduceat(values, starts))
        with np.errstate(invalid="ignore", over="ignore"):
            centred = values - np.repeat(self._shift[at], sizes, axis=0)
            np.add.at(self._sum, at, np.add.reduceat(centred, starts))
            np.add.at(self._squares, at, np.add.reduceat(centred**2, starts))

    def statistics(self) -> dict[str, Floats]:
        """Return min, max, mean and std, shape (episodes, D); the last row is of unlisted episodes."""
        count = np.maximum(self.count, 1)[:, None]
        with np.errstate(invalid="ignore", over="ignore"):
            mean = self._sum / count
            variance = np.maximum(self._squares / count - mean**2, 0)
        return {"min": self.min, "max": self.max, "mean": mean + self._shift, "std": np.sqrt(variance)}

    def total(self) -> dict[str, Floats]:
        """Return the statistics over all listed episodes, shape (1, D)."""
        own = {name: values[:-1][self.count[:-1] > 0] for name, values in self.statistics().items()}
        count = self.count[:-1][self.count[:-1] > 0][:, None]
        with np.errstate(invalid="ignore", over="ignore"):
            mean = (own["mean"] * count).sum(axis=0) / count.sum()
            square = (own["std"] ** 2 + (own["mean"] - mean) ** 2) * count
            std = np.sqrt(square.sum(axis=0) / count.sum())
        found = {"min": own["min"].min(axis=0), "max": own["max"].max(axis=0), "mean": mean, "std": std}
        return {name: values[None] for name, values in found.items()}


def impossible(stats: Mapping[str, Floats]) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which statistics are impossible for any data, shape (episodes, D).

    Mean and quantiles lie between min and max, quantiles ascend, and std is at most half of max - min. If
    min or max is not a number, nothing is reported.
    """
    low, high = stats["min"], stats["max"]
    scale = np.maximum(np.abs(low), np.abs(high))
    slack = 5e-3 * scale + 1e-6  # float32, and quantiles from histograms
    known = ~(np.isnan(low) | np.isnan(high))
    wrong = {"max": known & ~(high >= low)}
    floor = low
    for name in ("mean", *QUANTILES):
        if (values := stats.get(name)) is not None:
            wrong[name] = known & ~((values >= low - slack) & (values <= high + slack))
            if name != "mean":
                wrong[name] |= known & (values < floor - slack)
                floor = np.fmax(floor, values)
    wrong["std"] = known & ~((stats["std"] >= 0) & (stats["std"] <= (high - low) / 2 + slack))
    wrong["count"] = ~(stats["count"] >= 1)
    return wrong


def _unlike(found: Mapping[str, Floats], stored: Mapping[str, Floats]) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which statistics differ by more than the tolerance, in their shapes."""
    scale = np.maximum(np.abs(found["min"]), np.abs(found["max"]))
    differing = {}
    with np.errstate(invalid="ignore", over="ignore"):
        for name in _COMPARED:
            a, b = found[name], stored[name]
            if name == "std":
                close = np.abs(a**2 - b**2) <= _CLOSE * scale**2 + 1e-12
            else:
                close = np.abs(a - b) <= _CLOSE * scale + 1e-12
            differing[name] = ~(close | (np.isnan(a) & np.isnan(b)) | (a == b))
    return differing


class Statistics:
    """Checks the stored statistics of features."""

    def __init__(self, layout: Layout, listing: Listing, faults: Faults) -> None:
        self._layout, self._listing, self._faults = layout, listing, faults
        self._total: dict[str, Any] = {}
        self._place = STATS

    def check_presence(self, not_finite: Collection[str] = ()) -> None:
        """Check that ``stats.json`` has every feature with numbers and every camera. v2.1 has no such file.

        Features of ``not_finite``, whose rows have values that are not numbers, may have no statistics.
        """
        layout = self._layout
        path = layout.root / self._place
        if layout.old and not path.is_file():
            if layout.version.startswith("v2.0"):
                self._faults.add("statistics-missing", "is missing", file=self._place)
            return
        try:
            self._total = read_json(path)
        except SourceError as error:
            self._faults.add("statistics-missing", reason_of(error), file=self._place)
            return
        names = [name for name in STATISTICS if not (layout.old and name == "count")]
        for feature in [*layout.numeric, *layout.images, *layout.videos]:
            if feature in not_finite:
                continue
            own = self._total.get(feature)
            if not isinstance(own, dict):
                self._faults.add(
                    "statistics-missing", f"has no statistics of {feature}", file=self._place, camera=feature
                )
                continue
            there = [*names, *(name for name in QUANTILES if name in own)]
            rows = {name: row for name in there if (row := _row(own.get(name))) is not None}
            size = rows["min"].size if "min" in rows else None
            broken = [n for n in there if n not in rows or (n != "count" and rows[n].size != size)]
            if broken:
                what = f"has no usable {', '.join(broken)} of {feature}"
                self._faults.add("statistics-missing", what, file=self._place, camera=feature)
            elif "count" in rows:
                self._find_impossible(feature, rows, self._place)
                self._compare_camera(feature, rows)

    def _find_impossible(self, feature: str, stats: Mapping[str, Floats], file: str) -> None:
        unlike = [n for n, values in stats.items() if n != "count" and values.shape != stats["min"].shape]
        if unlike:
            what = f"{unlike[0]} of {feature} has a different number of values than its min"
            self._faults.add("statistics-missing", what, file=file, camera=feature)
            return
        for name, wrong in impossible(stats).items():
            compared = feature in self._layout.numeric and name not in QUANTILES  # later, with the rows
            if compared or not wrong.any():
                continue
            at, column = (int(n) for n in np.argwhere(wrong)[0])
            least, most = (stats[n][at, column] for n in ("min", "max"))
            value = stats[name][at, min(column, stats[name].shape[1] - 1)]
            what = f"{name} of {feature} is {value:.6g}, which is impossible: min {least:.6g}, max {most:.6g}"
            episode = None if file == self._place else int(self._listing.index[at])
            self._faults.add("statistics-differ", what, file=file, camera=feature, episode=episode)

    def _compare_camera(self, feature: str, stored: Mapping[str, Floats]) -> None:
        """Compare a camera's statistics coarsely with its episodes': writers may sample different frames."""
        episodes = self._listing.stats.get(feature)
        if feature not in (*self._layout.images, *self._layout.videos) or episodes is None:
            return
        if episodes["min"].shape[1] != stored["min"].shape[1]:
            what = (
                f"has {stored['min'].shape[1]} numbers of {feature}, its episodes {episodes['min'].shape[1]}"
            )
            self._faults.add("statistics-differ", what, file=self._place, camera=feature)
            return
        count = np.maximum(episodes["count"][:, :1], 1)
        mean = (episodes["mean"] * count).sum(axis=0) / count.sum()
        square = episodes["std"] ** 2 + (episodes["mean"] - mean) ** 2
        found = {
            "min": episodes["min"].min(axis=0),
            "max": episodes["max"].max(axis=0),
            "mean": mean,
            "std": np.sqrt((square * count).sum(axis=0) / count.sum()),
        }
        scale = np.maximum(np.abs(found["min"]), np.abs(found["max"]))
        for name, values in found.items():
            far = np.abs(stored[name][0] - values) > _CAMERA_CLOSE * scale + 1e-6
            if far.any():
                column = int(np.argmax(far))
                what = (
                    f"{name} of {feature} is {stored[name][0, column]:.6g}, aggregated from its episodes "
                    f"{values[column]:.6g}"
                )
                self._faults.add("statistics-differ", what, file=self._place, camera=feature)
                return

    def check_episodes(self, sums: Mapping[str, Sums], good: npt.NDArray[np.bool_]) -> None:
        """Compare the statistics of each ``good`` episode with its rows."""
        for feature, kept in self._listing.stats.items():
            self._find_impossible(feature, kept, self._layout.list_place)
        swapped: dict[tuple[int, int], list[str]] = {}
        differing: list[tuple[int, str, str]] = []
        for feature, own in sums.items():
            stored = self._listing.stats.get(feature)
            if stored is None:
                continue
            found = {name: values[:-1] for name, values in own.statistics().items()}
            found = self._as_stored(feature, found, stored["mean"].shape[1])
            if any(stored[name].shape != found[name].shape for name in _COMPARED):
                what = f"statistics of {feature} have {stored['mean'].shape[1]} numbers, its rows {own.width}"
                self._faults.add("statistics-differ", what, file=self._layout.list_place, camera=feature)
                continue
            marks = _unlike(found, stored)
            counts = stored["count"].reshape(len(good), -1)
            count = counts[:, 0] if counts.size else np.zeros(len(good))  # an empty list is not a count
            marks["count"] = (count != own.count[:-1])[:, None]
            wrong = np.flatnonzero(good & np.any([m.any(axis=1) for m in marks.values()], axis=0))
            numbering = feature in NUMBERING
            pairs = {} if numbering else _swapped(found, stored, wrong[:_SWAPS])
            for at in wrong.tolist():
                if at in pairs:
                    swapped.setdefault((min(at, pairs[at]), max(at, pairs[at])), []).append(feature)
                    continue
                name = next(n for n, mark in marks.items() if mark[at].any())
                column = int(np.argmax(marks[name][at]))
                have = own.count[at] if name == "count" else found[name][at, column]
                said = count[at] if name == "count" else stored[name][at, column]
                which = f"[{column}]" if own.width > 1 else ""
                what = f"{name} of {feature}{which} is {have:.6g} in its rows, {said:.6g} in its statistics"
                differing.append((at, feature, what))
        for (a, b), features in swapped.items():
            first, second = (int(self._listing.index[at]) for at in (a, b))
            self._faults.add(
                "swapped",
                f"episodes {first} and {second} seem swapped: the rows of each match the other's statistics "
                f"({', '.join(dict.fromkeys(features))})",
                file=self._listing.data[a],
                episode=first,
                other=second,
            )
        for at, feature, what in differing:
            self._faults.add(
                _kind_of(feature),
                what,
                file=self._listing.data[at],
                camera=feature,
                episode=int(self._listing.index[at]),
            )

    def _as_stored(self, feature: str, found: dict[str, Floats], width: int) -> dict[str, Floats]:
        """Return statistics per value, or as LeRobot v3.0 stores them: over all dimensions but the last."""
        shape = self._layout.features[feature].get("shape")
        last = shape[-1] if isinstance(shape, list) and len(shape) > 1 else 0
        numbers = found["mean"].shape[1]
        if not last or width != last or numbers == last or numbers % last:
            return found
        parts = {name: values.reshape(len(values), -1, last) for name, values in found.items()}
        mean = parts["mean"].mean(axis=1)
        square = parts["std"] ** 2 + (parts["mean"] - mean[:, None]) ** 2
        return {
            "min": parts["min"].min(axis=1),
            "max": parts["max"].max(axis=1),
            "mean": mean,
            "std": np.sqrt(square.mean(axis=1)),
        }

    def aggregated(self, sums: Mapping[str, Sums]) -> dict[str, bool]:
        """Return the features whose quantiles in ``stats.json`` are computed from the episodes' quantiles.

        LeRobot 0.6 uses their mean, weighted by length; earlier versions used the least or the greatest.

        Args:
            sums: those of all rows; a column of numbers that some rows do not have is left out.

        Returns:
            Feature -> whether that is certain. The least or the greatest of the episodes' quantiles can also
            be that of all rows, as in a column of true and false.
        """
        rows = self._listing.length.sum()
        numeric = (name for name in self._layout.numeric if name in sums and sums[name].count.sum() == rows)
        features = [*numeric, *self._layout.images, *self._layout.videos]
        found = ((feature, self._is_aggregated(feature)) for feature in features)
        return {feature: certain for feature, certain in found if certain is not None}

    def _is_aggregated(self, feature: str) -> bool | None:
        """Return whether it is certain; None: the quantiles are others."""
        own, kept = self._total.get(feature), self._listing.stats.get(feature)
        if not isinstance(own, dict) or kept is None or len(self._listing) < 2:
            return None
        certain = False
        count = np.maximum(kept["count"].reshape(len(self._listing), -1)[:, :1], 1)
        apart = 0.0
        for name in QUANTILES:
            row, each = _row(own.get(name)), kept.get(name)
            if row is None or each is None:
                continue
            if each.shape[1] != row.shape[1] or not np.isfinite(each).all():
                return None
            low, high = each.min(axis=0), each.max(axis=0)
            scale = np.maximum(np.abs(low), np.abs(high)) + 1e-12
            made = ((each * count).sum(axis=0) / count.sum(), low, high)
            is_mean, is_low, is_high = ((np.abs(row[0] - one) <= _CLOSE * scale).all() for one in made)
            if not (is_mean or is_low or is_high):
                return None
            certain |= not (is_low or is_high)
            apart = max(apart, float(((high - low) / scale).max()))
        return certain if apart > _APART else None

    def check_total(self, sums: Mapping[str, Sums]) -> None:
        """Compare ``stats.json`` with all rows."""
        for feature, own in sums.items():
            stored = self._total.get(feature)
            rows = {name: _row(stored.get(name)) for name in STATISTICS} if isinstance(stored, dict) else {}
            count = rows.get("count")
            if count is not None and count[0, 0] != own.count[:-1].sum():
                if feature == ACTION and relative_chunk(int(count[0, 0]), self._listing.length):
                    continue  # actions relative to the state, which differ on purpose
                what = f"count of {feature} is {count[0, 0]:.0f}, the dataset has {own.count[:-1].sum()} rows"
                self._faults.add(_kind_of(feature), what, file=self._place, camera=feature)
                continue
            found = own.total()
            known = {name: values for name in _COMPARED if (values := rows.get(name)) is not None}
            if len(known) < len(_COMPARED):
                continue
            if any(values.shape != known["min"].shape for values in known.values()):
                continue  # already reported
            found = self._as_stored(feature, found, known["min"].shape[1])
            if known["min"].shape != found["min"].shape:
                what = f"statistics of {feature} have {known['min'].size} numbers, its rows {own.width}"
                self._faults.add("statistics-differ", what, file=self._place, camera=feature)
                continue
            marks = _unlike(found, known)
            name = next((n for n, mark in marks.items() if mark.any()), None)
            if name is not None:
                column = int(np.argmax(marks[name]))
                which = f"[{column}]" if own.width > 1 else ""
                what = (
                    f"{name} of {feature}{which} is {found[name][0, column]:.6g} over all rows, "
                    f"{known[name][0, column]:.6g} here"
                )
                self._faults.add(_kind_of(feature), what, file=self._place, camera=feature)


def _kind_of(feature: str) -> str:
    """Return the kind of fault for statistics unlike the rows; LeRobot's edits keep those of numbering."""
    return "statistics-stale" if feature in NUMBERING else "statistics-differ"


def _row(value: Any) -> Floats | None:
    """Return a statistic of a feature as shape (1, D); None if it is invalid."""
    try:
        row = stored_numbers(value).reshape(1, -1)
    except ValueError:
        return None
    return row if value is not None and row.size and not np.isnan(row).any() else None


def _swapped(found: Mapping[str, Floats], stored: Mapping[str, Floats], among: Integers) -> dict[int, int]:
    """Return the episodes whose rows match each other's statistics: each one -> the other."""
    pairs: dict[int, int] = {}
    for at in among.tolist():
        if at in pairs:
            continue
        mine = {name: found[name][at][None] for name in _COMPARED}
        theirs = {name: stored[name][among] for name in _COMPARED}
        like = ~np.any([mark.any(axis=1) for mark in _unlike(mine, theirs).values()], axis=0)
        for other in among[like].tolist():
            theirs = {name: found[name][other][None] for name in _COMPARED}
            own = {name: stored[name][at][None] for name in _COMPARED}
            if other != at and not any(mark.any() for mark in _unlike(theirs, own).values()):
                pairs[at], pairs[other] = other, at
                break
    return pairs
