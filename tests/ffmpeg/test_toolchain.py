"""Finding the programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ffenc import ToolchainError
from ffenc.ffmpeg.toolchain import find_ffprobe, toolchains
from tests.conftest import system_program


def stand_in(path: Path, version_line: str) -> str:
    path.write_text(f"#!/bin/sh\necho '{version_line}'\n")
    path.chmod(0o755)
    return str(path)


def test_the_python_packages_come_first_then_path() -> None:
    found = toolchains()
    assert "imageio_ffmpeg" in found[0].ffmpeg
    assert found[1].ffmpeg == system_program("ffmpeg")


def test_a_named_program_is_used_alone_or_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    named = system_program("ffmpeg")
    assert [t.ffmpeg for t in toolchains(named)] == [named]
    monkeypatch.setenv("FFENC_FFMPEG", str(tmp_path / "none"))
    with pytest.raises(ToolchainError, match="none' does not exist"):
        toolchains()
    with pytest.raises(ToolchainError, match="is not ffmpeg: it says 'hello'"):
        toolchains(stand_in(tmp_path / "other", "hello"))


def test_a_version_without_svtav1_params_is_refused(tmp_path: Path) -> None:
    old = stand_in(tmp_path / "ffmpeg", "ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright")
    with pytest.raises(ToolchainError, match=r"4\.4\.2.*5\.1"):
        toolchains(old)


def test_without_any_the_error_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("ffenc.ffmpeg.toolchain._packaged_ffmpeg", lambda: None)
    with pytest.raises(ToolchainError, match=r"no ffmpeg found; install one with: pip install"):
        toolchains()
    monkeypatch.setattr("ffenc.ffmpeg.toolchain._packaged_ffprobe", lambda: None)
    with pytest.raises(ToolchainError, match="no ffprobe found"):
        find_ffprobe()
