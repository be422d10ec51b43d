"""LeRobot's own commands with ffenc, and a robot that is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import info_of, opened, sound

from ffenc.errors import ConfigError
from ffenc.lerobot.command import commands, read_call

ROOT = Path(__file__).resolve().parents[3]
PLUGIN = ROOT / "plugins/lerobot_camera_ffenc/lerobot_camera_ffenc.py"

# What LeRobot's plug-in hook finds: a robot and a teleoperator with three joints, and two cameras.
ROBOT = """
from dataclasses import dataclass, field
import numpy as np
from lerobot.robots import Robot, RobotConfig
from lerobot.teleoperators import Teleoperator, TeleoperatorConfig

JOINTS = {f"joint{n}.pos": float for n in range(3)}


@RobotConfig.register_subclass("none_at_all")
@dataclass
class NoRobotConfig(RobotConfig):
    pass


class NoRobot(Robot):
    config_class, name = NoRobotConfig, "none_at_all"

    def __init__(self, config):
        super().__init__(config)
        self.cameras, self._shown = {"front": None, "wrist": None}, 0

    observation_features = property(lambda self: {**JOINTS, "front": (48, 64, 3), "wrist": (48, 64, 3)})
    action_features = property(lambda self: JOINTS)
    is_connected = is_calibrated = property(lambda self: True)

    def connect(self, calibrate=True): pass
    def calibrate(self): pass
    def configure(self): pass
    def disconnect(self): pass

    def get_observation(self):
        self._shown += 1
        frame = np.full((48, 64, 3), self._shown % 200, np.uint8)
        return {**{name: float(self._shown) for name in JOINTS}, "front": frame, "wrist": 255 - frame}

    def send_action(self, action): return action


@TeleoperatorConfig.register_subclass("nobody")
@dataclass
class NobodyConfig(TeleoperatorConfig):
    pass


class Nobody(Teleoperator):
    config_class, name = NobodyConfig, "nobody"
    action_features = property(lambda self: JOINTS)
    feedback_features = property(lambda self: {})
    is_connected = is_calibrated = property(lambda self: True)

    def connect(self, calibrate=True): pass
    def calibrate(self): pass
    def configure(self): pass
    def disconnect(self): pass
    def get_action(self): return {name: 0.5 for name in JOINTS}
    def send_feedback(self, feedback): pass
"""


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages: the robot, and ffenc's plug-in."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "lerobot_robot_none.py").write_text(ROBOT)
    shutil.copy(PLUGIN, folder)
    for name in ("lerobot_robot_none", "lerobot_camera_ffenc"):
        (folder / f"{name}-0.1.dist-info").mkdir()
        (folder / f"{name}-0.1.dist-info/METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n"
        )
    return folder


def ran(plugins: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(plugins), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def recording(root: Path) -> list[str]:
    return [
        *("--robot.type=none_at_all", "--teleop.type=nobody", "--play_sounds=false"),
        *("--dataset.repo_id=local/none", f"--dataset.root={root}", "--dataset.push_to_hub=false"),
        *("--dataset.num_episodes=2", "--dataset.episode_time_s=1", "--dataset.reset_time_s=0"),
        *("--dataset.single_task=nothing", "--dataset.fps=15", "--dataset.streaming_encoding=true"),
    ]


def test_record_with_a_preset(tmp_path: Path, plugins: Path) -> None:
    root = tmp_path / "recorded"
    own = [
        "--ffenc.preset=so101",
        "--ffenc.cameras.wrist.encoder.crf",
        "40",
        "--dataset.rgb_encoder.vcodec=h264",
    ]
    done = ran(plugins, "ffenc", "lerobot", "record", *recording(root), *own)
    assert done.returncode == 0, done.stderr[-3000:]
    episodes, frames = sound(root)
    assert episodes == 2
    assert frames > 10
    blocks = {
        name: info_of(root)["features"][f"observation.images.{name}"]["info"] for name in ("front", "wrist")
    }
    assert {block["video.codec"] for block in blocks.values()} == {"h264"}
    assert blocks["wrist"]["video.crf"] == 40
    assert blocks["front"]["video.crf"] != 40
    dataset = opened(root)
    item = dataset[frames - 1]
    shown = item["observation.images.front"].mean() * 255
    assert abs(shown - item["observation.state"][0] % 200) < 3  # a row's own frame
    assert (root / "meta/ffenc.json").exists()


def test_the_plug_in_does_it_without_a_word(tmp_path: Path, plugins: Path) -> None:
    root = tmp_path / "by_variable"
    done = ran(plugins, "lerobot.scripts.lerobot_record", *recording(root), FFENC_LEROBOT="1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert sound(root)[0] == 2
    assert (root / "meta/ffenc.json").exists()
    assert len(list((root / "videos").rglob("*.mp4"))) == 4  # files of its own for each episode


def test_the_plug_in_is_off_or_says_why(plugins: Path) -> None:
    script = "import lerobot_camera_ffenc; from ffenc.lerobot.seams import in_use; print(in_use())"
    (plugins / "asked.py").write_text(script)
    assert ran(plugins, "asked").stdout == "False\n"
    assert ran(plugins, "asked", FFENC_LEROBOT="1").stdout == "True\n"
    said = ran(plugins, "asked", FFENC_LEROBOT="yes")
    assert (said.returncode, said.stderr) == (
        1,
        "ffenc: error: FFENC_LEROBOT=yes is not accepted: 1 is on, 0 is off\n",
    )
    said = ran(plugins, "asked", FFENC_LEROBOT="1", FFENC_ON_FULL="drop")
    assert said.returncode == 1
    assert "FFENC_ON_FULL=drop is not possible in LeRobot" in said.stderr


def test_command_lines() -> None:
    assert {"record", "rollout", "edit-dataset", "teleoperate"} <= set(commands())
    call = read_call(
        [
            "record",
            "--robot.type=so101",
            "--ffenc.on_full",
            "block",
            "--dataset.rgb_encoder.crf=20",
            "--resume=true",
        ]
    )
    assert (call.command, call.preset, call.on_full) == ("record", None, "block")
    assert call.words == ["--robot.type=so101", "--dataset.rgb_encoder.crf=20", "--resume=true"]
    call = read_call(["record", "--dataset.rgb_encoder.crf", "20", "--ffenc.preset=so101", "--x=1"])
    assert (call.preset, call.words) == ("so101", ["--x=1"])
    assert call.overrides == [(("camera_encoder", "crf"), 20)]
    with pytest.raises(ConfigError, match=r"LeRobot has no command 'recrod'.*record"):
        read_call(["recrod"])
    with pytest.raises(ConfigError, match=r"--ffenc.cameras.a.crf overrides a preset: pass one"):
        read_call(["record", "--ffenc.cameras.a.crf=3"])
    with pytest.raises(ConfigError, match=r"--ffenc.preset needs a value"):
        read_call(["record", "--ffenc.preset"])
