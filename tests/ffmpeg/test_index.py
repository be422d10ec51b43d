"""What is read in an MP4 file's index is what ffprobe reads."""

from __future__ import annotations

import stat
import subprocess
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ffenc import DepthEncoderConfig, SourceError, VideoEncoderConfig, probe
from ffenc.codecs.table import CODECS
from ffenc.compiler.command import compile_command
from ffenc.ffmpeg.boxes import sample_description
from ffenc.ffmpeg.index import PieceReader, VideoIndex, read_index
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.ffmpeg.process import run_fed
from ffenc.ffmpeg.toolchain import Toolchain
from tests.conftest import newest_program

CONFIGS = {
    "libsvtav1": VideoEncoderConfig(vcodec="libsvtav1"),
    "h264": VideoEncoderConfig(vcodec="h264"),
    "h264, B-frames": VideoEncoderConfig(vcodec="h264", g=5, extra_options={"bf": 3, "b_strategy": 0}),
    "hevc": VideoEncoderConfig(vcodec="hevc", g=6),
    "hevc, depth": DepthEncoderConfig(),
    "libaom-av1": VideoEncoderConfig(vcodec="libaom-av1", preset=8),
    "ffv1": VideoEncoderConfig(vcodec="ffv1"),
    "ffv1, depth": DepthEncoderConfig(vcodec="ffv1", pix_fmt="gray16le"),
}
LENGTHS = (7, 1, 4)


def encode(path: Path, config: VideoEncoderConfig, frames: int, toolchain: Toolchain) -> Path:
    """A piece as a job makes it, of 64x64 pixels that move."""
    pixels = np.kron(np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3), np.ones((8, 8, 1), np.uint8))
    shown = [np.roll(pixels, 3 * i, 0) for i in range(frames)]
    raw = "rgb24"
    if isinstance(config, DepthEncoderConfig):
        raw, shown = config.pix_fmt, [one[..., 0].astype("<u2") * 16 for one in shown]
    command = compile_command(
        *(config,),
        **{"width": 64, "height": 64, "fps": 30, "output": str(path), "frames": raw},
        encoder_threads=1,
        program=toolchain.ffmpeg,
    )
    run_fed(command, [one.tobytes() for one in shown])
    return path


def film(path: Path, *options: str, frames: int = 12, codec: str = "libx264") -> Path:
    """A file that others have made."""
    subprocess.run(
        [newest_program("ffmpeg"), "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25"]
        + ["-frames:v", str(frames), "-pix_fmt", "yuv420p", "-c:v", codec, *options, f"file:{path}"],
        check=True,
    )
    return path


def counting_ffprobe(folder: Path, real: str) -> tuple[str, Path]:
    """An ffprobe that writes a line for each of its starts; and where."""
    program, log = folder / "ffprobe", folder / "ffprobe.log"
    program.write_text(f'#!/bin/sh\necho "$@" >> "{log}"\nexec "{real}" "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    log.touch()
    return str(program), log


def unlike(one: StreamInfo, other: StreamInfo) -> dict[str, tuple[object, object]]:
    """Fields that differ."""
    names = StreamInfo.__struct_fields__
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def test_every_codec_that_runs_here_is_read() -> None:
    assert {config.vcodec for config in CONFIGS.values()} == {
        r.name for r in CODECS.values() if not r.hardware
    }


@pytest.mark.own_ffprobe
@pytest.mark.parametrize(
    ("toolchain", "name"),
    [
        (version, name)
        for version in ("system", "newest")
        for name in CONFIGS
        # FFmpeg 5.1 writes no FFV1 into MP4, and H.264 without B-frames as it does with them.
        if not (version == "system" and (name == "h264" or "ffv1" in name))
    ],
    indirect=["toolchain"],
)
def test_one_ffprobe_reads_all_pieces_of_an_encoder(toolchain: Toolchain, tmp_path: Path, name: str) -> None:
    """Those of one frame too, whose times say nothing of the delay that the stream declares."""
    program, log = counting_ffprobe(tmp_path, toolchain.ffprobe)
    reader = PieceReader(program)
    for frames in LENGTHS if toolchain.ffmpeg == newest_program("ffmpeg") else LENGTHS[:2]:
        path = encode(tmp_path / f"{frames}.mp4", CONFIGS[name], frames, toolchain)
        probed = probe(path, times=True, ffprobe=toolchain.ffprobe)
        assert unlike(reader.read(path), probed) == {}
        assert sample_description(path) == sample_description(tmp_path / f"{LENGTHS[0]}.mp4")
    assert len(log.read_text().splitlines()) == 1
    again = PieceReader(program).read(path)  # as in the next run
    assert again == probed
    assert len(log.read_text().splitlines()) == 1
    PieceReader(program, "another encoder").read(path)
    assert len(log.read_text().splitlines()) == 2


X265 = ("-x265-params", "bframes=3:b-adapt=0:keyint=5:min-keyint=5:scenecut=0:log-level=error")


@pytest.mark.parametrize(
    ("options", "codec"),
    [
        (("-bf", "3", "-b_strategy", "0", "-g", "5", "-x264-params", "open-gop=1"), "libx264"),
        ((X265[0], X265[1] + ":open-gop=1"), "libx265"),
        ((X265[0], X265[1] + ":open-gop=0:radl=2"), "libx265"),
        (("-tag:v", "hvc1", "-fflags", "+bitexact"), "libx265"),
        (("-video_track_timescale", "90000", "-movie_timescale", "90000"), "libx264"),
        (("-bf", "0", "-color_range", "pc", "-colorspace", "bt709", "-movflags", "+faststart"), "libx264"),
    ],
)
def test_what_others_wrote_in_the_same_way_is_read(
    tmp_path: Path, options: tuple[str, ...], codec: str
) -> None:
    path = film(tmp_path / "film.mp4", *options, codec=codec, frames=23)
    index, info = read_index(path), probe(path, times=True)
    assert index is not None
    assert unlike(index.info(path, info), info) == {}
    if "radl" in options[-1]:
        assert index.places.tolist() != sorted(index.places)
        assert info.leading == ()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fragments.mp4", ("-movflags", "+frag_keyframe+empty_moov", "-g", "5")),
        ("sound.mp4", ("-f", "lavfi", "-i", "sine=duration=0.4", "-c:a", "aac")),
        ("film.mkv", ()),
        ("stream.h264", ("-bsf:v", "h264_mp4toannexb")),
        ("late.mp4", ("-output_ts_offset", "0.4")),
    ],
)
def test_what_is_laid_out_otherwise_is_left_to_ffprobe(
    tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    path = film(tmp_path / name, *options) if "sine" not in " ".join(options) else None
    if path is None:
        path = tmp_path / name
        command = [newest_program("ffmpeg"), "-v", "error", "-i", str(film(tmp_path / "silent.mp4"))]
        subprocess.run([*command, *options, "-c:v", "copy", str(path)], check=True)
    assert read_index(path) is None
    if path.suffix != ".h264":  # a stream without a container has no times
        reader = PieceReader(newest_program("ffprobe"))
        assert unlike(reader.read(path), probe(path, times=True)) == {}


def test_frames_that_an_edit_list_leaves_out_are_left_to_ffprobe(tmp_path: Path) -> None:
    whole = film(tmp_path / "whole.mp4", "-g", "10", "-bf", "0")
    cut = tmp_path / "cut.mp4"
    command = [
        newest_program("ffmpeg"),
        "-v",
        "error",
        "-ss",
        "0.2",
        "-i",
        str(whole),
        "-c",
        "copy",
        str(cut),
    ]
    subprocess.run(command, check=True)
    assert read_index(cut) is None
    info = PieceReader(newest_program("ffprobe")).read(cut)
    assert info == probe(cut, times=True)
    assert info.hidden == 5


def test_a_pixel_format_that_changes_is_asked_ffprobe(tmp_path: Path) -> None:
    program, log = counting_ffprobe(tmp_path, newest_program("ffprobe"))
    reader = PieceReader(program)
    found = [
        reader.read(film(tmp_path / f"{i}.mp4", "-pix_fmt", fmt, frames=2)).pix_fmt
        for i, fmt in enumerate(("yuv420p", "yuv420p", "yuv444p", "yuv420p", "yuv444p"))
    ]
    assert found == ["yuv420p", "yuv420p", "yuv444p", "yuv420p", "yuv444p"]
    assert len(log.read_text().splitlines()) == 2
    turned = tmp_path / "turned.mp4"
    command = [
        newest_program("ffmpeg"),
        "-v",
        "error",
        "-display_rotation",
        "90",
        "-i",
        str(tmp_path / "0.mp4"),
    ]
    subprocess.run([*command, "-c", "copy", str(turned)], check=True)
    assert abs(reader.read(turned).rotation) == 90
    assert sample_description(turned) != sample_description(tmp_path / "0.mp4")


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("piece") / "piece.mp4", "-bf", "2", "-b_strategy", "0", "-g", "6")


def box(content: bytes, kind: bytes) -> int:
    """Where a box's content begins."""
    return content.index(kind) + 4


@pytest.mark.parametrize(
    ("kind", "at", "value", "said"),
    [
        (b"stsz", 8, 13, r"stsz says 13 entries, and has 56 bytes"),
        (b"stsz", 12, 1 << 30, r"stsz says \d+ bytes of frames, but there are \d+"),
        (b"stsz", 4, 1 << 20, r"stsz says 12 frames of 1048576 bytes, but there are"),
        (b"stts", 8, 11, r"stts is of 11 frames, stsz of 12"),
        (b"stts", 8, 0xFFFFFFFF, r"stts is of 4294967295 frames, stsz of 12"),
        (b"ctts", 8, 7, r"ctts is of 18 frames, stsz of 12"),
        (b"stss", 8, 13, r"stss does not list frames of 1 to 12, ascending"),
        (b"stss", 8, 0, r"stss does not list frames of 1 to 12, ascending"),
        (b"stsc", 12, 11, r"stsc is of 11 frames, stsz of 12"),
        (b"stsc", 8, 2, r"stsc does not say how many frames each of 1 chunks has"),
        (b"stco", 8, 1 << 30, r"stco places frames outside the bytes \d+ to \d+"),
        (b"mdhd", 12, 0, r"mdhd says 0 ticks a second"),
        (b"elst", 4, 3, r"elst says 3 entries, and has 20 bytes"),
        (b"stbl", -8, 7, r"stbl at byte \d+ says that it has 7 bytes"),
        (b"stbl", -8, 1 << 20, r"stbl ends \d+ bytes after the end of its parent box"),
        (b"stts", -4, 0x73747A7A, r"stts is missing"),
        (b"mdat", -8, 1 << 20, r"the file ends \d+ bytes before its mdat box does"),
    ],
)
def test_a_damaged_index_is_named(
    tmp_path: Path, piece: Path, kind: bytes, at: int, value: int, said: str
) -> None:
    content = bytearray(piece.read_bytes())
    place = box(content, kind) + at
    content[place : place + 4] = value.to_bytes(4, "big")
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    if said == "stts is missing":  # a box that is not known here is ffprobe's to judge
        assert read_index(path) is None
        return
    tracemalloc.start()
    with pytest.raises(SourceError, match=rf"damaged\.mp4: its index is damaged: {said}"):
        read_index(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_no_flipped_byte_and_no_cut_is_worse_than_an_error(tmp_path: Path, piece: Path) -> None:
    whole = piece.read_bytes()
    path = tmp_path / "flipped.mp4"
    path.write_bytes(whole)
    refused = 0

    def read() -> VideoIndex | None:
        nonlocal refused
        sample_description(path)
        try:
            return read_index(path)
        except SourceError:
            refused += 1
            return None

    with path.open("r+b", buffering=0) as file:
        for at in (*range(64), *range(whole.index(b"moov"), len(whole))):
            file.seek(at)
            file.write(bytes([whole[at] ^ (0xFF, 0x01)[at % 2]]))
            found = read()
            assert found is None or len(found.times) == 12
            file.seek(at)
            file.write(whole[at : at + 1])
        for end in range(len(whole) - 1, -1, -7):
            file.truncate(end)
            assert read() is None
    assert refused > 300


def test_a_file_that_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.mp4 cannot be opened: No such file"):
        read_index(tmp_path / "none.mp4")
    with pytest.raises(SourceError, match=r"is a folder|directory"):
        read_index(tmp_path)


def test_a_long_file_is_read_in_a_moment(tmp_path: Path) -> None:
    path = film(tmp_path / "long.mp4", "-preset", "ultrafast", "-bf", "2", frames=3000)
    index, info = read_index(path), probe(path, times=True)
    assert index is not None
    assert index.fps == Fraction(25)
    assert unlike(index.info(path, info), info) == {}
