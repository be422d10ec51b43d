"""SHA-256 of every video file of a dataset, to find damage that no decoder detects.

The file has the format of ``sha256sum``: ``sha256sum -c meta/videos.sha256`` in the dataset's folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from ffenc.errors import SourceError
from ffenc.layout import CHECKSUMS
from ffenc.paths import open_regular, read_text
from ffenc.storage.mirror import held

_BLOCK = 1 << 20
_AT_ONCE = 1 << 30
_LINE = re.compile(r"([0-9a-f]{64})[ ][ *](.+)")


def file_checksum(path: Path, *, check: Callable[[], object] = lambda: None) -> str:
    """Return the SHA-256 of a file as hexadecimal digits.

    Args:
        path: the file.
        check: called after each megabyte; may raise.
    """
    digest = hashlib.sha256()
    with held(path), open_regular(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            check()
    return digest.hexdigest()


def copy_file(source: Path, target: Path) -> None:
    """Copy a file inside the kernel if possible: on some file systems, both files then share their data."""
    if hasattr(os, "copy_file_range"):
        with open_regular(source) as old, target.open("wb") as new, contextlib.suppress(OSError):
            done = 0
            while count := os.copy_file_range(old.fileno(), new.fileno(), _AT_ONCE):
                done += count
            if done == os.fstat(old.fileno()).st_size:
                return
    shutil.copyfile(source, target)


def same_bytes(one: Path, other: Path) -> bool:
    """Return whether two files have the same contents."""
    with one.open("rb") as first, other.open("rb") as second:
        while block := first.read(_BLOCK):
            if second.read(_BLOCK) != block:
                return False
        return not second.read(1)


def write_checksums(root: Path, checksums: Mapping[str, str]) -> None:
    """Write a dataset's checksums: path in the dataset -> checksum."""
    lines = [f"{checksum}  {place}\n" for place, checksum in sorted(checksums.items())]
    (root / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def broken_lines(root: Path) -> list[int]:
    """Return the numbers of unreadable lines, from 1; 0 for an unreadable file."""
    path = root / CHECKSUMS
    try:
        lines = read_text(path).splitlines() if path.exists() else []
    except (OSError, SourceError):
        return [0]
    return [number for number, line in enumerate(lines, 1) if not _LINE.fullmatch(line)]


def read_checksums(root: Path) -> dict[str, str]:
    """Return a dataset's checksums: path in the dataset -> checksum; empty without a checksum file."""
    try:
        text = read_text(root / CHECKSUMS)
    except (OSError, SourceError):
        return {}
    found = (_LINE.fullmatch(line) for line in text.splitlines())
    return {match[2]: match[1] for match in found if match}
