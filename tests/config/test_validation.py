"""Settings: what is checked when they are made, copied and sent to another process."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.mapping import CameraMapping, FeatureMapping, SourceMapping
from ffenc.config.preset import CameraPreset, RobotPreset
from ffenc.config.source import CameraSource
from ffenc.config.transform import Transform
from ffenc.config.validation import SettingError, Settings, default_of, expected_of
from ffenc.errors import ConfigError

ALL: list[Settings] = [
    VideoEncoderConfig(vcodec="av1", crf=23, extra_options={"tune": 0}),
    VideoEncoderConfig.in_force({"vcodec": "h264_nvenc", "crf": 30}),
    DepthEncoderConfig(vcodec="ffv1"),
    Transform(crop="480x480+80+0", resize=[320, 240]),
    CameraSource(type="v4l2", device=0),
    RobotPreset(name="so101", fps="30000/1001", cameras={"top": CameraPreset(encoder=VideoEncoderConfig())}),
    SourceMapping(cameras={"top": CameraMapping(path="/top", white=1)}),
]


@pytest.mark.parametrize("settings", ALL, ids=lambda settings: type(settings).__name__)
def test_settings_are_the_same_in_another_process_and_in_a_copy(settings: Settings) -> None:
    for again in (pickle.loads(pickle.dumps(settings)), copy.copy(settings), copy.deepcopy(settings)):
        assert type(again) is type(settings)
        assert again == settings
        assert again.given == settings.given
        assert again.as_plain() == settings.as_plain()


def test_a_crf_without_effect_counts_as_not_passed_in_another_process_too() -> None:
    settings = VideoEncoderConfig.in_force({"vcodec": "ffv1", "crf": 23})
    assert settings.crf == 23
    assert "crf" not in settings.given
    again = pickle.loads(pickle.dumps(settings))
    assert "crf" not in again.given
    assert again.get_codec_options() == settings.get_codec_options()


def test_a_copy_with_changes_is_validated_and_what_follows_from_others_follows_again() -> None:
    config = VideoEncoderConfig(crf=23)
    assert config.preset == 12  # libsvtav1's
    changed = config.replace(vcodec="h264")
    assert (changed.vcodec, changed.crf, changed.preset) == ("h264", 23, None)
    assert changed.given == {"vcodec", "crf"}
    with pytest.raises(ConfigError, match=r"crf: -1 is not accepted; expected a number of 0 or more"):
        config.replace(crf=-1)
    with pytest.raises(ConfigError, match="cfr: unknown key; did you mean 'crf'"):
        config.replace(cfr=1)
    with pytest.raises(ConfigError, match=r"g: 0 is not accepted"):
        config.__replace__(g=0)  # of copy.replace in Python 3.13


def test_settings_in_settings_may_be_plain_values_and_errors_have_the_whole_key() -> None:
    values = {"encoder": {"vcodec": "h264"}, "source": {"type": "v4l2", "device": 0}}
    preset = RobotPreset(name="a", cameras={"top": values})
    camera = preset.cameras["top"]
    assert (camera.encoder.vcodec, camera.source) == ("h264", CameraSource(type="v4l2", device=0))
    assert camera.as_plain(only_given=True) == values
    with pytest.raises(SettingError) as caught:
        RobotPreset(name="a", cameras={"top": {"encoder": {"vcodec": "h264", "crf": "low"}}})
    assert caught.value.key == ("cameras", "top", "encoder", "crf")
    with pytest.raises(ConfigError, match="cameras.*'top': 3.* expected a mapping of camera names to their"):
        RobotPreset(name="a", cameras={"top": 3})
    with pytest.raises(ConfigError, match=r"cameras\.top\.encoder: is missing; expected a mapping of"):
        RobotPreset(name="a", cameras={"top": {}})
    with pytest.raises(ConfigError, match=r"depth_encoder: VideoEncoderConfig\(.* is not accepted"):
        RobotPreset(name="a", depth_encoder=VideoEncoderConfig())
    depth = CameraPreset(depth=True, encoder=DepthEncoderConfig())
    assert type(depth.encoder) is DepthEncoderConfig


def test_plain_values_hold_only_what_was_passed_where_asked_for() -> None:
    mapping = SourceMapping(
        cameras={"top": CameraMapping(path="/top")},
        features={"action": FeatureMapping(path=["/a", "/b"], columns=[0, 2])},
    )
    assert mapping.as_plain(only_given=True) == {
        "cameras": {"top": {"path": "/top"}},
        "features": {"action": {"path": ["/a", "/b"], "columns": [0, 2]}},
    }
    assert mapping.as_plain()["cameras"]["top"]["white"] is None


def test_numbers_are_no_texts_and_no_truth_values() -> None:
    for value in ("0.5", True, float("nan"), float("inf"), 0, [1]):
        with pytest.raises(ConfigError, match=r"white: .* is not accepted; expected a number above 0"):
            CameraMapping(path="/top", white=value)
    assert CameraMapping(path="/top", white=255).white == 255.0


def test_huge_whole_numbers_are_within_the_range_of_a_field_or_refused() -> None:
    for value in (2**63, 2**64, 2**70, 10**400):
        with pytest.raises(ConfigError, match="width: .*expected a number of pixels"):
            CameraPreset(width=value, encoder=VideoEncoderConfig())


def test_what_a_field_accepts_and_its_default_are_in_its_type() -> None:
    assert default_of(DepthEncoderConfig, "extra_options") == {"x265-params": "lossless=1"}
    assert expected_of(DepthEncoderConfig, "depth_min") == "a finite number of metres"
    assert inspect.signature(VideoEncoderConfig).parameters["crf"].default == 30
