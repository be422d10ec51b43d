"""What is left of a damaged LeRobot v3.0 dataset: which episodes, their rows, and where their frames are.

Nothing is believed that another part of the dataset contradicts: rows say how long an episode is, the videos'
frames where it lies. What had to be decided is noted, and what cannot be told is a damage of the episode.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.config.framerate import parse_fps
from ffenc.config.preset import camera_name, chosen_cameras
from ffenc.dataset.columns import feature_type, is_numeric, task_texts
from ffenc.dataset.identify import check_dataset, features_of
from ffenc.dataset.lerobot import readable_feature
from ffenc.dataset.source import check_key
from ffenc.errors import FfencError, SourceError
from ffenc.ffmpeg.probe import StreamInfo, probe
from ffenc.frames.info_json import feature_block, read_info
from ffenc.frames.parquet_footer import has_footer, with_footer
from ffenc.frames.stream import DEPTH_FORMATS
from ffenc.jobs.pool import run_units, share_cores
from ffenc.layout import (
    DATA_PATH,
    INFO,
    LEROBOTS_BACKEND,
    NUMBERING,
    TASKS,
    TIME_TOLERANCE,
    VIDEO_PATH,
    place_columns,
    says_depth,
)
from ffenc.paths import check_template, template_fields
from ffenc.spelling import argument, call

_READ = (SourceError, pa.ArrowException, OSError, ValueError, LookupError, TypeError)


@dataclass(frozen=True)
class Action:
    """Something that is done to a dataset.

    Attributes:
        what: what was found, and what becomes of it.
        episode: number of the episode in the source; None: of all, or of none.
        camera: feature.
        file: path in the dataset.
    """

    what: str
    episode: int | None = None
    camera: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        where = [self.file, self.camera, None if self.episode is None else f"episode {self.episode}"]
        named = ", ".join(part for part in where if part is not None)
        return f"{named}: {self.what}" if named else self.what


@dataclass
class Place:
    """Where an episode's frames are in a file: the first one, and how many follow without a gap."""

    path: Path
    first: int
    whole: int


@dataclass
class Found:
    """An episode of which something is left.

    Attributes:
        number: in the source.
        path: the data file.
        rows: its rows there, in the order of its frames.
        listed: its row of the episode list; None: it is not listed.
        texts: of its tasks, as they are listed.
        videos: camera -> where its frames are.
        length: rows and frames that it is to have.
        short: camera -> how many of its frames follow each other from the first on, where that is fewer.
        damage: why it cannot be whole; "" where it can.
    """

    number: int
    path: Path
    rows: npt.NDArray[np.int64]
    listed: int | None = None
    texts: list[str] = field(default_factory=list)
    videos: dict[str, Place] = field(default_factory=dict)
    length: int = 0
    short: dict[str, int] = field(default_factory=dict)
    damage: str = ""


class Salvage:
    """Reads what is left of a dataset.

    Args:
        root: its folder.
        without: cameras that are left out.
        task: text of all tasks, where the tasks table cannot tell them.
        ffprobe: the program.
        repeat: an episode of which a camera has fewer frames than rows is not damaged.
        scratch: a folder for files that have to be written before they can be read.

    Attributes:
        episodes: in the order of their numbers, damaged ones too.
        info: contents of info.json, usable.

    Raises:
        SourceError: not a v3.0 dataset, or so little is left that nothing can be told.
        ConfigError: there is no such camera.
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
        self._repeat = repeat
        self.root, self._ffprobe, self._scratch = root, ffprobe, scratch
        self._readable: dict[Path, Path] = {}  # data file -> a copy of it with a footer
        self._damaged_groups: dict[Path, frozenset[int]] = {}
        self._said: dict[Action, None] = {}
        self.info = self._read_info()
        self.fps = parse_fps(self.info["fps"])
        self._leave_out(without)
        features = self.info["features"]
        self.cameras = [key for key, feature in features.items() if feature["dtype"] == "video"]
        self.listing = self._read_listing()
        self.tasks = self._read_tasks(task)
        self.streams: dict[Path, StreamInfo] = {}
        self.episodes = list(self._read_rows())
        if not self.episodes:
            raise SourceError(f"{root}: no rows of any episode are left under data/; nothing can be repaired")
        for key in self.cameras:
            self._place(key)
            self._mark_depth(key)
        self._say_unused()
        self._say_unfinished()

    # --- info.json --------------------------------------------------------------------------------------

    def _read_info(self) -> dict[str, Any]:
        check_dataset(self.root)
        info = read_info(self.root)
        version = str(info.get("codebase_version", ""))
        if not version.startswith("v3"):
            raise SourceError(
                f"{self.root}: is a dataset of layout {version or 'unknown'}; v3.0 is repaired. "
                f"{call('merge_datasets', sources=['DATASET'], destination='NEW')} converts v2.1 and v2.0"
            )
        where = self.root / INFO
        features = {}
        for key, feature in features_of(info, where).items():
            features[key] = readable_feature(feature)
            if features[key] != feature:
                self._note("its shape or names are written as LeRobot uses them", file=INFO, camera=key)
            if feature["dtype"] in ("image", "video"):
                check_key(key, where)
            block = feature_block(features[key])
            if says_depth(block) and block.get("video.video_backend") not in (None, LEROBOTS_BACKEND):
                features[key] = {**features[key], "info": {**block, "video.video_backend": LEROBOTS_BACKEND}}
                what = f"video.video_backend becomes {LEROBOTS_BACKEND!r}, as LeRobot opens depth"
                self._note(what, file=INFO, camera=key)
        for name, usual in (("data_path", DATA_PATH), ("video_path", VIDEO_PATH)):
            try:
                check_template(info.get(name) or usual, f"{where}: {name}", template_fields(usual))
            except SourceError:
                self._note(f"{name} is {info.get(name)!r}; the usual template is used", file=INFO)
                info[name] = usual
        return {**info, "features": features}

    def _leave_out(self, names: Sequence[str]) -> None:
        features = self.info["features"]
        keys = [key for key, feature in features.items() if feature["dtype"] in ("image", "video")]
        gone = chosen_cameras(keys, names) if names else []
        for key in gone:
            self._note(f"left out, as {argument('without_cameras', camera_name(key))} says", camera=key)
        self.info["features"] = {key: feature for key, feature in features.items() if key not in gone}
        self.left_out = gone

    @property
    def actions(self) -> list[Action]:
        """What had to be decided, each once."""
        return list(self._said)

    def say(self, action: Action) -> None:
        """Note something that is done, once."""
        self._said.setdefault(action)

    def _note(
        self, what: str, *, episode: int | None = None, camera: str | None = None, file: str | None = None
    ) -> None:
        self.say(Action(what, episode, camera, file))

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    # --- lists ------------------------------------------------------------------------------------------

    def _read_listing(self) -> pa.Table | None:
        """The rows of the episode list, of all its files that can be read."""
        tables = []
        for path in sorted((self.root / "meta/episodes").glob("*/*.parquet")):
            try:
                table = pq.ParquetFile(path).read()
                _whole(table, "episode_index")
                tables.append(table)
            except _READ as error:
                self._note(
                    f"cannot be read ({_short(error)}); its episodes are found by their rows",
                    file=self._relative(path),
                )
        if not tables:
            self._note("no episode list is left; it is written again from the rows and the videos")
            return None
        try:
            return pa.concat_tables(tables, promote_options="permissive")
        except pa.ArrowException:
            return pa.concat_tables([t for t in tables if t.schema.equals(tables[0].schema)])

    def _column(self, name: str) -> list[Any]:
        if self.listing is None or name not in self.listing.column_names:
            return [None] * (self.listing.num_rows if self.listing is not None else 0)
        found: list[Any] = self.listing[name].to_pylist()
        return found

    def _read_tasks(self, task: str | None) -> list[str]:
        """The texts of the tasks by number; empty where they cannot be told."""
        if task is not None:
            self._note(f"all rows get the task {task!r}")
            return [task]
        try:
            return task_texts(self.root / TASKS)
        except SourceError as error:
            self._note(
                f"the tasks table cannot be used ({error.what}); the texts are taken from the episode list"
            )
            return []

    # --- rows -------------------------------------------------------------------------------------------

    def _read_rows(self) -> Iterator[Found]:
        claims: dict[int, list[Found]] = {}
        files = sorted((self.root / "data").rglob("*.parquet"))
        for path in files:
            try:
                self._give_footer(path, files)
                numbers, frames, whole = self._row_numbers(path)
            except _READ as error:
                self._note(
                    f"cannot be read ({_short(error)}); its episodes are lost", file=self._relative(path)
                )
                continue
            by_episode = np.argsort(numbers, kind="stable")
            cuts = np.flatnonzero(np.diff(numbers[by_episode])) + 1
            groups = [group for group in np.split(by_episode, cuts) if len(group)]
            for rows in (own for group in groups for own in _counted_from_0(group, frames)):
                if numbers[rows[0]] < 0:
                    continue
                one = Found(int(numbers[rows[0]]), path, rows)
                # Without their numbers, rows are in the order in which they stand.
                self._order(one, None if (frames[rows] < 0).any() else frames[rows])
                if not whole[one.rows].all():
                    one.length = int(np.argmin(whole[one.rows]))
                    one.damage = one.damage or ("its rows cannot be read, or have no value of a feature")
                claims.setdefault(one.number, []).append(one)
        index = self._column("episode_index")
        tasks, lengths = self._column("tasks"), self._column("length")
        last = _last(index)
        found = self._numbered(claims, {number: lengths[row] for number, row in last.items()})
        for number, row in last.items():
            if number not in found:
                self._note("is listed, but no rows of it are left; it is left out", episode=number)
                continue
            one = found[number]
            one.listed = row
            if isinstance(tasks[row], list):
                one.texts = [str(text) for text in tasks[row] if text]
            if lengths[row] != one.length and not one.damage:
                self._note(
                    f"its length is {lengths[row]} in the list, it has {one.length} rows, which count",
                    episode=number,
                )
        for number in sorted(set(found) - set(last)) if self.listing is not None else ():
            self._note("is not in the episode list; it is listed again", episode=number)
        if index != sorted(index, key=lambda value: (value is None, value)):
            self._note("the episode list is out of order; it is sorted", file="meta/episodes")
        order = sorted(found)
        if order != list(range(len(order))):
            self._note(f"episodes are numbered {_numbers(order)}; they are numbered from 0")
        yield from (found[number] for number in order)

    def _numbered(
        self, claims: Mapping[int, Sequence[Found]], lengths: Mapping[int, Any]
    ) -> dict[int, Found]:
        """Each episode's rows, where several stretches of rows have one number.

        Args:
            claims: number -> the stretches that have it.
            lengths: number -> length, as the episode list has it.
        """
        found = {number: own[0] for number, own in claims.items() if len(own) == 1}
        missing = {number: length for number, length in lengths.items() if number not in claims}
        for number, own in claims.items():
            if len(own) == 1:
                continue
            left = []
            for one in own:
                fitting = [other for other, length in missing.items() if length == one.length]
                if one.length != lengths.get(number) and len(fitting) == 1 and not one.damage:
                    one.number = fitting[0]
                    del missing[one.number]
                    found[one.number] = one
                    what = f"its rows have the number {number}; their count tells whose they are"
                    self._note(what, episode=one.number)
                else:
                    left.append(one)
            sound = [one for one in left if not one.damage] or left
            fitting_rows = [one for one in sound if one.length == lengths.get(number)] or sound
            if not fitting_rows:
                continue
            found[number] = one = fitting_rows[0]
            if not all(self._same(one, other) for other in fitting_rows[1:]):
                one.damage = one.damage or f"{len(fitting_rows)} unlike stretches of rows have its number"
                one.length = 0
            elif len(left) > 1:
                where = f"{self._relative(one.path)}, row {int(one.rows[0])}"
                what = f"{len(left)} stretches of rows have its number; those from {where} on are taken"
                self._note(what, episode=number)
        return found

    def _same(self, one: Found, other: Found) -> bool:
        """Whether two stretches of rows have the same values."""

        def values(found: Found) -> pa.Table:
            table, places = self.table(found.path)
            kept = [name for name in table.column_names if name not in NUMBERING]
            return table.select(kept).take(pa.array(places[found.rows], pa.int64()))

        return one.length == other.length and bool(values(one).equals(values(other)))

    def _row_numbers(
        self, path: Path
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Read the numbers of a data file's rows, each row group by itself.

        Returns:
            ``episode_index`` and ``frame_index``, -1 where they cannot be read; and whether a row has a value
            of all features.

        Raises:
            pyarrow.ArrowException, OSError, ...: nothing of the file can be read.
        """
        found: list[list[npt.NDArray[np.int64]]] = []
        errors: dict[int, BaseException] = {}
        lacking: list[npt.NDArray[np.bool_]] = []
        with pq.ParquetFile(self._readable.get(path, path), page_checksum_verification=True) as file:
            there = {"episode_index", "frame_index"} & set(file.schema_arrow.names)
            counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            for group, count in enumerate(counts):
                own = {name: np.full(count, -1) for name in ("episode_index", "frame_index")}
                try:
                    lacking.append(self._lacking(file.read_row_group(group)))
                except _READ as error:
                    errors[group] = error
                    lacking.append(np.zeros(count, np.bool_))
                for name in there:
                    with contextlib.suppress(*_READ):
                        own[name] = _whole(file.read_row_group(group, columns=[name]), name)
                found.append(list(own.values()))
        numbers, frames = np.concatenate(found, axis=1) if found else np.zeros((2, 0), np.int64)
        lost = int((numbers < 0).sum())
        if lost and lost == len(numbers):
            raise next(iter(errors.values()), ValueError("episode_index is missing or has no numbers"))
        if lost:
            what = f"{lost} of its rows cannot be read, nor of which episode they are"
            self._note(what, file=self._relative(path))
        self._damaged_groups[path] = frozenset(errors)
        whole = np.repeat([group not in errors for group in range(len(counts))], counts)
        return numbers, frames, whole & ~np.concatenate([*lacking, np.zeros(0, np.bool_)])

    def _lacking(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows have no value of a feature."""
        lacking = np.zeros(table.num_rows, np.bool_)
        for name, feature in self.info["features"].items():
            needed = name not in NUMBERING and (is_numeric(feature) or feature["dtype"] == "image")
            if needed and name in table.column_names and table[name].null_count:
                lacking |= table[name].is_null().to_numpy()
        return lacking

    def table(self, path: Path) -> tuple[pa.Table, npt.NDArray[np.int64]]:
        """Read what can be read of a data file.

        Returns:
            the rows, and for each row of the file its place among them, -1 where it cannot be read.

        Raises:
            SourceError: it cannot be read any more.
        """
        bad = self._damaged_groups[path]
        try:
            with pq.ParquetFile(self._readable.get(path, path), page_checksum_verification=True) as file:
                counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
                table = file.read_row_groups([group for group in range(len(counts)) if group not in bad])
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path}: cannot be read: {error}") from None
        good = np.repeat([group not in bad for group in range(len(counts))], counts)
        return table, np.where(good, np.cumsum(good) - 1, -1)

    def _give_footer(self, path: Path, files: Sequence[Path]) -> None:
        """Make a data file readable whose footer was never written.

        Raises:
            SourceError: nothing in it can be read.
        """
        if has_footer(path):
            return
        features = self.info["features"]
        schema = next((pq.read_schema(other) for other in files if other != path and has_footer(other)), None)
        if schema is None:
            rows = {key: feature for key, feature in features.items() if feature["dtype"] != "video"}
            schema = pa.schema([pa.field(key, feature_type(feature)) for key, feature in rows.items()])
        copy = self._scratch / f"with-footer-{len(self._readable):06d}.parquet"
        count = with_footer(path, schema, copy)
        self._readable[path] = copy
        self._note(
            f"its end is missing, as of a recording that was broken off; its {count} rows are read from its "
            "pages",
            file=self._relative(path),
        )

    def _say_unused(self) -> None:
        """Video files of which nothing is kept."""
        used = {place.path for one in self.episodes for place in one.videos.values()}
        for path in sorted((self.root / "videos").rglob("*.mp4")):
            key = path.relative_to(self.root / "videos").parts[0]
            if path not in used and key not in self.left_out:
                why = "no episode is in it" if key in self.cameras else f"info.json has no camera {key}"
                self._note(f"{why}; it is left out", file=self._relative(path))

    def _say_unfinished(self) -> None:
        """Images of an episode that LeRobot was recording: its rows were in memory only."""
        for folder in sorted((self.root / "images").glob("*/episode-*")):
            if count := sum(1 for _ in folder.glob("frame-*")):
                self._note(
                    f"{count} images of an episode that was being recorded; its rows were never written, so "
                    "that it is left out",
                    file=self._relative(folder),
                )

    def _order(self, one: Found, frames: npt.NDArray[np.int64] | None) -> None:
        """Put an episode's rows in order."""
        count = len(one.rows)
        if frames is not None and not (frames == np.arange(count)).all():
            _, first = np.unique(frames, return_index=True)
            ordered = frames[first]
            if (ordered - ordered[0] != np.arange(len(ordered))).any():
                one.damage = "rows are missing: frame_index has gaps"
                first = first[: int(np.argmax(ordered != np.arange(len(ordered))))]  # up to the gap
            else:
                what = (
                    "are put in order" if len(first) == count else f"lose {count - len(first)} doubled ones"
                )
                if len(first) == count and (np.diff(frames) == 1).all():
                    what = f"are counted from 0 (frame_index began at {frames[0]})"
                self._note(f"its rows {what}", episode=one.number)
            one.rows = one.rows[first]
        one.length = len(one.rows)

    # --- videos -----------------------------------------------------------------------------------------

    def _place(self, key: str) -> None:
        """Find out where the episodes of a camera are."""
        listed = self._listed_places(key)
        named = {path for path, _ in listed.values() if path.is_file()}
        files = sorted({*(self.root / "videos" / key).rglob("*.mp4"), *named})
        known = self._opened(key, files)
        listed = self._put_back(listed, known, key)
        places = self._as_listed(listed, known)
        wrong = [one for one in self.episodes if one.number not in places]
        if wrong and (in_order := self._in_order(known)) is not None:
            moved = [number for number, place in in_order.items() if places.get(number) != place]
            for number in moved:
                self._note(
                    "where its video is was wrong or missing; the frames of the files tell it: "
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
                self._damage(one, key, "its video is missing, or cannot be told from others'", 0)
                continue
            one.videos[key] = place
            if place.whole < one.length:
                one.short[key] = place.whole
            if place.whole < one.length and not (self._repeat and place.whole):
                self._damage(one, key, f"has {place.whole} of {one.length} frames", place.whole)

    def _damage(self, one: Found, key: str, why: str, whole: int) -> None:
        if not one.damage:
            one.damage = f"{key}: {why}"
        one.length = min(one.length, whole)

    def _opened(self, key: str, files: Sequence[Path]) -> dict[Path, StreamInfo]:
        """What the files of a camera hold, those that can be opened."""

        def look(path: Path) -> StreamInfo | SourceError:
            try:
                return probe(path, times=True, ffprobe=self._ffprobe)
            except SourceError as error:
                return error

        threads, _ = share_cores(max(len(files), 1), None, None)
        found = dict(run_units(files, look, threads=threads, stop=lambda: None))
        for path in files:
            answer = found[path]
            if isinstance(answer, SourceError):
                self._note(f"cannot be opened ({_short(answer)})", camera=key, file=self._relative(path))
            else:
                self.streams[path] = answer
        return self._of_camera(key, {path: self.streams[path] for path in files if path in self.streams})

    def _of_camera(self, key: str, opened: Mapping[Path, StreamInfo]) -> dict[Path, StreamInfo]:
        """The files that show what the camera shows: of its size, and depth or colours as it is."""
        feature = self.info["features"][key]
        frames: dict[tuple[int, int, bool], int] = {}
        for info in opened.values():
            frames[_picture(info)] = frames.get(_picture(info), 0) + info.frames
        if len(frames) < 2:
            return dict(opened)
        said = (*reversed(list(feature.get("shape") or ())[:2]), says_depth(feature_block(feature)))
        right = said if said in frames else max(frames, key=lambda one: frames[one])
        for path, info in opened.items():
            if _picture(info) != right:
                what = f"is {info.width}x{info.height} {info.pix_fmt}, which is not a video of this camera"
                self._note(what, camera=key, file=self._relative(path))
        return {path: info for path, info in opened.items() if _picture(info) == right}

    def _mark_depth(self, key: str) -> None:
        """Say in ``info.json`` that a camera is depth where its files hold depth."""
        feature = self.info["features"][key]
        block = feature_block(feature)
        held = {self.streams[one.videos[key].path].pix_fmt for one in self.episodes if key in one.videos}
        if held and held <= set(DEPTH_FORMATS) and not says_depth(block):
            block |= {"is_depth_map": True, "video.video_backend": LEROBOTS_BACKEND}
            self.info["features"][key] = {**feature, "info": block}
            self._note("is marked as depth, which its files hold", file=INFO, camera=key)

    def _listed_places(self, key: str) -> dict[int, tuple[Path, float]]:
        """Number of an episode -> the file that the list names, and the second at which it starts."""
        columns = [self._column(name) for name in place_columns(key)[:3]]
        template = self.info.get("video_path") or VIDEO_PATH
        found = {}
        for number, row in _last(self._column("episode_index")).items():
            chunk, file, start = (column[row] for column in columns)
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                place = template.format(video_key=key, chunk_index=int(chunk), file_index=int(file))
                if np.isfinite(start):
                    found[number] = (self.root / place, float(start))
        return found

    def _put_back(
        self, listed: Mapping[int, tuple[Path, float]], known: Mapping[Path, StreamInfo], key: str
    ) -> dict[int, tuple[Path, float]]:
        """The places where files that have been exchanged are in each other's.

        It shows where their frames are as many as the rows of other files' episodes, and no two are alike.
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
        self, listed: Mapping[int, tuple[Path, float]], known: Mapping[Path, StreamInfo]
    ) -> dict[int, Place]:
        """The episodes that are where the list says."""
        by_file: dict[Path, list[tuple[int, Found]]] = {}
        for one in self.episodes:
            path, start = listed.get(one.number, (None, 0.0))
            if path is None or path not in known:
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
                continue  # LeRobot writes episodes one after another: timestamps have been swapped
            info = known[path]
            held: dict[int, Place] = {}
            for (at, one), end in zip(own, [at for at, _ in own[1:]] + [info.frames], strict=True):
                whole = min(end - at, self._before_gap(info, at, one.length))
                if whole >= one.length or end < info.frames or at == own[-1][0]:
                    held[one.number] = Place(path, at, min(whole, one.length))
            # Where an episode is short while frames of the file are left over, no place can be believed.
            short = any(held[one.number].whole < one.length for _, one in own if one.number in held)
            if not short or sum(one.length for _, one in own) > info.frames:
                places |= held
        return places

    def _before_gap(self, info: StreamInfo, first: int, length: int) -> int:
        """How many frames follow each other at the frame rate, or at least in as many steps."""
        assert info.times is not None
        times = np.asarray(info.times[first : first + length], np.float64) * float(info.time_base)
        steps = np.diff(times) * float(self.fps)
        gaps = np.flatnonzero(steps > 1.5)
        return int(gaps[0]) + 1 if gaps.size else len(times)

    def _in_order(self, known: Mapping[Path, StreamInfo]) -> dict[int, Place] | None:
        """All episodes one after another through the files; None where their frames do not fit so.

        Frames may be left over at the end where rows of later episodes were never written whole.
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
        """Whether the recording was broken off, and all episodes before that are there."""
        numbers = [one.number for one in self.episodes]
        return bool(self._readable) and self.listing is None and numbers == list(range(len(numbers)))

    def _into_gaps(
        self, key: str, wrong: Sequence[Found], known: Mapping[Path, StreamInfo], places: dict[int, Place]
    ) -> None:
        """Episodes whose place is not known, where the frames that are left of one file are as many."""
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
                    "where its video is was wrong or missing; it is the only one that fits into "
                    f"{self._relative(fitting[0].path)}, from frame {fitting[0].first} on",
                    episode=one.number,
                    camera=key,
                )

    def off_grid(self, path: Path) -> float:
        """By how many seconds a frame of a file is at most off its number / fps from the first."""
        info = self.streams[path]
        assert info.times is not None
        times = np.asarray(info.times, np.float64) * float(info.time_base)
        return float(np.abs(times - times[0] - np.arange(len(times)) / float(self.fps)).max(initial=0.0))

    def misleads(self, path: Path) -> bool:
        """Whether a file's average rate would turn a frame's time into the number of another frame."""
        info = self.streams[path]
        numbers = np.arange(info.frames)
        return bool((np.rint(numbers / float(self.fps) * float(info.fps)) != numbers).any())


def _counted_from_0(
    rows: npt.NDArray[np.int64], frames: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.int64]]:
    """Rows of one episode; or of several, where they count from 0 more than once, without a gap."""
    cuts = np.flatnonzero(frames[rows] == 0)
    stretches = np.split(rows, cuts[cuts > 0])
    whole = all((frames[own] == np.arange(len(own))).all() for own in stretches)
    return stretches if whole else [rows]


def _picture(info: StreamInfo) -> tuple[int, int, bool]:
    """What all files of a camera have in common: width, height, and whether they hold depth."""
    return info.width, info.height, info.pix_fmt in DEPTH_FORMATS


def _whole(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
    """A column of whole numbers.

    Raises:
        pyarrow.ArrowException, ValueError, LookupError: it is missing, or a row has no whole number.
    """
    if table[name].null_count:
        raise ValueError(f"{name} has rows without a value")
    numbers: npt.NDArray[np.int64] = table[name].cast(pa.int64()).to_numpy()
    return numbers


def _nearest(times: Sequence[int], start: Fraction) -> int:
    after = bisect_left(times, start)
    near = [at for at in (after - 1, after) if 0 <= at < len(times)]
    return min(near, key=lambda at: abs(times[at] - start))


def _last(numbers: Sequence[Any]) -> dict[int, int]:
    """Number of an episode -> the last row that names it."""
    return {number: row for row, number in enumerate(numbers) if isinstance(number, int) and number >= 0}


def _numbers(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:6]))
    return f"{shown}, ... {numbers[-1]}" if len(numbers) > 6 else shown


def _short(error: BaseException) -> str:
    text = error.what if isinstance(error, FfencError) else str(error)
    return text.strip().partition("\n")[0][:120] or "damaged"
