"""The readable part of a fragmented MP4 file whose writer was interrupted."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from ffenc.ffmpeg.probe import StreamInfo

_HEADER = 8  # bytes: size and type of a box
_TOP = (b"ftyp", b"moov", b"moof", b"mdat", b"mfra", b"free")  # boxes that FFmpeg writes


def whole_bytes(path: Path, most: int | None = None) -> int:
    """Return the end of the last complete fragment of a file, up to which it can be read.

    Args:
        path: an MP4 file written with ``fragment_seconds`` of
            :func:`~ffenc.compiler.command.compile_command`.
        most: read at most this many bytes; None: the whole file.

    Returns:
        A number of bytes; 0 if not even the first fragment is complete.
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
    """Truncate a fragmented file after its last complete fragment; FFmpeg treats a partial one as an error.

    Returns:
        The new size in bytes; 0: the file has no frames.

    Raises:
        OSError: it cannot be written.
    """
    end = whole_bytes(path)
    if end < path.stat().st_size:
        os.truncate(path, end)
    return end


def drop_last_fragment(path: Path) -> int:
    """Remove the last fragment of a file that ends with a complete fragment.

    Returns:
        The new size in bytes; 0: the file has no frames.

    Raises:
        OSError: it cannot be written.
    """
    end = whole_bytes(path, path.stat().st_size - 1)
    os.truncate(path, end)
    return end


def whole_frames(info: StreamInfo, fps: Fraction, most: int | None = None) -> int:
    """Return the greatest number of frames from the first one that can be cut out without gaps.

    With B-frames, a frame may be stored before others that are displayed earlier, and those may be missing.
    So packets after the last complete group of B-frames cannot be used. The frames can be copied with
    ``cut_file(first=0, frames=...)``.

    Args:
        info: the file's stream fields, with ``times``.
        fps: its frame rate.
        most: greatest number to return; None: no limit.
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
    """Return the type and end of the box at an offset; None unless a whole box is there."""
    file.seek(place)
    start = file.read(2 * _HEADER)
    length, kind = int.from_bytes(start[:4], "big"), start[4:8]
    if length == 1:  # the size follows the type
        length = int.from_bytes(start[8:16], "big")
    # After a power failure the end of a file may be zeros, which are not a box.
    if kind not in _TOP or length < _HEADER or place + length > size:
        return None
    return kind, place + length
