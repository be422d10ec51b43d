"""The list of kinds of sources. To add one, add a file to this package and its name here."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

from ffenc.arguments import checked_path
from ffenc.config.texts import check_text
from ffenc.dataset.identify import check_not_v1
from ffenc.dataset.source import DatasetSource
from ffenc.dataset.sources.kind import Opening, SourceKind
from ffenc.errors import ConfigError, SourceError
from ffenc.paths import regular
from ffenc.spelling import argument

# In this order: the first kind that recognises a path is used.
_FILES = ("lerobot", "hdf5", "zarr_store", "ros", "png_tree")

# Fields that every kind accepts, or that a preset may set for sources of other kinds.
_OF_ALL = (
    *("fps", "usual_fps", "robot_type", "cameras", "follow_links", "partial", "choose", "usual_mapping"),
    "programs",
)


def kinds() -> Iterator[SourceKind]:
    """Yield all kinds of sources. Each is imported when it is requested: most sources are datasets."""
    for name in _FILES:
        kind: SourceKind = importlib.import_module(f"ffenc.dataset.sources.{name}").KIND
        yield kind


def kind_of(path: Path) -> SourceKind:
    """Return the kind of source of a path.

    Raises:
        SourceError: the path does not exist, or its kind is not supported.
    """
    if path.is_dir():
        check_not_v1(path)
    elif path.exists():
        regular(path)  # opening a named pipe would block until another program writes to it
    for kind in kinds() if path.exists() else ():
        if kind.recognises(path):
            return kind
    several = _listed([kind.several for kind in kinds()])
    what = "is neither a folder nor a supported file" if path.exists() else "does not exist"
    raise SourceError(f"{path} {what}; supported are {several}")


def open_source(root: str | Path, opening: Opening) -> DatasetSource:
    """Open a source of any kind.

    Args:
        root: its folder or file.
        opening: parameters for opening it.

    Raises:
        SourceError: it is damaged, or its kind is not supported.
        ConfigError: a parameter that its kind does not use, or lacks a required one.
    """
    check_text("task", opening.task)
    path = checked_path("root", root)
    kind = kind_of(path)
    usual = Opening()
    for name in Opening.__struct_fields__:
        if name in _OF_ALL or name in kind.takes:
            continue
        if getattr(opening, name) != getattr(usual, name):
            takers = [one.several for one in kinds() if name in one.takes]
            raise ConfigError(f"{argument(name)} is for {_listed(takers)}; {path} is {kind.what}")
    return kind.open(path, opening)


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
