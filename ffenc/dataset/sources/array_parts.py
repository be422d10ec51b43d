"""Which rows of which files an episode is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ffenc.config.mapping import SourceMapping
from ffenc.dataset.sources.arrays import ArrayFile, ArrayReader
from ffenc.errors import FfencWarning, SourceError


@dataclass(frozen=True)
class Part:
    """One episode: some rows of arrays.

    Attributes:
        file: where they are.
        group: which the arrays' paths are in; "" for the root.
        first: the first row.
        length: how many.
    """

    file: ArrayFile
    group: str
    first: int
    length: int

    def place(self, path: str) -> str:
        """The path of an array from the file's root."""
        return "/".join(filter(None, (self.group, path.strip("/"))))

    def __str__(self) -> str:
        return f"{self.file.path}" + (f": {self.group}" if self.group else "")


def parts_of(files: Sequence[ArrayFile], mapping: SourceMapping) -> list[Part]:
    """The episodes of some files: each file is one, or as the mapping says.

    Raises:
        SourceError: there are none, or their ends do not ascend.
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
            elif mapping.episodes.ends is not None:
                parts += _by_ends(file, reader, mapping)
    return parts


def _by_ends(file: ArrayFile, reader: ArrayReader, mapping: SourceMapping) -> list[Part]:
    assert mapping.episodes is not None
    assert mapping.episodes.ends is not None
    info = reader.array(mapping.episodes.ends.strip("/"))
    if len(info.shape) != 1 or info.dtype.kind not in "iu" or not 0 < info.rows <= 10_000_000:
        raise SourceError(f"{file.path}: {info.path} is {info}; expected the row behind each episode's last")
    ends = reader.read(info.path, 0, info.rows).astype(np.int64)
    starts = np.concatenate([[0], ends[:-1]])
    if (wrong := np.flatnonzero(ends <= starts)).size:
        number = int(wrong[0])
        raise SourceError(
            f"{file.path}: {info.path}: episode {number} ends at row {ends[number]}, and begins at row "
            f"{starts[number]}; the ends have to ascend"
        )
    first = next(iter(mapping.cameras.values()))
    beyond = reader.array(first.path.strip("/")).rows - int(ends[-1])
    if beyond > 0:
        warnings.warn(
            f"{file.path}: {beyond:,} rows behind the last episode's end are in no episode, and left out",
            FfencWarning,
            stacklevel=3,
        )
    return [Part(file, "", int(a), int(b - a)) for a, b in zip(starts, ends, strict=True)]
