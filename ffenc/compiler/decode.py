"""The argument lists that decode video to frames, checksums or values of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import ffmpeg
from msgspec import Struct

from ffenc.compiler.command import fed_frames, in_rgb, sampled
from ffenc.compiler.frames import Excerpt, FrameFormat, SampleTap
from ffenc.compiler.inputs import (
    EVERY_FRAME,
    arguments,
    entered_at,
    excerpted,
    file_input,
    file_url,
    listed_input,
    picked,
    raw_output,
    within,
    without_stop,
)
from ffenc.config.transform import Geometry


def compile_decode(
    path: str,
    *,
    pix_fmt: str | None = None,
    conversion: Mapping[str, str] | None = None,
    excerpt: Excerpt | None = None,
    tap: SampleTap | None = None,
    geometry: Geometry | None = None,
    lenient: bool = False,
    program: str = "ffmpeg",
) -> list[str]:
    """Compile the argument list that decodes a file's frames as they are stored, unrotated.

    Args:
        path: the file.
        pix_fmt: write raw samples of this format to standard output; None: decode only.
        conversion: options of the conversion to that format, see :func:`rgb_conversion`; None: the samples
            already have it.
        excerpt: the frames to select; None: all.
        tap: write only samples of these frames.
        geometry: transform of the frames, after the conversion to RGB.
        lenient: continue after a damaged frame, with one thread.
        program: the ffmpeg to run.
    """
    video, limit = excerpted(path, excerpt, {"threads": 1} if lenient else {})
    if tap is not None and excerpt is not None:
        limit["frames:v"] = -(-excerpt.frames // tap.step)
    if conversion is not None:
        video = video.filter("scale", **conversion)
    if geometry is not None:
        video = in_rgb(video.filter("format", "rgb24"), geometry, 8)
    if tap is not None:
        video = sampled(video if conversion is None else video.filter("format", "rgb24"), tap)
    if pix_fmt is None:
        result = ffmpeg.output(video, "-", f="null", **EVERY_FRAME, **limit)
    else:
        result = raw_output(video, pix_fmt, **limit)
    return without_stop(arguments(result, program)) if lenient else arguments(result, program)


def compile_frame_checksums(
    path: str, *, pix_fmt: str, excerpt: Excerpt | None = None, program: str = "ffmpeg"
) -> list[str]:
    """Compile the argument list that writes the CRC-32 of every frame's samples to standard output.

    Meant for a few frames: it uses one thread, because several would decode frames that are not requested.
    Arguments as for :func:`compile_decode`.
    """
    video, limit = excerpted(path, excerpt, {"threads": 1})
    limit |= {"f": "framehash", "hash": "CRC32", "c:v": "rawvideo", "pix_fmt": pix_fmt}
    return arguments(ffmpeg.output(video, "pipe:1", **EVERY_FRAME, **limit), program)


def compile_listed_checksums(*, pix_fmt: str, frames: int, program: str = "ffmpeg") -> list[str]:
    """Compile the argument list that writes the CRC-32 of every frame in parts of several files.

    The list of parts is read from standard input in the concat demuxer's format; no packet outside these
    parts is decoded.

    Args:
        pix_fmt: pixel format of the stored samples.
        frames: total number of frames.
        program: the ffmpeg to run.
    """
    source = listed_input(threads=1)["v:0"]
    limit = {"f": "framehash", "hash": "CRC32", "c:v": "rawvideo", "pix_fmt": pix_fmt, "frames:v": frames}
    return arguments(ffmpeg.output(source, "pipe:1", **EVERY_FRAME, **limit), program)


def compile_frame_list(
    path: str, *, seek: Fraction | None, frames: int, program: str = "ffmpeg"
) -> list[str]:
    """Compile the argument list that lists the times of all frames that decode without an error.

    The program continues after a damaged frame, and uses one thread, so that frames and errors are in order.
    Arguments as for :func:`compile_decode` and :class:`Excerpt`; ``frames`` is the greatest number of frames
    to list.
    """
    options: dict[str, Any] = {"copyts": None, "threads": 1, "err_detect": "explode", **entered_at(seek)}
    source = file_input(path, **options)
    listed = ffmpeg.output(source["v:0"], "pipe:1", f="framecrc", **EVERY_FRAME, **{"frames:v": frames})
    return without_stop(arguments(listed, program))


class Pixels(Struct, frozen=True):
    """The samples that are written raw to standard output, as they are stored, unrotated.

    Attributes:
        pix_fmt: pixel format of the output.
        conversion: options of the conversion to that format, see :func:`rgb_conversion`; None: the samples
            already have it.
        tap: write only samples of the converted frames; None: all frames.
    """

    pix_fmt: str
    conversion: Mapping[str, str] | None = None
    tap: SampleTap | None = None


def compile_checksums(
    path: str,
    decoder: Mapping[str, Any],
    *,
    pixels: Pixels | None = None,
    listed: str = "pipe:1",
    lenient: bool = False,
    program: str = "ffmpeg",
) -> list[str]:
    """Compile the argument list that decodes a file and lists the time and checksum of every frame.

    Args:
        path: the file, or ``pipe:0``.
        decoder: options of the decoder.
        pixels: also write these samples to standard output; None: no samples.
        listed: the file that the list is written to, or ``pipe:1``.
        lenient: continue after a damaged frame.
        program: the ffmpeg to run.
    """
    options = {"copyts": None, "err_detect": "crccheck+bitstream+buffer+explode", **decoder}
    source = file_input(path, noautorotate=None, **options)["v:0"]
    result = ffmpeg.output(source, file_url(listed), f="framecrc", **EVERY_FRAME)
    if pixels is not None:
        video = source
        if pixels.conversion is not None:
            video = video.filter("scale", **pixels.conversion)
        if pixels.tap is not None:
            video = sampled(video.filter("format", "rgb24"), pixels.tap)
        result = ffmpeg.merge_outputs(result, raw_output(video, pixels.pix_fmt))
    return without_stop(arguments(result, program)) if lenient else arguments(result, program)


def compile_packets(path: str, first: int, last: int, *, program: str = "ffmpeg") -> list[str]:
    """Compile the argument list that writes a range of a file's packets to standard output, undecoded.

    Args:
        path: the file.
        first, last: positions of the first and last packet, both included. They are counted from the start of
            the file, because a seek could land on other packets.
        program: the ffmpeg to run.
    """
    source = file_input(path, copyts=None)
    dropped = f"noise=drop=not(between(n\\,{first}\\,{last}))"
    options = {"f": "nut", "c": "copy", "bsf:v": dropped, "avoid_negative_ts": "disabled"}
    cut = ffmpeg.output(source["v:0"], "pipe:1", **options)
    return arguments(cut, program)


class Compared(Struct, frozen=True):
    """One side of a comparison.

    Attributes:
        path: a video file, or ``pipe:0`` for images.
        conversion: options of the conversion to RGB, see :func:`rgb_conversion`.
        images: format of the images in the pipe; None: a video file.
        excerpt: the frames to select from a video; None: all.
        geometry: transform of the frames before the comparison.
        size: width and height of raw frames.
    """

    path: str
    conversion: Mapping[str, str]
    images: FrameFormat | None = None
    size: tuple[int, int] = (0, 0)
    excerpt: Excerpt | None = None
    geometry: Geometry | None = None


def compile_compare(video: Compared, reference: Compared, *, program: str = "ffmpeg") -> list[str]:
    """Compile the argument list that compares frames in RGB, frame n of one side with frame n of the other.

    The PSNR and SSIM of each pair are written to standard output in the metadata filter's format. The
    comparison ends with the shorter side.
    """
    # A thread_queue_size of its own also keeps the two inputs distinct if both are the same frames of one
    # file.
    copies = rgb_frames(reference, thread_queue_size=64).filter("format", "gbrp")
    copies = copies.filter_multi_output("split")
    shown = rgb_frames(video).filter("format", "gbrp")
    compared = ffmpeg.filter([shown, copies[0]], "psnr", shortest=1)
    # psnr and ssim output their first input, with the metadata of the filters before them.
    compared = ffmpeg.filter([compared, copies[1]], "ssim", shortest=1)
    printed = compared.filter("metadata", "print", file="pipe:1")
    return arguments(ffmpeg.output(printed, "-", **to_nowhere()), program)


def to_nowhere() -> dict[str, str]:
    """Return the options of an output that discards frames with the times of :func:`rgb_frames`."""
    return {"f": "null", **EVERY_FRAME}


def rgb_frames(side: Compared, **options: Any) -> Any:
    """Return one side's frames as rgb24, the format that readers convert to, numbered from 0."""
    if side.images is not None:
        source = fed_frames(side.images, *side.size, Fraction(1), None, **options)
    else:
        seek = side.excerpt.seek if side.excerpt is not None else None
        options |= {"noautorotate": None, "copyts": None, **entered_at(seek)}
        source = file_input(side.path, **options)["v:0"]
    if side.excerpt is not None:
        # Without an end, the other side's last frame would wait for the end of this file.
        source = source.filter("trim", end_pts=side.excerpt.spans[-1][1] + 1)
        source = picked(source.filter("select", within(side.excerpt.spans)), side.excerpt.pick)
    frames = source.filter("scale", **side.conversion).filter("format", "rgb24")
    if side.geometry is not None:
        frames = in_rgb(frames, side.geometry, 8)
    # One second per frame: frame n of one side meets frame n of the other.
    return frames.filter("settb", "1/1").filter("setpts", "N")
