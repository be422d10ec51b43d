"""Depth maps as images and arrays: what is stored is what was sent, and what was sent is the depth."""

from __future__ import annotations

import io
import re
import tracemalloc
import warnings
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ffenc import (
    ConfigError,
    DepthEncoderConfig,
    FfencWarning,
    SourceError,
    ToolchainError,
    VerificationError,
    VideoEncoderConfig,
    VideoWriter,
    encode,
)
from ffenc.compiler.frames import SampleTap
from ffenc.ffmpeg.probe import probe
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames import encode as encoding_module
from ffenc.frames.clip import Clip
from ffenc.frames.depth import DepthQuantizer
from ffenc.frames.depth_images import DepthStatistics, millimetres, read_depth
from ffenc.frames.depth_loss import warn_of_range
from ffenc.frames.sources import EncodedFrame
from ffenc.frames.transcode import key_checksums
from ffenc.layout import QUANTILES
from tests.conftest import everything_in, find_toolchain
from tests.support.read import depth_maps, depth_samples

FFV1 = {"vcodec": "ffv1", "extra_options": {}}
EXACT = DepthEncoderConfig(pix_fmt="gray16le", **FFV1)


def folder_of(root: Path, maps: np.ndarray, suffix: str) -> Path:
    root.mkdir()
    for i, depth in enumerate(maps):
        Image.fromarray(depth).save(root / f"frame-{i:06d}{suffix}")
    return root


@pytest.mark.parametrize(
    ("toolchain", "suffix", "preset"),
    [
        *(("newest", suffix, preset) for suffix in (".png", ".tiff") for preset in (None, "ultrafast")),
        ("system", ".png", "ultrafast"),
        ("system", ".tiff", None),
    ],
    indirect=["toolchain"],
)
def test_a_folder_of_depth_maps_is_stored_as_their_codes(
    toolchain: Toolchain, tmp_path: Path, images: dict[str, list[bytes]], suffix: str, preset: str | None
) -> None:
    maps = depth_maps(images, 12)
    folder = folder_of(tmp_path / "depth", maps, suffix)
    config = DepthEncoderConfig(preset=preset)
    info = encode(folder, tmp_path / "out.mp4", fps=30, config=config)
    assert (info.codec, info.pix_fmt, info.frames, info.channels) == ("hevc", "gray12le", 12, 1)
    codes = depth_samples(tmp_path / "out.mp4", "gray12le", 160, 120)
    np.testing.assert_array_equal(codes, DepthQuantizer(invalid="keep").quantize(maps))


@pytest.mark.parametrize(
    ("depth", "unit", "expected"),
    [
        (np.array([[0, 1, 65535]], np.uint16), None, [0, 1, 65535]),
        (np.array([[0, 1, 70]], np.uint16), "m", [0, 1000, 65535]),
        (np.array([[-3, 5, 70_000]], np.int32), None, [0, 5, 65535]),
        (np.array([[0.0, 1.2344, 1.2356, 99.0]], np.float32), None, [0, 1234, 1236, 65535]),
        (np.array([[np.nan, np.inf, -np.inf, -1.0]], np.float32), None, [0, 65535, 0, 0]),
        (np.array([[0.4, 1234.6]], np.float32), "mm", [0, 1235]),
    ],
)
def test_millimetres_are_rounded_and_holes_are_0(depth: Any, unit: Any, expected: list[int]) -> None:
    found = millimetres(depth, unit)
    assert found.dtype == np.uint16
    assert found[0].tolist() == expected


def test_16_bit_millimetres_come_back_to_the_last_bit(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    maps = depth_maps(images, 8)
    maps[0, 0, :8] = [0, 1, 255, 256, 4095, 4096, 65534, 65535]
    folder = folder_of(tmp_path / "depth", maps, ".png")
    encode(folder, tmp_path / "out.mp4", fps=30, config=EXACT)
    np.testing.assert_array_equal(depth_samples(tmp_path / "out.mp4", "gray16le", 160, 120), maps)


def test_ffv1_in_an_mp4_that_an_older_ffmpeg_cannot_write_is_refused_with_what_to_do(
    tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    folder = folder_of(tmp_path / "depth", depth_maps(images, 2), ".png")
    old = find_toolchain("system")
    with pytest.raises(ToolchainError, match="a newer or more complete FFmpeg can: install one with"):
        encode(folder, tmp_path / "out.mp4", fps=30, config=EXACT, ffmpeg=old.ffmpeg)
    assert everything_in(tmp_path) == everything_in(folder.parent)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("config", [DepthEncoderConfig(), DepthEncoderConfig(use_log=False), EXACT])
def test_arrays_are_written_as_depth(tmp_path: Path, dtype: Any, config: DepthEncoderConfig) -> None:
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 12_000, (10, 48, 64)).astype(np.uint16)
    maps[:, :2] = 0
    given = maps if dtype == np.uint16 else maps.astype(np.float32) / 1000
    with VideoWriter(tmp_path / "out.mp4", 30, config) as video:
        for i, depth in enumerate(given):
            video.write(depth if i % 2 else depth[:, :, None])
    assert video.info is not None
    assert (video.info.pix_fmt, video.info.frames) == (config.pix_fmt, 10)
    found = depth_samples(tmp_path / "out.mp4", config.pix_fmt, 64, 48)
    wanted = maps if config is EXACT else DepthQuantizer.from_config(config).quantize(given)
    np.testing.assert_array_equal(found, wanted)


def test_frames_that_are_no_depth_are_refused(tmp_path: Path) -> None:
    for frame in (
        np.zeros((48, 64, 3), np.uint16),
        np.zeros(64, np.uint16),
        np.zeros((48, 64), bool),
        [[1, 2]],
    ):
        with (
            pytest.raises(ConfigError, match="a depth frame must be an array of integers or floats"),
            VideoWriter(tmp_path / "out.mp4", 30, DepthEncoderConfig()) as video,
        ):
            video.write(frame)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'yuv420p' does not hold depth; accepted: gray12le, gray16le"):
        VideoWriter(tmp_path / "out.mp4", 30, DepthEncoderConfig(pix_fmt="yuv420p"))
    assert everything_in(tmp_path) == []


def test_settings_and_images_have_to_be_of_one_kind(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    depth = folder_of(tmp_path / "depth", depth_maps(images, 2), ".png")
    colours = folder_of(tmp_path / "colours", np.zeros((2, 16, 16, 3), np.uint8), ".png")
    with pytest.raises(ConfigError, match=r"pass a depth camera's settings \(DepthEncoderConfig\)"):
        encode(depth, tmp_path / "out.mp4", fps=30, config=VideoEncoderConfig())
    with pytest.raises(ConfigError, match="not depth maps; pass a colour camera's settings"):
        encode(colours, tmp_path / "out.mp4", fps=30, config=DepthEncoderConfig())


@pytest.mark.parametrize("fault", ["cut short", "flipped bit", "another size", "colours", "empty"])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_a_damaged_depth_image_is_named_and_nothing_is_left(
    tmp_path: Path, images: dict[str, list[bytes]], fault: str, suffix: str
) -> None:
    maps = depth_maps(images, 6)
    folder = folder_of(tmp_path / "depth", maps, suffix)
    victim = folder / f"frame-000004{suffix}"
    data = bytearray(victim.read_bytes())
    if fault == "cut short":
        del data[len(data) // 2 :]
    elif fault == "flipped bit":
        if suffix == ".tiff":
            data[4] ^= 0x70  # where its directory is; pixels have no checksum in a TIFF
        else:
            data[len(data) // 2] ^= 4
    elif fault == "empty":
        data.clear()
    else:
        other = maps[0][:60] if fault == "another size" else np.zeros((120, 160, 3), np.uint8)
        out = io.BytesIO()
        Image.fromarray(other).save(out, "PNG" if suffix == ".png" else "TIFF")
        data = bytearray(out.getvalue())
    victim.write_bytes(data)
    with pytest.raises(SourceError, match=f"frame-000004{suffix}"):
        encode(folder, tmp_path / "out.mp4", fps=30)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth"]


def test_depth_written_in_two_units_is_refused(tmp_path: Path) -> None:
    """Floats are metres: 0.5 m among millimetres would be stored as nothing, or 500 m among metres."""
    video = tmp_path / "out.mp4"
    near = np.full((32, 40), 500, np.uint16)
    with (
        pytest.raises(
            ConfigError, match="depth frame 1 is float32, so in m, but the frames before it are in mm"
        ),
        VideoWriter(video, 30, DepthEncoderConfig()) as writer,
    ):
        writer.write(near)
        writer.write(np.full((32, 40), 0.5, np.float32))
    assert not video.exists()
    with VideoWriter(video, 30, DepthEncoderConfig(), depth_unit="mm") as writer:
        writer.write(near)
        writer.write(near.astype(np.float32))
    codes = depth_samples(video, "gray12le", 40, 32)
    np.testing.assert_array_equal(codes[0], codes[1])


def test_a_16_bit_picture_in_colours_is_no_depth_map() -> None:
    import struct

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + bytes(6 * 4) for _ in range(4))
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(
        SourceError, match=r"a\.png: is 4x4 16-bit PNG, samples per pixel: 3; .*; colours need 8"
    ):
        read_depth(EncodedFrame("a.png", png))


def test_samples_that_do_not_come_back_are_an_error(
    tmp_path: Path, images: dict[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever changes a code on its way is found before the file is published."""
    maps = depth_maps(images, 12)
    few = folder_of(tmp_path / "depth", maps, ".png")
    many = folder_of(tmp_path / "long", np.concatenate([maps] * 5), ".png")
    hevc = [(few, DepthEncoderConfig(), wrong) for wrong in (0, 6, 7, 11)]
    # Of key frames alone, the first, the one in the middle and the last are decoded, by one process.
    ffv1 = [(many, DepthEncoderConfig(**FFV1), wrong) for wrong in (0, 30, 59)]
    for folder, config, wrong in hevc + ffv1:
        original = encoding_module.depth_pieces

        def changed(*arguments: Any, wrong: int = wrong, original: Any = original, **named: Any) -> Any:
            for i, piece in enumerate(original(*arguments, **named)):
                data = bytearray(piece)
                data[1000] ^= i == wrong
                yield data

        with monkeypatch.context() as patch:
            patch.setattr(encoding_module, "depth_pieces", changed)
            with pytest.raises(VerificationError, match=f"frame {wrong} was not decoded to what was sent"):
                encode(folder, tmp_path / "out.mp4", fps=30, config=config)
        assert not (tmp_path / "out.mp4").exists()


def test_any_of_a_files_key_frames_are_read_back_at_once(
    toolchain: Toolchain, tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    """At rates whose times are no whole microseconds, the frames are those that are asked for."""
    maps = depth_maps(images, 12) + np.arange(12, dtype=np.uint16)[:, None, None]
    folder = folder_of(tmp_path / "it's depth", maps, ".png")
    rates = (Fraction(30_000, 1001), Fraction(30), Fraction(7))
    for rate in rates if toolchain == find_toolchain("newest") else rates[:1]:
        output = tmp_path / f"{rate.numerator}.mp4"
        encode(folder, output, fps=rate, config=EXACT, ffmpeg=find_toolchain("newest").ffmpeg)
        clip = Clip(output, probe(output, times=True), 0, 12)
        for parts in ([range(1), range(6, 7), range(11, 12)], [range(2, 5), range(6, 12)], [range(12)]):
            wanted = [zlib.crc32(maps[i].tobytes()) for part in parts for i in part]
            assert key_checksums(clip, parts, toolchain) == wanted


def test_a_lossy_depth_stream_is_taken_as_it_is(
    toolchain: Toolchain, tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    maps = depth_maps(images, 12)
    folder = folder_of(tmp_path / "depth", maps, ".png")
    lossless = encode(folder, tmp_path / "lossless.mp4", fps=Fraction(30))
    with pytest.warns(FfencWarning, match="depth is encoded with loss") as told:
        lossy = encode(
            folder, tmp_path / "lossy.mp4", fps=30, config=DepthEncoderConfig(crf=20, extra_options={})
        )
    (text,) = [str(warning.message) for warning in told]
    # The figures are those of the frames it was tried with: the first two, by turns.
    (largest, mean, least, widest) = map(
        float, re.findall(r"up to (\d+) mm, (\S+) mm on average, .* steps of (\S+) to (\S+) mm", text)[0]
    )
    assert (least, widest) == (1.2, 4.4)
    assert 1 <= mean < largest < 10_000
    assert lossless.frames == lossy.frames
    assert (tmp_path / "lossy.mp4").stat().st_size < (tmp_path / "lossless.mp4").stat().st_size * 0.7
    codes = depth_samples(tmp_path / "lossy.mp4", "gray12le", 160, 120).astype(int)
    quantizer = DepthQuantizer(invalid="keep")
    wanted = quantizer.quantize(maps).astype(int)
    off = quantizer.dequantize(codes, output_unit="m") - quantizer.dequantize(wanted, output_unit="m")
    assert largest == pytest.approx(np.abs(off[:2]).max() * 1000, rel=0.3)
    assert mean == pytest.approx(np.abs(off[:2]).mean() * 1000, rel=0.3)
    assert 0 < np.abs(codes - wanted).mean() < 40


@pytest.mark.parametrize(
    ("settings", "unit", "said"),
    [
        ({"depth_max": 0.9}, "mm", r"45% of the depth is outside .* depth_max=0\.9 metres"),
        ({"depth_max": 0.9, "invalid": "clip"}, "m", r"45% of the depth is outside"),
        ({"depth_min": 0.8}, "mm", r"36% of the depth is outside .* depth_min=0\.8 "),
        (
            {"depth_min": 10.0, "depth_max": 10000.0},
            "mm",
            r"100% .* depth_min=10 to .* unit .* is mm",
        ),
        ({"depth_max": 10000.0, "use_log": False}, "m", r"most of the depth is stored in steps of 244\d mm"),
        ({"depth_min": 0.73}, "mm", None),
        ({"depth_max": 1.02}, "m", None),
        ({}, "mm", None),
        ({"depth_max": 0.9, "pix_fmt": "gray16le", **FFV1}, "mm", None),
    ],
)
def test_a_range_that_does_not_fit_the_depth_is_said(
    settings: dict[str, Any], unit: Any, said: str | None, recwarn: pytest.WarningsRecorder
) -> None:
    wall = np.linspace(600, 1150, 12000).astype(np.uint16).reshape(100, 120)
    depth = np.concatenate([wall, np.zeros_like(wall), np.full_like(wall, 65535)])
    if unit == "m":
        depth = depth.astype(np.float32) / 1000
    warnings.simplefilter("always")
    warn_of_range(DepthEncoderConfig(**settings), [depth, depth], unit)
    texts = [str(one.message) for one in recwarn]
    assert len(texts) == (said is not None)
    assert said is None or re.search(said, texts[0])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint16", "uint32", "int64"])
@pytest.mark.parametrize("value", [0, -1, 1, np.nan, np.inf, -np.inf, 1e300])
def test_no_map_makes_the_check_of_the_range_fail(dtype: str, value: float) -> None:
    if np.dtype(dtype).kind in "iu" and not (np.isfinite(value) and 0 <= value < 2):
        value = np.iinfo(dtype).max
    with np.errstate(over="ignore"):
        depth = np.full((1, 1), value, np.float64 if dtype.startswith("f") else dtype).astype(dtype)
    for unit in (None, "mm", "m"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", FfencWarning)
            warn_of_range(DepthEncoderConfig(), [depth], unit)


@pytest.mark.parametrize("millimetres_of", [50, 70, 300, 1005, 1700, 4015])
@pytest.mark.parametrize("unit", ["mm", "m"])
def test_depth_at_an_end_of_the_range_is_not_outside_it(millimetres_of: int, unit: Any) -> None:
    """A simulator's far plane; neither end has to be a float32, or whole millimetres in floating point."""
    end = millimetres_of / 1000
    depth = np.full((8, 8), millimetres_of, np.uint16)
    if unit == "m":
        depth = np.full((8, 8), end, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_range(DepthEncoderConfig(depth_min=0.01, depth_max=end), [depth], unit)
        warn_of_range(DepthEncoderConfig(depth_min=end, depth_max=9), [depth], unit)


def test_whether_a_range_fits_a_large_map_is_known_from_a_part_of_its_pixels() -> None:
    """A recording waits for it at the first frame; the columns of a map differ."""
    config = DepthEncoderConfig(depth_max=5)
    DepthQuantizer.from_config(config).quantize(
        np.ones((1, 1), np.uint16), input_unit="mm"
    )  # makes the table
    depth = np.tile(np.where(np.arange(4096) % 256 < 77, 9000, 2000).astype(np.uint16), (4096, 1))
    tracemalloc.start()
    try:
        with pytest.warns(FfencWarning, match="30% of the depth is outside"):
            warn_of_range(config, [depth], "mm")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < depth.size // 8  # bytes; a mask of all pixels has one for each


def test_a_range_in_millimetres_is_said_before_a_folder_is_encoded(tmp_path: Path) -> None:
    wall = np.linspace(600, 1150, 64 * 48).astype(np.uint16).reshape(48, 64)
    folder = folder_of(tmp_path / "depth", np.stack([wall, wall]), ".png")
    config = DepthEncoderConfig(depth_min=10, depth_max=10000)
    with pytest.warns(FfencWarning, match="in the first frames, 100% of the depth is outside the range"):
        encode(folder, tmp_path / "out.mp4", fps=30, config=config)


def test_statistics_of_depth_without_a_measured_pixel_can_be_asked_for_again() -> None:
    counted = DepthStatistics(SampleTap(1, 4, 4), "m")
    counted.add(np.full((4, 4), np.nan, np.float32))
    first, values = counted.statistics(), counted.values().counts.copy()
    assert counted.statistics() == first
    np.testing.assert_array_equal(counted.values().counts, values)


@pytest.mark.parametrize("unit", ["mm", "m"])
def test_statistics_are_those_of_the_depth(unit: Any) -> None:
    rng = np.random.default_rng(1)
    maps = rng.integers(0, 5000, (7, 40, 60)).astype(np.uint16)
    given = maps if unit == "mm" else maps.astype(np.float32) / 1000
    counted = DepthStatistics(SampleTap(2, 30, 20), unit)
    for depth in given:
        counted.add(depth)
    stats = counted.statistics()
    values = given[::2, ::2, ::2].astype(np.float64)
    assert stats["count"] == [4]
    step = 1 if unit == "mm" else 0.001
    for name, expected in {
        "min": values.min(),
        "max": values.max(),
        "mean": values.mean(),
        "std": values.std(),
        **{name: np.quantile(values, q) for name, q in QUANTILES.items()},
    }.items():
        assert np.shape(stats[name]) == (1, 1, 1)
        np.testing.assert_allclose(np.ravel(stats[name])[0], expected, atol=step / 1000, err_msg=name)


def test_holes_that_are_nan_do_not_spoil_the_statistics() -> None:
    depth = np.full((4, 4), 2.0, np.float32)
    depth[0], depth[1] = np.nan, np.inf
    counted = DepthStatistics(SampleTap(1, 4, 4), "m")
    counted.add(depth)
    stats = counted.statistics()
    for name in ("min", "max", "mean", *QUANTILES):
        assert stats[name] == [[[2.0]]], name
    assert all(np.isfinite(np.ravel(value)).all() for value in stats.values())


def test_statistics_of_nothing_but_holes_are_zero() -> None:
    counted = DepthStatistics(SampleTap(1, 4, 4), "m")
    counted.add(np.full((4, 4), np.nan, np.float32))
    stats = counted.statistics()
    assert stats.pop("count") == [1]
    assert [np.ravel(value).tolist() for value in stats.values()] == [[0.0]] * 9
