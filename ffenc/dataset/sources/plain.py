"""The base of sources without LeRobot metadata, which creates the missing columns and lists."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ffenc.config.framerate import fps_number
from ffenc.dataset.columns import UNDESCRIBED, feature_type, of_type
from ffenc.dataset.model import Camera, Episode, EpisodeRef, EpisodeVideo
from ffenc.dataset.source import Streams
from ffenc.frames.sources import FrameSource
from ffenc.layout import DATA_PATH, DEFAULT_FEATURES, FILE_LIMITS

DEFAULT_TASK = "unspecified"


class PlainSource(ABC):
    """Episodes of rows and frames, with LeRobot's indices and default columns added.

    A subclass provides cameras, lengths of episodes, features and tasks; and for an episode its rows
    (:meth:`columns`), tasks (:meth:`task_numbers`) and a camera's frames (:meth:`frames`).

    Args:
        root: the file or folder.
        fps: frames per second.
        cameras: at least one.
        lengths: number of frames of each episode.
        features: description of each column of :meth:`columns`: ``dtype``, ``shape`` and ``names``.
        tasks: texts, by index.
        robot_type: LeRobot's name for the robot, or None.
    """

    renumbered: frozenset[str] = frozenset()

    @property
    def temporary(self) -> Sequence[Path]:
        """See :class:`~ffenc.dataset.source.DatasetSource`."""
        return ()

    reading: Mapping[str, Any] = {}  # parameters for reading that the files do not contain, as plain values

    def __init__(
        self,
        root: Path,
        *,
        fps: Fraction,
        cameras: Sequence[Camera],
        lengths: Sequence[int],
        features: Mapping[str, Mapping[str, Any]] | None = None,
        tasks: Sequence[str] = (DEFAULT_TASK,),
        robot_type: str | None = None,
    ) -> None:
        self.root, self.roots = root, (root,)
        self.fps = fps
        self.cameras = list(cameras)
        self.episodes = [EpisodeRef(number, length) for number, length in enumerate(lengths)]
        self._features = {key: dict(feature) for key, feature in (features or {}).items()}
        self._tasks = list(tasks)
        self._robot_type = robot_type

    @abstractmethod
    def frames(self, camera: str, episode: EpisodeRef) -> FrameSource:
        """Return the images of one camera in one episode."""

    def video(self, camera: str, episode: EpisodeRef) -> EpisodeVideo:
        """Return the place of an episode of a video camera; sources without video do not have any."""
        raise LookupError(f"{self.root}: {camera} is a camera of images")

    @abstractmethod
    def camera_bytes(self, camera: str, episodes: Sequence[EpisodeRef]) -> int:
        """Return the number of bytes of a camera's images."""

    def columns(self, episode: EpisodeRef) -> Mapping[str, Any]:
        """Return an episode's rows: feature -> Arrow array with one value per row, to be cast to its type."""
        return {}

    def check(self, episodes: Sequence[EpisodeRef]) -> None:  # noqa: B027 - a tree of images has no numbers
        """Check the numbers of some episodes, so that an invalid one is found before encoding.

        Raises:
            SourceError: a number is not finite, or does not fit its feature's dtype; the text names the row.
        """

    def task_numbers(self, episode: EpisodeRef) -> npt.NDArray[np.int64]:
        """Return the task index of each row."""
        return np.zeros(episode.length, np.int64)

    def notes(self, episode: EpisodeRef) -> Mapping[str, Any] | None:
        """Return notes that are stored with the episode; None: no notes."""
        return None

    def extra_files(self) -> list[tuple[Path, str]]:
        return []

    def tasks(self) -> Sequence[str]:
        return self._tasks

    def stats(self) -> dict[str, Any]:
        return {}

    def has_episode_stats(self, feature: str) -> bool:
        return False

    def info(self) -> dict[str, Any]:
        features: dict[str, Any] = {}
        for camera in self.cameras:
            features[camera.key] = {
                "dtype": "image",
                "shape": [camera.stored.height, camera.stored.width, 1 if camera.depth else 3],
                "names": ["height", "width", "channels"],
            }
            if camera.depth:
                features[camera.key]["info"] = {"is_depth_map": True, "depth_unit": camera.unit}
        return {
            "codebase_version": "v3.0",
            "fps": fps_number(self.fps),
            "features": features | self._features | DEFAULT_FEATURES,
            "total_episodes": len(self.episodes),
            "total_frames": sum(episode.length for episode in self.episodes),
            "total_tasks": len(self._tasks),
            **FILE_LIMITS,
            "data_path": DATA_PATH,
            "video_path": None,
            "robot_type": self._robot_type,
            "splits": {"train": f"0:{len(self.episodes)}"},
        }

    def read(self, episodes: Sequence[EpisodeRef]) -> Iterator[Episode]:
        types = {key: feature_type(feature) for key, feature in self._features.items()}
        schema = pa.schema(types, UNDESCRIBED)
        for ref in episodes:
            values = self.columns(ref)
            arrays = [of_type(values[field.name], field.type) for field in schema]
            one = Episode(
                ref.length,
                pa.Table.from_arrays(arrays, schema=schema),
                streams=Streams(self, ref),
                notes=self.notes(ref),
                index=ref.index,
            )
            yield one.with_tasks(self._tasks, self.task_numbers(ref))
