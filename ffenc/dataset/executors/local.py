"""Pieces are made on this machine, several at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from ffenc.dataset.piece import PieceRecord, PieceTask, Surroundings, run_piece
from ffenc.errors import DestinationError, FfencError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.jobs.pool import run_units

Failures = list[tuple[PieceTask, FfencError]]
"""Tasks that could not be done, and why."""


class Progress(Protocol):
    """Counts the frames of pieces that are made at the same time."""

    def part(self, frames: int) -> AbstractContextManager[Callable[[int], None]]:
        """Give what takes the count of one piece; all its frames are done when the block ends."""


class Executor(Protocol):
    """Makes pieces. It knows nothing of what is in them."""

    def run(
        self,
        tasks: Iterable[PieceTask],
        *,
        workers: int,
        progress: Progress,
        cancellation: Cancellation,
        failures: Failures | None = None,
    ) -> Iterator[tuple[PieceTask, PieceRecord]]:
        """Yield each task with its record, as they are done.

        Args:
            tasks: taken one by one as there is room.
            workers: encoders that run at once on this machine.
            progress: told the frames.
            cancellation: ends the work in progress; cancelled where a task fails.
            failures: takes the tasks that fail, with their errors, and the others go on; None: the first
                error is raised.

        Raises:
            FfencError: the first that a task raised, after all work has ended.
        """


class LocalExecutor:
    """Threads of this process, each with an encoder."""

    def run(
        self,
        tasks: Iterable[PieceTask],
        *,
        workers: int,
        progress: Progress,
        cancellation: Cancellation,
        failures: Failures | None = None,
    ) -> Iterator[tuple[PieceTask, PieceRecord]]:
        """See :class:`Executor`."""
        # An encode holds a slot while its process runs; the thread goes on to verify without one, so that
        # the next encode starts meanwhile.
        around = Surroundings(progress.part, threading.Semaphore(workers), cancellation)

        def work(task: PieceTask) -> PieceRecord | FfencError:
            try:
                return run_piece(task, around)
            except DestinationError:
                raise  # a full disk fails every task, not this one alone
            except FfencError as error:
                if failures is None or cancellation.cancelled:
                    raise
                return error

        for task, done in run_units(tasks, work, threads=workers + 1, stop=cancellation.cancel):
            if isinstance(done, FfencError):
                assert failures is not None
                failures.append((task, done))
            else:
                yield task, done
