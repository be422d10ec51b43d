"""Images come out of every kind of parquet file as pyarrow reads them, one at a time."""

from __future__ import annotations

import errno
import random
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cramjam import snappy

from ffenc import SourceError
from ffenc.frames import parquet_pages
from ffenc.frames.parquet import RowRange, read_images
from tests.conftest import DEPTH, TOP
from tests.support.sandbox import without

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
    for version, repeats, group in product(("1.0", "2.0"), (False, True), (5, 100)):
        values = [rng.choice(images[key][:9]) for _ in range(24)] if repeats else images[key][:24]
        pq.write_table(
            table_of(values),
            path,
            compression=codec,
            compression_level=1 if codec in ("gzip", "brotli") else None,
            use_dictionary=dictionary,
            data_page_version=version,
            row_group_size=group,
            write_batch_size=rng.choice([1, 5, 1024]),
            data_page_size=rng.choice([1000, 1 << 20]),
        )
        for first, count in ((0, 24), (5, 12), (22, 2), (17, 1)):
            assert list(read_images(RowRange(path, first, count), "cam")) == values[first : first + count]


def count_pages(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the size of every page that is decompressed from now on."""
    decompressed: list[int] = []

    def counted(data: memoryview, into: memoryview) -> int:
        decompressed.append(len(data))
        return int(snappy.decompress_raw_into(data, into))

    monkeypatch.setattr(parquet_pages, "snappy", SimpleNamespace(decompress_raw_into=counted))
    return decompressed


def write_pages(path: Path, values: list[bytes]) -> None:
    """Write pages of 36 images, and wait until a change of the file would be noticed."""
    table = table_of(list(values))
    pq.write_table(table, path, row_group_size=36, use_dictionary=False, write_batch_size=72)
    while time.time_ns() - path.stat().st_ctime_ns < parquet_pages._SAME_TIME_NS:
        time.sleep(0.01)


def test_pages_of_other_episodes_do_not_take_the_memory_of_a_page_that_will_be_read_on(
    tmp_path: Path, images: dict[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    decompressed = count_pages(monkeypatch)
    path, values = tmp_path / "x.parquet", images[TOP][:36] * 3
    write_pages(path, values)
    first = read_images(RowRange(path, 0, 108), "cam")
    assert [next(first), next(first)] == values[:2]
    first.close()
    for start in (36, 72):  # as large as the first page, and read to their end
        assert list(read_images(RowRange(path, start, 36), "cam")) == values[start : start + 36]
    assert len(decompressed) == 3
    assert list(read_images(RowRange(path, 0, 36), "cam")) == values[:36]
    assert len(decompressed) == 3


def test_a_page_is_decompressed_once_for_its_first_images_and_for_all_unless_its_file_is_written(
    tmp_path: Path, images: dict[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    decompressed = count_pages(monkeypatch)
    path = tmp_path / "x.parquet"
    write_pages(path, images[TOP])
    reader = read_images(RowRange(path, 0, 72), "cam")
    assert [next(reader), next(reader)] == images[TOP][:2]
    reader.close()
    assert len(decompressed) == 1
    assert list(read_images(RowRange(path, 0, 36), "cam")) == images[TOP][:36]
    assert len(decompressed) == 1
    changed = path.read_bytes().replace(images[TOP][0][-40:], bytes(40))
    path.write_bytes(changed)
    assert next(read_images(RowRange(path, 0, 1), "cam"))[-40:] == bytes(40)


def test_a_row_without_an_image_is_named(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table_of([*images[TOP][:3], None, images[TOP][4]]), path)
    with pytest.raises(SourceError, match="row 3 has no image bytes"):
        list(read_images(RowRange(path, 0, 5), "cam"))


def test_a_short_or_damaged_file_is_refused(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table_of(images[TOP]), path)
    with pytest.raises(SourceError, match="is cut short: has 72 rows; expected 80"):
        list(read_images(RowRange(path, 0, 80), "cam"))
    with pytest.raises(SourceError, match="no image column 'other'"):
        list(read_images(RowRange(path, 0, 1), "other"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"x\.parquet: column cam cannot be read"):
        list(read_images(RowRange(path, 0, 1), "cam"))


def test_memory_is_that_of_one_page_for_each_reader_however_long_the_file_is(tmp_path: Path) -> None:
    """400 images of 400 kB in pages of 40 MB, read by two threads, one ahead of the other by half a page."""
    rng = random.Random(0)
    path = tmp_path / "x.parquet"
    values = table_of([rng.randbytes(400_000) for _ in range(400)])
    pq.write_table(values, path, compression="snappy", row_group_size=100)
    script = f"""
import itertools, resource, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from ffenc.frames.parquet import RowRange, read_images
both = threading.Barrier(2, timeout=60)
def read(ahead):
    images = read_images(RowRange(Path({str(path)!r}), 0, 400), "cam")
    count = sum(1 for _ in itertools.islice(images, ahead))
    for number, _ in enumerate(images):
        count += 1
        if number % 10 == 0 and number < 340:
            both.wait()
    return count
now = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (now + (120 << 20),) * 2)
with ThreadPoolExecutor(2) as pool:
    print(*pool.map(read, (1, 50)))
"""
    result = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert result.stdout == "400 400\n", result.stderr


@pytest.mark.parametrize("refusal", [errno.ENODEV, errno.ENOMEM])
def test_a_file_that_cannot_be_mapped_is_read(tmp_path: Path, refusal: int) -> None:
    """Some network file systems have no maps, and a limit may leave no address space."""
    path, values = tmp_path / "x.parquet", [random.Random(n).randbytes(400_000) for n in range(12)]
    pq.write_table(table_of(list(values)), path)
    assert without("mmap", refusal, lambda: list(read_images(RowRange(path, 0, 12), "cam"))) == values


@pytest.mark.parametrize(
    ("left", "fault"), [(0.3, "a header is damaged"), (0.9, "a page ends before its values do")]
)
def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path: Path, left: float, fault: str) -> None:
    """The rest of a page that is mapped would end the process."""
    rng = random.Random(0)
    path = tmp_path / "x.parquet"
    values = table_of([rng.randbytes(400_000) for _ in range(20)])
    pq.write_table(values, path, compression="snappy", row_group_size=10, use_dictionary=False)
    script = f"""
import os
from pathlib import Path
from ffenc.errors import SourceError
from ffenc.frames.parquet import RowRange, read_images
path = Path({str(path)!r})
images = read_images(RowRange(path, 0, 20), "cam")
next(images)
os.truncate(path, int(os.path.getsize(path) * {left}))
try:
    print(sum(1 for _ in images))
except SourceError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert f"column cam cannot be read: {fault}" in result.stdout


def test_a_file_is_cut_only_when_a_page_has_been_read(tmp_path: Path) -> None:
    """Access to a mapped page whose bytes are no longer there would end the process."""
    path = tmp_path / "x.parquet"
    pq.write_table(table_of([random.Random(n).randbytes(1 << 20) for n in range(24)]), path)
    script = f"""
import os, threading
from pathlib import Path
from ffenc.frames.parquet import RowRange, read_images
path = Path({str(path)!r})
def cut():
    maps = Path("/proc/self/maps")
    while str(path) not in maps.read_text():
        pass
    os.truncate(path, 1000)
cutting = threading.Thread(target=cut, daemon=True)
cutting.start()
print(sum(1 for _ in read_images(RowRange(path, 0, 24), "cam")))
cutting.join(10)
print(os.path.getsize(path))
"""
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert result.stdout == "24\n1000\n"


def test_one_image_for_all_rows_is_read_as_often_as_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table_of([b"one"] * 5000), path)
    assert list(read_images(RowRange(path, 3000, 1500), "cam")) == [b"one"] * 1500


def compact(value: int) -> bytes:
    """A number of thrift's compact protocol."""
    value = (value << 1) ^ (value >> 63)
    groups = []
    while True:
        groups.append(value & 0x7F)
        value >>= 7
        if not value:
            return bytes(group | 0x80 for group in groups[:-1]) + bytes(groups[-1:])


@pytest.mark.parametrize("codec", ["snappy", "zstd", "none"])
def test_a_page_that_claims_more_than_it_can_hold_takes_no_memory(tmp_path: Path, codec: str) -> None:
    """The uncompressed size of the dictionary page, and the length of its first image, are raised to 2 GB."""
    path = tmp_path / "x.parquet"
    image = bytes(range(256)) * 3
    pq.write_table(table_of([image] * 3), path, compression=codec)
    content = path.read_bytes()
    start = content.index(b"\x15")
    header = bytes.fromhex("15 04 15") + compact(len(image) + 4)
    assert content[start:].startswith(header)
    claimed = (
        content[:start] + bytes.fromhex("15 04 15") + compact(2**31 - 1) + content[start + len(header) :]
    )
    path.write_bytes(claimed)
    script = f"""
import resource
from pathlib import Path
from ffenc.errors import SourceError
from ffenc.frames.parquet import RowRange, read_images
resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
try:
    print(len(list(read_images(RowRange(Path({str(path)!r}), 0, 3), "cam"))))
except SourceError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert "cannot be read" in result.stdout or result.stdout == "3\n"
