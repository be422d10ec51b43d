"""Comparisons with a source, against the same numbers from numpy and Pillow."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffenc import (
    DepthEncoderConfig,
    DepthQuantizer,
    SourceError,
    VideoEncoderConfig,
    VideoReader,
    encode,
    reencode_dataset,
    verify_dataset,
)
from ffenc.errors import Cancelled, ToolchainError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.probe import probe
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.clip import Clip
from ffenc.frames.compare import compare_episode
from ffenc.frames.sources import ImageFiles
from tests.conftest import (
    DEPTH,
    FIXTURES,
    LENGTHS,
    TOP,
    decode,
    find_toolchain,
    newest_only,
    pixels,
    starts,
)

VIDEOS = FIXTURES / "aloha_video_v30/videos"
TOP_FILE = VIDEOS / TOP / "chunk-000/file-000.mp4"
DEPTH_FILE = VIDEOS / DEPTH / "chunk-000/file-000.mp4"
CODES = DepthQuantizer()


def excerpt(path: Path, first: int, frames: int) -> Clip:
    return Clip(path, probe(path, times=True), first, frames)


def files(folder: Path, data: list[bytes], suffix: str) -> ImageFiles:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"frame-{i:06d}{suffix}" for i in range(len(data))]
    for path, image in zip(paths, data, strict=True):
        path.write_bytes(image)
    return ImageFiles(paths)


def as_png(frame: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(frame).save(out, "PNG")
    return out.getvalue()


def expected(shown: np.ndarray, wanted: np.ndarray) -> tuple[float, float, int]:
    """PSNR of the episode, the worst frame's, and which that is."""
    errors = ((shown.astype(np.float64) - wanted) ** 2).mean(axis=(1, 2, 3))
    return (
        10 * math.log10(255**2 / errors.mean()),
        10 * math.log10(255**2 / errors.max()),
        int(errors.argmax()),
    )


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory, images: dict[str, list[bytes]]) -> Path:
    """All RGB frames of the sample in one strongly compressed file with few key frames and B-frames."""
    folder = tmp_path_factory.mktemp("encoded")
    source = files(folder / "top", images[TOP], ".png")
    config = VideoEncoderConfig(vcodec="h264", g=30, crf=40)
    newest = find_toolchain("newest")
    encode(
        source.paths, folder / "top.mp4", fps=30, config=config, ffmpeg=newest.ffmpeg, ffprobe=newest.ffprobe
    )
    return folder / "top.mp4"


@pytest.mark.parametrize(
    ("toolchain", "episode"),
    [("newest", 0), ("newest", 1), ("newest", 2), ("system", 1)],
    indirect=["toolchain"],
)
def test_images_give_the_psnr_that_numpy_gives(
    toolchain: Toolchain, tmp_path: Path, images: dict[str, list[bytes]], episode: int
) -> None:
    first, count = starts()[episode], LENGTHS[episode]
    source = files(tmp_path / "top", images[TOP][first : first + count], ".png")
    told: list[int] = []
    found = compare_episode(
        excerpt(TOP_FILE, first, count), source, header=source.check(), on_frames=told.append
    )
    wanted = np.stack([pixels(image) for image in images[TOP][first : first + count]])
    mean, low, worst = expected(decode(TOP_FILE)[first : first + count], wanted)
    assert found.frames == count
    assert found.psnr_mean == pytest.approx(mean, abs=0.01)
    assert found.psnr_min == pytest.approx(low, abs=0.01)
    assert found.worst == worst
    assert 0.7 < found.ssim_min <= found.ssim_mean < 0.95
    assert found.differing is found.max_difference is None
    assert told
    assert told[-1] == count


def test_another_video_gives_the_psnr_that_numpy_gives(toolchain: Toolchain, encoded: Path) -> None:
    count = LENGTHS[1]
    found = compare_episode(excerpt(encoded, starts()[1], count), excerpt(TOP_FILE, starts()[1], count))
    part = slice(starts()[1], starts()[1] + count)
    mean, low, worst = expected(decode(encoded)[part], decode(TOP_FILE)[part])
    assert found.psnr_mean == pytest.approx(mean, abs=0.01)
    assert found.psnr_min == pytest.approx(low, abs=0.01)
    assert found.worst == worst
    shifted = compare_episode(excerpt(encoded, starts()[1] + 1, count), excerpt(TOP_FILE, starts()[1], count))
    assert shifted.psnr_mean < found.psnr_mean - 0.5


def test_frames_of_a_video_are_identical_with_themselves(toolchain: Toolchain) -> None:
    found = compare_episode(excerpt(TOP_FILE, 41, 31), excerpt(TOP_FILE, 41, 31))
    assert found.psnr_mean == found.psnr_min == math.inf
    assert found.ssim_mean == found.ssim_min == 1


def test_frames_that_are_seconds_apart_are_compared(
    toolchain: Toolchain, tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    source = files(tmp_path / "top", images[TOP][:6], ".png")
    for fps in (0.3, 0.5):
        video = tmp_path / f"{fps}.mp4"
        encode(source.paths, video, fps=fps, config=VideoEncoderConfig(vcodec="h264", crf=20))
        found = compare_episode(excerpt(video, 0, 6), source, header=source.check())
        mean, low, worst = expected(decode(video), np.stack([pixels(image) for image in images[TOP][:6]]))
        assert (found.frames, found.worst) == (6, worst)
        assert found.psnr_mean == pytest.approx(mean, abs=0.01)
        assert found.psnr_min == pytest.approx(low, abs=0.01)


def test_one_sample_that_is_not_the_same_is_seen_and_its_frame_named(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    """The smallest difference there is; every other frame is identical, and the mean stays a number."""
    shown = decode(TOP_FILE)[24:41].copy()
    shown[11, 7, 9, 2] ^= 1
    source = files(tmp_path / "top", [as_png(frame) for frame in shown], ".png")
    found = compare_episode(excerpt(TOP_FILE, 24, 17), source, header=source.check())
    samples = 320 * 240 * 3
    assert found.worst == 11
    assert found.psnr_min == pytest.approx(10 * math.log10(255**2 * samples), abs=0.01)
    assert found.psnr_mean == pytest.approx(10 * math.log10(255**2 * samples * 17), abs=0.01)
    shown[11, :40, :40] //= 2
    source.paths[11].write_bytes(as_png(shown[11]))
    found = compare_episode(excerpt(TOP_FILE, 24, 17), source, header=source.check())
    assert found.worst == found.ssim_worst == 11
    assert 0.9 < found.ssim_min < found.ssim_mean < 1


def test_jpeg_images_are_shown_as_pillow_shows_them(
    toolchain: Toolchain, tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    data = []
    for image in images[TOP][:8]:
        out = io.BytesIO()
        Image.fromarray(pixels(image)).save(out, "JPEG", quality=95, subsampling=0)
        data.append(out.getvalue())
    source = files(tmp_path / "top", data, ".jpg")
    found = compare_episode(excerpt(TOP_FILE, 0, 8), source, header=source.check())
    mean, low, worst = expected(decode(TOP_FILE)[:8], np.stack([pixels(image) for image in data]))
    assert found.psnr_mean == pytest.approx(mean, abs=0.1)
    assert found.psnr_min == pytest.approx(low, abs=0.1)
    assert found.worst == worst


# ---- depth ---------------------------------------------------------------------------------------------


def test_lossless_depth_is_its_source_to_the_last_sample(
    toolchain: Toolchain, tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    source = files(tmp_path / "depth", images[DEPTH][24:41], ".tiff")
    video = excerpt(DEPTH_FILE, 24, 17)
    found = compare_episode(video, source, header=source.check(), quantizer=CODES)
    assert (found.frames, found.differing, found.max_difference) == (17, 0, 0)
    assert found.psnr_mean == math.inf
    assert math.isnan(found.ssim_mean)
    shifted = compare_episode(video, excerpt(DEPTH_FILE, 25, 17), quantizer=CODES)
    assert shifted.differing is not None
    assert shifted.differing > 10_000


def test_depth_samples_that_differ_are_counted_in_millimetres(
    tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    with VideoReader(DEPTH_FILE, depth=False) as reader:
        code = int(reader[29][60, 80])
    depths = [np.array(Image.open(io.BytesIO(image))) for image in images[DEPTH][24:41]]
    near, far = (float(CODES.dequantize(np.array([[c]]), output_unit="m")[0, 0]) for c in (code, code + 40))
    depths[5][60, 80] = round(far * 1000)
    source = files(tmp_path / "depth", [as_png(depth) for depth in depths], ".png")
    found = compare_episode(excerpt(DEPTH_FILE, 24, 17), source, header=source.check(), quantizer=CODES)
    assert found.differing == 1
    assert found.max_difference == pytest.approx((far - near) * 1000, abs=2.5)
    assert found.mean_difference == pytest.approx(found.max_difference / (17 * 160 * 120))
    assert found.farthest == 5
    assert found.worst == 5
    assert found.psnr_min == pytest.approx(10 * math.log10(4095**2 * 160 * 120 / 40**2), abs=0.3)


def test_millimetres_as_they_are_need_no_quantiser(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    newest = find_toolchain("newest")
    source = files(tmp_path / "depth", images[DEPTH][:6], ".tiff")
    config = DepthEncoderConfig(vcodec="ffv1", pix_fmt="gray16le", extra_options={})
    video = tmp_path / "depth.mp4"
    encode(source.paths, video, fps=30, config=config, ffmpeg=newest.ffmpeg, ffprobe=newest.ffprobe)
    wanted = {"header": source.check(), "candidates": [newest]}
    assert compare_episode(excerpt(video, 0, 6), source, **wanted).differing == 0
    changed = np.array(Image.open(source.paths[3]))
    changed[10, 20:23] = changed[10, 20:23] // 2 + 7
    before = np.array(Image.open(source.paths[3])).astype(int)
    Image.fromarray(changed).save(source.paths[3])
    found = compare_episode(excerpt(video, 0, 6), source, **wanted)
    assert found.differing == 3
    assert found.max_difference == np.abs(changed.astype(int) - before).max()
    assert found.worst == 3


# ---- what cannot be compared ---------------------------------------------------------------------------


def test_sides_that_are_not_alike_are_refused_by_name(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    source = files(tmp_path / "top", images[TOP][:5], ".png")
    small = files(tmp_path / "small", [as_png(pixels(image)[::2, ::2]) for image in images[TOP][:5]], ".png")
    depth = files(tmp_path / "depth", images[DEPTH][:5], ".tiff")
    top, codes = excerpt(TOP_FILE, 0, 5), excerpt(DEPTH_FILE, 0, 5)
    with pytest.raises(SourceError, match=r"file-000.mp4: .* has 6 frames, its source has 5 images"):
        compare_episode(excerpt(TOP_FILE, 0, 6), source, header=source.check())
    with pytest.raises(SourceError, match="frames are 320x240, those of its source are 160x120"):
        compare_episode(top, small, header=small.check())
    with pytest.raises(SourceError, match=r"has 72 frames, but the episode's are 70 to 74"):
        compare_episode(excerpt(TOP_FILE, 70, 5), source, header=source.check())
    with pytest.raises(SourceError, match="holds gray12le depth, its source is 160x120 8-bit PNG"):
        compare_episode(codes, small, header=small.check(), quantizer=CODES)
    with pytest.raises(
        SourceError, match="contains 12-bit depth codes, and it is not known how they were quantised"
    ):
        compare_episode(codes, depth, header=depth.check())


def test_damage_on_either_side_is_an_error(
    toolchain: Toolchain, tmp_path: Path, images: dict[str, list[bytes]], no_ffmpeg_left: None
) -> None:
    source = files(tmp_path / "top", images[TOP][:24], ".png")
    header = source.check()
    data = bytearray(images[TOP][9])
    data[len(data) // 2] ^= 255
    source.paths[9].write_bytes(data)
    with pytest.raises(SourceError, match="frame-000009.png: the image is damaged: checksum"):
        compare_episode(excerpt(TOP_FILE, 0, 24), source, header=header)
    source.paths[9].write_bytes(as_png(pixels(images[TOP][9])[:-2]))
    with pytest.raises(SourceError, match="frame-000009.png: is a 320x238"):
        compare_episode(excerpt(TOP_FILE, 0, 24), source, header=header)
    source.paths[9].write_bytes(images[TOP][9])
    video = bytearray(TOP_FILE.read_bytes())
    video[40_000:44_000] = bytes(4000)
    (tmp_path / "bad.mp4").write_bytes(video)
    with pytest.raises(SourceError, match="bad.mp4: frames 0 to 23 cannot be compared.*one of the two"):
        compare_episode(excerpt(tmp_path / "bad.mp4", 0, 24), source, header=header)


def test_damage_that_the_first_program_finds_is_not_concealed_by_the_next(
    tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    source = files(tmp_path / "top", images[TOP][41:], ".png")
    video = bytearray(TOP_FILE.read_bytes())
    at = len(video) * 2 // 3
    video[at : at + 100] = b"\xff" * 100  # FFmpeg 5.1 decodes all frames without an error
    (tmp_path / "bad.mp4").write_bytes(video)
    programs = [find_toolchain("newest"), find_toolchain("system")]
    with pytest.raises(SourceError, match="bad.mp4: frames 41 to 71 cannot be compared.*one of the two"):
        compare_episode(
            excerpt(tmp_path / "bad.mp4", 41, 31), source, header=source.check(), candidates=programs
        )


def test_a_program_without_the_decoder_is_passed_over(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    small = find_toolchain("newest")
    unable = Toolchain(small.ffprobe.replace("ffprobe", "ffmpeg"), small.ffprobe, "8.1")
    source = files(tmp_path / "top", images[TOP][:5], ".png")
    wanted = {"header": source.check()}
    able = find_toolchain("newest")
    found = compare_episode(excerpt(TOP_FILE, 0, 5), source, **wanted, candidates=[unable, able])
    assert found.frames == 5
    with pytest.raises(ToolchainError, match="cannot be compared with its source here"):
        compare_episode(excerpt(TOP_FILE, 0, 5), source, **wanted, candidates=[unable])


def test_a_comparison_can_be_ended(
    tmp_path: Path, images: dict[str, list[bytes]], no_ffmpeg_left: None
) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    source = files(tmp_path / "top", images[TOP][:5], ".png")
    depth = files(tmp_path / "depth", images[DEPTH][:5], ".tiff")
    with pytest.raises(Cancelled):
        compare_episode(excerpt(TOP_FILE, 0, 5), source, header=source.check(), cancellation=cancellation)
    with pytest.raises(Cancelled):
        compare_episode(
            excerpt(DEPTH_FILE, 0, 5),
            depth,
            header=depth.check(),
            quantizer=CODES,
            cancellation=cancellation,
        )


@newest_only
def test_pngs_of_mixed_modes_are_one_camera(toolchain: Toolchain, tmp_path: Path) -> None:
    """Gray, palette and alpha by turns: every frame is encoded, compared, and counted once."""
    rng = np.random.default_rng(0)
    frames = np.repeat(np.repeat(rng.integers(0, 256, (210, 4, 4, 3), np.uint8), 8, 1), 8, 2)
    folder = tmp_path / "tree/episode_0/top"
    folder.mkdir(parents=True)
    shown = []
    for i, frame in enumerate(frames):
        mode = ("RGB", "L", "P", "RGBA", "LA", "1")[i % 6]
        picture = Image.fromarray(frame).convert(mode)
        picture.save(folder / f"frame-{i:06d}.png")
        shown.append(np.asarray(picture.convert("RGB")))
    programs = {"ffmpeg": toolchain.ffmpeg, "ffprobe": toolchain.ffprobe}
    settings = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "crf"), 1)]
    reencode_dataset(tmp_path / "tree", tmp_path / "out", fps=30, overrides=settings, **programs)
    found = verify_dataset(tmp_path / "out", against=tmp_path / "tree", **programs)
    assert found.sound
    compared = found.cameras[0].compared
    assert compared is not None
    assert compared.frames == 210
    assert compared.psnr_min > 20  # colours of small dithered pixels are halved by 4:2:0
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())["observation.images.top"]
    assert stats["count"] == [105]
    np.testing.assert_allclose(np.ravel(stats["mean"]), np.stack(shown[::2]).mean((0, 1, 2)) / 255, atol=1e-6)
