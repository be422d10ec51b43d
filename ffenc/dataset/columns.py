"""Columns of a dataset's tables: types, metadata, and images in them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.errors import SourceError
from ffenc.frames.images import read_header
from ffenc.frames.parquet import IMAGE
from ffenc.frames.sources import FrameSource

IMAGE_BYTES = 64 << 20  # of images in memory while a table is written
# Names of Arrow's types that differ in the ``datasets`` library.
_DTYPES = {
    **{"halffloat": "float16", "float": "float32", "double": "float64"},
    **{"date32[day]": "date32", "date64[ms]": "date64"},
}
# Checksums detect a damaged page, which would otherwise be read as other numbers.
WRITTEN: dict[str, Any] = {"compression": "snappy", "use_dictionary": True, "write_page_checksum": True}
# Schema metadata in which row_schema describes all columns by their types.
UNDESCRIBED = {"huggingface": '{"info": {}}'}

_SLICES = 16


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a parquet file, or some of its columns, and compare the checksums of its pages.

    ``pyarrow.parquet.read_table`` is not used: it loads Arrow's dataset and compute modules, which takes
    longer than the small tables of a dataset, and adds columns for folders named ``a=b``.

    Args:
        path: the file.
        columns: names of the columns; None: all. Missing ones are ignored.

    Raises:
        pyarrow.ArrowException, OSError: it cannot be read, or is damaged.
    """
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        return file.read(columns=None if columns is None else list(columns))


def kept_rows(table: pa.Table, kept: npt.NDArray[np.bool_]) -> pa.Table:
    """Return the selected rows of a table: as slices, unless there are too many."""
    edges = np.flatnonzero(np.diff(kept, prepend=False, append=False))
    if len(edges) > 2 * _SLICES:
        return table.filter(pa.array(kept))  # loads Arrow's compute module
    parts = [table.slice(start, stop - start) for start, stop in edges.reshape(-1, 2).tolist()]
    return pa.concat_tables(parts) if parts else table.slice(0, 0)


def whole_numbers(column: pa.ChunkedArray) -> list[int]:
    """Return the distinct values of an integer column, in the order in which they occur."""
    if column.null_count or not pa.types.is_integer(column.type):
        found: list[int] = column.unique().to_pylist()
        return found
    values = column.to_numpy()
    first = np.unique(values, return_index=True)[1]
    return [int(number) for number in values[np.sort(first)]]


def arrow_type(dtype: str) -> pa.DataType | None:
    """Return the type of a feature's ``dtype``, a name of NumPy or Arrow; None for any other text."""
    try:
        return pa.type_for_alias(dtype)
    except ValueError:
        return None


def dtype_of(kind: pa.DataType) -> str:
    """Return the name of a column's type in ``info.json`` and the ``datasets`` library."""
    return _DTYPES.get(str(kind), str(kind))


def is_numeric(feature: Mapping[str, Any]) -> bool:
    """Return whether a feature of ``info.json`` has numbers, and so statistics."""
    kind = arrow_type(str(feature["dtype"]))
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return kind is not None and any(is_one(kind) for is_one in numbers)


def row_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema with the metadata from which LeRobot loads exactly these columns."""
    metadata = dict(schema.metadata or {})
    names = set(schema.names)
    if b"huggingface" in metadata:
        known = json.loads(metadata[b"huggingface"])["info"].get("features", {})
        features = {n: known.get(n) or huggingface_type(schema.field(n).type) for n in schema.names}
        metadata[b"huggingface"] = json.dumps({"info": {"features": features}}).encode()
    if b"pandas" in metadata:
        pandas = json.loads(metadata[b"pandas"])
        pandas["columns"] = [c for c in pandas.get("columns", []) if c.get("name") in names]
        metadata[b"pandas"] = json.dumps(pandas).encode()
    return schema.with_metadata(metadata)


def huggingface_type(kind: pa.DataType) -> dict[str, Any]:
    """Return a column's type as the ``datasets`` library describes it."""
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {field.name: huggingface_type(field.type) for field in kind}
    if is_list(kind):
        length = kind.list_size if pa.types.is_fixed_size_list(kind) else -1
        return {"feature": huggingface_type(kind.value_type), "length": length, "_type": "List"}
    return {"dtype": dtype_of(kind), "_type": "Value"}


def is_list(kind: pa.DataType) -> bool:
    """Return whether a type is a list of any kind, of variable or fixed size."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def feature_type(feature: Mapping[str, Any]) -> pa.DataType:
    """Return the type of a feature's column as in LeRobot: several numbers are a fixed-size list."""
    if feature["dtype"] == "image":
        return IMAGE
    kind, shape = pa.type_for_alias(feature["dtype"]), feature["shape"]
    return kind if list(shape) in ([], [1]) else list_of(kind, shape[0])


def column_of(values: npt.NDArray[Any], feature: Mapping[str, Any]) -> pa.Array:
    """Return a feature's column as LeRobot writes it.

    Args:
        values: shape ``(N,)`` or ``(N, D)``.
        feature: its entry in ``info.json``.
    """
    kind = feature_type(feature)
    if values.ndim == 1:
        return pa.array(values, kind)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1), kind.value_type)
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def list_of(kind: pa.DataType, width: int = -1) -> pa.DataType:
    """Return a list type of a fixed or any size; the field has parquet's name ``element``."""
    return pa.list_(pa.field("element", kind), width)


def statistic_type(name: str, value: Any) -> pa.DataType:
    """Return the type of a statistic's column: LeRobot v3.0 writes all but counts as doubles.

    Args:
        name: such as ``min``.
        value: a number, or nested lists of numbers.
    """
    kind = pa.int64() if name == "count" else pa.float64()
    while isinstance(value, list):
        kind = list_of(kind)
        value = value[0] if value else None
    return kind


def image_parts(table: pa.Table, images: Mapping[str, FrameSource]) -> Iterator[pa.Table]:
    """Yield an episode's rows with their images, in parts that fit in :data:`IMAGE_BYTES`.

    Args:
        table: the rows.
        images: camera -> one image per row, unchanged; it becomes a column of type :data:`IMAGE`.
    """
    if not images:
        yield table
        return
    sources = {key: iter(frames) for key, frames in images.items()}
    start, held = 0, 0
    data: dict[str, list[bytes]] = {key: [] for key in images}
    names: dict[str, list[str]] = {key: [] for key in images}
    for row, number in enumerate(table["frame_index"].to_pylist()):
        for key, frames in sources.items():
            frame = next(frames)
            held += len(frame.data)
            data[key].append(frame.data)
            names[key].append(f"frame-{number:06d}.{read_header(frame.data, frame.name).format}")
        if held > IMAGE_BYTES or row + 1 == table.num_rows:
            part = table.slice(start, row + 1 - start)
            for key in images:
                columns = [pa.array(data[key], pa.binary()), pa.array(names[key], pa.string())]
                part = part.append_column(key, pa.StructArray.from_arrays(columns, fields=list(IMAGE)))
                data[key].clear()
                names[key].clear()
            yield part
            start, held = row + 1, 0


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of a schema, in its order; only columns of another type are cast.

    Raises:
        pyarrow.ArrowException: a column is missing or cannot be cast.
    """
    columns = []
    for field in schema:
        column = table[field.name]
        if column.type != field.type:
            # Arrow cannot cast slices with a struct field that has no values.
            column = column.take(pa.array(range(len(column)), pa.int64())).cast(field.type)
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """Return the type for the values of two types: the other one if one is ``null``, otherwise the first.

    In parquet, a column or struct field that is null in every row has the type ``null``.
    """
    if pa.types.is_null(a):
        return b
    if is_list(a) and is_list(b) and a.value_type != b.value_type:
        kind = a.value_field.with_type(common_type(a.value_type, b.value_type))
        if pa.types.is_fixed_size_list(a):
            return pa.list_(kind, a.list_size)
        return pa.large_list(kind) if pa.types.is_large_list(a) else pa.list_(kind)
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        theirs = {field.name: field.type for field in b}
        return pa.struct([f.with_type(common_type(f.type, theirs.get(f.name, f.type))) for f in a])
    return a


def set_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """Return a table with new values in a column of the same type."""
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


def of_type(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return an array as a type, without a cast if it has it: Arrow's compute module is slow to load.

    Raises:
        pa.ArrowException: the type cannot hold a value.
    """
    return array if array.type == kind else array.cast(kind)


def flat(lists: pa.Array) -> pa.Array:
    """Return the values of all lists of a column: ``lists.flatten()``, without Arrow's compute module."""
    if lists.null_count:
        return lists.flatten()
    if pa.types.is_fixed_size_list(lists.type):
        width = lists.type.list_size
        return lists.values.slice(lists.offset * width, len(lists) * width)
    offsets = lists.offsets.to_numpy()
    return lists.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


def numbers_of(column: pa.ChunkedArray) -> Any:
    """Return a column of numbers as an array of shape ``(N,)``, or ``(N, ..., D)`` for one of lists."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    shape = [len(array)]
    while is_list(array.type):
        rows, array = len(array), flat(array)
        shape.append(len(array) // max(rows, 1))
    return array.to_numpy(zero_copy_only=False).reshape(shape)


def task_table(tasks: Sequence[str]) -> pa.Table:
    """Return the tasks table of these texts, numbered from 0."""
    return _with_text_index(
        pa.table(
            {
                "task_index": pa.array(range(len(tasks)), pa.int64()),
                "task": pa.array(list(tasks), pa.large_string()),
            }
        )
    )


def more_tasks(table: pa.Table, texts: Sequence[str], first: int) -> pa.Table:
    """Return a tasks table with further tasks, whose other columns are null.

    Args:
        table: contents of ``meta/tasks.parquet``.
        texts: texts of the further tasks.
        first: index of the first of them.

    Raises:
        pyarrow.ArrowException, ValueError: the table lacks the columns.
    """
    numbers = pa.array(range(first, first + len(texts)), pa.int64())
    text = "task" if "task" in table.column_names else table.column_names[-1]
    added = {"task_index": numbers, text: pa.array(texts, pa.large_string())}
    columns = [
        added[f.name].cast(f.type) if f.name in added else pa.nulls(len(texts), f.type) for f in table.schema
    ]
    return pa.concat_tables([table, pa.table(columns, schema=table.schema)])


def _with_text_index(table: pa.Table) -> pa.Table:
    # LeRobot reads the table with pandas, with the texts as its index.
    columns = [("task_index", "int64", "int64"), ("task", "unicode", "object")]
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": n, "field_name": n, "pandas_type": p, "numpy_type": t, "metadata": None}
            for n, p, t in columns
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def misread_tasks(table: pa.Table) -> str | None:
    """Return why LeRobot, which finds a task by its row and its text in the index, misreads a tasks table.

    Args:
        table: contents of ``meta/tasks.parquet``, with the texts.

    Returns:
        The reason; None if LeRobot reads it correctly.
    """
    if "task_index" not in table.column_names:
        return "has no column task_index, the numbers that the rows refer to"
    numbers = table["task_index"].to_pylist()
    wrong = next((row for row, number in enumerate(numbers) if number != row), None)
    if wrong is not None:
        return f"row {wrong} is task {numbers[wrong]}; LeRobot finds a task by its row"
    try:
        index = json.loads((table.schema.metadata or {})[b"pandas"])["index_columns"]
        is_text = len(index) == 1 and index[0] == _text_column(table)
    except (ValueError, TypeError, LookupError):
        is_text = False
    return None if is_text else "the texts are a column, not the index; LeRobot shows row numbers for tasks"


def readable_tasks(table: pa.Table) -> pa.Table:
    """Return a tasks table with the order and index that LeRobot expects.

    In a table without numbers, row i is task i.
    """
    if "task_index" not in table.column_names:
        numbers = pa.array(range(len(table)), pa.int64())
        table = table.add_column(0, "task_index", numbers)
    at = table.column_names.index(_text_column(table) or "task")
    names = ["task" if i == at else name for i, name in enumerate(table.column_names)]
    return _with_text_index(table.sort_by("task_index").rename_columns(names))


def _text_column(table: pa.Table) -> str | None:
    """Return the column of a tasks table with the texts; some writers do not name pandas' index."""
    texts = [
        name
        for name in table.column_names
        if pa.types.is_string(table[name].type) or pa.types.is_large_string(table[name].type)
    ]
    return "task" if "task" in texts else next(iter(texts), None)


def task_texts(tasks: Path | Sequence[str]) -> list[str]:
    """Return the texts of the tasks by index.

    Args:
        tasks: the texts, or a dataset's ``meta/tasks.parquet``.

    Raises:
        SourceError: it cannot be read, or the indices are not 0, 1, 2 ...
    """
    if not isinstance(tasks, Path):
        return list(tasks)
    try:
        table = read_table(tasks)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"cannot be read: {error}", where=tasks) from None
    text = _text_column(table)
    if text is None:
        raise SourceError("has no column task", where=tasks)
    named = table[text].to_pylist()
    if None in named:
        raise SourceError(f"row {named.index(None)} has no text", where=tasks)
    if "task_index" not in table.column_names:
        return [str(text) for text in named]
    numbers = table["task_index"].to_pylist()
    if sorted(numbers, key=str) != sorted(range(len(numbers)), key=str):
        raise SourceError(f"its task_index are not 0 to {len(numbers) - 1}, each once", where=tasks)
    return [str(text) for _, text in sorted(zip(numbers, named, strict=True))]
