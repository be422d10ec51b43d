"""What several commands share: settings in LeRobot's spelling, program options, progress."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from ffenc.cli import output
from ffenc.cli.output import print_json, printable
from ffenc.cli.remote import check_hub, local_name
from ffenc.errors import ConfigError, DestinationError
from ffenc.storage.address import Address, is_address, parse_address
from ffenc.words import camera_frames, count, size_ratio

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ffenc.config.plain_yaml import KeyPath
    from ffenc.dataset.executors.local import Executor
    from ffenc.dataset.job import JobPlan, JobSummary

_WIDTH = 110  # where the output is not a terminal

Function = TypeVar("Function", bound=Callable[..., Any])

OVERRIDES_HELP = """\b
Any encoder setting can be given in LeRobot's spelling, and wins over the preset:
  --dataset.camera_encoder.vcodec=h264   --dataset.rgb_encoder.crf 23
  --camera_encoder.extra_options='{"tune": "film", "profile:v": "high", "bf": 2}'
  --cameras.wrist.encoder.crf=20         (one camera)
"""


RECORDING_HELP = """\b
LeRobot's recording flags too: --robot.type, --dataset.fps, --dataset.video, --dataset.vcodec,
--dataset.streaming_encoding, --dataset.encoder_queue_maxsize, --dataset.encoder_threads, and
  --robot.cameras='{front: {type: opencv, index_or_path: 0, width: 640, height: 480, fps: 30}}'
"""


class PathName(click.Path):
    """A path as a person types it: ``~`` is the home folder, even where no shell has expanded it.

    Args:
        remote: it may be an address too, which is left as it is.
        **kind: as of click.Path.
    """

    read = False  # whether it names what is read

    def __init__(self, *, remote: bool = False, **kind: Any) -> None:
        super().__init__(**kind)
        self.remote = remote

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("a path is empty", param, ctx)
        if isinstance(value, str):
            if self.remote and is_address(value):
                place = parse_address(value)
                return value if isinstance(place, Address) else str(place)
            value = local_name(value, read=self.read)
            value = os.path.expanduser(value)  # noqa: PTH111 - a home that is not known stays as it is
        return super().convert(value, param, ctx)


class SourceName(PathName):
    """A path that is read; a name on the Hugging Face Hub is answered with how to download it."""

    read = True

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not is_address(value):
            check_hub(value)
        return super().convert(value, param, ctx)


class SettingsCommand(click.Command):
    """A command that also takes encoder settings in LeRobot's spelling; they come as ``overrides``.

    Options of the command's own may have such a spelling; they are left to it.
    """

    recording = False  # whether it takes LeRobot's recording flags as well

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from ffenc.config.overrides import split_overrides  # noqa: PLC0415 - few have

        own = {name for option in self.params for name in (*option.opts, *option.secondary_opts)}
        own = {name for name in own if "." in name}
        try:
            overrides, rest = split_overrides(args, recording=self.recording, own=own)
        except ConfigError as error:
            raise click.UsageError(str(error), ctx) from None
        remaining = super().parse_args(ctx, rest)
        changes = {name: ctx.params.pop(name, None) for name in _TRANSFORM}
        common = [(("transform", name), value) for name, value in changes.items() if value]
        ctx.params["overrides"] = common + overrides  # what is said of one camera wins
        return remaining

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        formatter.write_paragraph()
        for text in (OVERRIDES_HELP, RECORDING_HELP) if self.recording else (OVERRIDES_HELP,):
            for line in text.splitlines()[1:]:
                formatter.write(f"{line}\n")


class RecordingCommand(SettingsCommand):
    """A command that takes LeRobot's recording flags as well: cameras, queue, when to encode."""

    recording = True


_TRANSFORM = ("crop", "rotate", "flip", "resize", "pad")


def transform_options(function: Function) -> Function:
    """Add the options that change pictures; :class:`SettingsCommand` makes overrides of them."""
    options = [
        click.option("--crop", metavar="WxH+X+Y", help="Keep this part of pictures, such as 480x480+80+0."),
        click.option(
            "--rotate", type=click.IntRange(0, 270), metavar="90|180|270", help="Turn them clockwise."
        ),
        click.option("--flip", metavar="h|v|hv", help="Swap left and right, top and bottom, or both."),
        click.option("--resize", metavar="WxH", help="Scale them to this size, such as 320x240."),
        click.option(
            "--pad",
            is_flag=True,
            help="With --resize, keep the aspect ratio and fill up with black; else make odd sizes even.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def program_options(function: Function) -> Function:
    """Add ``--ffmpeg`` and ``--ffprobe``."""
    for name in ("ffprobe", "ffmpeg"):
        function = click.option(
            f"--{name}",
            metavar="PROGRAM",
            help=f"The {name} to use [default: FFENC_{name.upper()}, the Python package's, or PATH's].",
        )(function)
    return function


def links_option(function: Function) -> Function:
    """Add ``--follow-links``."""
    return click.option(
        "--follow-links",
        is_flag=True,
        help="Follow symbolic links that lead out of the source [default: refuse them].",
    )(function)


def job_options(dry_run: str) -> Callable[[Function], Function]:
    """Add the options of every command that makes a dataset of others.

    Args:
        dry_run: help of ``--dry-run``.
    """
    options = [
        click.option(
            "--workers", type=click.IntRange(1), help="Encodes at once [default: one a core, at most 16]."
        ),
        resume_option,
        overwrite_option,
        click.option(
            "--keep-going",
            is_flag=True,
            help="Where an episode cannot be encoded, finish all others before the error that lists them.",
        ),
        force_space_option,
        click.option("--dry-run", is_flag=True, help=dry_run),
        click.option(
            "--on",
            metavar="ray|auto|ADDRESS",
            help="Encode with Ray: ray, one of its own here; auto, the cluster of RAY_ADDRESS; ray://HOST:10001.",
        ),
        click.option(
            "--same-program",
            type=click.Choice(["prefer", "require"]),
            help="Of machines with another FFmpeg, with --on: give them no work, or end [default: prefer].",
        ),
        click.option(
            "--stats",
            type=click.Choice(["exact", "keep"]),
            default="exact",
            show_default=True,
            help="Quantiles in stats.json: of all rows, or the mean of the episodes' as LeRobot has them.",
        ),
        links_option,
        json_option,
        program_options,
    ]

    def add(function: Function) -> Function:
        for option in reversed(options):  # the last decorator is the first in --help
            function = option(function)
        return function

    return add


def retime_option(function: Function) -> Function:
    """Add ``--retime``."""
    return click.option(
        "--retime",
        is_flag=True,
        help="Put the rows of frame i at i / fps, where a dataset has a clock's timestamps.",
    )(function)


def nearest_option(function: Function) -> Function:
    """Add ``--fps-nearest``."""
    return click.option(
        "--fps-nearest",
        is_flag=True,
        help="With --fps: take any lower rate, for each new time the frame that is nearest.",
    )(function)


def json_option(function: Function) -> Function:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def resume_option(function: Function) -> Function:
    """Add ``--resume``."""
    return click.option(
        "--resume",
        is_flag=True,
        help="Take up what an interrupted run has left; a result that is complete stays.",
    )(function)


def force_space_option(function: Function) -> Function:
    """Add ``--force-space``."""
    text = "Start even where the result seems to be larger than what is free on the disk."
    return click.option("--force-space", is_flag=True, help=text)(function)


def overwrite_option(function: Function) -> Function:
    """Add ``--overwrite``."""
    text = "Replace the dataset that is at DST, where that is an address (s3://...)."
    return click.option("--overwrite", is_flag=True, help=text)(function)


def thread_setting(overrides: list[tuple[KeyPath, Any]], option: int | None) -> int | None:
    """Return ``--encoder-threads``, or what LeRobot's ``--dataset.encoder_threads`` says."""
    return option if option is not None else dict(overrides).get(("encoder_threads",))


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether somebody watches; a stream that was closed before the start is None."""
    return stream is not None and stream.isatty()


@contextmanager
def progress_bar(label: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Show a bar with rate and remaining time on a terminal; elsewhere nothing.

    Gives a function that takes the number of frames done, and, where ``total`` is None, the number of all and
    what is being done.
    """
    if output.is_quiet() or not is_terminal(sys.stderr):
        yield lambda *_: None
        return
    from rich.console import Console  # noqa: PLC0415 - only where a bar is shown
    from rich.progress import (  # noqa: PLC0415  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text  # noqa: PLC0415

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.0f} frames/s" if task.speed else "- frames/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total)
        yield lambda done, of=total, what=label: progress.update(
            task, completed=done, total=of, description=what
        )


def report_console(*, stderr: bool = False) -> Console:
    """Return what tables are printed with: as wide as the terminal; elsewhere plain, of COLUMNS or 110."""
    from rich.console import Console  # noqa: PLC0415 - only where it is shown

    class Shown(Console):
        def print(self, *objects: Any, **how: Any) -> None:
            super().print(*(_shown(one) for one in objects), **how)
            output.log_table(objects)

        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704 - rich calls it where the error is being handled, and would exit with 1

    # Not markup: paths, names and FFmpeg's words hold brackets and colons.
    asked = os.environ.get("COLUMNS", "")
    columns = int(asked) if re.fullmatch(r"[1-9]\d{0,4}", asked) else _WIDTH
    width = None if is_terminal(sys.stderr if stderr else sys.stdout) else columns
    return Shown(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def report_table(*columns: str, numbers: Collection[str] = ()) -> Table:
    """Return an empty table; ``numbers`` are the columns that are aligned to the right and never cut."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    class Shown(Table):
        def add_row(self, *cells: Any, **how: Any) -> None:
            super().add_row(*(_shown(cell) for cell in cells), **how)

    table = Shown(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        right = column in numbers
        table.add_column(
            printable(column), justify="right" if right else "left", no_wrap=right, overflow="fold"
        )
    return table


def _shown(one: Any) -> Any:
    return printable(one) if isinstance(one, str) else one


def human_bytes(count: float) -> str:
    """Return a number of bytes for people: ``7.5 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_seconds(seconds: float) -> str:
    """Return a duration for people: ``1 h 05 min``, ``3 min 20 s``, ``2.4 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def executor_of(settings: dict[str, Any]) -> Executor | None:
    """Take the options that say where a job runs out of a command's settings; None: on this machine.

    Raises:
        ConfigError: one would have no effect, or Ray is not installed.
    """
    address, same = settings.pop("on"), settings.pop("same_program")
    if address is None:
        if same is not None:
            raise ConfigError("--same-program would have no effect without --on")
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
    """Do a job with a progress bar, and say what was done; or what is kept of it, where it was ended."""
    from ffenc.dataset.job import run_plan  # noqa: PLC0415 - keeps --help quick

    finished = f"of {count(plan.encodes, 'encode')} finished and"
    with kept_said(plan.destination, finished), progress_bar(label, plan.frames) as on_frames:
        summary = run_plan(
            plan,
            resume=resume,
            force_space=force_space,
            on_progress=lambda done, _: on_frames(done),
            executor=executor,
            keep_going=keep_going,
        )
    if as_json:
        print_json(summary_fields(summary))
    else:
        print_summary(summary)


@contextmanager
def kept_said(destination: Path, finished: str) -> Iterator[None]:
    """Say what is kept of a job that is ended: how many pieces, ``finished``, and where."""
    from ffenc.dataset.staging import unfinished  # noqa: PLC0415 - keeps --help quick

    try:
        yield
    except BaseException as error:
        # A DestinationError speaks for itself; the folder may be another run's.
        kept = None if isinstance(error, DestinationError) else unfinished(destination)
        if kept is not None:
            folder, done = kept
            output.note(f"{done} {finished} kept in {folder}: go on with --resume, or delete that folder")
        raise


def summary_fields(summary: JobSummary) -> dict[str, Any]:
    """Return what a job did, for ``--json``."""
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
    """Say what a job did."""
    if summary.complete_before:
        output.summary(f"{summary.destination}: an earlier run of this job has completed it; nothing to do")
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
    if not summary.cameras:
        output.summary(f"{summary.destination}: {episodes}, {count(summary.frames, 'image')}, in {speed}")
        return
    frames = camera_frames(summary.frames, len(summary.cameras))
    sizes = f"{human_bytes(summary.source_bytes)} -> {human_bytes(summary.video_bytes)}"
    output.summary(
        f"{summary.destination}: {episodes}, {frames}, {sizes} "
        f"({size_ratio(summary.source_bytes, summary.video_bytes)}) in {speed}, verified"
        + (f"; {count(summary.resumed, 'encode')} taken over" if summary.resumed else "")
    )
    if summary.outdated:
        output.summary(
            f"{count(summary.outdated, 'kept encode')} did not fit (other settings, versions or frames): "
            "done again"
        )
