"""Puts ffenc into LeRobot's commands where FFENC_LEROBOT=1 is in the environment.

LeRobot imports every installed package whose name begins with ``lerobot_camera_`` when a command starts.
FFENC_PRESET names a preset, FFENC_ON_FULL says what is done with a frame whose encoder is behind.
"""

from __future__ import annotations

import os
import sys


def _use() -> None:
    said = os.environ.get("FFENC_LEROBOT", "0")
    if said in ("", "0"):
        return
    if said != "1":
        sys.exit(f"ffenc: error: FFENC_LEROBOT={said} is not accepted: 1 is on, 0 is off")
    from ffenc.errors import FfencError
    from ffenc.lerobot.seams import in_use, use

    if in_use():
        return
    try:
        use(preset=os.environ.get("FFENC_PRESET") or None)
    except FfencError as error:
        # An exception would only be logged, and LeRobot would go on without.
        sys.exit(f"ffenc: error: FFENC_LEROBOT=1: {error}")


_use()
