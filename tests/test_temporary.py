"""Temporary folders and signals."""

from __future__ import annotations

import shutil
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
