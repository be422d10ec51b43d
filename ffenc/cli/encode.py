"""``ffenc encode``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffenc.cli import output
from ffenc.cli.common import (
    PathName,
    SettingsCommand,
    SourceName,
    json_option,
    links_option,
    preset_option,
    program_options,
    thread_setting,
    transform_options,
)
from ffenc.cli.display import human_bytes, progress_bar
from ffenc.cli.output import print_json
from ffenc.cli.values import RATE, Whole
from ffenc.words import count

if TYPE_CHECKING:
    from ffenc.config.encoder import VideoEncoderConfig
    from ffenc.config.preset import RobotPreset
    from ffenc.config.transform import Transform


@click.command("encode", cls=SettingsCommand)
@click.argument("source", metavar="FOLDER|VIDEO", type=SourceName())
@click.argument("target", metavar="OUTPUT", type=PathName())
@click.option(
    "--fps",
    type=RATE,
    metavar="RATE",
    help="Frames per second: 30, 29.97 or 30000/1001. Required for a folder. A video's frames are put at "
    "this rate [default: the video's own].",
)
@click.option("--start", type=float, metavar="SECONDS", help="For videos: time of the first frame.")
@click.option(
    "--end", type=float, metavar="SECONDS", help="For videos: frames at this time and later are left out."
)
@preset_option
@click.option("--camera", metavar="NAME", help="With --preset: use the settings of this camera.")
@click.option(
    "--encoder-threads",
    type=Whole(1),
    help="Threads for the encoder [default: the encoder's own choice].",
)
@click.option(
    "--start-number",
    type=Whole(0),
    help="For folders: number of the first frame [default: 0 or 1].",
)
@transform_options
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
@links_option
@json_option
@program_options
def command(
    source: str,
    target: str,
    fps: str | None,
    start: float | None,
    end: float | None,
    preset: str | None,
    camera: str | None,
    encoder_threads: int | None,
    start_number: int | None,
    overwrite: bool,
    follow_links: bool,
    as_json: bool,
    ffmpeg: str | None,
    ffprobe: str | None,
    overrides: list[tuple[tuple[str, ...], Any]],
) -> None:
    """Encode a folder of numbered frames, or a video, as one MP4 file.

    Frames are PNG or JPEG images, or depth (16-bit PNG, TIFF). A video is encoded frame by frame, without its
    audio; --start and --end select a part of it.

    The time of frame i is exactly i / RATE. OUTPUT appears complete and verified, or not at all.

    \b
    Examples:
      ffenc encode frames/ top.mp4 --fps 30
      ffenc encode frames/ top.mp4 --fps 30 --camera_encoder.vcodec=h264 --camera_encoder.crf=20
      ffenc encode depth/ depth.mp4 --fps 30 --depth_encoder.preset=ultrafast
      ffenc encode long.mp4 part.mp4 --start 12.5 --end 20
      ffenc encode wide.mp4 small.mp4 --crop 480x480+80+0 --resize 240x240
    """
    from ffenc.config.preset import load_preset  # noqa: PLC0415 - keeps --help quick
    from ffenc.dataset.info_block import stream_fields  # noqa: PLC0415
    from ffenc.frames.encode_file import plan_encode  # noqa: PLC0415

    if camera is not None and preset is None:
        raise click.UsageError("--camera has no effect without --preset; pass --preset NAME|FILE too")
    fps = fps if fps is not None else dict(overrides).get(("fps",))  # from --dataset.fps
    if fps is None and Path(source).is_dir():
        raise click.UsageError("a folder of frames has no frame rate; pass --fps RATE")
    robot = load_preset(preset, overrides)
    began = time.monotonic()
    plan = plan_encode(
        source,
        target,
        fps=fps,
        start=start,
        end=end,
        start_number=start_number,
        overwrite=overwrite,
        follow_links=follow_links,
        ffmpeg=ffmpeg,
        ffprobe=ffprobe,
    )
    config, transform = _settings(robot, preset, camera, overrides, depth=plan.depth)
    threads = thread_setting(overrides, encoder_threads) or robot.encoder_threads
    with progress_bar("encoding", plan.frames) as on_frames:
        info = plan.run(config, encoder_threads=threads, transform=transform, on_frames=on_frames)
    seconds = time.monotonic() - began
    size = Path(target).stat().st_size
    if as_json:
        print_json(
            {"file": target, "frames": info.frames, "bytes": size, "seconds": seconds} | stream_fields(info)
        )
        return
    output.summary(
        f"{target}: {count(info.frames, 'frame')} {info.width}x{info.height} {info.codec} {info.pix_fmt}, "
        f"{human_bytes(size)}, {seconds:.1f} s, verified"
    )


def _settings(
    robot: RobotPreset,
    preset: str | None,
    camera: str | None,
    overrides: list[tuple[tuple[str, ...], Any]],
    *,
    depth: bool,
) -> tuple[VideoEncoderConfig, Transform | None]:
    """Return the encoder settings and the transform of frames.

    Args:
        robot, preset: the preset, and how it was named.
        camera: the camera whose settings are used; None: those of cameras without settings of their own.
        overrides: the overrides that ``robot`` contains.
        depth: the frames are depth.

    Raises:
        ConfigError: the camera has other frames, or an override has no effect.
    """
    from ffenc.config.matching import check_overrides, check_quantisers, named  # noqa: PLC0415 - quick --help
    from ffenc.config.preset import camera_name, chosen_cameras  # noqa: PLC0415
    from ffenc.errors import ConfigError  # noqa: PLC0415

    if camera is None and (of_one := next((key for key, _ in overrides if key[0] == "cameras"), None)):
        raise click.UsageError(f"{named(of_one)} has no effect without --camera; pass --camera NAME too")
    shown = camera_name(camera) if camera else ""
    check_overrides(overrides, {shown: depth})
    config, transform = robot.depth_encoder if depth else robot.camera_encoder, robot.transform
    if camera is not None:
        [name] = chosen_cameras(list(robot.cameras), [camera])
        chosen = robot.cameras[name]
        if chosen.depth != depth:
            kinds = ["depth" if one else "colour" for one in (chosen.depth, depth)]
            raise ConfigError(
                f"camera {name} of {preset} is {kinds[0]}, but the frames are {kinds[1]}; choose another "
                "--camera"
            )
        config, transform = chosen.encoder, chosen.transform
    if depth:
        check_quantisers({shown: config.pix_fmt}, overrides)
    return config, transform
