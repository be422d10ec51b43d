"""LeRobot's functions that run in worker processes, where ffenc may not be in use yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from msgspec import Struct

from ffenc.lerobot.options import Options


class Worker(Struct, frozen=True):
    """One of LeRobot's worker functions; it activates ffenc in a process that was not forked from this one.

    Attributes:
        name: its name in LeRobot.
        options: how ffenc encodes.
        originals: LeRobot's own worker functions, once ffenc is in use.
    """

    name: str
    options: Options
    originals: ClassVar[dict[str, Callable[..., Any]]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from ffenc.lerobot.seams import in_use, use  # noqa: PLC0415 - which imports this

        if not in_use():
            use(on_full=self.options.on_full, preset=self.options.preset)
        return self.originals[self.name](*args, **kwargs)
