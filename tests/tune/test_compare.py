"""Frames of datasets and files against those they were made of, with the worst named."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from ffenc import VideoReader, reencode_dataset
from ffenc.ffmpeg.probe import probe
from ffenc.frames.clip import Clip
from ffenc.quality.compare import quality_of
from ffenc.quality.measure import gauges
from ffenc.tune.compare import compare_sources, comparison_fields
from tests.conftest import ANGLE, DATASET, FIXTURES, LENGTHS, find_toolchain, newest_program, pixels, starts
from tests.support.browser import embedded, opened_browser, picture_of
from tests.support.make import image_files

VIDEO = FIXTURES / "aloha_video_v30"
FILE = VIDEO / "videos" / ANGLE / "chunk-000/file-000.mp4"


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "coarse"
    settings = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "crf"), 40)]
    reencode_dataset(DATASET, out, cameras=["angle"], overrides=settings)
    return out


def test_datasets_are_compared_frame_by_frame(ffenc, coarse: Path, tmp_path: Path, images) -> None:
    page, sheet = tmp_path / "compare.html", tmp_path / "sheet.png"
    words = [DATASET, VIDEO, coarse, "--cameras", "angle", "--json", "--report", page, "--sheet", sheet]
    done = ffenc.done("compare", *words)
    fields = done.json
    assert fields["metric"] == "vmaf"
    [camera] = fields["cameras"]
    fine, other = camera["results"]
    assert [one["path"] for one in (fine, other)] == [str(VIDEO), str(coarse)]
    assert fine["bytes_per_frame"] == round(FILE.stat().st_size / 72, 1)
    for name in ("vmaf", "ssim", "psnr", "xpsnr"):
        assert {number: len(one) for number, one in fine["values"][name].items()} == {
            "0": 24,
            "1": 17,
            "2": 31,
        }
        assert fine["quality"][name]["mean"] > other["quality"][name]["mean"]
    # An episode's values are those of its frames alone.
    source = Clip(FILE, probe(FILE, times=True), starts()[1], LENGTHS[1])
    with ExitStack() as closing:
        two = compare_sources(FILE, [FILE], closing)
        assert set(two.cameras["file-000"][0].together().values["psnr"]) == {float("inf")}
        frames = image_files(tmp_path / "images", images[ANGLE][starts()[1] : starts()[1] + LENGTHS[1]])
        own = quality_of(source, frames, gauges([find_toolchain("newest")]), header=frames.check())
    assert fine["values"]["ssim"]["1"] == pytest.approx(own.values["ssim"], abs=1e-5)
    # The worst are named.
    values = [(value, int(n), i) for n, one in other["values"]["vmaf"].items() for i, value in enumerate(one)]
    worst = [{"episode": number, "frame": i, "value": value} for value, number, i in sorted(values)[:5]]
    assert other["worst"] == worst
    assert other["quality"]["vmaf"]["worst"] == worst[0]["value"]

    # The sheet has the source's pixels, the video's, and their difference.
    drawn = np.asarray(Image.open(sheet))
    assert drawn.shape == (2 * (120 + 36), 5 * 160, 3)
    first = fine["worst"][0]
    at = starts()[first["episode"]] + first["frame"]
    wanted = pixels(images[ANGLE][at])
    assert np.array_equal(drawn[36:156, :160], wanted)
    with VideoReader(FILE) as reader:
        shown = reader[at]
    assert np.array_equal(drawn[36:156, 160:320], shown)
    difference = (128 + (shown.astype(int) - wanted) * 8).clip(0, 255)
    assert np.array_equal(drawn[36:156, 320:480], difference)

    data = embedded(page)
    assert data["report"] == fields
    assert np.array_equal(picture_of(data["pictures"]["angle"][0]["source"]), wanted)
    with opened_browser(tmp_path / "profile") as browser:
        browser.open(page)
        browser.check_alone(page)
        assert f"{fine['quality']['vmaf']['mean']:.1f}" in browser.run("return document.body.textContent")
        before = browser.run("return charts[0].chart.data.datasets[0].data")
        assert before == [value for one in fine["values"]["vmaf"].values() for value in one]
        browser.run(
            "[...document.querySelectorAll('button')].find(one => one.textContent === 'SSIM').click()"
        )
        after = browser.run("return charts[0].chart.data.datasets[0].data")
        assert after == [value for one in fine["values"]["ssim"].values() for value in one]
        assert browser.driver.get_log("browser") == []


def test_an_error_of_what_counts_the_frames_is_not_one_of_the_sources() -> None:
    def broken(done: int, whole: int) -> None:
        raise ValueError(f"{done} of {whole}")

    chosen = {"cameras": ["angle_depth"], "episodes": [1], "on_frames": broken}
    with ExitStack() as closing, pytest.raises(ValueError, match=f"^1 of {LENGTHS[1]}$"):
        compare_sources(DATASET, [VIDEO], closing, **chosen)


def test_depth_is_compared_in_millimetres(ffenc, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    words = ["--cameras", "angle_depth", "--episodes", "1", "--json", "--sheet", sheet]
    fields = ffenc.done("compare", DATASET, VIDEO, *words).json
    [one] = fields["cameras"][0]["results"]
    # Lossless codes: a step of the quantiser, and LeRobot's holes, which it reads as the nearest depth.
    assert one["error_mm"]["all"]["max"] <= 1
    assert one["error_mm"]["holes_filled"] == 1
    assert len(one["largest_mm"]["1"]) == LENGTHS[1]
    assert max(one["largest_mm"]["1"]) == one["worst"][0]["value"]
    drawn = np.asarray(Image.open(sheet))
    assert drawn[36:156, 320:480].mean() < 2  # nothing is off, and what is not compared is black


def test_arrays_are_read_with_the_mapping_of_the_video_dataset_or_with_another(ffenc, tmp_path: Path) -> None:
    source, mapping, out = tmp_path / "own.h5", tmp_path / "own.yaml", tmp_path / "out"
    with h5py.File(source, "w") as file:
        blocks = np.random.default_rng(0).integers(0, 256, (4, 8, 12, 3), np.uint8)
        file["seen"] = np.kron(blocks, np.ones((1, 8, 8, 1), np.uint8))
        file["depth"] = np.full((4, 64, 96), np.nan, np.float32)
        file["depth"][:, 8:] = np.linspace(0.4, 2, 96, dtype=np.float32)
    cameras = "{eye: {path: /seen, channels: rgb}, far: {path: /depth, depth: true}}"
    mapping.write_text(f"fps: 30\ncameras: {cameras}\n")
    lossless = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "crf"), 0)]
    reencode_dataset(source, out, mapping=mapping, task="look", overrides=lossless)
    with ExitStack() as closing:
        found = compare_sources(source, [out], closing).cameras
        assert sorted(found) == ["eye", "far"]
        (eye,), (far,) = found["eye"], found["far"]
        assert len(eye.places()) == len(far.places()) == 4
        assert max(far.badness("psnr")) < 4
    info = out / "meta/ffenc.json"
    stored = json.loads(info.read_text())
    del stored["mapping"]
    info.write_text(json.dumps(stored))
    chosen = ["--mapping", mapping]
    for words in (["compare", source, out, "--fps", "30"], ["verify", out, "--against", source]):
        assert "with --mapping FILE" in ffenc.refused(*words)
        ffenc.done(*words, *chosen)
    assert "--mapping applies to a comparison" in ffenc.refused("verify", out, *chosen)
    assert "--mapping is for HDF5 files" in ffenc.refused("compare", out, out, *chosen)
    video = next(out.rglob("*.mp4"))
    assert "--mapping does not apply to" in ffenc.refused("compare", video, video, *chosen)

    one = ["tune", source, "--cameras", "eye", "--vcodec", "h264", "--crf", "20", "--g", "2", "--json"]
    one += ["--encoder-preset", "veryfast", "--length", "4"]
    assert "with --mapping FILE" in ffenc.refused(*one, "--fps", "30")
    assert ffenc.done(*one, *chosen).json["cameras"][0]["frames"] == 4
    preset = tmp_path / "preset.yaml"
    preset.write_text(
        f"fps: 30\ncameras: {{eye: {{}}, far: {{depth: true}}}}\nsource: {{cameras: {cameras}}}\n"
    )
    assert ffenc.done(*one, "--preset", preset).json["cameras"][0]["frames"] == 4


def test_changed_pictures_are_compared_with_the_source_changed_alike(
    ffenc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the program that is named, also for the sheet."""
    out = tmp_path / "small"
    overrides = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "crf"), 10)]
    overrides.append((("transform", "resize"), "80x60"))
    reencode_dataset(DATASET, out, cameras=["angle"], overrides=overrides)
    sheet = tmp_path / "sheet.png"
    program = ["--ffmpeg", newest_program("ffmpeg")]
    monkeypatch.setenv("FFENC_FFMPEG", str(tmp_path / "another"))
    words = ["--cameras", "angle", "--json", "--sheet", sheet, "--report", tmp_path / "page.html"]
    fields = ffenc.done("compare", DATASET, out, *words, *program).json
    [one] = fields["cameras"][0]["results"]
    assert one["quality"]["psnr"]["mean"] > 40
    assert one["transform"]
    drawn = np.asarray(Image.open(sheet)).astype(int)
    assert np.abs(drawn[36:96, :80] - drawn[36:96, 80:160]).mean() < 3


def test_a_table_names_the_worst_frames(ffenc, coarse: Path) -> None:
    out = ffenc.done("compare", DATASET, coarse, "--episodes", "1", "--cameras", "angle").out
    assert "angle: 17 frames of" in out
    assert "coarse: worst frames by VMAF: episode 1 frame " in out
    same = ffenc.done("compare", FILE, FILE)
    assert "same" in same.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([VIDEO, DATASET, "--cameras", "angle"], "contains images; pass the images first"),
        ([VIDEO, FILE], "none in common|angle_depth"),
        ([DATASET, VIDEO, "--sheet", "a.jpg"], "ends in .png"),
        ([DATASET, VIDEO, "--report", "a.pdf"], "ends in .html"),
        ([DATASET, VIDEO, "--cameras", "tip"], "there is no camera 'tip'"),
        ([FILE, FILE, "--cameras", "angle"], "--cameras would have no effect: .* are video files"),
        ([FILE, FILE, FILE, "--episodes", "0"], "--episodes would have no effect: .* are video files"),
    ],
)
def test_what_cannot_be_compared_is_refused(ffenc, words: list[str], told: str) -> None:
    refused = ffenc.run("compare", *words)
    assert refused.status == 1
    assert re.search(told, refused.err), refused.err


def test_episodes_and_cameras_of_a_recording_in_one_file_are_selected(ffenc, tmp_path: Path) -> None:
    recording, out = FIXTURES / "recorded/robomimic.hdf5", tmp_path / "out"
    settings = [(("camera_encoder", "vcodec"), "h264")]
    reencode_dataset(recording, out, fps=20, task="x", overrides=settings)
    chosen = ("--cameras", "agentview", "--episodes", "1")
    compared = ffenc.done("compare", recording, out, *chosen, "--json").json
    assert compared["left_out"] == []
    [camera] = compared["cameras"]
    assert camera["camera"] == "agentview"
    assert list(camera["results"][0]["episodes"]) == ["1"]


def test_videos_with_irregular_times_are_compared_at_the_rate_that_is_given(ffenc, tmp_path: Path) -> None:
    uneven, stream = tmp_path / "uneven.mp4", tmp_path / "stream.h264"
    program = newest_program("ffmpeg")
    copied = ("-c", "copy", "-bsf:v", "setts=ts=TS+gt(N\\,5)*1000")
    subprocess.run([program, "-v", "error", "-i", FILE, *copied, uneven], check=True)
    subprocess.run([program, "-v", "error", "-i", FILE, "-c:v", "libx264", stream], check=True)
    for words in ((FILE, uneven), (uneven, FILE)):
        assert "pass --fps RATE" in ffenc.refused("compare", *words)
        [camera] = ffenc.done("compare", *words, "--fps", "30", "--json").json["cameras"]
        assert camera["results"][0]["quality"]["psnr"]["mean"] is None  # the same frames
    assert "ffenc encode" in ffenc.refused("compare", FILE, stream, "--fps", "30")


def test_episodes_that_one_side_lacks_are_named(ffenc, tmp_path: Path, coarse: Path) -> None:
    part = tmp_path / "part"
    settings = [(("camera_encoder", "vcodec"), "h264")]
    reencode_dataset(DATASET, part, cameras=["angle"], episodes=[0, 1], overrides=settings)
    refused = ffenc.run("compare", DATASET, part, "--cameras", "angle")
    assert "has no episode 2 of angle, but" in refused.err
    with ExitStack() as closing:
        found = comparison_fields(compare_sources(DATASET, [part], closing, cameras=["angle"], episodes="1"))
    assert json.dumps(found, allow_nan=False)


def test_verify_against_a_source_gives_the_same_figures(ffenc, coarse: Path) -> None:
    compared = ffenc.done("compare", DATASET, coarse, "--cameras", "angle", "--json").json
    verified = ffenc.done("verify", coarse, "--against", DATASET, "--metrics", "--json").json
    assert verified["sound"]
    assert verified["metrics"]["cameras"] == compared["cameras"]
    shown = ffenc.done("verify", coarse, "--against", DATASET, "--metrics").out
    assert "worst frames by VMAF" in shown
    assert shown.rstrip().splitlines()[-1].startswith(f"{coarse}: sound")
    refused = ffenc.run("verify", coarse, "--metrics")
    assert "pass --against SRC too" in refused.err
