"""Colour conversions, and the colour tags that describe them."""

from __future__ import annotations

# RGB is converted with BT.601 at every size: it is what LeRobot's readers undo, and the tags say so to
# players, which would otherwise guess BT.709 for HD. Cameras deliver BT.709/sRGB primaries and transfer.
RGB_TO_YUV = {"out_color_matrix": "bt601", "out_range": "tv", "flags": "bicubic"}
COLOUR_TAGS = {
    "range": "tv",
    "colorspace": "smpte170m",
    "color_primaries": "bt709",
    "color_trc": "bt709",
}
# Prefixes of the names of pixel formats that hold RGB.
_RGB_FORMATS = ("gbr", "rgb", "bgr", "argb", "abgr", "0rgb", "0bgr", "pal", "bayer")
# Colour space tag -> the scale filter's name of the matrix; all other tags select BT.601.
_MATRICES = {
    "bt709": "bt709",
    "fcc": "fcc",
    "smpte240m": "smpte240m",
    "bt2020nc": "bt2020",
    "bt2020c": "bt2020",
}


def rgb_conversion(pix_fmt: str, color_space: str | None, color_range: str | None) -> dict[str, str]:
    """Return the options of FFmpeg's scale filter that convert a stream's samples to RGB.

    ``accurate_rnd`` and ``full_chroma_int`` are not set, because LeRobot's readers convert without them: with
    these flags, colours beside an edge would differ by up to 50 levels from those that a policy was trained
    on.

    Args:
        pix_fmt, color_space, color_range: as probed. Untagged streams are BT.601 with limited range, as in
            all files of LeRobot; the range is assumed only if the pixel format does not determine it.
    """
    options = {"in_color_matrix": _MATRICES.get(color_space or "", "bt601"), "flags": "bicubic"}
    if not pix_fmt.startswith(("yuvj", *_RGB_FORMATS)):
        options["in_range"] = "pc" if color_range == "pc" else "tv"
    return options


def is_bt601(color_space: str | None) -> bool:
    """Return whether samples are converted with the BT.601 matrix, because of their tag or without a tag."""
    return (color_space or "") not in _MATRICES


def kept_tags(
    pix_fmt: str,
    color_space: str | None,
    color_primaries: str | None,
    color_transfer: str | None,
) -> dict[str, str]:
    """Return the colour tags of a re-encoded video: those of the source, so that its matrix stays valid.

    A reader that ignores tags then shows the same colours as for the source.

    Args:
        pix_fmt, color_space, color_primaries, color_transfer: as probed. Missing tags, and all tags of RGB,
            become those of :data:`COLOUR_TAGS`.
    """
    if pix_fmt.startswith(_RGB_FORMATS):
        return dict(COLOUR_TAGS)
    return {
        "range": COLOUR_TAGS["range"],
        "colorspace": color_space or COLOUR_TAGS["colorspace"],
        "color_primaries": color_primaries or COLOUR_TAGS["color_primaries"],
        "color_trc": color_transfer or COLOUR_TAGS["color_trc"],
    }
