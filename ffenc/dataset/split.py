"""Split a dataset into several."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ffenc.arguments import check_kind, check_number
from ffenc.codecs.suggest import accepted
from ffenc.dataset.choice import Episodes, chosen_episodes, divided
from ffenc.dataset.columns import task_texts
from ffenc.dataset.edit import OnProgress, plan_edit
from ffenc.dataset.executors.local import Executor
from ffenc.dataset.identify import check_dataset
from ffenc.dataset.job.plan import JobPlan
from ffenc.dataset.job.run import run_plan
from ffenc.dataset.job.summary import JobSummary
from ffenc.dataset.lerobot_v3 import LeRobotV3
from ffenc.dataset.lerobot_v21 import LeRobotV21
from ffenc.dataset.quantiles import StatsChoice
from ffenc.dataset.reencode import refuse_nesting
from ffenc.dataset.remote import source_path
from ffenc.dataset.sources.lerobot import open_dataset
from ffenc.errors import ConfigError
from ffenc.spelling import argument, call
from ffenc.storage.address import parse_address


def plan_split(
    source: str | Path,
    destination: str | Path,
    into: Mapping[str, float | Episodes],
    *,
    seed: int = 0,
    by: Literal["episode", "task"] = "episode",
    follow_links: bool = False,
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    stats: StatsChoice = "exact",
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
) -> dict[str, JobPlan]:
    """Check a split before anything is written; return the plan of each part.

    The arguments are those of :func:`split_dataset`.
    """
    check_kind("into", into, Mapping, "a mapping of parts to shares or episodes", optional=False)
    check_number("seed", seed, 0)
    folder, target = source_path(source), parse_address(destination, "destination")
    if len(into) < 2:
        raise ConfigError("a split needs at least two parts, such as train=0.9,val=0.1")
    for name in into:
        if name in ("", ".", "..") or any(mark in name for mark in "/\\\0"):
            raise ConfigError(f"{name!r} is not accepted as the name of a part", expected="a folder's name")
    if isinstance(target, Path):
        refuse_nesting(folder, target)
    check_dataset(folder)
    opened = open_dataset(folder, follow_links=follow_links, ffprobe=ffprobe)
    parts = _parts(opened, into, seed, by)
    return {
        name: plan_edit(
            folder,
            target / name if isinstance(target, Path) else f"{target}/{name}",
            episodes=numbers,
            follow_links=follow_links,
            workers=workers,
            resume=resume,
            overwrite=overwrite,
            stats=stats,
            ffmpeg=ffmpeg,
            ffprobe=ffprobe,
        )
        for name, numbers in parts.items()
    }


def split_dataset(
    source: str | Path,
    destination: str | Path,
    into: Mapping[str, float | Episodes],
    *,
    seed: int = 0,
    by: Literal["episode", "task"] = "episode",
    follow_links: bool = False,
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    force_space: bool = False,
    stats: StatsChoice = "exact",
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
    on_progress: OnProgress = None,
    executor: Executor | None = None,
    keep_going: bool = False,
) -> dict[str, JobSummary]:
    """Split a dataset into several in one folder; every episode is in exactly one of them.

    Args:
        source: a dataset of v3.0, v2.1 or v2.0.
        destination: the folder of the parts.
        into: name of a part -> its share of the episodes, with a sum of 1; or its episodes, as for
            :func:`edit_dataset`, which together must be all.
        seed: seed of the random order in which shares are filled, 0 or more; the same seed gives the same
            parts.
        by: ``task`` keeps the episodes of a task together, so that no two parts share a task.
        follow_links, workers, force_space, stats, ffmpeg, ffprobe, on_progress, executor: as for
            :func:`edit_dataset`.
        resume: skip the parts that are complete, and continue the others.
        overwrite: if the destination is an address, replace the datasets that are the parts.

    Returns:
        Name of a part -> what its job did.

    Raises:
        ConfigError: an episode would be in no part, or in two, or a part would be empty.
        FfencError: as for :func:`edit_dataset`; complete parts are kept.
    """
    plans = plan_split(
        source,
        destination,
        into,
        seed=seed,
        by=by,
        follow_links=follow_links,
        workers=workers,
        resume=resume,
        overwrite=overwrite,
        stats=stats,
        ffmpeg=ffmpeg,
        ffprobe=ffprobe,
    )
    return run_split(
        plans,
        resume=resume,
        force_space=force_space,
        on_progress=on_progress,
        executor=executor,
        keep_going=keep_going,
    )


def run_split(
    plans: Mapping[str, JobPlan],
    *,
    resume: bool = False,
    force_space: bool = False,
    on_progress: OnProgress = None,
    executor: Executor | None = None,
    keep_going: bool = False,
) -> dict[str, JobSummary]:
    """Run the plans of a split, one after another; see :func:`split_dataset`."""
    total = sum(plan.frames for plan in plans.values())
    summaries: dict[str, JobSummary] = {}
    before = 0
    for name, plan in plans.items():

        def progress(done: int, _: int, before: int = before) -> None:
            if on_progress is not None:
                on_progress(before + done, total)

        summaries[name] = run_plan(
            plan,
            resume=resume,
            force_space=force_space,
            on_progress=progress,
            executor=executor,
            keep_going=keep_going,
        )
        before += plan.frames
    return summaries


def _parts(
    opened: LeRobotV3 | LeRobotV21,
    into: Mapping[str, float | Episodes],
    seed: int,
    by: Literal["episode", "task"],
) -> dict[str, list[int]]:
    numbers = [episode.index for episode in opened.episodes]
    shares = {name: value for name, value in into.items() if isinstance(value, int | float)}
    if by not in ("episode", "task"):
        raise ConfigError(f"by={by!r} is not accepted{accepted(by, ('episode', 'task'))}")
    if len(shares) == len(into):
        groups = [[number] for number in numbers]
        if by == "task":
            of_task: dict[str, list[int]] = {text: [] for text in task_texts(opened.tasks())}
            for episode in opened.read(opened.episodes):
                if len(episode.tasks) > 1:
                    raise ConfigError(
                        f"by task: episode {episode.index} has rows of {len(episode.tasks)} tasks"
                    )
                of_task[episode.tasks[0]].append(episode.index)
            groups = [own for own in of_task.values() if own]
        return divided(groups, {name: float(share) for name, share in shares.items()}, seed=seed)
    if shares:
        raise ConfigError("parts are either shares (train=0.9) or episodes (a=0-9), not both in one split")
    if by == "task" or seed:
        raise ConfigError(
            f"{argument('seed')} and {argument('by')} are for shares; these parts name their episodes"
        )
    parts = {
        name: chosen_episodes(value, numbers, name)
        for name, value in into.items()
        if not isinstance(value, int | float)
    }
    owner: dict[int, str] = {}
    for name, own in parts.items():
        for number in own:
            if number in owner:
                raise ConfigError(f"episode {number} is in {owner[number]} and in {name}")
            owner[number] = name
    if left := [number for number in numbers if number not in owner]:
        raise ConfigError(
            f"episode {left[0]} is in no part (of {len(left)} such); add it to one, or select episodes with "
            + call("edit_dataset", source="SRC", destination="NEW", episodes="...")
        )
    return parts
