"""Depth of compressed_depth_image_transport, PNG and RVL, against a decoder written from its C++ source."""

from __future__ import annotations

import struct
from functools import cache

import numpy as np
import pytest

from ffenc import SourceError
from ffenc.dataset.sources.ros_depth import compressed_depth, rvl
from ffenc.frames.depth_images import read_depth
from tests.support.recorded import inverse_depth, png, rvl_bytes, samples


def decoded(data: bytes) -> np.ndarray:
    """``RvlCodec::DecompressRVL``, number by number."""
    width, height = struct.unpack_from("<II", data)
    words = struct.unpack_from(f"<{len(data) // 4 - 2}I", data, 8)
    nibbles = iter([word >> shift & 15 for word in words for shift in range(28, -4, -4)])

    def number() -> int:
        value = shift = 0
        while True:
            nibble = next(nibbles)
            value |= (nibble & 7) << shift
            shift += 3
            if nibble < 8:
                return value

    pixels: list[int] = []
    previous = 0
    while len(pixels) < width * height:
        pixels += [0] * number()
        for _ in range(number()):
            positive = number()
            previous = (previous + ((positive >> 1) ^ -(positive & 1))) & 0xFFFF
            pixels.append(previous)
    return np.array(pixels, np.uint16).reshape(height, width)


MAPS = ("camera", "noise", "holes", "empty", "full", "one", "last")


@cache
def maps() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 65536, (31, 45)).astype(np.uint16)
    return {
        "camera": samples(2)[0].depth[0],
        "noise": noise,
        "holes": np.where(rng.random(noise.shape) < 0.5, 0, noise),
        "empty": np.zeros((3, 5), np.uint16),
        "full": np.full((4, 4), 65535, np.uint16),
        "one": np.array([[7]], np.uint16),
        "last": np.eye(8, dtype=np.uint16)[::-1] * 1200,
    }


@pytest.mark.parametrize("name", MAPS)
def test_rvl_is_what_the_reference_decodes(name: str) -> None:
    given = maps()[name]
    data = rvl_bytes(given)
    assert np.array_equal(decoded(data), given)
    assert np.array_equal(rvl(data, "x"), given)
    for kind, image in (("rvl", data), ("png", png(given))):
        frame = compressed_depth(bytes(12) + image, f"16UC1; compressedDepth {kind}", "x")
        assert np.array_equal(read_depth(frame), given)


def test_metres_come_back_from_disparities() -> None:
    metres = samples(2)[0].depth[0].astype(np.float32) / 1000
    metres[0, :3] = np.nan, np.inf, 20.0  # which the transport makes holes of, like what is too far away
    header, codes = inverse_depth(metres, depth_max=10.0, quantization=100.0)
    a, b = struct.unpack_from("<ff", header, 4)
    wanted = np.array([[a / (float(c) - b) if c else 0 for c in row] for row in codes.tolist()])
    for kind, image in (("rvl", rvl_bytes(codes)), ("png", png(codes))):
        frame = compressed_depth(header + image, f"32FC1; compressedDepth {kind}", "x")
        shown = read_depth(frame)
        assert shown.dtype == np.float32
        assert np.allclose(shown, wanted, rtol=1e-5)
        near = np.isfinite(metres) & (metres > 0.1) & (metres < 10)
        # a step of the codes is z^2 / a metres
        assert (np.abs(shown - metres)[near] <= metres[near] ** 2 / a * 1.01 + 1e-5).all()
        assert (shown[0, :3] == 0).all()


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (b"", "16UC1; compressedDepth rvl", "RVL begins with 8 bytes, and this has 0"),
        (struct.pack("<II", 1 << 30, 4), "16UC1; compressedDepth rvl", "is 1073741824x4; at most 16384"),
        (struct.pack("<II", 0, 4), "16UC1; compressedDepth rvl", "is 0x4"),
        (struct.pack("<II", 4, 4), "16UC1; compressedDepth rvl", "holds 0 pixels; expected 4x4"),
        (struct.pack("<III", 4, 4, 0xFFFFFFFF), "16UC1; compressedDepth rvl", "holds 0 pixels"),
        (struct.pack("<III", 4, 4, 0x70000000), "16UC1; compressedDepth rvl", "holds 7 pixels; expected 4x4"),
        (struct.pack("<III", 4, 1, 0x70000000), "16UC1; compressedDepth rvl", "holds more pixels; expected"),
        (struct.pack("<III", 9, 1, 0x09100000), "16UC1; compressedDepth rvl", "cut short|holds"),
        (b"AAAA", "16UC1; compressedDepth png", "and it contains no PNG"),
        (b"AAAA", "16UC1; compressedDepth zstd", "compressedDepth is read as PNG and RVL"),
    ],
)
def test_damaged_depth_is_named(data: bytes, kind: str, said: str) -> None:
    with pytest.raises(SourceError, match=f"^x: .*({said})"):
        compressed_depth(bytes(12) + data, kind, "x")


def test_numbers_that_make_no_distances_are_refused() -> None:
    codes = np.full((2, 2), 5, np.uint16)
    for a, b in ((0.0, 0.0), (1.0, 5.0), (float("nan"), 0.0), (1.0, 9.0)):
        with pytest.raises(SourceError, match="do not convert its codes to distances"):
            compressed_depth(
                struct.pack("<iff", 0, a, b) + rvl_bytes(codes), "32FC1; compressedDepth rvl", "x"
            )
