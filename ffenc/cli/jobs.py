"""Options, execution and summary of commands that create a dataset from others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffenc.cli import output
from ffenc.cli.common import (
    Function,
    force_space_option,
    json_option,
    links_option,
    overwrite_option,
    program_options,
    resume_option,
)
from ffenc.cli.display import human_bytes, human_seconds, progress_bar
from ffenc.cli.output import print_json
from ffenc.cli.values import Whole
from ffenc.errors import DestinationError
from ffenc.words import camera_frames, count, size_ratio

if TYPE_CHECKING:
    from ffenc.dataset.executors.local import Executor
    from ffenc.dataset.job.plan import JobPlan
    from ffenc.dataset.job.summary import JobSummary


_MB = 1_000_000

on_options = (
    click.option(
        "--on",
        metavar="ray|auto|ADDRESS",
        help="Run on Ray: a new local instance (ray), the cluster of RAY_ADDRESS (auto), or ray://HOST:10001.",
    ),
    click.option(
        "--same-program",
        type=click.Choice(["prefer", "require"]),
        help="With --on: skip machines that have another FFmpeg version (prefer), or fail (require) "
        "[default: prefer].",
    ),
)
"""Where a command's work runs; see :func:`executor_of`."""


def job_options(dry_run: str) -> Callable[[Function], Function]:
    """Add the options of every command that creates a dataset from others.

    Args:
        dry_run: help text of ``--dry-run``.
    """
    options = [
        click.option(
            "--workers",
            type=Whole(1),
            help="Number of parallel encodes [default: one per core, at most 16; more for a small job].",
        ),
        resume_option,
        overwrite_option,
        click.option(
            "--keep-going",
            is_flag=True,
            help="If an episode cannot be encoded, finish all others, then fail and list the failures.",
        ),
        force_space_option,
        click.option("--dry-run", is_flag=True, help=dry_run),
        *on_options,
        click.option(
            "--stats",
            type=click.Choice(["exact", "keep"]),
            default="exact",
            show_default=True,
            help="Quantiles in stats.json: computed from all rows (exact), or the mean of the episodes' "
            "quantiles, as LeRobot computes them (keep).",
        ),
        links_option,
        json_option,
        program_options,
    ]

    def add(function: Function) -> Function:
        for option in reversed(options):  # the last decorator comes first in --help
            function = option(function)
        return function

    return add


def executor_of(settings: dict[str, Any]) -> Executor | None:
    """Remove the options that say where a job runs from a command's settings; None: on this machine.

    Raises:
        click.UsageError: an option would have no effect.
        ConfigError: Ray is not installed.
    """
    address, same = settings.pop("on"), settings.pop("same_program")
    if address is None:
        if same is not None:
            raise click.UsageError("--same-program has no effect without --on; pass --on, or leave it out")
        return None
    from ffenc.dataset.executors.ray import RayExecutor  # noqa: PLC0415 - an extra

    return RayExecutor(address, same_program=same or "prefer")


def run_job(
    plan: JobPlan,
    label: str,
    *,
    resume: bool,
    force_space: bool,
    as_json: bool,
    executor: Executor | None = None,
    keep_going: bool = False,
) -> None:
    """Run a job with a progress bar, and print its summary; if it is stopped, say what is kept."""
    from ffenc.dataset.job.run import run_plan  # noqa: PLC0415 - keeps --help quick

    finished = f"of {count(plan.encodes, 'encode')} finished and"
    with kept_said(plan.destination, finished), progress_bar(label, plan.frames) as on_frames:
        summary = run_plan(
            plan,
            resume=resume,
            force_space=force_space,
            on_progress=lambda done, _: on_frames(done),
            executor=executor,
            keep_going=keep_going,
            on_upload=lambda done, total: on_frames(done // _MB, total // _MB, "uploading", "MB"),
        )
    if as_json:
        print_json(summary_fields(summary))
    else:
        print_summary(summary)


@contextmanager
def kept_said(destination: Path, finished: str) -> Iterator[None]:
    """If a job is stopped, say how many pieces are kept (``finished`` names them), and where."""
    from ffenc.dataset.staging import unfinished  # noqa: PLC0415 - keeps --help quick

    try:
        yield
    except BaseException as error:
        # A DestinationError is a complete message; the folder may belong to another run.
        kept = None if isinstance(error, DestinationError) else unfinished(destination)
        if kept is not None:
            folder, done = kept
            output.note(f"{done} {finished} kept in {folder}: continue with --resume, or delete that folder")
        raise


def summary_fields(summary: JobSummary) -> dict[str, Any]:
    """Return a job's summary for ``--json``."""
    return {
        "destination": str(summary.destination),
        "episodes": summary.episodes,
        "frames": summary.frames,
        "source_bytes": summary.source_bytes,
        "video_bytes": summary.video_bytes,
        "ratio": round(summary.ratio, 3),
        "seconds": round(summary.seconds, 3),
        "frames_per_second": round(summary.frames / summary.seconds, 1),
        "copied_episodes": summary.copied,
        "resumed_encodes": summary.resumed,
        "outdated_encodes": summary.outdated,
        "complete_before": summary.complete_before,
        "cameras": summary.cameras,
    }


def print_summary(summary: JobSummary) -> None:
    """Print a job's summary."""
    if summary.complete_before:
        output.summary(
            f"{summary.destination}: already completed by an earlier run of this job; nothing to do"
        )
        return
    for key, camera in summary.cameras.items():
        before, after = camera["source_bytes"], camera["video_bytes"]
        copied, known = camera["copied_episodes"], camera["encoder"]
        encoder = f"{known['encoder']} {known['encoder_version']}".strip() if known else "re-encoded"
        if copied:
            others = summary.episodes - copied
            encoder = f"{count(copied, 'episode')} copied, {others} re-encoded" if others else "copied"
        output.summary(
            f"  {key}: {camera['codec']} {camera['pix_fmt']} ({encoder}), "
            f"{human_bytes(before)} -> {human_bytes(after)}"
        )
    episodes = count(summary.episodes, "episode")
    speed = f"{human_seconds(summary.seconds)} ({summary.frames / summary.seconds:.0f} frames/s)"
    if not summary.cameras and not summary.frames:
        output.summary(
            f"{summary.destination}: {episodes} without cameras, in {human_seconds(summary.seconds)}"
        )
        return
    if not summary.cameras:
        output.summary(f"{summary.destination}: {episodes}, {count(summary.frames, 'image')}, in {speed}")
        return
    frames = camera_frames(summary.frames, len(summary.cameras))
    sizes = f"{human_bytes(summary.source_bytes)} -> {human_bytes(summary.video_bytes)}"
    output.summary(
        f"{summary.destination}: {episodes}, {frames}, {sizes} "
        f"({size_ratio(summary.source_bytes, summary.video_bytes)}) in {speed}, verified"
        + (f"; {count(summary.resumed, 'encode')} reused" if summary.resumed else "")
    )
    if summary.outdated:
        output.summary(
            f"{count(summary.outdated, 'kept encode')} did not match (other settings, versions or frames) "
            f"and {'was' if summary.outdated == 1 else 'were'} encoded again"
        )
