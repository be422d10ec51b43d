"""A reader that seeks to each frame by its time, as LeRobot's does, finds it, however long episodes are."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ffenc import DepthEncoderConfig, VideoEncoderConfig, probe
from ffenc.compiler.command import compile_command
from ffenc.compiler.frames import raw_format
from ffenc.ffmpeg.index import PieceReader
from ffenc.ffmpeg.join import Joined, join_files
from ffenc.ffmpeg.toolchain import Toolchain
from tests.conftest import find_toolchain

# Of each distance of key frames: every length until groups of frames, and the 16 that SVT-AV1 orders
# together, begin again, and some in which there are several.
LENGTHS: dict[int, tuple[int, ...]] = {
    1: (1, 2, 9),
    2: (*range(1, 8), 30),
    10: (*range(1, 14), 19, 20, 21, 30),
    30: (*range(1, 20), 24, 29, 30, 31, 35),
}
SIZE, FPS = 64, Fraction(30)
DEPTH = "depth"
FAST = {"hevc": "ultrafast", "libsvtav1": 12, "libaom-av1": 8}


def config_of(codec: str, g: int) -> VideoEncoderConfig:
    # x265's fastest preset has B-frames too, which is what open groups come from.
    if codec == DEPTH:
        return DepthEncoderConfig(g=g, preset="ultrafast")
    if codec == "h264":  # whose fastest preset has none
        return VideoEncoderConfig(vcodec=codec, g=g, preset="veryfast", extra_options={"bf": 3})
    return VideoEncoderConfig(vcodec=codec, g=g, preset=FAST.get(codec))


# Of the slowest encoder few, and of those that order no 16 frames together every second.
STEPS = {"libsvtav1": 1, "libaom-av1": 4}


def lengths_of(codec: str, g: int, *, long: bool) -> tuple[int, ...]:
    """The lengths of a codec's episodes, with ``--long`` all."""
    return LENGTHS[g] if long or g == 1 else LENGTHS[g][:: STEPS.get(codec, 2)]


def episodes(
    toolchain: Toolchain,
    folder: Path,
    config: VideoEncoderConfig,
    lengths: tuple[int, ...],
    change: tuple[str, str] = ("", ""),
) -> Path:
    """Encode an episode of each length, several in one process, and join them."""
    parts: list[Joined] = []
    command = [
        toolchain.ffmpeg,
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        f"testsrc2=size={SIZE}x{SIZE}:rate={FPS}",
    ]
    for length in lengths:
        path = folder / f"{length}.mp4"
        own = compile_command(
            config,
            width=SIZE,
            height=SIZE,
            fps=FPS,
            output=str(path),
            frames=raw_format(config),
            encoder_threads=1,
        )
        encoded = [word.replace(*change) for word in own[own.index("-map") + 2 : -1]]
        command += ["-map", "0:v", "-frames:v", str(length), "-pix_fmt", config.pix_fmt, *encoded]
        parts.append(Joined(path, length, 0))
    subprocess.run(command, check=True, stderr=subprocess.PIPE)
    pieces = PieceReader(toolchain.ffprobe)
    parts = [Joined(part.path, part.frames, pieces.read(part.path).delay or 0) for part in parts]
    output = folder / "joined.mp4"
    tag = "hvc1" if config.vcodec == "hevc" else None
    join_files(parts, output, fps=FPS, tag=tag, toolchain=toolchain)
    return output


def frames_until(
    container: av.container.InputContainer, stop: float = float("inf")
) -> dict[float, av.VideoFrame]:
    """Time -> frame, as far as a reader decodes that wants the frame at some time."""
    stream = container.streams.video[0]
    found = {}
    for frame in container.decode(stream):
        time = float(frame.pts * stream.time_base)
        found[time] = frame
        if time >= stop:
            break
    return found


def picture(frame: av.VideoFrame) -> np.ndarray:
    """Its planes."""
    return frame.to_ndarray(format="gray12le" if "gray" in frame.format.name else "yuv420p")


def missed(path: Path, lengths: tuple[int, ...]) -> list[int]:
    """The frames that LeRobot's way of seeking does not find, or finds with another picture."""
    found = []
    with av.open(str(path)) as container:
        shown = {time: picture(frame) for time, frame in frames_until(container).items()}
        assert list(shown) == [float(i / FPS) for i in range(sum(lengths))]
        stream = container.streams.video[0]
        for number, (time, wanted) in enumerate(shown.items()):
            container.seek(round(time / stream.time_base) - 1, backward=True, any_frame=False, stream=stream)
            after = frames_until(container, time)
            near = min(after, key=lambda other: abs(other - time), default=float("inf"))
            if abs(near - time) > 1e-4 or not np.array_equal(picture(after[near]), wanted):
                found.append(number)
    return found


@pytest.mark.parametrize("g", [1, 2, 10, 30])
@pytest.mark.parametrize("codec", ["libsvtav1", "h264", "hevc", "libaom-av1", DEPTH])
def test_every_frame_of_every_episode_is_found(
    tmp_path: Path, codec: str, g: int, request: pytest.FixtureRequest
) -> None:
    lengths = lengths_of(codec, g, long=request.config.getoption("--long"))
    path = episodes(find_toolchain("newest"), tmp_path, config_of(codec, g), lengths)
    info = probe(path, times=True)
    assert info.leading == ()
    assert info.closed == info.key_frames
    assert missed(path, lengths) == []


@pytest.mark.parametrize("codec", ["hevc", DEPTH])
def test_so_it_is_with_the_systems_encoder(
    tmp_path: Path, codec: str, request: pytest.FixtureRequest
) -> None:
    lengths = lengths_of(codec, 10, long=request.config.getoption("--long"))
    path = episodes(find_toolchain("system"), tmp_path, config_of(codec, 10), lengths)
    assert missed(path, lengths) == []


@pytest.mark.parametrize("g", [2, 10])
def test_what_open_groups_cost_is_known_from_the_index(tmp_path: Path, g: int) -> None:
    """As x265 encodes by default, and LeRobot records."""
    config = VideoEncoderConfig(vcodec="hevc", g=g, preset="medium")
    path = episodes(find_toolchain("newest"), tmp_path, config, LENGTHS[g], ("open-gop=0", "open-gop=1"))
    info = probe(path, times=True)
    assert info.leading
    assert info.missed == tuple(missed(path, LENGTHS[g]))
    assert len(info.missed) == {2: 1, 10: 28}[g]
