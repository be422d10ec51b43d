"""Paths in a dataset stay in its folder; only regular files are read."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ffenc.errors import SourceError
from ffenc.paths import (
    inside,
    keep_inside,
    open_regular,
    plain_name,
    read_bytes,
    read_lines,
    read_text,
    regular,
)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/etc/passwd", "absolute"),
        ("../secret", "'..'"),
        ("data/../../secret", "'..'"),
        ("data/..", "'..'"),
        ("", "is empty"),
        ("data//file", "names nothing"),
        ("data/", "names nothing"),
        ("./data", "names nothing"),
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
        with pytest.raises(SourceError, match=r"leads out of .*--follow-links"):
            inside(root, name, "x")
        assert inside(root, name, "x", follow_links=True) == root / name
    with pytest.raises(SourceError, match="back to itself"):
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
    with pytest.raises(SourceError, match="leads out"):
        inside(snapshot, "other", "x")
    (blobs / "feed").unlink()
    blobs.rmdir()
    blobs.symlink_to(tmp_path)  # an archive that only looks like a cache
    with pytest.raises(SourceError, match="leads out"):
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
    with pytest.raises(SourceError, match="expected at most 10 bytes"):
        read_bytes(Path("/proc/self/status"), 10)
    file.write_bytes(b"ok\xff")
    with pytest.raises(SourceError, match="byte 2 is not UTF-8"):
        read_text(file)
