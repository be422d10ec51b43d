"""The interface of recordings: their topics, and their messages in the order of recording."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from msgspec import Struct

from ffenc.dataset.sources.ros_decode import Decoders, Topic
from ffenc.errors import SourceError


class Raw(Struct, frozen=True):
    """A message.

    Attributes:
        topic: its topic.
        received: time of recording, in nanoseconds.
        data: the stored bytes.
    """

    topic: str
    received: int
    data: bytes | memoryview


class Bag(ABC):
    """One recording.

    Args:
        path: file or folder.

    Attributes:
        ordered: messages are read in the order of their times, and reading can start at a time.
        remark: a defect of the bag that does not prevent reading; "": none.
    """

    ordered = True
    remark = ""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def files(self) -> list[Path]:
        """Return the files of the recording."""
        return [self.path]

    @cached_property
    @abstractmethod
    def topics(self) -> dict[str, Topic]:
        """Return the topics by name.

        Raises:
            SourceError: the recording cannot be read.
        """

    @abstractmethod
    def messages(self, topics: Collection[str], begin: int | None = None) -> Iterator[Raw]:
        """Yield the messages of some topics.

        Args:
            topics: their names.
            begin: skip messages that were recorded before this time, in nanoseconds; None: skip none.

        Raises:
            SourceError: the bag is damaged.
        """

    @cached_property
    def _decoders(self) -> Decoders:
        return Decoders(self.path, self.topics.values())

    def decoded(self, raw: Raw) -> Any:
        """Return a message as an object with its fields.

        Raises:
            SourceError: it is damaged, or its type or encoding is unknown.
        """
        return self._decoders.decoded(self.topics[raw.topic], raw.data, raw.received)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle a bag as its path; its contents are read again in the other process."""
        return {"path": self.path}

    @contextmanager
    def named(self) -> Iterator[None]:
        """Add the file to errors, including those of the libraries and their codecs."""
        try:
            yield
        except (SourceError, GeneratorExit):
            raise
        except Exception as error:
            raise SourceError(f"{self.path}: is damaged: {words(error)}; restore it") from None


def words(error: BaseException) -> str:
    """Return a library's error as one line."""
    text = " ".join(str(error).split())
    return text if text and not isinstance(error, struct.error) else f"{type(error).__name__} {text}".strip()
