"""Settings and presets that reach no camera are refused, with the nearest name."""

import warnings

import pytest

from ffenc.config.matching import check_added, check_named, check_overrides, check_preset
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
