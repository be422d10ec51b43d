"""The files in ``fixtures/recorded``, by their formats' own libraries, are read as what went into them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ffenc.config.mapping import build_mapping
from ffenc.dataset.sources.contents import inspect_source
from ffenc.dataset.sources.kind import Opening
from ffenc.dataset.sources.registry import open_source
from ffenc.frames.depth_images import read_depth
from tests.conftest import FIXTURES, psnr
from tests.support.recorded import FILES, jpeg, small

RECORDED = FIXTURES / "recorded"
# camera -> which of the sample's pictures it has, and as what
CAMERAS = {
    "aloha": {"cam_high": ("top", "jpeg"), "cam_left_wrist": ("angle", "jpeg")},
    "robomimic.hdf5": {"agentview": ("top", "raw"), "agentview_depth": ("depth", "m")},
    "replay_v2.zarr.zip": {"img": ("top", "raw"), "camera0": ("angle", "raw")},
    "replay_v3.zarr.zip": {"img": ("top", "raw"), "camera0": ("angle", "raw")},
    "umi.zarr.zip": {"camera0": ("angle", "jpegxl")},
    "protobuf.mcap": {"raw": ("angle", "raw"), "jpeg": ("angle", "jpeg"), "depth": ("depth", "mm")},
    "json.mcap": {"raw": ("angle", "raw"), "jpeg": ("angle", "jpeg"), "depth": ("depth", "mm")},
    "topics.mcap": {"top": ("angle", "bgr"), "wrist": ("angle", "jpeg"), "depth": ("depth", "mm")},
    "bag": {"top": ("angle", "bgr"), "wrist": ("angle", "jpeg"), "depth": ("depth", "mm")},
}
STATE = {"robomimic.hdf5": 9, "umi.zarr.zip": 7}


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_read_as_what_went_into_it(name: str) -> None:
    path = RECORDED / name
    mapping = build_mapping(inspect_source(path).mapping)
    source = open_source(path, Opening(mapping=mapping, usual_fps=10))
    recorded = small()[: len(source.episodes)]
    assert [episode.length for episode in source.episodes] == [3, 2][: len(recorded)]
    for camera, (picture, kept) in CAMERAS[name].items():
        for episode, one in zip(source.episodes, recorded, strict=True):
            given = getattr(one, picture)
            frames = list(source.frames(f"observation.images.{camera}", episode))
            assert len(frames) == len(given)
            for frame, pixels in zip(frames, given, strict=True):
                if kept == "jpeg":
                    assert frame.data.rstrip(b"\0") == jpeg(pixels)
                elif kept in ("m", "mm"):
                    wanted = pixels.astype(np.float32) / 1000 if kept == "m" else pixels
                    assert np.array_equal(read_depth(frame), wanted)
                elif kept == "jpegxl":
                    shown = np.frombuffer(frame.data, np.uint8).reshape(120, 120, 3)
                    assert psnr(shown, pixels[:, :120]) > 40
                else:
                    assert frame.data == (pixels[..., ::-1] if kept == "bgr" else pixels).tobytes()
    width = STATE.get(name, 14)
    for read, one in zip(source.read(source.episodes), recorded, strict=True):
        joints = source.info()["features"]["observation.state"]["names"]
        order = [int(joint.rpartition("_")[2]) for joint in joints] if joints else np.arange(width)
        assert np.array_equal(
            np.array(read.rows["observation.state"].to_pylist(), np.float32), one.state[:, order]
        )


def test_the_files_are_small() -> None:
    files = [path for path in RECORDED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_200_000
    assert {Path(name).parts[0] for name in FILES} == {path.name for path in RECORDED.iterdir()}
