"""FFmpeg's demuxer of a video file, selected by the file's first bytes.

FFmpeg opens a file by its content, whatever its name is: a text that is a playlist makes it open the files
named there, and an image becomes a video of one frame. So ffenc checks the first bytes, and names what it
found.
"""

from __future__ import annotations

import re
from pathlib import Path

from ffenc.errors import SourceError
from ffenc.ffmpeg.boxes import fetch_index
from ffenc.paths import open_regular

_LOOKED_AT = 1024  # bytes

# First boxes of MP4 and MOV files.
_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"sidx", b"uuid")

# Demuxer -> first bytes of its files.
_VIDEO: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("mov", re.compile(rb"....(?:" + b"|".join(_BOXES) + rb")", re.S)),
    ("matroska", re.compile(rb"\x1aE\xdf\xa3")),
    ("avi", re.compile(rb"RIFF....AVI[ \x19X]", re.S)),
    ("mpegts", re.compile(rb"G.{187}G.{187}G|.{4}G.{191}G.{191}G", re.S)),
    ("mpeg", re.compile(rb"\0\0\x01\xba")),
    ("flv", re.compile(rb"FLV\x01")),
    ("ogg", re.compile(rb"OggS")),
    ("nut", re.compile(rb"nut/multimedia container")),
    ("ivf", re.compile(rb"DKIF")),
    ("obu", re.compile(rb"\x12\0[\x0a\x12\x1a\x32]")),
    # Elementary streams: a start code, then a unit that a stream may begin with (delimiter, parameters, SEI).
    ("hevc", re.compile(rb"\0{2,3}\x01[\x40\x42\x44\x46\x4e]\x01")),
    ("h264", re.compile(rb"\0{2,3}\x01(?:\x09[\x10\x30\x50\x70\x90\xb0\xd0\xf0]|[\x27\x47\x67]|\x06)")),
)

# Demuxers of elementary streams, whose frames have no times.
RAW = ("obu", "hevc", "h264")

# Other kinds of files that are found with a video's name.
_OTHERS: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("a Git LFS pointer (git lfs pull fetches the file itself)", re.compile(rb"version https://git-lfs")),
    ("a list of files for FFmpeg (ffconcat)", re.compile(rb"\s*ffconcat ")),
    ("an HLS playlist", re.compile(rb"\s*#EXTM3U")),
    ("a DASH manifest", re.compile(rb"\s*(?:<\?xml.*?)?<MPD\b", re.S)),
    ("an SVG drawing", re.compile(rb"\s*(?:<\?xml.*?)?(?:<!--.*?-->\s*|<!DOCTYPE svg.*?>\s*)*<svg\b", re.S)),
    ("an XML or HTML text", re.compile(rb"\s*<(?:\?xml|!|html)", re.I)),
    ("an SDP session description", re.compile(rb"v=0\r?\n")),
    ("a PNG image", re.compile(rb"\x89PNG")),
    ("a JPEG image", re.compile(rb"\xff\xd8\xff")),
    ("a GIF image", re.compile(rb"GIF8")),
    ("a TIFF image", re.compile(rb"II\*\0|MM\0\*")),
    ("a WebP image", re.compile(rb"RIFF....WEBP", re.S)),
    ("a BMP image", re.compile(rb"BM.{4}\0{4}", re.S)),
    ("a Parquet file", re.compile(rb"PAR1")),
    ("a ZIP archive", re.compile(rb"PK\x03\x04")),
    ("a compressed file (gzip)", re.compile(rb"\x1f\x8b")),
)


def is_mp4(path: Path) -> bool:
    """Return whether a video file is MP4, not QuickTime (MOV), which FFmpeg opens with the same demuxer."""
    with open_regular(path) as file:
        start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:] != b"qt  "


def demuxer_of(path: Path) -> str:
    """Return FFmpeg's name of the demuxer of a video file (``mov`` for MP4).

    Raises:
        SourceError: not a regular file, empty, or not a supported kind of video; the text names the kind.
        OSError: it cannot be opened.
    """
    fetch_index(path)
    with open_regular(path) as file:
        start = file.read(_LOOKED_AT)
    for name, beginning in _VIDEO:
        if beginning.match(start):
            return name
    if not start:
        found = "is empty"
    elif not start.strip(b"\0"):
        found = f"contains only zeros in its first {len(start)} bytes"
    else:
        kind = next((kind for kind, beginning in _OTHERS if beginning.match(start)), None)
        found = f"is {kind}" if kind else f"begins with {start[:12]!r}"
    raise SourceError(
        f"{path} cannot be read as a video: it {found}",
        expected="MP4 or MOV, Matroska or WebM, AVI, MPEG, Ogg, FLV, IVF, or a raw H.264, HEVC or AV1 stream",
    )
