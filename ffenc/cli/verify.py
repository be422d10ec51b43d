"""``ffenc verify``."""

from __future__ import annotations

import math
import shlex
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from ffenc.cli.common import SourceName, json_option, links_option, mapping_option, program_options
from ffenc.cli.compare import show_comparison
from ffenc.cli.display import human_seconds, progress_bar, report_console, report_table
from ffenc.cli.jobs import executor_of, on_options
from ffenc.cli.output import print_json
from ffenc.cli.pages import asked_page, page_options, write_contact
from ffenc.cli.values import Real
from ffenc.fields import plain_fields
from ffenc.layout import INFO
from ffenc.words import count

if TYPE_CHECKING:
    from rich.console import Console

    from ffenc.dataset.verify.faults import CameraCheck, Fault, Verification
    from ffenc.report.contact import Finding

_PREFIX = "observation.images."
_LINES, _NOTES = 24, 4  # lines of a screen; kinds of notes


@click.command("verify")
@click.argument("path", type=SourceName(remote=True), metavar="DATASET_OR_FILE")
@click.option("--deep", is_flag=True, help="Decode every frame, and compare episodes with their statistics.")
@click.option(
    "--again",
    is_flag=True,
    help="With --deep: decode all videos again, also those with the SHA-256 of an earlier run.",
)
@click.option(
    "--against",
    type=SourceName(remote=True),
    metavar="SRC",
    help="Compare every frame with the dataset, recording or images it was made from.",
)
@mapping_option("the one that the dataset was created with", note="With --against, for recordings: ")
@click.option(
    "--max-depth-error",
    type=Real(0),
    metavar="MM",
    help="With --against: the largest accepted depth error, in millimetres [default: the widest step of the "
    "camera's quantiser].",
)
@click.option(
    "--metrics",
    is_flag=True,
    help="With --against: also measure every frame as `ffenc compare` does (VMAF, SSIM, PSNR; depth in mm).",
)
@page_options
@on_options[0]
@on_options[1]
@links_option
@json_option
@program_options
@click.pass_context
def command(
    context: click.Context,
    path: str,
    deep: bool,
    again: bool,
    against: str | None,
    mapping: str | None,
    max_depth_error: float | None,
    metrics: bool,
    report: str | None,
    episodes: str | None,
    overwrite: bool,
    on: str | None,
    same_program: str | None,
    follow_links: bool,
    as_json: bool,
    ffmpeg: str | None,
    ffprobe: str | None,
) -> None:
    """Check a LeRobot dataset (v3.0, v2.1 or v2.0) or a video file. Nothing is changed.

    The exit status is 0 if no fault is found, and 1 otherwise.

    \b
    Examples:
      ffenc verify my_dataset
      ffenc verify my_dataset --deep --json
      ffenc verify s3://lab/my_dataset
      ffenc verify my_dataset --report found.html
      ffenc verify my_dataset --against my_image_dataset --metrics
      ffenc verify lossy_depth --against my_image_dataset --max-depth-error 20
    """
    from ffenc.dataset.verify.run import verify_dataset  # noqa: PLC0415 - keeps --help quick

    if metrics and against is None:
        raise click.UsageError("--metrics has no effect without --against; pass --against SRC too")
    executor = executor_of({"on": on, "same_program": same_program})
    page = asked_page(report, episodes=episodes, overwrite=overwrite)
    began = time.monotonic()
    with progress_bar("verifying", None) as on_frames:
        found = verify_dataset(
            path,
            deep=deep,
            again=again,
            against=against,
            mapping=mapping,
            max_depth_error=max_depth_error,
            follow_links=follow_links,
            ffmpeg=ffmpeg,
            ffprobe=ffprobe,
            on_frames=on_frames,
            executor=executor,
        )
    seconds = time.monotonic() - began
    measured = None
    if metrics and against is not None and found.sound:  # different frames cannot be measured
        measured = _measured(
            against, path, mapping=mapping, follow_links=follow_links, ffmpeg=ffmpeg, ffprobe=ffprobe
        )
    if as_json:
        print_json(_json_fields(found, seconds) | ({"metrics": measured} if metrics else {}))
    else:
        if measured is not None:
            show_comparison(measured)
        _show(found, seconds)
    if page is not None:
        write_contact(
            page,
            found.path,
            title=f"What was found in {found.path.name}",
            intro=[_summary(found, seconds)],
            tables=[("Cameras", *_rows(found))] if found.cameras else [],
            findings=_findings(found),
            episodes=episodes,
            follow_links=follow_links,
            as_json=as_json,
            ffmpeg=ffmpeg,
            ffprobe=ffprobe,
        )
    if not found.sound:
        context.exit(1)


def _measured(against: str, path: str, **settings: Any) -> dict[str, Any]:
    """Return the quality of each camera, and its worst frames, as in ``ffenc compare``."""
    from ffenc.dataset.remote import source_path  # noqa: PLC0415
    from ffenc.frames.info_json import read_info  # noqa: PLC0415
    from ffenc.tune.compare import compare_sources, comparison_fields  # noqa: PLC0415

    with ExitStack() as closing, progress_bar("measuring", None) as on_frames:
        fps = None
        origin, made = source_path(against), source_path(path)
        if not (origin / INFO).is_file():
            fps = str(read_info(made)["fps"])  # a tree of images has the dataset's frame rate
        found = compare_sources(origin, [made], closing, fps=fps, on_frames=on_frames, **settings)
        return comparison_fields(found)


def _findings(found: Verification) -> list[Finding]:
    """Return faults and notes for the page."""
    from ffenc.report.contact import Finding  # noqa: PLC0415

    return [
        Finding(str(one), one.fix, one.severity == "fault", one.camera, one.episode, one.frame)
        for one in (*found.faults, *found.notes)
    ]


def _rows(found: Verification) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of the table of cameras."""
    columns = ["camera", "stream", "files", "episodes", "frames", "state"]
    rows = [
        [
            (camera.camera or str(found.path)).removeprefix(_PREFIX),
            f"{camera.codec} {camera.pix_fmt}" if camera.codec else camera.kind,
            f"{camera.files}",
            f"{camera.episodes}" if found.layout else "",
            f"{camera.frames}",
            _state(camera),
        ]
        for camera in found.cameras
    ]
    return columns, rows


def _json_fields(found: Verification, seconds: float) -> dict[str, Any]:
    from ffenc.dataset.verify.against import without_infinity  # noqa: PLC0415

    fields = plain_fields(found)
    for listed, faults in ((fields["faults"], found.faults), (fields["notes"], found.notes)):
        for one, fault in zip(listed, faults, strict=True):
            one["what"] = fault.what
    for camera in fields["cameras"]:
        camera["compared"] = camera["compared"] and without_infinity(camera["compared"])
    fields |= {"path": str(found.path), "sound": found.sound, "seconds": round(seconds, 3)}
    fields["against"] = None if found.against is None else str(found.against)
    return fields


def _show(found: Verification, seconds: float) -> None:
    from ffenc.dataset.verify.faults import grouped  # noqa: PLC0415

    console = report_console()
    notes = grouped(found.notes)
    repairable = bool(found.faults) and (found.layout or "").startswith("v3")
    used = 1 + repairable + 2 * min(len(notes), _NOTES)
    if found.cameras:
        columns, rows = _rows(found)
        table = report_table(*columns, numbers=("files", "episodes", "frames"))
        for row in rows:
            table.add_row(*row)
        console.print(table)
        used += 2 + len(found.cameras)
    _show_groups(console, grouped(found.faults), "", max(3, (_LINES - used) // 4))
    _show_groups(console, notes, "note: ", _NOTES)
    if repairable:
        source = shlex.quote(str(found.path))
        console.print(f"`ffenc repair {source} NEW --dry-run` says what can be repaired", soft_wrap=True)
    console.print(_summary(found, seconds), soft_wrap=True)


def _show_groups(console: Console, groups: list[tuple[Fault, int]], mark: str, room: int) -> None:
    for fault, times in groups[:room]:
        like = f" ... and {times - 1:,} more like this" if times > 1 else ""
        console.print(f"{mark}{fault}{like}", soft_wrap=False)
        console.print(f"    {fault.fix}")
    if len(groups) > room:
        rest = sum(times for _, times in groups[room:])
        console.print(f"{mark}... and {rest} more of {len(groups) - room} other kinds; --json has all")


def _state(camera: CameraCheck) -> str:
    if camera.faults:
        return count(camera.faults, "fault")
    compared = camera.compared
    if compared is None:
        return "ok"
    if compared.differing is not None:
        if not compared.differing:
            return "ok, identical"
        assert compared.farthest is not None
        episode, frame = compared.farthest
        return (
            f"ok, {count(compared.differing, 'depth sample')} differ: up to {compared.max_difference:.1f} mm "
            f"(episode {episode} frame {frame}), {compared.mean_difference:.2f} mm on average"
        )
    if math.isinf(compared.psnr_min):
        return "ok, identical"
    episode, frame = compared.psnr_worst
    return (
        f"ok, PSNR {compared.psnr_mean:.1f} dB, worst {compared.psnr_min:.1f} "
        f"(episode {episode} frame {frame}), SSIM {compared.ssim_mean:.4f}"
    )


def _summary(found: Verification, seconds: float) -> str:
    result = "sound" if found.sound else count(len(found.faults), "fault")
    held = count(found.frames, "frame")
    if found.layout:
        held = f"LeRobot {found.layout}, {count(found.episodes, 'episode')}, {held}"
    how = "every frame decoded" if found.deep else "not decoded (--deep does)"
    if found.recorded:
        how += f" ({count(found.recorded, 'file')} by an earlier run; --again decodes them again)"
    if found.against is not None:
        how = (f"{how}, " if found.deep else "") + f"compared with {found.against}"
    return f"{found.path}: {result}; {held}, {how}, {human_seconds(seconds)}"
