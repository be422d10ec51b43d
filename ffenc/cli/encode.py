"""``ffenc encode``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ffenc.cli.common import (
    SettingsCommand,
    human_bytes,
    json_option,
    print_json,
    program_options,
    progress_bar,
    thread_setting,
)


@click.command("encode", cls=SettingsCommand)
@click.argument("frames_dir", type=click.Path())
@click.argument("output", type=click.Path())
@click.option("--fps", required=True, metavar="RATE", help="Frames a second: 30, 29.97 or 30000/1001.")
@click.option("--preset", metavar="NAME|FILE", help="Take the settings of a robot preset.")
@click.option("--camera", metavar="NAME", help="With --preset: those of this camera.")
@click.option("--encoder-threads", type=click.IntRange(1), help="Threads the encoder may use.")
@click.option("--start-number", type=click.IntRange(0), help="Number of the first frame [default: 0 or 1].")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
@json_option
@program_options
def command(
    frames_dir: str,
    output: str,
    fps: str,
    preset: str | None,
    camera: str | None,
    encoder_threads: int | None,
    start_number: int | None,
    overwrite: bool,
    as_json: bool,
    ffmpeg: str | None,
    ffprobe: str | None,
    overrides: list[tuple[tuple[str, ...], Any]],
) -> None:
    """Encode a folder of numbered frames into one MP4 file: PNG or JPEG, or depth (PNG of 16 bits, TIFF).

    Frame i sits at exactly i / RATE. The file appears verified, or not at all.

    \b
    Examples:
      ffenc encode frames/ top.mp4 --fps 30
      ffenc encode frames/ top.mp4 --fps 30 --camera_encoder.vcodec=h264 --camera_encoder.crf=20
      ffenc encode depth/ depth.mp4 --fps 30 --depth_encoder.preset=ultrafast
    """
    from ffenc.config.preset import chosen_cameras, load_preset  # noqa: PLC0415 - keeps --help quick
    from ffenc.dataset.info_block import stream_fields  # noqa: PLC0415
    from ffenc.frames.encode import encode  # noqa: PLC0415
    from ffenc.frames.sources import ImageFiles, image_files  # noqa: PLC0415

    robot = load_preset(preset, overrides)
    began = time.monotonic()
    folder = Path(frames_dir)
    images = image_files(folder, start_number=start_number).paths if folder.is_dir() else []
    depth = bool(images) and ImageFiles(images[:1]).check().depth
    config = robot.depth_encoder if depth else robot.camera_encoder
    if camera is not None:
        [name] = chosen_cameras(list(robot.cameras), [camera])
        config = robot.cameras[name].encoder
    with progress_bar("encoding", len(images)) as on_frames:
        info = encode(
            frames_dir,
            output,
            fps=fps,
            config=config,
            encoder_threads=thread_setting(overrides, encoder_threads) or robot.encoder_threads,
            start_number=start_number,
            overwrite=overwrite,
            ffmpeg=ffmpeg,
            ffprobe=ffprobe,
            on_frames=on_frames,
        )
    seconds = time.monotonic() - began
    size = Path(output).stat().st_size
    if as_json:
        print_json(
            {"file": output, "frames": info.frames, "bytes": size, "seconds": seconds} | stream_fields(info)
        )
        return
    click.echo(
        f"{output}: {info.frames} frames {info.width}x{info.height} {info.codec} {info.pix_fmt}, "
        f"{human_bytes(size)}, {seconds:.1f} s, verified"
    )
