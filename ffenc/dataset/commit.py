"""A redo log: several files come into a dataset together, however often the machine stops on the way.

What comes in is written in a folder beside it first, and then listed in :data:`COMMIT`. From then on it can
only be finished: :func:`finish_commit` does the moves that are not done yet.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffenc.dataset.checksums import file_checksum
from ffenc.dataset.staging import write_json
from ffenc.errors import DestinationError, SourceError
from ffenc.frames.info_json import read_json
from ffenc.frames.publish import sync_folder

COMMIT = "commit.json"
RECORDINGS = ".recording"  # in a dataset's folder: episodes that are not in it yet, a folder each
_INFO = "meta/info.json"


@dataclass(frozen=True)
class Move:
    """A file that comes into a dataset.

    Attributes:
        source: its path in the folder it waits in.
        target: its place in the dataset.
        replaces: a file is there already, and is replaced; else none may be.
    """

    source: str
    target: str
    replaces: bool = False


def write_commit(folder: Path, root: Path, moves: Sequence[Move]) -> None:
    """Flush files and folders to disk, and list them as what will come into a dataset.

    Args:
        folder: where they wait.
        root: the dataset.
        moves: in this order; the last one is the new ``meta/info.json``, which tells whether the dataset is
            still the one they were made for.
    """
    assert moves[-1].target == _INFO
    for move in moves:
        path = folder / move.source
        with path.open("rb") as file:
            os.fsync(file.fileno())
    for parent in sorted({p for m in moves for p in (folder / m.source).parents if p.is_relative_to(folder)}):
        sync_folder(parent)
    for parent in list(folder.parents)[:3]:  # the folder may be new, and those above it
        sync_folder(parent)
    content = {
        "info_before": _checksum(root / _INFO),
        "info_after": _checksum(folder / moves[-1].source),
        "moves": [{"from": m.source, "to": m.target, "replaces": m.replaces} for m in moves],
    }
    write_json(folder / COMMIT, content)


def finish_commit(folder: Path, root: Path) -> bool:
    """Bring into a dataset what a folder's :data:`COMMIT` lists and is not there yet, and delete the folder.

    It may be interrupted anywhere, by the power too: called again, it goes on, and the dataset is the same.
    Moves are flushed to disk one by one, in order; what is not replaced in the dataset is not touched.

    Args:
        folder: where the files wait, on the dataset's file system.
        root: the dataset; made if it does not exist.

    Returns:
        False: there is no commit, so nothing is complete; nothing was done. A folder that is empty is what an
        interruption has left of one that is finished.

    Raises:
        DestinationError: the dataset was changed since by someone else, has another file in a place that is
            to be filled, or a file of the commit is gone. Nothing is overwritten.
        SourceError: the commit cannot be read.
    """
    path = folder / COMMIT
    if not path.is_file():
        return False
    commit, moves = _read(path)
    if any((folder / move.source).exists() for move in moves):
        _check_unchanged(commit, moves, folder, root)
    for move in moves:
        _check_place(move, folder, root)
    for move in moves:
        source, target = folder / move.source, root / move.target
        if source.exists():
            _make_folder(target.parent)
            source.replace(target)
            sync_folder(target.parent)
    # The list goes last: a folder without it is an episode that is not in the dataset.
    for rest in folder.iterdir():
        if rest.is_dir() and not rest.is_symlink():
            shutil.rmtree(rest)
        elif rest.name != COMMIT:
            rest.unlink()
    sync_folder(folder)
    path.unlink()
    folder.rmdir()
    sync_folder(folder.parent)
    return True


def pending_commits(root: Path) -> list[Path]:
    """Return the folders whose episode will come into a dataset by :func:`finish_commit`, in their order."""
    return sorted(path.parent for path in (root / RECORDINGS).glob(f"*/{COMMIT}"))


def _read(path: Path) -> tuple[dict[str, Any], list[Move]]:
    try:
        commit = read_json(path)
        moves = [Move(str(m["from"]), str(m["to"]), bool(m["replaces"])) for m in commit["moves"]]
        if moves and moves[-1].target == _INFO:
            return commit, moves
    except (SourceError, LookupError, TypeError):
        pass
    raise SourceError(f"{path}: is not a list of moves; delete it to have the episode written anew")


def _check_unchanged(commit: dict[str, Any], moves: Sequence[Move], folder: Path, root: Path) -> None:
    """Refuse where the dataset is neither the one before the commit nor the one after it."""
    if _checksum(root / _INFO) in (commit.get("info_before"), commit.get("info_after")):
        return
    moved = [move for move in moves if not move.replaces and not (folder / move.source).exists()]
    back = "".join(f"\n  move {root / m.target} back to {folder / m.source}" for m in moved)
    raise DestinationError(
        f"{root / _INFO} was changed by another program since the episode in {folder} was finished: its "
        "number and totals no longer fit. To have the episode written anew:"
        f"{back}\n  delete {folder / COMMIT}"
    )


def _check_place(move: Move, folder: Path, root: Path) -> None:
    waits, there = (folder / move.source).exists(), (root / move.target).exists()
    if waits and there and not move.replaces:
        raise DestinationError(
            f"{root / move.target} is there already, and would be overwritten by the episode in {folder}; "
            "move that file away if it is of no episode"
        )
    if not waits and not there:
        raise DestinationError(
            f"{folder / move.source} is gone, and not in the dataset either; restore it there, or delete "
            f"{folder / COMMIT} to have the episode written anew"
        )


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each flushed to disk."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def _checksum(path: Path) -> str | None:
    return file_checksum(path) if path.is_file() else None
