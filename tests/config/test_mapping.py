"""A mapping is read from YAML; what is not accepted is named with file, line and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ffenc import ConfigError
from ffenc.config.mapping import FeatureMapping, build_mapping, load_mapping

CAMERA = {"cameras": {"top": {"path": "/top"}}}


def test_a_mapping_is_read_with_its_sections(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        "fps: 29.97\ntask: pick\nepisodes: {ends: meta/ends}\n"
        "cameras: {observation.images.top: {path: /a, channels: bgr}}\n"
        "features: {action: {path: [/b, /c], columns: '0:3', scale: 2}}\ntime: "
        "{stamps: received, tolerance: 1}\n"
    )
    mapping = load_mapping(path)
    assert mapping.cameras["top"].channels == "bgr"
    assert mapping.features["action"].paths == ["/b", "/c"]
    assert mapping.task is not None
    assert mapping.task.text == "pick"
    assert mapping.time is not None
    assert (mapping.time.stamps, mapping.time.tolerance, mapping.time.on_gap) == ("received", 1, "error")
    assert build_mapping(mapping.plain()) == mapping


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cameras: {}", "cameras: names no camera"),
        ("fps: 30", r":1|cameras: is missing"),
        ("cameras:\n  top: {pth: /a}", r"m.yaml:2: cameras.top.pth: unknown key; did you mean 'path'"),
        (
            "cameras:\n  top:\n    path: /a\n    channels: gbr",
            r"m.yaml:4: cameras.top.channels: 'gbr'.*'bgr'",
        ),
        ("cameras: {top: {path: /a, unit: mm}}", "unit: applies only to depth cameras"),
        ("cameras: {top: {path: /a, depth: true, channels: rgb}}", "channels: does not apply to depth maps"),
        ("cameras: {top: /a}", "cameras.top: '/a' is not accepted; expected a mapping with some of: path"),
        ("cameras: {a/b: {path: /a}}", "'a/b' cannot be a name"),
        (
            "cameras: {top: {path: /a}}\nfeatures:\n  index: {path: /i}",
            "m.yaml:3: features.index: is a name that",
        ),
        ("cameras: {top: {path: /a}}\nfeatures: {x: {path: []}}", "features.x.path: is empty"),
        ("cameras: {top: {path: /a}}\nfeatures: {x: {path: /x, columns: a}}", "columns: 'a' is not accepted"),
        (
            "cameras: {top: {path: /a}}\nfeatures: {x: {path: /x, dtype: float}}",
            "dtype: 'float'.*such as 'float32'",
        ),
        ("cameras: {top: {path: /a}}\nfeatures: {x: {path: /x, scale: .nan}}", "scale"),
        (
            "cameras: {top: {path: /a}}\nfeatures: {x: {path: /x, interpolate: true, dtype: int8}}",
            "interpolate: gives fractions",
        ),
        (
            "cameras: {top: {path: /a}}\ntask: {text: a, path: /b}",
            "needs exactly one of: text, attribute, path",
        ),
        ("cameras: {top: {path: /a}}\ntask: ''", "task.text: '' is not accepted; expected a text that"),
        (
            "cameras: {top: {path: /a}}\ntask: ' '",
            "m.yaml:2: task.text: ' ' is not accepted; expected a text",
        ),
        (
            "cameras: {top: {path: /a}}\nfeatures: {x: {path: /x, columns: '\u0663:'}}",
            "columns: .* is not accepted",
        ),
        (
            "cameras: {top: {path: /a}}\nepisodes: {}",
            "needs exactly one of: groups, ends, values, last, topic",
        ),
        ("cameras: {top: {path: /a}}\ntime: {on_gap: skip}", "on_gap: 'skip'.*'drop-episode'"),
        ("cameras: {top: {path: /a}}\nfps: fast", "fps: 'fast' is not a frame rate"),
        ("cameras: {top: {path: /a}}\ncameras: {}", "cameras: is defined twice, first at .*m.yaml:1"),
        ("- a", "a mapping is a mapping of keys, found a list"),
        ("a: [", "not YAML"),
    ],
)
def test_what_is_not_accepted_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_mapping(path)
    with pytest.raises(ConfigError, match="does not exist"):
        load_mapping(tmp_path / "other.yaml")


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [(None, [0, 1, 2, 3]), ([3, 0], [3, 0]), ("1:", [1, 2, 3]), (":-1", [0, 1, 2]), ("1:3", [1, 2])],
)
def test_columns_are_places_or_a_slice(columns: Any, wanted: list[int]) -> None:
    chosen = FeatureMapping(path="/x", columns=columns).chosen(4)
    assert (list(range(4)[chosen]) if isinstance(chosen, slice) else chosen) == wanted


@pytest.mark.parametrize("columns", [[4], "4:", "2:1", [], "1:9", "-5:"])
def test_columns_that_are_not_there_are_refused(columns: Any) -> None:
    with pytest.raises(ConfigError, match="columns"):
        FeatureMapping(path="/x", columns=columns).chosen(4)
