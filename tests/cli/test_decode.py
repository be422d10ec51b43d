"""``ffenc decode``: what it writes, what it refuses, and that it leaves nothing half done."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffenc import DepthQuantizer
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.pictures import DepthHistogram, DepthPicture, turbo
from tests.conftest import (
    DEPTH,
    FIXTURES,
    LENGTHS,
    TOP,
    decode,
    everything_in,
    newest_only,
    newest_program,
    starts,
)
from tests.support.command_line import CommandLine

VIDEOS = FIXTURES / "aloha_video_v30"
TOP_FILE, DEPTH_FILE = (VIDEOS / f"videos/{key}/chunk-000/file-000.mp4" for key in (TOP, DEPTH))
CODE_NONE = 0


@pytest.fixture(scope="session")
def codes(images: dict[str, list[bytes]]) -> np.ndarray:
    """The recorded depth as codes."""
    depth = np.stack([np.asarray(Image.open(io.BytesIO(image))) for image in images[DEPTH]])
    return DepthQuantizer().quantize(depth)


@pytest.fixture(scope="session")
def shown() -> np.ndarray:
    return decode(TOP_FILE)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


# ---- what is written -----------------------------------------------------------------------------------


@newest_only
def test_a_dataset_comes_into_a_folder_for_each_camera_and_episode(
    ffenc: CommandLine, tmp_path: Path, toolchain: Toolchain, codes: np.ndarray, shown: np.ndarray
) -> None:
    found = ffenc.done("decode", VIDEOS, tmp_path / "new/out", "--json").json
    assert (found["files"], found["frames"]) == (216, 216)
    out = tmp_path / "new/out"
    assert found["bytes"] == sum(path.stat().st_size for path in out.rglob("*.png"))
    assert sorted(path.name for path in out.iterdir()) == ["angle", "angle_depth", "top"]
    depth = DepthQuantizer().dequantize(codes)
    for episode, (first, length) in enumerate(zip(starts(), LENGTHS, strict=True)):
        names = [f"frame-{i:06d}.png" for i in range(length)]
        for camera, expected in (("top", shown), ("angle_depth", depth)):
            folder = out / camera / f"episode_{episode:06d}"
            assert sorted(path.name for path in folder.iterdir()) == names
            for i, name in enumerate(names):
                assert np.array_equal(read(folder / name), expected[first + i])
    assert read(out / "angle_depth/episode_000000/frame-000000.png").dtype == np.uint16
    assert everything_in(tmp_path / "new") == sorted(["out", *(f"out/{p}" for p in everything_in(out))])


def test_cameras_episodes_and_frames_are_chosen(
    ffenc: CommandLine, tmp_path: Path, shown: np.ndarray
) -> None:
    words = ["--camera", "top", "--camera", DEPTH, "--episode", "1", "--episode", "2", "--frames", "4:10:3"]
    ffenc.done("decode", VIDEOS, tmp_path / "out", *words)
    files = [name for name in everything_in(tmp_path / "out") if name.endswith(".png")]
    assert files == [
        f"{camera}/episode_{episode:06d}/frame-{i:06d}.png"
        for camera in ("angle_depth", "top")
        for episode in (1, 2)
        for i in (4, 7)
    ]
    picture = read(tmp_path / "out/top/episode_000002/frame-000007.png")
    assert np.array_equal(picture, shown[LENGTHS[0] + LENGTHS[1] + 7])


@pytest.mark.parametrize(
    ("words", "unit", "dtype"),
    [
        ([], "mm", np.uint16),
        (["--unit", "m"], "m", np.float32),
        (["--dataset.depth_output_unit=m"], "m", np.float32),
        (["--dataset.depth_output_unit", "m"], "m", np.float32),
        (["--depth_output_unit=m", "--unit", "m"], "m", np.float32),
    ],
)
def test_one_file_becomes_one_array(
    ffenc: CommandLine, tmp_path: Path, codes: np.ndarray, words: list[str], unit: str, dtype: type
) -> None:
    target = tmp_path / "it's 100%d.npy"
    outcome = ffenc.done("decode", DEPTH_FILE, target, "--frames", "3:50", *words)
    assert outcome.out.startswith(f"{target}: 47 frames in 1 file, ")
    array = np.load(target)
    assert array.dtype == dtype
    assert np.array_equal(array, DepthQuantizer().dequantize(codes[3:50], output_unit=unit))  # type: ignore[arg-type]
    assert everything_in(tmp_path) == [target.name]


def test_two_units_are_refused(ffenc: CommandLine, tmp_path: Path) -> None:
    both = ["--dataset.depth_output_unit=m", "--unit", "mm"]
    said = ffenc.refused("decode", DEPTH_FILE, tmp_path / "out", *both, status=2)
    assert "--unit and --dataset.depth_output_unit are two names of one setting" in said
    assert everything_in(tmp_path) == []


def test_arrays_of_a_dataset_hold_an_episode_each(
    ffenc: CommandLine, tmp_path: Path, shown: np.ndarray
) -> None:
    ffenc.done("decode", VIDEOS, tmp_path / "out", "--camera", "top", "--format", "npy")
    assert everything_in(tmp_path / "out/top") == [f"episode_{i:06d}.npy" for i in range(3)]
    assert np.array_equal(np.load(tmp_path / "out/top/episode_000001.npy"), shown[24:41])


def test_code_0_is_read_as_a_hole_when_told_so_and_the_codes_themselves_can_be_had(
    ffenc: CommandLine, tmp_path: Path, codes: np.ndarray
) -> None:
    ffenc.done("decode", DEPTH_FILE, tmp_path / "depth.npy", "--invalid", "keep")
    assert np.array_equal(np.load(tmp_path / "depth.npy") == 0, codes == CODE_NONE)
    ffenc.done("decode", DEPTH_FILE, tmp_path / "codes.npy", "--codes")
    assert np.array_equal(np.load(tmp_path / "codes.npy"), codes)


def test_a_file_outside_any_dataset_is_read_with_the_quantiser_that_is_given(
    ffenc: CommandLine, tmp_path: Path, codes: np.ndarray
) -> None:
    alone = Path(shutil.copy(DEPTH_FILE, tmp_path / "alone.mp4"))
    text = ffenc.refused("decode", alone, tmp_path / "out.npy")
    assert "--depth_encoder.depth_min" in text
    words = ["--depth_encoder.depth_min=0.2", "--dataset.depth_encoder.depth_max=5"]
    ffenc.done("decode", alone, tmp_path / "out.npy", *words)
    expected = DepthQuantizer(depth_min=0.2, depth_max=5.0).dequantize(codes)
    assert np.array_equal(np.load(tmp_path / "out.npy"), expected)


# ---- pictures ------------------------------------------------------------------------------------------


def test_the_colours_are_turbo(toolchain: Toolchain) -> None:
    """FFmpeg's is a polynomial that strays from the published table by up to 21, at the dark red end."""
    raw = subprocess.run(
        [
            toolchain.ffmpeg,
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            "nullsrc=s=256x1:d=1:r=1,format=gray,geq=lum=X",
        ]
        + [
            "-vf",
            "format=gbrp,pseudocolor=preset=turbo,format=rgb24",
            "-frames:v",
            "1",
            "-f",
            "rawvideo",
            "-",
        ],
        check=True,
        capture_output=True,
    ).stdout
    off = np.abs(np.frombuffer(raw, np.uint8).reshape(256, 3).astype(int) - turbo())
    assert off.max() <= 24
    assert off.mean() < 5


def test_a_picture_has_depth_in_colours_holes_in_black_and_a_scale(
    ffenc: CommandLine, tmp_path: Path, codes: np.ndarray
) -> None:
    words = ["--colormap", "--range", "0.4:1.1", "--invalid", "keep", "--frames", "10"]
    outcome = ffenc.done("decode", DEPTH_FILE, tmp_path / "out", *words)
    assert "0.400 m (blue) to 1.100 m (red)" in outcome.out
    picture = read(tmp_path / "out/frame-000010.png")
    height, width = codes.shape[1:]
    assert picture.shape[0] == height
    assert width + 20 < picture.shape[1] < 2 * width
    metres = DepthQuantizer(invalid="keep").dequantize(codes[10]) / 1000
    place = np.rint(((metres - 0.4) / 0.7).clip(0, 1) * 255).astype(int)
    expected = np.where((metres > 0)[..., None], turbo()[place], 0)
    assert np.abs(picture[:, :width].astype(int) - expected).max() <= 8  # a step of the colours
    scale = picture[:, width:]
    assert any(np.array_equal(pixel, turbo()[0]) for pixel in scale.reshape(-1, 3)), "near"
    assert any(np.array_equal(pixel, turbo()[255]) for pixel in scale.reshape(-1, 3)), "far"
    assert (scale == 255).all(axis=2).any(), "text"


def test_the_range_of_the_colours_leaves_out_holes_ends_and_outliers() -> None:
    histogram = DepthHistogram(DepthQuantizer(depth_min=0.1, depth_max=8.0, invalid="keep"))
    frame = np.linspace(500, 1500, 10_000).astype(np.uint16).reshape(100, 100)
    frame[:5], frame[5:30], frame[30, :3] = 0, 8000, 7000
    histogram.add(frame)
    near, far = histogram.range()
    assert 0.8 < near < 0.83
    assert 1.45 < far <= 1.5
    empty = DepthHistogram(DepthQuantizer(depth_min=0.1, depth_max=8.0))
    empty.add(np.full((4, 4), 8000, np.uint16))
    assert empty.range() == (0.1, 8.0)


@pytest.mark.parametrize("height", [1, 8, 64, 120, 480, 2160])
@pytest.mark.parametrize("near_far", [(0.0, 65.0), (0.5, 0.51), (0.4, 1.1), (9.9, 10.0)])
def test_a_scale_is_drawn_for_any_range_and_height(height: int, near_far: tuple[float, float]) -> None:
    picture = DepthPicture(*near_far, height).draw(np.full((height, 8), 500, np.uint16))
    assert picture.shape[0] == height
    assert picture.dtype == np.uint8


def test_cameras_without_depth_come_as_they_are_beside_pictures_of_depth(
    ffenc: CommandLine, tmp_path: Path, shown: np.ndarray
) -> None:
    found = ffenc.done("decode", VIDEOS, tmp_path / "out", "--colormap", "--frames", "0:1", "--json").json
    [(name, (near, far))] = found["colormap_metres"].items()
    assert name == "angle_depth"
    assert 0.3 < near < 0.6 < far < 1.3
    assert np.array_equal(read(tmp_path / "out/top/episode_000000/frame-000000.png"), shown[0])


# ---- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "words", "status", "part"),
    [
        (TOP_FILE, "out --frames 0:100", 1, "has 72 frames (0:72), but frames 0:100 were requested"),
        (TOP_FILE, "out --frames 72:", 1, "has 72 frames"),
        (VIDEOS, "out --frames 0:20", 1, "episode 1 of top: has 17 frames"),
        (TOP_FILE, "out --frames 5:2", 2, "'5:2' has no frames"),
        (TOP_FILE, "out --frames x", 2, "'x' is not a range of frames"),
        (VIDEOS, "out --camera topp", 1, "did you mean 'top'"),
        (VIDEOS, "out --episode 3", 1, "there is no episode 3; it has 3 (0..2)"),
        (TOP_FILE, "out --camera top", 1, "is one file"),
        (VIDEOS, "out.npy", 1, "--format npy"),
        (TOP_FILE, "out --format npy", 1, "choose a name that ends in .npy"),
        (TOP_FILE, "out.npy --format png", 1, "PNG files are written to a folder"),
        (DEPTH_FILE, "out --unit m", 1, "which no PNG file holds: pass --unit mm, or --format npy"),
        (DEPTH_FILE, "out --unit cm", 2, "'cm' is not one of"),
        (DEPTH_FILE, "out.npy --colormap", 1, "leave out npy"),
        (TOP_FILE, "out --unit m", 1, "--unit is for depth, but no depth camera was selected"),
        (DEPTH_FILE, "out --depth_encoder.depth_max=5", 1, "is quantised with depth_max=10.0; leave it out"),
        (VIDEOS, "out --depth_encoder.use_log=false", 1, "is quantised with use_log=True; leave it out"),
        (DEPTH_FILE, "out --invalid keep --depth_encoder.invalid=clip", 1, "are the same setting; pass one"),
        (TOP_FILE, "out --codes", 1, "--codes is for depth, but no depth camera was selected"),
        (TOP_FILE, "out --depth_encoder.depth_max=5", 1, "--depth_encoder.depth_max is for depth"),
        (DEPTH_FILE, "out --range 1:2", 2, "--range has no effect without --colormap"),
        (DEPTH_FILE, "out --colormap --range 2:1", 2, "not a range of depths"),
        (DEPTH_FILE, "out --codes --invalid keep", 1, "--codes writes the stored samples"),
        (TOP_FILE, "out --colormap", 1, "--colormap is for depth"),
        (DEPTH_FILE, "out --camera_encoder.crf=3", 2, "--camera_encoder.crf is not a setting of decode"),
        (FIXTURES / "aloha_image_v30", "out", 1, "has no video cameras"),
        (FIXTURES / "golden", "out", 1, "neither a video file nor a LeRobot dataset"),
        (FIXTURES / "nothing.mp4", "out", 1, "nothing.mp4 does not exist"),
        (VIDEOS / "meta/info.json", "out", 1, "info.json cannot be read as a video"),
        (TOP_FILE, "out --ffmpeg /nowhere/ffmpeg", 1, "'/nowhere/ffmpeg' does not exist"),
    ],
)
def test_a_mistake_is_answered_with_what_was_found_and_writes_nothing(
    ffenc: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    words: str,
    status: int,
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert part in ffenc.refused("decode", source, *words.split(), status=status)
    assert everything_in(tmp_path) == []


def test_what_is_there_is_replaced_only_when_told_to_and_only_if_a_decode_wrote_it(
    ffenc: CommandLine, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["decode", TOP_FILE, out, "--frames"]
    ffenc.done(*words, "0:3")
    assert "pass --overwrite" in ffenc.refused(*words, "5")
    assert len(everything_in(out)) == 3
    ffenc.done(*words, "5", "--overwrite")
    assert everything_in(tmp_path) == ["out", "out/frame-000005.png"]
    (out / "notes.txt").write_text("mine")
    assert "notes.txt, which was not written by ffenc decode" in ffenc.refused(*words, "6", "--overwrite")
    assert everything_in(out) == ["frame-000005.png", "notes.txt"]
    (tmp_path / "a.npy").write_bytes(b"mine")
    assert "exists" in ffenc.refused("decode", TOP_FILE, tmp_path / "a.npy")
    ffenc.done("decode", TOP_FILE, tmp_path / "a.npy", "--frames", "0:2", "--overwrite")
    assert np.load(tmp_path / "a.npy").shape[0] == 2


def test_frames_that_were_being_replaced_come_back_after_a_kill(ffenc: CommandLine, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ffenc.done("decode", TOP_FILE, out, "--frames", "0:3")
    script = (
        "import os, pathlib, signal, sys\n"
        "from ffenc.cli.main import main\n"
        "replace = pathlib.Path.replace\n"
        "def killed(path, target):\n"
        "    if path.name.endswith('.partial') and path.is_dir():\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return replace(path, target)\n"
        "pathlib.Path.replace = killed\n"
        "main()"
    )
    words = ["decode", str(TOP_FILE), str(out), "--frames", "5", "--overwrite"]
    killed = subprocess.run([sys.executable, "-c", script, *words], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    assert "pass --overwrite" in ffenc.refused("decode", TOP_FILE, out, "--frames", "6")
    assert everything_in(tmp_path) == ["out"] + [f"out/frame-00000{i}.png" for i in range(3)]


def test_a_dataset_that_is_not_whole_is_refused(ffenc: CommandLine, tmp_path: Path) -> None:
    root = Path(shutil.copytree(VIDEOS, tmp_path / "set"))
    (root / "videos" / TOP / "chunk-000/file-000.mp4").unlink()
    assert "file-000.mp4 is missing" in ffenc.refused("decode", root, tmp_path / "out")
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))
    assert "layout v2.1; v3.0 is read" in ffenc.refused("decode", root, tmp_path / "out")
    shutil.rmtree(root / "meta/episodes")
    (root / "meta/info.json").write_text(json.dumps(info))
    assert "holds no episodes" in ffenc.refused("decode", root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["out", "out.npy"])
def test_a_damaged_video_is_named_with_its_frame_and_leaves_nothing(
    ffenc: CommandLine, tmp_path: Path, toolchain: Toolchain, no_ffmpeg_left: None, target: str
) -> None:
    source = TOP_FILE.read_bytes()
    listed = subprocess.run(
        [newest_program("ffprobe"), "-v", "error", "-show_entries", "packet=pts,size,pos", "-of", "csv=p=0"]
        + [str(TOP_FILE)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    _, size, place = sorted(tuple(map(int, line.split(",")[:3])) for line in listed)[40]
    (tmp_path / "bad.mp4").write_bytes(source[:place] + bytes(size) + source[place + size :])
    text = ffenc.refused("decode", tmp_path / "bad.mp4", tmp_path / target)
    assert "bad.mp4: frame 40 of 72 cannot be decoded" in text
    assert everything_in(tmp_path) == ["bad.mp4"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_decode_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    subprocess.run(
        [newest_program("ffmpeg"), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=640x480:r=30:d=10"]
        + ["-c:v", "libx264", "-preset", "ultrafast", tmp_path / "long.mp4"],
        check=True,
    )
    running = subprocess.Popen(
        [sys.executable, "-m", "ffenc", "decode", tmp_path / "long.mp4", tmp_path / "out"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.*/frame-000005.png")) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 128 + number
    assert "Traceback" not in said
    assert everything_in(tmp_path) == ["long.mp4"]
