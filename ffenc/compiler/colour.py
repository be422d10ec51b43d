"""How colours are converted, and which tags say so."""

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
# Beginnings of the names of formats that hold RGB.
_RGB_FORMATS = ("gbr", "rgb", "bgr", "argb", "abgr", "0rgb", "0bgr", "pal", "bayer")
# A stream's colour tag -> the scale filter's name of the matrix; all others are BT.601.
_MATRICES = {
    "bt709": "bt709",
    "fcc": "fcc",
    "smpte240m": "smpte240m",
    "bt2020nc": "bt2020",
    "bt2020c": "bt2020",
}


def rgb_conversion(pix_fmt: str, color_space: str | None, color_range: str | None) -> dict[str, str]:
    """Return how a stream's samples become RGB: options of FFmpeg's scale filter.

    Without ``accurate_rnd`` and ``full_chroma_int``, because LeRobot's readers convert without them: with
    them colours beside an edge would differ from what a policy was trained on by up to 50 levels.

    Args:
        pix_fmt, color_space, color_range: as probed. What is not tagged is BT.601 of limited range, as in
            every file of LeRobot's; a range is only assumed where the pixel format leaves it open.
    """
    options = {"in_color_matrix": _MATRICES.get(color_space or "", "bt601"), "flags": "bicubic"}
    if not pix_fmt.startswith(("yuvj", *_RGB_FORMATS)):
        options["in_range"] = "pc" if color_range == "pc" else "tv"
    return options


def is_bt601(color_space: str | None) -> bool:
    """Whether samples are read by the matrix of BT.601: by their tag, or because they have none."""
    return (color_space or "") not in _MATRICES


def kept_tags(
    pix_fmt: str,
    color_space: str | None,
    color_primaries: str | None,
    color_transfer: str | None,
) -> dict[str, str]:
    """Return what a video that is re-encoded is tagged with: what it was, so that its matrix stays.

    A reader that ignores tags then shows the colours that it has shown of the source.

    Args:
        pix_fmt, color_space, color_primaries, color_transfer: as probed. What is not tagged, and all of RGB,
            is as in :data:`COLOUR_TAGS`.
    """
    if pix_fmt.startswith(_RGB_FORMATS):
        return dict(COLOUR_TAGS)
    return {
        "range": COLOUR_TAGS["range"],
        "colorspace": color_space or COLOUR_TAGS["colorspace"],
        "color_primaries": color_primaries or COLOUR_TAGS["color_primaries"],
        "color_trc": color_transfer or COLOUR_TAGS["color_trc"],
    }
