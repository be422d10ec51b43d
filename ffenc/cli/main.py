"""The entry point: signals are handled before any slow import."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from types import FrameType
from typing import NoReturn

from ffenc.cli.signals import Signals

_START_OBJECTS = 100_000  # approximate number of objects that a start creates


_UNUSED = ("pandas", "pyarrow._s3fs", "pyarrow._gcsfs", "pyarrow._azurefs", "pyarrow._hdfs")


class _Unused:
    """An import finder that reports unused packages as not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None, /) -> None:
        if name in _UNUSED:
            raise ModuleNotFoundError(f"ffenc does not use {name}", name=name)


def main() -> NoReturn:
    """Run the command line and end the process; the console script's entry point."""
    status = 1

    def end() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                if stream is not None:
                    stream.flush()
        os._exit(status)

    # Registered first, so called last at the exit. Freeing every object would take up to 0.2 s after a long
    # job, and the system frees the memory anyway.
    if _is_program(sys._getframe(1)):
        atexit.register(end)
    status = answer()
    sys.exit(status)


def _is_program(caller: FrameType) -> bool:
    """Return whether the process is for the caller of :func:`main` only: a script, or ``python -m``.

    A notebook, a test or a profiler goes on after the command, and has its own exit status and handlers.
    """
    outer = caller.f_back
    while outer is not None and outer.f_globals.get("__name__") == "runpy":
        outer = outer.f_back
    return outer is None


def answer() -> int:
    """Run the command line; a signal ends the process.

    Returns:
        The exit status.
    """
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
        # A signal can cause errors of many kinds, depending on the line that it interrupts.
        if signals.number is None:
            raise
    signals.leave()
    return status


def _spare_the_start() -> None:
    """Skip slow steps at the start that have no use here.

    A garbage collection after the imports is skipped: what they load stays. Arrow imports pandas at its
    first array if it is installed; ffenc does not use it, and it takes longer than all other imports.
    Arrow also loads its own access to cloud storage; ffenc uses fsspec for that.
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
