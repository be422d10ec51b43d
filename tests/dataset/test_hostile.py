"""A dataset from a stranger: nothing outside of it is read, written or deleted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ffenc import Recorder, VideoEncoderConfig, encode, merge_datasets, reencode_dataset, verify_dataset
from ffenc.dataset.decode import plan_decode
from ffenc.dataset.report import report_dataset
from ffenc.dataset.sources.lerobot import open_dataset
from ffenc.errors import FfencError, SourceError
from tests.conftest import FIXTURES, TOP, everything_in

VIDEOS = FIXTURES / "aloha_video_v30"
V21 = FIXTURES / "aloha_image_v21"
FAST = VideoEncoderConfig(vcodec="h264", preset="ultrafast")


def readers(root: Path, out: Path) -> dict[str, Callable[[], object]]:
    """Every way in which a dataset is opened."""
    return {
        "reencode": lambda: reencode_dataset(root, out),
        "merge": lambda: merge_datasets([root], out),
        "decode": lambda: plan_decode(root, out),
        "info": lambda: report_dataset(root),
        "record": lambda: recorded(root),
        "against": lambda: verify_dataset(VIDEOS, against=root),
    }


def recorded(root: Path) -> None:
    with Recorder("so101", root, task="x") as recorder:
        recorder.start_episode()


def refused_by_all(root: Path, out: Path, said: str) -> None:
    outside = everything_in(root.parent)
    for name, read in readers(root, out).items():
        with pytest.raises(FfencError, match=said):
            read()
        assert not out.exists(), name
    found = verify_dataset(root)
    assert any(said in str(fault) for fault in found.faults)
    assert everything_in(root.parent) == outside


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset, and beside it a file that is none of its business."""
    folder = tmp_path / "stranger"
    folder.mkdir()
    (folder / "secret").write_text("private key")
    return Path(shutil.copytree(VIDEOS, folder / "dataset"))


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("README.md", "../secret"),
        ("meta/recording/episode_000000.json", "../../../secret"),
        ("meta/stats.json", "../../secret"),
        ("meta/loop", "loop"),
    ],
)
def test_a_link_that_leads_out_is_refused_by_name(
    dataset: Path, tmp_path: Path, place: str, target: str
) -> None:
    link = dataset / place
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    refused_by_all(dataset, tmp_path / "out", Path(place).name)


def test_a_video_that_is_a_link_out_of_the_dataset_is_refused(dataset: Path, tmp_path: Path) -> None:
    video = next((dataset / "videos" / TOP).rglob("*.mp4"))
    video.rename(dataset.parent / "video.mp4")
    video.symlink_to("../../../../video.mp4")
    refused_by_all(dataset, tmp_path / "out", video.name)
    merge_datasets([dataset], tmp_path / "out", follow_links=True)
    assert verify_dataset(dataset, follow_links=True).sound
    assert verify_dataset(tmp_path / "out").sound
    assert report_dataset(dataset, follow_links=True).episodes == 3


@pytest.mark.parametrize("place", ["meta/stats.json", "data/chunk-000/file-000.parquet"])
def test_a_pipe_in_a_dataset_is_refused_without_waiting(dataset: Path, tmp_path: Path, place: str) -> None:
    (dataset / place).unlink(missing_ok=True)
    os.mkfifo(dataset / place)
    for name, read in readers(dataset, tmp_path / "out").items():
        with pytest.raises(FfencError, match=r"named pipe.*expected a regular file"):
            read()
        assert not (tmp_path / "out").exists(), name
    [fault] = verify_dataset(dataset).faults
    assert (fault.kind, fault.file) == ("not-own-file", place)


def test_a_snapshot_of_a_hub_cache_is_read_and_copied_as_files(tmp_path: Path) -> None:
    """Each file is a link into the folder of blobs beside the snapshots."""
    cache = tmp_path / "datasets--robot--cubes"
    snapshot, blobs = cache / "snapshots/0123456789abcdef", cache / "blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(p for p in VIDEOS.rglob("*") if p.is_file())):
        link = snapshot / path.relative_to(VIDEOS)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blobs / f"{number:040x}")
        link.symlink_to(os.path.relpath(blobs / f"{number:040x}", link.parent))
    (blobs / "readme").write_text("# Cubes")
    (snapshot / "README.md").symlink_to("../../blobs/readme")
    assert verify_dataset(snapshot).sound
    merge_datasets([snapshot], tmp_path / "out")
    assert (tmp_path / "out/README.md").read_text() == "# Cubes"
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


@pytest.mark.parametrize("key", ["data_path", "video_path"])
@pytest.mark.parametrize(
    "template",
    ["../secret-{file_index}", "/etc/{chunk_index}", "{chunk_index.x}", "{file_index:0300000000d}"],
)
def test_a_template_that_leads_out_or_is_none_is_refused(
    dataset: Path, tmp_path: Path, key: str, template: str
) -> None:
    path = dataset / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: template}))
    for name in ("reencode", "merge", "info"):
        with pytest.raises(SourceError, match=f"info.json: {key}: .*is not a path template"):
            readers(dataset, tmp_path / "out")[name]()
    if key == "video_path":
        with pytest.raises(SourceError, match="is not a path template"):
            plan_decode(dataset, tmp_path / "out")
    assert any(
        key in fault.what and fault.kind == "path-template" for fault in verify_dataset(dataset).faults
    )


def test_a_template_of_v21_is_held_to_the_same(tmp_path: Path) -> None:
    root = Path(shutil.copytree(V21, tmp_path / "dataset"))
    path = root / "meta/info.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"data_path": "../{episode_index:06d}.parquet"})
    )
    with pytest.raises(SourceError, match="is not a path template"):
        reencode_dataset(root, tmp_path / "out")


def test_a_frame_that_is_a_link_out_of_its_folder_is_refused(png_tree: Path, tmp_path: Path) -> None:
    frame = png_tree / "episode_000001/top/frame-000009.png"
    frame.rename(tmp_path / "private.png")
    frame.symlink_to(tmp_path / "private.png")
    with pytest.raises(SourceError, match=r"frame-000009\.png: is a link.*follow_links=True"):
        reencode_dataset(png_tree, tmp_path / "out", fps=30)
    with pytest.raises(SourceError, match=r"frame-000009\.png: is a link.*follow_links=True"):
        encode(frame.parent, tmp_path / "out.mp4", fps=30)
    assert not list(tmp_path.glob("*out*"))
    assert encode(frame.parent, tmp_path / "out.mp4", fps=30, config=FAST, follow_links=True).frames == 17
    frame.unlink()
    os.mkfifo(frame)
    with pytest.raises(SourceError, match=r"frame-000009\.png: is a named pipe"):
        encode(frame.parent, tmp_path / "out2.mp4", fps=30)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('{"a": ' * 100_000, "nested too deeply"),
        ('{"fps": ' + "9" * 10_000 + "}", "too many digits"),
        ("[]", "not a JSON object"),
        ('{"fps": 30', "is not JSON: "),
        ("\\xff", "is not UTF-8"),
    ],
)
def test_metadata_that_json_cannot_hold_end_in_plain_words(dataset: Path, value: str, said: str) -> None:
    (dataset / "meta/info.json").write_bytes(value.encode().replace(b"\\xff", b"\xff"))
    for read in (report_dataset, open_dataset):
        with pytest.raises(SourceError, match=rf"info\.json: .*{said}") as caught:
            read(dataset)
        assert "set_int_max_str_digits" not in str(caught.value)
    assert said in verify_dataset(dataset).faults[0].what


def test_statistics_that_are_no_numbers_are_named(whole_v21: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole_v21, tmp_path / "dataset"))
    path = root / "meta/episodes_stats.jsonl"
    first, *rest = path.read_text().splitlines()
    for name in ("mean", "count"):
        for value in (
            [],
            [[]],
            "x",
            {},
            10**400,
            float("inf"),
            [None],
            ["x"],
            *([0, -1] if name == "count" else []),
        ):
            line = json.loads(first)
            line["stats"]["action"][name] = value
            path.write_text("\n".join([json.dumps(line), *rest]) + "\n")
            with pytest.raises(SourceError, match=r"episodes_stats\.jsonl: line 1: .*action"):
                open_dataset(root)
            if value in ([[]], 10**400):
                assert any("action" in str(fault) for fault in verify_dataset(root).faults)


def test_a_pipe_or_a_device_that_is_named_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for path, kind in ((tmp_path / "pipe.mp4", "a named pipe"), (Path("/dev/zero"), "a character device")):
        for read in (
            lambda path=path: verify_dataset(path),
            lambda path=path: encode(path, tmp_path / "out.mp4"),
            lambda path=path: plan_decode(path, tmp_path / "out"),
        ):
            with pytest.raises(SourceError, match=rf"{path}: is {kind}"):
                read()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.mp4"]
