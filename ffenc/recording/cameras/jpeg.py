"""Separation of complete JPEG images in a stream of bytes."""

from __future__ import annotations

import re

_START = b"\xff\xd8"
_BARE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
_SCAN, _END, _BEGIN = 0xDA, 0xD9, 0xD8
# In entropy-coded data, FF is followed by 00, a restart marker, or more FF; any other marker ends the data.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class JpegSplitter:
    """Separates images that are back to back, and skips incomplete ones.

    An end marker inside a segment (a thumbnail) is ignored: segments are skipped by their length.

    Attributes:
        torn: number of skipped images.
    """

    def __init__(self) -> None:
        self.torn = 0
        self._data = bytearray()
        self._at = 0  # all bytes before belong to the image that begins at 0
        self._scanning = False  # inside entropy-coded data

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """Add bytes; return the images that are now complete, in order."""
        self._data += data
        images: list[bytes] = []
        while True:
            image = self._next()
            if image is None:
                return images
            if image:
                images.append(image)

    def _next(self) -> bytes | None:
        """Return the next image; b"" if one was skipped, None if more bytes are needed."""
        data = self._data
        if self._at == 0:
            start = data.find(_START)
            if start < 0:
                del data[: len(data) - data.endswith(b"\xff")]
                return None
            del data[:start]
            self._at = 2
        while True:
            if self._scanning:
                found = _MARKER.search(data, self._at)
                if found is None:
                    # The last byte may be the first half of a marker.
                    self._at = max(self._at, len(data) - 1)
                    return None
                self._at, self._scanning = found.start(), False
            if self._at + 2 > len(data):
                return None
            if data[self._at] != 0xFF:
                return self._leave_out()
            marker = data[self._at + 1]
            if marker == _END:
                image = bytes(data[: self._at + 2])
                self._drop(self._at + 2)
                return image
            if marker in (_BEGIN, 0x00):  # the image before has no end
                return self._leave_out()
            if marker == 0xFF:
                self._at += 1
                continue
            if marker in _BARE:
                self._at += 2
                continue
            if self._at + 4 > len(data):
                return None
            length = int.from_bytes(data[self._at + 2 : self._at + 4], "big")
            if length < 2:
                return self._leave_out()
            if self._at + 2 + length > len(data):
                return None
            self._at += 2 + length
            self._scanning = marker == _SCAN

    def _leave_out(self) -> bytes:
        # Search from the start of the broken image: its damaged length may have led past the next one.
        self.torn += 1
        start = self._data.find(_START, 2)
        self._drop(start if start >= 0 else len(self._data) - self._data.endswith(b"\xff"))
        return b""

    def _drop(self, count: int) -> None:
        del self._data[:count]
        self._at, self._scanning = 0, False
