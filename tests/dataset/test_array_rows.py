"""Rows of arrays: pixels of floats, missing chunks, rows after the last episode, texts of tasks."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from ffenc import ConfigError, FfencWarning, SourceError, inspect_source
from ffenc.config.mapping import build_mapping, load_mapping
from ffenc.dataset.source import DatasetSource
from ffenc.dataset.sources.kind import Opening
from ffenc.dataset.sources.registry import open_source
from ffenc.frames.depth_images import read_depth

ROWS = 20


def opened(path: Path, **sections: Any) -> DatasetSource:
    values = {"fps": 10, "cameras": {"top": {"path": "top", "channels": "rgb"}}, **sections}
    return open_source(path, Opening(mapping=build_mapping(values)))


def written(path: Path, attributes: dict[str, Any] | None = None, **arrays: Any) -> Path:
    with h5py.File(path, "w") as file:
        file["top"] = np.zeros((ROWS, 64, 64, 3), np.uint8)
        for name, values in arrays.items():
            file[name] = values
        file.attrs.update(attributes or {})
    return path


def texts(source: DatasetSource) -> list[str]:
    """The task of each row."""
    return [
        one.tasks[0 if one.row_tasks is None else int(one.row_tasks[row])]
        for one in source.read(source.episodes)
        for row in range(one.length)
    ]


@pytest.mark.parametrize("array", ["top", "action", "done"])
def test_a_missing_chunk_of_any_array_is_reported(tmp_path: Path, array: str) -> None:
    store = zarr.create_group(str(tmp_path / "a.zarr"), zarr_format=2)
    for name, values in (
        ("top", np.ones((ROWS, 64, 64, 3), np.uint8)),
        ("action", np.arange(ROWS) + 1.0),
        ("done", np.arange(ROWS) % 5 == 4),
    ):
        store.create_array(name, data=values, chunks=(5, *values.shape[1:]))
    sections: dict[str, Any] = {"features": {"action": {"path": "action"}}, "episodes": {"last": "done"}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(tmp_path / "a.zarr", **sections)
    (chunk,) = (tmp_path / "a.zarr" / array).glob("2*")
    chunk.unlink()
    (chunk.parent / f"{chunk.name}.partial").write_bytes(b"")  # as a program that was killed leaves
    (chunk.parent / ".DS_Store").write_bytes(b"")
    with pytest.warns(FfencWarning, match=rf"a\.zarr: {array}: 1 chunks are not in the file; their"):
        opened(tmp_path / "a.zarr", **sections)


@pytest.mark.parametrize(("more", "said"), [(0, "3 rows"), (2, "3 rows of top, 5 rows of action")])
def test_rows_after_the_last_episode_are_reported_for_every_array(
    tmp_path: Path, more: int, said: str
) -> None:
    path = written(tmp_path / "a.h5", ends=[10, 17], action=np.arange(ROWS + more) * 1.0)
    sections: dict[str, Any] = {"features": {"action": {"path": "action"}}, "episodes": {"ends": "ends"}}
    with pytest.warns(FfencWarning, match=rf"a\.h5: {said}.* after the end of the last episode"):
        source = opened(path, **sections)
    assert [one.length for one in source.episodes] == [10, 7]


def test_a_task_has_a_text_for_each_row_or_for_each_episode(tmp_path: Path) -> None:
    task = {"task": {"path": "said"}}
    ends = {"episodes": {"ends": "ends"}, **task}
    each = written(tmp_path / "each.h5", ends=[8, ROWS], said=["one", "two"])
    assert texts(opened(each, **ends)) == ["one"] * 8 + ["two"] * 12
    row = written(tmp_path / "row.h5", ends=[8, ROWS], said=[f"text {i // 5}" for i in range(ROWS)])
    wanted = [f"text {i // 5}" for i in range(ROWS)]
    assert texts(opened(row, **ends)) == texts(opened(row, **task)) == wanted
    for count in (3, ROWS - 1):
        wrong = written(tmp_path / f"{count}.h5", ends=[8, ROWS], said=["a"] * count)
        with pytest.raises(SourceError, match=f"said: has {count} texts; expected 2, one for each episode, "):
            opened(wrong, **ends)
    longer = written(tmp_path / "longer.h5", said=["a"] * (ROWS + 1))
    with pytest.raises(SourceError, match="said: has 21 texts; expected one for all rows, or 20, one for"):
        opened(longer, **task)


def test_an_attribute_with_a_text_may_be_a_list_of_one(tmp_path: Path) -> None:
    given = {
        "text": "lift",
        "list": ["lift"],
        "bytes": np.bytes_("hochheben: grün".encode()),
        "two": ["lift", "drop"],
        "latin": np.bytes_("grün".encode("latin-1")),
    }
    path = written(tmp_path / "a.h5", given)

    def tasks(name: str) -> list[str]:
        return list(opened(path, task={"attribute": name}).tasks())

    assert (tasks("text"), tasks("list"), tasks("bytes")) == (["lift"], ["lift"], ["hochheben: grün"])
    with pytest.raises(SourceError, match="attribute two: has 2 values; expected a single text"):
        tasks("two")
    with pytest.raises(SourceError, match="attribute latin: .* is not a text in UTF-8"):
        tasks("latin")


def test_texts_in_one_dimension_of_numbers_and_columns_of_texts_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", said=np.frombuffer(b"lift it", np.uint8), words=["a"] * ROWS)
    with pytest.raises(ConfigError, match=r"task\.path: said is uint8 7; expected texts"):
        opened(path, task={"path": "said"})
    with pytest.raises(ConfigError, match="columns: does not apply to dtype string"):
        opened(path, features={"words": {"path": "words", "dtype": "string", "columns": [0]}})


@pytest.mark.parametrize(
    ("values", "white", "said"),
    [
        ((-1.0, 1.0), 1, r"from -1 to 1; expected 0 \(black\) to 1 \(white\)"),
        ((0.0, 255.0), 1, r"from 0 to 255; expected 0 \(black\) to 1 \(white\)"),
        ((0.0, np.nan), 255, r"that are not numbers \(NaN\); expected 0 \(black\) to 255 \(white\)"),
        ((0.0, np.inf), 255, "from 0 to inf; expected"),
    ],
)
def test_pixels_that_are_not_between_black_and_white_are_refused(
    tmp_path: Path, values: tuple[float, float], white: float, said: str
) -> None:
    pixels = np.full((ROWS, 64, 64, 3), 0.5 * white, np.float32)
    pixels[3, 0, 0] = (-0.1 * white, 1.1 * white, 0)  # as a resize filter overshoots
    camera = {"top": {"path": "float", "channels": "rgb", "white": white}}
    source = opened(written(tmp_path / "a.h5", float=pixels), cameras=camera)
    frames = list(source.frames("observation.images.top", source.episodes[0]))
    assert [*frames[3].data[:6]] == [0, 255, 0, 128, 128, 128]
    pixels[7, 0, 0, :2] = values
    source = opened(written(tmp_path / "a.h5", float=pixels), cameras=camera)
    with pytest.raises(SourceError, match=rf"a\.h5: float, row 7: has pixels {said}"):
        list(source.frames("observation.images.top", source.episodes[0]))


def test_depth_beyond_single_precision_is_infinitely_far(tmp_path: Path) -> None:
    depth = np.full((ROWS, 64, 96), 0.5)
    depth[0, 0, 0] = 1e300
    camera = {"top": {"path": "depth", "depth": True}}
    source = opened(written(tmp_path / "a.h5", depth=depth), cameras=camera)
    first = next(iter(source.frames("observation.images.top", source.episodes[0])))
    assert read_depth(first)[0, :2].tolist() == [np.inf, 0.5]


def test_damage_of_the_structure_of_a_file_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", **{"group/inner": np.zeros(3)})
    data = bytearray(path.read_bytes())
    heap = data.rfind(b"HEAP")  # of the names in a group; the place of its first free byte follows
    data[heap + 16 : heap + 24] = b"\x01" * 8
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.h5: (/|group): .*heap"):
        inspect_source(path)


def test_a_zip_file_with_a_damaged_directory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr.zip"
    store = zarr.storage.ZipStore(path, mode="w")
    zarr.create_group(store, zarr_format=2).create_array("top", data=np.ones((4, 64, 64, 3), np.uint8))
    store.close()
    data = bytearray(path.read_bytes())
    data[data.find(b"PK\x01\x02") + 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.zarr\.zip: cannot be read as a zip file: Bad magic number"):
        opened(path)


def test_a_name_with_a_line_break_stays_in_the_comment_of_a_mapping(tmp_path: Path) -> None:
    path = written(tmp_path / "a\nfps: 98.h5", **{"words\nfps: 99": ["text"] * ROWS})
    contents = inspect_source(path)
    (tmp_path / "mapping.yaml").write_text(contents.yaml())
    assert "# /words fps: 99 is left out" in contents.yaml()
    assert load_mapping(tmp_path / "mapping.yaml").fps is None


def test_integers_that_a_float_would_round_and_rows_without_numbers_are_refused(tmp_path: Path) -> None:
    arrays = {
        "small": np.full(ROWS, 2**24),
        "large": np.full(ROWS, 2**24 + 1),
        "huge": np.full(ROWS, 2**53 + 1),
        "float": np.full(ROWS, 0.1),
        "none": np.zeros((ROWS, 0)),
    }
    path = written(tmp_path / "a.h5", **arrays)

    def values(**feature: Any) -> list[Any]:
        (one,) = (source := opened(path, features={"value": feature})).read(source.episodes)
        return list(one.rows["value"].to_pylist())

    assert values(path="small", dtype="float32")[0] == 2**24
    assert values(path="large", dtype="float64")[0] == 2**24 + 1
    assert values(path="float", dtype="float32")[0] == np.float32(0.1)  # a smaller float rounds
    assert values(path=["large", "float"])[0] == [2**24 + 1, 0.1]
    with pytest.raises(SourceError, match="large, row 0: 16777217 is not a number of dtype float32"):
        values(path="large", dtype="float32")
    with pytest.raises(SourceError, match="huge, row 0: 9007199254740993 is not a number of dtype float64"):
        values(path=["float", "huge"])
    with pytest.raises(ConfigError, match="none is float64 20x0, which has no numbers; leave it out"):
        values(path="none")
