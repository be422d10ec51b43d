"""Facts of the LeRobot dataset format (v3.0): paths, columns, defaults, limits and tolerances, each once.

Source: LeRobot 0.6.1, ``lerobot/datasets/utils.py`` and ``video_utils.py``; ffenc's own facts are marked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

CODEBASE_VERSION = "v3.0"  # also the tag that LeRobot's loader requires on the Hub

# --- files ----------------------------------------------------------------------------------------------

INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes"  # folder of the episode list
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
# ffenc's own files: fields of cameras that LeRobot does not know, checksums of videos, and notes of recorded
# episodes: dropped frames, times of the cameras.
OWN_INFO = "meta/ffenc.json"
OWN_FIELDS = ("video.encoder", "video.invalid", "video.transform", "video.source_fps")
# Fields of a depth camera's quantiser in its info block, with the prefix "video."; the last is ffenc's own.
DEPTH_FIELDS = ("depth_min", "depth_max", "shift", "use_log", "invalid")
CHECKSUMS = "meta/videos.sha256"
NOTES_PATH = "meta/recording/episode_{episode_index:06d}.json"

# Layouts v2.1 and v2.0, which are only read.
EPISODES_V2 = "meta/episodes.jsonl"
EPISODE_STATS_V2 = "meta/episodes_stats.jsonl"
TASKS_V2 = "meta/tasks.jsonl"
DATA_PATH_V2 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH_V2 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"

# Defaults of info.json: files in a chunk, and the size up to which a file grows.
FILE_LIMITS = {"chunks_size": 1000, "data_files_size_in_mb": 100, "video_files_size_in_mb": 200}
# LeRobot reads files in the order of their names, and file-1000 sorts before file-999.
MOST_IN_CHUNK = 1000

# --- features and columns -------------------------------------------------------------------------------

CAMERA_TYPES = ("image", "video")
TEXT_TYPES = ("string", "str", "language")
DEFAULT_FEATURES: dict[str, dict[str, Any]] = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
}
NUMBERING = tuple(DEFAULT_FEATURES)
# Columns of the episode list with the file of an episode's rows; for its videos see place_columns.
DATA_COLUMNS = ("data/chunk_index", "data/file_index")
LIST_COLUMNS = ("meta/episodes/chunk_index", "meta/episodes/file_index")  # file of the episode's own entry
STATISTICS = ("min", "max", "mean", "std", "count")
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}  # optional statistics

# --- times ----------------------------------------------------------------------------------------------

TIME_TOLERANCE = 1e-4  # greatest distance of a row's time from its frame's in LeRobot's reader, in seconds


def place_columns(camera: str) -> tuple[str, str, str, str]:
    """Return the columns of the episode list with the place of an episode in a camera's videos.

    Returns:
        The columns of the file's chunk and number, and of the times in seconds at which the episode begins
        and ends in the file.
    """
    return (
        f"videos/{camera}/chunk_index",
        f"videos/{camera}/file_index",
        f"videos/{camera}/from_timestamp",
        f"videos/{camera}/to_timestamp",
    )


def files_in_chunk(info: Mapping[str, Any]) -> int:
    """Return the number of files per chunk of a dataset.

    Args:
        info: contents of info.json.
    """
    return min(int(info.get("chunks_size") or FILE_LIMITS["chunks_size"]), MOST_IN_CHUNK)


def file_limit(info: Mapping[str, Any], kind: Literal["data", "video"]) -> float:
    """Return the size in bytes up to which a file grows.

    Args:
        info: contents of info.json.
        kind: ``data`` applies to rows and to the episode list.
    """
    name = f"{kind}_files_size_in_mb"
    return float(info.get(name) or FILE_LIMITS[name]) * 2**20


LEROBOTS_BACKEND = "pyav"  # LeRobot opens datasets with depth cameras only with this video_backend


def says_depth(block: Mapping[str, Any]) -> bool:
    """Return whether a feature's ``info`` block marks it as depth."""
    return bool(block.get("is_depth_map") or block.get("video.is_depth_map"))


def frame_axes(feature: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the places of height and width in a camera's shape, by the names of its axes if it has them.

    Args:
        feature: the camera's entry in info.json.

    Returns:
        None if the shape does not have three axes.
    """
    shape, names = feature.get("shape"), feature.get("names")
    if not isinstance(shape, list | tuple) or len(shape) != 3:
        return None
    if isinstance(names, list | tuple) and len(names) == 3 and "height" in names and "width" in names:
        return names.index("height"), names.index("width")
    return (1, 2) if shape[0] in (1, 3) and shape[2] not in (1, 3) else (0, 1)


def frame_size(feature: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return width and height of a camera's frames by its shape, in pixels; see :func:`frame_axes`."""
    axes = frame_axes(feature)
    return None if axes is None else (feature["shape"][axes[1]], feature["shape"][axes[0]])
