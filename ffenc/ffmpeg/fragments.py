"""What there is of a video file that was being written, in fragments, when its writer ended."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from ffenc.ffmpeg.probe import StreamInfo

_HEADER = 8  # bytes: size and type of a box
_TOP = (b"ftyp", b"moov", b"moof", b"mdat", b"mfra", b"free")  # what FFmpeg writes


def whole_bytes(path: Path, most: int | None = None) -> int:
    """Return up to where a file in fragments can be read: the end of the last fragment that is whole.

    Args:
        path: an MP4 file that :func:`~ffenc.compiler.command.compile_command` was writing with
            ``fragment_seconds``.
        most: look at no more bytes than so many; None: all.

    Returns:
        A number of bytes; 0 where not even the first fragment is whole.
    """
    size = path.stat().st_size if most is None else most
    end = place = 0
    header = False
    with path.open("rb") as file:
        while (found := _box(file, place, size)) is not None:
            kind, place = found
            header = header or kind == b"moov"
            if header and (kind == b"mdat" or (end and kind != b"moof")):
                end = place
    return end


def drop_torn_end(path: Path) -> int:
    """Cut a file in fragments behind the last one that is whole; FFmpeg calls a torn one an error.

    Returns:
        how many bytes the file has now; with 0 there is no frame in it.

    Raises:
        OSError: it cannot be written.
    """
    end = whole_bytes(path)
    if end < path.stat().st_size:
        os.truncate(path, end)
    return end


def drop_last_fragment(path: Path) -> int:
    """Cut a file that ends with a whole fragment before it.

    Returns:
        how many bytes the file has now; with 0 there is no frame in it.

    Raises:
        OSError: it cannot be written.
    """
    end = whole_bytes(path, path.stat().st_size - 1)
    os.truncate(path, end)
    return end


def whole_frames(info: StreamInfo, fps: Fraction, most: int | None = None) -> int:
    """Return how many frames of a file, from its first, can be cut out of it with none missing among them.

    A frame may be stored before others that are shown earlier (B-frames), and those may be lost: of N packets
    those behind the last whole group of B-frames cannot be used. The others are cut out with
    ``cut_file(first=0, frames=...)``.

    Args:
        info: its fields, with ``times``.
        fps: its frame rate.
        most: no more than so many; None: as many as there are.
    """
    assert info.times is not None
    assert info.places is not None
    ticks = 1 / fps / info.time_base
    whole = last = 0
    for frame, (time, place) in enumerate(zip(info.times[:most], info.places[:most], strict=True)):
        if time != frame * ticks:
            break
        last = max(last, place)
        if last == frame:
            whole = frame + 1
    return whole


def _box(file: BinaryIO, place: int, size: int) -> tuple[bytes, int] | None:
    """The type and the end of the box at some place; None where there is none, or not all of it."""
    file.seek(place)
    start = file.read(2 * _HEADER)
    length, kind = int.from_bytes(start[:4], "big"), start[4:8]
    if length == 1:  # its size stands behind its type
        length = int.from_bytes(start[8:16], "big")
    # After a power cut the end of a file may be zeros, which are no box.
    if kind not in _TOP or length < _HEADER or place + length > size:
        return None
    return kind, place + length
