"""A dataset from a stranger, with a recording in it: nothing outside its folder is read, written or moved."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ffenc import DestinationError, FfencError, FfencWarning, SourceError
from ffenc.dataset.commit import Move, finish_commit, write_commit
from ffenc.dataset.owner import key_path
from ffenc.recording.recorder import Recorder
from ffenc.recording.recover import recover
from tests.recording.recording import assert_sound, record, robot, states

NAME = "20260101-000000-abcdef"
INFO = {"from": "new/info.json", "to": "meta/info.json", "replaces": True}
ROWS = {"from": "new/rows", "to": "data/chunk-000/file-000.parquet", "replaces": False}


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the user's beside the dataset."""
    path = tmp_path / "victim.mp4"
    path.write_bytes(b"the user's own")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset with an episode that waits for its moves."""
    folder = tmp_path / "data" / ".recording" / NAME
    (folder / "new").mkdir(parents=True)
    (folder / "new/info.json").write_text("{}")
    (folder / "new/rows").write_text("rows")
    return tmp_path / "data"


def folder_of(root: Path) -> Path:
    return root / ".recording" / NAME


def listed(root: Path, *moves: dict[str, Any], **more: Any) -> None:
    """Write a list of moves, as anybody can."""
    content = {"info_before": None, "info_after": None, "moves": list(moves), **more}
    (folder_of(root) / "commit.json").write_text(json.dumps(content))


def files(folder: Path) -> dict[str, bytes | str]:
    """All that is in a folder, links as what they say."""
    return {
        str(p.relative_to(folder)): str(p.readlink()) if p.is_symlink() else p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if (p.is_symlink() or p.is_file()) and p.name != "lock"
    }


@pytest.mark.parametrize(
    ("move", "said"),
    [
        (ROWS | {"to": "{outside}/victim.mp4"}, "absolute"),
        (ROWS | {"to": "{outside}/victim.mp4", "replaces": True}, "absolute"),
        (ROWS | {"to": "../victim.mp4", "replaces": True}, "'..'"),
        (ROWS | {"to": "data/../../victim.mp4"}, "'..'"),
        (ROWS | {"from": "../../../victim.mp4"}, "'..'"),
        (ROWS | {"from": "{outside}/victim.mp4"}, "absolute"),
        (ROWS | {"from": "commit.json"}, "no recording writes"),
        (ROWS | {"to": ".recording/other/commit.json"}, "no recording writes"),
        (ROWS | {"to": "videos/../chunk-000/file-000.mp4"}, "'..'"),
        (ROWS | {"to": ".git/hooks/post-checkout"}, "no recording writes"),
        (ROWS | {"replaces": True}, "no recording writes"),
        (ROWS | {"to": "meta/stats.json"}, "no recording writes"),
        (ROWS | {"to": 3}, "not a text"),
        (INFO, "not a list of moves"),
        ({"from": "new/rows"}, "not a list of moves"),
    ],
)
def test_a_list_moves_only_what_a_recording_writes(
    root: Path, victim: Path, move: dict[str, Any], said: str
) -> None:
    own = {
        name: value.format(outside=victim.parent) if isinstance(value, str) else value
        for name, value in move.items()
    }
    listed(root, own, INFO)
    before = files(victim.parent)
    for trust in (False, True):
        with pytest.raises(SourceError, match=said):
            recover(root, trust=trust)
    with pytest.raises(SourceError, match=said), Recorder(robot(), root):
        pass
    assert files(victim.parent) == before


def test_a_list_is_followed_where_this_user_has_written_it_or_says_so(root: Path, tmp_path: Path) -> None:
    moves = [Move("new/rows", ROWS["to"]), Move("new/info.json", INFO["to"], replaces=True)]
    write_commit(folder_of(root), root, moves)
    (root / ".recording/lock").touch()
    moved = Path(shutil.copytree(root, tmp_path / "moved"))
    assert recover(moved).completed == 1, "a dataset can be renamed"
    changed = Path(shutil.copytree(root, tmp_path / "changed"))
    path = folder_of(changed) / "commit.json"
    for old, new in (("chunk-000", "chunk-001"), ('"signature": "', '"signature": "é')):
        path.write_text(path.read_text().replace(old, new))
        with pytest.raises(SourceError, match=r"(?s)not written by this user.*trust=True\).*data/chunk-"):
            recover(changed)
    copied = Path(shutil.copytree(root, tmp_path / "copied"))
    folder_of(copied).rename(folder_of(copied).with_name("20260101-000000-ffffff"))
    with pytest.raises(SourceError, match="not written by this user"):
        recover(copied)
    with pytest.MonkeyPatch.context() as patch:  # another machine
        patch.setenv("FFENC_STATE", str(tmp_path / "other"))
        before = files(root)
        with pytest.raises(SourceError, match="not written by this user"), Recorder(robot(), root):
            pass
        assert files(root) == before
        assert not key_path().exists(), "looking makes no key"
        assert recover(root, trust=True).completed == 1
    assert files(root) == files(moved) == {ROWS["to"]: b"rows", INFO["to"]: b"{}"}


def test_the_key_is_the_users_alone_and_a_folder_that_takes_none_costs_no_episode(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FFENC_STATE", str(tmp_path / "state"))
    moves = [Move("new/info.json", INFO["to"], replaces=True)]
    (tmp_path / "state").mkdir()
    key_path().write_bytes(b"torn")
    write_commit(folder_of(root), root, moves)
    assert (stat.S_IMODE(key_path().stat().st_mode), key_path().stat().st_size) == (0o600, 32)
    assert [path.name for path in key_path().parent.iterdir()] == ["key"]
    monkeypatch.setenv("FFENC_STATE", "/dev/null/none")
    write_commit(folder_of(root), root, moves)
    assert json.loads((folder_of(root) / "commit.json").read_text())["signature"] is None
    with pytest.raises(SourceError, match="not written by this user"):
        finish_commit(folder_of(root), root)
    assert finish_commit(folder_of(root), root, trust=True)


def _link(place: str, target: str) -> Callable[[Path], None]:
    """Put a link into the dataset, in the place of what is there."""

    def harm(root: Path) -> None:
        path = root / place.format(episode=f".recording/{NAME}")
        if path.is_dir() and not path.is_symlink():
            path.rename(root.parent / "moved")
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target.format(outside=root.parent))

    return harm


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("{episode}/new/rows", "{outside}/victim.mp4"),
        ("{episode}/new", "{outside}/moved"),
        ("{episode}/commit.json", "{outside}/victim.mp4"),
        ("{episode}", "{outside}/moved"),
        (".recording", "{outside}/moved"),
        (".recording/lock", "{outside}/made"),
        ("data", "{outside}"),
        ("data/chunk-000", "{outside}"),
        ("meta", "../meta"),
        ("meta/info.json", "{outside}/victim.mp4"),
        ("data", "data"),
    ],
)
def test_no_link_leads_out(root: Path, victim: Path, place: str, target: str) -> None:
    listed(root, ROWS, INFO)
    (victim.parent / "meta").mkdir()
    _link(place, target)(root)
    before = files(victim.parent)
    with pytest.raises(FfencError, match=r"(?i)link|cannot be created"):
        recover(root, trust=True)
    with pytest.raises(FfencError, match=r"(?i)link|cannot be created"), Recorder(robot(), root):
        pass
    assert files(victim.parent) == before


def test_pipes_and_devices_are_not_waited_for(root: Path) -> None:
    os.mkfifo(folder_of(root) / "commit.json")
    with pytest.raises(SourceError, match="named pipe"):
        recover(root)
    (folder_of(root) / "commit.json").unlink()
    os.mkfifo(folder_of(root) / "episode.json")
    [kept] = recover(root).episodes
    assert "named pipe" in str(kept.error)
    (root / ".recording/lock").unlink()
    os.mkfifo(root / ".recording/lock")
    with pytest.raises(FfencError, match="named pipe"):
        recover(root)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of one episode that was not saved, of live video and of images."""
    root = tmp_path_factory.mktemp("interrupted") / "data"
    with pytest.warns(FfencWarning, match="was not saved"), Recorder(robot(depth="mm"), root) as recorder:
        recorder.start_episode()
        record(recorder, range(12))
    return root


def _camera(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda settings: settings["cameras"][0].update(fields)


def _config(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda settings: settings["cameras"][0]["config"].update(fields)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_camera(key="../../../victim"), "'..'"),
        (_camera(key="observation.images.../../../../victim"), "more than one part|'..'"),
        (_camera(key="{outside}/victim"), "absolute"),
        (_camera(key="finished"), "is not the key of a camera"),
        (_camera(key="observation.images."), "is not the key of a camera"),
        (_camera(key=["x"]), "not a text"),
        (_camera(way="elsewhere"), "not known"),
        (_camera(unit="yd"), "not known|cannot be read"),
        (_camera(width=10**9), "not the size of a camera"),
        (_camera(height="48"), "not the size of a camera"),
        (_camera(block=[]), "block"),
        (_config(vcodec="none"), "cannot be read"),
        (lambda settings: settings.update(cameras=[]), "has no cameras, or two with the same name"),
        (lambda settings: settings.update(cameras=[settings["cameras"][0]] * 2), "two with the same name"),
        (lambda settings: settings.update(fps="0/0"), "cannot be read"),
        (lambda settings: settings.update(fps="-30"), "fps"),
        (lambda settings: settings.update(features={"action": {"dtype": "date32", "shape": [1]}}), "date32"),
        (lambda settings: settings.update(features={"action": 3}), "action"),
        (lambda settings: settings.update(features=[]), "features"),
    ],
)
def test_settings_of_an_interrupted_episode_lead_nowhere(
    interrupted: Path, tmp_path: Path, victim: Path, harm: Callable[[dict[str, Any]], None], said: str
) -> None:
    root = Path(shutil.copytree(interrupted, tmp_path / "data"))
    [path] = root.glob(".recording/*/episode.json")
    settings = json.loads(path.read_text())
    harm(settings)
    path.write_text(json.dumps(settings).replace("{outside}", str(tmp_path)))
    before = files(tmp_path)
    [kept] = recover(root, partial=True).episodes
    assert kept.index is None
    assert isinstance(kept.error, FfencError)
    assert pytest.raises(FfencError, match=said).matches(kept.error), str(kept.error)
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["rows.jsonl", "observation.images.top.mp4", "finished"])
def test_links_in_an_interrupted_episode_are_refused(
    interrupted: Path, tmp_path: Path, victim: Path, name: str
) -> None:
    root = Path(shutil.copytree(interrupted, tmp_path / "data"))
    [folder] = root.glob(".recording/*-*-*")
    path = folder / name
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    before = files(tmp_path)
    [kept] = recover(root, partial=True).episodes
    assert "is a link" in str(kept.error)
    assert files(tmp_path) == before


def test_an_episode_is_not_saved_through_a_link(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with Recorder(robot(), root) as recorder:
        recorder.start_episode()
        record(recorder, range(3))
        recorder.save_episode()
        (root / "videos").rename(tmp_path / "elsewhere")
        (root / "videos").symlink_to(tmp_path / "elsewhere")
        before = files(tmp_path / "elsewhere")
        recorder.start_episode()
        record(recorder, range(4))
        with (
            pytest.warns(FfencWarning, match="ffenc recover"),
            pytest.raises((SourceError, DestinationError), match="link"),
        ):
            recorder.save_episode()
        assert files(tmp_path / "elsewhere") == before
    (root / "videos").unlink()
    (tmp_path / "elsewhere").rename(root / "videos")
    assert [one.index for one in recover(root).episodes] == [1]
    assert_sound(root)
    assert states(root, 1) == [0, 1, 2, 3]
