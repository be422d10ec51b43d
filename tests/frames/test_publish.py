"""Results appear whole or not at all, and what a killed run left beside them does not stay."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ffenc.dataset.decoded_files import published_frames
from ffenc.dataset.staging import Staging, check_destination, unfinished
from ffenc.errors import DestinationError
from ffenc.ffmpeg import cache
from ffenc.frames.publish import check_file_in_folder, claimed, hidden_path, published
from tests.conftest import everything_in


def test_what_a_killed_run_was_writing_is_deleted_by_the_next_run_to_the_same_result(tmp_path: Path) -> None:
    out, other = tmp_path / ("é" * 60 + ".mp4"), tmp_path / ("é" * 60 + "2.mp4")
    hidden_path(out, "partial").write_bytes(b"half")
    hidden_path(out, "partial").mkdir()
    neighbours = [hidden_path(other, "partial"), tmp_path / ".notes.partial.mp4", tmp_path / ".old"]
    for path in neighbours:
        path.touch()
    with claimed(out):
        pass
    assert everything_in(tmp_path) == sorted(path.name for path in neighbours)


def test_what_was_moved_away_for_a_new_result_comes_back_where_none_came(tmp_path: Path) -> None:
    out = tmp_path / "frames.v2"
    old = hidden_path(out, "old")
    old.mkdir()
    (old / "frame-000000.png").touch()
    with claimed(out):
        assert everything_in(out) == ["frame-000000.png"]
    hidden_path(out, "old").mkdir()
    with claimed(out):
        pass
    assert everything_in(tmp_path) == ["frames.v2", "frames.v2/frame-000000.png"]


def test_names_that_begin_alike_are_written_at_the_same_time(tmp_path: Path) -> None:
    one, two = (tmp_path / ("a" * 80 + end) for end in ("1.mp4", "2.mp4"))
    with claimed(one), claimed(two), published(one) as first, published(two) as second:
        first.write_text("1")
        second.write_text("2")
        with pytest.raises(DestinationError, match="another run"), claimed(one):
            pass
    assert (one.read_text(), two.read_text()) == ("1", "2")
    assert len(everything_in(tmp_path)) == 2


def test_a_full_disk_is_an_error_that_names_the_result(tmp_path: Path) -> None:
    def write_to_full_disk() -> None:
        with published(tmp_path / "out.yaml"), Path("/dev/full").open("w", encoding="utf-8") as full:
            full.write("half")

    with pytest.raises(OSError, match="No space left") as caught:
        write_to_full_disk()
    assert caught.value.filename == str(tmp_path / "out.yaml")
    assert everything_in(tmp_path) == []


def test_a_cache_folder_keeps_files_that_are_not_the_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FFENC_CACHE", str(tmp_path))
    cache.remember(["old"], 1)
    [entry], [swept] = tmp_path.glob("*.json"), tmp_path.glob("*swept")
    mine = [
        tmp_path / name for name in ("notes.json", "draft.new", f"{'0' * 32}.json", "ffenc-settings.json")
    ]
    for path in (entry, *mine):
        path.touch()
        os.utime(path, (0, time.time() - 40 * 86400))
    cache.remember(["new"], 2)
    assert entry.exists()  # they were looked for less than a day ago
    os.utime(swept, (0, time.time() - 2 * 86400))
    cache.remember(["newer"], 3)
    assert not entry.exists()
    assert all(path.exists() for path in mine)
    assert cache.recall(["new"]) == 2


@pytest.mark.parametrize("way", ["link", "foreign file", "link inside"])
def test_a_staging_folder_that_is_not_ffencs_own_is_refused_and_untouched(tmp_path: Path, way: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "dataset").mkdir(parents=True)
    (elsewhere / "dataset" / "precious").write_text("kept")
    folder = tmp_path / ".out.ffenc"
    if way == "link":
        folder.symlink_to(elsewhere)
    else:
        folder.mkdir()
        (folder / "notes.txt").write_text("kept") if way == "foreign file" else (
            folder / "pieces"
        ).symlink_to(elsewhere)
    before = everything_in(tmp_path)
    with pytest.raises(DestinationError, match=r"\.out\.ffenc.* (is a link|not a file of ffenc's)"):
        Staging(tmp_path / "out", resume=True).__enter__()
    assert everything_in(tmp_path) == before


def test_files_that_came_into_a_staging_folder_stay_when_its_own_are_deleted(tmp_path: Path) -> None:
    with Staging(tmp_path / "out", resume=False) as staging:
        piece = staging.pieces / "observation.images.top/episode-000000.mp4"
        piece.parent.mkdir()
        piece.touch()
        mine = piece.with_name("mine.mp4")
        mine.touch()
        staging.dataset.mkdir()
        staging.publish()
    assert mine.exists()
    assert not piece.exists()


def test_a_run_that_was_killed_just_after_publishing_leaves_nothing_for_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed = Staging(out, resume=False).__enter__()
    record = killed.pieces / "cam/episode-000000.json"
    record.parent.mkdir()
    record.touch()
    killed.dataset.mkdir()
    (killed.folder / "publishing").touch()
    (killed.dataset / "info").touch()
    killed.dataset.replace(out)
    assert unfinished(out) is None
    killed._unlock()  # as the kernel does when a process ends
    with pytest.raises(DestinationError, match="exists and is not empty"):
        Staging(out, resume=False).__enter__()
    assert everything_in(tmp_path) == ["out", "out/info"]


def test_the_current_folder_is_no_destination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (".", "", "../" + tmp_path.name, str(tmp_path) + "/"):
        with pytest.raises(DestinationError, match="is the current folder; name a new folder in it"):
            check_destination(Path(name))
    check_destination(Path("new/"))


def test_a_file_to_write_is_refused_with_advice_that_helps(tmp_path: Path) -> None:
    folder, file = tmp_path / "page.html", tmp_path / "old.html"
    folder.mkdir()
    file.touch()
    for overwrite in (False, True):
        with pytest.raises(DestinationError, match=r"page.html is a folder; choose another name$"):
            check_file_in_folder(folder, overwrite=overwrite)
        with pytest.raises(DestinationError, match="create it first"):
            check_file_in_folder(tmp_path / "none" / "new.html", overwrite=overwrite)
    with pytest.raises(DestinationError, match="pass overwrite=True"):
        check_file_in_folder(file, overwrite=False)
    check_file_in_folder(file, overwrite=True)


def test_an_error_names_the_result_and_not_its_temporary_name(tmp_path: Path) -> None:
    def write() -> None:
        with published(tmp_path / "out.yaml") as temporary:
            temporary.mkdir()
            try:
                temporary.write_text("half")
            finally:
                temporary.rmdir()

    with pytest.raises(IsADirectoryError) as caught:
        write()
    assert caught.value.filename == str(tmp_path / "out.yaml")


def test_the_error_of_a_full_disk_names_the_folder_of_frames(tmp_path: Path) -> None:
    def write() -> None:
        with published_frames(tmp_path / "out", overwrite=False) as folder:
            (folder / "top").mkdir()
            with Path("/dev/full").open("w", encoding="utf-8") as full:
                full.write("half")

    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert caught.value.filename == str(tmp_path / "out")
    assert everything_in(tmp_path) == []
