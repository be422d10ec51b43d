"""Types of columns, numbers of files, and what is noticed of a source that changes."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffenc import merge_datasets, reencode_dataset, verify_dataset
from ffenc.dataset.columns import dtype_of, flat, is_numeric, kept_rows, whole_numbers
from ffenc.ffmpeg.probe import probe
from ffenc.frames.clip import Clip
from ffenc.layout import files_in_chunk
from tests.conftest import FIXTURES, TOP

ROWS = "data/chunk-000/file-000.parquet"
H264 = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "preset"), "ultrafast")]


def with_columns(root: Path, columns: dict[str, tuple[str, pa.Array]]) -> None:
    """Add features of other types to a copy of the sample: name -> dtype in info.json, and the column."""
    table = pq.read_table(root / ROWS)
    for name, (_, values) in columns.items():
        table = table.append_column(name, values)
    pq.write_table(table, root / ROWS)
    info = json.loads((root / "meta/info.json").read_text())
    for name, (dtype, _) in columns.items():
        info["features"][name] = {"dtype": dtype, "shape": [1], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))


def test_every_type_of_number_keeps_its_name_and_has_statistics(dataset_copy: Path, tmp_path: Path) -> None:
    numbers = np.linspace(-1, 1, 72)
    columns = {
        "half": ("float16", pa.array(numbers.astype(np.float16))),
        "double": ("double", pa.array(numbers)),
        "day": ("date32", pa.array(np.arange(72), pa.int32()).cast(pa.date32())),
    }
    with_columns(dataset_copy, columns)
    out = tmp_path / "out"
    reencode_dataset(dataset_copy, out, cameras=["top"], overrides=H264)
    schema = pq.read_schema(out / ROWS)
    words = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert [words[name]["dtype"] for name in columns] == ["float16", "float64", "date32"]
    assert [schema.field(name).type for name in columns] == [pa.float16(), pa.float64(), pa.date32()]
    stats = json.loads((out / "meta/stats.json").read_text())
    for name in ("half", "double"):
        assert stats[name]["min"] == [-1.0]
        assert stats[name]["max"] == [1.0]
        assert stats[name]["count"] == [72]
    assert "day" not in stats
    assert [fault.kind for fault in verify_dataset(out).faults] == []
    merged = tmp_path / "merged"
    merge_datasets([out, out], merged)
    assert [fault.kind for fault in verify_dataset(merged).faults] == []


@pytest.mark.parametrize(
    ("kind", "dtype", "numeric"),
    [
        (pa.float16(), "float16", True),
        (pa.float64(), "float64", True),
        (pa.uint8(), "uint8", True),
        (pa.bool_(), "bool", True),
        (pa.date32(), "date32", False),
        (pa.large_string(), "large_string", False),
        (pa.timestamp("us"), "timestamp[us]", False),
    ],
)
def test_a_type_has_the_word_that_datasets_has(kind: pa.DataType, dtype: str, numeric: bool) -> None:
    assert dtype_of(kind) == dtype
    assert is_numeric({"dtype": dtype}) == numeric


def test_no_chunk_has_more_files_than_are_read_in_order() -> None:
    assert files_in_chunk({}) == files_in_chunk({"chunks_size": 5000}) == 1000
    assert files_in_chunk({"chunks_size": 7}) == 7


def test_chunks_of_a_dataset_that_names_more_end_at_a_thousand(
    dataset_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ffenc.layout.MOST_IN_CHUNK", 2)
    info = json.loads((dataset_copy / "meta/info.json").read_text())
    info |= {"chunks_size": 5000, "video_files_size_in_mb": 1e-6}
    (dataset_copy / "meta/info.json").write_text(json.dumps(info))
    out = tmp_path / "out"
    reencode_dataset(dataset_copy, out, cameras=["top"], overrides=H264)
    videos = out / f"videos/{TOP}"
    assert sorted(path.relative_to(videos).as_posix() for path in videos.rglob("*.mp4")) == [
        "chunk-000/file-000.mp4",
        "chunk-000/file-001.mp4",
        "chunk-001/file-000.mp4",
    ]
    assert verify_dataset(out).sound


def test_a_video_that_is_replaced_with_its_time_kept_is_another_source(tmp_path: Path) -> None:
    file = next((FIXTURES / f"aloha_video_v30/videos/{TOP}").rglob("*.mp4"))
    path = Path(shutil.copy(file, tmp_path / "a.mp4"))
    info = probe(path, times=True)
    before, found = Clip(path, info, 0, 24).fingerprint(), path.stat()
    assert Clip(path, info, 0, 24).fingerprint() == before
    assert Clip(path, info, 24, 17).fingerprint() != before
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (found.st_size, found.st_mtime_ns)
    assert Clip(path, info, 0, 24).fingerprint() != before


@pytest.mark.parametrize("rows", [[], [0], [4], [1, 2], [0, 2, 4], [0, 1, 2, 3, 4], list(range(0, 80, 2))])
def test_kept_rows_are_those_and_no_others(rows: list[int]) -> None:
    table = pa.table({"x": list(range(max([4, *rows]) + 1))})
    kept = np.isin(np.arange(table.num_rows), rows)
    assert kept_rows(table, kept)["x"].to_pylist() == rows


def test_the_different_numbers_of_a_column_come_in_its_order() -> None:
    assert whole_numbers(pa.chunked_array([[3, 1], [3, 2, 1]])) == [3, 1, 2]
    assert whole_numbers(pa.chunked_array([[3, None, 3]], pa.int64())) == [3, None]


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.list_(pa.int64(), 2), pa.large_list(pa.int64())])
def test_flat_lists_are_those_of_a_part_of_a_column_too(kind: pa.DataType) -> None:
    whole = pa.array([[1, 2], [3, 4], [5, 6], None], kind)
    for lists in (whole, whole.slice(0, 3), whole.slice(1, 2), whole.slice(3), whole.slice(2, 0)):
        assert flat(lists).equals(lists.flatten())
