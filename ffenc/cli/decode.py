"""``ffenc decode``."""

from __future__ import annotations

import re
import time
from typing import Any

import click

from ffenc.cli import output
from ffenc.cli.common import (
    PathName,
    SettingsCommand,
    SourceName,
    json_option,
    links_option,
    named_twice,
    program_options,
)
from ffenc.cli.display import human_bytes, progress_bar
from ffenc.cli.output import print_json
from ffenc.cli.values import ValueType, Whole
from ffenc.words import count


class _Command(SettingsCommand):
    """Takes few of the settings: its help does not list them."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        click.Command.format_epilog(self, ctx, formatter)


class _Frames(ValueType):
    """``A:B``, ``A:``, ``:B``, ``A:B:STEP`` or one number."""

    name = "frames"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        match = re.fullmatch(r"(\d{0,15}):(\d{0,15})(?::(\d{1,15}))?|(\d{1,15})", value, re.ASCII)
        if match is None:
            self.fail(f"{value!r} is not a range of frames such as 0:100, 50: or 0:100:5", param, ctx)
        if match[4]:
            return int(match[4]), int(match[4]) + 1, 1
        start, stop, step = int(match[1] or 0), int(match[2]) if match[2] else None, int(match[3] or 1)
        if step < 1 or (stop is not None and stop <= start):
            self.fail(f"{value!r} has no frames; the end comes after the start", param, ctx)
        return start, stop, step


class _Depths(ValueType):
    """``NEAR:FAR`` in metres."""

    name = "depths"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        match = re.fullmatch(r"(\d*\.?\d+):(\d*\.?\d+)", value, re.ASCII)
        if match is None or float(match[1]) >= float(match[2]):
            self.fail(f"{value!r} is not a range of depths in metres such as 0.3:2.5", param, ctx)
        return float(match[1]), float(match[2])


@click.command("decode", cls=_Command)
@click.argument("source", type=SourceName(remote=True), metavar="FILE_OR_DATASET")
@click.argument("target", type=PathName(), metavar="OUT")
@click.option(
    "--frames",
    type=_Frames(),
    metavar="A:B",
    help="Decode frames A to B - 1 of each video or episode, counted from 0 [default: all].",
)
@click.option(
    "--format",
    type=click.Choice(["png", "npy"]),
    help="File format [default: npy if OUT ends in .npy, else png].",
)
@click.option(
    "--camera",
    "cameras",
    multiple=True,
    metavar="NAME",
    help="For datasets: decode only this camera; repeatable.",
)
@click.option(
    "--episode",
    "episodes",
    multiple=True,
    type=Whole(0),
    metavar="N",
    help="For datasets: decode only this episode, numbered from 0; repeatable.",
)
@named_twice(
    "--unit",
    "--dataset.depth_output_unit",
    "--depth_output_unit",
    default="mm",
    type=click.Choice(["mm", "m"]),
    help="Unit of depth: uint16 millimetres or float32 metres [default: mm].",
)
@click.option("--colormap", is_flag=True, help="Draw depth in colours, from blue (near) to red (far).")
@click.option(
    "--range",
    "near_far",
    type=_Depths(),
    metavar="NEAR:FAR",
    help="With --colormap: the range of depths, in metres [default: that of the frames].",
)
@click.option(
    "--invalid",
    type=click.Choice(["keep", "clip"]),
    help="Read depth code 0 as no depth (keep) or as the nearest depth (clip) [default: as stored in the "
    "dataset's metadata, else clip].",
)
@click.option(
    "--codes",
    is_flag=True,
    help="Write the stored samples of a depth stream, without converting them to depth.",
)
@click.option("--overwrite", is_flag=True, help="Replace the files that an earlier decode wrote to OUT.")
@links_option
@json_option
@program_options
def command(
    source: str,
    target: str,
    frames: tuple[int, int | None, int] | None,
    format: str | None,
    cameras: tuple[str, ...],
    episodes: tuple[int, ...],
    unit: str,
    colormap: bool,
    near_far: tuple[float, float] | None,
    invalid: str | None,
    codes: bool,
    overwrite: bool,
    follow_links: bool,
    as_json: bool,
    ffmpeg: str | None,
    ffprobe: str | None,
    overrides: list[tuple[tuple[str, ...], Any]],
) -> None:
    """Write the frames of a video, or of a LeRobot v3.0 video dataset, as images or arrays.

    OUT is a folder of frame-000000.png (RGB, or 16-bit gray for depth), or a file ending in .npy. A dataset
    is written to OUT/CAMERA/episode_000000. OUT appears complete, or not at all. The quantiser of depth is
    read from the dataset that contains the file; for other files pass it, as --depth_encoder.depth_max=5.

    \b
    Examples:
      ffenc decode file-000.mp4 frames
      ffenc decode file-000.mp4 depth.npy --unit m --frames 0:100
      ffenc decode my_dataset out --camera wrist_depth --episode 3 --colormap
    """
    from ffenc.dataset.decode import DepthOptions, FrameRange, plan_decode, run_decode  # noqa: PLC0415
    from ffenc.layout import DEPTH_FIELDS  # noqa: PLC0415

    for key, _ in overrides:
        if len(key) != 2 or key[0] != "depth_encoder" or key[1] not in DEPTH_FIELDS:
            raise click.UsageError(
                f"--{'.'.join(key)} is not a setting of decode; accepted: "
                + ", ".join(f"--depth_encoder.{name}" for name in DEPTH_FIELDS)
            )
    if near_far is not None and not colormap:
        raise click.UsageError("--range has no effect without --colormap; pass --colormap too")
    plan = plan_decode(
        source,
        target,
        frames=FrameRange(*frames) if frames else None,
        format=format,  # type: ignore[arg-type]
        cameras=list(cameras) or None,
        episodes=list(episodes) or None,
        depth=DepthOptions(
            unit=unit,  # type: ignore[arg-type]
            codes=codes,
            fields={key[1]: value for key, value in overrides},
            invalid=invalid,  # type: ignore[arg-type]
            colormap=colormap,
            near_far=near_far,
        ),
        overwrite=overwrite,
        follow_links=follow_links,
        ffmpeg=ffmpeg,
        ffprobe=ffprobe,
    )
    began = time.monotonic()
    with progress_bar("decoding", plan.frames) as on_frames:
        summary = run_decode(plan, on_frames=on_frames)
    seconds = time.monotonic() - began
    if as_json:
        print_json(
            {
                "destination": target,
                "files": summary.files,
                "frames": summary.frames,
                "bytes": summary.bytes,
                "seconds": seconds,
                "colormap_metres": {name: list(found) for name, found in summary.ranges.items()},
            }
        )
        return
    for name, (near, far) in summary.ranges.items():
        output.summary(f"  {'colours' if name == '.' else name}: {near:.3f} m (blue) to {far:.3f} m (red)")
    output.summary(
        f"{target}: {count(summary.frames, 'frame')} in {count(summary.files, 'file')}, "
        f"{human_bytes(summary.bytes)}, {seconds:.1f} s"
    )
