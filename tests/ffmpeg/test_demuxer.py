"""A file is opened as the video that it is, and as nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ffenc import SourceError, VideoReader, probe
from ffenc.compiler.decode import compile_decode
from ffenc.compiler.inputs import DEMUXERS
from ffenc.errors import FfmpegError
from ffenc.ffmpeg.demuxer import demuxer_of
from ffenc.ffmpeg.process import run_asked
from ffenc.ffmpeg.toolchain import Toolchain
from tests.conftest import newest_program

pytestmark = pytest.mark.own_ffprobe

DASH = """<?xml version="1.0" encoding="utf-8"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">
<Period><AdaptationSet mimeType="video/mp4"><Representation id="0" bandwidth="1"><BaseURL>secret.mp4</BaseURL>
</Representation></AdaptationSet></Period></MPD>
"""
SVG = '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"></svg>'
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
STREAMS = {  # name -> its demuxer, and how it is made
    "a.mp4": ("mov", "-c:v libx264"),
    "fragments.mp4": ("mov", "-c:v libx264 -movflags +empty_moov+default_base_moof"),
    "a.mov": ("mov", "-c:v libx264 -movflags +faststart"),
    "a.mkv": ("matroska", "-c:v libx264"),
    "a.webm": ("matroska", "-c:v libvpx"),
    "a.avi": ("avi", "-c:v mjpeg"),
    "a.ts": ("mpegts", "-c:v libx264"),
    "a.m2ts": ("mpegts", "-c:v libx264 -mpegts_m2ts_mode 1 -f mpegts"),
    "a.mpg": ("mpeg", "-c:v mpeg2video"),
    "a.flv": ("flv", "-c:v libx264"),
    "a.ogv": ("ogg", "-c:v libvpx -f ogg"),
    "a.nut": ("nut", "-c:v ffv1"),
    "a.ivf": ("ivf", "-c:v libvpx"),
    "a.obu": ("obu", "-c:v libaom-av1 -cpu-used 8"),
    "a.h265": ("hevc", "-c:v libx265 -x265-params log-level=none -f hevc"),
    "a.h264": ("h264", "-c:v libx264 -f h264"),
    "delimited.h264": ("h264", "-c:v libx264 -aud 1 -f h264"),
    "delimited.h265": ("hevc", "-c:v libx265 -x265-params aud=1:log-level=none -f hevc"),
}


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.conftest import find_toolchain

    folder = tmp_path_factory.mktemp("streams")
    made = [
        word
        for name, (_, how) in STREAMS.items()
        for word in (
            *how.split(),
            "-pix_fmt",
            "yuvj420p" if name == "a.avi" else "yuv420p",
            str(folder / name),
        )
    ]
    two = "-map 0:v -map 0:v -c:v libx264 -program st=0 -program st=1".split()
    source = "-f lavfi -i testsrc2=size=64x64:rate=25:duration=0.4".split()
    program = find_toolchain("newest").ffmpeg
    subprocess.run([program, "-v", "error", *source, *made, *two, str(folder / "two.ts")], check=True)
    return folder


def test_the_demuxer_is_told_by_the_first_bytes(toolchain: Toolchain, streams: Path) -> None:
    assert {demuxer for demuxer, _ in STREAMS.values()} == set(DEMUXERS)
    # The last of each demuxer on the system's FFmpeg, which is slow to start.
    last = {demuxer: name for name, (demuxer, _) in STREAMS.items()}
    newest = toolchain.ffmpeg == newest_program("ffmpeg")
    for name in STREAMS if newest else last.values():
        demuxer, _ = STREAMS[name]
        disguised = streams / "b.mp4"
        disguised.unlink(missing_ok=True)
        os.link(streams / name, disguised)
        assert demuxer_of(disguised) == demuxer, name
        info = probe(disguised)
        assert (info.width, info.height, info.frames) == (64, 64, 10), name
    run_asked(compile_decode(str(disguised), program=toolchain.ffmpeg))


def test_several_programs_are_refused(toolchain: Toolchain, streams: Path) -> None:
    with pytest.raises(SourceError, match=r"two\.ts holds 2 programs; expected one"):
        probe(streams / "two.ts")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("ffconcat version 1.0\nfile secret.mp4\n", "a list of files for FFmpeg"),
        ("ffconcat version 1.0\nfile evil.mp4\n", "a list of files for FFmpeg"),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n", "an HLS playlist"),
        (DASH, "a DASH manifest"),
        (SDP, "an SDP session"),
        (SVG, "an SVG drawing"),
        ("\x89PNG\r\n\x1a\n", "a PNG image"),
        ("\xff\xd8\xff\xe0", "a JPEG image"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        ("words", "begins with b'words'"),
        ("\0" * 2000, "only zeros"),
        ("", "is empty"),
    ],
)
def test_what_is_no_video_is_named_and_opens_nothing(
    toolchain: Toolchain, streams: Path, tmp_path: Path, content: str, found: str
) -> None:
    os.link(streams / "a.mp4", tmp_path / "secret.mp4")
    evil = tmp_path / "evil.mp4"
    evil.write_bytes(content.encode("latin-1"))
    for read in (probe, VideoReader, demuxer_of):
        with pytest.raises(SourceError) as caught:
            read(evil)
        assert str(evil) in str(caught.value)
        assert found in str(caught.value)
        assert "expected MP4" in str(caught.value)
    with pytest.raises(FfmpegError):  # nor would ffmpeg itself, where the file was changed meanwhile
        run_asked(compile_decode(str(evil), program=toolchain.ffmpeg))


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    pipe = tmp_path / "a.mp4"
    os.mkfifo(pipe)
    with pytest.raises(SourceError, match=r"a\.mp4: is a named pipe"):
        probe(pipe)


def test_a_file_without_a_rate_is_refused(streams: Path, tmp_path: Path) -> None:
    data = (streams / "a.ivf").read_bytes()
    broken = tmp_path / "broken.ivf"
    broken.write_bytes(data[:16] + bytes(8) + data[24:])  # rate and scale of its header
    with pytest.raises(SourceError, match=r"broken\.ivf"):
        probe(broken, times=True)
