"""Statistics of table columns, and the aggregate of episodes' statistics, as LeRobot keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.frames.statistics import QUANTILES, Stats

Array = npt.NDArray[np.float64]


def column_stats(values: npt.NDArray[Any]) -> Stats:
    """Compute min, max, mean, std, count and quantiles over rows.

    Args:
        values: shape ``(N,)`` or ``(N, D)``, N of 1 or more, any number type.

    Returns:
        lists of one number a column; ``count`` is ``[N]``.
    """
    table = np.asarray(values, np.float64).reshape(len(values), -1)
    stats: Stats = {
        "min": table.min(axis=0).tolist(),
        "max": table.max(axis=0).tolist(),
        "mean": table.mean(axis=0).tolist(),
        "std": table.std(axis=0).tolist(),
        "count": [len(table)],
    }
    for name, quantile in QUANTILES.items():
        stats[name] = np.quantile(table, quantile, axis=0).tolist()
    return stats


class Aggregate:
    """The statistics of many episodes together, added one by one.

    Count-weighted: min, max, mean and std are those of all rows; quantiles are the weighted mean of the
    episodes' quantiles, which is LeRobot's definition too.
    """

    def __init__(self) -> None:
        self._count = 0
        self._sums: dict[str, Array] = {}

    def add(self, stats: Mapping[str, Any]) -> None:
        """Add one episode's statistics.

        Raises:
            ValueError: one of min, max, mean, std or count is missing.
        """
        missing = [name for name in ("min", "max", "mean", "std", "count") if stats.get(name) is None]
        if missing:
            raise ValueError(f"no {missing[0]}")
        count = int(np.asarray(stats["count"]).reshape(-1)[0])
        values = {k: np.asarray(v, np.float64) for k, v in stats.items() if k != "count" and v is not None}
        sums = {k: v * count for k, v in values.items() if k not in ("min", "max", "std")}
        sums["square"] = (values["std"] ** 2 + values["mean"] ** 2) * count
        if not self._count:
            self._sums = sums | {"min": values["min"], "max": values["max"]}
        else:
            common = set(sums) & set(self._sums)
            merged = {k: self._sums[k] + sums[k] for k in common}
            self._sums = merged | {
                "min": np.minimum(self._sums["min"], values["min"]),
                "max": np.maximum(self._sums["max"], values["max"]),
            }
        self._count += count

    def result(self) -> Stats:
        """Return the aggregate; at least one episode must have been added."""
        means = {k: v / self._count for k, v in self._sums.items() if k not in ("min", "max")}
        variance = means.pop("square") - means["mean"] ** 2
        stats: Stats = {
            "min": self._sums["min"].tolist(),
            "max": self._sums["max"].tolist(),
            "mean": means.pop("mean").tolist(),
            "std": np.sqrt(np.maximum(variance, 0)).tolist(),
            "count": [self._count],
        }
        return stats | {k: means[k].tolist() for k in sorted(means)}
