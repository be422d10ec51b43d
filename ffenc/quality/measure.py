"""Measure the quality of frames against the frames that they were encoded from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from ffenc.compiler.decode import Compared
from ffenc.compiler.published import parse_filter_names
from ffenc.compiler.quality import compile_quality
from ffenc.errors import FfencError, FfmpegError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.machine import cores
from ffenc.ffmpeg.process import Buffer, run_fed
from ffenc.ffmpeg.toolchain import Toolchain, ask
from ffenc.quality.metric import Metric
from ffenc.quality.psnr import PSNR
from ffenc.quality.ssim import SSIM
from ffenc.quality.vmaf import VMAF
from ffenc.quality.xpsnr import XPSNR
from ffenc.temporary import temporary_folder

METRICS: dict[str, Metric] = {one.name: one for one in (VMAF, SSIM, PSNR, XPSNR)}
NO_VMAF = (
    "no ffmpeg here has libvmaf, so SSIM is used instead of VMAF; pip install 'ffenc[ffmpeg]' installs one"
)


class Gauge(Struct, frozen=True):
    """An ffmpeg and the metrics that it computes.

    Attributes:
        toolchain: the programs.
        metrics: in the order of :data:`METRICS`; SSIM and PSNR are in every FFmpeg.
    """

    toolchain: Toolchain
    metrics: tuple[Metric, ...]

    @property
    def main(self) -> Metric:
        """The metric by which settings are selected: VMAF, or SSIM without libvmaf."""
        return self.metrics[0]

    def metric_fields(self) -> dict[str, dict[str, Any]]:
        """Return label, unit and digits of each metric as plain values, by name."""
        return {
            one.name: {"label": one.label, "unit": one.unit, "digits": one.digits} for one in self.metrics
        }


def gauges(candidates: Sequence[Toolchain]) -> list[Gauge]:
    """Return the programs with the metrics that each can compute, those with VMAF first.

    Args:
        candidates: the programs, best first.
    """
    found = []
    for toolchain in candidates:
        try:
            names = parse_filter_names(ask(toolchain.ffmpeg, "-hide_banner", "-filters"))
        except FfencError:
            names = frozenset()
        metrics = tuple(metric for metric in METRICS.values() if metric.filter in names)
        if SSIM in metrics and PSNR in metrics:
            found.append(Gauge(toolchain, metrics))
    return sorted(found, key=lambda gauge: VMAF not in gauge.metrics)


class Summary(Struct, frozen=True):
    """The summary of a metric over some frames.

    Attributes:
        mean: over all frames; for metrics in dB that of the mean error. Infinite if all are identical.
        p5: 5th percentile of the frames.
        worst: lowest value.
        frame: index of the frame with this value.
    """

    mean: float
    p5: float
    worst: float
    frame: int


class Quality(Struct, frozen=True):
    """Values of each frame, by the metric's name; infinite where a metric in dB finds no difference."""

    values: Mapping[str, Sequence[float]]

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def __add__(self, other: Quality) -> Quality:
        """More frames, by the metrics that both have."""
        both = [name for name in self.values if name in other.values]
        return Quality({name: [*self.values[name], *other.values[name]] for name in both})

    def summary(self, name: str) -> Summary:
        """One metric over all frames."""
        values = self.values[name]
        # Not interpolated: between infinity and a number there is nothing.
        low = float(np.percentile(values, 5, method="lower"))
        worst = min(range(len(values)), key=values.__getitem__)
        return Summary(METRICS[name].mean(values), low, values[worst], worst)


def measure(
    gauge: Gauge,
    video: Compared,
    reference: Compared,
    pieces: Iterable[Buffer],
    *,
    threads: int | None = None,
    on_frames: Callable[[int], None] | None = None,
    cancellation: Cancellation | None = None,
) -> Quality:
    """Measure luma of a video's frames against a reference's, frame n against frame n.

    Both sides are converted to RGB as readers do, and then to BT.601 luma of limited range; PSNR uses a peak
    of 255.

    Args:
        gauge: the program and the metrics.
        video, reference: the sides.
        pieces: bytes of the reference for standard input.
        threads: number of threads of VMAF; None: one per core.
        on_frames: called from time to time with the number of frames measured so far.
        cancellation: can stop the program from another thread.

    Returns:
        The values of as many frames as the shorter side has.

    Raises:
        FfmpegError: the program failed.
    """
    printed = bytearray()
    with temporary_folder() as folder:
        log = Path(folder) / "vmaf.csv"
        command = compile_quality(
            video,
            reference,
            [metric.filter for metric in gauge.metrics],
            vmaf_log=str(log) if VMAF in gauge.metrics else None,
            threads=threads or cores(),
            program=gauge.toolchain.ffmpeg,
        )
        ended = run_fed(
            command, pieces, on_frames=on_frames, on_output=printed.extend, cancellation=cancellation
        )
        text, vmaf = printed.decode("ascii", "replace"), log.read_text() if log.is_file() else ""
    values = {metric.name: metric.values(text, vmaf) for metric in gauge.metrics}
    if len({len(one) for one in values.values()}) != 1:
        counts = ", ".join(f"{name}: {len(one)}" for name, one in values.items())
        raise FfmpegError(
            f"ffmpeg gave other numbers of values for each metric ({counts})",
            command=command,
            returncode=0,
            stderr=ended.head,
        )
    return Quality(values)


def plain(value: float) -> float | None:
    """Return a value for JSON, which has no infinity: None stands for it."""
    return round(value, 5) if math.isfinite(value) else None
