"""Check of the disk space before the first episode of a recording."""

from __future__ import annotations

from pathlib import Path

from ffenc.config.framerate import parse_fps
from ffenc.config.preset import RobotPreset
from ffenc.dataset.job.estimate import refuse_space

# Bytes per pixel of 640x480 frames with sensor noise, the greatest that were measured: colours as video (h264
# veryfast, crf 23, g 2), lossless depth (hevc gray12le), PNG of colours and of depth.
_VIDEO, _DEPTH_VIDEO = 0.05, 0.25
_IMAGE, _DEPTH_IMAGE = 1.3, 2.0


def needed_bytes(robot: RobotPreset, *, episodes: int, seconds: float) -> int:
    """Return the approximate greatest size of a recording while it is made, in bytes.

    Args:
        robot: preset with the recorded cameras; one without a size counts as 640x480.
        episodes: number of episodes.
        seconds: greatest duration of each.
    """
    rows = float(parse_fps(robot.fps)) * seconds
    total = 0.0
    for camera in robot.cameras.values():
        pixels = (camera.width or 640) * (camera.height or 480) * rows
        image = _DEPTH_IMAGE if camera.depth else _IMAGE
        video = _DEPTH_VIDEO if camera.depth else _VIDEO
        if not robot.video:
            total += pixels * image * (episodes + 1)
        else:  # the last one exists twice until it is published
            total += pixels * (video * (episodes + 1) + (image if robot.encode == "after" else 0))
    return round(total)


def check_recording_space(robot: RobotPreset, root: str | Path, *, episodes: int, seconds: float) -> None:
    """Refuse a recording that does not fit on the disk.

    Args:
        robot, episodes, seconds: as for :func:`needed_bytes`.
        root: the dataset; it need not exist.

    Raises:
        DestinationError: it needs more than the free space.

    Warns:
        FfencWarning: it needs nearly all of the free space.
    """
    refuse_space(Path(root), needed_bytes(robot, episodes=episodes, seconds=seconds))
