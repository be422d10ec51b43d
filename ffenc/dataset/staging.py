"""A hidden folder beside the destination in which a dataset grows until it is whole."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from typing_extensions import Self

from ffenc.errors import DestinationError
from ffenc.frames.publish import locked, published, sync_folder


class Staging:
    """Holds finished pieces, parts cut out of a source, the dataset being put together, and the run's lock.

    The lock is the kernel's: it goes with the process, however that ends.

    Args:
        destination: where the dataset will stand; must not exist, or be an empty folder.
        resume: take up what an interrupted run has left.

    Raises:
        DestinationError: the destination is taken, another run writes it, or an interrupted run's pieces
            are there and ``resume`` was not asked for.
    """

    def __init__(self, destination: Path, *, resume: bool) -> None:
        self.destination = Path(os.path.abspath(destination))  # noqa: PTH100 - symbolic links stay as they are
        check_destination(self.destination)
        self.folder = _folder_of(self.destination)
        self.pieces = self.folder / "pieces"
        self.cuts = self.folder / "cuts"
        self.dataset = self.folder / "dataset"
        self._resume = resume
        self._lock: IO[str] | None = None
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        try:
            self._made = [p for p in self.folder.parents if not p.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / "lock").open("a", encoding="utf-8")
        except OSError as error:
            raise DestinationError(f"{self.folder}: cannot be created: {error.strerror}") from None
        if not locked(self._lock):
            self._lock.close()
            self._lock = None
            raise DestinationError(
                f"{self.destination} is being written by another run of ffenc; wait for it"
            )
        if self.has_pieces() and not self._resume:
            self._unlock()
            raise DestinationError(
                f"an interrupted run towards {self.destination} left finished episodes in {self.folder}. "
                "Go on with --resume, or delete that folder to start anew"
            )
        for scratch in (self.dataset, self.cuts):
            shutil.rmtree(scratch, ignore_errors=True)
        for needed in (self.pieces, self.cuts):
            needed.mkdir(exist_ok=True)
        for leftover in self.pieces.rglob(".*.partial*"):
            leftover.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for scratch in (self.dataset, self.cuts):
            shutil.rmtree(scratch, ignore_errors=True)
        if not self.has_pieces():
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # those that hold something by now stay
                for parent in self._made:
                    parent.rmdir()
        self._unlock()

    def has_pieces(self) -> bool:
        """Whether there are finished pieces to take up."""
        return _records(self.pieces) > 0

    def publish(self) -> None:
        """Flush the dataset to disk, move it to its destination, and delete the pieces.

        Raises:
            DestinationError: something has come to the destination in the meantime.
        """
        for path in self.dataset.rglob("*"):
            if path.is_dir():
                sync_folder(path)
            else:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        check_destination(self.destination)
        self.dataset.replace(self.destination)
        sync_folder(self.destination.parent)
        shutil.rmtree(self.pieces)

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def check_destination(destination: Path) -> None:
    """Refuse a destination that is taken or cannot be.

    Raises:
        DestinationError: it exists and is not an empty folder, or its name cannot be used.
    """
    if re.search(r"[\x00-\x1f]", str(destination)):
        raise DestinationError(f"{str(destination)!r}: control characters in a path are not supported")
    if destination.is_symlink() or os.path.ismount(destination):
        raise DestinationError(
            f"{destination} is a link or a mount point, which no folder can be moved to; name a folder in it"
        )
    if destination.is_dir():
        if any(destination.iterdir()):
            raise DestinationError(f"{destination} exists and is not empty; choose another name or delete it")
    elif destination.exists():
        raise DestinationError(f"{destination} exists and is not a folder; choose another name")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON as LeRobot does, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with published(path) as temporary:
        temporary.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")


def unfinished(destination: Path) -> tuple[Path, int] | None:
    """Return the folder an ended run has left beside a destination, and how many encodes are done in it."""
    folder = _folder_of(Path(os.path.abspath(destination)))  # noqa: PTH100
    count = _records(folder / "pieces")
    return (folder, count) if count else None


def _records(pieces: Path) -> int:
    """How many encodes are on record; hidden files are those that were being written."""
    return sum(1 for path in pieces.rglob("*.json") if not path.name.startswith("."))


def _folder_of(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}.ffenc")
