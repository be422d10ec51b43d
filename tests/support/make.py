"""What tests make their sources of."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from ffenc.frames.sources import ImageFiles
from ffenc.recording.cameras import TestPattern

RGB = ["top", "angle"]
H264 = [(("camera_encoder", "vcodec"), "h264")]


def png_with(image: bytes, fault: str) -> bytes:
    """A PNG with damage in its first piece of pixels."""
    at = image.index(b"IDAT")
    length = struct.unpack(">I", image[at - 4 : at])[0]
    body = bytearray(image[at + 4 : at + 4 + length])
    if fault == "flipped bit":
        body[length // 2] ^= 4
        return image[: at + 4] + bytes(body) + image[at + 4 + length :]
    if fault == "short data, right checksum":
        del body[length // 2 :]
    if fault == "flipped bit, right checksum":
        body[length // 2] ^= 4
    crc = struct.pack(">I", zlib.crc32(b"IDAT" + body))
    return (
        image[: at - 4]
        + struct.pack(">I", len(body))
        + b"IDAT"
        + bytes(body)
        + crc
        + image[at + 8 + length :]
    )


def drop_camera(root: Path, key: str) -> None:
    """Take a camera out of a dataset of one file of rows, as if it had never had it."""
    shutil.rmtree(root / "videos" / key, ignore_errors=True)
    for name in ("info", "stats"):
        path = root / f"meta/{name}.json"
        content = json.loads(path.read_text())
        del (content["features"] if name == "info" else content)[key]
        path.write_text(json.dumps(content, indent=4))
    [path] = (root / "meta/episodes").rglob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(table.drop_columns([n for n in table.column_names if f"/{key}/" in n]), path)
    [path] = (root / "data").rglob("*.parquet")
    if key in (table := pq.read_table(path)).column_names:
        described = json.loads(table.schema.metadata[b"huggingface"])
        del described["info"]["features"][key]
        rows = table.drop_columns([key]).replace_schema_metadata({"huggingface": json.dumps(described)})
        pq.write_table(rows, path)


def numbered_images(folder: Path, suffix: str, count: int = 3, **save) -> list[bytes]:
    """Image files of the numbered test pattern; returns what they hold."""
    folder.mkdir()
    camera = TestPattern("a", width=64, height=48)
    for i in range(count):
        Image.fromarray(camera.read(0)["a"].data).save(folder / f"frame-{i:06d}{suffix}", **save)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def image_files(folder: Path, data: list[bytes]) -> ImageFiles:
    """Write images as files that are read in their order."""
    folder.mkdir()
    paths = [folder / f"frame-{i:06d}.png" for i in range(len(data))]
    for path, image in zip(paths, data, strict=True):
        path.write_bytes(image)
    return ImageFiles(paths)
