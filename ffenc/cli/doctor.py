"""``ffenc doctor``."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from ffenc.cli import output
from ffenc.cli.common import PresetName, SettingsCommand, json_option, program_options, transform_options
from ffenc.cli.display import report_console
from ffenc.cli.output import print_json
from ffenc.cli.values import Real, ValueType
from ffenc.cli.verdict import print_reasons, print_verdict, steps, verdict_table

if TYPE_CHECKING:
    from rich.table import Table

    from ffenc.config.preset import RobotPreset
    from ffenc.ffmpeg.toolchain import Program, Toolchain
    from ffenc.frames.survey import Surveyed
    from ffenc.recording.keep_up import CameraVerdict, PresetVerdict


class _Size(ValueType):
    """``640x480``."""

    name = "WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", str(value))
        if match is None or not all(16 <= int(n) <= 16384 for n in match.groups()):
            self.fail(f"{value!r} is not a size such as 640x480, of 16 to 16384 pixels", param, ctx)
        return int(match[1]), int(match[2])


@click.command("doctor", cls=SettingsCommand)
@click.argument("preset", type=PresetName(), metavar="[PRESET]", required=False)
@click.option(
    "--size",
    type=_Size(),
    help="Frame size for the encoder table, in pixels [default: the preset's, or 640x480].",
)
@click.option(
    "--seconds",
    type=Real(0.5, 600),
    default=3.0,
    show_default=True,
    help="Seconds per measurement; at most 1 for each encoder of the table.",
)
@transform_options
@json_option
@program_options
def command(
    preset: str | None,
    size: tuple[int, int] | None,
    seconds: float,
    as_json: bool,
    ffmpeg: str | None,
    ffprobe: str | None,
    overrides: list[tuple[tuple[str, ...], Any]],
) -> None:
    """Show what this machine can encode, and whether it can record PRESET in real time.

    Lists every ffmpeg and which one is used, tries every encoder, and measures those that run. With PRESET (a
    name or a YAML file), all its cameras are encoded at once, at their size and frame rate; if the machine is
    too slow, faster settings are tried and printed. The exit status is 0 if the preset can be recorded, or
    without PRESET, if any encoder runs.

    \b
    Examples:
      ffenc doctor
      ffenc doctor so101
      ffenc doctor my_robot.yaml --camera_encoder.vcodec=h264
      ffenc doctor so101 --json
    """
    from ffenc.config.preset import load_preset  # noqa: PLC0415 - keeps --help quick
    from ffenc.errors import ToolchainError  # noqa: PLC0415
    from ffenc.ffmpeg.toolchain import find_programs, how_to_get, toolchains  # noqa: PLC0415
    from ffenc.frames.survey import survey  # noqa: PLC0415
    from ffenc.recording.keep_up import check_preset  # noqa: PLC0415

    robot = load_preset(preset, overrides) if preset is not None else None
    if robot is None and overrides:
        raise click.UsageError(
            "settings have no effect without a preset; name one, such as ffenc doctor so101"
        )
    if robot is not None:
        _check_cameras(preset, robot, overrides)
    width, height = size or _first_size(robot)
    findings = _Findings(
        programs=find_programs("ffmpeg", ffmpeg),
        probes=find_programs("ffprobe", ffprobe),
        size=(width, height),
        robot=robot,
    )
    try:
        findings.found = toolchains(ffmpeg, ffprobe)
    except ToolchainError as error:
        findings.missing = f"nothing can be encoded: {error}"
    else:
        with steps() as on_step:
            findings.encoders = survey(
                findings.found, width=width, height=height, seconds=min(seconds, 1.0), on_step=on_step
            )
            if robot is not None:
                hardware = [row.vcodec for row in findings.encoders if row.runs and _is_advised(row.vcodec)]
                findings.verdict = check_preset(
                    robot, toolchains=findings.found, hardware=hardware, seconds=seconds, on_step=on_step
                )
        cameras = findings.verdict.cameras if findings.verdict is not None else []
        if not any(row.runs for row in findings.encoders) and not any(camera.encoding for camera in cameras):
            findings.missing = f"nothing can be encoded: no encoder runs; {how_to_get()}"
    if findings.verdict is not None:
        for text in lossy_depth(findings.verdict):
            output.warning(text)
    if as_json:
        print_json(_fields(findings))
    else:
        _show(findings)
        if findings.missing:
            output.error(findings.missing)
    keeps_up = findings.verdict is None or findings.verdict.keeps_up
    sys.exit(1 if findings.missing or not keeps_up else 0)


def _first_size(robot: RobotPreset | None) -> tuple[int, int]:
    from ffenc.recording.keep_up import DEFAULT_SIZE  # noqa: PLC0415

    for camera in robot.cameras.values() if robot is not None else ():
        if camera.width and camera.height:
            # Even, and at least 64: the table is for every encoder's default format, not this camera's. Wider
            # than 64, since x265 does not store depth that is 64 wide without loss.
            return max(camera.width // 2 * 2, 80), max(camera.height // 2 * 2, 64)
    return DEFAULT_SIZE


def _check_cameras(
    preset: str | None, robot: RobotPreset, overrides: list[tuple[tuple[str, ...], Any]]
) -> None:
    """Reject a preset without cameras, and settings of a camera that the preset does not have."""
    from ffenc.config.matching import check_encoders, check_named  # noqa: PLC0415
    from ffenc.config.preset import load_preset  # noqa: PLC0415
    from ffenc.errors import ConfigError  # noqa: PLC0415

    check_named(overrides, load_preset(preset).cameras, str(preset))
    if not robot.cameras:
        raise ConfigError(f"{preset} has no cameras")
    check_encoders(robot, overrides)


def lossy_depth(verdict: PresetVerdict) -> list[str]:
    """Return a sentence for each depth camera whose settings change depth values."""
    return [
        f"{camera.camera}: depth would be encoded with loss ({camera.encoding.codec.encoder}), "
        "which causes errors of up to some hundred mm at edges and fills holes; the default "
        "settings (hevc, extra_options "
        "{x265-params: lossless=1}) lose nothing, and `ffenc tune` measures it on your own pictures"
        for camera in verdict.cameras
        if camera.encoding is not None and camera.encoding.depth and not camera.encoding.lossless
    ]


def _is_advised(vcodec: str) -> bool:
    """Return whether it is a hardware encoder without a required bit rate, which only the user can choose."""
    from ffenc.codecs.table import CODECS  # noqa: PLC0415

    return CODECS[vcodec].hardware and not CODECS[vcodec].needs_bit_rate


class _Findings(Struct):
    """All results of doctor.

    Attributes:
        programs, probes: every ffmpeg and ffprobe.
        found: the usable ones, best first.
        encoders: the tested encoders, at ``size``.
        robot, verdict: the preset, and whether this machine can record it.
        missing: why no encoder can be used; "" if one can.
    """

    programs: Sequence[Program]
    probes: Sequence[Program]
    size: tuple[int, int]
    robot: RobotPreset | None
    found: Sequence[Toolchain] = ()
    encoders: Sequence[Surveyed] = ()
    verdict: PresetVerdict | None = None
    missing: str = ""


def _show(findings: _Findings) -> None:
    programs, probes, encoders = findings.programs, findings.probes, findings.encoders
    robot, verdict = findings.robot, findings.verdict
    if sys.stdout is None:  # closed: only the exit status reports the result
        return
    console = report_console()
    numbers = {one.ffmpeg: number for number, one in enumerate(findings.found, 1)}
    if programs or probes:
        console.print(_program_table(programs, probes, numbers))
    if encoders:
        console.print(_encoder_table(encoders, numbers, findings.size))
        print_reasons(console, _absent(encoders))
    if robot is not None and verdict is not None:
        print_verdict(console, robot, verdict)


def _program_table(programs: Sequence[Program], probes: Sequence[Program], numbers: dict[str, int]) -> Table:
    table = verdict_table("", "version", "from", "", "program")
    for program in programs:
        number = numbers.get(program.path)
        said = program.fault or ("tried first" if number == 1 else "")
        table.add_row(str(number or "-"), _number(program.version), program.origin, said, program.path)
    first = next((probe.path for probe in probes if not probe.fault), None)
    for probe in probes:
        said = probe.fault or ("used" if probe.path == first else "")
        table.add_row("", _number(probe.version), probe.origin, said, probe.path)
    return table


def _number(version: str) -> str:
    """Return ``9.0.2`` for ``n9.0.2-17-g2a571b6068``."""
    match = re.match(r"n?(\d+(\.\d+)+)", version)
    return match[1] if match else version


def _encoder_table(encoders: Sequence[Surveyed], numbers: dict[str, int], size: tuple[int, int]) -> Table:
    table = verdict_table(f"runs at {size[0]}x{size[1]}", "with", "library", "fps", "")
    for row in encoders:
        if row.encoding is not None:
            depth = row.pix_fmt != "yuv420p"
            table.add_row(
                f"{row.vcodec} {row.pix_fmt}" if depth else row.vcodec,
                str(numbers[row.encoding.toolchain.ffmpeg]),
                row.encoding.encoder_version,
                _fps(row.fps),
                "depth, every sample came back" if depth else "",
            )
    return table


def _absent(encoders: Sequence[Surveyed]) -> dict[str, list[str]]:
    """Return the encoders that do not run, by reason: reason -> names."""
    reasons: dict[str, list[str]] = {}
    for row in encoders:
        if row.encoding is None:
            depth = "" if row.pix_fmt == "yuv420p" else f" {row.pix_fmt}"
            reasons.setdefault(row.reason, []).append(f"{row.vcodec}{depth}")
    return reasons


def _fps(fps: float | None) -> str:
    if fps is None:
        return ""
    return f"{fps:.0f}" if fps >= 1 else "<1"


def _fields(findings: _Findings) -> dict[str, Any]:
    found, robot, verdict = findings.found, findings.robot, findings.verdict
    order = [one.ffmpeg for one in found]
    used = (order[0], found[0].ffprobe) if found else ()

    def program_fields(program: Program) -> dict[str, Any]:
        fields = {"path": program.path, "version": program.version, "from": program.origin}
        return fields | {"fault": program.fault or None, "used": program.path in used}

    fields: dict[str, Any] = {
        "ffmpeg": [program_fields(program) for program in findings.programs],
        "ffprobe": [program_fields(probe) for probe in findings.probes],
        "size": list(findings.size),
        "encoders": [
            {
                "vcodec": row.vcodec,
                "encoder": row.encoder,
                "pix_fmt": row.pix_fmt,
                "listed_by": [order[i] for i in row.listed_by],
                "runs": row.runs,
                "runs_with": row.encoding.toolchain.ffmpeg if row.encoding else None,
                "encoder_version": row.encoding.encoder_version if row.encoding else None,
                "fps": round(row.fps, 1) if row.fps is not None else None,
                "reason": row.reason or None,
            }
            for row in findings.encoders
        ],
        "error": findings.missing or None,
    }
    if robot is not None:
        fields["preset"] = robot.name
        fields["keeps_up"] = verdict is not None and verdict.keeps_up
    if verdict is not None:
        fields["cameras"] = [_camera_fields(camera) for camera in verdict.cameras]
        fields["advice"] = verdict.advice
        fields["with_advice"] = [_camera_fields(camera) for camera in verdict.advised]
    return fields


def _camera_fields(camera: CameraVerdict) -> dict[str, Any]:
    encoding = camera.encoding
    return {
        "camera": camera.camera,
        "vcodec": encoding.config.vcodec if encoding else None,
        "auto_passed_over": encoding.why() if encoding else {},
        "pix_fmt": encoding.config.pix_fmt if encoding else None,
        "preset": encoding.config.preset if encoding else None,
        "width": encoding.width if encoding else None,
        "height": encoding.height if encoding else None,
        "fps": float(encoding.fps) if encoding else None,
        "ffmpeg": encoding.toolchain.ffmpeg if encoding else None,
        "real_time_factor": round(camera.factor, 3),
        "cpu_share": round(camera.cpu, 3) if camera.factor else None,
        "keeps_up": camera.keeps_up,
        "reason": camera.reason or None,
    }
