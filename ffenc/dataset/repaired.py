"""A dataset that is put together of what is left of a damaged one: tables written, videos linked."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.config.framerate import fps_number
from ffenc.config.preset import camera_name
from ffenc.dataset.columns import task_table
from ffenc.dataset.repaired_videos import SoundVideos
from ffenc.dataset.salvage import Salvage
from ffenc.dataset.salvage_files import Action
from ffenc.dataset.salvage_rows import Found
from ffenc.dataset.staging import write_json
from ffenc.dataset.statistics import Aggregate
from ffenc.dataset.verify.faults import Fault
from ffenc.errors import (
    SourceError,
)
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.info_json import read_json
from ffenc.layout import (
    DATA_COLUMNS,
    DATA_PATH,
    EPISODES_PATH,
    INFO,
    MOST_IN_CHUNK,
    NOTES_PATH,
    NUMBERING,
    STATISTICS,
    STATS,
    TASKS,
    TIME_TOLERANCE,
    VIDEO_PATH,
    place_columns,
)
from ffenc.spelling import argument

OnDamage = Literal["drop-episode", "trim", "repeat"]
# Faults that making the dataset again takes away.
_WRITTEN = frozenset(
    {
        *("statistics-missing", "statistics-differ", "schema-metadata", "video-fields", "key-frame", "index"),
        *("open-groups", "episode-columns", "shape", "tasks-table", "frame-count", "totals", "orphan"),
        "checksum",
        "episode-place",  # frames of an episode that is left out lie between the others'
    }
)


@dataclass(frozen=True)
class EpisodeRepair:
    """What becomes of an episode.

    Attributes:
        number: in the source.
        result: its number in the result; None where it is left out.
        rows: that it had, as far as they are left.
        kept: rows that the result has.
        why: why it is not whole in the result; "" where it is.
    """

    number: int
    result: int | None
    rows: int
    kept: int
    why: str = ""


class RepairedDataset:
    """A dataset that is put together of what is left: tables written, videos linked."""

    def __init__(
        self,
        left: Salvage,
        folder: Path,
        pieces: Path,
        on_damage: OnDamage,
        programs: Sequence[Toolchain],
    ) -> None:
        self.root = folder / "left"
        self._left = left
        self.videos = SoundVideos(left, pieces, programs)
        self._on_damage = on_damage
        self._recomputed: set[str] = set()
        self._bad: dict[tuple[int, str], set[int]] = {
            (one.number, key): set() for one in left.episodes for key in one.short if not one.damage
        }  # episode and camera -> rows whose frames are damaged; other frames may be missing
        self._kept: list[Found] = []
        self._data: list[int] = []  # number of each kept episode's data file
        self._rows = {one.number: len(one.rows) for one in left.episodes}

    # --- what is kept -----------------------------------------------------------------------------------

    def _chosen(self) -> list[Found]:
        kept = [
            one
            for one in self._left.episodes
            if not one.damage
            or (self._on_damage == "trim" and one.length > 0 and len(one.videos) == len(self._left.cameras))
        ]
        if not kept:
            worst = self._left.episodes[0]
            hint = ""
            for key in self._left.cameras:
                if not any(key in one.videos for one in self._left.episodes):
                    name = camera_name(key)
                    hint = (
                        f". No video of {name} is left: leave it out with {argument('without_cameras', name)}"
                    )
                    break
            raise SourceError(
                f"{self._left.root}: no episode is whole (episode {worst.number}: {worst.damage}){hint}"
            )
        return kept

    def fates(self) -> list[EpisodeRepair]:
        """What becomes of each episode."""
        places = {one.number: place for place, one in enumerate(self._kept)}
        return [
            EpisodeRepair(
                one.number,
                places.get(one.number),
                self._rows[one.number],
                one.length if one.number in places else 0,
                one.damage or self._said_repeated(one.number),
            )
            for one in self._left.episodes
        ]

    def _said_repeated(self, number: int) -> str:
        said = [
            f"{key}: the frame before is shown in {_ranges(repeated.rows)}"
            for (episode, key), (_, repeated) in self.videos.repeated.items()
            if episode == number
        ]
        return "; ".join(said)

    def learn(self, faults: Sequence[Fault]) -> bool:
        """Take damage into account that was found when all was decoded; returns whether there was new one.

        Raises:
            SourceError: something is wrong that is not of single episodes, or stays where they are cut.
        """
        before = self._state()
        for fault in faults:
            if fault.kind in _WRITTEN or (fault.kind == "damaged-frame" and fault.episode is None):
                continue  # it is written again, or of frames that nothing shows
            if fault.episode is None:
                raise self._unrepairable(fault)
            one = self._kept[fault.episode]
            if fault.other is not None:  # nothing tells which side is right
                for own, other in ((one, self._kept[fault.other]), (self._kept[fault.other], one)):
                    where = f"{fault.camera}: " if fault.camera else ""
                    own.damage = own.damage or (
                        f"{where}it and episode {other.number} have each other's statistics, and nothing "
                        "tells which of the two is right"
                    )
                    own.length = 0
                continue
            if fault.kind == "other-content" and fault.camera not in self._recomputed:
                what = "shows something else than its statistics say; they are computed of what it shows"
                self._left.say(Action(what, one.number, fault.camera))
                self._recomputed.add(fault.camera or "")
                continue
            repeated = self._on_damage == "repeat" and fault.kind == "damaged-frame"
            if repeated and fault.frame and fault.camera in one.videos:  # the first has none before it
                bad = self._bad.setdefault((one.number, fault.camera), set())
                bad |= set(range(fault.frame, fault.frame + fault.frames))
                continue
            one.damage = one.damage or (f"{fault.camera}: {fault.what}" if fault.camera else fault.what)
            framed = fault.frame is not None and fault.kind in ("damaged-frame", "image")
            one.length = min(one.length, fault.frame or 0 if framed else 0)
        left = [f for f in faults if f.episode is not None and f.kind not in _WRITTEN]
        if left and self._state() == before:
            raise self._unrepairable(left[0])
        return bool(left)

    def _state(self) -> tuple[object, ...]:
        """What cutting and leaving out has come to so far."""
        return (
            *((bool(one.damage), one.length) for one in self._left.episodes),
            *(len(self._recomputed), sum(map(len, self._bad.values()))),
        )

    def _unrepairable(self, fault: Fault) -> SourceError:
        where, without = "", ""
        if fault.camera:
            where = f" ({fault.camera})"
            without = (
                f"; or leave the camera out with {argument('without_cameras', camera_name(fault.camera))}"
            )
        return SourceError(
            f"{self._left.root}: cannot be repaired without making data up: {fault.what}{where}; "
            f"{fault.fix}{without}"
        )

    # --- writing ----------------------------------------------------------------------------------------

    def write(self) -> None:
        """Put the dataset together."""
        shutil.rmtree(self.root, ignore_errors=True)
        self._kept = self._chosen()
        for folder in ("meta/episodes/chunk-000", "data"):
            (self.root / folder).mkdir(parents=True)
        tasks = self._write_rows()
        self._write_list(tasks, self._link_videos())
        self._write_info()
        self._link_others()

    def _write_rows(self) -> list[list[str]]:
        """Write each episode's rows into a file; returns the texts of its tasks."""
        texts = list(self._left.tasks)
        found: list[list[str]] = []
        self._data, start = [], 0
        for number, (path, own) in enumerate(groupby(self._kept, key=lambda one: one.path)):
            episodes = list(own)
            table, places = self._left.table(path)
            self._check_columns(table, path)
            features = [name for name in self._left.info["features"] if name in table.column_names]
            wanted = places[np.concatenate([one.rows[: one.length] for one in episodes])]
            rows = table.select(features).take(pa.array(wanted, pa.int64()))
            lengths = np.array([one.length for one in episodes])
            first = np.cumsum(lengths) - lengths
            frames = np.arange(len(wanted)) - np.repeat(first, lengths)
            self._say_shifts(rows, frames, episodes, first)
            tasks = self._tasks_of(episodes, rows, first, texts)
            found += [own_texts for own_texts, _ in tasks]
            numbers = np.arange(len(self._data), len(self._data) + len(episodes))
            for name, values in (
                ("timestamp", (frames / float(self._left.fps)).astype(np.float32)),
                ("frame_index", frames),
                (
                    "episode_index",
                    np.repeat(numbers, lengths),
                ),
                ("index", np.arange(start, start + len(wanted))),
                ("task_index", np.concatenate([chosen for _, chosen in tasks])),
            ):
                kept = rows.drop_columns(name) if name in rows.column_names else rows
                rows = kept.append_column(name, pa.array(values))
            target = self.root / _file(DATA_PATH, number)
            target.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(rows.replace_schema_metadata(None), target)
            self._data += [number] * len(episodes)
            start += len(wanted)
        pq.write_table(task_table(texts or ["unspecified"]), self.root / TASKS)
        return found

    def _say_shifts(self, rows: pa.Table, frames: Any, episodes: Sequence[Found], first: Any) -> None:
        """Note which episodes' rows are not at the times of their frames."""
        if "timestamp" not in rows.column_names:
            return
        try:
            times = rows["timestamp"].cast(pa.float64()).to_numpy()
            off = np.nan_to_num(np.abs(times - frames / float(self._left.fps)), nan=np.inf)
        except pa.ArrowException:
            off = np.full(len(frames), np.inf)
        shifts = np.maximum.reduceat(off, first)
        for one, shift in zip(episodes, shifts.tolist(), strict=True):
            if shift > TIME_TOLERANCE:
                what = f"its rows are put at frame_index / fps, up to {shift:.3f} s away"
                self._left.say(Action(what, one.number))

    def _check_columns(self, table: pa.Table, path: Path) -> None:
        features, place = self._left.info["features"], path.relative_to(self._left.root).as_posix()
        videos = {key for key, feature in features.items() if feature["dtype"] == "video"}
        for name in [name for name in features if name not in table.column_names]:
            if name in NUMBERING:
                self._left.say(
                    Action("is missing; it follows from the rows and is written", None, name, place)
                )
            elif name not in videos:
                self._left.say(Action("has no column in the data files; the feature is left out", None, name))
                del features[name]
        known = {*features, *NUMBERING, *self._left.left_out}
        for name in sorted(set(table.column_names) - known):
            self._left.say(Action(f"column {name} is no feature of info.json; it is left out", file=place))

    def _tasks_of(
        self, episodes: Sequence[Found], rows: pa.Table, first: Any, texts: list[str]
    ) -> list[tuple[list[str], Any]]:
        """Each episode's task texts, and the number of each row's; adds texts that are new."""
        known = np.full(rows.num_rows, -1)
        with contextlib.suppress(pa.ArrowException, LookupError, ValueError):
            known = rows["task_index"].cast(pa.int64()).fill_null(-1).to_numpy()
        count = len(self._left.tasks)
        found: list[tuple[list[str], Any]] = []
        for one, start in zip(episodes, first.tolist(), strict=True):
            own = known[start : start + one.length]
            if count and ((own >= 0) & (own < count)).all():
                _, places = np.unique(own, return_index=True)
                found.append(([texts[own[place]] for place in sorted(places)], own))
            elif count == 1:
                found.append(([texts[0]], np.zeros(one.length, np.int64)))
            else:
                found.append(self._listed_task(one, texts))
        return found

    def _listed_task(self, one: Found, texts: list[str]) -> tuple[list[str], Any]:
        if len(one.texts) != 1:
            raise SourceError(
                f"{self._left.root}: the task of episode {one.number} cannot be told from its rows and the "
                f"lists: pass {argument('task', 'TEXT')} to give all rows one"
            )
        if one.texts[0] not in texts:
            texts.append(one.texts[0])
        if self._left.tasks:
            self._left.say(
                Action("its rows name tasks that do not exist; they get the listed one", one.number)
            )
        return list(one.texts), np.full(one.length, texts.index(one.texts[0]), np.int64)

    def _link_videos(self) -> dict[str, list[tuple[int, float]]]:
        """Link the videos; returns for each camera each episode's file number and start in seconds."""
        places: dict[str, list[tuple[int, float]]] = {}
        for key in self._left.cameras:
            numbers: dict[Path, int] = {}
            ends: dict[Path, int] = {}
            count = 0
            places[key] = []
            cut = {
                one.videos[key].path
                for one in self._left.episodes
                if key in one.videos and (one.damage or (one.number, key) in self._bad)
            }
            for one in self._kept:
                place = one.videos[key]
                if (one.number, key) in self._bad:
                    place = self.videos.with_repeats(one, key, frozenset(self._bad[one.number, key])).place
                path, info = self.videos.sound_file(key, place.path, cut)
                if path not in numbers or place.first < ends[path]:
                    numbers[path], count = count, count + 1
                    link = self.root / _file(VIDEO_PATH, numbers[path], video_key=key)
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(path.resolve())
                ends[path] = place.first + one.length
                assert info.times is not None
                places[key].append((numbers[path], float(info.times[place.first] * info.time_base)))
        return places

    def _write_list(self, tasks: Sequence[list[str]], videos: dict[str, list[tuple[int, float]]]) -> None:
        lengths = np.array([one.length for one in self._kept])
        ends = np.cumsum(lengths)
        count = len(self._kept)
        data = [divmod(number, MOST_IN_CHUNK) for number in self._data]
        columns: dict[str, Any] = {
            "episode_index": np.arange(count),
            "tasks": pa.array(tasks, pa.list_(pa.string())),
            "length": lengths,
            **dict(zip(DATA_COLUMNS, zip(*data, strict=True), strict=True)),
            "dataset_from_index": ends - lengths,
            "dataset_to_index": ends,
        }
        for key, places in videos.items():
            starts = np.array([start for _, start in places])
            chunks, files = zip(*(divmod(number, MOST_IN_CHUNK) for number, _ in places), strict=True)
            values = (chunks, files, starts, starts + lengths / float(self._left.fps))
            columns |= dict(zip(place_columns(key), values, strict=True))
        stats = self._camera_statistics()
        columns |= {"meta/episodes/chunk_index": [0] * count, "meta/episodes/file_index": [0] * count}
        table = pa.table({**columns, **stats})
        pq.write_table(table, self.root / EPISODES_PATH.format(chunk_index=0, file_index=0))

    def _camera_statistics(self) -> dict[str, Any]:
        """The statistics of cameras, of which all kept episodes are whole and listed; others are computed."""
        listing, stats, totals = self._left.listing, dict[str, Any](), dict[str, Any]()
        cameras = [k for k, f in self._left.info["features"].items() if f["dtype"] in ("image", "video")]
        rows = [one.listed for one in self._kept]
        whole = not self._bad and all(not one.damage for one in self._kept)
        whole = whole and None not in rows and listing is not None
        for key in cameras if whole else ():
            assert listing is not None
            names = [name for name in listing.column_names if name.startswith(f"stats/{key}/")]
            own = listing.select(names).take(pa.array(rows, pa.int64()))
            have = {name.rpartition("/")[2] for name in names}
            if key in self._recomputed or not set(STATISTICS) <= have:
                continue
            total = Aggregate()
            try:
                for values in own.rename_columns([name.rpartition("/")[2] for name in names]).to_pylist():
                    total.add(values)
            except ValueError:
                continue
            stats |= {name: own[name] for name in names}
            totals[key] = total.result()
        (self.root / STATS).write_text(json.dumps(totals))
        return stats

    def _write_info(self) -> None:
        info = {
            name: value
            for name, value in self._left.info.items()
            if not name.startswith("total_") and name not in ("splits", "data_path", "video_path")
        }
        info |= {
            "fps": fps_number(self._left.fps),
            "total_episodes": len(self._kept),
            "total_frames": sum(one.length for one in self._kept),
            "total_tasks": int(pq.read_metadata(self.root / TASKS).num_rows),
            "splits": {"train": f"0:{len(self._kept)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._left.cameras else None,
        }
        (self.root / INFO).write_text(json.dumps(info, indent=4))

    def _link_others(self) -> None:
        """What else belongs to the dataset, and each episode's notes."""
        for place, one in enumerate(self._kept):
            notes = self._left.root / NOTES_PATH.format(episode_index=one.number)
            target = self.root / NOTES_PATH.format(episode_index=place)
            target.parent.mkdir(parents=True, exist_ok=True)
            if notes.is_file() and not one.damage:
                shutil.copyfile(notes, target)
            own = {
                key: repeated.rows
                for (number, key), (_, repeated) in self.videos.repeated.items()
                if number == one.number
            }
            if own:
                with contextlib.suppress(SourceError):
                    content = read_json(notes) if notes.is_file() else {}
                write_json(target, {**content, "repeated_rows": own})
        for path in self._left.root.iterdir():
            if path.is_file() and not path.name.startswith("."):
                shutil.copyfile(path, self.root / path.name)


def _ranges(rows: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"row {a}" if a == b else f"rows {a} to {b}" for a, b in rows)


def _file(template: str, number: int, **fields: str) -> str:
    chunk, file = divmod(number, MOST_IN_CHUNK)
    return template.format(chunk_index=chunk, file_index=file, **fields)
