"""What headers and ends of images say."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ffenc import SourceError
from ffenc.frames.images import find_fault, has_end, read_header, whole_image


def encoded(mode: str, kind: str = "PNG", size: tuple[int, int] = (31, 17), **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)).convert(
        mode
    ).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("mode", "bits", "channels", "alpha"),
    [("RGB", 8, 3, False), ("L", 8, 1, False), ("P", 8, 3, False), ("RGBA", 8, 4, True), ("LA", 8, 2, True)],
)
def test_png_headers(mode: str, bits: int, channels: int, alpha: bool) -> None:
    header = read_header(encoded(mode), "x")
    assert (header.format, header.width, header.height) == ("png", 31, 17)
    assert (header.bits, header.channels, header.has_alpha) == (bits, channels, alpha)


def test_a_16_bit_png_is_told_apart() -> None:
    out = io.BytesIO()
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(out, "PNG")
    assert read_header(out.getvalue(), "x").bits == 16


def test_jpeg_headers_behind_long_comments() -> None:
    plain = encoded("RGB", "JPEG", comment=b"c" * 60_000)
    header = read_header(plain, "x")
    assert (header.format, header.width, header.height, header.channels) == ("jpeg", 31, 17, 3)
    assert read_header(encoded("L", "JPEG", progressive=True), "x").channels == 1


def test_ends_and_what_lies_behind_them() -> None:
    for data in (encoded("RGB"), encoded("RGB", "JPEG")):
        header = read_header(data, "x")
        assert has_end(data, header.format)
        assert not has_end(data[:-2], header.format)
        with pytest.raises(SourceError, match="cut short"):
            whole_image(data[: len(data) // 2], header, "x")
    png = encoded("RGB")
    assert whole_image(png + b"left behind", read_header(png, "x"), "x") == png


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"hello world, this is text of some length", "not a PNG or JPEG"),
        (b"\x89PNG", "cut short"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "damaged"),
        (b"\xff\xd8\xff\xe0\x00\x10", "JPEG image that is cut short"),
        (b"II*\0" + bytes(60), "TIFF"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, said: str) -> None:
    with pytest.raises(SourceError, match=rf"frame 7: .*{said}"):
        read_header(data, "frame 7")


def test_damage_inside_a_png_is_found() -> None:
    good = encoded("RGB")
    assert find_fault(good) is None
    assert find_fault(encoded("P")) is None
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    assert "checksum" in str(find_fault(bytes(flipped)))
    at = good.index(b"IDAT")
    rows = zlib.decompress(good[at + 4 : at + 4 + struct.unpack(">I", good[at - 4 : at])[0]])
    body = zlib.compress(rows[: len(rows) // 2])
    chunk = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    assert find_fault(good[: at - 4] + chunk + good[-12:]) == "pixel rows are missing"
