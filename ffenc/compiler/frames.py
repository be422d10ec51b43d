"""How frames are passed to FFmpeg: pixel formats, excerpts of a file, samples."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal, get_args

from msgspec import Struct

from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.framerate import Pick

# Formats of frames in the pipe: encoded images, or raw pixels. gray12le and gray16le are depth. In the
# formats that end in -bgr, red and blue were swapped before encoding, as OpenCV does with RGB.
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
    """Return whether frames of a format are depth: codes or millimetres, stored unchanged."""
    return frames in _DEPTH


def is_encoded(frames: FrameFormat) -> bool:
    """Return whether frames of a format are encoded images, not raw pixels."""
    return frames.startswith(("png", "jpeg"))


class SampleTap(Struct, frozen=True):
    """A second, small output of the same process: every ``step``-th frame, shrunk, as raw rgb24 on stdout.

    Attributes:
        step: distance of the sampled frames, 1 or more.
        width, height: size of a sample in pixels.
    """

    step: int
    width: int
    height: int


class Excerpt(Struct, frozen=True):
    """Frames of a stream, selected by their times, so that no seek can give others.

    Attributes:
        spans: first and last tick of each series of frames, both included, ascending.
        frames: total number of frames; the program ends after them.
        seek: in seconds; decoding starts at the last key frame up to this time. None: at the start of the
            file.
        rate: frames per second of an elementary stream, whose frames have no times: frame i is at tick i.
            None: the file has times.
        pick: selects among the frames of the series; None: all.
    """

    spans: tuple[tuple[int, int], ...]
    frames: int
    seek: Fraction | None = None
    rate: Fraction | None = None
    pick: Pick | None = None


def raw_format(config: VideoEncoderConfig) -> FrameFormat:
    """Return the format of a camera's raw frames for its encoder: colours, or depth as codes or mm."""
    if not isinstance(config, DepthEncoderConfig):
        return "rgb24"
    return "gray16le" if config.pix_fmt == "gray16le" else "gray12le"
