"""Command lines as text: shell text to paste, and golden files with readable diffs."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence

from ffenc.codecs.table import AUTO_FALLBACK, auto_fallback
from ffenc.compiler.command import compile_command
from ffenc.compiler.frames import FrameFormat, raw_format
from ffenc.config.preset import RobotPreset
from ffenc.errors import ConfigError
from ffenc.spelling import argument


def preset_commands(
    preset: RobotPreset,
    *,
    cameras: Sequence[str] | None = None,
    encoder: str | None = None,
    frames: FrameFormat = "png",
) -> dict[str, list[str]]:
    """Compile the command line of each camera of a preset.

    Args:
        preset: the robot.
        cameras: names to compile; None: all.
        encoder: the codec that ``vcodec="auto"`` stands for; default libsvtav1, which runs everywhere. For a
            depth camera it is always the software encoder that supports its bit depth.
        frames: format of colour frames, see :func:`compile_command`; depth is always raw.

    Returns:
        Camera name -> arguments.

    Raises:
        ConfigError: settings that cannot be compiled.
    """
    chosen = [camera for name, camera in preset.cameras.items() if cameras is None or name in cameras]
    if encoder is not None and not any(one.encoder.vcodec == "auto" and not one.depth for one in chosen):
        raise ConfigError(
            f"{argument('encoder', encoder)} would have no effect: it applies to colour cameras with "
            f"vcodec: auto; to use another codec, set {argument('camera_encoder.vcodec', encoder)}"
        )
    commands = {}
    for name, camera in preset.cameras.items():
        if cameras is not None and name not in cameras:
            continue
        if camera.width is None or camera.height is None:
            raise ConfigError(f"cameras.{name} has no width and height, which a command line needs")
        fallback = auto_fallback(camera.encoder.pix_fmt) if camera.depth else encoder or AUTO_FALLBACK
        commands[name] = compile_command(
            camera.encoder,
            width=camera.width,
            height=camera.height,
            fps=preset.fps,
            output=f"{name}.mp4",
            frames=raw_format(camera.encoder) if camera.depth else frames,
            encoder=fallback if camera.encoder.vcodec == "auto" else None,
            encoder_threads=preset.encoder_threads,
            transform=camera.transform,
        )
    return commands


def golden_text(command: Sequence[str]) -> str:
    """Return a command line as shell text with one option per line."""
    lines: list[str] = []
    for part in command:
        is_option = part.startswith("-") and not re.fullmatch(r"-\d+(\.\d+)?", part)
        takes_value = bool(lines) and re.fullmatch(r"-\S+", lines[-1]) is not None
        if takes_value and not is_option:
            lines[-1] += " " + shlex.quote(part)
        else:
            lines.append(shlex.quote(part))
    return " \\\n  ".join(lines) + "\n"


def golden_name(preset: str, camera: str) -> str:
    """Return the name of the golden file of a preset's camera."""
    return f"{preset}.{camera}.txt"


def golden_diff(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """Compare golden files with the compiled command lines.

    Args:
        expected: file name -> stored text.
        found: file name -> compiled text.

    Returns:
        A unified diff, or "" if there is no difference.
    """
    diff: list[str] = []
    for name in sorted({*expected, *found}):
        before, after = expected.get(name, ""), found.get(name, "")
        diff += difflib.unified_diff(
            before.splitlines(keepends=True),
            after.splitlines(keepends=True),
            f"golden/{name}" if name in expected else "/dev/null",
            f"compiled/{name}" if name in found else "/dev/null",
        )
    return "".join(diff)
