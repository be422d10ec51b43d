"""Boxes of an MP4 file, read without FFmpeg."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ffenc.errors import SourceError
from ffenc.paths import open_regular
from ffenc.storage.mirror import fetched
from ffenc.storage.ranges import Range, Reader, everything

Box = tuple[bytes, memoryview]  # its kind, and what is in it

_HEAD = 16  # bytes: size, kind, and a 64-bit size where the first is 1
_STSD_HEAD = 8  # version, flags, number of sample entries
_VISUAL = 78  # bytes of a video's sample entry before the boxes in it
_PLACED = 44  # bytes at a track header's end: how its pictures are turned, and to what size
_BIT_RATES = b"btrt"
_FETCHED = 64 << 10  # bytes that are fetched at once of a remote file
_FIRST_FRAMES = 512 << 10  # bytes of packets from which a decoder tells the pixel format


class BoxError(Exception):
    """What is wrong with a file's boxes, as the end of a sentence: ``stsz is missing``."""


class TopBox(NamedTuple):
    """A box that is in no other.

    Attributes:
        kind: four letters; empty where the file ends in the midst of its header.
        start, end: of its content, in bytes from the file's start; the end may be beyond that of the file.
    """

    kind: bytes
    start: int
    end: int


def top_boxes(file: BinaryIO, end: int) -> Iterator[TopBox]:
    """Yield a file's boxes, without reading what is in them.

    Args:
        file: the file.
        end: how many bytes it has.

    Raises:
        BoxError: there is something else where a box should begin.
    """

    def read(at: int, count: int) -> bytes:
        file.seek(at)
        return file.read(count)

    yield from _walk(read, end)


def boxes_in(content: memoryview) -> Iterator[Box]:
    """Yield the boxes in a box.

    Raises:
        BoxError: one does not end where it has to.
    """
    for box in _walk(lambda at, count: bytes(content[at : at + count]), len(content)):
        if box.end > len(content):
            raise BoxError(
                f"{_shown(box.kind)} ends {box.end - len(content)} bytes after the end of its parent box"
            )
        yield box.kind, content[box.start : box.end]


def box_in(content: memoryview, *way: bytes) -> memoryview:
    """Return what is in the one box that a way of kinds leads to.

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
    """Have of a remote video what says where its frames are.

    Of a file that is here nothing is done.

    Raises:
        SourceError: it cannot be fetched.
    """
    fetched(path, _index_ranges, name="index")


def fetch_first_frames(path: Path) -> None:
    """Have of a remote video what ffprobe reads of it: its index, and packets for a decoder to look at."""
    fetched(path, lambda read, size: _index_ranges(read, size, _FIRST_FRAMES), name="first frames")


def _index_ranges(read: Reader, size: int, packets: int = 0) -> Iterable[Range]:
    """What of an MP4 file says where its frames are, and so many bytes of packets; all of any other file."""
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
    """Return how many bytes an MP4 file's boxes promise beyond its end; 0 for other files.

    A file whose index stands in front is still opened when its end is missing: FFmpeg gives what is there,
    a last frame that is cut short included, and some versions say nothing of it.

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
        except BoxError:  # FFmpeg says what is wrong with it
            return 0
    return end - size


def is_plain_mp4(path: Path) -> bool:
    """Return whether a file is MP4, whole, and has one index of all its frames, not fragments.

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
    """Return what an MP4 file says its samples are: codec, size and decoder configuration, of all tracks.

    Files with the same have the same codec, pixel format and size.

    Returns:
        None: it says nothing, or is no MP4 file.

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
    """Return what a track's samples are, and how they are shown; but not how many bits they take.

    Args:
        track: what is in its ``trak`` box.

    Raises:
        BoxError: it does not say it.
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
    """Return what kind of track a ``mdia`` box is of: ``vide``, ``soun``.

    Raises:
        BoxError: it does not say it.
    """
    return bytes(box_in(media, b"hdlr")[8:12])


def _walk(read: Callable[[int, int], bytes], end: int) -> Iterator[TopBox]:
    """Yield boxes that follow one another from 0 to ``end``, or beyond it."""
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
        elif size == 0:  # until the end, wherever that is
            size = end - at
        if size < start - at:
            raise BoxError(f"{_shown(head[4:8])} at byte {at} says that it has {size} bytes")
        yield TopBox(head[4:8], start, at + size)
        at += size


def _shown(kind: bytes) -> str:
    """A box's kind as it is written in an error."""
    return kind.decode("ascii", "backslashreplace") if kind.isalnum() else repr(kind)[1:]
