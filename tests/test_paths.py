"""Paths in a dataset stay in its folder; only regular files are read."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ffenc.errors import SourceError
from ffenc.paths import (
    check_template,
    check_tree,
    inside,
    keep_inside,
    open_regular,
    plain_name,
    read_bytes,
    read_lines,
    read_text,
    regular,
    template_fields,
    template_pattern,
    tree_faults,
)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/etc/passwd", "absolute"),
        ("../secret", "'..'"),
        ("data/../../secret", "'..'"),
        ("data/..", "'..'"),
        ("", "is empty"),
        ("data//file", "empty part"),
        ("data/", "empty part"),
        ("./data", "empty part"),
        ("data/a\nb", "printed"),
        ("data/a\0b", "printed"),
        ("data/\x1b[2J", "printed"),
        ("data/\udc80", "printed"),
        ("data\\file", "backslash"),
        ("C:/data", "drive letter"),
        ("data/" + "x" * 300, "longer than 255"),
        (7, "not a text"),
        (None, "not a text"),
    ],
)
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(SourceError, match=r"^meta/info\.json: data_path: ") as caught:
        inside(tmp_path, name, "meta/info.json: data_path")
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
    with pytest.raises(SourceError):
        plain_name(name, "camera key")


def test_names_inside_are_given_back(tmp_path: Path) -> None:
    name = "data/chunk-000/file..000 ä.parquet"
    assert inside(tmp_path, name, "data_path") == tmp_path / name
    assert plain_name("observation.images.top", "camera key") == "observation.images.top"
    with pytest.raises(SourceError, match="more than one part"):
        plain_name("a/b", "camera key")


def test_links_stay_in_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    (root / "data").mkdir(parents=True)
    (root / "data/real").write_text("x")
    (tmp_path / "secret").write_text("key")
    (root / "near").symlink_to("data/real")
    (root / "far").symlink_to("../secret")
    (root / "folder").symlink_to(tmp_path)
    (root / "again").symlink_to("far")
    (root / "loop").symlink_to("loop")
    (root / "gone").symlink_to("/nowhere/at/all")

    assert inside(root, "near", "x") == root / "near"
    for name in ("far", "folder/secret", "folder/new", "again", "gone"):
        with pytest.raises(SourceError, match=r"points outside .*replace the link"):
            inside(root, name, "x")
    with pytest.raises(SourceError, match="a link to itself"):
        inside(root, "loop", "x")
    (tmp_path / "alias").symlink_to(root)  # the folder itself may be named by a link: the user did that
    assert inside(tmp_path / "alias", "near", "x")
    assert keep_inside(root, root / "near") == root / "near"


def test_links_of_a_hub_cache_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--a--b/snapshots/0123abcd"
    (snapshot / "meta").mkdir(parents=True)
    blobs = tmp_path / "datasets--a--b/blobs"
    blobs.mkdir()
    (blobs / "feed").write_text("{}")
    (snapshot / "meta/info.json").symlink_to("../../../blobs/feed")
    (snapshot / "other").symlink_to("../0000")  # another revision is another dataset
    assert read_text(inside(snapshot, "meta/info.json", "x")) == "{}"
    assert inside(snapshot / "meta", "info.json", "x")
    with pytest.raises(SourceError, match="points outside"):
        inside(snapshot, "other", "x")
    (blobs / "feed").unlink()
    blobs.rmdir()
    blobs.symlink_to(tmp_path)  # an archive that only looks like a cache
    with pytest.raises(SourceError, match="points outside"):
        inside(snapshot, "meta/info.json", "x")


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    (tmp_path / "device").symlink_to("/dev/zero")
    for path, kind in (
        (tmp_path / "pipe", "named pipe"),
        (tmp_path / "device", "character device"),
        (tmp_path, "a folder"),
        (tmp_path / "socket", "a socket"),
    ):
        with pytest.raises(SourceError, match=kind):
            regular(path)
        with pytest.raises((SourceError, OSError)):  # a socket cannot even be opened
            open_regular(path)
    server.close()
    with pytest.raises(FileNotFoundError):
        regular(tmp_path / "none")


def test_sizes_are_limited(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"ab\ncdef\n")
    assert regular(file) == file
    assert read_bytes(file) == b"ab\ncdef\n"
    assert read_text(file, limit=8) == "ab\ncdef\n"
    assert list(read_lines(file, limit=5)) == [b"ab\n", b"cdef\n"]
    with pytest.raises(SourceError, match=r"8 bytes; expected at most 7"):
        read_text(file, limit=7)
    with pytest.raises(SourceError, match="line 2"):
        list(read_lines(file, limit=4))
    with pytest.raises(SourceError, match="more than 10 bytes; expected at most 10"):
        read_bytes(Path("/proc/self/status"), 10)
    file.write_bytes(b"ok\xff")
    with pytest.raises(SourceError, match="byte 2 is not UTF-8"):
        read_text(file)


USUAL = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


def test_path_templates_are_used_as_they_are() -> None:
    assert template_fields(USUAL) == {"video_key", "chunk_index", "file_index"}
    assert check_template(USUAL, "x", template_fields(USUAL)) == USUAL
    old = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    assert check_template(old, "x") == old
    assert check_template("a/{chunk_index}-{file_index:09d}", "x").format(chunk_index=1, file_index=2)
    pattern = template_pattern(USUAL)
    match = pattern.fullmatch("videos/observation.images.top/chunk-000/file-1000.mp4")
    assert match is not None
    assert match["video_key"] == "observation.images.top"
    assert not pattern.fullmatch("videos/top/chunk-000/file-x.mp4")
    assert not pattern.fullmatch("videos/a/b/chunk-000/file-000.mp4")


@pytest.mark.parametrize(
    "template",
    [
        "../{video_key}/{file_index}.mp4",
        "/home/u/{file_index}.mp4",
        "data/../../{file_index}.mp4",
        ".git/{file_index}.mp4",
        "data/{file_index:0300000000d}.mp4",
        "data/{file_index:0999d}.mp4",
        "data/{file_index:>300000000}.mp4",
        "data/{chunk_index.x}.mp4",
        "data/{chunk_index.__class__}.mp4",
        "data/{video_key[0]}.mp4",
        "data/{video_key!r}.mp4",
        "data/{video_key:03d}.mp4",
        "data/{0}.mp4",
        "data/{}.mp4",
        "data/{other}.mp4",
        "data/{episode_index:06d}.mp4",  # of the other layout
        "data/{{file_index}}.mp4",
        "data/{file_index",
        "data/{file_index:{chunk_index}d}.mp4",
        "data\\{file_index}.mp4",
        "data/\n{file_index}.mp4",
        "",
        None,
        7,
        ["data"],
    ],
)
def test_other_path_templates_are_refused(template: object) -> None:
    with pytest.raises(SourceError, match=r"^info\.json: video_path: .*\{file_index:03d\}") as caught:
        check_template(template, "info.json: video_path", template_fields(USUAL))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_links_and_special_files_in_a_dataset_are_found_wherever_they_are(tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    for folder in ("meta/deep/er", "data", ".git", ".hidden"):
        (root / folder).mkdir(parents=True)
    (root / "data/file").write_text("x")
    (root / "meta/near").symlink_to("../data/file")
    (root / "meta/folder").symlink_to("../data")
    (root / "meta/self").symlink_to(".")
    (root / "meta/broken").symlink_to("nothing")
    os.mkfifo(root / ".git/pipe")  # no part of the dataset
    check_tree(root)

    (tmp_path / "secret").write_text("key")
    os.mkfifo(root / "meta/deep/er/stats.json")
    (root / "data/.secret").symlink_to("../../secret")
    (root / "README.md").symlink_to("/dev/zero")
    (root / "videos").symlink_to(tmp_path)
    found = {path.relative_to(root).as_posix(): str(error) for path, error in tree_faults(root)}
    assert set(found) == {"meta/deep/er/stats.json", "data/.secret", "README.md", "videos"}
    assert "named pipe" in found["meta/deep/er/stats.json"]
    assert all("follow_links=True" in found[name] for name in ("data/.secret", "README.md", "videos"))
    trusted = tree_faults(root, follow_links=True)
    allowed = {path.relative_to(root).as_posix(): error.what for path, error in trusted}
    assert {"meta/deep/er/stats.json", "README.md"} <= set(allowed)
    assert "character device" in allowed["README.md"]
    assert not {"data/.secret", "videos"} & set(allowed)
    with pytest.raises(SourceError):
        check_tree(root)

    (root / "back").symlink_to(".hidden")  # what is hidden is looked into where the dataset links there
    (root / ".hidden/out").symlink_to("../../secret")
    assert root / "back/out" in {path for path, _ in tree_faults(root)}
