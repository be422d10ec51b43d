"""The ``ffenc`` command."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType

import click
from click.shell_completion import CompletionItem, shell_complete

from ffenc.cli import output
from ffenc.cli.failure import report
from ffenc.cli.flags import Flags
from ffenc.cli.limits import check_threads
from ffenc.cli.memory import keep_freed
from ffenc.codecs.suggest import accepted
from ffenc.errors import FfencError
from ffenc.spelling import spelled
from ffenc.version import VERSION

_COMMANDS = {
    "record": "Record cameras into a LeRobot dataset, episode by episode.",
    "lerobot": "Run a LeRobot command with ffenc as its video encoder.",
    "recover": "Recover episodes whose recording was interrupted.",
    "reencode": "Encode a dataset of images or video as a LeRobot video dataset.",
    "merge": "Merge datasets into one without re-encoding.",
    "edit": "Select episodes and cameras, rename cameras, correct tasks; video is copied.",
    "split": "Split a dataset into several without re-encoding.",
    "push": "Upload a dataset to the Hugging Face Hub.",
    "pull": "Download a dataset from the Hugging Face Hub.",
    "encode": "Encode a folder of frames, or a video, as one video file.",
    "decode": "Write the frames of a video or a video dataset as images or arrays.",
    "tune": "Choose encoder settings by measuring them on your own frames.",
    "compare": "Measure the quality of videos against the frames they were made from.",
    "compile": "Print the FFmpeg command lines of a robot preset.",
    "inspect": "Show what an HDF5 file, zarr store or ROS bag contains, and write a mapping.",
    "info": "Show what a dataset contains: episodes, cameras, codecs, settings, sizes.",
    "verify": "Check a dataset or a video file, and report every fault.",
    "repair": "Make a sound dataset from a damaged one.",
    "stats": "Compare a dataset's statistics with its rows, and correct them.",
    "probe": "Print the stream fields of a video file as JSON.",
    "doctor": "Show what this machine can encode, and whether it can record a preset.",
}


_ALONE = ("compile",)  # needs no library that starts threads
_DECODING = ("compare", "decode", "edit", "merge", "repair", "tune", "verify")  # decode images here
_FOREIGN = ("lerobot",)  # runs a program that is not part of ffenc
# NumPy's OpenBLAS reads these when it is loaded. Its threads would have no work and only use CPU time.
_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


def _switch(act: Callable[[], None]) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            chosen = ctx.find_root().meta.setdefault("ffenc.output", param.name)
            if chosen != param.name:
                raise click.UsageError("--quiet and --verbose cannot be combined: pass one of them", ctx)
            act()

    return callback


def _open_log(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        try:
            output.log_to(value)
        except OSError as error:
            raise click.BadParameter(f"{value} cannot be written: {error.strerror}", ctx, param) from None


# Options of the group and of every command: allowed before the command's name and after it.
_OUTPUT_OPTIONS = [
    click.Option(
        ["--quiet", "-q"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_switch(output.be_quiet),
        help="Print warnings and errors only: no progress, no summary.",
    ),
    click.Option(
        ["--verbose", "-v"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_switch(output.be_verbose),
        help="Also print each program that is started, and the traceback of an error.",
    ),
    click.Option(
        ["--log-file"],
        type=click.Path(dir_okay=False),
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_open_log,
        help="Append all messages to FILE, with times and the details of --verbose.",
    ),
]


class _LazyGroup(click.Group):
    """Imports a command's module when the command is used, so that ``ffenc --help`` loads none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        if cmd_name not in _ALONE:
            check_threads()
        if cmd_name not in _FOREIGN:
            os.environ.setdefault(_BLAS_THREADS, "1")
        if cmd_name in _DECODING:
            keep_freed()
        command: click.Command = importlib.import_module(f"ffenc.cli.{cmd_name}").command
        if not set(_OUTPUT_OPTIONS) & set(command.params):
            command.params.extend(_OUTPUT_OPTIONS)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"there is no command {args[0]!r}{accepted(args[0], _COMMANDS)}", ctx)
        name, command, rest = super().resolve_command(ctx, args)
        flags = ctx.find_object(Flags)
        if flags is not None:
            flags.command = command
        return name, command, rest

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(name, help=text) for name, text in _COMMANDS.items() if name.startswith(incomplete)
        ]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_LazyGroup, params=[*_OUTPUT_OPTIONS], context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(VERSION, prog_name="ffenc")
def cli() -> None:
    """Compile robot-camera encoder settings to FFmpeg command lines, run them, and verify the result.

    \b
    Examples:
      ffenc record so101 my_dataset --test --episodes 3 --seconds 10
      ffenc recover my_dataset
      ffenc reencode my_image_dataset my_video_dataset --preset so101
      ffenc merge monday tuesday --out week
      ffenc edit week good --exclude-episodes 3,7
      ffenc split good parts --into train=0.9,val=0.1
      ffenc push week me/week
      ffenc encode frames/ top.mp4 --fps 30
      ffenc decode top.mp4 frames
      ffenc tune my_image_dataset
      ffenc compare my_image_dataset my_video_dataset
      ffenc doctor so101
      ffenc compile aloha
      ffenc info my_video_dataset
      ffenc inspect demo.hdf5 --write-mapping demo.yaml
      ffenc verify my_video_dataset
      ffenc repair broken good --dry-run
      ffenc probe top.mp4
    """


def run(words: Sequence[str], *, ending: Callable[[], bool] = lambda: False) -> int:
    """Run a command line, report any failure, and return the exit status.

    Every exception is reported as a message of ffenc; only a signal's exception is passed on.

    Args:
        words: the command line.
        ending: returns whether a signal has arrived; errors in threads are then only details.
    """
    output.begin()
    # Its notes on each retry; ffenc says what failed, and how often it was tried.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    hooks = sys.unraisablehook, sys.excepthook, threading.excepthook
    sys.unraisablehook = _note_unraisable
    sys.excepthook = partial(_note_printed, ending)
    threading.excepthook = partial(_note_in_thread, ending)
    try:
        # Not click's main(), which handles signals and a closed output in its own way.
        completing = os.environ.get("_FFENC_COMPLETE")
        if completing:
            return shell_complete(cli, {}, "ffenc", "_FFENC_COMPLETE", completing)
        status = 0
        try:
            flags = Flags()
            with spelled(flags), cli.make_context("ffenc", list(words), obj=flags) as context:
                cli.invoke(context)
        except click.exceptions.Exit as end:
            status = end.exit_code
        except SystemExit as end:
            status = int(end.code or 0)
        if sys.stdout is not None:
            sys.stdout.flush()  # so that a full disk or a closed pipe is reported here, not at the exit
        return status
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if ending() and not isinstance(error, FfencError):
            raise  # a library's, such as of an import that the signal has interrupted
        return report(error)
    finally:
        sys.unraisablehook, sys.excepthook, threading.excepthook = hooks


def _note_unraisable(found: sys.UnraisableHookArgs) -> None:
    """Handle an exception that a finaliser raised; a signal that was lost this way is raised again."""
    if not issubclass(found.exc_type, KeyboardInterrupt):
        output.detail(f"{found.err_msg or 'ignored'}: {found.exc_type.__name__}: {found.exc_value}")


def _note_printed(
    ending: Callable[[], bool], kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Handle an exception that C code prints before it raises another; imports of NumPy do so."""
    if not ending():
        sys.__excepthook__(kind, error, trace)


def _note_in_thread(ending: Callable[[], bool], found: threading.ExceptHookArgs) -> None:
    """Handle an exception that ended a thread: the code that waits for the thread reports it."""
    note = output.detail if ending() else output.warning
    note(f"a worker thread failed: {found.exc_type.__name__}: {found.exc_value}")
    lines = traceback.format_exception(found.exc_type, found.exc_value, found.exc_traceback)
    output.detail("".join(lines).rstrip())
