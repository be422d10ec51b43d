"""Recordings in a bucket are looked into and read as those on the disk are."""

from __future__ import annotations

from pathlib import Path

import pytest

from ffenc import reencode_dataset
from ffenc.config.mapping import build_mapping
from ffenc.dataset.sources.contents import inspect_source
from tests.conftest import FIXTURES
from tests.support.read import column, frames_of
from tests.support.s3 import S3

RECORDED = FIXTURES / "recorded"
H264 = [(("camera_encoder", "vcodec"), "h264")]


@pytest.mark.parametrize("name", ["topics.mcap", "aloha"])
def test_a_file_and_a_folder_come_from_a_bucket(s3: S3, tmp_path: Path, name: str) -> None:
    s3.upload(RECORDED, "recorded")
    found = inspect_source(f"s3://lab/recorded/{name}")
    mapping = build_mapping(found.mapping)
    made = {}
    for place, source in (("here", RECORDED / name), ("there", f"s3://lab/recorded/{name}")):
        made[place] = tmp_path / place
        reencode_dataset(source, made[place], mapping=mapping, fps=10, task="x", overrides=H264)
    for camera in mapping.cameras:
        if not mapping.cameras[camera].depth:
            assert (frames_of(made["here"], camera) == frames_of(made["there"], camera)).all()
    states = [column(root, "observation.state") for root in made.values()]
    assert (states[0] == states[1]).all()
