"""Row groups of images are copied page for page, and what is read back is what was there."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffenc import SourceError
from ffenc.frames.parquet import IMAGE
from ffenc.frames.parquet_copy import CopyingWriter, CopySource, RowGroup
from ffenc.frames.thrift import read_struct, values, write_struct
from tests.conftest import DEPTH, TOP

OPTIONS = {"compression": "snappy", "use_dictionary": True, "write_page_checksum": True}


def table_of(images: list[bytes | None], name: str = "cam") -> pa.Table:
    rows = [{"bytes": data, "path": f"frame-{i:06d}.png"} for i, data in enumerate(images)]
    return pa.table({"index": pa.array(range(len(images))), name: pa.array(rows, IMAGE)})


def chunk_bytes(path: Path, group: int, leaf: str) -> bytes:
    """The bytes of a column of a row group, as pyarrow says where they are."""
    metadata = pq.read_metadata(path).row_group(group)
    column = next(
        metadata.column(i) for i in range(metadata.num_columns) if metadata.column(i).path_in_schema == leaf
    )
    start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
    return path.read_bytes()[start : start + column.total_compressed_size]


def first_pages(path: Path) -> list[tuple[int, int]]:
    """The position of each row group's first page, as the row group and as its columns state it."""
    data = path.read_bytes()
    footer, _ = read_struct(data[-8 - int.from_bytes(data[-8:-4], "little") : -8])
    found = []
    for group in values(footer)[4]:
        columns = [column[3] for column in group[1]]
        found.append((group[5], min(one.get(11) or one[9] for one in columns)))
    return found


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize(
    ("key", "codec"),
    [
        *((DEPTH, codec) for codec in ("snappy", "zstd", "gzip", "none", "lz4")),
        (TOP, "snappy"),
        (TOP, "none"),
    ],
)
def test_copied_and_written_row_groups_are_what_was_there(
    tmp_path: Path, images: dict[str, list[bytes]], key: str, codec: str, dictionary: bool
) -> None:
    source, out = tmp_path / "source.parquet", tmp_path / "out.parquet"
    whole = table_of(images[key])
    for version, size in (("1.0", 1000), ("2.0", 1 << 20)):
        pq.write_table(
            whole,
            source,
            compression=codec,
            use_dictionary=dictionary,
            data_page_version=version,
            data_page_size=size,
            row_group_size=30,
        )
        with (
            CopySource(source, {"cam": "cam"}) as opened,
            CopyingWriter(out, whole.schema, ["cam"], OPTIONS) as writer,
        ):
            groups = opened.groups()
            assert groups == [RowGroup(0, 0, 30), RowGroup(1, 30, 30), RowGroup(2, 60, 12)]
            for number in (2, 0):
                opened.check(groups[number])
                rows = whole.slice(groups[number].first, groups[number].rows)
                writer.copy(rows.drop_columns("cam"), opened, groups[number])
            writer.write(whole.slice(3, 4))
            writer.copy(whole.slice(30, 30).drop_columns("cam"), opened, groups[1])
        wanted = pa.concat_tables(
            [whole.slice(60, 12), whole.slice(0, 30), whole.slice(3, 4), whole.slice(30, 30)]
        )
        file = pq.ParquetFile(out, page_checksum_verification=True)
        assert file.read().equals(wanted)
        assert [file.metadata.row_group(i).num_rows for i in range(4)] == [12, 30, 4, 30]
        assert all(stated == first for stated, first in first_pages(out))
        assert chunk_bytes(out, 0, "cam.bytes") == chunk_bytes(source, 2, "cam.bytes")
        assert chunk_bytes(out, 3, "cam.path") == chunk_bytes(source, 1, "cam.path")


def test_a_column_can_have_another_name(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    source, out = tmp_path / "source.parquet", tmp_path / "out.parquet"
    pq.write_table(table_of(images[TOP], "old.name"), source)
    schema = table_of(images[TOP], "new.name").schema
    with (
        CopySource(source, {"new.name": "old.name"}) as opened,
        CopyingWriter(out, schema, ["new.name"], OPTIONS) as writer,
    ):
        writer.copy(pa.table({"index": range(72)}), opened, opened.groups()[0])
    assert pq.read_table(out).equals(table_of(images[TOP], "new.name"))
    assert pq.read_table(out, columns=["new.name"]).num_columns == 1


def test_what_is_not_as_ffenc_writes_it_is_not_copied(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    path = tmp_path / "x.parquet"
    large = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])
    pq.write_table(table_of(images[TOP]).set_column(1, "cam", table_of(images[TOP])["cam"].cast(large)), path)
    with CopySource(path, {"cam": "cam"}) as opened:
        assert opened.groups() == []
    required = pa.schema([("index", pa.int64()), pa.field("cam", IMAGE, nullable=False)])
    pq.write_table(table_of(images[TOP]).cast(required), path)
    with CopySource(path, {"cam": "cam"}) as opened:
        assert opened.groups() == []


def test_a_row_without_an_image_or_with_another_thing_is_named(
    tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    path = tmp_path / "x.parquet"
    for value, said in (
        (None, "row 41 has no image bytes"),
        (b"no image", "row 41, column cam: is not a PNG"),
    ):
        pq.write_table(table_of([*images[TOP][:41], value, *images[TOP][42:]]), path, row_group_size=20)
        with CopySource(path, {"cam": "cam"}) as opened:
            opened.check(opened.groups()[1])
            with pytest.raises(SourceError, match=said):
                opened.check(opened.groups()[2])


def test_a_changed_byte_of_a_page_is_found_wherever_it_is(
    tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table_of(images[DEPTH][:9]), path, write_page_checksum=True)
    whole = path.read_bytes()
    metadata = pq.read_metadata(path).row_group(0)
    rng = random.Random(0)
    for leaf in (1, 2):
        column = metadata.column(leaf)
        start, size = column.dictionary_page_offset, column.total_compressed_size
        for _ in range(40):
            at = start + rng.randrange(size)
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
            with CopySource(path, {"cam": "cam"}) as opened:
                try:
                    opened.check(opened.groups()[0])
                except SourceError:
                    continue
            # Some bits of a page's header say nothing that is used: the images are the same.
            assert pq.read_table(path).equals(table_of(images[DEPTH][:9])), at


@pytest.mark.parametrize("end", [4, 12, 1000])
def test_a_file_without_its_end_is_refused(tmp_path: Path, images: dict[str, list[bytes]], end: int) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(table_of(images[TOP]), path)
    path.write_bytes(path.read_bytes()[:-end])
    with pytest.raises(SourceError, match=r"x\.parquet: cannot be read"):
        CopySource(path, {"cam": "cam"})


def test_pages_outside_of_the_file_are_refused(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    """The footer's size of a column is raised: nothing is read or copied from behind the file's end."""
    path = tmp_path / "x.parquet"
    pq.write_table(table_of(images[TOP]), path)
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    footer, _ = read_struct(content[-8 - length : -8])
    column = footer[4].value[0][1].value[1][3].value
    column[7] = column[7]._replace(value=1 << 40)
    written = write_struct(footer)
    path.write_bytes(content[: -8 - length] + written + len(written).to_bytes(4, "little") + b"PAR1")
    with CopySource(path, {"cam": "cam"}) as opened, pytest.raises(SourceError, match="not in the file"):
        list(opened.columns(opened.groups()[0]))


def test_every_footer_of_pyarrow_is_written_as_it_was(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    for version, index in (("1.0", False), ("2.6", True)):
        path = tmp_path / "x.parquet"
        pq.write_table(table_of(images[TOP]), path, version=version, write_page_index=index)
        content = path.read_bytes()
        length = int.from_bytes(content[-8:-4], "little")
        footer, used = read_struct(content[-8 - length : -8])
        assert used == length
        assert write_struct(footer) == content[-8 - length : -8]
        assert values(footer)[3] == 72


@pytest.mark.parametrize(
    "data", [b"", b"\x15", b"\x1c" * 100, b"\x19\xfc\xff\xff\xff\xff\x07", b"\x18\xff\xff\x7f"]
)
def test_a_damaged_header_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="a header"):
        read_struct(data)
