"""The rows of an episode during its recording: a file with one line per row, readable at any moment."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from ffenc.config.texts import is_text
from ffenc.errors import ConfigError
from ffenc.layout import NUMBERING

Features = dict[str, dict[str, Any]]
STATE, ACTION = "observation.state", "action"
_MOST = 1e150  # of a float64, so that the sum of all rows' squares is finite
_KINDS = {"f": "float32", "i": "int64", "u": "int64", "b": "bool", "U": "string"}


class Rows(Struct):
    """The recorded values of an episode, without frames.

    Attributes:
        count: number of rows.
        values: feature -> one value per row.
        timestamps: camera -> time of its frame in each row, in seconds; None if unknown.
        repeated: camera -> the rows that repeat the previous frame.
        dropped: dropped rows: index of the next row, number of the frame since the start, and the cameras
            whose queues were full.
    """

    count: int = 0
    values: dict[str, list[Any]] = field(default_factory=dict)
    timestamps: dict[str, list[float | None]] = field(default_factory=dict)
    repeated: dict[str, list[int]] = field(default_factory=dict)
    dropped: list[dict[str, Any]] = field(default_factory=list)

    def first(self, count: int) -> Rows:
        """Return the first ``count`` rows, with all that belongs to them."""
        return Rows(
            count,
            {name: values[:count] for name, values in self.values.items()},
            {name: stamps[:count] for name, stamps in self.timestamps.items()},
            {name: kept for name, rows in self.repeated.items() if (kept := [r for r in rows if r < count])},
            [one for one in self.dropped if one["row"] < count],
        )

    def notes(self) -> dict[str, Any]:
        """Return the notes that are stored for the episode."""
        notes: dict[str, Any] = {"dropped": self.dropped, "repeated": self.repeated}
        if any(stamp is not None for stamps in self.timestamps.values() for stamp in stamps):
            notes["timestamps"] = self.timestamps
        return notes


class RowLog:
    """Appends rows to a file, each with one system call, so that they survive a crash of the program.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def row(
        self, values: Mapping[str, Any], timestamps: Mapping[str, float | None], repeated: Sequence[str]
    ) -> None:
        """Append one row."""
        line: dict[str, Any] = {"values": values}
        if any(stamp is not None for stamp in timestamps.values()):
            line["timestamps"] = timestamps
        if repeated:
            line["repeated"] = repeated
        self._append(line)

    def dropped(self, row: int, frame: int, cameras: Sequence[str]) -> None:
        """Record that a row was dropped."""
        self._append({"dropped": {"row": row, "frame": frame, "cameras": list(cameras)}})

    def _append(self, line: Mapping[str, Any]) -> None:
        if not os.fstat(self._file).st_nlink:
            raise FileNotFoundError(2, "it was deleted", str(self.path))
        data = (json.dumps(line, separators=(",", ":")) + "\n").encode()
        if (written := os.write(self._file, data)) != len(data):
            os.ftruncate(self._file, os.lseek(self._file, 0, os.SEEK_END) - written)
            raise OSError(28, "No space left on device", str(self.path))

    def close(self) -> None:
        """Flush the file to disk and close it."""
        if self._file < 0:
            return
        file, self._file = self._file, -1
        try:
            os.fsync(file)
        finally:
            os.close(file)


def read_rows(path: Path, features: Features | None = None) -> Rows:
    """Read the rows of a file, up to the first line that is incomplete or invalid.

    Args:
        path: the file.
        features: expected features of a row; None: not checked.
    """
    rows = Rows()
    with path.open("rb") as file:
        for data in file:
            try:
                if not data.endswith(b"\n"):
                    break
                line = json.loads(data)
                if "dropped" in line:
                    row, frame, cameras = (line["dropped"][name] for name in ("row", "frame", "cameras"))
                    rows.dropped.append(
                        {"row": int(row), "frame": int(frame), "cameras": [str(name) for name in cameras]}
                    )
                    continue
                values, stamps = dict(line["values"]), dict(line.get("timestamps", {}))
                stamps = {name: float(one) if one is not None else None for name, one in stamps.items()}
                repeated = [str(name) for name in line.get("repeated", ())]
                if features is not None:
                    values = checked_row(values, features)
            except (ValueError, TypeError, LookupError, ConfigError):
                break
            for name, value in values.items():
                rows.values.setdefault(name, []).append(value)
            for name, stamp in stamps.items():
                rows.timestamps.setdefault(name, [None] * rows.count).append(stamp)
            for name in repeated:
                rows.repeated.setdefault(name, []).append(rows.count)
            rows.count += 1
            for own in rows.timestamps.values():
                own += [None] * (rows.count - len(own))
    return rows


def features_of_row(row: Mapping[str, Any]) -> Features:
    """Return LeRobot's description of a row's values.

    Floats become float32 and integers int64, of the same shape; a text becomes a string.

    Raises:
        ConfigError: a reserved name, or a value that is not a number, a text or a list of numbers.
    """
    features: Features = {}
    for name, value in row.items():
        if not isinstance(name, str) or not is_text(name):
            raise ConfigError(f"a row has a value named {name!r}", expected="a text as its name")
        if name in NUMBERING or "/" in name or not name:
            raise ConfigError(f"a row cannot have a value named {name!r}: ffenc writes that column")
        array = _array(name, value)
        kind = _KINDS.get(array.dtype.kind)
        if kind is None or array.ndim > 1 or not array.size or (kind == "string" and array.ndim):
            raise ConfigError(
                f"{name}: {type(value).__name__} of shape {array.shape} is not accepted; a row holds "
                "numbers, lists of numbers (flatten arrays of more dimensions) and texts"
            )
        features[name] = {"dtype": kind, "shape": [array.size], "names": None}
    return features


def checked_row(row: Mapping[str, Any], features: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a row's values as they are stored, after checking them against the features.

    Raises:
        ConfigError: a value is missing, unknown, or of another shape or type; the text names it.
    """
    if set(row) != set(features):
        missing, more = sorted(set(features) - set(row)), sorted(set(row) - set(features))
        faults = [f"has no {', '.join(missing)}"] if missing else []
        faults += [f"has {', '.join(more)}"] if more else []
        raise ConfigError(
            f"the row {' and '.join(faults)}; all rows have {', '.join(features) or 'no values'}"
        )
    values: dict[str, Any] = {}
    for name, feature in features.items():
        dtype, size = str(feature["dtype"]), math.prod(feature["shape"])
        array = _array(name, row[name])
        if dtype == "string":
            if array.dtype.kind != "U" or array.ndim:
                raise ConfigError(f"{name}: {type(row[name]).__name__} is not accepted", expected="a text")
            if not is_text(str(row[name])):
                raise ConfigError(f"{name}: {row[name]!r} is not accepted; it cannot be written as UTF-8")
            values[name] = str(row[name])
            continue
        wanted = np.dtype(dtype)
        whole = array.dtype.kind in "iu" and wanted.kind in "iu"  # the range is checked value by value
        if array.dtype.kind not in "fiub" or not (whole or np.can_cast(array.dtype, wanted, "same_kind")):
            raise ConfigError(f"{name}: {array.dtype} is not accepted", expected=f"{dtype}")
        if array.size != size:
            raise ConfigError(f"{name}: {array.size} numbers are not accepted", expected=f"{size}")
        flat = _cast(name, array, wanted).reshape(-1).tolist()
        values[name] = flat[0] if list(feature["shape"]) == [1] else flat
    return values


def _array(name: str, value: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(value)
    except ValueError:
        raise ConfigError(f"{name}: lists of different lengths are not accepted") from None
    except Exception as error:  # converting an arbitrary object may raise anything
        raise ConfigError(f"{name}: {type(value).__name__} is not accepted: {error}") from None


def _cast(name: str, array: npt.NDArray[Any], wanted: np.dtype[Any]) -> npt.NDArray[Any]:
    """Convert numbers to another type, and refuse those that would change."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ConfigError(
            f"{name}: {array.tolist()} is not accepted: NaN and infinity spoil the statistics of "
            "the whole dataset. Pass the previous value, or leave the row out"
        )
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    if wanted.kind in "iu" and array.dtype.kind in "iu":
        limits = np.iinfo(wanted)
        beyond = int(array.min()) < limits.min or int(array.max()) > limits.max
    else:
        beyond = wanted.kind == "f" and not np.isfinite(cast).all()
    if wanted == np.float64 and bool((np.abs(cast) > _MOST).any()):
        raise ConfigError(
            f"{name}: {array.tolist()} is not accepted: statistics cannot be computed from "
            f"numbers beyond {_MOST:g}"
        )
    if beyond:
        raise ConfigError(f"{name}: {array.tolist()} is beyond the range of {wanted}")
    return cast
