"""The machines of a Ray cluster: which have the programs of a job, and which does the next task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any, Literal

from msgspec import Struct

from ffenc.dataset.executors.local import Task
from ffenc.dataset.executors.ray_task import run_task, same_programs
from ffenc.errors import ToolchainError
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.spelling import argument

SameProgram = Literal["prefer", "require"]

RETRIES = 3  # of a task whose worker or machine was lost; errors in the data are not tried again
_GPU_SHARE = 0.25  # of a GPU that an encode takes: its encoder works on several at once
_AHEAD = 2  # tasks that wait for each core, so that none is idle


class _Node(Struct, frozen=True):
    """A machine of the cluster.

    Attributes:
        cores: that Ray has there.
        devices: names of all resources that it declares.
    """

    id: str
    cores: int
    devices: frozenset[str]


class _Group(Struct, frozen=True):
    """The machines that have the programs of one version; whether these are all that there are."""

    nodes: list[_Node]
    all: bool

    @property
    def devices(self) -> set[str]:
        """The resources that one of them declares."""
        return {name for node in self.nodes for name in node.devices}


class Places:
    """Which machine does the next task: any, or where not all have its programs, the one with most room."""

    def __init__(self, ray: Any, same: SameProgram) -> None:
        self._ray, self._same = ray, same
        self._remote = ray.remote(run_task)
        self._groups: dict[str, _Group] = {}
        self._held: dict[Any, str] = {}
        self._load: Counter[str] = Counter()

    def room(self, programs: Toolchain) -> int:
        """How many tasks run or wait at once."""
        return _AHEAD * sum(node.cores for node in self._group(programs).nodes)

    def start(self, task: Task, around: Any) -> Any:
        """Have a task done; returns Ray's reference of it."""
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
        ask = ray.remote(same_programs)
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


def _last_line(error: Exception) -> str:
    """What the error of a machine that Ray could not set up ends with."""
    return str(error).strip().rpartition("\n")[2]
