"""Read and check the lists of a v2.1 or v2.0 dataset: JSON lines, one file per episode."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ffenc.dataset.lerobot_v21 import read_lines
from ffenc.dataset.statistics import stored_numbers
from ffenc.dataset.verify.faults import Faults
from ffenc.dataset.verify.layout import (
    Floats,
    Layout,
    Listing,
    VideoPlaces,
    checked_tasks,
)
from ffenc.errors import SourceError
from ffenc.layout import EPISODE_STATS_V2, EPISODES_V2, INFO, QUANTILES, STATISTICS
from ffenc.paths import LineError

_INT_MAX = np.iinfo(np.int64).max


def old_listing(layout: Layout, tasks: Mapping[int, str], faults: Faults) -> Listing:
    known = set(tasks.values())
    rows: list[tuple[int, int, list[str] | None]] = []
    try:
        for line in read_lines(layout.root / EPISODES_V2):
            row = [line.content.get("episode_index"), line.content.get("length")]
            if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= _INT_MAX for n in row):
                faults.add(
                    "episodes",
                    f"line {line.line} has episode_index {row[0]!r} and length {row[1]!r}",
                    expected="whole numbers",
                    file=EPISODES_V2,
                )
                continue
            texts = checked_tasks(line.content.get("tasks"), known, int(row[0] or 0), EPISODES_V2, faults)
            rows.append((int(row[0] or 0), int(row[1] or 0), texts))
    except SourceError as error:
        faults.add("episodes", _of_line(error), file=EPISODES_V2)
    rows.sort(key=lambda row: row[:2])
    index = np.array([row[0] for row in rows], np.int64)
    length = np.array([row[1] for row in rows], np.int64)
    size = layout.info.get("chunks_size")
    chunks = size if isinstance(size, int) and size > 0 else 1000
    listing = Listing(index, length, np.full(len(rows), -1), [], own={EPISODES_V2})
    listing.episode_tasks = [row[2] for row in rows]

    def places(template: str, key: str) -> list[str]:
        try:
            return [
                template.format(video_key=key, episode_chunk=n // chunks, episode_index=n)
                for n in index.tolist()
            ]
        except (LookupError, ValueError):
            faults.add("info", f"{template!r} is not a path template of this layout", file=INFO)
            return [""] * len(rows)

    listing.data = places(layout.data_path, "")
    for key in layout.videos:
        start = np.zeros(len(rows))
        listing.videos[key] = VideoPlaces(places(layout.video_path, key), start, length / float(layout.fps))
    if layout.version.startswith("v2.1") or (layout.root / EPISODE_STATS_V2).is_file():
        listing.stats = _old_stats(layout, listing, faults)
    return listing


def _old_stats(layout: Layout, listing: Listing, faults: Faults) -> dict[str, dict[str, Floats]]:
    """Read the lines of ``episodes_stats.jsonl``."""
    position = {int(n): at for at, n in enumerate(listing.index)}
    features = [*layout.numeric, *layout.images, *layout.videos]
    found: dict[str, dict[str, Floats]] = {feature: {} for feature in features}
    seen = np.zeros(len(listing), bool)
    broken: dict[str, tuple[int, str]] = {}
    try:
        for line in read_lines(layout.root / EPISODE_STATS_V2):
            number, stats = line.content.get("episode_index"), line.content.get("stats")
            at = position.get(number) if isinstance(number, int) else None
            if at is None or seen[at] or not isinstance(stats, dict):
                problem = "which is not listed, or is listed twice"
                what = f"line {line.line} is of episode {number!r}, {problem}"
                faults.add("statistics-missing", what, file=EPISODE_STATS_V2)
                continue
            seen[at] = True
            for feature in features:
                own = stats.get(feature)
                for name in (*STATISTICS, *QUANTILES):
                    value = own.get(name) if isinstance(own, dict) else None
                    try:
                        flat = stored_numbers(value).reshape(-1)
                        if value is None or not flat.size:
                            raise ValueError
                        if name not in found[feature]:
                            found[feature][name] = np.full((len(listing), len(flat)), np.nan)
                        found[feature][name][at] = flat
                    except ValueError:
                        if name in STATISTICS:
                            broken.setdefault(feature, (int(listing.index[at]), name))
    except SourceError as error:
        faults.add("statistics-missing", _of_line(error), file=EPISODE_STATS_V2)
    for lost in listing.index[~seen].tolist():
        faults.add("statistics-missing", "has no line", file=EPISODE_STATS_V2, episode=lost)
    for feature, (episode, name) in broken.items():
        what = f"has no usable {name} of {feature}"
        faults.add("statistics-missing", what, file=EPISODE_STATS_V2, camera=feature, episode=episode)
    whole = {f: own for f, own in found.items() if set(STATISTICS) <= set(own) and f not in broken}
    return whole if seen.all() else {}


def _of_line(error: SourceError) -> str:
    """Return what is wrong with a line of a file or with the file, without the file's name."""
    return f"line {error.line}: {error.what}" if isinstance(error, LineError) else error.what
