"""Tasks are done on this machine, several at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ffenc.dataset.piece import Surroundings
from ffenc.errors import DestinationError, FfencError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.jobs.pool import run_units

if TYPE_CHECKING:
    from typing_extensions import Self


class Task(Protocol):
    """Work that can be done anywhere, with the same result: plain data that can be pickled."""

    @property
    def name(self) -> str:
        """What an error calls it."""

    @property
    def programs(self) -> Toolchain:
        """The programs that do it."""

    @property
    def threads(self) -> int:
        """How many cores it keeps busy."""

    @property
    def device(self) -> str | None:
        """The encoder, where a device does the work."""

    @property
    def counted(self) -> int:
        """How many frames of the job are done with it."""

    def using(self, programs: Toolchain) -> Self:
        """Return the task for a machine where the same programs are elsewhere."""

    def run(self, around: Surroundings) -> Any:
        """Do it; returns plain data."""


AnyTask = TypeVar("AnyTask", bound=Task)

Failures = list[tuple[Any, FfencError]]
"""Tasks that could not be done, and why."""


class Progress(Protocol):
    """Counts the frames of tasks that are done at the same time."""

    def part(self, frames: int) -> AbstractContextManager[Callable[[int], None]]:
        """Give what takes the count of one task; all its frames are done when the block ends."""


class Runner(Protocol):
    """Does tasks. It knows nothing of what is in them."""

    def run(
        self,
        tasks: Iterable[AnyTask],
        *,
        progress: Progress,
        cancellation: Cancellation,
        failures: Failures | None = None,
    ) -> Iterator[tuple[AnyTask, Any]]:
        """Yield each task with its result, as they are done.

        Args:
            tasks: taken one by one as there is room.
            progress: given the frames that are done.
            cancellation: ends the work in progress; cancelled where a task fails.
            failures: takes the tasks that fail, with their errors, and the others go on; None: the first
                error is raised.

        Raises:
            FfencError: the first that a task raised, after all work has ended.
        """


class Executor(Protocol):
    """Where tasks are done."""

    def open(self, workers: int) -> AbstractContextManager[Runner]:
        """Give what does the tasks of one job.

        Args:
            workers: encoders that run at once on this machine.
        """


class LocalExecutor:
    """Threads of this process, each with an encoder."""

    def open(self, workers: int) -> AbstractContextManager[Runner]:
        """See :class:`Executor`."""
        return nullcontext(_Threads(workers))


class _Threads:
    def __init__(self, workers: int) -> None:
        self._workers = workers

    def run(
        self,
        tasks: Iterable[AnyTask],
        *,
        progress: Progress,
        cancellation: Cancellation,
        failures: Failures | None = None,
    ) -> Iterator[tuple[AnyTask, Any]]:
        """See :class:`Runner`."""
        # An encode holds a slot while its process runs; the thread goes on to verify without one, so that
        # the next encode starts meanwhile.
        around = Surroundings(progress.part, threading.Semaphore(self._workers), cancellation)

        def work(task: AnyTask) -> Any:
            try:
                return task.run(around)
            except DestinationError:
                raise  # a full disk fails every task, not this one alone
            except FfencError as error:
                if failures is None or cancellation.cancelled:
                    raise
                return error

        for task, done in run_units(tasks, work, threads=self._workers + 1, stop=cancellation.cancel):
            if isinstance(done, FfencError):
                assert failures is not None
                failures.append((task, done))
            else:
                yield task, done
