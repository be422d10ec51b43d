"""Settings and presets that reach no camera are refused, with the nearest name."""

import warnings

import pytest

from ffenc.config.matching import (
    check_added,
    check_encoders,
    check_named,
    check_overrides,
    check_preset,
    check_quantisers,
)
from ffenc.config.preset import load_preset
from ffenc.errors import ConfigError, FfencWarning

CAMERAS = {"top": False, "angle": False}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (("cameras", "tp", "encoder", "crf"), r"cameras\.tp\.encoder\.crf: .* 'tp'; did you mean 'top'"),
        (("cameras", "top", "width"), r"cameras\.top\.width would have no effect: width .* for recording"),
        (("cameras", "wrist", "encoder", "crf"), r"would have no effect: camera 'wrist' is left out"),
        (("depth_encoder", "preset"), r"would have no effect: none of top, angle is a depth camera"),
    ],
)
def test_a_setting_that_reaches_no_camera_is_refused(key, text):
    with pytest.raises(ConfigError, match=text):
        check_overrides([(key, 1)], CAMERAS, ["wrist"])


def test_settings_that_reach_a_camera_are_taken():
    keys = [("camera_encoder", "crf"), ("cameras", "top", "encoder", "crf"), ("fps",), ("encoder_threads",)]
    check_overrides([(key, 1) for key in keys], CAMERAS)


def test_a_preset_of_other_cameras_is_refused():
    with pytest.raises(ConfigError, match=r"so101 is for cameras front, wrist.*did you mean 'front'"):
        check_preset(load_preset("so101"), ["frnt", "top"])


def test_cameras_that_a_preset_does_not_name_are_said():
    with pytest.warns(FfencWarning, match="so101 does not name top: its settings for all cameras"):
        check_preset(load_preset("so101"), ["front", "top"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_preset(load_preset("so101"), ["front"])
        check_preset(load_preset(None), ["front"])


def test_a_camera_more_is_no_slip_in_the_name_of_another():
    check_added("head", ["front", "wrist"], "so101")
    check_added("front", ["front", "wrist"], "so101")
    with pytest.raises(ConfigError, match=r"so101 has no camera 'frnt'; did you mean 'front'"):
        check_added("frnt", ["front", "wrist"], "so101")
    with pytest.raises(ConfigError, match=r"cameras\.frnt\.width: so101 has no camera 'frnt'; did you mean"):
        check_named([(("cameras", "frnt", "width"), 1)], ["front", "wrist"], "so101")


def test_settings_of_a_quantiser_that_no_selected_camera_has_are_refused(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text("""
cameras:
  near: {depth: true}
  far: {depth: true, encoder: {vcodec: ffv1, pix_fmt: gray16le}}
""")
    of_all, of_near, of_far = (
        [((*where, "depth_max"), 3)]
        for where in (("depth_encoder",), ("cameras", "near", "encoder"), ("cameras", "far", "encoder"))
    )
    robot = load_preset(path, of_all)
    check_encoders(robot, of_all)  # it applies to one of them
    check_encoders(robot, of_near)
    for overrides, names in ((of_far, None), (of_all, ["far"])):
        with pytest.raises(ConfigError, match="depth_max would have no effect: gray16le stores depth as it"):
            check_encoders(robot, overrides, names)
    with pytest.raises(ConfigError, match=r"depth_encoder\.depth_max would have no effect: gray16le"):
        check_quantisers({"": "gray16le"}, of_all)
