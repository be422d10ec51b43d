"""Folders of frames."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffenc import FfencWarning, SourceError, VideoEncoderConfig, encode
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.sources import ImageFiles, files_fingerprint, image_files
from tests.conftest import DEPTH, TOP


def folder_of(root: Path, names: list[str], data: bytes) -> Path:
    root.mkdir(exist_ok=True)
    for name in names:
        (root / name).write_bytes(data)
    return root


def test_frames_come_in_the_order_of_their_numbers(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    folder = folder_of(tmp_path / "f", [f"frame_{i}.png" for i in range(12)], images[TOP][0])
    folder_of(folder, ["notes.txt", ".hidden.png"], b"")
    assert [p.name for p in image_files(folder).paths] == [f"frame_{i}.png" for i in range(12)]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "holds no PNG, JPEG or TIFF"),
        (["frame-0.png", "frame-2.png"], r"frame 1 is missing \(after frame-0.png comes frame-2.png\)"),
        (["frame-0.png", "frame-4.png"], "frames 1 to 3 are missing"),
        (["frame-5.png", "frame-6.png"], "frames 0 to 4 are missing.*start_number=5"),
        (["frame-0.png", "frame-00.png"], "the same frame number 0"),
        (["a-0.png", "b-1.png"], "named differently"),
        (["frame.png"], "no frame number"),
        (["frame-0.png", "frame-1.jpg"], "PNG and JPEG"),
    ],
)
def test_a_doubtful_numbering_is_refused(
    tmp_path: Path, images: dict[str, list[bytes]], names: list[str], said: str
) -> None:
    with pytest.raises(SourceError, match=said):
        image_files(folder_of(tmp_path / "f", names, images[TOP][0]))


def test_a_start_number_can_be_said(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    folder = folder_of(tmp_path / "f", ["frame-5.png", "frame-6.png"], images[TOP][0])
    assert len(image_files(folder, start_number=5)) == 2
    with pytest.raises(SourceError, match="the first frame is frame-5.png, not number 0"):
        image_files(folder, start_number=0)


def test_frames_unlike_the_first_are_named(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    top, small = images[TOP][0], images["observation.images.angle"][0]
    for other, said in (
        (small, "160x120.*frame-0.png is a 320x240"),
        (top[:-4], "cut short"),
        (b"x", "not a PNG"),
    ):
        folder = folder_of(tmp_path / "f", ["frame-0.png"], top)
        (folder / "frame-1.png").write_bytes(other)
        with pytest.raises(SourceError, match=f"frame-1.png.*{said}"):
            image_files(folder).check()


def test_depth_frames_are_told_apart(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    tiff = folder_of(tmp_path / "f", ["frame-0.tiff"], images[DEPTH][0])
    header = image_files(tiff).check()
    assert (header.format, header.width, header.height, header.bits, header.depth) == (
        *("tiff", 160, 120, 16),
        True,
    )
    assert not image_files(folder_of(tmp_path / "g", ["0.png"], images[TOP][0])).check().depth
    mixed = folder_of(tmp_path / "h", ["frame-0.png"], images[TOP][0])
    (mixed / "frame-1.png").write_bytes(images[DEPTH][0])
    with pytest.raises(SourceError, match=r"frame-1\.png: is a 160x120 16-bit TIFF, but"):
        image_files(mixed).check()


def test_the_fingerprint_changes_with_a_file(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    folder = folder_of(tmp_path / "f", ["frame-0.png", "frame-1.png"], images[TOP][0])
    before = image_files(folder).fingerprint()
    assert image_files(folder).fingerprint() == before
    (folder / "frame-1.png").write_bytes(images[TOP][1])
    assert image_files(folder).fingerprint() != before


def test_a_file_that_goes_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gone\.png: cannot be read"):
        list(ImageFiles([tmp_path / "gone.png"]))


def test_depth_in_millimetres_and_in_metres_is_not_one_camera(tmp_path: Path) -> None:
    """The first frame says what the camera is in: 0.5 m among millimetres would become nothing."""
    folder = folder_of(tmp_path / "f", [], b"")
    for i in range(4):
        depth = np.full((32, 40), 0.5, np.float32) if i == 2 else np.full((32, 40), 500, np.uint16)
        Image.fromarray(depth).save(folder / f"frame-{i}.tiff")
    said = (
        r"frame-2\.tiff: is a 40x32 32-bit float TIFF, but .*frame-0\.tiff .*16-bit TIFF: .* all be integers"
    )
    with pytest.raises(SourceError, match=said):
        encode(folder, tmp_path / "out.mp4", fps=30)
    paths = sorted(folder.iterdir())
    with pytest.raises(SourceError, match=said):
        encode(paths, tmp_path / "out.mp4", fps=30)
    Image.fromarray(np.full((32, 40), 500, np.int32)).save(folder / "frame-2.tiff")  # millimetres too
    encode(folder, tmp_path / "out.mp4", fps=30)


def test_a_jpeg_named_png_is_read_as_what_it_is_and_told(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", ["frame-0.png", "frame-1.png"], jpeg())
    with pytest.warns(
        FfencWarning, match=r"frame-0\.png: is a 64x48 8-bit JPEG though its name ends in \.png"
    ):
        assert image_files(folder).check().format == "jpeg"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image_files(folder_of(tmp_path / "g", ["0.jpg", "1.jpg"], jpeg())).check()


def jpeg() -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(noise).resize((64, 48)).save(out, "JPEG", quality=90)
    return out.getvalue()


@pytest.mark.parametrize(
    ("toolchain", "victim"),
    [("newest", 0), ("newest", 1), ("newest", 4), ("system", 1)],
    indirect=["toolchain"],
)
def test_a_jpeg_damaged_in_its_scan_is_named(toolchain: Toolchain, tmp_path: Path, victim: int) -> None:
    good = jpeg()
    at = good.index(b"\xff\xda") + 60
    folder = folder_of(tmp_path / "f", [f"frame-{i}.jpg" for i in range(6)], good)
    (folder / f"frame-{victim}.jpg").write_bytes(good[: at + 300] + good[-2:])  # its header and end are whole
    programs = {"ffmpeg": toolchain.ffmpeg, "ffprobe": toolchain.ffprobe}
    with pytest.raises(SourceError, match=rf"frame-{victim}\.jpg: the image is damaged: [^\[]*; restore"):
        encode(folder, tmp_path / "out.mp4", fps=30, config=VideoEncoderConfig(vcodec="h264"), **programs)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_file_that_disappears_is_named(tmp_path: Path) -> None:
    path = tmp_path / "frame-000000.png"
    with pytest.raises(SourceError, match="frame-000000.png: cannot be read: No such file"):
        files_fingerprint([path])
