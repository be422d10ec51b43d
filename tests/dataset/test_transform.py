"""A dataset with other pictures: its features, statistics, files and rows go together."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ffenc import (
    ConfigError,
    DestinationError,
    FfencWarning,
    SourceError,
    reencode_dataset,
    verify_dataset,
)
from ffenc.config.transform import Transform
from ffenc.dataset.edit import edit_dataset, plan_edit
from ffenc.dataset.edited import Edits
from ffenc.dataset.reencode import plan_reencode
from ffenc.dataset.verify.faults import CameraComparison, Verification
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.changed_images import ChangedImages
from ffenc.frames.decoded import decode_image
from ffenc.frames.depth import Unit
from ffenc.frames.images import read_header
from ffenc.frames.sources import EncodedFrame
from ffenc.frames.tiff import tiff_of
from tests.conftest import ANGLE, DATASET, DEPTH, FIXTURES, TOP, decode, newest_programs
from tests.support.command_line import CommandLine

VIDEO = FIXTURES / "aloha_video_v30"
H264 = (("camera_encoder", "vcodec"), "h264")
SMALL = ("transform", "resize"), "96x64"
TURNED = ("cameras", "top", "transform", "rotate"), 90


def info_of(root: Path) -> dict[str, Any]:
    return json.loads((root / "meta/info.json").read_text())["features"]


def stats_of(root: Path) -> dict[str, Any]:
    return json.loads((root / "meta/stats.json").read_text())


def compared(found: Verification, key: str) -> CameraComparison:
    result = next(camera.compared for camera in found.cameras if camera.camera == key)
    assert result is not None
    return result


def test_images_are_changed_on_their_way(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ultrafast = ("depth_encoder", "preset"), "ultrafast"
    reencode_dataset(DATASET, out, overrides=[H264, SMALL, TURNED, ultrafast])
    features = info_of(out)
    assert [features[key]["shape"] for key in (TOP, ANGLE, DEPTH)] == [[64, 96, 3], [64, 96, 3], [64, 96, 1]]
    assert [features[TOP]["info"][f"video.{side}"] for side in ("width", "height")] == [96, 64]
    own = json.loads((out / "meta/ffenc.json").read_text())["cameras"]
    assert own[TOP]["video.transform"] == {"rotate": 90, "resize": [96, 64]}
    assert own[DEPTH]["video.transform"] == {"resize": [96, 64]}
    found = verify_dataset(out, deep=True, against=DATASET)
    assert found.faults == []
    assert compared(found, TOP).psnr_min > 25
    assert compared(found, DEPTH).differing == 0


def test_statistics_are_those_of_what_is_stored(tmp_path: Path) -> None:
    out = tmp_path / "out"
    crop = ("transform", "crop"), "80x60+0+0"
    lossless = ("camera_encoder", "crf"), 0
    ultrafast = ("depth_encoder", "preset"), "ultrafast"
    reencode_dataset(
        DATASET, out, overrides=[H264, lossless, crop, ultrafast], cameras=["angle", "angle_depth"]
    )
    shown = decode(next((out / "videos" / ANGLE).rglob("*.mp4"))) / 255
    stats = stats_of(out)[ANGLE]
    np.testing.assert_allclose(np.ravel(stats["mean"]), shown.mean(axis=(0, 1, 2)), atol=2e-3)
    np.testing.assert_allclose(np.ravel(stats["std"]), shown.std(axis=(0, 1, 2)), atol=2e-3)
    assert not np.allclose(np.ravel(stats["mean"]), np.ravel(stats_of(DATASET)[ANGLE]["mean"]), atol=2e-3)
    listed = pq.read_table(next((out / "meta/episodes").rglob("*.parquet")))
    assert listed[f"stats/{DEPTH}/count"].to_pylist() == [[24], [17], [31]]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shortest episode of LeRobot's video dataset, with all cameras."""
    root = tmp_path_factory.mktemp("short") / "episode"
    reencode_dataset(VIDEO, root, episodes=[1], **newest_programs())
    return root


def test_video_keeps_its_settings_and_its_depth(toolchain: Toolchain, short: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    transforms = {"top": Transform(crop=(40, 20, 240, 200)), "angle_depth": Transform(flip="h")}
    edits = Edits(rename_cameras={"top": "front"})
    plan = plan_edit(short, out, edits=edits, transforms=transforms)
    assert {stream.key: len(stream.copied) for stream in plan.streams} == {
        "observation.images.front": 0,
        ANGLE: 1,
        DEPTH: 0,
    }
    edit_dataset(short, out, edits=edits, transforms=transforms)
    before, after = info_of(short), info_of(out)
    front = after["observation.images.front"]
    assert front["shape"] == [200, 240, 3]
    for name in ("video.codec", "video.crf", "video.g", "video.preset"):
        assert front["info"][name] == before[TOP]["info"][name]
    assert after[ANGLE] == before[ANGLE]
    for name in ("video.depth_min", "video.depth_max", "video.shift", "video.use_log"):
        assert after[DEPTH]["info"][name] == before[DEPTH]["info"][name]
    found = verify_dataset(out, deep=True, against=short, **newest_programs())
    assert found.faults == []
    assert compared(found, DEPTH).differing == 0
    assert compared(found, ANGLE).psnr_min == float("inf")


def test_what_was_changed_before_is_compared_as_it_is(tmp_path: Path) -> None:
    """A copy of a changed dataset is compared with it, and not with what it was before."""
    first, second = tmp_path / "first", tmp_path / "second"
    reencode_dataset(DATASET, first, overrides=[H264, SMALL], cameras=["angle"])
    reencode_dataset(first, second)
    found = verify_dataset(second, against=first)
    assert found.faults == []
    assert compared(found, ANGLE).psnr_min == float("inf")


def test_a_run_with_other_changes_takes_nothing_over(tmp_path: Path) -> None:
    out = tmp_path / "out"
    reencode_dataset(DATASET, out, overrides=[SMALL], cameras=["angle_depth"])
    with pytest.raises(DestinationError, match="the result of another job"):
        reencode_dataset(
            DATASET, out, overrides=[(("transform", "flip"), "h")], cameras=["angle_depth"], resume=True
        )


def test_what_changes_nothing_or_cannot_be_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for overrides, said in (
        (
            [(("transform", "resize"), "160x120")],
            "resize 160x120: would have no effect, angle already is like that",
        ),
        ([(("transform", "crop"), "400x4+0+0")], "camera observation.images.angle: crop .* does not lie"),
        ([(("transform", "resize"), "33x33")], "33x33 frames cannot be stored as yuv420p"),
        ([(("cameras", "nose", "transform", "flip"), "h")], "there is no camera 'nose'"),
    ):
        with pytest.raises(ConfigError, match=said):
            plan_reencode(DATASET, out, overrides=overrides, cameras=["angle"])
    with pytest.raises(ConfigError, match="camera observation.images.top: crop .* does not lie"):
        plan_edit(DATASET, out, transform=Transform(crop=(0, 0, 400, 4)))
    with pytest.raises(ConfigError, match="resize 320x240: would have no effect, top already is like that"):
        plan_edit(DATASET, out, transforms={"top": Transform(resize=(320, 240))})
    with pytest.raises(ConfigError, match="there is no camera 'nose'"):
        plan_edit(VIDEO, out, transforms={"nose": Transform(flip="h")})
    with pytest.raises(
        ConfigError, match=r"crop 3x3\+0\+0 cuts through the chroma.*cameras\.top\.crop='2x2\+0\+0'"
    ):
        plan_edit(VIDEO, out, transforms={"top": Transform(crop=(0, 0, 3, 3))})


def test_a_preset_changes_the_cameras_that_it_names(tmp_path: Path) -> None:
    preset = tmp_path / "robot.yaml"
    preset.write_text("camera_encoder: {vcodec: h264}\ncameras: {top: {transform: {resize: [32, 32]}}}\n")
    with pytest.warns(FfencWarning, match="does not name angle"):
        plan = plan_reencode(DATASET, tmp_path / "out", preset=preset)
    sizes = {stream.key: stream.encoding.stored_size for stream in plan.streams if stream.encoding}
    assert sizes == {TOP: (32, 32), ANGLE: (160, 120), DEPTH: (160, 120)}


def images_of(root: Path, key: str) -> list[Image.Image]:
    tables = [pq.read_table(path, columns=[key]) for path in sorted((root / "data").rglob("*.parquet"))]
    return [Image.open(io.BytesIO(row["bytes"])) for t in tables for row in t[key].to_pylist()]


def test_images_that_stay_images_are_changed(tmp_path: Path, ffenc: CommandLine) -> None:
    """Turned and scaled colours, padded ones, and depth of which each number is one of the source's."""
    out = tmp_path / "out"
    words = ["edit", DATASET, out, "--resize", "80x60", "--exclude-episodes", "1", "--cameras.top.rotate=90"]
    words += ["--cameras.angle.resize=96x96", "--cameras.angle.pad=true", "--rename-camera", "top=front"]
    planned = ffenc.done(*words, "--dry-run").out
    assert "observation.images.front: images changed: rotate 90, resize 80x60" in planned
    ffenc.done(*words)
    front, features = "observation.images.front", info_of(out)
    shapes = [features[key]["shape"] for key in (front, ANGLE, DEPTH)]
    assert shapes == [[60, 80, 3], [96, 96, 3], [60, 80, 1]]
    kept = [*range(24), *range(41, 72)]
    for new, old in ((front, TOP), (ANGLE, ANGLE), (DEPTH, DEPTH)):
        before, after = images_of(DATASET, old), images_of(out, new)
        assert [image.format for image in after] == ["TIFF" if new == DEPTH else "PNG"] * len(kept)
        for number, image in zip(kept, after, strict=True):
            if new == DEPTH:
                assert (np.asarray(image) == np.asarray(before[number])[1::2, 1::2]).all()
                continue
            wanted = before[number].transpose(Image.Transpose.ROTATE_270) if new == front else before[number]
            size = (80, 60) if new == front else (96, 72)
            wanted = np.asarray(wanted.resize(size, Image.Resampling.BICUBIC))
            found = np.asarray(image)
            if new == ANGLE:
                assert not found[:12].any()
                assert not found[84:].any()
                found = found[12:84]
            assert (found == wanted).all()
    shown = np.stack([np.asarray(image) for image in images_of(out, front)]) / 255
    stats = stats_of(out)[front]
    np.testing.assert_allclose(np.ravel(stats["mean"]), shown.mean(axis=(0, 1, 2)), atol=1e-9)
    np.testing.assert_allclose(np.ravel(stats["q99"]), np.quantile(shown, 0.99, axis=(0, 1, 2)), atol=1e-9)
    listed = pq.read_table(next((out / "meta/episodes").rglob("*.parquet")))
    assert listed[f"stats/{DEPTH}/count"].to_pylist() == [[24], [31]]
    found = verify_dataset(out, deep=True)
    assert (found.faults, [note.kind for note in found.notes]) == ([], [])
    assert "earlier run of this job" in ffenc.done(*words, "--resume").out
    words[4] = "40x30"
    assert "another job" in ffenc.refused(*words, "--resume")


class Repeated:
    """One image several times, as a source of frames."""

    def __init__(self, data: bytes, count: int) -> None:
        self._frames = [EncodedFrame("depth", data)] * count

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[EncodedFrame]:
        return iter(self._frames)

    def fingerprint(self) -> str:
        return ""


@pytest.mark.parametrize(("kind", "unit", "step"), [("float32", "m", 0.25), ("uint16", "mm", 1000)])
def test_depth_keeps_its_kind_and_its_holes(kind: str, unit: Unit, step: float) -> None:
    depth = np.zeros((6, 8), kind)
    depth[1::2] = np.arange(1, 9) * step
    data = tiff_of(depth)
    if kind == "uint16":
        file = io.BytesIO()
        Image.fromarray(depth).save(file, "PNG")
        data = file.getvalue()
    header = read_header(data, "depth")
    frames = ChangedImages(Repeated(data, 3), header, unit, Transform(resize=(4, 6), pad=True))
    images = [image.data for image in frames]
    assert [read_header(image, "changed").format for image in images] == [header.format] * 3
    wanted = np.zeros((6, 4), kind)
    wanted[2:4] = depth[[1, 4]][:, [1, 3, 5, 7]]  # of 8x6, 4x3 fit, even: 4x2
    assert (decode_image(images[2], "changed") == wanted).all()
    assert frames.statistics.statistics()["max"] == [[[wanted.max()]]]


def test_a_damaged_image_is_named_and_nothing_is_left(dataset_copy: Path, tmp_path: Path) -> None:
    place = dataset_copy / "data/chunk-000/file-000.parquet"
    table = pq.read_table(place)
    rows = table[ANGLE].to_pylist()
    rows[30]["bytes"] = rows[30]["bytes"][:3000]
    at = table.column_names.index(ANGLE)
    pq.write_table(table.set_column(at, ANGLE, pa.array(rows, table.schema.field(ANGLE).type)), place)
    with pytest.raises(SourceError, match="row 30.*cut short|row 30.*damaged"):
        edit_dataset(dataset_copy, tmp_path / "out", transforms={"angle": Transform(flip="v")})
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    edit_dataset(dataset_copy, tmp_path / "out", transforms={"angle": Transform(flip="v")}, episodes="0,2")
    flipped, before = images_of(tmp_path / "out", ANGLE)[3], images_of(DATASET, ANGLE)[3]
    assert (np.asarray(flipped) == np.asarray(before)[::-1]).all()
