"""``ffenc split``."""

from __future__ import annotations

import re
from typing import Any

import click

from ffenc.cli.common import PathName, SourceName
from ffenc.cli.display import progress_bar
from ffenc.cli.jobs import executor_of, job_options, print_summary, summary_fields
from ffenc.cli.output import print_json
from ffenc.cli.plan import print_plans
from ffenc.cli.values import ValueType, Whole


class Parts(ValueType):
    """``train=0.9,val=0.1`` or ``a=0-9,b=10-``."""

    name = "NAME=SHARE,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, float | str]:
        parts: dict[str, float | str] = {}
        # A comma can also separate the episodes of one part: a part begins at the next NAME=.
        for text in re.split(r",(?=[^,=]*=)", str(value)):
            name, equals, what = text.partition("=")
            name = name.strip()
            if not (equals and name and what.strip()):
                self.fail(f"{text!r} is not of the form NAME=SHARE or NAME=EPISODES", param, ctx)
            if name in parts:
                self.fail(f"part {name!r} is named twice", param, ctx)
            share = re.fullmatch(r"\s*(\d*\.\d+|\d+\.)\s*", what, re.ASCII)
            parts[name] = float(share[1]) if share else what
        return parts


@click.command("split")
@click.argument("source", type=SourceName(remote=True), metavar="SRC")
@click.argument("destination", type=PathName(remote=True), metavar="DST")
@click.option(
    "--into",
    type=Parts(),
    required=True,
    metavar="NAME=SHARE,...",
    help="The parts: shares such as train=0.9,val=0.1, or episodes such as a=0-9,b=10-.",
)
@click.option(
    "--seed",
    type=Whole(0),
    default=0,
    show_default=True,
    help="Seed of the random order in which shares are filled.",
)
@click.option(
    "--by",
    type=click.Choice(["episode", "task"]),
    default="episode",
    show_default=True,
    help="Distribute single episodes, or keep all episodes of a task in the same part.",
)
@job_options("Print the episodes of each part; write nothing.")
def command(
    source: str,
    destination: str,
    into: dict[str, float | str],
    resume: bool,
    force_space: bool,
    keep_going: bool,
    dry_run: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Split the dataset SRC into one LeRobot v3.0 dataset per part, DST/NAME. SRC is only read.

    Every episode is in exactly one part. Shares are filled in a random order determined by --seed; within a
    part, episodes keep their order. Video and images are copied, not re-encoded.

    \b
    Examples:
      ffenc split my_data parts --into train=0.9,val=0.1
      ffenc split my_data parts --into train=0.8,val=0.2 --by task --seed 7
      ffenc split my_data parts --into monday=0-49,tuesday=50-
      ffenc split my_data parts --into train=0.9,val=0.1 --dry-run
    """
    from ffenc.dataset.split import plan_split, run_split  # noqa: PLC0415 - keeps --help quick

    executor = executor_of(settings)
    plans = plan_split(source, destination, into, resume=resume, **settings)
    if dry_run:
        print_plans(plans, as_json)
        return
    with progress_bar("splitting", sum(plan.frames for plan in plans.values())) as on_frames:
        summaries = run_split(
            plans,
            resume=resume,
            force_space=force_space,
            on_progress=lambda done, _: on_frames(done),
            executor=executor,
            keep_going=keep_going,
        )
    if as_json:
        print_json({name: summary_fields(summary) for name, summary in summaries.items()})
        return
    for summary in summaries.values():
        print_summary(summary)
