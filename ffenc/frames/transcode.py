"""Re-encode frames of a video file: decoded and encoded in one ffmpeg."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ffenc.compiler.command import VideoInput
from ffenc.compiler.decode import (
    compile_checksums,
    compile_decode,
    compile_frame_checksums,
    compile_listed_checksums,
)
from ffenc.compiler.inputs import without_stop
from ffenc.config.transform import Geometry
from ffenc.errors import (
    FfmpegError,
    SourceError,
    VerificationError,
)
from ffenc.ffmpeg.join import file_line, list_of
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.process import run_asked, run_fed
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.clip import Clip
from ffenc.frames.crc import crc32
from ffenc.frames.depth import DepthQuantizer
from ffenc.frames.depth_images import DepthStatistics, changed
from ffenc.frames.encoding import Encoding
from ffenc.frames.excerpt import FrameIndex
from ffenc.frames.reader import VideoReader
from ffenc.frames.statistics import RgbHistogram

DAMAGE_SHOWS = 100  # frames in which a damaged one is detected
# Messages of the program's input side; NULL is a codec's parser.
_DECODING = re.compile(
    r"\[(vist#|in#|dec:|NULL|mov,mp4|matroska|h264|hevc|libdav1d|av1|libaom-av1|ffv1)|corrupt input"
)


def transcode(
    encoding: Encoding,
    clip: Clip,
    output: Path,
    *,
    on_frames: Callable[[int], None] | None = None,
    cancellation: Cancellation | None = None,
) -> Callable[[int, int], Sequence[int]] | None:
    """Encode a clip's frames, each one once, into ``output``; the caller verifies and publishes it.

    Args:
        encoding: the encoding; frame i is stored at i / its fps.
        clip: the frames.
        output: the file.
        on_frames: called from time to time with the number of frames encoded so far.
        cancellation: can stop the encode from another thread.

    Returns:
        For depth, a function that returns the CRC-32 of the encoded samples of some frames, given the index
        of the first one and their number; None for colours.

    Raises:
        SourceError: a frame is damaged; the text names it.
        FfmpegError: the encode failed for another reason.
    """
    if clip.depth and (encoding.geometry is not None or clip.pick is not None):
        return _changed_depth(encoding, clip, output, on_frames, cancellation)
    _run(
        clip,
        lambda wanted: encoding.command(output, video=wanted),
        encoding.toolchain,
        on_frames=on_frames,
        cancellation=cancellation,
    )
    if not clip.depth:
        return None
    return lambda first, count: clip_checksums(clip, first, count, encoding.toolchain, cancellation)


def _changed_depth(
    encoding: Encoding,
    clip: Clip,
    output: Path,
    on_frames: Callable[[int], None] | None,
    cancellation: Cancellation | None,
) -> Callable[[int, int], Sequence[int]]:
    """Encode depth that is transformed in this process: FFmpeg would pad with a value that is a depth."""
    geometry = encoding.geometry
    checksums: list[int] = []

    def pieces() -> Iterator[memoryview]:
        with VideoReader(
            clip.path, depth=False, ffmpeg=encoding.toolchain.ffmpeg, ffprobe=encoding.toolchain.ffprobe
        ) as reader:
            for frame in reader.each(clip.numbers()):
                samples = np.ascontiguousarray(changed(frame, geometry), "<u2")
                checksums.append(crc32(samples.data))
                yield samples.data.cast("B")

    run_fed(encoding.command(output), pieces(), on_frames=on_frames, cancellation=cancellation)
    return lambda first, count: checksums[first : first + count]


def _run(
    clip: Clip,
    compiled: Callable[[VideoInput], list[str]],
    toolchain: Toolchain,
    *,
    again: Callable[[], None] | None = None,
    **run: Any,
) -> None:
    """Run a command that decodes a clip, again if a seek fails; ``again`` is called before the retry."""
    failed: FfmpegError | None = None
    inputs = clip.inputs()
    for wanted in inputs:
        try:
            run_fed(compiled(wanted), [], **run)
            return
        except FfmpegError as error:
            if error.unable or error.returncode < 0 or not _DECODING.search(str(error)):
                raise
            failed = error
        if again is not None:
            again()
    read_through(clip, toolchain)
    # All frames of the clip are intact. Decoders work ahead: one after the clip, or before it, is damaged.
    try:
        run_fed(without_stop(compiled(inputs[0])), [], **run)
    except FfmpegError as other:
        if other.unable or other.returncode:
            raise other from failed


def _read_raw(clip: Clip, toolchain: Toolchain) -> None:
    """Raise the decoder's error for an elementary stream, in which a reader cannot seek."""
    command = compile_checksums(str(clip.path), {"threads": 1}, program=toolchain.ffmpeg)
    try:
        run_asked(command)
    except FfmpegError as error:
        if error.unable:
            raise
        raise SourceError(f"{clip.path}: is damaged, or cut short: {error.cause}") from None


def read_through(clip: Clip, toolchain: Toolchain) -> None:
    """Find the damaged frame of a clip with the reader: FFmpeg's messages do not name it.

    Raises:
        SourceError: a frame is damaged; the text names it.
        ToolchainError: the program does not have the decoder.
    """
    if clip.info.raw:
        _read_raw(clip, toolchain)
        return
    with VideoReader(
        clip.path,
        depth=False if clip.depth else None,
        ffmpeg=toolchain.ffmpeg,
        ffprobe=toolchain.ffprobe,
    ) as reader:
        for _ in reader.each(range(clip.first, clip.first + clip.frames)):
            pass


@contextlib.contextmanager
def damage_named(clip: Clip, toolchain: Toolchain) -> Iterator[None]:
    """Name the damaged frame if the result of a clip lacks frames.

    For some codecs FFmpeg drops a damaged frame without an error; the reader detects it.

    Raises:
        SourceError: a frame is damaged; the text names it.
    """
    try:
        yield
    except VerificationError:
        read_through(clip, toolchain)
        raise


def clip_checksums(
    clip: Clip, first: int, count: int, toolchain: Toolchain, cancellation: Cancellation | None = None
) -> list[int]:
    """Return the CRC-32 of the stored samples of some frames.

    Args:
        clip: the frames.
        first: index of the first frame in the clip.
        count: greatest number of frames.
        toolchain: the programs.
        cancellation: can stop the program from another thread.
    """
    count = min(count, clip.frames - first)
    part = clip.part(first, count)
    listed = bytearray()
    _run(
        part,
        lambda wanted: compile_frame_checksums(
            wanted.path, pix_fmt=clip.info.pix_fmt, excerpt=wanted.excerpt, program=toolchain.ffmpeg
        ),
        toolchain,
        on_output=listed.extend,
        again=listed.clear,
        cancellation=cancellation,
    )
    return _hashes(listed)


def key_checksums(
    clip: Clip, parts: Sequence[range], toolchain: Toolchain, cancellation: Cancellation | None = None
) -> list[int]:
    """Return the CRC-32 of the stored samples of some frames of a clip with only key frames.

    One FFmpeg decodes only these frames. Because it uses the container's seek, it may return other frames.

    Args:
        clip: the frames, from the first of their file on.
        parts: ranges of indices in the clip, ascending.
        toolchain, cancellation: as for :func:`clip_checksums`.

    Raises:
        FfmpegError: a frame cannot be decoded.
    """
    index = FrameIndex(clip.info)
    lines: list[str] = []
    for part in parts:
        lines.append(file_line(clip.path))
        entries = [("inpoint", index.entry(part.start)), ("outpoint", index.after(part[-1]))]
        lines += [f"{name} {round(place * 1_000_000)}us" for name, place in entries if place is not None]
    listed = bytearray()
    command = compile_listed_checksums(
        pix_fmt=clip.info.pix_fmt, frames=sum(map(len, parts)), program=toolchain.ffmpeg
    )
    run_fed(
        command,
        [list_of(lines)],
        on_output=listed.extend,
        cancellation=cancellation,
        inputs=[clip.path],
    )
    return _hashes(listed)


def _hashes(listed: bytearray) -> list[int]:
    """Return the checksums in the output of FFmpeg's framehash muxer."""
    lines = (line for line in listed.decode("ascii", "replace").splitlines() if not line.startswith("#"))
    return [int(line.rpartition(",")[2].strip(), 16) for line in lines]


def clip_statistics(
    clip: Clip,
    statistics: RgbHistogram | DepthStatistics,
    *,
    quantizer: DepthQuantizer | None,
    toolchain: Toolchain,
    geometry: Geometry | None = None,
    cancellation: Cancellation | None = None,
) -> None:
    """Decode a clip for its statistics.

    Args:
        clip: the frames.
        statistics: statistics to which the frames are added.
        quantizer: quantiser of depth codes; None for colours and millimetres.
        toolchain: the programs.
        geometry: transform of the frames before that.
        cancellation: can stop the program from another thread.

    Raises:
        SourceError: a frame is damaged; the text names it.
        FfmpegError: decoding failed for another reason.
    """
    if isinstance(statistics, RgbHistogram):
        tap = statistics.tap
        _run(
            clip,
            lambda wanted: compile_decode(
                wanted.path,
                pix_fmt="rgb24",
                conversion=wanted.conversion,
                excerpt=wanted.excerpt,
                tap=tap,
                geometry=geometry,
                program=toolchain.ffmpeg,
            ),
            toolchain,
            on_output=statistics.feed,
            again=statistics.clear,
            cancellation=cancellation,
        )
        return
    with VideoReader(
        clip.path,
        depth=quantizer,
        depth_output_unit=statistics.unit,
        ffmpeg=toolchain.ffmpeg,
        ffprobe=toolchain.ffprobe,
    ) as reader:
        for frame in reader.each(clip.numbers()):
            if cancellation is not None:
                cancellation.check()
            statistics.add(changed(frame, geometry))
