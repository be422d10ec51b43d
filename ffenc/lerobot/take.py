"""One episode of LeRobot's streaming encoder: its folder, its rows, and its finished videos."""

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
from typing import Any

import numpy as np

from ffenc.config.preset import camera_name
from ffenc.errors import ConfigError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.frames.statistics import Stats
from ffenc.lerobot.camera import StreamedCamera
from ffenc.parallel.pool import run_units
from ffenc.recording.finish import finish_video
from ffenc.recording.flush import Flusher
from ffenc.recording.rows import Features, RowLog, checked_row
from ffenc.recording.unfinished import (
    Settings,
    UnfinishedEpisode,
)

_log = logging.getLogger("ffenc.lerobot")

_Row = tuple[Mapping[str, Any], list[str]]  # values, and the cameras that repeat the previous frame


class StreamedTake:
    """One episode during its recording.

    A disk can respond slowly, so all writing is done by threads, and LeRobot's loop, which calls these
    methods, does not wait: the folder and the rows are written by a thread of this class, frames by the
    cameras' threads.

    Args:
        root: folder of the dataset.
        fps: frames per second.
        cameras: all of them.

    Attributes:
        finished: it accepts no more frames.
        logged: its rows are written, so that it can be recovered.
        rows: number of rows on disk.
    """

    def __init__(self, root: Path, fps: Fraction, cameras: Mapping[str, StreamedCamera]) -> None:
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
        """The episode's folder, once it exists.

        Raises:
            DestinationError: the folder cannot be created.
        """
        return self._made.result()

    @property
    def path(self) -> Path | None:
        """Path of its folder; None if it cannot be created."""
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
            self._made.set_exception(error)  # raised by the next frame of each camera
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
            # LeRobot has its own copy of the rows, so the recording continues.
            _log.warning(
                "row %d and the following rows cannot be kept for ffenc recover: %s", *(self.rows, error)
            )
        finally:
            if log is not None:
                with contextlib.suppress(OSError):
                    log.close()

    def started(self) -> None:
        """Note that an encoder has started; when all have, start flushing the written files to the disk."""
        if self._keep_settings():
            with self._lock:
                self._flusher = self._flusher or Flusher(self.episode)

    def _keep_settings(self) -> bool:
        """Write the settings for recovery if all encoders have started; return whether they have."""
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
        """End the encoders, read their files back, and put each file in its own folder.

        Raises:
            FfencError: an encoder has failed, or has no frames.
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

    def _finished(self, camera: StreamedCamera) -> tuple[Path, dict[str, Any] | None]:
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
        """Kill the running encoders."""
        self.cancellation.cancel()
        self._end()

    def leave(self) -> None:
        """End the running encoders after their queued frames."""
        self._end()

    def _end(self) -> None:
        for camera in self._cameras.values():
            camera.close()
        self._rows.put(None)
        self._thread.join()
        if self._flusher is not None:
            self._flusher.stop()


def running_statistics(stats: Stats, count: int, scale: int) -> dict[str, Any]:
    """Return statistics in the form of LeRobot's ``RunningQuantileStats``.

    Args:
        stats: statistics as in a dataset.
        count: number of counted pixels.
        scale: factor for the values: 255 for colours, by which LeRobot divides later.
    """
    arrays = {
        name: np.asarray(value, np.float64).reshape(-1) * scale
        for name, value in stats.items()
        if name != "count"
    }
    return {**arrays, "count": np.array([count])}
