"""Parameter types, command classes and options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ffenc.cli.remote import check_hub, local_name
from ffenc.cli.values import RATE, Turn, ValueType, usage
from ffenc.storage.address import Address, is_address, parse_address

if TYPE_CHECKING:
    from ffenc.config.plain_yaml import KeyPath


Function = TypeVar("Function", bound=Callable[..., Any])

OVERRIDES_HELP = """\b
Any encoder setting can be given with LeRobot's flags. Flags override the preset:
  --dataset.camera_encoder.vcodec=h264   --dataset.rgb_encoder.crf 23
  --camera_encoder.extra_options='{"tune": "film", "profile:v": "high", "bf": 2}'
  --cameras.wrist.encoder.crf=20         (one camera)
"""


RECORDING_HELP = """\b
LeRobot's recording flags are also accepted: --robot.type, --dataset.fps, --dataset.video,
--dataset.vcodec, --dataset.streaming_encoding, --dataset.encoder_queue_maxsize,
--dataset.encoder_threads, and
  --robot.cameras='{front: {type: opencv, index_or_path: 0, width: 640, height: 480, fps: 30}}'
"""


class PathName(click.Path):
    """A path on the command line. ``~`` is expanded, also if the shell did not do it.

    Args:
        remote: also accept an address, which is not changed.
        **kind: arguments of click.Path.
    """

    read = False  # whether the command reads from this path

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
            value = os.path.expanduser(value)  # noqa: PTH111 - leaves the path unchanged if the home is unknown
        return super().convert(value, param, ctx)


class SourceName(PathName):
    """A path to read from; for a name on the Hugging Face Hub the error says how to download it."""

    read = True

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not is_address(value):
            check_hub(value)
        return super().convert(value, param, ctx)


class PresetName(ValueType):
    """The name of a preset or the path of a YAML file; for an address the error says how to copy it."""

    name = "preset"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return local_name(str(value), read=True)


class SettingsCommand(click.Command):
    """A command that also takes encoder settings in LeRobot's spelling, passed as ``overrides``.

    The command's own options take precedence over settings with the same spelling.
    """

    recording = False  # whether it also takes LeRobot's recording flags

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from ffenc.config.overrides import split_overrides  # noqa: PLC0415 - few commands need it

        own = {name for option in self.params for name in (*option.opts, *option.secondary_opts)}
        own = {name for name in own if "." in name}
        with usage(ctx):
            overrides, rest = split_overrides(args, recording=self.recording, own=own)
        remaining = super().parse_args(ctx, rest)
        for name in ("fps", "encoder_threads"):
            own_value, setting = ctx.params.get(name), dict(overrides).get((name,))
            if None not in (own_value, setting) and str(own_value) != str(setting):
                flag = f"--{name.replace('_', '-')}"
                raise click.UsageError(
                    f"{flag} is {own_value}, --dataset.{name} is {setting}: pass one of them", ctx
                )
        changes = {name: ctx.params.pop(name, None) for name in _TRANSFORM}
        common = [
            (("transform", name), value) for name, value in changes.items() if value not in (None, False)
        ]
        ctx.params["overrides"] = common + overrides  # a camera's setting overrides the common one
        return remaining

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        formatter.write_paragraph()
        for text in (OVERRIDES_HELP, RECORDING_HELP) if self.recording else (OVERRIDES_HELP,):
            for line in text.splitlines()[1:]:
                formatter.write(f"{line}\n")


class RecordingCommand(SettingsCommand):
    """A command that also takes LeRobot's recording flags: cameras, queue, time of encoding."""

    recording = True


_TRANSFORM = ("crop", "rotate", "flip", "resize", "pad")


def transform_options(function: Function) -> Function:
    """Add the options that change frames; :class:`SettingsCommand` converts them to overrides."""
    options = [
        click.option(
            "--crop", metavar="WxH+X+Y", help="Crop frames to this rectangle, in pixels: 480x480+80+0."
        ),
        click.option(
            "--rotate",
            type=Turn(),
            metavar="90|180|270",
            help="Rotate frames clockwise, in degrees.",
        ),
        click.option(
            "--flip",
            metavar="h|v|hv",
            help="Flip frames horizontally (h), vertically (v), or both (hv).",
        ),
        click.option("--resize", metavar="WxH", help="Scale frames to this size, in pixels: 320x240."),
        click.option(
            "--pad",
            is_flag=True,
            help="With --resize: keep the aspect ratio and pad with black. Alone: pad odd sizes to even.",
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


def named_twice(flag: str, *lerobots: str, default: Any, **options: Any) -> Callable[[Function], Function]:
    """Add an option that also has the name of LeRobot's flag; different values are refused."""

    def single(ctx: click.Context, param: click.Parameter, values: tuple[Any, ...]) -> Any:
        if len(set(values)) > 1:
            given = ", ".join(map(str, values))
            raise click.UsageError(
                f"{flag} and {lerobots[0]} are two names of one setting, which has the values {given}: pass "
                "one of them",
                ctx,
            )
        return values[0] if values else None

    multiple = () if default is None else (default,)
    return click.option(flag, *lerobots, multiple=True, default=multiple, callback=single, **options)


def source_rate_option(function: Function) -> Function:
    """Add ``--fps`` for sources that may have no frame rate of their own."""
    return click.option(
        "--fps",
        type=RATE,
        metavar="RATE",
        help="For image trees, recordings, and videos with irregular times: frames per second.",
    )(function)


def mapping_option(default: str, *, note: str = "") -> Callable[[Function], Function]:
    """Return what adds ``--mapping``.

    Args:
        default: what is used without it.
        note: the beginning of its help, which limits it.
    """
    return click.option(
        "--mapping",
        type=SourceName(dir_okay=False),
        metavar="FILE",
        help=f"{note}YAML file that says which arrays or topics are which cameras and features "
        f"[default: {default}].",
    )


def links_option(function: Function) -> Function:
    """Add ``--follow-links``."""
    return click.option(
        "--follow-links",
        is_flag=True,
        help="Follow symbolic links that point outside the source [default: refuse them].",
    )(function)


def preset_option(function: Function) -> Function:
    """Add ``--preset``."""
    return click.option(
        "--preset",
        type=PresetName(),
        metavar="NAME|FILE",
        help="Encoder settings of a robot preset [default: libsvtav1, crf 30, g 2].",
    )(function)


def retime_option(function: Function) -> Function:
    """Add ``--retime``."""
    return click.option(
        "--retime",
        is_flag=True,
        help="Set the timestamp of frame i to i / fps, for datasets with timestamps of a clock.",
    )(function)


def nearest_option(function: Function) -> Function:
    """Add ``--fps-nearest``."""
    return click.option(
        "--fps-nearest",
        is_flag=True,
        help="With --fps: accept any lower rate, and take the frame nearest to each new time.",
    )(function)


def json_option(function: Function) -> Function:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def resume_option(function: Function) -> Function:
    """Add ``--resume``."""
    return click.option(
        "--resume",
        is_flag=True,
        help="Continue an interrupted run. A complete result is left as it is.",
    )(function)


def force_space_option(function: Function) -> Function:
    """Add ``--force-space``."""
    text = "Start even if the result is estimated to be larger than the free disk space."
    return click.option("--force-space", is_flag=True, help=text)(function)


def overwrite_option(function: Function) -> Function:
    """Add ``--overwrite``."""
    text = "Replace the dataset at DST if DST is an address (s3://...)."
    return click.option("--overwrite", is_flag=True, help=text)(function)


def thread_setting(overrides: list[tuple[KeyPath, Any]], option: int | None) -> int | None:
    """Return ``--encoder-threads``, or else LeRobot's ``--dataset.encoder_threads``."""
    return option if option is not None else dict(overrides).get(("encoder_threads",))
