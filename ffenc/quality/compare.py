"""Quality of an episode's video against the images, or the video, that it was encoded from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ffenc.config.transform import Transform
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.clip import Clip
from ffenc.frames.compare import Sides, check_alike, compared
from ffenc.frames.header import ImageHeader
from ffenc.frames.sources import FrameSource
from ffenc.quality.measure import Gauge, Quality, measure


def quality_of(
    video: Clip,
    reference: FrameSource | Clip,
    chosen: Sequence[Gauge],
    *,
    header: ImageHeader | None = None,
    transform: Transform | None = None,
    on_frames: Callable[[int], None] | None = None,
    cancellation: Cancellation | None = None,
) -> Quality:
    """Measure frames of a colour video against the frames that they were encoded from.

    Args:
        video: the frames.
        reference: the frames of the source.
        chosen: the programs to try in order, see :func:`~ffenc.quality.measure.gauges`.
        header: header of the images; required if ``reference`` is images.
        transform: changes of the source's frames before encoding.
        on_frames: called from time to time with the number of frames measured so far.
        cancellation: can stop the measurement from another thread.

    Raises:
        SourceError: sizes or numbers of frames differ, or one side is damaged; the text names it.
        ToolchainError: no ffmpeg on this machine can decode both.
        FfmpegError: a program was killed from outside.
    """
    size = reference.info if isinstance(reference, Clip) else header
    assert size is not None
    geometry = transform.of(size.width, size.height) if transform is not None else None
    check_alike(video, reference, header, geometry)
    by_program = {gauge.toolchain: gauge for gauge in chosen}
    found: list[Quality] = []

    def run(toolchain: Toolchain, sides: Sides) -> list[int]:
        quality = measure(
            by_program[toolchain],
            sides.video,
            sides.reference,
            sides.pieces(),
            on_frames=on_frames,
            cancellation=cancellation,
        )
        found.append(quality)
        return list(range(len(quality)))

    compared(video, reference, run, header=header, geometry=geometry, candidates=list(by_program))
    return found[-1]
