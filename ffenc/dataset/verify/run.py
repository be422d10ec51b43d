"""Verify a dataset or a video file: find all faults, without changing anything."""

from __future__ import annotations

import math
import shlex
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from ffenc.config.mapping import SourceMapping, as_mapping
from ffenc.dataset.checksums import broken_lines, read_checksums
from ffenc.dataset.commit import DELETED, RECORDINGS
from ffenc.dataset.executors.local import Executor, LocalExecutor
from ffenc.dataset.identify import check_not_v1
from ffenc.dataset.remote import source_path
from ffenc.dataset.staging import unfinished
from ffenc.dataset.verify.against import Source, together
from ffenc.dataset.verify.contents import compare_statistics
from ffenc.dataset.verify.deep import decode_video
from ffenc.dataset.verify.faults import CameraCheck, CameraComparison, Fault, Faults, Verification
from ffenc.dataset.verify.layout import Layout, Listing
from ffenc.dataset.verify.metadata import check_tables, check_videos
from ffenc.dataset.verify.quantiles import note_quantiles
from ffenc.dataset.verify.records import DecodeRecords, Shown
from ffenc.dataset.verify.tasks import (
    FileTask,
    SourceToOpen,
    look_at_images,
    look_at_source,
    look_at_video,
    slim,
)
from ffenc.dataset.verify.videos import Seen, VideoFile, check_video, is_depth
from ffenc.errors import ConfigError, SourceError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.toolchain import Toolchain, find_ffprobe, toolchains
from ffenc.frames.compare import Comparison
from ffenc.layout import CHECKSUMS, INFO
from ffenc.parallel.pool import share_cores
from ffenc.parallel.progress import FrameCount
from ffenc.paths import regular, tree_faults
from ffenc.spelling import argument
from ffenc.words import count

Progress = Callable[[int, int], None]


class _Programs(Struct, frozen=True):
    ffmpeg: str | None
    ffprobe: str | None

    def probe(self) -> str:
        return find_ffprobe(self.ffprobe)

    def candidates(self) -> list[Toolchain]:
        return toolchains(self.ffmpeg, self.ffprobe)


def verify_dataset(
    path: str | Path,
    *,
    deep: bool = False,
    against: str | Path | None = None,
    mapping: str | Path | SourceMapping | None = None,
    max_depth_error: float | None = None,
    follow_links: bool = False,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
    on_frames: Progress | None = None,
    again: bool = False,
    known_images: bool = False,
    executor: Executor | None = None,
) -> Verification:
    """Find all faults of a LeRobot dataset of images or video (v3.0, v2.1, v2.0), or of a video file.

    All faults are collected; nothing is changed. Memory does not grow with the number of rows.

    Args:
        path: a dataset's folder, or a video file.
        deep: also decode every frame, and compare the frames with each episode's statistics.
        against: the source of the dataset: a dataset, a tree of images or a recording. Every frame is
            compared with it.
        mapping: meaning of the arrays or topics of ``against``, or a YAML file with it; None: the mapping
            that the dataset was created with.
        max_depth_error: with ``against``, the greatest accepted error of depth in millimetres, 0 or more; a
            greater error is a fault. None: the widest step of the camera's quantiser, or 1 mm if depth is
            stored in millimetres.
        follow_links: follow symbolic links that lead out of the datasets; otherwise each is a fault.
        ffmpeg, ffprobe: programs to use instead of those that are found.
        on_frames: called with the number of frames decoded so far and of all, with ``deep`` or ``against``.
        again: with ``deep``, also decode known videos: those with the same SHA-256 as one that an earlier run
            has decoded with the same programs. The user's cache records them for 30 days.
        known_images: with ``deep``, skip known images in the same way; hashing them takes a twentieth of the
            time of decoding them.
        executor: where frames are decoded and compared, such as a :class:`~ffenc.RayExecutor`; None: on this
            machine.

    Returns:
        The findings; its ``sound`` is True if there are no faults.

    Raises:
        SourceError: there is nothing at ``path`` that can be verified, or a file of it may not be read.
        ConfigError: ``against`` for a single file, a ``max_depth_error`` that is not a length, or an
            argument that has no effect: ``mapping``, or ``again`` or ``known_images`` without ``deep``.
        ToolchainError: no FFmpeg on this machine can do it.
    """
    _check_arguments(deep, against, mapping, max_depth_error, again, known_images, executor)
    meaning = as_mapping(mapping)
    records = DecodeRecords(again=again, images=known_images)
    place = source_path(path, "metadata", "path")
    programs = _Programs(ffmpeg, ffprobe)
    if place.exists() and not place.is_dir():
        regular(place)
        if against is not None:
            raise ConfigError(
                f"{place} is a single file; {argument('against')} compares a dataset with its source"
            )
        if executor is not None:
            raise ConfigError(f"{place} is a single file; {argument('executor')} is for datasets")
        return _verify_file(place, programs, records if deep else None, on_frames)
    check_not_v1(place)
    if not (place / INFO).is_file():
        raise SourceError(
            f"{place}: is not a LeRobot dataset: it has no meta/info.json; name a dataset or a video file"
            if place.is_dir()
            else f"{place} does not exist; name a dataset's folder or a video file"
        )
    faults = Faults()
    _find_unfinished(place, faults)
    for where, fault in tree_faults(place, follow_links=follow_links, files=True):
        file = where.relative_to(place).as_posix()
        faults.add("not-own-file", fault.problem, file=file, fix=fault.fix or None)
    # If a file is not the dataset's own, no table is read, not even for more findings.
    tables = None if faults.has("not-own-file") else check_tables(place, faults)
    if tables is None:
        return Verification(place, None, 0, 0, [], faults.of("fault"), faults.of("note"), deep)
    layout, listing = tables.layout, tables.listing
    looked = check_videos(tables, faults, ffprobe=programs.ffprobe)
    seen = {video: one for video, one in looked.items() if one is not None}
    frames = _Frames(layout, listing, seen, faults, programs, on_frames, executor)
    shown = frames.decode(records) if deep else None
    note_quantiles(tables, shown, faults)
    compared: dict[str, CameraComparison | None] = {}
    origin = None if against is None else source_path(against, name="against")
    if origin is not None:
        compared = frames.compare(origin, meaning, max_depth_error, follow_links=follow_links)
    found = faults.of("fault")
    rows = _rows(layout, listing, list(looked), seen, found)
    for row in rows:
        row.compared = compared.get(row.camera or "")
    return Verification(
        path=place,
        layout=layout.version,
        episodes=len(listing),
        frames=listing.frames,
        cameras=rows,
        faults=found,
        notes=faults.of("note"),
        deep=deep,
        recorded=sum(one.recorded for one in (shown or {}).values()),
        against=origin,
    )


def _check_arguments(
    deep: bool,
    against: str | Path | None,
    mapping: str | Path | SourceMapping | None,
    max_depth_error: float | None,
    again: bool,
    known_images: bool,
    executor: Executor | None,
) -> None:
    """Refuse arguments of :func:`verify_dataset` that would have no effect.

    Raises:
        ConfigError: such an argument, or a ``max_depth_error`` that is not a length.
    """
    if executor is not None and not deep and against is None:
        raise ConfigError(
            f"{argument('executor')} would have no effect, because no frame is decoded; pass "
            f"{argument('deep', True)} or {argument('against', 'SRC')} too"
        )
    for name, given in (("again", again), ("known_images", known_images)):
        if given and not deep:
            raise ConfigError(
                f"{argument(name, True)} would have no effect, because no frame is decoded; pass "
                f"{argument('deep', True)} too"
            )
    known = isinstance(max_depth_error, int | float) and not isinstance(max_depth_error, bool)
    if max_depth_error is not None and not (known and 0 <= max_depth_error < math.inf):
        raise ConfigError(
            f"{argument('max_depth_error', max_depth_error)}: is not a number of millimetres of 0 or more"
        )
    for name, value in (("mapping", mapping), ("max_depth_error", max_depth_error)):
        if value is not None and against is None:
            raise ConfigError(
                f"{argument(name)} applies to a comparison; pass {argument('against', 'SRC')} too"
            )


def _verify_file(
    path: Path, programs: _Programs, records: DecodeRecords | None, on_frames: Progress | None
) -> Verification:
    """Verify a file that is not a dataset; it is decoded if ``records`` is given."""
    faults = Faults()
    video = VideoFile(path, str(path), None)
    seen = check_video(video, faults, ffprobe=programs.probe())
    frames = seen.info.frames if seen else 0
    shown = Shown()
    if records is not None and seen is not None:
        shown = decode_video(
            video,
            seen,
            faults,
            layout=None,
            listing=None,
            candidates=programs.candidates(),
            count=FrameCount(frames, on_frames),
            cancellation=Cancellation(),
            records=records,
        )
    found = faults.of("fault")
    row = CameraCheck(None, "video", files=1, frames=frames, faults=len(found))
    if seen is not None:
        row.codec, row.pix_fmt, row.max_deviation = seen.info.codec, seen.info.pix_fmt, seen.deviation
    notes = faults.of("note")
    deep = records is not None
    return Verification(path, None, 0, frames, [row], found, notes, deep, recorded=shown.recorded)


def _find_unfinished(root: Path, faults: Faults) -> None:
    """Find files that interrupted work has left beside a dataset or in it."""
    left = unfinished(root)
    if left is not None:
        what = f"{left[0]} is left over from an interrupted run ({left[1]} finished pieces)"
        faults.add("unfinished", what)
    kept = [path for path in (root / RECORDINGS).glob("*") if path.is_dir() and path.suffix != DELETED]
    if kept:
        faults.add(
            "recording",
            f"{count(len(kept), 'episode')} being recorded, or interrupted",
            file=RECORDINGS,
            fix=f"`ffenc recover {shlex.quote(str(root))}` recovers interrupted episodes",
        )


def _known_checksums(layout: Layout, listing: Listing, faults: Faults) -> dict[str, str]:
    """Return the recorded checksum of each file, and find faults of their list."""
    checksums = read_checksums(layout.root)
    broken = broken_lines(layout.root)
    if broken:
        faults.add("checksum", f"line {broken[0]} cannot be read", file=CHECKSUMS)
    listed = {place for places in listing.videos.values() for place in places.files}
    for place in sorted(set(checksums) - listed):
        faults.add("checksum", f"names {place}, which is not a video of the dataset", file=CHECKSUMS)
    return checksums


class _Frames(Struct, frozen=True):
    """The checks of a dataset that decode its frames, several files at once.

    Attributes:
        layout, listing: the dataset.
        seen: its videos that can be read.
        faults: faults are added to it.
        programs, on_frames, executor: see :func:`verify_dataset`.
    """

    layout: Layout
    listing: Listing
    seen: dict[VideoFile, Seen]
    faults: Faults
    programs: _Programs
    on_frames: Progress | None
    executor: Executor | None

    def decode(self, records: DecodeRecords) -> dict[str, Shown]:
        """Decode every frame, and compare with the statistics; return what each camera shows."""
        layout, listing, brief = self.layout, self.listing, slim(self.listing)
        data: dict[str, list[int]] = {}
        for at, place in enumerate(listing.data):
            if place and (layout.root / place).is_file():
                data.setdefault(place, []).append(at)
        checksums = _known_checksums(layout, listing, self.faults)
        candidates = self._candidates()
        tasks: list[FileTask] = []
        for video, one in self.seen.items():
            twice = one.whole and video.camera in listing.stats  # for damage, and for statistics
            look: Callable[..., Any] = partial(
                look_at_video,
                video=video,
                seen=one,
                layout=layout,
                listing=brief,
                checksum=checksums.get(video.place),
                records=records,
            )
            frames = one.info.frames * (2 if twice else 1)
            tasks.append(FileTask(video.camera or "", video.place, frames, candidates, look))
        for key in layout.images:
            for place, own in data.items():
                look = partial(
                    look_at_images,
                    layout=layout,
                    listing=brief,
                    key=key,
                    place=place,
                    episodes=own,
                    records=records,
                )
                tasks.append(FileTask(key, place, int(listing.length[own].sum()), candidates, look))
        shown: dict[str, Shown] = {}
        for key, found in self._results(tasks):
            shown.setdefault(key, Shown()).add(found)
        for key, of_camera in shown.items():
            compare_statistics(layout, listing, key, of_camera, self.faults)
        return shown

    def compare(
        self,
        against: Path,
        mapping: SourceMapping | None,
        max_depth_error: float | None,
        *,
        follow_links: bool,
    ) -> dict[str, CameraComparison | None]:
        """Compare every video with its source; return the comparison of each camera.

        Raises:
            ConfigError: nothing can be compared, or no depth camera with a ``max_depth_error``.
            SourceError: ``against`` is not a supported source, or damaged.
        """
        layout, listing = self.layout, self.listing
        if not layout.videos:
            raise ConfigError(
                f"{layout.root} has no video cameras; {argument('against')} compares videos with their source"
            )
        source = Source(
            *(against, layout),
            follow_links=follow_links,
            mapping=mapping,
            programs=(self.programs.ffmpeg, self.programs.ffprobe),
        )
        common = [key for key in layout.videos if key in source.cameras]
        if max_depth_error is not None and not any(is_depth(layout, key) for key in common):
            raise ConfigError(
                f"{argument('max_depth_error')}: {layout.root} and {against} have no depth camera in common"
            )
        for key in layout.videos:
            if key not in common:
                self.faults.add("not-compared", f"is not in {against}", camera=key)
        if not common:
            raise ConfigError(f"{against} has none of the cameras {', '.join(layout.videos)}")
        candidates, brief = self._candidates(), slim(listing)
        where: Source | SourceToOpen = source
        if self.executor is not None:
            where = SourceToOpen(against, layout.root, follow_links, mapping, uuid.uuid4().hex)
        tasks = [
            FileTask(
                *(video.camera, video.place),
                *(int(listing.length[list(video.episodes)].sum()), candidates),
                partial(
                    look_at_source,
                    video=video,
                    seen=one,
                    source=where,
                    layout=layout,
                    listing=brief,
                    max_depth_error=max_depth_error,
                ),
            )
            for video, one in self.seen.items()
            if video.camera in common
        ]
        found: dict[str, list[tuple[int, Comparison]]] = {}
        for key, own in self._results(tasks, against):
            found.setdefault(key, []).extend(own)
        return {key: together(sorted(own, key=lambda pair: pair[0])) for key, own in found.items()}

    def _candidates(self) -> tuple[Toolchain, ...]:
        """Return the programs; empty if none is needed, because all frames are images in this process."""
        return tuple(self.programs.candidates()) if self.seen or self.executor is not None else ()

    def _results(self, tasks: Sequence[FileTask], *others: Path) -> Iterator[tuple[str, Any]]:
        """Run tasks, which read the dataset and others; yield the camera of each with its result."""
        count = FrameCount(sum(task.counted for task in tasks), self.on_frames)
        cancellation = Cancellation()
        workers, _ = share_cores(len(tasks), None, None)
        with (self.executor or LocalExecutor()).open(workers, [self.layout.root, *others]) as runner:
            for task, (found, faults) in runner.run(tasks, progress=count, cancellation=cancellation):
                self.faults.take(faults)
                yield task.key, found


def _rows(
    layout: Layout,
    listing: Listing,
    videos: list[VideoFile],
    seen: dict[VideoFile, Seen],
    faults: list[Fault],
) -> list[CameraCheck]:
    """Return an entry for each camera, in the order of the features."""
    counts = Counter(fault.camera for fault in faults)
    rows = []
    for key in layout.features:
        if key in layout.images:
            files = len({place for place in listing.data if place})
            rows.append(CameraCheck(key, "image", files=files, frames=listing.frames))
        elif key in layout.videos:
            own = [seen[video] for video in videos if video.camera == key and video in seen]
            row = CameraCheck(key, "video", files=sum(video.camera == key for video in videos))
            if own:
                row.codec, row.pix_fmt = own[0].info.codec, own[0].info.pix_fmt
                row.frames = sum(one.info.frames for one in own)
                row.max_deviation = max(one.deviation for one in own)
            rows.append(row)
        else:
            continue
        rows[-1].episodes = len(listing)
        rows[-1].faults = counts[key]
    return rows
