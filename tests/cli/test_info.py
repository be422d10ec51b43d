"""``ffenc info``: what a dataset holds, from its metadata and the sizes of its files."""

import json
import os
import shutil
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffenc import SourceError, reencode_dataset
from ffenc.dataset.report import SAMPLED_FILES, report_dataset
from tests.conftest import ANGLE, DATASET, DEPTH, FIXTURES, TOP

LEROBOTS_VIDEO = FIXTURES / "aloha_video_v30"
TASKS = ["transfer the red cube", "hold the cube"]


@pytest.fixture
def video_copy(tmp_path):
    return shutil.copytree(LEROBOTS_VIDEO, tmp_path / "video")


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def change_info(root, **changes):
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_video_dataset_is_told_with_every_cameras_settings_and_bytes(ffenc):
    found = ffenc.done("info", LEROBOTS_VIDEO, "--json").json
    cameras = found.pop("cameras")
    assert found == {
        "root": str(LEROBOTS_VIDEO),
        "layout": "v3.0",
        "robot_type": "aloha",
        "fps": 30,
        "episodes": 3,
        "frames": 72,
        "seconds": 2.4,
        "tasks": TASKS,
        "files": 8,
        "bytes": size_of(LEROBOTS_VIDEO),
    }
    assert list(cameras) == [TOP, ANGLE, DEPTH]
    held = (LEROBOTS_VIDEO / f"videos/{TOP}/chunk-000/file-000.mp4").stat().st_size
    assert cameras[TOP] == {
        "kind": "video",
        "depth": False,
        "width": 320,
        "height": 240,
        "codec": "av1",
        "pix_fmt": "yuv420p",
        "bits": None,
        "settings": {"crf": 30, "g": 2, "preset": 12, "fast_decode": 0, "extra_options": {}},
        "encoder": {},
        "files": 1,
        "bytes": held,
        "estimated": False,
        "bytes_per_frame": round(held / 72, 1),
        "bytes_per_second": round(held / 2.4, 1),
    }
    assert (cameras[DEPTH]["depth"], cameras[DEPTH]["pix_fmt"]) == (True, "gray12le")
    assert cameras[DEPTH]["settings"]["depth_max"] == 10.0


def test_an_image_dataset_is_told_with_the_kind_and_bytes_of_its_images(ffenc, images):
    cameras = ffenc.done("info", DATASET, "--json").json["cameras"]
    kinds = {key: (c["kind"], c["codec"], c["bits"], c["depth"]) for key, c in cameras.items()}
    assert kinds == {
        TOP: ("image", "png", 8, False),
        ANGLE: ("image", "png", 8, False),
        DEPTH: ("image", "tiff", 16, True),
    }
    for key in (TOP, ANGLE):
        assert cameras[key]["bytes"] == pytest.approx(sum(map(len, images[key])), rel=0.01)
    assert 0 < cameras[DEPTH]["bytes"] < sum(map(len, images[DEPTH]))  # parquet compresses TIFF images
    assert (cameras[ANGLE]["width"], cameras[ANGLE]["height"]) == (160, 120)


def test_v21_is_told_as_v30_is(ffenc, dataset_v21, images):
    found = ffenc.done("info", dataset_v21, "--json").json
    assert (found["layout"], found["episodes"], found["frames"], found["tasks"]) == ("v2.1", 3, 72, TASKS)
    assert found["files"] == 7
    assert list(found["cameras"]) == [TOP, ANGLE]
    for key, camera in found["cameras"].items():
        assert (camera["kind"], camera["codec"], camera["files"]) == ("image", "png", 3)
        assert camera["bytes"] == pytest.approx(sum(map(len, images[key])), rel=0.01)


def test_a_v21_video_datasets_files_are_found(tmp_path, video_copy):
    for key in (TOP, ANGLE, DEPTH):
        old = video_copy / f"videos/{key}/chunk-000/file-000.mp4"
        for chunk in (0, 1):
            new = video_copy / f"videos/chunk-{chunk:03d}/{key}/episode_{chunk:06d}.mp4"
            new.parent.mkdir(parents=True)
            shutil.copy(old, new)
        shutil.rmtree(video_copy / f"videos/{key}")
    (video_copy / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "hold"}))
    template = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    change_info(video_copy, codebase_version="v2.1", video_path=template)
    report = report_dataset(video_copy)
    assert [camera.files for camera in report.cameras] == [2, 2, 2]
    assert [camera.codec for camera in report.cameras] == ["av1", "av1", "hevc"]
    assert report.tasks == ["hold"]


def test_what_ffenc_has_encoded_names_its_encoder(ffenc, tmp_path):
    overrides = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "extra_options"), {"bf": 2})]
    reencode_dataset(DATASET, tmp_path / "out", cameras=["angle"], overrides=overrides)
    camera = ffenc.done("info", tmp_path / "out", "--json").json["cameras"][ANGLE]
    assert camera["encoder"]["encoder"] == "libx264"
    assert camera["settings"]["extra_options"] == {"bf": 2}
    text = ffenc.done("info", tmp_path / "out").out
    assert "h264 yuv420p" in text
    assert "libx264 16" in text
    assert "bf 2" in " ".join(text.split())


@pytest.mark.parametrize("dataset", [DATASET, LEROBOTS_VIDEO], ids=lambda path: path.name)
def test_the_screen_is_narrow_plain_text_with_every_camera(ffenc, dataset):
    text = ffenc.done("info", dataset).out
    lines = text.splitlines()
    assert lines[0] == f"{dataset}: LeRobot v3.0, robot aloha, 30 fps"
    assert lines[1].startswith("3 episodes, 72 frames, 2.4 s, ")
    assert lines[2] == "2 tasks: transfer the red cube; hold the cube"
    assert all(len(line) <= 110 for line in lines[1:])
    assert len(lines) <= 24
    assert "\x1b" not in text
    for name in ("top", "angle", "angle_depth"):
        assert any(line.split()[:1] == [name] for line in lines)
    assert ("settings" in text) == (dataset == LEROBOTS_VIDEO)


def test_long_and_odd_tasks_stay_on_their_line(ffenc, video_copy):
    tasks = ["[bold]pick\nup[/bold]", "x" * 200, "c", "d"]
    table = pa.table({"task_index": range(4), "__index_level_0__": tasks})
    pq.write_table(table, video_copy / "meta/tasks.parquet")
    line = ffenc.done("info", video_copy).out.splitlines()[2]
    assert line == f"4 tasks: [bold]pick up[/bold]; {'x' * 57}...; c; ..."
    assert ffenc.done("info", video_copy, "--json").json["tasks"] == tasks


def test_what_info_json_does_not_say_is_left_open(ffenc, video_copy):
    path = video_copy / "meta/info.json"
    info = json.loads(path.read_text())
    for key in ("total_frames", "total_episodes", "robot_type"):
        del info[key]
    for key in (TOP, ANGLE, DEPTH):
        del info["features"][key]["info"]
    path.write_text(json.dumps(info))
    text = ffenc.done("info", video_copy).out
    assert "robot unknown" in text
    assert "an unknown number of episodes" in text
    camera = ffenc.done("info", video_copy, "--json").json["cameras"][TOP]
    assert (camera["codec"], camera["width"], camera["bytes_per_frame"]) == (None, 320, None)
    assert camera["bytes"] > 0


def test_many_episodes_take_a_moment(dataset_v21):
    """Of thousands of files the footers of some are read, and the rest is taken to be like them."""
    exact = report_dataset(dataset_v21).cameras[0].bytes_per_frame
    folder = dataset_v21 / "data/chunk-000"
    one = folder / "episode_000001.parquet"
    (folder / "episode_000000.parquet").unlink()
    (folder / "episode_000002.parquet").unlink()
    for chunk in range(10):
        (dataset_v21 / f"data/chunk-{chunk:03d}").mkdir(exist_ok=True)
        for i in range(chunk == 0, 1000):
            place = dataset_v21 / f"data/chunk-{chunk:03d}/episode_{chunk * 1000 + i:06d}.parquet"
            if not place.exists():
                os.link(one, place)
    count = len(list((dataset_v21 / "data").rglob("*.parquet")))
    change_info(dataset_v21, total_episodes=count, total_frames=count * 17)
    began = time.monotonic()
    report = report_dataset(dataset_v21)
    assert time.monotonic() - began < 20
    assert count > 100 * SAMPLED_FILES
    assert (report.episodes, report.cameras[0].files) == (count, count)
    assert report.cameras[0].estimated
    assert report.cameras[0].bytes_per_frame == pytest.approx(exact, rel=0.05)


def test_what_is_no_dataset_is_refused_by_name(ffenc, tmp_path, png_tree):
    assert "has no meta/info.json" in ffenc.refused("info", png_tree)
    assert "is not a folder" in ffenc.refused("info", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: (root / "meta/info.json").write_text("{"), r"info\.json: cannot be read"),
        (lambda root: change_info(root, codebase_version="v1.6"), r"layout v1\.6; v3\.0, v2\.1 and v2\.0"),
        (lambda root: change_info(root, fps="fast"), "fps: 'fast' is not a frame rate"),
        (lambda root: change_info(root, features=[]), "features is not a mapping"),
        (lambda root: change_info(root, total_frames="72"), "total_frames is '72'"),
        (lambda root: (root / "meta/tasks.parquet").write_bytes(b"x"), r"tasks\.parquet: cannot be read"),
        (
            lambda root: (root / "data/chunk-000/file-000.parquet").write_bytes(b"x"),
            r"file-000\.parquet: cannot be read",
        ),
    ],
)
def test_damaged_metadata_is_named(dataset_copy, damage, said):
    damage(dataset_copy)
    with pytest.raises(SourceError, match=said):
        report_dataset(dataset_copy)
