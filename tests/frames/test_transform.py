"""Pictures are cropped, turned, scaled and padded as Pillow does it, which shares no code with FFmpeg."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ffenc import ConfigError, DepthQuantizer, VideoEncoderConfig, VideoReader, encode
from ffenc.config.transform import Transform
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.depth_images import changed
from tests.conftest import DEPTH, TOP, decode, find_toolchain, newest_only, newest_programs, psnr

CHANGES: dict[str, dict[str, Any]] = {
    "crop, turn": {"crop": (30, 20, 48, 96), "rotate": 90},
    "turn, flip": {"rotate": 270, "flip": "hv"},
    "half turn": {"rotate": 180, "flip": "h"},
    "larger": {"resize": (480, 360)},
    "all": {"crop": (40, 8, 48, 96), "rotate": 90, "flip": "v", "resize": (128, 128), "pad": True},
}
LOSSLESS = {"x265-params": "lossless=1"}
RGB = VideoEncoderConfig(vcodec="hevc", preset="ultrafast", pix_fmt="gbrp", crf=None, extra_options=LOSSLESS)
YUV = VideoEncoderConfig(vcodec="h264", crf=0)  # without loss
TURNS = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
FLIPS = {"h": Image.Transpose.FLIP_LEFT_RIGHT, "v": Image.Transpose.FLIP_TOP_BOTTOM}


def changes_for(toolchain: Toolchain) -> dict[str, dict[str, Any]]:
    """All changes; on the system's FFmpeg, which is slow to start, those that hold each of its filters."""
    newest = toolchain == find_toolchain("newest")
    return CHANGES if newest else {name: CHANGES[name] for name in ("half turn", "all")}


def expected(image: Image.Image, transform: Transform, scaler: Image.Resampling) -> np.ndarray:
    """What Pillow makes of a picture."""
    if transform.crop is not None:
        x, y, width, height = transform.crop
        image = image.crop((x, y, x + width, y + height))
    if transform.rotate:
        image = image.transpose(TURNS[transform.rotate])
    for way in transform.flip or "":
        image = image.transpose(FLIPS[way])
    if transform.resize is not None and not transform.pad:
        image = image.resize(transform.resize, scaler)
    elif transform.resize is not None:
        width, height = transform.resize
        share = min(width / image.width, height / image.height)
        size = tuple(2 * round(share * side / 2) for side in image.size)
        small = image.resize(size, scaler)
        image = Image.new(image.mode, (width, height))
        image.paste(
            small, tuple((whole - side) // 4 * 2 for whole, side in zip((width, height), size, strict=True))
        )
    return np.asarray(image)


@pytest.fixture
def folder(tmp_path: Path, images: dict[str, list[bytes]]) -> Path:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(3):
        (frames / f"{number}.png").write_bytes(images[TOP][number * 30])
    return frames


def test_colours_of_images(toolchain: Toolchain, folder: Path, tmp_path: Path) -> None:
    pictures = [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())]
    for name, changes in changes_for(toolchain).items():
        transform = Transform(**changes)
        out = tmp_path / f"{name}.mp4"
        info = encode(folder, out, fps=30, config=RGB, transform=transform)
        wanted = np.stack([expected(picture, transform, Image.Resampling.BICUBIC) for picture in pictures])
        found = decode(out)
        assert (info.height, info.width) == wanted.shape[1:3]
        if transform.resize is None:
            np.testing.assert_array_equal(found, wanted, name)
        else:
            assert psnr(found, wanted) > 40, name


def test_colours_of_a_video_keep_their_own_samples(
    toolchain: Toolchain, folder: Path, tmp_path: Path
) -> None:
    """Without scaling not a sample changes; with it, the picture is what it is when its RGB is scaled."""
    video = tmp_path / "video.mp4"
    encode(folder, video, fps=30, config=YUV, **newest_programs())
    before = [Image.fromarray(frame) for frame in decode(video)]
    for name, changes in changes_for(toolchain).items():
        transform = Transform(**changes)
        out = tmp_path / f"{name}.mp4"
        encode(video, out, config=YUV, transform=transform)
        wanted = np.stack([expected(picture, transform, Image.Resampling.BICUBIC) for picture in before])
        assert decode(out).shape == wanted.shape
        assert psnr(decode(out), wanted) > (45 if transform.resize is None else 36), name


@pytest.fixture
def depth_maps(images: dict[str, list[bytes]]) -> list[np.ndarray]:
    maps = [np.asarray(Image.open(io.BytesIO(images[DEPTH][number * 30]))).copy() for number in range(3)]
    for depth in maps:
        depth[10:40, 20:50] = 0
    return maps


def nearest(depth: np.ndarray, transform: Transform) -> np.ndarray:
    """What Pillow makes of a map, which scales no 16-bit pictures by the nearest pixel but as 32 bits."""
    return expected(Image.fromarray(depth.astype(np.int32)), transform, Image.Resampling.NEAREST)


def test_depth_is_taken_pixel_by_pixel(depth_maps: list[np.ndarray]) -> None:
    """Holes stay holes, and no depth comes that was not there."""
    for name, changes in (*CHANGES.items(), ("smaller", {"resize": (160, 96)})):
        transform = Transform(**changes)
        for depth in depth_maps:
            found = changed(depth, transform.of(160, 120))
            np.testing.assert_array_equal(found, nearest(depth, transform), name)


@newest_only
def test_depth_of_images_and_of_video_is_changed_alike(
    toolchain: Toolchain, depth_maps: list[np.ndarray], tmp_path: Path
) -> None:
    folder, whole = tmp_path / "depth", tmp_path / "whole.mp4"
    folder.mkdir()
    for number, depth in enumerate(depth_maps):
        Image.fromarray(depth).save(folder / f"{number}.tiff")
    encode(folder, whole, fps=30)
    transform = Transform(**CHANGES["all"])
    quantizer = DepthQuantizer(invalid="keep")
    wanted = np.stack([nearest(quantizer.quantize(depth), transform) for depth in depth_maps])
    for source, more in ((folder, {"fps": 30}), (whole, {})):
        out = tmp_path / f"of {source.name}.mp4"
        encode(source, out, transform=transform, **more)
        with VideoReader(out, depth=False) as reader:
            found = np.stack([frame.copy() for frame in reader])
        np.testing.assert_array_equal(found, wanted)
        assert (found == 0).any()


def test_a_map_that_is_not_changed_is_not_copied() -> None:
    depth = np.zeros((4, 6), np.uint16)
    assert changed(depth, None) is depth


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"resize": (319, 240)}, r"319x240 frames cannot be stored .*resize='318x240"),
        ({"resize": (320, 240)}, "resize 320x240: would have no effect on frames of 320x240"),
        ({"pad": True}, "pad: would have no effect"),
        ({"crop": (300, 0, 100, 100)}, "does not lie within frames of 320x240"),
    ],
)
def test_changes_that_cannot_be_made_or_change_nothing(
    folder: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        encode(folder, tmp_path / "out.mp4", fps=30, transform=Transform(**changes))
    assert not (tmp_path / "out.mp4").exists()


def test_an_odd_size_is_padded_to_an_even_one(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    info = encode(
        folder,
        out,
        fps=30,
        config=VideoEncoderConfig(vcodec="h264", crf=1),
        transform=Transform(crop=(3, 5, 201, 99), pad=True),
    )
    assert (info.width, info.height) == (202, 100)
    first = np.asarray(Image.open(folder / "0.png").convert("RGB"))[5:104, 3:204]
    found = decode(out)[0]
    assert psnr(found[:98, :200], first[:98, :200]) > 35
    assert found[:, 201].max() < 40  # beside bright pixels, with which it shares its chroma


@pytest.mark.parametrize(
    ("changes", "said", "advice"),
    [
        ({"crop": (3, 5, 101, 99)}, "crop='100x98+3+5'", {"crop": (3, 5, 100, 98)}),
        ({"crop": (3, 5, 101, 99)}, "pad=True", {"pad": True}),
        ({"crop": (4, 0, 101, 60), "rotate": 90}, "crop='100x60+4+0'", {"crop": (4, 0, 100, 60)}),
        ({"crop": (4, 0, 101, 60), "resize": (51, 31)}, "resize='50x30'", {"resize": (50, 30)}),
    ],
)
def test_the_advice_for_an_odd_size_helps(
    folder: Path, tmp_path: Path, changes: dict[str, Any], said: str, advice: dict[str, Any]
) -> None:
    config = VideoEncoderConfig(vcodec="h264")
    with pytest.raises(ConfigError, match=re.escape(said)):
        encode(folder, tmp_path / "out.mp4", fps=30, config=config, transform=Transform(**changes))
    encode(folder, tmp_path / "out.mp4", fps=30, config=config, transform=Transform(**(changes | advice)))


def test_an_odd_crop_of_halved_chroma_is_refused(folder: Path, tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    encode(folder, video, fps=30, config=VideoEncoderConfig(vcodec="h264"))
    with pytest.raises(ConfigError, match=r"cuts through the chroma of yuv420p.*crop='200x98\+2\+4'"):
        encode(video, tmp_path / "out.mp4", transform=Transform(crop=(3, 5, 200, 98)))
