"""A file in fragments is read while it grows and after its writer was killed, on both FFmpegs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from fractions import Fraction
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from ffenc import DepthEncoderConfig, VideoEncoderConfig, probe
from ffenc.compiler.frames import raw_format
from ffenc.errors import FfmpegError
from ffenc.ffmpeg.boxes import is_plain_mp4
from ffenc.ffmpeg.fragments import drop_torn_end, whole_bytes, whole_frames
from ffenc.ffmpeg.join import Joined, cut_file, join_files
from ffenc.ffmpeg.process import FfmpegProcess, run_fed
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.encoding import Encoding
from tests.conftest import decode, newest_program, psnr
from tests.support.read import packets

SIZE, FRAMES, SECONDS = 64, 45, 0.2
MOST_B_FRAMES = 4  # in a row, by default: x265's
NTSC = Fraction(30000, 1001)
CASES = {
    "h264": VideoEncoderConfig(vcodec="h264", preset="veryfast", crf=20),
    "h264 with B-frames": VideoEncoderConfig(vcodec="h264", g=250, crf=20, extra_options={"b_strategy": 0}),
    "libsvtav1": VideoEncoderConfig(g=30),
    "libaom-av1": VideoEncoderConfig(vcodec="libaom-av1", preset=8),
    "depth": DepthEncoderConfig(preset="ultrafast", g=30),
}


def frame(i: int, *, depth: bool) -> np.ndarray:
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    if depth:
        return ((x * 40 + y + i * 31) % 4096).astype("<u2")
    return np.stack([x * 3 + i, y * 3, np.full_like(x, i * 5 % 256)], -1).astype(np.uint8)


def encoding_of(config: VideoEncoderConfig, toolchain: Toolchain) -> Encoding:
    return Encoding(config, SIZE, SIZE, NTSC, raw_format(config), 1, toolchain)


def written(encoding: Encoding, path: Path) -> Path:
    frames = [frame(i, depth=encoding.depth).tobytes() for i in range(FRAMES)]
    run_fed(encoding.command(path, fragment_seconds=SECONDS), frames)
    return path


def check_pixels(path: Path, plain: Path, frames: int, *, depth: bool) -> None:
    source = [frame(i, depth=depth) for i in range(frames)]
    if not depth:
        shown = decode(path)
        assert np.array_equal(shown, decode(plain)[:frames])
        assert min(psnr(a, b) for a, b in zip(shown, source, strict=True)) > 18
        return
    command = [newest_program("ffmpeg"), "-v", "error", "-i", f"file:{path}", "-fps_mode", "passthrough"]
    raw = subprocess.run([*command, "-f", "rawvideo", "-"], check=True, capture_output=True).stdout
    assert np.array_equal(np.frombuffer(raw, "<u2").reshape(-1, SIZE, SIZE), source)


# The system's FFmpeg is given one whose times it has to order, and one whose samples to keep.
@pytest.mark.parametrize(
    ("toolchain", "case"),
    [
        *(("newest", case) for case in CASES),
        *(("system", case) for case in ("h264 with B-frames", "depth")),
    ],
    indirect=["toolchain"],
)
def test_a_file_in_fragments_becomes_a_whole_one_also_when_its_end_is_torn_off(
    toolchain: Toolchain, tmp_path: Path, case: str
) -> None:
    encoding = encoding_of(CASES[case], toolchain)
    tag, depth = encoding.codec.tag, encoding.depth
    path = written(encoding, tmp_path / "it's 100%d.mp4")
    assert whole_bytes(path) == drop_torn_end(path) == path.stat().st_size
    info, stored = probe(path, times=True), packets(path)
    assert whole_frames(info, NTSC) == info.frames == FRAMES
    assert info.delay is not None
    assert (info.delay > 0) == (case in ("h264 with B-frames", "depth"))

    whole = tmp_path / "whole.mp4"
    pieces = [Joined(path, FRAMES, info.delay)]
    join_files(pieces, whole, fps=NTSC, tag=tag, toolchain=toolchain)
    joined = encoding.verify(whole, FRAMES)
    assert packets(whole) == stored
    plain = tmp_path / "plain.mp4"
    run_fed(encoding.command(plain), [frame(i, depth=depth).tobytes() for i in range(FRAMES)])
    assert joined == probe(plain, times=True)
    assert (is_plain_mp4(path), is_plain_mp4(whole)) == (False, True)
    whole.write_bytes(whole.read_bytes()[:-1])
    assert not is_plain_mp4(whole)

    os.truncate(path, path.stat().st_size * 2 // 3)
    torn_at = path.stat().st_size
    assert 0 < drop_torn_end(path) < torn_at
    torn = probe(path, times=True)
    frames = whole_frames(torn, NTSC)
    lost = torn.frames - frames
    assert 0 <= lost <= (MOST_B_FRAMES if torn.delay else 0)
    assert 0 < torn.frames < FRAMES
    part = tmp_path / "part.mp4"
    cut_file(path, part, first=0, frames=frames, fps=NTSC, tag=tag, toolchain=toolchain)
    encoding.verify(part, frames)
    assert packets(part) == stored[:frames]
    check_pixels(part, plain, frames, depth=depth)


@pytest.mark.own_ffprobe
def test_a_file_can_be_read_while_it_grows_and_after_its_writer_was_killed(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    encoding = encoding_of(CASES["h264 with B-frames"], toolchain)
    path = tmp_path / "growing.mp4"
    with FfmpegProcess(encoding.command(path, fragment_seconds=SECONDS)) as process:
        deadline = time.monotonic() + 60
        for i in cycle(range(256)):  # more than the encoder looks ahead
            assert process.write(frame(i, depth=False))
            if path.exists() and whole_bytes(path) > 20_000:
                break
            assert time.monotonic() < deadline
        growing = probe(path, times=True).frames
        assert growing > 2 * FRAMES
        assert len(decode(path)) >= growing
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(FfmpegError, match="killed"):
            process.finish()
    drop_torn_end(path)
    torn = probe(path, times=True)
    frames = whole_frames(torn, NTSC)
    assert frames >= growing - MOST_B_FRAMES
    part = tmp_path / "part.mp4"
    cut_file(path, part, first=0, frames=frames, fps=NTSC, tag=None, toolchain=toolchain)
    encoding.verify(part, frames)


def test_a_file_that_is_torn_anywhere_is_whole_up_to_the_fragment_before(tmp_path: Path) -> None:
    def box(kind: bytes, content: bytes) -> bytes:
        return (len(content) + 8).to_bytes(4, "big") + kind + content

    header = box(b"ftyp", b"iso5") + box(b"moov", bytes(9))
    fragment = box(b"moof", bytes(5)) + (1).to_bytes(4, "big") + b"mdat" + (23).to_bytes(8, "big") + bytes(7)
    content = header + 2 * fragment + box(b"mfra", bytes(3))
    first, second = len(header) + len(fragment), len(header) + 2 * len(fragment)
    path = tmp_path / "torn.mp4"
    for size in range(len(content) + 1):
        whole = 0 if size < first else first if size < second else second
        whole = size if size == len(content) else whole
        path.write_bytes(content[:size])
        assert whole_bytes(path) == whole
        assert drop_torn_end(path) == path.stat().st_size == whole
    path.write_bytes(content + bytes(40))  # the end of a file after a power cut
    assert drop_torn_end(path) == path.stat().st_size == len(content)
