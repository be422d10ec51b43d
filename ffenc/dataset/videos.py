"""Find the frames of each episode in a LeRobot v3.0 video dataset."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.config.preset import chosen_cameras
from ffenc.dataset.source import check_key
from ffenc.errors import SourceError
from ffenc.frames.info_json import read_info


@dataclass(frozen=True)
class EpisodeVideo:
    """One episode of one camera.

    Attributes:
        camera: its feature, such as ``observation.images.top``.
        episode: its number.
        path: the file it is in.
        start: seconds in the file at which it starts.
        frames: how many it has.
    """

    camera: str
    episode: int
    path: Path
    start: float
    frames: int


def episode_videos(
    root: Path, *, cameras: Sequence[str] | None = None, episodes: Sequence[int] | None = None
) -> list[EpisodeVideo]:
    """List where each camera's episodes are, camera by camera.

    Args:
        root: the dataset.
        cameras: names, with or without ``observation.images.``; None: all.
        episodes: numbers; None: all.

    Raises:
        SourceError: not such a dataset, a video is missing, or an episode is not there.
        ConfigError: there is no such camera.
    """
    info = read_info(root)
    version = str(info.get("codebase_version", ""))
    if not version.startswith("v3"):
        raise SourceError(
            f"{root}: is a LeRobot dataset of layout {version or 'unknown'}; v3.0 is read. "
            "Name one of its video files instead"
        )
    where = root / "meta/info.json"
    keys = [check_key(k, where) for k, f in info["features"].items() if f.get("dtype") == "video"]
    if not keys:
        raise SourceError(f"{root}: has no video cameras; its frames are images already, or it has none")
    chosen = chosen_cameras(keys, cameras) if cameras is not None else keys
    found = {key: _videos_of(root, key, str(info.get("video_path") or "")) for key in chosen}
    known = [video.episode for video in found[chosen[0]]]
    for number in episodes or ():
        if number not in known:
            raise SourceError(
                f"{root}: there is no episode {number}; it has {len(known)} ({min(known)}..{max(known)})"
            )
    wanted = set(known if episodes is None else episodes)
    videos = [video for key in chosen for video in found[key] if video.episode in wanted]
    for path in dict.fromkeys(video.path for video in videos):
        if not path.is_file():
            raise SourceError(f"{path} is missing; the dataset is not whole")
    return videos


def _videos_of(root: Path, key: str, template: str) -> list[EpisodeVideo]:
    names = [f"videos/{key}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
    columns = ["episode_index", "length", *names]
    videos = []
    for path in sorted((root / "meta/episodes").glob("*/*.parquet")):
        try:
            missing = [name for name in columns if name not in pq.read_schema(path).names]
            if missing:
                raise SourceError(f"{path}: has no column {', '.join(missing)}")
            table = pq.read_table(path, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path}: cannot be read: {error}") from None
        for row, (number, length, chunk, file, start) in enumerate(
            zip(*(table[name].to_pylist() for name in columns), strict=True)
        ):
            try:
                place = template.format(video_key=key, chunk_index=int(chunk), file_index=int(file))
                usable = bool(place) and int(length) > 0 and math.isfinite(start)
            except (LookupError, ValueError, TypeError):
                usable = False
            if not usable:
                raise SourceError(f"{path}: row {row} does not say where episode {number} of {key} is")
            videos.append(EpisodeVideo(key, int(number), root / place, float(start), int(length)))
    if not videos:
        raise SourceError(f"{root / 'meta/episodes'}: holds no episodes")
    return videos
