"""Write rows with images: row groups that stay together are copied, others are encoded again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from ffenc.dataset.columns import WRITTEN, fitted, image_parts
from ffenc.frames.parquet import IMAGE, ParquetImages, RowRange, images_here
from ffenc.frames.parquet_copy import CopyingWriter, CopySource
from ffenc.frames.sources import FrameSource

ImageRows = tuple[pa.Table, Mapping[str, FrameSource]]
"""An episode's rows, and camera -> its images."""


def write_image_rows(
    path: Path, schema: pa.Schema, episodes: Iterable[ImageRows], on_rows: Callable[[int], None]
) -> None:
    """Write a data file.

    Args:
        path: the file.
        schema: its columns.
        episodes: in order; those whose images are not copied are read one by one as they are written.
        on_rows: called with the number of rows after they are written; may raise.

    Raises:
        SourceError: an image is missing, or its file is damaged.
    """
    cameras = [field.name for field in schema if field.type == IMAGE]
    with CopyingWriter(path, schema, cameras, WRITTEN) as writer:
        for place, run in _runs(episodes):
            if place is None:
                for table, images in run:
                    _write(writer, schema, table, images, on_rows)
                continue
            columns = {key: _images(frames).column for key, frames in run[0][1].items()}
            _copy(writer, schema, place, columns, [table for table, _ in run], on_rows)


def _runs(episodes: Iterable[ImageRows]) -> Iterator[tuple[RowRange | None, list[ImageRows]]]:
    """Yield episodes whose images are consecutive in a file together, with their place; others one by one."""
    run: list[ImageRows] = []
    place: RowRange | None = None
    for one in episodes:
        own = _place(one[1])
        if place and own and (place.path, place.first + place.count) == (own.path, own.first):
            place = RowRange(place.path, place.first, place.count + own.count)
            run.append(one)
            continue
        if run:
            yield place, run
        place, run = own, [one]
    if run:
        yield place, run


def _place(images: Mapping[str, FrameSource]) -> RowRange | None:
    """Return the rows that contain all cameras' images; None if they are not stored in such rows."""
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
    """Copy the row groups inside a range of rows; write the rows around them, by episode."""
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
