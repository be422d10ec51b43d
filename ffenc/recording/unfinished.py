"""An episode on disk during its recording: at any moment, its files suffice to restore it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

from msgspec import Struct
from msgspec.structs import asdict

from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.framerate import parse_fps
from ffenc.config.preset import camera_key, camera_name
from ffenc.config.transform import Transform
from ffenc.dataset.commit import COMMIT, DELETED, RECORDINGS, recording_folders
from ffenc.dataset.episode_columns import check_features
from ffenc.dataset.fitting import GrowingCamera
from ffenc.dataset.staging import write_json
from ffenc.errors import DestinationError, FfencError, SourceError
from ffenc.frames.depth import Unit
from ffenc.frames.info_json import read_json
from ffenc.frames.publish import sync_folder
from ffenc.locks import is_at, locked_at
from ffenc.paths import plain_name, plain_tree
from ffenc.recording.rows import Features

_SETTINGS = "episode.json"
_NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
_MOST_PIXELS = 1 << 15  # in a row or column: above the limits of all encoders

# How a camera's frames are stored: encoded as they arrive, as images that are encoded after the episode, or
# as images that stay images.
Way = Literal["live", "after", "images"]


class RecordedCamera(Struct, frozen=True):
    """A camera of a recording.

    Attributes:
        key: its feature.
        width, height: frame size in pixels.
        unit: unit of depth; None for colours.
        way: how its frames are stored.
        config: the encoder settings, with ``auto`` resolved.
        block: the fields of its ``info`` block that are not read from the file.
        codec, pix_fmt: of the stream.
        transform: changes of its frames before encoding.
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
    transform: Transform | None = None

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height of its frames in the dataset, in pixels."""
        size = self.width, self.height
        return size if self.transform is None else self.transform.size(*size)

    @property
    def depth(self) -> bool:
        """Whether it is a depth camera."""
        return self.unit is not None

    def growing(self) -> GrowingCamera:
        """The camera as part of the dataset."""
        kept = self.way == "images"
        width, height = self.stored_size
        return GrowingCamera(
            key=self.key,
            width=width,
            height=height,
            unit=self.unit,
            block=None if kept else self.block,
            codec=None if kept else self.codec,
            pix_fmt=None if kept else self.pix_fmt,
        )


class Settings(Struct, frozen=True):
    """The settings of a recorded episode.

    Attributes:
        task: its text.
        fps: frames per second.
        robot_type: LeRobot's name of the robot.
        features: features of the rows; None until the first row of a new dataset.
        cameras: all cameras.
    """

    task: str
    fps: Fraction
    robot_type: str | None
    features: Features | None
    cameras: Sequence[RecordedCamera]


class UnfinishedEpisode:
    """The folder of an episode until it is in the dataset.

    Args:
        path: the folder.
        settings: the settings of the episode.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path, self.settings = path, settings
        self.described = path / _SETTINGS
        self.rows = path / "rows.jsonl"
        self.finished = path / "finished"

    @classmethod
    def create(cls, root: Path, settings: Settings) -> UnfinishedEpisode:
        """Create the folder.

        Raises:
            DestinationError: it cannot be created.
        """
        # With microseconds, so that the order of the names is that of the starts.
        name = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
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
        """Open the folder of an interrupted episode, which may belong to an untrusted dataset.

        Raises:
            SourceError: its settings cannot be read or are not ffenc's, or it contains a link or anything
                else but files and folders.
        """
        where = path / _SETTINGS
        try:
            plain_tree(path)
            content = read_json(where)
            cameras = [_camera(values, str(where)) for values in content["cameras"]]
            if not cameras or len({camera.key for camera in cameras}) < len(cameras):
                raise ValueError("it has no cameras, or two with the same name")
            features = content["features"]
            if features is not None:
                check_features(features, {camera.key: camera for camera in cameras})
            fps = parse_fps(content["fps"])
            settings = Settings(str(content["task"]), fps, content["robot_type"], features, cameras)
        except SourceError:
            raise
        except (OSError, ArithmeticError, ValueError, LookupError, TypeError, FfencError) as error:
            raise SourceError(f"{where}: cannot be read: {error}") from None
        return cls(path, settings)

    def write_settings(self, settings: Settings, *, flush: bool = True) -> None:
        """Write the settings; after an interruption the file is complete, old or new.

        Args:
            settings: the settings.
            flush: wait for the disk; False: a :class:`~ffenc.recording.flush.Flusher` does so soon.
        """
        cameras = [
            {
                **asdict(camera),
                "config": camera.config.as_plain(),
                "transform": camera.transform.fields() if camera.transform is not None else None,
            }
            for camera in settings.cameras
        ]
        write_json(
            self.described,
            {
                "task": settings.task,
                "fps": str(settings.fps),
                "robot_type": settings.robot_type,
                "features": settings.features,
                "cameras": cameras,
            },
            flush=flush,
        )
        self.settings = settings

    def video(self, camera: RecordedCamera) -> Path:
        """Return the file that grows during the recording."""
        return self.path / f"{camera.key}.mp4"

    def samples(self, camera: RecordedCamera) -> Path:
        """Return the file of the samples for statistics, which are taken during the recording."""
        return self.path / f"{camera.key}.samples"

    def images(self, camera: RecordedCamera) -> Path:
        """Return the folder of a camera whose frames are first stored as images."""
        return self.path / camera.key

    def image_name(self, camera: RecordedCamera) -> str:
        """Return the pattern of the images' names."""
        return "frame-%06d.tiff" if camera.unit == "m" else "frame-%06d.png"

    def images_from(self, camera: RecordedCamera, number: int) -> Iterator[Path]:
        """Yield the existing images from a number on, up to the first missing one."""
        folder, name = self.images(camera), self.image_name(camera)
        while (path := folder / (name % number)).is_file():
            yield path
            number += 1

    def result(self, camera: RecordedCamera) -> Path:
        """Return the file for the dataset."""
        return self.finished / f"{camera.key}.mp4"


def _camera(values: Mapping[str, Any], where: str) -> RecordedCamera:
    """Read a camera of an episode's settings; its key is used as a file name.

    Raises:
        ValueError, TypeError, LookupError, FfencError: the values are not valid.
    """
    model = VideoEncoderConfig if values["unit"] is None else DepthEncoderConfig
    changes = values.get("transform")
    transform = None if changes is None else Transform(**changes)
    given = {**values, "config": model.in_force(values["config"]), "transform": transform}
    camera = RecordedCamera(**given)
    plain_name(camera.key, f"{where}: key")
    if camera.key != camera_key(camera_name(camera.key)) or not camera_name(camera.key):
        raise ValueError(f"{camera.key!r} is not the key of a camera; expected {camera_key('NAME')}")
    if camera.way not in get_args(Way) or camera.unit not in (None, *get_args(Unit)):
        raise ValueError(f"{camera.key}: way {camera.way!r} and unit {camera.unit!r} are not known")
    if not all(isinstance(n, int) and 0 < n <= _MOST_PIXELS for n in (camera.width, camera.height)):
        raise ValueError(f"{camera.key}: {camera.width!r}x{camera.height!r} is not the size of a camera")
    if not isinstance(camera.block, Mapping):
        raise ValueError(f"{camera.key}: its block is not an object")
    return camera


def interrupted_episodes(root: Path) -> list[Path]:
    """Return the folders of interrupted episodes, in the order in which they were started.

    Episodes that only wait for their last moves are not included: they are complete.

    Raises:
        SourceError: as for :func:`~ffenc.dataset.commit.recording_folders`.
    """
    return [
        path
        for path in recording_folders(root)
        if _NAME.fullmatch(path.name) and not os.path.lexists(path / COMMIT)
    ]


def delete_episode(folder: Path) -> None:
    """Delete an episode's folder, renamed first, so that an interruption leaves no half-deleted episode.

    Raises:
        OSError: it cannot be renamed; nothing is deleted.
    """
    gone = folder.with_name(folder.name + DELETED)
    folder.replace(gone)
    shutil.rmtree(gone, ignore_errors=True)  # the next run deletes the rest


def _sweep(folder: Path) -> None:
    """Delete the rests of interrupted deletions and starts."""
    for path in folder.glob(f"*-*-*{DELETED}"):
        if _NAME.fullmatch(path.name.removesuffix(DELETED)):
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.iterdir():
        if _NAME.fullmatch(path.name) and all(
            one.is_dir() or one.name.startswith(".") for one in path.rglob("*")
        ):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def recording_lock(root: Path) -> Iterator[Callable[[], None]]:
    """Lock a dataset for this run, until the block ends or the program does.

    Yields a function that raises :class:`DestinationError` if the lock file, and the dataset with it, has
    been deleted or moved.

    Raises:
        DestinationError: another run is recording to it, or the folder cannot be created.
    """
    folder = root / RECORDINGS
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        recording_folders(root)
        # Do not follow a link, which would create a file elsewhere, and do not block on a pipe.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        file = os.fdopen(os.open(folder / "lock", flags, 0o644), "a", encoding="utf-8")
    except OSError as error:
        raise DestinationError(f"{folder}: cannot be created: {error.strerror}") from None
    with file:
        try:
            alone = locked_at(file, folder / "lock")
        except DestinationError:
            _tidy(folder, made)
            raise
        if not alone:
            raise DestinationError(f"{root} is being recorded by another run of ffenc; wait until it ends")

        def check() -> None:
            if not is_at(file.fileno(), folder / "lock"):
                raise DestinationError(
                    f"{folder / 'lock'}: was deleted or moved while {root} was being recorded, "
                    "perhaps with the dataset; put it back, or start again"
                )

        owner = os.getpid()
        try:
            _sweep(folder)
            yield check
        finally:
            if os.getpid() == owner:  # a forked process also reaches the end of the block
                _tidy(folder, made)


def _tidy(folder: Path, made: Sequence[Path]) -> None:
    """Delete empty folders: that of a run without episodes, and a dataset without any."""
    try:
        if {path.name for path in folder.iterdir()} > {"lock"}:
            return
    except OSError:  # another process has deleted it
        return
    (folder / "lock").unlink(missing_ok=True)
    for empty in dict.fromkeys((folder, *made)):
        try:
            empty.rmdir()
        except OSError:
            return
