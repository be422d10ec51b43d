"""Read a dataset's metadata for a verification: faults are collected, and reading continues."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Struct, field

from ffenc.config.framerate import parse_fps
from ffenc.dataset.columns import arrow_type, flat, is_numeric
from ffenc.dataset.identify import features_of, wrong_limits
from ffenc.dataset.lerobot_v21 import LeRobotV21
from ffenc.dataset.source import check_key
from ffenc.dataset.verify.faults import Faults
from ffenc.errors import ConfigError, FfencError, SourceError
from ffenc.frames.info_json import feature_block, read_info
from ffenc.layout import (
    CAMERA_TYPES,
    DATA_PATH,
    EPISODES,
    EPISODES_V2,
    INFO,
    OWN_INFO,
    TEXT_TYPES,
    VIDEO_PATH,
)
from ffenc.paths import check_template, template_fields

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


_FIXED_LIST = pa.list_(pa.null(), 1).id
_LISTS = frozenset((pa.list_(pa.null()).id, pa.large_list(pa.null()).id, _FIXED_LIST))


class Layout(Struct, frozen=True):
    """Contents of ``info.json``.

    Attributes:
        root: folder of the dataset.
        version: its ``codebase_version``.
        info, features: of ``info.json``.
        fps: frames per second.
        images, videos: keys of the cameras.
        numeric: features with numbers, which have statistics.
        data_path, video_path: templates of paths.
    """

    root: Path
    version: str
    info: dict[str, Any]
    features: dict[str, Any]
    fps: Fraction
    images: list[str]
    videos: list[str]
    numeric: list[str]
    data_path: str
    video_path: str

    @property
    def old(self) -> bool:
        """Whether it is v2.1 or v2.0: one file per episode, lists in JSON lines."""
        return self.version.startswith("v2")

    @property
    def list_place(self) -> str:
        """Path of the episode list."""
        return EPISODES_V2 if self.old else EPISODES

    def block(self, key: str) -> dict[str, Any]:
        """Return a feature's ``info`` block, which older versions call ``video_info``."""
        return feature_block(self.features[key])


class VideoPlaces(Struct):
    """The places of a camera's episodes: a file for each, with start and end in seconds."""

    files: list[str]
    start: Floats
    end: Floats


class Listing(Struct):
    """The episode list, in its order.

    Attributes:
        index, length: index and number of rows of each episode.
        first: index of each episode's first row in the dataset.
        data: data file of each episode; empty if unknown.
        videos: camera -> places, for each camera with these columns.
        tasks: task index -> text.
        episode_tasks: listed tasks of each episode; None: not listed.
        stats: feature -> statistic -> shape (episodes, D), for features for which all episodes have it.
        own: files of the list itself.
    """

    index: Integers
    length: Integers
    first: Integers
    data: list[str]
    videos: dict[str, VideoPlaces] = field(default_factory=dict)
    tasks: dict[int, str] = field(default_factory=dict)
    episode_tasks: list[list[str] | None] = field(default_factory=list)
    stats: dict[str, dict[str, Floats]] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def frames(self) -> int:
        """Number of rows of all episodes."""
        return int(self.length.sum())


def read_layout(root: Path, faults: Faults) -> Layout | None:
    """Read ``info.json``.

    Returns:
        The contents; None if the file cannot be read, so that nothing else can be verified.
    """
    place = INFO
    try:
        info = read_info(root)
        version = str(info.get("codebase_version") or "unknown")
        if not re.fullmatch(r"v(2\.[01]|3)(\.\d+)*", version):
            raise SourceError(f"layout {version} is not known; v3.0, v2.1 and v2.0 are")
        features = features_of(info, root / place)
        for key, feature in features.items():
            if feature["dtype"] in CAMERA_TYPES:
                check_key(key, root / place)
    except SourceError as error:
        file = OWN_INFO if error.where == str(root / OWN_INFO) else place
        faults.add("info", error.problem, file=file)
        return None
    old = version.startswith("v2")
    kinds = {key: feature["dtype"] for key, feature in features.items()}
    for fault in wrong_limits(info):
        faults.add("info", fault, file=place)
    for key, kind in kinds.items():
        shape = features[key].get("shape")
        if kind in CAMERA_TYPES and not (isinstance(shape, list) and len(shape) == 3):
            what = f"shape {shape!r} of {key} is not height, width and channels"
            faults.add("info", what, file=place, camera=key)
        if kind not in CAMERA_TYPES and shape == []:
            faults.add("shape", f"shape [] of {key} cannot be loaded by LeRobot", expected="[1]", file=place)
        if kind in CAMERA_TYPES and features[key].get("names") is None:
            what = f"names of {key} are null, which stops LeRobot's policies"
            faults.add("names", what, file=place, camera=key)
        if kind not in ("image", "video", *TEXT_TYPES) and arrow_type(kind) is None:
            faults.add("info", f"dtype {kind!r} of {key} is not a type of numbers or texts", file=place)
    paths = {
        "data_path": (LeRobotV21.data_path if old else DATA_PATH),
        "video_path": (LeRobotV21.video_path if old else VIDEO_PATH),
    }
    for name, usual in paths.items():
        if (said := info.get(name)) is None:
            continue
        fix = f"write {usual!r} there; no file has to be moved"
        try:
            paths[name] = check_template(said, name, template_fields(usual))
        except SourceError as error:
            faults.add("path-template", str(error), file=place, fix=fix)
    return Layout(
        root=root,
        version=version,
        info=info,
        features=features,
        fps=parse_fps(info["fps"]),
        images=[key for key, kind in kinds.items() if kind == "image"],
        videos=[key for key, kind in kinds.items() if kind == "video"],
        numeric=[key for key in kinds if is_numeric(features[key])],
        data_path=paths["data_path"],
        video_path=paths["video_path"],
    )


def width_of(feature: Mapping[str, Any]) -> int | None:
    """Return the number of values in a row of a feature according to its shape; None if it is invalid."""
    shape = feature.get("shape")
    if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        return None
    return math.prod(shape)


def reason_of(error: Exception) -> str:
    """Return an error as one line, without the file's name, which the fault has."""
    text = str(error)
    if isinstance(error, FfencError):  # the text of a ConfigError names the setting
        text = error.described if isinstance(error, ConfigError) else error.what
    text = " ".join(text.split())
    return text if len(text) <= 160 else f"{text[:157]}..."


# --- columns of tables ------------------------------------------------------------------------------------


def numbers(column: pa.ChunkedArray | pa.Array, *, floats: bool = False) -> npt.NDArray[Any] | None:
    """Return a column of numbers as int64, or with ``floats`` as float64 with NaN for missing values.

    Returns:
        The numbers, with -1 for a missing integer; None: not a column of numbers.
    """
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    if pa.types.is_floating(kind) or floats:
        values = np.asarray(column.to_numpy(zero_copy_only=False), np.float64)  # missing values become NaN
        # Some writers store integers as doubles if one is missing.
        return (
            values
            if floats
            else np.where(np.isfinite(values) & (np.rint(values) == values), values, -1).astype(np.int64)
        )
    if not column.null_count and kind != pa.uint64():
        return np.asarray(column.to_numpy(zero_copy_only=False), np.int64)
    try:
        return np.asarray(column.cast(pa.int64()).fill_null(-1).to_numpy())
    except pa.ArrowException:
        return None


def matrix(column: pa.ChunkedArray | pa.Array) -> Floats | None:
    """Return a column of numbers, or of nested lists of numbers, as shape (rows, D).

    Returns:
        The numbers; None: not such a column, or values are missing, or lists differ in length.
    """
    rows = len(column)
    values = column
    if isinstance(values, pa.ChunkedArray):
        values = values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    while (kind := values.type).id in _LISTS:
        if values.null_count:
            return None
        if kind.id != _FIXED_LIST:
            offsets = values.offsets.to_numpy()
            lengths = offsets[1:] - offsets[:-1]
            if lengths.size and (lengths != lengths[0]).any():
                return None
        values = flat(values)
    if values.null_count or not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    ):
        return None
    if rows == 0 or len(values) % rows or not len(values):
        return None
    if pa.types.is_boolean(kind):
        values = values.cast(pa.uint8())
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float64).reshape(rows, -1)


def checked_tasks(tasks: Any, known: set[str], episode: int, place: str, faults: Faults) -> list[str] | None:
    """Return an episode's tasks if all are texts of the tasks table; otherwise None.

    If no text is known, the tasks table cannot be read, which is a fault of its own.
    """
    if not (isinstance(tasks, list) and tasks and all(isinstance(task, str) for task in tasks)):
        faults.add("tasks", f"tasks is {tasks!r}", expected="a list of texts", file=place, episode=episode)
        return None
    unknown = [task for task in tasks if known and task not in known]
    for task in unknown:
        faults.add("tasks", f"task {task[:60]!r} is not in the tasks table", file=place, episode=episode)
    return None if unknown else tasks
