"""The codec table: one row a codec, with everything a codec needs. Adding a codec touches this file only.

Sources of the mappings: ``ffmpeg -h encoder=NAME`` of FFmpeg 5.1 and 9.0 for option names and ranges,
LeRobot 0.6 for ``q:v = 100 - 2 crf``, ``rc=0`` with ``qp`` and ``svtav1-params``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ffenc.codecs.suggest import accepted
from ffenc.errors import ConfigError

Number = int | float
Value = str | int | float
# An option's value, or the sub-keys of a "key=value:key=value" option such as svtav1-params.
Options = dict[str, "Value | dict[str, Value]"]

X264_PRESETS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
)
_X26X_PRESETS: tuple[int | str, ...] = (*X264_PRESETS, *range(len(X264_PRESETS)))  # x264 and x265 take either
# The first that can run is what vcodec="auto" means (LeRobot's order); libsvtav1 where none can.
AUTO_ORDER = (
    "h264_videotoolbox",
    "hevc_videotoolbox",
    "h264_nvenc",
    "hevc_nvenc",
    "h264_vaapi",
    "h264_qsv",
)
AUTO_FALLBACK = "libsvtav1"
# One channel of more than 8 bits, which libsvtav1 cannot carry. LeRobot reads hevc.
_AUTO_DEPTH_FALLBACK = {"gray10le": "hevc", "gray12le": "hevc", "gray16le": "ffv1"}
_AOM_LOOKAHEAD = 35  # libaom's own, in frames
RENDER_DEVICE = "/dev/dri/renderD128"


def _nothing(_: Number) -> Options:
    return {}


def _lossy(_: Mapping[str, Value], __: int) -> bool:
    return False


def _lossless_key(params: str) -> Callable[[Mapping[str, Value], int], bool]:
    """``lossless=1`` among the sub-keys of a params option."""
    on = re.compile(r"(?:^|:)\s*-*lossless(?:=(?:1|true|yes))?\s*(?::|$)")
    return lambda options, _: on.search(str(options.get(params, ""))) is not None


def _x264_lossless(options: Mapping[str, Value], bits: int) -> bool:
    # crf counts from -12 at 10 bits, where 0 is not lossless.
    return str(options.get("qp")) == "0" or (bits == 8 and options.get("crf") == 0)


def _key_frames(g: int) -> Options:
    return {"g": g}


def _aom_key_frames(g: int) -> Options:
    # Looking past the next key frame gains nothing, and with g of 1 or 2 libaom 3.15 crashes at it.
    return {"g": g, "lag-in-frames": g} if g < _AOM_LOOKAHEAD else {"g": g}


def _option(name: str) -> Callable[[Number], Options]:
    return lambda value: {name: value}


def _qp_constant(crf: Number) -> Options:
    return {"rc": 0, "qp": crf}


def _videotoolbox_quality(crf: Number) -> Options:
    return {"q:v": 100 - 2 * crf}


def _svtav1_fast_decode(level: int) -> Options:
    return {"svtav1-params": {"fast-decode": level}}


def _tune_fastdecode(level: int) -> Options:
    return {"tune": "fastdecode"} if level > 0 else {}


def _x265_threads(threads: int) -> Options:
    # "threads" bounds x265's frame threads only; its worker pool takes every core unless told not to.
    return {"threads": threads, "x265-params": {"pools": threads}}


# Slice counts that FFV1 takes at every frame size above 64x64: columns times rows.
_FFV1_SLICES = {4: (2, 2), 6: (3, 2), 9: (3, 3), 12: (4, 3), 16: (4, 4), 24: (6, 4), 30: (6, 5)}
_FFV1_SLICE_BITS = 8 << 24  # what a slice may hold, counted as libavcodec/ffv1enc.c does


def _ffv1_threads(threads: int) -> Options:
    # FFV1 works in parallel by slices.
    slices = next((n for n in _FFV1_SLICES if n >= threads), 30)
    return {"threads": threads, "slices": slices}


def _ffv1_fit(
    options: Mapping[str, Value], width: int, height: int, channels: int, bits: int
) -> dict[str, Value]:
    """More slices where the frame is too large for those that are set."""
    for slices, (columns, rows) in _FFV1_SLICES.items():
        samples = -(-width // columns) * -(-height // rows) * channels
        if slices >= int(options["slices"]) and samples * (bits + 1) <= _FFV1_SLICE_BITS:
            return {"slices": slices}
    return {}


def _no_change(_: Mapping[str, Value], *__: int) -> dict[str, Value]:
    return {}


@dataclass(frozen=True)
class Codec:
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


# Settings that every "key=value:..." option can reach besides the row's own, by the sub-keys' many names.
# "colour", "input" and "time" are ffenc's own, the others only where the config sets them.
_COLOUR_KEYS = (
    "colorprim",
    "color-primaries",
    "transfer",
    "transfer-characteristics",
    "colormatrix",
    "matrix-coefficients",
    "range",
    "color-range",
    "fullrange",
)
_INPUT_KEYS = (
    "input-csp",
    "output-csp",
    "input-depth",
    "output-depth",
    "input-res",
    "width",
    "height",
    "color-format",
    "encoder-color-format",
    "interlaced",
    "interlace",
    "tff",
    "bff",
    "crop-rect",
    "display-window",
)
_TIME_KEYS = ("fps", "fps-num", "fps-denom", "timebase", "force-cfr")
_COMMON_PARAMS: dict[str, str] = {
    **dict.fromkeys(_COLOUR_KEYS, "colour"),
    **dict.fromkeys(_INPUT_KEYS, "input"),
    **dict.fromkeys(_TIME_KEYS, "time"),
    **dict.fromkeys(("crf", "qp", "q", "bitrate", "rc", "tbr", "zones"), "crf"),
    **dict.fromkeys(("keyint", "intra-period"), "g"),
    "preset": "preset",
    "fast-decode": "fast_decode",
    **dict.fromkeys(("threads", "lp", "pools", "numa-pools", "frame-threads"), "encoder_threads"),
}
_X26X_PARAMS = {**_COMMON_PARAMS, "tune": "fast_decode"}
_OFF = ("0", "false", "no")
_X26X_OPEN = {"open-gop": _OFF, "intra-refresh": _OFF}
# Options of every FFmpeg encoder that these read (their files in libavcodec, 5.1 to 9.0); the others are
# taken by FFmpeg and change nothing.
_ANY_GENERIC = frozenset("flags flags2 threads thread_type strict max_pixels".split())
_RATE_GENERIC = _ANY_GENERIC | frozenset("b g keyint_min maxrate bufsize qmin qmax profile level".split())
_X264_GENERIC = _RATE_GENERIC | frozenset(
    "bt bf qdiff qblur qcomp i_qfactor b_qfactor refs trellis me_range subq cmp slices "
    "rc_init_occupancy field_order".split()
)
_X265_GENERIC = _RATE_GENERIC | frozenset(
    "bf qdiff qblur qcomp i_qfactor b_qfactor refs rc_init_occupancy".split()
)
_SVTAV1_GENERIC = _RATE_GENERIC - {"keyint_min"}
_AOM_GENERIC = _RATE_GENERIC | frozenset(("minrate", "qcomp", "rc_init_occupancy"))
_FFV1_GENERIC = _ANY_GENERIC | frozenset(("g", "level", "slices"))

_NV12 = {"yuv420p": "nv12", "nv12": "nv12"}
_P010 = {"yuv420p10le": "p010le", "p010le": "p010le"}


# What the libraries use as it is. x264 clips what is outside without a word, x265 and SVT-AV1 refuse most and
# map some; the sources are x264's validate_parameters, x265's x265_check_params, SVT-AV1's verify_settings.
_SWITCH = (0, 1)
_X264_RANGES: dict[str, tuple[float, float]] = {
    "bframes": (0, 16),
    "b-adapt": (0, 2),
    "b-bias": (-100, 100),
    "ref": (1, 16),
    "subme": (0, 11),
    "me-range": (4, 1024),
    "merange": (4, 1024),
    "trellis": (0, 2),
    "rc-lookahead": (0, 250),
    "sync-lookahead": (0, 250),
    "weightp": (0, 2),
    "qcomp": (0, 1),
    "qpstep": (2, 69),
    "qpmin": (0, 69),
    "qpmax": (0, 69),
    "ipratio": (0.01, 10),
    "pbratio": (0.01, 10),
    "aq-mode": (0, 3),
    "aq-strength": (0, 3),
    "chroma-qp-offset": (-12, 12),
    "deadzone-inter": (0, 32),
    "deadzone-intra": (0, 32),
    "nr": (0, 65536),
    "scenecut": (0, 100),
    "cplxblur": (0, 999),
    "qblur": (0, 99),
    "crf": (0, 51),
    "crf-max": (0, 51),
    "qp": (0, 69),
    "ratetol": (0.01, 1000),
    "lookahead-threads": (1, 128),
    "slices": (0, 1000),
}
_X265_RANGES: dict[str, tuple[float, float]] = {
    "bframes": (0, 16),
    "b-adapt": (0, 2),
    "bframe-bias": (-90, 100),
    "ref": (1, 16),
    "subme": (0, 7),
    "me": (0, 5),
    "merange": (0, 32768),
    "max-merge": (1, 5),
    "rd": (1, 6),
    "rdoq-level": (0, 2),
    "psy-rd": (0, 5),
    "psy-rdoq": (0, 50),
    "aq-mode": (0, 5),
    "aq-strength": (0, 3),
    "qcomp": (0.5, 1),
    "rc-lookahead": (0, 250),
    "lookahead-slices": (0, 16),
    "scenecut": (0, 100),
    "scenecut-bias": (0, 100),
    "limit-refs": (0, 3),
    "tu-intra-depth": (1, 4),
    "tu-inter-depth": (1, 4),
    "limit-tu": (0, 4),
    "nr-intra": (0, 2000),
    "nr-inter": (0, 2000),
    "cbqpoffs": (-12, 12),
    "crqpoffs": (-12, 12),
    "crf": (0, 51),
    "crf-max": (0, 51),
    "crf-min": (0, 51),
    "qp": (0, 51),
    "qpmin": (0, 69),
    "qpmax": (0, 69),
    "qpstep": (1, 69),
    "ipratio": (0.01, 10),
    "pbratio": (0.01, 10),
    "rskip": (0, 2),
    "dynamic-rd": (0, 4),
}
_SVTAV1_RANGES: dict[str, tuple[float, float]] = {
    "preset": (-2, 13),
    "crf": (0, 70),
    "qp": (0, 63),
    "tune": (0, 5),
    "fast-decode": (0, 2),
    "lookahead": (-1, 120),
    "film-grain": (0, 50),
    "film-grain-denoise": (0, 2),
    "hierarchical-levels": (0, 5),
    "pred-struct": (1, 2),
    "tile-rows": (0, 6),
    "tile-columns": (0, 4),
    "aq-mode": (0, 2),
    "min-qp": (0, 63),
    "max-qp": (0, 63),
    "scm": (0, 3),
    "scd": _SWITCH,
    "enable-overlays": _SWITCH,
    "enable-qm": _SWITCH,
    "enable-dlf": (0, 2),
    "enable-cdef": _SWITCH,
    "enable-restoration": _SWITCH,
    "enable-tf": (0, 3),
    "qm-min": (0, 15),
    "qm-max": (0, 15),
    "sharpness": (-7, 7),
    "undershoot-pct": (0, 100),
    "overshoot-pct": (0, 100),
    "enable-variance-boost": _SWITCH,
    "variance-boost-strength": (1, 4),
    "variance-octile": (1, 8),
    "superres-mode": (0, 4),
    "resize-mode": (0, 4),
    "irefresh-type": (1, 2),
}


# Quantisers of cameras; AV1's scale has 255 steps where the others have 51.
_HARDWARE_CRF = (20, 26, 32)
_HARDWARE_AV1_CRF = (80, 120, 160)


def _svtav1_quality(crf: Number) -> Options:
    # FFmpeg takes 0 in its own crf option for "not set", which is 35; the library takes it for 0.
    return {"crf": crf} if crf else {"crf": crf, "svtav1-params": {"crf": crf}}


def _vaapi(name: str, stream: str, quality: Callable[[Number], Options], tag: str | None = None) -> Codec:
    return Codec(
        name,
        encoder=name,
        stream=stream,
        hardware=True,
        quality=quality,
        integer_quality=True,
        crf_range=(0, 255) if stream == "av1" else (0, 52),
        usual_crf=_HARDWARE_AV1_CRF if stream == "av1" else _HARDWARE_CRF,
        program_options=("-vaapi_device", RENDER_DEVICE),
        upload=_NV12 if stream == "h264" else _NV12 | _P010,
        hwupload=True,
        open_groups={"idr_interval": ("0",)},
        tag=tag,
    )


def _qsv(name: str, stream: str, tag: str | None = None) -> Codec:
    return Codec(
        name,
        encoder=name,
        stream=stream,
        hardware=True,
        quality=_option("global_quality"),
        integer_quality=True,
        crf_range=None if stream == "av1" else (1, 51),
        usual_crf=_HARDWARE_AV1_CRF if stream == "av1" else _HARDWARE_CRF,
        preset_option="preset",
        # Every I-frame is an IDR frame of H.264 at 0, the default, and of HEVC at 1.
        fixed={"idr_interval": 1} if stream == "hevc" else {},
        open_groups={
            "int_ref_type": ("0", "-1", "none"),
            "idr_interval": ("1",) if stream == "hevc" else ("0",),
        },
        program_options=("-init_hw_device", "qsv=hw"),
        upload=_NV12 if stream == "h264" else _NV12 | _P010,
        tag=tag,
    )


def _nvenc(name: str, stream: str, tag: str | None = None) -> Codec:
    return Codec(
        name,
        encoder=name,
        stream=stream,
        hardware=True,
        quality=_qp_constant,
        integer_quality=True,
        crf_range=(0, 255) if stream == "av1" else (0, 51),
        usual_crf=_HARDWARE_AV1_CRF if stream == "av1" else _HARDWARE_CRF,
        preset_option="preset",
        open_groups={"intra-refresh": _OFF, "single-slice-intra-refresh": _OFF},
        tag=tag,
    )


def _videotoolbox(name: str, stream: str, tag: str | None = None) -> Codec:
    return Codec(
        name,
        encoder=name,
        stream=stream,
        hardware=True,
        quality=_videotoolbox_quality,
        crf_range=(0, 49.5),
        usual_crf=_HARDWARE_CRF,
        tag=tag,
    )


_ROWS = (
    Codec(
        "libsvtav1",
        encoder="libsvtav1",
        stream="av1",
        quality=_svtav1_quality,
        integer_quality=True,
        preset_option="preset",
        presets=tuple(range(-2, 14)),
        default_preset=12,
        fast_decode=_svtav1_fast_decode,
        threads=lambda n: {"svtav1-params": {"lp": n}},
        params="svtav1-params",
        lossless=_lossless_key("svtav1-params"),
        crf_range=(0, 63),
        usual_crf=(22, 30, 38),
        usual_presets=(10, 12, 8),
        generic=_SVTAV1_GENERIC,
        ranges=_SVTAV1_RANGES,
        max_size=(16384, 8704),
        old_min_size=(64, 64),
        params_fields=_COMMON_PARAMS,
        open_groups={"irefresh-type": ("2", "kf")},
        version=r"SVT-AV1 Encoder Lib (v\S+)",
        ignored=r"Error parsing option \S+: .*|Svt\[(?:warn|error)\]: .*Invalid \S+ value: .*",
    ),
    Codec(
        "h264",
        encoder="libx264",
        stream="h264",
        quality=_option("crf"),
        preset_option="preset",
        presets=_X26X_PRESETS,
        fast_decode=_tune_fastdecode,
        threads=_option("threads"),
        params="x264-params",
        lossless=_x264_lossless,
        crf_range=(0, 51),
        usual_crf=(18, 23, 28),
        usual_presets=("veryfast", "medium"),
        generic=_X264_GENERIC,
        ranges=_X264_RANGES,
        reported=r"x264 - core .*? options: ([\x20-\x7e]*)",
        max_size=(16384, 16384),
        params_fields=_X26X_PARAMS,
        open_groups=_X26X_OPEN,
        version=r"x264 - core (\d+(?: r\d+ [0-9a-f]+)?)",
        ignored=r"Error parsing option '.*",
    ),
    Codec(
        "hevc",
        encoder="libx265",
        stream="hevc",
        quality=_option("crf"),
        preset_option="preset",
        presets=_X26X_PRESETS,
        fast_decode=_tune_fastdecode,
        threads=_x265_threads,
        # x265's groups are open by default: readers that enter at a key frame skip frames that follow it.
        fixed={"x265-params": {"open-gop": 0}},
        open_groups=_X26X_OPEN,
        params="x265-params",
        lossless=_lossless_key("x265-params"),
        lossless_extras={"x265-params": "lossless=1"},
        crf_range=(0, 51),
        usual_crf=(20, 25, 30),
        usual_presets=("veryfast",),
        generic=_X265_GENERIC,
        ranges=_X265_RANGES,
        reported=r"x265 \(build .*? options: ([\x20-\x7e]*)",
        min_size=(16, 16),
        params_fields=_X26X_PARAMS,
        tag="hvc1",
        version=r"HEVC encoder version (\S+)",
        ignored=r"(?:Unknown option: |Invalid value for ).*",
    ),
    Codec(
        "libaom-av1",
        encoder="libaom-av1",
        stream="av1",
        key_frames=_aom_key_frames,
        # Constant quality: FFmpeg's default bit rate for libaom is 0 from 4.3 on, so crf alone decides.
        quality=_option("crf"),
        integer_quality=True,
        preset_option="cpu-used",
        presets=tuple(range(0, 9)),
        threads=lambda n: {"threads": n, "row-mt": 1},
        params="aom-params",
        lossless=_lossless_key("aom-params"),
        lossless_extras={"aom-params": "lossless=1"},
        crf_range=(0, 63),
        generic=_AOM_GENERIC,
        params_fields={
            **_COMMON_PARAMS,
            **dict.fromkeys(("cq-level", "end-usage", "target-bitrate"), "crf"),
            **dict.fromkeys(("kf-max-dist", "kf-min-dist", "lag-in-frames"), "g"),
            "cpu-used": "preset",
            "row-mt": "encoder_threads",
        },
        open_groups=dict.fromkeys(("enable-fwd-kf", "fwd-kf-dist"), ("0",)),
        version=r"libaom-av1 [^\]]*\] (?:\[\w+\] )?(v?\d\S+)",
    ),
    Codec(
        "ffv1",
        encoder="ffv1",
        stream="ffv1",
        threads=_ffv1_threads,
        fixed={"g": 1, "level": 3, "slicecrc": 1, "slices": 4},
        lossless=lambda _, __: True,
        lossless_extras={},
        generic=_FFV1_GENERIC,
        min_size=(4, 4),
        fit=_ffv1_fit,
    ),
    _videotoolbox("h264_videotoolbox", "h264"),
    _videotoolbox("hevc_videotoolbox", "hevc", tag="hvc1"),
    _nvenc("h264_nvenc", "h264"),
    _nvenc("hevc_nvenc", "hevc", tag="hvc1"),
    # Takes crf as it is, on AV1's own quantiser scale of 0..255: 30 is much finer there than libsvtav1's 30.
    _nvenc("av1_nvenc", "av1"),
    _vaapi("h264_vaapi", "h264", _option("qp")),
    _vaapi("hevc_vaapi", "hevc", _option("qp"), tag="hvc1"),
    # av1_vaapi has no qp; constant quantiser mode reads global_quality (scale 0..255, as av1_nvenc).
    _vaapi("av1_vaapi", "av1", lambda crf: {"rc_mode": "CQP", "global_quality": crf}),
    _qsv("h264_qsv", "h264"),
    _qsv("hevc_qsv", "hevc", tag="hvc1"),
    _qsv("av1_qsv", "av1"),
    Codec(
        "h264_v4l2m2m",
        encoder="h264_v4l2m2m",
        stream="h264",
        hardware=True,
        upload={"yuv420p": "yuv420p", "nv12": "nv12"},
        needs_bit_rate=True,
    ),
)
CODECS: dict[str, Codec] = {row.name: row for row in _ROWS}
ALIASES = {"av1": "libsvtav1"}
VCODECS = (*CODECS, *ALIASES, "auto")


def check_vcodec(name: str) -> str:
    """Return the canonical ``vcodec`` for a name, with aliases resolved; ``auto`` stays.

    Raises:
        ConfigError: unknown; the text lists the accepted names and the nearest one.
    """
    name = ALIASES.get(name, name)
    if name in CODECS or name == "auto":
        return name
    by_encoder = {row.encoder: row.name for row in CODECS.values()} | {
        "x264": "h264",
        "avc": "h264",
        "x265": "hevc",
        "h265": "hevc",
        "svtav1": "libsvtav1",
    }
    near = accepted(name, VCODECS, by_encoder.get(name))
    raise ConfigError(f"{name!r} is not known{near}", where="vcodec")


def auto_fallback(pix_fmt: str) -> str:
    """Return what ``vcodec="auto"`` means where no hardware encoder runs."""
    return _AUTO_DEPTH_FALLBACK.get(pix_fmt, AUTO_FALLBACK)


def codec_for(vcodec: str, encoder: str | None = None) -> Codec:
    """Return the table row for a ``vcodec``; for ``auto`` the row of ``encoder``, the machine's answer.

    Raises:
        ConfigError: ``auto`` without an answer, or an unknown name.
    """
    name = check_vcodec(vcodec)
    if name == "auto":
        if encoder is None:
            raise ConfigError(
                'vcodec="auto" has to be resolved first: pass the encoder this machine can run, one of '
                + ", ".join((*AUTO_ORDER, AUTO_FALLBACK))
            )
        name = check_vcodec(encoder)
        if name == "auto":
            raise ConfigError(f"encoder={encoder!r} is no answer to what auto stands for")
    return CODECS[name]
