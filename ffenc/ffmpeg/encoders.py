"""The encoders that an ffmpeg lists, and their options. A listed encoder may still be unable to run."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import lru_cache

from ffenc.codecs.codec import Codec
from ffenc.codecs.table import CODECS
from ffenc.compiler.published import (
    PublishedEncoder,
    PublishedOptions,
    check_options,
    parse_encoder,
    parse_encoder_names,
    parse_full,
)
from ffenc.errors import ToolchainError
from ffenc.ffmpeg.cache import recall, remember
from ffenc.ffmpeg.machine import file_identity, machine_facts
from ffenc.ffmpeg.toolchain import ask

NOT_LISTED = "not compiled in"


def encoder_names(ffmpeg: str) -> frozenset[str]:
    """Return the names of the video encoders that a program lists.

    Raises:
        ToolchainError: the program does not answer.
    """
    return parse_encoder_names(ask(ffmpeg, "-hide_banner", "-encoders"))


def check_encoder(ffmpeg: str, codec: Codec, options: Mapping[str, str | int | float], pix_fmt: str) -> None:
    """Check compiled options against the options that a program lists for an encoder.

    Args:
        ffmpeg: the program.
        codec: the encoder's row of the codec table.
        options: compiled encoder options.
        pix_fmt: pixel format that the encoder receives, see :func:`ffenc.compiler.command.encoder_format`.

    Raises:
        ToolchainError: the program does not have the encoder, or does not answer.
        ConfigError: an option or value that the encoder does not accept; the text says what it accepts.
    """
    listed = encoder_names(ffmpeg)
    if codec.encoder not in listed:
        raise ToolchainError(NOT_LISTED)

    def takers(name: str) -> list[str]:
        """Return the codecs whose encoders in this program have an option."""
        found = []
        for row in CODECS.values():
            if row.encoder in listed and row is not codec:
                one = _published_encoder(ffmpeg, row.encoder)
                if one is not None and (name in one.options or name in (row.generic or ())):
                    found.append(row.name)
        return found

    published = _published_encoder(ffmpeg, codec.encoder)
    if published is not None:
        check_options(options, pix_fmt, published, _published_options(ffmpeg), codec.generic, takers)


def _published_encoder(ffmpeg: str, encoder: str) -> PublishedEncoder | None:
    return parse_encoder(ask(ffmpeg, "-hide_banner", "-h", f"encoder={encoder}"))


def _published_options(ffmpeg: str) -> PublishedOptions:
    return _read_options(ffmpeg, tuple(file_identity(ffmpeg)), tuple(machine_facts()))


@lru_cache(maxsize=16)
def _read_options(
    ffmpeg: str, identity: tuple[str | int, ...], facts: tuple[str | int, ...]
) -> PublishedOptions:
    key = ["options", identity, facts]
    known = recall(key)
    if known is not None:
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):  # a damaged entry
            return PublishedOptions.from_json(known)
    found = parse_full(ask(ffmpeg, "-hide_banner", "-h", "full"))
    remember(key, found.to_json())
    return found
