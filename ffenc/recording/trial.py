"""Trial frames for an encoder, before a recording starts."""

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
    """Return the encoding of a camera whose frames stay images, without a trial of an encoder."""
    config = config.resolve(auto_fallback(config.pix_fmt))
    return Encoding(config, *size, fps, frames, None, toolchain)


def trial_frames(width: int, height: int, frames: FrameFormat) -> list[bytes]:
    """Return frames for the trial of an encoder."""
    if frames not in ("png", "jpeg"):
        return list(pattern_frames(width, height, frames)[:2])
    from PIL import Image  # noqa: PLC0415 - only needed for images

    images = []
    for data in islice(pattern_frames(width, height, "rgb24"), 2):
        image = io.BytesIO()
        Image.frombytes("RGB", (width, height), data).save(image, format=frames)
        images.append(image.getvalue())
    return images
