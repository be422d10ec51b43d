"""The report and the contact sheet of ``ffenc compare``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ffenc.errors import ConfigError
from ffenc.frames.pictures import DepthPicture
from ffenc.frames.publish import check_file_in_folder, published
from ffenc.quality.depth import NO_READING, DepthHistory
from ffenc.report.page import CHARTS, exact_picture, write_page
from ffenc.tune.compare import Against, CompareResult, pictures

_AMPLIFIED = 8  # factor for differences of colours
_AMPLIFIED_MM = 255 / 100  # levels per millimetre of depth; 100 mm and more are white
_LABEL = 18  # height of a line of text in pixels


def checked_sheet(path: str | Path, *, overwrite: bool = False) -> Path:
    """Return the path of an image that may be written.

    Raises:
        ConfigError: the name does not end in .png.
        DestinationError: the file exists, or its folder does not.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ConfigError(f"{target}: a sheet is a PNG file; choose a name that ends in .png")
    check_file_in_folder(target, overwrite=overwrite)
    return target


def write_compare_page(path: Path, found: CompareResult, fields: Mapping[str, Any]) -> None:
    """Write the report of a comparison.

    Args:
        path: the file.
        found: the result, with its sources still open.
        fields: the result as plain values; every figure of the report is one of them.
    """
    program = found.gauge.toolchain.ffmpeg
    shown = {
        name: [pair for side in sides for pair in _pairs(side, found.metric, program)]
        for name, sides in found.cameras.items()
    }
    write_page(
        path,
        title=f"Frames of {found.reference.name} and of the videos made from it",
        intro=[f"{found.reference} against {', '.join(map(str, found.others))}"],
        data={"report": fields, "pictures": shown},
        scripts=(CHARTS, "page.js", "slider.js", "compare.js"),
        foot=[
            f"Measured by FFmpeg {found.gauge.toolchain.version}, of luma, against the pixels of "
            f"{found.reference} as readers give them."
        ],
    )


def _chosen(side: Against, metric: str) -> list[tuple[str, int, int]]:
    """Return the worst and the median frame: description, episode, frame."""
    ranked, places = side.ranked(metric), side.places()
    return [("worst frame", *places[ranked[0]]), ("median frame", *places[ranked[len(ranked) // 2]])]


def _pairs(side: Against, metric: str, program: str) -> list[dict[str, Any]]:
    found = []
    for words, episode, frame in _chosen(side, metric):
        wanted, shown = _drawn(side, *pictures(side, episode, frame, program))
        found.append(
            {
                "name": f"{side.path.name}, {words}",
                "other": side.path.name,
                "about": f"episode {episode}, frame {frame}",
                "source": exact_picture(wanted),
                "shown": exact_picture(shown),
                "width": wanted.shape[1],
                "height": wanted.shape[0],
            }
        )
    return found


def _drawn(
    side: Against, wanted: npt.NDArray[Any], shown: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return both frames as colours; depth is drawn in the range of the source's frame."""
    if not side.reference.depth:
        return wanted, shown
    history = DepthHistory()
    history.add(wanted)
    known = history.suggested()
    near, far = (known.depth_min, known.depth_max) if known is not None else (0.0, 10.0)
    picture = DepthPicture(near, far, wanted.shape[0])
    return picture.colours(wanted), picture.colours(shown.astype(np.uint16))


def _difference(side: Against, wanted: npt.NDArray[Any], shown: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return the difference of two frames: equal is gray, or black for depth; ignored depth is black."""
    off = shown.astype(np.float64) - wanted
    if side.reference.depth:
        low, high = side.range
        off[(wanted >= NO_READING) | (wanted < low) | (wanted > high)] = 0
        gray = (np.abs(off) * _AMPLIFIED_MM).clip(0, 255)
        off = np.repeat(gray[..., None], 3, axis=2)
        return off.astype(np.uint8)
    amplified: npt.NDArray[np.uint8] = (128 + off * _AMPLIFIED).clip(0, 255).astype(np.uint8)
    return amplified


def write_sheet(path: Path, found: CompareResult) -> None:
    """Write one image: for each camera the worst and the median frame; the source, then each video with its
    amplified difference.

    The frames are selected by the first video of each camera, so that all videos show the same ones.

    Args:
        path: the file.
        found: the result, with its sources still open.
    """
    rows = []
    for name, sides in found.cameras.items():
        for words, episode, frame in _chosen(sides[0], found.metric):
            cells: list[tuple[str, npt.NDArray[np.uint8]]] = []
            for side in sides:
                wanted, shown = pictures(side, episode, frame, found.gauge.toolchain.ffmpeg)
                one, other = _drawn(side, wanted, shown)
                if not cells:
                    cells.append(
                        (f"{name}, episode {episode} frame {frame}, {words}: {found.reference.name}", one)
                    )
                cells.append((side.path.name, other))
                how = "0 to 100 mm" if side.reference.depth else f"x {_AMPLIFIED}"
                cells.append((f"difference {how}", _difference(side, wanted, shown)))
            rows.append(cells)
    width = max(sum(cell.shape[1] for _, cell in cells) for cells in rows)
    height = sum(max(cell.shape[0] for _, cell in cells) + 2 * _LABEL for cells in rows)
    sheet = Image.new("RGB", (width, height), (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    top = 0
    for cells in rows:
        left = 0
        draw.text((4, top + 2), cells[0][0], fill=(255, 255, 255), font=font)
        for label, cell in cells:
            if left:
                draw.text((left + 4, top + _LABEL + 2), label, fill=(200, 200, 200), font=font)
            sheet.paste(Image.fromarray(cell), (left, top + 2 * _LABEL))
            left += cell.shape[1]
        top += max(cell.shape[0] for _, cell in cells) + 2 * _LABEL
    with published(path) as temporary:
        sheet.save(temporary, "PNG")
