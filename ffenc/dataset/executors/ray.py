"""Pieces are made by Ray, on this machine or on a cluster whose machines share a file system."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args

import psutil

from ffenc.codecs.suggest import accepted
from ffenc.dataset.executors.local import Failures, Progress
from ffenc.dataset.piece import PieceRecord, PieceTask, Surroundings, run_piece
from ffenc.errors import ConfigError, FfencError, SourceError, ToolchainError
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
        name: of the machine.
        cores: that Ray has there.
        programs: its programs of the version that is wanted; None: it has none.
        found: the versions that it has.
    """

    id: str
    name: str
    cores: int
    programs: Toolchain | None
    found: tuple[str, ...]


class RayExecutor:
    """Makes each piece in a Ray task with as many CPUs as its encoder has threads.

    All machines have to see the folders of the source and of the destination under the same paths, as on a
    file system that they share. Before the first piece, every machine says which FFmpeg it has: one whose
    version is another would give other bytes.

    Args:
        address: ``ray``: a Ray of its own on this machine, which ends with the job; ``auto``: the cluster
            that ``RAY_ADDRESS`` names, or that runs here; else its address, such as ``ray://head:10001``.
        same_program: ``prefer``: machines with another FFmpeg get no pieces; ``require``: they end the job.
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

    def run(
        self,
        tasks: Iterable[PieceTask],
        *,
        workers: int,
        progress: Progress,
        cancellation: Cancellation,
        failures: Failures | None = None,
    ) -> Iterator[tuple[PieceTask, PieceRecord]]:
        """See :class:`~ffenc.dataset.executors.local.Executor`."""
        ray = self._ray
        began = self._connect(workers)
        running: dict[Any, PieceTask] = {}
        try:
            waiting = iter(tasks)
            first = next(waiting, None)
            if first is None:
                return
            nodes = self._nodes(first.programs)
            room = _AHEAD * sum(node.cores for node in nodes)
            place = _Places(nodes, ray)
            remote = ray.remote(_run)
            copies = ray.put(open_copies())  # what is remote each machine fetches by itself
            task: PieceTask | None = first
            while True:
                while task is not None and len(running) < room:
                    running[place.start(remote, task, copies)] = task
                    task = next(waiting, None)
                if not running:
                    return
                done, _ = ray.wait(list(running), num_returns=1, timeout=0.5)
                cancellation.check()
                for reference in done:
                    own = running.pop(reference)
                    place.ended(reference)
                    try:
                        record: PieceRecord = _result(ray, reference, own)
                    except FfencError as error:
                        if failures is None:
                            raise
                        failures.append((own, error))
                        continue
                    with progress.part(own.encoded_frames):
                        yield own, record
        except BaseException:
            cancellation.cancel()
            for reference in running:
                ray.cancel(reference, force=False, recursive=True)
            if began and self._address == _LOCAL:
                _end_processes()
            raise
        finally:
            if began:
                ray.shutdown()

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
                    ray.init(num_cpus=workers, include_dashboard=False, **options)
                else:
                    ray.init(address=self._address, **options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise ConfigError(
                f"{argument('address', self._address)}: no Ray cluster can be reached there: "
                f"{_first_line(error)}"
            ) from None
        return True

    def _nodes(self, wanted: Toolchain) -> list[_Node]:
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
        nodes = []
        for node, answer in zip(alive, answers, strict=True):
            try:
                programs, found = ray.get(answer)
            except ray.exceptions.RayError as error:
                raise ToolchainError(
                    f"{node['NodeManagerHostname']}: Ray could not run anything there: {_last_line(error)}"
                ) from None
            cores = int(node["Resources"]["CPU"])
            nodes.append(_Node(node["NodeID"], node["NodeManagerHostname"], cores, programs, tuple(found)))
        good = [node for node in nodes if node.programs is not None]
        others = [node for node in nodes if node.programs is None]
        told = "\n".join(f"  {node.name}: {', '.join(node.found) or 'no FFmpeg'}" for node in others)
        if not good:
            raise ToolchainError(f"no machine of the cluster has FFmpeg {wanted.version}:\n{told}")
        if others and self._same == "require":
            raise ToolchainError(
                f"these machines do not have FFmpeg {wanted.version}, and would give other bytes:\n{told}\n"
                f"Install it there, or leave {argument('same_program', 'require')} out: then they get no work"
            )
        return good


class _Places:
    """Which machine makes the next piece: any, or where not all have the program, the one with most room."""

    def __init__(self, nodes: list[_Node], ray: Any) -> None:
        self._nodes = nodes
        alive = [node for node in ray.nodes() if node["Alive"]]
        self._all = len(nodes) == len(alive)
        good = {node.id for node in nodes}
        self._devices = {name for node in alive if node["NodeID"] in good for name in node["Resources"]}
        self._held: dict[Any, str] = {}
        self._load = {node.id: 0 for node in nodes}

    def start(self, remote: Any, task: PieceTask, copies: Any) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

        threads = task.encoding.encoder_threads if task.encoding is not None else 1
        options: dict[str, Any] = {"max_retries": _RETRIES, "name": f"{task.key} {task.episode.index}"}
        options["num_cpus"] = min(threads or 1, max(node.cores for node in self._nodes))
        if task.encoding is not None and not task.copied and task.encoding.codec.hardware:
            options |= hardware_options(task.encoding.codec.encoder, self._devices)
        chosen = None
        if not self._all:
            chosen = min(self._nodes, key=lambda node: self._load[node.id] / node.cores)
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(chosen.id, soft=False)
            self._load[chosen.id] += 1
        reference = remote.options(**options).remote(task, copies)
        if chosen is not None:
            self._held[reference] = chosen.id
        return reference

    def ended(self, reference: Any) -> None:
        if (node := self._held.pop(reference, None)) is not None:
            self._load[node] -= 1


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


def _run(task: PieceTask, copies: Sequence[MirrorOf] = ()) -> PieceRecord | FfencError:
    """Make a piece on the machine that this runs on; an error is returned, so that Ray does not try again."""
    try:
        attach(copies)
        programs, found = _programs(task.programs)
        if programs is None:
            raise ToolchainError(
                f"{socket.gethostname()} has FFmpeg {', '.join(found) or 'not at all'}, and "
                f"{task.programs.version} is wanted"
            )
        return run_piece(task.using(programs), Surroundings())
    except FfencError as error:
        return error
    except OSError as error:
        return SourceError(f"{task.key}, episode {task.episode.index}: on {socket.gethostname()}: {error}")


def _result(ray: Any, reference: Any, task: PieceTask) -> PieceRecord:
    """The record of a task that has ended.

    Raises:
        FfencError: what the task raised, or why it could not be run.
    """
    try:
        answer = ray.get(reference)
    except ray.exceptions.RayError as error:
        raise ToolchainError(
            f"{task.key}, episode {task.episode.index}: Ray could not run it: "
            f"{_first_line(error)}. What is finished is kept: go on with {argument('resume', True)}"
        ) from None
    if isinstance(answer, FfencError):
        raise answer
    record: PieceRecord = answer
    return record
