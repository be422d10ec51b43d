"""Two machines that write to one address: one of them does, and what is there then is whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ffenc import DestinationError, reencode_dataset
from ffenc.storage import claim
from ffenc.storage.address import Address, parse_address
from ffenc.storage.claim import PLACE, Claim
from ffenc.storage.store import Store
from tests.conftest import FIXTURES
from tests.storage.conftest import forget
from tests.support.s3 import S3

VIDEO = FIXTURES / "aloha_video_v30"
COPIED: dict[str, Any] = {"cameras": ["top"], "episodes": [0, 1]}
ELSEWHERE = {"owner": "another", "machine": "elsewhere", "host": "node7", "process": 4, "since": "yesterday"}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the job of these tests gives on the disk."""
    folder = tmp_path_factory.mktemp("local") / "made"
    reencode_dataset(VIDEO, folder, **COPIED)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "RENEWED", 0.05)
    monkeypatch.setattr(claim, "PATIENCE", 0.4)


def store(name: str) -> Store:
    address = parse_address(f"s3://lab/{name}")
    assert isinstance(address, Address)
    return Store(address, writes=True)


def put(s3: S3, key: str, content: dict[str, Any] | bytes) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    s3.client().put_object(Bucket="lab", Key=key, Body=body)


def test_the_second_of_two_processes_is_refused_before_it_does_anything(
    s3: S3, cache: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def rule(method: str, path: str) -> int | None:
        if method in ("PUT", "POST") and not path.endswith(PLACE):
            begun.set()
            go_on.wait(300)
        return None

    s3.rule = rule
    code = (
        f"from ffenc import reencode_dataset; reencode_dataset({str(VIDEO)!r}, 's3://lab/two', **{COPIED!r})"
    )
    other_cache = {**os.environ, "FFENC_CACHE": str(tmp_path / "other")}
    with subprocess.Popen([sys.executable, "-c", code], env=other_cache) as process:
        assert begun.wait(300)
        before = set(s3.files("two"))
        assert before == {PLACE}
        with pytest.raises(DestinationError, match="two is being written by another run"):
            reencode_dataset(VIDEO, "s3://lab/two", **COPIED, resume=True)
        assert set(s3.files("two")) == before
        assert not list((cache / "uploads").rglob("*.mp4"))
        go_on.set()
        assert process.wait(300) == 0
    assert s3.files("two") == local


@pytest.mark.usefixtures("quick")
def test_a_run_elsewhere_that_was_killed_is_followed_by_another_on_request(
    s3: S3, local: dict[str, bytes]
) -> None:
    put(s3, f"dead/{PLACE}", ELSEWHERE)
    with pytest.raises(
        DestinationError, match="process 4 on node7, since yesterday.*resume=True continues it"
    ):
        reencode_dataset(VIDEO, "s3://lab/dead", **COPIED)
    assert set(s3.files("dead")) == {PLACE}
    forget()
    reencode_dataset(VIDEO, "s3://lab/dead", **COPIED, resume=True)
    assert s3.files("dead") == local


@pytest.mark.usefixtures("quick")
def test_a_run_elsewhere_that_lives_is_not_disturbed(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claim, "_machine", lambda: "elsewhere")
        other = Claim(store("alive"), resume=False)
    monkeypatch.setattr(claim, "PATIENCE", 5.0)
    with pytest.raises(DestinationError, match="is being written by another run"):
        Claim(store("alive"), resume=True)
    other.check(ask=True)
    other.end()
    assert not s3.files("alive")
    Claim(store("alive"), resume=False).end()


@pytest.mark.usefixtures("quick")
def test_a_run_elsewhere_that_ends_meanwhile_is_followed(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "PATIENCE", 30.0)
    put(s3, f"ends/{PLACE}", ELSEWHERE)
    end = threading.Timer(0.1, lambda: s3.client().delete_object(Bucket="lab", Key=f"ends/{PLACE}"))

    def rule(method: str, path: str) -> int | None:
        if method == "GET" and path.endswith(PLACE) and not end.is_alive() and not end.finished.is_set():
            end.start()
        return None

    s3.rule = rule
    Claim(store("ends"), resume=True).end()
    end.join()
    assert not s3.files("ends")


def test_of_a_process_of_this_machine_that_has_ended_nobody_waits(s3: S3) -> None:
    mine = Claim(store("ended"), resume=False)
    content = json.loads(s3.files("ended")[PLACE])
    mine.end()
    put(s3, f"ended/{PLACE}", {**content, "owner": "another", "process": 2**22 + 1})
    Claim(store("ended"), resume=False).end()
    put(s3, f"ended/{PLACE}", {**content, "owner": "another", "started": 0.0})  # its number was given again
    Claim(store("ended"), resume=False).end()
    assert not s3.files("ended")


@pytest.mark.usefixtures("quick")
def test_only_one_of_many_that_begin_at_once_gets_it(s3: S3) -> None:
    got: list[Claim] = []
    refused: list[DestinationError] = []

    def begin() -> None:
        try:
            got.append(Claim(store("many"), resume=False))
        except DestinationError as error:
            refused.append(error)

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 5)
    got[0].end()


@pytest.mark.parametrize(
    ("place", "content", "said"),
    [
        (PLACE, ELSEWHERE, "another run of ffenc .process 4 on node7.* writes there now"),
        (
            "videos/other.mp4",
            b"x",
            "taken/videos/other.mp4 was written by someone else while the dataset was uploaded",
        ),
        ("meta/tasks.parquet", b"x", "taken/meta/tasks.parquet was rewritten by someone else while"),
    ],
)
def test_what_others_write_meanwhile_is_noticed_before_it_is_a_dataset(
    s3: S3, local: dict[str, bytes], place: str, content: Any, said: str
) -> None:
    """As a machine might that had been away for minutes, or a program that knows nothing of this."""
    for key in s3.files("taken"):
        s3.client().delete_object(Bucket="lab", Key=f"taken/{key}")
    tables = {one for one in local if not one.endswith((".mp4", "info.json"))}
    done: set[str] = set()
    all_done = threading.Event()
    put_file = Store.put

    def put_last(self: Store, path: Path, name: str) -> Any:
        found = put_file(self, path, name)
        done.add(name)
        if done >= tables:
            all_done.set()
        if name.endswith(".mp4"):
            assert all_done.wait(60)
            put(s3, f"taken/{place}", content)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "put", put_last)
        with pytest.raises(DestinationError, match=said):
            reencode_dataset(VIDEO, "s3://lab/taken", **COPIED)
    assert "meta/info.json" not in s3.files("taken")
