"""Test one candidate: encode the sample, decode it, measure its quality and the time to read it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from ffenc.compiler.colour import rgb_conversion
from ffenc.compiler.decode import Compared
from ffenc.config.encoder import VideoEncoderConfig
from ffenc.errors import FfencWarning
from ffenc.ffmpeg.cache import recall, remember
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.machine import file_identity, machine_facts
from ffenc.ffmpeg.process import FfmpegProcess
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.encoding import Encoding
from ffenc.frames.load import measure_load
from ffenc.frames.prepare import Absent, prepare
from ffenc.frames.reader import VideoReader
from ffenc.quality.measure import Gauge, Quality, measure
from ffenc.temporary import temporary_folder
from ffenc.tune.decoding import Decoder, read_times
from ffenc.tune.sample import Sample

_KEPT = "tune 1"  # to be changed when the meaning of cached results changes
_RAW = rgb_conversion("rgb24", None, None)
_FED = 24  # number of frames for measuring the load


class Trial(Struct, frozen=True):
    """The results of a candidate.

    Attributes:
        bytes: total size of the encoded sample.
        frames: number of its frames.
        encode_fps: frames per second without other encoders, from the first frame to the end of the file.
        quality: of each frame of the sample; empty for depth.
        decode: decoder -> seconds, as from :func:`~ffenc.tune.decoding.read_times`.
        encoder: FFmpeg's name of the encoder, and its version.
        cached: the result of an earlier run.
        depth: for depth, the measurements of :mod:`ffenc.tune.depth`.
    """

    bytes: int
    frames: int
    encode_fps: float
    quality: Quality
    decode: Mapping[str, Mapping[str, float]]
    encoder: str
    cached: bool = False
    depth: Mapping[str, Any] | None = None

    @property
    def bytes_per_frame(self) -> float:
        return self.bytes / self.frames


def prepared(
    sample: Sample,
    config: VideoEncoderConfig,
    candidates: Sequence[Toolchain],
    absent: Absent | None = None,
) -> Encoding:
    """Choose the program for settings by encoding the sample's first frames.

    Raises:
        ConfigError, ToolchainError: the settings cannot be encoded on this machine.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FfencWarning)  # the result has the chosen program
        return prepare(
            config,
            [picture.tobytes() for picture in sample.pictures[:2]],
            width=sample.footage.width,
            height=sample.footage.height,
            fps=sample.footage.fps,
            frames="rgb24",
            candidates=candidates,
            absent=absent,
        )


def try_candidate(
    sample: Sample,
    encoding: Encoding,
    gauge: Gauge,
    decoders: Sequence[Decoder],
    *,
    cancellation: Cancellation | None = None,
) -> Trial:
    """Measure settings on a camera's sample, or return the result of an earlier run.

    A result is reused for the same frames, settings, programs, decoders and machine.

    Args:
        sample: the frames.
        encoding: the settings, prepared for this machine.
        gauge: measures quality.
        decoders: decoders whose reading time is measured.
        cancellation: can stop the measurement from another thread.

    Raises:
        FfmpegError, VerificationError: encoding or measuring failed.
    """
    programs = encoding.toolchain.ffmpeg, gauge.toolchain.ffmpeg
    key = [
        *(_KEPT, sample.digest, *map(file_identity, programs), machine_facts()),
        encoding.command(Path("trial.mp4"))[1:],
        *([metric.name for metric in gauge.metrics], [(one.name, one.version) for one in decoders]),
    ]
    known = recall(key)
    if known is not None:
        return _trial(known, cached=True)
    with temporary_folder() as folder:
        found = _measured(sample, encoding, gauge, decoders, Path(folder), cancellation)
    remember(key, found)
    return _trial(found, cached=False)


def _trial(found: Mapping[str, Any], *, cached: bool) -> Trial:
    # JSON has no infinity, so it is stored as text.
    values = {name: [float(value) for value in one] for name, one in found["values"].items()}
    return Trial(
        *(found["bytes"], found["frames"], found["encode_fps"], Quality(values)),
        *(found["decode"], found["encoder"], cached),
    )


def _measured(
    sample: Sample,
    encoding: Encoding,
    gauge: Gauge,
    decoders: Sequence[Decoder],
    folder: Path,
    cancellation: Cancellation | None,
) -> dict[str, Any]:
    size, seconds = 0, 0.0
    quality: Quality | None = None
    longest = (0, folder)
    for number, (stretch, pictures) in enumerate(sample.parts()):
        output = folder / f"{number}.mp4"
        seconds += stretch.frames / encode_part(encoding.command(output), pictures, cancellation)
        info = encoding.verify(output, stretch.frames)
        size += output.stat().st_size
        shown = Compared(str(output), rgb_conversion(info.pix_fmt, info.color_space, info.color_range))
        wanted = Compared("pipe:0", _RAW, images="rgb24", size=(encoding.width, encoding.height))
        found = measure(gauge, shown, wanted, fed(pictures), cancellation=cancellation)
        quality = found if quality is None else quality + found
        longest = max(longest, (stretch.frames, output))
    assert quality is not None
    frames, path = longest
    return {
        "bytes": size,
        "frames": len(sample),
        "encode_fps": round(len(sample) / seconds, 2),
        "values": {name: [str(value) for value in values] for name, values in quality.values.items()},
        "decode": {
            decoder.name: read_times(decoder, path, frames=frames, fps=encoding.fps) for decoder in decoders
        },
        "encoder": f"{encoding.codec.encoder} {encoding.encoder_version}".strip(),
    }


def fed(pictures: npt.NDArray[Any]) -> Iterable[memoryview]:
    """Yield frames as bytes for a pipe."""
    for picture in pictures:
        yield np.ascontiguousarray(picture).data.cast("B")


def encode_part(
    command: Sequence[str], pictures: npt.NDArray[Any], cancellation: Cancellation | None = None
) -> float:
    """Encode some frames; return the frames per second from the first frame to the program's end.

    The time to start the program is excluded, as it occurs once per episode.
    """
    size = int(pictures[0].nbytes)
    with FfmpegProcess(command, cancellation=cancellation, pipe_bytes=size) as process:
        began = time.monotonic()
        for number, piece in enumerate(fed(pictures)):
            if not process.write(piece):
                break
            if number == 1:  # the pipe holds one frame, so the program has read the first
                began = time.monotonic()
        process.finish()
    return max(1, len(pictures) - 1) / max(time.monotonic() - began, 1e-6)


def decoded_part(path: Path, encoding: Encoding, frames: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
    """Return frames of an encoded file as RGB."""
    with VideoReader(path, ffmpeg=encoding.toolchain.ffmpeg, ffprobe=encoding.toolchain.ffprobe) as reader:
        return list(reader.each(frames))


def speed_together(sample: Sample, encoding: Encoding, cameras: int, seconds: float = 1.0) -> float:
    """Return the frames per second of the slowest of several encoders that run at once.

    Args:
        sample: the frames to encode.
        encoding: settings of all encoders.
        cameras: number of encoders.
        seconds: duration of the measurement if there is no result of an earlier run.
    """
    key = [
        *(_KEPT, "together", cameras, sample.digest, file_identity(encoding.toolchain.ffmpeg)),
        *(machine_facts(), encoding.command(Path("trial.mp4"))[1:]),
    ]
    known = recall(key)
    if isinstance(known, float):
        return known
    some = [picture.tobytes() for picture in sample.pictures[:_FED]]
    # Forwards and backwards, so that the motion is continuous when the frames repeat.
    series = {f"{number}": [*some, *some[-2:0:-1]] for number in range(cameras)}
    loads = measure_load(dict.fromkeys(series, encoding), seconds=seconds, pictures=series)
    speed = min(load.fps for load in loads.values())
    if speed > 0:
        remember(key, speed)
    return speed
