"""PNG images whose pixels are decompressed for FFmpeg."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ffenc.errors import SourceError
from ffenc.frames.encode import fed_pieces
from ffenc.frames.images import read_header
from ffenc.frames.sources import EncodedFrame
from ffenc.frames.stored_png import UndecodableError, pays, stored

WIDTH, HEIGHT = 320, 200


def png(mode: str = "RGB", width: int = WIDTH, height: int = HEIGHT) -> bytes:
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    noise = np.random.default_rng(1).normal(128, 4, (height, width, channels)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise.squeeze(), mode).save(file, "png")
    return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def split(data: bytes) -> tuple[bytes, bytes]:
    """What stands before the pixels, and the pixels as they are compressed."""
    header, rest, packed = data[:33], data[33:], b""
    while rest:
        length, kind = struct.unpack_from(">I4s", rest)
        packed += rest[8 : 8 + length] if kind == b"IDAT" else b""
        rest = rest[12 + length :]
    return header, packed


def light(data: bytes) -> bytes:
    return b"".join(stored(read_header(data, "image"), data))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_the_image_is_the_same_and_its_pixels_are_not_compressed(mode: str) -> None:
    data = png(mode)
    out = light(data)
    with Image.open(io.BytesIO(out)) as found, Image.open(io.BytesIO(data)) as given:
        assert np.array_equal(np.asarray(found), np.asarray(given))
    _, packed = split(out)
    pixels = zlib.decompress(packed)  # looks at the Adler-32
    assert pixels == zlib.decompress(split(data)[1])
    assert len(packed) == len(pixels) + 2 + 4 + 5 * -(-len(pixels) // 65535)


def test_chunks_of_pixels_may_end_anywhere_and_other_chunks_stay() -> None:
    header, packed = split(png())
    cut = [packed[i : i + 1000] for i in range(0, len(packed), 1000)]
    text = chunk(b"tEXt", b"Comment\0kept")
    data = header + text + b"".join(chunk(b"IDAT", part) for part in cut) + chunk(b"IEND", b"")
    out = light(data)
    assert text in out
    assert zlib.decompress(split(out)[1]) == zlib.decompress(packed)


def test_small_images_and_those_that_compress_well_go_as_they_are() -> None:
    file = io.BytesIO()
    Image.new("RGB", (640, 480)).save(file, "png")
    for data in (png(width=64, height=48), file.getvalue()):
        assert not pays(read_header(data, "image"), data)
    assert pays(read_header(png(), "image"), png())


def test_without_the_library_images_go_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ffenc.frames.stored_png.AVAILABLE", False)
    frame = EncodedFrame("frame-000000.png", png())
    assert list(fed_pieces([frame], read_header(frame.data, "image"))) == [frame.data]


def changed(fault: str) -> bytes:
    data = png()
    header, packed = split(data)
    pixels = zlib.decompress(packed)
    if fault == "checksum of its IDAT":
        at = len(data) // 2
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    bodies = {
        "incorrect data check": packed[:-1] + bytes([packed[-1] ^ 1]),
        "invalid": packed[:2] + b"\xff" * 40 + packed[42:],
        "pixel rows are missing": zlib.compress(pixels[:-100]),
        "more pixel data": zlib.compress(pixels + b"\0"),
    }
    return header + chunk(b"IDAT", bodies[fault]) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "fault",
    ["checksum of its IDAT", "incorrect data check", "invalid", "pixel rows are missing", "more pixel data"],
)
def test_a_damaged_image_is_an_error_that_names_the_frame(fault: str) -> None:
    data = changed(fault)
    header = read_header(data, "image")
    with pytest.raises(UndecodableError):
        light(data)
    with pytest.raises(SourceError, match=rf"frame-000007\.png.*{fault}"):
        list(fed_pieces([EncodedFrame("frame-000007.png", data)], header))
