"""What an encoded image says of itself."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from ffenc.errors import SourceError

ImageFormat = Literal["png", "jpeg", "tiff", "raw"]
SampleKind = Literal["unsigned", "signed", "float"]
HEADER_BYTES = 33  # a PNG's signature and first chunk
MAX_SIDE = 16384  # the largest that the encoders take
MAX_PIXELS = 1 << 26  # 8192x8192: 200 MB of RGB
MAX_FILE_BYTES = 1 << 29  # of one image: such a one, of 16 bits with alpha, not compressed at all


class ImageHeader(Struct, frozen=True):
    """The shape of an image, encoded or raw.

    Attributes:
        format: ``png`` or ``jpeg``; ``tiff``, which only depth maps are kept as; ``raw``: not encoded.
        width, height: pixels.
        bits: of one sample.
        channels: samples a pixel has; 2 and 4 include alpha.
        samples: what numbers they are: only those of a TIFF can be signed or floats.
        order: of raw pixels, FFmpeg's name of their format; of an encoded image, ``bgr`` where red and blue
            were swapped when it was encoded.
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
        """Whether it is a depth map, which robot data keep as TIFF or with 16 bits."""
        return self.format == "tiff" or self.bits == 16

    @property
    def unit(self) -> Literal["mm", "m"]:
        """What depth is in where nothing says so: floats are metres, integers millimetres."""
        return "m" if self.samples == "float" else "mm"

    @property
    def raw_bytes(self) -> int:
        """How many bytes its pixels take; rows follow each other without padding."""
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
    """Return the error that a file holds more than one image."""
    return SourceError(f"{name}: holds more than one image ({why}); each frame has to be a separate file")
