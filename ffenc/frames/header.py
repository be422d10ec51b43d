"""The header of an encoded image."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from ffenc.errors import SourceError

ImageFormat = Literal["png", "jpeg", "tiff", "raw"]
SampleKind = Literal["unsigned", "signed", "float"]
HEADER_BYTES = 33  # a PNG's signature and first chunk
MAX_SIDE = 16384  # limit of the encoders
MAX_PIXELS = 1 << 26  # 8192x8192: 200 MB of RGB
MAX_FILE_BYTES = 1 << 29  # of one image: MAX_PIXELS of 16 bits with alpha, without compression


class ImageHeader(Struct, frozen=True):
    """Size and kind of an image, encoded or raw.

    Attributes:
        format: ``png`` or ``jpeg``; ``tiff``, only for depth maps; ``raw``: not encoded.
        width, height: size in pixels.
        bits: bit depth of a sample.
        channels: samples per pixel; 2 and 4 include alpha.
        samples: number type; only those of a TIFF can be signed or floats.
        order: for raw pixels, FFmpeg's name of their format; for an encoded image, ``bgr`` if red and blue
            were swapped before encoding.
    """

    format: ImageFormat
    width: int
    height: int
    bits: int
    channels: int
    samples: SampleKind = "unsigned"
    order: str = ""

    @property
    def depth(self) -> bool:
        """Whether it is a depth map: TIFF, or an image with 16 bits per sample."""
        return self.format == "tiff" or self.bits == 16

    @property
    def unit(self) -> Literal["mm", "m"]:
        """Unit of depth if none is specified: floats are metres, integers millimetres."""
        return "m" if self.samples == "float" else "mm"

    @property
    def raw_bytes(self) -> int:
        """Size of its pixels in bytes, with rows that are not padded."""
        return self.width * self.height * self.channels * self.bits // 8

    @property
    def has_alpha(self) -> bool:
        return self.channels in (2, 4) and self.format == "png"

    def __str__(self) -> str:
        kind = "" if self.samples == "unsigned" else f" {self.samples}"
        if self.format == "raw":
            return f"{self.width}x{self.height} raw {self.order}"
        return f"{self.width}x{self.height} {self.bits}-bit{kind} {self.format.upper()}"


def several(name: str, why: str) -> SourceError:
    """Return the error for a file that contains more than one image."""
    return SourceError(f"{name}: holds more than one image ({why}); each frame has to be a separate file")
