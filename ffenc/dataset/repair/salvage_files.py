"""Reading of the readable parts of a damaged dataset's data files."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from ffenc.dataset.columns import feature_type, is_numeric
from ffenc.errors import FfencError, SourceError
from ffenc.frames.parquet_footer import has_footer, with_footer
from ffenc.layout import NUMBERING

UNREADABLE = (SourceError, pa.ArrowException, OSError, ValueError, LookupError, TypeError)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


@contextlib.contextmanager
def noting_damage(path: Path, note: Callable[[BaseException], None] = lambda error: None) -> Iterator[None]:
    """Pass the error of a block that reads a file to ``note``, if it can mean that the file is damaged.

    Raises:
        FfencError: the system gave no memory, thread, open file or permission: nothing is known of the file.
    """
    try:
        yield
    except UNREADABLE as error:
        unknown = type(error) is pa.ArrowException  # such as a thread that cannot be started
        refused = isinstance(error, OSError) and error.errno in _REFUSED
        if unknown or refused or isinstance(error, MemoryError):
            raise FfencError(f"{path}: cannot be read: {short_reason(error)}") from error
        note(error)


class Action(Struct, frozen=True):
    """A change that a repair makes.

    Attributes:
        what: what was found, and what is done about it.
        episode: index of the episode in the source; None: it affects all episodes, or none.
        camera: its feature.
        file: path in the dataset.
    """

    what: str
    episode: int | None = None
    camera: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        where = [self.file, self.camera, None if self.episode is None else f"episode {self.episode}"]
        named = ", ".join(part for part in where if part is not None)
        return f"{named}: {self.what}" if named else self.what


class RowNumbers(Struct, frozen=True):
    """The indices of a data file's rows.

    Attributes:
        path: the file.
        episodes, frames: ``episode_index`` and ``frame_index``, -1 if they cannot be read.
        times: ``timestamp`` in seconds, NaN if it cannot be read.
        whole: whether a row has a value of every feature.
    """

    path: Path
    episodes: npt.NDArray[np.int64]
    frames: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64]
    whole: npt.NDArray[np.bool_]


class SalvagedFiles:
    """The readable parts of a dataset's data files.

    Args:
        root: its folder.
        features: of info.json.
        scratch: folder for repaired copies of files.
        say: called with each decision.
    """

    def __init__(
        self, root: Path, features: Mapping[str, Any], scratch: Path, say: Callable[[Action], None]
    ) -> None:
        self._root, self._features, self._scratch, self._say = root, features, scratch, say
        self._files = sorted((root / "data").rglob("*.parquet"))
        self._readable: dict[Path, Path] = {}  # data file -> a copy of it with a footer
        self._damaged_groups: dict[Path, frozenset[int]] = {}

    def numbers(self) -> Iterator[RowNumbers]:
        """Yield the indices of each file's rows; files without readable rows are reported."""
        for path in self._files:
            with noting_damage(path, partial(self._note_lost, path)):
                self._give_footer(path)
                yield self._row_numbers(path)

    @property
    def cut_off(self) -> bool:
        """Return whether the end of a file was never written."""
        return bool(self._readable)

    def _note(self, path: Path, what: str) -> None:
        self._say(Action(what, file=path.relative_to(self._root).as_posix()))

    def _note_lost(self, path: Path, error: BaseException) -> None:
        self._note(path, f"cannot be read ({short_reason(error)}); its episodes are lost")

    def _row_numbers(self, path: Path) -> RowNumbers:
        """Read the indices of a data file's rows, each row group separately.

        Raises:
            pyarrow.ArrowException, OSError, ...: no part of the file can be read.
        """
        found: list[list[npt.NDArray[np.int64]]] = []
        times: list[npt.NDArray[np.float64]] = []
        errors: dict[int, BaseException] = {}
        lacking: list[npt.NDArray[np.bool_]] = []
        with pq.ParquetFile(self._readable.get(path, path), page_checksum_verification=True) as file:
            there = {"episode_index", "frame_index"} & set(file.schema_arrow.names)
            counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            for group, count in enumerate(counts):
                own = {name: np.full(count, -1) for name in ("episode_index", "frame_index")}
                lacking.append(np.zeros(count, np.bool_))
                with noting_damage(path, partial(errors.__setitem__, group)):
                    lacking[-1] = self._lacking(file.read_row_group(group))
                for name in there:
                    with noting_damage(path):
                        own[name] = whole_numbers_of(file.read_row_group(group, columns=[name]), name)
                found.append(list(own.values()))
                times.append(np.full(count, np.nan))
                if "timestamp" in file.schema_arrow.names:
                    with noting_damage(path):
                        column = file.read_row_group(group, columns=["timestamp"])["timestamp"]
                        times[-1] = column.cast(pa.float64()).to_numpy()
        numbers, frames = np.concatenate(found, axis=1) if found else np.zeros((2, 0), np.int64)
        lost = int((numbers < 0).sum())
        if lost and lost == len(numbers):
            raise next(iter(errors.values()), ValueError("episode_index is missing or not numeric"))
        if lost:
            what = f"{lost} of its rows cannot be read, nor can the episode they belong to"
            self._note(path, what)
        self._damaged_groups[path] = frozenset(errors)
        whole = np.repeat([group not in errors for group in range(len(counts))], counts)
        whole &= ~np.concatenate([*lacking, np.zeros(0, np.bool_)])
        return RowNumbers(path, numbers, frames, np.concatenate([*times, np.zeros(0)]), whole)

    def _lacking(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Return which rows lack a value of a feature."""
        lacking = np.zeros(table.num_rows, np.bool_)
        for name, feature in self._features.items():
            needed = name not in NUMBERING and (is_numeric(feature) or feature["dtype"] == "image")
            if needed and name in table.column_names and table[name].null_count:
                lacking |= table[name].is_null().to_numpy()
        return lacking

    def table(self, path: Path) -> tuple[pa.Table, npt.NDArray[np.int64]]:
        """Read the readable rows of a data file.

        Returns:
            The rows, and for each row of the file its position among them, -1 if it cannot be read.

        Raises:
            SourceError: it can no longer be read.
        """
        bad = self._damaged_groups[path]
        try:
            with pq.ParquetFile(self._readable.get(path, path), page_checksum_verification=True) as file:
                counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
                table = file.read_row_groups([group for group in range(len(counts)) if group not in bad])
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path}: cannot be read: {error}") from None
        good = np.repeat([group not in bad for group in range(len(counts))], counts)
        return table, np.where(good, np.cumsum(good) - 1, -1)

    def _give_footer(self, path: Path) -> None:
        """Make a copy of a data file whose footer was never written, with a footer.

        Raises:
            SourceError: no row group in it can be read.
        """
        if has_footer(path):
            return
        schema = next(
            (pq.read_schema(other) for other in self._files if other != path and has_footer(other)), None
        )
        if schema is None:
            rows = {key: feature for key, feature in self._features.items() if feature["dtype"] != "video"}
            schema = pa.schema([pa.field(key, feature_type(feature)) for key, feature in rows.items()])
        copy = self._scratch / f"with-footer-{len(self._readable):06d}.parquet"
        count = with_footer(path, schema, copy)
        self._readable[path] = copy
        self._note(
            path,
            f"its end is missing, as after an interrupted recording; its {count} rows are read "
            "from its pages",
        )


def whole_numbers_of(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
    """Return an integer column.

    Raises:
        pyarrow.ArrowException, ValueError, LookupError: it is missing, or a value is not an integer.
    """
    if table[name].null_count:
        raise ValueError(f"{name} has rows without a value")
    numbers: npt.NDArray[np.int64] = table[name].cast(pa.int64()).to_numpy()
    return numbers


def short_reason(error: BaseException) -> str:
    text = error.what if isinstance(error, FfencError) else str(error)
    return text.strip().partition("\n")[0][:120] or "damaged"
