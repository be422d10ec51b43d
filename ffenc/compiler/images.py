"""The argument list that writes frames as numbered images, which are encoded later."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import ffmpeg

from ffenc.codecs.suggest import accepted
from ffenc.compiler.command import fed_frames, tap_output
from ffenc.compiler.frames import FrameFormat, SampleTap
from ffenc.compiler.inputs import arguments, file_url
from ffenc.config.framerate import parse_fps
from ffenc.errors import ConfigError

# Format of frames in the pipe -> pixel format in which a PNG stores them without loss.
_STORED = {"rgb24": "rgb24", "jpeg": "rgb24", "gray16le": "gray16be"}

# Level 1 takes 11 to 17 ms of CPU time for a 640x480 colour frame, more than libx264, and gives 450 to 650
# kB. Level 0, without compression, takes 2 to 4 ms and gives 925 kB: 28 MB per second and camera.
_PNG = {"c:v": "png", "pred": "none"}


def compile_images(
    *,
    width: int,
    height: int,
    frames: FrameFormat,
    output: str,
    fps: int | float | str | Fraction,
    compressed: bool = False,
    encoder_threads: int | None = None,
    tap: SampleTap | None = None,
    program: str = "ffmpeg",
) -> list[str]:
    """Compile the argument list that writes frames from standard input as PNG files, numbered from 0.

    Each file exists completely or not at all, also when the program is killed.

    Args:
        width, height: frame size in pixels.
        frames: ``rgb24`` for raw pixels, ``gray16le`` for raw depth (16-bit gray), ``jpeg`` for JPEG images
            back to back.
        output: path of the files with a pattern for the number in the name: ``FOLDER/frame-%06d.png``. A
            ``%`` in the folder's path is taken literally.
        fps: frames per second.
        compressed: compress more, with more CPU time, for images that are kept.
        encoder_threads: number of threads of the encoder, 1 or more; None: the encoder's default.
        tap: also write sampled frames to standard output.
        program: the ffmpeg to run.

    Returns:
        The arguments, beginning with the program.

    Raises:
        ConfigError: a format that a PNG cannot store without loss, or an invalid size.
    """
    if frames not in _STORED:
        raise ConfigError(f"frames={frames!r} cannot be written as images{accepted(frames, _STORED)}")
    if width < 1 or height < 1:
        raise ConfigError(f"{width}x{height} is not a frame size")
    source = fed_frames(frames, width, height, parse_fps(fps), encoder_threads)
    samples = None
    if tap is not None:
        split = source.filter_multi_output("split")
        source, samples = split[0], split[1]
    folder, slash, name = output.rpartition("/")
    threads: dict[str, Any] = {} if encoder_threads is None else {"threads": encoder_threads}
    result = ffmpeg.output(
        source.filter("format", _STORED[frames]),
        file_url(folder.replace("%", "%%") + slash + name),
        f="image2",
        start_number=0,
        atomic_writing=1,
        fps_mode="passthrough",
        map_metadata=-1,
        **{"fflags": "+bitexact", "flags:v": "+bitexact"},
        **_PNG,
        compression_level=1 if compressed else 0,
        **threads,
    )
    if tap is not None:
        result = ffmpeg.merge_outputs(result, tap_output(samples, tap))
    return arguments(result, program)
