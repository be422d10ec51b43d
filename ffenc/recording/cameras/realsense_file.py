"""Recordings of RealSense cameras, played as cameras."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import warnings
from collections import deque
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from ffenc.errors import CameraError, FfencWarning
from ffenc.frames.depth import Unit
from ffenc.recording.cameras.camera import CapturedFrame, NoFrame
from ffenc.recording.cameras.realsense import Realsense, realsense_library
from ffenc.words import count

_UNPAIRED = 300  # frames of one stream without one of the other: they are not of the same moments


class RealsenseFile(Realsense):
    """A recording of a RealSense camera: every pair of frames once, in order, however slowly it is read.

    For some recordings the SDK's own pipeline returns colour and depth of different moments, because a
    recording has no matcher, and each frame twice. So the file plays only while a frame is awaited, and
    frames are paired here by their times. A frame without a counterpart of the same moment is left out, which
    a warning says when the file is closed or starts again.

    Args:
        name: name of the camera; its depth is NAME_depth.
        file: the ``.db3`` or ``.bag`` recording.
        width, height: required size of the colour frames, in pixels; None: any.
        fps: required frames per second.
        use_depth: also provide depth.
        unit: unit of depth: ``mm``: uint16, ``m``: float32.
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
        self._file = file
        self._unpaired = 0  # frames that were left out since the last rewind
        self._changed = threading.Condition()
        self._colours: deque[Any] = deque()
        self._depths: deque[Any] = deque()
        self._ended = False
        self._playback: Any = None
        self._sensors: list[Any] = []
        self._came: dict[str, int] = {}  # stream -> frames, since the last rewind

    def open(self) -> None:
        self.close()
        rs = self._rs = realsense_library()
        if not self._file.is_file():
            raise CameraError(f"{self._name}: {self._file} does not exist; set source.file to a recording")
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
            self._playback.pause()  # waits for frames that are being delivered
            if self._strayed():
                raise CameraError(
                    f"{self._name}: colours and depth in {self._file} have no times in common; "
                    "record it again with both streams enabled, or set use_depth: false"
                )
            if not came:
                raise NoFrame(f"{self._name}: {self._file}", timeout, "it may be damaged")
        if pair is None:
            self._check_whole()
            self._unpaired += len(self._colours) + len(self._depths)
            self._colours.clear()
            self._depths.clear()
            return None
        return self._captured(*pair)

    def _check_whole(self) -> None:
        """Check that the SDK has read the file to its end: it does not report when it stops earlier.

        Raises:
            CameraError: the file contains more frames than were read.
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
        if self._playback is not None and self._unpaired:
            warnings.warn(
                f"{self._name}: {count(self._unpaired, 'frame')} of {self._file} left out: the other stream "
                "has no frame of the same moment",
                FfencWarning,
                stacklevel=2,
            )
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
                    f"{self._name}: {self._file} holds {what} as {found.name}, but only "
                    f"{form.name} is supported; record it again with {form.name}"
                )
        self._take_profiles(
            profiles[rs.stream.color][1],
            profiles[rs.stream.depth][1] if self._use_depth else None,
            playback,
            str(self._file),
        )
        self._unpaired, self._ended = 0, False
        self._came = {stream.name: 0 for stream in wanted}

        def on_status(status: Any) -> None:
            if status == rs.playback_status.stopped:
                with self._changed:
                    self._ended = True
                    self._changed.notify_all()

        playback.set_status_changed_callback(on_status)
        # A sensor that provides both streams is opened once, with all requested profiles.
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
            frame.keep()  # not returned to the SDK's small pool, which drops frames when it is empty
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
        """Return the next two frames of the same moment; None if one is still missing."""
        half = 500 / float(self._fps)  # milliseconds
        with self._changed:
            while self._paired():
                if not self._use_depth:
                    return self._colours.popleft(), None
                apart = self._colours[0].get_timestamp() - self._depths[0].get_timestamp()
                if abs(apart) < half:
                    return self._colours.popleft(), self._depths.popleft()
                (self._depths if apart > 0 else self._colours).popleft()
                self._unpaired += 1
        return None


def _images_in(file: Path) -> dict[str, int]:
    """Return the number of images in a recording, by topic; empty if unknown (a .bag, or another format)."""
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
