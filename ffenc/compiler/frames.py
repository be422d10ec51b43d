"""What frames are, as FFmpeg is given them: formats, pieces of a file, samples that are taken."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal, get_args

from msgspec import Struct

from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.framerate import Pick

# How frames come through the pipe: encoded images as they are, or raw pixels. gray12le and gray16le are
# depth. In images that end in -bgr red and blue were swapped when they were encoded, as by OpenCV from RGB.
FrameFormat = Literal[
    "png",
    "jpeg",
    "rgb24",
    "png-bgr",
    "jpeg-bgr",
    "bgr24",
    "rgba",
    "bgra",
    "gray",
    "yuyv422",
    "uyvy422",
    "bayer_rggb8",
    "bayer_bggr8",
    "bayer_gbrg8",
    "bayer_grbg8",
    "gray12le",
    "gray16le",
]
FRAME_FORMATS: tuple[FrameFormat, ...] = get_args(FrameFormat)
_DEPTH = ("gray12le", "gray16le")


def is_depth(frames: FrameFormat) -> bool:
    """Whether frames of a format are depth: codes or millimetres, to be stored as they are."""
    return frames in _DEPTH


def is_encoded(frames: FrameFormat) -> bool:
    """Whether frames of a format are encoded images, not raw pixels."""
    return frames.startswith(("png", "jpeg"))


class SampleTap(Struct, frozen=True):
    """A second, small output of the same process: every ``step``-th frame, shrunk, as raw rgb24 on stdout.

    Attributes:
        step: 1 or more.
        width, height: size of a sample in pixels.
    """

    step: int
    width: int
    height: int


class Excerpt(Struct, frozen=True):
    """Some of a stream's frames, chosen by their times, so that no seek can give others.

    Attributes:
        spans: first and last tick of each series of frames, both included, ascending.
        frames: how many frames that is; the program ends after them.
        seek: seconds; the file is entered at the last key frame until there. None: at its start.
        rate: frames a second of a stream without a container, whose frames have no times: they are counted,
            and frame i is at tick i. None: the file has times.
        pick: which frames of the series are taken; None: all.
    """

    spans: tuple[tuple[int, int], ...]
    frames: int
    seek: Fraction | None = None
    rate: Fraction | None = None
    pick: Pick | None = None


def raw_format(config: VideoEncoderConfig) -> FrameFormat:
    """Return how a camera's raw frames go to its encoder: colours, or depth as codes or millimetres."""
    if not isinstance(config, DepthEncoderConfig):
        return "rgb24"
    return "gray16le" if config.pix_fmt == "gray16le" else "gray12le"
