"""Sources of frames: encoded images in order, from a folder or from a parquet column."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct
from msgspec.structs import replace

from ffenc.errors import FfencWarning, SourceError
from ffenc.frames.header import HEADER_BYTES, MAX_FILE_BYTES, ImageHeader
from ffenc.frames.images import has_end, read_header, require_alike, whole_image
from ffenc.frames.png import is_png
from ffenc.paths import open_regular, read_bytes
from ffenc.spelling import argument
from ffenc.storage.mirror import version_of

if TYPE_CHECKING:
    from typing_extensions import Self

    from ffenc.ffmpeg.toolchain import Toolchain

IMAGE_SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".tif": "tiff", ".tiff": "tiff"}
# Images that are not supported, which must not be ignored silently.
OTHER_SUFFIXES = (".bmp", ".webp", ".gif", ".ppm", ".pgm", ".exr", ".npy")


class EncodedFrame(Struct, frozen=True):
    """An image as it was stored.

    Attributes:
        name: name of the image for errors: a path, or dataset, row and column.
        data: PNG, JPEG or TIFF bytes, or raw pixels.
        raw: header of raw pixels; None for encoded images, which contain it.
        order: see :class:`~ffenc.frames.header.ImageHeader`.
    """

    name: str
    data: bytes
    raw: ImageHeader | None = None
    order: str = ""

    def header(self) -> ImageHeader:
        """Return the header of the image.

        Raises:
            SourceError: as for :func:`~ffenc.frames.images.read_header`.
        """
        if self.raw is not None:
            return self.raw
        found = read_header(self.data, self.name)
        return replace(found, order=self.order) if self.order else found


class FrameSource(Protocol):
    """A known number of images in order."""

    def __len__(self) -> int:
        """Return the number of frames."""

    def __iter__(self) -> Iterator[EncodedFrame]:
        """Yield the frames in order; each is read on demand."""

    def fingerprint(self) -> str:
        """Return a text that changes when the source's files change."""


def using(frames: FrameSource, programs: Toolchain) -> FrameSource:
    """Return a frame source for a machine with the same programs at other paths, if it uses them."""
    own: Callable[[Toolchain], FrameSource] | None = getattr(frames, "using", None)
    return frames if own is None else own(programs)


class ReadAhead:
    """A frame source whose first frame is read before the others are asked for.

    The first frame takes longest: a file is opened, and of an episode in a table, a page is decompressed.
    Leaving the block closes the file if the others were not asked for.

    Args:
        frames: the frames.
    """

    def __init__(self, frames: FrameSource) -> None:
        self._frames = frames
        rest = iter(frames)
        self._begun: Iterator[EncodedFrame] | None = chain(list(islice(rest, 1)), rest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._begun = None

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[EncodedFrame]:
        begun, self._begun = self._begun, None
        return iter(self._frames) if begun is None else begun

    def fingerprint(self) -> str:
        return self._frames.fingerprint()


def files_fingerprint(paths: Iterable[Path]) -> str:
    """Return a text that changes with the paths, and when a file is written to.

    Raises:
        SourceError: a file is missing.
    """
    digest = hashlib.sha256()
    for path in paths:
        remote = version_of(path)
        if remote is not None:
            digest.update(f"{remote}\n".encode())
            continue
        try:
            status = path.stat()
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
        digest.update(os.fsencode(path.resolve()))
        digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n".encode())
    return digest.hexdigest()


class ImageFiles:
    """Image files as a frame source.

    Args:
        paths: the files in frame order.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[EncodedFrame]:
        for path in self.paths:
            try:
                yield EncodedFrame(str(path), read_bytes(path, MAX_FILE_BYTES))
            except OSError as error:
                raise SourceError(f"{path}: cannot be read: {error.strerror}") from None

    def fingerprint(self) -> str:
        return files_fingerprint(self.paths)

    def check(self) -> ImageHeader:
        """Check every file's header and end, without reading the rest.

        Returns:
            The header that all files share.

        Raises:
            SourceError: a file is not an image, is truncated, or differs in size or kind; the text names it.

        Warns:
            FfencWarning: the suffix of the first file is that of another format.
        """
        first: ImageHeader | None = None
        for path in self.paths:
            header = _look_at(path)
            if first is None:
                first = header
                _warn_of_name(path, header)
            else:
                require_alike(header, first, str(path), str(self.paths[0]))
        if first is None:
            raise SourceError("no frames")
        return first


def _warn_of_name(path: Path, header: ImageHeader) -> None:
    named = IMAGE_SUFFIXES.get(path.suffix.lower())
    if named not in (None, header.format):
        warnings.warn(
            f"{path}: is a {header} though its name ends in {path.suffix}; it and the frames after it are "
            f"read as {header.format.upper()}",
            FfencWarning,
            stacklevel=3,
        )


def _look_at(path: Path) -> ImageHeader:
    try:
        with open_regular(path, MAX_FILE_BYTES) as file:
            head = file.read(HEADER_BYTES)
            if not is_png(head):  # a JPEG's size may follow a long comment, a TIFF's may be anywhere
                head += file.read()
            header = read_header(head, str(path))
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 64))
            if not has_end(file.read(), header.format):
                file.seek(0)
                whole_image(file.read(), header, str(path))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    return header


def image_files(folder: Path, *, start_number: int | None = None) -> ImageFiles:
    """List a folder's frames in order, and refuse gaps in their numbers.

    Frames are PNG, JPEG or (depth) TIFF files, all of one kind, whose names differ in one number:
    ``frame-000000.png``.

    Args:
        folder: the folder.
        start_number: number of the first frame; None: 0 or 1, whichever exists.

    Raises:
        SourceError: no images, two kinds, a name without a number, a missing or duplicate number.
    """
    try:
        entries = sorted((e for e in os.scandir(folder) if e.name[0] != "."), key=lambda e: e.name)
    except OSError as error:
        raise SourceError(f"{folder}: cannot be read: {error.strerror}") from None
    images = [entry.name for entry in entries if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES]
    others = [entry.name for entry in entries if Path(entry.name).suffix.lower() in OTHER_SUFFIXES]
    named = frozenset(images)
    for entry in entries:
        if entry.name in named and not entry.is_file():
            raise SourceError(f"{folder / entry.name}: is not a file that can be read (a broken link?)")
    if others:
        raise SourceError(
            f"{folder / others[0]}: only PNG, JPEG and TIFF (depth) frames are read; "
            "convert it, or move it away"
        )
    if not images:
        raise SourceError(f"{folder}: holds no PNG, JPEG or TIFF images; name a folder that does")
    kinds = {IMAGE_SUFFIXES[Path(n).suffix.lower()]: n for n in reversed(images)}
    if len(kinds) > 1:
        raise SourceError(
            f"{folder}: holds {' and '.join(kind.upper() for kind in sorted(kinds, reverse=True))} images "
            f"({', '.join(kinds[kind] for kind in sorted(kinds, reverse=True))}); keep one kind"
        )
    numbered: dict[int, str] = {}
    stems: dict[tuple[str, str], str] = {}
    for name in images:
        match = re.fullmatch(r"(.*?)(\d+)(\D*)", Path(name).stem)
        if match is None:
            raise SourceError(
                f"{folder / name}: has no frame number in its name", expected="frame-000000.png"
            )
        number = int(match[2])
        if number in numbered:
            raise SourceError(
                f"{folder}: {numbered[number]} and {name} have the same frame number {number}; keep one"
            )
        stems.setdefault((match[1], match[3]), name)
        numbered[number] = name
    if len(stems) > 1:
        one, other = list(stems.values())[:2]
        raise SourceError(f"{folder}: {one} and {other} are named differently; keep one series per folder")
    _check_numbers(folder, numbered, start_number)
    return ImageFiles([folder / numbered[number] for number in sorted(numbered)])


def _check_numbers(folder: Path, numbered: dict[int, str], start_number: int | None) -> None:
    numbers = sorted(numbered)
    first = numbers[0]
    if start_number is not None:
        if first != start_number:
            raise SourceError(f"{folder}: the first frame is {numbered[first]}, not number {start_number}")
    elif first > 1:
        raise SourceError(
            f"{folder}: frames 0 to {first - 1} are missing, the first is {numbered[first]}. "
            f"If this is intended, pass {argument('start_number', first)}"
        )
    missing = [n for n, after in pairwise(numbers) if after != n + 1]
    if missing:
        before = missing[0]
        after = numbers[numbers.index(before) + 1]
        gap = f"frame {before + 1} is" if after == before + 2 else f"frames {before + 1} to {after - 1} are"
        raise SourceError(
            f"{folder}: {gap} missing (after {numbered[before]} comes {numbered[after]}). "
            "A video of the rest would no longer match its table: restore the frames, or renumber them"
        )
