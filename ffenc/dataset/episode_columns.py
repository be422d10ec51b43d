"""Columns of a recorded episode: accepted features, and values as Arrow tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ffenc.dataset.columns import dtype_of
from ffenc.dataset.fitting import GrowingCamera
from ffenc.errors import ConfigError, SourceError
from ffenc.layout import (
    DEFAULT_FEATURES,
)

# Types of a row's values; a text is a single value.
RECORDED_TYPES = (
    *("float32", "float64", "float16", "bool", "string"),
    *(f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "u")),
)


def column_as(column: pa.ChunkedArray, kind: pa.DataType, name: str) -> pa.Array:
    """Return a column as another type: numbers, or lists with the same number of numbers in each row.

    Raises:
        ConfigError: a row has no value or another length, or a value does not fit the type.
    """
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # pyarrow 15 to 17, if there are several chunks
        array = pa.concat_arrays(array.chunks)
    try:
        if array.null_count:
            raise ConfigError(f"the episode's column {name} has {array.null_count} rows without a value")
        nested = _dimensions(array.type), _dimensions(kind)
        if nested in ((1, 0), (1, 1)):
            import pyarrow.compute as pc  # noqa: PLC0415 - slow to load

            widths = pc.unique(pc.list_value_length(array)).to_pylist()
            wanted = (
                1 if nested[1] == 0 else kind.list_size if pa.types.is_fixed_size_list(kind) else widths[0]
            )
            if widths != [wanted]:
                raise ConfigError(
                    f"the episode's column {name} has rows of {widths} numbers, not of {wanted}"
                )
            array = array.flatten()
            if array.null_count:
                raise ConfigError(
                    f"the episode's column {name} has {array.null_count} numbers without a value"
                )
            if nested[1]:
                array = pa.FixedSizeListArray.from_arrays(array, wanted)
        elif nested == (0, 1):
            array = pa.FixedSizeListArray.from_arrays(array, 1)
        return array.cast(kind)
    except (pa.ArrowException, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"the episode's column {name} is {column.type}, not {kind}: {error}") from None


def _dimensions(kind: pa.DataType) -> int:
    count = 0
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
        kind, count = kind.value_type, count + 1
    return count


def fitted_list_row(row: pa.Table, schema: pa.Schema, root: Path) -> pa.Table:
    """Return an episode's row for an existing episode list, with that list's columns.

    Args:
        row: as written to a new dataset.
        schema: schema of the list.
        root: the dataset.

    Raises:
        ConfigError: a statistic is missing.
        SourceError: a column does not support the value.
    """
    values = row.to_pylist()[0]
    arrays = []
    for wanted in schema:
        value = values.get(wanted.name)
        if wanted.name.startswith("stats/"):
            value = _shaped(value, _dimensions(wanted.type), wanted.name)
        try:
            arrays.append(pa.array([value], wanted.type))
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise SourceError(
                f"{root}: the episode list's column {wanted.name} is {wanted.type}, which cannot hold "
                f"{value!r}: {error}"
            ) from None
    return pa.table(arrays, schema=schema)


def _shaped(value: Any, dimensions: int, name: str) -> Any:
    """Return a statistic with as many dimensions as the others of its column."""
    if value is None:
        raise ConfigError(f"the episode has no {name}, which the other episodes have")
    array = np.asarray(value)
    if array.ndim != dimensions:
        array = array.reshape(-1, *([1] * (dimensions - 1))) if dimensions else array.reshape(-1)[0]
    return array.tolist()


def row_table(values: Mapping[str, Sequence[Any]], features: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    """Return recorded values as columns: one value per row, or lists of one length.

    Args:
        values: feature -> one value per row; a feature without values has no rows.
        features: descriptions accepted by :func:`check_features`.
    """
    columns: dict[str, pa.Array] = {}
    for name, feature in features.items():
        kind = pa.type_for_alias(str(feature["dtype"]))
        wide = list(feature["shape"]) != [1]
        given = values.get(name, [])
        if pa.types.is_float16(kind):  # before 21, pyarrow only converts NumPy's float16
            numbers = pa.array(np.asarray(given, np.float16).reshape(-1), kind)
            columns[name] = (
                pa.FixedSizeListArray.from_arrays(numbers, feature["shape"][0]) if wide else numbers
            )
        else:
            columns[name] = pa.array(given, pa.list_(kind, feature["shape"][0]) if wide else kind)
    return pa.table(columns)


def check_features(features: Mapping[str, Mapping[str, Any]], cameras: Mapping[str, Any]) -> None:
    """Refuse descriptions of columns that cannot be recorded.

    Args:
        features: LeRobot's descriptions of the recorded columns.
        cameras: by the names of their features, which no column may have.

    Raises:
        ConfigError: names the column, the faulty description and what is expected.
    """
    if not isinstance(features, Mapping):
        raise ConfigError(f"features: {features!r} is not accepted; pass a mapping of names to descriptions")
    for key, feature in features.items():
        if not isinstance(key, str) or key in cameras or key in DEFAULT_FEATURES or "/" in key or not key:
            raise ConfigError(
                f"a column cannot be called {key!r}: LeRobot reserves "
                f"{', '.join(DEFAULT_FEATURES)} and the cameras' names, and does not accept / in a name"
            )
        shape = feature.get("shape") if isinstance(feature, Mapping) else None
        if not (isinstance(shape, (list, tuple)) and all(type(n) is int and n > 0 for n in shape)):
            raise ConfigError(
                f"feature {key} is {feature!r}", expected="a dtype such as float32 and a shape such as [6]"
            )
        if feature.get("dtype") not in RECORDED_TYPES:
            raise ConfigError(
                f"dtype {feature.get('dtype')!r} of {key} is not recorded; accepted: "
                + ", ".join(RECORDED_TYPES)
            )
        if len(shape) != 1 or (feature["dtype"] == "string" and shape[0] != 1):
            one = "a text" if feature["dtype"] == "string" else "numbers in one dimension"
            raise ConfigError(
                f"shape {list(shape)} of {key} is not recorded: {one} is; give the row's value as such, with "
                "the shape [N]"
            )
        try:
            json.dumps(feature, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise ConfigError(f"feature {key} cannot be written as JSON: {error}") from None


def all_features(
    cameras: Mapping[str, GrowingCamera], features: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    described = {
        key: {"dtype": f["dtype"], "shape": list(f["shape"]), "names": f.get("names")}
        for key, f in features.items()
    }
    return {key: camera.feature for key, camera in cameras.items()} | described | DEFAULT_FEATURES


def features_of_table(table: pa.Table) -> dict[str, dict[str, Any]]:
    """Return descriptions of the columns of a dataset's first episode."""
    features = {}
    for name in table.column_names:
        kind, width = table.schema.field(name).type, 1
        if pa.types.is_nested(kind):
            width = len(table[name][0])
            kind = kind.value_type
        dtype = "string" if pa.types.is_large_string(kind) else dtype_of(kind)
        features[name] = {"dtype": dtype, "shape": [width], "names": None}
    return features
