"""Exact quantiles over all rows of a dataset.

LeRobot stores the mean of the episodes' quantiles, weighted by length: in one dataset the q99 of an action
was 0.35 instead of 0.60, and policies normalise by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.codecs.suggest import accepted
from ffenc.dataset.columns import numbers_of
from ffenc.errors import ConfigError, SourceError
from ffenc.layout import QUANTILES
from ffenc.spelling import argument

StatsChoice = Literal["exact", "keep"]

_ROWS = 1 << 16  # rows read at once
HELD_BYTES = 256 << 20  # of values in memory; a larger feature is read once for each of its numbers


def wants_exact(choice: StatsChoice, *, combined: bool) -> bool:
    """Return whether quantiles of all rows are computed.

    Args:
        choice: ``exact``; or ``keep``: the mean of the episodes' quantiles.
        combined: whether the rows of the result differ from those of the source's statistics.

    Raises:
        ConfigError: an unknown choice, or one without effect.
    """
    if choice not in ("exact", "keep"):
        raise ConfigError(f"stats={choice!r} is not accepted{accepted(choice, ('exact', 'keep'))}")
    if choice == "keep" and not combined:
        raise ConfigError(
            f"{argument('stats', 'keep')} would have no effect: the result has all rows of its "
            "source and keeps the statistics; leave it out"
        )
    return choice == "exact"


def exact_quantiles(files: Sequence[Path], feature: str) -> dict[str, list[float]]:
    """Compute the quantiles of a feature over all rows of a dataset.

    Args:
        files: the data files, of which only the feature's column is read.
        feature: its name; a column of numbers, shape ``(N,)`` or ``(N, ..., D)``.

    Returns:
        ``q01`` ... ``q99`` -> D numbers, each over all other dimensions, linear between ranks, as in
        ``numpy.quantile``.

    Raises:
        SourceError: a file cannot be read, or has no rows.
    """
    parts: list[npt.NDArray[Any]] = []
    held = width = 0
    for part in _tables(files, feature):
        parts.append(part)
        held, width = held + part.nbytes, part.shape[1]
        if held > HELD_BYTES and width > 1:
            break
    if not width:
        raise SourceError(f"{files[0] if files else feature}: has no rows of {feature}")
    wanted = list(QUANTILES.values())
    if held > HELD_BYTES and width > 1:
        parts.clear()
        columns = (
            np.concatenate([part[:, number].copy() for part in _tables(files, feature)])
            for number in range(width)
        )
    else:
        whole = np.concatenate(parts)
        parts.clear()
        columns = (whole[:, number] for number in range(width))
    found = [np.quantile(column.astype(np.float64), wanted) for column in columns]
    return {name: [float(own[place]) for own in found] for place, name in enumerate(QUANTILES)}


def feature_rows(files: Sequence[Path], feature: str) -> Iterator[npt.NDArray[Any]]:
    """Yield the values of a feature, a limited number of rows at a time.

    Args:
        files: the data files, of which only the feature's column is read.
        feature: its name.

    Yields:
        shape ``(N,)`` or ``(N, ..., D)``.

    Raises:
        SourceError: a file cannot be read.
    """
    for path in files:
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                for batch in file.iter_batches(_ROWS, columns=[feature]):
                    values = numbers_of(pa.chunked_array([batch.column(0)]))
                    if values.size:
                        yield values
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path}: cannot be read: {error}") from None


def _tables(files: Sequence[Path], feature: str) -> Iterator[npt.NDArray[Any]]:
    """Yield the values of :func:`feature_rows` in shape (M, D), M over all dimensions but the last."""
    for values in feature_rows(files, feature):
        yield values.reshape(-1, 1 if values.ndim == 1 else values.shape[-1])
