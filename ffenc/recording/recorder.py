"""Record cameras to a LeRobot dataset, episode by episode."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from msgspec.structs import replace

from ffenc.arguments import checked_path, listed
from ffenc.config.framerate import parse_fps
from ffenc.config.preset import RobotPreset, camera_key, camera_name, load_preset
from ffenc.config.texts import check_text
from ffenc.dataset.commit import RECORDINGS, finish_commits
from ffenc.dataset.episode_columns import check_features
from ffenc.dataset.growing import GrowingDataset
from ffenc.errors import ConfigError, DestinationError, FfencError, FfencWarning
from ffenc.recording.arguments import check_preset, check_stall, kind_of
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
from ffenc.words import count

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_TASK = "unspecified"
_STALL_SECONDS = 60.0


class Recorder:
    """Records cameras and rows to a LeRobot v3.0 dataset, which grows episode by episode.

    ::

        with Recorder("so101", "my_dataset", task="pick up the cube") as recorder:
            recorder.start_episode()
            for _ in range(300):
                recorder.write("front", front_image)  # (480, 640, 3) uint8 RGB
                recorder.write("wrist", wrist_image)
                recorder.add_row(state=joints, action=command)
            recorder.save_episode()

    Each camera has its own ffmpeg, a ring of frames, and a thread that writes them. A frame belongs to the
    row that is added next, and encoders get it only then. So every camera has as many frames as the table has
    rows, whatever is dropped.

    While an episode is recorded, its files are in ``ROOT/.recording``, and are readable except for about the
    last second. A saved episode adds files to the dataset and changes none. :func:`recover` restores
    interrupted episodes.

    Args:
        preset: a robot's preset, its name or path, or a :class:`RobotPreset`; every camera needs ``width``
            and ``height``.
        root: the dataset: a new folder, or an existing dataset with the same cameras, settings and rate.
        task: the task's text, for episodes that are started without one.
        features: LeRobot's descriptions of the rows' values, with their names; None: those of the dataset, or
            of the first row.
        jpeg: cameras whose frames are JPEG images, as bytes, instead of arrays.
        stall_seconds: greatest time in which an encoder neither accepts a frame nor ends, more than 0.
        ffmpeg, ffprobe: programs to use instead of those that are found.

    Raises:
        ConfigError: a preset without cameras or sizes, settings that cannot be encoded, or settings that
            differ from the dataset's; the text lists them.
        DestinationError: the folder is not such a dataset, or another run is recording to it.
        ToolchainError: no FFmpeg on this machine can do it.
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
        self.root = checked_path("root", root).absolute()  # the program may change its folder
        if "\n" in str(self.root):
            # In FFmpeg's lists of files for copying packets, each file is one line.
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
        self._jpeg = {camera_name(name) for name in listed("jpeg", jpeg, "cameras")}
        self._programs = (ffmpeg, ffprobe)
        self._resources = contextlib.ExitStack()
        self._channels: dict[str, Channel] = {}
        self._dataset: GrowingDataset | None = None
        self._take: Take | None = None
        # ID of the recording process, while it is open: its threads do not exist in a fork
        self._owner: int | None = None
        self._check_lock: Callable[[], None] = lambda: None
        self._ending = threading.Lock()  # held while an episode is saved or discarded
        check_preset(self.preset, self._jpeg)
        check_text("task", task)
        check_text("robot_type", self.preset.robot_type)
        check_stall(stall_seconds)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as resources:
            self._check_lock = resources.enter_context(recording_lock(self.root))
            finish_commits(self.root)
            interrupted = interrupted_episodes(self.root)
            if interrupted:
                warnings.warn(
                    f"{self.root}: {interrupted[0].parent} contains "
                    f"{count(len(interrupted), 'interrupted episode')}; recover with {recovery(self.root)}",
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
        # For a program that ends without leaving the block, such as a notebook's: later no thread runs that
        # could pass waiting frames on.
        atexit.register(self.__exit__, None, None, None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._owner:
            return  # in a fork: the open files and the episode belong to the other process
        atexit.unregister(self.__exit__)
        self._owner = None
        with self._resources, self._ending:
            if self._take is not None:
                self._leave()

    def start_episode(self, task: str | None = None) -> None:
        """Start an episode.

        Args:
            task: its text; None: the recorder's.

        Raises:
            ConfigError: an episode is being recorded.
            DestinationError: the folder cannot be written, or another program has changed or removed the
                dataset since it was opened.
            ToolchainError: an encoder cannot be started.
        """
        self._check_owner()
        assert self._dataset is not None
        if self._take is not None:
            if self._take.ended:
                raise ConfigError("the last episode is still being saved or discarded; wait for that")
            if self._take.error is None:
                raise ConfigError("an episode is being recorded; save it or discard it first")
            self._leave()
        self._check_lock()
        self._dataset.check_unchanged()
        # In a new dataset the first row determines them; again, if that episode was discarded.
        self._features = self.features
        cameras = [channel.camera for channel in self._channels.values()]
        check_text("task", task)
        settings = Settings(task or self._task, self._fps, self.preset.robot_type, self._features, cameras)
        with Uninterrupted():
            self._take = begun(self.root, settings, self._channels, self.preset, self._stall_seconds)

    def write(
        self, camera: str, frame: npt.NDArray[Any] | bytes | None, timestamp: float | None = None
    ) -> None:
        """Set a camera's frame for the next row. It is copied; the buffer can be reused.

        Args:
            camera: its name, with or without ``observation.images.``.
            frame: RGB, shape ``(H, W, 3)``, uint8. Depth: ``(H, W)`` or ``(H, W, 1)``, uint16 millimetres, or
                float32 metres with ``depth_unit: m``. For a camera in ``jpeg``: the bytes of a JPEG image.
                None: there is no new frame; the previous one is stored again, and counted as repeated.
            timestamp: time of the frame in seconds, by any clock, any type of finite number; stored in the
                episode's notes.

        Raises:
            ConfigError: an unknown camera, a wrong shape or dtype, a second frame for the same row, None for
                the first row, a timestamp that is not a number, or no episode is being recorded.
            FfencError: the camera's encoder has ended; the text contains its last messages.
        """
        give(self._current(), camera, frame, timestamp)

    def add_row(
        self, row: Mapping[str, Any] | None = None, *, state: Any = None, action: Any = None
    ) -> AddedRow:
        """Add a row to the table, with the frames written since the last row.

        Args:
            row: values by feature name: numbers, lists of numbers, texts. Every row has the same names, with
                values of the same shape.
            state: value of ``observation.state``.
            action: value of ``action``.

        Returns:
            The row's index in the episode, or the cameras whose encoders were too slow, so that it was
            dropped; and the cameras that repeat their previous frame.

        Raises:
            ConfigError: a camera has no frame for the row, or the values do not match the features.
            DestinationError: the disk is full, or the row cannot be written for another reason.
        """
        take = self._current()
        if row is not None and not isinstance(row, Mapping):
            raise ConfigError(f"a row is a mapping of names to values, not {kind_of(row)}")
        values = dict(row or {})
        for argument, name, value in (("state", STATE, state), ("action", ACTION, action)):
            if value is None:
                continue
            if name in values:
                raise ConfigError(f"the row has {name!r}, and {argument} is given too; pass one of them")
            values[name] = value
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
                # The robot's loop does not wait for the disk.
                take.episode.write_settings(replace(take.episode.settings, features=features), flush=False)
            self._features = features
            with Uninterrupted(), take.lock:
                check_ended(take)
                return add_row(take, checked, self._index)
        except FfencError as error:
            check_ended(take)  # by another thread in the meantime
            take.error = gone(take) or error
            raise take.error from None
        except OSError as error:
            failed = DestinationError(f"{take.log.path}: cannot be written: {error.strerror}")
            take.error = gone(take) or failed
            raise take.error from None

    def save_episode(self, on_frames: Callable[[int, int], None] | None = None) -> SavedEpisode:
        """End the episode and add it to the dataset, after reading back every camera's file.

        Args:
            on_frames: called with the number of frames encoded so far, and of all, over all cameras, if
                frames are encoded now; from other threads.

        Returns:
            The saved episode.

        Raises:
            ConfigError: there is no episode, or it has no rows.
            FfencError: an encoder has failed, or a file is not what was requested: the episode is kept in
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
        """End the episode and delete it.

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
        """Return the current status, for a display: cheap, but for one thread at a time."""
        take = self._take
        if take is None:
            return RecorderStatus(self._index, False, 0, 0, {})
        return RecorderStatus(self._index, True, take.rows, take.dropped, camera_statuses(take))

    @property
    def cameras(self) -> dict[str, RecordedCamera]:
        """The recorded cameras by name: size, codec, encoder; empty before the recorder is open."""
        return {name: channel.camera for name, channel in self._channels.items()}

    @property
    def task(self) -> str:
        """The text of episodes that are started without one."""
        return self._task

    @property
    def features(self) -> Features | None:
        """The features of a row, without cameras; None until the first row of a new dataset."""
        known = self._dataset.features if self._dataset is not None else None
        return _copied(known) if known is not None else self._given

    def plan(self) -> dict[str, tuple[RecordedCamera, list[str] | None]]:
        """Return how each camera would be recorded, and the command line of its ffmpeg, if any.

        The encoders are tried; nothing is written, and the recorder need not be open.

        Raises:
            ConfigError: settings that cannot be encoded.
            ToolchainError: no FFmpeg on this machine can do it.
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
        if self._owner is None:
            raise ConfigError("the recorder is not open: use it in a with statement")
        if self._owner != os.getpid():
            raise ConfigError(
                f"this recorder belongs to process {self._owner}, of which this is a fork; use it there"
            )

    @contextlib.contextmanager
    def _ended(self, take: Take) -> Iterator[None]:
        """Accept no more rows: writes of other threads are refused from now on, without waiting."""
        with self._ending:
            with take.lock:
                check_ended(take)
                take.ended = True
            yield

    def _check_there(self, take: Take) -> None:
        """Refuse to save if the episode or the dataset was moved or deleted.

        Raises:
            DestinationError: names what is missing.
        """
        assert self._dataset is not None
        missing = gone(take)
        if missing is not None:
            raise missing
        self._check_lock()
        self._dataset.check_unchanged()

    def _leave(self) -> None:
        """End an episode that is neither saved nor discarded: its files are kept for :func:`recover`."""
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
