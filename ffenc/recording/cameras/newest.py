"""The newest frames of a live camera."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np

from ffenc.errors import CameraError
from ffenc.recording.cameras.camera import Camera, CapturedFrame, NoFrame

Frames = Mapping[str, CapturedFrame]

_STEP_SECONDS = 0.1  # longest single read: the thread ends at the next one
_CLOSE_SECONDS = 5.0


class Newest:
    """Reads a live camera all the time in a thread, so that frames are never old.

    Args:
        camera: an open camera. It is not closed here, and must stay open until this object is closed.
        timeout: number of seconds without a frame after which the camera has failed.
    """

    def __init__(self, camera: Camera, *, timeout: float = 5.0) -> None:
        self._camera = camera
        self._timeout = timeout
        self._changed = threading.Condition()
        self._frames: Frames | None = None
        self._error: BaseException | None = None
        self._ended = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="ffenc-camera", daemon=True)
        self._thread.start()

    def take(self, timeout: float = 0.0) -> Frames | None:
        """Return the newest frames, each only once. They are owned by the caller.

        Args:
            timeout: greatest time in seconds to wait if there is no new frame since the last call.

        Returns:
            The frames of every stream; None: no new frame arrived in that time, or the camera has ended.

        Raises:
            CameraError: the camera's error; again at every call.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._error or self._ended, timeout)
            frames, self._frames = self._frames, None
            if frames is None and self._error is not None:
                raise self._error
            return frames

    @property
    def ended(self) -> bool:
        """Whether a camera that is a file has ended."""
        return self._ended

    def close(self) -> None:
        """End the thread.

        Raises:
            CameraError: it hangs in the camera.
        """
        self._closing = True
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            names = ", ".join(stream.name for stream in self._camera.streams)
            raise CameraError(f"{names}: the camera does not answer; unplug it and plug it in again")

    def _run(self) -> None:
        try:
            silent = 0.0
            while not self._closing:
                try:
                    frames = self._camera.read(_STEP_SECONDS)
                except NoFrame as error:
                    silent += _STEP_SECONDS
                    if silent < self._timeout:
                        continue
                    raise error.after(self._timeout) from None
                silent = 0.0
                if frames is None:
                    break
                # The camera may overwrite its arrays at the next read, which starts at once.
                own = {name: _copied(frame) for name, frame in frames.items()}
                with self._changed:
                    self._frames = own
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()


def _copied(frame: CapturedFrame) -> CapturedFrame:
    return (
        CapturedFrame(np.array(frame.data), frame.timestamp) if isinstance(frame.data, np.ndarray) else frame
    )
