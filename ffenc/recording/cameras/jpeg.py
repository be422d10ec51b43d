"""Whole JPEG images out of a stream of bytes."""

from __future__ import annotations

import re

_START = b"\xff\xd8"
_BARE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
_SCAN, _END, _BEGIN = 0xDA, 0xD9, 0xD8
# In entropy-coded data FF is followed by 00, by a restart marker, or by more FF; all else ends the data.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class JpegSplitter:
    """Cuts images apart that come back to back, and leaves out what is torn.

    An end marker inside a segment (a thumbnail) ends nothing: segments are passed over by their length.

    Attributes:
        torn: how many images were left out.
    """

    def __init__(self) -> None:
        self.torn = 0
        self._data = bytearray()
        self._at = 0  # everything before is part of the image that begins at 0
        self._scanning = False  # within entropy-coded data

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """Take more bytes; return the images that are now whole, in order."""
        self._data += data
        images: list[bytes] = []
        while True:
            image = self._next()
            if image is None:
                return images
            if image:
                images.append(image)

    def _next(self) -> bytes | None:
        """The next image; b"" where one was left out, None where more bytes are needed."""
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
            if marker in (_BEGIN, 0x00):  # the one before has no end
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
        # Looked for from the start of the broken one: its damaged length may have led past the next.
        self.torn += 1
        start = self._data.find(_START, 2)
        self._drop(start if start >= 0 else len(self._data) - self._data.endswith(b"\xff"))
        return b""

    def _drop(self, count: int) -> None:
        del self._data[:count]
        self._at, self._scanning = 0, False
