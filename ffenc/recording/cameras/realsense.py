"""RealSense cameras and their recordings, read with pyrealsense2."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.config.framerate import fps_number
from ffenc.errors import CameraError
from ffenc.frames.depth import Unit
from ffenc.recording.cameras.camera import CameraStream, CapturedFrame, NoFrame
from ffenc.spelling import argument

_MAX_MM = 65535
_OPEN_SECONDS = 10.0


def realsense_library() -> Any:
    try:
        return importlib.import_module("pyrealsense2")
    except ImportError as error:
        raise CameraError(
            f"RealSense cameras and recordings need pyrealsense2 ({error}): pip install 'ffenc[realsense]'"
        ) from None


class DepthScale:
    """Converts a device's raw depth to the recorded unit.

    Args:
        metres: length of a raw step, as reported by the device.
        unit: ``mm``: uint16, rounded, at most 65535; ``m``: float32. 0, which means no depth, stays 0.
    """

    def __init__(self, metres: float, unit: Unit) -> None:
        # The device reports a float32: 0.001 becomes 0.0010000000474974513. The exact decimal is used, so
        # that all halves of a millimetre are rounded in the same direction.
        step = Fraction(str(np.float32(metres)))
        millimetre = step * 1000
        raw = np.arange(_MAX_MM + 1, dtype=np.float64)
        table: npt.NDArray[Any]
        if unit == "m":
            table = (raw * step.numerator / step.denominator).astype(np.float32)
        else:
            # A surface nearer than half a millimetre must not become a pixel without depth.
            table = np.rint(raw * millimetre.numerator / millimetre.denominator)
            table = table.clip(0, _MAX_MM).astype(np.uint16)
            table[1:] = np.maximum(table[1:], 1)
        self._table = None if unit == "mm" and millimetre == 1 else table

    def of(self, raw: npt.NDArray[np.uint16]) -> npt.NDArray[Any]:
        """Return depth of the same shape, in a new array."""
        return raw.copy() if self._table is None else self._table[raw]


class Realsense:
    """Common parts of devices and recordings."""

    def __init__(
        self, name: str, *, width: int | None, height: int | None, fps: Fraction, use_depth: bool, unit: Unit
    ) -> None:
        self.streams: Sequence[CameraStream] = ()
        self._name = name
        self._size = (width, height)
        self._fps = fps
        self._use_depth = use_depth
        self._unit = unit
        self._scale: DepthScale | None = None
        self._align: Any = None
        self._rs: Any = None

    def _take_profiles(self, colour: Any, depth: Any, device: Any, place: str) -> None:
        """Check the stream profiles against the request, and prepare for them."""
        video = colour.as_video_stream_profile()
        for found, asked, what in zip(
            (video.width(), video.height()), self._size, ("width", "height"), strict=True
        ):
            if asked not in (None, found):
                raise CameraError(
                    f"{self._name}: {place} has colour frames of {video.width()}x{video.height()}, but the "
                    f"camera's {what} is {asked}: set width: {video.width()} and height: {video.height()}"
                )
        for profile in (colour, depth):
            if profile is not None and profile.fps() != self._fps:
                raise CameraError(
                    f"{self._name}: {place} has {profile.fps()} frames per second, not "
                    f"{fps_number(self._fps):g}: pass {argument('fps', profile.fps())}"
                )
        streams = [CameraStream(self._name, video.width(), video.height(), "rgb24")]
        if depth is not None:
            streams.append(
                CameraStream(f"{self._name}_depth", video.width(), video.height(), "depth", self._unit)
            )
            self._scale = DepthScale(_depth_scale(device), self._unit)
            # Aligning draws each depth pixel as large as it may appear, and so moves edges by a pixel. If
            # both images already have the same pixels, depth is used unchanged.
            same = _same_pixels(colour, depth)
            self._align = None if same else self._rs.align(self._rs.stream.color)
        self.streams = tuple(streams)

    def _captured(self, colour: Any, depth: Any, frames: Any = None) -> dict[str, CapturedFrame]:
        """Return the frames of one moment; ``frames`` is the SDK's set of them, if there is one."""
        captured = {self._name: CapturedFrame(np.array(colour.get_data()), colour.get_timestamp() / 1000)}
        if depth is not None:
            assert self._scale is not None
            when = depth.get_timestamp() / 1000
            if self._align is not None:
                frames = frames if frames is not None else self._set_of(colour, depth)
                depth = self._align.process(frames).get_depth_frame()
            raw = np.asarray(depth.get_data())
            captured[f"{self._name}_depth"] = CapturedFrame(self._scale.of(raw), when)
        return captured

    def _set_of(self, colour: Any, depth: Any) -> Any:
        """Return two frames as a set, which aligning requires; only a processing block can create one."""
        out = self._rs.frame_queue(1)
        block = self._rs.processing_block(
            lambda _, source: source.frame_ready(source.allocate_composite_frame([colour, depth]))
        )
        block.start(out)
        block.invoke(colour)
        return out.wait_for_frame(5000).as_frameset()


def _depth_scale(device: Any) -> float:
    for sensor in device.query_sensors():
        if sensor.is_depth_sensor():
            return float(sensor.as_depth_sensor().get_depth_scale())
    return 0.001


def _same_pixels(colour: Any, depth: Any) -> bool:
    one, other = (profile.as_video_stream_profile().get_intrinsics() for profile in (colour, depth))
    fields = ("width", "height", "fx", "fy", "ppx", "ppy", "model", "coeffs")
    if any(getattr(one, field) != getattr(other, field) for field in fields):
        return False
    moved = depth.get_extrinsics_to(colour)
    return bool(
        np.allclose(moved.rotation, np.eye(3).reshape(-1), atol=1e-6)
        and np.allclose(moved.translation, 0, atol=1e-6)
    )


class RealsenseDevice(Realsense):
    """A connected camera.

    Args:
        name: name of the camera; its depth is NAME_depth.
        serial: serial number or name of the device; None: the first device.
        width, height: size of the colour frames in pixels, also of the aligned depth. None: the device's own.
        fps: frames per second, a whole number.
        use_depth: also provide depth.
        unit: unit of depth: ``mm``: uint16, ``m``: float32.
        context: a ``pyrealsense2.context`` with the devices; None: the system's.
    """

    live = True
    paced = True

    def __init__(
        self,
        name: str,
        *,
        serial: str | None = None,
        width: int | None = None,
        height: int | None = None,
        fps: Fraction,
        use_depth: bool = False,
        unit: Unit = "mm",
        context: Any = None,
    ) -> None:
        super().__init__(name, width=width, height=height, fps=fps, use_depth=use_depth, unit=unit)
        self._serial = serial
        self._context = context
        self._pipeline: Any = None
        self._last = (-1, -1)

    def open(self) -> None:
        self.close()
        rs = self._rs = realsense_library()
        if self._fps.denominator != 1:
            raise CameraError(
                f"{self._name}: RealSense cameras have whole frame rates, not {self._fps}; pass "
                f"{argument('fps', 30)}"
            )
        context = self._context = self._context or rs.context()
        config = rs.config()
        config.enable_device(self._found(rs, context))
        size = (self._size[0] or 0, self._size[1] or 0)
        config.enable_stream(rs.stream.color, *size, rs.format.rgb8, int(self._fps))
        if self._use_depth:
            config.enable_stream(rs.stream.depth, 0, 0, rs.format.z16, int(self._fps))
        pipeline = rs.pipeline(context)
        try:
            profile = pipeline.start(config)
        except RuntimeError as error:
            wanted = f"{size[0]}x{size[1]} at " if all(size) else ""
            raise CameraError(
                f"{self._name}: the RealSense camera cannot be started with {wanted}{self._fps} "
                f"frames per second: {error}; rs-enumerate-devices lists what it supports. It may "
                "also be in use, or connected to a USB 2 port"
            ) from None
        self._pipeline = pipeline
        try:
            depth = profile.get_stream(rs.stream.depth) if self._use_depth else None
            self._take_profiles(
                profile.get_stream(rs.stream.color), depth, profile.get_device(), "the device"
            )
        except BaseException:
            self.close()
            raise

    def rewind(self) -> None:
        pass

    def read(self, timeout: float) -> Mapping[str, CapturedFrame]:
        if self._pipeline is None:
            raise CameraError(f"{self._name}: the RealSense camera is not open")
        until = time.monotonic() + timeout
        while True:
            left = max(0.0, until - time.monotonic())
            arrived, frames = self._pipeline.try_wait_for_frames(round(left * 1000))
            if not arrived:
                advice = "check whether it is still connected (with a USB 3 port and cable), and reconnect it"
                raise NoFrame(f"{self._name}: the RealSense camera", timeout, advice)
            colour = frames.get_color_frame()
            depth = frames.get_depth_frame() if self._use_depth else None
            if not colour or (self._use_depth and not depth):
                continue
            # A set may hold a frame that was in the set before, beside a new one of the other stream.
            numbers = (colour.get_frame_number(), depth.get_frame_number() if depth else -1)
            repeated = numbers[0] == self._last[0] or (depth is not None and numbers[1] == self._last[1])
            if repeated:
                continue
            self._last = numbers
            return self._captured(colour, depth, frames)

    def close(self) -> None:
        pipeline, self._pipeline = self._pipeline, None
        self._last = (-1, -1)
        if pipeline is not None:
            pipeline.stop()

    def _found(self, rs: Any, context: Any) -> str:
        """Return the serial number of the requested device."""
        devices: dict[str, str] = {
            device.get_info(rs.camera_info.serial_number): device.get_info(rs.camera_info.name)
            for device in context.query_devices()
            if device.supports(rs.camera_info.serial_number)
        }
        listed = ", ".join(f"{serial} ({name})" for serial, name in devices.items())
        if not devices:
            raise CameraError(
                f"{self._name}: no RealSense camera is connected (rs-enumerate-devices lists them)"
            )
        if self._serial is None:
            return next(iter(devices))
        matching = [serial for serial, name in devices.items() if self._serial in (serial, name)]
        if len(matching) != 1:
            what = "several RealSense cameras are" if matching else "no RealSense camera is"
            raise CameraError(
                f"{self._name}: {what} {self._serial!r}; connected are: {listed}. Set "
                "source.serial to one of these numbers, in quotes"
            )
        return matching[0]
