"""Frames as PNG files and numpy arrays, which appear when all of them are complete."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.dataset.staging import check_destination
from ffenc.errors import DestinationError
from ffenc.ffmpeg.machine import cores
from ffenc.frames.pictures import DepthPicture, save_png
from ffenc.frames.publish import check_file, claimed, hidden_path, name_result, published
from ffenc.spelling import argument

_OWN_FILE = re.compile(r"frame-\d{6,}\.png|episode_\d{6,}\.npy")


def check_free(target: Path, *, single: bool, overwrite: bool) -> None:
    if single:
        check_file(target, overwrite=overwrite)
        return
    if overwrite and target.is_dir() and not target.is_symlink():
        foreign = next(
            (p for p in target.rglob("*") if not p.is_dir() and not _OWN_FILE.fullmatch(p.name)), None
        )
        if foreign is not None:
            raise DestinationError(
                f"{target} holds {foreign.relative_to(target)}, which was not written by ffenc "
                "decode and is not overwritten; choose another name"
            )
        return
    try:
        check_destination(target)
    except DestinationError as error:
        how = (
            f"; or pass {argument('overwrite', True)}" if target.is_dir() and not target.is_symlink() else ""
        )
        raise DestinationError(f"{error}{how}") from None


@contextlib.contextmanager
def published_frames(destination: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a hidden path beside the destination to write to, and rename it when the block succeeds."""
    target = Path(os.path.abspath(destination))  # noqa: PTH100 - keeps symbolic links
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with claimed(target):
            check_free(target, single=target.suffix.lower() == ".npy", overwrite=overwrite)
            if target.suffix.lower() == ".npy":
                with published(target) as temporary:
                    yield temporary
                    check_free(target, single=True, overwrite=overwrite)
            else:
                with _published_folder(target, overwrite=overwrite) as temporary:
                    yield temporary
    except BaseException:
        for parent in made:
            with contextlib.suppress(OSError):  # folders that are not empty are kept
                parent.rmdir()
        raise


@contextlib.contextmanager
def _published_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    temporary, old = hidden_path(target, "partial"), hidden_path(target, "old")
    try:
        temporary.mkdir()
        yield temporary
        check_free(target, single=False, overwrite=overwrite)
        if target.is_dir():
            target.replace(old)
        try:
            temporary.replace(target)
        except BaseException:
            if old.exists():
                old.replace(target)
            raise
    except OSError as error:
        name_result(error, temporary, target)
        raise
    finally:
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)


def save_array(path: Path, frames: Iterator[npt.NDArray[Any]], count: int) -> None:
    """Write ``(N, ...)`` to one ``.npy`` file, a frame at a time."""
    with path.open("wb") as file:
        for number, frame in enumerate(frames):
            if number == 0:
                header = {
                    "descr": np.lib.format.dtype_to_descr(frame.dtype),
                    "fortran_order": False,
                    "shape": (count, *frame.shape),
                }
                np.lib.format.write_array_header_1_0(file, header)
            file.write(frame.data)


class PngWriter:
    """Compresses PNG files in one thread per core, with few frames in memory."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(cores(), thread_name_prefix="ffenc-png")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> PngWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def save(self, path: Path, frame: npt.NDArray[Any], picture: DepthPicture | None) -> None:
        while len(self._waiting) > 2 * cores():
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(_draw_and_save, path, frame, picture))

    def wait(self) -> None:
        while self._waiting:
            self._waiting.popleft().result()


def _draw_and_save(path: Path, frame: npt.NDArray[Any], picture: DepthPicture | None) -> None:
    save_png(path, frame if picture is None else picture.draw(frame))
