"""The FFmpeg argument list that reads a camera."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

import ffmpeg

from ffenc.compiler.inputs import arguments, without_stop


def compile_capture(
    device: str,
    *,
    width: int,
    height: int,
    fps: Fraction,
    pixels: Literal["mjpeg", "raw"],
    program: str = "ffmpeg",
) -> list[str]:
    """Compile the argument list that writes a V4L2 camera's frames to standard output, one by one.

    It goes on after a damaged frame, and says at level ``info`` what the driver has changed.

    Args:
        device: a path such as ``/dev/video0``.
        width, height: pixels; a driver that has no such size takes another.
        fps: frames a second, likewise.
        pixels: ``mjpeg``: the camera's JPEG images, back to back. ``raw``: RGB frames as PPM images, whose
            header says the size that the driver has really taken.
        program: the ffmpeg to run.
    """
    # nobuffer: the first frames are not held back while the stream is looked at.
    options: dict[str, Any] = {
        "f": "v4l2",
        "fflags": "nobuffer",
        "framerate": str(fps),
        "video_size": (width, height),
    }
    # Each frame leaves at once; else its end would wait in a buffer for the next.
    result: dict[str, Any] = {"flush_packets": 1}
    if pixels == "mjpeg":
        options["input_format"] = "mjpeg"
        result |= {"c": "copy", "f": "mjpeg"}
    else:
        result |= {"f": "image2pipe", "c:v": "ppm", "pix_fmt": "rgb24", "fps_mode": "passthrough"}
    source = ffmpeg.input(device, **options)
    command = without_stop(arguments(ffmpeg.output(source["v:0"], "pipe:1", **result), program))
    return ["level+info" if word == "level+warning" else word for word in command]
