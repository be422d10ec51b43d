"""Joining video files by copying packets."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ffenc import (
    ConfigError,
    DestinationError,
    SourceError,
    VideoEncoderConfig,
    VideoWriter,
    join_videos,
    probe,
)
from ffenc.frames.joining import keep_parts
from tests.conftest import decode, newest_program

H264 = VideoEncoderConfig(vcodec="h264", crf=10, preset="ultrafast")


def clip(
    path: Path, first: int, frames: int, fps: int | Fraction = 30, config: VideoEncoderConfig = H264
) -> Path:
    with VideoWriter(path, fps, config) as video:
        for number in range(first, first + frames):
            video.write(np.full((32, 48, 3), 20 * number, np.uint8))
    return path


def test_frames_sit_at_their_exact_times(tmp_path: Path) -> None:
    """At 10 fps a tick of FFmpeg's concat demuxer is about what LeRobot tolerates; these are off by none."""
    parts = [clip(tmp_path / f"{n}.mp4", 3 * n, 3, 10) for n in range(4)]
    info = join_videos(parts, tmp_path / "all.mp4")
    assert info.frames == 12
    assert [time * info.time_base for time in info.times or ()] == [Fraction(n, 10) for n in range(12)]
    shown = decode(tmp_path / "all.mp4")
    assert np.abs(shown.mean((1, 2, 3)) - 20 * np.arange(12)).max() < 3
    # In the place of one of them, as LeRobot appends an episode.
    info = join_videos([tmp_path / "all.mp4", parts[0]], tmp_path / "all.mp4", overwrite=True)
    assert info.frames == 15
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.mp4", "1.mp4", "2.mp4", "3.mp4", "all.mp4"]


def test_other_time_bases_are_brought_to_the_grid(tmp_path: Path) -> None:
    import av

    other = tmp_path / "other.mkv"  # its times are whole milliseconds
    with av.open(str(clip(tmp_path / "a.mp4", 0, 5))) as source, av.open(str(other), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    info = join_videos([other, other], tmp_path / "both.mp4")
    assert [time * info.time_base for time in info.times or ()] == [Fraction(n, 30) for n in range(10)]
    assert probe(tmp_path / "both.mp4").fps == 30


def test_what_is_unlike_is_refused_by_name(tmp_path: Path) -> None:
    one, slow = clip(tmp_path / "a.mp4", 0, 3), clip(tmp_path / "b.mp4", 0, 3, 15)
    gray = clip(tmp_path / "c.mp4", 0, 3, config=H264.replace(pix_fmt="yuv444p"))
    with pytest.raises(
        SourceError, match=r"b.mp4 cannot be joined to .*a.mp4: their frame rate differs: 15, and 30"
    ):
        join_videos([one, slow], tmp_path / "out.mp4")
    with pytest.raises(SourceError, match=r"pixel format differs: yuv444p, and yuv420p"):
        join_videos([one, gray], tmp_path / "out.mp4")
    with pytest.raises(SourceError, match=r"nope\.mp4 cannot be read: No such file"):
        join_videos([tmp_path / "nope.mp4"], tmp_path / "out.mp4")
    with pytest.raises(ConfigError, match=r"sources: 'a\.mp4' is not accepted; expected a list of files"):
        join_videos("a.mp4", tmp_path / "out.mp4")
    with pytest.raises(SourceError, match=r"nothing to join"):
        join_videos([], tmp_path / "out.mp4")
    with pytest.raises(DestinationError, match=r"b.mp4 exists"):
        join_videos([one], slow)
    with pytest.raises(ConfigError, match=r"ends in .mp4"):
        join_videos([one], tmp_path / "out.mkv")
    assert not (tmp_path / "out.mp4").exists()


def test_what_mp4_does_not_store_or_would_show_is_refused_by_name(tmp_path: Path) -> None:
    made = clip(tmp_path / "a.mp4", 0, 8, config=H264.replace(g=4, extra_options={"bf": 0}))
    cut, stream, movie = tmp_path / "cut.mp4", tmp_path / "a.ts", tmp_path / "a.mov"
    for options in (
        ["-ss", "0.05", "-i", made, "-c", "copy", cut],
        ["-i", made, "-c", "copy", stream],
        ["-i", made, "-c:v", "prores", movie],
    ):
        subprocess.run([newest_program("ffmpeg"), "-v", "error", *options], check=True)
    with pytest.raises(
        SourceError, match=r"cut.mp4 cannot be joined: \d frames? hidden by its edit list would"
    ):
        join_videos([made, cut], tmp_path / "out.mp4")
    for path in (stream, movie):
        said = rf"{path.name} is not an MP4 file, and cannot .*; `encode\(source="
        with pytest.raises(SourceError, match=said):
            join_videos([path, path], tmp_path / "out.mp4")
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "a.ts", "a.mov", "cut.mp4"}


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames of levels 0, 20, ..., 180; with a key frame at 0, 4 and 8."""
    folder = tmp_path_factory.mktemp("ten")
    return clip(folder / "ten.mp4", 0, 10, config=H264.replace(g=4, extra_options={"bf": 2}))


def levels(path: Path) -> list[int]:
    return [round(float(frame.mean()) / 20) for frame in decode(path)]


def test_stretches_are_copied(tmp_path: Path, ten: Path) -> None:
    out = tmp_path / "kept.mp4"
    info = keep_parts(ten, out, [(0, 4), (8, 10)], fps=Fraction(30), config=H264.replace(crf=40))
    assert [time * info.time_base for time in info.times or ()] == [Fraction(n, 30) for n in range(6)]
    before, after = decode(ten), decode(out)
    assert np.array_equal(after, before[[0, 1, 2, 3, 8, 9]])
    sizes = probe(ten, times=True).sizes or ()
    assert list(info.sizes or ()) == [*sizes[:4], *sizes[8:]]
    assert [path.name for path in tmp_path.iterdir()] == ["kept.mp4"]


def test_what_cannot_be_copied_is_encoded(tmp_path: Path, ten: Path) -> None:
    """The settings that the file has give the same decoder configuration: what can be copied still is."""
    own = H264.replace(g=4, extra_options={"bf": 2})
    info = keep_parts(ten, tmp_path / "own.mp4", [(0, 4), (6, 10)], config=own)
    assert levels(tmp_path / "own.mp4") == [0, 1, 2, 3, 6, 7, 8, 9]
    assert list(info.sizes or ())[:4] == list(probe(ten, times=True).sizes or ())[:4]
    assert [time * info.time_base for time in info.times or ()] == [Fraction(n, 30) for n in range(8)]
    assert {0, 4} <= set(info.key_frames or ())
    # Others do not: all is encoded. Stretches that follow each other are one.
    other = keep_parts(
        ten, tmp_path / "other.mp4", [(0, 2), (2, 4), (6, 8)], config=H264.replace(vcodec="hevc")
    )
    assert (other.codec, levels(tmp_path / "other.mp4")) == ("hevc", [0, 1, 2, 3, 6, 7])


def test_stretches_that_are_not_there(tmp_path: Path, ten: Path) -> None:
    for parts, fps, said in (
        ([(0, 4), (8, 12)], None, r"ten.mp4 has 10 frames, but frames 8 to 11 were requested"),
        ([(4, 4)], None, r"has 10 frames"),
        ([], None, r"no frames of .*ten.mp4 were requested"),
        ([(0, 4)], Fraction(25), r"ten.mp4 has 30 frames per second, not 25"),
        (
            [(0, 4)],
            Fraction(30 * 10**7 + 1, 10**7),
            r"ten.mp4 has 30 frames per second, not 300000001/10000000",
        ),
    ):
        with pytest.raises(SourceError, match=said):
            keep_parts(ten, tmp_path / "out.mp4", parts, fps=fps)
    with pytest.raises(DestinationError, match=r"ten.mp4 exists"):
        keep_parts(ten, ten, [(0, 4)])
    assert not list(tmp_path.iterdir())
