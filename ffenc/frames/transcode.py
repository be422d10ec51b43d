"""Re-encode frames of a video file: decoded and encoded inside one ffmpeg."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ffenc.codecs.pixel_formats import PIXEL_FORMATS, pixel_format
from ffenc.compiler.colour import is_bt601, kept_tags, rgb_conversion
from ffenc.compiler.command import VideoInput
from ffenc.compiler.decode import compile_checksums, compile_decode, compile_frame_checksums
from ffenc.compiler.frames import raw_format
from ffenc.compiler.inputs import without_stop
from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.framerate import Pick
from ffenc.config.transform import Geometry, Transform
from ffenc.errors import (
    ConfigError,
    FfencError,
    FfencWarning,
    FfmpegError,
    SourceError,
    ToolchainError,
    VerificationError,
)
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.ffmpeg.process import run_asked, run_fed
from ffenc.ffmpeg.toolchain import Toolchain, how_to_get
from ffenc.frames.depth import DepthQuantizer
from ffenc.frames.depth_images import DepthStatistics, changed
from ffenc.frames.encoding import Encoding
from ffenc.frames.excerpt import FrameIndex
from ffenc.frames.prepare import Absent, prepare
from ffenc.frames.reader import VideoReader
from ffenc.frames.sources import files_fingerprint
from ffenc.frames.statistics import RgbHistogram
from ffenc.frames.stored_png import crc32
from ffenc.frames.stream import DEPTH_FORMATS
from ffenc.layout import DEPTH_FIELDS, TIME_TOLERANCE
from ffenc.spelling import argument

_TRIAL_FRAMES = 2
_AROUND = 100  # frames, in which a damaged one shows
# Words of the program's reading side; NULL is a codec's parser.
_DECODING = re.compile(
    r"\[(vist#|in#|dec:|NULL|mov,mp4|matroska|h264|hevc|libdav1d|av1|libaom-av1|ffv1)|corrupt input"
)


@dataclass(frozen=True)
class Clip:
    """Frames of a video file, one after another.

    Attributes:
        path: the file.
        info: its fields, with ``times``.
        first: the first frame's index in the file.
        frames: how many frames of the file it covers, 1 or more.
        pick: which of those are taken; None: all.
        origin: what the file was made of, where it was made for one run; None: it is a source itself.
    """

    path: Path
    info: StreamInfo
    first: int
    frames: int
    pick: Pick | None = None
    origin: str | None = None

    def __len__(self) -> int:
        return self.frames if self.pick is None else self.pick.count(self.frames)

    def numbers(self) -> Sequence[int]:
        """The frames' indices in the file."""
        if self.pick is None:
            return range(self.first, self.first + self.frames)
        return [self.first + number for number in self.pick.indices(self.frames)]

    @property
    def depth(self) -> bool:
        """Whether it holds depth."""
        return self.info.pix_fmt in DEPTH_FORMATS

    @property
    def tags(self) -> Mapping[str, str]:
        """What is tagged in a video that is made of it."""
        info = self.info
        return kept_tags(info.pix_fmt, info.color_space, info.color_primaries, info.color_transfer)

    def seconds(self) -> list[Fraction]:
        """The frames' times in the file, in seconds."""
        assert self.info.times is not None
        times = self.info.times[self.first : self.first + self.frames]
        return [ticks * self.info.time_base for ticks in times]

    def part(self, first: int, frames: int) -> Clip:
        """Some of the frames that it covers, all of them, ``first`` counted from its own first."""
        return Clip(self.path, self.info, self.first + first, frames)

    def inputs(self) -> list[VideoInput]:
        """The frames as FFmpeg is asked for them, in the order to try.

        Entering a file may fail where key frames only say that they are: then it is read from its start.
        """
        return [self.input(), *([self.input(from_start=True)] if self.input().excerpt.seek else [])]

    def input(self, *, from_start: bool = False) -> VideoInput:
        """The frames as FFmpeg is asked for them."""
        index = FrameIndex(self.info)
        chosen = range(self.first, self.first + self.frames)
        conversion = None
        if not self.depth:
            conversion = rgb_conversion(self.info.pix_fmt, self.info.color_space, self.info.color_range)
        entry = None if from_start else index.entry(self.first, early=True)
        excerpt = replace(index.excerpt(chosen, entry), frames=len(self), pick=self.pick)
        return VideoInput(str(self.path), excerpt, conversion, self.tags)

    def fingerprint(self) -> str:
        """What the file is, without reading it."""
        picked = "" if self.pick is None else f"{self.pick} "
        return f"{self.first} {self.frames} {picked}{self.origin or files_fingerprint([self.path])}"


def check_spacing(clip: Clip, fps: Fraction, where: str, *, start: float | None = None) -> None:
    """Refuse frames that are not at i / fps from the first, by more than LeRobot's reader allows.

    Args:
        clip: the frames.
        fps: frames a second.
        where: what they are, for the error.
        start: where the first should be in the file, in seconds; None: where it is.

    Raises:
        SourceError: a frame is elsewhere; the text names it.
    """
    times = clip.seconds()
    base = times[0] if start is None else Fraction(start)
    number = off_grid(times, fps, base)
    if number is not None:
        raise SourceError(
            f"{where}: frame {number} is at {float(times[number]):.6f} s of {clip.path}, expected at "
            f"{float(base + number / fps):.6f} s ({float(fps):g} fps): a frame is missing or doubled"
        )


def off_grid(
    times: Sequence[Fraction], fps: Fraction, base: Fraction, tolerance: float = TIME_TOLERANCE
) -> int | None:
    """Return the number of the first frame that is not at base + i / fps; None: all are.

    Args:
        times: of the frames, in seconds.
        fps: frames a second.
        base: where the first should be, in seconds.
        tolerance: how far off a frame may be, in seconds; by default what LeRobot's reader allows.
    """
    first, ticks, scale = float(base), fps.denominator, fps.numerator
    return next(
        (i for i, time in enumerate(times) if abs(float(time) - first - i * ticks / scale) > tolerance), None
    )


def depth_config(
    config: VideoEncoderConfig, clip: Clip, quantizer: DepthQuantizer | None
) -> DepthEncoderConfig:
    """Return the settings for depth that is quantised already: with the quantiser it has.

    Args:
        config: the settings asked for.
        clip: the depth.
        quantizer: how it was quantised; None for millimetres (``gray16le``).

    Raises:
        ConfigError: the settings are not for depth, or of another pixel format than the depth is in.
    """
    if not isinstance(config, DepthEncoderConfig):
        raise ConfigError(f"{clip.path} holds depth: the settings have to be a depth camera's")
    if config.pix_fmt != clip.info.pix_fmt:
        raise ConfigError(
            f"{clip.path} holds depth as {clip.info.pix_fmt}, which is kept: pix_fmt={config.pix_fmt!r} "
            f"would change it. Pass {argument('depth_encoder.pix_fmt', clip.info.pix_fmt)}"
            + (f" {argument('depth_encoder.vcodec', 'ffv1')}" if clip.info.pix_fmt == "gray16le" else "")
        )
    if quantizer is None:
        return config
    return config.replace(**{name: getattr(quantizer, name) for name in DEPTH_FIELDS})


def _trial_frames(clip: Clip, candidates: Sequence[Toolchain]) -> tuple[list[Toolchain], list[bytes]]:
    """Decode the first frames with every program, to know which ones can.

    Returns:
        the programs that decode it, and the frames, raw: rgb24, or depth's own format.

    Raises:
        ToolchainError: no program here decodes them.
    """
    able: list[Toolchain] = []
    frames: list[bytes] = []
    faults: list[str] = []
    for toolchain in candidates:
        try:
            shown = _shown(clip.part(0, min(_TRIAL_FRAMES, clip.frames)), toolchain)
        except FfmpegError as error:
            faults.append(f"  {toolchain}: {error.cause}")
            continue
        able.append(toolchain)
        size = clip.info.width * clip.info.height * (2 if clip.depth else 3)
        frames = frames or [shown[at : at + size] for at in range(0, len(shown), size)]
    if not able:
        for toolchain in candidates:
            with contextlib.suppress(ToolchainError):  # it lacks the decoder
                read_through(clip.part(0, min(_AROUND, clip.frames)), toolchain)
        told = "\n".join(faults)
        raise ToolchainError(
            f"{clip.path}: frame {clip.first} is damaged, or {clip.info.codec} cannot be decoded here:\n"
            f"{told}\n{how_to_get()}"
        )
    return able, frames


def _shown(clip: Clip, toolchain: Toolchain) -> bytes:
    """Decode a clip: rgb24, or depth's own format."""
    *first, last = clip.inputs()
    for wanted in (*first, last):
        shown = bytearray()
        command = compile_decode(
            wanted.path,
            pix_fmt=clip.info.pix_fmt if clip.depth else "rgb24",
            conversion=wanted.conversion,
            excerpt=wanted.excerpt,
            program=toolchain.ffmpeg,
        )
        try:
            run_fed(command, [], on_output=shown.extend)
        except FfmpegError as error:
            if error.killed or wanted is last:
                raise
        else:
            break
    return bytes(shown)


def prepare_clip(
    clip: Clip,
    config: VideoEncoderConfig,
    fps: Fraction,
    *,
    candidates: Sequence[Toolchain],
    others: Sequence[Clip] = (),
    encoder_threads: int | None = None,
    absent: Absent | None = None,
    transform: Transform | None = None,
) -> Encoding:
    """Choose the programs and the encoder for a clip: they have to decode it too.

    Args:
        others: clips that are encoded in the same way, which the program has to decode as well.

    The other arguments, and errors, as for :func:`ffenc.frames.prepare.prepare`; a ToolchainError or a
    SourceError also where no program decodes the first frames.
    """
    prepared = partial(
        _prepared,
        *(clip, others, config, fps),
        encoder_threads=encoder_threads,
        absent=absent,
        transform=transform,
    )
    # The first program can nearly always do it, and each that is asked takes its time to start. With `auto`,
    # hardware that runs with a later one comes before the first one's software.
    if config.vcodec != "auto" and len(candidates) > 1:
        try:
            encoding = prepared(candidates[:1])
        except FfmpegError as error:
            if error.killed:
                raise
        except FfencError:
            pass
        else:
            _warn_of_colours(clip, config)
            return encoding
    _warn_of_colours(clip, config)
    return prepared(candidates)


def _prepared(
    clip: Clip,
    others: Sequence[Clip],
    config: VideoEncoderConfig,
    fps: Fraction,
    candidates: Sequence[Toolchain],
    *,
    encoder_threads: int | None,
    absent: Absent | None,
    transform: Transform | None,
) -> Encoding:
    able = candidates
    for other in others:
        able, _ = _trial_frames(other, able)
    able, frames = _trial_frames(clip, able)
    if transform is not None:
        geometry = transform.of(clip.info.width, clip.info.height)
        _check_crop(clip, geometry)
        if clip.depth:
            shape = clip.info.height, clip.info.width
            frames = [
                changed(np.frombuffer(frame, "<u2").reshape(shape), geometry).tobytes() for frame in frames
            ]
    return prepare(
        config,
        frames,
        width=clip.info.width,
        height=clip.info.height,
        fps=fps,
        frames=raw_format(config) if clip.depth else "rgb24",
        encoder_threads=encoder_threads,
        candidates=able,
        absent=absent,
        stored=None if clip.depth else _stored_as(clip.info.pix_fmt),
        transform=transform,
    )


def _warn_of_colours(clip: Clip, config: VideoEncoderConfig) -> None:
    """Say what becomes of colours that a reader which ignores tags has shown otherwise."""
    full_range = clip.info.color_range == "pc" or clip.info.pix_fmt.startswith("yuvj")
    if full_range and not clip.depth and not pixel_format(config.pix_fmt).rgb:
        warnings.warn(
            f"{clip.path}: its full range of levels (0 to 255) becomes the limited one (16 to 235), for "
            "which readers take a video: they show the same colours, give or take a level",
            FfencWarning,
            stacklevel=3,
        )
    space = clip.info.color_space
    if not clip.depth and pixel_format(config.pix_fmt).rgb and not is_bt601(space):
        warnings.warn(
            f"{clip.path}: its colours, {space}, become RGB in {config.pix_fmt}. A reader that ignores "
            "colour tags, as LeRobot's does, will show other colours than it has shown of this file",
            FfencWarning,
            stacklevel=3,
        )


def _check_crop(clip: Clip, geometry: Geometry) -> None:
    """Refuse a crop that would cut through the halved planes of chroma.

    Raises:
        ConfigError: its corner or its size is odd.
    """
    fmt = PIXEL_FORMATS.get(clip.info.pix_fmt)
    if geometry.crop is None or clip.depth or fmt is None:
        return
    x, y, width, height = geometry.crop
    if x % fmt.x_step or width % fmt.x_step or y % fmt.y_step or height % fmt.y_step:
        even = [number - number % 2 for number in geometry.crop]
        raise ConfigError(
            f"crop {width}x{height}+{x}+{y} cuts through the chroma of {clip.info.pix_fmt}, which has half "
            f"the size: use even numbers, such as "
            f"{argument('crop', f'{even[2]}x{even[3]}+{even[0]}+{even[1]}')}"
        )


def _stored_as(pix_fmt: str) -> tuple[int, int]:
    """Channels and bits of a video's samples, by the name of its pixel format."""
    found = re.search(r"(?:p|p0|gray)(9|10|12|14|16)(?:le|be)?$", pix_fmt)
    return (1 if pix_fmt.startswith(("gray", "mono")) else 3), int(found[1]) if found else 8


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
        encoding: how; frame i will sit at i / its fps.
        clip: the frames.
        output: the file.
        on_frames: called now and then with the number of frames encoded so far.
        cancellation: who may end it.

    Returns:
        of depth, what gives the CRC-32 of the samples of some frames that were encoded: the first one's
        number, and how many.

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
    """Encode depth that goes through here: FFmpeg's padding would be a depth."""
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
    """Run a command that decodes a clip, whatever is behind it; ``again`` is called before another try."""
    failed: FfmpegError | None = None
    inputs = clip.inputs()
    for wanted in inputs:
        try:
            run_fed(compiled(wanted), [], **run)
            return
        except FfmpegError as error:
            if error.returncode < 0 or not _DECODING.search(str(error)):
                raise
            failed = error
        if again is not None:
            again()
    read_through(clip, toolchain)
    # All frames of the clip are sound. Decoders work ahead: one behind them, or before, is damaged.
    try:
        run_fed(without_stop(compiled(inputs[0])), [], **run)
    except FfmpegError as other:
        if other.returncode:
            raise other from failed


def _read_raw(clip: Clip, toolchain: Toolchain) -> None:
    """Say what a decoder says of a stream without a container, whose frames a reader cannot enter."""
    command = compile_checksums(str(clip.path), {"threads": 1}, program=toolchain.ffmpeg)
    try:
        run_asked(command)
    except FfmpegError as error:
        raise SourceError(f"{clip.path}: is damaged, or cut short: {error.cause}") from None


def read_through(clip: Clip, toolchain: Toolchain) -> None:
    """Find out which frame of a clip is damaged: FFmpeg does not say it, the reader does.

    Raises:
        SourceError: one is; the text names it.
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
    """Where something is missing in what was made of a clip, say which frame was damaged.

    Of some codecs FFmpeg leaves a damaged frame out without an error; the reader finds out.

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
    """Return the CRC-32 of the samples of some frames, as they are stored.

    Args:
        clip: the frames.
        first: index in the clip.
        count: how many at most.
        toolchain: the programs.
        cancellation: who may end it.
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
        statistics: filled.
        quantizer: of depth codes; None for colours and millimetres.
        toolchain: the programs.
        geometry: how frames are changed before.
        cancellation: who may end it.

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
