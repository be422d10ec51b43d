"""The frames that a decoder returns for a file's packets, listed by ffprobe."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from ffenc.ffmpeg.probe import StreamInfo, ask, fields_of
from ffenc.storage.mirror import held

_DECODE_SECONDS = 86400.0  # ffprobe decodes the whole file before it answers
_LACKING = re.compile(
    r"Frame num gap|Could not find ref|reference picture missing|Missing reference|concealing|"
    r"error while decoding|Error constructing|mmco: unref short failure"
)


class DecodedFrame(Struct, frozen=True):
    """A decoded frame.

    Attributes:
        place: position of its packet in the file.
        broken: a reference frame was missing, and the decoder concealed it.
    """

    place: int
    broken: bool


def decoded_frames(path: Path, info: StreamInfo, *, ffprobe: str) -> list[DecodedFrame]:
    """Decode a file and return its frames in display order.

    Args:
        path: a file whose packets have ascending times, whatever their display order is.
        info: its stream fields, with ``times``.
        ffprobe: the program.

    Raises:
        SourceError: it cannot be decoded.
    """
    assert info.times is not None
    places = {tick: place for place, tick in enumerate(info.times)}
    # FFmpeg conceals a missing reference frame of H.264, and reports it only with -show_log.
    asked = ("-threads", "1", "-select_streams", "v:0", "-show_frames", "-show_log", "48")
    with held(path):
        answer = ask(
            *(ffprobe, path, *asked, "-show_entries", "frame=pts:log=message"), timeout=_DECODE_SECONDS
        )
    found: list[DecodedFrame] = []
    for line in answer:
        if line.startswith("frame|"):
            found.append(DecodedFrame(places[int(fields_of(line)["pts"])], False))
        if found and _LACKING.search(line):
            found[-1] = replace(found[-1], broken=True)
    return found
