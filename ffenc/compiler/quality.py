"""The FFmpeg argument lists that measure quality: luma of one video against luma of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import ffmpeg

from ffenc.compiler.decode import Compared, rgb_frames, to_nowhere
from ffenc.compiler.inputs import arguments, raw_output

QualityFilter = Literal["psnr", "ssim", "xpsnr", "libvmaf"]

# RGB as readers convert it becomes luma of limited range, which VMAF's models were trained with; the same for
# both sides, whatever their stored formats are.
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
    """Compile the argument list that measures the quality of frames, frame n against frame n.

    The values of each pair are written to standard output in the metadata filter's format, those of VMAF to a
    file. The measurement ends with the shorter side.

    Args:
        video: the measured frames.
        reference: the frames that they were encoded from.
        filters: one or more of ``psnr``, ``ssim``, ``xpsnr`` and ``libvmaf``.
        vmaf_log: file for VMAF's values, as CSV; required with ``libvmaf``, not used without it.
        threads: number of threads of libvmaf, 1 or more.
        program: the ffmpeg to run.
    """
    copies = _luma(reference, thread_queue_size=64).filter_multi_output("split", len(filters))
    measured = _luma(video)
    for number, name in enumerate(filters):
        options: dict[str, str | int] = {"shortest": 1}
        if name == "libvmaf":
            assert vmaf_log is not None
            options |= {"log_path": vmaf_log, "log_fmt": "csv", "n_threads": threads}
        # Each filter outputs its first input, with the metadata of the filters before it.
        measured = ffmpeg.filter([measured, copies[number]], name, **options)
    printed = measured.filter("metadata", "print", file="pipe:1")
    return arguments(ffmpeg.output(printed, "-", **to_nowhere()), program)


def compile_rgb(side: Compared, *, program: str = "ffmpeg") -> list[str]:
    """Compile the argument list that writes frames to standard output as readers convert them: rgb24.

    Args:
        side: the frames.
        program: the ffmpeg to run.
    """
    return arguments(raw_output(rgb_frames(side), "rgb24"), program)


def _luma(side: Compared, **options: int) -> ffmpeg.nodes.FilterableStream:
    # Chroma is not subsampled: libvmaf does not support gray, and only reads luma.
    return rgb_frames(side, **options).filter("scale", **_LUMA).filter("format", "yuv444p")
