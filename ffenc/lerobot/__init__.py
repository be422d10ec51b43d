"""ffenc inside LeRobot: its own commands and classes, with ffenc as their video encoder.

LeRobot is no dependency of ffenc: it is imported by :func:`use`, and only there.
"""

from __future__ import annotations

from ffenc.lerobot.seams import Use, use

__all__ = ["Use", "use"]
