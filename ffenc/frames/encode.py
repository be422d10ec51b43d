"""Encode images, and verify and publish the file of any encoding."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import islice, zip_longest
from pathlib import Path
from typing import cast

from ffenc.arguments import checked_path
from ffenc.compiler.colour import COLOUR_TAGS
from ffenc.compiler.command import compile_samples
from ffenc.compiler.frames import FrameFormat, raw_format
from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.transform import Transform
from ffenc.errors import (
    ConfigError,
    FfencWarning,
    FfmpegError,
    SourceError,
    ToolchainError,
    VerificationError,
)
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.ffmpeg.process import Buffer, Log, run_fed
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.frames.clip import Clip
from ffenc.frames.depth import Unit
from ffenc.frames.depth_images import DepthSamples, DepthStatistics, changed, depth_pieces, read_alike
from ffenc.frames.depth_loss import warn_of_range
from ffenc.frames.encoding import Encoding
from ffenc.frames.header import ImageHeader
from ffenc.frames.images import find_fault, require_alike, whole_image
from ffenc.frames.pillow import damaged
from ffenc.frames.prepare import Absent, prepare
from ffenc.frames.publish import check_file_in_folder
from ffenc.frames.sources import EncodedFrame, FrameSource
from ffenc.frames.statistics import RgbHistogram
from ffenc.frames.stored_png import UndecodableError, pays, stored
from ffenc.frames.transcode import clip_checksums, key_checksums

_DECODE_SECONDS = 30.0
_FIRST_IMAGES = 2  # used for the trial, alternating
_COMPARED = 4  # greatest number of frames compared at each place
_BETWEEN = 16  # decoding this many frames takes less time than the start of another FFmpeg
_SEARCHED_AT_ONCE = 32  # frames in memory during the search for a damaged one


def check_frames(frames: Iterable[EncodedFrame], header: ImageHeader) -> Iterator[bytes]:
    """Yield the bytes of each frame, and check that all have the same header.

    Raises:
        SourceError: not an image, truncated, or of another size or kind; the text names the frame.
    """
    for frame in frames:
        found = frame.header()
        require_alike(found, header, frame.name)
        yield whole_image(frame.data, found, frame.name)


def fed_pieces(frames: Iterable[EncodedFrame], header: ImageHeader) -> Iterator[Buffer]:
    """Yield the bytes of frames for FFmpeg's input, with pixels decompressed if that takes less time.

    Raises:
        SourceError: as for :func:`check_frames`, or a frame's pixels are damaged; the text names it.
    """
    for frame in frames:
        found = frame.header()
        require_alike(found, header, frame.name)
        own = whole_image(frame.data, found, frame.name)
        if not pays(found, own):
            yield own
            continue
        try:
            yield from stored(found, own)
        except UndecodableError:
            fault = find_fault(own) or "its pixel data cannot be decompressed"
            raise damaged(frame.name, fault) from None


def frame_format(header: ImageHeader, config: VideoEncoderConfig) -> FrameFormat:
    """Return the format of a source's frames for the encoder: encoded images, or samples of depth.

    Raises:
        ConfigError: depth images with settings for colours, or the other way round.
    """
    if header.depth != isinstance(config, DepthEncoderConfig):
        found, needed = ("", "a depth camera's settings (DepthEncoderConfig)")
        if not header.depth:
            found, needed = ("not ", "a colour camera's settings (VideoEncoderConfig)")
        raise ConfigError(f"{header} images are {found}depth maps; pass {needed}")
    return raw_format(config) if header.depth else fed_format(header)


def fed_format(header: ImageHeader) -> FrameFormat:
    """Return the format of colour images in the pipe, which are passed unchanged."""
    if header.format == "raw":
        return cast(FrameFormat, header.order)
    return cast(FrameFormat, f"{header.format}-{header.order}" if header.order else header.format)


def first_frames(
    frames: FrameSource,
    header: ImageHeader,
    config: VideoEncoderConfig,
    count: int,
    unit: Unit | None = None,
    transform: Transform | None = None,
    *,
    warn: bool = False,
) -> list[bytes]:
    """Return a source's first frames in the format that the encoder receives.

    Images are checked for damage, which would otherwise be mistaken for a missing feature of FFmpeg.

    Args:
        frames, header, config, unit, transform: as for :func:`prepare_images`.
        count: number of frames.
        warn: warn of a range of depth that does not fit these frames, and of an alpha channel.

    Raises:
        SourceError: a frame is damaged or differs from the header; the text names it.
        ConfigError: settings that do not support depth.
    """
    found = list(islice(iter(frames), count))
    if header.depth:
        geometry = transform.of(header.width, header.height) if transform is not None else None
        maps = [changed(read_alike(frame, header), geometry) for frame in found]
        samples = DepthSamples(config, unit)
        given = [samples.of(one).tobytes() for one in maps]
        if warn:
            warn_of_range(config, maps, unit)
        return given
    checked = list(check_frames(found, header))
    if warn and header.has_alpha:
        warnings.warn(f"{found[0].name}: the alpha channel is dropped", FfencWarning, stacklevel=3)
    for frame in found:
        if fault := find_fault(frame.data):
            raise damaged(frame.name, fault)
    return checked


def prepare_images(
    frames: FrameSource,
    header: ImageHeader,
    config: VideoEncoderConfig,
    *,
    fps: Fraction,
    unit: Unit | None = None,
    encoder_threads: int | None = None,
    candidates: Sequence[Toolchain] | None = None,
    absent: Absent | None = None,
    transform: Transform | None = None,
) -> Encoding:
    """Select the programs and the encoder for a source's images, by encoding the first two.

    Args:
        frames, header: the images.
        config, fps, encoder_threads, candidates, absent, transform: as for :func:`prepare`.
        unit: unit of depth, ``mm`` or ``m``; None: integers are millimetres, floats metres.

    Raises:
        SourceError: one of the two is damaged, or differs from the header; the text names it.
        ConfigError, ToolchainError: as for :func:`prepare`.
    """
    found = list(candidates) if candidates is not None else toolchains()
    try:
        first = first_frames(frames, header, config, _FIRST_IMAGES, unit, transform, warn=True)
        return prepare(
            config,
            first,
            width=header.width,
            height=header.height,
            fps=fps,
            frames=frame_format(header, config),
            encoder_threads=encoder_threads,
            candidates=found,
            absent=absent,
            transform=transform,
        )
    except ToolchainError:
        if header.depth:
            raise
        # A JPEG has no checksum. Whether it is damaged, or a program lacks a feature, shows when it is
        # decoded alone.
        for frame in islice(iter(frames), _FIRST_IMAGES):
            faults = [decode_fault([frame.data], header, toolchain.ffmpeg) for toolchain in found]
            if faults and faults[0] and all(faults):
                raise damaged(frame.name, faults[0]) from None
        raise


def encode_frames(
    encoding: Encoding,
    frames: FrameSource,
    header: ImageHeader,
    output: Path,
    *,
    depth: DepthSamples | None = None,
    statistics: RgbHistogram | DepthStatistics | None = None,
    on_frames: Callable[[int], None] | None = None,
    cancellation: Cancellation | None = None,
) -> Log:
    """Encode a source's images into ``output``; the caller verifies and publishes it.

    Args:
        encoding: the encoding.
        frames, header: the images.
        output: the file.
        depth: converts depth maps to samples, and has their checksums afterwards.
        statistics: statistics to which the frames are added.
        on_frames: called from time to time with the number of frames encoded so far.
        cancellation: can stop the encode from another thread.

    Raises:
        SourceError: a frame is damaged; the text names it.
        FfmpegError: the encode failed for another reason.
    """
    histogram = statistics if isinstance(statistics, RgbHistogram) else None
    counts = statistics if isinstance(statistics, DepthStatistics) else None
    pieces: Iterable[Buffer]
    pieces = (
        fed_pieces(frames, header)
        if depth is None
        else depth_pieces(frames, header, depth, counts, encoding.geometry)
    )
    try:
        return run_fed(
            encoding.command(output, histogram.tap if histogram else None),
            pieces,
            on_frames=on_frames,
            on_output=histogram.feed if histogram else None,
            cancellation=cancellation,
            lend=True,
        )
    except FfmpegError as error:
        decoding = re.search(r"\[(png|mjpeg|vist#|image2pipe|png_pipe|dec:)", str(error))
        if depth is None and error.returncode >= 0 and not error.unable and decoding:
            raise _named_fault(encoding, frames, header, error) from None
        raise


def verify_encoded(
    encoding: Encoding,
    path: Path,
    frames: int,
    sent: Callable[[int, int], Sequence[int]] | None = None,
    cancellation: Cancellation | None = None,
    tags: Mapping[str, str] = COLOUR_TAGS,
    read: Callable[[Path], StreamInfo] | None = None,
) -> StreamInfo:
    """Compare a file with its encoding, and some frames of lossless depth sample by sample.

    A few frames at the start, middle and end are decoded. This is enough, because a fault that changes
    samples (a wrong range, a conversion, a build with fewer bits) changes them everywhere.

    Args:
        encoding: the encoding of the file.
        path: the file.
        frames: expected number of frames.
        sent: returns the CRC-32 of the encoded samples of depth frames, given the index of the first one and
            their number; None for colours.
        cancellation: can stop the comparison from another thread.
        tags: expected colour tags.
        read: reads the stream fields, with ``times``; None: ffprobe does.

    Raises:
        VerificationError: something differs; the text names it.
    """
    info = encoding.verify(path, frames, tags=tags, read=read)
    if sent is None or not encoding.lossless:
        return info
    whole = Clip(path, info, 0, frames)
    places = _looked_at(info.key_frames or (0,), frames)
    if len(info.key_frames or ()) == frames and _come_back(whole, places, sent, encoding, cancellation):
        return info
    for looked in places:
        expected = sent(looked.start, len(looked))
        found = clip_checksums(whole, looked.start, len(looked), encoding.toolchain, cancellation)
        for number, (given, shown) in enumerate(zip_longest(expected, found), looked.start):
            if given != shown:
                raise VerificationError(
                    f"frame {number} was not decoded to what was sent, although the settings are lossless"
                )
    return info


def _come_back(
    whole: Clip,
    places: Sequence[range],
    sent: Callable[[int, int], Sequence[int]],
    encoding: Encoding,
    cancellation: Cancellation | None,
) -> bool:
    """Compare frames of a file with only key frames in one run; if one differs, compare each place alone."""
    try:
        found = key_checksums(whole, places, encoding.toolchain, cancellation)
    except FfmpegError as error:
        if error.unable:
            raise
        return False
    return found == [checksum for place in places for checksum in sent(place.start, len(place))]


def _looked_at(keys: Sequence[int], frames: int) -> list[range]:
    """Return ranges of frames from the first, the middle and the last key frame on; close ones are merged.

    Each extends at most to the next key frame: the frames after it are decoded in the same way.
    """
    found: list[range] = []
    bounds = [*keys, frames]
    for place in sorted({0, len(keys) // 2, len(keys) - 1}):
        first = bounds[place]
        start = found.pop().start if found and first <= found[-1].stop + _BETWEEN else first
        found.append(range(start, min(first + _COMPARED, bounds[place + 1])))
    return found


def _named_fault(
    encoding: Encoding, frames: FrameSource, header: ImageHeader, error: FfmpegError
) -> SourceError | FfmpegError:
    """Find the frame that FFmpeg could not decode, because its message does not name it."""
    program = encoding.toolchain.ffmpeg
    remaining = iter(frames)
    while batch := list(islice(remaining, _SEARCHED_AT_ONCE)):
        for frame in batch:
            if fault := find_fault(frame.data):
                return damaged(frame.name, fault)
        if decode_fault([frame.data for frame in batch], header, program):
            for frame in batch:
                if fault := decode_fault([frame.data], header, program):
                    return damaged(frame.name, fault)
    return error


def decode_fault(images: Sequence[bytes], header: ImageHeader, program: str) -> str | None:
    """Return FFmpeg's error message for images that it cannot decode; None if it can.

    Args:
        images: PNG or JPEG images.
        header: their header.
        program: the ffmpeg.
    """
    if header.format == "raw":
        return None
    command = compile_samples(
        VideoEncoderConfig(),
        width=header.width,
        height=header.height,
        fps=1,
        frames=fed_format(header),
        program=program,
    )
    try:
        run_fed(command, images, on_output=lambda _: None, stall_seconds=_DECODE_SECONDS)
    except FfmpegError as error:
        if error.unable:
            raise
        return error.cause
    return None


def checked_output(output: str | Path, *, overwrite: bool) -> Path:
    """Return the path of a result after checking that it can be written.

    Raises:
        ConfigError: not a path, or the name does not end in ``.mp4``.
        DestinationError: see :func:`~ffenc.frames.publish.check_file_in_folder`.
    """
    target = checked_path("output", output)
    if target.suffix.lower() != ".mp4":
        raise ConfigError(f"{target}: results are MP4 files; choose a name that ends in .mp4")
    check_file_in_folder(target, overwrite=overwrite)
    return target
