"""Restore episodes whose recording was interrupted."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from msgspec import Struct, field

from ffenc.arguments import checked_path
from ffenc.codecs.files import check_from_dataset
from ffenc.compiler.frames import raw_format
from ffenc.config.framerate import time_scale
from ffenc.dataset.commit import finish_commits
from ffenc.dataset.growing import GrowingDataset
from ffenc.dataset.model import FinishedVideo
from ffenc.errors import ConfigError, FfencError, SourceError
from ffenc.ffmpeg.fragments import drop_last_fragment, drop_torn_end, whole_frames
from ffenc.ffmpeg.join import cut_file
from ffenc.ffmpeg.probe import StreamInfo, probe
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.frames.check import check_decoding
from ffenc.frames.decoded import decode_image
from ffenc.frames.encode import first_frames
from ffenc.frames.prepare import prepare
from ffenc.frames.sources import ImageFiles
from ffenc.recording.finish import (
    CameraResult,
    add_to_dataset,
    encode_images,
    for_all,
    recorded_statistics,
    remux,
    verify_recovered,
)
from ffenc.recording.rows import Rows, read_rows
from ffenc.recording.unfinished import (
    RecordedCamera,
    UnfinishedEpisode,
    delete_episode,
    interrupted_episodes,
    recording_lock,
)
from ffenc.spelling import argument

# Frames that an encoder may hold back: in a shorter episode, some camera may have no frame on disk.
_SHORT_FRAMES, _SHORT_SECONDS = 150, 5


class Recovered(Struct, frozen=True):
    """An interrupted episode.

    Attributes:
        folder: its folder.
        index: its index in the dataset; None if it was not restored.
        rows: number of restored rows.
        recorded: number of recorded rows.
        frames: camera -> number of complete frames.
        error: why it was not restored; it is kept in its folder.
    """

    folder: Path
    index: int | None
    rows: int
    recorded: int
    frames: dict[str, int]
    error: FfencError | None = None

    @property
    def lost(self) -> int:
        """Number of rows that could not be restored."""
        return self.recorded - self.rows


class Recovery(Struct, frozen=True):
    """The result of :func:`recover`.

    Attributes:
        completed: number of episodes that had been saved except for their last moves.
        episodes: interrupted episodes, in the order of recording.
        discarded: folders of episodes that were deleted on request.
    """

    completed: int
    episodes: list[Recovered]
    discarded: list[Path] = field(default_factory=list)


def recover(
    root: str | Path,
    *,
    discard: bool = False,
    partial: bool = False,
    trust: bool = False,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Recovery:
    """Restore interrupted episodes of a dataset, each up to the last frame that every camera has.

    They become the dataset's next episodes; existing episodes are not changed.

    Args:
        root: the dataset.
        discard: delete the interrupted episodes instead.
        partial: also restore an episode that would lose many seconds because a camera ends early; otherwise
            such an episode is kept in its folder.
        trust: also complete episodes that were saved by another user or on another machine. Only moves of
            files within the dataset are left of these (:func:`~ffenc.dataset.commit.commit_moves`).
        ffmpeg, ffprobe: programs to use instead of those that are found.
        on_step: called with a description of the next step.

    Returns:
        What was completed, restored or deleted.

    Raises:
        ConfigError: ``discard`` and ``partial``.
        SourceError: there is no such dataset, it has a link where a recording writes, or an untrusted episode
            that another user has saved.
        DestinationError: it is being recorded, or cannot be written.
    """
    if discard and partial:
        raise ConfigError(
            f"{argument('partial', True)} would have no effect: {argument('discard', True)} deletes the "
            "interrupted episodes; leave one of them out"
        )
    folder = checked_path("root", root)
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder")
    with recording_lock(folder):
        completed = finish_commits(folder, trust=trust)
        episodes: list[Recovered] = []
        discarded: list[Path] = []
        for path in interrupted_episodes(folder):
            if discard:
                on_step(f"deleting {path}")
                delete_episode(path)
                discarded.append(path)
                continue
            on_step(f"reading {path}")
            try:
                episodes.append(_Recovery(folder, path, toolchains(ffmpeg, ffprobe)).run(partial))
            except FfencError as error:
                episodes.append(Recovered(path, None, 0, 0, {}, error))
            except Exception as error:  # unexpected damage: the other episodes are restored all the same
                failed = SourceError(f"{path}: cannot be read: {type(error).__name__}: {error}")
                episodes.append(Recovered(path, None, 0, 0, {}, failed))
    return Recovery(completed, episodes, discarded)


class _Recovery:
    """The recovery of one episode."""

    def __init__(self, root: Path, path: Path, candidates: Sequence[Toolchain]) -> None:
        self._root = root
        self._candidates = candidates
        self._toolchain = candidates[0]
        self._episode = UnfinishedEpisode.open(path)
        self._videos: dict[str, tuple[Path, StreamInfo]] = {}
        self._images: dict[str, ImageFiles] = {}

    def run(self, partial: bool) -> Recovered:
        episode = self._episode
        cameras = episode.settings.cameras
        rows = read_rows(episode.rows, episode.settings.features) if episode.rows.exists() else Rows()
        frames = {camera.key: self._frames(camera) for camera in cameras}
        # A row is written before its frames are passed on: surplus frames belong to rows that were lost.
        recorded = max([rows.count, *frames.values()])
        count = self._common(min([rows.count, *frames.values()]))
        if rows.count and episode.settings.features is None:
            raise SourceError(
                f"{episode.path}: episode.json does not describe its rows; add their features there"
            )
        if not count:
            self._check_nothing(rows.count, frames)
            delete_episode(episode.path)
            return Recovered(episode.path, None, 0, recorded, frames)
        if not partial and recorded - count > self._short():
            least = min(frames, key=lambda key: frames[key])
            raise SourceError(
                f"only {count} of {recorded} rows can be recovered: {least} has {frames[least]} "
                "readable frames, and the further frames of the others would be deleted. To "
                f"accept this, pass {argument('partial', True)}"
            )
        settings = episode.settings
        dataset = GrowingDataset(
            self._root,
            fps=settings.fps,
            robot_type=settings.robot_type,
            cameras=[camera.growing() for camera in cameras],
            features=settings.features,
        )
        results = for_all(cameras, lambda camera: self._result(camera, count), threads=len(cameras))
        notes = {
            "rows": count,
            "recovered": {
                "rows_recorded": recorded,
                "frames_readable": frames,
                "rows_lost": recorded - count,
            },
        }
        assert settings.features is not None
        index = add_to_dataset(dataset, episode, rows.first(count), settings.features, results, notes)
        return Recovered(episode.path, index, count, recorded, frames)

    def _short(self) -> int:
        """Return the number of frames that an interruption may cost."""
        return max(_SHORT_FRAMES, int(_SHORT_SECONDS * self._episode.settings.fps))

    def _check_nothing(self, rows: int, frames: Mapping[str, int]) -> None:
        """Check that an episode without frames is only too short, not damaged, before it is deleted.

        Raises:
            SourceError: there is more than an interruption in the first seconds leaves.
        """
        most, least = max(frames, key=lambda key: frames[key]), min(frames, key=lambda key: frames[key])
        if not rows and frames[most]:
            raise SourceError(
                f"{self._episode.rows}: its first row is missing or damaged, but {most} has "
                f"{frames[most]} frames; repair that line by hand"
            )
        if max(rows, frames[most]) > self._short():
            raise SourceError(
                f"{self._episode.path}: no frame of {least} can be read, of {rows} rows and {frames[most]} "
                f"frames of {most}; copy what you need from it"
            )

    def _frames(self, camera: RecordedCamera) -> int:
        """Return the number of a camera's readable frames, from the first one on."""
        episode = self._episode
        if camera.way != "live":
            self._images[camera.key] = images = _whole_images(episode, camera)
            return len(images)
        source = episode.video(camera)
        if not source.exists() or not drop_torn_end(source):
            return 0  # interrupted before its first fragment
        info = probe(source, times=True, ffprobe=self._toolchain.ffprobe)
        # A power failure may leave zeros instead of data, which only decoding detects. FFmpeg cannot even
        # copy the packets before them in the same fragment.
        damage = check_decoding(source, info, candidates=self._candidates)
        if damage:  # truncate a copy only: another FFmpeg may be able to read the original
            source = shutil.copyfile(source, episode.finished / f"{camera.key}.whole.mp4")
        while damage and info.frames > damage[0].first:
            if not drop_last_fragment(source):
                raise SourceError(
                    f"{episode.video(camera)}: its first frames cannot be decoded: {damage[0].reason}"
                )
            info = probe(source, times=True, ffprobe=self._toolchain.ffprobe)
        self._videos[camera.key] = source, info
        return whole_frames(info, episode.settings.fps)

    def _common(self, most: int) -> int:
        """Return the greatest number of frames that every camera has, and at which all files can be cut."""
        fps = self._episode.settings.fps
        count = most
        for _ in range(most):
            fewer = min((whole_frames(info, fps, count) for _, info in self._videos.values()), default=count)
            if fewer == count:
                break
            count = fewer
        return count

    def _result(self, camera: RecordedCamera, count: int) -> CameraResult:
        if camera.way == "live":
            return self._video(camera, count)
        images = ImageFiles(self._images[camera.key].paths[:count])
        if camera.way == "images":
            statistics = recorded_statistics(self._episode, camera, count, images, self._toolchain)
            return CameraResult(images, statistics)
        header = images.check()
        check_from_dataset(camera.config.extra_options, f"{self._episode.path}: {camera.key}: extra_options")
        encoding = prepare(
            camera.config,
            first_frames(images, header, camera.config, 2, camera.unit, camera.transform),
            width=camera.width,
            height=camera.height,
            fps=self._episode.settings.fps,
            frames=raw_format(camera.config) if camera.depth else "png",
            candidates=self._candidates,
            transform=camera.transform,
        )
        return encode_images(self._episode, camera, encoding, images)

    def _video(self, camera: RecordedCamera, count: int) -> CameraResult:
        episode, toolchain = self._episode, self._toolchain
        source, info = self._videos[camera.key]
        fps = episode.settings.fps
        # An episode of an older version has another time base, with which joining would fail.
        if count < info.frames or info.time_base != Fraction(1, time_scale(fps)):
            cut = episode.finished / f"{camera.key}.cut.mp4"
            cut_file(source, cut, first=0, frames=count, fps=fps, tag=info.tag, toolchain=toolchain)
            source, info = cut, probe(cut, times=True, ffprobe=toolchain.ffprobe)
        result, found = remux(
            *(episode, camera, source, info, toolchain),
            lambda path: verify_recovered(camera, episode, path, count, toolchain),
        )
        statistics = recorded_statistics(episode, camera, count, (result, found), toolchain)
        return CameraResult(FinishedVideo(result, found), statistics)


def _whole_images(episode: UnfinishedEpisode, camera: RecordedCamera) -> ImageFiles:
    """Return a camera's images, up to the first that is missing or incomplete."""
    paths: list[Path] = []
    for path in episode.images_from(camera, 0):
        try:
            decode_image(path.read_bytes(), str(path))
        except SourceError:
            break
        paths.append(path)
    return ImageFiles(paths)
