"""Read a tree of PNG or JPEG frames as a dataset without a robot's rows."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from ffenc.config.preset import camera_key, chosen_cameras
from ffenc.dataset.model import Camera, EpisodeRef
from ffenc.dataset.source import check_key
from ffenc.dataset.sources.kind import Opening, SourceKind
from ffenc.dataset.sources.plain import DEFAULT_TASK, PlainSource
from ffenc.errors import FfencWarning, SourceError
from ffenc.frames.sources import IMAGE_SUFFIXES, OTHER_SUFFIXES, ImageFiles, image_files
from ffenc.paths import check_tree

if TYPE_CHECKING:
    from ffenc.dataset.lerobot import Choice

LAYOUTS = (
    "episode_*/CAMERA/*.png, images/CAMERA/episode_*/frame_*.png (LeRobot's), "
    "or a folder of numbered frames as one episode"
)


class PngTree(PlainSource):
    """Frames in folders, with LeRobot's default columns added.

    Args:
        root: the tree; see :data:`LAYOUTS`.
        fps: frames per second.
        task: text of the only task.
        robot_type: LeRobot's name for the robot, or None.
        cameras: keys to read, with or without ``observation.images.``; None: all.
        start_number: number of each folder's first frame; by default 0 or 1.
        choose: returns the episodes that will be read, given all; faults of others do not matter. None: all.

    Raises:
        SourceError: no frames, a gap, a frame that is truncated or unlike the others, or cameras of
            different lengths.
    """

    def __init__(
        self,
        root: Path,
        *,
        fps: Fraction,
        task: str,
        robot_type: str | None = None,
        cameras: Sequence[str] | None = None,
        start_number: int | None = None,
        choose: Choice | None = None,
    ) -> None:
        folders = find_folders(root)
        keys = {key: None for episode in folders for key in episode}
        if cameras is not None:
            keys = dict.fromkeys(chosen_cameras(list(keys), cameras))
        self._images: list[dict[str, ImageFiles]] = []
        faults: dict[int, SourceError] = {}
        for number, episode in enumerate(folders):
            try:
                self._images.append(self._listed(root, number, episode, keys, start_number))
            except SourceError as error:
                self._images.append({})
                faults[number] = error
        lengths = [len(next(iter(images.values()), ())) for images in self._images]
        every = [EpisodeRef(number, length) for number, length in enumerate(lengths)]
        self._read = [episode.index for episode in (every if choose is None else choose(every))]
        for number in self._read:
            if number in faults:
                raise faults[number]
        cameras_found = [self._camera(key) for key in keys]
        self._tell_what_is_left(root, cameras_found, folders)
        super().__init__(
            root, fps=fps, cameras=cameras_found, lengths=lengths, tasks=[task], robot_type=robot_type
        )

    @staticmethod
    def _listed(
        root: Path, number: int, episode: Mapping[str, Path], keys: Collection[str], start_number: int | None
    ) -> dict[str, ImageFiles]:
        """Return the frames of each camera in an episode, equally many."""
        missing = sorted(set(keys) - set(episode))
        if missing:
            raise SourceError(
                f"{root}: episode {number} has no frames of {missing[0]}, which other episodes have"
            )
        images = {key: image_files(episode[key], start_number=start_number) for key in keys}
        lengths = {key: len(files) for key, files in images.items()}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{key} {count}" for key, count in lengths.items())
            raise SourceError(
                f"{root}: the cameras of episode {number} have different numbers of frames ({counts})"
            )
        return images

    @staticmethod
    def _tell_what_is_left(
        root: Path, cameras: Sequence[Camera], folders: Sequence[Mapping[str, Path]]
    ) -> None:
        """Warn of files that are not copied to the dataset."""
        beside = {camera.parent for episode in folders for camera in episode.values()}
        files = [f for folder in sorted(beside) for f in folder.iterdir() if f.is_file() and f.name[0] != "."]
        if files and folders[0] != {cameras[0].key: root}:
            more = f" and {len(files) - 1} more files" if len(files) > 1 else ""
            warnings.warn(
                f"{files[0]}{more}: not frames, and not included in the result", FfencWarning, stacklevel=3
            )

    def _camera(self, key: str) -> Camera:
        header = ImageFiles(
            [path for number in self._read for path in self._images[number][key].paths]
        ).check()
        if not header.depth:
            return Camera(key, False, header)
        return Camera(key, True, header, header.unit)

    def frames(self, camera: str, episode: EpisodeRef) -> ImageFiles:
        return self._images[episode.index][camera]

    def camera_bytes(self, camera: str, episodes: Sequence[EpisodeRef]) -> int:
        return sum(p.stat().st_size for e in episodes for p in self._images[e.index][camera].paths)


def find_folders(root: Path) -> list[dict[str, Path]]:
    """Return, for each episode in order, the folder of each camera's frames.

    Raises:
        SourceError: the layout of the tree is unknown, or its episode numbers have a gap.
    """
    by_camera = root / "images" if (root / "images").is_dir() else root
    episodes = _episode_folders(root)
    if episodes:
        found = [_cameras_of(episode) for episode in episodes]
    else:
        cameras = {folder.name: _episode_folders(folder) for folder in _subfolders(by_camera)}
        cameras = {name: folders for name, folders in cameras.items() if folders}
        if cameras:
            names = sorted({folder.name for folders in cameras.values() for folder in folders}, key=_number)
            found = [
                {
                    check_key(camera_key(c), root): f
                    for c, folders in cameras.items()
                    for f in folders
                    if f.name == name
                }
                for name in names
            ]
        elif _has_images(root):
            return [{camera_key(re.sub(r"\W+", "_", root.resolve().name) or "camera"): root}]
        else:
            raise SourceError(f"{root}: holds neither a LeRobot dataset nor frames", expected=f"{LAYOUTS}")
    for number, cameras_found in enumerate(found):
        if not cameras_found:
            raise SourceError(f"{root}: episode {number} holds no camera folders with PNG or JPEG frames")
    return found


def _cameras_of(episode: Path) -> dict[str, Path]:
    cameras: dict[str, Path] = {}
    for folder in filter(_has_images, _subfolders(episode)):
        key = check_key(camera_key(folder.name), episode)
        if key in cameras:
            raise SourceError(
                f"{episode}: {cameras[key].name} and {folder.name} are the same camera; keep one"
            )
        cameras[key] = folder
    return cameras


def _episode_folders(root: Path) -> list[Path]:
    folders = sorted(f for f in root.iterdir() if re.fullmatch(r"episode[_-]?\d+", f.name))
    for folder in folders:
        if not folder.is_dir():
            raise SourceError(f"{folder}: is not a folder that can be read (a broken link?)")
    folders.sort(key=lambda folder: _number(folder.name))
    numbers = [_number(folder.name) for folder in folders]
    if (numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers)))) or (
        numbers and numbers[0] > 1
    ):
        present = ", ".join(folder.name for folder in folders[:4])
        raise SourceError(
            f"{root}: episodes are missing or duplicated; there are {present} ... Renumber them from 0"
        )
    return folders


def _number(name: str) -> int:
    return int(re.sub(r"\D", "", name))


def _subfolders(root: Path) -> list[Path]:
    return sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))


def _has_images(folder: Path) -> bool:
    return any(f.suffix.lower() in (*IMAGE_SUFFIXES, *OTHER_SUFFIXES) for f in folder.iterdir())


def _open(folder: Path, opening: Opening) -> PngTree:
    check_tree(folder, follow_links=opening.follow_links)
    return PngTree(
        folder,
        fps=opening.rate(folder, KIND.what),
        task=DEFAULT_TASK if opening.task is None else opening.task,
        robot_type=opening.robot_type,
        cameras=opening.cameras,
        start_number=opening.start_number,
        choose=opening.choose,
    )


KIND = SourceKind(
    "a tree of images",
    "image trees",
    recognises=lambda path: path.is_dir(),
    open=_open,
    takes=frozenset(["task", "start_number"]),
)
