"""Flushing of recorded files to the disk during an episode."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from ffenc.frames.publish import sync_folder
from ffenc.recording.unfinished import UnfinishedEpisode

_SECONDS = 0.5
_LIMIT = 60.0


class Flusher:
    """Flushes an episode's files to the disk as they grow, so that a power failure loses little.

    Args:
        episode: the episode.
    """

    def __init__(self, episode: UnfinishedEpisode) -> None:
        self._episode = episode
        cameras = episode.settings.cameras
        self._files = [episode.described, episode.rows]
        self._files += [episode.video(camera) for camera in cameras if camera.way == "live"]
        self._files += [episode.samples(camera) for camera in cameras if camera.way != "after"]
        self._images = dict.fromkeys(range(len(episode.settings.cameras)), 0)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ffenc-sync", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ending.set()
        self._thread.join(_LIMIT)  # if the disk does not answer, the next step fails

    def _run(self) -> None:
        while not self._ending.wait(_SECONDS):
            for path in self._files:
                _flush(path)
            for number, camera in enumerate(self._episode.settings.cameras):
                if camera.way != "live":
                    for path in self._episode.images_from(camera, self._images[number]):
                        _flush(path)
                        self._images[number] += 1
            sync_folder(self._episode.path)  # without its folder entry a file would be lost


def _flush(path: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(descriptor)
        finally:
            os.close(descriptor)
