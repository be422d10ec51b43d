"""A redo log: several files are added to a dataset together, even if the machine stops on the way.

New files are first written to a folder beside the dataset, and then listed in :data:`COMMIT`. From then on
the commit can only be completed: :func:`finish_commit` does the remaining moves.

A dataset may be untrusted and contain such a list. So a list only moves files from its own folder to places
where a recording writes, and it is signed by its writer: other lists are followed only on request.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from ffenc.dataset.checksums import file_checksum
from ffenc.dataset.owner import is_signed, sign
from ffenc.dataset.staging import write_json
from ffenc.errors import DestinationError, SourceError
from ffenc.frames.info_json import read_json
from ffenc.frames.publish import sync_folder
from ffenc.layout import (
    CHECKSUMS,
    DATA_PATH,
    EPISODES_PATH,
    INFO,
    NOTES_PATH,
    OWN_INFO,
    STATS,
    TASKS,
    VIDEO_PATH,
)
from ffenc.paths import inside, keep_inside, plain_tree, template_pattern
from ffenc.spelling import call

COMMIT = "commit.json"
RECORDINGS = ".recording"  # in a dataset's folder: unfinished episodes, one folder each
DELETED = ".deleted"  # suffix of a folder there that is being deleted
# All files that an episode may add or replace.
_NEW = [template_pattern(template) for template in (DATA_PATH, VIDEO_PATH, EPISODES_PATH)]
_REPLACED = [
    template_pattern(place) for place in (INFO, OWN_INFO, STATS, TASKS, CHECKSUMS, NOTES_PATH, EPISODES_PATH)
]
_SIGNATURE = "signature"
_MOST_SHOWN = 20  # moves in an error


class Move(Struct, frozen=True):
    """The move of a file into a dataset.

    Attributes:
        source: its path in the staging folder.
        target: its path in the dataset.
        replaces: it replaces an existing file; otherwise there must be none.
    """

    source: str
    target: str
    replaces: bool = False


def write_commit(folder: Path, root: Path, moves: Sequence[Move]) -> None:
    """Flush files and folders to disk, and list the files as a commit.

    Args:
        folder: the folder that contains them.
        root: the dataset.
        moves: in this order; the last one is the new ``meta/info.json``, which shows whether the dataset has
            been changed since.

    Raises:
        SourceError: a target is behind a link that leads out of the dataset.
    """
    for move in moves:
        _check_move(move, folder, root)
    assert moves[-1].target == INFO
    for move in moves:
        path = folder / move.source
        with path.open("rb") as file:
            os.fsync(file.fileno())
    for parent in sorted({p for m in moves for p in (folder / m.source).parents if p.is_relative_to(folder)}):
        sync_folder(parent)
    for parent in list(folder.parents)[:3]:  # the folder and its parents may be new
        sync_folder(parent)
    content = {
        "info_before": _checksum(root / INFO),
        "info_after": _checksum(folder / moves[-1].source),
        "moves": [{"from": m.source, "to": m.target, "replaces": m.replaces} for m in moves],
    }
    write_json(folder / COMMIT, content | {_SIGNATURE: sign(_signed(content, folder))})


def _signed(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the signed values: the list and the episode's name; not the dataset's, which may be renamed."""
    return {"episode": folder.name, **{name: content[name] for name in content if name != _SIGNATURE}}


def finish_commit(folder: Path, root: Path, *, trust: bool = False) -> bool:
    """Complete the moves of a folder's :data:`COMMIT`, and delete the folder.

    It may be interrupted at any point, also by a power failure: the next call continues, with the same
    result. Moves are flushed to disk one by one, in order; other files of the dataset are not touched.

    Args:
        folder: the folder with the files, on the dataset's file system.
        root: the dataset; created if it does not exist.
        trust: follow a list written by another user or on another machine.

    Returns:
        False if there is no commit, so the episode is incomplete; nothing was done. An empty folder is the
        rest of a completed commit.

    Raises:
        DestinationError: the dataset was changed by another program, has another file at a target, or a file
            of the commit is missing. Nothing is overwritten.
        SourceError: the commit cannot be read, has a move that no recording makes, or is untrusted. Nothing
            is done.
    """
    path = folder / COMMIT
    if not os.path.lexists(path):
        return False
    commit, moves = _read(path, root)
    if not (trust or is_signed(_signed(commit, folder), commit.get(_SIGNATURE))):
        raise SourceError(
            f"{path}: was not written by this user on this machine. If you know where {root} comes from, "
            f"{call('recover', root=root, trust=True)} puts the episode into the dataset:"
            f"{_shown(moves)}\nElse delete {folder}"
        )
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
    # The list is deleted last: a folder without it is an incomplete episode.
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


def recording_folders(root: Path) -> list[Path]:
    """Return the folders in a dataset's :data:`RECORDINGS`, in order.

    Raises:
        SourceError: it, or one of them, is a link, or anything but files and folders.
    """
    folder = root / RECORDINGS
    if not os.path.lexists(folder):
        return []
    try:
        keep_inside(root, folder)
        if folder.is_symlink() or not folder.is_dir():
            raise SourceError(
                "is not a folder",
                expected="a folder, not a link",
                where=folder,
                fix="delete it, or move it away",
            )
        found = sorted(folder.iterdir())
        for path in found:
            if path.is_symlink() or not path.is_dir():
                plain_tree(path)
        return [path for path in found if path.is_dir()]
    except OSError as error:
        raise SourceError(f"{folder}: cannot be read: {error.strerror}") from None


def pending_commits(root: Path) -> list[Path]:
    """Return the folders of a dataset with a commit that :func:`finish_commit` would complete, in order.

    Raises:
        SourceError: as for :func:`recording_folders`.
    """
    return [folder for folder in recording_folders(root) if os.path.lexists(folder / COMMIT)]


def finish_commits(root: Path, *, trust: bool = False) -> int:
    """Complete the commits of episodes that were being saved when the program ended; return their number.

    Args:
        root: the dataset.
        trust: also those written by another user or on another machine.

    Raises:
        SourceError, DestinationError: as for :func:`finish_commit`.
    """
    return sum(finish_commit(folder, root, trust=trust) for folder in pending_commits(root))


def commit_moves(folder: Path, root: Path) -> list[Move]:
    """Return the moves that :func:`finish_commit` would do for a folder with a :data:`COMMIT`.

    Raises:
        SourceError: as there, except for an untrusted writer.
    """
    return _read(folder / COMMIT, root)[1]


def _shown(moves: Sequence[Move]) -> str:
    lines = [f"\n  {m.target}{' (replaced)' if m.replaces else ''}" for m in moves[:_MOST_SHOWN]]
    more = len(moves) - _MOST_SHOWN
    return "".join(lines) + (f"\n  and {more} more" if more > 0 else "")


def _read(path: Path, root: Path) -> tuple[dict[str, Any], list[Move]]:
    """Read a commit, and check that no move leaves its folders."""
    try:
        plain_tree(path.parent)
        commit = read_json(path)
        moves = [Move(m["from"], m["to"], m["replaces"]) for m in commit["moves"]]
        known = bool(moves) and moves[-1].target == INFO
        both = len({m.source for m in moves}) == len({m.target for m in moves}) == len(moves)
    except (LookupError, TypeError):
        known = both = False
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    if not (known and both):
        raise SourceError(
            f"{path}: is not a list of moves as ffenc writes it; delete it to have the episode written again"
        )
    for move in moves:
        _check_move(move, path.parent, root)
    return commit, moves


def _check_move(move: Move, folder: Path, root: Path) -> None:
    """Refuse a move from outside an episode's folder, or to a place where no recording writes.

    Raises:
        SourceError: the text names the move.
    """
    where = str(folder / COMMIT)
    inside(folder, move.source, f"{where}: from")
    inside(root, move.target, f"{where}: to")
    places = _REPLACED if move.replaces else _NEW
    if move.source == COMMIT or not any(place.fullmatch(move.target) for place in places):
        raise SourceError(
            f"{where}: {move.source!r} is to become {move.target!r}, but no recording writes that "
            "file; delete the list to have the episode written again"
        )


def _check_unchanged(commit: dict[str, Any], moves: Sequence[Move], folder: Path, root: Path) -> None:
    """Refuse a dataset that is neither in the state before the commit nor in that after it."""
    if _checksum(root / INFO) in (commit.get("info_before"), commit.get("info_after")):
        return
    moved = [move for move in moves if not move.replaces and not (folder / move.source).exists()]
    back = "".join(f"\n  move {root / m.target} back to {folder / m.source}" for m in moved)
    raise DestinationError(
        f"{root / INFO} was changed by another program since the episode in {folder} was finished: its "
        "number and totals no longer fit. To have the episode written again:"
        f"{back}\n  delete {folder / COMMIT}"
    )


def _check_place(move: Move, folder: Path, root: Path) -> None:
    waits, there = (folder / move.source).exists(), (root / move.target).exists()
    if waits and there and not move.replaces:
        raise DestinationError(
            f"{root / move.target} already exists, and would be overwritten by the episode in "
            f"{folder}; move that file away if it belongs to no episode"
        )
    if not waits and not there:
        raise DestinationError(
            f"{folder / move.source} is missing, also in the dataset; restore it there, or delete "
            f"{folder / COMMIT} to have the episode written again"
        )


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents, each flushed to disk."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def _checksum(path: Path) -> str | None:
    return file_checksum(path) if path.is_file() else None
