"""The outermost boxes of an MP4 file, read without FFmpeg."""

from __future__ import annotations

import struct
from pathlib import Path

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
