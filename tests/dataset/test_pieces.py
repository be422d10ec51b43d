"""A piece costs one process, and nothing that is wrong with one gets past."""

from __future__ import annotations

import shlex
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from ffenc import DepthQuantizer, FfmpegError, VerificationError, plan_reencode, probe
from ffenc.dataset.job.piece import Surroundings, run_piece
from ffenc.dataset.job.pieces import asked_of
from ffenc.dataset.job.plan import JobPlan
from ffenc.dataset.job.run import run_plan
from ffenc.frames.verify import verify_joined
from ffenc.paths import read_bytes
from tests.conftest import FIXTURES, newest_program

LENGTHS = (4, 1, 3, 5)
CAMERAS = ("left", "right")
B_FRAMES = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "extra_options"), {"bf": 2})]

# Logs its arguments, changes some of them where a file beside it says so, and becomes the real program.
# Each process has a log of its own: in a common one, those of two that run at once can be interleaved.
_SHIM = r"""#!/bin/bash
me={path}
printf '%s\0' "$@" > "$me.$$.log"
if [ -e "$me.change" ]; then
    mapfile -d '' -t change < "$me.change"
    if [[ "$*" == *"${{change[0]}}"* ]]; then
        set -- "${{@//"${{change[1]}}"/"${{change[2]}}"}}"
    fi
fi
exec {real} "$@"
"""


class Shim:
    """A program that can be counted and changed."""

    def __init__(self, folder: Path, name: str, real: str) -> None:
        folder.mkdir(exist_ok=True)
        self.path = folder / name
        self.path.write_text(_SHIM.format(path=shlex.quote(str(self.path)), real=shlex.quote(real)))
        self.path.chmod(0o755)

    def change(self, where: str, old: str, new: str) -> None:
        """From now on replace a text in the arguments of runs that have another in theirs."""
        self.path.with_suffix(".change").write_text("".join(f"{word}\0" for word in (where, old, new)))

    def runs(self) -> list[list[str]]:
        """The arguments of every run since this was asked last."""
        logs = list(self.path.parent.glob(f"{self.path.name}.*.log"))
        runs = [log.read_text().split("\0")[:-1] for log in logs]
        for log in logs:
            log.unlink()
        return runs


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("short") / "tree"
    rng = np.random.default_rng(0)
    for episode, length in enumerate(LENGTHS):
        for camera in CAMERAS:
            folder = root / f"episode_{episode}" / camera
            folder.mkdir(parents=True)
            for i in range(length):
                frame = np.kron(rng.integers(0, 255, (8, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
                Image.fromarray(frame).save(folder / f"{i}.png")
    return root


def plan(
    tree: Path, out: Path, ffmpeg: Shim, ffprobe: Shim, *cameras: str, workers: int | None = None
) -> JobPlan:
    found = plan_reencode(
        *(tree, out),
        **{"fps": 30, "task": "x", "overrides": B_FRAMES, "cameras": cameras or None, "workers": workers},
        ffmpeg=str(ffmpeg.path),
        ffprobe=str(ffprobe.path),
    )
    ffmpeg.runs(), ffprobe.runs()  # those that have tried the settings
    return found


def test_a_piece_is_one_process_and_ffprobe_reads_the_first_of_what_is_alike(
    tree: Path, tmp_path: Path
) -> None:
    ffmpeg = Shim(tmp_path / "bin", "ffmpeg", newest_program("ffmpeg"))
    ffprobe = Shim(tmp_path / "bin", "ffprobe", newest_program("ffprobe"))
    run_plan(plan(tree, tmp_path / "whole", ffmpeg, ffprobe))
    assert len(ffmpeg.runs()) == len(CAMERAS) * (len(LENGTHS) + 1)
    assert len(ffprobe.runs()) == 2  # the pieces of both cameras are alike, and so are their files

    # A run that ends before its files are joined leaves pieces, which another takes as they are.
    out = tmp_path / "resumed"
    prepared = plan(tree, out, ffmpeg, ffprobe)
    ffmpeg.change("concat", "concat", "no-such-demuxer")
    with pytest.raises(FfmpegError, match="no-such-demuxer"):
        run_plan(prepared)
    ffmpeg.path.with_suffix(".change").unlink()
    ffmpeg.runs(), ffprobe.runs()
    summary = run_plan(prepared, resume=True)
    assert summary.resumed == len(CAMERAS) * len(LENGTHS)
    assert (len(ffmpeg.runs()), len(ffprobe.runs())) == (len(CAMERAS), 0)
    for camera in CAMERAS:
        place = f"videos/observation.images.{camera}/chunk-000/file-000.mp4"
        assert (out / place).read_bytes() == (tmp_path / "whole" / place).read_bytes()
        info = probe(out / place, times=True)
        assert info.times is not None
        assert [time * info.time_base for time in info.times] == [
            Fraction(i, 30) for i in range(sum(LENGTHS))
        ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("format=yuv420p", "format=yuv444p", r"pix_fmt is yuv444p, requested was yuv420p"),
        ("range=tv[", "range=pc[", r"color_range is pc, requested was tv"),
        ("colorspace=smpte170m", "colorspace=bt709", r"color_space is bt709, requested was smpte170m"),
        (
            "scale=flags",
            "scale=32:16:flags",
            r"width is 32, requested was 64; height is 16, requested was 64",
        ),
        ("format=yuv420p", "format=yuv420p,select=lt(n\\,2)", r"frames is 2, requested was 3"),
        (
            "format=yuv420p",
            "format=yuv420p,setpts=PTS+gt(N\\,1)/TB/30",
            r"frame 2 is at 0.100000 s, not at 2/30",
        ),
        ("libx264", "libx265", r"codec is hevc, requested was h264"),
    ],
)
def test_what_is_wrong_with_one_piece_is_found_before_the_next_hour(
    tree: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    """Not in the first, which ffprobe has read."""
    ffmpeg = Shim(tmp_path / "bin", "ffmpeg", newest_program("ffmpeg"))
    ffprobe = Shim(tmp_path / "bin", "ffprobe", newest_program("ffprobe"))
    out = tmp_path / "out"
    prepared = plan(tree, out, ffmpeg, ffprobe, "left", workers=1)  # longer episodes come before it
    ffmpeg.change("episode-000002", old, new)
    with pytest.raises(VerificationError, match=rf"observation.images.left, episode 2: .*{said}"):
        run_plan(prepared)
    assert not out.exists()
    assert len(ffprobe.runs()) == 1 + ("frame" not in said)


def test_a_joined_file_must_be_what_was_asked_for(tree: Path, tmp_path: Path) -> None:
    """Whatever its pieces were."""
    ffmpeg = Shim(tmp_path / "bin", "ffmpeg", newest_program("ffmpeg"))
    ffprobe = Shim(tmp_path / "bin", "ffprobe", newest_program("ffprobe"))
    prepared = plan(tree, tmp_path / "out", ffmpeg, ffprobe, "left")
    run_plan(prepared)
    path = tmp_path / "out/videos/observation.images.left/chunk-000/file-000.mp4"
    info = probe(path, times=True)
    encoding = prepared.streams[0].encoding
    assert encoding is not None
    frames, packet_bytes = sum(LENGTHS), sum(info.sizes or ())
    right = {**asked_of(info), **encoding.asked()}
    keys = [sum(LENGTHS[:i]) for i in range(len(LENGTHS))]

    def verify(asked: dict[str, object], *, keys: list[int] = keys, packet_bytes: int = packet_bytes) -> None:
        verify_joined(
            *(path, asked),
            **{"fps": Fraction(30), "frames": frames, "packet_bytes": packet_bytes, "key_frames": keys},
        )

    verify(right)
    wrong = {"codec": "av1", "pix_fmt": "yuv444p", "width": 66, "color_range": "pc", "configuration": "x"}
    for name, value in wrong.items():
        with pytest.raises(VerificationError, match=rf"{name} is .*, requested was {value}"):
            verify({**right, name: value})
    with pytest.raises(VerificationError, match=rf"its packets have {packet_bytes} bytes, not 5"):
        verify(right, packet_bytes=5)
    with pytest.raises(VerificationError, match=r"frame 1 must be a key frame and is not"):
        verify(right, keys=[0, 1])


def test_statistics_of_copied_depth_are_taken_over_only_with_the_same_quantiser(tmp_path: Path) -> None:
    prepared = plan_reencode(FIXTURES / "aloha_video_v30", tmp_path / "out", cameras=["angle_depth"])
    [stream] = prepared.streams
    assert len(stream.copied) == 3
    stream = replace(stream, compute_stats=True)
    stats = []
    for quantizer in (stream.quantizer, stream.quantizer, DepthQuantizer(depth_max=5.0, invalid="keep")):
        task = replace(stream, quantizer=quantizer).task(prepared, prepared.episodes[0], tmp_path / "pieces")
        record = run_piece(task, Surroundings())
        assert record.stats is not None
        stats.append((record.resumed, record.stats["max"][0][0][0]))
    assert [resumed for resumed, _ in stats] == [False, True, False]
    assert stats[0][1] == stats[1][1] > stats[2][1]


@pytest.mark.parametrize("most", [256 << 20, 0])
def test_the_first_image_is_read_while_the_piece_waits_for_its_slot(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("ffenc.dataset.job.piece._AHEAD_BYTES", most)
    planned = plan_reencode(tree, tmp_path / "out", fps=30, task="x", overrides=B_FRAMES, cameras=["left"])
    task = planned.streams[0].task(planned, planned.episodes[0], tmp_path)
    read: list[Path] = []

    def reading(path: Path, limit: int) -> bytes:
        read.append(path)
        return read_bytes(path, limit)

    monkeypatch.setattr("ffenc.frames.sources.read_bytes", reading)
    slot = threading.Semaphore(0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run_piece, task, Surroundings(slot=slot))
        until = time.monotonic() + (60 if most else 1)
        while not read and not waiting.done() and time.monotonic() < until:
            time.sleep(0.01)
        ahead = len(read)
        slot.release()
        assert waiting.result(timeout=60).frames == LENGTHS[0]
    assert ahead == (1 if most else 0)
    assert len(read) == LENGTHS[0]  # each image once
