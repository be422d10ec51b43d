"""The entry point: signals are looked after before anything that takes time is loaded."""

from __future__ import annotations

import gc
import sys
from typing import NoReturn

from ffenc.cli.signals import Signals

_START_OBJECTS = 100_000  # which a start makes, about


_UNUSED = ("pandas", "pyarrow._s3fs", "pyarrow._gcsfs", "pyarrow._azurefs", "pyarrow._hdfs")


class _Unused:
    """Answers Python's question for what is loaded by others, where it is there: it is not here."""

    def find_spec(self, name: str, path: object = None, target: object = None, /) -> None:
        if name in _UNUSED:
            raise ModuleNotFoundError(f"ffenc does not use {name}", name=name)


def main() -> NoReturn:
    """Run the command line and end the process; the console script's entry point."""
    _spare_the_start()
    signals = Signals()
    signals.install()
    status = 1
    try:
        try:
            signals.arm()
            from ffenc.cli.app import run  # noqa: PLC0415 - a signal that comes meanwhile is not lost

            status = run(sys.argv[1:], ending=lambda: signals.number is not None)
        finally:
            signals.disarm()
    except BaseException:
        # A signal makes errors of many kinds of the lines that it comes to.
        if signals.number is None:
            raise
    signals.leave()
    gc.freeze()  # the interpreter's last look for garbage would be at all that was loaded
    sys.exit(status)


def _spare_the_start() -> None:
    """Leave out what takes time at the start and serves nothing.

    Python looks for garbage when all is loaded, for what is loaded stays. Arrow loads pandas at its first
    array, where that is installed; nothing here uses it, and it takes longer than all else. It also loads
    what reads stores in the cloud, which fsspec does here.
    """
    sys.meta_path.insert(0, _Unused())
    usual = gc.get_threshold()

    def loaded(phase: str, _: dict[str, int]) -> None:
        if phase == "stop":
            gc.callbacks.remove(loaded)
            gc.freeze()
            gc.set_threshold(*usual)

    gc.callbacks.append(loaded)
    gc.set_threshold(_START_OBJECTS)
