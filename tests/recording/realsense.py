"""RealSense recordings without a device: a software device of the SDK, and its own recorder.

``python -m tests.recording.realsense`` writes fixtures/realsense.db3.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyrealsense2 as rs

from ffenc.recording.cameras.test_pattern import TestPattern
from tests.conftest import FIXTURES

START = 1_700_000_000.0  # seconds, of the first frame
WAIT = 20.0


class SoftwareCamera:
    """A device with a colour and a depth sensor, to be given frames.

    Args:
        shape: (height, width) of both.
        units: metres of one raw depth step.
        apart: metres between the two lenses; with 0 depth is of the colours' pixels.
    """

    def __init__(
        self, shape: tuple[int, int], *, fps: int = 30, units: float = 0.001, apart: float = 0.0
    ) -> None:
        self.fps = fps
        self._units = units
        self.device = rs.software_device()
        self.device.register_info(rs.camera_info.name, "Stand-in D435")
        self.device.register_info(rs.camera_info.serial_number, "012345678901")
        self._depth = self.device.add_sensor("Stereo Module")
        self._colour = self.device.add_sensor("RGB Camera")
        self._depth.add_read_only_option(rs.option.depth_units, units)
        self.depth_profile = self._depth.add_video_stream(_stream(rs.stream.depth, shape, fps), True)
        self.colour_profile = self._colour.add_video_stream(_stream(rs.stream.color, shape, fps), True)
        moved = rs.extrinsics()
        moved.rotation, moved.translation = [1, 0, 0, 0, 1, 0, 0, 0, 1], [apart, 0, 0]
        self.depth_profile.register_extrinsics_to(self.colour_profile, moved)
        self.device.create_matcher(rs.matchers.default)

    def plug_into(self, context: Any) -> None:
        """Have a context list it. The SDK forgets it unless someone holds what it says of the change."""
        self._events: list[Any] = []
        plugged = threading.Event()

        def on_change(event: Any) -> None:
            self._events.append(event)
            plugged.set()

        context.set_devices_changed_callback(on_change)
        self.device.add_to(context)
        assert plugged.wait(WAIT)

    def give_colour(self, number: int, pixels: np.ndarray) -> None:
        self._colour.on_video_frame(self._frame(self.colour_profile, number, pixels, 3))

    def give_depth(self, number: int, raw: np.ndarray) -> None:
        self._depth.on_video_frame(self._frame(self.depth_profile, number, raw, 2))

    def _frame(self, profile: Any, number: int, pixels: np.ndarray, size: int) -> Any:
        frame = rs.software_video_frame()
        frame.pixels = np.ascontiguousarray(pixels)
        frame.stride, frame.bpp = pixels.shape[1] * size, size
        frame.timestamp = (START + number / self.fps) * 1000
        frame.domain = rs.timestamp_domain.system_time
        frame.frame_number = number
        frame.profile = profile.as_video_stream_profile()
        frame.depth_units = self._units
        return frame


def _stream(kind: Any, shape: tuple[int, int], fps: int) -> Any:
    stream = rs.video_stream()
    stream.type, stream.uid, stream.fps = kind, int(kind), fps
    stream.height, stream.width = shape
    stream.bpp, stream.fmt = (2, rs.format.z16) if kind == rs.stream.depth else (3, rs.format.rgb8)
    lens = rs.intrinsics()
    lens.height, lens.width = shape
    lens.fx = lens.fy = float(shape[1])
    lens.ppx, lens.ppy = shape[1] / 2, shape[0] / 2
    lens.model, lens.coeffs = rs.distortion.none, [0] * 5
    stream.intrinsics = lens
    return stream


def write_recording(
    path: Path,
    frames: Sequence[tuple[str, int, np.ndarray]],
    *,
    fps: int = 30,
    units: float = 0.001,
    apart: float = 0.0,
) -> None:
    """Write a recording.

    Args:
        path: the file, ``.db3``.
        frames: ("colour" or "depth", number, pixels) as they arrive: ``(H, W, 3)`` uint8, ``(H, W)`` uint16.
        fps, units, apart: as for :class:`SoftwareCamera`.
    """
    path.unlink(missing_ok=True)
    camera = SoftwareCamera(frames[0][2].shape[:2], fps=fps, units=units, apart=apart)
    recorder = rs.recorder(str(path), camera.device)
    arrived = threading.Semaphore(0)
    sensors = list(zip(recorder.query_sensors(), (camera.depth_profile, camera.colour_profile), strict=True))
    for sensor, profile in sensors:
        sensor.open(profile)
        sensor.start(lambda _: arrived.release())
    for kind, number, pixels in frames:
        (camera.give_colour if kind == "colour" else camera.give_depth)(number, pixels)
        assert arrived.acquire(timeout=WAIT)  # the recorder's own queue is short
    for sensor, _ in sensors:
        sensor.stop()
        sensor.close()
    # The last reference: the recorder writes what it holds and closes the file.
    del sensor, sensors, recorder


def numbered(count: int, shape: tuple[int, int]) -> list[tuple[str, int, np.ndarray]]:
    """Frames with the number drawn in colour and depth, pair by pair."""
    colour = TestPattern("a", width=shape[1], height=shape[0])
    depth = TestPattern("a", width=shape[1], height=shape[0], depth=True)
    frames: list[tuple[str, int, np.ndarray]] = []
    for number in range(count):
        frames.append(("depth", number, np.array(depth.read(0)["a"].data)))
        frames.append(("colour", number, np.array(colour.read(0)["a"].data)))
    return frames


if __name__ == "__main__":
    write_recording(FIXTURES / "realsense.db3", numbered(40, (120, 160)))
