"""What ffprobe reads back."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest

from ffenc import SourceError, probe
from ffenc.dataset.info_block import stream_fields
from ffenc.ffmpeg.toolchain import Toolchain
from tests.conftest import FIXTURES, newest_program

pytestmark = pytest.mark.own_ffprobe


def make(toolchain: Toolchain, path: Path, *options: str) -> Path:
    subprocess.run(
        [
            toolchain.ffmpeg,
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=64x48:rate=25:duration=1",
            *options,
        ]
        + [f"file:{path}"],
        check=True,
        capture_output=True,
    )
    return path


def test_the_stream_fields_of_a_file_with_audio(toolchain: Toolchain, tmp_path: Path) -> None:
    audio = ("-f", "lavfi", "-i", "sine=sample_rate=48000:duration=1", "-c:a", "aac", "-ac", "2")
    path = make(
        toolchain, tmp_path / "it's 100%d.mp4", *audio, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "5"
    )
    info = probe(path, times=True)
    assert (info.codec, info.pix_fmt, info.width, info.height) == ("h264", "yuv420p", 64, 48)
    assert (info.fps, info.frames, info.channels) == (Fraction(25), 25, 3)
    assert info.times is not None
    assert [t * info.time_base for t in info.times] == [Fraction(i, 25) for i in range(25)]
    assert info.key_frames == (0, 5, 10, 15, 20)
    fields = stream_fields(info)
    assert fields["has_audio"] is True
    assert (fields["audio.codec"], fields["audio.channels"], fields["audio.sample_rate"]) == ("aac", 2, 48000)


def test_a_title_is_not_read_as_fields(toolchain: Toolchain, tmp_path: Path) -> None:
    title = "handler_name=front|width=3|nb_frames=4|pix_fmt=a\\"
    info = probe(make(toolchain, tmp_path / "a.mp4", "-metadata:s:v:0", title, "-pix_fmt", "yuv420p"))
    assert (info.width, info.frames, info.pix_fmt) == (64, 25, "yuv420p")


def test_frames_are_counted_where_the_container_has_no_index(toolchain: Toolchain, tmp_path: Path) -> None:
    path = make(toolchain, tmp_path / "a.mkv", "-c:v", "ffv1", "-pix_fmt", "gray")
    info = probe(path)
    assert (info.frames, info.channels, info.audio) == (25, 1, None)


def test_what_is_no_video_is_refused(toolchain: Toolchain, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        probe(tmp_path / "none.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(SourceError, match=r"text\.mp4 cannot be read as a video"):
        probe(text)
    sound = tmp_path / "sound.m4a"
    subprocess.run(
        [toolchain.ffmpeg, "-v", "error", "-f", "lavfi", "-i", "sine=duration=0.2", str(sound)], check=True
    )
    with pytest.raises(SourceError, match="no video stream"):
        probe(sound)


def test_a_stream_that_begins_without_its_headers_is_refused(toolchain: Toolchain, tmp_path: Path) -> None:
    """A transport stream that was cut between key frames does not say how large its frames are."""
    whole = make(toolchain, tmp_path / "whole.ts", "-c:v", "libx264", "-g", "25", "-bf", "0")
    data = whole.read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    tables = [one for one in packets if (one[1] & 0x1F) << 8 | one[2] != 0x100][:3]
    starts = [n for n, one in enumerate(packets) if one[1] & 0x5F == 0x41 and one[2] == 0]
    cut = tmp_path / "cut.ts"
    cut.write_bytes(b"".join(tables + packets[starts[1] :]))
    for times in (False, True):
        with pytest.raises(SourceError, match=r"cut\.ts does not state the size of its frames"):
            probe(cut, times=times)


def test_frames_that_an_edit_list_cuts_off_are_not_counted(toolchain: Toolchain, tmp_path: Path) -> None:
    whole = make(toolchain, tmp_path / "whole.mp4", "-c:v", "libx264", "-g", "10", "-bf", "0")
    cut = tmp_path / "cut.mp4"
    command = [toolchain.ffmpeg, "-v", "error", "-ss", "0.52", "-i", whole, "-c", "copy", cut]
    subprocess.run(command, check=True)
    info = probe(cut, times=True)
    assert info.frames == 12  # 3 more are stored, from the key frame on
    assert info.key_frames == (7,)


def test_a_large_file_reads_as_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its streams and its packets are asked for one after the other."""
    path = next((FIXTURES / "aloha_video_v30/videos/observation.images.top").rglob("*.mp4"))
    small = probe(path, times=True)
    monkeypatch.setattr("ffenc.ffmpeg.probe._HASHED_BYTES", 0)
    assert probe(shutil.copy(path, tmp_path), times=True) == small
    assert small.extradata_hash


def test_a_file_is_read_again_as_soon_as_it_has_changed(tmp_path: Path) -> None:
    """Here in place, to others of the same size; what has not changed is read once."""
    path, log = tmp_path / "a.mp4", tmp_path / "log"
    program = tmp_path / "ffprobe"
    program.write_text(f'#!/bin/sh\necho >> "{log}"\nexec "{newest_program("ffprobe")}" "$@"\n')
    program.chmod(0o755)
    shutil.copy(
        FIXTURES / "aloha_video_v30/videos/observation.images.angle_depth/chunk-000/file-000.mp4", path
    )
    first = probe(path, times=True, ffprobe=str(program))
    assert probe(path, times=True, ffprobe=str(program)) == first
    assert len(log.read_text()) == 1
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(content.index(b"hev1"))
        file.write(b"hvc1")
    assert (first.tag, probe(path, times=True, ffprobe=str(program)).tag) == ("hev1", "hvc1")
    assert len(log.read_text()) == 2
