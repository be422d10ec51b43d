import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.mapping import load_mapping
from ffenc.config.preset import load_preset, preset_names
from ffenc.config.source import CameraSource
from ffenc.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = [
    "aloha",
    "aloha_sim",
    "jetson_orin",
    "koch",
    "lekiwi",
    "raspberry_pi5",
    "reachy2",
    "so100",
    "so101",
    "unitree_g1",
]
FRONT = "cameras: {front: {width: 640, height: 480}}\n"


@pytest.fixture
def write(tmp_path):
    """Write a preset file and return its path."""

    def write(text, name="robot.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path, overrides=()):
    with pytest.raises(ConfigError) as caught:
        load_preset(path, overrides)
    return str(caught.value)


# ---- what comes with ffenc -----------------------------------------------------------------------------


def test_the_required_presets_exist():
    assert set(REQUIRED) <= set(preset_names())
    assert preset_names() == sorted(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_a_shipped_preset_loads_and_has_cameras(name):
    preset = load_preset(name)
    assert preset.name == name
    assert any(not camera.depth for camera in preset.cameras.values())
    for camera in preset.cameras.values():
        assert isinstance(camera.encoder, DepthEncoderConfig) == camera.depth


@pytest.mark.parametrize(
    ("name", "robot_type", "cameras"),
    [
        ("so100", "so100_follower", ["front", "wrist"]),
        ("so101", "so101_follower", ["front", "wrist"]),
        ("koch", "koch_follower", ["laptop", "phone"]),
        ("aloha", "aloha", ["cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist"]),
        ("aloha_sim", "aloha", ["top", "angle", "angle_depth"]),
        ("lekiwi", "lekiwi", ["front", "wrist"]),
        ("reachy2", "reachy2", ["teleop_left", "teleop_right", "torso_rgb", "torso_depth"]),
        ("unitree_g1", "unitree_g1", ["head", "head_depth"]),
        ("jetson_orin", None, ["front", "wrist"]),
        ("raspberry_pi5", None, ["front", "wrist"]),
    ],
)
def test_a_shipped_preset_is_of_its_robot(name, robot_type, cameras):
    preset = load_preset(name)
    assert preset.robot_type == robot_type
    assert list(preset.cameras) == cameras


def test_a_built_wheel_has_presets_types_licence_and_a_readme_without_dead_links(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    script = """
import json, ffenc, ffenc.config.preset as presets
loaded = [presets.load_preset(name).name for name in presets.preset_names()]
print(json.dumps([ffenc.__file__, str(presets.preset_folder()), loaded]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "installed")},
    )
    package = tmp_path / "installed" / "ffenc"
    assert (package / "py.typed").exists()
    (about,) = (tmp_path / "installed").glob("*.dist-info")
    assert "Apache License" in (about / "licenses/LICENSE").read_text()
    metadata = (about / "METADATA").read_text()
    assert "License-Expression: Apache-2.0" in metadata
    assert re.findall(r"\]\((?!https?:)[^)]*\)", metadata) == []
    assert "how to write one (`docs/presets.md`)" in metadata
    assert json.loads(ran.stdout) == [str(package / "__init__.py"), str(package / "presets"), preset_names()]


def _examples(page: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_examples_of_the_documentation_can_be_loaded(write):
    robot, transforms, sources = _examples("presets.md")
    mine = load_preset(write(robot, "my_robot.yaml"))
    assert mine.cameras.keys() == {"front", "top", "top_depth"}
    changed = load_preset(write(f"extends: my_robot.yaml\n{transforms}")).cameras
    assert changed.keys() == mine.cameras.keys()
    assert changed["front"].transform.fields() == {"crop": [80, 0, 480, 480], "resize": [240, 240]}
    kinds = [
        load_preset(write(f"{FRONT[:-3]}, {line.split('#')[0]}}}}}")).cameras["front"].source.type
        for line in sources.splitlines()
    ]
    assert kinds == ["test", "folder", "v4l2", "v4l2", "realsense", "realsense"]
    (depth,) = _examples("depth.md")
    assert load_preset(write(f"extends: so101\n{depth}")).depth_encoder == DepthEncoderConfig(invalid="keep")
    for mapping in _examples("sources.md"):
        load_mapping(write(mapping))


# ---- settings of cameras -------------------------------------------------------------------------------


def test_no_preset_is_the_defaults():
    preset = load_preset(None)
    assert preset.camera_encoder == VideoEncoderConfig()
    assert preset.depth_encoder == DepthEncoderConfig()
    assert (preset.fps, preset.cameras, preset.encoder_threads) == (30, {}, None)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}\n", "camera_encoder:\ncameras:\n"])
def test_a_file_without_settings_is_the_defaults(write, text):
    preset = load_preset(write(text))
    assert preset == load_preset(None).replace(name="robot")


def test_a_camera_takes_the_robots_settings_with_its_own_over_them(write):
    preset = load_preset(
        write(
            """
fps: 25
camera_encoder: {vcodec: h264, crf: 23, preset: fast, extra_options: {bf: 0}}
depth_encoder: {depth_max: 4.0, preset: ultrafast}
encoder_threads: 3
cameras:
  front: {width: 640, height: 480}
  wrist: {width: 320, height: 240, encoder: {crf: 18, g: null}}
  scene: {width: 1280, height: 720, encoder: {vcodec: libsvtav1, preset: 10, extra_options: {}}}
  depth: {width: 640, height: 360, depth: true, encoder: {depth_min: 0.3}}
"""
        )
    )
    front = VideoEncoderConfig(vcodec="h264", crf=23, preset="fast", extra_options={"bf": 0})
    assert (preset.fps, preset.encoder_threads) == (25, 3)
    assert preset.camera_encoder == preset.cameras["front"].encoder == front
    assert preset.cameras["wrist"].encoder == front.replace(crf=18, g=None)
    assert preset.cameras["scene"].encoder == VideoEncoderConfig(vcodec="libsvtav1", crf=23, preset=10)
    assert preset.cameras["depth"].encoder == DepthEncoderConfig(
        depth_min=0.3, depth_max=4.0, preset="ultrafast"
    )
    assert (preset.cameras["scene"].width, preset.cameras["scene"].height) == (1280, 720)
    assert [c.depth for c in preset.cameras.values()] == [False, False, False, True]


def test_a_cameras_extra_options_stand_instead_of_the_robots(write):
    preset = load_preset(
        write(
            "camera_encoder: {extra_options: {bf: 0, refs: 2}}\n"
            "cameras: {front: {width: 2, height: 2, encoder: {extra_options: {bf: 1}}}}\n"
        )
    )
    assert preset.cameras["front"].encoder.extra_options == {"bf": 1}


def test_encoder_for_takes_a_camera_with_or_without_its_prefix(write):
    preset = load_preset(
        write(
            "depth_encoder: {depth_max: 4.0}\n"
            "cameras:\n"
            "  front: {width: 2, height: 2, encoder: {crf: 20}}\n"
            "  observation.images.wrist: {width: 2, height: 2, encoder: {crf: 21}}\n"
            "  depth: {width: 2, height: 2, depth: true, encoder: {depth_max: 2.0}}\n"
        )
    )
    assert preset.encoder_for("front").crf == 20
    assert preset.encoder_for("observation.images.front").crf == 20
    assert preset.encoder_for("wrist").crf == preset.encoder_for("observation.images.wrist").crf == 21
    assert preset.encoder_for("depth", depth=True).depth_max == 2.0
    assert preset.encoder_for("elsewhere") == preset.camera_encoder
    assert preset.encoder_for("elsewhere", depth=True) == preset.depth_encoder
    assert preset.encoder_for("depth") == preset.camera_encoder


@pytest.mark.parametrize("fps", ["30", "29.97", '"30000/1001"'])
def test_a_frame_rate_is_a_number_or_a_fraction(write, fps):
    assert str(load_preset(write(f"fps: {fps}\n")).fps) == fps.strip('"')


# ---- extends -------------------------------------------------------------------------------------------


def test_a_preset_extends_one_that_comes_with_ffenc(write):
    preset = load_preset(write("extends: aloha\nrobot_type: mine\ncamera_encoder: {crf: 35}\n"))
    assert preset.name == "robot"
    assert preset.robot_type == "mine"
    assert preset.encoder_for("cam_high").crf == 35
    assert preset.encoder_for("cam_left_wrist").crf == 26


def test_a_preset_extends_a_file_relative_to_its_own_folder(write, monkeypatch, tmp_path):
    write("fps: 15\n" + FRONT, "shared/base.yaml")
    write("extends: ../shared/base.yaml\ncamera_encoder: {crf: 20}\n", "robots/middle.yaml")
    path = write("extends: middle.yaml\ncameras: {wrist: {width: 320, height: 240}}\n", "robots/mine.yaml")
    monkeypatch.chdir(tmp_path)
    for way in (path, path.relative_to(tmp_path), "robots/mine.yaml"):
        preset = load_preset(way)
        assert preset.fps == 15
        assert list(preset.cameras) == ["front", "wrist"]
        assert preset.encoder_for("front").crf == preset.encoder_for("wrist").crf == 20


def test_what_extends_wins_key_by_key(write):
    write(
        "camera_encoder: {vcodec: h264, crf: 20, extra_options: {bf: 0}}\n"
        "cameras: {front: {width: 640, height: 480, encoder: {g: 5}}}\n",
        "base.yaml",
    )
    preset = load_preset(
        write(
            "extends: base.yaml\n"
            "camera_encoder: {crf: 25, extra_options: {refs: 2}}\n"
            "cameras: {front: {height: 360, encoder: {crf: 30}}}\n"
        )
    )
    front = preset.cameras["front"]
    assert (front.width, front.height) == (640, 360)
    assert front.encoder == VideoEncoderConfig(vcodec="h264", crf=30, g=5, extra_options={"refs": 2})


def test_a_camera_that_is_null_is_removed(write):
    preset = load_preset(write("extends: aloha\ncameras: {cam_low: null, cam_left_wrist: ~}\n"))
    assert list(preset.cameras) == ["cam_high", "cam_right_wrist"]


def test_a_removed_camera_can_be_given_back(write):
    write("extends: so100\ncameras: {front: null}\n", "base.yaml")
    preset = load_preset(write("extends: base.yaml\ncameras: {front: {width: 320, height: 240}}\n"))
    assert preset.cameras["front"].width == 320


def test_presets_that_extend_each_other_are_refused(write):
    write("extends: b.yaml\n", "a.yaml")
    write("extends: c.yaml\n", "b.yaml")
    path = write("extends: a.yaml\n", "c.yaml")
    text = refusal(path)
    assert "extends itself" in text
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        assert name in text


def test_a_preset_that_extends_itself_is_refused(write):
    assert "extends itself" in refusal(write("extends: robot.yaml\n"))


def test_extending_what_does_not_exist_is_refused_with_line_and_nearest(write, tmp_path):
    path = write("fps: 30\nextends: so102\n")
    text = refusal(path)
    assert text.startswith(f"{path}:2: extends: ")
    assert "did you mean 'so10" in text
    path = write("extends: base.yaml\n", "other.yaml")
    text = refusal(path)
    assert text.startswith(f"{path}:1: extends: ")
    assert str(tmp_path / "base.yaml") in text


@pytest.mark.parametrize("value", ["3", "[so100]", "{name: so100}", "true"])
def test_extends_takes_a_name_only(write, value):
    path = write(f"extends: {value}\n")
    assert refusal(path).startswith(f"{path}:1: extends: ")


def test_an_error_in_an_extended_file_names_that_file(write):
    base = write("fps: 30\ncamera_encoder:\n  crf: many\n", "base.yaml")
    text = refusal(write("extends: base.yaml\ncamera_encoder: {g: 3}\n"))
    assert text.startswith(f"{base}:3: camera_encoder.crf: 'many'")


def test_how_a_robot_is_recorded(write):
    preset = load_preset(
        write(
            "fps: 25\non_full: drop\nqueue_maxsize: 8\nencode: after\nvideo: false\n"
            "encoder_niceness: 19\nencoder_cpus: [2, 3]\n"
            "cameras: {front: {fps: 25.0}, head: {depth: true, depth_unit: m}}\n"
        )
    )
    assert (preset.on_full, preset.queue_maxsize, preset.encode) == ("drop", 8, "after")
    assert (preset.video, preset.encoder_niceness, preset.encoder_cpus) == (False, 19, [2, 3])
    assert preset.cameras["head"].depth_unit == "m"
    default = load_preset(None)
    assert (default.on_full, default.queue_maxsize, default.encode) == ("block", 30, "live")
    assert (default.video, default.encoder_niceness, default.encoder_cpus) == (True, 5, None)


def test_a_source_is_one_value_and_replaces_that_of_an_extended_preset(write):
    write("cameras: {front: {width: 4, source: {type: v4l2, device: /dev/video0}}}\n", "base.yaml")
    path = write("extends: base.yaml\ncameras: {front: {height: 2, source: {type: test}}}\n")
    front = load_preset(path).cameras["front"]
    assert (front.width, front.height, front.source) == (4, 2, CameraSource(type="test"))
    overrides = [(("cameras", "front", "source"), {"type": "folder", "path": "a"})]
    assert load_preset(path, overrides).cameras["front"].source == CameraSource(type="folder", path="a")


def test_cameras_that_replace_a_presets_keep_the_encoder_settings_of_the_same_names(write):
    path = write(
        "camera_encoder: {vcodec: h264}\n"
        "cameras: {front: {width: 2, height: 2, encoder: {crf: 7}}, wrist: {encoder: {crf: 9}}}\n"
    )
    cameras = {"front": {"width": 640, "height": 480, "fps": 15}, "head": {"depth": True}}
    overrides = [(("cameras",), cameras), (("fps",), 15)]
    preset = load_preset(path, overrides)
    assert list(preset.cameras) == ["front", "head"]
    assert preset.cameras["front"].width == 640
    assert preset.cameras["front"].encoder.crf == 7
    assert "command line: cameras.front.fps: 15 is not the recording's 30" in refusal(path, overrides[:1])


# ---- errors --------------------------------------------------------------------------------------------

ERRORS = [
    # text, line, key, part of the reason
    ("fps: 30\nnam: x\n", 2, "nam", "unknown key"),
    ("camera_encodr: {crf: 3}\n", 1, "camera_encodr", "did you mean 'camera_encoder'"),
    ("name: x\n", 1, "name", "unknown key"),
    ("camera_encoder:\n  vcodec: h264\n  crff: 3\n", 3, "camera_encoder.crff", "did you mean 'crf'"),
    ("camera_encoder:\n  depth_min: 3\n", 2, "camera_encoder.depth_min", "unknown key"),
    ("depth_encoder:\n  depth_mn: 3\n", 2, "depth_encoder.depth_mn", "did you mean 'depth_min'"),
    ("cameras:\n  front:\n    widht: 3\n    height: 3\n", 3, "cameras.front.widht", "did you mean 'width'"),
    (
        "cameras:\n  front: {width: 2, height: 2,\n    dephth: true}\n",
        3,
        "cameras.front.dephth",
        "did you mean 'depth'",
    ),
    (
        "cameras:\n  front:\n    width: 3\n    height: 3\n    encoder:\n      fast: 3\n",
        6,
        "cameras.front.encoder.fast",
        "unknown key",
    ),
    ("fps: abc\n", 1, "fps", "'abc' is not a frame rate"),
    ("\nfps: null\n", 2, "fps", "null is not accepted"),
    ("fps: 0\n", 1, "fps", "0"),
    ("fps: [30]\n", 1, "fps", "[30]"),
    ("encoder_threads: 0\n", 1, "encoder_threads", "a whole number from 1 to 1024, or null"),
    ("encoder_threads: 99999\n", 1, "encoder_threads", "99999 is not accepted"),
    ("encoder_threads: 1.5\n", 1, "encoder_threads", "1.5 is not accepted"),
    ("robot_type: 3\n", 1, "robot_type", "3 is not accepted"),
    ("fps: 30\non_full: wait\n", 2, "on_full", "'block', 'drop' or 'repeat'"),
    ("queue_maxsize: 0\n", 1, "queue_maxsize", "a whole number of 1 or more"),
    (
        "queue_maxsize: true\n",
        1,
        "queue_maxsize",
        "true is not accepted; expected a whole number",
    ),
    ("camera_encoder:\n  crf: 010\n", 2, "camera_encoder.crf", "'010' is not accepted"),
    ("fps: \u0663\u0660\n", 1, "fps", "is not a frame rate"),
    (
        "cameras:\n  front:\n",
        2,
        "cameras.front",
        "null removes a camera, and no camera has this name; for",
    ),
    ("extends: so101\ncameras:\n  fron: null\n", 3, "cameras.fron", "did you mean 'front'"),
    (
        "camera_encoder: {vcodec: h264}\ncameras:\n  front:\n    encoder:\n      crf: 70\n",
        5,
        "cameras.front.encoder",
        "crf=70 is out of range: h264 takes 0 to 51",
    ),
    (
        "depth_encoder: {crf: 9}\ncamera_encoder:\n  vcodec: h264\n  crf: 70\ncameras: {front: {width: 2}}\n",
        4,
        "cameras.front.encoder",
        "crf=70 is out of range: h264 takes 0 to 51",
    ),
    (
        "cameras:\n  front:\n    encoder: {vcodec: ffv1, g: 10}\n",
        3,
        "cameras.front.encoder",
        "g=10 would have no effect, all frames of ffv1 are key frames",
    ),
    (
        "depth_encoder:\n  use_log: false\n  shift: 2\ncameras: {head: {depth: true}}\n",
        3,
        "cameras.head.encoder",
        "shift=2.0 would have no effect",
    ),
    ("encode: later\n", 1, "encode", "'live' or 'after'"),
    ("video: 1\n", 1, "video", "true or false"),
    ("encoder_niceness: -1\n", 1, "encoder_niceness", "a whole number from 0 to 19"),
    ("encoder_niceness: 20\n", 1, "encoder_niceness", "a whole number from 0 to 19"),
    ("encoder_cpus: 2\n", 1, "encoder_cpus", "a list of processors' numbers"),
    ("encoder_cpus: []\n", 1, "encoder_cpus", "a list of processors' numbers"),
    ("encoder_cpus: [0, -1]\n", 1, "encoder_cpus", "a list of processors' numbers"),
    (
        "cameras:\n  front:\n    depth_unit: mm\n",
        3,
        "cameras.front.depth_unit",
        "applies only to depth cameras",
    ),
    ("cameras:\n  front: {depth: true,\n    depth_unit: cm}\n", 3, "cameras.front.depth_unit", "'mm' or 'm'"),
    ("cameras:\n  front:\n    source: test\n", 3, "cameras.front.source", "a mapping with a type"),
    (
        "cameras:\n  front:\n    source:\n      type: v4l2\n      devic: 0\n",
        5,
        "cameras.front.source.devic",
        "did you mean 'device'",
    ),
    ("cameras:\n  front:\n    source:\n      type: v4l2\n", 3, "cameras.front.source.device", "is missing"),
    ("cameras:\n  front:\n    fps: 25\n", 3, "cameras.front.fps", "25 is not the recording's 30"),
    ("camera_encoder: fast\n", 1, "camera_encoder", "expected a mapping"),
    ("camera_encoder: [crf]\n", 1, "camera_encoder", "expected a mapping"),
    ("camera_encoder:\n  g: 3\n  crf: '23'\n", 3, "camera_encoder.crf", "'23' is not accepted"),
    ("camera_encoder:\n  vcodec: vp9\n", 2, "camera_encoder.vcodec", "'vp9'"),
    ("camera_encoder:\n  pix_fmt: yuv420\n", 2, "camera_encoder.pix_fmt", "did you mean 'yuv420p'"),
    ("camera_encoder:\n  extra_options: {bf: true}\n", 2, "camera_encoder.extra_options", "bf=True"),
    ("camera_encoder:\n  extra_options: [bf]\n", 2, "camera_encoder.extra_options", "a mapping"),
    ("depth_encoder:\n  use_log: 1\n", 2, "depth_encoder.use_log", "expected true or false"),
    ("cameras: [front]\n", 1, "cameras", "expected a mapping"),
    ("cameras:\n  front: 640x480\n", 2, "cameras.front", "expected a mapping"),
    ("cameras:\n  front:\n    width: 640\n    height: 0\n", 4, "cameras.front.height", "a number of pixels"),
    (
        "cameras:\n  front:\n    width: wide\n    height: 2\n",
        3,
        "cameras.front.width",
        "'wide' is not accepted",
    ),
    (
        "cameras:\n  front:\n    width: 2\n    height: 2\n    depth: 1\n",
        5,
        "cameras.front.depth",
        "true or false",
    ),
    (
        "cameras:\n  front: {width: 2, height: 2,\n    encoder: {crf: -1}}\n",
        3,
        "cameras.front.encoder.crf",
        "-1 is not accepted",
    ),
    ("fps: 30\nfps: 25\n", 2, "fps", "is defined twice, first at"),
    ("camera_encoder:\n  crf: 3\n  g: 2\n  crf: 4\n", 4, "camera_encoder.crf", "is defined twice, first at"),
    (FRONT + "cameras: {}\n", 2, "cameras", "is defined twice, first at"),
    ("fps: !!python/object/apply:os.getcwd []\n", 1, "fps", "python/object/apply"),
    ("camera_encoder:\n  crf: !!python/name:os.sep ''\n", 2, "camera_encoder.crf", "python/name"),
    ("fps: 30\ncamera_encoder: !!python/object:os.PathLike {crf: 3}\n", 2, "camera_encoder", "python/object"),
    ("fps: 2024-99-99\n", 1, "fps", ""),
    ("camera_encoder:\n  crf: 0x_\n", 2, "camera_encoder.crf", ""),
    ("fps: !!int abc\n", 1, "fps", ""),
    ("camera_encoder:\n  g: !!bool maybe\n", 2, "camera_encoder.g", ""),
]


@pytest.mark.parametrize(("text", "line", "key", "reason"), ERRORS)
def test_an_error_says_file_line_and_key(write, text, line, key, reason):
    path = write(text)
    found = refusal(path)
    assert found.startswith(f"{path}:{line}: {key}: ")
    assert reason in found
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("fps: 30\ncameras: {front: [\n", 3),
        ("fps: 30\n  g: 2\n", 2),
        ("fps: 'open\n", 2),
        ("fps: 30\ncrf: *unknown\n", 2),
        ("fps: 30\n---\nfps: 25\n", 2),
        ("- so100\n- so101\n", 1),
        ("so100\n", 1),
    ],
)
def test_a_file_that_is_no_yaml_mapping_is_refused_with_file_and_line(write, text, line):
    path = write(text)
    found = refusal(path)
    assert found.startswith(f"{path}:{line}: ")
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"fps: \xe9\n", b"fps: 'a\x01'\n", b"\x00"])
def test_a_file_that_is_no_text_is_refused_by_name(tmp_path, data):
    path = tmp_path / "robot.yaml"
    path.write_bytes(data)
    assert refusal(path).startswith(str(path))


@pytest.mark.parametrize("text", ["cameras: &loop {front: *loop}\n", "&loop {cameras: *loop}\n"])
def test_an_alias_that_holds_itself_is_refused(write, text):
    path = write(text)
    assert str(path) in refusal(path)


def test_an_unknown_name_is_refused_with_the_nearest_and_all_there_are():
    text = refusal("so10")
    assert "there is no preset 'so10'" in text
    assert "did you mean 'so10" in text
    assert ", ".join(preset_names()) in text


@pytest.mark.parametrize("name", ["nowhere/robot.yaml", "robot.yml", "nowhere/robot"])
def test_a_file_that_does_not_exist_is_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(name) == f"preset file {name} does not exist"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a\0b", pytest.param("x" * 5000, id="longer than a file name")]
)
def test_a_name_that_can_be_no_file_is_refused(name):
    assert "there is no preset" in refusal(name)


@pytest.mark.parametrize("name", ["../up", "a/b", "''"])
def test_a_camera_name_that_cannot_be_a_file_name_is_refused(write, name):
    """Cameras name files: ``NAME.mp4``, ``PRESET.NAME.txt``, the folders of a dataset."""
    path = write(f"cameras:\n  {name}: {{width: 2, height: 2}}\n")
    assert refusal(path).startswith(f"{path}:2: cameras")


# ---- settings from outside -----------------------------------------------------------------------------


def test_a_setting_for_all_cameras_wins_over_a_cameras_own():
    preset = load_preset("aloha", [(("camera_encoder", "crf"), 20), (("camera_encoder", "vcodec"), "h264")])
    assert preset.camera_encoder == VideoEncoderConfig(vcodec="h264", crf=20)
    assert [c.encoder for c in preset.cameras.values()] == [preset.camera_encoder] * 4


def test_a_setting_for_one_camera_reaches_that_camera_only():
    preset = load_preset("aloha", [(("cameras", "cam_low", "encoder", "crf"), 18)])
    assert {name: c.encoder.crf for name, c in preset.cameras.items()} == {
        "cam_high": 30,
        "cam_low": 18,
        "cam_left_wrist": 26,
        "cam_right_wrist": 26,
    }


def test_a_setting_for_a_camera_the_preset_does_not_have_is_kept_for_the_datasets():
    preset = load_preset("jetson_orin", [(("cameras", "top", "encoder", "crf"), 18)])
    assert preset.encoder_for("observation.images.top") == preset.camera_encoder.replace(crf=18)
    assert preset.encoder_for("front") == preset.camera_encoder


def test_a_setting_for_one_camera_after_one_for_all_holds():
    preset = load_preset(
        "aloha", [(("camera_encoder", "crf"), 20), (("cameras", "cam_left_wrist", "encoder", "crf"), 18)]
    )
    assert [c.encoder.crf for c in preset.cameras.values()] == [20, 20, 18, 20]


def test_rgb_and_depth_settings_do_not_reach_each_other(write):
    path = write(
        "cameras:\n"
        "  rgb: {width: 2, height: 2, encoder: {preset: 5}}\n"
        "  depth: {width: 2, height: 2, depth: true, encoder: {preset: slow}}\n"
    )
    preset = load_preset(path, [(("camera_encoder", "preset"), 3)])
    assert [c.encoder.preset for c in preset.cameras.values()] == [3, "slow"]
    preset = load_preset(path, [(("depth_encoder", "preset"), "fast")])
    assert [c.encoder.preset for c in preset.cameras.values()] == [5, "fast"]


def test_fps_and_threads_from_outside_win():
    preset = load_preset("jetson_orin", [(("fps",), "30000/1001"), (("encoder_threads",), None)])
    assert (preset.fps, preset.encoder_threads) == ("30000/1001", None)


def test_settings_from_outside_work_without_a_preset():
    preset = load_preset(None, [(("camera_encoder", "vcodec"), "h264"), (("fps",), 25)])
    assert preset.encoder_for("any") == VideoEncoderConfig(vcodec="h264")
    assert preset.fps == 25


def test_one_extra_option_from_outside_joins_the_robots(write):
    path = write("camera_encoder: {vcodec: h264, extra_options: {bf: 0}}\n" + FRONT)
    preset = load_preset(path, [(("camera_encoder", "extra_options", "tune"), "film")])
    assert preset.encoder_for("front").extra_options == {"bf": 0, "tune": "film"}


def test_extra_options_from_outside_stand_instead_of_a_cameras_own(write):
    path = write("cameras: {front: {width: 2, height: 2, encoder: {extra_options: {bf: 0}}}}\n")
    preset = load_preset(path, [(("camera_encoder", "extra_options"), {"refs": 2})])
    assert preset.encoder_for("front").extra_options == {"refs": 2}


def test_a_camera_is_removed_from_outside():
    assert list(load_preset("so101", [(("cameras", "front"), None)]).cameras) == ["wrist"]


@pytest.mark.parametrize(
    ("key", "value"),
    [(("camera_encoder", "crf"), 20), (("cameras", "front", "encoder", "crf"), 20)],
)
def test_a_setting_from_outside_fills_a_mapping_that_stands_empty(write, key, value):
    path = write("camera_encoder:\ncameras:\n  front:\n    width: 2\n    height: 2\n    encoder:\n")
    assert load_preset(path, [(key, value)]).encoder_for("front").crf == 20


def test_a_setting_from_outside_finds_a_camera_named_with_its_prefix(write):
    path = write("cameras: {observation.images.front: {width: 2, height: 2, encoder: {g: 5}}}\n")
    preset = load_preset(path, [(("cameras", "front", "encoder", "crf"), 20)])
    assert list(preset.cameras) == ["front"]
    assert preset.cameras["front"].width == 2
    assert preset.encoder_for("front") == VideoEncoderConfig(crf=20, g=5)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (("camera_encoder", "crf"), "many", "'many' is not accepted"),
        (("camera_encoder", "crff"), 3, "did you mean 'crf'"),
        (("cameras", "wrist", "encoder", "g"), 0, "0 is not accepted"),
        (("fps",), "abc", "is not a frame rate"),
        (("encoder_threads",), 0, "a whole number from 1 to 1024"),
        (("camera_encoder",), 5, "expected a mapping"),
        (("cameras", "fron"), None, "null removes a camera.*did you mean 'front'"),
        (("cameras", "wrist", "transform", "rotate"), 0, "changes nothing"),
        (("depth_encoder", "depth_min"), 20, "depth_min=20.0 must be below depth_max=10.0"),
    ],
)
def test_a_wrong_setting_from_outside_is_refused_as_such(key, value, reason):
    text = refusal("so101", [(key, value)])
    assert text.startswith("command line: " + ".".join(key[:1] if key[0] == "depth_encoder" else key[:2]))
    assert re.search(reason, text)


def test_settings_of_a_file_that_a_codec_from_outside_does_not_have_do_not_apply(write):
    preset = load_preset("so101", [(("camera_encoder", "vcodec"), "ffv1")])
    for camera in preset.cameras.values():
        assert camera.encoder.get_codec_options() == {"g": 1, "level": 3, "slicecrc": 1, "slices": 4}
    asked = [(("camera_encoder", "vcodec"), "ffv1"), (("camera_encoder", "crf"), 20)]
    with pytest.raises(ConfigError, match="crf=20 would have no effect"):
        load_preset("so101", asked).cameras["front"].encoder.get_codec_options()
    text = refusal("unitree_g1", [(("depth_encoder", "depth_min"), 20)])
    assert text.startswith("command line: depth_encoder: depth_min=20")


def test_loading_with_settings_from_outside_leaves_no_trace():
    before = load_preset("aloha")
    load_preset("aloha", [(("camera_encoder", "crf"), 5)])
    assert load_preset("aloha") == before


@pytest.mark.parametrize(
    "overrides",
    [
        [("camera_encoder.crf", 20)],
        {"camera_encoder": {"crf": 20}},
        ["camera_encoder.crf=20"],
        [((), 20)],
        [(("camera_encoder", "crf"), 20, 21)],
    ],
)
def test_overrides_that_are_no_pairs_of_path_and_value_are_refused(overrides) -> None:
    with pytest.raises(ConfigError, match=r"overrides holds .*; expected \(key path, value\) pairs"):
        load_preset("aloha", overrides)
