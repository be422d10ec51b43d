"""The FFmpeg argument list that reads a camera."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

import ffmpeg

from ffenc.compiler.inputs import EVERY_FRAME, arguments, without_stop


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

    On a damaged frame the program continues; at level ``info`` it reports what the driver has changed.

    Args:
        device: a path such as ``/dev/video0``.
        width, height: frame size in pixels; a driver without this size selects another.
        fps: frames per second; a driver without this rate selects another.
        pixels: ``mjpeg`` writes the camera's JPEG images back to back. ``raw`` writes RGB frames as PPM
            images, whose headers contain the size that the driver has selected.
        program: the ffmpeg to run.
    """
    # nobuffer: do not hold back the first frames while the stream is analysed.
    options: dict[str, Any] = {
        "f": "v4l2",
        "fflags": "nobuffer",
        "framerate": str(fps),
        "video_size": (width, height),
    }
    # Write each frame at once; otherwise its end would wait in a buffer for the next frame.
    result: dict[str, Any] = {"flush_packets": 1}
    if pixels == "mjpeg":
        options["input_format"] = "mjpeg"
        result |= {"c": "copy", "f": "mjpeg"}
    else:
        result |= {"f": "image2pipe", "c:v": "ppm", "pix_fmt": "rgb24", **EVERY_FRAME}
    source = ffmpeg.input(device, **options)
    command = without_stop(arguments(ffmpeg.output(source["v:0"], "pipe:1", **result), program))
    return ["level+info" if word == "level+warning" else word for word in command]
