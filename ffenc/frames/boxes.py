"""Boxes of an MP4 file, read without FFmpeg."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

_SAMPLES = (b"trak", b"mdia", b"minf", b"stbl", b"stsd")  # in moov: the way to what a track's samples are
_HEAD = 16  # bytes: size, kind, and a 64-bit size where the first is 1


def missing_bytes(path: Path) -> int:
    """Return how many bytes an MP4 file's boxes promise beyond its end; 0 for other files.

    A file whose index stands in front is still opened when its end is missing: FFmpeg gives what is there,
    a last frame that is cut short included, and some versions say nothing of it.

    Raises:
        OSError: it cannot be read.
    """
    end = path.stat().st_size
    at = 0
    with path.open("rb") as file:
        if file.read(8)[4:] != b"ftyp":
            return 0
        while at < end:
            file.seek(at)
            head = file.read(_HEAD)
            if len(head) < 8:
                return 8 - len(head)
            size = int(struct.unpack(">I", head[:4])[0])
            if size == 0:  # until the end, wherever that is
                return 0
            if size == 1:
                if len(head) < _HEAD:
                    return _HEAD - len(head)
                size = int(struct.unpack(">Q", head[8:])[0])
            if size < 8:
                return 0  # not a box: FFmpeg says what is wrong with it
            at += size
    return at - end


def sample_description(path: Path) -> bytes | None:
    """Return what an MP4 file says its samples are: codec, size and decoder configuration, of all tracks.

    Files with the same have the same codec, pixel format and size.

    Returns:
        None: it says nothing, or is no MP4 file.

    Raises:
        OSError: it cannot be read.
    """
    end = path.stat().st_size
    at = 0
    with path.open("rb") as file:
        while at + 8 <= end:
            file.seek(at)
            head = file.read(_HEAD)
            size = int(struct.unpack(">I", head[:4])[0])
            if size == 1 and len(head) == _HEAD:
                size = int(struct.unpack(">Q", head[8:])[0])
            if size < 8:
                return None
            if head[4:8] == b"moov":
                file.seek(at + 8)
                return b"".join(_inside(file.read(min(size, end - at) - 8), _SAMPLES)) or None
            at += size
    return None


def _inside(content: bytes, way: tuple[bytes, ...]) -> Iterator[bytes]:
    """Yield the contents of the boxes that a way of kinds leads to."""
    if not way:
        yield content
        return
    at = 0
    while at + 8 <= len(content):
        size = int(struct.unpack_from(">I", content, at)[0])
        if size < 8:
            return
        if content[at + 4 : at + 8] == way[0]:
            yield from _inside(content[at + 8 : at + size], way[1:])
        at += size
