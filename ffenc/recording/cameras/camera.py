"""The interface of a camera to a recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy.typing as npt
from msgspec import Struct

from ffenc.errors import CameraError
from ffenc.frames.depth import Unit


class CameraStream(Struct, frozen=True):
    """A series of frames, which becomes one feature.

    Attributes:
        name: ``front``, ``head_depth``, without ``observation.images.``.
        width, height: frame size in pixels.
        format: ``rgb24``, ``jpeg`` or ``depth``.
        depth_unit: unit of depth: ``mm`` (uint16) or ``m`` (float32); None: no depth.
    """

    name: str
    width: int
    height: int
    format: Literal["rgb24", "jpeg", "depth"]
    depth_unit: Unit | None = None


class CapturedFrame(Struct, frozen=True):
    """A frame of a stream.

    Attributes:
        data: for ``rgb24``: ``(H, W, 3)`` uint8; for ``depth``: ``(H, W)`` uint16 millimetres or float32
            metres, 0 for pixels without depth; for ``jpeg``: a complete image. The next read may overwrite an
            array.
        timestamp: in seconds, by the clock of the device or the host; None: unknown.
    """

    data: npt.NDArray[Any] | bytes
    timestamp: float | None


class NoFrame(CameraError):
    """No frame arrived in time; a later read may return one.

    Args:
        camera: the camera's name and kind.
        seconds: how long it was waited for.
        advice: what to do.
    """

    def __init__(self, camera: str, seconds: float, advice: str) -> None:
        super().__init__(f"{camera} gave no frame in {seconds:g} s: {advice}")
        self._camera, self._advice = camera, advice

    def after(self, seconds: float) -> NoFrame:
        """Return the error for another waiting time."""
        return NoFrame(self._camera, seconds, self._advice)


class Camera(Protocol):
    """A device, or a replacement for one, that provides frames one by one.

    Attributes:
        streams: its streams; known when it is open.
        live: frames arrive at the device's own rate and are lost if they are not read.
        paced: frames have to be read in real time, at the frame rate; False for a file.
    """

    streams: Sequence[CameraStream]
    live: bool
    paced: bool

    def open(self) -> None:
        """Prepare the camera for reading.

        Raises:
            CameraError: it does not exist, is in use, or does not support the request; the text says what to
                do.
        """

    def rewind(self) -> None:
        """Start an episode: files and test patterns start at their first frame, a device continues."""

    def read(self, timeout: float) -> Mapping[str, CapturedFrame] | None:
        """Return the next frame of every stream, by stream name, all of the same moment.

        Args:
            timeout: greatest waiting time in seconds. A live camera is read again and again with a short one,
                so that a recording can end while it gives no frame.

        Returns:
            The frames; None: a file has ended.

        Raises:
            NoFrame: no frame arrived in time.
            CameraError: the device is gone.
        """

    def close(self) -> None:
        """Release the device; further calls have no effect."""
