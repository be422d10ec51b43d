"""What a result holds, read without ffenc."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.conftest import DEPTH, decode


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def json_of(root: Path, name: str) -> dict[str, Any]:
    """A file of a dataset's metadata: ``info``, ``stats``."""
    return read_json(root / f"meta/{name}.json")


def info_of(root: Path) -> dict[str, Any]:
    return json_of(root, "info")


def stats_of(root: Path) -> dict[str, Any]:
    return json_of(root, "stats")


def _tables(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(folder.rglob("*.parquet")))


def rows_of(root: Path) -> pa.Table:
    """All rows of a dataset."""
    return _tables(root / "data")


def episodes_of(root: Path) -> pa.Table:
    """The whole list of episodes."""
    return _tables(root / "meta/episodes")


def video_of(root: Path, key: str, file: int = 0) -> Path:
    return root / f"videos/{key}/chunk-000/file-{file:03d}.mp4"


def contents(root: Path, *folders: str) -> dict[str, str]:
    """SHA-256 of every file, of some folders or of all."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders or (".",)
        for path in sorted((root / folder).rglob("*"))
        if path.is_file()
    }


def packets(path: Path) -> list[str]:
    """A checksum of every packet of a video stream, in the order they are stored in."""
    with av.open(str(path)) as container:
        return [
            hashlib.md5(memoryview(packet)).hexdigest() for packet in container.demux(video=0) if packet.size
        ]


def depth_samples(path: Path, pix_fmt: str, width: int, height: int) -> np.ndarray:
    """Decode a depth stream with PyAV, which reads all of them: shape (N, height, width)."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format=pix_fmt) for frame in container.decode(video=0)]
    return np.stack(frames).reshape(-1, height, width)


def depth_maps(images: dict[str, list[bytes]], count: int) -> np.ndarray:
    """The sample's first depth maps."""
    return np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in images[DEPTH][:count]])


def column(root: Path, name: str) -> np.ndarray:
    """A column of a result of one file: ``(N,)``, or ``(N, D)`` of lists."""
    return np.array(pq.read_table(root / "data/chunk-000/file-000.parquet")[name].to_pylist())


def frames_of(root: Path, camera: str) -> np.ndarray:
    """A camera's frames as RGB, of a result of one file."""
    return decode(root / f"videos/observation.images.{camera}/chunk-000/file-000.mp4")


def notes_of(root: Path, episode: int) -> dict[str, Any]:
    return json.loads((root / f"meta/recording/episode_{episode:06d}.json").read_text())


def open_below(folder: Path) -> list[str]:
    """What this process holds open below a folder, deleted files too."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            path = str(link.readlink())
        except FileNotFoundError:
            continue
        if path.startswith(f"{folder}/"):
            found.append(path)
    return sorted(found)
