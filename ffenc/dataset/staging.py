"""A hidden folder beside the destination in which a dataset is written until it is complete."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from ffenc.errors import DestinationError
from ffenc.frames.info_json import split_info
from ffenc.frames.publish import published, sync_folder
from ffenc.layout import INFO, OWN_INFO
from ffenc.locks import locked, locked_at
from ffenc.spelling import argument

if TYPE_CHECKING:
    from typing_extensions import Self

_PUBLISHING = "publishing"
_CONTENT = frozenset({"lock", "pieces", "cuts", "dataset", _PUBLISHING})
_PIECE = re.compile(r"(episode-\d{6,}|[0-9a-f]{64})\.(mp4|json)|\..*\.partial.*", re.DOTALL)


class Staging:
    """The staging folder: finished pieces, parts cut out of a source, the growing dataset, the lock.

    The kernel releases the lock when the process ends, in whatever way. Only files that a run has written
    there are deleted.

    Args:
        destination: place of the dataset; must not exist, or be an empty folder.
        resume: continue an interrupted run.

    Raises:
        DestinationError: the destination exists, another run is writing it, there are pieces of an
            interrupted run without ``resume``, or the folder contains files that no run has written.
    """

    def __init__(self, destination: Path, *, resume: bool) -> None:
        self.destination = _absolute(destination)
        self.folder = _folder_of(self.destination)
        self.pieces = self.folder / "pieces"
        self.cuts = self.folder / "cuts"
        self.dataset = self.folder / "dataset"
        self._resume = resume
        self._lock: IO[str] | None = None
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        settle(self.destination)
        check_destination(self.destination)
        try:
            self._made = [p for p in self.folder.parents if not p.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            _check_own(self.folder)
            self._lock = (self.folder / "lock").open("a", encoding="utf-8")
        except OSError as error:
            raise DestinationError(f"{self.folder}: cannot be created: {error.strerror}") from None
        try:
            alone = locked_at(self._lock, self.folder / "lock")
        except DestinationError:
            self.__exit__(None, None, None)
            raise
        if not alone:
            self._unlock()
            raise DestinationError(
                f"{self.destination} is being written by another run of ffenc; wait for it"
            )
        if self.has_pieces() and not self._resume:
            self._unlock()
            raise DestinationError(
                f"an interrupted run towards {self.destination} left finished episodes in {self.folder}. "
                f"Continue with {argument('resume', True)}, or delete that folder to start again"
            )
        self._delete_scratch()
        (self.folder / _PUBLISHING).unlink(missing_ok=True)
        for needed in (self.pieces, self.cuts):
            needed.mkdir(exist_ok=True)
        for folder, name in _files(self.pieces):
            if name.startswith(".") and ".partial" in name:
                (folder / name).unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._delete_scratch()
        if not self.has_pieces():
            _delete(self.folder)
            with contextlib.suppress(OSError):  # folders that are not empty are kept
                for parent in self._made:
                    parent.rmdir()
        self._unlock()

    def _delete_scratch(self) -> None:
        for scratch in (self.dataset, self.cuts):
            shutil.rmtree(scratch, ignore_errors=True)

    def has_pieces(self) -> bool:
        """Return whether there are finished pieces of an earlier run."""
        return any(_is_record(name) for _, name in _files(self.pieces))

    def recorded(self, key: str) -> set[str]:
        """Return the names of the records of a camera's pieces."""
        try:
            return {entry.name for entry in os.scandir(self.pieces / key) if entry.name.endswith(".json")}
        except FileNotFoundError:
            return set()

    def kept_bytes(self) -> int:
        """Return the size of the finished pieces in bytes."""
        return sum(
            (folder / name).stat().st_size
            for folder, name in _files(self.pieces)
            if name.startswith("episode-") and name.endswith(".mp4")
        )

    def clear(self) -> None:
        """Delete the pieces, because no run can use them."""
        _delete_pieces(self.pieces)

    def publish(self) -> None:
        """Flush the dataset to disk, move it to its destination, and delete the pieces.

        Raises:
            DestinationError: the destination was created in the meantime.
        """
        for path in self.dataset.rglob("*"):
            if path.is_dir():
                sync_folder(path)
            else:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        check_destination(self.destination)
        (self.folder / _PUBLISHING).touch()
        sync_folder(self.folder)
        self.dataset.replace(self.destination)
        sync_folder(self.destination.parent)
        _delete_pieces(self.pieces)

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def settle(destination: Path) -> None:
    """Delete the folder of a run that was killed after publishing its dataset."""
    folder = _folder_of(_absolute(destination))
    if not _is_published(folder):
        return
    with contextlib.suppress(OSError), (folder / "lock").open("a", encoding="utf-8") as lock:
        if locked(lock) and _is_published(folder):
            _check_own(folder)
            _delete(folder)


def _is_published(folder: Path) -> bool:
    """Return whether the dataset of a staging folder has been moved to its destination."""
    return not folder.is_symlink() and (folder / _PUBLISHING).is_file() and not (folder / "dataset").exists()


def _check_own(folder: Path) -> None:
    """Refuse a staging folder that is a link or contains files that ffenc did not write.

    Raises:
        DestinationError: it is or contains a link, or a foreign file.
    """
    if folder.is_symlink():
        raise DestinationError(f"{folder} is a link; ffenc keeps finished episodes there; delete the link")
    for entry in folder.iterdir():
        if entry.name not in _CONTENT or entry.is_symlink():
            what = "a link" if entry.is_symlink() else "not a file of ffenc's"
            raise DestinationError(
                f"{entry} is {what}; ffenc keeps finished episodes in that folder: move it away"
            )


def _delete(folder: Path) -> None:
    """Delete a staging folder's own files, and the folder if it is then empty."""
    for scratch in (folder / "dataset", folder / "cuts"):
        shutil.rmtree(scratch, ignore_errors=True)
    with contextlib.suppress(OSError):
        _delete_pieces(folder / "pieces")
        # The lock is deleted last: while it exists, other runs recognise the folder.
        for name in (_PUBLISHING, "lock"):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _delete_pieces(pieces: Path) -> None:
    """Delete the pieces of runs: one folder per camera, two files per piece."""
    for camera in _folders(pieces):
        for path in camera.iterdir():
            if _PIECE.fullmatch(path.name) and not path.is_dir():
                path.unlink()
    for folder in (*_folders(pieces), pieces):
        with contextlib.suppress(OSError):  # a folder with other files is kept
            folder.rmdir()


def _folders(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ()
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - keeps symbolic links


def check_destination(destination: Path) -> None:
    """Refuse an existing or invalid destination.

    Raises:
        DestinationError: it exists and is not an empty folder, or its name cannot be used.
    """
    if re.search(r"[\x00-\x1f]", str(destination)):
        raise DestinationError(f"{str(destination)!r}: control characters in a path are not supported")
    if destination.is_dir() and destination.samefile(os.curdir):
        raise DestinationError(f"{destination} is the current folder; name a new folder in it")
    if destination.is_symlink() or os.path.ismount(destination):
        raise DestinationError(
            f"{destination} is a link or a mount point, to which no folder can be moved; name a folder in it"
        )
    if destination.is_dir():
        if any(destination.iterdir()):
            raise DestinationError(f"{destination} exists and is not empty; choose another name or delete it")
    elif destination.exists():
        raise DestinationError(f"{destination} exists and is not a folder; choose another name")


def write_json(path: Path, content: Mapping[str, Any], *, flush: bool = True) -> None:
    """Write JSON as LeRobot does, atomically; ``flush=False``: the caller flushes it to the disk later."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with published(path, flush=flush) as temporary:
        temporary.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")


def write_info(root: Path, info: Mapping[str, Any]) -> list[str]:
    """Write a dataset's ``meta/info.json``, and ``meta/ffenc.json`` if it has contents.

    Args:
        root: its folder.
        info: as returned by :func:`~ffenc.frames.info_json.read_info`.

    Returns:
        Paths of the written files in the dataset, ``meta/info.json`` last.
    """
    lerobots, own = split_info(info)
    written = {OWN_INFO: own, INFO: lerobots} if own else {INFO: lerobots}
    for place, content in written.items():
        write_json(root / place, content)
    return list(written)


def unfinished(destination: Path) -> tuple[Path, int] | None:
    """Return the folder that an interrupted run has left, and the number of its finished pieces."""
    folder = _folder_of(_absolute(destination))
    try:
        count = 0 if _is_published(folder) else _records(folder / "pieces")
    except OSError:  # the dataset's name is so long that no such folder can exist
        return None
    return (folder, count) if count else None


def _records(pieces: Path) -> int:
    """Return the number of recorded pieces."""
    return sum(_is_record(name) for _, name in _files(pieces))


def _is_record(name: str) -> bool:
    """Return whether a file is a record of a finished piece; hidden files are incomplete ones."""
    return name.endswith(".json") and not name.startswith(".")


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield folder and name of all files below; there may be hundreds of thousands."""
    for parent, _, names in os.walk(folder):
        where = Path(parent)
        yield from ((where, name) for name in names)


def _folder_of(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}.ffenc")
