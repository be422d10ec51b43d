"""A dataset assembled from the intact parts of a damaged one: tables are written, videos linked."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Struct
from msgspec.structs import replace

from ffenc.config.framerate import fps_number
from ffenc.config.preset import camera_name
from ffenc.dataset.columns import UNDESCRIBED, row_schema
from ffenc.dataset.extra_files import extra_files
from ffenc.dataset.listing import WrittenRows, listed_statistics, listings
from ffenc.dataset.model import Episode, Known
from ffenc.dataset.places import DATA, FilePlace, VideoPlace, videos_of
from ffenc.dataset.repair.repaired_videos import SoundVideos
from ffenc.dataset.repair.salvage import Salvage
from ffenc.dataset.repair.salvage_files import Action
from ffenc.dataset.repair.salvage_rows import Found
from ffenc.dataset.row_checks import time_shifts
from ffenc.dataset.verify.faults import Fault
from ffenc.dataset.writer import DatasetWriter, State
from ffenc.errors import SourceError
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.info_json import read_json
from ffenc.layout import (
    CAMERA_TYPES,
    DATA_PATH,
    EPISODES,
    INFO,
    NOTES_PATH,
    NUMBERING,
    STATISTICS,
    TIME_TOLERANCE,
    VIDEO_PATH,
)
from ffenc.spelling import argument

OnDamage = Literal["drop-episode", "trim", "repeat"]
# Faults that are corrected by writing the dataset again.
_WRITTEN = frozenset(
    {
        *("statistics-missing", "statistics-differ", "schema-metadata", "video-fields", "key-frame", "index"),
        *("open-groups", "episode-columns", "shape", "tasks-table", "frame-count", "totals", "orphan"),
        "checksum",
        "episode-place",  # frames of a dropped episode are between those of the others
    }
)


class EpisodeRepair(Struct, frozen=True):
    """The result of a repair for an episode.

    Attributes:
        number: index in the source.
        result: index in the result; None if it is dropped.
        rows: number of rows that could be read.
        kept: number of rows in the result.
        why: why it is incomplete in the result; "" if it is complete.
    """

    number: int
    result: int | None
    rows: int
    kept: int
    why: str = ""


class RepairedDataset:
    """A dataset assembled from intact parts: tables are written, videos linked."""

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
        }  # (episode, camera) -> rows with damaged frames; other frames may be missing
        self._kept: list[Found] = []
        self._rows = {one.number: one.read for one in left.episodes}

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
                own = self._left.root / "videos" / key
                readable = any(own in path.parents for path in self._left.streams)
                if not readable and not any(key in one.videos for one in self._left.episodes):
                    name = camera_name(key)
                    hint = (
                        f". No video of {name} is left; leave the camera out with "
                        f"{argument('without_cameras', name)}"
                    )
                    break
            raise SourceError(
                f"{self._left.root}: no episode is complete (episode {worst.number}: {worst.damage}){hint}"
            )
        return kept

    def fates(self) -> list[EpisodeRepair]:
        """Return the result for each episode."""
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
            f"{key}: the previous frame is repeated in {_ranges(repeated.rows)}"
            for (episode, key), (_, repeated) in self.videos.repeated.items()
            if episode == number
        ]
        return "; ".join(said)

    def learn(self, faults: Sequence[Fault]) -> bool:
        """Add damage that was found while decoding; return whether any of it is new.

        Raises:
            SourceError: a fault that does not belong to single episodes, or remains after they are cut.
        """
        before = self._state()
        for fault in faults:
            if fault.kind in _WRITTEN or (fault.kind == "damaged-frame" and fault.episode is None):
                continue  # it is written again, or affects frames that no row shows
            if fault.episode is None:
                raise self._unrepairable(fault)
            one = self._kept[fault.episode]
            if fault.other is not None:  # it is unknown which of the two is right
                for own, other in ((one, self._kept[fault.other]), (self._kept[fault.other], one)):
                    where = f"{fault.camera}: " if fault.camera else ""
                    own.damage = own.damage or (
                        f"{where}it and episode {other.number} have each other's statistics, and "
                        "nothing says which side is right"
                    )
                    own.length = 0
                continue
            if fault.kind == "other-content" and fault.camera not in self._recomputed:
                what = "its frames do not match its statistics; the statistics are computed from the frames"
                self._left.say(Action(what, one.number, fault.camera))
                self._recomputed.add(fault.camera or "")
                continue
            repeated = self._on_damage == "repeat" and fault.kind == "damaged-frame"
            if repeated and fault.frame and fault.camera in one.videos:  # the first frame has none before it
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
        """Return the current decisions about cutting and dropping episodes."""
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
            f"{self._left.root}: cannot be repaired without inventing data: {fault.what}{where}; "
            f"{fault.fix}{without}"
        )

    # --- writing ----------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write the dataset."""
        shutil.rmtree(self.root, ignore_errors=True)
        self._kept = self._chosen()
        writer = DatasetWriter(self.root, self._left.fps, State({}), tasks=self._left.tasks)
        rows = self._write_rows(writer)
        self._write_list(writer, rows)
        writer.write_tasks()
        self._write_info(writer)
        self._copy_others(writer)

    def _write_rows(self, writer: DatasetWriter) -> list[WrittenRows]:
        """Write each episode's rows, with one file per data file of the source."""
        found: list[WrittenRows] = []
        known = self._known()
        for path, own in groupby(self._kept, key=lambda one: one.path):
            episodes = list(own)
            table, places = self._left.table(path)
            self._check_columns(table, path)
            wanted = places[np.concatenate([one.rows[: one.length] for one in episodes])]
            features = [name for name in self._left.info["features"] if name in table.column_names]
            rows = table.select(features).take(pa.array(wanted, pa.int64()))
            lengths = np.array([one.length for one in episodes])
            first = np.cumsum(lengths) - lengths
            self._say_shifts(rows, np.arange(len(wanted)) - np.repeat(first, lengths), episodes, first)
            kept = rows.select([name for name in features if name not in NUMBERING])
            tasks = np.full(rows.num_rows, -1)
            with contextlib.suppress(pa.ArrowException, LookupError, ValueError):
                tasks = rows["task_index"].cast(pa.int64()).fill_null(-1).to_numpy()
            numbered = []
            for one, start in zip(episodes, first.tolist(), strict=True):
                part = Episode(one.length, kept.slice(start, one.length), index=one.number)
                if known is not None and one.listed is not None:
                    part = replace(part, known=Known(known, one.listed))
                own_tasks = tasks[start : start + one.length]
                numbered.append(writer.number(self._with_tasks(part, one, own_tasks)))
            schema = row_schema(numbered[0].table.schema.with_metadata(UNDESCRIBED))
            found += writer.write_rows(writer.files.next(DATA), schema, ((one, {}) for one in numbered), ())
        return found

    def _say_shifts(self, rows: pa.Table, frames: Any, episodes: Sequence[Found], first: Any) -> None:
        """Record which episodes' rows are not at the times of their frames."""
        if "timestamp" not in rows.column_names:
            return
        try:
            times = rows["timestamp"].cast(pa.float64()).to_numpy()
            off = time_shifts(times, frames, float(self._left.fps))
        except pa.ArrowException:
            off = np.full(len(frames), np.inf)
        shifts = np.maximum.reduceat(off, first)
        for one, shift in zip(episodes, shifts.tolist(), strict=True):
            if shift > TIME_TOLERANCE:
                what = f"its timestamps are set to frame_index / fps, up to {shift:.3f} s away"
                self._left.say(Action(what, one.number))

    def _check_columns(self, table: pa.Table, path: Path) -> None:
        features, place = self._left.info["features"], path.relative_to(self._left.root).as_posix()
        videos = {key for key, feature in features.items() if feature["dtype"] == "video"}
        for name in [name for name in features if name not in table.column_names]:
            if name in NUMBERING:
                self._left.say(Action("is missing; it is derived from the rows", None, name, place))
            elif name not in videos:
                self._left.say(Action("has no column in the data files; the feature is left out", None, name))
                del features[name]
        known = {*features, *NUMBERING, *self._left.left_out}
        for name in sorted(set(table.column_names) - known):
            self._left.say(Action(f"column {name} is not a feature of info.json; it is left out", file=place))

    def _with_tasks(self, part: Episode, one: Found, numbers: npt.NDArray[np.int64]) -> Episode:
        """Return the episode with the tasks of its rows, or with the listed one if these are wrong."""
        known = self._left.tasks
        if known and ((numbers >= 0) & (numbers < len(known))).all():
            return part.with_tasks(known, numbers)
        if len(known) == 1:
            return replace(part, tasks=known)
        if len(one.texts) != 1:
            raise SourceError(
                f"{self._left.root}: the task of episode {one.number} cannot be derived from its "
                f"rows and the lists: pass {argument('task', 'TEXT')} to set the task of all rows"
            )
        if known:
            self._left.say(
                Action(
                    "its rows refer to tasks that do not exist; they get the task that the "
                    "episode list names",
                    one.number,
                )
            )
        return replace(part, tasks=one.texts)

    def _link_videos(self, writer: DatasetWriter) -> dict[str, list[VideoPlace]]:
        """Link the videos; return the place of each episode by camera."""
        places: dict[str, list[VideoPlace]] = {}
        for key in self._left.cameras:
            files: dict[Path, FilePlace] = {}
            ends: dict[Path, int] = {}
            places[key] = []
            cut = {
                one.videos[key].path
                for one in self._left.episodes
                if key in one.videos and (one.damage or (one.number, key) in self._bad)
            }
            runs = self._runs(key)
            for one in self._kept:
                place = one.videos[key]
                if (one.number, key) in self._bad:
                    place = self.videos.with_repeats(one, key, frozenset(self._bad[one.number, key])).place
                elif place.path in cut:
                    place = self.videos.apart(key, place, runs[one.number])
                path, info = self.videos.sound_file(key, place.path, cut)
                if path not in files or place.first < ends[path]:
                    files[path] = writer.files.next(videos_of(key))
                    link = self.root / files[path].path
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(path.resolve())
                ends[path] = place.first + one.length
                assert info.times is not None
                start = info.times[place.first] * info.time_base * self._left.fps
                places[key].append(VideoPlace(files[path], start))
        return places

    def _runs(self, key: str) -> dict[int, tuple[int, int]]:
        """Return, for each kept episode, the frames around it in its file in which there is no damage.

        Returns:
            Number of the episode -> the first frame, and the one after the last.
        """
        found: list[list[Found]] = []
        sound = [one for one in self._kept if (one.number, key) not in self._bad]
        before: tuple[Path, int] | None = None  # where the previous episode ends
        for one in sorted(sound, key=lambda one: (one.videos[key].path, one.videos[key].first)):
            place = one.videos[key]
            if before != (place.path, place.first) or one.damage:
                found.append([])
            found[-1].append(one)
            before = place.path, place.first + one.length
        return {
            one.number: (run[0].videos[key].first, run[-1].videos[key].first + run[-1].length)
            for run in found
            for one in run
        }

    def _write_list(self, writer: DatasetWriter, rows: Sequence[WrittenRows]) -> None:
        file = writer.files.next(EPISODES)
        videos = self._link_videos(writer)
        tables: list[pa.Table] = []
        spoilt: set[str] = set()  # features whose statistics cannot be aggregated: they are computed
        done = 0
        for listing in listings(rows):
            part = slice(done, done + len(listing.rows))
            done += len(listing.rows)
            own = {key: places[part] for key, places in videos.items()}
            tables.append(writer.list_rows(listing, own, {}, file))
            for key, _, stats in listed_statistics(tables[-1]):
                try:
                    writer.add_total(key, stats)
                except ValueError:
                    spoilt.add(key)
        begin = tuple(f"stats/{key}/" for key in spoilt)
        kept = [[name for name in table.column_names if not name.startswith(begin)] for table in tables]
        writer.write_list(file, [table.select(own) for table, own in zip(tables, kept, strict=True)])
        writer.write_stats({key: total for key, total in writer.totals.items() if key not in spoilt})

    def _known(self) -> pa.Table | None:
        """Return the cameras' statistics, if all kept episodes are complete and listed; None otherwise.

        An episode that has fewer rows than the list says is not complete: its statistics are of more frames.
        """
        listing = self._left.listing
        whole = not self._bad and all(not one.damage for one in self._kept)
        if listing is None or not whole or "length" not in listing.column_names:
            return None
        lengths = listing["length"].to_pylist()
        if any(one.listed is None or lengths[one.listed] != one.length for one in self._kept):
            return None
        names: list[str] = []
        for key, feature in self._left.info["features"].items():
            if feature["dtype"] not in CAMERA_TYPES or key in self._recomputed:
                continue
            own = [name for name in listing.column_names if name.startswith(f"stats/{key}/")]
            if set(STATISTICS) <= {name.rpartition("/")[2] for name in own}:
                names += own
        return listing.select(names)

    def _write_info(self, writer: DatasetWriter) -> None:
        info = {
            name: value
            for name, value in self._left.info.items()
            if not name.startswith("total_") and name not in ("splits", "data_path", "video_path")
        }
        info |= {
            "fps": fps_number(self._left.fps),
            "total_tasks": len(writer.tasks),
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._left.cameras else None,
        }
        (self.root / INFO).write_text(json.dumps(writer.info(info), indent=4))

    def _copy_others(self, writer: DatasetWriter) -> None:
        """Copy the other files of the dataset, and each episode's notes."""
        for place, one in enumerate(self._kept):
            notes = self._left.root / NOTES_PATH.format(episode_index=one.number)
            if notes.is_file() and not one.damage:
                writer.write_notes(place, notes)
            own = {
                key: repeated.rows
                for (number, key), (_, repeated) in self.videos.repeated.items()
                if number == one.number
            }
            if own:
                content: dict[str, Any] = {}
                try:
                    content = read_json(notes) if notes.is_file() else {}
                except SourceError as error:
                    what = f"{error.what}; only the repeated rows are noted in the result"
                    where = NOTES_PATH.format(episode_index=one.number)
                    self._left.say(Action(what, one.number, file=where))
                writer.write_notes(place, {**content, "repeated_rows": own})
        for path, own_place in extra_files(self._left.root):
            writer.copy(path, own_place)


def _ranges(rows: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"row {a}" if a == b else f"rows {a} to {b}" for a, b in rows)
