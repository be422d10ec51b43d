"""Packets are joined and cut without a frame being changed, lost or moved, on both FFmpegs."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import pytest

from ffenc import probe
from ffenc.config.framerate import frame_ticks, time_scale
from ffenc.errors import FfmpegError
from ffenc.ffmpeg.join import Joined, cut_file, join_files
from ffenc.ffmpeg.toolchain import Toolchain
from tests.conftest import newest_only
from tests.support.read import packets

NTSC = Fraction(30000, 1001)
GROUP, FRAMES = 7, 35
PIECES = FRAMES // GROUP


def film(toolchain: Toolchain, path: Path, fps: Fraction, *options: str) -> Path:
    """H.264 with three B-frames, and every 7th frame a key frame behind which the file can be cut."""
    subprocess.run(
        [toolchain.ffmpeg, "-v", "error", "-f", "lavfi", "-i", f"testsrc2=size=64x48:rate={fps}"]
        + ["-frames:v", str(FRAMES), "-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "veryfast"]
        + ["-bf", "3", "-b_strategy", "0", "-g", str(GROUP), "-keyint_min", str(GROUP)]
        + ["-sc_threshold", "0", *options, str(path)],
        check=True,
    )
    return path


def cut_up(toolchain: Toolchain, source: Path, folder: Path, fps: Fraction) -> list[Joined]:
    tag = probe(source).tag
    pieces = []
    for number in range(PIECES):
        path = folder / f"it's 50%d-{number}.mp4"
        cut_file(source, path, first=number * GROUP, frames=GROUP, fps=fps, tag=tag, toolchain=toolchain)
        pieces.append(Joined(path, GROUP, probe(path, times=True).delay or 0))
    return pieces


# The times are ffenc's arithmetic, put in FFmpeg's words: the system's FFmpeg reads some of each kind.
@pytest.mark.parametrize(
    ("toolchain", "fps"),
    [
        *(("newest", fps) for fps in (Fraction(10), Fraction(25), Fraction(30), NTSC)),
        ("system", NTSC),
    ],
    indirect=["toolchain"],
)
def test_two_hundred_pieces_stay_on_the_grid(toolchain: Toolchain, tmp_path: Path, fps: Fraction) -> None:
    source = film(toolchain, tmp_path / "film.mp4", fps)  # in the muxer's own time base
    stored = packets(source)
    pieces = cut_up(toolchain, source, tmp_path, fps)
    assert {piece.delay for piece in pieces} == {2}
    order = [(number * 3) % PIECES for number in range(200)]
    output = tmp_path / "joined.mp4"
    join_files([pieces[n] for n in order], output, fps=fps, tag="avc1", toolchain=toolchain)
    info = probe(output, times=True)
    assert info.times is not None
    assert info.fps == fps
    assert [time * info.time_base for time in info.times] == [i / fps for i in range(200 * GROUP)]
    assert info.closed == tuple(range(0, 200 * GROUP, GROUP))
    assert packets(output) == [stored[n * GROUP + i] for n in order for i in range(GROUP)]


@pytest.mark.parametrize(
    ("toolchain", "fps", "scale"),
    [
        *(("newest", Fraction(25), scale) for scale in (25, 90000)),
        *((version, NTSC, 15360) for version in ("newest", "system")),
    ],
    indirect=["toolchain"],
)
def test_a_foreign_time_base_is_cut_into_ffencs(
    toolchain: Toolchain, tmp_path: Path, fps: Fraction, scale: int
) -> None:
    """29.97 frames a second are not whole ticks of 1/15360 second, and 25 were of 1/25 in older versions."""
    source = film(toolchain, tmp_path / "film.mp4", fps, "-video_track_timescale", str(scale))
    assert probe(source).time_base == Fraction(1, scale)
    output = tmp_path / "cut.mp4"
    cut_file(source, output, first=2 * GROUP, frames=3 * GROUP, fps=fps, tag="avc1", toolchain=toolchain)
    info = probe(output, times=True)
    assert info.time_base == Fraction(1, time_scale(fps))
    # Within what the source's own ticks leave open; joining puts every frame on its exact place.
    assert info.times is not None
    off = [abs(time * info.time_base - i / fps) for i, time in enumerate(info.times)]
    assert len(off) == 3 * GROUP
    assert max(off) <= Fraction(1, scale) + info.time_base
    assert info.key_frames == (0, GROUP, 2 * GROUP)
    assert packets(output) == packets(source)[2 * GROUP : 5 * GROUP]
    whole = tmp_path / "whole.mp4"
    pieces = cut_up(toolchain, source, tmp_path, fps)
    join_files(pieces, whole, fps=fps, tag="avc1", toolchain=toolchain)
    joined = probe(whole, times=True)
    assert joined.times == tuple(i * frame_ticks(fps) for i in range(FRAMES))
    assert joined.fps == fps
    assert packets(whole) == packets(source)


@newest_only
def test_only_the_video_of_a_file_with_sound_is_cut(toolchain: Toolchain, tmp_path: Path) -> None:
    silent = film(toolchain, tmp_path / "silent.mp4", Fraction(30))
    source = tmp_path / "sound.mp4"
    subprocess.run(
        [toolchain.ffmpeg, "-v", "error", "-f", "lavfi", "-i", "sine=duration=2", "-i", str(silent)]
        + ["-map", "0:a", "-map", "1:v", "-c:v", "copy", "-c:a", "aac", str(source)],
        check=True,
    )
    assert probe(source).audio is not None
    output = tmp_path / "cut.mp4"
    cut_file(source, output, first=GROUP, frames=GROUP, fps=Fraction(30), tag="avc1", toolchain=toolchain)
    assert probe(output).audio is None
    assert packets(output) == packets(silent)[GROUP : 2 * GROUP]


def test_a_piece_that_cannot_be_read_is_an_error(toolchain: Toolchain, tmp_path: Path) -> None:
    source = film(toolchain, tmp_path / "film.mp4", Fraction(30))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(FfmpegError):
        join_files(
            [Joined(source, FRAMES, 2), Joined(broken, FRAMES, 2)],
            tmp_path / "joined.mp4",
            fps=Fraction(30),
            tag="avc1",
            toolchain=toolchain,
        )


def test_frames_are_picked_out_of_files_while_they_are_joined(toolchain: Toolchain, tmp_path: Path) -> None:
    """Some of a file, the others behind them, a file of its own, and the first file a second time."""
    pieces = cut_up(toolchain, film(toolchain, tmp_path / "film.mp4", NTSC), tmp_path, NTSC)
    whole, output = tmp_path / "whole.mp4", tmp_path / "picked.mp4"
    join_files(pieces, whole, fps=NTSC, tag="avc1", toolchain=toolchain)
    stored = packets(whole)

    def part(first: int, count: int) -> Joined:
        return Joined(whole, count * GROUP, 2, first * GROUP, FRAMES)

    parts = [part(0, 1), part(2, 1), part(3, 2), pieces[3], part(1, 2), part(4, 1)]
    wanted = [0, 2, 3, 4, 3, 1, 2, 4]
    join_files(parts, output, fps=NTSC, tag="avc1", toolchain=toolchain)
    info = probe(output, times=True)
    assert packets(output) == [stored[n * GROUP + i] for n in wanted for i in range(GROUP)]
    assert info.times == tuple(i * frame_ticks(NTSC) for i in range(len(wanted) * GROUP))
    assert info.closed == tuple(range(0, len(wanted) * GROUP, GROUP))
    assert (info.fps, info.delay, info.hidden) == (NTSC, 2, 0)
    join_files([part(1, 1)], output, fps=NTSC, tag="avc1", toolchain=toolchain)
    assert packets(output) == stored[GROUP : 2 * GROUP]
    assert probe(output, times=True).times == tuple(i * frame_ticks(NTSC) for i in range(GROUP))


def test_hundreds_of_parts_are_picked_out_of_files(toolchain: Toolchain, tmp_path: Path) -> None:
    """As where every second episode is left out: an expression with so many terms is refused by FFmpeg."""
    pieces = cut_up(toolchain, film(toolchain, tmp_path / "film.mp4", NTSC), tmp_path, NTSC)
    whole, output = tmp_path / "whole.mp4", tmp_path / "picked.mp4"
    join_files(pieces, whole, fps=NTSC, tag="avc1", toolchain=toolchain)
    stored = packets(whole)
    wanted = [0, 2] * 350
    parts = [Joined(whole, GROUP, 2, n * GROUP, FRAMES) for n in wanted]
    join_files(parts, output, fps=NTSC, tag="avc1", toolchain=toolchain)
    info = probe(output, times=True)
    assert packets(output) == [stored[n * GROUP + i] for n in wanted for i in range(GROUP)]
    assert info.times == tuple(i * frame_ticks(NTSC) for i in range(len(wanted) * GROUP))
