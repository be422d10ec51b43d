"""A camera that provides the images of a folder, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ffenc.errors import CameraError, SourceError
from ffenc.frames.depth import Unit
from ffenc.frames.depth_images import depth_unit as unit_of
from ffenc.frames.depth_images import millimetres, read_depth
from ffenc.frames.pillow import decode
from ffenc.frames.sources import EncodedFrame, ImageFiles, image_files
from ffenc.recording.cameras.camera import CameraStream, CapturedFrame


class Folder:
    """Images of a folder in order. JPEG images are returned unchanged, all others decoded.

    Args:
        name: name of the camera.
        folder: images as for :func:`image_files`; depth: 16-bit PNG (millimetres) or TIFF (integers:
            millimetres, floats: metres).
        width, height: required size in pixels; None: any.
        depth: the images are depth.
        depth_unit: unit of depth frames: ``mm``: uint16, ``m``: float32.
    """

    live = False
    paced = False

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        width: int | None = None,
        height: int | None = None,
        depth: bool = False,
        depth_unit: Unit = "mm",
    ) -> None:
        self.streams: Sequence[CameraStream] = ()
        self._name = name
        self._folder = folder
        self._size = (width, height)
        self._unit: Unit | None = depth_unit if depth else None
        self._files = ImageFiles([])
        self._frames: Iterator[EncodedFrame] = iter(())

    def open(self) -> None:
        try:
            self._files = image_files(self._folder)
            header = self._files.check()
        except SourceError as error:
            raise CameraError(f"{self._name}: {error}") from None
        first = self._files.paths[0]
        if header.depth != (self._unit is not None):
            found, wanted = ("depth", "colours") if header.depth else ("colours", "depth")
            raise CameraError(
                f"{self._name}: {first} is a {header}, so it holds {found}, but the camera is set "
                f"to {wanted}: set depth: {str(header.depth).lower()} for the camera, or name another folder"
            )
        for found_size, size, what in zip(
            (header.width, header.height), self._size, ("width", "height"), strict=True
        ):
            if size not in (None, found_size):
                raise CameraError(
                    f"{self._name}: {first} is a {header}, but the camera's {what} is {size}: set "
                    f"width: {header.width} and height: {header.height}, or scale the images"
                )
        kind: Literal["depth", "jpeg", "rgb24"]
        kind = "depth" if self._unit is not None else "jpeg" if header.format == "jpeg" else "rgb24"
        self.streams = (CameraStream(self._name, header.width, header.height, kind, self._unit),)
        self.rewind()

    def rewind(self) -> None:
        self._frames = iter(self._files)

    def read(self, timeout: float) -> Mapping[str, CapturedFrame] | None:
        try:
            frame = next(self._frames, None)
            if frame is None:
                return None
            return {self._name: CapturedFrame(self._decoded(frame), None)}
        except SourceError as error:
            raise CameraError(f"{self._name}: {error}") from None

    def close(self) -> None:
        self._frames = iter(())

    def _decoded(self, frame: EncodedFrame) -> npt.NDArray[Any] | bytes:
        stream = self.streams[0]
        if stream.format == "jpeg":
            return frame.data
        pixels = (
            read_depth(frame) if stream.format == "depth" else decode(frame.data, frame.name, rgb=True)[1]
        )
        if pixels.shape[:2] != (stream.height, stream.width):
            raise SourceError(
                f"is {pixels.shape[1]}x{pixels.shape[0]}",
                expected=f"{stream.width}x{stream.height}",
                where=frame.name,
            )
        if stream.depth_unit is None:
            return pixels
        if stream.depth_unit == "mm":
            return millimetres(pixels)
        return pixels.astype(np.float32) / np.float32(1 if unit_of(pixels) == "m" else 1000)
