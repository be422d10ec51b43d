"""A task in a Ray worker, with the programs of its machine."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ffenc.dataset.executors.local import Task
from ffenc.dataset.job.piece import Surroundings
from ffenc.errors import FfencError, FfencWarning
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.spelling import Spelling, spelled
from ffenc.storage.mirror import MirrorOf, attach


class Around(Struct, frozen=True):
    """The common parts of a job's tasks, sent to each machine once: plain data.

    Attributes:
        copies: open remote datasets; each machine fetches the parts that it reads.
        spelling: how messages name arguments.
        folder: folder that relative paths begin in. Ray's workers begin in the one that Ray was started in.
    """

    copies: Sequence[MirrorOf]
    spelling: Spelling
    folder: Path


class Answer(Struct, frozen=True):
    """The outcome of a task.

    Attributes:
        result: result of the task.
        error: why it failed.
        warnings: its warnings.
        unsuited: why it cannot run on this machine.
    """

    result: Any = None
    error: FfencError | OSError | None = None
    warnings: tuple[str, ...] = ()
    unsuited: str | None = None


def same_programs(wanted: Toolchain) -> tuple[Toolchain | None, list[str]]:
    """Return this machine's programs of the required version, and the versions that were found."""
    found: list[Toolchain] = []
    for named in ((wanted.ffmpeg, wanted.ffprobe), (None, None)):
        try:
            found += toolchains(*named)
        except FfencError:
            continue  # not at this path here
    same = next((one for one in found if one.version == wanted.version), None)
    return same, list(dict.fromkeys(one.version for one in found))


def look_around(wanted: Toolchain, uses: Sequence[Path]) -> tuple[Toolchain | None, list[str], Path | None]:
    """Return the results of :func:`same_programs`, and the first path that it cannot read."""
    return *same_programs(wanted), next((path for path in uses if not os.access(path, os.R_OK)), None)


def run_task(task: Task, around: Around) -> Answer:
    """Run a task on this machine; errors are returned, so that Ray does not retry."""
    with spelled(around.spelling), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FfencWarning)
        answer = _done(task, around)
    said = dict.fromkeys(str(one.message) for one in caught if isinstance(one.message, FfencWarning))
    return replace(answer, warnings=tuple(said))


def _done(task: Task, around: Around) -> Answer:
    try:
        with suppress(OSError):  # not on this machine, so no path of the job is relative to it
            os.chdir(around.folder)
        attach(around.copies)
        programs, found = same_programs(task.programs)
        if programs is None:
            return Answer(
                unsuited=f"{socket.gethostname()} has FFmpeg {', '.join(found) or 'not at all'}, and "
                f"{task.programs.version} is wanted"
            )
        return Answer(task.using(programs).run(Surroundings()))
    except FfencError as error:
        return Answer(error=error)
    except OSError as error:
        file = f": {error.filename}" if error.filename else ""
        where = f"{error.strerror or error}{file} (on {socket.gethostname()})"
        return Answer(error=OSError(error.errno, where))
