"""What recordings have in common: their topics, and their messages in the order they were recorded."""

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
        received: when it was recorded, in nanoseconds.
        data: as it is kept.
    """

    topic: str
    received: int
    data: bytes | memoryview


class Bag(ABC):
    """One recording.

    Args:
        path: its file or folder.

    Attributes:
        ordered: messages come in the order of their times, and can be begun at a time.
        remark: what is wrong with the bag and was got over; "": nothing.
    """

    ordered = True
    remark = ""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def files(self) -> list[Path]:
        """The files that it consists of."""
        return [self.path]

    @cached_property
    @abstractmethod
    def topics(self) -> dict[str, Topic]:
        """Its topics by name.

        Raises:
            SourceError: it cannot be read.
        """

    @abstractmethod
    def messages(self, topics: Collection[str], begin: int | None = None) -> Iterator[Raw]:
        """The messages of some topics.

        Args:
            topics: their names.
            begin: leave out messages that were recorded before, in nanoseconds; None: none.

        Raises:
            SourceError: the bag is damaged.
        """

    @cached_property
    def _decoders(self) -> Decoders:
        return Decoders(self.path, self.topics.values())

    def decoded(self, raw: Raw) -> Any:
        """A message as an object with its fields.

        Raises:
            SourceError: it is damaged, or of a type or an encoding that is not known.
        """
        return self._decoders.decoded(self.topics[raw.topic], raw.data, raw.received)

    def __getstate__(self) -> dict[str, Any]:
        """A bag is its path; what was read of it is read again where it is sent to."""
        return {"path": self.path}

    @contextmanager
    def named(self) -> Iterator[None]:
        """Say in an error which file it is about. The libraries and their codecs raise whatever they do."""
        try:
            yield
        except (SourceError, GeneratorExit):
            raise
        except Exception as error:
            raise SourceError(f"{self.path}: is damaged: {words(error)}; restore it") from None


def words(error: BaseException) -> str:
    """An error of a library in one line."""
    text = " ".join(str(error).split())
    return text if text and not isinstance(error, struct.error) else f"{type(error).__name__} {text}".strip()
