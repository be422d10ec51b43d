"""Try one candidate: encode the sample, read it back, measure quality and the time that reading takes."""

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

_KEPT = "tune 1"  # changes when what is kept means something else
_RAW = rgb_conversion("rgb24", None, None)
_FED = 24  # pictures that the load is measured with


class Trial(Struct, frozen=True):
    """What a candidate came to.

    Attributes:
        bytes: of the sample's files together.
        frames: how many they hold.
        encode_fps: frames a second, alone on the machine, from the first frame taken to the file's end.
        quality: of each of the sample's frames; of depth empty.
        decode: decoder -> seconds, as :func:`~ffenc.tune.decoding.read_times` has them.
        encoder: FFmpeg's name and its version.
        cached: it was measured by an earlier run.
        depth: of depth, what :mod:`ffenc.tune.depth` has measured.
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
    """Choose the program for settings, by trying them with the sample's first pictures.

    Raises:
        ConfigError, ToolchainError: they cannot be encoded here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FfencWarning)  # which program serves is in the result
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
    """Measure settings on a camera's sample, or recall what was measured before.

    It is recalled for the same pictures, settings, programs, decoders and machine.

    Args:
        sample: the pictures.
        encoding: the settings, as they run here.
        gauge: measures quality.
        decoders: read the result.
        cancellation: who may end it.

    Raises:
        FfmpegError, VerificationError: the encoder or the gauge failed.
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
    # JSON has no infinity: it is kept as a text.
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
    """Yield pictures as a pipe is given them."""
    for picture in pictures:
        yield np.ascontiguousarray(picture).data.cast("B")


def encode_part(
    command: Sequence[str], pictures: npt.NDArray[Any], cancellation: Cancellation | None = None
) -> float:
    """Encode some pictures; returns the frames a second from the first that is taken to the program's end.

    A program is started once an episode, so its start is not counted.
    """
    size = int(pictures[0].nbytes)
    with FfmpegProcess(command, cancellation=cancellation, pipe_bytes=size) as process:
        began = time.monotonic()
        for number, piece in enumerate(fed(pictures)):
            if not process.write(piece):
                break
            if number == 1:  # the pipe holds one frame, so the first has been taken
                began = time.monotonic()
        process.finish()
    return max(1, len(pictures) - 1) / max(time.monotonic() - began, 1e-6)


def decoded_part(path: Path, encoding: Encoding, frames: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
    """Return frames of an encoded file as RGB."""
    with VideoReader(path, ffmpeg=encoding.toolchain.ffmpeg, ffprobe=encoding.toolchain.ffprobe) as reader:
        return list(reader.each(frames))


def speed_together(sample: Sample, encoding: Encoding, cameras: int, seconds: float = 1.0) -> float:
    """Return the frames a second that each of several encoders takes that run at once, the slowest's.

    Args:
        sample: what they are fed.
        encoding: the settings of all.
        cameras: how many.
        seconds: how long to measure, where no earlier run has.
    """
    key = [
        *(_KEPT, "together", cameras, sample.digest, file_identity(encoding.toolchain.ffmpeg)),
        *(machine_facts(), encoding.command(Path("trial.mp4"))[1:]),
    ]
    known = recall(key)
    if isinstance(known, float):
        return known
    some = [picture.tobytes() for picture in sample.pictures[:_FED]]
    # There and back, so that the picture does not jump.
    series = {f"{number}": [*some, *some[-2:0:-1]] for number in range(cameras)}
    loads = measure_load(dict.fromkeys(series, encoding), seconds=seconds, pictures=series)
    speed = min(load.fps for load in loads.values())
    if speed > 0:
        remember(key, speed)
    return speed
