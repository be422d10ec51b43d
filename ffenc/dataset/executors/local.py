"""Execution of tasks on this machine, several at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ffenc.dataset.job.piece import Surroundings
from ffenc.errors import DestinationError, FfencError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.parallel.pool import run_units

if TYPE_CHECKING:
    from typing_extensions import Self


class Task(Protocol):
    """Work with the same result on any machine: plain data that can be pickled."""

    @property
    def name(self) -> str:
        """Name of the task in errors."""

    @property
    def programs(self) -> Toolchain:
        """The programs that it runs."""

    @property
    def threads(self) -> int:
        """Number of cores that it keeps busy."""

    @property
    def device(self) -> str | None:
        """Name of the encoder if it uses a device; otherwise None."""

    @property
    def counted(self) -> int:
        """Number of the job's frames that it completes."""

    def using(self, programs: Toolchain) -> Self:
        """Return the task for a machine with the same programs at other paths."""

    def run(self, around: Surroundings) -> Any:
        """Run the task; return plain data."""


AnyTask = TypeVar("AnyTask", bound=Task)

Failures = list[tuple[Any, FfencError]]
"""Failed tasks with their errors."""


class Progress(Protocol):
    """Counts the frames of concurrent tasks."""

    def part(self, frames: int) -> AbstractContextManager[Callable[[int], None]]:
        """Yield a callback for the frames of one task; all its frames count as done when the block ends."""


class Runner(Protocol):
    """Runs tasks, whatever they do."""

    def run(
        self,
        tasks: Iterable[AnyTask],
        *,
        progress: Progress,
        cancellation: Cancellation,
        failures: Failures | None = None,
    ) -> Iterator[tuple[AnyTask, Any]]:
        """Yield each task with its result, in the order of completion.

        Args:
            tasks: taken one by one as there is room.
            progress: informed of completed frames.
            cancellation: stops running tasks; cancelled if a task fails.
            failures: collects failed tasks with their errors, and the others continue; None: the first error
                is raised.

        Raises:
            FfencError: the first error of a task, after all running tasks have ended.
        """


class Executor(Protocol):
    """A place where tasks run."""

    def open(self, workers: int, uses: Sequence[Path] = ()) -> AbstractContextManager[Runner]:
        """Yield the runner for the tasks of a job.

        Args:
            workers: number of encoders at once on this machine.
            uses: files and folders that its tasks use, wherever they run.
        """


class LocalExecutor:
    """Runs tasks in threads of this process, each with an encoder."""

    def open(self, workers: int, uses: Sequence[Path] = ()) -> AbstractContextManager[Runner]:
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
        # An encode holds a slot only while its process runs; verification does not, so that the next encode
        # can start.
        around = Surroundings(progress.part, threading.Semaphore(self._workers), cancellation)

        def work(task: AnyTask) -> Any:
            try:
                return task.run(around)
            except DestinationError:
                raise  # with a full disk, all tasks would fail
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
