"""Places of each episode's frames in a LeRobot v3.0 video dataset."""

from __future__ import annotations

import math
import threading
import warnings
from bisect import bisect_left
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.config.preset import chosen_cameras
from ffenc.dataset.checksums import file_checksum
from ffenc.dataset.model import EpisodeVideo
from ffenc.dataset.places import list_files
from ffenc.dataset.source import check_key
from ffenc.errors import FfencWarning, SourceError
from ffenc.ffmpeg.index import index_reader
from ffenc.ffmpeg.probe import StreamInfo, probe
from ffenc.ffmpeg.toolchain import find_ffprobe
from ffenc.frames.clip import Clip, check_spacing, off_grid
from ffenc.frames.info_json import info_features, read_info
from ffenc.frames.trim import warn_of_hidden
from ffenc.layout import CHECKSUMS, INFO, TIME_TOLERANCE, VIDEO_PATH, place_columns
from ffenc.paths import check_template, template_fields
from ffenc.spelling import call


def episode_videos(
    root: Path, *, cameras: Sequence[str] | None = None, episodes: Sequence[int] | None = None
) -> list[EpisodeVideo]:
    """Return the places of the episodes, by camera.

    Args:
        root: the dataset.
        cameras: names, with or without ``observation.images.``; None: all.
        episodes: indices; None: all.

    Raises:
        SourceError: not such a dataset, a video is missing, or an episode does not exist.
        ConfigError: an unknown camera.
    """
    info = read_info(root)
    version = str(info.get("codebase_version", ""))
    if not version.startswith("v3"):
        raise SourceError(
            f"{root}: is a LeRobot dataset of layout {version or 'unknown'}; v3.0 is read. "
            "Name one of its video files instead"
        )
    where = root / INFO
    keys = [check_key(k, where) for k, f in info_features(info, where).items() if f.get("dtype") == "video"]
    if not keys:
        raise SourceError(f"{root}: has no video cameras; its frames are images, or it has no cameras")
    chosen = chosen_cameras(keys, cameras) if cameras is not None else keys
    template = check_template(
        info.get("video_path") or VIDEO_PATH, f"{where}: video_path", template_fields(VIDEO_PATH)
    )
    damage: dict[int, str] = {}

    def on_damage(what: str, number: int) -> None:
        damage.setdefault(number, what)

    found = {key: videos_of(root, key, template, on_damage) for key in chosen}
    known = {video.episode for video in found[chosen[0]]} | set(damage)
    for number in known if episodes is None else episodes:
        if number in damage:
            raise SourceError(damage[number])
        if number not in known:
            raise SourceError(
                f"{root}: there is no episode {number}; it has {len(known)} ({min(known)}..{max(known)})"
            )
    wanted = set(known if episodes is None else episodes)
    videos = [video for key in chosen for video in found[key] if video.episode in wanted]
    for path in dict.fromkeys(video.path for video in videos):
        if not path.is_file():
            raise SourceError(f"{path} is missing; the dataset is incomplete")
    return videos


def videos_of(
    root: Path, key: str, template: str, on_damage: Callable[[str, int], None] | None = None
) -> list[EpisodeVideo]:
    """Return the places of a camera's episodes in a v3.0 dataset.

    Args:
        root: the dataset.
        key: the camera's feature.
        template: ``video_path`` of its info.json.
        on_damage: called with the fault and the index of an episode whose row does not contain its place; the
            episode is skipped. None: raise an error.

    Raises:
        SourceError: the episode list does not contain a place.
    """
    columns = ["episode_index", "length", *place_columns(key)[:3]]

    @cache
    def place(chunk: int, file: int) -> Path:
        return root / template.format(video_key=key, chunk_index=chunk, file_index=file)

    videos = []
    for path in list_files(root):
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
                missing = sorted(set(columns) - set(parquet.schema_arrow.names), key=columns.index)
                if missing:
                    raise SourceError(f"{path}: has no column {', '.join(missing)}")
                table = parquet.read(columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path}: cannot be read: {error}") from None
        for row, (number, length, chunk, file, start) in enumerate(
            zip(*(table[name].to_pylist() for name in columns), strict=True)
        ):
            try:
                video = EpisodeVideo(
                    key, int(number), place(int(chunk), int(file)), float(start), int(length)
                )
                usable = video.frames > 0 and math.isfinite(video.start) and min(chunk, file) >= 0
            except (ValueError, TypeError, OverflowError):
                usable = False
            if usable:
                videos.append(video)
                continue
            what = f"{path}: row {row} does not say where episode {number} of {key} is"
            if on_damage is None or not isinstance(number, int):
                raise SourceError(what)
            on_damage(what, number)
    if not videos:
        raise SourceError(f"{root / 'meta/episodes'}: holds no episodes")
    return videos


def clip_of(
    video: EpisodeVideo, fps: Fraction, *, compare: bool = True, check: Callable[[], object] = lambda: None
) -> Clip:
    """Return the frames of an episode, after checking that each is in its file at its time.

    Args:
        video: place of the episode.
        fps: rate of the dataset, if the video's rate is not lowered.
        compare: compare the file with its checksum, once; otherwise the caller does.
        check: called again and again meanwhile; may raise.

    Raises:
        SourceError: the file has another stream, is too short, or has no frame at an expected time.
    """
    fps = video.pick.old if video.pick is not None else fps
    if compare:
        compare_checksum(video.path, video.checksum, video.part, check=check)
    info = _opened(video.path, video.ffprobe, *_state(video.path))
    warn_of_hidden(video.path, info)
    where = f"episode {video.episode} of {video.camera}"
    for name in ("codec", "pix_fmt", "width", "height"):
        found, expected = getattr(info, name), getattr(video.like, name, None)
        if video.like is not None and found != expected:
            raise SourceError(
                f"{name} is {found}",
                expected=f"{expected}, as in the camera's first file: the videos of one camera must be alike",
                where=video.path,
            )
    assert info.times is not None
    times = info.times
    start = Fraction(video.start) / info.time_base
    after = bisect_left(times, start)
    near = [i for i in (after - 1, after) if 0 <= i < info.frames]
    if not near:
        raise SourceError(f"{video.path} has no frames")
    first = min(near, key=lambda i: abs(times[i] - start))
    at = float(times[first] * info.time_base)
    if abs(at - video.start) > TIME_TOLERANCE:
        raise SourceError(
            f"{video.path}: {where} starts at {video.start:.6f} s, and the nearest frame, {first}, is at "
            f"{at:.6f} s: from_timestamp is wrong, or a frame is missing"
        )
    if first + video.frames > info.frames:
        raise SourceError(
            f"{video.path}: {where} has {video.frames} frames from {video.start:.3f} s on, but the video "
            f"ends after {info.frames - first}: it is cut short, or a frame is missing"
        )
    clip = Clip(video.path, info, first, video.frames, video.pick, video.origin)
    check_spacing(clip, fps, where, start=video.start)
    # A gap is reported with the episode that contains it.
    whole = Clip(video.path, info, 0, info.frames)
    if info.frames < video.needed and off_grid(whole.seconds(), fps, whole.seconds()[0]) is None:
        raise SourceError(
            f"{video.path}: has {info.frames} frames, its episodes have {video.needed}: a frame is missing, "
            "and it is not known from which episode"
        )
    return clip


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def compare_checksum(
    path: Path, checksum: str | None, part: bool, *, check: Callable[[], object] = lambda: None
) -> None:
    """Compare a file with its checksum, once while it does not change. Thread-safe.

    Args:
        path: the file.
        checksum: recorded SHA-256; None: unknown.
        part: some of the file's episodes are not read.
        check: called again and again meanwhile; may raise.

    Raises:
        SourceError: it differs, and all of the file's episodes are read.

    Warns:
        FfencWarning: it differs, and only some of the episodes are read.
    """
    if checksum is None:
        return
    compared = _compared.setdefault(path, _Comparison())
    with compared.lock:
        of = (checksum, *_state(path))
        if compared.of != of:
            compared.sound = file_checksum(path, check=check) == checksum
            compared.of = of
        sound = compared.sound
    if sound:
        return
    # Damage that no decoder detects would be copied, and hidden by the copy's own checksum.
    if not part:
        raise damaged(path)
    warnings.warn(
        f"{path}: is not, to the byte, what was written: an episode in it is damaged, and its checksum "
        "does not say which. Frames that are copied from it are not checked; "
        f"{call('verify_dataset', path='NEW', deep=True)} decodes them",
        FfencWarning,
        stacklevel=4,
    )


class _Comparison:
    """The last comparison of a file with its checksum. Only the finding is kept: every job is warned.

    Attributes:
        lock: held while the file is read, so that two threads do not read it.
        of: checksum and state of the file.
        sound: whether they matched.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.of: tuple[str | int, ...] = ()
        self.sound = False


_compared: dict[Path, _Comparison] = {}


def damaged(path: Path) -> SourceError:
    """Return the error for a file that has changed since it was written."""
    return SourceError(
        f"{path}: is not, to the byte, what was written: it is damaged. Restore it; if it was "
        f"changed on purpose, delete its line in {CHECKSUMS}"
    )


@lru_cache(maxsize=16)  # a few cameras' files, each with the times of perhaps 100,000 frames
def _opened(path: Path, ffprobe: str | None, *_state: int) -> StreamInfo:
    program = find_ffprobe(ffprobe)
    try:
        return index_reader(program).read(path)
    except SourceError:  # FFmpeg may be able to read a file with a faulty index
        return probe(path, times=True, ffprobe=program)
