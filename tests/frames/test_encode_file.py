"""A video becomes a video frame for frame: each frame's samples and time, on both FFmpegs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest

from ffenc import (
    ConfigError,
    DepthEncoderConfig,
    DestinationError,
    FfencWarning,
    SourceError,
    ToolchainError,
    VideoEncoderConfig,
    VideoReader,
    encode,
    probe,
    verify_dataset,
)
from ffenc.compiler.packets import compile_header_trace
from ffenc.ffmpeg.process import run_fed
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.encode_file import plan_encode
from ffenc.frames.publish import claimed
from ffenc.frames.trim import trimmed
from tests.conftest import (
    DEPTH,
    FIXTURES,
    TOP,
    everything_in,
    find_toolchain,
    newest_only,
    newest_program,
    system_program,
)

VIDEOS = FIXTURES / "aloha_video_v30/videos"
TOP_FILE = VIDEOS / f"{TOP}/chunk-000/file-000.mp4"
DEPTH_FILE = VIDEOS / f"{DEPTH}/chunk-000/file-000.mp4"
LOSSLESS = VideoEncoderConfig(vcodec="h264", crf=0, preset="veryfast")
QUICK = VideoEncoderConfig(vcodec="h264", preset="ultrafast")
FRAMES = 72
SIZE = "96x64"
B_FRAMES = ("-c:v", "libx264", "-crf", "12", "-bf", "3", "-g", "12")
HEVC = ("-c:v", "libx265", "-preset", "veryfast")
NTSC = Fraction(30000, 1001)

# name -> frames a second, whether the first frame comes later than 1 s, options of ffmpeg's
SOURCES = {
    "b-frames.mp4": ("30", 0, B_FRAMES),
    "open-gop.mp4": ("25", 0, (*B_FRAMES, "-x264-params", "open-gop=1:b-adapt=0", "-g", "9")),
    "ntsc.mp4": ("30000/1001", 0, B_FRAMES),
    "film.ts": ("24000/1001", 1, B_FRAMES),
    "later.mp4": ("30", 1, (*B_FRAMES, "-output_ts_offset", "1.25")),
    "dotted.mp4": ("29.97", 0, (*B_FRAMES, "-video_track_timescale", "2997")),
    "hevc.mkv": (
        "25",
        0,
        ("-c:v", "libx265", "-preset", "veryfast", "-x265-params", "log-level=error:bframes=3:keyint=15"),
    ),
}


BORDERS = {
    "b-frames.mp4": [(7, 30), (29, 71), (11, 12)],
    "open-gop.mp4": [(7, 30), (29, 71), (17, 18)],
    "ntsc.mp4": [(29, 71)],
    "film.ts": [(7, 30), (11, 12)],
    "later.mp4": [(29, 71)],
    "dotted.mp4": [(7, 30)],
    "hevc.mkv": [(29, 71), (14, 15)],
}
WHOLE_BY_SYSTEM = ("b-frames.mp4", "film.ts")  # of the others a part, which is read by the same demuxers


def run(*words: object, data: bytes | None = None, find: Callable[[str], str] = newest_program) -> bytes:
    command = [find("ffmpeg"), "-v", "error", "-y", *map(str, words)]
    return subprocess.run(command, input=data, check=True, stdout=subprocess.PIPE).stdout


@pytest.fixture(scope="session")
def raw() -> bytes:
    """The sample's camera frames as yuv420p samples, small: what is looked at is which comes when."""
    return run("-i", TOP_FILE, "-s", SIZE, "-f", "rawvideo", "-pix_fmt", "yuv420p", "pipe:1")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> Path:
    """The sample's camera in several containers, at several rates, with B-frames."""
    folder = tmp_path_factory.mktemp("made")
    for name, (rate, _, options) in SOURCES.items():
        feed = ("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", SIZE, "-framerate", rate, "-i", "pipe:0")
        run(*feed, *options, folder / name, data=raw)
    return folder


def sums(path: Path) -> list[str]:
    """MD5 of the samples of every frame, in order, whatever its time."""
    found = path.stat()
    return _sums(path, (found.st_ino, found.st_size, found.st_mtime_ns))


@lru_cache(maxsize=32)
def _sums(path: Path, _version: tuple[int, ...]) -> list[str]:
    listed = run("-i", path, "-fps_mode", "passthrough", "-f", "framemd5", "pipe:1").decode()
    return [line.rpartition(",")[2].strip() for line in listed.splitlines() if not line.startswith("#")]


def grid(fps: Fraction, count: int) -> list[Fraction]:
    return [i / fps for i in range(count)]


def times(path: Path) -> list[Fraction]:
    info = probe(path, times=True, ffprobe=newest_program("ffprobe"))
    assert info.times is not None
    return [ticks * info.time_base for ticks in info.times]


# Rates and starts are ffenc's own arithmetic: the system's FFmpeg gets each demuxer and order of frames.
@pytest.mark.own_ffprobe
@pytest.mark.parametrize(
    ("toolchain", "name"),
    [
        *(("newest", name) for name in SOURCES),
        *(("system", name) for name in ("b-frames.mp4", "open-gop.mp4", "film.ts", "hevc.mkv")),
    ],
    indirect=["toolchain"],
)
def test_every_frame_comes_once_and_at_its_time(
    toolchain: Toolchain, made: Path, tmp_path: Path, name: str, no_ffmpeg_left: None
) -> None:
    rate, first, _ = SOURCES[name]
    fps, output = Fraction(rate), tmp_path / "out.mp4"
    expected = sums(made / name)
    assert len(set(expected)) == len(expected) == FRAMES
    newest = toolchain == find_toolchain("newest")
    if newest or name in WHOLE_BY_SYSTEM:
        counts: list[int] = []
        info = encode(made / name, output, config=LOSSLESS, on_frames=counts.append)
        assert (info.fps, info.frames) == (fps, FRAMES)
        assert times(output) == grid(fps, FRAMES)
        assert sums(output) == expected
        assert counts[-1] == FRAMES
        assert everything_in(tmp_path) == ["out.mp4"]

    # From an odd frame, behind a key frame, until before another; frames' own times are the borders.
    source = times(made / name)
    assert (source[0] >= 1) == bool(first)
    for a, b in BORDERS[name] if newest else BORDERS[name][:1]:
        encode(
            made / name,
            output,
            config=LOSSLESS,
            start=float(source[a]),
            end=float(source[b]),
            overwrite=True,
        )
        assert sums(output) == expected[a:b], (a, b)
        assert times(output) == grid(fps, b - a)


@pytest.mark.parametrize(
    ("start", "end", "first", "last"),
    [
        (None, None, 0, 72),
        (0, 2.4, 0, 72),
        (0.5, None, 15, 72),
        (None, 0.5, 0, 15),
        (0.5000005, 0.9999995, 15, 30),  # as near as rounding: the frames at 0.5 and 1.0
        (0.4999995, 1.0000005, 15, 30),
        (0.500002, 1.000002, 16, 31),
        (0.499998, 0.999998, 15, 30),
        (7 / 30, 8 / 30, 7, 8),
        (0.233333, 0.266667, 7, 8),  # as printed
        (0.21, 0.29, 7, 9),
        (2.38, None, 72, 72),
        (71 / 30, 2.4, 71, 72),
    ],
)
def test_a_range_holds_the_frames_from_its_start_until_before_its_end(
    made: Path, tmp_path: Path, start: float | None, end: float | None, first: int, last: int
) -> None:
    output = tmp_path / "out.mp4"
    source = TOP_FILE if last - first < 15 else made / "b-frames.mp4"
    if first == last:
        with pytest.raises(ConfigError, match=r"there is no frame at 2\.38 s or later"):
            encode(source, output, config=QUICK, start=start, end=end)
        return
    encode(source, output, config=LOSSLESS, start=start, end=end)
    assert sums(output) == sums(source)[first:last]
    assert times(output) == grid(Fraction(30), last - first)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"start": 1.0, "end": 1.0}, "start=1.0 is not before end=1.0"),
        ({"start": 2, "end": 1}, "start=2 is not before end=1"),
        ({"start": -0.1}, "start=-0.1 is before the file's start"),
        ({"end": -1.0}, "end=-1.0 is before the file's start"),
        ({"start": float("nan")}, "start=nan is not a time"),
        ({"end": float("inf")}, "end=inf is not a time"),
        ({"start": "1"}, "start='1' is not a time"),
        ({"end": True}, "end=True is not a time"),
        ({"start": 5}, r"start=5.0 is outside the video: .* from 0\.000000 s to 2\.400000 s"),
        ({"end": 2.5}, r"end=2\.5 is outside the video: .* from 0\.000000 s to 2\.400000 s"),
        ({"start": 2.4}, "there is no frame at 2.4 s or later"),
        ({"end": 0}, "there is no frame at 0 s or later and before 0 s"),
        ({"start": 0.51, "end": 0.52}, "there is no frame at 0.51 s or later and before 0.52 s"),
        ({"start_number": 1}, "start_number applies to a folder"),
        ({"fps": 0}, "fps: 0 is not a frame rate"),
        ({"config": DepthEncoderConfig()}, "holds yuv420p, which is not depth"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(
    tmp_path: Path, words: dict[str, object], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        encode(TOP_FILE, tmp_path / "out.mp4", **words)
    assert everything_in(tmp_path) == []


def test_images_need_a_rate_and_have_no_times(tmp_path: Path, images: dict[str, list[bytes]]) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "0.png").write_bytes(images[TOP][0])
    with pytest.raises(ConfigError, match="pass fps"):
        encode(folder, tmp_path / "out.mp4")
    for bad, said in (({"config": {"crf": 3}}, "config: .* a VideoEnc"), ({"transform": {}}, "a Transform")):
        with pytest.raises(ConfigError, match=said):
            encode(DEPTH_FILE, tmp_path / "out.mp4", **bad)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="start and end apply to a video"):
        encode(folder, tmp_path / "out.mp4", fps=30, end=1)
    with pytest.raises(SourceError, match="is one image; name a folder"):
        encode(folder / "0.png", tmp_path / "out.mp4")
    assert everything_in(tmp_path) == ["frames", "frames/0.png"]


def uneven(raw: bytes, path: Path, expression: str) -> Path:
    feed = ("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", SIZE, "-framerate", "30", "-i", "pipe:0")
    passed = ("-fps_mode", "passthrough", "-enc_time_base", "1:90000", "-video_track_timescale", "90000")
    run(*feed, "-vf", f"settb=1/90000,{expression}", *passed, *B_FRAMES, path, data=raw)
    return path


UNEVEN = {
    "dropped": ("select='not(eq(n,20))'", 20, "0.700000"),
    "a jump of 0.111 ms": ("setpts='if(gte(N,40),N*3000+10,N*3000)'", 40, "1.333444"),
    "variable": ("setpts='N*3000+1500*mod(N,2)*gte(N,30)'", 31, "1.050000"),
}


@pytest.mark.parametrize(
    ("toolchain", "how"),
    [*(("newest", how) for how in UNEVEN), ("system", "dropped")],
    indirect=["toolchain"],
)
def test_frames_that_are_not_evenly_spaced_need_a_rate_to_be_put_at(
    toolchain: Toolchain, tmp_path: Path, raw: bytes, how: str
) -> None:
    expression, frame, at = UNEVEN[how]
    source, output = uneven(raw, tmp_path / "uneven.mp4", expression), tmp_path / "out.mp4"
    with pytest.raises(SourceError, match=rf"frame {frame} is at {at} s: .*; expected .* fps=RATE"):
        encode(source, output, config=LOSSLESS)
    assert everything_in(tmp_path) == ["uneven.mp4"]
    info = encode(source, output, config=LOSSLESS, fps=30)
    expected = sums(source)
    assert info.frames == len(expected)
    assert sums(output) == expected
    assert times(output) == grid(Fraction(30), len(expected))
    if toolchain != find_toolchain("newest"):
        return
    # What is even of it needs none, and has the rate that the file has.
    assert encode(source, output, config=QUICK, end=0.6, overwrite=True).fps == 30
    start = float(times(source)[frame + 1])
    if "mod" not in expression:
        encode(source, output, config=LOSSLESS, start=start, overwrite=True)
        assert sums(output) == expected[frame + 1 :]
        assert times(output) == grid(Fraction(30), len(expected) - frame - 1)


def test_jitter_that_lerobots_reader_allows_is_no_variable_rate(tmp_path: Path, raw: bytes) -> None:
    source = uneven(raw, tmp_path / "jitter.mp4", "setpts='N*3000+8*mod(N,2)'")  # 0.089 ms
    encode(source, tmp_path / "out.mp4", config=LOSSLESS)
    assert times(tmp_path / "out.mp4") == grid(Fraction(30), FRAMES)
    assert sums(tmp_path / "out.mp4") == sums(source)


@pytest.mark.parametrize("rate", ["15", "30", "30000/1001", "60"])
def test_times_that_a_container_rounds_to_its_ticks_are_no_variable_rate(tmp_path: Path, rate: str) -> None:
    source, output = tmp_path / "source.mkv", tmp_path / "out.mp4"
    run("-f", "lavfi", "-i", f"testsrc=s=64x48:r={rate}", "-frames:v", "40", *B_FRAMES, source)
    assert encode(source, output, config=QUICK).fps == Fraction(rate)
    assert times(output) == grid(Fraction(rate), 40)
    dropped = tmp_path / "dropped.mkv"
    run("-i", source, "-vf", "select='not(eq(n,20))'", "-fps_mode", "passthrough", "-c:v", "ffv1", dropped)
    with pytest.raises(SourceError, match=r"frame 20 is at .* not evenly spaced"):
        encode(dropped, output, config=QUICK, overwrite=True)


def test_a_last_frame_that_is_shown_longer_does_not_change_the_rate(made: Path, tmp_path: Path) -> None:
    source = tmp_path / "long.mp4"
    run(
        "-i",
        made / "ntsc.mp4",
        "-c",
        "copy",
        "-bsf:v",
        "setts=pts=PTS:dts=DTS:duration='if(eq(N,71),DURATION*9,DURATION)'",
        source,
    )
    assert probe(source).fps != NTSC
    configs = QUICK, VideoEncoderConfig(preset=12)
    for config in configs:
        assert encode(source, tmp_path / "out.mp4", config=config, overwrite=True).fps == NTSC
    for name in ("ntsc.mp4", "b-frames.mp4"):
        alone = float(times(made / name)[-1])
        for config in configs:
            info = encode(made / name, tmp_path / "out.mp4", config=config, start=alone, overwrite=True)
            assert (info.frames, info.fps) == (1, Fraction(SOURCES[name][0]))


@pytest.mark.parametrize("fps", ["30000/1001", NTSC, 15, 1000])
def test_a_given_rate_holds_for_every_frame(made: Path, tmp_path: Path, fps: str | int | Fraction) -> None:
    encode(made / "ntsc.mp4", tmp_path / "out.mp4", config=LOSSLESS, fps=fps)
    assert times(tmp_path / "out.mp4") == grid(Fraction(fps), FRAMES)
    assert sums(tmp_path / "out.mp4") == sums(made / "ntsc.mp4")


@pytest.mark.parametrize(
    ("options", "tags"),
    [
        (
            ("-vf", "scale=out_range=pc:out_color_matrix=bt601,format=yuvj420p", "-color_range", "pc"),
            ("smpte170m", "tv", "bt709", "bt709"),
        ),
        (
            ("-vf", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p", "-colorspace", "bt709")
            + ("-color_range", "tv", "-color_primaries", "bt470bg", "-color_trc", "smpte170m"),
            ("bt709", "tv", "bt470bg", "smpte170m"),
        ),
    ],
    ids=["full range", "BT.709"],
)
def test_colours_stay_as_their_tags_say_and_as_a_reader_shows_them_that_ignores_tags(
    toolchain: Toolchain, tmp_path: Path, options: tuple[str, ...], tags: tuple[str, ...]
) -> None:
    source, output = tmp_path / "source.mp4", tmp_path / "out.mp4"
    colours = np.array([[200, 30, 40], [20, 180, 60], [30, 50, 210], [240, 240, 235], [5, 8, 3]], np.uint8)
    frame = np.kron(colours[None], np.ones((64, 64, 1), np.uint8))
    feed = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "320x64", "-framerate", "30", "-i", "pipe:0")
    # The newest FFmpeg would take the tags for a wish to convert.
    encoded = (*feed, *options, "-c:v", "libx264", "-crf", "1", source)
    run(*encoded, data=frame.tobytes() * 5, find=system_program)
    newest = toolchain == find_toolchain("newest")
    with VideoReader(source, ffmpeg=newest_program("ffmpeg")) as reader:  # it goes by the tags
        given = reader[0].astype(int)
    assert np.abs(given[32, 32::64] - colours).max() <= 3
    full = "pc" in options
    for vcodec in ("h264", "hevc", "libsvtav1") if newest else ("h264",) if full else ("libsvtav1",):
        config = VideoEncoderConfig(vcodec=vcodec, crf=1, preset=10 if vcodec == "libsvtav1" else None)
        with pytest.warns(FfencWarning, match="full range") if full else contextlib.nullcontext():
            info = encode(source, output, config=config, overwrite=True)
        kept = (info.color_space, info.color_range, info.color_primaries, info.color_transfer)
        assert kept == tags
        with VideoReader(output, ffmpeg=newest_program("ffmpeg")) as shown:
            assert np.abs(shown[0].astype(int) - given)[32, 32::64].max() <= 2
        ignoring = [_ignoring_tags(path) for path in (source, output)]
        assert np.abs(ignoring[0] - ignoring[1])[32, 32::64].max() <= 3


def _ignoring_tags(path: Path) -> np.ndarray[Any, Any]:
    """The first frame as LeRobot's reader converts it."""
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)


@pytest.mark.parametrize(
    ("toolchain", "where"),
    [("newest", "in its dataset"), ("newest", "outside"), ("system", "outside")],
    indirect=["toolchain"],
)
def test_depth_codes_are_kept_to_the_last_bit(toolchain: Toolchain, tmp_path: Path, where: str) -> None:
    source = DEPTH_FILE if where != "outside" else Path(shutil.copy(DEPTH_FILE, tmp_path / "depth.mp4"))
    output = tmp_path / "out.mp4"
    end = 30 if where == "outside" else 60
    info = encode(source, output, start=0.5, end=end / 30)
    assert (info.codec, info.pix_fmt, info.frames) == ("hevc", "gray12le", end - 15)
    assert sums(output) == sums(DEPTH_FILE)[15:end]
    options: dict[str, Any] = {"depth": False, "decoder": "pyav"}
    with VideoReader(DEPTH_FILE, **options) as given, VideoReader(output, **options) as kept:
        assert (kept[:] == given[15:end]).all()


def test_a_quantiser_that_is_not_the_depths_own_is_refused(tmp_path: Path) -> None:
    """It would have no effect: codes are kept, as the test above shows."""
    with pytest.raises(ConfigError, match=r"depth_encoder\.depth_max=3\.5 would have no effect"):
        encode(DEPTH_FILE, tmp_path / "out.mp4", config=DepthEncoderConfig(depth_max=3.5), end=0.5)
    assert everything_in(tmp_path) == []
    with pytest.raises(ConfigError, match="pass a depth camera's settings"):
        encode(DEPTH_FILE, tmp_path / "colour.mp4", config=QUICK)


def test_millimetres_of_16_bits_are_kept_to_the_last_bit(toolchain: Toolchain, tmp_path: Path) -> None:
    source, output = tmp_path / "source.mkv", tmp_path / "out.mp4"
    depth = np.random.default_rng(0).integers(0, 65536, (9, 48, 64)).astype("<u2")
    feed = ("-f", "rawvideo", "-pix_fmt", "gray16le", "-s", "64x48", "-framerate", "25", "-i", "pipe:0")
    run(*feed, "-c:v", "ffv1", source, data=depth.tobytes())
    if toolchain.version.startswith("5."):  # it cannot put FFV1 into MP4
        with pytest.raises(ToolchainError, match="ffv1.*codec not currently supported in container"):
            encode(source, output)
        assert everything_in(tmp_path) == ["source.mkv"]
        return
    assert encode(source, output, start=0.08).pix_fmt == "gray16le"
    with VideoReader(output, decoder="pyav") as kept:
        assert (kept[:] == depth[2:]).all()


@newest_only
def test_sound_is_left_out_with_a_word(toolchain: Toolchain, made: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "sound.mp4", tmp_path / "out.mp4"
    tone = ("-f", "lavfi", "-i", "sine=duration=2.4")
    run(*tone, "-i", made / "b-frames.mp4", "-map", "0:a", "-map", "1:v", "-c:v", "copy", source)
    with pytest.warns(FfencWarning, match=r"sound\.mp4: its audio is left out"):
        info = encode(source, output, config=LOSSLESS, start=1)
    assert info.audio is None
    assert sums(output) == sums(made / "b-frames.mp4")[30:]


def test_an_alpha_channel_is_dropped_with_one_warning(tmp_path: Path) -> None:
    folder, film = tmp_path / "frames", tmp_path / "film.mkv"
    folder.mkdir()
    shown = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=0.1,format=rgba")
    run(*shown, folder / "%d.png", "-c:v", "ffv1", "-pix_fmt", "bgra", film)
    for source, fps, named in ((folder, 25, folder / "1.png"), (film, None, film)):
        with pytest.warns(FfencWarning) as told:
            encode(source, tmp_path / "out.mp4", fps=fps, config=LOSSLESS, overwrite=True)
        texts = [str(one.message) for one in told if "alpha channel" in str(one.message)]
        assert texts == [f"{named}: the alpha channel is dropped"]


@pytest.mark.parametrize("ending", ["mp4", "ts"])
def test_a_second_video_stream_is_left_out_with_a_warning(tmp_path: Path, ending: str) -> None:
    one, two = tmp_path / f"one.{ending}", tmp_path / f"two.{ending}"
    x264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
    shown = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=0.2")
    run(*shown, *("-map", "0:v", *x264, one), *("-map", "0:v", "-map", "0:v", *x264, two))
    assert (probe(one).others, probe(two).others) == (0, 1)
    with pytest.warns(FfencWarning, match="only its first video stream is read; 1 other left out"):
        assert encode(two, tmp_path / "out.mp4", config=LOSSLESS).frames == 5


@pytest.mark.own_ffprobe
@pytest.mark.parametrize(
    ("toolchain", "frame"),
    [("newest", 0), ("newest", 40), ("newest", 71), ("system", 40)],
    indirect=["toolchain"],
)
def test_a_damaged_frame_is_named_and_nothing_is_left(
    toolchain: Toolchain, made: Path, tmp_path: Path, frame: int, no_ffmpeg_left: None
) -> None:
    source = tmp_path / "damaged.mp4"
    listed = subprocess.run(
        [newest_program("ffprobe"), "-v", "error", "-select_streams", "v:0"]
        + ["-show_entries", "packet=pts,pos,size", "-of", "csv=p=0", str(made / "b-frames.mp4")],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    packets = sorted(tuple(map(int, line.strip(",").split(",")[:3])) for line in listed.splitlines())
    _, size, at = packets[frame]
    content = bytearray((made / "b-frames.mp4").read_bytes())
    content[at + size // 3 : at + size - 4] = b"\xa5" * len(content[at + size // 3 : at + size - 4])
    source.write_bytes(content)
    with pytest.raises(SourceError, match=r"frame (\d+) of 72 cannot be decoded.*restore the file") as told:
        encode(source, tmp_path / "out.mp4", config=QUICK)
    # Frames are decoded in another order than they are shown in, so a neighbour may be told instead.
    assert abs(int(str(told.value).split("frame ")[1].split()[0]) - frame) <= 4
    assert everything_in(tmp_path) == ["damaged.mp4"]


def test_damage_that_the_first_program_finds_is_not_concealed_by_the_next(tmp_path: Path) -> None:
    data = bytearray(TOP_FILE.read_bytes())
    data[5000:5016] = b"\xff" * 16  # FFmpeg 5.1 decodes all frames without an error
    (tmp_path / "bad.mp4").write_bytes(data)
    with pytest.raises(SourceError, match="frame . of 72 cannot be decoded"):
        encode(tmp_path / "bad.mp4", tmp_path / "out.mp4")
    assert everything_in(tmp_path) == ["bad.mp4"]


@pytest.mark.parametrize("where", ["in a frame", "between frames"])
@newest_only
def test_a_file_that_is_cut_short_is_never_a_shorter_video(
    toolchain: Toolchain, made: Path, tmp_path: Path, where: str
) -> None:
    source = tmp_path / "cut.mp4"
    run("-i", made / "b-frames.mp4", "-c", "copy", "-movflags", "+faststart", source)
    places = subprocess.run(
        [
            newest_program("ffprobe"),
            "-v",
            "error",
            "-show_entries",
            "packet=pos",
            "-of",
            "csv=p=0",
            str(source),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    os.truncate(source, int(places[48].strip(",")) + (7 if where == "in a frame" else 0))
    with pytest.raises(SourceError, match=r"cut\.mp4 is cut short: its last \d+ bytes are missing"):
        encode(source, tmp_path / "out.mp4", config=QUICK)
    assert everything_in(tmp_path) == ["cut.mp4"]


def test_a_file_is_not_written_over_itself(made: Path, tmp_path: Path) -> None:
    source = Path(shutil.copy(made / "b-frames.mp4", tmp_path / "a.mp4"))
    link = tmp_path / "link.mp4"
    link.symlink_to("a.mp4")
    os.link(source, tmp_path / "hard.mp4")
    before = source.read_bytes()
    for output in ("a.mp4", "link.mp4", "hard.mp4"):
        with pytest.raises(DestinationError, match="is also the source"):
            encode(source, tmp_path / output, config=QUICK, overwrite=True)
    assert source.read_bytes() == before
    (tmp_path / "other.mp4").write_text("precious")
    with pytest.raises(DestinationError, match="exists"):
        encode(source, tmp_path / "other.mp4", config=QUICK)
    assert (tmp_path / "other.mp4").read_text() == "precious"
    assert encode(source, tmp_path / "other.mp4", config=QUICK, overwrite=True).frames == FRAMES


@newest_only
def test_a_name_is_only_a_name(toolchain: Toolchain, made: Path, tmp_path: Path) -> None:
    odd = tmp_path / "it's 100%d: a 'folder'"
    odd.mkdir()
    source = Path(shutil.copy(made / "b-frames.mp4", odd / "-in'put %03d [é],;.mp4"))
    encode(source, odd / "-o'ut %03d.mp4", config=LOSSLESS, start=0.3)
    assert sums(odd / "-o'ut %03d.mp4") == sums(source)[9:]
    assert len(everything_in(odd)) == 2


@pytest.mark.own_ffprobe
def test_what_is_no_video_is_refused(toolchain: Toolchain, tmp_path: Path) -> None:
    (tmp_path / "note.mp4").write_text("no video")
    with pytest.raises(SourceError, match=r"note\.mp4 cannot be read as a video"):
        encode(tmp_path / "note.mp4", tmp_path / "out.mp4")
    run("-f", "lavfi", "-i", "sine=duration=1", tmp_path / "tone.m4a")
    with pytest.raises(SourceError, match="has no video stream"):
        encode(tmp_path / "tone.m4a", tmp_path / "out.mp4")
    with pytest.raises(SourceError, match="is neither a folder of frames nor a video file"):
        encode(tmp_path / "none.mp4", tmp_path / "out.mp4")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_is_ended_leaves_no_file_of_that_name(
    tmp_path: Path, made: Path, number: signal.Signals
) -> None:
    source, output = tmp_path / "long.mp4", tmp_path / "out.mp4"
    run("-stream_loop", 63, "-i", made / "b-frames.mp4", "-c", "copy", source)
    words = ["encode", source, output, "--camera_encoder.vcodec=h264", "--camera_encoder.preset=veryslow"]
    process = subprocess.Popen([sys.executable, "-m", "ffenc", *map(str, words)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.*partial*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(number)
    assert process.wait(30) != 0
    psutil.wait_procs(children, 10)
    assert not any(child.is_running() for child in children)
    assert not output.exists()
    if number == signal.SIGINT:
        assert everything_in(tmp_path) == ["long.mp4"]


def test_a_second_run_on_one_file_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with claimed(out), pytest.raises(DestinationError, match="is being written by another run of ffenc"):
        encode(TOP_FILE, out, config=VideoEncoderConfig(vcodec="h264"))
    assert list(tmp_path.iterdir()) == []
    encode(TOP_FILE, out, config=VideoEncoderConfig(vcodec="h264"))
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_that_has_come_since_the_plan_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    plan = plan_encode(TOP_FILE, out)
    out.write_bytes(b"another run's")
    with pytest.raises(DestinationError, match="exists"):
        plan.run(VideoEncoderConfig(vcodec="h264"))
    assert out.read_bytes() == b"another run's"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(("rate", "name"), [("30", "ms.mkv"), ("30000/1001", "ms.webm"), ("15", "ms.mkv")])
def test_times_that_a_container_rounds_to_milliseconds_are_of_a_constant_rate(
    raw: bytes, tmp_path: Path, rate: str, name: str
) -> None:
    feed = ("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", SIZE, "-framerate", rate, "-i", "pipe:0")
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    run(*feed, "-c:v", codec, "-deadline", "realtime", "-cpu-used", 8, tmp_path / name, data=raw)
    info = encode(tmp_path / name, tmp_path / "out.mp4", config=QUICK)
    assert (info.frames, info.fps) == (FRAMES, Fraction(rate))
    # One frame less is no rounding.
    dropped = tmp_path / f"dropped-{name}"
    run("-i", tmp_path / name, "-c", "copy", "-bsf:v", "noise=drop=eq(n\\,71)*0+eq(n\\,40)", dropped)
    with pytest.raises(SourceError, match="not evenly spaced"):
        encode(dropped, tmp_path / "dropped.mp4", config=QUICK)


RAW = {
    "a.h264": ("-c:v", "libx264", "-bf", "3", "-x264-params", "open-gop=1:b-adapt=0"),
    "a.h265": ("-c:v", "libx265", "-x265-params", "log-level=error:bframes=3:open-gop=1"),
    "a.obu": ("-c:v", "libsvtav1", "-preset", "12"),
    "a.ivf": ("-c:v", "libsvtav1", "-preset", "12"),
}


@pytest.fixture(scope="session")
def streams(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> Path:
    """The sample's camera as streams without a container."""
    folder = tmp_path_factory.mktemp("streams")
    feed = ("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", SIZE, "-framerate", "30", "-i", "pipe:0")
    for name, options in RAW.items():
        run(*feed, *options, folder / name, data=raw)
    return folder


@pytest.mark.own_ffprobe
@pytest.mark.parametrize(
    ("toolchain", "name"),
    [*(("newest", name) for name in RAW), *(("system", name) for name in RAW if name != "a.ivf")],
    indirect=["toolchain"],
)
def test_a_stream_without_a_container_is_encoded_at_the_rate_that_is_said(
    toolchain: Toolchain, streams: Path, tmp_path: Path, name: str
) -> None:
    source, output = streams / name, tmp_path / "out.mp4"
    expected = sums(source)
    assert len(expected) == FRAMES
    if name == "a.ivf":  # it has times of its own
        assert encode(source, output, config=LOSSLESS).fps == 30
    else:
        with pytest.raises(SourceError, match="whose frames have no timestamps; .* fps=RATE"):
            encode(source, output, config=LOSSLESS)
    newest = toolchain == find_toolchain("newest")
    for rate in (Fraction(30), NTSC) if newest else (NTSC,):
        info = encode(source, output, fps=rate, config=LOSSLESS, overwrite=True)
        assert (info.fps, info.frames) == (rate, FRAMES)
        assert times(output) == grid(rate, FRAMES)
        assert sums(output) == expected
    if name != "a.ivf" and (newest or name == "a.h264"):
        part = encode(source, output, fps=30, start=1, end=2, config=LOSSLESS, overwrite=True)
        assert part.frames == 30


def packet_places(path: Path) -> list[tuple[int, int]]:
    """First byte and size of each frame of a stream, in stored order."""
    words = [newest_program("ffprobe"), "-v", "error", "-show_entries", "packet=size", "-of", "csv=p=0"]
    lines = subprocess.run([*words, path], check=True, capture_output=True, text=True).stdout.split()
    sizes = [int(line) for line in lines]
    return [(sum(sizes[:i]), size) for i, size in enumerate(sizes)]


def test_damage_in_a_stream_without_a_container_ends_in_an_error(streams: Path, tmp_path: Path) -> None:
    content = bytearray((streams / "a.h264").read_bytes())
    places = packet_places(streams / "a.h264")
    start, size = max(places[10:], key=lambda place: place[1])  # a decoder notices what a large frame lacks
    (tmp_path / "cut.h264").write_bytes(content[: start + size // 2])
    first, last = (start + size // 2 for start, size in (places[40], places[42]))  # a whole frame in between
    content[first:last] = (i % 200 + 1 for i in range(last - first))
    (tmp_path / "bad.h264").write_bytes(content)
    for name in ("cut.h264", "bad.h264"):
        with pytest.raises(SourceError, match=f"{name}: is damaged, or cut short: "):
            encode(tmp_path / name, tmp_path / "out.mp4", fps=30, config=QUICK)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.h264", ("-c:v", "libx264", "-bf", "0")),  # numbered by frame_num alone
        ("a.h264", ("-c:v", "libx264", "-bf", "0", "-g", "1", "-x264-params", "slices=3")),
        ("a.h265", ("-c:v", "libx265", "-x265-params", "log-level=error:bframes=0:log2-max-poc-lsb=4")),
        ("a.obu", ("-c:v", "libaom-av1", "-cpu-used", "8", "-usage", "realtime")),
    ],
)
def test_a_frame_that_a_stream_without_a_container_has_lost_is_named(
    raw: bytes, tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    """Decoders continue: no other frame may refer to it, or they conceal that it is missing."""
    feed = ("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", SIZE, "-framerate", "30", "-i", "pipe:0")
    run(*feed, *options, tmp_path / name, data=raw)
    content, places = (tmp_path / name).read_bytes(), packet_places(tmp_path / name)
    source = tmp_path / f"short_{name}"
    for at in (1, 35, FRAMES - 2):
        start, size = places[at]
        source.write_bytes(content[:start] + content[start + size :])
        said = f"{name}: is damaged, or cut short: .* 1 frame is missing after frame {at - 1}$"
        for program in (newest_program("ffmpeg"), system_program("ffmpeg")):
            if "1" in options:  # every frame begins a numbering
                trimmed(source, rate=Fraction(30), ffmpeg=program)
                continue
            with pytest.raises(SourceError, match=said):
                trimmed(source, rate=Fraction(30), ffmpeg=program)


@pytest.mark.parametrize("name", [name for name in RAW if name != "a.ivf"])
def test_a_lost_frame_is_noticed_whatever_the_order_of_frames(
    streams: Path, tmp_path: Path, name: str
) -> None:
    content, source = (streams / name).read_bytes(), tmp_path / name
    lines: list[str] = []
    run_fed(
        compile_header_trace(str(streams / name), program=newest_program("ffmpeg")), [], on_line=lines.append
    )
    assert not any("progress=" in line for line in lines)  # it could be in the middle of a line
    assert trimmed(streams / name, rate=Fraction(30)).frames == FRAMES
    for start, size in packet_places(streams / name)[20:30]:
        source.write_bytes(content[:start] + content[start + size :])
        with pytest.raises(SourceError, match=r"frames?( is| are) missing after frame \d+$"):
            trimmed(source, rate=Fraction(30))


def test_a_transport_stream_made_of_matroska_is_of_constant_rate(raw: bytes, tmp_path: Path) -> None:
    """Its times are whole milliseconds, counted in 1/90000 s."""
    feed = ("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", SIZE, "-framerate", "30", "-i", "pipe:0")
    run(*feed, *B_FRAMES, tmp_path / "a.mkv", data=raw)
    run("-i", tmp_path / "a.mkv", "-c", "copy", tmp_path / "a.ts")
    info = encode(tmp_path / "a.ts", tmp_path / "out.mp4", config=LOSSLESS)
    assert (info.fps, info.frames) == (30, FRAMES)
    assert sums(tmp_path / "out.mp4") == sums(tmp_path / "a.ts")
    probed = probe(tmp_path / "a.ts", times=True)
    assert (probed.frames, probed.width, probed.time_base) == (FRAMES, 96, Fraction(1, 90000))
    # One frame less is no rounding.
    run(
        "-i",
        tmp_path / "a.ts",
        "-vf",
        "select=not(eq(n\\,40))",
        "-fps_mode",
        "passthrough",
        *B_FRAMES,
        tmp_path / "b.mkv",
    )
    run("-i", tmp_path / "b.mkv", "-c", "copy", tmp_path / "b.ts")
    with pytest.raises(SourceError, match="not evenly spaced"):
        encode(tmp_path / "b.ts", tmp_path / "c.mp4", config=QUICK)


def test_frames_that_the_container_hides_are_counted(raw: bytes, tmp_path: Path) -> None:
    feed = ("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", SIZE, "-framerate", "30", "-i", "pipe:0")
    run(*feed, "-c:v", "libx264", "-bf", "2", tmp_path / "raw.h264", data=raw)
    hiding = tmp_path / "hiding.mp4"
    # Made by the system's FFmpeg: the newest writes other times for packets that have none.
    run("-r", "30", "-i", tmp_path / "raw.h264", "-c", "copy", hiding, find=system_program)
    hidden = probe(hiding, times=True).hidden
    assert hidden == 2
    with pytest.warns(FfencWarning, match="2 frames hidden by its edit list"):
        assert encode(hiding, tmp_path / "out.mp4", config=QUICK).frames == FRAMES - hidden
    found = verify_dataset(hiding)
    assert ([one.kind for one in found.notes], found.faults) == (["hidden-frames"], [])


def test_a_video_that_players_turn_is_taken_as_it_is_stored_with_a_warning(
    raw: bytes, tmp_path: Path
) -> None:
    turned = tmp_path / "turned.mp4"
    run("-i", TOP_FILE, "-c", "copy", "-metadata:s:v", "rotate=90", turned, find=system_program)
    assert abs(probe(turned).rotation) == 90
    with pytest.warns(FfencWarning, match="rotate it by -?90 degrees"):
        info = encode(turned, tmp_path / "out.mp4", config=QUICK)
    assert (info.width, info.height) == (320, 240)
