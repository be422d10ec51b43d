"""Contents of a dataset, from its metadata, file sizes, and a camera's first image header."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct, field

from ffenc.config.framerate import parse_fps
from ffenc.dataset.columns import task_texts
from ffenc.dataset.identify import check_dataset, features_of
from ffenc.dataset.remote import source_path
from ffenc.dataset.source import check_key
from ffenc.errors import SourceError
from ffenc.frames.images import read_header
from ffenc.frames.info_json import feature_block, read_info
from ffenc.frames.parquet import RowRange, footer_needed, read_images
from ffenc.layout import (
    CAMERA_TYPES,
    DATA_PATH,
    DATA_PATH_V2,
    DEPTH_FIELDS,
    INFO,
    TASKS,
    TASKS_V2,
    VIDEO_PATH,
    VIDEO_PATH_V2,
    frame_size,
    says_depth,
)
from ffenc.paths import check_template, check_tree, template_pattern
from ffenc.storage.mirror import fetched

# Number of parquet files whose footers are read; the other sizes are extrapolated.
SAMPLED_FILES = 50
_SETTINGS = ("crf", "g", "preset", "fast_decode", "extra_options")


class CameraReport(Struct, frozen=True):
    """A camera of a dataset.

    Attributes:
        key: its feature.
        kind: ``image`` or ``video``.
        depth: whether it is a depth camera.
        width, height: frame size in pixels, if known.
        codec: of the stream (``av1``), or format of the images (``png``).
        pix_fmt: of the stream; None for images.
        bits: bit depth of images; None for video.
        settings: encoder settings that info.json contains: ``crf``, ``g``, ``preset`` ...
        encoder: the encoder, if info.json contains it.
        files: number of files with its frames.
        bytes: size of its frames.
        estimated: the size is extrapolated from some of the files.
        bytes_per_frame, bytes_per_second: None if the number of frames is unknown.
    """

    key: str
    kind: str
    depth: bool
    width: int | None
    height: int | None
    codec: str | None
    pix_fmt: str | None
    bits: int | None
    settings: dict[str, Any]
    encoder: dict[str, Any]
    files: int
    bytes: int
    estimated: bool
    bytes_per_frame: float | None
    bytes_per_second: float | None


class DatasetReport(Struct, frozen=True):
    """The contents of a dataset.

    Attributes:
        root: its folder.
        layout: its ``codebase_version``.
        robot_type: LeRobot's name of the robot.
        fps: frames per second.
        episodes, frames: numbers in info.json; frames of one camera.
        tasks: texts of the tasks.
        cameras: in the order of the features.
        files, bytes: number and size of all files.
    """

    root: Path
    layout: str
    robot_type: str | None
    fps: Fraction
    episodes: int | None
    frames: int | None
    tasks: list[str]
    cameras: list[CameraReport]
    files: int
    bytes: int

    @property
    def seconds(self) -> float | None:
        """Total duration of all episodes in seconds."""
        return None if self.frames is None else float(self.frames / self.fps)


def report_dataset(root: str | Path, *, follow_links: bool = False) -> DatasetReport:
    """Return the contents of a LeRobot dataset of v3.0, v2.1 or v2.0.

    Args:
        root: its folder.
        follow_links: see :func:`~ffenc.paths.check_tree`.

    Raises:
        SourceError: not a dataset, or its metadata cannot be read.
    """
    folder = source_path(root, "summary", "root")
    where = folder / INFO
    check_dataset(folder)
    check_tree(folder, follow_links=follow_links)
    info = read_info(folder)
    layout = str(info.get("codebase_version") or "unknown")
    if not layout.startswith(("v2", "v3")):
        raise SourceError(f"{folder}: is a LeRobot dataset of layout {layout}; v3.0, v2.1 and v2.0 are read")
    features = features_of(info, where)
    old = layout.startswith("v2")
    data_path, video_path = (
        check_template(info.get(name) or usual, f"{where}: {name}")
        for name, usual in (
            ("data_path", DATA_PATH_V2 if old else DATA_PATH),
            ("video_path", VIDEO_PATH_V2 if old else VIDEO_PATH),
        )
    )
    fps = parse_fps(info["fps"])
    totals = [_total(info, key, where) for key in ("total_episodes", "total_frames")]
    cameras = {check_key(k, where): f for k, f in features.items() if f["dtype"] in CAMERA_TYPES}
    files = _Files(folder, data_path, video_path, list(cameras))
    images = [key for key in cameras if cameras[key]["dtype"] == "image"]
    sizes = _image_bytes(files.data, images) if images else {}
    frames = totals[1]
    reports = []
    for key, feature in cameras.items():
        own = feature_block(feature)
        image = key in images
        held = sizes[key] if image else sum(size for _, size in files.videos[key])
        reports.append(
            CameraReport(
                key=key,
                kind=feature["dtype"],
                **(_image_fields(key, own, files.data) if image else _video_fields(feature, own)),
                settings={n: own[f"video.{n}"] for n in (*_SETTINGS, *DEPTH_FIELDS) if f"video.{n}" in own},
                encoder=own["video.encoder"] if isinstance(own.get("video.encoder"), dict) else {},
                files=len(files.data if image else files.videos[key]),
                bytes=held,
                estimated=image and len(files.data) > SAMPLED_FILES,
                bytes_per_frame=held / frames if frames else None,
                bytes_per_second=float(held / frames * fps) if frames else None,
            )
        )
    robot = info.get("robot_type")
    return DatasetReport(
        root=folder,
        layout=layout,
        robot_type=None if robot is None else str(robot),
        fps=fps,
        episodes=totals[0],
        frames=frames,
        tasks=_tasks(folder, old),
        cameras=reports,
        files=files.count,
        bytes=files.bytes,
    )


def _total(info: Mapping[str, Any], key: str, where: Path) -> int | None:
    value = info.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise SourceError(f"{where}: {key} is {value!r}", expected="a whole number")
    return value


class _Files(Struct):
    """The files of a dataset with their sizes, from one walk.

    Attributes:
        root: the dataset.
        data_path, video_path: templates of info.json.
        cameras: keys of the cameras.
        data: the data files.
        videos: camera -> its video files.
        count, bytes: number and size of all files.
    """

    root: Path
    data_path: str
    video_path: str
    cameras: list[str]
    data: list[tuple[Path, int]] = field(default_factory=list)
    videos: dict[str, list[tuple[Path, int]]] = field(default_factory=dict)
    count: int = 0
    bytes: int = 0

    def __post_init__(self) -> None:
        self.videos = {key: [] for key in self.cameras}
        data, video = template_pattern(self.data_path), template_pattern(self.video_path)
        for place, size in _walk(str(self.root), ""):
            self.count += 1
            self.bytes += size
            if data.fullmatch(place):
                self.data.append((self.root / place, size))
                continue
            match = video.fullmatch(place)
            if match and match.groupdict().get("video_key") in self.videos:
                self.videos[match["video_key"]].append((self.root / place, size))
        self.data.sort()


def _walk(folder: str, place: str) -> Iterator[tuple[str, int]]:
    """Yield every file that is not hidden: its path relative to the root, and its size."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk(entry.path, f"{place}{entry.name}/")
                elif entry.is_file():
                    yield f"{place}{entry.name}", entry.stat().st_size
    except OSError as error:
        raise SourceError(f"{folder}: cannot be read: {error.strerror}") from None


def _image_bytes(files: list[tuple[Path, int]], cameras: list[str]) -> dict[str, int]:
    """Return the total size of each image column, from the files' footers."""
    step = max(1, -(-len(files) // SAMPLED_FILES))
    sample = files[::step]
    found = dict.fromkeys(cameras, 0)
    for path, _ in sample:
        try:
            fetched(path, footer_needed, name="footer")
            metadata = pq.read_metadata(path)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path}: cannot be read: {error}") from None
        names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        columns = {key: names.index(f"{key}.bytes") for key in cameras if f"{key}.bytes" in names}
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for key, column in columns.items():
                found[key] += group.column(column).total_compressed_size
    looked_at = sum(size for _, size in sample)
    whole = sum(size for _, size in files)
    return {key: size * whole // max(1, looked_at) for key, size in found.items()}


def _image_fields(key: str, info: Mapping[str, Any], data: list[tuple[Path, int]]) -> dict[str, Any]:
    """Return the fields of the header of a camera's first image."""
    depth = says_depth(info)
    if not data:
        return _fields(depth, None, None)
    path = data[0][0]
    header = read_header(next(read_images(RowRange(path, 0, 1), key)), f"{path}: row 0, column {key}")
    return _fields(depth or header.depth, header.width, header.height, header.format, bits=header.bits)


def _video_fields(feature: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    width, height = frame_size(feature) or (None, None)
    return _fields(
        says_depth(info),
        info.get("video.width", width),
        info.get("video.height", height),
        info.get("video.codec"),
        info.get("video.pix_fmt"),
    )


def _fields(
    depth: bool,
    width: int | None,
    height: int | None,
    codec: str | None = None,
    pix_fmt: str | None = None,
    bits: int | None = None,
) -> dict[str, Any]:
    return {
        "depth": depth,
        "width": width,
        "height": height,
        "codec": codec,
        "pix_fmt": pix_fmt,
        "bits": bits,
    }


def _tasks(root: Path, old: bool) -> list[str]:
    if old:
        from ffenc.dataset.lerobot_v21 import read_lines  # noqa: PLC0415 - slow to load

        return [str(line.content.get("task")) for line in read_lines(root / TASKS_V2)]
    return task_texts(root / TASKS)
