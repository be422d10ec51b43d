"""``ffenc compare``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from ffenc.cli import output
from ffenc.cli.common import (
    PathName,
    SourceName,
    json_option,
    links_option,
    mapping_option,
    program_options,
    source_rate_option,
)
from ffenc.cli.display import progress_bar, report_console, report_table
from ffenc.cli.output import print_json
from ffenc.cli.values import EPISODES
from ffenc.cli.verdict import steps
from ffenc.words import count


@click.command("compare")
@click.argument("reference", metavar="A", type=SourceName())
@click.argument("others", metavar="B [C ...]", type=SourceName(), nargs=-1, required=True)
@click.option("--cameras", metavar="X,Y", help="Compare only these cameras [default: all that A and B have].")
@click.option(
    "--episodes", type=EPISODES, metavar="0,2,5-9", help="Compare only these episodes [default: all]."
)
@source_rate_option
@mapping_option("the one that B was created with", note="If A is a recording: ")
@click.option(
    "--report",
    type=PathName(),
    metavar="FILE.html",
    help="Write an HTML page with plots and the worst frames.",
)
@click.option("--sheet", type=PathName(), metavar="FILE.png", help="Write an image of the worst frames.")
@click.option("--overwrite", is_flag=True, help="Replace existing files of --report and --sheet.")
@links_option
@json_option
@program_options
def command(
    reference: str,
    others: tuple[str, ...],
    cameras: str | None,
    episodes: str | None,
    fps: str | None,
    mapping: str | None,
    report: str | None,
    sheet: str | None,
    overwrite: bool,
    follow_links: bool,
    as_json: bool,
    ffmpeg: str | None,
    ffprobe: str | None,
) -> None:
    """Measure every frame of B, C, ... against A, which they were made from.

    A is a dataset, a recording, a tree of images or a video file. B, C, ... are video datasets or files with
    the same frames. VMAF, SSIM, PSNR and XPSNR are computed on luma, as in `ffenc tune`; depth is compared in
    millimetres.

    \b
    Examples:
      ffenc compare my_image_dataset av1_dataset h264_dataset
      ffenc compare my_image_dataset my_dataset --report compare.html --sheet worst.png
      ffenc compare original.mp4 small.mp4 --json
    """
    from ffenc.quality.measure import NO_VMAF  # noqa: PLC0415 - keeps --help quick
    from ffenc.report.compare_page import checked_sheet, write_compare_page, write_sheet  # noqa: PLC0415
    from ffenc.report.page import checked_page  # noqa: PLC0415
    from ffenc.tune.compare import compare_sources, comparison_fields  # noqa: PLC0415

    if overwrite and report is None and sheet is None:
        raise click.UsageError("--overwrite has no effect without --report or --sheet; leave it out")
    page = checked_page(report, overwrite=overwrite) if report is not None else None
    picture = checked_sheet(sheet, overwrite=overwrite) if sheet is not None else None
    with ExitStack() as closing:
        with progress_bar("comparing", None) as on_frames:
            found = compare_sources(
                reference,
                others,
                closing,
                cameras=None if cameras is None else [name.strip() for name in cameras.split(",")],
                episodes=episodes,
                fps=fps,
                mapping=mapping,
                follow_links=follow_links,
                ffmpeg=ffmpeg,
                ffprobe=ffprobe,
                on_frames=on_frames,
            )
        if found.gauge.main.name != "vmaf":
            output.warning(NO_VMAF)
        if found.left_out:
            output.warning(f"not compared, because not every source has them: {', '.join(found.left_out)}")
        fields = comparison_fields(found)
        if as_json:
            print_json(fields)
        else:
            show_comparison(fields)
        say = output.note if as_json else output.summary
        with steps() as on_step:
            if page is not None:
                on_step("drawing the page")
                write_compare_page(page, found, fields)
                say(f"{page}: open it in a browser")
            if picture is not None:
                on_step("drawing the sheet")
                write_sheet(picture, found)
                say(f"{picture}: the worst and the median frame of each camera")


def show_comparison(fields: dict[str, Any]) -> None:
    """Print a table for each camera, and the camera's worst frames."""
    console = report_console()
    metrics = fields["metrics"]
    main = metrics[fields["metric"]]
    others = [name for name in ("ssim", "psnr") if name in metrics and name != fields["metric"]]
    for camera in fields["cameras"]:
        console.print(
            f"{camera['camera']}: {count(camera['frames'], 'frame')} of {fields['reference']} "
            f"({camera['stored']}, {camera['bytes_per_frame']:.0f} B/frame)",
            soft_wrap=True,
        )
        if camera["depth"]:
            columns = ["B/frame", "mm error 50%/99%/max", "edges 99%", "outside", "holes filled"]
        else:
            columns = [
                "B/frame",
                f"{main['label']} mean/5%/worst",
                *(metrics[name]["label"] for name in others),
            ]
        table = report_table("", "stream", *columns, numbers=columns)
        for side in camera["results"]:
            table.add_row(Path(side["path"]).name, side["stored"], *_figures(side, fields, main, others))
        console.print(table)
        for side in camera["results"]:
            unit = "mm error" if camera["depth"] else main["label"]
            digits = 1 if camera["depth"] else main["digits"]
            worst = ", ".join(
                f"episode {one['episode']} frame {one['frame']} ({_figure(one['value'], digits)})"
                for one in side["worst"][:3]
            )
            console.print(f"  {Path(side['path']).name}: worst frames by {unit}: {worst}", soft_wrap=True)


def _figures(
    side: dict[str, Any], fields: dict[str, Any], main: dict[str, Any], others: list[str]
) -> list[str]:
    size = f"{side['bytes_per_frame']:.0f}"
    if "error_mm" in side:
        error = side["error_mm"]
        return [
            size,
            " ".join(f"{error['all'][name]:.1f}" for name in ("p50", "p99", "max")),
            f"{error['edges']['p99']:.1f}",
            f"{error['saturated'] * 100:.1f} %",
            f"{error['holes_filled'] * 100:.0f} %",
        ]
    own = side["quality"][fields["metric"]]
    return [
        size,
        " ".join(_figure(own[name], main["digits"]) for name in ("mean", "p5", "worst")),
        *(_figure(side["quality"][name]["mean"], fields["metrics"][name]["digits"]) for name in others),
    ]


def _figure(value: float | None, digits: int) -> str:
    return "same" if value is None else f"{value:.{digits}f}"
