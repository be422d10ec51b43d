"""Statistics of table columns, and aggregates of episodes' statistics, as LeRobot stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.frames.statistics import Stats
from ffenc.layout import QUANTILES

Array = npt.NDArray[np.float64]
ACTION = "action"


def column_stats(columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, Stats]:
    """Compute min, max, mean, std, count and quantiles of columns over their rows.

    The quantiles of all columns are computed together: a numpy call costs more than the values of a short
    episode.

    Args:
        columns: name -> shape ``(N,)`` or ``(N, ..., D)``, N of 1 or more, any number type.

    Returns:
        Name -> lists of D numbers, each over all other dimensions, as in LeRobot; ``count`` is ``[N]``.
    """
    tables_of: dict[int, dict[str, Array]] = {}  # by number of rows
    for key, values in columns.items():
        table = _columns(values)
        tables_of.setdefault(len(table), {})[key] = table
    quantiles: dict[str, Array] = {}
    for tables in tables_of.values():
        ends = np.cumsum([table.shape[1] for table in tables.values()])[:-1]
        together = np.concatenate(list(tables.values()), axis=1)
        found = np.quantile(together, list(QUANTILES.values()), axis=0)
        quantiles |= zip(tables, np.split(found, ends, axis=1), strict=True)
    return {
        key: moments(values) | dict(zip(QUANTILES, quantiles[key].tolist(), strict=True))
        for key, values in columns.items()
    }


def _columns(values: npt.NDArray[Any]) -> Array:
    return np.asarray(values, np.float64).reshape(-1, 1 if values.ndim == 1 else values.shape[-1])


def moments(values: npt.NDArray[Any]) -> Stats:
    """Compute the statistics of :func:`column_stats` without quantiles; they can be aggregated exactly."""
    table = _columns(values)
    return {
        "min": table.min(axis=0).tolist(),
        "max": table.max(axis=0).tolist(),
        "mean": table.mean(axis=0).tolist(),
        "std": table.std(axis=0).tolist(),
        "count": [len(values)],
    }


def relative_chunk(count: int, lengths: Sequence[int] | npt.NDArray[np.int64]) -> int | None:
    """Return the chunk length of statistics of relative actions.

    LeRobot's ``recompute_stats(relative_action=True)`` replaces the statistics of ``action`` in
    ``stats.json`` by those of the differences to the state over all chunks of consecutive rows; only their
    count shows it.

    Args:
        count: count of the statistics.
        lengths: number of rows of each episode.

    Returns:
        The length; None if no chunk length gives this count, or it is the number of rows.
    """
    rows = np.asarray(lengths, np.int64)
    if not rows.size or count == rows.sum():
        return None
    chunks = [c for c in range(2, int(rows.max()) + 1) if count % c == 0]
    return next((c for c in chunks if int(np.maximum(rows - c + 1, 0).sum()) * c == count), None)


_MOST_ROWS = 2.0**53


def stored_numbers(value: Any) -> Array:
    """Return a statistic that was read from a file as an array.

    Raises:
        ValueError: not a number, or lists of numbers of different lengths.
    """
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        text = repr(value)[:60]
        raise ValueError(f"{text} is neither a number nor a list of numbers") from None


class Aggregate:
    """The aggregate of many episodes' statistics, which are added one by one.

    Weighted by count: min, max, mean and std are those of all rows; quantiles are the weighted mean of the
    episodes' quantiles, as in LeRobot.
    """

    def __init__(self) -> None:
        self._count = 0
        self._low = self._high = self._squares = np.zeros(0)
        self._means: dict[str, Array] = {}

    @property
    def empty(self) -> bool:
        """Whether no episode was added."""
        return not self._count

    def add(self, stats: Mapping[str, Any]) -> None:
        """Add one episode's statistics.

        Raises:
            ValueError: one of min, max, mean, std or count is missing or invalid.
        """
        missing = [name for name in ("min", "max", "mean", "std", "count") if stats.get(name) is None]
        if missing:
            raise ValueError(f"no {missing[0]}")
        counts = stored_numbers(stats["count"]).reshape(-1)
        if not (counts.size and 1 <= counts[0] < _MOST_ROWS):
            raise ValueError(f"count is {counts[0] if counts.size else 'empty'}")
        count = int(counts[0])
        values = {k: stored_numbers(v) for k, v in stats.items() if k != "count" and v is not None}
        shape = self._low.shape if self._count else values["min"].shape
        unlike = next((name for name, value in values.items() if value.shape != shape), None)
        if unlike is not None:
            raise ValueError(f"{unlike} is of shape {values[unlike].shape}; expected {shape}")
        low, high, std = (values.pop(name) for name in ("min", "max", "std"))
        if not self._count:
            self._low, self._high, self._means, self._squares = low, high, values, std**2 * count
        else:
            share = count / (self._count + count)
            shift = values["mean"] - self._means["mean"]
            # Squared differences from the mean: squares of large values would lose precision.
            self._squares = self._squares + std**2 * count + shift**2 * (self._count * share)
            common = set(values) & set(self._means)
            self._means = {k: self._means[k] + (values[k] - self._means[k]) * share for k in common}
            self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
        self._count += count

    def result(self) -> Stats:
        """Return the aggregate; at least one episode must have been added."""
        stats: Stats = {
            "min": self._low.tolist(),
            "max": self._high.tolist(),
            "mean": self._means["mean"].tolist(),
            "std": np.sqrt(self._squares / self._count).tolist(),
            "count": [self._count],
        }
        return stats | {k: self._means[k].tolist() for k in sorted(self._means) if k != "mean"}
