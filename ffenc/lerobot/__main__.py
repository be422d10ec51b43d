"""Run one of LeRobot's commands with ffenc as its encoder; ``ffenc lerobot`` executes this module."""

from __future__ import annotations

import sys

from ffenc.errors import FfencError
from ffenc.lerobot.command import run

if __name__ == "__main__":
    try:
        run(sys.argv[1:])
    except FfencError as error:
        print(f"ffenc: error: {error}", file=sys.stderr)
        sys.exit(1)
