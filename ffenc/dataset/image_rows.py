"""Write rows with images: those that stand together in a file are copied, the others written again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from ffenc.dataset.columns import WRITTEN, fitted, image_parts
from ffenc.frames.parquet import ParquetImages, RowRange, images_here
from ffenc.frames.parquet_copy import CopyingWriter, CopySource
from ffenc.frames.sources import FrameSource

ImageRows = tuple[pa.Table, Mapping[str, FrameSource]]
"""An episode's rows, and camera -> its images."""


def write_image_rows(
    path: Path, schema: pa.Schema, episodes: Sequence[ImageRows], on_rows: Callable[[int], None]
) -> None:
    """Write a data file.

    Args:
        path: the file.
        schema: its columns.
        episodes: one or more, in order.
        on_rows: called with a count of rows once they are written; may raise.

    Raises:
        SourceError: an image is missing, or what holds it is damaged.
    """
    cameras = list(episodes[0][1])
    with CopyingWriter(path, schema, cameras, WRITTEN) as writer:
        for run in _runs(episodes):
            if run.place is None:
                _write(writer, schema, *episodes[run.first], on_rows)
                continue
            columns = {key: _images(frames).column for key, frames in episodes[run.first][1].items()}
            _copy(writer, schema, run.place, columns, [table for table, _ in run.of(episodes)], on_rows)


class _Run:
    """Episodes whose images follow each other in one file, as far as that is so."""

    def __init__(self, first: int, place: RowRange | None) -> None:
        self.first, self.place, self.count = first, place, 1

    def takes(self, place: RowRange | None) -> bool:
        """Add an episode, if its images follow."""
        own = self.place
        if own is None or place is None or (own.path, own.first + own.count) != (place.path, place.first):
            return False
        self.place = RowRange(own.path, own.first, own.count + place.count)
        self.count += 1
        return True

    def of(self, episodes: Sequence[ImageRows]) -> Sequence[ImageRows]:
        return episodes[self.first : self.first + self.count]


def _runs(episodes: Sequence[ImageRows]) -> list[_Run]:
    runs: list[_Run] = []
    for number, (_, images) in enumerate(episodes):
        place = _place(images)
        if not (runs and runs[-1].takes(place)):
            runs.append(_Run(number, place))
    return runs


def _place(images: Mapping[str, FrameSource]) -> RowRange | None:
    """The rows that all cameras' images are in; None where they are not kept so."""
    found = {rows for frames in images.values() if isinstance(frames, ParquetImages) for rows in frames.rows}
    kept = all(isinstance(frames, ParquetImages) for frames in images.values())
    return found.pop() if kept and len(found) == 1 else None


def _images(frames: FrameSource) -> ParquetImages:
    assert isinstance(frames, ParquetImages)
    return frames


def _copy(
    writer: CopyingWriter,
    schema: pa.Schema,
    place: RowRange,
    columns: Mapping[str, str],
    tables: Sequence[pa.Table],
    on_rows: Callable[[int], None],
) -> None:
    """Copy the row groups that are among some rows of a file; write the rows around them, by episode."""
    table = pa.concat_tables(tables)
    ends = [place.first]
    for one in tables:
        ends.append(ends[-1] + one.num_rows)
    rest = pa.schema([field for field in schema if field.name not in columns], schema.metadata)

    def rows(first: int, end: int) -> pa.Table:
        return table.slice(first - place.first, end - first)

    def write(first: int, end: int) -> None:
        for start, stop in pairwise(ends):
            low, high = max(start, first), min(stop, end)
            if low < high:
                images = {
                    key: ParquetImages([RowRange(place.path, low, high - low)], old)
                    for key, old in columns.items()
                }
                _write(writer, schema, rows(low, high), images, on_rows)

    at, end = place.first, place.first + place.count
    with images_here(place, list(columns.values())), CopySource(place.path, columns) as source:
        for group in source.groups():
            if not (at <= group.first and group.first + group.rows <= end):
                continue
            write(at, group.first)
            at = group.first + group.rows
            source.check(group)
            writer.copy(fitted(rows(group.first, at), rest), source, group)
            on_rows(group.rows)
        write(at, end)


def _write(
    writer: CopyingWriter,
    schema: pa.Schema,
    table: pa.Table,
    images: Mapping[str, FrameSource],
    on_rows: Callable[[int], None],
) -> None:
    for part in image_parts(table, images):
        writer.write(fitted(part, schema))
        on_rows(part.num_rows)
