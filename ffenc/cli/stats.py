"""``ffenc stats``."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import click
import numpy as np

from ffenc.cli import output
from ffenc.cli.common import SourceName, json_option, links_option, program_options
from ffenc.cli.display import progress_bar
from ffenc.cli.output import print_json
from ffenc.words import count

_SHOWN = 20


@click.command("stats")
@click.argument("dataset", type=SourceName(remote=True), metavar="DATASET")
@click.option("--write", is_flag=True, help="Replace meta/stats.json; the old file is kept beside it.")
@click.option("--cameras", is_flag=True, help="Check the cameras too, which decodes all frames.")
@links_option
@json_option
@program_options
def command(dataset: str, write: bool, cameras: bool, as_json: bool, **settings: Any) -> None:
    """Compare the statistics in meta/stats.json with those of all rows, and correct them.

    Policies normalise by these numbers. LeRobot computes q01 ... q99 as the mean of the episodes' quantiles,
    which can be far from the quantiles of all rows; manual edits can leave other statistics out of date. All
    numeric columns are checked, and with --cameras the quantiles of the cameras. Nothing is written without
    --write.

    \b
    Examples:
      ffenc stats my_dataset
      ffenc stats my_dataset --cameras --write
      ffenc stats my_dataset --json
    """
    from ffenc.dataset.restat import OLD_STATS, restate  # noqa: PLC0415 - keeps --help quick

    if not cameras and any(settings[name] is not None for name in ("ffmpeg", "ffprobe")):
        raise click.UsageError("--ffmpeg and --ffprobe have no effect without --cameras; leave them out")
    with progress_bar("decoding", None) if cameras else nullcontext(lambda *_: None) as on_frames:
        found = restate(dataset, write=write, cameras=cameras, on_progress=on_frames, **settings)
    if as_json:
        print_json(
            {
                "dataset": str(found.root),
                "written": found.written,
                "differences": [
                    {
                        "feature": one.feature,
                        "name": one.name,
                        "stored": one.stored,
                        "exact": one.exact,
                        "share_of_span": one.share,
                    }
                    for one in found.differences
                ],
                "left": dict(found.left),
            }
        )
        return
    for one in found.differences[:_SHOWN]:
        if one.stored is None:
            output.result(f"  {one.feature} {one.name}: not stored")
            continue
        stored, exact = np.ravel(one.stored), np.ravel(one.exact)
        which = f"[{one.at}]" if exact.size > 1 else ""
        output.result(
            f"  {one.feature}{which} {one.name}: {stored[one.at]:.6g} stored, "
            f"{exact[one.at]:.6g} over all rows (off by {one.share:.1%} of its range)"
        )
    if len(found.differences) > _SHOWN:
        output.result(f"  ... and {len(found.differences) - _SHOWN} more; --json has all")
    for feature, why in found.left.items():
        output.result(f"  {feature}: unchanged: {why}")
    what = count(len(found.differences), "statistic")
    if found.written:
        output.result(f"{found.root}: {what} corrected; the old file is {found.root / OLD_STATS}")
    elif found.differences:
        output.result(f"{found.root}: {what} not equal to those of all rows; --write corrects them")
    else:
        output.result(f"{found.root}: all statistics match its rows")
