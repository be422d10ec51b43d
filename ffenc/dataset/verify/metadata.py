"""The checks without decoding, which jobs also apply to their source and their result."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from ffenc.dataset.places import list_files
from ffenc.dataset.verify.faults import KINDS, Fault, Faults
from ffenc.dataset.verify.layout import Layout, Listing, read_layout
from ffenc.dataset.verify.lists import read_listing, read_part
from ffenc.dataset.verify.tables import RowChecks
from ffenc.dataset.verify.videos import Seen, VideoFile, check_feature, check_video, video_files
from ffenc.errors import FfencWarning, SourceError, VerificationError
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.ffmpeg.toolchain import find_ffprobe
from ffenc.layout import CAMERA_TYPES, EPISODES, STATS
from ffenc.parallel.pool import run_units, share_cores

_SHOWN = 8  # number of faults in an error


class Tables(Struct, frozen=True):
    """A dataset's lists, after the checks of its lists, rows and statistics.

    Attributes:
        aggregated: feature whose quantiles in ``stats.json`` are computed from the episodes' quantiles ->
            whether that is certain.
    """

    layout: Layout
    listing: Listing
    aggregated: Mapping[str, bool] = field(default_factory=dict)


def check_tables(root: Path, faults: Faults, *, episodes: Collection[int] | None = None) -> Tables | None:
    """Check info.json, lists, rows and statistics, without opening videos.

    Args:
        root: the dataset.
        faults: faults are added to it.
        episodes: see :meth:`RowChecks.run`.

    Returns:
        The lists; None if info.json cannot be read.
    """
    layout = read_layout(root, faults)
    if layout is None:
        return None
    listing = read_listing(layout, faults)
    aggregated = RowChecks(layout, listing, faults).run(episodes=episodes)
    for key in layout.videos:
        check_feature(layout, key, faults)
    return Tables(layout, listing, aggregated)


def check_videos(
    tables: Tables,
    faults: Faults,
    *,
    ffprobe: str | None = None,
    known: Mapping[str, StreamInfo] | None = None,
) -> dict[VideoFile, Seen | None]:
    """Check the index of every video, several at once, and find files that nothing refers to.

    Args:
        tables: what the videos should contain.
        faults: faults are added to it.
        ffprobe: the program; None: the one that is found.
        known: path in the dataset -> stream fields, for files that were already read back: see :func:`brief`.
    """
    layout, listing = tables.layout, tables.listing
    videos = video_files(layout, listing)
    known = known or {}
    program = find_ffprobe(ffprobe) if any(video.place not in known for video in videos) else None

    def look(video: VideoFile) -> Seen | None:
        return check_video(
            video, faults, layout=layout, listing=listing, ffprobe=program, known=known.get(video.place)
        )

    threads, _ = share_cores(max(len(videos), 1), None, None)
    found = dict(run_units(videos, look, threads=threads, stop=lambda: None))
    _find_orphans(layout, listing, faults)
    return {video: found[video] for video in videos}


def brief(info: StreamInfo, starts: Collection[int]) -> StreamInfo:
    """Return the stream fields of a file that was read back, without lists of all its frames.

    Args:
        info: its fields; every frame is at exactly its index / fps.
        starts: first frames of the episodes; all are key frames if ``info`` does not list key frames.
    """
    keys = set(starts if info.key_frames is None else info.key_frames)
    at = tuple(frame for frame in starts if frame in keys)
    return replace(info, times=None, key_frames=at, places=None, sizes=None)


# --- for jobs ---------------------------------------------------------------------------------------------


class Stale(Struct, frozen=True):
    """Features of a source whose stored statistics differ from its rows or frames.

    Attributes:
        episodes: with wrong statistics in the episode list, which have to be computed again.
        total: wrong in ``stats.json`` only, which follows from the statistics of the episodes.
    """

    episodes: frozenset[str] = frozenset()
    total: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.episodes or self.total)

    def __or__(self, other: Stale) -> Stale:
        return Stale(self.episodes | other.episodes, self.total | other.total)


def check_source(root: Path, *, cameras: Collection[str], episodes: Collection[int] | None = None) -> Stale:
    """Reject a dataset with a fault that a copy would keep; wrong statistics are computed again instead.

    Args:
        root: a LeRobot dataset.
        cameras: features of the cameras that are copied.
        episodes: indices of the episodes that are copied; None: all.

    Raises:
        SourceError: lists the faults that ``ffenc verify`` would find in the result.

    Warns:
        FfencWarning: of statistics that are not copied, and of findings that the result keeps.
    """
    faults = Faults()
    tables = check_tables(root, faults, episodes=episodes)
    features = tables.layout.features if tables else {}
    others: set[str] = set()  # data files without the copied episodes
    if tables is not None and episodes is not None:
        of = dict(zip(tables.listing.index.tolist(), tables.listing.data, strict=True))
        others = set(of.values()) - {of[number] for number in episodes if number in of}

    def kept(fault: Fault) -> bool:
        left_out = features.get(fault.camera or "", {}).get("dtype") in CAMERA_TYPES
        if episodes is None or (left_out and fault.camera not in cameras):
            return not left_out or fault.camera in cameras
        if fault.episode is None:
            return fault.file not in others
        return fault.episode in episodes

    found = [fault for fault in faults.of("fault") if kept(fault)]
    copied = [fault for fault in found if KINDS[fault.kind].copied]
    if copied:
        raise SourceError(
            f"{root}: the result would have these faults too, which `ffenc verify` finds:\n{listed(copied)}"
        )
    stale = [note for note in faults.of("note") if note.kind == "statistics-stale" and kept(note)]
    spoilt = [fault for fault in found if fault.kind in ("statistics-missing", "statistics-differ")]
    wrong = [fault for fault in spoilt if fault.kind == "statistics-differ"]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        text = f"{root}: {wrong[0]}{more}; the statistics are computed from the rows or frames"
        warnings.warn(text, FfencWarning, stacklevel=4)
    for note in faults.of("note"):
        if kept(note) and KINDS[note.kind].copied:
            warnings.warn(f"{root}: {note}; the result has it too", FfencWarning, stacklevel=4)
    total = {fault.camera for fault in (*spoilt, *stale) if fault.file == STATS}
    of_episodes = {fault.camera for fault in (*spoilt, *stale) if fault.file != STATS}
    everything = set(features) if None in of_episodes else set()
    return Stale(
        frozenset(key for key in of_episodes | everything if key), frozenset(key for key in total if key)
    )


def check_result(root: Path, known: Mapping[str, StreamInfo], *, ffprobe: str | None = None) -> None:
    """Check a dataset before it is published, as ``ffenc verify`` does.

    Args:
        root: its temporary folder.
        known: as for :func:`check_videos`.
        ffprobe: the program.

    Raises:
        VerificationError: lists the faults.
    """
    faults = Faults()
    tables = check_tables(root, faults)
    if tables is not None:
        check_videos(tables, faults, ffprobe=ffprobe, known=known)
    _refuse(faults.of("fault"))


def check_episode(new: Path, tasks: Sequence[str], known: Mapping[str, StreamInfo]) -> None:
    """Check one episode before it is added to a dataset that is being recorded, as ``ffenc verify`` does.

    The rest of the dataset is not checked: neither its other episodes nor the rest of info.json.

    Args:
        new: folder with info.json, the episode's data file and its part of the episode list.
        tasks: texts of the dataset's tasks, by index.
        known: path in the dataset -> stream fields of the episode's videos, as for :func:`check_videos`.

    Raises:
        VerificationError: lists the faults.
    """
    layout = read_layout(new, Faults())
    faults = Faults()
    for path in list_files(new) if layout else []:
        assert layout is not None
        listing = read_part(layout, path, set(tasks), faults)
        if listing is None:
            continue
        listing.tasks = dict(enumerate(tasks))
        RowChecks(layout, listing, faults).run(whole=False)
        for video in video_files(layout, listing):
            check_video(video, faults, layout=layout, listing=listing, known=known.get(video.place))
    # The stream fields in info.json were written with the first episode.
    later = layout is not None and layout.info.get("total_episodes") != 1
    _refuse([fault for fault in faults.of("fault") if not (later and fault.kind == "video-fields")])


def _refuse(found: Sequence[Fault]) -> None:
    if found:
        raise VerificationError(
            f"the result does not pass `ffenc verify` and is not published:\n{listed(found)}"
        )


def listed(faults: Sequence[Fault]) -> str:
    """Return lines with the first faults, and the fix of the first fault of each kind."""
    lines: list[str] = []
    fixes: set[str] = set()
    for fault in faults[:_SHOWN]:
        lines.append(f"  {fault}")
        if fault.fix not in fixes:
            fixes.add(fault.fix)
            lines.append(f"    {fault.fix}")
    if len(faults) > _SHOWN:
        lines.append(f"  ... and {len(faults) - _SHOWN} more")
    return "\n".join(lines)


# --- files that nothing names -----------------------------------------------------------------------------


def _find_orphans(layout: Layout, listing: Listing, faults: Faults) -> None:
    """Find files that nothing refers to: of a lost episode, or without use."""
    known = {*listing.own, *listing.data}
    known |= {place for places in listing.videos.values() for place in places.files}
    fix = None
    if faults.has("info", "path-template", "totals", "episodes"):
        fix = "keep it for now: the episode list is incomplete, and may have named it; restore that first"
    folders = ["data", "videos", *([] if layout.old else [EPISODES])]
    for folder in folders:
        for place in _walk(layout.root, folder):
            if place not in known:
                what = f"belongs to no episode in {layout.list_place}"
                faults.add("orphan", what, file=place, fix=fix)


def _walk(root: Path, folder: str) -> Iterator[str]:
    """Yield the paths of all files below a folder that are not hidden, sorted."""
    for parent, folders, files in os.walk(root / folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield (Path(parent) / name).relative_to(root).as_posix()
