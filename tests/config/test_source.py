import pytest
import yaml

from ffenc.config.source import CameraSource, lerobot_camera
from ffenc.errors import ConfigError


def test_each_type_takes_its_own_fields():
    assert CameraSource(type="test").pixels == "mjpeg"
    assert CameraSource(type="folder", path="frames").path == "frames"
    assert CameraSource(type="v4l2", device=2).device_path == "/dev/video2"
    assert CameraSource(type="v4l2", device="2", pixels="raw").device_path == "/dev/video2"
    assert CameraSource(type="v4l2", device="/dev/v4l/by-id/x").device_path == "/dev/v4l/by-id/x"
    assert CameraSource(type="realsense").serial is None
    assert CameraSource(type="realsense", file="a.db3", use_depth=True).use_depth


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "type: is missing; expected one of 'test', 'folder', 'v4l2', 'realsense'"),
        ({"type": "opencv"}, "type: 'opencv'"),
        ({"type": "test", "path": "a"}, "path: is not a field of type: test, which takes none"),
        ({"type": "folder"}, "path: is missing for type: folder; expected a folder's path"),
        (
            {"type": "folder", "path": "a", "pixels": "raw"},
            "pixels: is not a field of type: folder; acc.*path",
        ),
        (
            {"type": "v4l2"},
            "device: is missing for type: v4l2; expected a path such as /dev/video0, or its number",
        ),
        ({"type": "v4l2", "device": -1}, "device: -1 is not the number of a device"),
        ({"type": "v4l2", "device": 0, "pixels": "yuyv"}, "pixels: 'yuyv'.*expected 'mjpeg' or 'raw'"),
        ({"type": "realsense", "serial": 83}, "serial: 83.*expected a text in quotes"),
        ({"type": "realsense", "serial": "1", "file": "a.db3"}, "serial: selects a device.*keep one"),
        ({"type": "realsense", "file": "a.mp4"}, "file: 'a.mp4' is not accepted; expected a .db3 or .bag"),
        ({"type": "realsense", "depth": True}, "depth: unknown key; did you mean 'use_depth'"),
    ],
)
def test_what_is_refused_names_the_key(values, words):
    with pytest.raises(ConfigError, match=words):
        CameraSource(**values)


def translated(text):
    return {name: lerobot_camera(name, values) for name, values in yaml.safe_load(text).items()}


def test_lerobots_cameras_are_translated():
    found = translated(
        "{front: {type: opencv, index_or_path: 0, width: 640, height: 480, fps: 30, warmup_s: 1, "
        "rotation: 0}, "
        "top: {type: opencv, index_or_path: /dev/video4, fourcc: YUYV, color_mode: rgb, backend: 200}, "
        "wrist: {type: opencv, index_or_path: 2, fourcc: MJPG}, "
        "head: {type: intelrealsense, serial_number_or_name: 233522074606, width: 640, height: 480, fps: 30, "
        "use_depth: true, use_rgb: true, exposure: null}, "
        "own: {type: test, width: 64, height: 48}}"
    )
    assert {name: camera.source for name, camera in found.items()} == {
        "front": {"type": "v4l2", "device": 0},
        "top": {"type": "v4l2", "device": "/dev/video4", "pixels": "raw"},
        "wrist": {"type": "v4l2", "device": 2, "pixels": "mjpeg"},
        "head": {"type": "realsense", "serial": "233522074606", "use_depth": True},
        "own": {"type": "test"},
    }
    assert (found["front"].width, found["front"].height, found["front"].fps) == (640, 480, 30)
    assert (found["top"].width, found["top"].height, found["top"].fps) == (None, None, None)
    assert (found["own"].width, found["own"].height) == (64, 48)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{a: 0}", "a: 0 is not accepted; expected a mapping"),
        ("{a: {index_or_path: 0}}", "a.type: is missing"),
        ("{a: {type: zmq}}", "a.type: 'zmq' is not accepted.*opencv, intelrealsense, test, folder"),
        ("{a: {type: opencv}}", "a.index_or_path: is missing"),
        ("{a: {type: opencv, index_or_path: x.mp4}}", "a.index_or_path: 'x.mp4' is a video file"),
        ("{a: {type: opencv, index_or_path: 0, fourc: MJPG}}", "a.fourc: unknown key.*did you mean 'fourcc'"),
        ("{a: {type: opencv, index_or_path: 0, fourcc: JPG}}", "a.fourcc: 'JPG'.*four letters"),
        (
            "{a: {type: opencv, index_or_path: 0, rotation: 90}}",
            "a.rotation: 90 is not accepted.*rotate the frames with cameras.a.rotate=90",
        ),
        ("{a: {type: opencv, index_or_path: 0, color_mode: bgr}}", "a.color_mode: 'bgr'.*hold RGB"),
        ("{a: {type: opencv, index_or_path: 0, width: 0}}", "a.width: 0 is not accepted"),
        (
            "{a: {type: opencv, index_or_path: 0, fps: fast}}",
            "a.fps: 'fast' is not a frame rate|a.fps: .*fast",
        ),
        ("{a: {type: intelrealsense, use_rgb: false}}", "a.use_rgb: False.*depth without colour"),
        ("{a: {type: intelrealsense, exposure: 100}}", "a.exposure: 100.*realsense-viewer"),
        ("{a: {type: intelrealsense, use_depth: 1}}", "a.use_depth: 1"),
        ("{a: {type: test, path: x}}", "a.path: is not a field of type: test"),
    ],
)
def test_what_lerobots_cameras_ask_for_in_vain_is_named(entry, words):
    with pytest.raises(ConfigError, match=words):
        translated(entry)
