"""What an encoder is tried with before a recording begins."""

from __future__ import annotations

import io
from fractions import Fraction
from itertools import islice

from ffenc.codecs.table import auto_fallback
from ffenc.compiler.frames import FrameFormat
from ffenc.config.encoder import VideoEncoderConfig
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.encoding import Encoding
from ffenc.frames.pattern import pattern_frames


def untried(
    config: VideoEncoderConfig,
    size: tuple[int, int],
    fps: Fraction,
    frames: FrameFormat,
    toolchain: Toolchain,
) -> Encoding:
    """How a camera would be encoded whose frames stay images: no encoder has to be able to."""
    config = config.resolve(auto_fallback(config.pix_fmt))
    return Encoding(config, *size, fps, frames, None, toolchain)


def trial_frames(width: int, height: int, frames: FrameFormat) -> list[bytes]:
    """Frames to try an encoder with."""
    if frames not in ("png", "jpeg"):
        return list(pattern_frames(width, height, frames)[:2])
    from PIL import Image  # noqa: PLC0415 - only where frames are images

    images = []
    for data in islice(pattern_frames(width, height, "rgb24"), 2):
        image = io.BytesIO()
        Image.frombytes("RGB", (width, height), data).save(image, format=frames)
        images.append(image.getvalue())
    return images
