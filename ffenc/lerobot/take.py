"""One episode of LeRobot's streaming encoder: its folder, its rows, and what becomes of its videos."""

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
from ffenc.jobs.pool import run_units
from ffenc.lerobot.camera import StreamedCamera
from ffenc.recording.finish import finish_video
from ffenc.recording.flush import Flusher
from ffenc.recording.rows import Features, RowLog, checked_row
from ffenc.recording.unfinished import (
    Settings,
    UnfinishedEpisode,
)

_log = logging.getLogger("ffenc.lerobot")

_Row = tuple[Mapping[str, Any], list[str]]  # values, and the cameras that show the frame before


class StreamedTake:
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
                "row %d and the following rows cannot be kept for ffenc recover: %s", *(self.rows, error)
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
