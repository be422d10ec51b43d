"""The readable episodes of a damaged dataset: its info.json, its lists, its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Struct, field

from ffenc.config.framerate import parse_fps
from ffenc.config.preset import camera_name, chosen_cameras
from ffenc.dataset.columns import read_table, task_texts
from ffenc.dataset.identify import check_dataset, features_of
from ffenc.dataset.lerobot import readable_feature
from ffenc.dataset.places import list_files
from ffenc.dataset.repair.salvage_files import (
    Action,
    RowNumbers,
    SalvagedFiles,
    noting_damage,
    short_reason,
    whole_numbers_of,
)
from ffenc.dataset.source import check_key
from ffenc.errors import SourceError
from ffenc.frames.info_json import feature_block, read_info
from ffenc.layout import (
    DATA_PATH,
    INFO,
    LEROBOTS_BACKEND,
    NUMBERING,
    TASKS,
    VIDEO_PATH,
    says_depth,
)
from ffenc.paths import check_template, template_fields
from ffenc.spelling import argument, call

_NEAR = 0.25  # of a frame: how far a timestamp may be from its frame's
_REWRITTEN = ("index", "frame_index", "episode_index")  # a row that was written twice can have others


class Place(Struct):
    """The place of an episode's frames in a file: the first one, and the number of frames without a gap."""

    path: Path
    first: int
    whole: int


class Found(Struct):
    """An episode with readable parts.

    Attributes:
        number: index in the source.
        path: the data file.
        rows: positions of its rows there, in the order of its frames, up to the first that is missing.
        read: number of its rows there, without duplicates.
        listed: its row of the episode list; None: it is not listed.
        texts: listed texts of its tasks.
        videos: camera -> place of its frames.
        length: number of rows and frames that it will have.
        short: camera -> number of consecutive frames from the first one on, if it is lower.
        damage: why it cannot be complete; "" if it can.
    """

    number: int
    path: Path
    rows: npt.NDArray[np.int64]
    read: int
    listed: int | None = None
    texts: list[str] = field(default_factory=list)
    videos: dict[str, Place] = field(default_factory=dict)
    length: int = 0
    short: dict[str, int] = field(default_factory=dict)
    damage: str = ""


class SalvagedRows:
    """Reads the readable parts of a dataset's info.json, lists and rows.

    Args:
        root: its folder.
        without: cameras to drop.
        task: text of all tasks, if the tasks table cannot be read.
        scratch: folder for repaired copies of files.

    Attributes:
        episodes: in the order of their indices, including damaged ones.
        info: usable contents of info.json.

    Raises:
        SourceError: not a v3.0 dataset, or not enough of it can be read.
        ConfigError: an unknown camera.
    """

    def __init__(self, root: Path, *, without: Sequence[str], task: str | None, scratch: Path) -> None:
        self.root = root
        self._said: dict[Action, None] = {}
        self.info = self._read_info()
        self.fps = parse_fps(self.info["fps"])
        self._leave_out(without)
        features = self.info["features"]
        self.cameras = [key for key, feature in features.items() if feature["dtype"] == "video"]
        self.listing = self._read_listing()
        self.tasks = self._read_tasks(task)
        self._files = SalvagedFiles(root, features, scratch, self.say)
        self.episodes = list(self._read_rows())
        if not self.episodes:
            raise SourceError(f"{root}: no rows of any episode are left under data/; nothing can be repaired")
        self._say_totals()

    def _say_totals(self) -> None:
        """Record which totals of ``info.json`` are not those of the rows."""
        rows = {"total_episodes": len(self.episodes), "total_frames": sum(one.read for one in self.episodes)}
        for name, found in rows.items():
            if self.info.get(name) != found:
                said = f"is {self.info[name]!r}" if name in self.info else "is missing"
                self._note(f"{name} {said}; {found} are left in the rows, and it is counted again", file=INFO)

    def _read_info(self) -> dict[str, Any]:
        check_dataset(self.root)
        info = read_info(self.root)
        version = str(info.get("codebase_version", ""))
        if not version.startswith("v3"):
            raise SourceError(
                f"{self.root}: is a dataset of layout {version or 'unknown'}; only v3.0 can be repaired. "
                f"{call('merge_datasets', sources=['DATASET'], destination='NEW')} converts v2.1 and v2.0"
            )
        where = self.root / INFO
        features = {}
        for key, feature in features_of(info, where).items():
            features[key] = readable_feature(feature)
            if features[key] != feature:
                self._note("its shape or names are rewritten as LeRobot uses them", file=INFO, camera=key)
            if feature["dtype"] in ("image", "video"):
                check_key(key, where)
            block = feature_block(features[key])
            if says_depth(block) and block.get("video.video_backend") not in (None, LEROBOTS_BACKEND):
                features[key] = {**features[key], "info": {**block, "video.video_backend": LEROBOTS_BACKEND}}
                what = f"video.video_backend becomes {LEROBOTS_BACKEND!r}, with which LeRobot opens depth"
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
        """The decisions, each once."""
        return list(self._said)

    def say(self, action: Action) -> None:
        """Record a decision, once."""
        self._said.setdefault(action)

    def _note(
        self, what: str, *, episode: int | None = None, camera: str | None = None, file: str | None = None
    ) -> None:
        self.say(Action(what, episode, camera, file))

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _read_listing(self) -> pa.Table | None:
        """Return the rows of the episode list, from all files that can be read."""
        tables = []
        for path in list_files(self.root):
            with noting_damage(path, partial(self._note_derived, path)):
                table = read_table(path)
                whole_numbers_of(table, "episode_index")
                tables.append(table)
        if not tables:
            self._note("the episode list is missing; it is derived from the rows and the videos")
            return None
        try:
            return pa.concat_tables(tables, promote_options="permissive")
        except pa.ArrowException:
            return pa.concat_tables([t for t in tables if t.schema.equals(tables[0].schema)])

    def _note_derived(self, path: Path, error: BaseException) -> None:
        what = f"cannot be read ({short_reason(error)}); its episodes are derived from their rows"
        self._note(what, file=self._relative(path))

    def _column(self, name: str) -> list[Any]:
        if self.listing is None or name not in self.listing.column_names:
            return [None] * (self.listing.num_rows if self.listing is not None else 0)
        found: list[Any] = self.listing[name].to_pylist()
        return found

    def _read_tasks(self, task: str | None) -> list[str]:
        """Return the texts of the tasks by index; empty if they are unknown."""
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

    def _read_rows(self) -> Iterator[Found]:
        index = self._column("episode_index")
        tasks, lengths = self._column("tasks"), self._column("length")
        last = last_rows(index)
        listed = {number: lengths[row] for number, row in last.items()}
        claims: dict[int, list[Found]] = {}
        for file in self._files.numbers():
            path, numbers, whole = file.path, file.episodes, file.whole
            by_episode = np.argsort(numbers, kind="stable")
            cuts = np.flatnonzero(np.diff(numbers[by_episode])) + 1
            groups = [group for group in np.split(by_episode, cuts) if len(group)]
            for rows in (
                own
                for group in groups
                for own in _counted_from_0(group, file, self._follow(group, file, listed))
            ):
                if numbers[rows[0]] < 0:
                    continue
                one = Found(int(numbers[rows[0]]), path, rows, len(rows))
                self._order(one, file, listed)
                if not whole[one.rows].all():
                    one.length = int(np.argmin(whole[one.rows]))
                    one.damage = one.damage or ("its rows cannot be read, or lack values of a feature")
                claims.setdefault(one.number, []).append(one)
        found = self._numbered(claims, listed)
        for number, row in last.items():
            if number not in found:
                self._note("is listed, but its rows are missing; it is left out", episode=number)
                continue
            one = found[number]
            one.listed = row
            if isinstance(tasks[row], list):
                one.texts = [str(text) for text in tasks[row] if text]
            if lengths[row] != one.length and not one.damage:
                self._note(
                    f"its length is {lengths[row]} in the list, it has {one.length} rows; the rows are used",
                    episode=number,
                )
        for number in sorted(set(found) - set(last)) if self.listing is not None else ():
            self._note("is not in the episode list; it is added", episode=number)
        if index != sorted(index, key=lambda value: (value is None, value)):
            self._note("the episode list is out of order; it is sorted", file="meta/episodes")
        order = sorted(found)
        if order != list(range(len(order))):
            self._note(f"episodes are numbered {_numbers(order)}; they are numbered from 0")
        yield from (found[number] for number in order)

    def _numbered(
        self, claims: Mapping[int, Sequence[Found]], lengths: Mapping[int, Any]
    ) -> dict[int, Found]:
        """Return each episode's rows, if several runs of rows have the same index.

        Args:
            claims: index -> the runs with this index.
            lengths: index -> length in the episode list.
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
                    what = f"its rows have the number {number}; it was identified by the number of rows"
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
                row = f", row {int(one.rows[0])}" if len(one.rows) else ""
                where = f"{self._relative(one.path)}{row}"
                what = f"{len(left)} stretches of rows have its number; those from {where} on are taken"
                self._note(what, episode=number)
        return found

    def _same(self, one: Found, other: Found) -> bool:
        """Return whether two runs of rows have the same values."""

        def values(found: Found) -> pa.Table:
            table, places = self.table(found.path)
            kept = [name for name in table.column_names if name not in NUMBERING]
            return table.select(kept).take(pa.array(places[found.rows], pa.int64()))

        return one.length == other.length and bool(values(one).equals(values(other)))

    def table(self, path: Path) -> tuple[pa.Table, npt.NDArray[np.int64]]:
        """Read the readable rows of a data file; see :meth:`SalvagedFiles.table`."""
        return self._files.table(path)

    def _follow(self, rows: npt.NDArray[np.int64], file: RowNumbers, lengths: Mapping[int, Any]) -> bool:
        """Return whether rows are those of an episode in their order, whatever their frame_index says.

        Their timestamps are those of frames 0, 1, 2, ..., and the list has the same number: timestamps
        alone may have been rewritten after rows were lost.
        """
        return self._in_time(rows, file) and lengths.get(int(file.episodes[rows[0]])) == len(rows)

    def _in_time(self, rows: npt.NDArray[np.int64], file: RowNumbers) -> bool:
        """Return whether the timestamps of rows are those of frames 0, 1, 2, ..."""
        grid = np.arange(len(rows)) / float(self.fps)
        return bool((np.abs(file.times[rows] - grid) < _NEAR / float(self.fps)).all())

    def _order(self, one: Found, file: RowNumbers, lengths: Mapping[int, Any]) -> None:
        """Sort an episode's rows by frame; without frame indices, they keep their order in the file."""
        frames = file.frames[one.rows]
        count = one.length = len(one.rows)
        if (frames == np.arange(count)).all():
            return
        if (frames < 0).any():
            listed = lengths.get(one.number)
            if isinstance(listed, int) and listed != count and not self._in_time(one.rows, file):
                what = "missing" if listed > count else "duplicates"
                one.damage = f"{abs(listed - count)} rows are {what}; without frame_index it is unknown which"
                one.length = 0
            return
        _, first = np.unique(frames, return_index=True)
        ordered = frames[first]
        gaps, repeated = (np.diff(ordered) != 1).any(), len(first) < count
        if (gaps or repeated) and self._follow(one.rows, file, lengths):
            what = "its frame_index is wrong; the rows are numbered in their order, that of their timestamps"
            self._note(what, episode=one.number)
            return
        if gaps:
            one.damage = "rows are missing: frame_index has gaps"
            one.read = len(first)
            first = first[: int(np.argmax(ordered != np.arange(len(ordered))))]  # up to the gap
        elif repeated and not self._repeated(one, frames):
            one.damage = "rows with other values have the same frame_index"
            # Up to the first of which there are two; those of another episode can come before its own.
            first = first[: int(np.argmax(np.bincount(frames) > 1))] if ordered[0] == 0 else first[:0]
        elif ordered[0] > 0 and not self._counts(one, file, first, lengths):
            one.damage = f"rows are missing: frame_index begins at {ordered[0]}"
            one.read = len(first)
            first = first[:0]
        else:
            what = "are sorted" if not repeated else f"lose {count - len(first)} duplicates"
            if not repeated and (np.diff(frames) == 1).all():
                what = f"are counted from 0 (frame_index began at {frames[0]})"
            self._note(f"its rows {what}", episode=one.number)
            one.read = len(first)
        one.rows = one.rows[first]
        one.length = len(one.rows)

    def _counts(
        self, one: Found, file: RowNumbers, first: npt.NDArray[np.int64], lengths: Mapping[int, Any]
    ) -> bool:
        """Return whether an episode's frame_index only counts from another number, and no row is missing.

        The list has as many rows; or, if it has no length, the timestamps do not begin later.
        """
        listed = lengths.get(one.number)
        if listed is not None:
            return bool(listed == len(first))
        return not file.times[one.rows[first[0]]] > _NEAR / float(self.fps)

    def _repeated(self, one: Found, frames: npt.NDArray[np.int64]) -> bool:
        """Return whether rows with the same frame index have the same values."""
        order = np.argsort(frames, kind="stable")
        same = np.flatnonzero(np.diff(frames[order]) == 0)
        table, places = self.table(one.path)
        table = table.select([name for name in table.column_names if name not in _REWRITTEN])
        pairs = [places[one.rows[order[at]]] for at in (same, same + 1)]
        if any((own < 0).any() for own in pairs):
            return False
        first, second = (table.take(pa.array(own, pa.int64())) for own in pairs)
        return bool(first.equals(second))


def _counted_from_0(
    rows: npt.NDArray[np.int64], file: RowNumbers, in_order: bool
) -> list[npt.NDArray[np.int64]]:
    """Return the rows of one episode; or of several, if they count from 0 several times without gaps."""
    frames = file.frames
    cuts = np.flatnonzero(frames[rows] == 0)
    stretches = np.split(rows, cuts[cuts > 0])
    whole = all((frames[own] == np.arange(len(own))).all() for own in stretches)
    return stretches if whole and not in_order else [rows]


def last_rows(numbers: Sequence[Any]) -> dict[int, int]:
    """Return episode index -> the last row with it."""
    return {number: row for row, number in enumerate(numbers) if isinstance(number, int) and number >= 0}


def _numbers(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:6]))
    return f"{shown}, ... {numbers[-1]}" if len(numbers) > 6 else shown
