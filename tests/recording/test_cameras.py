"""Cameras that need no device, and V4L2 cameras with a stand-in for the device; real ffmpeg throughout."""

from __future__ import annotations

import io
import os
import sys
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffenc import DepthEncoderConfig, VideoEncoderConfig, VideoReader, VideoWriter
from ffenc.config.source import CameraSource
from ffenc.errors import CameraError, ConfigError
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.depth import DepthQuantizer
from ffenc.recording.cameras import CapturedFrame, Newest, open_camera, read_number
from ffenc.recording.cameras.jpeg import JpegSplitter
from ffenc.recording.cameras.number import draw_number
from ffenc.recording.cameras.test_pattern import TestPattern
from ffenc.recording.cameras.v4l2 import V4l2
from tests.stand_in import V4L2_STAND_IN
from tests.support.make import numbered_images

FPS = Fraction(30)
WAIT = 20.0


def opened(name="front", *, width=None, height=None, depth=False, unit="mm", **source):
    camera = open_camera(
        name, CameraSource(**source), width=width, height=height, fps=FPS, depth=depth, depth_unit=unit
    )
    camera.open()
    return camera


# ---- test pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 48), (160, 120), (641, 479)])
@pytest.mark.parametrize(("depth", "unit"), [(False, "mm"), (True, "mm"), (True, "m")])
def test_pictures_are_numbered_from_0_in_every_episode(size, depth, unit) -> None:
    camera = opened(type="test", width=size[0], height=size[1], depth=depth, unit=unit)
    assert camera.paced
    assert not camera.live
    for _ in range(2):
        camera.rewind()
        frames = [np.array(camera.read(0)["front"].data) for _ in range(5)]
        assert [read_number(frame) for frame in frames] == [0, 1, 2, 3, 4]
    assert frames[0].dtype == (np.uint8 if not depth else np.uint16 if unit == "mm" else np.float32)
    assert (frames[3] != frames[4]).any()
    if depth:
        assert 0.002 < (frames[0] == 0).mean() < 0.1  # holes


@pytest.mark.parametrize(
    ("toolchain", "vcodec", "size"),
    [
        *(
            ("newest", *one)
            for one in (("libsvtav1", (96, 72)), ("libsvtav1", (640, 480)), ("h264", (96, 72)))
        ),
        ("system", "libsvtav1", (96, 72)),  # 5.1's takes no 63 rows
    ],
    indirect=["toolchain"],
)
def test_numbers_are_read_after_lossy_encoding(
    toolchain: Toolchain, tmp_path: Path, vcodec: str, size: tuple[int, int]
) -> None:
    camera = TestPattern("a", width=size[0], height=size[1])
    with VideoWriter(tmp_path / "a.mp4", fps=30, config=VideoEncoderConfig(vcodec=vcodec, crf=30)) as video:
        for _ in range(20):
            video.write(camera.read(0)["a"].data)
    with VideoReader(tmp_path / "a.mp4", decoder="pyav") as video:
        assert [read_number(frame) for frame in video] == list(range(20))


def test_statistics_of_a_picture_do_not_depend_on_which_pixels_are_picked() -> None:
    frame = TestPattern("a", width=640, height=480).read(0)["a"].data
    means = [frame[start::4, start::4].mean() for start in range(4)]
    assert max(means) - min(means) < 2


def test_numbers_are_read_from_depth_that_was_encoded(tmp_path: Path) -> None:
    camera = TestPattern("a", width=64, height=48, depth=True)
    config = DepthEncoderConfig()
    with VideoWriter(tmp_path / "a.mp4", fps=30, config=config) as video:
        for _ in range(3):
            video.write(camera.read(0)["a"].data)
    for unit in ("mm", "m"):
        quantizer = DepthQuantizer.from_config(config)
        with VideoReader(tmp_path / "a.mp4", depth=quantizer, depth_output_unit=unit) as video:
            assert [read_number(frame) for frame in video] == [0, 1, 2]


def test_what_is_no_number_is_not_taken_for_one() -> None:
    for frame in (np.zeros((48, 64, 3), np.uint8), np.full((48, 64, 3), 255, np.uint8), np.zeros((8, 8))):
        with pytest.raises(ValueError, match="number"):
            read_number(frame)
    frame = np.zeros((48, 64, 3), np.uint8)
    draw_number(frame, 4711)
    block = frame[36:40, 8:16]
    upright = bool((block[0] != block[0, 0]).any())
    level = np.repeat(np.array([0, 0, 255, 255], np.uint8), 24).reshape(4, 8, 3)
    block[:] = level if upright else np.repeat(level[:, :1].swapaxes(0, 1), 4, axis=0).repeat(2, axis=1)
    with pytest.raises(ValueError, match="damaged"):
        read_number(frame)


def test_pictures_too_small_for_a_number_are_refused() -> None:
    with pytest.raises(ConfigError, match="too small; 64x48 or more"):
        opened(type="test", width=32, height=48)


# ---- folders -------------------------------------------------------------------------------------------


def test_a_folder_of_png_is_decoded_and_of_jpeg_passed_on(tmp_path: Path) -> None:
    numbered_images(tmp_path / "png", ".png")
    camera = opened(type="folder", path=str(tmp_path / "png"), width=64, height=48)
    assert camera.streams[0].format == "rgb24"
    for _ in range(2):
        camera.rewind()
        assert [read_number(camera.read(0)["front"].data) for _ in range(3)] == [0, 1, 2]
        assert camera.read(0) is None
    images = numbered_images(tmp_path / "jpeg", ".jpg")
    camera = opened(type="folder", path=str(tmp_path / "jpeg"))
    assert camera.streams[0].format == "jpeg"
    assert [camera.read(0)["front"].data for _ in range(3)] == images
    assert camera.read(0) is None


@pytest.mark.parametrize("unit", ["mm", "m"])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_a_folder_of_depth_comes_in_the_unit_asked_for(tmp_path: Path, unit: str, suffix: str) -> None:
    depth = np.array([[0, 1, 1234], [65535, 5, 999]], np.uint16)
    stored = depth if suffix == ".png" else depth.astype(np.float32) / 1000
    Image.fromarray(stored).save(tmp_path / f"frame-000000{suffix}")
    camera = opened(type="folder", path=str(tmp_path), depth=True, unit=unit)
    found = camera.read(0)["front"].data
    assert found.dtype == (np.uint16 if unit == "mm" else np.float32)
    np.testing.assert_allclose(found, depth if unit == "mm" else depth / 1000, rtol=1e-6)


def test_a_folder_that_is_not_as_asked_is_refused(tmp_path: Path) -> None:
    numbered_images(tmp_path / "a", ".png")
    with pytest.raises(CameraError, match="width is 640: set width: 64 and height: 48"):
        opened(type="folder", path=str(tmp_path / "a"), width=640)
    with pytest.raises(CameraError, match="holds colours, but the camera is set to depth: set depth: false"):
        opened(type="folder", path=str(tmp_path / "a"), depth=True)
    (tmp_path / "a/frame-000001.png").unlink()
    with pytest.raises(CameraError, match="front: .*frame 1 is missing"):
        opened(type="folder", path=str(tmp_path / "a"))
    with pytest.raises(CameraError, match="cannot be read"):
        opened(type="folder", path=str(tmp_path / "b"))


# ---- JPEG images from a stream -------------------------------------------------------------------------


def jpeg(number: int, **save) -> bytes:
    frame = np.random.default_rng(number).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", **save)
    return file.getvalue()


# With a thumbnail, a whole JPEG image in a segment: its end is not the image's.
IMAGES = [
    jpeg(0),
    jpeg(1, progressive=True),
    jpeg(2, comment=b"\xff\xd9" + jpeg(9)),
    jpeg(3, restart_marker_blocks=2),
]


@pytest.mark.parametrize("piece", [1, 7, 1000, 1 << 20])
def test_images_are_cut_apart_wherever_the_pieces_end(piece: int) -> None:
    data = b"\0junk\xff" + b"".join(IMAGES)
    splitter = JpegSplitter()
    found = [image for at in range(0, len(data), piece) for image in splitter.feed(data[at : at + piece])]
    assert found == IMAGES
    assert splitter.torn == 0


def test_torn_images_are_left_out_and_the_next_is_found() -> None:
    whole = jpeg(5)
    wrong_length = bytearray(whole)
    wrong_length[4:6] = b"\xff\xff"  # leads past the next image
    torn = [whole[:-400], whole[:300], bytes(wrong_length), whole[:2], whole[:700] + b"\xff\xc7xx"]
    for broken in torn:
        splitter = JpegSplitter()
        found = splitter.feed(broken + b"".join(IMAGES * 12))
        assert found == IMAGES * 12
        assert splitter.torn >= 1


# ---- V4L2 ----------------------------------------------------------------------------------------------


@pytest.fixture
def v4l2(tmp_path: Path, toolchain: Toolchain):
    """A V4L2 camera whose device is another input of the same ffmpeg."""
    cameras = []
    device = tmp_path / "video0"
    device.touch()

    def make(swap: list[str], *, said: str = "", width=64, height=48, **settings) -> V4l2:
        program = tmp_path / "ffmpeg"
        program.write_text(
            V4L2_STAND_IN.format(python=sys.executable, real=toolchain.ffmpeg, swap=swap, said=said)
        )
        program.chmod(0o755)
        camera = V4l2(
            "front", str(device), width=width, height=height, fps=FPS, ffmpeg=str(program), **settings
        )
        cameras.append(camera)
        return camera

    yield make
    for camera in cameras:
        camera.close()


def scene(rate: str = "30", extra: str = "") -> list[str]:
    return ["-re", "-f", "lavfi", "-i", f"testsrc=size=64x48:rate={rate}{extra}"]


@pytest.mark.usefixtures("no_ffmpeg_left")
def test_jpeg_images_come_as_they_are_and_the_end_is_told(tmp_path: Path, v4l2) -> None:
    images = numbered_images(tmp_path / "images", ".jpg", count=12)
    torn = images[5][:-100]
    (tmp_path / "stream.mjpeg").write_bytes(b"".join([*images[:5], torn, *images[6:]]))
    camera = v4l2(["-f", "mjpeg", "-i", str(tmp_path / "stream.mjpeg")])
    camera.open()
    assert camera.live
    found = []
    with pytest.raises(
        CameraError, match="video0 cannot be read: ffmpeg ended; check whether it is still connected"
    ):
        while True:
            found.append(camera.read(WAIT)["front"])
    assert [frame.data for frame in found] == images[:5] + images[6:]
    assert camera.torn == 1
    assert found[0].timestamp <= found[-1].timestamp


@pytest.mark.usefixtures("no_ffmpeg_left")
def test_raw_frames_come_as_rgb(v4l2) -> None:
    camera = v4l2(["-f", "lavfi", "-i", "color=red:size=64x48:rate=30"], pixels="raw")
    camera.open()
    for _ in range(3):
        frame = camera.read(WAIT)["front"].data
        assert frame.shape == (48, 64, 3)
        assert abs(frame.astype(int) - [254, 0, 0]).max() <= 2
    camera.close()
    with pytest.raises(CameraError, match="is not open"):
        camera.read(WAIT)


@pytest.mark.parametrize("pixels", ["raw", "mjpeg"])
def test_a_driver_that_takes_another_size_is_found_out(tmp_path: Path, v4l2, pixels: str) -> None:
    numbered_images(tmp_path / "images", ".jpg", count=12)
    swap = ["-i", str(tmp_path / "images/frame-%06d.jpg")]
    with pytest.raises(
        CameraError, match="gives frames of 64x48, not 32x24: set the camera's width and height"
    ):
        v4l2(swap, width=32, height=24, pixels=pixels).open()


def test_a_driver_that_takes_another_rate_is_found_out(v4l2) -> None:
    said = "[video4linux2,v4l2 @ 0x1] [info] The driver changed the time per frame from 1/30 to 1/15"
    with pytest.raises(CameraError, match="gives 15 frames per second, not 30: set fps"):
        v4l2(scene("15"), said=said, pixels="raw").open()


def test_a_camera_that_gives_nothing_is_told_in_time(tmp_path: Path, v4l2) -> None:
    os.mkfifo(tmp_path / "fifo")
    keep = os.open(tmp_path / "fifo", os.O_RDWR)
    camera = v4l2(
        ["-f", "rawvideo", "-video_size", "64x48", "-pix_fmt", "rgb24", "-i", str(tmp_path / "fifo")],
        pixels="raw",
    )
    os.write(keep, bytes(64 * 48 * 3) * 2)
    camera.open()
    with pytest.raises(CameraError, match=r"gave no frame in 0.3 s: check whether it is still connected"):
        for _ in range(3):
            camera.read(0.3)
    os.close(keep)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Device or resource busy", "Device or resource busy; another program uses it"),
        ("Permission denied", "sudo usermod -aG video"),
        ("Invalid argument", "--list-formats-ext lists those it supports"),
    ],
)
def test_a_camera_that_cannot_be_opened_is_told_with_what_to_do(v4l2, said: str, words: str) -> None:
    line = f"[video4linux2,v4l2 @ 0x1] [error] ioctl(VIDIOC_STREAMON): {said}"
    with pytest.raises(CameraError, match=words):
        v4l2(["-i", "/nowhere"], said=line).open()


def test_no_such_device_lists_those_there_are() -> None:
    with pytest.raises(
        CameraError, match=r"there is no /dev/video97; (cameras here: |no camera is connected)"
    ):
        opened(type="v4l2", device=97, width=64, height=48)


def test_what_a_source_cannot_give_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs width and height"):
        opened(type="v4l2", device=0)
    with pytest.raises(ConfigError, match=r"use_depth: true, which also gives front_depth"):
        opened(type="realsense", depth=True)


# ---- the newest frames ---------------------------------------------------------------------------------


class Pushed:
    """A live camera whose frames the test gives."""

    live = paced = True

    def __init__(self) -> None:
        self.streams = TestPattern("a", width=64, height=48).streams
        self._buffer = np.zeros((48, 64, 3), np.uint8)
        self._given = threading.Semaphore(0)
        self.asked = threading.Semaphore(0)
        self._number = 0

    def give(self) -> None:
        """One frame; returns when it has been taken over."""
        self._given.release()
        assert self.asked.acquire(timeout=WAIT)

    def open(self) -> None:
        assert self.asked.acquire(timeout=WAIT)

    def rewind(self) -> None:
        pass

    def read(self, timeout):
        self.asked.release()
        self._buffer[:] = 0
        if not self._given.acquire(timeout=timeout):
            raise CameraError("unplugged")
        draw_number(self._buffer, self._number)
        self._number += 1
        return {"a": CapturedFrame(self._buffer, float(self._number))}

    def close(self) -> None:
        pass


def test_the_newest_frame_is_taken_once_and_is_the_takers_own() -> None:
    camera = Pushed()
    newest = Newest(camera, timeout=0.5)
    camera.open()
    assert newest.take() is None
    for _ in range(3):
        camera.give()
    frame = newest.take()["a"]
    assert newest.take() is None
    camera.give()
    assert read_number(frame.data) == 2  # though the camera has used its buffer again
    assert frame.timestamp == 3.0
    assert read_number(newest.take()["a"].data) == 3
    for _ in range(2):  # an error comes at every take
        with pytest.raises(CameraError, match="unplugged"):
            newest.take(WAIT)
    newest.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "ffenc-camera"]


@pytest.mark.usefixtures("no_ffmpeg_left")
def test_the_newest_of_a_camera_that_runs(v4l2) -> None:
    camera = v4l2(scene("100"), pixels="raw")
    camera.open()
    newest = Newest(camera)
    frames = [newest.take(WAIT) for _ in range(5)]
    assert all(frame is not None and frame["front"].data.shape == (48, 64, 3) for frame in frames)
    newest.close()
    camera.close()
