"""Measure the time to read frames of a file as training does."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.reader import VideoReader

WINDOWS = (1, 2, 6)  # numbers of consecutive frames, as in LeRobot's video benchmark
_PLACES = 10  # places in a file at which each window is read
_ROUNDS = 3  # the quickest counts, as other load only makes reading slower


class Decoder(Struct, frozen=True):
    """A library or program that reads frames.

    Attributes:
        name: ``torchcodec``, ``pyav`` or ``ffmpeg``.
        version: its version.
        open: given a file, and whether it is depth, returns a function that reads frames at times in seconds.
    """

    name: str
    version: str
    open: Callable[[Path, bool], Callable[[Sequence[float]], Any]]


def decoders(toolchain: Toolchain) -> list[Decoder]:
    """Return the decoders on this machine, LeRobot's preferred one first; ffmpeg if there is no other."""
    found = []
    for name, module, opened in (("torchcodec", "torchcodec", _torchcodec), ("pyav", "av", _pyav)):
        if importlib.util.find_spec(module) is not None:
            try:
                version = str(importlib.import_module(module).__version__)
            except (ImportError, RuntimeError, OSError):  # its FFmpeg libraries are missing
                continue
            found.append(Decoder(name, version, opened))
    return found or [Decoder("ffmpeg", toolchain.version, partial(_ffmpeg, toolchain))]


def _pyav(path: Path, depth: bool) -> Callable[[Sequence[float]], Any]:
    """As LeRobot does: open the file for each sample, and convert every frame from the key frame on."""
    import av  # noqa: PLC0415 - where it is installed

    def read(times: Sequence[float]) -> Any:
        frames = []
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            container.seek(round(min(times) / stream.time_base) - 1, stream=stream)
            for frame in container.decode(stream):
                frames.append(frame.to_ndarray(format=frame.format.name if depth else "rgb24"))
                assert frame.pts is not None
                if float(frame.pts * stream.time_base) >= max(times) - 1e-6:
                    break
        return frames[-len(times) :]

    return read


def _torchcodec(path: Path, depth: bool) -> Callable[[Sequence[float]], Any]:
    """As LeRobot does: keep the file open. For depth it returns colours as shown by a player."""
    decoding = importlib.import_module("torchcodec.decoders")
    decoder = decoding.VideoDecoder(str(path), seek_mode="approximate")
    rate = decoder.metadata.average_fps
    return lambda times: decoder.get_frames_at(indices=[round(one * rate) for one in times]).data


def _ffmpeg(toolchain: Toolchain, path: Path, depth: bool) -> Callable[[Sequence[float]], Any]:
    codes: Literal[False] | None = False if depth else None
    reader = VideoReader(path, depth=codes, ffmpeg=toolchain.ffmpeg, ffprobe=toolchain.ffprobe)
    return lambda times: reader[[reader.index_at(one, 1.0) for one in times]]


def read_times(
    decoder: Decoder, path: Path, *, frames: int, fps: Fraction, depth: bool = False
) -> dict[str, float]:
    """Measure the time to read frames, in seconds.

    Args:
        decoder: the decoder.
        path: the file.
        frames: number of its frames, evenly spaced from time 0 on.
        fps: frames per second.
        depth: the file is depth.

    Returns:
        ``random_1``, ``window_2``, ``window_6``: mean time for this number of consecutive frames, over places
        spread over the file in shuffled order; fewer frames if the file has fewer. ``sequential``: time per
        frame if the whole file is read at once.
    """
    read = decoder.open(path, depth)
    read([0.0])  # load everything that is loaded only once
    found = {}
    for size in WINDOWS:
        window = min(size, frames)
        last = frames - window
        count = min(_PLACES, last + 1)
        # Spread over the file, not in steps of the GOP length; consecutive ones far apart, as with a sampler.
        firsts = [round((i * 0.618034 % 1) * last) for i in range(1, count + 1)]
        windows = [[float(number / fps) for number in range(first, first + window)] for first in firsts]
        rounds = [[_timed(read, wanted) for wanted in windows] for _ in range(_ROUNDS)]
        times = [min(of_place) for of_place in zip(*rounds, strict=True)]
        found["random_1" if size == 1 else f"window_{size}"] = sum(times) / len(times)
    whole = [float(number / fps) for number in range(frames)]
    found["sequential"] = min(_timed(read, whole) for _ in range(_ROUNDS)) / frames
    return {name: round(seconds, 7) for name, seconds in found.items()}


def _timed(read: Callable[[Sequence[float]], Any], wanted: Sequence[float]) -> float:
    began = time.perf_counter()
    read(wanted)
    return time.perf_counter() - began
