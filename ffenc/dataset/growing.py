"""A LeRobot v3.0 dataset that grows by one episode at a time."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from ffenc.config.framerate import fps_number
from ffenc.dataset.checksums import file_checksum
from ffenc.dataset.columns import is_numeric, read_table, task_texts
from ffenc.dataset.commit import COMMIT, finish_commit, pending_commits
from ffenc.dataset.episode import StagedEpisode, list_to_grow, rehearsed
from ffenc.dataset.episode_columns import all_features, check_features
from ffenc.dataset.fitting import GrowingCamera, check_fit, recorded_features
from ffenc.dataset.identify import features_of, wrong_limits
from ffenc.dataset.model import Episode
from ffenc.dataset.places import DATA, NumberedFile, list_files, videos_of
from ffenc.dataset.source import check_key
from ffenc.dataset.writer import State
from ffenc.errors import ConfigError, DestinationError, SourceError
from ffenc.frames.info_json import read_info, read_json
from ffenc.layout import (
    CAMERA_TYPES,
    DATA_PATH,
    EPISODES,
    FILE_LIMITS,
    INFO,
    OWN_INFO,
    QUANTILES,
    STATISTICS,
    STATS,
    TASKS,
    VIDEO_PATH,
)
from ffenc.paths import COPY, check_tree
from ffenc.spelling import call

__all__ = ["GrowingCamera", "GrowingDataset", "finish_commit", "pending_commits"]

_ANY_FEATURES = {"action": {"dtype": "float32", "shape": [2], "names": None}}
_KNOWN_STATISTICS = (*STATISTICS, *QUANTILES)


class GrowingDataset:
    """A new or existing dataset to which episodes are added one by one.

    Each episode adds new files: one video per camera, one file of rows. ``meta/info.json``, ``ffenc.json``,
    ``stats.json``, ``tasks.parquet``, ``videos.sha256`` and the last file of the episode list are replaced.
    No other file of the dataset is written. After :meth:`stage` an episode is safe, :meth:`publish` moves it
    into the dataset.

    Only one process at a time may use it; the caller ensures this.

    Args:
        root: the dataset: a path that does not exist, a folder that is empty except for hidden files, or a
            LeRobot v3.0 dataset.
        fps: frames per second.
        robot_type: LeRobot's name of the robot, or None.
        cameras: in the order of their features.
        features: LeRobot's description of each recorded column: ``{"action": {"dtype": "float32", "shape":
            [6], "names": [...] or None}}``; None: those of the dataset, or of the first episode's table. In a
            new dataset, a shape has one dimension.

    Raises:
        ConfigError: cameras or features that a dataset cannot have.
        DestinationError: the folder contains something else, an episode of an interrupted recording has to be
            completed (:func:`~ffenc.dataset.commit.finish_commit`), or the recording does not fit the
            dataset; the text lists all differences with both values.
        SourceError: the existing dataset is damaged.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        fps: Fraction,
        robot_type: str | None,
        cameras: Sequence[GrowingCamera],
        features: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.root = Path(root)
        self._fps = fps
        self._cameras = {check_key(camera.key, self.root): camera for camera in cameras}
        if len(self._cameras) < len(cameras):
            raise ConfigError("two cameras have the same name; each is one feature of the dataset")
        if features is not None:
            check_features(features, self._cameras)
        pending = pending_commits(self.root)
        if pending:
            raise DestinationError(
                f"{pending[0]}: an episode that was finished before an interruption is not yet in "
                f"{self.root}; recover it first"
            )
        self._staged: tuple[Path, State] | None = None
        if (self.root / INFO).is_file():
            info = _checked_info(self.root)
            check_fit(self.root, info, fps=fps, robot_type=robot_type, cameras=cameras, features=features)
            self._state = _opened(self.root, info)
        else:
            _check_free(self.root)
            self._state = State(self._new_info(robot_type, features))
        # If the features are not known yet, others load the modules that would delay the first row.
        self.rehearse(self.features if self.features is not None else _ANY_FEATURES)
        self._known = self._checksums()

    @property
    def total_episodes(self) -> int:
        """Number of published episodes."""
        return self._state.total_episodes

    @property
    def total_frames(self) -> int:
        """Number of their rows."""
        return self._state.total_frames

    @property
    def features(self) -> dict[str, dict[str, Any]] | None:
        """Features of the recorded columns, without cameras and LeRobot's numbering; None until known."""
        return recorded_features(self._state.info) if "features" in self._state.info else None

    def check_unchanged(self) -> None:
        """Refuse to continue if another program has changed the files that the next episode replaces.

        Raises:
            DestinationError: names the file that was changed, created or deleted since the last episode.
        """
        for place, checksum in self._checksums().items():
            known = self._known.get(place)
            if checksum != known:
                what = "removed" if checksum is None else "changed" if known is not None else "made"
                raise DestinationError(
                    f"{self.root / place} was {what} by another program since it was read, and would be "
                    "overwritten. Start the recording again, which reads the new version; "
                    "recorded episodes are kept, and can be recovered then"
                )

    def _checksums(self) -> dict[str, str | None]:
        """Return checksums of the files that an episode replaces and that are not read again before."""
        listed = list_to_grow(self.root, self._state)
        places = (INFO, OWN_INFO, STATS, TASKS, *([listed.path] if listed else []))
        paths = {place: self.root / place for place in places}
        return {place: file_checksum(path) if path.is_file() else None for place, path in paths.items()}

    def rehearse(self, features: Mapping[str, Mapping[str, Any]]) -> None:
        """Check whether an episode can be saved, before it is recorded. Nothing is written.

        Args:
            features: features of its rows.

        Raises:
            ConfigError: columns that cannot be recorded, or that differ from the dataset's.
            SourceError: another episode cannot be added to a table of the dataset.
        """
        check_features(features, self._cameras)
        episode = rehearsed(self._cameras, features, _new_task(self._state.tasks))
        StagedEpisode(self.root, self.root, self._cameras, self._fps, self._state, episode).rehearse()

    def stage(self, folder: Path, episode: Episode) -> int:
        """Write the files that an episode adds to a folder: from then on the episode is safe.

        All files are flushed to disk, and listed last. Before that, an interrupted call can be repeated.

        Args:
            folder: on the dataset's file system; it is deleted with its contents when the episode is
                published.
            episode: the episode.

        Returns:
            The index that it will have.

        Raises:
            ConfigError: its table, cameras or statistics do not fit the dataset.
            VerificationError: a video or an image does not fit the dataset's camera.
            DestinationError: a staged episode was not published, another program has changed the dataset, or
                the disk is full.
        """
        self.check_unchanged()
        if self._staged is not None or (folder / COMMIT).exists():
            waiting = folder if self._staged is None else self._staged[0]
            raise DestinationError(f"{waiting}: contains a staged episode, which has to be published first")
        staged = StagedEpisode(self.root, folder, self._cameras, self._fps, self._state, episode)
        with self._kept(folder):
            self._staged = folder, staged.write()
        return self._state.total_episodes

    def publish(self, folder: Path) -> None:
        """Move the staged episode into the dataset, and delete the folder.

        Raises:
            DestinationError: as for :func:`~ffenc.dataset.commit.finish_commit`; the episode stays staged.
        """
        if self._staged is None or self._staged[0] != folder:
            raise DestinationError(f"{folder}: no episode has been staged there")
        with self._kept(folder):
            finish_commit(folder, self.root, trust=True)  # written by this run
        self._state, self._staged = self._staged[1], None
        self._known = self._checksums()

    @contextlib.contextmanager
    def _kept(self, folder: Path) -> Iterator[None]:
        """Name the episode in an error if the disk is full or gone."""
        try:
            yield
        except OSError as error:
            raise DestinationError(
                f"{self.root} cannot be written: {error.strerror or error}. The episode is kept in {folder}: "
                "once it can be written, recover it"
            ) from error

    def _new_info(
        self, robot_type: str | None, features: Mapping[str, Mapping[str, Any]] | None
    ) -> dict[str, Any]:
        info: dict[str, Any] = {"codebase_version": "v3.0", "fps": fps_number(self._fps)}
        if features is not None:
            info["features"] = all_features(self._cameras, features)
        return info | {
            "total_episodes": 0,
            "total_frames": 0,
            "total_tasks": 0,
            **FILE_LIMITS,
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if any(c.video for c in self._cameras.values()) else None,
            "robot_type": robot_type,
            "splits": {},
        }


# --- what is there ----------------------------------------------------------------------------------------


def _new_task(tasks: Sequence[str]) -> str:
    """Return a text that is not among the tasks."""
    return "task" + "'" * (1 + max((len(task) for task in tasks), default=0))


def _check_free(root: Path) -> None:
    """Refuse a folder with other files for a new dataset."""
    if root.is_dir():
        other = next((path for path in sorted(root.iterdir()) if not path.name.startswith(".")), None)
        if other is not None:
            raise DestinationError(
                f"{root} is not a LeRobot dataset (it has no meta/info.json) and holds {other.name}; "
                "name another folder, or a dataset"
            )
    elif root.exists():
        raise DestinationError(f"{root} exists and is not a folder; choose another name")


def _checked_info(root: Path) -> dict[str, Any]:
    check_tree(root, advice=COPY)  # new files would be written behind a link
    where = root / INFO
    info = read_info(root)
    version = str(info.get("codebase_version", ""))
    if not version.startswith("v3"):
        raise DestinationError(
            f"{root}: is a LeRobot dataset of layout {version or 'unknown'}, to which episodes "
            "cannot be added; "
            f"{call('merge_datasets', sources=[root], destination='NEW')} converts it to v3.0"
        )
    features_of(info, where)
    for fault in wrong_limits(info):
        raise SourceError(f"{where}: {fault}")
    return info


def _opened(root: Path, info: dict[str, Any]) -> State:
    """Return the state of an existing dataset."""
    listed = _listed(root, info)
    if not info.get("total_episodes") and not listed.episodes:
        return State(info)
    if (listed.episodes, listed.frames) != (info.get("total_episodes"), info.get("total_frames")):
        said = f"{info.get('total_episodes')} episodes and {info.get('total_frames')} frames"
        raise SourceError(
            f"{root}: meta/info.json says {said}, meta/episodes has {listed.episodes} and {listed.frames}; "
            "ffenc verify says what is wrong"
        )
    stats_path = root / STATS
    stats = read_json(stats_path) if stats_path.is_file() else {}
    for key, feature in info["features"].items():
        own = stats.get(key)
        lacks = not isinstance(own, dict) or any(own.get(name) is None for name in STATISTICS)
        if lacks and (is_numeric(feature) or feature["dtype"] in CAMERA_TYPES):
            raise SourceError(
                f"{stats_path}: has no statistics of {key}, so those of all episodes cannot be computed; "
                f"{call('merge_datasets', sources=[root], destination='NEW')} computes them"
            )
    rows = _schema(root / DATA_PATH.format(chunk_index=listed.data[0], file_index=listed.data[1]))
    episodes = _schema(listed.path)
    for name in episodes.names:
        _, _, rest = name.partition("stats/")
        key, _, statistic = rest.rpartition("/")
        if rest and (key not in info["features"] or statistic not in _KNOWN_STATISTICS):
            raise SourceError(
                f"{listed.path}: has a column {name}, which cannot be computed for a new episode; "
                "remove it from all files of the episode list"
            )
    tasks = tuple(task_texts(root / TASKS))
    return State(info, stats, tasks, rows, episodes, listed.last | _on_disk(root, listed.last))


class _Listed(Struct, frozen=True):
    """The contents of the episode list: totals, its last file, the last data file, the highest numbers."""

    episodes: int
    frames: int
    path: Path
    data: NumberedFile
    last: dict[str, NumberedFile]


def _listed(root: Path, info: Mapping[str, Any]) -> _Listed:
    videos = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    kinds = [DATA, EPISODES, *map(videos_of, videos)]
    columns = [f"{kind}/{number}_index" for kind in kinds for number in ("chunk", "file")]
    last = dict.fromkeys(kinds, (0, -1))
    data, path = (0, 0), root
    episodes = frames = 0
    for path in list_files(root):
        try:
            table = read_table(path, ["episode_index", "length", *columns])
            missing = {"episode_index", "length", *columns} - set(table.column_names)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path}: cannot be read: {error}; ffenc verify {root} says more") from None
        if missing:
            raise SourceError(f"{path}: has no column {min(missing)}; ffenc verify {root} says more")
        for name in table.column_names:
            if table[name].null_count or not pa.types.is_integer(table[name].type):
                raise SourceError(
                    f"{path}: has rows without a whole number in {name}; ffenc verify {root} says more"
                )
        if table["episode_index"].to_pylist() != list(range(episodes, episodes + table.num_rows)):
            raise SourceError(f"{path}: its episodes are not numbered from {episodes} on")
        episodes += table.num_rows
        frames += sum(table["length"].to_pylist())
        for kind in kinds:
            chunks, files = (table[f"{kind}/{number}_index"].to_pylist() for number in ("chunk", "file"))
            found = list(zip(chunks, files, strict=True))
            last[kind] = max([last[kind], *found])
            if kind == DATA and found:
                data = found[-1]
    return _Listed(episodes, frames, path, data, last)


def _on_disk(root: Path, last: Mapping[str, NumberedFile]) -> dict[str, NumberedFile]:
    """Return the highest numbers of existing files that are above the listed ones."""
    found = {}
    for kind, listed in last.items():
        folder = root / kind
        names = (path.relative_to(folder).as_posix() for path in folder.glob("chunk-*/file-*"))
        matches = (re.fullmatch(r"chunk-(\d+)/file-(\d+)\.\w+", name) for name in names)
        found[kind] = max([listed, *((int(m[1]), int(m[2])) for m in matches if m)])
    return found


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from None
