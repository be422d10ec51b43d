"""LeRobot's ``StreamingVideoEncoder``: each camera's frames go to an ffmpeg of its own while they come."""

from __future__ import annotations

import contextlib
import logging
import queue
import shutil
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import psutil

from ffenc.codecs.pixel_formats import pixel_format
from ffenc.codecs.table import codec_for
from ffenc.compiler.frames import SampleTap, raw_format
from ffenc.config.encoder import VideoEncoderConfig
from ffenc.config.framerate import parse_fps
from ffenc.config.preset import camera_name
from ffenc.dataset.info_block import encoding_block
from ffenc.errors import ConfigError, FfencError
from ffenc.ffmpeg.index import PieceReader
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.process import Buffer, FfmpegProcess
from ffenc.frames.depth import Unit
from ffenc.frames.depth_images import DepthSamples, DepthStatistics, depth_unit
from ffenc.frames.encoding import Encoding
from ffenc.frames.prepare import Absent, prepare
from ffenc.frames.statistics import RgbHistogram, Stats
from ffenc.jobs.pool import run_units
from ffenc.lerobot.notes import remember_encoder
from ffenc.lerobot.options import Options, is_depth, settings_of
from ffenc.recording.feed import Feed, FrameRing
from ffenc.recording.finish import finish_video
from ffenc.recording.flush import Flusher
from ffenc.recording.recorder import FRAGMENT_SECONDS
from ffenc.recording.rows import Features, RowLog, checked_row
from ffenc.recording.samples import SampleLog
from ffenc.recording.trial import trial_frames
from ffenc.recording.unfinished import (
    RecordedCamera,
    Settings,
    UnfinishedEpisode,
    delete_episode,
    interrupted_episodes,
    recording_lock,
)
from ffenc.spelling import argument
from ffenc.words import ranges

_log = logging.getLogger("ffenc.lerobot")

_STALL_SECONDS = 60.0
_HELP = "Use a faster codec or preset, or a larger encoder_queue_maxsize"
_Row = tuple[Mapping[str, Any], list[str]]  # values, and the cameras that show the frame before


class StreamingVideoEncoder:
    """Encodes the cameras of an episode while they are recorded; in LeRobot, the class of the same name.

    Each camera has a ring of frames, a thread that passes them on, and an ffmpeg. The files of an episode lie
    in ``ROOT/.recording`` until LeRobot has saved it, readable to the last second or so.

    Args:
        fps: frames a second.
        rgb_encoder, depth_encoder: LeRobot's settings of cameras of colours and of depth; None: its defaults.
        queue_maxsize: how many frames of a camera may wait for its encoder, 1 or more.
        encoder_threads: threads each encoder may use; None leaves it to the encoder.

    Attributes:
        options: set on the class by :func:`ffenc.lerobot.use`.

    Raises:
        ConfigError: a setting that is not accepted.
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
            if "queue_maxsize" in preset.model_fields_set:
                queue_maxsize = preset.queue_maxsize
        if queue_maxsize < 1:
            raise ConfigError(
                f"encoder_queue_maxsize={queue_maxsize} is not accepted: memory for the frames that wait is "
                "taken beforehand. Give a number of frames, 1 or more (30: a second)"
            )
        self.queue_maxsize = queue_maxsize
        self._encoder_threads = encoder_threads
        if preset is None:  # refused here, before a robot moves, rather than at the first frame
            settings_of(self._rgb_encoder).get_codec_options(encoder_threads)
        self._encodings = _Encodings(self._rate, encoder_threads)
        self._rings: dict[str, FrameRing] = {}
        self._take: _Take | None = None
        self._threads: dict[str, _Camera] = {}
        self._dropped_frames: dict[str, int] = {}
        self._lock: contextlib.ExitStack | None = None
        self._closed = False

    @property
    def _episode_active(self) -> bool:
        return self._take is not None and not self._take.finished

    def start_episode(
        self, video_keys: list[str], temp_dir: Path, depth_video_keys: list[str] | None = None
    ) -> None:
        """Begin an episode; one that is being recorded is cancelled.

        Args:
            video_keys: the cameras' features.
            temp_dir: the dataset's folder.
            depth_video_keys: those of them that give depth.
        """
        self.cancel_episode()
        self._delete_take()
        self._dropped_frames.clear()
        self._keep(Path(temp_dir))
        depth = set(depth_video_keys or ())
        self._threads = {
            key: _Camera(key, self, self._depth_encoder if key in depth else self._rgb_encoder)
            for key in video_keys
        }
        self._take = _Take(Path(temp_dir), self._rate, self._threads)

    def _keep(self, root: Path) -> None:
        """Keep the dataset for this recording, and say what an earlier one has left."""
        if self._lock is not None:
            return
        with contextlib.ExitStack() as resources:
            resources.enter_context(recording_lock(root))
            left = interrupted_episodes(root)
            if left:
                _log.warning(
                    "%s: %d interrupted episodes are kept in %s; `ffenc recover %s` brings them back",
                    *(root, len(left), left[0].parent, root),
                )
            self._lock = resources.pop_all()

    def feed_frame(self, video_key: str, image: npt.NDArray[Any]) -> None:
        """Copy a frame, and let the camera's encoder have it; returns at once.

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
                "%s: its encoder is behind by %d frames; %d frame(s) of this episode show the one before. %s",
                *(key, self.queue_maxsize, count, help_),
            )

    def finish_episode(self) -> dict[str, tuple[Path, dict[str, Any] | None]]:
        """Wait for the encoders, and read their files back.

        Returns:
            camera -> its file, in a folder of its own, and its statistics as LeRobot's encoder gives them
            (arrays of shape ``(C,)``, colours from 0 to 255), None of fewer than two frames.

        Raises:
            RuntimeError: no episode is being recorded, or an encoder has failed. What was recorded stays, for
                ``ffenc recover``.
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
                    "Episode finished: %s repeats %d of %d frames, at rows %s: its encoder was behind",
                    *(key, len(camera.repeated), camera.frames, ranges(camera.repeated)),
                )
        if not take.logged:
            self._delete_take()
        return results

    def episode_saved(self) -> None:
        """LeRobot has the finished episode: what was kept of it, to bring it back, is deleted."""
        if self._take is not None and self._take.finished:
            self._delete_take()

    def begin_rows(self, features: Features, robot_type: str | None, task: str) -> None:
        """Keep the episode's rows on disk, beside its frames.

        Args:
            features: LeRobot's description of what a row holds beside frames.
            robot_type: LeRobot's name of the robot.
            task: the first row's.
        """
        if self._take is not None:
            self._take.begin_rows(features, robot_type, task)

    def add_row(self, values: Mapping[str, Any]) -> None:
        """Keep the row of the frames that were fed last."""
        if self._take is not None:
            self._take.add_row(values)

    def cancel_episode(self) -> None:
        """End the episode that is being recorded, and delete it."""
        if self._episode_active:
            assert self._take is not None
            self._take.finished = True
            self._take.cancel()
            self._delete_take()

    def leave_episode(self) -> None:
        """End the episode that is being recorded, and keep what is on disk: something has interrupted it."""
        if self._episode_active:
            self._leave()

    def _leave(self) -> None:
        take = self._take
        assert take is not None
        take.finished = True
        take.leave()
        self._take = None
        self._threads = {}
        if take.path is not None and take.path.exists():
            _log.warning(
                "the episode was not saved; %d rows are kept in %s: `ffenc recover %s` brings them back",
                *(take.rows, take.path, take.root),
            )

    def _delete_take(self) -> None:
        take, self._take = self._take, None
        self._threads = {}
        if take is not None and take.path is not None:
            with contextlib.suppress(OSError):
                delete_episode(take.path)

    def close(self) -> None:
        """End what is being recorded, and let others have the dataset."""
        if self._closed:
            return
        self.cancel_episode()
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        self._closed = True


class _Encodings:
    """How frames of a size are encoded, tried once for all episodes.

    Args:
        fps: frames a second.
        threads: of an encoder.
    """

    def __init__(self, fps: Fraction, threads: int | None) -> None:
        self._fps, self._threads = fps, threads
        self._known: dict[tuple[str, int, int], Encoding] = {}
        self._absent: Absent = {}
        self._readers: dict[str, PieceReader] = {}
        self._lock = threading.Lock()

    def of(self, config: VideoEncoderConfig, width: int, height: int) -> Encoding:
        key = (repr(config), width, height)
        with self._lock:  # cameras of the same settings wait for one trial
            if key not in self._known:
                frames = raw_format(config)
                self._known[key] = prepare(
                    config,
                    trial_frames(width, height, frames),
                    width=width,
                    height=height,
                    fps=self._fps,
                    frames=frames,
                    encoder_threads=self._threads,
                    absent=self._absent,
                )
            return self._known[key]

    def reader(self, ffprobe: str) -> PieceReader:
        """What reads the finished files of all episodes: a process each is for the first only."""
        with self._lock:
            return self._readers.setdefault(ffprobe, PieceReader(ffprobe))


class _Camera:
    """One camera in one episode.

    Args:
        key: its feature.
        owner: whose it is.
        video_encoder: LeRobot's settings.

    Attributes:
        frames: how many it was given.
        repeated: the rows that show the frame before.
    """

    def __init__(self, key: str, owner: StreamingVideoEncoder, video_encoder: Any) -> None:
        self.key, self.video_encoder = key, video_encoder
        self.encoder_threads = owner._encoder_threads
        self.depth = is_depth(video_encoder)
        self.frames = 0
        self.repeated: list[int] = []
        self.sink: _Sink | None = None
        self._owner = owner
        self._feed: Feed | None = None

    def feed(self, image: npt.NDArray[Any], take: _Take) -> bool:
        """Pass a frame on; returns whether the one before is shown instead.

        Raises:
            FfencError: it is no frame of this camera, or the encoder has failed.
        """
        frame = self._checked(image)
        if self._feed is None:
            self._start(frame, take)
        assert self._feed is not None
        assert self.sink is not None
        if frame.shape != self.sink.shape or frame.dtype != self.sink.dtype:
            raise ConfigError(
                f"frame {self.frames} is {frame.dtype} {frame.shape}, the first was {self.sink.dtype} "
                f"{self.sink.shape}"
            )
        self._feed.write(frame)
        repeated = self._feed.repeated
        self._feed.commit()
        if repeated:
            self.repeated.append(self.frames)
        self.frames += 1
        return repeated

    def _checked(self, image: Any) -> npt.NDArray[Any]:
        """A frame as it is encoded: ``(H, W, 3)`` uint8, or ``(H, W)`` depth.

        Raises:
            ConfigError: it is neither.
        """
        frame = np.asarray(image)
        if frame.ndim == 3 and frame.shape[0] in (1, 3):  # LeRobot's rule for channels in front
            frame = frame.transpose(1, 2, 0)
        if self.depth:
            if frame.ndim == 3 and frame.shape[2] == 1:
                frame = frame[..., 0]
            if frame.ndim != 2 or frame.dtype.kind not in "iuf":
                raise ConfigError(f"{frame.dtype} {np.shape(image)} is no depth map; (H, W) numbers are")
            return frame
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype.kind not in "iuf":
            raise ConfigError(f"{frame.dtype} {np.shape(image)} is no RGB frame; (H, W, 3) uint8 is")
        return frame if frame.dtype == np.uint8 else (frame * 255).astype(np.uint8)

    def _start(self, frame: npt.NDArray[Any], take: _Take) -> None:
        owner = self._owner
        ring = owner._rings.get(self.key)
        if ring is None or ring.slots.shape[1:] != frame.shape or ring.slots.dtype != frame.dtype:
            size = owner.queue_maxsize * frame.nbytes
            there = psutil.virtual_memory().available
            if size > there:
                raise ConfigError(
                    f"encoder_queue_maxsize={owner.queue_maxsize} takes {size >> 20} MiB of memory a camera; "
                    f"there are {there >> 20}"
                )
            # Megabytes for a second of frames: LeRobot's loop, which waits here, is not held up for them.
            owner._rings[self.key] = ring = FrameRing(
                frame.shape, frame.dtype, owner.queue_maxsize, at_once=False
            )
        ring.reset()
        self.sink = _Sink(self, owner, take, frame, ring.pipe_bytes)
        self._feed = Feed(
            camera_name(self.key),
            ring,
            self.sink,
            on_full=owner.options.on_full,
            observe=self.sink.observe,
            convert=self.sink.samples_of if self.depth else None,
        )

    def close(self) -> None:
        """Have the encoder take what waits, and end."""
        if self._feed is not None:
            self._feed.close()
        if self.sink is not None:
            self.sink.close()

    @property
    def error(self) -> FfencError | None:
        """Why its encoder has failed."""
        return self._feed.error if self._feed is not None else None


class _Sink:
    """What a camera's frames are given to: its ffmpeg, which is chosen and started with the first frame.

    That takes a moment where the encoder has to be tried. It happens on the camera's own thread, so LeRobot's
    loop goes on.
    """

    def __init__(
        self, camera: _Camera, owner: StreamingVideoEncoder, take: _Take, frame: npt.NDArray[Any], pipe: int
    ) -> None:
        self.shape, self.dtype = frame.shape, frame.dtype
        self.unit: Unit | None = depth_unit(frame) if camera.depth else None
        self._camera, self._owner, self._take, self._pipe = camera, owner, take, pipe
        self._config = owner.options.settings(camera.key, camera.video_encoder)
        self.depth = DepthSamples(self._config, self.unit) if camera.depth else None
        # LeRobot's rule, which is of the longer side.
        height, width = self.shape[:2]
        longer = max(width, height)
        self._step = int(longer / 150) if longer >= 300 else 1
        thin = frame[:: self._step, :: self._step]
        self.pixels = thin.shape[0] * thin.shape[1]
        tap = SampleTap(step=1, width=thin.shape[1], height=thin.shape[0])
        self.statistics = RgbHistogram(tap) if self.unit is None else DepthStatistics(tap, self.unit)
        self.recorded: RecordedCamera | None = None
        self.encoding: Encoding | None = None
        self._process: FfmpegProcess | None = None
        self._samples: SampleLog | None = None

    @property
    def reader(self) -> PieceReader:
        assert self.encoding is not None
        return self._owner._encodings.reader(self.encoding.toolchain.ffprobe)

    @property
    def ended(self) -> bool:
        return self._process is not None and self._process.ended

    def write(self, data: Buffer) -> bool:
        return self._running().write(data)

    def lend(self, data: Buffer) -> bool:
        return self._running().lend(data)

    def finish(self) -> object:
        return self._process.finish() if self._process is not None else None

    def observe(self, frame: npt.NDArray[Any]) -> None:
        """Count a frame, of which LeRobot counts every one."""
        self.statistics.add(frame[:: self._step, :: self._step])
        self._running()
        assert self._samples is not None
        self._samples.add(frame)

    def samples_of(self, frame: npt.NDArray[Any]) -> Buffer:
        assert self.depth is not None
        return self.depth.of(frame).data

    def close(self) -> None:
        if self._samples is not None:
            self._samples.close()

    def _running(self) -> FfmpegProcess:
        if self._process is not None:
            return self._process
        take, preset, key = self._take, self._owner.options.preset, self._camera.key
        height, width = self.shape[:2]
        self.encoding = encoding = self._owner._encodings.of(self._config, width, height)
        take.cancellation.check()
        block = encoding_block(encoding, self.unit)
        remember_encoder(take.root, key, block)
        config = encoding.config
        self.recorded = camera = RecordedCamera(
            *(key, width, height, self.unit, "live", config, block),
            codec_for(config.vcodec).stream,
            pixel_format(config.pix_fmt).stored,
        )
        self._samples = SampleLog(take.episode.samples(camera), width, height, self.unit)
        self._process = FfmpegProcess(
            encoding.command(take.episode.video(camera), fragment_seconds=FRAGMENT_SECONDS),
            cancellation=take.cancellation,
            stall_seconds=_STALL_SECONDS,
            niceness=preset.encoder_niceness if preset is not None else 0,
            cpus=preset.encoder_cpus if preset is not None else None,
            pipe_bytes=self._pipe,
        )
        take.started()
        return self._process


class _Take:
    """One episode while it is recorded: its folder, and what is known of it.

    A disk may take long to answer. So all that is written is written by threads, and LeRobot's loop, which
    calls this, does not wait: the folder and the rows by one of its own, frames by the cameras'.

    Args:
        root: the dataset's folder.
        fps: frames a second.
        cameras: all of them.

    Attributes:
        finished: it takes no more frames.
        logged: its rows are kept, so that it can be brought back.
        rows: how many of them are on disk.
    """

    def __init__(self, root: Path, fps: Fraction, cameras: Mapping[str, _Camera]) -> None:
        self.root, self.finished, self.logged, self.rows = root, False, False, 0
        self.cancellation = Cancellation()
        self._cameras = cameras
        self._settings = Settings("unspecified", fps, None, None, [])
        self._made: Future[UnfinishedEpisode] = Future()
        self._flusher: Flusher | None = None
        self._lock = threading.Lock()
        self._rows: queue.SimpleQueue[_Row | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="ffenc-rows", daemon=True)
        self._thread.start()

    @property
    def episode(self) -> UnfinishedEpisode:
        """Its folder, once that is there.

        Raises:
            DestinationError: it cannot be made.
        """
        return self._made.result()

    @property
    def path(self) -> Path | None:
        """Where its folder is; None where it cannot be made."""
        return self.episode.path if self._made.exception() is None else None

    def begin_rows(self, features: Features, robot_type: str | None, task: str) -> None:
        self._settings = Settings(task, self._settings.fps, robot_type, features, [])
        self.logged = True

    def add_row(self, values: Mapping[str, Any]) -> None:
        if self.logged and self._thread.is_alive():
            repeated = [
                camera_name(key)
                for key, one in self._cameras.items()
                if one.repeated and one.repeated[-1] == one.frames - 1
            ]
            self._rows.put((values, repeated))

    def _write(self) -> None:
        try:
            self._made.set_result(UnfinishedEpisode.create(self.root, self._settings))
        except Exception as error:
            self._made.set_exception(error)  # for the cameras, whose next frame raises it
            return
        log: RowLog | None = None
        try:
            while (row := self._rows.get()) is not None:
                if self.rows == 0:
                    log = RowLog(self.episode.rows)
                    self._keep_settings()
                if log is not None:
                    assert self._settings.features is not None
                    log.row(checked_row(row[0], self._settings.features), {}, row[1])
                    self.rows += 1
        except Exception as error:
            # LeRobot's own copy of the rows is the one that counts: the recording goes on.
            _log.warning(
                "row %d cannot be kept for ffenc recover, nor those after it: %s", *(self.rows, error)
            )
        finally:
            if log is not None:
                with contextlib.suppress(OSError):
                    log.close()

    def started(self) -> None:
        """An encoder runs; once all do, what is on disk is flushed there."""
        if self._keep_settings():
            with self._lock:
                self._flusher = self._flusher or Flusher(self.episode)

    def _keep_settings(self) -> bool:
        """Keep what brings the episode back, if all encoders run; returns whether they do."""
        with self._lock:
            cameras = [one.sink.recorded for one in self._cameras.values() if one.sink is not None]
            known = [camera for camera in cameras if camera is not None]
            if len(known) < len(self._cameras):
                return False
            settings = self._settings
            self.episode.write_settings(
                Settings(settings.task, settings.fps, settings.robot_type, settings.features, known)
            )
            return True

    def finish(self) -> dict[str, tuple[Path, dict[str, Any] | None]]:
        """End the encoders, read their files back, and give each a folder of its own.

        Raises:
            FfencError: one has failed, or has no frames.
        """
        self._end()
        for key, camera in self._cameras.items():
            if camera.error is not None:
                raise camera.error
            if not camera.frames:
                raise ConfigError(f"camera {camera_name(key)} was given no frame")
        results = run_units(
            self._cameras.values(), self._finished, threads=len(self._cameras), stop=self.cancellation.cancel
        )
        return {camera.key: result for camera, result in results}

    def _finished(self, camera: _Camera) -> tuple[Path, dict[str, Any] | None]:
        sink = camera.sink
        assert sink is not None
        assert sink.recorded is not None
        assert sink.encoding is not None
        made, _ = finish_video(
            self.episode, sink.recorded, camera.frames, sink.encoding, sink.depth, sink.reader.read
        )
        folder = Path(tempfile.mkdtemp(dir=self.root))
        path = folder / f"{camera.key.replace('/', '_')}_streaming.mp4"
        shutil.move(made, path)
        statistics = None
        if camera.frames > 1:
            statistics = running_statistics(
                sink.statistics.statistics(), camera.frames * sink.pixels, 1 if camera.depth else 255
            )
        return path, statistics

    def cancel(self) -> None:
        """Kill what runs."""
        self.cancellation.cancel()
        self._end()

    def leave(self) -> None:
        """End what runs, with all that it was given."""
        self._end()

    def _end(self) -> None:
        for camera in self._cameras.values():
            camera.close()
        self._rows.put(None)
        self._thread.join()
        if self._flusher is not None:
            self._flusher.stop()


def running_statistics(stats: Stats, count: int, scale: int) -> dict[str, Any]:
    """Return statistics as LeRobot's ``RunningQuantileStats`` gives them.

    Args:
        stats: as a dataset has them.
        count: how many pixels were counted.
        scale: what values are multiplied by: 255 for colours, which LeRobot divides again.
    """
    arrays = {
        name: np.asarray(value, np.float64).reshape(-1) * scale
        for name, value in stats.items()
        if name != "count"
    }
    return {**arrays, "count": np.array([count])}


def _help_depth() -> str:
    return (
        f"{argument('depth_encoder.preset', 'ultrafast')} is three times as fast, lossless too, a "
        "third larger; or "
        "use a larger encoder_queue_maxsize"
    )
