"""Paths in datasets, kept inside the dataset's folder, and access to regular files only.

A dataset may be untrusted. All that it names (templates, camera keys, links) has to lead to files inside its
own folder; anything else is refused.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from ffenc.errors import SourceError
from ffenc.spelling import argument

TEXT_LIMIT = 64 * 2**20
"""Largest JSON, YAML or text file that is read at once, in bytes: LeRobot's are at most a few megabytes."""

LINE_LIMIT = 16 * 2**20
"""Longest line of a JSON Lines file, in bytes."""

COPY = "replace the link with its target"
"""What to do about a link that leads out of a dataset, for errors."""

FIELDS = frozenset({"video_key", "chunk_index", "file_index", "episode_chunk", "episode_index"})
"""The fields in braces that a path template of ``info.json`` may have, in any layout."""

_FIELD = re.compile(r"\{(?P<name>\w+)(?::0(?P<width>[1-9])d)?\}", re.ASCII)
_NAME_LIMIT = 255  # bytes in a part of a path, the limit of all common file systems
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)


def inside(root: Path, name: str, what: str) -> Path:
    """Return a path named in a dataset, after checking that it stays inside the folder. It need not exist.

    Args:
        root: the folder that the path is relative to.
        name: the path as written, with ``/`` between its parts.
        what: where it is written, with which the error begins: ``"meta/info.json: data_path"``.

    Returns:
        ``root / name``, with links not resolved. Symbolic links that stay inside, and those of a Hub cache
        (``snapshots/REVISION`` links to the ``blobs`` beside it), are accepted.

    Raises:
        SourceError: ``name`` is absolute, has empty, ``.`` or ``..`` parts, backslashes, drive letters or
            characters that cannot be printed, or leads out of ``root`` through a link.
    """
    fault = _fault(name)
    if fault:
        raise SourceError(
            f"{_shown(name)} {fault}", expected=f"a path inside {root}, with / between its parts", where=what
        )
    return keep_inside(root, root / name, what)


def plain_name(name: str, what: str) -> str:
    """Return a single part of a path named in a dataset: a camera key, the name of an image.

    Raises:
        SourceError: it has more than one part, or :func:`inside` refuses it.
    """
    fault = _fault(name) or ("has more than one part" if "/" in name else None)
    if fault:
        raise SourceError(f"{_shown(name)} {fault}", expected="a plain name without /", where=what)
    return name


def keep_inside(root: Path, path: Path, what: str | None = None) -> Path:
    """Return a path that was found below ``root``, after checking that no symbolic link leads out of it.

    Raises:
        SourceError: a link leads out of ``root`` (see :func:`inside`), or in a circle.
    """
    _check_within(root, tuple(_allowed(_real(root))), path, what)
    return path


def _check_within(
    root: Path, allowed: Collection[Path], path: Path, what: str | None = None, advice: str = COPY
) -> None:
    real = _real(path)
    if not any(real == folder or folder in real.parents for folder in allowed):
        raise SourceError(
            f"is a link, or below one, that points outside {root}, to {_shown(real)}",
            expected="a file in that folder",
            where=": ".join([*([what] if what else []), _shown(path)]),
            fix=advice,
        )


def check_template(template: object, what: str, fields: Collection[str] = FIELDS) -> str:
    """Return a path template for ``str.format`` from a dataset, after checking it.

    Args:
        template: such as ``data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet``.
        what: where it is written, with which the error begins.
        fields: the accepted names in braces; numbers may have a width of 1 to 9 digits.

    Raises:
        SourceError: not a text, with anything else in braces, or leading out of the folder.
    """
    text = template if isinstance(template, str) else ""
    unknown = [m[0] for m in _FIELD.finditer(text) if m["name"] not in fields or _has_wrong_width(m)]
    plain = _FIELD.sub("0", text)
    fault = _fault(template if not text else plain)
    if unknown:
        fault = f"contains {unknown[0]!r}"
    elif "{" in plain or "}" in plain:
        fault = "has braces that do not enclose a field"
    elif plain.startswith("."):
        fault = "begins with a dot"
    if fault:
        names = ", ".join("{video_key}" if n == "video_key" else f"{{{n}:03d}}" for n in sorted(fields))
        raise SourceError(
            f"{_shown(template)} is not a path template: it {fault}",
            expected=f"a path inside the dataset with {names}",
            where=what,
        )
    return text


def template_fields(template: str) -> frozenset[str]:
    """Return the names in braces of a template."""
    return frozenset(match["name"] for match in _FIELD.finditer(template))


def template_pattern(template: str) -> re.Pattern[str]:
    """Return the pattern of a template's paths; the camera is the group ``video_key``.

    Args:
        template: a template accepted by :func:`check_template`.
    """
    parts, end, named = [], 0, False
    for match in _FIELD.finditer(template):
        parts.append(re.escape(template[end : match.start()]))
        end = match.end()
        if match["name"] != "video_key":
            parts.append(r"\d+" if match["width"] else "[^/]+")
        else:
            parts.append("(?P=video_key)" if named else "(?P<video_key>[^/]+)")
            named = True
    return re.compile("".join(parts) + re.escape(template[end:]))


def check_tree(
    root: Path, *, follow_links: bool = False, advice: str | None = None, files: bool = False
) -> None:
    """Refuse a dataset that contains a link that leads out of it, a pipe, a device or a socket.

    After this check, paths inside the dataset lead only to files of the dataset.

    Args:
        root: the dataset's folder.
        follow_links: accept symbolic links that lead out of it.
        advice: what to do about such a link, for the error; None: suggest to follow links.
        files: also refuse files that this user may not read; of folders, this is always checked.

    Raises:
        SourceError: the first such entry, by name.
    """
    for _, fault in tree_faults(root, follow_links=follow_links, advice=advice, files=files):
        raise fault


def tree_faults(
    root: Path, *, follow_links: bool = False, advice: str | None = None, files: bool = False
) -> Iterator[tuple[Path, SourceError]]:
    """Yield what :func:`check_tree` refuses: path and error.

    Hidden files and folders directly in ``root`` (``.git``, ``.cache``) and the ``lost+found`` of a disk are
    skipped: they are not part of a dataset. Folders behind links are searched too.

    Raises:
        SourceError: a folder cannot be read, so that nobody knows what it contains; with ``files``, a file.
    """
    if advice is None:
        advice = f"{COPY}, or pass {argument('follow_links', True)} if you trust the author of the link"
    allowed = tuple(_allowed(_real(root)))
    pending, seen = [root], set()
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if folder == root and not isinstance(error, PermissionError):
                return  # it does not exist, or is a file
            raise _unreadable(folder, error.strerror) from None
        for entry in entries:
            if folder == root and (entry.name.startswith(".") or entry.name == "lost+found"):
                continue
            path = Path(entry.path)
            if entry.is_file(follow_symlinks=False):
                if files and not os.access(path, os.R_OK):
                    raise _unreadable(path, os.strerror(errno.EACCES))
                continue
            linked, readable = entry.is_symlink(), True
            try:
                if linked and not follow_links:
                    _check_within(root, allowed, path, advice=advice)
                status = path.stat()
                if not stat.S_ISDIR(status.st_mode):
                    _check_kind(path, status.st_mode)
                    readable = not files or os.access(path, os.R_OK)
                elif not linked or (status.st_dev, status.st_ino) not in seen:
                    pending.append(path)
                    seen.add((status.st_dev, status.st_ino))
            except SourceError as error:
                yield path, error
            except OSError:
                continue  # a dangling link: opening it gives an error later
            if not readable:
                raise _unreadable(path, os.strerror(errno.EACCES))


def _unreadable(path: Path, reason: str | None) -> SourceError:
    return SourceError(f"{path}: cannot be read: {reason}; make it readable for this user")


def plain_tree(folder: Path) -> Path:
    """Return a folder that contains only regular files and folders at any depth, or a regular file.

    Raises:
        SourceError: it is or contains a symbolic link, a named pipe, a device or a socket.
        OSError: it cannot be read.
    """
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise SourceError(
                f"is a link, to {_shown(os.readlink(path))}",  # noqa: PTH115
                expected="a real file or folder",
                where=_shown(path),
                fix="delete it, or replace it with its target",
            )
        if stat.S_ISDIR(mode):
            with os.scandir(path) as entries:
                waiting += [
                    path / entry.name for entry in entries if not entry.is_file(follow_symlinks=False)
                ]
        else:
            _check_kind(path, mode)
    return folder


def regular(path: Path) -> Path:
    """Return the path of a file after checking that it is regular: opening it does not block, and it ends.

    Raises:
        SourceError: it is a folder, a named pipe, a device or a socket.
        OSError: it does not exist or is not accessible.
    """
    _check_kind(path, path.stat().st_mode)
    return path


def open_regular(path: Path, limit: int | None = None) -> BinaryIO:
    """Open a regular file for reading in binary mode.

    Args:
        path: the file. Links are followed.
        limit: greatest size in bytes; None: any size.

    Raises:
        SourceError: not a regular file, or larger than ``limit``.
        OSError: it cannot be opened.
    """
    # without O_NONBLOCK, opening a named pipe blocks until another process opens it for writing
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(descriptor)
        _check_kind(path, status.st_mode)
        if limit is not None and status.st_size > limit:
            raise SourceError(
                f"{status.st_size:,} bytes",
                expected=f"at most {limit:,} in a file of this kind",
                where=_shown(path),
            )
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """Return the contents of a regular file; arguments and errors as for :func:`open_regular`."""
    with open_regular(path, limit) as file:
        data = file.read() if limit is None else file.read(limit + 1)
    if limit is not None and len(data) > limit:  # it has grown, or its size is unknown, as in /proc
        raise SourceError(
            f"more than {limit:,} bytes",
            expected=f"at most {limit:,} in a file of this kind",
            where=_shown(path),
        )
    return data


def read_text(path: Path, limit: int = TEXT_LIMIT) -> str:
    """Return the text of a regular UTF-8 file.

    Raises:
        SourceError: not a regular file, larger than ``limit`` bytes, or not UTF-8.
        OSError: it cannot be opened.
    """
    data = read_bytes(path, limit)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(
            f"byte {error.start} is not UTF-8 text", expected="a text file", where=_shown(path)
        ) from None


class LineError(SourceError):
    """A line of a file that cannot be read.

    Attributes:
        line: number of the line, from 1.
    """

    def __init__(self, what: str, path: Path, line: int, *, fix: str = "") -> None:
        super().__init__(what, where=f"{_shown(path)}: line {line}", fix=fix)
        self.line = line


def read_lines(path: Path, limit: int = LINE_LIMIT) -> Iterator[bytes]:
    """Yield the lines of a regular file, with their line ends.

    Raises:
        LineError: a line is longer than ``limit`` bytes.
        SourceError: not a regular file.
        OSError: it cannot be opened.
    """
    with open_regular(path) as file:
        number = 0
        while line := file.readline(limit + 1):
            number += 1
            if len(line) > limit:
                raise LineError(f"is longer than {limit:,} bytes", path, number)
            yield line


def _fault(name: object) -> str | None:
    if not isinstance(name, str):
        return "is not a text"
    if not name:
        return "is empty"
    if not name.isprintable():
        return "has characters that cannot be printed"
    if "\\" in name:
        return "has a backslash"
    if name.startswith("/"):
        return "is an absolute path"
    parts = name.split("/")
    if len(parts[0]) > 1 and parts[0][1] == ":":
        return "begins with a drive letter"
    if ".." in parts:
        return "points outside its folder with '..'"
    if "" in parts or "." in parts:
        return "has an empty part, or one that is only dots"
    if any(len(part.encode("utf-8")) > _NAME_LIMIT for part in parts):
        return f"has a part longer than {_NAME_LIMIT} bytes"
    return None


def _has_wrong_width(field: re.Match[str]) -> bool:
    return field["name"] == "video_key" and field["width"] is not None


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # RuntimeError before Python 3.13
        raise SourceError("a link to itself", expected="a file or a folder", where=_shown(path)) from None


def _allowed(root: Path) -> Iterator[Path]:
    """Yield the folder itself and, if it is a snapshot in a Hub cache, the blobs of that cache."""
    yield root
    for folder in (root, *root.parents):
        if folder.parent.name == "snapshots":
            blobs = folder.parent.parent / "blobs"
            if blobs.is_dir() and not blobs.is_symlink():
                yield blobs


def _check_kind(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((text for check, text in _KINDS if check(mode)), "not a regular file")
    raise SourceError(f"is {kind}", expected="a regular file", where=_shown(path))


def _shown(name: object) -> str:
    """Return a path for an error, in one line: unchanged if it can be printed, otherwise as its repr."""
    text = str(name) if isinstance(name, Path) and str(name).isprintable() else repr(name)
    return text if len(text) <= 300 else f"{text[:200]} ... ({len(text)} characters)"
