"""JPEG segments."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from ffenc.errors import SourceError
from ffenc.frames.header import ImageHeader, several

_JPEG_SIZE_MARKERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15 without DHT, JPG, DAC
_JPEG_READ = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_JPEG_BARE_MARKERS = {0x01, *range(0xD0, 0xD8)}
_JPEG_START, _JPEG_SCAN = 0xD8, 0xDA
_JPEG_SEGMENTS = 4096  # before the first scan
_JPEG_SCANS = 256  # each takes as long as a whole image; a progressive JPEG has about ten


def _jpeg_segments(data: bytes | memoryview) -> Iterator[tuple[int, int]]:
    """Yield marker and start of each segment up to the first scan."""
    at, size = 2, len(data)
    for _ in range(_JPEG_SEGMENTS):
        if at + 4 > size or data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF or marker in _JPEG_BARE_MARKERS:
            at += 1 if marker == 0xFF else 2
            continue
        yield marker, at
        if marker == _JPEG_SCAN:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def jpeg_header(data: bytes | memoryview, name: str) -> ImageHeader:
    """Read the header of a JPEG.

    Raises:
        SourceError: it is damaged, or not a supported kind.
    """
    for marker, at in _jpeg_segments(data):
        if marker not in _JPEG_SIZE_MARKERS or at + 10 > len(data):
            continue
        bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
        if marker not in _JPEG_READ or bits != 8 or channels not in (1, 3):
            raise SourceError(
                f"is an unsupported kind of JPEG image (SOF{marker - 0xC0}, {bits} bits, "
                f"{channels} channels); convert it to 8-bit gray or colour, baseline or progressive",
                where=name,
            )
        if width and height:
            return ImageHeader("jpeg", width, height, bits, channels)
    raise SourceError(
        "is a JPEG image that is cut short or damaged", where=name, fix="restore or re-record it"
    )


def jpeg_end(data: bytes, name: str) -> int:
    """Return the end of a JPEG in bytes.

    Raises:
        SourceError: it contains several images, or more scans than an image needs.
    """
    # After the header's segments, 0xFF is followed by zero or a marker, so a search finds the real end
    # marker.
    scan = next((at for marker, at in _jpeg_segments(data) if marker == _JPEG_SCAN), len(data))
    rest = np.frombuffer(data, np.uint8)[scan:]
    markers = np.bincount(rest[np.flatnonzero(rest[:-1] == 0xFF) + 1], minlength=256)
    if markers[_JPEG_START] and data.find(b"\xff\xd8\xff", scan) >= 0:
        raise several(name, "another JPEG follows its scan")
    if markers[_JPEG_SCAN] > _JPEG_SCANS:
        raise SourceError(
            f"has more than {_JPEG_SCANS} scans: it is damaged, or made to exhaust processor time",
            where=name,
            fix="restore or re-record it",
        )
    end = data.rfind(b"\xff\xd9", scan)
    if end < 0:
        raise SourceError(
            f"the image is cut short ({len(data):,} bytes, no end marker)",
            where=name,
            fix="restore or re-record it",
        )
    return end + 2
