"""Changes of a camera's frames before encoding: crop, rotate, flip, scale, pad."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Struct

from ffenc.config.limits import MOST_PIXELS
from ffenc.config.validation import Flag, SettingError, Settings, accepts
from ffenc.errors import ConfigError

# re.ASCII: \d is 0 to 9, not also the digits of other scripts.
_SIZE = re.compile(r"(\d{1,6})x(\d{1,6})", re.ASCII)
_CROP = re.compile(r"(\d{1,6})x(\d{1,6})\+(\d{1,6})\+(\d{1,6})", re.ASCII)


class Geometry(Struct, frozen=True):
    """A transform of frames of one size, step by step; a step that is None is not applied.

    Attributes:
        crop: x, y, width and height of the part that is kept.
        rotate: degrees clockwise, 0, 90, 180 or 270.
        flip: ``""``, or ``h``, ``v`` or ``hv``.
        scale: width and height after scaling.
        pad: width and height after padding, and x and y of the picture in it.
        width, height: size of the result.
    """

    crop: tuple[int, int, int, int] | None
    rotate: int
    flip: str
    scale: tuple[int, int] | None
    pad: tuple[int, int, int, int] | None
    width: int
    height: int

    @property
    def changes(self) -> bool:
        """Whether the transform changes any frame."""
        return bool(self.crop or self.rotate or self.flip or self.scale or self.pad)


class Transform(Settings, frozen=True, kw_only=True):
    """Changes of a camera's frames, applied in this order: crop, rotate, flip, resize, pad.

    Attributes:
        crop: x and y of the upper left corner, width and height, in pixels; as a text ``480x480+80+0``
            (width, height, x, y).
        rotate: degrees clockwise: 0, 90, 180 or 270.
        flip: ``h`` swaps left and right, ``v`` top and bottom, ``hv`` both.
        resize: width and height in pixels; as a text ``320x240``. Colours are scaled with FFmpeg's bicubic
            scaler, depth with the nearest pixel.
        pad: with ``resize``: keep the aspect ratio, and fill the rest with black (for depth: with pixels
            without depth). Without ``resize``: add a black column or row if the size is odd.

    Raises:
        ConfigError: a value that is not accepted, or a transform that changes nothing.
    """

    crop: Annotated[
        tuple[int, int, int, int] | None,
        accepts("[x, y, width, height] in pixels, or a text such as 480x480+80+0"),
    ] = None
    rotate: Annotated[Literal[0, 90, 180, 270], accepts("0, 90, 180 or 270 degrees clockwise")] = 0
    flip: Annotated[Literal["h", "v", "hv"] | None, accepts("'h', 'v', 'hv' or null")] = None
    resize: Annotated[
        tuple[int, int] | None, accepts("[width, height] in pixels, or a text such as 320x240")
    ] = None
    pad: Flag = False

    @classmethod
    def _prepared(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        read = dict(values)
        crop, size = read.get("crop"), read.get("resize")
        if isinstance(crop, str) and (found := _CROP.fullmatch(crop)):
            width, height, x, y = map(int, found.groups())
            read["crop"] = x, y, width, height
        if isinstance(size, str) and (found := _SIZE.fullmatch(size)):
            read["resize"] = tuple(map(int, found.groups()))
        return read

    def _check(self) -> None:
        crop, size = self.crop, self.resize
        if crop is not None and (min(crop[:2]) < 0 or min(crop[2:]) < 1):
            raise SettingError(
                ("crop",), f"{list(crop)} is not accepted; x and y are 0 or more, the size 1 or more"
            )
        if size is not None and not (min(size) >= 1 and max(size) <= MOST_PIXELS):
            raise SettingError(
                ("resize",), f"{list(size)} is not accepted", expected=f"1 to {MOST_PIXELS} pixels a side"
            )
        if not (self.crop or self.rotate or self.flip or self.resize or self.pad):
            raise ConfigError("changes nothing", expected="one of crop, rotate, flip, resize, pad")

    @classmethod
    def from_block(cls, block: Mapping[str, Any]) -> Transform | None:
        """Return the transform that a camera's ``info`` block records; None if it has none.

        Raises:
            ConfigError: the recorded transform is invalid.
        """
        found = block.get("video.transform")
        if found is None:
            return None
        if not isinstance(found, Mapping):
            raise ConfigError(f"video.transform is {found!r}", expected="a mapping")
        return cls(**found)

    def fields(self) -> dict[str, Any]:
        """Return the fields that are set, as plain values."""
        values = {
            "crop": None if self.crop is None else list(self.crop),
            "rotate": self.rotate,
            "flip": self.flip,
            "resize": None if self.resize is None else list(self.resize),
            "pad": self.pad,
        }
        return {name: value for name, value in values.items() if value}

    def __str__(self) -> str:
        parts = []
        if self.crop is not None:
            x, y, width, height = self.crop
            parts.append(f"crop {width}x{height}+{x}+{y}")
        parts += [f"rotate {self.rotate}"] if self.rotate else []
        parts += [f"flip {self.flip}"] if self.flip else []
        parts += [f"resize {self.resize[0]}x{self.resize[1]}"] if self.resize else []
        return ", ".join([*parts, *(["pad"] if self.pad else [])])

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of transformed frames; raises as :meth:`of`."""
        geometry = self.of(width, height)
        return geometry.width, geometry.height

    def of(self, width: int, height: int) -> Geometry:
        """Return the steps for frames of a size.

        Args:
            width, height: size of the frames, in pixels.

        Raises:
            ConfigError: the crop is not inside the frame.
        """
        crop = self.crop
        if crop is not None:
            x, y, own_width, own_height = crop
            if x + own_width > width or y + own_height > height:
                raise ConfigError(
                    f"crop {own_width}x{own_height}+{x}+{y} does not lie within frames of {width}x{height}"
                )
            crop = None if (own_width, own_height) == (width, height) else crop
            width, height = own_width, own_height
        if self.rotate in (90, 270):
            width, height = height, width
        scale, pad = None, None
        if self.resize is not None:
            wanted = self.resize
            inner = _fitted(width, height, wanted) if self.pad else wanted
            scale = None if inner == (width, height) else inner
            width, height = wanted
            if inner != wanted:
                # An even position, so that subsampled chroma planes fit.
                pad = (width, height, _even((width - inner[0]) // 2), _even((height - inner[1]) // 2))
        elif self.pad and (width % 2 or height % 2):
            width, height = width + width % 2, height + height % 2
            pad = (width, height, 0, 0)
        return Geometry(crop, self.rotate, self.flip or "", scale, pad, width, height)


def _even(number: int) -> int:
    return number - number % 2


def _fitted(width: int, height: int, wanted: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size of the same aspect ratio inside another, even unless the other is odd."""
    if width * wanted[1] >= height * wanted[0]:  # limited by the width
        return wanted[0], min(wanted[1], max(2, _even(round(height * wanted[0] / width))))
    return min(wanted[0], max(2, _even(round(width * wanted[1] / height)))), wanted[1]
