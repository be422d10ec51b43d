"""Temporary folders and signals."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ffenc.temporary import temporary_folder


def test_it_is_there_and_then_gone_with_what_is_in_it(tmp_path: Path) -> None:
    with temporary_folder(tmp_path, ".x-") as folder:
        (folder / "a").mkdir()
        (folder / "a/file").write_bytes(b"1")
        assert folder.parent == tmp_path
        assert folder.name.startswith(".x-")
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


HOLDS = """
import sys
from contextlib import ExitStack
from pathlib import Path
from ffenc.temporary import temporary_folder
with temporary_folder(Path(sys.argv[1])) as folder:
    (folder / "file").write_bytes(b"1")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_folders_of_killed_processes_are_removed_and_no_others(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    place = tmp_path / "place"
    place.mkdir()
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen([sys.executable, "-c", HOLDS, place], **pipes) as killed,
        subprocess.Popen([sys.executable, "-c", HOLDS, place], **pipes) as running,
    ):
        dead, alive = (Path(one.stdout.readline().rstrip()) for one in (killed, running) if one.stdout)
        killed.kill()
        killed.wait()
        assert (dead / "file").exists()
        begin = dead.name[:-12]
        (place / f"{begin}link").symlink_to(outside)
        (place / f"{begin}file").write_bytes(b"1")
        (place / "ffenc-settings").mkdir()
        (place / "ffenc-00000000-other-machine").mkdir()
        with temporary_folder(place) as own, temporary_folder(place) as second:
            assert own.name.startswith(begin)
            found = {path.name for path in place.iterdir()}
            assert found == {
                *(own.name, second.name, alive.name, f"{begin}link", f"{begin}file"),
                *("ffenc-settings", "ffenc-00000000-other-machine"),
            }
        assert (alive / "file").exists()
        assert outside.is_dir()
        running.communicate("")
    assert not alive.exists()


def test_a_folder_that_cannot_be_locked_is_not_taken_for_an_abandoned_one(tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as closing:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        try:
            folder = closing.enter_context(temporary_folder(tmp_path))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        subprocess.run([sys.executable, "-c", HOLDS, tmp_path], stdin=subprocess.DEVNULL, check=True)
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []


def test_a_signal_just_after_it_was_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, make = [], Path.mkdir

    def interrupted(self: Path, *args: Any, **more: Any) -> None:
        make(self, *args, **more)
        made.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), temporary_folder(tmp_path):
        pass
    assert len(made) == 1
    assert not made[0].exists()


def test_a_signal_while_it_is_deleted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delete, calls = shutil.rmtree, []

    def interrupted(path: Path, **more: Any) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise KeyboardInterrupt
        delete(path, **more)

    monkeypatch.setattr("ffenc.temporary.shutil.rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt), temporary_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
