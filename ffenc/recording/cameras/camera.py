"""What every camera is to a recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy.typing as npt
from msgspec import Struct

from ffenc.frames.depth import Unit


class CameraStream(Struct, frozen=True):
    """One series of frames, which becomes one feature.

    Attributes:
        name: ``front``, ``head_depth``, without ``observation.images.``.
        width, height: pixels.
        format: ``rgb24``, ``jpeg`` or ``depth``.
        depth_unit: of depth: ``mm`` (uint16) or ``m`` (float32); None: no depth.
    """

    name: str
    width: int
    height: int
    format: Literal["rgb24", "jpeg", "depth"]
    depth_unit: Unit | None = None


class CapturedFrame(Struct, frozen=True):
    """One frame of one stream.

    Attributes:
        data: of ``rgb24``: ``(H, W, 3)`` uint8; of ``depth``: ``(H, W)`` uint16 millimetres or float32
            metres, 0 where there is none; of ``jpeg``: one whole image. An array may be overwritten by
            the next read.
        timestamp: seconds, by the device's or the host's clock; None: not known.
    """

    data: npt.NDArray[Any] | bytes
    timestamp: float | None


class Camera(Protocol):
    """A device, or what stands for one, that gives frames one by one.

    Attributes:
        streams: what it gives; known once it is open.
        live: frames come at the device's own pace and are lost when not taken.
        paced: it takes part in real time: whoever reads it has to keep the frame rate. A file does not.
    """

    streams: Sequence[CameraStream]
    live: bool
    paced: bool

    def open(self) -> None:
        """Make it ready to be read.

        Raises:
            CameraError: it is not there, is in use, or cannot give what is asked; the text says what to do.
        """

    def rewind(self) -> None:
        """Start an episode: files and test pictures start at their first frame, a device goes on."""

    def read(self, timeout: float) -> Mapping[str, CapturedFrame] | None:
        """Return the next frame of every stream, by stream name; all are of the same moment.

        Args:
            timeout: seconds to wait for it at most.

        Returns:
            the frames, or None: a file has ended.

        Raises:
            CameraError: nothing came in time, or the device is gone.
        """

    def close(self) -> None:
        """Let the device go; a second call does nothing."""
