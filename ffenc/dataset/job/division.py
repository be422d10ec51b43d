"""Division of a job's tables into files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.dataset.model import Episode
from ffenc.dataset.source import DatasetSource


class Division:
    """Divides tables into files, each up to a size, and with one schema.

    Args:
        limit: size in bytes up to which a file grows.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._number, self._size = 0, 0
        self._schema: pa.Schema | None = None

    def of(self, table: pa.Table, size: int | None = None) -> int:
        """Return the number of the file for the next table, of ``size`` bytes.

        Default: its size without compression, which is an upper bound.
        """
        size = table.nbytes if size is None else size
        self._size += size
        changed = self._schema is not None and not table.schema.equals(self._schema)
        if self._schema is not None and (changed or self._size > self._limit):
            self._number, self._size = self._number + 1, size
        self._schema = table.schema
        return self._number


class RowDivision:
    """Divides the rows of a source's episodes into files.

    A file of the source with several episodes stays one file. With ``together``, small files are combined up
    to the size limit. Files with images are not divided, unless they are larger than the limit, so that their
    pages can be copied.

    Args:
        source: the source.
        images: cameras whose images are in the rows of the result.
        limit: size in bytes up to which a file grows.
        together: combine small files.
    """

    def __init__(self, source: DatasetSource, images: Sequence[str], limit: float, *, together: bool) -> None:
        self._source, self._images, self._limit, self._together = source, images, limit, together
        self._division = Division(limit)
        self._rows_in = lru_cache(maxsize=None)(lambda path: pq.read_metadata(path).num_rows)
        self._path: Path | None = None
        self._number = self._left = 0

    def of(self, episode: Episode, table: pa.Table) -> int:
        """Return the number of the file for an episode.

        Args:
            episode: the episode.
            table: its rows as they are written, without images.
        """
        path = episode.file
        if path is None or (self._together and not self._images):
            images = sum(self._source.camera_bytes(camera, [episode.ref]) for camera in self._images)
            return self._division.of(table, table.nbytes + images)
        if not self._together:
            self._number += self._path not in (None, path)
            self._path = path
            return self._number
        size, rows = path.stat().st_size, self._rows_in(path)
        if size > self._limit:
            return self._division.of(table, size * episode.length // rows)
        if path != self._path or not self._left:  # a dataset that is merged twice repeats its files
            self._number, self._path, self._left = self._division.of(table, size), path, rows
        self._left -= episode.length
        return self._number
