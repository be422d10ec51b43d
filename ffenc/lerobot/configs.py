"""LeRobot's checks of encoder settings, applied to the FFmpeg programs that ffenc finds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

from ffenc.codecs.options import encoder_options
from ffenc.codecs.table import CODECS
from ffenc.compiler.command import encoder_format
from ffenc.compiler.frames import raw_format
from ffenc.config.encoder import VideoEncoderConfig
from ffenc.errors import ConfigError, FfencError
from ffenc.ffmpeg.encoders import check_encoder, encoder_names
from ffenc.ffmpeg.toolchain import toolchains
from ffenc.frames.prepare import prepare
from ffenc.lerobot.options import settings_of
from ffenc.recording.trial import trial_frames

_log = logging.getLogger("ffenc.lerobot")

_SIZE = (640, 480)  # for tests without a known frame size
_RATE = Fraction(30)

Method = Callable[..., Any]


def with_own_codecs(names: frozenset[str]) -> frozenset[str]:
    """Return LeRobot's names of codecs and ffenc's additional ones."""
    return names | frozenset(CODECS)


def detect_available_encoders(original: Method) -> Method:
    """Return the replacement of this LeRobot method: the available encoders of a list, or a given name.

    Hardware encoders of a list are tested, as a program lists them even without a device.
    """

    def replaced(self: Any, encoders: list[str] | str) -> list[str]:
        if isinstance(encoders, str):
            return [encoders] if _listed(encoders) else list(original(self, encoders))
        return [
            name
            for name in encoders
            if name in CODECS and (_runs(name) if CODECS[name].hardware else _listed(name))
        ]

    return replaced


def resolve_vcodec(original: Method) -> Method:
    """Return the replacement of this LeRobot method; ``auto`` becomes the first encoder that works."""

    def replaced(self: Any) -> None:
        if self.vcodec == "auto":
            self.vcodec = _chosen(settings_of(self))
            _log.info("vcodec=auto: %s", self.vcodec)
            return
        original(self)

    return replaced


def validate(original: Method, known: Callable[[str], object]) -> Method:
    """Return the replacement of this LeRobot method; ffenc checks encoders that PyAV does not have.

    Args:
        original: LeRobot's method.
        known: PyAV's lookup of an encoder; returns None if PyAV does not have it.
    """

    def replaced(self: Any) -> None:
        if known(self.vcodec) is not None:
            original(self)
            return
        _check(settings_of(self))

    return replaced


def _listed(name: str) -> bool:
    return name in CODECS and any(CODECS[name].encoder in _names(one.ffmpeg) for one in toolchains())


def _names(program: str) -> frozenset[str]:
    try:
        return encoder_names(program)
    except FfencError:
        return frozenset()


@cache
def _runs(name: str) -> bool:
    try:
        _chosen(VideoEncoderConfig(vcodec=name))
    except FfencError as error:
        _log.debug("%s: %s", name, error)
        return False
    return True


def _chosen(config: VideoEncoderConfig) -> str:
    """Return the encoder that encodes test frames with some settings.

    Raises:
        FfencError: no encoder can.
    """
    frames = raw_format(config)
    encoding = prepare(
        config, trial_frames(*_SIZE, frames), width=_SIZE[0], height=_SIZE[1], fps=_RATE, frames=frames
    )
    return encoding.config.vcodec


def _check(config: VideoEncoderConfig) -> None:
    """Check settings against the options that the programs list for the encoder.

    Raises:
        ConfigError: no program accepts them; the text says why.
    """
    codec = CODECS[config.vcodec]
    errors: list[str] = []
    for toolchain in toolchains():
        try:
            check_encoder(
                toolchain.ffmpeg, codec, encoder_options(codec, config, None), encoder_format(codec, config)
            )
        except FfencError as error:
            errors.append(f"{toolchain.ffmpeg}: {error}")
        else:
            return
    raise ConfigError(f"vcodec={config.vcodec}: " + "; ".join(errors))
