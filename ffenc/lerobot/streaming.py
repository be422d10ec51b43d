"""LeRobot's ``StreamingVideoEncoder``: each camera's frames are passed to an ffmpeg while recording."""

from __future__ import annotations

import atexit
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy.typing as npt

from ffenc.config.framerate import parse_fps
from ffenc.errors import ConfigError, FfencError
from ffenc.lerobot.camera import Encodings, StreamedCamera
from ffenc.lerobot.options import Options, settings_of
from ffenc.lerobot.take import StreamedTake
from ffenc.recording.feed import FrameRing
from ffenc.recording.rows import Features
from ffenc.recording.unfinished import (
    delete_episode,
    interrupted_episodes,
    recording_lock,
)
from ffenc.spelling import argument
from ffenc.words import count, ranges

_log = logging.getLogger("ffenc.lerobot")

_HELP = "Use a faster codec or preset, or a larger encoder_queue_maxsize"


class StreamingVideoEncoder:
    """Encodes the cameras of an episode while they are recorded; replaces LeRobot's class of this name.

    Each camera has a ring of frames, a thread that passes them on, and an ffmpeg. The files of an episode are
    in ``ROOT/.recording`` until LeRobot has saved it; after a crash they can be read except for about the
    last second.

    Args:
        fps: frames per second.
        rgb_encoder, depth_encoder: LeRobot's settings for colour and depth cameras; None: its defaults.
        queue_maxsize: number of frames per camera that may wait for the encoder, 1 or more.
        encoder_threads: number of threads per encoder; None: the encoder's default.

    Attributes:
        options: set on the class by :func:`ffenc.lerobot.use`.

    Raises:
        ConfigError: an invalid setting.
    """

    options: ClassVar[Options] = Options()

    def __init__(
        self,
        fps: int,
        rgb_encoder: Any = None,
        depth_encoder: Any = None,
        queue_maxsize: int = 30,
        encoder_threads: int | None = None,
    ) -> None:
        from lerobot.configs import depth_encoder_defaults, rgb_encoder_defaults  # noqa: PLC0415

        self.fps = fps
        self._rate = parse_fps(fps)
        self._rgb_encoder = rgb_encoder or rgb_encoder_defaults()
        self._depth_encoder = depth_encoder or depth_encoder_defaults()
        preset = self.options.preset
        if preset is not None:
            encoder_threads = preset.encoder_threads if encoder_threads is None else encoder_threads
            if "queue_maxsize" in preset.given:
                queue_maxsize = preset.queue_maxsize
        if queue_maxsize < 1:
            raise ConfigError(
                f"encoder_queue_maxsize={queue_maxsize} is not accepted: memory for waiting "
                "frames is allocated in advance. Set it to 1 frame or more (30: a second)"
            )
        self.queue_maxsize = queue_maxsize
        self._encoder_threads = encoder_threads
        if preset is None:  # invalid settings are rejected here, before a robot moves, not at the first frame
            settings_of(self._rgb_encoder).get_codec_options(encoder_threads)
        self._encodings = Encodings(self._rate, encoder_threads)
        self._rings: dict[str, FrameRing] = {}
        self._examined: set[str] = set()  # depth cameras of which the range has been compared with a frame
        self._take: StreamedTake | None = None
        self._threads: dict[str, StreamedCamera] = {}
        self._dropped_frames: dict[str, int] = {}
        self._lock: contextlib.ExitStack | None = None
        self._closed = False

    @property
    def _episode_active(self) -> bool:
        return self._take is not None and not self._take.finished

    def start_episode(
        self, video_keys: list[str], temp_dir: Path, depth_video_keys: list[str] | None = None
    ) -> None:
        """Start an episode; one that is being recorded is cancelled.

        Args:
            video_keys: the cameras' features.
            temp_dir: the dataset's folder.
            depth_video_keys: those of them that are depth cameras.
        """
        self.cancel_episode()
        self._delete_take()
        self._dropped_frames.clear()
        self._keep(Path(temp_dir))
        depth = set(depth_video_keys or ())
        self._threads = {
            key: StreamedCamera(key, self, self._depth_encoder if key in depth else self._rgb_encoder)
            for key in video_keys
        }
        self._take = StreamedTake(Path(temp_dir), self._rate, self._threads)

    def _keep(self, root: Path) -> None:
        """Lock the dataset for this recording, and report interrupted episodes of earlier ones."""
        if self._lock is not None:
            return
        with contextlib.ExitStack() as resources:
            resources.enter_context(recording_lock(root))
            left = interrupted_episodes(root)
            if left:
                _log.warning(
                    "%s: %s contains %s; recover with `ffenc recover %s`",
                    *(root, left[0].parent, count(len(left), "interrupted episode"), root),
                )
            self._lock = resources.pop_all()
        # What a program that ends leaves open is closed too late: frames in memory need their threads.
        atexit.register(self.leave_episode)

    def feed_frame(self, video_key: str, image: npt.NDArray[Any]) -> None:
        """Copy a frame and queue it for the camera's encoder, without waiting for the encoder.

        Args:
            video_key: the camera's feature.
            image: ``(H, W, 3)`` or ``(3, H, W)``, uint8, or floats from 0 to 1. Depth: ``(H, W)``,
                ``(H, W, 1)`` or ``(1, H, W)``, integers in millimetres or floats in metres.

        Raises:
            RuntimeError: no episode is being recorded, or the encoder has failed; the text says why.
        """
        take = self._take
        if take is None or take.finished:
            raise RuntimeError("No active episode. Call start_episode() first.")
        try:
            repeated = self._threads[video_key].feed(image, take)
        except FfencError as error:
            raise RuntimeError(f"Encoder for {video_key} crashed: {error}") from error
        if repeated:
            self._say_repeated(video_key)

    def _say_repeated(self, key: str) -> None:
        self._dropped_frames[key] = count = self._dropped_frames.get(key, 0) + 1
        if count == 1 or count % 10 == 0:
            help_ = _help_depth() if self._threads[key].depth else _HELP
            _log.warning(
                "%s: its encoder is %d frames behind; %d frame(s) of this episode repeat the "
                "previous one. %s",
                *(key, self.queue_maxsize, count, help_),
            )

    def finish_episode(self) -> dict[str, tuple[Path, dict[str, Any] | None]]:
        """Wait for the encoders, and read their files back.

        Returns:
            Camera -> its file, in a folder of its own, and statistics in the form of LeRobot's encoder
            (arrays of shape ``(C,)``, colours from 0 to 255), None for fewer than two frames.

        Raises:
            RuntimeError: no episode is being recorded, or an encoder has failed. The recorded files are kept
                for ``ffenc recover``.
        """
        take = self._take
        if take is None or take.finished:
            raise RuntimeError("No active episode to finish.")
        take.finished = True
        try:
            results = take.finish()
        except FfencError as error:
            self._leave()
            raise RuntimeError(f"Encoder failed: {error}") from error
        except BaseException:
            self._leave()
            raise
        for key, camera in self._threads.items():
            if camera.repeated:
                _log.warning(
                    "Episode finished: %s repeats %d of %d frames, at rows %s, because its "
                    "encoder was behind",
                    *(key, len(camera.repeated), camera.frames, ranges(camera.repeated)),
                )
        if not take.logged:
            self._delete_take()
        return results

    def episode_saved(self) -> None:
        """Delete the files for recovery, once LeRobot has the finished episode."""
        if self._take is not None and self._take.finished:
            self._delete_take()

    def begin_rows(self, features: Features, robot_type: str | None, task: str) -> None:
        """Start to write the episode's rows to disk, beside its frames.

        Args:
            features: LeRobot's description of a row's values other than frames.
            robot_type: LeRobot's name for the robot.
            task: task of the first row.
        """
        if self._take is not None:
            self._take.begin_rows(features, robot_type, task)

    def add_row(self, values: Mapping[str, Any]) -> None:
        """Write the row of the frames that were fed last."""
        if self._take is not None:
            self._take.add_row(values)

    def cancel_episode(self) -> None:
        """End the current episode, and delete it."""
        if self._episode_active:
            assert self._take is not None
            self._take.finished = True
            self._take.cancel()
            self._delete_take()

    def leave_episode(self) -> None:
        """End the current episode without saving it. Its files are kept if its rows are there too."""
        take = self._take
        if not self._episode_active or take is None:
            return
        if take.logged:
            self._leave()
        else:
            self.cancel_episode()

    def _leave(self) -> None:
        take = self._take
        assert take is not None
        take.finished = True
        take.leave()
        self._take = None
        self._threads = {}
        if take.path is not None and take.path.exists():
            _log.warning(
                "the episode was not saved; %d rows are kept in %s: `ffenc recover %s` recovers them",
                *(take.rows, take.path, take.root),
            )

    def _delete_take(self) -> None:
        take, self._take = self._take, None
        self._threads = {}
        if take is not None and take.path is not None:
            with contextlib.suppress(OSError):
                delete_episode(take.path)

    def close(self) -> None:
        """End the current episode as :meth:`leave_episode` does, and unlock the dataset.

        LeRobot closes the encoder when a dataset is finalised or deleted, also after an exception; only
        ``clear_episode_buffer`` says that an episode is not wanted.
        """
        if self._closed:
            return
        self.leave_episode()
        atexit.unregister(self.leave_episode)
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        self._closed = True


def _help_depth() -> str:
    return (
        f"{argument('depth_encoder.preset', 'ultrafast')} is three times as fast, also lossless, and "
        "a third larger; or use a larger encoder_queue_maxsize"
    )
