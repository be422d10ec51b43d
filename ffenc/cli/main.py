"""The ``ffenc`` command."""

from __future__ import annotations

import errno
import importlib
import logging
import signal
import sys
import warnings
from typing import Any, NoReturn

import click

from ffenc.errors import FfencError, FfencWarning
from ffenc.version import VERSION

_COMMANDS = {
    "record": "Record cameras into a LeRobot dataset, episode by episode.",
    "recover": "Bring back episodes whose recording was interrupted.",
    "reencode": "Turn a dataset of images or video into a LeRobot video dataset.",
    "merge": "Merge datasets into one, without re-encoding.",
    "encode": "Encode one folder of frames into one video file.",
    "decode": "Write the frames of a video or a video dataset as images or arrays.",
    "compile": "Print the FFmpeg command lines of a robot preset.",
    "info": "Say what a dataset holds: episodes, cameras, codecs, settings, bytes.",
    "verify": "Find what is wrong with a dataset or a video file.",
    "probe": "Print the stream fields of a video file as JSON.",
    "doctor": "Say what this machine can encode, and whether it can record a preset.",
}


class _LazyGroup(click.Group):
    """Imports a command's module when it is called for: ``ffenc --help`` loads none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"ffenc.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="ffenc")
def cli() -> None:
    """Robot-camera encoder settings to FFmpeg command lines, run and proven.

    \b
    Examples:
      ffenc record so101 my_dataset --test --episodes 3 --seconds 10
      ffenc recover my_dataset
      ffenc reencode my_image_dataset my_video_dataset --preset so101
      ffenc merge monday tuesday --out week
      ffenc encode frames/ top.mp4 --fps 30
      ffenc decode top.mp4 frames
      ffenc doctor so101
      ffenc compile aloha
      ffenc info my_video_dataset
      ffenc verify my_video_dataset
      ffenc probe top.mp4
    """


_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


class _Terminated(KeyboardInterrupt):
    """One of the signals that end a program in order."""


def _on_signal(number: int, _: Any) -> NoReturn:
    for other in _SIGNALS:  # one is enough: a second would disturb the orderly end
        signal.signal(other, signal.SIG_IGN)
    raise _Terminated(number)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    click.echo(f"ffenc: warning: {message}", err=True)


class _Told(logging.Handler):
    """Prints what the API logs, each text once: cameras that are alike say the same."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._told:
            self._told.add(text)
            click.echo(f"ffenc: {text}", err=True)


def main() -> None:
    """Run the command line; the console script's entry point."""
    for number in _SIGNALS:
        signal.signal(number, _on_signal)
    warnings.showwarning = _show_warning
    warnings.simplefilter("default", FfencWarning)
    logger = logging.getLogger("ffenc")
    logger.setLevel(logging.INFO)
    logger.handlers[:] = [_Told()]
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Abort as abort:  # click's name for KeyboardInterrupt
        end = abort.__cause__
        sys.exit(128 + (end.args[0] if isinstance(end, _Terminated) else signal.SIGINT))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except FfencError as error:
        click.echo(f"ffenc: error: {error}", err=True)
        sys.exit(1)
    except UnicodeError as error:
        click.echo(f"ffenc: error: a name that is not valid text is not supported: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        if error.errno != errno.EPIPE:
            place = f"{error.filename}: " if error.filename else ""
            click.echo(f"ffenc: error: {place}{error.strerror}", err=True)
            sys.exit(1)
        # The reader of our output has gone: `ffenc compile aloha | head -1`.
        sys.stderr.close()
        sys.exit(141)
