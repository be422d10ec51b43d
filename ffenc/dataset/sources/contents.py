"""The contents of a source that is not a dataset: arrays or topics, a suggested mapping, first frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from ffenc.arguments import checked_path
from ffenc.compiler.command import compile_pictures
from ffenc.config.framerate import parse_fps
from ffenc.config.mapping import SourceMapping, as_mapping, build_mapping
from ffenc.dataset.model import Camera
from ffenc.dataset.remote import source_path
from ffenc.errors import ConfigError, DestinationError, FfencError
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.frames.depth_images import millimetres, read_depth
from ffenc.frames.encode import fed_format
from ffenc.frames.header import ImageHeader
from ffenc.frames.images import whole_image
from ffenc.frames.pictures import rgb_pictures
from ffenc.frames.publish import published
from ffenc.frames.sources import EncodedFrame
from ffenc.spelling import argument

if TYPE_CHECKING:
    from ffenc.dataset.sources.kind import SourceKind

_TILE = 320  # greatest width of an image in a contact sheet, in pixels
_MARGIN, _LINE = 8, 18
_COLUMNS = 4


class Held(Struct, frozen=True):
    """An array, or the messages of a topic.

    Attributes:
        name: path of the array, or name of the topic.
        kind: type and shape of its values, or type of its messages.
        count: number of rows or messages.
        bytes: their size in the file.
        rate: average messages per second; None: rows have no times.
        notes: remarks, such as gaps.
    """

    name: str
    kind: str
    count: int
    bytes: int
    rate: float | None = None
    notes: str = ""


class Contents(Struct):
    """The contents of a source.

    Attributes:
        path: path of the inspected file.
        what: the kind of source.
        layout: name of its layout, if it is known.
        held: its arrays or topics.
        mapping: a suggested mapping, as plain values.
        remarks: what has to be checked before the mapping is used.
        files: number of such files in the folder.
    """

    path: Path
    what: str
    layout: str | None
    held: list[Held]
    mapping: dict[str, Any]
    remarks: list[str] = field(default_factory=list)
    files: int = 1

    @property
    def fault(self) -> str | None:
        """Why the mapping cannot be used unchanged; None if it can."""
        try:
            build_mapping(self.mapping)
        except FfencError as error:
            return str(error)
        return None

    def yaml(self) -> str:
        """Return the mapping as YAML, with the remarks as comments."""
        import yaml  # noqa: PLC0415 - slow to load

        head = [f"# {self.path.name}: {self.what}" + (f", layout of {self.layout}" if self.layout else "")]
        head += [f"# {remark}" for remark in self.remarks]
        if "fps" not in self.mapping:
            head.append(
                f"# fps: 30    the file does not say its frame rate: write it here, or pass {argument('fps')}"
            )
        if "task" not in self.mapping:
            head.append(
                f"# task: ...  the file does not say its task: write it here, or pass {argument('task')}"
            )
        text = yaml.safe_dump(self.mapping, sort_keys=False, allow_unicode=True, default_flow_style=None)
        # A name in the file may contain a line break, which would end the comment.
        return "\n".join(" ".join(line.splitlines()) for line in head) + "\n" + text


def inspect_source(path: str | Path) -> Contents:
    """Return the contents of a source that is not a dataset, with a suggested mapping.

    Args:
        path: a file, or a folder of files, of which the first is inspected; or an address of either.

    Raises:
        SourceError: it is damaged, or not a supported kind.
        ConfigError: it is a dataset or a tree of images, or the library that reads it is not installed.
    """
    from ffenc.dataset.sources.registry import kind_of, kinds  # noqa: PLC0415 - it knows the kinds, which know this

    place = source_path(path, "everything", "path")
    kind = kind_of(place)
    if kind.look is None:
        several = ", ".join(one.several for one in kinds() if one.look is not None)
        raise ConfigError(
            f"{place} is {kind.what}; ffenc inspect is for {several}; use ffenc info for datasets"
        )
    return kind.look(place)


def write_mapping(contents: Contents, path: str | Path) -> None:
    """Write the suggested mapping to a YAML file.

    Raises:
        DestinationError: the file exists, or cannot be written.
    """
    target = Path(path)
    if target.exists():
        raise DestinationError(f"{target} exists; choose another name, or delete it")
    if not target.parent.is_dir():
        raise DestinationError(f"{target.parent} is not a folder; create it first")
    with published(target) as temporary:
        temporary.write_text(contents.yaml(), encoding="utf-8")


def contact_sheet(
    path: str | Path,
    output: str | Path,
    *,
    mapping: str | Path | SourceMapping | None = None,
    contents: Contents | None = None,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
) -> list[str]:
    """Write a PNG with the first frame of each camera, with the colours of a mapping.

    Args:
        path: the source.
        output: the file to write.
        mapping: the mapping of its cameras; None: the suggested one.
        contents: result of :func:`inspect_source`; None: the source is inspected here.
        ffmpeg, ffprobe: programs to use instead of those that are found.

    Returns:
        The cameras that cannot be shown, each with the reason.

    Raises:
        SourceError, ConfigError: as for :func:`inspect_source`, or no camera can be shown.
        DestinationError: the file exists, or cannot be written.
    """
    from ffenc.dataset.sources.registry import kind_of  # noqa: PLC0415 - it knows the kinds, which know this

    target = checked_path("output", output)
    mapping = as_mapping(mapping)
    place = source_path(path, "everything", "path")
    if target.suffix.lower() != ".png":
        raise ConfigError(f"{target}: a contact sheet is a PNG file; give a name that ends in .png")
    if target.exists() or not target.parent.is_dir():
        why = (
            "exists; choose another name"
            if target.exists()
            else "cannot be written: its folder does not exist"
        )
        raise DestinationError(f"{target} {why}")
    if mapping is None:
        mapping = build_mapping((contents or inspect_source(place)).mapping)
    programs = toolchains(ffmpeg, ffprobe)[0]
    kind, shown, faults = kind_of(place), [], []
    for name, camera in mapping.cameras.items():
        alone = mapping.replace(cameras={name: camera}, features={}, task=None)
        try:
            shown.append((name, *_first_picture(place, kind, alone, programs)))
        except FfencError as error:
            faults.append(f"{name}: {error.cause}")
    if not shown:
        raise ConfigError("no camera can be shown: " + "; ".join(faults))
    from PIL import Image  # noqa: PLC0415 - only needed to draw

    with published(target) as temporary:
        Image.fromarray(_sheet(shown)).save(temporary, "PNG")
    return faults


def _first_picture(
    path: Path, kind: SourceKind, mapping: SourceMapping, programs: Toolchain
) -> tuple[str, npt.NDArray[np.uint8]]:
    """Return a description of the first frame of the mapping's single camera, and the frame as RGB."""
    from ffenc.dataset.sources.kind import Opening  # noqa: PLC0415 - which knows this

    named = programs.ffmpeg, programs.ffprobe
    source = kind.open(path, Opening(usual_fps=30, mapping=mapping, programs=named))
    camera = source.cameras[0]
    frame = next(iter(source.frames(camera.key, source.episodes[0])))
    what = str(camera.stored) if isinstance(camera.stored, ImageHeader) else f"{camera.stored.codec} video"
    return what + (" depth" if camera.depth else ""), as_picture(frame, camera, programs.ffmpeg)


def as_picture(frame: EncodedFrame, camera: Camera, program: str) -> npt.NDArray[np.uint8]:
    """Return an image for display: RGB, ``(H, W, 3)``; depth from near (light) to far (dark).

    Args:
        frame: the image.
        camera: its camera.
        program: the ffmpeg.

    Raises:
        SourceError, FfmpegError: it is damaged.
    """
    header = frame.header()
    if header.depth:
        depth = millimetres(read_depth(frame), camera.unit).astype(np.float64)
        there = depth[depth > 0]
        low, high = np.percentile(there, (1, 99)) if there.size else (0.0, 1.0)
        light = 255 - np.clip((depth - low) / max(high - low, 1), 0, 1) * 200
        gray = np.where(depth > 0, light, 0).astype(np.uint8)
        return np.repeat(gray[..., None], 3, -1)
    command = compile_pictures(fed_format(header), header.width, header.height, program=program)
    image = whole_image(frame.data, header, frame.name)
    picture: npt.NDArray[np.uint8]
    [picture] = rgb_pictures(command, [image], 1, width=header.width, height=header.height)
    return picture


def _sheet(shown: Sequence[tuple[str, str, npt.NDArray[np.uint8]]]) -> npt.NDArray[np.uint8]:
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - only needed to draw

    tiles = []
    for name, what, picture in shown:
        image = Image.fromarray(picture)
        image.thumbnail((_TILE, _TILE))
        tiles.append((f"{name}: {what}", image))
    columns = min(_COLUMNS, len(tiles))
    rows = [tiles[at : at + columns] for at in range(0, len(tiles), columns)]
    heights = [max(image.height for _, image in row) + _LINE + _MARGIN for row in rows]
    sheet = Image.new("RGB", (columns * (_TILE + _MARGIN) + _MARGIN, sum(heights) + _MARGIN), (32, 32, 32))
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(12), _MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, (text, image) in enumerate(row):
            left = _MARGIN + column * (_TILE + _MARGIN)
            draw.text((left, top), text[:52], fill=(230, 230, 230), font=font)
            sheet.paste(image, (left, top + _LINE))
        top += height
    return np.asarray(sheet)


def rate_of(value: Any) -> int | float | None:
    """Return a frame rate found in a file, as for a mapping; None if it is not a valid rate."""
    try:
        rate = parse_fps(float(value))
    except (TypeError, ValueError, ConfigError):
        return None
    return int(rate) if rate.denominator == 1 else float(rate)
