"""An episode that is being recorded, on disk: what is there at any moment is enough to bring it back."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.dataset.commit import COMMIT, RECORDINGS
from ffenc.dataset.fitting import GrowingCamera
from ffenc.dataset.staging import write_json
from ffenc.errors import DestinationError, SourceError
from ffenc.frames.depth import Unit
from ffenc.frames.publish import is_at, locked, sync_folder
from ffenc.recording.rows import Features

_SETTINGS = "episode.json"
_NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
_DELETED = ".deleted"

# How a camera's frames reach the dataset: encoded as they come, as images that are encoded after the episode,
# or as images that stay images.
Way = Literal["live", "after", "images"]


@dataclass(frozen=True)
class RecordedCamera:
    """One camera of a recording.

    Attributes:
        key: its feature.
        width, height: pixels.
        unit: what depth is in; None for colours.
        way: how its frames reach the dataset.
        config: the encoder settings, ``auto`` resolved.
        block: the fields of its ``info`` block that are not read from the file.
        codec, pix_fmt: of the stream.
    """

    key: str
    width: int
    height: int
    unit: Unit | None
    way: Way
    config: VideoEncoderConfig
    block: Mapping[str, Any]
    codec: str
    pix_fmt: str

    @property
    def depth(self) -> bool:
        """Whether it holds depth."""
        return self.unit is not None

    def growing(self) -> GrowingCamera:
        """What it is in the dataset."""
        kept = self.way == "images"
        return GrowingCamera(
            key=self.key,
            width=self.width,
            height=self.height,
            unit=self.unit,
            block=None if kept else self.block,
            codec=None if kept else self.codec,
            pix_fmt=None if kept else self.pix_fmt,
        )


@dataclass(frozen=True)
class Settings:
    """What an episode is recorded with.

    Attributes:
        task: its text.
        fps: frames a second.
        robot_type: LeRobot's name of the robot.
        features: of the rows; None until the first row of a new dataset.
        cameras: all of them.
    """

    task: str
    fps: Fraction
    robot_type: str | None
    features: Features | None
    cameras: Sequence[RecordedCamera]


class UnfinishedEpisode:
    """The folder of one episode until it is in the dataset.

    Args:
        path: the folder.
        settings: what it is recorded with.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path, self.settings = path, settings
        self.rows = path / "rows.jsonl"
        self.finished = path / "finished"

    @classmethod
    def create(cls, root: Path, settings: Settings) -> UnfinishedEpisode:
        """Make the folder.

        Raises:
            DestinationError: it cannot be made.
        """
        name = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6]
        episode = cls(root / RECORDINGS / name, settings)
        try:
            episode.finished.mkdir(parents=True)
            for camera in settings.cameras:
                if camera.way != "live":
                    episode.images(camera).mkdir()
            episode.write_settings(settings)
            sync_folder(episode.path)
            sync_folder(episode.path.parent)
        except OSError as error:
            raise DestinationError(f"{episode.path}: cannot be written: {error.strerror}") from None
        return episode

    @classmethod
    def open(cls, path: Path) -> UnfinishedEpisode:
        """Read the folder of an episode that was interrupted.

        Raises:
            SourceError: its settings cannot be read.
        """
        where = path / _SETTINGS
        try:
            content = json.loads(where.read_text(encoding="utf-8"))
            cameras = []
            for values in content["cameras"]:
                model = VideoEncoderConfig if values["unit"] is None else DepthEncoderConfig
                cameras.append(RecordedCamera(**{**values, "config": model(**values["config"])}))
            settings = Settings(
                str(content["task"]),
                Fraction(content["fps"]),
                content["robot_type"],
                content["features"],
                cameras,
            )
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise SourceError(f"{where}: cannot be read: {error}") from None
        return cls(path, settings)

    def write_settings(self, settings: Settings) -> None:
        """Keep the settings, whole or as they were."""
        cameras = [
            {**asdict(camera), "config": camera.config.model_dump(mode="json")} for camera in settings.cameras
        ]
        write_json(
            self.path / _SETTINGS,
            {
                "task": settings.task,
                "fps": str(settings.fps),
                "robot_type": settings.robot_type,
                "features": settings.features,
                "cameras": cameras,
            },
        )
        self.settings = settings

    def video(self, camera: RecordedCamera) -> Path:
        """The file that grows while the camera is recorded."""
        return self.path / f"{camera.key}.mp4"

    def images(self, camera: RecordedCamera) -> Path:
        """The folder of a camera whose frames are images first."""
        return self.path / camera.key

    def image_name(self, camera: RecordedCamera) -> str:
        """The pattern of their names."""
        return "frame-%06d.tiff" if camera.unit == "m" else "frame-%06d.png"

    def images_from(self, camera: RecordedCamera, number: int) -> Iterator[Path]:
        """The images that are there, from a number on, up to the first that is not."""
        folder, name = self.images(camera), self.image_name(camera)
        while (path := folder / (name % number)).is_file():
            yield path
            number += 1

    def result(self, camera: RecordedCamera) -> Path:
        """The file that goes into the dataset."""
        return self.finished / f"{camera.key}.mp4"


def interrupted_episodes(root: Path) -> list[Path]:
    """Return the folders of episodes that were interrupted, in the order they were begun.

    Those that only wait for their last moves are not among them: they are safe.
    """
    return sorted(
        path
        for path in (root / RECORDINGS).glob("*-*-*")
        if _NAME.fullmatch(path.name)
        and path.is_dir()
        and not path.is_symlink()
        and not (path / COMMIT).is_file()
    )


def delete_episode(folder: Path) -> None:
    """Delete an episode's folder: all of it is gone at once, whatever interrupts it.

    Raises:
        OSError: it cannot be renamed; nothing is deleted.
    """
    gone = folder.with_name(folder.name + _DELETED)
    folder.replace(gone)
    shutil.rmtree(gone, ignore_errors=True)  # the next run deletes what is left


def _sweep(folder: Path) -> None:
    """Delete what is no episode any more, or not yet: an interruption has left it."""
    for path in folder.glob(f"*-*-*{_DELETED}"):
        if _NAME.fullmatch(path.name.removesuffix(_DELETED)):
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.iterdir():
        if _NAME.fullmatch(path.name) and all(
            one.is_dir() or one.name.startswith(".") for one in path.rglob("*")
        ):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def recording_lock(root: Path) -> Iterator[None]:
    """Keep a dataset for this run, until the block ends or the program does.

    Raises:
        DestinationError: another run records into it, or the folder cannot be made.
    """
    folder = root / RECORDINGS
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("a", encoding="utf-8")
    except OSError as error:
        raise DestinationError(f"{folder}: cannot be created: {error.strerror}") from None
    with file:
        # The other run may have deleted the file since it was opened: then this lock is on nothing.
        if not (locked(file) and is_at(file, folder / "lock")):
            raise DestinationError(f"{root} is being recorded by another run of ffenc; wait for it")
        try:
            _sweep(folder)
            yield
        finally:
            _tidy(folder, made)


def _tidy(folder: Path, made: Sequence[Path]) -> None:
    """Delete what holds nothing: the folder of a run that left no episode, and a dataset without any."""
    if {path.name for path in folder.iterdir()} > {"lock"}:
        return
    (folder / "lock").unlink(missing_ok=True)
    for empty in dict.fromkeys((folder, *made)):
        try:
            empty.rmdir()
        except OSError:
            return
