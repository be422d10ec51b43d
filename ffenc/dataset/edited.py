"""A source that is a LeRobot dataset with other names, tasks or columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct, field
from msgspec.structs import asdict, force_setattr, replace

from ffenc.arguments import check_kind, listed
from ffenc.codecs.suggest import accepted
from ffenc.config.preset import camera_key, camera_name
from ffenc.config.texts import check_text
from ffenc.config.transform import Transform
from ffenc.dataset.columns import set_column
from ffenc.dataset.job.tables import sized_feature
from ffenc.dataset.lerobot_v3 import LeRobotV3
from ffenc.dataset.lerobot_v21 import LeRobotV21
from ffenc.dataset.model import Episode, EpisodeRef, EpisodeVideo, with_known
from ffenc.dataset.source import Streams, check_key
from ffenc.dataset.thinned import ThinnedDataset
from ffenc.errors import ConfigError, SourceError
from ffenc.frames.changed_images import ChangedImages, changed_header
from ffenc.frames.sources import FrameSource
from ffenc.layout import CAMERA_TYPES, DEFAULT_FEATURES
from ffenc.spelling import argument

Dataset = LeRobotV3 | LeRobotV21 | ThinnedDataset


class Edits(Struct, frozen=True):
    """Changes of a dataset other than the selection of episodes.

    Attributes:
        rename_cameras: name -> new name, each with or without ``observation.images.``.
        drop_cameras: names of cameras to drop.
        drop_features: names of other features to drop.
        task: text of the task of all episodes.
        task_of: episode index -> text of its task, instead of ``task``.
        replace_tasks: text of a task -> its new text.
        robot_type: the robot's name in ``info.json``.

    Raises:
        ConfigError: a single text in place of a list, or another type than a mapping.
    """

    rename_cameras: Mapping[str, str] = field(default_factory=dict)
    drop_cameras: Sequence[str] = ()
    drop_features: Sequence[str] = ()
    task: str | None = None
    task_of: Mapping[int, str] = field(default_factory=dict)
    replace_tasks: Mapping[str, str] = field(default_factory=dict)
    robot_type: str | None = None

    def __post_init__(self) -> None:
        for name in ("drop_cameras", "drop_features"):
            force_setattr(self, name, listed(name, getattr(self, name)))
        for name in ("rename_cameras", "task_of", "replace_tasks"):
            check_kind(name, getattr(self, name), Mapping, "a mapping", optional=False)

    @property
    def tasks_change(self) -> bool:
        """Whether a row may have another task."""
        return self.task is not None or bool(self.task_of or self.replace_tasks)

    def __bool__(self) -> bool:
        return bool(self.fields())

    def fields(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {}, (), [])}


class EditedDataset:
    """A dataset with edits applied. Its episodes keep their indices.

    Args:
        source: the dataset, which is only read.
        edits: the changes.
        episodes: the episodes to keep, which determine the tasks of the result.

    Raises:
        ConfigError: an unknown name, two features with the same name, or a change without effect.
        SourceError: the tasks cannot be read.
    """

    temporary: Sequence[Path] = ()

    def __init__(self, source: Dataset, edits: Edits, episodes: Sequence[EpisodeRef]) -> None:
        self.source, self.edits = source, edits
        self.root, self.roots, self.fps = source.root, source.roots, source.fps
        self.episodes = source.episodes
        self._kept = list(episodes)
        self._features = dict(source.info()["features"])
        self._keys = [camera.key for camera in source.cameras]
        dropped = {self._camera(name, argument("drop_cameras")) for name in edits.drop_cameras}
        self._dropped = dropped | {self._column(name) for name in edits.drop_features}
        self._new = self._renamed()
        self._old = {new: old for old, new in self._new.items()}
        self.cameras = [
            replace(camera, key=self._new.get(camera.key, camera.key))
            for camera in source.cameras
            if camera.key not in self._dropped
        ]
        self._transforms: dict[str, Transform] = {}
        self._check_values()
        if edits.tasks_change:
            self._check_tasks()

    def change_images(self, transforms: Mapping[str, Transform]) -> None:
        """Transform the images of cameras that stay images.

        Args:
            transforms: name of a camera in the result -> its transform.
        """
        self._transforms = dict(transforms)
        self.cameras = [
            replace(camera, stored=changed_header(camera.header, transforms[camera.key]))
            if camera.key in transforms
            else camera
            for camera in self.cameras
        ]

    # --- names ----------------------------------------------------------------------------------------

    def _camera(self, name: str, what: str) -> str:
        """Return the key of a named camera."""
        found = next((key for key in self._keys if name in (key, camera_name(key))), None)
        if found is None:
            near = accepted(camera_name(name), map(camera_name, self._keys))
            raise ConfigError(f"{what}: there is no camera {name!r}{near}")
        return found

    def _column(self, name: str) -> str:
        """Return the name of a feature that can be dropped."""
        others = [k for k, f in self._features.items() if f["dtype"] not in CAMERA_TYPES]
        if name in DEFAULT_FEATURES:
            raise ConfigError(
                f"{argument('drop_features')}: {name} is LeRobot's own numbering, which every dataset has"
            )
        if name in self._keys or name in map(camera_name, self._keys):
            raise ConfigError(
                f"{argument('drop_features')}: {name} is a camera; leave it out with "
                f"{argument('drop_cameras')}"
            )
        if name not in others:
            free = [key for key in others if key not in DEFAULT_FEATURES]
            raise ConfigError(
                f"{argument('drop_features')}: there is no feature {name!r}{accepted(name, free)}"
            )
        return name

    def _renamed(self) -> dict[str, str]:
        """Return old key -> new key."""
        renamed: dict[str, str] = {}
        for name, new in self.edits.rename_cameras.items():
            if not (isinstance(name, str) and isinstance(new, str)):
                raise ConfigError(
                    f"{argument('rename_cameras')}: {name!r}: {new!r} is not accepted",
                    expected="a camera's name and its new name",
                )
            old = self._camera(name, argument("rename_cameras"))
            key = camera_key(new)
            try:
                check_key(key, Path(argument("rename_cameras")))
            except SourceError as error:
                raise ConfigError(str(error)) from None
            if old in self._dropped:
                raise ConfigError(f"{argument('rename_cameras', {name: new})}: {name} is left out")
            if key == old or old in renamed:
                why = "it has that name already" if key == old else "it is renamed twice"
                raise ConfigError(f"{argument('rename_cameras', {name: new})}: {why}")
            renamed[old] = key
        names = [renamed.get(key, key) for key in self._features if key not in self._dropped]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"{argument('rename_cameras')}: two features would be called {twice}")
        return renamed

    @property
    def kept_cameras(self) -> list[str]:
        """The cameras that are kept, by their names in the source."""
        return [key for key in self._keys if key not in self._dropped]

    def new_name(self, feature: str) -> str:
        """Return the name in the result of a feature of the source."""
        return self._new.get(feature, feature)

    def _old_name(self, feature: str) -> str:
        return self._old.get(feature, feature)

    def _check_values(self) -> None:
        edits = self.edits
        check_text("task", edits.task)
        check_text("robot_type", edits.robot_type)
        for name in ("task_of", "replace_tasks"):
            for text in getattr(edits, name).values():
                check_text(name, text)
        if edits.robot_type is not None and edits.robot_type == self.source.info().get("robot_type"):
            raise ConfigError(
                f"{argument('robot_type', edits.robot_type)}: the dataset has this robot type "
                "already; leave it out"
            )
        kept = {episode.index for episode in self._kept}
        for number in edits.task_of:
            if number not in kept:
                raise ConfigError(f"{argument('task_of')}: episode {number} is not among those that are kept")
        if edits.task is not None and edits.replace_tasks:
            raise ConfigError(
                f"{argument('replace_tasks')} would have no effect: "
                f"{argument('task')} sets the task of all episodes"
            )

    # --- tasks ----------------------------------------------------------------------------------------

    def _text(self, episode: int, before: str) -> str:
        """Return the task of a row, given its old one."""
        if episode in self.edits.task_of:
            return self.edits.task_of[episode]
        return (
            self.edits.task if self.edits.task is not None else self.edits.replace_tasks.get(before, before)
        )

    @cached_property
    def _tasks_of(self) -> dict[int, list[str]]:
        """Return episode index -> its old tasks, in the order of the rows."""
        return {one.index: list(one.tasks) for one in self.source.read(self._kept)}

    @cached_property
    def _texts(self) -> list[str]:
        """Return the tasks of the result that a row has, by index."""
        pairs = ((number, text) for number, texts in self._tasks_of.items() for text in texts)
        return list(dict.fromkeys(self._text(number, text) for number, text in pairs))

    def _check_tasks(self) -> None:
        there = {text for texts in self._tasks_of.values() for text in texts}
        for text, new in self.edits.replace_tasks.items():
            if text not in there:
                raise ConfigError(
                    f"{argument('replace_tasks')}: no episode's task is "
                    f"{text!r}{accepted(text, sorted(there))}"
                )
            if text == new:
                raise ConfigError(f"{argument('replace_tasks')}: {text!r} would be replaced by itself")
        same = all(
            self._text(number, text) == text for number, texts in self._tasks_of.items() for text in texts
        )
        if same:
            raise ConfigError("every episode has this task already; leave it out")

    # --- the source -----------------------------------------------------------------------------------

    @property
    def renumbered(self) -> frozenset[str]:
        return self.source.renumbered | ({"task_index"} if self.edits.tasks_change else set())

    def frames(self, camera: str, episode: EpisodeRef) -> FrameSource:
        old = self._old_name(camera)
        frames = self.source.frames(old, episode)
        if camera not in self._transforms:
            return frames
        before = next(one for one in self.source.cameras if one.key == old)
        return ChangedImages(frames, before.header, before.unit, self._transforms[camera])

    def video(self, camera: str, episode: EpisodeRef) -> EpisodeVideo:
        return replace(self.source.video(self._old_name(camera), episode), camera=camera)

    def camera_bytes(self, camera: str, episodes: Sequence[EpisodeRef]) -> int:
        return self.source.camera_bytes(self._old_name(camera), episodes)

    def _edited(self, by_feature: Mapping[str, Any]) -> dict[str, Any]:
        return {self.new_name(key): value for key, value in by_feature.items() if key not in self._dropped}

    def info(self) -> dict[str, Any]:
        info = self.source.info()
        info["features"] = self._edited(info["features"])
        for camera in self.cameras:
            if camera.key in self._transforms:
                feature = info["features"][camera.key]
                size = camera.header.width, camera.header.height
                info["features"][camera.key] = sized_feature(feature, *size)
        if self.edits.robot_type is not None:
            info["robot_type"] = self.edits.robot_type
        if self.edits.tasks_change:
            info["total_tasks"] = len(self._texts)
        return info

    def stats(self) -> dict[str, Any]:
        found = self._edited(self.source.stats())
        return {key: value for key, value in found.items() if key not in self._transforms}

    def has_episode_stats(self, feature: str) -> bool:
        return feature not in self._transforms and self.source.has_episode_stats(self._old_name(feature))

    def read(self, episodes: Sequence[EpisodeRef]) -> Iterator[Episode]:
        for one in with_known(self.source.read(episodes), self._edited_known):
            dropped = [name for name in one.rows.column_names if name in self._dropped]
            edited = replace(one, rows=one.rows.drop_columns(dropped), streams=Streams(self, one.ref))
            if self.edits.tasks_change:
                texts = [self._text(one.index, text) for text in one.tasks]
                rows = np.zeros(one.length, np.int64) if one.row_tasks is None else one.row_tasks
                edited = edited.with_tasks(texts, rows)
            yield edited

    def _edited_known(self, table: pa.Table) -> pa.Table:
        """Return the known fields of episodes with new names; the writer lists their tasks."""
        names = {name: self._known_column(name) for name in table.column_names}
        table = table.select([name for name, new in names.items() if new is not None])
        table = table.rename_columns([names[name] for name in table.column_names])
        if self.edits.tasks_change and "tasks" in table.column_names:
            table = set_column(table, "tasks", [None] * table.num_rows)
        return table

    def _known_column(self, name: str) -> str | None:
        """Return the new name of a column of the episode list; None: it is dropped."""
        for prefix in ("stats/", "videos/"):
            if name.startswith(prefix):
                key, _, rest = name.removeprefix(prefix).rpartition("/")
                return None if key in self._dropped else f"{prefix}{self.new_name(key)}/{rest}"
        return name

    def extra_files(self) -> list[tuple[Path, str]]:
        return self.source.extra_files()

    def tasks(self) -> Path | Sequence[str]:
        return self._texts if self.edits.tasks_change else self.source.tasks()
