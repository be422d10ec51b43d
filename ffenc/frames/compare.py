"""Comparison of a video's frames with those that they were encoded from."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from ffenc.compiler.colour import rgb_conversion
from ffenc.compiler.decode import Compared, compile_compare
from ffenc.config.transform import Geometry, Transform
from ffenc.errors import ConfigError, FfmpegError, SourceError, ToolchainError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.process import Buffer, run_fed
from ffenc.ffmpeg.toolchain import Toolchain, how_to_get, toolchains
from ffenc.frames.clip import Clip
from ffenc.frames.depth import MAX_CODE, DepthQuantizer, Unit
from ffenc.frames.depth_images import Depth, changed, millimetres, read_alike, samples_in_mm
from ffenc.frames.encode import check_frames, fed_format
from ffenc.frames.excerpt import FrameIndex
from ffenc.frames.header import ImageHeader
from ffenc.frames.images import find_fault
from ffenc.frames.sources import EncodedFrame, FrameSource
from ffenc.frames.stream import DEPTH_FORMATS, NO_DECODER, Stream

Value = TypeVar("Value")

_PEAK = 255  # greatest value of an RGB sample
_VALUE = re.compile(rb"lavfi\.(psnr\.psnr_avg|ssim\.All)=(\S+)")


class Comparison(Struct, frozen=True):
    """The comparison of one episode of one camera with its source.

    Attributes:
        frames: number of compared frames, 1 or more.
        psnr_mean: PSNR of the mean squared error over all frames, in dB; infinite if all frames are
            identical. For colours it covers the samples of RGB, 0..255, for depth the stored samples and
            their range.
        psnr_min: PSNR of the worst frame, in dB; infinite if all frames are identical.
        worst: index of that frame in the episode.
        ssim_mean: mean SSIM of the frames over R, G and B; 1 if all are identical. NaN for depth.
        ssim_min, ssim_worst: lowest SSIM of a frame, and the index of that frame. NaN and ``worst`` for
            depth.
        differing: for depth, number of stored samples that differ, in all frames.
        max_difference: for depth, greatest difference in millimetres.
        mean_difference: for depth, mean difference in millimetres, over all samples.
        farthest: for depth, index of the frame with the greatest difference.
        max_steps: for depth, greatest difference of stored samples.
    """

    frames: int
    psnr_mean: float
    psnr_min: float
    worst: int
    ssim_mean: float
    ssim_min: float
    ssim_worst: int
    differing: int | None = None
    max_difference: float | None = None
    mean_difference: float | None = None
    farthest: int | None = None
    max_steps: int | None = None


def compare_episode(
    video: Clip,
    reference: FrameSource | Clip,
    *,
    header: ImageHeader | None = None,
    quantizer: DepthQuantizer | None = None,
    unit: Unit | None = None,
    transform: Transform | None = None,
    on_frames: Callable[[int], None] | None = None,
    cancellation: Cancellation | None = None,
    candidates: Sequence[Toolchain] | None = None,
) -> Comparison:
    """Compare frames of a video with the images, or the frames of another video, that they were encoded from.

    Colours are compared as RGB, as readers convert them; depth sample by sample.

    Args:
        video: frames of the episode.
        reference: frames of the episode in the source.
        header: header of the images; required if ``reference`` is images.
        quantizer: quantiser of a ``gray12le`` video. A reference video has to have the same one.
        unit: unit of depth images, ``mm`` or ``m``; None: integers are millimetres, floats are metres.
        transform: changes of the source's frames before encoding.
        on_frames: called from time to time with the number of frames compared so far.
        cancellation: can stop the comparison from another thread.
        candidates: the programs to select from; None: all that are found.

    Raises:
        SourceError: sizes, kinds or numbers of frames differ, or one side is damaged; the text names it.
        ToolchainError: no ffmpeg on this machine can decode both.
        FfmpegError: a program was killed from outside.
        Cancelled: ``cancellation`` was cancelled.
    """
    cancellation = cancellation or Cancellation()
    found = toolchains() if candidates is None else candidates
    report = on_frames or (lambda _: None)
    size = reference.info if isinstance(reference, Clip) else header
    assert size is not None
    try:
        geometry = transform.of(size.width, size.height) if transform is not None else None
    except ConfigError as error:
        raise SourceError(f"{video.path}: {error}; compare it with the source it was made from") from None
    check_alike(video, reference, header, geometry)
    if video.info.pix_fmt in DEPTH_FORMATS:
        if video.info.pix_fmt == "gray12le" and quantizer is None:
            raise SourceError(
                f"{video.path}: contains 12-bit depth codes, and it is not known how they were quantised"
            )
        used = quantizer if video.info.pix_fmt == "gray12le" else None
        if isinstance(reference, Clip):
            wanted: Iterator[Depth] = (changed(depth, geometry) for depth in _stored(reference, found))
        else:
            assert header is not None
            wanted = _quantized(reference, header, used, unit, geometry)
        return _compare_depth(_stored(video, found), wanted, used, report, cancellation)
    return _compare_colours(video, reference, header, geometry, report, cancellation, found)


def check_alike(
    video: Clip, reference: FrameSource | Clip, header: ImageHeader | None, geometry: Geometry | None
) -> None:
    """Check all that can be compared without decoding; arguments as for :func:`compare_episode`.

    Raises:
        SourceError: sizes, kinds or numbers of frames differ.
    """
    _check_held(video)
    depth = video.info.pix_fmt in DEPTH_FORMATS
    size = f"{video.info.width}x{video.info.height}"
    if isinstance(reference, Clip):
        _check_held(reference)
        if len(reference) != video.frames:
            raise SourceError(
                f"{video.path}: the episode at frame {video.first} has {video.frames} frames, its source "
                f"{len(reference)}; compare it with the source it was made from"
            )
        name, other = str(reference.path), f"{reference.info.width}x{reference.info.height}"
        same = (
            reference.info.pix_fmt == video.info.pix_fmt
            if depth
            else reference.info.pix_fmt not in DEPTH_FORMATS
        )
        kind = reference.info.pix_fmt
    else:
        if len(reference) != video.frames:
            raise SourceError(
                f"{video.path}: the episode at frame {video.first} has {video.frames} frames, its source has "
                f"{len(reference)} images; compare it with the source it was made from"
            )
        assert header is not None
        name, other = "its source", f"{header.width}x{header.height}"
        same, kind = header.depth == depth, str(header)
    if geometry is not None:
        name, other = f"{name}, transformed in the same way,", f"{geometry.width}x{geometry.height}"
    if other != size:
        raise SourceError(
            f"{video.path}: frames are {size}, those of {name} are {other}; compare it with the source it "
            "was made of"
        )
    if not same:
        raise SourceError(
            f"{video.path}: holds {video.info.pix_fmt} {'depth' if depth else 'colours'}, {name} is {kind}; "
            "compare it with the source it was made from"
        )


def _check_held(video: Clip) -> None:
    assert video.info.times is not None
    count = len(video.info.times)
    if video.frames < 1 or video.first < 0 or video.first + video.frames > count:
        raise SourceError(
            f"{video.path}: has {count} frames, but the episode's are {video.first} to "
            f"{video.first + video.frames - 1}; restore the file or its tables"
        )


# ---- colours -------------------------------------------------------------------------------------------


def _compare_colours(
    video: Clip,
    reference: FrameSource | Clip,
    header: ImageHeader | None,
    geometry: Geometry | None,
    on_frames: Callable[[int], None],
    cancellation: Cancellation,
    candidates: Sequence[Toolchain],
) -> Comparison:
    def run(toolchain: Toolchain, sides: Sides) -> list[tuple[float, float]]:
        command = compile_compare(sides.video, sides.reference, program=toolchain.ffmpeg)
        printed = bytearray()
        run_fed(
            command, sides.pieces(), on_frames=on_frames, on_output=printed.extend, cancellation=cancellation
        )
        found: dict[bytes, list[float]] = {b"psnr.psnr_avg": [], b"ssim.All": []}
        for name, value in _VALUE.findall(bytes(printed)):
            found[name].append(float(value))
        # Computed from the PSNR: the error itself is printed with six decimals, so small errors would be 0.
        errors = [_PEAK**2 / 10 ** (psnr / 10) for psnr in found[b"psnr.psnr_avg"]]
        return list(zip(errors, found[b"ssim.All"], strict=False))

    values = compared(video, reference, run, header=header, geometry=geometry, candidates=candidates)
    return _summary([error for error, _ in values], [ssim for _, ssim in values], _PEAK)


class Sides(Struct, frozen=True):
    """The two sides of a comparison of colours.

    Attributes:
        video, reference: the sides as inputs for FFmpeg.
        pieces: bytes of the reference that are written to the program; empty if it is a video.
    """

    video: Compared
    reference: Compared
    pieces: Callable[[], Iterable[Buffer]]


def compared(
    video: Clip,
    reference: FrameSource | Clip,
    run: Callable[[Toolchain, Sides], list[Value]],
    *,
    header: ImageHeader | None = None,
    geometry: Geometry | None = None,
    candidates: Sequence[Toolchain],
) -> list[Value]:
    """Return a value for each pair of frames, from the first program that can decode both sides.

    Args:
        video: the frames.
        reference: the frames that they were encoded from.
        run: compares the sides with a program; returns a value per pair, or fewer.
        header, geometry: of the reference, as for :func:`compare_episode`.
        candidates: the programs to select from.

    Raises:
        SourceError: one side is damaged; the text names it.
        ToolchainError: no program can decode both.
        FfmpegError: a program was killed from outside.
    """

    def pieces() -> Iterable[Buffer]:
        if isinstance(reference, Clip):
            return ()
        assert header is not None
        return check_frames(reference, header)

    errors: list[tuple[Toolchain, FfmpegError | None]] = []
    for toolchain in candidates:
        tried: list[Sides] = []
        # A seek to a wrong frame gives too few frames; the videos are then read from their start.
        for seek in (True, False):
            wanted = replace(reference_side(reference, header, seek=seek), geometry=geometry)
            sides = Sides(_side(video, seek=seek), wanted, pieces)
            if sides in tried:
                continue
            tried.append(sides)
            try:
                values = run(toolchain, sides)
            except FfmpegError as error:
                if error.unable:
                    raise
                errors.append((toolchain, error))
                if NO_DECODER.search("\n".join(error.stderr)):
                    break
                continue
            if len(values) == video.frames:
                return values
            errors.append((toolchain, None))
        else:
            break  # it has the decoders, so one side is damaged; an older decoder may conceal that
    raise _failed(video, reference, errors)


def _side(video: Clip, *, seek: bool) -> Compared:
    info = video.info
    index = FrameIndex(info)
    entry = index.entry(video.first) if seek else None
    whole = index.excerpt(range(video.first, video.first + video.frames), entry)
    excerpt = replace(whole, frames=len(video), pick=video.pick)
    conversion = rgb_conversion(info.pix_fmt, info.color_space, info.color_range)
    return Compared(str(video.path), conversion, excerpt=excerpt)


def reference_side(
    reference: FrameSource | Clip, header: ImageHeader | None, *, seek: bool = True
) -> Compared:
    """Return the reference as an input for FFmpeg; images are written to its standard input."""
    if isinstance(reference, Clip):
        return _side(reference, seek=seek)
    assert header is not None
    fed = fed_format(header)
    stored = fed if fed in ("yuyv422", "uyvy422") else "yuvj420p" if fed == "jpeg" else "rgb24"
    conversion = rgb_conversion(stored, None, "pc" if fed == "jpeg" else None)
    return Compared("pipe:0", conversion, images=fed, size=(header.width, header.height))


def _failed(
    video: Clip,
    reference: FrameSource | Clip,
    errors: Sequence[tuple[Toolchain, FfmpegError | None]],
) -> SourceError | ToolchainError:
    """Return the reason of a failed comparison: missing decoders, or damage on one side."""
    decoding = [error for _, error in errors if error is None or not NO_DECODER.search(str(error))]
    if not decoding:
        reasons = "\n".join(
            f"  {toolchain}: {error.cause}" for toolchain, error in errors if error is not None
        )
        return ToolchainError(
            f"{video.path} cannot be compared with its source here:\n{reasons}\n{how_to_get()}"
        )
    name = "its source"
    if isinstance(reference, Clip):
        name = f"{reference.path} from frame {reference.first} on"
    else:
        for frame in reference:
            if fault := find_fault(frame.data):
                return SourceError(f"{frame.name}: the image is damaged: {fault}; restore or re-record it")
    last = decoding[-1]
    why = last.cause if last is not None else "fewer frames came out"
    return SourceError(
        f"{video.path}: frames {video.first} to {video.first + video.frames - 1} cannot be compared "
        f"with {name}, one of the two is damaged: {why}; restore the damaged one"
    )


# ---- depth ---------------------------------------------------------------------------------------------


def _stored(video: Clip, candidates: Sequence[Toolchain]) -> Iterator[Depth]:
    """Yield a depth video's stored samples, uint16 ``(H, W)``; the array is reused."""
    stream = Stream(video.path, video.info, candidates)
    samples = stream.empty()
    return stream.frames(video.numbers(), lambda _: samples)


def _quantized(
    images: Iterable[EncodedFrame],
    header: ImageHeader,
    quantizer: DepthQuantizer | None,
    unit: Unit | None,
    geometry: Geometry | None,
) -> Iterator[Depth]:
    """Yield the samples that depth images have to be stored as, uint16 ``(H, W)``."""
    for frame in images:
        depth = changed(read_alike(frame, header), geometry)
        yield quantizer.quantize(depth, input_unit=unit or "auto") if quantizer else millimetres(depth, unit)


def _compare_depth(
    given: Iterator[Depth],
    wanted: Iterator[Depth],
    quantizer: DepthQuantizer | None,
    on_frames: Callable[[int], None],
    cancellation: Cancellation,
) -> Comparison:
    errors: list[float] = []
    differing = 0
    largest, steps, total, samples, farthest = 0.0, 0, 0.0, 0, 0
    for number, (one, other) in enumerate(zip(given, wanted, strict=True), 1):
        cancellation.check()
        unlike = one != other
        count = int(np.count_nonzero(unlike))
        error = 0.0
        if count:
            differing += count
            a, b = one[unlike], other[unlike]
            apart = np.abs(a.astype(np.float64) - b)
            error = float((apart**2).sum() / one.size)
            steps = max(steps, int(apart.max()))
            millimetres_off = np.abs(samples_in_mm(a, quantizer) - samples_in_mm(b, quantizer))
            total += float(millimetres_off.sum())
            if (off := float(millimetres_off.max())) > largest:
                largest, farthest = off, number - 1
        samples += one.size
        errors.append(error)
        on_frames(number)
    summary = _summary(errors, [math.nan] * len(errors), MAX_CODE if quantizer else 65535)
    return Comparison(
        frames=summary.frames,
        psnr_mean=summary.psnr_mean,
        psnr_min=summary.psnr_min,
        worst=summary.worst,
        ssim_mean=math.nan,
        ssim_min=math.nan,
        ssim_worst=summary.worst,
        differing=differing,
        max_difference=largest,
        mean_difference=total / samples,
        farthest=farthest,
        max_steps=steps,
    )


# ---- both ----------------------------------------------------------------------------------------------


def _summary(errors: Sequence[float], similar: Sequence[float], peak: int) -> Comparison:
    """Compute the summary of each frame's mean squared error and SSIM."""
    worst = max(range(len(errors)), key=errors.__getitem__)
    ssim_worst = min(range(len(similar)), key=similar.__getitem__)
    return Comparison(
        frames=len(errors),
        psnr_mean=_psnr(sum(errors) / len(errors), peak),
        psnr_min=_psnr(errors[worst], peak),
        worst=worst,
        ssim_mean=sum(similar) / len(similar),
        ssim_min=similar[ssim_worst],
        ssim_worst=ssim_worst,
    )


def _psnr(error: float, peak: int) -> float:
    return 10 * math.log10(peak**2 / error) if error else math.inf
