"""Depth cameras go through a re-encode beside the others, and LeRobot's own stream is the measure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ffenc import ConfigError, DepthEncoderConfig, SourceError, reencode_dataset, verify_dataset
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.depth import DepthQuantizer
from ffenc.layout import QUANTILES
from tests.conftest import (
    ANGLE,
    DATASET,
    DEPTH,
    FIXTURES,
    LENGTHS,
    TOP,
    everything_in,
    find_toolchain,
    starts,
)
from tests.support.read import depth_maps, depth_samples, read_json

LEROBOTS = FIXTURES / "aloha_video_v30"
VIDEO = "videos/{}/chunk-000/file-000.mp4"
ULTRAFAST = (("depth_encoder", "preset"), "ultrafast")
FAST = [(("camera_encoder", "vcodec"), "h264"), ULTRAFAST]
FFV1 = [(("depth_encoder", "vcodec"), "ffv1"), (("depth_encoder", "extra_options"), {})]


def test_the_sample_comes_out_whole_and_equal_to_lerobots_own_depth_stream(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # The colours are compared once, for LeRobot's info block.
    cameras = None if toolchain == find_toolchain("newest") else ["angle_depth"]
    summary = reencode_dataset(DATASET, out, cameras=cameras)
    assert summary.frames == len(cameras or "012") * 72
    ours = depth_samples(out / VIDEO.format(DEPTH), "gray12le", 160, 120)
    np.testing.assert_array_equal(ours, depth_samples(LEROBOTS / VIDEO.format(DEPTH), "gray12le", 160, 120))
    info, theirs = read_json(out / "meta/info.json"), read_json(LEROBOTS / "meta/info.json")
    left = set() if cameras is None else {TOP, ANGLE}
    asked = {key: feature for key, feature in theirs["features"].items() if key not in left}
    assert info["features"] == asked  # LeRobot merges nothing else
    feature = info["features"][DEPTH]
    own = read_json(out / "meta/ffenc.json")["cameras"][DEPTH]
    assert (own["video.encoder"]["encoder"], own["video.invalid"]) == ("libx265", "keep")
    assert DepthEncoderConfig.from_video_info(feature["info"]) == DepthEncoderConfig()
    assert read_json(out / "meta/stats.json")[DEPTH] == read_json(DATASET / "meta/stats.json")[DEPTH]
    episodes = pq.read_table(out / "meta/episodes/chunk-000/file-000.parquet")
    assert episodes[f"videos/{DEPTH}/from_timestamp"].to_pylist() == [start / 30 for start in starts()]
    assert f"stats/{DEPTH}/mean" in episodes.column_names


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_a_tree_with_16_bit_images_has_a_depth_camera(
    tmp_path: Path, png_tree: Path, images: dict[str, list[bytes]], suffix: str
) -> None:
    maps = depth_maps(images, 72)
    for episode, (start, length) in enumerate(zip(starts(), LENGTHS, strict=True)):
        shutil.rmtree(png_tree / f"episode_{episode:06d}/top")  # the largest, which adds nothing here
        folder = png_tree / f"episode_{episode:06d}/angle_depth"
        folder.mkdir()
        for i in range(length):
            Image.fromarray(maps[start + i]).save(folder / f"frame-{i:06d}{suffix}")
    out = tmp_path / "out"
    summary = reencode_dataset(png_tree, out, fps=30, overrides=FAST)
    assert set(summary.cameras) == {ANGLE, DEPTH}
    codes = depth_samples(out / VIDEO.format(DEPTH), "gray12le", 160, 120)
    np.testing.assert_array_equal(codes, DepthQuantizer(invalid="keep").quantize(maps))
    feature = read_json(out / "meta/info.json")["features"][DEPTH]
    assert (feature["shape"], feature["info"]["is_depth_map"], feature["info"]["depth_unit"]) == (
        *([120, 160, 1], True),
        "mm",
    )
    stats, known = read_json(out / "meta/stats.json")[DEPTH], read_json(DATASET / "meta/stats.json")[DEPTH]
    assert set(stats) == set(known)
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(stats[name], known[name], rtol=1e-5)


def float_tree(root: Path, maps: np.ndarray) -> Path:
    folder = root / "episode_000000/depth"
    folder.mkdir(parents=True)
    for i, depth in enumerate(maps):
        Image.fromarray(depth).save(folder / f"{i}.tiff")
    return root


def test_metres_of_a_simulator_are_depth_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = rng.uniform(0.2, 9.5, (8, 48, 64)).astype(np.float32)
    maps[:, 0], maps[:, 1], maps[:, 2] = np.nan, np.inf, 0
    out = tmp_path / "out"
    reencode_dataset(float_tree(tmp_path / "tree", maps), out, fps=10)
    key = "observation.images.depth"
    quantizer = DepthQuantizer(invalid="keep")
    codes = depth_samples(out / VIDEO.format(key), "gray12le", 64, 48)
    np.testing.assert_array_equal(codes, quantizer.quantize(maps))
    assert (codes[:, 0] == 0).all()
    assert (codes[:, 1] == 4095).all()
    back = quantizer.dequantize(codes, output_unit="m")
    assert np.abs(back[:, 3:] - maps[:, 3:]).max() < 0.003
    assert read_json(out / "meta/info.json")["features"][key]["info"]["depth_unit"] == "m"
    assert read_json(out / "meta/stats.json")[key]["max"][0][0][0] < 10


@pytest.mark.parametrize(
    ("holes", "exact"),
    [
        *(((np.nan,), False), ((np.nan, np.inf), False), ((0.0, np.inf), False), ((np.nan,), True)),
        ((0.0, np.nan, np.inf), False),
    ],
)
def test_frames_match_their_statistics_whatever_stands_for_no_depth(
    tmp_path: Path, holes: tuple[float, ...], exact: bool
) -> None:
    """Statistics are those of the finite depth; in the video, NaN is as 0, and infinity as the farthest."""
    maps = np.random.default_rng(0).uniform(0.5, 1.5, (4, 48, 64)).astype(np.float32)
    for n, hole in enumerate(holes):
        maps[:, 10 * n : 10 * n + 10] = hole
    out = tmp_path / "out"
    overrides = [*FFV1, (("depth_encoder", "pix_fmt"), "gray16le")] if exact else []
    reencode_dataset(float_tree(tmp_path / "tree", maps), out, fps=10, overrides=overrides)
    assert not verify_dataset(out, deep=True).faults
    assert not verify_dataset(out, deep=True).faults, "from its record"
    (path,) = (out / "meta/episodes").rglob("*.parquet")
    table = pq.read_table(path)
    for name in QUANTILES:
        column = f"stats/observation.images.depth/{name}"
        values = pa.array([[[[0.4 * row[0][0][0]]]] for row in table[column].to_pylist()], table[column].type)
        table = table.set_column(table.column_names.index(column), column, values)
    pq.write_table(table, path)
    found = verify_dataset(out, deep=True)
    assert "other-content" in {fault.kind for fault in found.faults}, "depth of another scene is still found"


def test_exact_16_bit_depth_has_no_quantiser(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    out = tmp_path / "out"
    exact = [*FFV1, (("depth_encoder", "pix_fmt"), "gray16le")]
    reencode_dataset(DATASET, out, cameras=["angle_depth"], overrides=exact)
    found = depth_samples(out / VIDEO.format(DEPTH), "gray16le", 160, 120)
    np.testing.assert_array_equal(found, depth_maps(images, 72))
    block = read_json(out / "meta/info.json")["features"][DEPTH]["info"]
    assert (block["video.codec"], block["video.pix_fmt"], block["is_depth_map"]) == ("ffv1", "gray16le", True)
    assert not [key for key in block if "depth_min" in key or "use_log" in key]
    # The check reads all frames into the same memory; each has to count for the statistics.
    assert verify_dataset(out, deep=True).faults == []


def test_codes_in_ffv1_are_those_in_hevc(tmp_path: Path) -> None:
    out = tmp_path / "out"
    reencode_dataset(DATASET, out, cameras=["angle_depth"], overrides=FFV1)
    np.testing.assert_array_equal(
        depth_samples(out / VIDEO.format(DEPTH), "gray12le", 160, 120),
        depth_samples(LEROBOTS / VIDEO.format(DEPTH), "gray12le", 160, 120),
    )


def test_a_cameras_own_range_is_used_and_kept(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    preset = tmp_path / "robot.yaml"
    preset.write_text(
        "depth_encoder: {preset: ultrafast}\n"
        "cameras:\n  angle_depth: {depth: true, encoder: {depth_min: 0.3, depth_max: 3, use_log: false, "
        "invalid: clip}}\n"
    )
    out = tmp_path / "out"
    reencode_dataset(DATASET, out, preset=preset, cameras=["angle_depth"])
    quantizer = DepthQuantizer(0.3, 3, use_log=False)
    codes = depth_samples(out / VIDEO.format(DEPTH), "gray12le", 160, 120)
    np.testing.assert_array_equal(codes, quantizer.quantize(depth_maps(images, 72)))
    block = read_json(out / "meta/info.json")["features"][DEPTH]["info"]
    assert DepthQuantizer.from_video_info(block) == quantizer


def test_a_resumed_run_with_another_range_encodes_anew(tmp_path: Path, monkeypatch: Any) -> None:
    """The range is in no command line, so the record of a finished piece has to know of it."""
    from ffenc.dataset.job import run as job

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(job.JobTables, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            reencode_dataset(DATASET, out, cameras=["angle_depth"], overrides=[ULTRAFAST])
    other = [ULTRAFAST, (("depth_encoder", "depth_max"), 5.0)]
    with monkeypatch.context() as patch:
        patch.setattr(job.JobTables, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            reencode_dataset(DATASET, out, cameras=["angle_depth"], overrides=other, resume=True)
    summary = reencode_dataset(DATASET, out, cameras=["angle_depth"], overrides=other, resume=True)
    assert (summary.resumed, summary.outdated) == (3, 0)
    fresh = tmp_path / "fresh"
    reencode_dataset(DATASET, fresh, cameras=["angle_depth"], overrides=other)
    assert (out / VIDEO.format(DEPTH)).read_bytes() == (fresh / VIDEO.format(DEPTH)).read_bytes()


def test_a_damaged_depth_image_in_a_dataset_is_named(tmp_path: Path, dataset_copy: Path) -> None:
    path = dataset_copy / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    cells = table[DEPTH].to_pylist()
    cells[30]["bytes"] = cells[30]["bytes"][:20_000]
    at = table.schema.get_field_index(DEPTH)
    import pyarrow as pa

    damaged = table.set_column(at, table.schema.field(at), pa.array(cells, table.schema.field(at).type))
    pq.write_table(damaged, path)
    with pytest.raises(SourceError, match=rf"row 30.*{DEPTH}.*damaged"):
        reencode_dataset(dataset_copy, tmp_path / "out", cameras=["angle_depth"])
    assert [name for name in everything_in(tmp_path) if name.startswith("out")] == []


def test_a_unit_that_is_none_is_refused(tmp_path: Path, dataset_copy: Path) -> None:
    path = dataset_copy / "meta/info.json"
    info = read_json(path)
    info["features"][DEPTH]["info"]["depth_unit"] = "inch"
    path.write_text(json.dumps(info))
    with pytest.raises(SourceError, match="depth_unit of .*angle_depth is 'inch'; expected mm or m"):
        reencode_dataset(dataset_copy, tmp_path / "out")


def test_a_camera_marked_depth_that_holds_colours_is_refused(tmp_path: Path, dataset_copy: Path) -> None:
    path = dataset_copy / "meta/info.json"
    info = read_json(path)
    info["features"][TOP]["info"] = {"is_depth_map": True}
    path.write_text(json.dumps(info))
    with pytest.raises(SourceError, match=r"is a 320x240 8-bit PNG, but .* says that .*top holds depth maps"):
        reencode_dataset(dataset_copy, tmp_path / "out")


def test_settings_that_hold_no_depth_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'yuv420p' does not hold depth"):
        reencode_dataset(DATASET, tmp_path / "out", overrides=[(("depth_encoder", "pix_fmt"), "yuv420p")])
    assert everything_in(tmp_path) == []


def test_the_source_is_only_read(tmp_path: Path, dataset_copy: Path) -> None:
    before = {p: p.read_bytes() for p in dataset_copy.rglob("*") if p.is_file()}
    reencode_dataset(dataset_copy, tmp_path / "out", cameras=["angle_depth"], overrides=[ULTRAFAST])
    assert {p: p.read_bytes() for p in dataset_copy.rglob("*") if p.is_file()} == before
    shutil.rmtree(dataset_copy)
    assert (tmp_path / "out/meta/info.json").is_file()
