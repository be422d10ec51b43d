"""A dataset of any number of episodes: tables as LeRobot writes them, and one real video under many names."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import newest_program

KEY = "observation.images.front"
FPS = 30
EPISODES_A_FILE = 100
_EPISODES_A_TABLE = 2000
_SIZE = 32


def make_large(root: Path, *, episodes: int, length: int, keys: Sequence[str] = (KEY,)) -> Path:
    """Make a v3.0 video dataset; all video files of a camera are links to one."""
    for key in keys:
        _write_videos(root, key, episodes, length)
    _write_rows(root, episodes, length)
    _write_episodes(root, keys, episodes, length)
    _write_meta(root, keys, episodes, length)
    return root


def _place(number: int, ending: str) -> str:
    return f"chunk-{number // 1000:03d}/file-{number % 1000:03d}.{ending}"


def _write_videos(root: Path, key: str, episodes: int, length: int) -> None:
    folder = root / "videos" / key
    first = folder / _place(0, "mp4")
    first.parent.mkdir(parents=True)
    source = f"testsrc2=rate={FPS}:size={_SIZE}x{_SIZE}"
    subprocess.run(
        [newest_program("ffmpeg"), "-v", "error", "-f", "lavfi", "-i", source]
        + ["-frames:v", str(EPISODES_A_FILE * length), "-c:v", "libx264", "-preset", "ultrafast", "-g"]
        + [str(length), "-pix_fmt", "yuv420p", "-video_track_timescale", str(FPS), str(first)],
        check=True,
    )
    for number in range(1, -(-episodes // EPISODES_A_FILE)):
        path = folder / _place(number, "mp4")
        path.parent.mkdir(exist_ok=True)
        os.link(first, path)


def _write_rows(root: Path, episodes: int, length: int) -> None:
    features = {
        "timestamp": {"dtype": "float32", "_type": "Value"},
        **{name: {"dtype": "int64", "_type": "Value"} for name in _NUMBERS},
    }
    schema = pa.schema(
        [("timestamp", pa.float32()), *((name, pa.int64()) for name in _NUMBERS)],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    frames = np.arange(length)
    for number, start in enumerate(range(0, episodes, _EPISODES_A_TABLE)):
        count = min(_EPISODES_A_TABLE, episodes - start)
        rows = np.arange(count * length)
        table = pa.table(
            {
                "timestamp": np.tile((frames / FPS).astype(np.float32), count),
                "frame_index": np.tile(frames, count),
                "episode_index": start + rows // length,
                "index": start * length + rows,
                "task_index": np.zeros(count * length, np.int64),
            },
            schema=schema,
        )
        path = root / "data" / _place(number, "parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=length)  # a row group an episode, as LeRobot


_NUMBERS = ("frame_index", "episode_index", "index", "task_index")


def _write_episodes(root: Path, keys: Sequence[str], episodes: int, length: int) -> None:
    numbers = np.arange(episodes)
    video, data = numbers // EPISODES_A_FILE, numbers // _EPISODES_A_TABLE
    start = (numbers % EPISODES_A_FILE) * length / FPS
    columns = {
        "episode_index": numbers,
        "tasks": pa.array([["stack"]] * episodes, pa.list_(pa.string())),
        "length": np.full(episodes, length),
        "data/chunk_index": data // 1000,
        "data/file_index": data % 1000,
        "dataset_from_index": numbers * length,
        "dataset_to_index": (numbers + 1) * length,
    }
    for key in keys:
        columns |= {
            f"videos/{key}/chunk_index": video // 1000,
            f"videos/{key}/file_index": video % 1000,
            f"videos/{key}/from_timestamp": start,
            f"videos/{key}/to_timestamp": start + length / FPS,
        }
    for feature, values in (
        ("timestamp", (0.0, (length - 1) / FPS)),
        ("frame_index", (0.0, length - 1.0)),
        ("episode_index", (numbers.astype(float), numbers.astype(float))),
        ("index", (numbers * float(length), (numbers + 1) * float(length) - 1)),
        ("task_index", (0.0, 0.0)),
        *((key, (0.0, 1.0)) for key in keys),
    ):
        _add_stats(columns, feature, *values, length, video=feature in keys)
    columns["meta/episodes/chunk_index"] = np.zeros(episodes, np.int64)
    columns["meta/episodes/file_index"] = np.zeros(episodes, np.int64)
    path = root / "meta/episodes" / _place(0, "parquet")
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns), path)


def _add_stats(columns, feature, low, high, length, *, video):
    episodes = len(columns["episode_index"])
    low, high = (np.broadcast_to(np.asarray(v, float), episodes) for v in (low, high))
    low, high = low.copy(), high.copy()
    mean = (low + high) / 2
    std = (high - low) / 2 if video else np.sqrt(((high - low + 1) ** 2 - 1) / 12)
    if feature == "timestamp":
        std = np.full(episodes, np.sqrt((length**2 - 1) / 12) / FPS)
    depth = 3 if video else 1

    def nested(values):
        array = pa.array(values)
        channels = 3 if video else 1
        if channels == 3:
            array = pa.array(np.repeat(values, 3))
        for size in [1, 1, 3] if depth == 3 else [1]:
            array = pa.FixedSizeListArray.from_arrays(array, size)
            array = array.cast(pa.list_(array.type.value_type))
        return array

    columns[f"stats/{feature}/min"] = nested(low)
    columns[f"stats/{feature}/max"] = nested(high)
    columns[f"stats/{feature}/mean"] = nested(mean)
    columns[f"stats/{feature}/std"] = nested(std)
    columns[f"stats/{feature}/count"] = pa.array([[length]] * episodes, pa.list_(pa.int64()))


def _write_meta(root: Path, keys: Sequence[str], episodes: int, length: int) -> None:
    number = {"dtype": "int64", "shape": [1], "names": None}
    camera = {
        "dtype": "video",
        "shape": [_SIZE, _SIZE, 3],
        "names": ["height", "width", "channels"],
        "info": {
            **{"video.height": _SIZE, "video.width": _SIZE, "video.codec": "h264"},
            **{"video.pix_fmt": "yuv420p", "video.fps": FPS, "video.channels": 3},
            **{"has_audio": False, "is_depth_map": False, "video.g": length, "video.crf": 23},
            **{"video.preset": "ultrafast", "video.fast_decode": 0, "video.video_backend": "pyav"},
            "video.extra_options": {},
        },
    }
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "features": {
            **dict.fromkeys(keys, camera),
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            **dict.fromkeys(_NUMBERS, number),
        },
        "total_episodes": episodes,
        "total_frames": episodes * length,
        "total_tasks": 1,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "robot_type": "test",
        "splits": {"train": f"0:{episodes}"},
    }
    (root / "meta").mkdir(exist_ok=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    rows = episodes * length
    stats = {}
    for feature in ("timestamp", *_NUMBERS, *keys):
        high = {"index": rows - 1, "episode_index": episodes - 1, "frame_index": length - 1}.get(feature, 1)
        shape = (lambda x: [[[x]]] * 3) if feature in keys else (lambda x: [x])
        stats[feature] = {
            name: shape(float(value))
            for name, value in {"min": 0, "max": high, "mean": high / 2, "std": high / 4}.items()
        } | {"count": [rows]}
    (root / "meta/stats.json").write_text(json.dumps(stats))
    tasks = pa.table({"task_index": pa.array([0]), "task": pa.array(["stack"], pa.large_string())})
    pq.write_table(tasks, root / "meta/tasks.parquet")
