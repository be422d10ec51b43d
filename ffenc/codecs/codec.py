"""The type of a row of the codec table, with the defaults of its columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct, field

Number = int | float
Value = str | int | float
# An option's value, or the sub-keys of a "key=value:key=value" option such as svtav1-params.
Options = dict[str, "Value | dict[str, Value]"]


def _nothing(_: Number) -> Options:
    return {}


def _lossy(_: Mapping[str, Value], __: int) -> bool:
    return False


def _at_no_size(_: int, __: int) -> bool:
    return False


def _key_frames(g: int) -> Options:
    return {"g": g}


def _no_change(_: Mapping[str, Value], *__: int) -> dict[str, Value]:
    return {}


class Codec(Struct, frozen=True):
    """One row of the codec table: how a ``vcodec`` becomes FFmpeg options.

    Attributes:
        name: the ``vcodec`` value.
        encoder: name of FFmpeg's encoder.
        stream: codec name that ffprobe reports for the result.
        hardware: the encoder needs a device and its driver.
        key_frames: converts ``g`` to options.
        quality: converts ``crf`` to options.
        integer_quality: the encoder's quality option accepts only whole numbers.
        preset_option: the option for ``preset``; None: the encoder has none.
        presets: accepted preset values; None: FFmpeg decides.
        default_preset: used if ``preset`` is not set.
        fast_decode: converts ``fast_decode`` to options.
        threads: converts ``encoder_threads`` to options.
        fixed: options that are always set, unless ``threads`` sets them.
        params: name of the encoder's "key=value:..." option.
        params_fields: sub-key of ``params`` -> the setting that it would override; the setting takes
            precedence.
        program_options: options before the input (devices).
        upload: ``pix_fmt`` -> pixel format that the encoder receives; empty: frames are not converted.
        hwupload: a filter uploads the frames to the device.
        needs_bit_rate: the encoder has no quality option; ``extra_options`` must contain a bit rate.
        tag: stream tag that players expect in MP4.
        version: pattern of the library's version in the log or the stream of an encode.
        open_groups: option or sub-key of ``params`` that enables open GOPs -> the values that do not; empty:
            all values do.
        ignored: pattern of the log line that reports an unused sub-key of ``params``; the encode continues.
        lossless: whether compiled options, with a pixel format of so many bits, are lossless.
        lossless_extras: the ``extra_options`` for lossless encoding; None: not possible.
        inexact: whether frames of a width and height are not encoded without loss, although the options are
            lossless, if there are other frames than key frames.
        crf_range: least and greatest ``crf`` with a distinct effect; None: FFmpeg decides.
        usual_crf: values worth trying for cameras, from fine to coarse; empty: tried only on request.
        usual_presets: presets worth trying, the first one first; empty: the encoder's default.
        generic: generic options of FFmpeg that this encoder reads; None: unknown.
        ranges: sub-key of ``params`` -> least and greatest value that the library uses unchanged.
        words: option or sub-key of ``params`` -> accepted words, if FFmpeg does not list them.
        reported: pattern of the ``key=value`` list that the library writes to its stream; its keys are those
            of ``params``, with ``_`` for ``-``.
        min_size, max_size: width and height of frames, in pixels.
        max_fps: greatest number of frames per second; None: no limit.
        old_min_size: ``min_size`` of older libraries; a trial shows whether it applies.
        fit: options that replace compiled ones for a frame of (width, height, channels, bits).
    """

    name: str
    encoder: str
    stream: str
    hardware: bool = False
    key_frames: Callable[[int], Options] = _key_frames
    quality: Callable[[Number], Options] = _nothing
    integer_quality: bool = False
    preset_option: str | None = None
    presets: tuple[Value, ...] | None = None
    default_preset: int | None = None
    fast_decode: Callable[[int], Options] = _nothing
    threads: Callable[[int], Options] = _nothing
    fixed: Mapping[str, Value | dict[str, Value]] = field(default_factory=dict)
    params: str | None = None
    params_fields: Mapping[str, str] = field(default_factory=dict)
    program_options: tuple[str, ...] = ()
    upload: Mapping[str, str] = field(default_factory=dict)
    hwupload: bool = False
    needs_bit_rate: bool = False
    tag: str | None = None
    version: str | None = None
    open_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ignored: str | None = None
    lossless: Callable[[Mapping[str, Value], int], bool] = _lossy
    lossless_extras: Mapping[str, Value] | None = None
    inexact: Callable[[int, int], bool] = _at_no_size
    crf_range: tuple[float, float] | None = None
    usual_crf: tuple[int, ...] = ()
    usual_presets: tuple[int | str, ...] = ()
    generic: frozenset[str] | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reported: str | None = None
    min_size: tuple[int, int] = (1, 1)
    max_size: tuple[int, int] = (65536, 65536)
    max_fps: int | None = None
    old_min_size: tuple[int, int] | None = None
    fit: Callable[[Mapping[str, Value], int, int, int, int], dict[str, Value]] = _no_change

    def preset_name(self, preset: Any) -> Any:
        """Return the name of a preset given by its number, for an encoder that accepts both."""
        names = [name for name in self.presets or () if isinstance(name, str)]
        return names[preset] if type(preset) is int and 0 <= preset < len(names) else preset

    @property
    def has_crf(self) -> bool:
        """Whether ``crf`` becomes an option."""
        return bool(self.quality(1))

    @property
    def has_g(self) -> bool:
        """Whether ``g`` becomes an option; otherwise all frames are key frames."""
        return "g" not in self.fixed

    @property
    def has_fast_decode(self) -> bool:
        """Whether ``fast_decode`` becomes an option."""
        return bool(self.fast_decode(1))
