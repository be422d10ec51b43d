"""What headers and ends of images say."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from ffenc import FfmpegError, SourceError
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.decoded import decode_image
from ffenc.frames.depth_images import read_depth
from ffenc.frames.images import find_fault, has_end, read_header, whole_image
from ffenc.frames.pictures import rgb_pictures
from ffenc.frames.sources import EncodedFrame


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
        (b"hello world, this is text of some length", "not a PNG, JPEG or TIFF"),
        (b"\x89PNG", "cut short"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "damaged"),
        (b"\xff\xd8\xff\xe0\x00\x10", "JPEG image that is cut short"),
        (b"II*\0" + bytes(60), "TIFF"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, said: str) -> None:
    with pytest.raises(SourceError, match=rf"frame 7: .*{said}"):
        read_header(data, "frame 7")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def rows_of(width: int, height: int, bits: int = 8, channels: int = 3) -> bytes:
    """Pixel rows of noise, each with filter 0 before it."""
    stride = (width * bits * channels + 7) // 8
    noise = np.random.default_rng(1).integers(0, 256, (height, 1 + stride), np.uint8)
    noise[:, 0] = 0
    return noise.tobytes()


def made_png(
    rows: bytes,
    *,
    size: tuple[int, int] = (31, 17),
    kind: tuple[int, int] = (8, 2),
    interlaced: int = 0,
    extra: bytes = b"",
) -> bytes:
    """A PNG whose parts are chosen one by one; every checksum is right."""
    header = struct.pack(">IIBBBBB", *size, *kind, 0, 0, interlaced)
    parts = [chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def made_tiff(pixels: np.ndarray, **changed: int) -> bytes:
    """An uncompressed TIFF of one channel, with tags changed or added by number: ``t259=7``."""
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    order = pixels.dtype.str[0].replace("|", "<").replace("=", "<")
    height, width = pixels.shape
    data = pixels.tobytes()
    tags = {
        256: width, 257: height, 258: pixels.dtype.itemsize * 8, 259: 1, 262: 1, 273: 8, 277: 1,
        278: height, 279: len(data), 339: kind,
    }  # fmt: skip
    following = changed.pop("following", 0)
    tags |= {int(name[1:]): value for name, value in changed.items()}
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    return start + data + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", following)


def checked(data: bytes) -> bytes:
    return whole_image(data, read_header(data, "frame 7"), "frame 7")


ROWS = rows_of(31, 17)
JPEG = encoded("RGB", "JPEG")
DEPTH_MAP = np.arange(12, dtype=np.uint16).reshape(3, 4)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (made_png(ROWS, size=(65000, 65000)), r"at most 16384 pixels a side"),
        (made_png(ROWS, size=(9000, 9000)), r"67,108,864 pixels in all"),
        (made_png(ROWS, kind=(16, 3)), "is damaged"),
        (made_png(ROWS, kind=(8, 7)), "is damaged"),
        (made_png(ROWS, interlaced=2), "is damaged"),
        (made_png(ROWS, extra=chunk(b"ABCD", b"x")), "a chunk 'ABCD', a critical chunk that no reader knows"),
        (made_png(ROWS, extra=chunk(b"acTL", bytes(8))), r"more than one image .*animation"),
        (made_png(ROWS) * 2, "more than one image"),
        (
            made_png(ROWS, extra=chunk(b"IDAT", bytes(7000))),
            "bytes of compressed pixels, but .* only 1,598",
        ),
        (made_png(ROWS, extra=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(5 << 20)))), "more than 4 MB"),
        (made_png(ROWS, extra=chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(3 << 20))) * 2), "than 4 MB"),
        (
            made_png(ROWS, extra=chunk(b"iTXt", b"k\0\1\0en\0k\0" + zlib.compress(bytes(5 << 20)))),
            "more than 4 MB",
        ),
        (JPEG * 2, "more than one image"),
        (encoded("CMYK", "JPEG"), r"unsupported kind of JPEG image .*4 channels"),
        (JPEG.replace(b"\xff\xc0", b"\xff\xc3"), "unsupported kind of JPEG image .SOF3"),
        (JPEG[:-2] + b"\xff\xda\0\2" * 300 + b"\xff\xd9", "more than 256 scans"),
        (b"\xff\xd8\xff" + b"\xe0\0\2\xff" * 90_000, "cut short or damaged"),
        (JPEG[: len(JPEG) // 2], "cut short"),
        (made_tiff(DEPTH_MAP, t256=60000, t257=60000), "at most 16384 pixels a side"),
        (made_tiff(DEPTH_MAP.astype(np.uint8)), "1 x 8-bit unsigned samples; TIFF is for depth maps"),
        (made_tiff(DEPTH_MAP.astype(np.float64)), "1 x 64-bit float samples"),
        (made_tiff(DEPTH_MAP, t277=3), "3 x 16-bit unsigned samples"),
        (made_tiff(DEPTH_MAP, t262=3), "TIFF is for depth maps"),
        (made_tiff(DEPTH_MAP, t259=7), "compressed by JPEG, which is lossy"),
        (made_tiff(DEPTH_MAP, t259=34925), "compressed by method 34925"),
        (made_tiff(DEPTH_MAP, t274=6), "orientation 6"),
        (made_tiff(DEPTH_MAP, t322=1 << 20, t323=1 << 20), "its tiles are 1048576x1048576"),
        (made_tiff(DEPTH_MAP, following=8), "multi-page TIFF"),
        (made_tiff(DEPTH_MAP)[:-20], "its directory is outside the file"),
        (made_tiff(DEPTH_MAP, t256=0), "it states no size"),
    ],
)
def test_what_is_not_read_or_would_take_up_memory_is_named(data: bytes, said: str) -> None:
    with pytest.raises(SourceError, match=rf"^frame 7: .*{said}"):
        checked(data)


def test_what_a_decoder_needs_not_know_is_accepted() -> None:
    texts = (
        chunk(b"tEXt", b"k\0v") + chunk(b"zTXt", b"k\0\0" + zlib.compress(b"v" * 9999)) + chunk(b"abCd", b"")
    )
    for data in (made_png(ROWS, extra=texts), made_png(rows_of(31, 17, 16, 1), kind=(16, 0)), JPEG):
        assert checked(data) == data
        assert checked(data + b"\0" * 70 + b"of its writer") == data


def test_whatever_pixels_are_stored_as_is_no_bomb() -> None:
    rows = rows_of(640, 40)
    for level in (0, 1, 9):
        packed = zlib.compressobj(level)
        pieces = [
            packed.compress(rows[i : i + 999]) + packed.flush(zlib.Z_SYNC_FLUSH)
            for i in range(0, 80_000, 999)
        ]
        body = b"".join(pieces) + packed.flush()
        data = made_png(b"", size=(640, 40), extra=chunk(b"IDAT", body))
        data = data.replace(chunk(b"IDAT", zlib.compress(b"")), b"")
        assert checked(data) == data
        assert find_fault(data) is None


@pytest.mark.parametrize(
    ("dtype", "samples", "unit"),
    [
        ("<u2", "unsigned", "mm"),
        (">u2", "unsigned", "mm"),
        ("<i2", "signed", "mm"),
        (">i2", "signed", "mm"),
        ("<u4", "unsigned", "mm"),
        ("<i4", "signed", "mm"),
        ("<f4", "float", "m"),
        (">f4", "float", "m"),
    ],
)
def test_every_kind_of_depth_tiff_is_read_as_it_was_written(dtype: str, samples: str, unit: str) -> None:
    top = {"u": (1 << 8 * int(dtype[2])) - 1, "i": (1 << 8 * int(dtype[2]) - 1) - 1, "f": 9.75}[dtype[1]]
    low = 0 if dtype[1] == "u" else -7
    pixels = np.array([[low, 1, 2, 500], [3, 1000, 4000, top]], dtype)
    data = made_tiff(pixels)
    header = read_header(data, "x")
    assert (header.format, header.width, header.height, header.bits) == ("tiff", 4, 2, pixels.itemsize * 8)
    assert (header.samples, header.unit) == (samples, unit)
    np.testing.assert_array_equal(read_depth(EncodedFrame("x", data)), pixels)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_lossless_compression_of_a_tiff_is_read(compression: str) -> None:
    out = io.BytesIO()
    Image.fromarray(DEPTH_MAP).save(out, "TIFF", compression=compression)
    np.testing.assert_array_equal(read_depth(EncodedFrame("x", out.getvalue())), DEPTH_MAP)


def test_a_tiff_whose_pixels_are_cut_short_is_named() -> None:
    for data in (made_tiff(DEPTH_MAP, t273=9999), made_tiff(DEPTH_MAP, t256=4000, t257=4000)):
        with pytest.raises(SourceError, match="frame 7: the image is damaged"):
            read_depth(EncodedFrame("frame 7", data))


def test_a_flipped_byte_of_depth_is_found_by_its_checksum() -> None:
    """Pillow does not look at the checksums of pixels: a byte that is stored as it is changes just one."""
    data = bytearray(made_png(rows_of(40, 40, 16, 1), size=(40, 40), kind=(16, 0)))
    data[200] ^= 1
    with pytest.raises(SourceError, match="frame 7: the image is damaged: checksum of its IDAT chunk"):
        read_depth(EncodedFrame("frame 7", bytes(data)))


def test_a_bomb_costs_no_more_than_its_header_promises() -> None:
    data = made_png(ROWS + bytes(1 << 28))
    began = time.process_time()
    with pytest.raises(SourceError, match="bytes of compressed pixels"):
        checked(data)
    small = made_png(ROWS + bytes(1 << 21))  # few enough bytes to pass for a picture
    assert checked(small) == small
    assert find_fault(small) == "it has more pixel data than a 31x17 8-bit PNG needs"
    assert time.process_time() - began < 0.2


def test_damage_inside_a_png_is_found() -> None:
    good = encoded("RGB")
    assert find_fault(good) is None
    assert find_fault(encoded("P")) is None
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    assert "checksum" in str(find_fault(bytes(flipped)))
    assert find_fault(made_png(ROWS[: len(ROWS) // 2])) == "pixel rows are missing"
    wrong = bytearray(ROWS)
    wrong[94 * 5] = 9
    assert find_fault(made_png(bytes(wrong))) == "row 5 has filter type 9; there are 0 to 4"
    broken = chunk(b"IDAT", b"no zlib stream")
    assert "cannot be decompressed" in str(find_fault(made_png(ROWS, extra=broken)))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 5), (31, 17)])
def test_interlaced_pixels_are_counted(size: tuple[int, int]) -> None:
    """As many bytes as Pillow takes from such a file, no more and no fewer."""
    width, height = size
    passes = [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]
    rows = b""
    for x, y, right, down in passes:
        across, high = len(range(x, width, right)), len(range(y, height, down))
        rows += (b"\0" + b"\7" * across * 3) * high if across else b""
    data = made_png(rows, size=size, interlaced=1)
    with Image.open(io.BytesIO(data)) as image:
        assert np.asarray(image).tolist() == [[[7, 7, 7]] * width] * height
    assert find_fault(data) is None
    assert find_fault(made_png(rows[:-1], size=size, interlaced=1)) == "pixel rows are missing"
    assert "more pixel data" in str(find_fault(made_png(rows + b"\0", size=size, interlaced=1)))


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize(("bits", "colour"), [(1, 0), (8, 0), (2, 3), (8, 2), (16, 0), (8, 4), (8, 6)])
def test_every_kind_of_png_is_decoded_as_pillow_decodes_it(bits: int, colour: int, interlaced: int) -> None:
    """Pixels are decompressed by ffenc, which looks for faults; what the decoder gives stays the same."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    lines = [(8, 8)] if not interlaced else [(1, 1), (1, 1), (1, 2), (2, 2), (2, 4), (4, 4), (4, 8)]
    rng = np.random.default_rng(0)
    rows = b"".join(
        bytes([number % 5]) + rng.bytes((width * bits * channels + 7) // 8)
        for high, width in lines
        for number in range(high)
    )
    palette = chunk(b"PLTE", rng.bytes(12)) if colour == 3 else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, bits, colour, 0, 0, interlaced))
    packed = zlib.compress(rows)
    pixels = chunk(b"IDAT", packed[:9]) + chunk(b"IDAT", packed[9:])
    data = b"\x89PNG\r\n\x1a\n" + header + palette + pixels + chunk(b"IEND", b"")
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image if bits == 16 else image.convert("RGB"))
    np.testing.assert_array_equal(decode_image(data, "x"), expected)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda: encoded("RGB")[:-20], "cut short"),
        (lambda: made_png(ROWS[: len(ROWS) // 2]), "pixel rows are missing"),
        (lambda: made_png(ROWS + b"more"), "more pixel data"),
        (lambda: made_png(ROWS[: 94 * 5] + b"\t" + ROWS[94 * 5 + 1 :]), "row 5 has filter type 9"),
        (lambda: made_png(ROWS).replace(zlib.compress(ROWS), zlib.compress(ROWS)[:-1] + b"\0"), "checksum"),
    ],
    ids=["cut", "rows", "more", "filter", "flipped"],
)
def test_an_image_that_is_decoded_has_its_fault_named(spoil: Callable[[], bytes], fault: str) -> None:
    with pytest.raises(SourceError, match=f"frame 7: the image is damaged: .*{fault}"):
        decode_image(spoil(), "frame 7")


def test_a_program_that_returns_too_few_pictures_is_an_error(toolchain: Toolchain) -> None:
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "4x2", "-i", "pipe:0", "-f", "rawvideo"]
    sent = [bytes([value]) * 24 for value in (1, 2)]
    command = [toolchain.ffmpeg, "-nostdin", *raw, "pipe:1"]
    assert rgb_pictures(command, sent, 2, width=4, height=2)[:, 0, 0, 0].tolist() == [1, 2]
    command = [toolchain.ffmpeg, "-nostdin", *raw, "-frames:v", "1", "pipe:1"]
    with pytest.raises(FfmpegError, match="gave 24 bytes instead of 2 frames of 4x2"):
        rgb_pictures(command, sent, 2, width=4, height=2)
