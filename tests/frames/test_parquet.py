"""Images come out of every kind of parquet file as pyarrow reads them, one at a time."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffenc import SourceError
from ffenc.frames.parquet import RowRange, read_images
from tests.conftest import DEPTH, TOP

CODECS = ("snappy", "zstd", "gzip", "none", "lz4", "brotli")


def table_of(values: list[bytes | None]) -> pa.Table:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({"cam": pa.array([{"bytes": v, "path": "x.png"} for v in values], image)})


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("key", [TOP, DEPTH])
def test_every_codec_and_encoding_gives_what_was_written(
    tmp_path: Path, images: dict[str, list[bytes]], key: str, codec: str, dictionary: bool
) -> None:
    rng = random.Random(0)
    path = tmp_path / "x.parquet"
    for version, repeats, group in product(("1.0", "2.0"), (False, True), (7, 100)):
        values = [rng.choice(images[key][:9]) for _ in range(72)] if repeats else images[key]
        pq.write_table(
            table_of(values),
            path,
            compression=codec,
            use_dictionary=dictionary,
            data_page_version=version,
            row_group_size=group,
            write_batch_size=rng.choice([1, 5, 1024]),
            data_page_size=rng.choice([1000, 1 << 20]),
        )
        for first, count in ((0, 72), (5, 30), (70, 2), (23, 1)):
            assert list(read_images(RowRange(path, first, count), "cam")) == values[first : first + count]


def test_a_row_without_an_image_is_named(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table_of([*images[TOP][:3], None, images[TOP][4]]), path)
    with pytest.raises(SourceError, match="row 3 has no image bytes"):
        list(read_images(RowRange(path, 0, 5), "cam"))


def test_a_short_or_damaged_file_is_refused(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table_of(images[TOP]), path)
    with pytest.raises(SourceError, match="has 72 rows, 80 were expected"):
        list(read_images(RowRange(path, 0, 80), "cam"))
    with pytest.raises(SourceError, match="no image column 'other'"):
        list(read_images(RowRange(path, 0, 1), "other"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"x\.parquet: column cam cannot be read"):
        list(read_images(RowRange(path, 0, 1), "cam"))


def test_memory_does_not_grow_with_the_length_of_an_episode(tmp_path: Path) -> None:
    """400 images of 600 kB in one page, as LeRobot writes them: 240 MB that are never in memory at once."""
    rng = random.Random(0)
    path = tmp_path / "x.parquet"
    pq.write_table(table_of([rng.randbytes(600_000) for _ in range(400)]), path, compression="snappy")
    script = f"""
from pathlib import Path
from ffenc.frames.parquet import RowRange, read_images
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()
count = sum(1 for _ in read_images(RowRange(Path({str(path)!r}), 0, 400), "cam"))
print(count, (peak() - before) / 1024)
"""
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    count, megabytes = result.stdout.split()
    assert int(count) == 400
    assert float(megabytes) < 60
