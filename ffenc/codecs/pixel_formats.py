"""The supported pixel formats of video, with the facts that an encode depends on."""

from __future__ import annotations

import re

from msgspec import Struct

from ffenc.codecs.suggest import accepted
from ffenc.errors import ConfigError

_YUV_SUBSAMPLING = {"444": (1, 1), "440": (1, 2), "422": (2, 1), "420": (2, 2)}


class PixelFormat(Struct, frozen=True):
    """One FFmpeg pixel format.

    Attributes:
        name: FFmpeg's name.
        channels: number of components per pixel (1 gray, 3 colour).
        bits: bit depth of a component.
        x_step, y_step: width and height must be multiples of these (chroma subsampling).
        rgb: components are red, green and blue; there is no YUV matrix.
        interleaved_of: planar format that ffprobe reports for it after encoding.
        padded_of: format without its unused component, whose value encoders do not keep.
    """

    name: str
    channels: int
    bits: int
    x_step: int = 1
    y_step: int = 1
    rgb: bool = False
    interleaved_of: str | None = None
    padded_of: str | None = None

    @property
    def stored(self) -> str:
        return self.interleaved_of or self.name

    @property
    def compared(self) -> str:
        """Format in which decoded samples are compared with those that were sent."""
        return self.padded_of or self.stored


def _formats() -> dict[str, PixelFormat]:
    formats = [
        PixelFormat("nv12", 3, 8, 2, 2, interleaved_of="yuv420p"),
        PixelFormat("p010le", 3, 10, 2, 2, interleaved_of="yuv420p10le"),
    ]
    for bits in (8, 10, 12):
        depth = "" if bits == 8 else f"{bits}le"
        for name, (x, y) in _YUV_SUBSAMPLING.items():
            formats.append(PixelFormat(f"yuv{name}p{depth}", 3, bits, x, y))
        formats.append(PixelFormat(f"gbrp{depth}", 3, bits, rgb=True))
        formats.append(PixelFormat(f"gray{depth}", 1, bits))
    formats += [PixelFormat("gray16le", 1, 16), PixelFormat("bgr0", 3, 8, rgb=True, padded_of="gbrp")]
    return {f.name: f for f in formats}


PIXEL_FORMATS = _formats()


def pixel_format(name: str) -> PixelFormat:
    """Return a pixel format by FFmpeg's name.

    Raises:
        ConfigError: the format is not supported; the text lists the supported ones.
    """
    if name in PIXEL_FORMATS:
        return PIXEL_FORMATS[name]
    if re.fullmatch(r"yuvj4\d\dp", name):
        raise ConfigError(
            f"{name!r}: the yuvj formats are deprecated in FFmpeg and LeRobot reads limited range; "
            f"use {name.replace('j', '')!r}",
            where="pix_fmt",
        )
    raise ConfigError(f"{name!r} is not known{accepted(name, sorted(PIXEL_FORMATS))}", where="pix_fmt")
