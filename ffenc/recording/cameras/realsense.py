"""RealSense cameras and their recordings, through pyrealsense2."""

from __future__ import annotations

import contextlib
import importlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.config.framerate import fps_number
from ffenc.errors import CameraError
from ffenc.frames.depth import Unit
from ffenc.recording.cameras.camera import CameraStream, CapturedFrame
from ffenc.spelling import argument

_MAX_MM = 65535
_OPEN_SECONDS = 10.0
_UNPAIRED = 300  # frames of one stream without one of the other: they are not of the same moments


def _realsense() -> Any:
    try:
        return importlib.import_module("pyrealsense2")
    except ImportError as error:
        raise CameraError(
            f"RealSense cameras and recordings need pyrealsense2 ({error}): pip install 'ffenc[realsense]'"
        ) from None


class DepthScale:
    """A device's raw depth in the unit that is recorded.

    Args:
        metres: of one raw step, as the device says.
        unit: ``mm``: uint16, rounded, 65535 at most; ``m``: float32. 0, which is no depth, stays 0.
    """

    def __init__(self, metres: float, unit: Unit) -> None:
        # The device says it as float32: 0.001 comes as 0.0010000000474974513. What is meant is exact, so that
        # halves of a millimetre are rounded alike.
        step = Fraction(str(np.float32(metres)))
        millimetre = step * 1000
        raw = np.arange(_MAX_MM + 1, dtype=np.float64)
        table: npt.NDArray[Any]
        if unit == "m":
            table = (raw * step.numerator / step.denominator).astype(np.float32)
        else:
            # A surface nearer than half a millimetre is still a surface, not a hole.
            table = np.rint(raw * millimetre.numerator / millimetre.denominator)
            table = table.clip(0, _MAX_MM).astype(np.uint16)
            table[1:] = np.maximum(table[1:], 1)
        self._table = None if unit == "mm" and millimetre == 1 else table

    def of(self, raw: npt.NDArray[np.uint16]) -> npt.NDArray[Any]:
        """Return depth of the same shape, in an array of its own."""
        return raw.copy() if self._table is None else self._table[raw]


class _Realsense:
    """What a device and a recording have in common."""

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
        """Compare what comes with what was asked, and get ready for it."""
        video = colour.as_video_stream_profile()
        for found, asked, what in zip(
            (video.width(), video.height()), self._size, ("width", "height"), strict=True
        ):
            if asked not in (None, found):
                raise CameraError(
                    f"{self._name}: {place} has colours of {video.width()}x{video.height()}, but the "
                    f"camera's {what} is {asked}: say width: {video.width()} and height: {video.height()}"
                )
        for profile in (colour, depth):
            if profile is not None and profile.fps() != self._fps:
                raise CameraError(
                    f"{self._name}: {place} has {profile.fps()} frames a second, not "
                    f"{fps_number(self._fps):g}: pass {argument('fps', profile.fps())}"
                )
        streams = [CameraStream(self._name, video.width(), video.height(), "rgb24")]
        if depth is not None:
            streams.append(
                CameraStream(f"{self._name}_depth", video.width(), video.height(), "depth", self._unit)
            )
            self._scale = DepthScale(_depth_scale(device), self._unit)
            # Aligning draws each depth pixel as large as it may appear, and so moves edges by a pixel. Where
            # both images are of the same pixels already, depth is taken as it is.
            same = _same_pixels(colour, depth)
            self._align = None if same else self._rs.align(self._rs.stream.color)
        self.streams = tuple(streams)

    def _captured(self, colour: Any, depth: Any, frames: Any = None) -> dict[str, CapturedFrame]:
        """The frames of one moment; ``frames``: the set they are of, where there is one already."""
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
        """Two frames as a set, which is what aligning takes; only a processing block can make one."""
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


class RealsenseDevice(_Realsense):
    """A camera that is plugged in.

    Args:
        name: the camera's; its depth is NAME_depth.
        serial: serial number or name of the device; None: the first.
        width, height: of the colours; depth is brought into their pixels. None: the device chooses.
        fps: frames a second, a whole number.
        use_depth: give depth too.
        unit: of depth: ``mm``: uint16, ``m``: float32.
        context: a ``pyrealsense2.context`` that knows the devices; None: the system's.
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
        rs = self._rs = _realsense()
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
                f"frames a second: {error}; rs-enumerate-devices lists what it can give. It may "
                "also be in use, or on a USB 2 port"
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
        while True:
            arrived, frames = self._pipeline.try_wait_for_frames(round(timeout * 1000))
            if not arrived:
                raise CameraError(
                    f"{self._name}: the RealSense camera gave no frame in {timeout:g} s: see whether it is "
                    "still plugged in (a USB 3 port and cable), and plug it in again"
                )
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
        """The serial number of the device that is meant."""
        devices: dict[str, str] = {
            device.get_info(rs.camera_info.serial_number): device.get_info(rs.camera_info.name)
            for device in context.query_devices()
            if device.supports(rs.camera_info.serial_number)
        }
        listed = ", ".join(f"{serial} ({name})" for serial, name in devices.items())
        if not devices:
            raise CameraError(
                f"{self._name}: no RealSense camera is plugged in (rs-enumerate-devices lists them)"
            )
        if self._serial is None:
            return next(iter(devices))
        matching = [serial for serial, name in devices.items() if self._serial in (serial, name)]
        if len(matching) != 1:
            what = "several RealSense cameras are" if matching else "no RealSense camera is"
            raise CameraError(
                f"{self._name}: {what} {self._serial!r}; plugged in: {listed}. Give source.serial one of "
                "these numbers, in quotes"
            )
        return matching[0]


class RealsenseFile(_Realsense):
    """A recording of a RealSense camera: every pair of frames once, in order, however slowly it is read.

    The SDK's own pipeline gives, of some recordings, colour and depth of different moments, since a recording
    has no matcher, and each frame twice. So the file plays only while a frame is waited for, and frames
    are paired here by their times. A frame without one of the same moment in the other stream is left out.

    Args:
        name: the camera's; its depth is NAME_depth.
        file: the ``.db3`` or ``.bag`` recording.
        width, height: the size its colours have to have; None: any.
        fps: frames a second it has to have.
        use_depth: give depth too.
        unit: of depth: ``mm``: uint16, ``m``: float32.

    Attributes:
        unpaired: frames that were left out since the last rewind.
    """

    live = False
    paced = False

    def __init__(
        self,
        name: str,
        file: Path,
        *,
        width: int | None = None,
        height: int | None = None,
        fps: Fraction,
        use_depth: bool = False,
        unit: Unit = "mm",
    ) -> None:
        super().__init__(name, width=width, height=height, fps=fps, use_depth=use_depth, unit=unit)
        self.unpaired = 0
        self._file = file
        self._changed = threading.Condition()
        self._colours: deque[Any] = deque()
        self._depths: deque[Any] = deque()
        self._ended = False
        self._playback: Any = None
        self._sensors: list[Any] = []
        self._came: dict[str, int] = {}  # stream -> frames, since the last rewind

    def open(self) -> None:
        self.close()
        rs = self._rs = _realsense()
        if not self._file.is_file():
            raise CameraError(f"{self._name}: {self._file} does not exist; source.file names a recording")
        try:
            playback = rs.playback(rs.context().load_device(str(self._file)))
            playback.set_real_time(False)
            # Starting a sensor starts the file, and the others would miss its first frames.
            playback.pause()
        except RuntimeError as error:
            raise CameraError(
                f"{self._name}: {self._file} cannot be read as a RealSense recording: {error}"
            ) from None
        self._playback = playback
        try:
            self._start(rs, playback)
        except BaseException:
            self.close()
            raise

    def rewind(self) -> None:
        if self._playback is not None:
            self.open()

    def read(self, timeout: float) -> Mapping[str, CapturedFrame] | None:
        if self._playback is None:
            raise CameraError(f"{self._name}: {self._file} is not open")
        until = time.monotonic() + timeout
        while (pair := self._pair()) is None and not self._ended:
            self._playback.resume()
            with self._changed:
                came = self._changed.wait_for(
                    lambda: self._ended or self._paired() or self._strayed(), until - time.monotonic()
                )
            self._playback.pause()  # waits for frames that are on their way
            if self._strayed():
                raise CameraError(
                    f"{self._name}: colours and depth in {self._file} have no times in common; record it "
                    "again with both streams on, or say use_depth: false"
                )
            if not came:
                raise CameraError(
                    f"{self._name}: {self._file} gave no frame in {timeout:g} s; it may be damaged"
                )
        if pair is None:
            self.unpaired += len(self._colours) + len(self._depths)
            self._colours.clear()
            self._depths.clear()
            self._check_whole()
            return None
        return self._captured(*pair)

    def _check_whole(self) -> None:
        """Refuse the end of a file that the SDK has stopped reading before it: it does not say so.

        Raises:
            CameraError: the file holds more frames than have come.
        """
        held = _images_in(self._file)
        for stream, came in self._came.items():
            counts = [count for name, count in held.items() if f"/{stream}_" in name.lower()]
            if counts and came < min(counts):
                raise CameraError(
                    f"{self._name}: only {came} of {min(counts)} {stream} frames in {self._file} could be "
                    "read: it is damaged"
                )

    def close(self) -> None:
        self._playback = None
        for sensor in self._sensors:
            sensor.stop()
            sensor.close()
        self._sensors = []
        self._colours.clear()
        self._depths.clear()

    def _start(self, rs: Any, playback: Any) -> None:
        profiles: dict[Any, tuple[Any, Any]] = {}
        for sensor in playback.query_sensors():
            for profile in sensor.get_stream_profiles():
                profiles.setdefault(profile.stream_type(), (sensor, profile))
        wanted = {rs.stream.color: ("colours", rs.format.rgb8, self._colours)}
        if self._use_depth:
            wanted[rs.stream.depth] = ("depth", rs.format.z16, self._depths)
        for stream, (what, form, _) in wanted.items():
            if stream not in profiles:
                raise CameraError(f"{self._name}: {self._file} holds no {what}")
            found = profiles[stream][1].format()
            if found != form:
                raise CameraError(
                    f"{self._name}: {self._file} holds {what} as {found.name}, only {form.name} is read; "
                    f"record it again with {form.name}"
                )
        self._take_profiles(
            profiles[rs.stream.color][1],
            profiles[rs.stream.depth][1] if self._use_depth else None,
            playback,
            str(self._file),
        )
        self.unpaired, self._ended = 0, False
        self._came = {stream.name: 0 for stream in wanted}

        def on_status(status: Any) -> None:
            if status == rs.playback_status.stopped:
                with self._changed:
                    self._ended = True
                    self._changed.notify_all()

        playback.set_status_changed_callback(on_status)
        # One sensor may give both; it is opened once, with all that is wanted of it.
        by_sensor: dict[str, tuple[Any, list[Any], dict[Any, deque[Any]]]] = {}
        for stream, (_, _, frames) in wanted.items():
            sensor, profile = profiles[stream]
            entry = by_sensor.setdefault(sensor.get_info(rs.camera_info.name), (sensor, [], {}))
            entry[1].append(profile)
            entry[2][stream] = frames
        for sensor, opened, queues in by_sensor.values():
            sensor.open(opened)
            self._sensors.append(sensor)
            sensor.start(self._receiver(queues))

    def _receiver(self, queues: Mapping[Any, deque[Any]]) -> Any:
        def receive(frame: Any) -> None:
            frame.keep()  # not given back to the SDK's small pool, which drops frames when it is empty
            with self._changed:
                stream = frame.get_profile().stream_type()
                queues[stream].append(frame)
                self._came[stream.name] += 1
                self._changed.notify_all()

        return receive

    def _paired(self) -> bool:
        return bool(self._colours) and (not self._use_depth or bool(self._depths))

    def _strayed(self) -> bool:
        return self._use_depth and max(len(self._colours), len(self._depths)) > _UNPAIRED

    def _pair(self) -> tuple[Any, Any] | None:
        """Take the next two frames of the same moment, or None where there are none yet."""
        half = 500 / float(self._fps)  # milliseconds
        with self._changed:
            while self._paired():
                if not self._use_depth:
                    return self._colours.popleft(), None
                apart = self._colours[0].get_timestamp() - self._depths[0].get_timestamp()
                if abs(apart) < half:
                    return self._colours.popleft(), self._depths.popleft()
                (self._depths if apart > 0 else self._colours).popleft()
                self.unpaired += 1
        return None


def _images_in(file: Path) -> dict[str, int]:
    """How many images a recording holds, by topic; empty where it does not say: a .bag, or another kind."""
    query = (
        "SELECT topics.name, count(*) FROM messages JOIN topics ON topics.id = messages.topic_id "
        "WHERE topics.name LIKE '%/image/data%' GROUP BY topics.name"
    )
    if file.suffix != ".db3":
        return {}
    try:
        with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as data:
            return dict(data.execute(query).fetchall())
    except sqlite3.Error:
        return {}
