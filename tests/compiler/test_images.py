"""Frames are written as numbered images, to the last bit, on both FFmpegs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffenc.compiler.frames import FrameFormat, SampleTap
from ffenc.compiler.images import compile_images
from ffenc.errors import ConfigError
from ffenc.ffmpeg.process import run_fed
from ffenc.ffmpeg.toolchain import Toolchain

WIDTH, HEIGHT, FRAMES = 256, 256, 3


def frame(frames: FrameFormat, i: int) -> np.ndarray:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    if frames == "gray16le":
        return (y * WIDTH + x + i).astype("<u2")  # every value there is
    return np.stack([x, y, (x + y * 3 + i) % 256], -1).astype(np.uint8)


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


@pytest.mark.parametrize("frames", ["rgb24", "gray16le", "jpeg"])
def test_every_sample_comes_back_from_a_folder_of_any_name(
    toolchain: Toolchain, tmp_path: Path, frames: FrameFormat
) -> None:
    folder = tmp_path / "it's 100%d"
    folder.mkdir()
    source = [frame(frames, i) for i in range(FRAMES)]
    samples = bytearray()
    command = compile_images(
        width=WIDTH,
        height=HEIGHT,
        frames=frames,
        output=f"{folder}/frame-%06d.png",
        fps="30000/1001",
        encoder_threads=1,
        tap=SampleTap(2, 8, 4) if frames != "gray16le" else None,
        program=toolchain.ffmpeg,
    )
    pieces = [jpeg(pixels) if frames == "jpeg" else pixels.tobytes() for pixels in source]
    run_fed(command, pieces, on_output=samples.extend)
    assert sorted(path.name for path in folder.iterdir()) == [f"frame-{i:06d}.png" for i in range(FRAMES)]
    for path, pixels, piece in zip(sorted(folder.iterdir()), source, pieces, strict=True):
        with Image.open(path) as image:
            assert image.mode == ("I;16" if frames == "gray16le" else "RGB")
            read = np.asarray(image)
        if frames == "jpeg":  # decoders round differently
            decoded = np.asarray(Image.open(io.BytesIO(piece))).astype(int)
            assert abs(read.astype(int) - decoded).max() <= 3
        else:
            assert np.array_equal(read, pixels)
    assert len(samples) == (0 if frames == "gray16le" else 2 * 8 * 4 * 3)


def test_what_a_png_cannot_hold_as_it_is_is_refused() -> None:
    common = {"output": "a/%06d.png", "fps": 30}
    with pytest.raises(ConfigError, match="frames='gray12le' cannot be written as images"):
        compile_images(width=8, height=8, frames="gray12le", **common)
    with pytest.raises(ConfigError, match="0x8 is not a frame size"):
        compile_images(width=0, height=8, frames="rgb24", **common)
