"""Find the file and the rows of each episode."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from ffenc.config.mapping import SourceMapping
from ffenc.dataset.sources.arrays import ArrayFile, ArrayInfo, ArrayReader
from ffenc.errors import FfencWarning, SourceError

MOST_ROWS = 10_000_000  # of an episode, and of an array with the ends of episodes


class Part(Struct, frozen=True):
    """One episode: a range of rows of arrays.

    Attributes:
        file: file with the arrays.
        group: group that the arrays' paths are relative to; "" for the root.
        first: the first row.
        length: number of rows.
    """

    file: ArrayFile
    group: str
    first: int
    length: int

    def place(self, path: str) -> str:
        """Return the path of an array from the file's root."""
        return "/".join(filter(None, (self.group, path.strip("/"))))

    def __str__(self) -> str:
        return f"{self.file.path}" + (f": {self.group}" if self.group else "")


def parts_of(files: Sequence[ArrayFile], mapping: SourceMapping) -> list[Part]:
    """Return the episodes of some files: each file is one, unless the mapping says otherwise.

    Raises:
        SourceError: the files contain no episode, or the ends of episodes do not ascend.
    """
    parts: list[Part] = []
    for file in files:
        if mapping.episodes is None:
            parts.append(Part(file, "", 0, 0))
            continue
        with file.open() as reader:
            if (pattern := mapping.episodes.groups) is not None:
                groups = reader.groups(pattern)
                if not groups:
                    raise SourceError(f"{file.path}: no group matches episodes.groups, {pattern!r}")
                parts += [Part(file, group, 0, 0) for group in groups]
            else:
                parts += _by_rows(file, reader, mapping)
    return parts


def warn_of_missing_chunks(info: ArrayInfo, reader: ArrayReader, what: str, *, stacklevel: int) -> None:
    """Warn of the chunks of an array that are not stored, whose values are the fill value.

    Args:
        info: the array.
        reader: the open file.
        what: what has the fill value, for the message.
        stacklevel: as for ``warnings.warn``.
    """
    if missing := reader.missing_chunks(info.path):
        warnings.warn(
            f"{reader.path}: {info.path}: {missing:,} chunks are not in the file; their {what}",
            FfencWarning,
            stacklevel=stacklevel + 1,
        )


def _by_rows(file: ArrayFile, reader: ArrayReader, mapping: SourceMapping) -> list[Part]:
    """Return the episodes that are ranges of rows."""
    episodes = mapping.episodes
    assert episodes is not None
    name = next(name for name in ("ends", "values", "last") if getattr(episodes, name) is not None)
    info = reader.array(getattr(episodes, name).strip("/"))
    where = f"{file.path}: {info.path}"
    wanted = {
        "ends": ("the row after each episode's last", "iu"),
        "values": ("one value a row", "biuSUOT"),
        "last": ("one truth value a row", "biuf"),
    }
    what, kinds = wanted[name]
    if len(info.shape) != 1 or info.dtype.kind not in kinds or not 0 < info.rows <= MOST_ROWS:
        raise SourceError(f"{where} is {info}", expected=f"{what}")
    warn_of_missing_chunks(info, reader, "values are the fill value (0 by default)", stacklevel=3)
    values = reader.read(info.path, 0, info.rows)
    if name == "ends":
        stops = values.astype(np.int64)
        starts = np.concatenate([[0], stops[:-1]])
    elif name == "last":
        stops = np.flatnonzero(values) + 1
        starts = np.concatenate([[0], stops[:-1]])
    else:
        changes = np.flatnonzero(values[1:] != values[:-1]) + 1
        starts, stops = np.concatenate([[0], changes]), np.concatenate([changes, [info.rows]])
        if values.dtype == np.bool_:
            starts, stops = starts[values[starts]], stops[values[starts]]
    if not len(stops):
        raise SourceError(f"{where}: is false in all {info.rows:,} rows, so there is no episode")
    if (wrong := np.flatnonzero(stops <= starts)).size:
        number = int(wrong[0])
        raise SourceError(
            f"{where}: episode {number} ends at row {stops[number]}, but begins at row "
            f"{starts[number]}; the ends have to ascend"
        )
    paths = [camera.path for camera in mapping.cameras.values()]
    paths += [path for feature in mapping.features.values() for path in feature.paths]
    rows = {path: reader.array(path.strip("/")).rows - int(stops[-1]) for path in paths}
    beyond = {path: count for path, count in rows.items() if count > 0}
    if beyond:
        alike = len(beyond) == len(rows) and len(set(beyond.values())) == 1
        each = [f"{count:,} rows of {path}" for path, count in beyond.items()]
        what = f"{max(beyond.values()):,} rows" if alike else ", ".join(each)
        warnings.warn(
            f"{file.path}: {what} after the end of the last episode are in no episode, and are left out",
            FfencWarning,
            stacklevel=3,
        )
    return [Part(file, "", int(a), int(b - a)) for a, b in zip(starts, stops, strict=True)]
