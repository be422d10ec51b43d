"""``ffenc verify``: what it prints, its exit status, and its JSON."""

import json
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffenc.dataset.verify.faults import KINDS
from tests.conftest import ANGLE, DATASET, DEPTH, FIXTURES, ROOT, TOP

LEROBOTS_VIDEO = FIXTURES / "aloha_video_v30"
DATA = "data/chunk-000/file-000.parquet"


@pytest.fixture
def video(tmp_path):
    return shutil.copytree(LEROBOTS_VIDEO, tmp_path / "video")


def test_a_sound_dataset_is_a_table_and_status_0(ffenc):
    text = ffenc.done("verify", LEROBOTS_VIDEO).out
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["top", "angle", "angle_depth"]
    assert all(line.split()[-1] == "ok" for line in lines[2:5])
    assert lines[-1].startswith(f"{LEROBOTS_VIDEO}: sound; LeRobot v3.0, 3 episodes, 72 frames, not decoded")
    assert "\x1b" not in text
    assert "every frame decoded" in ffenc.done("verify", DATASET, "--deep").out


def test_faults_are_told_with_place_and_mending_and_status_1(ffenc, video):
    (video / f"videos/{TOP}/chunk-000/file-000.mp4").unlink()
    outcome = ffenc.run("verify", video)
    assert outcome.status == 1
    assert outcome.err == ""
    words = " ".join(outcome.out.split())
    assert f"videos/{TOP}/chunk-000/file-000.mp4: is missing; episodes 0 to 2 should be in it" in words
    assert KINDS["video-missing"].fix in words
    assert "1 fault;" in outcome.out.splitlines()[-1]
    assert any(line.startswith("top") and "1 fault" in line for line in outcome.out.splitlines())


def test_many_faults_fit_on_a_screen_and_json_has_all(ffenc, video):
    path = video / DATA
    table = pq.read_table(path)
    for name, kind in (("timestamp", pa.float32()), ("index", pa.int64()), ("task_index", pa.int64())):
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array([77] * 72, kind))
    pq.write_table(table, path)
    info = json.loads((video / "meta/info.json").read_text())
    info["total_frames"], info["splits"] = 5, {"train": "all"}
    for key in (TOP, ANGLE, DEPTH):
        info["features"][key]["info"]["video.codec"] = "vp9"
        info["features"][key]["info"]["video.width"] = 1
    (video / "meta/info.json").write_text(json.dumps(info))
    (video / "meta/stats.json").unlink()
    for i in range(40):
        (video / f"data/chunk-000/file-{i + 1:03d}.parquet").write_bytes(b"")
    outcome = ffenc.run("verify", video)
    assert outcome.status == 1
    lines = outcome.out.splitlines()
    assert len(lines) <= 24
    assert "other kinds; --json has all" in outcome.out
    answer = ffenc.run("verify", video, "--json")
    assert answer.status == 1
    faults = answer.json["faults"]
    assert sum(fault["kind"] == "orphan" for fault in faults) == 40
    assert sum(fault["kind"] == "timestamps" for fault in faults) == 3
    assert f"{len(faults)} faults;" in lines[-1]
    names = {
        *("kind", "severity", "what", "found", "expected", "where", "fix"),
        *("file", "camera", "episode", "frame", "frames", "other"),
    }
    assert all(set(fault) == names for fault in faults)


def test_like_faults_are_told_once(ffenc, video):
    for i in range(40):
        (video / f"data/chunk-000/file-{i + 1:03d}.parquet").write_bytes(b"")
    text = " ".join(ffenc.run("verify", video).out.split())
    assert "file-001.parquet: belongs to no episode in meta/episodes ... and 39 more like this" in text


def test_json_of_a_sound_dataset(ffenc):
    found = ffenc.done("verify", LEROBOTS_VIDEO, "--json").json
    assert (found["sound"], found["faults"], found["deep"]) == (True, [], False)
    assert (found["layout"], found["episodes"], found["frames"]) == ("v3.0", 3, 72)
    assert [camera["camera"] for camera in found["cameras"]] == [TOP, ANGLE, DEPTH]
    assert found["cameras"][0]["max_deviation"] < 1e-6


def test_a_comparison_names_the_worst_frame(ffenc):
    outcome = ffenc.done("verify", LEROBOTS_VIDEO, "--deep", "--against", DATASET)
    words = " ".join(outcome.out.split())
    assert "angle_depth hevc gray12le 1 3 72 ok, identical" in words
    assert re.search(rf"every frame decoded.*, compared with {re.escape(str(DATASET))}", words)
    found = ffenc.done("verify", LEROBOTS_VIDEO, "--against", DATASET, "--json").json["cameras"]
    top, depth = found[0]["compared"], found[2]["compared"]
    episode, frame = top["psnr_worst"]
    assert f"PSNR {top['psnr_mean']:.1f} dB" in words
    assert f"worst {top['psnr_min']:.1f} (episode {episode} frame {frame})" in words
    assert (depth["psnr_min"], depth["differing"], depth["max_difference"]) == (None, 0, 0)


def test_a_comparison_that_cannot_be_is_refused(ffenc, tmp_path):
    whole = LEROBOTS_VIDEO / f"videos/{TOP}/chunk-000/file-000.mp4"
    assert "is a single file" in ffenc.refused("verify", whole, "--against", DATASET)
    assert "nothing does not exist; supported are datasets, HDF5 files" in ffenc.refused(
        "verify", LEROBOTS_VIDEO, "--against", tmp_path / "nothing"
    )


def test_a_file_is_a_table_of_one_row(ffenc, tmp_path):
    whole = LEROBOTS_VIDEO / f"videos/{TOP}/chunk-000/file-000.mp4"
    assert "sound; 72 frames" in ffenc.done("verify", whole, "--deep").out
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[:100_000])
    outcome = ffenc.run("verify", cut)
    assert outcome.status == 1
    assert "is cut short: 100,577 bytes are missing at its end" in " ".join(outcome.out.split())


def test_what_cannot_be_verified_is_refused(ffenc, tmp_path):
    assert "does not exist" in ffenc.refused("verify", tmp_path / "nothing")
    assert "has no meta/info.json" in ffenc.refused("verify", tmp_path)


def test_every_kind_of_fault_is_documented():
    text = (ROOT / "docs/verify.md").read_text()
    assert [kind for kind in KINDS if f"| `{kind}` |" not in text] == []
