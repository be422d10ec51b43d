"""Read ROS 2 bags, and find the recordings of a path."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from ffenc.dataset.sources.arrays import by_number
from ffenc.dataset.sources.ros_bag import Bag, Raw, words
from ffenc.dataset.sources.ros_decode import Topic, merged_topics, missing
from ffenc.dataset.sources.ros_mcap import MAGIC as MCAP_MAGIC
from ffenc.dataset.sources.ros_mcap import McapBag
from ffenc.errors import SourceError

_SQLITE_MAGIC = b"SQLite format 3\0"
_METADATA = "metadata.yaml"
_IN_URI = re.compile(r"[?#]|%[0-9A-Fa-f]{2}")


class RosBag(Bag):
    """A ROS 2 bag: a ``.db3`` file, or a folder with ``metadata.yaml`` and one or more files."""

    _checked = False  # whether its databases were checked

    @property
    def files(self) -> list[Path]:
        if not self.path.is_dir():
            return [self.path]
        named = self._named_files
        return sorted(p for p in self.path.iterdir() if p.name in named or p.name == _METADATA)

    @cached_property
    def _named_files(self) -> set[str]:
        """Return the names of the files that the metadata lists; empty if it is damaged."""
        import yaml  # noqa: PLC0415 - slow to load

        try:
            found = yaml.safe_load((self.path / _METADATA).read_text(encoding="utf-8"))
            return {
                PurePath(name).name for name in found["rosbag2_bagfile_information"]["relative_file_paths"]
            }
        except (yaml.YAMLError, OSError, ValueError, TypeError, KeyError):
            return set()

    @cached_property
    def topics(self) -> dict[str, Topic]:
        kinds = {"MSG": "ros2msg", "IDL": "ros2idl"}
        with self._open() as reader:
            return merged_topics(
                Topic(
                    one.topic,
                    one.msgtype,
                    one.msgcount,
                    str(one.msgdef.data or "").encode(),
                    kinds.get(one.msgdef.format.name, ""),
                    one.ext.serialization_format,
                )
                for one in reader.connections
            )

    def messages(self, topics: Collection[str], begin: int | None = None) -> Iterator[Raw]:
        with self._open() as reader:
            chosen = [one for one in reader.connections if one.topic in topics]
            with self.named():
                for connection, received, data in reader.messages(chosen, start=begin) if chosen else ():
                    yield Raw(connection.topic, received, data)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            from rosbags.rosbag2 import Reader  # noqa: PLC0415 - an extra
        except ImportError:
            raise missing(self.path) from None
        if not self._checked:
            self._check_databases()
            self._checked = True
        try:
            reader = Reader(self.path)
            reader.open()
        except Exception as error:
            raise SourceError(f"{self.path}: cannot be read as a ROS 2 bag: {words(error)}") from None
        try:
            yield reader
        finally:
            reader.close()

    def _check_databases(self) -> None:
        """Refuse databases of which rosbags would read nothing, or only a part.

        It opens them by a URI, in which some characters have a meaning, and as files that cannot change, for
        which SQLite ignores the journal beside them.
        """
        for file in self.files:
            if file.suffix != ".db3":
                continue
            if found := _IN_URI.search(str(file)):
                raise SourceError(
                    f"{file}: cannot be opened, because its path contains {found[0]!r}; rename it"
                )
            for end in ("-wal", "-journal"):
                journal = file.with_name(file.name + end)
                if journal.is_file() and journal.stat().st_size:
                    raise SourceError(
                        f"{journal} contains messages that are not in {file.name} yet, as after a crash; "
                        f"put them there: sqlite3 {shlex.quote(str(file))} 'PRAGMA journal_mode=DELETE'"
                    )


def bags_of(path: Path) -> list[Bag]:
    """Return the recordings of a path: a file, a bag's folder, or a folder of either; empty if none."""
    if not path.is_dir():
        with path.open("rb") as file:
            head = file.read(16)
        if head.startswith(MCAP_MAGIC) or path.suffix == ".mcap":
            return [McapBag(path)]
        return [RosBag(path)] if head == _SQLITE_MAGIC or path.suffix == ".db3" else []
    if _is_folder_of_bag(path):
        files = sorted(path.glob("*.mcap"))
        # rosbags needs the index, which is missing after a crash; the MCAP library does not.
        return [McapBag(files[0])] if len(files) == 1 and not any(path.glob("*.db3")) else [RosBag(path)]
    below = [one for one in sorted(path.iterdir(), key=lambda one: by_number(one.name)) if one.name[0] != "."]
    found: list[Bag] = [
        RosBag(one) if any(one.glob("*.db3")) else bags_of(one)[0]
        for one in below
        if one.is_dir() and _is_folder_of_bag(one)
    ]
    found += [McapBag(one) for one in below if one.is_file() and one.suffix == ".mcap"]
    found += [RosBag(one) for one in below if one.is_file() and one.suffix == ".db3"]
    return found


def unread_files(path: Path, bags: Sequence[Bag]) -> list[Path]:
    """Return the files and folders below a path that belong to none of its recordings."""
    if not path.is_dir():
        return []
    read = {file for bag in bags for file in (*bag.files, bag.path, bag.path.parent)}
    folders = dict.fromkeys([path, *(bag.path if bag.path.is_dir() else bag.path.parent for bag in bags)])
    return [
        one
        for folder in folders
        for one in sorted(folder.iterdir())
        if one not in read and one.name[0] != "." and one.name != _METADATA
    ]


def _is_folder_of_bag(path: Path) -> bool:
    return (path / _METADATA).is_file() and any(
        one.suffix in (".db3", ".mcap", ".zstd") for one in path.iterdir()
    )
