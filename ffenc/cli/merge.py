"""``ffenc merge``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ffenc.cli import output
from ffenc.cli.common import (
    PathName,
    SourceName,
    force_space_option,
    human_bytes,
    json_option,
    links_option,
    program_options,
    retime_option,
    run_job,
    stats_option,
)
from ffenc.cli.output import print_json
from ffenc.words import camera_frames, count

if TYPE_CHECKING:
    from ffenc.dataset.job import JobPlan


@click.command("merge")
@click.argument("sources", type=SourceName(), metavar="A B ...", nargs=-1, required=True)
@click.option("--out", "destination", type=PathName(), required=True, metavar="DST", help="The new dataset.")
@click.option(
    "--reencode",
    is_flag=True,
    help="Encode anew what is of another codec or pixel format than most, instead of refusing it.",
)
@click.option("--workers", type=click.IntRange(1), help="Encodes at once [default: one a core, at most 16].")
@click.option(
    "--resume",
    is_flag=True,
    help="Take up what an interrupted run has left; a result that is complete stays.",
)
@force_space_option
@click.option("--dry-run", is_flag=True, help="Check whether they go together; write nothing.")
@retime_option
@stats_option
@links_option
@json_option
@program_options
def command(
    sources: tuple[str, ...],
    destination: str,
    resume: bool,
    force_space: bool,
    dry_run: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Merge LeRobot datasets into one of v3.0. Video is copied, not re-encoded; sources are only read.

    Episodes, frames and tasks are numbered anew, equal task texts become one, statistics are aggregated. The
    datasets' frame rate, robot, features, codecs and depth quantisers must agree. DST appears whole and
    verified, or not at all. One dataset alone becomes v3.0 without re-encoding.

    \b
    Examples:
      ffenc merge monday tuesday wednesday --out week
      ffenc merge monday old_h264_dataset --out both --reencode
      ffenc merge my_v21_dataset --out my_v30_dataset
      ffenc merge monday tuesday --out week --dry-run
    """
    from ffenc.dataset.merge import plan_merge  # noqa: PLC0415 - keeps --help quick

    plan = plan_merge(list(sources), destination, resume=resume, **settings)
    if dry_run:
        _print_plan(plan, as_json)
        return
    run_job(plan, "merging", resume=resume, force_space=force_space, as_json=as_json)


def _print_plan(plan: JobPlan, as_json: bool) -> None:
    cameras = {
        stream.key: {
            "copied_episodes": len(stream.copied),
            "encoded_episodes": len(plan.episodes) - len(stream.copied),
            "source_bytes": stream.source_bytes,
        }
        for stream in plan.streams
    }
    if as_json:
        print_json(
            {
                "destination": str(plan.destination),
                "episodes": len(plan.episodes),
                "frames": plan.frames,
                "cameras": cameras,
                "image_cameras": list(plan.images),
                "commands": plan.commands(),
            }
        )
        return
    frames = camera_frames(plan.frames, len(plan.streams) + len(plan.images))
    output.result(f"{plan.destination} (not written): {count(len(plan.episodes), 'episode')}, {frames}")
    for key in plan.images:
        output.result(f"  {key}: images copied")
    for key, camera in cameras.items():
        encoded = camera["encoded_episodes"]
        how = f", {encoded} re-encoded" if encoded else ""
        size = human_bytes(camera["source_bytes"])
        output.result(f"  {key}: {count(camera['copied_episodes'], 'episode')} copied{how}, {size}")
