"""Raw pixels of any order, and images whose red and blue were swapped, are encoded in their own colours."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffenc import SourceError, VideoEncoderConfig, probe
from ffenc.compiler.frames import FRAME_FORMATS, is_depth, is_encoded
from ffenc.frames.clip import Clip
from ffenc.frames.compare import compare_episode
from ffenc.frames.encode import encode_frames, prepare_images, verify_encoded
from ffenc.frames.header import ImageHeader
from ffenc.frames.images import read_header
from ffenc.frames.sources import EncodedFrame
from ffenc.frames.tiff import raw_samples, tiff_of
from tests.conftest import decode, find_toolchain, newest_program, psnr
from tests.support.recorded import jpeg, png

COUNT, SIZE = 3, (64, 96)
RAW = [name for name in FRAME_FORMATS if not is_depth(name) and not is_encoded(name)]


class Frames(list[EncodedFrame]):
    def fingerprint(self) -> str:
        return ""


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Colours that are all different and change slowly, with one edge."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    shown = np.stack([60 + columns * 1.5, 200 - rows * 2, 30 + (rows + columns) / 2], -1)
    shown[:, 72:] = (220, 40, 20)
    return shown.astype(np.uint8)


def raw(picture: np.ndarray, order: str) -> tuple[bytes, int]:
    """The picture in an order of bytes, and how many samples a pixel has."""
    alpha = np.full((*SIZE, 1), 255, np.uint8)
    plain = {
        "rgb24": picture,
        "bgr24": picture[..., ::-1],
        "rgba": np.dstack([picture, alpha]),
        "bgra": np.dstack([picture[..., ::-1], alpha]),
        "gray": picture[..., :1],
    }
    if order in plain:
        return plain[order].tobytes(), plain[order].shape[-1]
    if order.startswith("bayer"):
        mosaic = np.zeros(SIZE, np.uint8)
        for place, colour in enumerate(order[6:10]):
            at = np.s_[place // 2 :: 2, place % 2 :: 2]
            mosaic[at] = picture[at][..., "rgb".index(colour)]
        return mosaic.tobytes(), 1
    command = [newest_program("ffmpeg"), "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "96x64"]
    command += ["-i", "-", "-f", "rawvideo", "-pix_fmt", order, "-"]
    return subprocess.run(command, input=picture.tobytes(), capture_output=True, check=True).stdout, 2


ORDERS = [*RAW, "png-bgr", "jpeg-bgr"]
# One order of each kind with the system's FFmpeg, and with both where FFmpeg has most to do.
SYSTEM = ("bgr24", "uyvy422", "bayer_rggb8", "jpeg-bgr")
CASES = [(order, "system" if order in SYSTEM else "newest") for order in ORDERS]
CASES += [("bayer_rggb8", "newest"), ("jpeg-bgr", "newest")]


@pytest.mark.parametrize(("order", "program"), CASES)
def test_colours_are_those_that_were_given(
    tmp_path: Path, picture: np.ndarray, order: str, program: str
) -> None:
    toolchain = find_toolchain(program)
    if is_encoded(order):
        data = (png if order == "png-bgr" else jpeg)(picture[..., ::-1].copy())
        frames = Frames(EncodedFrame(str(i), data, order="bgr") for i in range(COUNT))
    else:
        data, samples = raw(picture, order)
        header = ImageHeader("raw", 96, 64, 8, samples, order=order)
        frames = Frames(EncodedFrame(str(i), data, header) for i in range(COUNT))
    header = frames[0].header()
    config = VideoEncoderConfig(vcodec="h264", crf=6)
    encoding = prepare_images(frames, header, config, fps=Fraction(10), candidates=[toolchain])
    output = tmp_path / "out.mp4"
    encode_frames(encoding, frames, header, output)
    verify_encoded(encoding, output, COUNT)
    wanted = np.repeat(picture[..., :1], 3, -1) if order == "gray" else picture
    inside = np.s_[2:-2, 2:68]  # beside the edge halved chroma and mosaics have other colours
    floor = 30 if "bayer" in order or "jpeg" in order else 36
    shown = decode(output)
    assert len(shown) == COUNT
    for frame in shown:
        assert psnr(frame[inside], wanted[inside]) > floor
    clip = Clip(output, probe(output, times=True), 0, COUNT)
    compared = compare_episode(clip, frames, header=header, candidates=[toolchain])
    assert compared.psnr_min > 28


def test_raw_pixels_of_another_number_are_refused(picture: np.ndarray, tmp_path: Path) -> None:
    header = ImageHeader("raw", 96, 64, 8, 3, order="bgr24")
    frames = Frames([EncodedFrame("row 0", picture.tobytes()[:-1], header)])
    with pytest.raises(SourceError, match="row 0: has 18,431 bytes, a 96x64 raw bgr24 image has 18,432"):
        prepare_images(frames, header, VideoEncoderConfig(vcodec="h264"), fps=Fraction(10))


@pytest.mark.parametrize("kind", ["uint16", "int16", "uint32", "int32", "float32"])
def test_depth_goes_through_a_tiff_unchanged_and_without_a_copy(kind: str) -> None:
    depth = (np.arange(63).reshape(7, 9) * 11).astype(kind)
    data = tiff_of(depth)
    header = read_header(data, "depth")
    assert (header.width, header.height, header.depth, header.unit) == (
        9,
        7,
        True,
        "m" if kind[0] == "f" else "mm",
    )
    back = raw_samples(data, header)
    assert back is not None
    assert back.dtype == depth.dtype
    assert np.array_equal(back, depth)
    assert not back.flags.owndata
    from io import BytesIO

    assert np.array_equal(np.asarray(Image.open(BytesIO(data))), depth) or kind in ("int16", "uint32")
