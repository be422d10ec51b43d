"""Trials of all encoders of the codec table on this machine."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction

from msgspec import Struct

from ffenc.codecs.codec import Codec
from ffenc.codecs.table import CODECS
from ffenc.compiler.frames import FrameFormat
from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.errors import FfencError, FfencWarning
from ffenc.ffmpeg.encoders import NOT_LISTED, encoder_names
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.encoding import Encoding
from ffenc.frames.load import HUNG, measure_load
from ffenc.frames.pattern import pattern_frames
from ffenc.frames.prepare import prepare

_BIT_RATE = "4M"  # for an encoder without a quality option


class Surveyed(Struct, frozen=True):
    """The result of an encoder with its default settings.

    Attributes:
        vcodec: name in the codec table.
        encoder: FFmpeg's name.
        pix_fmt: encoded pixel format: ``yuv420p``, or ``gray12le`` for lossless depth.
        listed_by: the programs that list it, as indices of the given toolchains.
        encoding: the successful encoding; None if it does not run.
        reason: why it does not run, "" if it does.
        fps: frames per second that it encoded alone; None if it does not run.
    """

    vcodec: str
    encoder: str
    pix_fmt: str
    listed_by: tuple[int, ...]
    encoding: Encoding | None
    reason: str
    fps: float | None

    @property
    def runs(self) -> bool:
        return self.encoding is not None


def survey(
    toolchains: Sequence[Toolchain],
    *,
    width: int,
    height: int,
    seconds: float = 1.0,
    on_step: Callable[[str], None] = lambda _: None,
) -> list[Surveyed]:
    """Try every encoder of the table, and the depth encoders, and measure those that run, one by one.

    Args:
        toolchains: the programs, best first.
        width, height: frame size in pixels.
        seconds: duration of each measurement.
        on_step: called with the name of the next encoder.
    """
    rows: list[tuple[Codec, VideoEncoderConfig, FrameFormat]] = [
        (row, _default_config(row), "rgb24") for row in CODECS.values()
    ]
    rows.append((CODECS["hevc"], DepthEncoderConfig(), "gray12le"))
    rows.append((CODECS["ffv1"], DepthEncoderConfig(vcodec="ffv1", extra_options={}), "gray12le"))
    found = []
    for row, settings, frames in rows:
        on_step(row.name)
        listed = tuple(i for i, one in enumerate(toolchains) if row.encoder in _names(one))
        found.append(_surveyed(row, settings, frames, listed, toolchains, width, height, seconds))
    return found


def _default_config(row: Codec) -> VideoEncoderConfig:
    extra = {"b:v": _BIT_RATE} if row.needs_bit_rate else {}
    return VideoEncoderConfig(vcodec=row.name, extra_options=extra)


def _names(toolchain: Toolchain) -> frozenset[str]:
    try:
        return encoder_names(toolchain.ffmpeg)
    except FfencError:
        return frozenset()


def _surveyed(
    row: Codec,
    config: VideoEncoderConfig,
    frames: FrameFormat,
    listed: tuple[int, ...],
    toolchains: Sequence[Toolchain],
    width: int,
    height: int,
    seconds: float,
) -> Surveyed:
    def result(encoding: Encoding | None, reason: str, fps: float | None) -> Surveyed:
        return Surveyed(row.name, row.encoder, config.pix_fmt, listed, encoding, reason, fps)

    if not listed:
        return result(None, NOT_LISTED, None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FfencWarning)  # the table shows which program is used
            encoding = prepare(
                config,
                pattern_frames(width, height, frames)[:2],
                width=width,
                height=height,
                fps=Fraction(30),
                frames=frames,
                candidates=[toolchains[i] for i in listed],
            )
        load = measure_load({row.name: encoding}, seconds=seconds)[row.name]
    except FfencError as error:
        return result(None, error.cause, None)
    if load.error is not None:
        return result(None, f"ran, and then {load.error.cause}", None)
    if row.hardware and not load.fps:
        return result(None, HUNG, None)
    return result(encoding, "", load.fps)
