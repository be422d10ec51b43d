"""A large job on a pretended cluster, and Ray beside the pool of this machine.

    python benchmarks/cluster.py [--episodes 50000] [--cameras 4] [--cpus 64] [--seconds 1] [--fresh]
    python benchmarks/cluster.py --real [--pieces 200] [--frames 100] [--repeats 2]
    python benchmarks/cluster.py --memory

The first plans a dataset with so many episodes, runs half of the job, ends it, and resumes it. All is ffenc's
own code, from the plan to the published dataset, but that pieces only sleep, and that Ray is pretended: its
tasks start when one of its CPUs is free and end ``--seconds`` later, on a clock that goes on by the processor
time which this process takes, and jumps to the next event where it waits. So a scheduler that is too slow
leaves CPUs idle, as on a cluster.

The second encodes short episodes of images with ``--on ray`` and without, in turn, start-up of Ray apart.
The third measures the memory of a worker of Ray, and of the FFmpeg beside it, that encodes 640x480 frames.
"""

from __future__ import annotations

import argparse
import heapq
import os
import pickle
import resource
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import ray as real_ray
from msgspec.structs import replace
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ffenc import RayExecutor, plan_reencode, run_plan
from ffenc.config.framerate import time_scale
from ffenc.dataset.executors.local import LocalExecutor
from ffenc.dataset.executors.ray import _Session
from ffenc.dataset.executors.ray_task import Answer, Around, run_task
from ffenc.dataset.job.joins import JoinRecord, JoinTask
from ffenc.dataset.job.piece import PieceRecord, PieceTask, Surroundings, write_record
from ffenc.dataset.source import EpisodeVideo
from ffenc.dataset.verify.metadata import brief
from ffenc.errors import Cancelled, FfencWarning
from ffenc.ffmpeg.probe import StreamInfo, probe
from ffenc.frames.statistics import RgbHistogram, sample_tap
from ffenc.spelling import current
from tests.large import make_large

LENGTH = 20  # frames of an episode of the pretended job
TASK = 0.005  # seconds that a task takes on a CPU beside its work; measured with Ray
_MOST_SECONDS = 180  # that the comparison with the pool takes
H264 = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "preset"), "ultrafast")]


@dataclass(order=True)
class _Event:
    end: float
    number: int
    answer: bytes = field(compare=False)


class Pretended:
    """What of Ray the executor uses, with CPUs that only count time.

    Args:
        cpus: how many.
        seconds: that a piece takes.
        stop: after so many pieces the job is ended from outside, and pieces are put on record until then.

    Attributes:
        now: seconds on its clock.
        pieces: how many were started.
        began, ended: when the first was started, and when the last has ended.
        driver, before, before_end: processor seconds of the job itself, in all, and until the first and the
            last piece were started.
        left: this process's processor time when the job went on.
    """

    exceptions = real_ray.exceptions

    def __init__(self, cpus: int, seconds: float, stop: int | None = None) -> None:
        self._cpus, self._seconds, self._stop = cpus, seconds, stop
        self._free = [0.0] * cpus
        self._waiting: list[_Event] = []
        self._ended: dict[int, Any] = {}
        self._number = self.pieces = 0
        self.now = self.ended = self.driver = self.before = self.before_end = 0.0
        self.began = float("inf")
        self.left = time.process_time()
        self._info: StreamInfo | None = None
        self._asked: dict[str, dict[str, object]] = {}
        frame = np.random.default_rng(0).normal(128, 40, (120, 160, 3)).clip(0, 255).astype(np.uint8)
        histogram = RgbHistogram(sample_tap(LENGTH, 160, 120))
        histogram.add(frame)
        self._counted = pickle.dumps((histogram.statistics(), histogram.values().packed()))

    @property
    def busy(self) -> float:
        """Of the time in which pieces were made, the share in which a CPU worked on one."""
        return self.pieces * self._seconds / (self._cpus * (self.ended - self.began))

    @contextmanager
    def _outside(self) -> Iterator[None]:
        """Count the processor time since the last call; what is done in the block is no part of it."""
        spent = time.process_time() - self.left
        self.now, self.driver = self.now + spent, self.driver + spent
        yield
        self.left = time.process_time()

    # --- what Ray has ---

    def nodes(self) -> list[dict[str, Any]]:
        """One machine."""
        resources = {"CPU": float(self._cpus)}
        return [{"Alive": True, "NodeID": "0" * 56, "NodeManagerHostname": "here", "Resources": resources}]

    def put(self, what: Any) -> Any:
        """Nothing travels."""
        return what

    def cancel(self, reference: int, **_: object) -> None:
        """Nothing runs."""

    def remote(self, function: Any) -> Any:
        """Give what starts a function."""
        return SimpleNamespace(
            options=lambda **_: SimpleNamespace(remote=lambda *words: self._start(function, *words))
        )

    def _start(self, function: Any, *words: Any) -> int:
        pickle.dumps(words)  # as Ray does; it is the driver's time
        with self._outside():
            self._number += 1
            if function is not run_task:
                self._ended[self._number] = function(*words)
                return self._number
            task = words[0]
            answer, seconds = self._do(task)
            began = max(self.now, heapq.heappop(self._free))
            end = began + TASK + seconds
            if isinstance(task, PieceTask):
                self.pieces += 1
                self.began, self.ended = min(self.began, began), max(self.ended, end)
                self.before = self.before if self.pieces > 1 else self.driver
                self.before_end = self.driver
            heapq.heappush(self._free, end)
            heapq.heappush(self._waiting, _Event(end, self._number, pickle.dumps(answer)))
            return self._number

    def wait(self, references: list[int], *, num_returns: int, timeout: float) -> tuple[list[int], list[int]]:
        """Go on to the next end of a task."""
        with self._outside():
            if not self._ended and timeout and self._waiting:
                self.now = max(self.now, min(self._waiting[0].end, self.now + timeout))
            while self._waiting and self._waiting[0].end <= self.now:
                event = heapq.heappop(self._waiting)
                self._ended[event.number] = event.answer
        done = [one for one in references if one in self._ended]
        return done[:num_returns], []

    def get(self, reference: int) -> Any:
        """What came of a task."""
        found = self._ended.pop(reference)
        return pickle.loads(found) if isinstance(found, bytes) else found

    # --- what comes of tasks ---

    def _do(self, task: Any) -> tuple[Answer, float]:
        """What a task would give, and how long it works."""
        if isinstance(task, PieceTask):
            if self._stop is not None and self.pieces >= self._stop:
                return Answer(error=Cancelled("this was the half")), 0.0
            return Answer(self._piece(task)), self._seconds
        if isinstance(task, JoinTask):
            return Answer(self._join(task)), 0.0
        began = time.process_time()
        return Answer(task.run(Surroundings())), time.process_time() - began

    def _piece(self, task: PieceTask) -> PieceRecord:
        video = task.frames
        assert isinstance(video, EpisodeVideo)
        self._info = self._info or probe(video.path, times=True)
        asked = self._asked.setdefault(task.key, dict(task.asked(None)))
        stats, values = pickle.loads(self._counted) if task.size is not None else (None, None)
        size = 1_000_000 if self._stop is None else 3
        done = PieceRecord(
            *(task.episode.length, task.path, size, size, self._info.configuration, 0, stats, values),
            resumed=False,
            asked=asked,
        )
        if self._stop is not None:
            task.folder.mkdir(parents=True, exist_ok=True)
            task.path.write_bytes(b"mp4")
            with _unflushed():
                write_record(task.record, done, task.fingerprint(task.clip()))
        return done

    def _join(self, task: JoinTask) -> JoinRecord:
        """A file of three bytes, that is said to hold all."""
        assert self._info is not None
        output = task.dataset / task.place
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(b"mp4")
        fields: Any = task.pieces[0].asked
        rate = {"time_base": Fraction(1, time_scale(task.fps)), "fps": task.fps}
        known = {name: value for name, value in fields.items() if name in _FIELDS}
        frames = sum(piece.frames for piece in task.pieces)
        made = replace(self._info, **known, **rate, frames=frames, key_frames=None)
        return JoinRecord(brief(made, task.starts), 3, "0" * 64)


@contextmanager
def _unflushed() -> Iterator[None]:
    """Leave to the system when it writes: the disks of 64 CPUs are not this one."""
    kept, os.fsync = os.fsync, lambda _: None
    try:
        yield
    finally:
        os.fsync = kept


_FIELDS = ("codec", "pix_fmt", "width", "height")


class PretendedCluster:
    """Has a job's tasks done by :class:`Pretended`."""

    def __init__(self, ray: Pretended) -> None:
        self._ray = ray

    @contextmanager
    def open(self, workers: int, uses: Sequence[Path] = ()) -> Iterator[_Session]:
        """See :class:`~ffenc.dataset.executors.local.Executor`."""
        yield _Session(self._ray, lambda: None, "prefer", uses)


def peak_megabytes() -> float:
    """The most memory that this process has taken so far."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


@dataclass
class Found:
    """What a pretended job took.

    Attributes:
        plan: seconds until it was planned.
        busy: of the time in which pieces were made, the share in which a CPU worked on one.
        piece: processor milliseconds of the driver for each piece.
        take_up: seconds from ``--resume`` on until the first new piece was started.
        end: processor seconds from the last piece to the published dataset.
        megabytes: the driver's memory.
    """

    plan: float
    busy: float
    piece: float
    take_up: float
    end: float
    megabytes: float


def pretend(work: Path, *, episodes: int, cameras: int, cpus: int, seconds: float, resume: bool) -> Found:
    """Run half of a job, and resume it.

    Putting half of the pieces on record takes most of the time of this call: some 4 ms of a core for each.

    Args:
        work: an empty folder.
        episodes, cameras: of the dataset.
        cpus: of the cluster.
        seconds: that a piece takes.
        resume: or run it in one go.
    """
    keys = [f"observation.images.camera{number}" for number in range(cameras)]
    source = make_large(work / "source", episodes=episodes, length=LENGTH, keys=keys)
    options: dict[str, Any] = {
        "overrides": [*H264, (("camera_encoder", "crf"), 30)],
        "workers": cpus,
        "force": True,
    }
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FfencWarning)  # the dataset's statistics are not those of its rows
        plan = plan_reencode(source, work / "made", **options)
    planned = time.perf_counter() - began
    before = plan.encodes // 2 if resume else 0
    half = Pretended(cpus, seconds, before)
    if resume:
        with suppress(Cancelled):
            run_plan(plan, executor=PretendedCluster(half), force_space=True)
    rest = Pretended(cpus, seconds)
    summary = run_plan(plan, executor=PretendedCluster(rest), force_space=True, resume=resume)
    end = rest.driver + time.process_time() - rest.left - rest.before_end
    assert (summary.resumed, rest.pieces) == (before, plan.encodes - before)
    return Found(
        plan=planned,
        busy=min(one.busy for one in (half, rest) if one.pieces),
        piece=(rest.before_end - rest.before) / rest.pieces * 1000,
        take_up=rest.began,
        end=end,
        megabytes=peak_megabytes(),
    )


def make_tree(tree: Path, *, pieces: int, frames: int, size: tuple[int, int]) -> Path:
    """Make episodes of images; from the hundredth frame on, and in all episodes, they are the same again."""
    width, height = size
    noise = np.random.default_rng(0)
    first = tree.with_name("frames")
    first.mkdir()
    images = []
    for number in range(min(frames, 100)):
        grain = noise.integers(0, 24, (height, width, 3), np.uint8)
        grain[:, number % (width - 20) : number % (width - 20) + 20] += 200
        images.append(first / f"{number:06d}.png")
        Image.fromarray(grain).save(images[-1], compress_level=1)
    for piece in range(pieces):
        folder = tree / f"episode_{piece:06d}/front"
        folder.mkdir(parents=True)
        for number in range(frames):
            os.link(images[number % len(images)], folder / f"{number:06d}.png")
    return tree


def _measured(task: PieceTask, around: Around) -> tuple[float, float, float]:
    """Do a piece in a worker; returns its memory before and at most, and that of FFmpeg, in megabytes."""
    before = int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024
    answer = run_task(task, around)
    assert answer.error is None, answer.error
    return before, peak_megabytes(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def worker_memory(work: Path, *, frames: int) -> tuple[float, float, float]:
    """Encode a piece of 640x480 images in a worker of its own; see :func:`_measured`."""
    tree = make_tree(work / "tree", pieces=1, frames=frames, size=(640, 480))
    plan = plan_reencode(tree, work / "made", fps=30, task="stack", encoder_threads=1)
    task = plan.streams[0].task(plan, plan.episodes[0], work / "pieces")
    real_ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        found: tuple[float, float, float] = real_ray.get(
            real_ray.remote(_measured).remote(task, Around((), current()))
        )
    finally:
        real_ray.shutdown()
    return found


def compare(work: Path, *, pieces: int, frames: int, repeats: int) -> float:
    """Encode on a Ray of this machine and on its pool, in turn; returns how fast Ray is, of the pool."""
    tree = make_tree(work / "tree", pieces=pieces, frames=frames, size=(320, 240))

    def seconds(executor: Any, episodes: str | None = None) -> float:
        shutil.rmtree(work / "made", ignore_errors=True)
        plan = plan_reencode(
            tree,
            work / "made",
            fps=30,
            task="stack",
            overrides=H264,
            workers=2,
            encoder_threads=1,
            episodes=episodes,
        )
        began = time.perf_counter()
        run_plan(plan, executor=executor)
        return time.perf_counter() - began

    real_ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ways = {"the pool of this machine": LocalExecutor(), "--on ray": RayExecutor()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for executor in ways.values():
        seconds(executor, "0-3")  # Ray starts its workers, which load ffenc
    began, longest = time.monotonic(), 0.0
    for number in range(repeats):
        if number and time.monotonic() - began + longest > _MOST_SECONDS:
            break  # of a slow machine once is enough
        round_began = time.monotonic()
        for name, executor in ways.items():
            times[name].append(seconds(executor))
            print(f"  {name}: {times[name][-1]:.1f} s", flush=True)
        longest = max(longest, time.monotonic() - round_began)
    real_ray.shutdown()
    here, there = (statistics.median(own) for own in times.values())
    return here / there


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=50_000)
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--cpus", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--fresh", action="store_true", help="run the job in one go, without --resume")
    parser.add_argument("--real", action="store_true", help="compare Ray with the pool instead")
    parser.add_argument("--pieces", type=int, default=200)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=2, help="at most")
    parser.add_argument("--memory", action="store_true", help="measure the memory of a worker instead")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ffenc-benchmark-") as name:
        if asked.memory:
            for frames in (100, 3600):
                (folder := Path(name, str(frames))).mkdir()
                before, most, ffmpeg = worker_memory(folder, frames=frames)
                print(
                    f"640x480 x {frames:,} frames: the worker takes {before:.0f} MB before and {most:.0f} MB "
                    f"at most, FFmpeg {ffmpeg:.0f} MB"
                )
            return
        if asked.real:
            ratio = compare(Path(name), pieces=asked.pieces, frames=asked.frames, repeats=asked.repeats)
            print(f"--on ray is {ratio:.2f} times as fast as the pool")
            return
        found = pretend(
            Path(name),
            episodes=asked.episodes,
            cameras=asked.cameras,
            cpus=asked.cpus,
            seconds=asked.seconds,
            resume=not asked.fresh,
        )
    print(
        f"{asked.episodes:,} episodes of {asked.cameras} cameras, {asked.cpus} CPUs, {asked.seconds:g} s a "
        f"piece: planned in {found.plan:.1f} s; CPUs busy {found.busy:.3f} of the time; the driver takes "
        f"{found.piece:.2f} ms a piece, and {found.megabytes:.0f} MB; until the first piece"
        f"{'' if asked.fresh else ' after half'}: {found.take_up:.1f} s; from the last piece to the "
        f"dataset: {found.end:.1f} s"
    )


if __name__ == "__main__":
    main()
