"""What a row of the codec table says of a codec, and what holds where it says nothing."""

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


def _key_frames(g: int) -> Options:
    return {"g": g}


def _no_change(_: Mapping[str, Value], *__: int) -> dict[str, Value]:
    return {}


class Codec(Struct, frozen=True):
    """One row: how a ``vcodec`` becomes FFmpeg options.

    Attributes:
        name: the ``vcodec`` value.
        encoder: FFmpeg's encoder.
        stream: the codec name ffprobe reports for the result.
        hardware: it needs a device and its driver, which may come and go.
        key_frames: ``g`` to options.
        quality: ``crf`` to options.
        integer_quality: the encoder's quality option takes whole numbers only.
        preset_option: where ``preset`` goes; None: the encoder has no such option.
        presets: accepted preset values; None: FFmpeg decides.
        default_preset: used where ``preset`` is not set.
        fast_decode: ``fast_decode`` to options.
        threads: ``encoder_threads`` to options.
        fixed: options that are always set, where ``threads`` does not set them.
        params: name of the encoder's "key=value:..." option.
        params_fields: sub-key of ``params`` -> the setting it would override, which then wins.
        program_options: options before the input (devices).
        upload: ``pix_fmt`` -> the format frames are given to the encoder in; empty: any, unchanged.
        hwupload: frames are uploaded to the device by a filter.
        needs_bit_rate: there is no quality option, a bit rate must come from ``extra_options``.
        tag: the stream tag players expect in MP4.
        version: pattern of the library's version in what an encode prints or writes.
        open_groups: option or sub-key of ``params`` that asks for key frames which cannot be decoded by
            themselves -> the values that do not; empty: every value does.
        ignored: pattern of a line that says a sub-key of ``params`` was not used; the encode goes on.
        lossless: whether compiled options, with a pixel format of so many bits, give every sample back.
        lossless_extras: the ``extra_options`` that make it lossless; None where it cannot be.
        crf_range: least and greatest ``crf`` that changes anything; None: FFmpeg decides.
        usual_crf: from fine to coarse, what is worth trying of cameras; empty: not to be tried unasked.
        usual_presets: likewise, the one to begin with first; empty: the encoder's default.
        generic: the options of every FFmpeg encoder that this one reads; None: not known.
        ranges: sub-key of ``params`` -> least and greatest value that the library uses as it is.
        reported: pattern of the ``key=value`` list the library writes into its stream; its keys are those
            of ``params``, with ``_`` for ``-``.
        min_size, max_size: width and height of frames, in pixels.
        old_min_size: what older libraries need; the trial tells.
        fit: options for a frame of (width, height, channels, bits) that replace compiled ones.
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
    crf_range: tuple[float, float] | None = None
    usual_crf: tuple[int, ...] = ()
    usual_presets: tuple[int | str, ...] = ()
    generic: frozenset[str] | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    reported: str | None = None
    min_size: tuple[int, int] = (1, 1)
    max_size: tuple[int, int] = (65536, 65536)
    old_min_size: tuple[int, int] | None = None
    fit: Callable[[Mapping[str, Value], int, int, int, int], dict[str, Value]] = _no_change

    def preset_name(self, preset: Any) -> Any:
        """The name of a preset that is given by its number, for an encoder that takes either."""
        names = [name for name in self.presets or () if isinstance(name, str)]
        return names[preset] if type(preset) is int and 0 <= preset < len(names) else preset

    @property
    def has_crf(self) -> bool:
        """Whether ``crf`` becomes an option."""
        return bool(self.quality(1))

    @property
    def has_fast_decode(self) -> bool:
        """Whether ``fast_decode`` becomes an option."""
        return bool(self.fast_decode(1))
