"""Read ROS 2 bags, and find the recordings of a path."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from ffenc.dataset.sources.ros_bag import Bag, Raw, words
from ffenc.dataset.sources.ros_decode import Topic, missing
from ffenc.dataset.sources.ros_mcap import MAGIC as MCAP_MAGIC
from ffenc.dataset.sources.ros_mcap import McapBag
from ffenc.errors import SourceError

_SQLITE_MAGIC = b"SQLite format 3\0"


class RosBag(Bag):
    """A ROS 2 bag: a ``.db3`` file, or a folder with ``metadata.yaml`` and one or more files."""

    @property
    def files(self) -> list[Path]:
        if not self.path.is_dir():
            return [self.path]
        return sorted(p for p in self.path.iterdir() if p.suffix in (".db3", ".mcap", ".yaml", ".zstd"))

    @cached_property
    def topics(self) -> dict[str, Topic]:
        kinds = {"MSG": "ros2msg", "IDL": "ros2idl"}
        with self._open() as reader:
            return {
                one.topic: Topic(
                    one.topic,
                    one.msgtype,
                    one.msgcount,
                    str(one.msgdef.data or "").encode(),
                    kinds.get(one.msgdef.format.name, ""),
                    one.ext.serialization_format,
                )
                for one in sorted(reader.connections, key=lambda one: str(one.topic))
            }

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
        try:
            reader = Reader(self.path)
            reader.open()
        except Exception as error:
            raise SourceError(f"{self.path}: cannot be read as a ROS 2 bag: {words(error)}") from None
        try:
            yield reader
        finally:
            reader.close()


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
    below = [one for one in sorted(path.iterdir()) if one.name[0] != "."]
    found: list[Bag] = [
        RosBag(one) if any(one.glob("*.db3")) else bags_of(one)[0]
        for one in below
        if one.is_dir() and _is_folder_of_bag(one)
    ]
    found += [McapBag(one) for one in below if one.is_file() and one.suffix == ".mcap"]
    found += [RosBag(one) for one in below if one.is_file() and one.suffix == ".db3"]
    return found


def _is_folder_of_bag(path: Path) -> bool:
    return (path / "metadata.yaml").is_file() and any(
        one.suffix in (".db3", ".mcap", ".zstd") for one in path.iterdir()
    )
