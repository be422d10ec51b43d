"""The videos of a LeRobot dataset: places of the episodes, and streams of the files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

from msgspec.structs import replace

from ffenc.dataset.checksums import read_checksums
from ffenc.dataset.damage import Damage
from ffenc.dataset.info_block import ENCODER_FIELDS
from ffenc.dataset.model import Camera, EpisodeRef, EpisodeVideo
from ffenc.dataset.remote import fetch_indices
from ffenc.errors import FfencWarning, SourceError
from ffenc.ffmpeg.boxes import sample_description
from ffenc.ffmpeg.probe import StreamInfo, probe
from ffenc.ffmpeg.toolchain import find_ffprobe
from ffenc.frames.depth import Unit
from ffenc.frames.info_json import feature_block
from ffenc.frames.stream import DEPTH_FORMATS
from ffenc.frames.trim import warn_of_others, warn_of_rotation
from ffenc.layout import INFO, OWN_FIELDS, TIME_TOLERANCE, says_depth

_OFF_FRAME = 0.1  # frames; an episode whose start is so far from every frame's time has no valid start


class DatasetVideos:
    """The videos of a dataset.

    Args:
        root: its folder.
        fps: frames per second.
        episodes: all its episodes, in order.
        damage: collects the faults.
        ffprobe: the program that reads the files; None: the one that is found.
    """

    def __init__(
        self,
        root: Path,
        fps: Fraction,
        episodes: Sequence[EpisodeRef],
        damage: Damage,
        ffprobe: str | None,
    ) -> None:
        self._root, self._fps, self._episodes, self._damage = root, fps, episodes, damage
        self._ffprobe = ffprobe
        self._of: dict[str, dict[int, EpisodeVideo]] = {}
        self._needed: dict[Path, int] = {}  # required number of frames of a file
        self._streams: dict[Path, StreamInfo] = {}
        self._checksums = read_checksums(root)

    def find(self, key: str, listed: Sequence[EpisodeVideo]) -> None:
        """Set the places of a camera's episodes, and check that no two share a frame.

        Args:
            key: the camera.
            listed: place of each episode, in order, as far as the lists contain it.
        """
        videos = self._of[key] = {video.episode: video for video in listed}
        ends: dict[Path, float] = {}
        last: dict[Path, int] = {}  # the last episode in each file so far
        for episode in self._episodes:
            video = videos.get(episode.index)
            if video is None:
                self._damage.note(
                    f"{self._root}: does not say where episode {episode.index} of {key} is", episode.index
                )
                continue
            end = ends.get(video.path)
            if end is None and not video.path.is_file():
                self._damage.note(f"{video.path} is missing; the dataset is incomplete", episode.index)
                continue
            if end is not None and video.start < end - TIME_TOLERANCE:
                before = last[video.path]
                self._damage.note(
                    f"{self._root}: episode {episode.index} of {key} starts at {video.start:.6f} s of "
                    f"{video.path.name}, within episode {before}, which ends at {end:.6f} s; one of their "
                    "from_timestamp is wrong",
                    *self._overlapping(videos[before], video),
                )
            ends[video.path] = video.start + float(episode.length / self._fps)
            last[video.path] = episode.index
        self._needed |= {path: round(end * self._fps) for path, end in ends.items()}

    def _overlapping(self, *videos: EpisodeVideo) -> list[int]:
        """Return which of two episodes that share frames is wrong; both, if only their places contradict."""
        wrong = [v for v in videos if self._damage.of(v.episode)]
        if not wrong:
            frames = [v.start * float(self._fps) for v in videos]
            wrong = [v for v, at in zip(videos, frames, strict=True) if abs(at - round(at)) > _OFF_FRAME]
        return [v.episode for v in (wrong if len(wrong) == 1 else videos)]

    def camera(self, key: str, feature: Mapping[str, Any], sound: Sequence[EpisodeRef]) -> Camera:
        """Return a camera, described by the stream of most of its frames.

        Args:
            key, feature: of info.json.
            sound: the episodes to check.

        Raises:
            SourceError: none of its files can be opened, or its unit is unknown.
        """
        block = feature_block(feature)
        path, odd = self._look_at_streams(key, sound)
        stream = self._streams[path]
        warn_of_others(path, stream)
        warn_of_rotation(path, stream)
        if odd:  # info.json describes the streams that were recorded first
            block = {name: value for name, value in block.items() if name not in OWN_FIELDS[:1]}
            if block.get("video.codec") not in (None, stream.codec):
                block = {name: value for name, value in block.items() if name not in ENCODER_FIELDS}
        for name, value in (("codec", stream.codec), ("pix_fmt", stream.pix_fmt)):
            said = block.get(f"video.{name}")
            if said is not None and said != value:
                warnings.warn(
                    f"{self._root / INFO}: video.{name} of {key} is {said!r}, but {path.name} is "
                    f"{value}; the file's value is used",
                    FfencWarning,
                    stacklevel=5,
                )
        depth = says_depth(block)
        if not depth and stream.pix_fmt not in DEPTH_FORMATS:
            return Camera(key, False, stream, None, block, odd)
        unit = block.get("depth_unit") or "mm"
        return Camera(key, True, stream, checked_unit(self._root, key, unit), block, odd)

    def _look_at_streams(self, key: str, sound: Sequence[EpisodeRef]) -> tuple[Path, frozenset[int]]:
        """Read the streams of a camera's files; LeRobot allows a recording to continue with another codec.

        Returns:
            The first file with the stream of most frames, and the episodes with another codec or pixel
            format.

        Raises:
            SourceError: no file can be opened.
        """
        known: dict[bytes | Path, StreamInfo] = {}
        frames: dict[tuple[str, str], int] = {}
        videos = self._of[key]
        of_file: dict[Path, list[int]] = {}
        for episode in sound:
            video = videos.get(episode.index)
            if video is not None and video.path.is_file():
                of_file.setdefault(video.path, []).append(episode.index)
        fetch_indices(list(of_file))
        for path, indices in of_file.items():
            try:
                mark = sample_description(path) or path
                if mark not in known:
                    known[mark] = probe(path, ffprobe=find_ffprobe(self._ffprobe))
                self._streams[path] = known[mark]
            except SourceError as error:
                self._damage.note(str(error), *indices)
        opened = [index for path, own in of_file.items() if path in self._streams for index in own]
        if not opened:
            self._damage.check(self._episodes)
        kinds = {index: stream_kind(self._streams[videos[index].path]) for index in sorted(opened)}
        for index, kind in kinds.items():
            frames[kind] = frames.get(kind, 0) + videos[index].frames
        usual = max(frames, key=lambda kind: frames[kind])  # of several, the first
        first = next(videos[index].path for index, kind in kinds.items() if kind == usual)
        for path, indices in of_file.items():
            for name in ("width", "height") if path in self._streams else ():
                found, wanted = (getattr(self._streams[p], name) for p in (path, first))
                if found != wanted:
                    self._damage.note(
                        f"{path}: {name} is {found}, but {wanted} in {first}: the videos of one camera must "
                        "be alike",
                        *indices,
                    )
        return first, frozenset(index for index, kind in kinds.items() if kind != usual)

    def of(self, camera: str, episode: EpisodeRef, chosen: frozenset[int] | None) -> EpisodeVideo:
        """Return the place of an episode.

        Args:
            camera, episode: the camera and its episode.
            chosen: indices of the episodes that are read; None: all.
        """
        video = self._of[camera][episode.index]
        checksum = None
        if self._checksums:
            checksum = self._checksums.get(video.path.relative_to(self._root).as_posix())
        needed, like = self._needed[video.path], self._streams[video.path]
        part = checksum is not None and not self._all_chosen(camera, video.path, chosen)
        return replace(video, like=like, needed=needed, checksum=checksum, part=part, ffprobe=self._ffprobe)

    def _all_chosen(self, camera: str, path: Path, chosen: frozenset[int] | None) -> bool:
        """Return whether all episodes of a video file are read."""
        if chosen is None or len(chosen) == len(self._episodes):
            return True
        return all(v.episode in chosen for v in self._of[camera].values() if v.path == path)

    def bytes_of(self, camera: str, episodes: Sequence[EpisodeRef]) -> int:
        """Return the size of episodes of a camera: the files' sizes in proportion to the frames."""
        held: dict[Path, int] = {}
        for video in self._of[camera].values():
            held[video.path] = held.get(video.path, 0) + video.frames
        chosen: dict[Path, int] = {}
        for episode in episodes:
            path = self._of[camera][episode.index].path
            chosen[path] = chosen.get(path, 0) + episode.length
        return sum(path.stat().st_size * frames // held[path] for path, frames in chosen.items())


def checked_unit(root: Path, key: str, unit: Any) -> Unit:
    """Return the unit of a depth camera in info.json.

    Raises:
        SourceError: an unknown unit.
    """
    if unit not in ("mm", "m"):
        raise SourceError(f"{root / INFO}: depth_unit of {key} is {unit!r}", expected="mm or m")
    return cast("Unit", unit)


def stream_kind(stream: StreamInfo) -> tuple[str, str]:
    """Return the fields that re-encoding can change."""
    return stream.codec, stream.pix_fmt
