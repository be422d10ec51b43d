"""Every public function refuses a path argument that is not a path, and names the argument."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ffenc
from ffenc import ConfigError
from tests.conftest import FIXTURES

VIDEO = FIXTURES / "aloha_video_v30"
FILE = VIDEO / "videos/observation.images.top/chunk-000/file-000.mp4"
SMALL = [(("cameras", name, side), 64) for name in ("front", "wrist") for side in ("width", "height")]
HALVES = {"a": 0.5, "b": 0.5}
COMMAND: dict[str, Any] = {
    **{"config": ffenc.VideoEncoderConfig(), "width": 64, "height": 64},
    **{"fps": 30, "output": "o.mp4", "frames": "png"},
}
CALLS: dict[str, Callable[[Any], object]] = {
    "contact_sheet.path": lambda path: ffenc.contact_sheet(path, "o.png"),
    "contact_sheet.output": lambda path: ffenc.contact_sheet(VIDEO, path),
    "edit_dataset.source": lambda path: ffenc.edit_dataset(path, "o", episodes=[0]),
    "edit_dataset.destination": lambda path: ffenc.edit_dataset(VIDEO, path, episodes=[0]),
    "encode.source": lambda path: ffenc.encode(path, "o.mp4", fps=30),
    "encode.output": lambda path: ffenc.encode(FILE, path),
    "inspect_source.path": ffenc.inspect_source,
    "join_videos.sources": lambda path: ffenc.join_videos([path], "o.mp4"),
    "join_videos.output": lambda path: ffenc.join_videos([FILE], path),
    "load_mapping.path": ffenc.load_mapping,
    "merge_datasets.sources": lambda path: ffenc.merge_datasets([path, VIDEO], "o"),
    "merge_datasets.destination": lambda path: ffenc.merge_datasets([VIDEO, VIDEO], path),
    "plan_merge.sources": lambda path: ffenc.plan_merge([path, VIDEO], "o"),
    "plan_merge.destination": lambda path: ffenc.plan_merge([VIDEO, VIDEO], path),
    "plan_reencode.source": lambda path: ffenc.plan_reencode(path, "o"),
    "plan_reencode.destination": lambda path: ffenc.plan_reencode(VIDEO, path),
    "probe.path": ffenc.probe,
    "pull_dataset.destination": lambda path: ffenc.pull_dataset("a/b", path),
    "push_dataset.source": lambda path: ffenc.push_dataset(path, "a/b", dry_run=True),
    "Recorder.root": lambda path: ffenc.Recorder(ffenc.load_preset("so101", SMALL), path),
    "recover.root": ffenc.recover,
    "reencode_dataset.source": lambda path: ffenc.reencode_dataset(path, "o"),
    "reencode_dataset.destination": lambda path: ffenc.reencode_dataset(VIDEO, path),
    "repair_dataset.source": lambda path: ffenc.repair_dataset(path, "o"),
    "repair_dataset.destination": lambda path: ffenc.repair_dataset(VIDEO, path),
    "split_dataset.source": lambda path: ffenc.split_dataset(path, "o", HALVES),
    "split_dataset.destination": lambda path: ffenc.split_dataset(VIDEO, path, HALVES),
    "verify_dataset.path": ffenc.verify_dataset,
    "verify_dataset.against": lambda path: ffenc.verify_dataset(VIDEO, against=path),
    "VideoReader.path": ffenc.VideoReader,
    "VideoWriter.output": lambda path: ffenc.VideoWriter(path, fps=30, config=ffenc.VideoEncoderConfig()),
}


def test_all_paths_of_the_public_functions_are_tested_here() -> None:
    paths = set()
    for name in ffenc.__all__:
        value = getattr(ffenc, name)
        if not callable(value) or (isinstance(value, type) and "__init__" not in vars(value)):
            continue  # plain data
        for parameter in inspect.signature(value).parameters.values():
            kind = str(parameter.annotation)
            if re.search(r"\bPath\b", kind) and not re.search("Preset|Mapping", kind):
                paths.add(f"{name}.{parameter.name}")
    assert paths - {"load_preset.name_or_path"} == set(CALLS)


@pytest.mark.parametrize("called", CALLS)
def test_a_value_that_is_not_a_path_is_refused_by_name(
    called: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = called.partition(".")[2]
    for bad in (3, b"x", "", "a\0b", *(() if name == "against" else (None,))):
        with pytest.raises(ConfigError, match=f"^{name}: .* is not accepted; expected "):
            CALLS[called](bad)
    assert list(tmp_path.iterdir()) == []


def test_names_of_repositories_and_programs_of_another_type_are_refused() -> None:
    for bad in (3, None, b"x"):
        with pytest.raises(ConfigError, match="is not a dataset on the Hub; expected USER/NAME"):
            ffenc.push_dataset(VIDEO, bad, dry_run=True)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="^ffprobe: 3 is not accepted; expected the name or path"):
        ffenc.verify_dataset(VIDEO, ffprobe=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda bad: ffenc.load_preset("so101", bad), "overrides holds"),
        (lambda bad: ffenc.plan_reencode(VIDEO, "o", cameras=bad), "cameras: .* is not accepted; expected a"),
        (lambda bad: ffenc.split_dataset(VIDEO, "o", bad), "into: .* is not accepted; expected a mapping"),
        (lambda bad: ffenc.probe(FILE, rate=bad), "rate: .* is not accepted; expected a Fraction"),
        (lambda bad: ffenc.probe(FILE, ffprobe=bad), "ffprobe: .* is not accepted; expected the name"),
        (lambda bad: ffenc.verify_dataset(VIDEO, max_depth_error=bad), "is not a number of millimetres"),
    ],
)
def test_values_of_another_type_are_refused_by_name(call: Callable[[Any], object], said: str) -> None:
    for bad in (1.5j, object(), [1.5j]):
        with pytest.raises(ConfigError, match=said):
            call(bad)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: ffenc.split_dataset(VIDEO, "o", None), "into"),  # type: ignore[arg-type]
        (lambda: ffenc.Edits(rename_cameras=None), "rename_cameras"),  # type: ignore[arg-type]
        (lambda: ffenc.Edits(task_of=None), "task_of"),  # type: ignore[arg-type]
        *(
            (lambda name=name: ffenc.compile_command(**{**COMMAND, name: None}), name)
            for name in ("config", "width", "height")
        ),
    ],
)
def test_none_is_refused_by_name_where_a_value_is_required(call: Callable[[], object], name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: None is not accepted; expected "):
        call()
