"""Encoder settings -> FFmpeg encoder options, and the merge of ``extra_options``, which never override."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from ffenc.codecs.codec import Codec, Number, Options, Value
from ffenc.codecs.files import check_no_files
from ffenc.codecs.pixel_formats import pixel_format
from ffenc.codecs.suggest import accepted
from ffenc.codecs.table import CODECS
from ffenc.errors import ConfigError


class EncoderSettings(Protocol):
    """The fields of an encoder config that become encoder options."""

    @property
    def pix_fmt(self) -> str: ...
    @property
    def g(self) -> int | None: ...
    @property
    def crf(self) -> Number | None: ...
    @property
    def preset(self) -> int | str | None: ...
    @property
    def fast_decode(self) -> int: ...
    @property
    def extra_options(self) -> Mapping[str, Value]: ...
    @property
    def given(self) -> frozenset[str]: ...
    @property
    def without_effect(self) -> Mapping[str, str]: ...


class EncoderOptions(Struct, frozen=True):
    """The result of compiling encoder settings.

    Attributes:
        values: option name -> value, in the order they were set.
        unused: setting -> one sentence, for each setting without effect.
        extras: the entries of ``extra_options`` that are used.
    """

    values: dict[str, Value]
    unused: Mapping[str, str]
    extras: dict[str, Value]


_OPTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]*(:[A-Za-z0-9#_]+)*")

# Other spellings of an option in FFmpeg (ffmpeg -h full), without stream specifiers.
_SPELLINGS = {
    "codec": "c",
    "vcodec": "c",
    "acodec": "c",
    "scodec": "c",
    "dcodec": "c",
    "vtag": "tag",
    "vb": "b",
    "qscale": "q",
    "global_quality": "q",
    "vframes": "frames",
    "vf": "filter",
    "vbsf": "bsf",
    "vsync": "fps_mode",
    "pixel_format": "pix_fmt",
    "x264opts": "x264-params",
}

# Encoders use a few hundred threads at most; with tens of thousands they do not begin for minutes.
MOST_THREADS = 1024
_RATE_CONTROL = ("b", "crf", "cq", "q", "qp", "rc", "rc_mode")

# Options that ffenc sets itself: the program's behaviour, input, output, mapping, container, colour and time.
# They are the options of the ffmpeg program that are not an encoder's (ffmpeg -h full, 5.1 and 9.0), the
# options of the MP4 muxer, and names with a special meaning in ffmpeg-python.
RESERVED = frozenset(
    """
    L ab abort_on absf ac accurate_seek adrift_threshold af aframes an apad apply_cropping apre aq ar aspect
    async atag attach auto_conversion_filters autorotate autoscale benchmark benchmark_all bitexact bsf bsfs
    buildconf c canvas_size ch_layout channel_layout colors copy_unknown copyinkf copypriorss copytb copyts
    cpucount cpuflags debug_ts decoders demuxers devices dframes discard display_hflip display_rotation
    display_vflip disposition dispositions dn drop_changed dts_delta_threshold dts_error_threshold dump
    dump_attachment enc_time_base encoders f filter filter_buffered_frames filter_complex
    filter_complex_script filter_complex_threads filter_hw_device filter_script filter_threads filters
    find_stream_info fix_sub_duration fix_sub_duration_heartbeat force_fps force_key_frames formats fpre
    fps_mode fpsmax frame_drop_threshold frames fs guess_layout_max h help hex hide_banner hwaccel
    hwaccel_device hwaccel_output_format hwaccels i ignore_unknown init_hw_device isync itsoffset itsscale
    lavfi layouts license loglevel map map_channel map_chapters map_metadata max_alloc max_error_rate
    max_muxing_queue_size metadata muxdelay muxers muxing_queue_data_threshold muxpreload n nostdin pass
    passlogfile pix_fmt pix_fmts pre print_graphs print_graphs_file print_graphs_format program progress
    protocols psnr qphist qsv_device r re readrate readrate_catchup readrate_initial_burst recast_media
    reinit_filter report s sample_fmt sample_fmts sdp_file seek_timestamp shortest shortest_buf_duration
    sinks sn sources spre ss sseof stag start_at_zero stats stats_enc_post stats_enc_post_fmt stats_enc_pre
    stats_enc_pre_fmt stats_mux_pre stats_mux_pre_fmt stats_period stdin stream_group stream_loop streamid t
    tag target thread_queue_size time_base timecode timelimit timestamp to top v vaapi_device version vn vol
    vpre vstats vstats_file vstats_version xerror y
    codecs devices empty_hdlr_name frag_interleave moov_size use_stream_ids_as_track_ids write_btrt write_prft
    write_tmcd rtpflags skip_iods iods_audio_profile iods_video_profile ism_lookahead mov_gamma
    brand encryption_key encryption_kid encryption_scheme frag_duration frag_size fragment_index
    min_frag_duration movflags movie_timescale use_editlist video_track_timescale avoid_negative_ts
    output_ts_offset fflags flags colorspace color_range color_primaries color_trc chroma_sample_location
    err_detect framerate video_size
    filename format video_bitrate audio_bitrate
    """.split()
)


# Options of every output. passthrough: no frame is added or dropped; faststart: the index precedes the
# packets; bitexact and no metadata: the same job gives the same bytes; cgop: closed GOPs, so that decoding
# can start at every key frame.
CONTAINER_OPTIONS: dict[str, Value] = {
    "f": "mp4",
    "fps_mode": "passthrough",
    "movflags": "+faststart",
    "fflags": "+bitexact",
    "flags:v": "+bitexact+cgop",
    "map_metadata": -1,
}


def canonical(name: str) -> str:
    """Return the canonical name of an option (``codec:v`` -> ``c``)."""
    base = name.split(":", 1)[0]
    return _SPELLINGS.get(base, base)


def is_reserved(name: str) -> bool:
    """Return whether an option is reserved for ffenc, for all codecs."""
    base = canonical(name)
    return base in RESERVED or (base.startswith("no") and base[2:] in RESERVED)


def check_extra_options(extra: Mapping[str, object]) -> None:
    """Check that every entry can be an FFmpeg option.

    Raises:
        ConfigError: a key that cannot be an option name, a value that is not a one-line text or a number, or
            an option that makes an encoder open a file.
    """
    for key, value in extra.items():
        if not isinstance(key, str) or not _OPTION_NAME.fullmatch(key):
            raise ConfigError(
                f"{key!r} is not an FFmpeg option name (a name without the leading dash, "
                "optionally with a stream specifier: 'bf', 'profile:v')",
                where="extra_options",
            )
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ConfigError(
                f"{key}={value!r} is not a text or a number (write 1 or 0 for a switch)",
                where="extra_options",
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{key}={value!r} is not a finite number", where="extra_options")
        if isinstance(value, str) and re.search(r"[\0\r\n]", value):
            raise ConfigError(
                f"the value of {key!r} holds a NUL or a newline: {value!r}", where="extra_options"
            )
        check_no_files(canonical(key), key, value)


def _structured(codec: Codec, settings: EncoderSettings, encoder_threads: int | None) -> Options:
    """Return the options of the config's own fields, in LeRobot's order."""
    options: Options = {}

    def add(more: Mapping[str, Value | dict[str, Value]]) -> None:
        for key, value in more.items():
            present = options.get(key)
            if isinstance(value, dict) and isinstance(present, dict):
                present.update(value)
            else:
                options[key] = dict(value) if isinstance(value, dict) else value

    if settings.g is not None:
        add(codec.key_frames(settings.g))
    if settings.crf is not None:
        add(codec.quality(settings.crf))
    preset = codec.default_preset if settings.preset is None else settings.preset
    if preset is not None and codec.preset_option is not None:
        add({codec.preset_option: preset})
    add(codec.fast_decode(settings.fast_decode))
    add(codec.fixed)
    if encoder_threads is not None:
        add(codec.threads(encoder_threads))
    return options


def _refuse_open_groups(codec: Codec, where: str, name: str, value: str) -> None:
    """Refuse an option that enables open GOPs."""
    name = name.strip().lstrip("-").replace("_", "-").lower()
    closed = {key.replace("_", "-"): values for key, values in codec.open_groups.items()}
    negated = name.startswith("no-") and name not in closed
    values = closed.get(name.removeprefix("no-") if negated else name)
    if values is not None and (value.strip().lower() in values) == negated:
        raise ConfigError(
            f"{where}: {name}{f'={value}' if value else ''} makes {codec.name} write key frames "
            "that cannot be decoded by themselves (open GOPs): a reader that seeks there, as "
            "LeRobot's does, would miss frames, and episodes could not be cut; leave it out"
        )


def _check_fields(codec: Codec, settings: EncoderSettings, encoder_threads: int | None) -> dict[str, str]:
    """Check the fields' values against the codec; return field -> sentence for each field without effect."""
    if encoder_threads is not None and not (
        type(encoder_threads) is int and 1 <= encoder_threads <= MOST_THREADS
    ):
        raise ConfigError(
            f"encoder_threads={encoder_threads!r} is not accepted",
            expected=f"a whole number from 1 to {MOST_THREADS}",
        )
    _check_crf(codec, settings.crf)
    if settings.preset is not None and codec.presets is not None and settings.preset not in codec.presets:
        if settings.preset in [str(preset) for preset in codec.presets]:
            raise ConfigError(f"preset={settings.preset!r} is a text; write the number {settings.preset}")
        raise ConfigError(
            f"preset={settings.preset!r} is not one of {codec.name}'s"
            + accepted(settings.preset, codec.presets)
        )
    unused = dict(settings.without_effect)
    # Defaults may be without effect: the user did not set them.
    if "g" in settings.given and not codec.has_g and settings.g not in (None, codec.fixed["g"]):
        unused["g"] = (
            f"g={settings.g} would have no effect, all frames of {codec.name} are key frames; "
            "leave g out, or set it to null"
        )
    if settings.crf is not None and not codec.has_crf and "crf" in settings.given:
        if codec.needs_bit_rate:
            how = 'set crf to null and give a bit rate, e.g. extra_options={"b:v": "4M"}'
        else:
            how = "it is lossless: leave crf out, or set it to null"
        unused["crf"] = f"crf={settings.crf} would have no effect, {codec.name} has no quality option; {how}"
    if settings.preset is not None and codec.preset_option is None:
        unused["preset"] = (
            f"preset={settings.preset!r} would have no effect, {codec.name} has no presets; "
            "leave it out, or set it to null"
        )
    if settings.fast_decode > 0 and not codec.has_fast_decode:
        having = ", ".join(row.name for row in CODECS.values() if row.has_fast_decode)
        unused["fast_decode"] = (
            f"fast_decode={settings.fast_decode} would have no effect with {codec.name}; {having} have it"
        )
    return unused


def _check_crf(codec: Codec, crf: Number | None) -> None:
    if crf is None or not codec.has_crf:
        return
    if codec.integer_quality and float(crf) != int(crf):
        raise ConfigError(f"crf={crf}: {codec.name} takes whole numbers only (h264 and hevc take fractions)")
    if codec.crf_range is not None and not codec.crf_range[0] <= crf <= codec.crf_range[1]:
        low, high = codec.crf_range
        raise ConfigError(f"crf={crf} is out of range: {codec.name} takes {low} to {high}")


def _in_force(settings: EncoderSettings, encoder_threads: int | None) -> dict[str, object]:
    """Return the settings that a sub-key of a params option must not change, with their values."""
    force: dict[str, object] = {
        "colour": "the matrix and range of the conversion",
        "input": "the frames' size and pix_fmt",
        "time": "the stream's fps",
    }
    fields = {
        "g": settings.g,
        "crf": settings.crf,
        "preset": settings.preset,
        "fast_decode": settings.fast_decode or None,
        "encoder_threads": encoder_threads,
    }
    return force | {name: value for name, value in fields.items() if value is not None}


def _merge_params(
    codec: Codec, key: str, text: str, options: Options, in_force: Mapping[str, object]
) -> tuple[dict[str, str], str]:
    """Merge the user's ``a=1:b=2`` into the option's structured sub-keys, which take precedence.

    Returns:
        Sub-key -> sentence for each one that is not used, and the text without them.
    """
    if re.search(r"[\\'\"]", text):
        raise ConfigError(
            f"extra_options: {key}={text!r}: quotes and backslashes are not accepted; write a=1:b=2"
        )
    unused: dict[str, str] = {}
    used = []
    assert codec.params is not None
    present = options.setdefault(codec.params, {})
    assert isinstance(present, dict)
    ours = {_plain(name): (name, value) for name, value in present.items()}
    for part in filter(None, text.split(":")):
        sub, _, value = part.partition("=")
        _refuse_open_groups(codec, f"extra_options: {key}", sub, value)
        name = _plain(sub)
        setting = codec.params_fields.get(name) or codec.params_fields.get(name.removeprefix("no-"))
        said = f"{key} {sub}={value}" if value else f"{key} {sub}"
        if name in ours:
            own, theirs = ours[name]
            unused[said] = f"extra_options: {said} would have no effect, {own}={theirs} is set"
            continue
        elif setting is not None and setting in in_force:
            unused[said] = f"extra_options: {said} would have no effect, {setting}={in_force[setting]} is set"
            continue
        else:
            _check_value(codec, name, said, value)
            present[sub.strip()] = value
            ours[name] = sub.strip(), value
        used.append(part)
    if not present:
        del options[codec.params]
    return unused, ":".join(used)


def _plain(sub_key: str) -> str:
    """Return the canonical name of a sub-key."""
    return sub_key.strip().lstrip("-").replace("_", "-").lower()


def _check_value(codec: Codec, name: str, said: str, value: str) -> None:
    """Refuse a number that is out of a sub-key's range, and an unknown word."""
    try:
        number = float(value)
    except ValueError:
        _check_words(codec, name, said, value)
        return
    low, high = codec.ranges.get(name, (-math.inf, math.inf))
    if not low <= number <= high:
        raise ConfigError(f"extra_options: {said} is out of range: {codec.encoder} takes {low} to {high}")


def _check_words(codec: Codec, name: str, said: str, value: str) -> None:
    """Refuse an unknown word; x264 accepts several, as in ``tune=film,zerolatency``."""
    words = codec.words.get(name, ())
    for word in filter(None, re.split(r"[,./+]", value)):
        if words and word.lower() not in words and not word.isdecimal():
            raise ConfigError(
                f"extra_options: {said}: {word!r} is not one of the values of {codec.encoder}"
                f"{accepted(word, words)}"
            )


def _render(value: Value | dict[str, Value]) -> Value:
    if isinstance(value, dict):
        return ":".join(f"{k}={v}" if v != "" else k for k, v in value.items())
    return value


def merged_options(
    codec: Codec, settings: EncoderSettings, encoder_threads: int | None = None
) -> EncoderOptions:
    """Compile encoder settings to the options of a codec, and list the settings without effect.

    ``extra_options`` are merged last and never override another option: not under another spelling, not
    through a sub-key of a params option, and none that ffenc sets itself (input, output, mapping, container,
    colour).

    Args:
        codec: the row of the codec table.
        settings: an encoder config.
        encoder_threads: number of threads of the encoder, 1 or more; None: the encoder's default.

    Raises:
        ConfigError: a value that the codec does not accept.
    """
    check_extra_options(settings.extra_options)
    unused = _check_fields(codec, settings, encoder_threads)
    options = _structured(codec, settings, encoder_threads)
    in_force = _in_force(settings, encoder_threads)
    taken = {canonical(key): (key, value) for key, value in options.items()}
    if settings.crf is not None and codec.has_crf:
        # Another rate control would replace crf, or have no effect.
        taken = dict.fromkeys(_RATE_CONTROL, ("crf", settings.crf)) | taken
    extras: dict[str, Value] = {}
    for key, value in settings.extra_options.items():
        base = canonical(key)
        _refuse_open_groups(codec, "extra_options", base, str(value))
        said = f"{key}={value}"
        if base == codec.params:
            lost, used = _merge_params(codec, key, str(value), options, in_force)
            unused |= lost
            if used:
                extras[key] = used
        elif is_reserved(key):
            own = _own_values(codec, settings).get(base)
            why = f"{base}={own} is set" if own is not None else _OWN
            unused[said] = f"extra_options: {said} would have no effect, {why}"
        elif base in taken:
            name, ours = taken[base]
            instead = ""
            if name == "crf":
                instead = "; set crf instead" if base == "crf" else "; to use it, set crf to null"
            unused[said] = (
                f"extra_options: {said} would have no effect, {name}={_render(ours)} is set{instead}"
            )
        else:
            _check_words(codec, base, said, str(value))
            options[key] = value
            taken[base] = (key, value)
            extras[key] = value
    if "crf" in settings.given and settings.crf and _is_lossless(codec, options, settings):
        unused["crf"] = (
            f"crf={settings.crf} would have no effect, the settings are lossless "
            f"({codec.params}={_render(options[codec.params])}); "  # type: ignore[index]
            "leave crf out, or set extra_options to {}"
        )
    return EncoderOptions({k: _render(v) for k, v in options.items()}, unused, extras)


def _is_lossless(codec: Codec, options: Options, settings: EncoderSettings) -> bool:
    """Return whether a sub-key makes the encoder lossless, whatever ``crf`` is."""
    if codec.params is None or codec.params not in options:
        return False
    values = {codec.params: _render(options[codec.params])}
    return codec.lossless(values, pixel_format(settings.pix_fmt).bits)


def encoder_options(
    codec: Codec, settings: EncoderSettings, encoder_threads: int | None = None
) -> dict[str, Value]:
    """Compile encoder settings to the options of a codec: name -> value, in the order they are set.

    Arguments as for :func:`merged_options`.

    Raises:
        ConfigError: a value that the codec does not accept, or a setting without effect.
    """
    merged = merged_options(codec, settings, encoder_threads)
    if merged.unused:
        raise ConfigError("\n".join(merged.unused.values()))
    return merged.values


def used_fields(codec: Codec, settings: EncoderSettings) -> dict[str, object]:
    """Return the settings that the encoder uses, by field: those that become options.

    A field without an option of the codec is None (``fast_decode``: 0); a fixed ``g`` is the codec's.
    """
    return {
        "g": codec.fixed.get("g", settings.g),
        "crf": settings.crf if codec.has_crf else None,
        "preset": settings.preset if codec.preset_option is not None else None,
        "fast_decode": settings.fast_decode if codec.has_fast_decode else 0,
        "extra_options": merged_options(codec, settings).extras,
    }


_OWN = "input, output, mapping, time and colour are set by ffenc itself"


def _own_values(codec: Codec, settings: EncoderSettings) -> dict[str, Value]:
    own: dict[str, Value] = {canonical(key): value for key, value in CONTAINER_OPTIONS.items()}
    return own | {"c": codec.encoder, "pix_fmt": settings.pix_fmt, "tag": codec.tag or "the container's own"}
