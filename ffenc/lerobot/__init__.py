"""ffenc inside LeRobot: LeRobot's commands and classes, with ffenc as their video encoder.

LeRobot is not a dependency of ffenc; it is only imported by :func:`use`.
"""

from __future__ import annotations

from ffenc.lerobot.seams import Use, use

__all__ = ["Use", "use"]
