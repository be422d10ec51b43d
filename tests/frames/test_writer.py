"""Arrays become a file, or nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ffenc import ConfigError, DestinationError, FfencWarning, VideoEncoderConfig, VideoWriter
from ffenc.ffmpeg.toolchain import Toolchain
from tests.conftest import decode, everything_in

H264 = VideoEncoderConfig(vcodec="h264", crf=8)


def frame(value: int) -> np.ndarray:
    return np.full((48, 64, 3), value, np.uint8)


def test_frames_come_back_in_order_and_value(toolchain: Toolchain, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", 30, H264) as video:
        for i in range(20):
            video.write(frame(i * 12))
    assert video.info is not None
    assert video.info.frames == 20
    shown = decode(tmp_path / "out.mp4")
    assert [round(float(image.mean()) / 12) for image in shown] == list(range(20))


def test_a_view_that_is_not_contiguous_is_written_as_it_looks(toolchain: Toolchain, tmp_path: Path) -> None:
    wide = np.zeros((48, 128, 3), np.uint8)
    wide[:, ::2] = (200, 30, 60)
    with VideoWriter(tmp_path / "out.mp4", 30, H264) as video:
        video.write(wide[:, ::2])
    assert np.abs(decode(tmp_path / "out.mp4")[0].astype(int) - (200, 30, 60)).max() <= 4


def test_an_exception_in_the_block_leaves_nothing(
    toolchain: Toolchain, tmp_path: Path, no_ffmpeg_left: None
) -> None:
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "out.mp4", 30, H264) as video:
        video.write(frame(1))
        raise KeyboardInterrupt
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize(
    "bad",
    [np.zeros((48, 64), np.uint8), np.zeros((48, 64, 4), np.uint8), np.zeros((48, 64, 3), np.float32), [[1]]],
    ids=["2-d", "4 channels", "float", "list"],
)
def test_what_is_no_rgb_frame_is_refused_and_writing_can_go_on(tmp_path: Path, bad: object) -> None:
    with VideoWriter(tmp_path / "out.mp4", 30, H264) as video:
        video.write(frame(1))
        with pytest.raises(ConfigError, match="uint8 array of shape"):
            video.write(bad)
        video.write(frame(2))
    assert video.info is not None
    assert video.info.frames == 2


def test_a_frame_of_another_size_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="frame 1 is 32x48, the first was 64x48"),
        VideoWriter(tmp_path / "out.mp4", 30, H264) as video,
    ):
        video.write(frame(1))
        video.write(np.zeros((48, 32, 3), np.uint8))
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"config": {"crf": 3}}, "config: {'crf': 3} is not accepted; expected a VideoEncoderConfig"),
        ({"depth_unit": "m"}, "depth_unit would have no effect"),
        ({"encoder_threads": 0}, "encoder_threads: 0 is not accepted"),
    ],
)
def test_arguments_that_do_not_apply_are_refused_before_the_first_frame(
    tmp_path: Path, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        VideoWriter(tmp_path / "out.mp4", 30, **arguments)


def test_what_another_program_has_written_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with (
        pytest.raises(DestinationError, match=r"out\.mp4 exists"),
        VideoWriter(tmp_path / "out.mp4", 30) as video,
    ):
        video.write(frame(1))
        (tmp_path / "out.mp4").write_text("theirs")
    assert (tmp_path / "out.mp4").read_text() == "theirs"
    assert everything_in(tmp_path) == ["out.mp4"]
    assert video.info is None
    with pytest.raises(ConfigError, match="has written no video"):
        video.close()


def test_no_frames_make_no_video(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no frame"), VideoWriter(tmp_path / "out.mp4", 30):
        pass
    with VideoWriter(tmp_path / "out.mp4", 30, H264) as video:
        video.write(frame(1))
    with pytest.raises(ConfigError, match="closed"):
        video.write(frame(1))
    assert everything_in(tmp_path) == ["out.mp4"]


# ---- owners ------------------------------------------------------------------------------------------------


def test_a_writer_that_is_freed_without_being_closed_says_so_and_leaves_nothing(
    tmp_path: Path, no_ffmpeg_left: None
) -> None:
    video = VideoWriter(tmp_path / "out.mp4", 30, H264)
    video.write(frame(1))
    with pytest.warns(FfencWarning, match=r"out\.mp4: is not written: its VideoWriter was not closed"):
        del video
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize("way", ["ends", "fails"])
def test_a_program_that_ends_with_an_open_writer_says_so_and_leaves_nothing(tmp_path: Path, way: str) -> None:
    program = f"""
import sys, numpy
from ffenc import VideoWriter
video = VideoWriter(sys.argv[1], 30)
video.write(numpy.zeros((48, 64, 3), numpy.uint8))
sys.exit({int(way == "fails")})
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "out.mp4"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == int(way == "fails")
    assert "out.mp4: is not written: its VideoWriter was not closed" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert everything_in(tmp_path) == []


FORK = """
import os, sys, numpy
from ffenc import VideoWriter
from tests.support.forked import refused_here
def frame(value): return numpy.full((48, 64, 3), value, numpy.uint8)
with VideoWriter(sys.argv[1], 30) as video:
    for way in ("raise", "return", "free"):
        video.write(frame(1))
        child = os.fork()
        if child == 0:
            refused_here(lambda: video.write(frame(2)), video.close)
            if way == "raise":
                sys.exit(7)
            break
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == (7 if way == "raise" else 0), status
    else:
        video.write(frame(3))
        print("parent")
if way == "free":
    del video
"""


def test_a_fork_leaves_the_file_to_its_parent(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FORK, tmp_path / "out.mp4"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "parent\n", "")
    assert len(decode(tmp_path / "out.mp4")) == 4
    assert everything_in(tmp_path) == ["out.mp4"]


def test_threads_share_a_writer(tmp_path: Path) -> None:
    begin = threading.Barrier(4)

    def write(video: VideoWriter) -> None:
        begin.wait()
        for _ in range(5):
            video.write(frame(9))

    with VideoWriter(tmp_path / "out.mp4", 30, H264) as video:
        threads = [threading.Thread(target=write, args=(video,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert video.info is not None
    assert video.info.frames == 20


def test_a_program_may_change_its_folder_while_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    with VideoWriter("out.mp4", 30, H264) as video:
        video.write(frame(1))
        monkeypatch.chdir(tmp_path / "other")
        video.write(frame(2))
    assert everything_in(tmp_path) == ["other", "out.mp4"]
    assert len(decode(tmp_path / "out.mp4")) == 2
