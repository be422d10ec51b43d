"""``ffenc repair``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffenc.cli import output
from ffenc.cli.common import (
    PathName,
    SourceName,
    force_space_option,
    json_option,
    links_option,
    overwrite_option,
    program_options,
    resume_option,
)
from ffenc.cli.display import progress_bar
from ffenc.cli.jobs import kept_said, print_summary, summary_fields
from ffenc.cli.output import print_json
from ffenc.fields import plain_fields
from ffenc.words import count

if TYPE_CHECKING:
    from ffenc.dataset.repair.run import Repair

_SHOWN = 20


@click.command("repair")
@click.argument("source", type=SourceName(remote=True), metavar="SRC")
@click.argument("destination", type=PathName(remote=True), metavar="DST")
@click.option(
    "--on-damage",
    type=click.Choice(["drop-episode", "trim", "repeat"]),
    default="drop-episode",
    show_default=True,
    help="What to do with an episode that has missing or damaged rows or frames: leave it out, end it before "
    "the damage, or repeat the previous frame in place of damaged video frames.",
)
@click.option(
    "--without-camera",
    "without_cameras",
    metavar="NAME",
    multiple=True,
    help="Leave out a camera, such as one whose files are lost; repeatable.",
)
@click.option(
    "--task", metavar="TEXT", help="Set the task of all rows, such as one that cannot be recovered."
)
@click.option("--dry-run", is_flag=True, help="Print what would be done; write nothing.")
@resume_option
@force_space_option
@overwrite_option
@links_option
@json_option
@program_options
def command(source: str, destination: str, dry_run: bool, as_json: bool, **settings: Any) -> None:
    """Make a sound LeRobot v3.0 dataset from a damaged one. SRC is only read.

    Totals, numbering, file positions, path templates, timestamps, tasks and statistics are derived again from
    the rows and the videos, which are decoded frame by frame. Video packets are copied. No data is invented,
    and none is left out silently: every change is reported, episode by episode. DST passes `ffenc verify
    --deep`, or it is not written.

    \b
    Examples:
      ffenc repair broken good --dry-run
      ffenc repair broken good --on-damage trim
      ffenc repair broken good --on-damage repeat
      ffenc repair broken good --without-camera wrist
    """
    from ffenc.dataset.repair.run import repair_dataset  # noqa: PLC0415 - keeps --help quick

    with kept_said(Path(destination), "files made are"), progress_bar("repairing", None) as said:
        done = repair_dataset(
            source,
            destination,
            dry_run=dry_run,
            on_progress=lambda what, frames, of: said(frames, of, what),
            **settings,
        )
    if as_json:
        fields: dict[str, Any] = {
            "source": str(done.source),
            "destination": str(done.destination),
            "actions": [plain_fields(action) for action in done.actions],
            "episodes": [plain_fields(episode) for episode in done.episodes],
        }
        if done.summary is not None:
            fields |= {"resumed": done.resumed, "result": summary_fields(done.summary)}
        print_json(fields)
        return
    _show(done)


def _show(done: Repair) -> None:
    for action in done.actions[:_SHOWN]:
        output.summary(f"{action}")
    if len(done.actions) > _SHOWN:
        output.summary(f"... and {len(done.actions) - _SHOWN} more; --json has all")
    changed = [episode for episode in done.episodes if episode.why]
    for episode in changed[:_SHOWN]:
        fate = "left out"
        if episode.result is not None:
            fate = f"becomes episode {episode.result}"
            if episode.kept < episode.rows:
                fate = f"becomes episode {episode.result}, cut to {episode.kept} of {episode.rows} rows"
        output.summary(f"episode {episode.number}: {fate}: {episode.why}")
    if len(changed) > _SHOWN:
        output.summary(f"... and {len(changed) - _SHOWN} more episodes; --json has all")
    kept = sum(episode.result is not None for episode in done.episodes)
    whole = kept - sum(episode.result is not None for episode in changed)
    said = f"{kept} of {count(len(done.episodes), 'episode')} kept, {whole} complete"
    if done.summary is None:
        output.summary(f"{done.destination} (not written): {said}")
        return
    print_summary(done.summary)
    if done.summary.complete_before:
        return
    taken = f"; {count(done.resumed, 'file')} decoded or made by an earlier run" if done.resumed else ""
    output.summary(f"{said}; every frame decoded{taken}")
