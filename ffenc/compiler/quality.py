"""The FFmpeg argument lists that measure quality: luma of one video against luma of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import ffmpeg

from ffenc.compiler.decode import Compared, rgb_frames
from ffenc.compiler.inputs import arguments

QualityFilter = Literal["psnr", "ssim", "xpsnr", "libvmaf"]

# What readers give as RGB is brought into luma of limited range, which VMAF's models were trained with; the
# same for both sides, whatever each is stored as.
_LUMA = {"out_color_matrix": "bt601", "out_range": "tv", "flags": "bicubic+accurate_rnd+full_chroma_int"}


def compile_quality(
    video: Compared,
    reference: Compared,
    filters: Sequence[QualityFilter],
    *,
    vmaf_log: str | None = None,
    threads: int = 1,
    program: str = "ffmpeg",
) -> list[str]:
    """Compile the argument list that measures frames against others, the n-th against the n-th.

    Values of each pair are written to standard output as the metadata filter prints them, those of VMAF to
    a file. It ends with the shorter side.

    Args:
        video: what is measured.
        reference: what it was made of.
        filters: one or more of ``psnr``, ``ssim``, ``xpsnr`` and ``libvmaf``.
        vmaf_log: the file for VMAF's values, as CSV; with ``libvmaf`` only, which needs it.
        threads: that libvmaf may use, 1 or more.
        program: the ffmpeg to run.
    """
    copies = _luma(reference, thread_queue_size=64).filter_multi_output("split", len(filters))
    measured = _luma(video)
    for number, name in enumerate(filters):
        options: dict[str, str | int] = {"shortest": 1}
        if name == "libvmaf":
            assert vmaf_log is not None
            options |= {"log_path": vmaf_log, "log_fmt": "csv", "n_threads": threads}
        # Each filter passes its first input on, with what the filters before have noted of it.
        measured = ffmpeg.filter([measured, copies[number]], name, **options)
    printed = measured.filter("metadata", "print", file="pipe:1")
    return arguments(ffmpeg.output(printed, "-", f="null", fps_mode="passthrough"), program)


def compile_rgb(side: Compared, *, program: str = "ffmpeg") -> list[str]:
    """Compile the argument list that writes a side's frames to standard output as readers give them: rgb24.

    Args:
        side: the frames.
        program: the ffmpeg to run.
    """
    options = {"f": "rawvideo", "pix_fmt": "rgb24", "fps_mode": "passthrough"}
    return arguments(ffmpeg.output(rgb_frames(side), "pipe:1", **options), program)


def _luma(side: Compared, **options: int) -> ffmpeg.nodes.FilterableStream:
    # With chroma of full size: libvmaf takes no gray, and reads luma alone.
    return rgb_frames(side, **options).filter("scale", **_LUMA).filter("format", "yuv444p")
