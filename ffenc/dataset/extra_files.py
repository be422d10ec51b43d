"""Files of a dataset that are neither its tables nor its videos, and are kept as they are."""

from __future__ import annotations

from pathlib import Path

from ffenc.layout import (
    CHECKSUMS,
    EPISODE_STATS_V2,
    EPISODES_V2,
    INFO,
    NOTES_PATH,
    OWN_INFO,
    STATS,
    TASKS,
    TASKS_V2,
)
from ffenc.paths import template_pattern

_NOTES = template_pattern(NOTES_PATH)
# Files of either layout, which a conversion in place may have left: they are not extra files.
_WRITTEN = frozenset(
    {
        *(INFO, OWN_INFO, STATS, TASKS, CHECKSUMS),
        *(EPISODES_V2, EPISODE_STATS_V2, TASKS_V2),
    }
)


def extra_files(root: Path) -> list[tuple[Path, str]]:
    """Return the other files of a dataset: a README, subtasks, annotations.

    Returns:
        Each file's path, and its place in the dataset.
    """
    places = []
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root)
        hidden = any(part.startswith(".") for part in place.parts)
        if hidden or not path.is_file() or place.as_posix() in _WRITTEN:
            continue
        if place.parts[0] in ("data", "images", "videos") or place.parts[:2] == ("meta", "episodes"):
            continue
        if _NOTES.fullmatch(place.as_posix()):
            continue  # these belong to their episodes
        places.append((path, place.as_posix()))
    return places
