"""Whether a machine keeps up with a preset, and what to change where it does not."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from ffenc import ConfigError, DepthEncoderConfig, VideoEncoderConfig, load_preset
from ffenc.config.preset import CameraPreset, RobotPreset
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.frames import load as loading
from ffenc.frames.encoding import Encoding
from ffenc.recording import keep_up
from ffenc.recording.keep_up import check_preset, faster_settings
from tests.conftest import find_toolchain, system_if_long
from tests.stand_in import stand_in_ffmpeg

pytestmark = pytest.mark.usefixtures("no_ffmpeg_left")
FRAME = 64 * 64 * 3
SMALL = "{width: 64, height: 64}"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that gives nothing is waited for a little only."""
    monkeypatch.setattr(loading, "WARM_UP_LIMIT", 1.0)


def preset(tmp_path: Path, text: str) -> RobotPreset:
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    return load_preset(path)


def steps(config: VideoEncoderConfig, *hardware: str) -> list[dict[str, Any]]:
    frames = "gray12le" if isinstance(config, DepthEncoderConfig) else "rgb24"
    encoding = Encoding(config, 64, 64, Fraction(30), frames, None, Toolchain("ffmpeg", "ffprobe", "7.1"))  # type: ignore[arg-type]
    return faster_settings(CameraPreset(encoder=config), encoding, hardware)


X264 = [{"vcodec": "h264", "preset": "veryfast"}, {"vcodec": "h264", "preset": "ultrafast"}]
NO_EXTRA: dict[str, Any] = {"extra_options": {}}
LOSSLESS = DepthEncoderConfig()


@pytest.mark.parametrize(
    ("config", "hardware", "expected"),
    [
        (VideoEncoderConfig(), (), X264),
        (VideoEncoderConfig(preset=8), (), [{"preset": 12}, *X264]),
        (VideoEncoderConfig(), ("h264_vaapi", "hevc_vaapi"), [{"vcodec": "h264_vaapi"}, *X264]),
        (VideoEncoderConfig(vcodec="h264"), (), [{"preset": "veryfast"}, {"preset": "ultrafast"}]),
        (VideoEncoderConfig(vcodec="h264", preset="superfast"), (), [{"preset": "ultrafast"}]),
        (VideoEncoderConfig(vcodec="h264", preset="ultrafast"), (), []),
        (VideoEncoderConfig(vcodec="hevc", preset="ultrafast"), (), X264),
        (VideoEncoderConfig(vcodec="libaom-av1"), (), X264),
        (VideoEncoderConfig(vcodec="h264_nvenc"), ("h264_nvenc",), X264),
        (
            VideoEncoderConfig(vcodec="hevc", preset="slow", extra_options={"tune": "grain"}),
            ("h264_qsv",),
            [{"vcodec": "h264_qsv", "preset": None} | NO_EXTRA, *(step | NO_EXTRA for step in X264)],
        ),
        (LOSSLESS, (), [{"preset": "ultrafast"}, {"vcodec": "ffv1"} | NO_EXTRA]),
        (
            LOSSLESS.replace(preset="ultrafast"),
            ("h264_vaapi",),
            [{"vcodec": "ffv1", "preset": None} | NO_EXTRA],
        ),
        (DepthEncoderConfig(vcodec="ffv1", extra_options={}), ("h264_vaapi",), []),
    ],
    ids=repr,
)
def test_faster_settings(
    config: VideoEncoderConfig, hardware: tuple[str, ...], expected: list[dict[str, Any]]
) -> None:
    found = steps(config, *hardware)
    assert found == expected
    for step in found:
        config.replace(**step).get_codec_options()  # are settings


@system_if_long
def test_small_cameras_keep_up_whatever_their_rate(tmp_path: Path, toolchain: Toolchain) -> None:
    for fps in (2, 120):
        robot = preset(
            tmp_path, f"fps: {fps}\ncamera_encoder: {{vcodec: h264}}\ncameras: {{a: {SMALL}, b: {SMALL}}}\n"
        )
        verdict = check_preset(robot, toolchains=[toolchain], seconds=0.5)
        assert verdict.keeps_up, verdict
        assert (verdict.advice, verdict.advised) == ({}, [])
        for camera in verdict.cameras:
            assert 0.9 < camera.factor <= 2
            assert 0 <= camera.cpu < 1


def test_depth_that_is_too_much_falls_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep_up, "MAX_ROUNDS", 1)
    cameras = ", ".join(f"d{i}: {{width: 640, height: 480, depth: true}}" for i in range(3))
    robot = preset(tmp_path, f"fps: 240\ndepth_encoder: {{preset: medium}}\ncameras: {{{cameras}}}\n")
    verdict = check_preset(robot, toolchains=[find_toolchain("newest")], seconds=0.5)
    assert not verdict.keeps_up
    assert [camera.camera for camera in verdict.cameras if camera.keeps_up] == []
    assert max(camera.factor for camera in verdict.cameras) < 0.9
    assert set(map(str, verdict.advice.values())) <= {"{'preset': 'ultrafast'}"}


def test_what_a_camera_costs_too_much_is_found_a_remedy_that_was_measured(
    tmp_path: Path,
) -> None:
    robot = preset(
        tmp_path,
        "camera_encoder: {vcodec: h264}\ncameras:\n"
        "  a: {width: 64, height: 64}\n"
        "  b: {width: 160, height: 120, encoder: {vcodec: libaom-av1, preset: 0}}\n",
    )
    # The driver of this hardware is missing: it is passed over for what can be encoded here.
    verdict = check_preset(robot, toolchains=[find_toolchain("newest")], hardware=["h264_nvenc"], seconds=0.5)
    [behind] = [camera for camera in verdict.cameras if not camera.keeps_up]
    assert behind.camera == "b"
    assert set(verdict.advice) == {"b"}
    assert verdict.advice["b"]["vcodec"] == "h264"
    assert all(camera.keeps_up for camera in verdict.advised)


def test_a_camera_that_cannot_be_encoded_is_told_and_the_others_are_judged(
    tmp_path: Path, toolchain: Toolchain
) -> None:
    robot = preset(
        tmp_path,
        "camera_encoder: {vcodec: h264}\ncameras:\n"
        "  odd: {width: 641, height: 480}\n"
        "  deep: {width: 80, height: 64, depth: true, encoder: {pix_fmt: yuv420p}}\n"
        "  vast: {width: 65534, height: 65534}\n"
        "  good: {width: 64, height: 64}\n",
    )
    verdict = check_preset(robot, toolchains=[toolchain], seconds=0.5)
    odd, deep, vast, good = verdict.cameras
    assert "641x480 frames cannot be stored as yuv420p" in odd.reason
    assert "'yuv420p' would change gray12le depth" in deep.reason
    assert "larger than any encoder takes" in vast.reason
    assert good.keeps_up
    assert not verdict.keeps_up
    assert not verdict.can_be_encoded
    assert verdict.advice == {}


@pytest.mark.parametrize(
    ("how", "reason"),
    [("until", "ran, and then EncodePicture failed: device lost"), ("sticks", loading.HUNG)],
)
def test_hardware_that_gives_out_under_load_is_replaced_by_software(
    tmp_path: Path, how: str, reason: str
) -> None:
    program = stand_in_ffmpeg(tmp_path / "bin", h264_nvenc=f"libx264 {how} {20 * FRAME}")
    robot = preset(tmp_path, f"camera_encoder: {{vcodec: auto}}\ncameras: {{a: {SMALL}}}\n")
    verdict = check_preset(robot, toolchains=toolchains(program), seconds=0.5)
    [camera] = verdict.cameras
    assert camera.encoding is not None
    assert camera.encoding.config.vcodec == "h264_nvenc"
    # On a busy machine it may stick in the middle of the measurement: then it is only too slow.
    assert camera.reason == reason or (how == "sticks" and camera.reason == "")
    assert not camera.keeps_up
    assert verdict.advice == {"a": {"vcodec": "h264", "preset": "veryfast"}}
    assert all(camera.keeps_up for camera in verdict.advised)


def test_a_preset_without_cameras_is_refused(tmp_path: Path, toolchain: Toolchain) -> None:
    with pytest.raises(ConfigError, match="robot has no cameras"):
        check_preset(preset(tmp_path, "fps: 30\n"), toolchains=[toolchain])
