"""Print whether a machine keeps up with a preset's cameras: a table, and the flags that help."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ffenc.cli import output
from ffenc.cli.display import is_terminal, report_table
from ffenc.words import count

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ffenc.config.preset import RobotPreset
    from ffenc.recording.keep_up import CameraVerdict, PresetVerdict


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Show the current step on a terminal; yields a function that takes its text."""
    if output.is_quiet() or not is_terminal(sys.stderr):
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - only if it is shown

    with Console(stderr=True).status("looking") as status:
        yield status.update


def verdict_table(*columns: str) -> Table:
    """Return an empty table with right-aligned figures."""
    return report_table(*columns, numbers=("fps", "speed", "CPU"))


def print_verdict(console: Console, robot: RobotPreset, verdict: PresetVerdict) -> None:
    """Print each camera's speed, why a camera cannot be encoded, and what to do."""
    console.print(_camera_table(robot, verdict.cameras))
    reasons: dict[str, list[str]] = {}
    for camera in verdict.cameras:
        if camera.reason:
            reasons.setdefault(camera.reason, []).append(camera.camera)
    print_reasons(console, reasons)
    for line in _conclusion(robot, verdict):
        console.print(line, soft_wrap=True)


def print_reasons(console: Console, reasons: Mapping[str, Sequence[str]]) -> None:
    """Print each reason once, with the names that it applies to."""
    for reason, names in reasons.items():
        console.print(f"{', '.join(names)}: {reason}", soft_wrap=True)


def _camera_table(robot: RobotPreset, cameras: Sequence[CameraVerdict]) -> Table:
    from ffenc.recording.keep_up import FULL_PACE  # noqa: PLC0415

    table = verdict_table(f"camera of {robot.name}", "settings", "size, fps", "speed", "CPU", "verdict")
    for camera in cameras:
        if camera.encoding is None:
            table.add_row(camera.camera, "", "", "", "", "cannot be encoded")
            continue
        encoding = camera.encoding
        config = encoding.config
        settings = [config.vcodec, config.pix_fmt]
        settings += [f"preset {config.preset}"] if config.preset is not None else []
        table.add_row(
            camera.camera,
            " ".join(settings) + (" (auto)" if encoding.auto else ""),
            f"{encoding.width}x{encoding.height}, {float(encoding.fps):g}",
            f"{camera.factor:.2f}x" if camera.factor < FULL_PACE * 0.99 else f"{FULL_PACE:g}x+",
            f"{camera.cpu:.0%}" if camera.factor else "",
            "gives out" if camera.reason else "keeps up" if camera.keeps_up else "falls behind",
        )
    return table


def _conclusion(robot: RobotPreset, verdict: PresetVerdict) -> Iterator[str]:
    many = len(verdict.cameras)
    cameras = f"{count(many, 'camera')} of {robot.name}" if many > 1 else f"camera of {robot.name}"
    if verdict.keeps_up:
        yield f"This machine can record the {cameras}."
        return
    yield f"This machine cannot record the {cameras} with these settings."
    encoded = [camera for camera in verdict.cameras if camera.encoding is not None]
    if not encoded or all(camera.keeps_up for camera in encoded):
        return
    others = "" if verdict.can_be_encoded else "The others: "
    if not verdict.advised:
        yield f"{others}No faster settings are known: record at a lower frame rate or a smaller size."
        return
    lines = list(flags(robot, verdict.advice))
    slowest = min(
        (camera for camera in verdict.advised if camera.encoding is not None),
        key=lambda camera: (camera.keeps_up, camera.factor),
    )
    if slowest.keeps_up:
        yield f"{others}It keeps up with:"
        yield from lines
    else:
        yield f"{others}Faster, but still too slow ({slowest.camera} at {slowest.factor:.2f}x):"
        yield from lines
        yield "Record at a lower frame rate or a smaller size."
    if any(changes.get("vcodec") == "ffv1" for changes in verdict.advice.values()):
        yield "(LeRobot does not read ffv1; ffenc does.)"


def flags(robot: RobotPreset, advice: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Return the advice as flags: one line per camera, or one line if all cameras of a kind get the same."""
    shown = set()
    for name, changes in advice.items():
        depth = robot.cameras[name].depth
        alike = [other for other, camera in robot.cameras.items() if camera.depth == depth]
        if len(alike) > 1 and all(advice.get(other) == changes for other in alike):
            prefix = "depth_encoder" if depth else "camera_encoder"
        else:
            prefix = f"cameras.{name}.encoder"
        if prefix not in shown:
            shown.add(prefix)
            yield "  " + " ".join(_flag(f"--{prefix}.{field}", value) for field, value in changes.items())


def _flag(name: str, value: Any) -> str:
    return shlex.quote(f"{name}={'null' if value is None else value}")
