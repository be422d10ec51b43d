"""What is fetched of a remote dataset: what is read of it, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ffenc import edit_dataset, plan_reencode
from ffenc.dataset.edit import plan_edit
from ffenc.ffmpeg import boxes
from ffenc.frames import parquet
from ffenc.storage import copy
from tests.conftest import DATASET
from tests.large import make_large
from tests.support.command_line import CommandLine
from tests.support.s3 import S3

# Of the large dataset, whose statistics are made up.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*the statistics are computed from the rows:ffenc.FfencWarning"
)

KEY = "observation.images.front"
H264 = [(("camera_encoder", "vcodec"), "h264")]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would be if the files were larger."""
    monkeypatch.setattr(boxes, "_FIRST_FRAMES", 8 << 10)
    monkeypatch.setattr(boxes, "_FETCHED", 4 << 10)
    monkeypatch.setattr(parquet, "_TAIL", 4 << 10)
    monkeypatch.setattr(copy, "_ALIGNED", 1 << 10)


@pytest.fixture(scope="module")
def large(server: S3, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """250 episodes in three video files, and in as many data files; they are at s3://lab/large too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.large._EPISODES_A_TABLE", 100)
        root = make_large(tmp_path_factory.mktemp("large") / "set", episodes=250, length=8)
    server.upload(root, "large")
    return root


def fetched(s3: S3) -> dict[str, int]:
    """File -> how many bytes of it were asked for."""
    found: dict[str, int] = {}
    for method, path, span in s3.requests:
        if method == "GET" and span:
            first, last = span.removeprefix("bytes=").split("-")
            place = path.removeprefix("/lab/").partition("/")[2]
            found[place] = found.get(place, 0) + int(last) - int(first) + 1
    return found


def test_info_reads_what_it_says(s3: S3, large: Path, ffenc: CommandLine) -> None:
    assert ffenc.done("info", "s3://lab/large", "--json").json["episodes"] == 250
    assert set(fetched(s3)) == {"meta/info.json", "meta/tasks.parquet"}
    s3.upload(DATASET, "images")
    s3.requests.clear()
    ffenc.done("info", "s3://lab/images")
    own = fetched(s3)
    data = "data/chunk-000/file-000.parquet"
    assert own.keys() == {"meta/info.json", "meta/tasks.parquet", data}
    assert own[data] < (DATASET / data).stat().st_size / 2  # a page of each camera


def test_of_one_episode_its_files_are_fetched(s3: S3, large: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"episodes": [120], "overrides": H264}
    here = plan_reencode(large, tmp_path / "here", **options)
    there = plan_reencode("s3://lab/large", tmp_path / "there", **options)
    assert (here.rows, here.streams[0].source_bytes) == (there.rows, there.streams[0].source_bytes)
    own = fetched(s3)
    files = {place for place in own if not place.startswith("meta/")}
    assert files == {"data/chunk-000/file-001.parquet", f"videos/{KEY}/chunk-000/file-001.mp4"}
    plan_edit("s3://lab/large", tmp_path / "edited", episodes="0-9")
    files |= {"data/chunk-000/file-000.parquet", f"videos/{KEY}/chunk-000/file-000.mp4"}
    assert {place for place in fetched(s3) if not place.startswith("meta/")} == files


def test_a_part_is_the_same_whatever_else_is_damaged(large: Path, tmp_path: Path) -> None:
    """What is in other files does not matter to a part, on the disk either."""
    edit_dataset(large, tmp_path / "whole", episodes="100-102")
    broken = tmp_path / "broken"
    for path in large.rglob("*"):
        if path.is_file():
            place = broken / path.relative_to(large)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes() if "file-002" not in path.name else b"nothing")
    edit_dataset(broken, tmp_path / "part", episodes="100-102")
    for name in ("data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_verify_reads_rows_and_indices(s3: S3, large: Path, ffenc: CommandLine) -> None:
    ffenc.run("verify", "s3://lab/large")
    own = fetched(s3)
    videos = [size for place, size in own.items() if place.startswith("videos/")]
    assert len(videos) == 3
    assert sum(videos) < sum(path.stat().st_size for path in large.rglob("*.mp4")) / 2
