"""Rows of a parquet file whose footer was never written come back, as far as row groups are whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffenc import SourceError
from ffenc.frames.parquet import IMAGE
from ffenc.frames.parquet_footer import has_footer, with_footer
from tests.conftest import DATASET


def written(path: Path, tables: list[pa.Table], **options: object) -> bytes:
    """Write a row group for each table; returns the file without its footer, as a killed writer leaves it."""
    with pq.ParquetWriter(path, tables[0].schema, **options) as writer:
        for table in tables:
            writer.write_table(table)
    data = path.read_bytes()
    return data[: -8 - int.from_bytes(data[-8:-4], "little")]


def rows(count: int, *, first_is_boolean: bool = False) -> pa.Table:
    rng = np.random.default_rng(count)
    image = [{"bytes": rng.bytes(90_000), "path": f"frame-{n:06d}.png"} for n in range(count)]
    columns = {
        "action": pa.array(list(rng.random((count, 3), np.float32)), pa.list_(pa.float32(), 3)),
        "observation.images.top": pa.array(image, IMAGE),
        "next.done": pa.array([n == count - 1 for n in range(count)]),
        "next.success": pa.array([n % 2 == 0 for n in range(count)]),
        "text": pa.array([f"row {n}" for n in range(count)]),
        "many": pa.array(rng.random(count * 40_000), pa.float64()).slice(0, count),
        "index": pa.array(range(count), pa.int64()),
        "last": pa.array([True] * count),
    }
    table = pa.table(columns)
    return (
        table.select(["next.done", *(n for n in columns if n != "next.done")]) if first_is_boolean else table
    )


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
@pytest.mark.parametrize("first_is_boolean", [False, True])
def test_all_rows_come_back(tmp_path: Path, compression: str, first_is_boolean: bool) -> None:
    tables = [rows(count, first_is_boolean=first_is_boolean) for count in (30, 1, 12)]
    data = written(tmp_path / "whole.parquet", tables, compression=compression)
    (tmp_path / "cut.parquet").write_bytes(data)
    assert not has_footer(tmp_path / "cut.parquet")
    assert with_footer(tmp_path / "cut.parquet", tables[0].schema, tmp_path / "again.parquet") == 43
    assert has_footer(tmp_path / "again.parquet")
    file = pq.ParquetFile(tmp_path / "again.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(3)] == [30, 1, 12]
    assert file.read().equals(pa.concat_tables(tables))


def test_a_column_of_many_pages_comes_back(tmp_path: Path) -> None:
    """Where a dictionary grows too large, the writer goes on without it."""
    values = np.random.default_rng(0).random(300_000)
    table = pa.table({"a": values, "done": values > 0.5, "b": np.arange(300_000)})
    data = written(tmp_path / "whole.parquet", [table])
    (tmp_path / "cut.parquet").write_bytes(data)
    assert with_footer(tmp_path / "cut.parquet", table.schema, tmp_path / "again.parquet") == 300_000
    assert pq.read_table(tmp_path / "again.parquet").equals(table)


@pytest.mark.parametrize("share", [0.99, 0.75, 0.5])
def test_a_row_group_that_is_cut_is_left_out(tmp_path: Path, share: float) -> None:
    tables = [rows(count) for count in (30, 1, 12)]
    data = written(tmp_path / "whole.parquet", tables)
    first = pq.read_metadata(tmp_path / "whole.parquet").row_group(0)
    begin = sum(first.column(n).total_compressed_size for n in range(first.num_columns))
    (tmp_path / "cut.parquet").write_bytes(data[: begin + int((len(data) - begin) * share)])
    count = with_footer(tmp_path / "cut.parquet", tables[0].schema, tmp_path / "again.parquet")
    assert count == 31
    assert pq.read_table(tmp_path / "again.parquet").equals(pa.concat_tables(tables[:2]))


def test_what_is_no_parquet_file_or_has_other_columns_is_refused(tmp_path: Path) -> None:
    table = rows(5)
    path = tmp_path / "cut.parquet"
    path.write_bytes(b"PAR1" + bytes(1000))
    with pytest.raises(SourceError, match="contains no complete row group"):
        with_footer(path, table.schema, tmp_path / "again.parquet")
    path.write_bytes(b"text")
    with pytest.raises(SourceError, match="is not a parquet file"):
        with_footer(path, table.schema, tmp_path / "again.parquet")
    path.write_bytes(written(tmp_path / "whole.parquet", [table]))
    with pytest.raises(SourceError, match="contains no complete row group"):
        with_footer(path, pa.schema([("other", pa.int64())]), tmp_path / "again.parquet")
    assert not (tmp_path / "again.parquet").exists()


def test_rows_that_lerobot_wrote_come_back(tmp_path: Path) -> None:
    source = DATASET / "data/chunk-000/file-000.parquet"
    data = source.read_bytes()
    (tmp_path / "cut.parquet").write_bytes(data[: -8 - int.from_bytes(data[-8:-4], "little")])
    table = pq.read_table(source)
    assert with_footer(tmp_path / "cut.parquet", table.schema, tmp_path / "again.parquet") == 72
    assert pq.read_table(tmp_path / "again.parquet").equals(table)
