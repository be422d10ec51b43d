"""``ffenc merge``."""

from __future__ import annotations

from typing import Any

import click

from ffenc.cli.common import PathName, SourceName, retime_option
from ffenc.cli.jobs import executor_of, job_options, run_job
from ffenc.cli.plan import print_plans


@click.command("merge")
@click.argument("sources", type=SourceName(remote=True), metavar="A B ...", nargs=-1, required=True)
@click.option(
    "--out", "destination", type=PathName(remote=True), required=True, metavar="DST", help="The new dataset."
)
@click.option(
    "--reencode",
    is_flag=True,
    help="Re-encode videos whose codec or pixel format differs from most, instead of refusing the merge.",
)
@retime_option
@job_options("Check whether the datasets can be merged; write nothing.")
def command(
    sources: tuple[str, ...],
    destination: str,
    resume: bool,
    force_space: bool,
    keep_going: bool,
    dry_run: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Merge LeRobot datasets into one v3.0 dataset. Video is copied, not re-encoded; sources are only read.

    Episodes, frames and tasks are numbered from 0, tasks with the same text become one, and statistics are
    computed from all rows. Frame rate, robot, features, codecs and depth quantisers must agree. DST appears
    complete and verified, or not at all. A single v2.1 or v2.0 dataset is converted to v3.0.

    \b
    Examples:
      ffenc merge monday tuesday wednesday --out week
      ffenc merge monday old_h264_dataset --out both --reencode
      ffenc merge my_v21_dataset --out my_v30_dataset
      ffenc merge s3://lab/monday hf://datasets/lab/tuesday --out s3://lab/week
      ffenc merge monday tuesday --out week --dry-run
    """
    from ffenc.dataset.merge import plan_merge  # noqa: PLC0415 - keeps --help quick

    executor = executor_of(settings)
    plan = plan_merge(list(sources), destination, resume=resume, **settings)
    if dry_run:
        print_plans({"": plan}, as_json)
        return
    run_job(
        plan,
        "merging",
        resume=resume,
        force_space=force_space,
        as_json=as_json,
        executor=executor,
        keep_going=keep_going,
    )
