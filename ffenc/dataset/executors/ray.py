"""Tasks are done by Ray, on this machine or on a cluster whose machines share a file system."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, get_args

import psutil

from ffenc.codecs.suggest import accepted
from ffenc.dataset.executors.local import AnyTask, Failures, Progress, Runner, Task
from ffenc.dataset.piece import Surroundings
from ffenc.errors import ConfigError, DestinationError, FfencError, FfencWarning, ToolchainError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.spelling import argument
from ffenc.storage.mirror import MirrorOf, attach, open_copies

SameProgram = Literal["prefer", "require"]

_LOCAL = "ray"  # a Ray of its own on this machine
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GPU_SHARE = 0.25  # of a GPU that an encode takes: its encoder works on several at once
_AHEAD = 2  # tasks that wait for each core, so that none is idle
_RETRIES = 3  # of a task whose worker or machine was lost; errors in the data are not tried again


@dataclass(frozen=True)
class _Node:
    """A machine of the cluster.

    Attributes:
        cores: that Ray has there.
        devices: names of all resources that it declares.
    """

    id: str
    cores: int
    devices: frozenset[str]


@dataclass(frozen=True)
class _Group:
    """The machines that have the programs of one version; whether these are all that there are."""

    nodes: list[_Node]
    all: bool

    @property
    def devices(self) -> set[str]:
        """The resources that one of them declares."""
        return {name for node in self.nodes for name in node.devices}


@dataclass
class _Try(Generic[AnyTask]):
    """A task in work; how many times it had to be started on another machine."""

    task: AnyTask
    lost: int = 0


@dataclass(frozen=True)
class _Answer:
    """What came of a task.

    Attributes:
        result: of a task that was done.
        error: why it was not.
        warnings: what was warned of.
        unsuited: why it cannot be done on this machine.
    """

    result: Any = None
    error: FfencError | OSError | None = None
    warnings: tuple[str, ...] = ()
    unsuited: str | None = None


class RayExecutor:
    """Makes each episode of a camera, and each file, in a Ray task with as many CPUs as it has threads.

    All machines have to see the folders of the source and of the destination under the same paths, as on a
    file system that they share. Before the first task, every machine says which FFmpeg it has: one whose
    version is another would give other bytes.

    Args:
        address: ``ray``: a Ray of its own on this machine, which ends with the job; ``auto``: the cluster
            that ``RAY_ADDRESS`` names, or that runs here; else its address, such as ``ray://head:10001``.
        same_program: ``prefer``: machines with another FFmpeg get no tasks; ``require``: they end the job.
        runtime_env: what Ray has each machine install and set for this job, such as
            ``{"pip": ["ffenc[ffmpeg]"]}``; None: what is there already.

    Raises:
        ConfigError: Ray is not installed, or an argument that is not known; when it runs, a ``runtime_env``
            for a Ray that this process is connected to already.
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
    def open(self, workers: int) -> Iterator[Runner]:
        """See :class:`~ffenc.dataset.executors.local.Executor`; Ray is connected to for the first task."""
        with ExitStack() as closing:
            yield _Session(self._ray, lambda: closing.enter_context(self._connected(workers)), self._same)

    @contextmanager
    def _connected(self, workers: int) -> Iterator[None]:
        """Be connected to Ray; what this call has begun is ended."""
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
        """Connect to Ray; returns whether it has to be shut down again."""
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
                    # Named, since RAY_ADDRESS may name a cluster.
                    ray.init(address="local", num_cpus=workers, include_dashboard=False, **options)
                else:
                    ray.init(address=self._address, **options)
        except Exception as error:  # of a Ray that does not start, a plain one
            raise ConfigError(
                f"{argument('address', self._address)}: no Ray cluster can be reached there: "
                f"{_first_line(error)}"
            ) from None
        return True


class _Session:
    """Does the tasks of one job.

    Args:
        ray: the library.
        connect: connects to it.
        same: what becomes of machines with another FFmpeg.
    """

    def __init__(self, ray: Any, connect: Callable[[], object], same: SameProgram) -> None:
        self._ray, self._connect, self._same = ray, connect, same
        self._copies: Any = None
        self._places: _Places | None = None

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
                    running[places.start(task, self._copies)] = _Try(task)
                    task = next(waiting, None)
                if not running:
                    return
                done, _ = ray.wait(list(running), num_returns=1, timeout=0.5)
                cancellation.check()
                if done:  # and all that have ended meanwhile
                    done, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
                for reference in done:
                    own = running.pop(reference)
                    places.ended(reference)
                    answer = self._answer(reference, own)
                    if answer is None:
                        places.forget()
                        running[places.start(own.task, self._copies)] = own
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

    def _ready(self) -> _Places:
        if self._places is None:
            self._connect()
            self._copies = self._ray.put(open_copies())  # what is remote each machine fetches by itself
            self._places = _Places(self._ray, self._same)
        return self._places

    def _answer(self, reference: Any, own: _Try[AnyTask]) -> _Answer | None:
        """What came of a task; None: it has to be started again, on another machine.

        Raises:
            ToolchainError: Ray could not run it.
        """
        ray = self._ray
        try:
            answer: _Answer = ray.get(reference)
        except ray.exceptions.TaskUnschedulableError as error:  # the machine that was chosen for it is lost
            answer = _Answer(unsuited=_first_line(error))
        except ray.exceptions.RayError as error:
            answer = _Answer(error=_not_run(own.task, _first_line(error)))
        if answer.unsuited is None:
            return answer
        own.lost += 1
        return None if own.lost <= _RETRIES else _Answer(error=_not_run(own.task, answer.unsuited))


def _not_run(task: Task, why: str) -> ToolchainError:
    return ToolchainError(
        f"{task.name}: Ray could not run it: {why}. What is finished is kept: go on with "
        f"{argument('resume', True)}"
    )


class _Places:
    """Which machine does the next task: any, or where not all have its programs, the one with most room."""

    def __init__(self, ray: Any, same: SameProgram) -> None:
        self._ray, self._same = ray, same
        self._remote = ray.remote(_run)
        self._groups: dict[str, _Group] = {}
        self._held: dict[Any, str] = {}
        self._load: Counter[str] = Counter()

    def room(self, programs: Toolchain) -> int:
        """How many tasks run or wait at once."""
        return _AHEAD * sum(node.cores for node in self._group(programs).nodes)

    def start(self, task: Task, copies: Any) -> Any:
        """Have a task done; returns Ray's reference of it."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

        group = self._group(task.programs)
        options: dict[str, Any] = {"max_retries": _RETRIES, "name": task.name}
        options["num_cpus"] = min(task.threads, max(node.cores for node in group.nodes))
        if task.device is not None:
            options |= hardware_options(task.device, group.devices)
        chosen = None
        if not group.all:
            needed = options.get("resources", {}).keys() | ({"GPU"} if "num_gpus" in options else set())
            able = [node for node in group.nodes if needed <= node.devices]
            chosen = min(able, key=lambda node: self._load[node.id] / node.cores)
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(chosen.id, soft=False)
            self._load[chosen.id] += 1
        reference = self._remote.options(**options).remote(task, copies)
        if chosen is not None:
            self._held[reference] = chosen.id
        return reference

    def ended(self, reference: Any) -> None:
        """A task has ended."""
        if (node := self._held.pop(reference, None)) is not None:
            self._load[node] -= 1

    def forget(self) -> None:
        """The machines are others: the next task has them asked again."""
        self._groups.clear()

    def _group(self, wanted: Toolchain) -> _Group:
        if wanted.version not in self._groups:
            self._groups[wanted.version] = self._ask(wanted)
        return self._groups[wanted.version]

    def _ask(self, wanted: Toolchain) -> _Group:
        """Ask every machine which programs it has; returns those that have what is wanted.

        Raises:
            ToolchainError: none has, or not all and all have to.
        """
        ray = self._ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

        alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        ask = ray.remote(_programs)
        answers = [
            ask.options(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(wanted)
            for node in alive
        ]
        good, others = [], []
        for node, answer in zip(alive, answers, strict=True):
            name = node["NodeManagerHostname"]
            try:
                programs, found = ray.get(answer)
            except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
                continue  # it was lost meanwhile
            except ray.exceptions.RayError as error:
                raise ToolchainError(
                    f"{name}: Ray could not run anything there: {_last_line(error)}"
                ) from None
            if programs is None:
                others.append(f"  {name}: {', '.join(found) or 'no FFmpeg'}")
                continue
            resources = node["Resources"]
            good.append(_Node(node["NodeID"], int(resources["CPU"]), frozenset(resources)))
        listed = "\n".join(others)
        if not good:
            raise ToolchainError(f"no machine of the cluster has FFmpeg {wanted.version}:\n{listed}")
        if others and self._same == "require":
            raise ToolchainError(
                f"these machines do not have FFmpeg {wanted.version}, and would give other bytes:\n{listed}\n"
                f"Install it there, or leave {argument('same_program', 'require')} out: then they get no work"
            )
        return _Group(good, not others)


def hardware_options(encoder: str, there: Collection[str]) -> dict[str, Any]:
    """What a task asks of Ray whose encoder is a device's.

    Args:
        encoder: FFmpeg's name of it.
        there: the resources that machines of the cluster declare.

    Returns:
        one of a custom resource with the encoder's name, where one is declared, whose number says how many
        encodes a machine takes at once; else a part of a GPU, for encoders of NVIDIA's, where there is one.
    """
    if encoder in there:
        return {"resources": {encoder: 1}}
    return {"num_gpus": _GPU_SHARE} if "GPU" in there and encoder.endswith("_nvenc") else {}


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what this process does at a signal: Ray puts handlers of its own there, which print a stack."""
    kept = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in kept.items():
                if handler is not None:
                    signal.signal(number, handler)


def _end_processes() -> None:
    """End the Ray that this process has started: by itself it takes longer than a signal leaves time for."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            process.kill()


def _last_line(error: Exception) -> str:
    """What the error of a machine that Ray could not set up ends with."""
    return str(error).strip().rpartition("\n")[2]


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise ConfigError("Ray is not installed: pip install 'ffenc[ray]'") from None
    return ray


def _programs(wanted: Toolchain) -> tuple[Toolchain | None, list[str]]:
    """The programs of this machine that are of the version that is wanted, and the versions there are."""
    found: list[Toolchain] = []
    for named in ((wanted.ffmpeg, wanted.ffprobe), (None, None)):
        try:
            found += toolchains(*named)
        except FfencError:
            continue  # it is not in that place here
    same = next((one for one in found if one.version == wanted.version), None)
    return same, list(dict.fromkeys(one.version for one in found))


def _run(task: Task, copies: Sequence[MirrorOf] = ()) -> _Answer:
    """Do a task on the machine that this runs on; an error is returned, so that Ray does not try again."""
    attach(copies)
    programs, found = _programs(task.programs)
    if programs is None:
        return _Answer(
            unsuited=f"{socket.gethostname()} has FFmpeg {', '.join(found) or 'not at all'}, and "
            f"{task.programs.version} is wanted"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FfencWarning)
        answer = _done(task.using(programs))
    said = dict.fromkeys(str(one.message) for one in caught if isinstance(one.message, FfencWarning))
    return replace(answer, warnings=tuple(said))


def _done(task: Task) -> _Answer:
    try:
        return _Answer(task.run(Surroundings()))
    except FfencError as error:
        return _Answer(error=error)
    except OSError as error:
        where = f"{error.strerror or error} (on {socket.gethostname()})"
        return _Answer(error=OSError(error.errno, where))
