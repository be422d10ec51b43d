"""Execution of tasks with Ray, on this machine or on a cluster whose machines share a file system."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic, get_args

import psutil
from msgspec import Struct

from ffenc.codecs.suggest import accepted
from ffenc.dataset.executors.local import AnyTask, Failures, Progress, Runner, Task
from ffenc.dataset.executors.ray_nodes import RETRIES, Places, SameProgram
from ffenc.dataset.executors.ray_task import Answer, Around
from ffenc.errors import (
    ConfigError,
    DestinationError,
    FfencError,
    FfencWarning,
    FfmpegError,
    ToolchainError,
)
from ffenc.ffmpeg.launch import Cancellation
from ffenc.spelling import argument, current
from ffenc.storage.mirror import mirror_of, open_copies

_LOCAL = "ray"  # a new Ray instance on this machine
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Try(Struct, Generic[AnyTask]):
    """A running task, and how often it had to be restarted on another machine."""

    task: AnyTask
    lost: int = 0


class RayExecutor:
    """Runs each episode of a camera, and each file, as a Ray task with as many CPUs as it has threads.

    All machines must have the folders of the source and of the destination under the same paths, as on a
    shared file system. Before the first task, the FFmpeg of every machine is checked: other versions would
    give other bytes.

    Args:
        address: ``ray``: a new Ray instance on this machine, which ends with the job; ``auto``: the cluster
            that ``RAY_ADDRESS`` names, or that runs on this machine; otherwise an address, such as
            ``ray://head:10001``.
        same_program: ``prefer``: machines with another FFmpeg get no tasks; ``require``: such a machine is an
            error.
        runtime_env: packages and variables that Ray installs and sets on each machine for this job, such as
            ``{"pip": ["ffenc[ffmpeg]"]}``; None: what is installed there.

    Raises:
        ConfigError: Ray is not installed, or an argument is unknown; when it runs, a ``runtime_env`` for a
            Ray that this process is already connected to.
    """

    def __init__(
        self,
        address: str = _LOCAL,
        *,
        same_program: SameProgram = "prefer",
        runtime_env: Mapping[str, Any] | None = None,
    ) -> None:
        if same_program not in (choices := get_args(SameProgram)):
            raise ConfigError(
                f"same_program={same_program!r} is not accepted{accepted(same_program, choices)}"
            )
        self._address, self._same, self._environment = address, same_program, runtime_env
        self._ray = _import_ray()

    @contextmanager
    def open(self, workers: int, uses: Sequence[Path] = ()) -> Iterator[Runner]:
        """See :class:`~ffenc.dataset.executors.local.Executor`; Ray is connected at the first task."""
        local = [path.absolute() for path in uses if mirror_of(path) is None]
        with ExitStack() as closing:
            connect = partial(self._connected, workers)
            yield _Session(self._ray, lambda: closing.enter_context(connect()), self._same, local)

    @contextmanager
    def _connected(self, workers: int) -> Iterator[None]:
        """Connect to Ray, and shut down what this call has started at the end."""
        began = self._connect(workers)
        try:
            yield
        except BaseException:
            if began and self._address == _LOCAL:
                _end_processes()
            raise
        finally:
            if began:
                self._ray.shutdown()

    def _connect(self, workers: int) -> bool:
        """Connect to Ray; return whether it has to be shut down again."""
        ray = self._ray
        if ray.is_initialized():
            if self._environment is not None:
                raise ConfigError(
                    "runtime_env would have no effect: this process is connected to Ray already; give it "
                    "to ray.init"
                )
            return False
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if self._environment is not None:
            options["runtime_env"] = dict(self._environment)
        try:
            with _own_signals():
                if self._address == _LOCAL:
                    # The address is given because RAY_ADDRESS may name a cluster.
                    ray.init(address="local", num_cpus=workers, include_dashboard=False, **options)
                else:
                    ray.init(address=self._address, **options)
        except Exception as error:  # Ray raises a plain exception if it does not start
            raise ConfigError(
                f"{argument('address', self._address)}: no Ray cluster can be reached there: "
                f"{_first_line(error)}"
            ) from None
        return True


class _Session:
    """Runs the tasks of a job.

    Args:
        ray: the library.
        connect: connects to it.
        same: how machines with another FFmpeg are treated.
        uses: files and folders that tasks use.
    """

    def __init__(
        self, ray: Any, connect: Callable[[], object], same: SameProgram, uses: Sequence[Path]
    ) -> None:
        self._ray, self._connect, self._same, self._uses = ray, connect, same, uses
        self._around: Any = None
        self._places: Places | None = None

    def run(
        self,
        tasks: Iterable[AnyTask],
        *,
        progress: Progress,
        cancellation: Cancellation,
        failures: Failures | None = None,
    ) -> Iterator[tuple[AnyTask, Any]]:
        """See :class:`~ffenc.dataset.executors.local.Runner`."""
        ray = self._ray
        running: dict[Any, _Try[AnyTask]] = {}
        waiting = iter(tasks)
        task = next(waiting, None)
        if task is None:
            return
        places = self._ready()
        try:
            while True:
                while task is not None and len(running) < places.room(task.programs):
                    running[places.start(task, self._around)] = _Try(task)
                    task = next(waiting, None)
                if not running:
                    return
                done, _ = ray.wait(list(running), num_returns=1, timeout=0.5)
                cancellation.check()
                if done:  # collect all that have ended in the meantime
                    done, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
                for reference in done:
                    own = running.pop(reference)
                    places.ended(reference)
                    answer = self._answer(reference, own)
                    if answer is None:
                        places.forget()
                        running[places.start(own.task, self._around)] = own
                        continue
                    for text in answer.warnings:
                        warnings.warn(text, FfencWarning, stacklevel=2)
                    if isinstance(answer.error, FfencError):
                        if failures is None or isinstance(answer.error, DestinationError):
                            raise answer.error
                        failures.append((own.task, answer.error))
                        continue
                    if answer.error is not None:
                        raise answer.error
                    with progress.part(own.task.counted):
                        yield own.task, answer.result
        except BaseException:
            cancellation.cancel()
            for reference in running:
                ray.cancel(reference, force=False, recursive=True)
            raise

    def _ready(self) -> Places:
        if self._places is None:
            self._connect()
            self._around = self._ray.put(Around(open_copies(), current(), Path.cwd()))
            self._places = Places(self._ray, self._same, self._uses)
        return self._places

    def _answer(self, reference: Any, own: _Try[AnyTask]) -> Answer | None:
        """Return the result of a task; None: it has to be started again, on another machine.

        Raises:
            ToolchainError: Ray could not run it.
        """
        ray = self._ray
        try:
            answer: Answer = ray.get(reference)
        except ray.exceptions.TaskUnschedulableError as error:  # the selected machine was lost
            answer = Answer(unsuited=_first_line(error))
        except ray.exceptions.RayError as error:
            answer = Answer(error=_not_run(own.task, _first_line(error)))
        # On a machine that is being lost, FFmpeg can be killed before the process that reports it.
        unable = isinstance(answer.error, FfmpegError) and answer.error.unable
        if answer.unsuited is None and not unable:
            return answer
        own.lost += 1
        if own.lost <= RETRIES:
            return None
        return answer if answer.unsuited is None else Answer(error=_not_run(own.task, answer.unsuited))


def _not_run(task: Task, why: str) -> ToolchainError:
    return ToolchainError(
        f"{task.name}: Ray could not run it: {why}. Finished work is kept: continue with "
        f"{argument('resume', True)}"
    )


@contextmanager
def _own_signals() -> Iterator[None]:
    """Restore this process's signal handlers: Ray installs its own, which print a stack trace."""
    kept = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in kept.items():
                if handler is not None:
                    signal.signal(number, handler)


def _end_processes() -> None:
    """End the Ray processes of this process: their own shutdown takes longer than a signal allows."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended in the meantime
            process.kill()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # noqa: PLC0415 - an optional dependency, and slow to import
    except ImportError:
        raise ConfigError("Ray is not installed: pip install 'ffenc[ray]'") from None
    return ray
