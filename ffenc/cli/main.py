"""The entry point: signals are looked after before anything that takes time is loaded."""

from __future__ import annotations

import sys
from typing import NoReturn

from ffenc.cli.signals import Signals


def main() -> NoReturn:
    """Run the command line and end the process; the console script's entry point."""
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
    sys.exit(status)
