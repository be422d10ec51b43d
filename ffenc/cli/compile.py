"""``ffenc compile``."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from ffenc.cli import output
from ffenc.cli.common import PathName, PresetName, SettingsCommand, json_option, transform_options
from ffenc.cli.output import print_json
from ffenc.codecs.table import AUTO_FALLBACK
from ffenc.compiler.frames import FRAME_FORMATS, FrameFormat, is_depth
from ffenc.compiler.golden import golden_diff, golden_name, golden_text, preset_commands
from ffenc.config.matching import check_encoders, check_named
from ffenc.config.preset import chosen_cameras, load_preset, preset_names
from ffenc.errors import ConfigError
from ffenc.frames.publish import published
from ffenc.words import count


@click.command("compile", cls=SettingsCommand, epilog="Presets: " + ", ".join(preset_names()))
@click.argument("preset", type=PresetName(), metavar="PRESET")
@click.option(
    "--camera", "cameras", multiple=True, metavar="NAME", help="Print only this camera; repeatable."
)
@click.option("--encoder", metavar="NAME", help="Encoder to use for vcodec=auto [default: libsvtav1].")
@click.option(
    "--input",
    "frames",
    type=click.Choice([name for name in FRAME_FORMATS if not is_depth(name)]),
    default="png",
    show_default=True,
    help="Format of colour frames in the pipe. Depth is always raw.",
)
@click.option("--golden", type=PathName(file_okay=False), help="Write the command lines to this folder.")
@click.option(
    "--check",
    type=PathName(exists=True, file_okay=False),
    help="Compare the command lines with those in this folder.",
)
@transform_options
@json_option
def command(
    preset: str,
    cameras: tuple[str, ...],
    encoder: str | None,
    frames: FrameFormat,
    golden: str | None,
    check: str | None,
    as_json: bool,
    overrides: list[tuple[tuple[str, ...], Any]],
) -> None:
    """Print the FFmpeg command line of each camera of PRESET (a name or a YAML file). Needs no FFmpeg.

    With --check the exit status is 1 if a command line has changed.

    \b
    Examples:
      ffenc compile so101
      ffenc compile reachy2 --encoder h264_nvenc --camera torso_rgb
      ffenc compile my_robot.yaml --golden golden/
      ffenc compile my_robot.yaml --check golden/
    """
    if golden is not None and check is not None:
        raise click.UsageError("--golden writes and --check compares: pass one of them")
    if as_json and (golden is not None or check is not None):
        raise click.UsageError(
            "--json has no effect with --golden, which writes files, and --check, which prints a diff"
        )
    if overrides:
        check_named(overrides, load_preset(preset).cameras, preset)
    robot = load_preset(preset, overrides)
    names = chosen_cameras(list(robot.cameras), cameras) if cameras else list(robot.cameras)
    if not names:
        raise ConfigError(f"preset {preset} has no cameras", fix="add one under cameras: in the preset")
    check_named(overrides, robot.cameras, preset, set(robot.cameras) - set(names))
    check_encoders(robot, overrides, names)
    if encoder is None and any(robot.cameras[n].encoder.vcodec == "auto" for n in names):
        output.note(f"vcodec=auto is compiled as {AUTO_FALLBACK}; --encoder selects another encoder")
    commands = preset_commands(robot, cameras=names, encoder=encoder, frames=frames)
    texts = {golden_name(robot.name, camera): golden_text(line) for camera, line in commands.items()}
    if golden is not None:
        folder = Path(golden)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            with published(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
        output.note(f"{count(len(texts), 'file')} written to {golden}")
    elif check is not None:
        # All files of the preset, so that files of a removed camera are found too.
        every = re.compile(re.escape(robot.name) + r"\.[^.]+\.txt")
        expected = {
            path.name: path.read_text(encoding="utf-8")
            for path in Path(check).iterdir()
            if path.name in texts or (not cameras and every.fullmatch(path.name))
        }
        diff = golden_diff(expected, texts)
        output.result(diff or f"{count(len(texts), 'command line')} as they were", nl=not diff)
        sys.exit(1 if diff else 0)
    elif as_json:
        print_json(commands)
    else:
        for camera, line in commands.items():
            output.result(f"# {camera}\n{shlex.join(line)}")
