"""Changes of pictures: what is accepted, and what they come to for frames of a size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ffenc import ConfigError, load_preset
from ffenc.config.overrides import split_overrides
from ffenc.config.transform import Geometry, Transform


@pytest.mark.parametrize(
    ("changes", "size", "steps"),
    [
        ({"crop": "480x480+80+0"}, (640, 480), ((80, 0, 480, 480), 0, "", None, None, 480, 480)),
        ({"crop": [0, 0, 640, 480], "flip": "v"}, (640, 480), (None, 0, "v", None, None, 640, 480)),
        ({"rotate": 90, "resize": "240x320"}, (640, 480), (None, 90, "", (240, 320), None, 240, 320)),
        ({"resize": [320, 240]}, (320, 240), (None, 0, "", None, None, 320, 240)),
        (
            {"resize": [300, 300], "pad": True},
            (640, 480),
            (None, 0, "", (300, 224), (300, 300, 0, 38), 300, 300),
        ),
        (
            {"resize": [300, 200], "pad": True},
            (480, 640),
            (None, 0, "", (150, 200), (300, 200, 74, 0), 300, 200),
        ),
        ({"resize": [320, 240], "pad": True}, (640, 480), (None, 0, "", (320, 240), None, 320, 240)),
        ({"pad": True}, (641, 480), (None, 0, "", None, (642, 480, 0, 0), 642, 480)),
        ({"pad": True}, (640, 480), (None, 0, "", None, None, 640, 480)),
        ({"resize": [20, 20], "pad": True}, (640, 2), (None, 0, "", (20, 2), (20, 20, 0, 8), 20, 20)),
    ],
)
def test_what_is_done_to_frames_of_a_size(
    changes: dict[str, Any], size: tuple[int, int], steps: tuple[Any, ...]
) -> None:
    transform = Transform(**changes)
    geometry = transform.of(*size)
    assert geometry == Geometry(*steps)
    assert geometry.changes == (any(steps[:5]))
    assert Transform(**transform.fields()) == transform
    assert Transform.from_block({"video.transform": transform.fields()}) == transform


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "changes nothing"),
        ({"pad": False, "rotate": 0}, "changes nothing"),
        ({"crop": [1, 2, 3]}, "crop: .*expected .x, y, width, height."),
        ({"crop": "480x480"}, "crop: '480x480'"),
        ({"crop": [-1, 0, 2, 2]}, "crop: .*0 or more"),
        ({"crop": [0, 0, 0, 2]}, "crop: .*1 or more"),
        ({"resize": "320"}, "resize: '320'"),
        ({"resize": [0, 5]}, "resize: .*1 to"),
        ({"resize": [1e3, 5]}, "resize"),
        ({"rotate": 45}, "rotate: 45 .*0, 90, 180 or 270"),
        ({"flip": "x"}, "flip: 'x'"),
        ({"scale": 2}, "scale: unknown key"),
    ],
)
def test_what_is_not_accepted(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Transform(**changes)


def test_a_crop_outside_of_the_frames_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"480x480\+170\+0 does not lie within frames of 640x480"):
        Transform(crop="480x480+170+0").of(640, 480)


def test_a_camera_s_own_changes_join_those_of_all(tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(
        """
transform: {resize: 320x240, pad: true}
cameras:
  front: {transform: {crop: [80, 0, 480, 480], pad: false}}
  wrist: {transform: null}
  side: {}
"""
    )
    robot = load_preset(path)
    common = Transform(resize=(320, 240), pad=True)
    assert robot.transform_for("side") == robot.transform_for("another") == common
    assert robot.transform_for("observation.images.front") == Transform(
        crop=(80, 0, 480, 480), resize=(320, 240)
    )
    assert robot.transform_for("wrist") is None
    given = load_preset(
        path, [(("transform", "resize"), "64x48"), (("cameras", "front", "transform", "flip"), "h")]
    )
    assert given.transform_for("front") == Transform(crop=(80, 0, 480, 480), resize=(64, 48), flip="h")
    path.write_text("cameras:\n  front:\n    transform: {rotate: 45}\n")
    with pytest.raises(ConfigError, match=r"robot.yaml:3: cameras.front.transform.rotate: 45"):
        load_preset(path)


def test_they_are_said_on_a_command_line() -> None:
    words = [
        "--cameras.front.resize=320x240",
        "--cameras.a.b.transform.crop=[1,2,3,4]",
        "--cameras.a.b.pad",
        "true",
    ]
    overrides, rest = split_overrides(words)
    assert overrides == [
        (("cameras", "front", "transform", "resize"), "320x240"),
        (("cameras", "a.b", "transform", "crop"), [1, 2, 3, 4]),
        (("cameras", "a.b", "transform", "pad"), True),
    ]
    assert rest == []
