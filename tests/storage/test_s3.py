"""Datasets in a bucket are read, written, verified and refused as those on the disk are."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ffenc import DestinationError, SourceError, edit_dataset, plan_reencode, reencode_dataset, run_plan
from ffenc.ffmpeg import boxes
from ffenc.storage import copy, store
from ffenc.storage.claim import PLACE
from tests.conftest import DATASET, FIXTURES
from tests.recording.recording import wait_for
from tests.storage.conftest import forget
from tests.support.command_line import CommandLine
from tests.support.s3 import S3

VIDEO = FIXTURES / "aloha_video_v30"
H264 = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "preset"), "ultrafast")]
IMAGES: dict[str, Any] = {"overrides": H264, "cameras": ["angle", "angle_depth"], "episodes": [1]}
COPIED: dict[str, Any] = {"cameras": ["top"], "episodes": [0, 1]}


@pytest.fixture(scope="module", autouse=True)
def sources(server: S3) -> None:
    server.upload(VIDEO, "video")
    server.upload(DATASET, "images")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What the jobs of these tests give on the disk."""
    folder = tmp_path_factory.mktemp("local")
    reencode_dataset(DATASET, folder / "images", **IMAGES)
    reencode_dataset(VIDEO, folder / "copied", **COPIED)
    return {name: contents(folder / name) for name in ("images", "copied")}


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def length(span: str) -> int:
    """Bytes of a Range header."""
    first, last = span.removeprefix("bytes=").split("-")
    return int(last) - int(first) + 1


def puts(s3: S3, place: str) -> list[str]:
    start = f"/lab/{place}/"
    written = [
        path.removeprefix(start) for method, path, _ in s3.requests if method == "PUT" and start in path
    ]
    return [place for place in written if place != PLACE]


def test_images_of_a_bucket_become_video_in_a_bucket(s3: S3, cache: Path, local: Any) -> None:
    sent: list[tuple[int, int]] = []
    plan = plan_reencode("s3://lab/images", "s3://lab/made", **IMAGES)
    summary = run_plan(plan, on_upload=lambda done, total: sent.append((done, total)))
    assert sent[-1][0] == sent[-1][1] == sum(map(len, local["images"].values()))
    assert len(sent) == len(local["images"])
    assert str(summary.destination) == "s3://lab/made"
    assert s3.files("made") == local["images"]
    assert puts(s3, "made")[-1] == "meta/info.json"
    read = sum(length(span) for method, path, span in s3.requests if "/lab/images/data" in path and span)
    assert 0 < read < (DATASET / "data/chunk-000/file-000.parquet").stat().st_size / 2
    assert not [path for path in (cache / "uploads").rglob("*") if path.is_file()]
    s3.requests.clear()
    forget()
    again = reencode_dataset("s3://lab/images", "s3://lab/made", **IMAGES, resume=True)
    assert again.complete_before
    assert not puts(s3, "made")
    with pytest.raises(DestinationError, match="s3://lab/made holds a dataset"):
        reencode_dataset("s3://lab/images", "s3://lab/made", **IMAGES)


def test_video_is_verified_without_being_fetched(
    s3: S3, ffenc: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boxes, "_FIRST_FRAMES", 8 << 10)  # as it would be, if the sample were larger
    monkeypatch.setattr(boxes, "_FETCHED", 4 << 10)
    monkeypatch.setattr(copy, "_ALIGNED", 4 << 10)
    sizes = {p.relative_to(VIDEO).as_posix(): p.stat().st_size for p in VIDEO.rglob("*.mp4")}

    def fetched() -> int:
        return sum(length(span) for _, path, span in s3.requests if path.endswith(".mp4") and span)

    outcome = ffenc.done("verify", "s3://lab/video")
    assert "s3://lab/video: sound" in outcome.out
    assert 0 < fetched() < sum(sizes.values()) / 3
    s3.requests.clear()
    found = ffenc.done("info", "s3://lab/video", "--json").json
    assert (found["root"], found["episodes"]) == ("s3://lab/video", 3)
    assert (
        found["cameras"]["observation.images.top"]["bytes"]
        == sizes["videos/observation.images.top/chunk-000/file-000.mp4"]
    )
    assert not fetched()
    assert ffenc.done("verify", "s3://lab/video", "--deep", "--json").json["sound"]
    assert fetched() > sum(sizes.values()) / 2


def test_other_commands(s3: S3, ffenc: CommandLine, tmp_path: Path) -> None:
    ffenc.done(
        *("decode", "s3://lab/video", tmp_path / "frames", "--camera", "top", "--episode", 1),
        *("--frames", "0:1"),
    )
    assert [path.name for path in (tmp_path / "frames").rglob("*.png")] == ["frame-000000.png"]
    ffenc.done("stats", "s3://lab/video", "--json")
    assert "download it first" in ffenc.refused("stats", "s3://lab/video", "--write")
    ffenc.done(
        *("split", "s3://lab/video", "s3://lab/parts", "--into", "a=0,b=1-"),
    )
    merged = ffenc.done("merge", "s3://lab/parts/a", "s3://lab/parts/b", "--out", tmp_path / "all", "--json")
    assert merged.json["episodes"] == 3
    assert "overlap" in ffenc.refused("merge", "s3://lab/video", "--out", "s3://lab/video/all")
    repaired = ffenc.done("repair", "s3://lab/parts/a", "s3://lab/repaired")
    assert "s3://lab/repaired" in repaired.out
    assert "meta/info.json" in s3.files("repaired")


def test_an_upload_that_was_killed_is_taken_up(s3: S3, cache: Path, local: Any) -> None:
    code = (
        "from ffenc import reencode_dataset; "
        f"reencode_dataset({str(VIDEO)!r}, 's3://lab/killed', cameras=['top'], episodes=[0, 1])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ)
    written: list[str] = []

    def rule(method: str, path: str) -> int | None:
        if method == "PUT":
            written.append(path)
            if len(written) == 4:  # of which the first says who writes
                wait_for(lambda: len(s3.files("killed")) > 1)  # others go on beside it
                process.send_signal(signal.SIGKILL)
                process.wait()
        return None

    s3.rule = rule
    assert process.wait() == -signal.SIGKILL
    s3.rule = obey
    there = s3.files("killed")
    assert len(there) > 1
    del there[PLACE]
    assert "meta/info.json" not in there
    with pytest.raises(SourceError, match="no meta/info.json|is not a LeRobot dataset|is a folder"):
        edit_dataset("s3://lab/killed", cache / "x", episodes=[0])
    with pytest.raises(DestinationError, match="s3://lab/killed is not empty.*resume=True"):
        reencode_dataset(VIDEO, "s3://lab/killed", **COPIED)
    s3.requests.clear()
    reencode_dataset(VIDEO, "s3://lab/killed", **COPIED, resume=True)
    assert s3.files("killed") == local["copied"]
    assert not set(puts(s3, "killed")) & set(there)


def test_a_destination_that_cannot_be_is_refused_before_anything_is_done(
    s3: S3, ffenc: CommandLine, cache: Path
) -> None:
    words = ["reencode", VIDEO, "--cameras", "top"]
    assert "there is no such bucket" in ffenc.refused(*words, "s3://nobody/x")
    s3.rule = forbidden
    assert "permission is denied" in ffenc.refused(*words, "s3://lab/x")
    s3.rule = obey
    ffenc.done(*words, "s3://lab/x", "--dry-run")
    assert not s3.files("x")
    assert not (cache / "uploads").exists()


def test_a_dataset_is_replaced_only_on_request(s3: S3, local: Any) -> None:
    s3.client().put_object(Bucket="lab", Key="old/meta/info.json", Body=b"{}")
    s3.client().put_object(Bucket="lab", Key="old/videos/left.mp4", Body=b"x")
    with pytest.raises(DestinationError, match="overwrite=True"):
        reencode_dataset(VIDEO, "s3://lab/old", **COPIED)
    s3.requests.clear()
    reencode_dataset(VIDEO, "s3://lab/old", **COPIED, overwrite=True)
    assert s3.files("old") == local["copied"]
    changed = [(m, path.removeprefix("/lab/old/")) for m, path, _ in s3.requests if m in ("PUT", "DELETE")]
    changed = [one for one in changed if one[1] != PLACE]
    assert changed[0] == ("DELETE", "meta/info.json")
    assert changed[-1] == ("PUT", "meta/info.json")
    s3.client().put_object(Bucket="lab", Key="notes/a.txt", Body=b"mine")
    with pytest.raises(DestinationError, match="overwrite=True replaces datasets only"):
        reencode_dataset(VIDEO, "s3://lab/notes", **COPIED, overwrite=True)
    with pytest.raises(DestinationError, match="applies to an address"):
        reencode_dataset(VIDEO, "local", **COPIED, overwrite=True)
    assert s3.files("notes") == {"a.txt": b"mine"}


def test_throttling_costs_time_only(s3: S3, local: Any) -> None:
    refused: dict[str, int] = {}

    def rule(method: str, path: str) -> int | None:
        refused[method + path] = refused.get(method + path, 0) + 1
        return 503 if refused[method + path] <= 2 else None

    s3.rule = rule
    reencode_dataset("s3://lab/video", "s3://lab/throttled", **COPIED)
    s3.rule = obey
    assert s3.files("throttled") == local["copied"]


def obey(method: str, path: str) -> int | None:
    return None


def busy(method: str, path: str) -> int | None:
    return 503


def forbidden(method: str, path: str) -> int | None:
    return 403


@pytest.mark.parametrize(
    ("address", "rule", "said"),
    [
        ("s3://lab/none", None, "s3://lab/none does not exist or is empty"),
        ("s3://nobody/x", None, "there is no such bucket"),
        ("s3://lab/video", busy, "cannot be listed: tried 6 times: .*SlowDown"),
        ("s3://lab/video", forbidden, "permission is denied.*AWS_ACCESS_KEY_ID"),
    ],
    ids=["nothing", "no bucket", "always busy", "forbidden"],
)
def test_a_source_that_cannot_be_read(
    s3: S3, ffenc: CommandLine, tmp_path: Path, address: str, rule: Any, said: str
) -> None:
    s3.rule = rule or s3.rule
    message = ffenc.refused("reencode", address, tmp_path / "out", "--cameras", "top")
    assert re.search(said, message), message
    assert "secret" not in message
    assert not (tmp_path / "out").exists()


def test_without_credentials(s3: S3, ffenc: CommandLine, tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert "no credentials for S3 are found" in ffenc.refused("info", "s3://lab/video")


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("s3://a/b", "s3fs", "s3"), ("gs://a/b", "gcsfs", "gcs"), ("az://a/b", "adlfs", "azure")],
)
def test_what_is_not_installed_is_named(
    ffenc: CommandLine, monkeypatch: pytest.MonkeyPatch, name: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert f"pip install 'ffenc[{extra}]'" in ffenc.refused("info", name)


def test_nobody_listens(ffenc: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "tried 6 times" in ffenc.refused("info", "s3://lab/video")


def test_a_bucket_that_vanishes_half_way(s3: S3, tmp_path: Path, cache: Path, local: Any) -> None:
    """Nothing is published, what was fetched is kept, and --resume goes on when it is back."""

    def vanish(method: str, path: str) -> int | None:
        if method == "GET" and path.endswith("chunk-000/file-000.mp4") and "top" in path:
            s3.rule = obey
            for key in s3.files("gone"):
                s3.client().delete_object(Bucket="lab", Key=f"gone/{key}")
        return None

    s3.upload(VIDEO, "gone")
    s3.rule = vanish
    with pytest.raises(SourceError, match="disappeared after the dataset was opened"):
        reencode_dataset("s3://lab/gone", tmp_path / "out", **COPIED)
    assert not (tmp_path / "out").exists()
    forget()
    s3.upload(VIDEO, "gone")
    reencode_dataset("s3://lab/gone", tmp_path / "out", **COPIED, resume=True)
    assert contents(tmp_path / "out") == local["copied"]


def test_a_destination_that_is_forbidden_half_way(s3: S3, local: Any) -> None:
    def rule(method: str, path: str) -> int | None:
        return 403 if method == "PUT" and "videos" in path else None

    s3.rule = rule
    with pytest.raises(DestinationError, match="permission is denied") as caught:
        reencode_dataset(VIDEO, "s3://lab/half", **COPIED)
    assert "secret" not in str(caught.value)
    s3.rule = obey
    assert "meta/info.json" not in s3.files("half")
    forget()
    reencode_dataset(VIDEO, "s3://lab/half", **COPIED, resume=True)
    assert s3.files("half") == local["copied"]


def test_a_source_that_changes_meanwhile_is_an_error(s3: S3, tmp_path: Path) -> None:
    def change(method: str, path: str) -> int | None:
        if method == "GET" and path.endswith(".mp4") and "top" in path:
            s3.rule = obey
            s3.client().put_object(Bucket="lab", Key="changing/" + path.split("changing/")[1], Body=b"new")
        return None

    s3.upload(VIDEO, "changing")
    s3.rule = change
    with pytest.raises(SourceError, match="was changed while it was read|bytes came of"):
        reencode_dataset("s3://lab/changing", tmp_path / "out", **COPIED)
    assert not (tmp_path / "out").exists()


def test_no_library_of_a_store_is_loaded_for_local_work() -> None:
    code = (
        "import sys; import ffenc.cli.app, ffenc.cli.push, ffenc.dataset.reencode, ffenc.dataset.transfer;"
        "print([n for n in ('fsspec', 's3fs', 'huggingface_hub', 'botocore', 'aiohttp') if n in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_waiting_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FIRST_WAIT", 1.0)
    waited = list(store.waits())
    assert waited[-1] is None
    assert all(2**n <= wait <= 1.5 * 2**n for n, wait in enumerate(waited[:-1]) if wait is not None)
