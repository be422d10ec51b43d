"""``ffenc inspect`` says what a file holds; its mapping works as it is, and its sheet shows the cameras."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from ffenc.cli.app import run
from ffenc.config.mapping import load_mapping
from ffenc.dataset.sources.kind import Opening
from ffenc.dataset.sources.registry import open_source
from tests.conftest import DATASET
from tests.support.recorded import (
    Sample,
    samples,
    write_aloha,
    write_replay_buffer,
    write_robomimic,
    write_umi,
)


@pytest.fixture(scope="module")
def recorded() -> list[Sample]:
    return samples(3)


def test_the_mapping_that_is_written_reads_the_file(
    recorded: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        (write_aloha(tmp_path / "aloha", recorded), "ALOHA", ["cam_high", "cam_left_wrist"], 14),
        (write_robomimic(tmp_path / "lift.hdf5", recorded), "robomimic", ["agentview", "agentview_depth"], 9),
        (write_replay_buffer(tmp_path / "a.zarr", recorded), "Diffusion Policy", ["camera0", "img"], 14),
        (write_umi(tmp_path / "umi.zarr.zip", recorded), "UMI", ["camera0"], 7),
    ]
    for path, layout, cameras, width in files:
        written = tmp_path / f"{layout}.yaml"
        assert run(["inspect", str(path), "--write-mapping", str(written)]) == 0
        said = capsys.readouterr().out
        assert f"layout of {layout}" in said
        assert "# fps: 30    the file does not say its frame rate" in said or layout == "robomimic"
        assert written.read_text().strip() in said
        mapping = load_mapping(written)
        source = open_source(path, Opening(mapping=mapping, usual_fps=30))
        assert sorted(mapping.cameras) == cameras
        assert [episode.length for episode in source.episodes] == [3, 2]
        assert source.info()["features"]["observation.state"]["shape"] == [width]
        assert run(["inspect", str(path), "--write-mapping", str(written)]) == 1
        assert "exists; choose another name" in capsys.readouterr().err


def test_json_has_arrays_rates_mapping_and_what_is_missing(
    recorded: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(write_robomimic(tmp_path / "lift.hdf5", recorded)), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    held = {one["name"]: one for one in found["held"]}
    assert held["/data/demo_0/obs/agentview_image"]["kind"] == "uint8 3x240x320x3"
    assert held["/data/demo_0/actions"]["count"] == 3
    assert "/data/demo_1/actions" not in held
    assert found["mapping"]["fps"] == 20
    assert found["fault"] is None
    with h5py.File(tmp_path / "odd.h5", "w") as root:
        root["numbers"] = np.zeros((4, 3))
    assert run(["inspect", str(tmp_path / "odd.h5"), "--json"]) == 0
    odd = json.loads(capsys.readouterr().out)
    assert odd["layout"] is None
    assert odd["fault"] == "cameras: names no camera; expected at least one"
    assert "no array looks like images: add the cameras" in odd["remarks"]


def test_the_sheet_has_each_camera_in_the_mappings_colours(
    recorded: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, mapping = tmp_path / "a.h5", tmp_path / "m.yaml"
    red = np.zeros((2, 64, 64, 3), np.uint8)
    red[..., 0] = 250
    with h5py.File(source, "w") as root:
        root["red"], root["depth"] = red, recorded[0].depth[:2]
    mapping.write_text(
        "cameras:\n  right: {path: red, channels: rgb}\n  wrong: {path: red, channels: bgr}\n"
        "  deep: {path: depth, depth: true}\n  gone: {path: other}\n"
    )
    sheet = tmp_path / "s.png"
    assert run(["inspect", str(source), "--sheet", str(sheet), "--mapping", str(mapping)]) == 0
    assert "not on the contact sheet: gone: " in capsys.readouterr().err
    drawn = np.asarray(Image.open(sheet)).astype(int)
    assert drawn.shape[1] == 3 * 328 + 8
    right, wrong = (drawn[60, 8 + 328 * place + 30] for place in (0, 1))
    assert right[0] > 240
    assert right[2] < 10
    assert wrong[2] > 240
    assert wrong[0] < 10
    assert len(np.unique(drawn[30:100, 670:820])) > 20
    assert run(["inspect", str(source), "--sheet", str(tmp_path / "s.jpg")]) == 1
    assert "ends in .png" in capsys.readouterr().err


def test_what_is_a_dataset_is_for_info(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["inspect", str(DATASET)]) == 1
    assert "is a LeRobot dataset; ffenc inspect is for HDF5 files, zarr stores" in capsys.readouterr().err
    assert run(["inspect", str(tmp_path / "none.h5")]) == 1
    assert "none.h5 does not exist; supported are datasets, HDF5 files" in capsys.readouterr().err
