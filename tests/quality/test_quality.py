"""Quality metrics, against FFmpeg's own by a plain command line, and against scikit-image's."""

from __future__ import annotations

import math
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ffenc import SourceError, VideoReader
from ffenc.compiler.decode import Compared
from ffenc.compiler.quality import compile_quality
from ffenc.ffmpeg.probe import probe
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.frames.clip import Clip
from ffenc.frames.depth import DepthQuantizer
from ffenc.frames.images import read_header
from ffenc.quality.compare import quality_of
from ffenc.quality.depth import DepthErrors
from ffenc.quality.measure import METRICS, Quality, gauges
from tests.conftest import FIXTURES, LENGTHS, TOP, find_toolchain, pixels, starts
from tests.support.make import image_files

TOP_FILE = FIXTURES / "aloha_video_v30/videos" / TOP / "chunk-000/file-000.mp4"
EPISODE = 1
FIRST, FRAMES = starts()[EPISODE], LENGTHS[EPISODE]


def luma(rgb: np.ndarray) -> np.ndarray:
    """BT.601, limited range, as ITU-R says."""
    return np.rint(16 + rgb.astype(float) @ np.array([65.481, 128.553, 24.966]) / 255)


def ffmpegs_own(program: str, folder: Path, shown: np.ndarray, wanted: np.ndarray, name: str) -> list[float]:
    """What a filter says of two raw files of the same luma, by its own statistics file."""
    for file, frames in (("a", shown), ("b", wanted)):
        planes = np.full((len(frames), 3, *frames.shape[1:3]), 128, np.uint8)
        planes[:, 0] = luma(frames)
        (folder / file).write_bytes(planes.tobytes())
    height, width = shown.shape[1:3]
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv444p", "-s", f"{width}x{height}", "-r", "1"]
    last = "log_fmt=csv:log_path=s" if name == "libvmaf" else "stats_file=s"
    graph = f"[0][1]{name}={last}"
    subprocess.run(
        [program, "-v", "error", *raw, "-i", "a", *raw, "-i", "b", "-lavfi", graph, "-f", "null", "-"],
        cwd=folder,
        check=True,
    )
    text = (folder / "s").read_text()
    if name == "libvmaf":
        rows = [line.rstrip(",").split(",") for line in text.splitlines()]
        return [float(row[rows[0].index("vmaf")]) for row in rows[1:]]
    key = {"psnr": "psnr_y:", "ssim": "Y:", "xpsnr": "XPSNR y:"}[name]
    return [float(value) for value in re.findall(rf"^n: *\d+ .*?{key} *([\d.]+)", text, re.MULTILINE)]


def test_values_are_those_of_ffmpeg_and_of_scikit_image(
    toolchain: Toolchain, tmp_path: Path, images_of_top: list[bytes]
) -> None:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity  # takes seconds

    video = Clip(TOP_FILE, probe(TOP_FILE, times=True), FIRST, FRAMES)
    source = images_of_top[FIRST : FIRST + FRAMES]
    header = read_header(source[0], "first")
    found = gauges([toolchain])
    quality = quality_of(video, image_files(tmp_path / "source", source), found, header=header)
    assert len(quality) == FRAMES
    assert ("vmaf" in quality.values) == (found[0].main.name == "vmaf")
    with VideoReader(TOP_FILE) as reader:
        shown = reader[FIRST : FIRST + FRAMES]
    wanted = np.stack([pixels(image) for image in source])
    # A sample of luma may be rounded to its neighbour: that is what the tolerances are.
    for name, tolerance in {"psnr": 0.05, "ssim": 0.002, "vmaf": 0.2, "xpsnr": 0.05}.items():
        if name in quality.values:
            own = ffmpegs_own(toolchain.ffmpeg, tmp_path, shown, wanted, METRICS[name].filter)
            assert quality.values[name] == pytest.approx(own, abs=tolerance), name
    for number, (one, other) in enumerate(zip(luma(shown), luma(wanted), strict=True)):
        psnr = peak_signal_noise_ratio(other, one, data_range=255)
        assert quality.values["psnr"][number] == pytest.approx(psnr, abs=0.05)
        # FFmpeg looks at every fourth block of 8x8, scikit-image at all of 7x7.
        ssim = structural_similarity(other, one, data_range=255)
        assert quality.values["ssim"][number] == pytest.approx(ssim, abs=0.01)


@pytest.fixture
def images_of_top(images: dict[str, list[bytes]]) -> list[bytes]:
    return images[TOP]


def test_a_file_and_itself_are_at_the_top() -> None:
    gauge = gauges([find_toolchain("newest")])
    assert [metric.name for metric in gauge[0].metrics] == ["vmaf", "ssim", "psnr", "xpsnr"]
    video = Clip(TOP_FILE, probe(TOP_FILE, times=True), FIRST, FRAMES)
    quality = quality_of(video, video, gauge)
    assert set(quality.values["psnr"]) == {math.inf}
    assert set(quality.values["ssim"]) == {1.0}
    # The model gives a picture without motion 97.4, however like it is.
    assert min(quality.values["vmaf"]) > 97
    assert quality.summary("psnr").mean == math.inf


def test_programs_with_vmaf_come_first_and_others_serve_without() -> None:
    found = gauges([find_toolchain("system"), find_toolchain("newest")])
    assert [gauge.main.name for gauge in found] == ["vmaf", "ssim"]
    assert found[0].toolchain == find_toolchain("newest")
    assert len(gauges(toolchains())) >= 2


def test_a_summary_has_mean_low_end_and_worst() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    quality = Quality({"ssim": values, "psnr": [math.inf, 20.0, 30.0]})
    one = quality.summary("ssim")
    assert (one.mean, one.p5, one.worst, one.frame) == (50.5, 5.0, 1.0, 99)
    psnr = quality.summary("psnr")
    assert psnr.mean == pytest.approx(-10 * math.log10((0 + 0.01 + 0.001) / 3))
    assert (psnr.worst, psnr.frame) == (20.0, 1)
    together = quality + Quality({"psnr": [40.0], "vmaf": [1.0]})
    assert together.values == {"psnr": [math.inf, 20.0, 30.0, 40.0]}


def test_frames_of_another_number_are_refused() -> None:
    info = probe(TOP_FILE, times=True)
    with pytest.raises(SourceError, match="has 4 frames, its source 5"):
        quality_of(Clip(TOP_FILE, info, 0, 4), Clip(TOP_FILE, info, 0, 5), gauges(toolchains()))


def test_the_command_line_is_compiled_without_looking_at_anything() -> None:
    one = Compared("a.mp4", {"in_color_matrix": "bt601"})
    other = Compared("pipe:0", {"flags": "bicubic"}, images="rgb24", size=(64, 48))
    command = compile_quality(one, other, ["psnr", "libvmaf"], vmaf_log="/tmp/it's: a log", threads=2)
    text = " ".join(command)
    assert "-pix_fmt rgb24 -video_size" in text or "rawvideo" in text
    graph = command[command.index("-filter_complex") + 1]
    assert graph.count("format=yuv444p") == 2
    assert "n_threads=2" in graph
    assert "ssim" not in graph


def test_depth_at_the_ends_of_the_stored_range_is_inside() -> None:
    """In binary fractions 0.07 * 1000 is more than 70, and 1.005 * 1000 less than 1005."""
    errors = DepthErrors(DepthQuantizer(depth_min=0.07, depth_max=1.005))
    given = np.array([[69, 70, 1005, 1006]], np.uint16)
    errors.add(given, given)
    found = errors.result()
    assert (found.saturated, sum(band[2].share for band in found.bands)) == (0.5, 1)
    assert errors.range == (70, 1005)
