"""Rows are read by the row groups that hold them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffenc import SourceError
from ffenc.dataset.lerobot_v3 import _numbers
from ffenc.dataset.row_checks import episode_rows
from ffenc.dataset.row_tables import row_tables, runs_of_rows
from ffenc.dataset.videos import videos_of
from ffenc.layout import VIDEO_PATH
from tests.support.read import open_below

LENGTHS = (3, 1, 4, 2, 5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """One row group an episode, as LeRobot writes them."""
    path = tmp_path / "file-000.parquet"
    writer, first = None, 0
    for episode, length in enumerate(LENGTHS):
        frames = list(range(length))
        table = pa.table(
            {
                "episode_index": [episode] * length,
                "frame_index": frames,
                "timestamp": [frame / 10 for frame in frames],
                "index": [first + frame for frame in frames],
                "task_index": [0] * length,
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
        first += length
    assert writer is not None
    writer.close()
    return path


def test_a_file_with_an_error_is_closed_while_the_error_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"frame_index": [0, 1]}), path)
    kept = []
    for read in (
        lambda: videos_of(tmp_path, "observation.images.top", VIDEO_PATH),
        lambda: list(_numbers(path, ["length"])),
        lambda: list(row_tables(path, (), features=["action"])),
    ):
        with pytest.raises(SourceError, match="has no column") as caught:
            read()
        kept.append(caught)
        assert not open_below(tmp_path)


@pytest.mark.parametrize(
    ("places", "groups"),
    [
        ([(0, 15)], [0, 1, 2, 3, 4]),
        ([(3, 1)], [1]),
        ([(10, 5), (0, 3)], [0, 4]),
        ([(2, 2)], [0, 1]),
        ([(4, 4), (4, 4)], [2]),
        ([(8, 0)], []),
        ([], []),
    ],
)
def test_only_the_row_groups_of_the_places_are_read(
    file: Path, places: list[tuple[int, int]], groups: list[int]
) -> None:
    read = [table["episode_index"].unique().to_pylist() for table in row_tables(file, (), places=places)]
    assert read == [[group] for group in groups]


def test_each_episode_is_one_run_however_its_rows_are_read(file: Path) -> None:
    runs = list(runs_of_rows(file, ("task_index",), [(0, 3), (4, 4), (8, 2)]))
    found = {run["episode_index"][0].as_py(): run["index"].to_pylist() for run in runs}
    assert {number: found[number] for number in (0, 2, 3)} == {0: [0, 1, 2], 2: [4, 5, 6, 7], 3: [8, 9]}
    assert all(
        run["episode_index"].unique().to_pylist() == [number] for number, run in zip(found, runs, strict=True)
    )
    assert "task_index" not in runs[0].column_names


@pytest.mark.parametrize("last", [1, 1 << 40])
def test_the_episodes_of_unreadable_rows_are_those_that_they_can_be_of(tmp_path: Path, last: int) -> None:
    """The footer names the first and the last episode; there are no more episodes than rows."""
    path = tmp_path / "file-000.parquet"
    columns = {name: [0, 0] for name in ("frame_index", "index", "task_index")}
    table = pa.table({"episode_index": [0, last], "timestamp": [0.0, 0.0], **columns})
    pq.write_table(table, path, write_page_checksum=True, use_dictionary=False, compression=None)
    times = pq.read_metadata(path).row_group(0).column(1)
    data = bytearray(path.read_bytes())
    data[times.data_page_offset + times.total_compressed_size - 1] ^= 0xFF
    path.write_bytes(data)
    if last == 1:
        found = episode_rows(path, 10.0, (), 1)
        assert list(found) == [0, 1]
        assert all("cannot be read" in (own.wrong or "") for own in found.values())
    else:
        with pytest.raises(SourceError, match="cannot be read"):
            episode_rows(path, 10.0, (), 1)
