"""Datasets go to the Hub and come back, with the real library and a stand-in for the Hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ffenc import DestinationError, reencode_dataset
from tests.conftest import FIXTURES
from tests.support.command_line import CommandLine
from tests.support.hub import Hub, hub_server

# Of the library, which has httpx send a file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

VIDEO = FIXTURES / "aloha_video_v30"


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with hub_server() as hub:
        yield hub


@pytest.fixture
def hub(server: Hub) -> Iterator[Hub]:
    server.repositories.clear()
    server.objects.clear()
    server.requests.clear()
    yield server
    server.rule = lambda method, path: None


def commits(hub: Hub) -> list[dict[str, bytes]]:
    return list(hub.repositories["me/cube"].commits.values())


def test_without_a_network_one_line_says_so() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "ffenc", "info", "hf://datasets/me/cube"],
        env={**os.environ, "HF_ENDPOINT": "http://hub.invalid"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = (
        "ffenc: error: hf://datasets/me/cube: cannot be looked up: its server's name is not found; is there"
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith(said)
    assert ran.stderr.count("\n") == 1


def test_a_dataset_goes_there_and_back(hub: Hub, ffenc: CommandLine, tmp_path: Path) -> None:
    plan = ffenc.done("push", VIDEO, "me/cube", "--dry-run")
    assert "hf://datasets/me/cube (not written)" in plan.out
    assert not hub.repositories
    done = ffenc.done("push", VIDEO, "me/cube", "--private", "--json").json
    repository = hub.repositories["me/cube"]
    assert repository.private
    assert repository.tags == {"v3.0": done["commit"]}
    there = repository.files()
    card = there.pop("README.md").decode()
    assert there == {place: data for place, data in contents(VIDEO).items() if place != "README.md"}
    assert all(
        ("meta/info.json" in files) == (sha == done["commit"]) for sha, files in repository.commits.items()
    )
    head = yaml.safe_load(card.split("---")[1])
    assert head["tags"] == ["LeRobot"]
    assert head["task_categories"] == ["robotics"]
    assert head["configs"] == [{"config_name": "default", "data_files": "data/*/*.parquet"}]
    assert "hf_notatoken" not in plan.out + plan.err + card

    ffenc.done("pull", "me/cube@v3.0", tmp_path / "back")
    assert contents(tmp_path / "back") == repository.files()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert "exists and is not empty" in ffenc.refused("pull", "me/cube", tmp_path / "back")


def test_a_dataset_that_is_there_is_replaced_only_on_request(
    hub: Hub, ffenc: CommandLine, tmp_path: Path
) -> None:
    ffenc.done("push", VIDEO, "me/cube")
    assert "replace it with --overwrite" in ffenc.refused("push", VIDEO, "me/cube")
    part = tmp_path / "part"
    reencode_dataset(VIDEO, part, cameras=["top"])
    (part / "README.md").write_text("---\ntask_categories: 5\ntags: [cube]\n---\n\n# Cubes\n")
    ffenc.done("push", part, "me/cube", "--overwrite")
    there = hub.repositories["me/cube"].files()
    assert set(there) == set(contents(part))
    card = there["README.md"].decode()
    head = yaml.safe_load(card.split("---")[1])
    assert (head["tags"], head["task_categories"]) == (["cube", "LeRobot"], [5, "robotics"])
    assert card.endswith("# Cubes\n")
    assert json.loads(there["meta/info.json"])["features"].keys() >= {"observation.images.top"}


def test_a_job_reads_from_the_hub_and_writes_to_it(hub: Hub, tmp_path: Path) -> None:
    from ffenc.dataset.transfer import push_dataset

    push_dataset(VIDEO, "me/cube")
    options: dict[str, Any] = {"cameras": ["top"], "episodes": [0, 1]}
    summary = reencode_dataset("hf://datasets/me/cube", "hf://datasets/me/part", **options)
    assert str(summary.destination) == "hf://datasets/me/part"
    reencode_dataset(VIDEO, tmp_path / "here", **options)
    there = hub.repositories["me/part"].files()
    there.pop("README.md")
    here = contents(tmp_path / "here")
    own = "meta/ffenc.json"  # names the job, whose source has a card here
    assert {k: v for k, v in there.items() if k != own} == {
        k: v for k, v in here.items() if k not in (own, "README.md")
    }
    assert hub.repositories["me/part"].tags
    with pytest.raises(DestinationError, match="hf://datasets/me/part holds a dataset"):
        reencode_dataset(VIDEO, "hf://datasets/me/part", **options)


def test_an_upload_that_fails_half_way_leaves_no_dataset(hub: Hub, ffenc: CommandLine) -> None:
    made: list[str] = []

    def rule(method: str, path: str) -> int | None:
        if "/commit/" in path:
            made.append(path)
        return 403 if len(made) == 2 and "/commit/" in path else None

    hub.rule = rule
    message = ffenc.refused("push", VIDEO, "me/cube")
    assert "permission is denied" in message
    assert "hf_notatoken" not in message
    assert all("meta/info.json" not in files for files in commits(hub))
    assert not hub.repositories["me/cube"].tags
    hub.rule = lambda method, path: None
    assert "with --resume" in ffenc.refused("push", VIDEO, "me/cube")
    ffenc.done("push", VIDEO, "me/cube", "--resume")
    assert "meta/info.json" in hub.repositories["me/cube"].files()


def test_of_two_that_push_at_once_one_does(hub: Hub, ffenc: CommandLine, tmp_path: Path) -> None:
    part = tmp_path / "part"
    reencode_dataset(VIDEO, part, cameras=["top"])
    others: list[subprocess.CompletedProcess[str]] = []

    def rule(method: str, path: str) -> int | None:
        if "/commit/" in path:
            hub.rule = lambda method, path: None
            words = [sys.executable, "-m", "ffenc", "push", str(part), "me/cube"]
            others.append(subprocess.run(words, capture_output=True, text=True, check=False))
        return None

    hub.rule = rule
    message = ffenc.refused("push", VIDEO, "me/cube")
    assert "someone else has written there since this upload began" in message
    assert [one.returncode for one in others] == [0], others[0].stderr
    repository = hub.repositories["me/cube"]
    assert repository.files(repository.tags["v3.0"]) == repository.files()
    assert set(repository.files()) == {*contents(part), "README.md"}
    assert "holds another dataset" in ffenc.refused("push", VIDEO, "me/cube", "--resume")
    assert set(repository.files()) == {*contents(part), "README.md"}


def test_throttling_costs_time_only(hub: Hub, ffenc: CommandLine, tmp_path: Path) -> None:
    ffenc.done("push", VIDEO, "me/cube", "--revision", "cropped")
    seen: dict[str, int] = {}

    def rule(method: str, path: str) -> int | None:
        seen[path] = seen.get(path, 0) + 1
        return 503 if seen[path] == 1 and "/revision/" in path else None

    hub.rule = rule
    ffenc.done("pull", "me/cube@cropped", tmp_path / "back")
    assert (tmp_path / "back/meta/info.json").is_file()
    hub.rule = lambda method, path: None
    assert "has no meta/info.json" in ffenc.refused("pull", "me/cube", tmp_path / "main")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pull", "me/none", "out"], "the Hub has no such dataset or revision"),
        (["verify", "hf://datasets/me/none"], "the Hub has no such dataset or revision"),
        (["pull", "none", "out"], "is not a dataset on the Hub"),
        (["push", str(VIDEO), "s3://a/b"], "is not a dataset on the Hub"),
        (["push", str(VIDEO), "me/cube@a", "--revision", "b"], "names a revision"),
        (["push", str(VIDEO), "me/cube", "--revision", "0" * 40], "expected a branch"),
    ],
)
def test_what_is_refused(
    hub: Hub, ffenc: CommandLine, tmp_path: Path, monkeypatch: Any, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in ffenc.refused(*words)
    assert not [path for path in tmp_path.iterdir() if path.name != "cache"]


def test_only_sound_datasets_of_v3_are_uploaded(
    hub: Hub, ffenc: CommandLine, tmp_path: Path, dataset_v21: Path
) -> None:
    broken = Path(shutil.copytree(VIDEO, tmp_path / "broken"))
    next(broken.rglob("*.mp4")).unlink()
    assert "has faults and is not uploaded" in ffenc.refused("push", broken, "me/cube")
    assert "is of layout v2.1" in ffenc.refused("push", dataset_v21, "me/cube")
    file = next(VIDEO.rglob("*.mp4"))
    assert f"{file} is not a folder; expected the folder of a dataset" in ffenc.refused(
        "push", file, "me/cube"
    )
    assert not hub.repositories


def test_the_library_is_named_where_it_is_missing(
    ffenc: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for words in (["pull", "a/b", tmp_path / "x"], ["info", "hf://datasets/a/b"], ["push", VIDEO, "a/b"]):
        assert "pip install 'ffenc[hub]'" in ffenc.refused(*words)
