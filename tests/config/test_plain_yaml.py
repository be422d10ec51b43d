"""YAML whose aliases stand for more than any memory holds is refused before it is read."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml

from ffenc import ConfigError, load_preset
from ffenc.config.overrides import split_overrides
from ffenc.config.plain_yaml import MOST_BYTES, compose, construct


def bomb(kind: str) -> str:
    lines = ["a0: &a0 " + ("[x, x]" if kind == "lists" else "{x: 1, y: 2}")]
    for i in range(1, 60):
        below = f"*a{i - 1}"
        if kind == "lists":
            lines.append(f"a{i}: &a{i} [{below}, {below}, {below}]")
        elif kind == "mappings":
            lines.append(f"a{i}: &a{i} {{x: {below}, y: {below}, z: {below}}}")
        else:
            lines.append(f"a{i}: &a{i} {{<<: [{below}, {below}], z{i}: {below}}}")
    return "\n".join(lines)


@pytest.mark.parametrize("kind", ["lists", "mappings", "merges"])
def test_nested_aliases_are_counted_and_not_built(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(bomb(kind))
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"robot\.yaml: expands to .* values"):
        load_preset(path)
    assert time.monotonic() - began < 5


def test_aliases_that_are_used_sparingly_are_read() -> None:
    node = compose("base: &b {x: 1, y: [1, 2]}\none: *b\ntwo: {<<: *b, x: 3}")
    assert isinstance(node, yaml.MappingNode)
    assert construct(node) == {
        "base": {"x": 1, "y": [1, 2]},
        "one": {"x": 1, "y": [1, 2]},
        "two": {"x": 3, "y": [1, 2]},
    }
    assert compose("") is None


def test_what_is_too_large_too_deep_or_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text("# " + "x" * MOST_BYTES)
    with pytest.raises(ConfigError, match=r"robot\.yaml: .* bytes; expected at most"):
        load_preset(path)
    path.write_text("a: " + "[" * 700 + "]" * 700)
    with pytest.raises(ConfigError, match=r"robot\.yaml: nested too deeply"):
        load_preset(path)
    path.write_text("fps: " + "9" * 100_000)
    with pytest.raises(ConfigError, match="fps: ") as caught:
        load_preset(path)
    assert len(str(caught.value)) < 500
    path.write_bytes(b"fps: \xff")
    with pytest.raises(ConfigError, match=r"robot\.yaml: byte 5 is not UTF-8"):
        load_preset(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="is a named pipe"):
        load_preset(path)


@pytest.mark.parametrize("value", ["[1000000000000]", "[0, 8192]", "[-1]"])
def test_processors_that_no_machine_has_are_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(f"encoder_cpus: {value}")
    with pytest.raises(ConfigError, match="encoder_cpus: .*from 0 to 8191"):
        load_preset(path)


def test_a_setting_on_the_command_line_is_held_to_the_same() -> None:
    text = "{" + ", ".join(bomb("mappings").splitlines()) + "}"
    with pytest.raises(ConfigError, match=r"--camera_encoder\.extra_options: expands to"):
        split_overrides([f"--camera_encoder.extra_options={text}"])
    with pytest.raises(ConfigError, match="is not a value"):
        split_overrides(["--camera_encoder.crf=" + "[" * 700])
