"""Record cameras into a LeRobot dataset, episode by episode."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt
from msgspec.structs import replace

from ffenc.config.framerate import parse_fps
from ffenc.config.preset import RobotPreset, camera_key, camera_name, load_preset
from ffenc.dataset.commit import RECORDINGS, finish_commits
from ffenc.dataset.episode_columns import check_features
from ffenc.dataset.growing import GrowingDataset
from ffenc.errors import ConfigError, DestinationError, FfencError, FfencWarning
from ffenc.recording.arguments import check_preset, check_robot_type, check_task, kind_of
from ffenc.recording.begin import begun, storing_command
from ffenc.recording.channels import prepared_channels
from ffenc.recording.results import AddedRow, RecorderStatus, SavedEpisode
from ffenc.recording.rows import (
    ACTION,
    STATE,
    Features,
    checked_row,
    features_of_row,
)
from ffenc.recording.save import put_into_dataset
from ffenc.recording.take import (
    Channel,
    Take,
    abandon,
    add_row,
    camera_statuses,
    check_ended,
    end,
    give,
    gone,
    recovery,
    warn_kept,
)
from ffenc.recording.unfinished import (
    RecordedCamera,
    Settings,
    UnfinishedEpisode,
    delete_episode,
    interrupted_episodes,
    recording_lock,
)
from ffenc.recording.uninterrupted import Uninterrupted

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_TASK = "unspecified"
_STALL_SECONDS = 60.0

StoredFormat = Literal["rgb24", "jpeg"]


class Recorder:
    """Records cameras and rows into a LeRobot v3.0 dataset, which grows episode by episode.

    ::

        with Recorder("so101", "my_dataset", task="pick up the cube") as recorder:
            recorder.start_episode()
            for _ in range(300):
                recorder.write("front", front_image)  # (480, 640, 3) uint8 RGB
                recorder.write("wrist", wrist_image)
                recorder.add_row(state=joints, action=command)
            recorder.save_episode()

    Each camera has one ffmpeg, a ring of frames, and a thread that passes them on. A frame belongs to the row
    that is added next: only then the encoders get it, so that every camera has as many frames as the table
    has rows, whatever is dropped.

    While an episode is recorded its files lie in ``ROOT/.recording``, readable to the last second or so; a
    saved episode adds files to the dataset and changes none. :func:`recover` brings interrupted ones back.

    Args:
        preset: a robot's preset, its name or path, or a :class:`RobotPreset`; every camera needs ``width``
            and ``height``.
        root: the dataset: a new folder, or one to add episodes to, of the same cameras, settings and rate.
        task: the task's text, for all episodes that are started without one.
        features: LeRobot's descriptions of the rows' values, with their names; None: taken from the dataset,
            else from the first row.
        jpeg: cameras that give JPEG images, as bytes, instead of arrays.
        stall_seconds: an encoder that neither takes a frame nor ends in this time is given up.
        ffmpeg, ffprobe: programs to use instead of those found.

    Raises:
        ConfigError: a preset without cameras or sizes, settings that cannot be encoded, or others than the
            dataset's; the text lists them.
        DestinationError: the folder is something else, or another run records into it.
        ToolchainError: no FFmpeg here can do it.
    """

    def __init__(
        self,
        preset: str | Path | RobotPreset,
        root: str | Path,
        *,
        task: str = DEFAULT_TASK,
        features: Mapping[str, Mapping[str, Any]] | None = None,
        jpeg: frozenset[str] | set[str] = frozenset(),
        stall_seconds: float = _STALL_SECONDS,
        ffmpeg: str | None = None,
        ffprobe: str | None = None,
    ) -> None:
        self.preset = preset if isinstance(preset, RobotPreset) else load_preset(preset)
        self.root = Path(root)
        if "\n" in str(self.root.absolute()):
            # FFmpeg's lists of files, by which packets are copied, have a file a line.
            raise ConfigError(
                f"{str(self.root)!r}: cannot record into a folder with a line break in its name"
            )
        self._task = task
        self._stall_seconds = stall_seconds
        self._fps = parse_fps(self.preset.fps)
        if features is not None:
            check_features(features, {camera_key(name): None for name in self.preset.cameras})
        self._given = _copied(features)
        self._features = self._given
        self._jpeg = {camera_name(name) for name in jpeg}
        self._programs = (ffmpeg, ffprobe)
        self._resources = contextlib.ExitStack()
        self._channels: dict[str, Channel] = {}
        self._dataset: GrowingDataset | None = None
        self._take: Take | None = None
        self._owner: int | None = None  # the process that records: forked ones have no threads
        self._check_lock: Callable[[], None] = lambda: None
        self._ending = threading.Lock()  # held while an episode is saved or discarded
        check_preset(self.preset, self._jpeg)
        check_task(task)
        check_robot_type(self.preset.robot_type)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as resources:
            self._check_lock = resources.enter_context(recording_lock(self.root))
            finish_commits(self.root)
            interrupted = interrupted_episodes(self.root)
            if interrupted:
                warnings.warn(
                    f"{self.root}: {len(interrupted)} interrupted episodes are kept in "
                    f"{interrupted[0].parent}; {recovery(self.root)} recovers them",
                    FfencWarning,
                    stacklevel=2,
                )
            self._channels = self._prepared()
            self._dataset = GrowingDataset(
                self.root,
                fps=self._fps,
                robot_type=self.preset.robot_type,
                cameras=[channel.camera.growing() for channel in self._channels.values()],
                features=self._given,
            )
            self._resources = resources.pop_all()
        self._owner = os.getpid()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._owner:
            return  # a fork of it: all that is open, and the episode, are the other process's
        with self._resources, self._ending:
            if self._take is not None:
                self._leave()

    def start_episode(self, task: str | None = None) -> None:
        """Begin an episode.

        Args:
            task: its text; None: the recorder's.

        Raises:
            ConfigError: one is being recorded.
            DestinationError: the folder cannot be written, or the dataset was changed or removed by someone
                else since it was opened.
            ToolchainError: an encoder cannot be started.
        """
        if self._dataset is None:
            raise ConfigError("the recorder is not open: use it in a with statement")
        self._check_owner()
        if self._take is not None:
            if self._take.error is None:
                raise ConfigError("an episode is being recorded; save it or discard it first")
            self._leave()
        self._check_lock()
        self._dataset.check_unchanged()
        # Of a new dataset the first row says them, and of its next where the first episode was discarded.
        self._features = self.features
        cameras = [channel.camera for channel in self._channels.values()]
        check_task(task)
        settings = Settings(task or self._task, self._fps, self.preset.robot_type, self._features, cameras)
        with Uninterrupted():
            self._take = begun(self.root, settings, self._channels, self.preset, self._stall_seconds)

    def write(
        self, camera: str, frame: npt.NDArray[Any] | bytes | None, timestamp: float | None = None
    ) -> None:
        """Give a camera's frame for the row to come. It is copied; the buffer can be used again.

        Args:
            camera: its name, with or without ``observation.images.``.
            frame: RGB, shape ``(H, W, 3)``, uint8. Depth: ``(H, W)`` or ``(H, W, 1)``, uint16 millimetres, or
                float32 metres where ``depth_unit: m`` says so. Bytes of a JPEG image, of a camera that gives
                those. None: no new frame has come; the one before is stored again, and counted.
            timestamp: when it was taken, in seconds by any clock, any kind of finite number; kept beside the
                episode.

        Raises:
            ConfigError: no such camera, a wrong shape or dtype, a second frame for the same row, None for
                the first row, a timestamp that is no number, or no episode is being recorded (any more).
            FfencError: the camera's encoder has ended; the text holds its last words.
        """
        give(self._current(), camera, frame, timestamp)

    def add_row(
        self, row: Mapping[str, Any] | None = None, *, state: Any = None, action: Any = None
    ) -> AddedRow:
        """Add a row to the table, with the frames written since the last.

        Args:
            row: values by the name of their feature: numbers, lists of numbers, texts. The same names, of the
                same shape, in every row.
            state: what ``observation.state`` is.
            action: what ``action`` is.

        Returns:
            its number in the episode, or the cameras that it was dropped for, because their encoders were
            behind; and the cameras that show the frame before again.

        Raises:
            ConfigError: a camera has no frame for it, or the values are not those of the rows before.
            DestinationError: the disk is full, or the row cannot be written for another reason.
        """
        take = self._current()
        if row is not None and not isinstance(row, Mapping):
            raise ConfigError(f"a row is a mapping of names to values, not {kind_of(row)}")
        values = dict(row or {})
        values |= {STATE: state} if state is not None else {}
        values |= {ACTION: action} if action is not None else {}
        without = [n for n, t in take.tracks.items() if not t.feed.written and n not in take.full]
        if without:
            raise ConfigError(
                f"camera {without[0]} has no frame for row {take.rows}: write one, or None to "
                "repeat the previous one"
            )
        features = self._features
        if features is None:
            features = features_of_row(values)
            assert self._dataset is not None
            self._dataset.rehearse(features)
        checked = checked_row(values, features)
        try:
            if take.episode.settings.features is None:
                take.episode.write_settings(replace(take.episode.settings, features=features))
            self._features = features
            with Uninterrupted(), take.lock:
                check_ended(take)
                return add_row(take, checked, self._index)
        except FfencError as error:
            check_ended(take)  # by another thread, while this one went on
            take.error = gone(take) or error
            raise take.error from None
        except OSError as error:
            failed = DestinationError(f"{take.log.path}: cannot be written: {error.strerror}")
            take.error = gone(take) or failed
            raise take.error from None

    def save_episode(self, on_frames: Callable[[int, int], None] | None = None) -> SavedEpisode:
        """End the episode and put it into the dataset, once every camera's file has been read back.

        Args:
            on_frames: called with the frames encoded so far, and in all, of all cameras, where they are
                encoded now; from other threads.

        Raises:
            ConfigError: there is no episode, or it has no rows.
            FfencError: an encoder has failed, or a file is not what it has to be: the episode is kept in
                ``.recording``, for :func:`recover`.
        """
        take = self._current()
        if not take.rows:
            raise ConfigError("the episode has no rows to save; end it with discard_episode")
        with self._ended(take):
            return self._save(take, on_frames)

    def _save(self, take: Take, on_frames: Callable[[int, int], None] | None) -> SavedEpisode:
        began = time.monotonic()
        if take.error is not None:
            self._leave()
            raise take.error
        assert self._dataset is not None
        assert self._features is not None
        try:
            end(take)
            self._check_there(take)
            waited = time.monotonic() - began
            saved = put_into_dataset(take, self._dataset, self.preset, self._features, on_frames)
        except BaseException as error:
            self._take = None
            abandon(take)
            warn_kept(take, self.root, error)
            if isinstance(error, OSError):
                place = error.filename or take.episode.path
                raise DestinationError(f"{place}: {error.strerror or error}") from error
            raise
        self._take = None
        seconds = time.monotonic() - began
        repeated = {name: track.repeated for name, track in take.tracks.items()}
        return SavedEpisode(saved.index, saved.rows, seconds, waited, saved.sizes, take.dropped, repeated)

    def discard_episode(self) -> None:
        """End the episode and delete all of it.

        Raises:
            ConfigError: there is none.
        """
        take = self._current()
        with self._ended(take):
            self._take = None
            abandon(take)
            with contextlib.suppress(OSError):
                delete_episode(take.episode.path)

    def status(self) -> RecorderStatus:
        """Return what goes on, for a screen: cheap, but for one thread at a time."""
        take = self._take
        if take is None:
            return RecorderStatus(self._index, False, 0, 0, {})
        return RecorderStatus(self._index, True, take.rows, take.dropped, camera_statuses(take))

    @property
    def cameras(self) -> dict[str, RecordedCamera]:
        """What is recorded, by name: size, codec, encoder; nothing before it is open."""
        return {name: channel.camera for name, channel in self._channels.items()}

    @property
    def task(self) -> str:
        """The text of episodes that are started without one."""
        return self._task

    @property
    def features(self) -> Features | None:
        """What each row has to hold beside frames; None until the first row of a new dataset."""
        known = self._dataset.features if self._dataset is not None else None
        return _copied(known) if known is not None else self._given

    def plan(self) -> dict[str, tuple[RecordedCamera, list[str] | None]]:
        """Return how each camera would be recorded, and with what its ffmpeg would be run, if any.

        The encoders are tried; nothing is written, and the recorder need not be open.

        Raises:
            ConfigError: settings that cannot be encoded.
            ToolchainError: no FFmpeg here can do it.
        """
        channels = self._channels or self._prepared()
        cameras = [channel.camera for channel in channels.values()]
        settings = Settings(self._task, self._fps, self.preset.robot_type, self._features, cameras)
        episode = UnfinishedEpisode(self.root / RECORDINGS / "EPISODE", settings)
        return {
            name: (channel.camera, storing_command(channel, episode, None))
            for name, channel in channels.items()
        }

    def _prepared(self) -> dict[str, Channel]:
        ffmpeg, ffprobe = self._programs
        return prepared_channels(self.preset, self._fps, self._jpeg, ffmpeg=ffmpeg, ffprobe=ffprobe)

    @property
    def _index(self) -> int:
        return self._dataset.total_episodes if self._dataset is not None else 0

    def _current(self) -> Take:
        self._check_owner()
        take = self._take
        if take is None:
            raise ConfigError("no episode is being recorded; call start_episode first")
        check_ended(take)
        return take

    def _check_owner(self) -> None:
        if self._owner not in (None, os.getpid()):
            raise ConfigError(
                f"this recorder belongs to process {self._owner}, of which this is a fork; use it there"
            )

    @contextlib.contextmanager
    def _ended(self, take: Take) -> Iterator[None]:
        """Take no more rows: what other threads write from now on is refused, not waited with."""
        with self._ending:
            with take.lock:
                check_ended(take)
                take.ended = True
            yield

    def _check_there(self, take: Take) -> None:
        """Refuse to save where the episode, or the dataset, is not in its place any more.

        Raises:
            DestinationError: says what is gone.
        """
        assert self._dataset is not None
        missing = gone(take)
        if missing is not None:
            raise missing
        self._check_lock()
        self._dataset.check_unchanged()

    def _leave(self) -> None:
        """End an episode that is neither saved nor discarded: what is on disk stays, for :func:`recover`."""
        take = self._take
        assert take is not None
        take.ended = True
        self._take = None
        error: BaseException | None = take.error
        try:
            end(take)
        except FfencError as found:
            error = error or found
        except BaseException as found:
            abandon(take)
            warn_kept(take, self.root, found)
            raise
        warn_kept(take, self.root, error)


def _copied(features: Mapping[str, Mapping[str, Any]] | None) -> Features | None:
    return {name: dict(feature) for name, feature in features.items()} if features is not None else None
