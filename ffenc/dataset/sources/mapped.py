"""Combine numbers and texts of a source according to a mapping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ffenc.config.mapping import FeatureMapping
from ffenc.config.validation import SettingError
from ffenc.dataset.sources.arrays import Array
from ffenc.errors import ConfigError, SourceError
from ffenc.spelling import argument


def mapped_values(name: str, feature: FeatureMapping, arrays: Sequence[Array], where: str) -> Array:
    """Combine arrays into the values of a feature.

    Args:
        name: name of the feature.
        feature: its mapping.
        arrays: one for each of its paths, ``(N,)`` or ``(N, D)``.
        where: description of the place, for errors.

    Returns:
        Shape ``(N,)`` for one value per row, otherwise ``(N, D)``.

    Raises:
        SourceError: a number does not fit the feature's dtype; the text names the row.
        ConfigError: the selected columns do not exist.
    """
    if feature.dtype == "string" or any(array.dtype.kind == "O" for array in arrays):
        _check_text(name, feature)
        if len(arrays) > 1 or arrays[0].ndim > 1:
            raise ConfigError(
                "several values a row, of dtype string", expected="a text a row", where=f"features.{name}"
            )
        places = (f"{where}: {feature.paths[0]}, row {row}" for row in range(len(arrays[0])))
        return np.array(
            [text_of(value, place) for value, place in zip(arrays[0], places, strict=True)], object
        )
    several = [array[:, None] if array.ndim == 1 else array for array in arrays]
    values = arrays[0]
    if len(arrays) > 1:
        common = np.result_type(*several)
        for path, array in zip(feature.paths, several, strict=True):
            _converted(
                array,
                common,
                f"{where}: {path}",
                f"give it a feature of its own instead of joining it in features.{name}",
            )
        values = np.concatenate(several, 1)
    if feature.columns is not None:
        wide = values[:, None] if values.ndim == 1 else values
        try:
            values = wide[:, feature.chosen(wide.shape[1])]
        except SettingError as error:
            raise ConfigError(f"features.{name}.{error} in {', '.join(feature.paths)}") from None
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if feature.scale is not None:
        values = values * feature.scale
    wanted = np.dtype(feature.dtype or values.dtype.newbyteorder("="))
    if wanted == values.dtype:
        return values.astype(wanted, copy=False)
    advice = f"choose another dtype for features.{name}"
    return _converted(values, wanted, f"{where}: {', '.join(feature.paths)}", advice)


def _converted(values: Array, wanted: np.dtype[Any], where: str, advice: str) -> Array:
    """Return values as another dtype; only a conversion from one float to a smaller one may round.

    Raises:
        SourceError: a number cannot be converted; the text names the row.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        changed = values.astype(wanted)
        if wanted.kind == values.dtype.kind == "f":
            lost = np.isinf(changed) & ~np.isinf(values)
        else:
            # Both: a comparison converts integers to floats too.
            lost = (changed != values) | (changed.astype(values.dtype) != values)
    if lost.any():
        row = int(np.argmax(lost.reshape(len(lost), -1).any(1)))
        number = np.atleast_1d(values[row])[np.atleast_1d(lost[row])][0]
        raise SourceError(f"{where}, row {row}: {number} is not a number of dtype {wanted}; {advice}")
    return changed


def _check_text(name: str, feature: FeatureMapping) -> None:
    """Refuse settings that would have no effect on texts."""
    if feature.dtype not in (None, "string"):
        raise ConfigError(
            f"features.{name}.dtype: is {feature.dtype}, but {', '.join(feature.paths)} holds texts; leave "
            "it out"
        )
    for setting in ("columns", "scale", "interpolate"):
        if setting in feature.given and getattr(feature, setting) not in (None, False):
            raise ConfigError(f"features.{name}.{setting}: does not apply to texts; leave it out")


def check_finite(name: str, values: Array, where: str) -> None:
    """Refuse numbers that are not finite.

    Args:
        name: name of the feature.
        values: shape ``(N,)`` or ``(N, D)``; texts are accepted.
        where: description of the place, to which the row is added.

    Raises:
        SourceError: a number is NaN or infinite; the text names its row.
    """
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    wide = values.reshape(len(values), -1)
    row, place = (int(n[0]) for n in np.nonzero(~np.isfinite(wide)))
    raise SourceError(
        f"number {place} of {name} is {wide[row, place]}",
        expected="a finite number",
        where=f"{where}, row {row}",
        fix=f"restore the file, or leave the episode out with {argument('episodes')}",
    )


def text_of(value: Any, where: str) -> str:
    """Return a text of a file, which can be stored as bytes or str, or as an array of one of them.

    Args:
        value: the value as read.
        where: description of the place, for errors.

    Raises:
        SourceError: it is several values, or not UTF-8.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind == "u":
        value = value.tobytes()
    elif isinstance(value, (np.ndarray, list, tuple)):
        if np.size(value) != 1:
            raise SourceError(f"{where}: has {np.size(value)} values", expected="a single text")
        value = np.asarray(value, object).reshape(-1)[0]
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(f"{where}: {value[:40]!r} is not a text in UTF-8: {error.reason}") from None
