"""LeRobot datasets of v3.0, v2.1 and v2.0."""

from __future__ import annotations

from pathlib import Path

from ffenc.dataset.lerobot import Choice
from ffenc.dataset.lerobot_v3 import LeRobotV3
from ffenc.dataset.lerobot_v21 import LeRobotV21
from ffenc.dataset.sources.kind import Opening, SourceKind
from ffenc.frames.info_json import read_json
from ffenc.layout import INFO
from ffenc.paths import check_tree


def open_dataset(
    folder: Path,
    *,
    follow_links: bool = False,
    retime: bool = False,
    partial: bool = False,
    choose: Choice | None = None,
    ffprobe: str | None = None,
) -> LeRobotV3 | LeRobotV21:
    """Open a LeRobot dataset of v3.0, v2.1 or v2.0.

    Args:
        folder: its folder.
        follow_links: see :func:`~ffenc.paths.check_tree`.
        retime: put the rows of frame i at i / fps, regardless of the stored times.
        partial: only some episodes will be read: faults of single episodes are raised by ``check`` and
            ``choose``.
        choose, ffprobe: see :class:`~ffenc.dataset.lerobot.LeRobotDataset`.

    Raises:
        SourceError: not a LeRobot dataset, or damaged.
    """
    check_tree(folder, follow_links=follow_links)
    version = str(read_json(folder / INFO).get("codebase_version"))
    layout = LeRobotV21 if version.startswith("v2") else LeRobotV3
    return layout(folder, retime=retime, partial=partial, choose=choose, ffprobe=ffprobe)


def _open(folder: Path, opening: Opening) -> LeRobotV3 | LeRobotV21:
    return open_dataset(
        folder,
        follow_links=opening.follow_links,
        retime=opening.retime,
        partial=opening.partial,
        choose=opening.choose,
        ffprobe=opening.programs[1],
    )


KIND = SourceKind(
    "a LeRobot dataset",
    "datasets",
    recognises=lambda path: (path / INFO).is_file(),
    open=_open,
    takes=frozenset(["retime"]),
)
