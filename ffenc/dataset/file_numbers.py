"""Numbers of the files that a dataset's rows go into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ffenc.layout import (
    file_limit,
)


class FileNumbers:
    """Numbers of the files that tables go to, each up to the size limit of a dataset.

    Args:
        info: contents of info.json.
    """

    def __init__(self, info: Mapping[str, Any]) -> None:
        self._limit = file_limit(info, "data")
        self._number, self._size = 0, 0
        self._schema: pa.Schema | None = None

    def of(self, table: pa.Table, size: int | None = None) -> int:
        """Return the number of the file for the next table, of so many bytes.

        By default as many as before compression, which is an upper bound.
        """
        size = table.nbytes if size is None else size
        self._size += size
        changed = self._schema is not None and not table.schema.equals(self._schema)
        if self._schema is not None and (changed or self._size > self._limit):
            self._number, self._size = self._number + 1, size
        self._schema = table.schema
        return self._number
