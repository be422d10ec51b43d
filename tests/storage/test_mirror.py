"""Local copies of remote datasets: what is fetched, what is kept, what is refused."""

from __future__ import annotations

import fcntl
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ffenc.errors import ConfigError, SourceError
from ffenc.storage.address import Address, parse_address
from ffenc.storage.cache import _delete
from ffenc.storage.copy import Mirror
from ffenc.storage.mirror import attach, held, open_copies, open_mirror, version_of
from ffenc.storage.ranges import blocks, joined, missing
from ffenc.storage.store import Entry
from tests.storage.conftest import forget
from tests.support.s3 import S3

SIZE = 1 << 18


def remote(name: str) -> Address:
    found = parse_address(f"s3://lab/{name}")
    assert isinstance(found, Address)
    return found


@pytest.fixture
def folder(tmp_path: Path, s3: S3) -> Path:
    """Three files, which are at s3://lab/set too."""
    made = tmp_path / "made"
    (made / "meta").mkdir(parents=True)
    for number, name in enumerate(("a.bin", "b.bin", "meta/c.bin")):
        (made / name).write_bytes(bytes([number]) + os.urandom(SIZE - 1))
    for key in s3.files("set"):
        s3.client().delete_object(Bucket="lab", Key=f"set/{key}")
    s3.upload(made, "set")
    s3.requests.clear()
    return made


def test_ranges() -> None:
    assert joined([(5, 9), (0, 5), (20, 21)]) == [(0, 9), (20, 21)]
    assert missing([(0, 10), (20, 30)], [(2, 4), (8, 25)]) == [(0, 2), (4, 8), (25, 30)]
    assert missing([(0, 10)], [(0, 10)]) == []
    assert blocks([(0, 10), (20, 21)], 4) == [(0, 4), (4, 8), (8, 10), (20, 21)]


def test_a_copy_has_all_sizes_at_once_and_bytes_when_they_are_asked_for(s3: S3, folder: Path) -> None:
    copy = open_mirror(remote("set"))
    assert {p.name: p.stat().st_size for p in copy.root.rglob("*.bin")} == dict.fromkeys(
        ("a.bin", "b.bin", "c.bin"), SIZE
    )
    assert s3.fetched() == ["/lab"]  # the list of the files
    path = copy.root / "a.bin"
    with held(path, needs=lambda read, size: [(100_000, 100_010)], name="middle"):
        assert path.read_bytes()[100_000:100_010] == (folder / "a.bin").read_bytes()[100_000:100_010]
        assert path.stat().st_blocks * 512 < SIZE // 2
    with held(path):
        assert path.read_bytes() == (folder / "a.bin").read_bytes()
    before = len(s3.requests)
    with held(path), held(path, needs=lambda read, size: [(100_000, 100_010)], name="middle"):
        pass
    assert len(s3.requests) == before
    assert version_of(path) is not None
    assert version_of(folder / "a.bin") is None
    assert (copy.root / "b.bin").read_bytes() == bytes(SIZE)


def test_a_copy_is_found_again_and_only_what_changed_is_fetched(s3: S3, folder: Path) -> None:
    copy = open_mirror(remote("set"))
    copy.fetch(list(copy.entries), name="all")
    forget()
    s3.client().put_object(Bucket="lab", Key="set/b.bin", Body=b"new")
    s3.client().delete_object(Bucket="lab", Key="set/meta/c.bin")
    s3.requests.clear()
    copy = open_mirror(remote("set"))
    copy.fetch(list(copy.entries), name="all")
    assert [key for key in s3.fetched() if key and key != "/lab"] == ["set/b.bin"]
    assert (copy.root / "b.bin").read_bytes() == b"new"
    assert not (copy.root / "meta/c.bin").exists()


def test_a_file_that_changes_while_it_is_read_is_an_error(s3: S3, folder: Path) -> None:
    copy = open_mirror(remote("set"))
    with held(copy.root / "a.bin", needs=lambda read, size: [(0, 10)], name="start"):
        pass
    s3.client().put_object(Bucket="lab", Key="set/a.bin", Body=os.urandom(SIZE))
    with pytest.raises(SourceError, match="a.bin was changed while it was read"), held(copy.root / "a.bin"):
        pass
    s3.client().delete_object(Bucket="lab", Key="set/b.bin")
    with pytest.raises(SourceError, match="b.bin disappeared after"), held(copy.root / "b.bin"):
        pass


def test_another_process_that_reads_the_state_before_is_waited_for(s3: S3, folder: Path) -> None:
    copy = open_mirror(remote("set"))
    newer = {**copy.entries, "b.bin": Entry(3, "another", 0.0)}
    with pytest.raises(SourceError, match="another run of ffenc still reads the previous version"):
        Mirror(copy.address, copy.address, newer)
    copy.close()
    Mirror(copy.address, copy.address, newer).close()


def test_a_copy_that_is_deleted_while_it_is_opened_is_created_again(s3: S3, folder: Path) -> None:
    copy = open_mirror(remote("set"))
    forget()
    lock = copy.folder / "lock"
    with lock.open("a") as sweeper, ThreadPoolExecutor(1) as beside:
        fcntl.flock(sweeper, fcntl.LOCK_EX)
        opened = beside.submit(Mirror, copy.address, copy.address, copy.entries)
        while sum(one.samefile(lock) for one in Path("/proc/self/fd").iterdir() if one.exists()) < 2:
            time.sleep(0.01)
        _delete(copy.folder)
        sweeper.close()
        found = opened.result(60)
    with lock.open("a") as another, pytest.raises(BlockingIOError):
        fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
    found.fetch(["b.bin"], name="all")
    assert (found.root / "b.bin").read_bytes() == (folder / "b.bin").read_bytes()
    found.close()


def test_bytes_that_the_stores_checksum_does_not_fit_are_refused(
    s3: S3, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = open_mirror(remote("set"))
    real = copy.store.read
    times = [0]

    def read(place: str, start: int, end: int) -> bytes:
        times[0] += 1
        return bytes(end - start) if times[0] == 1 else real(place, start, end)

    monkeypatch.setattr(copy.store, "read", read)
    with pytest.raises(SourceError, match="does not match the store's checksum"), held(copy.root / "a.bin"):
        pass
    with held(copy.root / "a.bin"):
        assert (copy.root / "a.bin").read_bytes() == (folder / "a.bin").read_bytes()


def test_what_was_used_longest_ago_makes_room(
    s3: S3, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = cache / "datasets" / "mine"
    stranger.mkdir(parents=True)
    (stranger / "notes.txt").write_bytes(bytes(SIZE))
    copy = open_mirror(remote("set"))
    monkeypatch.setenv("FFENC_CACHE_SIZE", "700kB")
    first, second, third = (copy.root / name for name in ("a.bin", "b.bin", "meta/c.bin"))
    with held(first, needs=lambda read, size: [(0, 10)], name="index", keep=True):
        pass
    with held(first):
        pass
    with held(second):
        pass
    with held(third):  # is read all the time
        pass
    assert first.stat().st_blocks * 512 < SIZE // 2
    assert first.stat().st_size == SIZE
    assert first.read_bytes()[:10] == (folder / "a.bin").read_bytes()[:10]
    assert second.read_bytes() == (folder / "b.bin").read_bytes()
    full = pytest.raises(SourceError, match="FFENC_CACHE_SIZE allows 700,000")
    with held(second), held(third), full, held(first):
        pass
    with held(first):
        assert first.read_bytes() == (folder / "a.bin").read_bytes()
    assert (stranger / "notes.txt").stat().st_size == SIZE
    monkeypatch.setenv("FFENC_CACHE_SIZE", "much")
    with pytest.raises(ConfigError, match="expected such as 500MB"), held(second):
        pass


def test_what_has_to_stay_stays_although_it_was_fetched_for_a_moment_before(
    s3: S3, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = open_mirror(remote("set"))
    monkeypatch.setenv("FFENC_CACHE_SIZE", "700kB")
    first, second, third = (copy.root / name for name in ("a.bin", "b.bin", "meta/c.bin"))
    with held(first):
        pass
    copy.fetch(["a.bin"], name="all")
    for other in (second, third, second):
        with held(other):
            pass
    assert first.read_bytes() == (folder / "a.bin").read_bytes()


def test_a_dataset_that_nobody_reads_goes_whole(
    s3: S3, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.upload(folder, "other")
    before = open_mirror(remote("other"))
    before.fetch(list(before.entries), name="all")
    forget()
    (before.folder / "state/a.json").symlink_to("deleted")  # as if another run had deleted it just now
    monkeypatch.setenv("FFENC_CACHE_SIZE", "900kB")
    copy = open_mirror(remote("set"))
    copy.fetch(list(copy.entries), name="all")
    assert not before.folder.exists()


def test_another_process_takes_over_what_is_open(s3: S3, folder: Path) -> None:
    open_mirror(remote("set"))
    copies = pickle.dumps(open_copies())
    forget()
    attach(pickle.loads(copies))
    path = pickle.loads(copies)[0].root / "b.bin"
    with held(path):
        assert path.read_bytes() == (folder / "b.bin").read_bytes()
    assert "s3://lab/set/b.bin" in str(version_of(path))


def test_a_cache_folder_behind_a_link(
    s3: S3, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FFENC_CACHE", "link/cache")
    copy = open_mirror(remote("set"))
    with held((copy.root / "a.bin").resolve()):
        assert (copy.root / "a.bin").read_bytes() == (folder / "a.bin").read_bytes()


def test_a_single_file(s3: S3, folder: Path) -> None:
    copy = open_mirror(remote("set/a.bin"))
    assert copy.is_file
    with held(copy.path):
        assert copy.path.read_bytes() == (folder / "a.bin").read_bytes()


def test_nothing_there(s3: S3) -> None:
    with pytest.raises(SourceError, match="s3://lab/none does not exist or is empty"):
        open_mirror(remote("none"))


def test_a_name_that_is_a_file_and_a_folder(s3: S3, folder: Path) -> None:
    s3.upload(folder, "both")
    s3.client().put_object(Bucket="lab", Key="both/deep", Body=b"file")
    s3.client().put_object(Bucket="lab", Key="both/deep/er/a.bin", Body=b"folder")
    with pytest.raises(SourceError, match="s3://lab/both: deep is a file, but deep/er/a.bin needs a folder"):
        open_mirror(remote("both"))
