"""The machines of a Ray cluster: which have the programs of a job, and which runs the next task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from ffenc.dataset.executors.local import Task
from ffenc.dataset.executors.ray_task import look_around, run_task
from ffenc.errors import ConfigError, ToolchainError
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.spelling import argument

SameProgram = Literal["prefer", "require"]

RETRIES = 3  # of a task whose worker or machine was lost; errors in the data are not retried
_GPU_SHARE = 0.25  # of a GPU per encode: its encoder runs several at once
_AHEAD = 2  # waiting tasks per core, so that none is idle


class _Node(Struct, frozen=True):
    """A machine of the cluster.

    Attributes:
        cores: number of its cores in Ray.
        devices: names of all its resources.
    """

    id: str
    cores: int
    devices: frozenset[str]


class _Group(Struct, frozen=True):
    """The machines with one version of the programs, and whether these are all machines."""

    nodes: list[_Node]
    all: bool

    @property
    def devices(self) -> set[str]:
        """Names of the resources that at least one of them has."""
        return {name for node in self.nodes for name in node.devices}


class Places:
    """Selects the machine of the next task: any, or, if not all have its programs, the least busy one."""

    def __init__(self, ray: Any, same: SameProgram, uses: Sequence[Path] = ()) -> None:
        self._ray, self._same, self._uses = ray, same, uses
        self._remote = ray.remote(run_task)
        self._groups: dict[str, _Group] = {}
        self._held: dict[Any, str] = {}
        self._load: Counter[str] = Counter()

    def room(self, programs: Toolchain) -> int:
        """Return how many tasks can run or wait at once."""
        return _AHEAD * sum(node.cores for node in self._group(programs).nodes)

    def start(self, task: Task, around: Any) -> Any:
        """Start a task; return Ray's reference."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

        group = self._group(task.programs)
        options: dict[str, Any] = {"max_retries": RETRIES, "name": task.name}
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
        reference = self._remote.options(**options).remote(task, around)
        if chosen is not None:
            self._held[reference] = chosen.id
        return reference

    def ended(self, reference: Any) -> None:
        """Note that a task has ended."""
        if (node := self._held.pop(reference, None)) is not None:
            self._load[node] -= 1

    def forget(self) -> None:
        """Query the machines again before the next task, because they have changed."""
        self._groups.clear()

    def _group(self, wanted: Toolchain) -> _Group:
        if wanted.version not in self._groups:
            self._groups[wanted.version] = self._ask(wanted)
        return self._groups[wanted.version]

    def _ask(self, wanted: Toolchain) -> _Group:
        """Query the programs of every machine; return the machines with the required version.

        Raises:
            ToolchainError: no machine has it, or not all have it and all are required to.
            ConfigError: one that has it cannot read a file or folder that tasks use.
        """
        ray = self._ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

        alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        ask = ray.remote(look_around)
        answers = [
            ask.options(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(wanted, self._uses)
            for node in alive
        ]
        good, others = [], []
        for node, answer in zip(alive, answers, strict=True):
            name = node["NodeManagerHostname"]
            try:
                programs, found, unread = ray.get(answer)
            except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
                continue  # the machine was lost in the meantime
            except ray.exceptions.RayError as error:
                raise ToolchainError(
                    f"{name}: Ray could not run anything there: {_last_line(error)}"
                ) from None
            if programs is None:
                others.append(f"  {name}: {', '.join(found) or 'no FFmpeg'}")
                continue
            if unread is not None:
                raise ConfigError(
                    f"{name} cannot read {unread}, which the job uses on all machines of the cluster: put "
                    "it on a shared file system, under the same path everywhere. For temporary files, set "
                    "TMPDIR to a folder there"
                )
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
    """Return the Ray resources for a task with a hardware encoder.

    Args:
        encoder: FFmpeg's name of the encoder.
        there: the resources of the cluster's machines.

    Returns:
        One unit of a custom resource with the encoder's name, if there is one, whose number is that of
        concurrent encodes per machine; otherwise a part of a GPU for NVIDIA's encoders, if there is one.
    """
    if encoder in there:
        return {"resources": {encoder: 1}}
    return {"num_gpus": _GPU_SHARE} if "GPU" in there and encoder.endswith("_nvenc") else {}


def _last_line(error: Exception) -> str:
    """Return the last line of the error of a machine that Ray could not set up."""
    return str(error).strip().rpartition("\n")[2]
