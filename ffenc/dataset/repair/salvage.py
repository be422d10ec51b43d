"""The readable parts of a damaged LeRobot v3.0 dataset: episodes, rows, and places of their frames.

No information is used that another part of the dataset contradicts: the rows determine how long an episode
is, the videos' frames where it is. Decisions are recorded, and what cannot be decided is damage of the
episode.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from ffenc.dataset.repair.salvage_files import short_reason
from ffenc.dataset.repair.salvage_rows import Found, Place, SalvagedRows, last_rows
from ffenc.errors import SourceError
from ffenc.ffmpeg.boxes import missing_bytes
from ffenc.ffmpeg.join import complete_part
from ffenc.ffmpeg.probe import StreamInfo, probe
from ffenc.frames.info_json import feature_block
from ffenc.frames.stream import DEPTH_FORMATS
from ffenc.layout import (
    INFO,
    LEROBOTS_BACKEND,
    TIME_TOLERANCE,
    VIDEO_PATH,
    frame_size,
    place_columns,
    says_depth,
)
from ffenc.parallel.pool import run_units, share_cores


class Salvage(SalvagedRows):
    """Reads the readable parts of a dataset: its rows, and the places of their frames.

    Args:
        root: its folder.
        without: cameras to drop.
        task: text of all tasks, if the tasks table cannot be read.
        ffprobe: the program.
        repeat: an episode with fewer frames than rows is not damaged.
        scratch: folder for repaired copies of files.

    Raises:
        SourceError, ConfigError: as for :class:`SalvagedRows`.
    """

    def __init__(
        self,
        root: Path,
        *,
        without: Sequence[str],
        task: str | None,
        ffprobe: str | None,
        scratch: Path,
        repeat: bool = False,
    ) -> None:
        super().__init__(root, without=without, task=task, scratch=scratch)
        self._repeat, self._ffprobe = repeat, ffprobe
        self.streams: dict[Path, StreamInfo] = {}
        for key in self.cameras:
            self._place(key)
            self._mark_depth(key)
        self._say_unused()
        self._say_unfinished()

    def _say_unused(self) -> None:
        """Report video files of which no frame is kept."""
        used = {place.path for one in self.episodes for place in one.videos.values()}
        for path in sorted((self.root / "videos").rglob("*.mp4")):
            key = path.relative_to(self.root / "videos").parts[0]
            if path not in used and key not in self.left_out:
                why = "no episode is in it" if key in self.cameras else f"info.json has no camera {key}"
                self._note(f"{why}; it is left out", file=self._relative(path))

    def _say_unfinished(self) -> None:
        """Report images of an episode that LeRobot was recording: its rows were only in memory."""
        for folder in sorted((self.root / "images").glob("*/episode-*")):
            if count := sum(1 for _ in folder.glob("frame-*")):
                self._note(
                    f"{count} images of an episode that was being recorded; its rows were never "
                    "written, so it is left out",
                    file=self._relative(folder),
                )

    def _place(self, key: str) -> None:
        """Determine the places of a camera's episodes."""
        listed = self._listed_places(key)
        named = {path for path, _ in listed.values() if path.is_file()}
        files = sorted({*(self.root / "videos" / key).rglob("*.mp4"), *named})
        known = self._opened(key, files)
        listed = self._put_back(listed, known, key)
        places = self._as_listed(key, listed, known)
        wrong = [one for one in self.episodes if one.number not in places]
        if wrong and (in_order := self._in_order(known)) is not None:
            moved = [number for number, place in in_order.items() if places.get(number) != place]
            for number in moved:
                self._note(
                    "its position in the videos was wrong or missing; it was found from the frame counts: "
                    f"{self._relative(in_order[number].path)}, frame {in_order[number].first}",
                    episode=number,
                    camera=key,
                )
            places = in_order
        elif wrong:
            self._into_gaps(key, wrong, known, places)
        for one in self.episodes:
            place = places.get(one.number)
            if place is None:
                self._damage(one, key, self._why_unplaced(listed.get(one.number), known), 0)
                continue
            one.videos[key] = place
            if place.whole < one.length:
                one.short[key] = place.whole
            if place.whole < one.length and not (self._repeat and place.whole):
                self._damage(one, key, f"has {place.whole} of {one.length} frames", place.whole)

    def _why_unplaced(self, listed: tuple[Path, float] | None, known: Mapping[Path, StreamInfo]) -> str:
        """Return why the frames of an episode were not found, given its listed file and start time."""
        if listed is None:
            return "no video is listed for it, and its frames cannot be distinguished from others'"
        path, start = listed
        video = f"its video, {self._relative(path)},"
        if not path.is_file():
            return f"{video} is missing"
        if path not in known:  # the reason is an action of its own
            return f"{video} cannot be used"
        info = known[path]
        assert info.times
        if start > float(info.times[-1] * info.time_base) + TIME_TOLERANCE:
            return f"{video} ends before its first frame"
        return f"its frames in {self._relative(path)} cannot be distinguished from others'"

    def _damage(self, one: Found, key: str, why: str, whole: int) -> None:
        if not one.damage:
            one.damage = f"{key}: {why}"
        one.length = min(one.length, whole)

    def _opened(self, key: str, files: Sequence[Path]) -> dict[Path, StreamInfo]:
        """Return the stream fields of a camera's files that can be opened."""

        def look(path: Path) -> StreamInfo | SourceError:
            try:
                if missing_bytes(path):
                    return complete_part(path, self.fps, self._ffprobe)
                return probe(path, times=True, ffprobe=self._ffprobe)
            except SourceError as error:
                return error

        threads, _ = share_cores(max(len(files), 1), None, None)
        found = dict(run_units(files, look, threads=threads, stop=lambda: None))
        for path in files:
            answer = found[path]
            if isinstance(answer, SourceError):
                self._note(
                    f"cannot be opened ({short_reason(answer)})", camera=key, file=self._relative(path)
                )
            elif not answer.frames:
                self._note("has no frames", camera=key, file=self._relative(path))
            else:
                self.streams[path] = answer
        return self._of_camera(key, {path: self.streams[path] for path in files if path in self.streams})

    def _of_camera(self, key: str, opened: Mapping[Path, StreamInfo]) -> dict[Path, StreamInfo]:
        """Return the files that fit the camera: the same size, and depth or colours."""
        feature = self.info["features"][key]
        frames: dict[tuple[int, int, bool], int] = {}
        for info in opened.values():
            frames[_picture(info)] = frames.get(_picture(info), 0) + info.frames
        if len(frames) < 2:
            return dict(opened)
        said = (*(frame_size(feature) or ()), says_depth(feature_block(feature)))
        right = said if said in frames else max(frames, key=lambda one: frames[one])
        for path, info in opened.items():
            if _picture(info) != right:
                what = f"is {info.width}x{info.height} {info.pix_fmt}, which is not a video of this camera"
                self._note(what, camera=key, file=self._relative(path))
        return {path: info for path, info in opened.items() if _picture(info) == right}

    def _mark_depth(self, key: str) -> None:
        """Mark a camera as depth in ``info.json`` if its files are depth."""
        feature = self.info["features"][key]
        block = feature_block(feature)
        held = {self.streams[one.videos[key].path].pix_fmt for one in self.episodes if key in one.videos}
        if held and held <= set(DEPTH_FORMATS) and not says_depth(block):
            block |= {"is_depth_map": True, "video.video_backend": LEROBOTS_BACKEND}
            self.info["features"][key] = {**feature, "info": block}
            self._note("is marked as depth, which its files contain", file=INFO, camera=key)

    def _listed_places(self, key: str) -> dict[int, tuple[Path, float]]:
        """Return episode -> file and start time in the episode list."""
        columns = [self._column(name) for name in place_columns(key)[:3]]
        template = self.info.get("video_path") or VIDEO_PATH
        found = {}
        for number, row in last_rows(self._column("episode_index")).items():
            chunk, file, start = (column[row] for column in columns)
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                place = template.format(video_key=key, chunk_index=int(chunk), file_index=int(file))
                if np.isfinite(start):
                    found[number] = (self.root / place, float(start))
        return found

    def _put_back(
        self, listed: Mapping[int, tuple[Path, float]], known: Mapping[Path, StreamInfo], key: str
    ) -> dict[int, tuple[Path, float]]:
        """Return the places after undoing an exchange of files.

        An exchange is detected if the frames of files match the rows of other files' episodes, and no two
        files match alike.
        """
        rows: dict[Path, int] = {}
        for one in self.episodes:
            if one.number in listed:
                path, _ = listed[one.number]
                rows[path] = rows.get(path, 0) + len(one.rows)
        wrong = [path for path in rows if path not in known or known[path].frames != rows[path]]
        free = [path for path in known if path not in rows or path in wrong]
        counts = [rows[path] for path in wrong]
        right: dict[Path, Path] = {}
        for path in wrong:
            fitting = [other for other in free if known[other].frames == rows[path]]
            if len(fitting) == 1 and counts.count(rows[path]) == 1:
                right[path] = fitting[0]
                self._note(
                    f"holds the frames of {self._relative(path)}", camera=key, file=self._relative(fitting[0])
                )
        return {number: (right.get(path, path), start) for number, (path, start) in listed.items()}

    def _as_listed(
        self, key: str, listed: Mapping[int, tuple[Path, float]], known: Mapping[Path, StreamInfo]
    ) -> dict[int, Place]:
        """Return the episodes that are at their listed places."""
        by_file: dict[Path, list[tuple[int, Found]]] = {}
        contradicted = self._contradicted(key)
        for one in self.episodes:
            path, start = listed.get(one.number, (None, 0.0))
            if path is None or path not in known or one.number in contradicted:
                continue
            info = known[path]
            assert info.times is not None
            at = _nearest(info.times, Fraction(start) / info.time_base)
            if abs(float(info.times[at] * info.time_base) - start) <= TIME_TOLERANCE:
                by_file.setdefault(path, []).append((at, one))
        places: dict[int, Place] = {}
        for path, own in by_file.items():
            own.sort(key=lambda pair: (pair[0], pair[1].number))
            numbers = [one.number for _, one in own]
            if numbers != sorted(numbers):
                continue  # LeRobot writes episodes in sequence: the timestamps were exchanged
            info = known[path]
            held: dict[int, Place] = {}
            for (at, one), end in zip(own, [at for at, _ in own[1:]] + [info.frames], strict=True):
                whole = min(end - at, self._before_gap(info, at, one.length))
                if whole >= one.length or end < info.frames or at == own[-1][0]:
                    held[one.number] = Place(path, at, min(whole, one.length))
            # If an episode is too short and the file has surplus frames, no place is reliable.
            short = any(held[one.number].whole < one.length for _, one in own if one.number in held)
            if not short or sum(one.length for _, one in own) > info.frames:
                places |= held
        return places

    def _contradicted(self, key: str) -> set[int]:
        """Return the episodes whose listed times span neither their listed length nor their rows."""
        starts, ends = (self._column(name) for name in place_columns(key)[2:4])
        lengths = self._column("length")
        found = set()
        for one in self.episodes:
            if one.listed is None:
                continue
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                frames = (float(ends[one.listed]) - float(starts[one.listed])) * float(self.fps)
                counts = one.read, one.length, int(lengths[one.listed])
                if all(abs(frames - count) > 0.5 for count in counts):
                    found.add(one.number)
        return found

    def _before_gap(self, info: StreamInfo, first: int, length: int) -> int:
        """Return how many frames follow each other at the frame rate, or at least in this number of steps."""
        assert info.times is not None
        times = np.asarray(info.times[first : first + length], np.float64) * float(info.time_base)
        steps = np.diff(times) * float(self.fps)
        gaps = np.flatnonzero(steps > 1.5)
        return int(gaps[0]) + 1 if gaps.size else len(times)

    def _in_order(self, known: Mapping[Path, StreamInfo]) -> dict[int, Place] | None:
        """Return the places of all episodes in sequence through the files; None if the frames do not fit.

        Surplus frames at the end are accepted if rows of later episodes were never completely written.
        """
        waiting = [one for one in self.episodes if not one.damage or one.length]
        places: dict[int, Place] = {}
        at = 0
        for path, info in known.items():
            first = 0
            while at < len(waiting) and first < info.frames:
                one = waiting[at]
                places[one.number] = Place(path, first, self._before_gap(info, first, one.length))
                first, at = first + one.length, at + 1
            if first > info.frames or (first < info.frames and not (at == len(waiting) and self._cut_off())):
                return None
        return places if at == len(waiting) else None

    def _cut_off(self) -> bool:
        """Return whether the recording was interrupted, and all earlier episodes are complete."""
        numbers = [one.number for one in self.episodes]
        return self._files.cut_off and self.listing is None and numbers == list(range(len(numbers)))

    def _into_gaps(
        self, key: str, wrong: Sequence[Found], known: Mapping[Path, StreamInfo], places: dict[int, Place]
    ) -> None:
        """Place episodes without a known place if a file has the same number of unused frames."""
        ends = dict.fromkeys(known, 0)
        for place in places.values():
            ends[place.path] = max(ends[place.path], place.first + place.whole)
        for one in wrong:
            fitting = [
                Place(path, ends[path], one.length)
                for path, info in known.items()
                if info.frames - ends[path] == one.length
            ]
            if len(fitting) == 1:
                places[one.number] = fitting[0]
                ends[fitting[0].path] += one.length
                self._note(
                    "its position in the videos was wrong or missing; it is the only episode that fits into "
                    f"{self._relative(fitting[0].path)}, from frame {fitting[0].first} on",
                    episode=one.number,
                    camera=key,
                )

    def off_grid(self, path: Path) -> float:
        """Return the greatest distance of a file's frame from its index / fps, in seconds."""
        info = self.streams[path]
        assert info.times is not None
        times = np.asarray(info.times, np.float64) * float(info.time_base)
        return float(np.abs(times - times[0] - np.arange(len(times)) / float(self.fps)).max(initial=0.0))

    def misleads(self, path: Path) -> bool:
        """Return whether a file's average rate would convert a frame's time to another frame's index."""
        info = self.streams[path]
        numbers = np.arange(info.frames)
        return bool((np.rint(numbers / float(self.fps) * float(info.fps)) != numbers).any())


def _picture(info: StreamInfo) -> tuple[int, int, bool]:
    """Return the fields that all files of a camera share: width, height, and whether they are depth."""
    return info.width, info.height, info.pix_fmt in DEPTH_FORMATS


def _nearest(times: Sequence[int], start: Fraction) -> int:
    after = bisect_left(times, start)
    near = [at for at in (after - 1, after) if 0 <= at < len(times)]
    return min(near, key=lambda at: abs(times[at] - start))
