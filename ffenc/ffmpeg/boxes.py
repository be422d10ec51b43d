"""Reading of the boxes of an MP4 file without FFmpeg."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ffenc.errors import SourceError
from ffenc.paths import open_regular
from ffenc.storage.mirror import fetched
from ffenc.storage.ranges import Range, Reader, everything

Box = tuple[bytes, memoryview]  # type and content

_HEAD = 16  # bytes: size, type, and a 64-bit size if the first is 1
_STSD_HEAD = 8  # version, flags, number of sample entries
_VISUAL = 78  # bytes of a video's sample entry before its boxes
_PLACED = 44  # bytes at the end of a track header: display matrix and size
_BIT_RATES = b"btrt"
_FETCHED = 64 << 10  # bytes of a remote file that are fetched at once
_FIRST_FRAMES = 512 << 10  # bytes of packets from which a decoder determines the pixel format


class BoxError(Exception):
    """A fault in a file's boxes, as the end of a sentence: ``stsz is missing``."""


class TopBox(NamedTuple):
    """A box at the top level of a file.

    Attributes:
        kind: type of the box, four letters; empty if the file ends inside its header.
        start, end: start and end of its content, in bytes from the start of the file; the end may be beyond
            that of the file.
    """

    kind: bytes
    start: int
    end: int


def top_boxes(file: BinaryIO, end: int) -> Iterator[TopBox]:
    """Yield the top-level boxes of a file without reading their contents.

    Args:
        file: the file.
        end: size of the file in bytes.

    Raises:
        BoxError: there is no box where one should begin.
    """

    def read(at: int, count: int) -> bytes:
        file.seek(at)
        return file.read(count)

    yield from _walk(read, end)


def boxes_in(content: memoryview) -> Iterator[Box]:
    """Yield the boxes inside a box.

    Raises:
        BoxError: a box does not end where it should.
    """
    for box in _walk(lambda at, count: bytes(content[at : at + count]), len(content)):
        if box.end > len(content):
            raise BoxError(
                f"{_shown(box.kind)} ends {box.end - len(content)} bytes after the end of its parent box"
            )
        yield box.kind, content[box.start : box.end]


def box_in(content: memoryview, *way: bytes) -> memoryview:
    """Return the content of the single box at a path of box types.

    Raises:
        BoxError: there is no such box, or more than one.
    """
    for kind in way:
        found = None
        for one, inner in boxes_in(content):
            if one == kind and found is not None:
                raise BoxError(f"{_shown(kind)} is there twice")
            found = inner if one == kind else found
        if found is None:
            raise BoxError(f"{_shown(kind)} is missing")
        content = found
    return content


def fetch_index(path: Path) -> None:
    """Fetch the part of a remote video that contains its index; do nothing for a local file.

    Raises:
        SourceError: it cannot be fetched.
    """
    fetched(path, _index_ranges, name="index")


def fetch_first_frames(path: Path) -> None:
    """Fetch what ffprobe reads of a remote video: its index, and first packets for the decoder."""
    fetched(path, lambda read, size: _index_ranges(read, size, _FIRST_FRAMES), name="first frames")


def _index_ranges(read: Reader, size: int, packets: int = 0) -> Iterable[Range]:
    """Return the ranges of an MP4 file's index and of its first packets; for other files, the whole file."""
    if read(0, min(size, _FETCHED))[4:8] != b"ftyp":
        return everything(read, size)
    wanted: list[Range] = [(0, min(size, _FETCHED))]
    kinds = []
    try:
        for box in _walk(lambda at, count: read(at, min(at + _FETCHED, size))[:count], size):
            kinds.append(box.kind)
            last = min(box.end, box.start + packets if box.kind == b"mdat" else size)
            wanted.append((max(box.start - _HEAD, 0), min(last, size)))
    except BoxError:
        return everything(read, size)
    return wanted if kinds.count(b"moov") == 1 and b"moof" not in kinds else everything(read, size)


def missing_bytes(path: Path) -> int:
    """Return how many bytes of an MP4 file's boxes are missing at its end; 0 for other files.

    A file with its index at the front opens even if its end is missing: FFmpeg returns the frames that exist,
    with a truncated last frame, and some versions report no error.

    Raises:
        OSError: it cannot be read.
    """
    fetch_index(path)
    size = end = path.stat().st_size
    with path.open("rb") as file:
        if file.read(8)[4:] != b"ftyp":
            return 0
        try:
            for box in top_boxes(file, size):
                end = box.end
        except BoxError:  # FFmpeg reports what is wrong
            return 0
    return end - size


def check_complete(path: Path, *, advice: str = "restore the file") -> None:
    """Refuse an MP4 file whose end is missing.

    Args:
        path: the file.
        advice: what to do.

    Raises:
        SourceError: its end is missing.
        OSError: it cannot be read.
    """
    if missing := missing_bytes(path):
        raise SourceError(f"{path} is cut short: its last {missing} bytes are missing; {advice}")


def is_plain_mp4(path: Path) -> bool:
    """Return whether a file is MP4, complete, and has one index of all its frames instead of fragments.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        try:
            boxes = list(top_boxes(file, size))
        except BoxError:
            return False
    kinds = [box.kind for box in boxes]
    named = head[4:8] == b"ftyp" and head[8:] != b"qt  "
    return named and kinds.count(b"moov") == 1 and b"moof" not in kinds and boxes[-1].end == size


def sample_description(path: Path) -> bytes | None:
    """Return the sample descriptions of all tracks of an MP4 file: codec, size, decoder configuration.

    Files with equal descriptions have the same codec, pixel format and size.

    Returns:
        The description; None: the file has none, or is not MP4.

    Raises:
        OSError: it cannot be read.
    """
    try:
        fetch_index(path)
        with open_regular(path) as file:
            end = path.stat().st_size
            moov = next((box for box in top_boxes(file, end) if box.kind == b"moov"), None)
            if moov is None:
                return None
            file.seek(moov.start)
            movie = memoryview(file.read(min(moov.end, end) - moov.start))
        return b"".join(track_description(one) for kind, one in boxes_in(movie) if kind == b"trak") or None
    except (BoxError, SourceError):
        return None


def track_description(track: memoryview) -> bytes:
    """Return a track's sample description and display matrix, without bit rates.

    Args:
        track: content of its ``trak`` box.

    Raises:
        BoxError: a box is missing or damaged.
    """
    shown = bytes(box_in(track, b"tkhd")[-_PLACED:])
    media = box_in(track, b"mdia")
    samples = box_in(media, b"minf", b"stbl", b"stsd")
    if handler(media) != b"vide":
        return shown + samples
    described = [shown, bytes(samples[:_STSD_HEAD])]
    for kind, entry in boxes_in(samples[_STSD_HEAD:]):
        described += [kind, bytes(entry[:_VISUAL])]
        for name, inner in boxes_in(entry[_VISUAL:]):
            if name != _BIT_RATES:
                described += [struct.pack(">I", len(inner)), name, bytes(inner)]
    return b"".join(described)


def handler(media: memoryview) -> bytes:
    """Return the handler type of a ``mdia`` box: ``vide``, ``soun``.

    Raises:
        BoxError: a box is missing or damaged.
    """
    return bytes(box_in(media, b"hdlr")[8:12])


def _walk(read: Callable[[int, int], bytes], end: int) -> Iterator[TopBox]:
    """Yield the boxes from 0 to ``end``; the last may end beyond it."""
    at = 0
    while at < end:
        head = read(at, _HEAD)
        if len(head) < 8:
            yield TopBox(b"", at + 8, at + 8)
            return
        size, start = int(struct.unpack_from(">I", head)[0]), at + 8
        if size == 1:
            start = at + _HEAD
            if len(head) < _HEAD:
                yield TopBox(head[4:8], start, start)
                return
            size = int(struct.unpack_from(">Q", head, 8)[0])
        elif size == 0:  # to the end of the file
            size = end - at
        if size < start - at:
            raise BoxError(f"{_shown(head[4:8])} at byte {at} says that it has {size} bytes")
        yield TopBox(head[4:8], start, at + size)
        at += size


def _shown(kind: bytes) -> str:
    """Return the type of a box for an error."""
    return kind.decode("ascii", "backslashreplace") if kind.isalnum() else repr(kind)[1:]
