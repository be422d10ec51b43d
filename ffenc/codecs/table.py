"""The codec table: one row per codec. To add a codec, add a row.

:class:`~ffenc.codecs.codec.Codec` describes the columns; long lists of sub-keys are in ``params.py``.

Sources of the mappings: ``ffmpeg -h encoder=NAME`` of FFmpeg 5.1 and 9.0 for option names and ranges,
LeRobot 0.6 for ``q:v = 100 - 2 crf``, ``rc=0`` with ``qp`` and ``svtav1-params``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ffenc.codecs.codec import Codec, Number, Options, Value
from ffenc.codecs.params import (
    AOM_GENERIC,
    COMMON_PARAMS,
    FFV1_GENERIC,
    OFF,
    SVTAV1_GENERIC,
    SVTAV1_RANGES,
    X26X_OPEN,
    X26X_PARAMS,
    X264_GENERIC,
    X264_RANGES,
    X264_WORDS,
    X265_GENERIC,
    X265_RANGES,
    X265_WORDS,
)
from ffenc.codecs.suggest import accepted
from ffenc.errors import ConfigError

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
_X26X_PRESETS: tuple[int | str, ...] = (*X264_PRESETS, *range(len(X264_PRESETS)))  # names or numbers
# vcodec="auto" selects the first that can run, in LeRobot's order; libsvtav1 if none can.
AUTO_ORDER = (
    "h264_videotoolbox",
    "hevc_videotoolbox",
    "h264_nvenc",
    "hevc_nvenc",
    "h264_vaapi",
    "h264_qsv",
)
AUTO_FALLBACK = "libsvtav1"
# libsvtav1 does not support one channel of more than 8 bits. LeRobot can read hevc.
_AUTO_DEPTH_FALLBACK = {"gray10le": "hevc", "gray12le": "hevc", "gray16le": "ffv1"}
_AOM_LOOKAHEAD = 35  # libaom's default, in frames
RENDER_DEVICE = "/dev/dri/renderD128"


def _lossless_key(params: str) -> Callable[[Mapping[str, Value], int], bool]:
    """Return a check for ``lossless=1`` among the sub-keys of a params option."""
    on = re.compile(r"(?:^|:)\s*-*lossless(?:=(?:1|true|yes))?\s*(?::|$)")
    return lambda options, _: on.search(str(options.get(params, ""))) is not None


def _x264_lossless(options: Mapping[str, Value], bits: int) -> bool:
    # At 10 bits, crf starts at -12, and 0 is not lossless.
    return str(options.get("qp")) == "0" or (bits == 8 and options.get("crf") == 0)


def _aom_key_frames(g: int) -> Options:
    # Lookahead past the next key frame has no benefit, and with a g of 1 or 2 libaom 3.15 crashes with it.
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
    # "threads" limits only the frame threads, which x265 refuses above 16; without "pools" the worker pool
    # uses every core.
    return {"threads": min(threads, 16), "x265-params": {"pools": threads}}


def _one_column(width: int, height: int) -> bool:
    """Return whether x265's frames are one coding tree wide: in x265 3.5 and 4.1, some samples differ then.

    The side of a coding tree is 64, or less in smaller frames: the largest of 32 and 16 that fits.
    """
    return width in (16, 32, 64) and height >= width


# Numbers of slices that FFV1 accepts at every frame size above 64x64: columns times rows.
_FFV1_SLICES = {4: (2, 2), 6: (3, 2), 9: (3, 3), 12: (4, 3), 16: (4, 4), 24: (6, 4), 30: (6, 5)}
_FFV1_SLICE_BITS = 8 << 24  # greatest size of a slice, as computed in libavcodec/ffv1enc.c


def _ffv1_threads(threads: int) -> Options:
    # FFV1 works in parallel by slices.
    slices = next((n for n in _FFV1_SLICES if n >= threads), 30)
    return {"threads": threads, "slices": slices}


def _ffv1_fit(
    options: Mapping[str, Value], width: int, height: int, channels: int, bits: int
) -> dict[str, Value]:
    """Return more slices if the frame is too large for the number that is set."""
    for slices, (columns, rows) in _FFV1_SLICES.items():
        samples = -(-width // columns) * -(-height // rows) * channels
        if slices >= int(options["slices"]) and samples * (bits + 1) <= _FFV1_SLICE_BITS:
            return {"slices": slices}
    return {}


_NV12 = {"yuv420p": "nv12", "nv12": "nv12"}
_P010 = {"yuv420p10le": "p010le", "p010le": "p010le"}


# Usual quantisers for cameras; AV1's scale has 255 steps, that of the others 51.
_HARDWARE_CRF = (20, 26, 32)
_HARDWARE_AV1_CRF = (80, 120, 160)


def _svtav1_quality(crf: Number) -> Options:
    # In FFmpeg's own crf option, 0 means "not set" (35); the library accepts it as 0.
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
        # Makes every I-frame an IDR frame: for H.264 the value is 0, the default, for HEVC 1.
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
        open_groups={"intra-refresh": OFF, "single-slice-intra-refresh": OFF},
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
        generic=SVTAV1_GENERIC,
        ranges=SVTAV1_RANGES,
        max_size=(16384, 8704),
        max_fps=240,
        old_min_size=(64, 64),
        params_fields=COMMON_PARAMS,
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
        generic=X264_GENERIC,
        ranges=X264_RANGES,
        words=X264_WORDS,
        reported=r"x264 - core .*? options: ([\x20-\x7e]*)",
        max_size=(16384, 16384),
        params_fields=X26X_PARAMS,
        open_groups=X26X_OPEN,
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
        # x265's GOPs are open by default: a reader that starts at a key frame would skip frames.
        fixed={"x265-params": {"open-gop": 0}},
        open_groups=X26X_OPEN,
        params="x265-params",
        lossless=_lossless_key("x265-params"),
        lossless_extras={"x265-params": "lossless=1"},
        inexact=_one_column,
        crf_range=(0, 51),
        usual_crf=(20, 25, 30),
        usual_presets=("veryfast",),
        generic=X265_GENERIC,
        ranges=X265_RANGES,
        words=X265_WORDS,
        reported=r"x265 \(build .*? options: ([\x20-\x7e]*)",
        min_size=(16, 16),
        params_fields=X26X_PARAMS,
        tag="hvc1",
        version=r"HEVC encoder version (\S+)",
        ignored=r"(?:Unknown option: |Invalid value for ).*",
    ),
    Codec(
        "libaom-av1",
        encoder="libaom-av1",
        stream="av1",
        key_frames=_aom_key_frames,
        # Constant quality: FFmpeg's default bit rate for libaom is 0 from 4.3 on, so only crf counts.
        quality=_option("crf"),
        integer_quality=True,
        preset_option="cpu-used",
        presets=tuple(range(0, 9)),
        threads=lambda n: {"threads": n, "row-mt": 1},
        params="aom-params",
        lossless=_lossless_key("aom-params"),
        lossless_extras={"aom-params": "lossless=1"},
        crf_range=(0, 63),
        generic=AOM_GENERIC,
        params_fields={
            **COMMON_PARAMS,
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
        generic=FFV1_GENERIC,
        min_size=(4, 4),
        fit=_ffv1_fit,
    ),
    _videotoolbox("h264_videotoolbox", "h264"),
    _videotoolbox("hevc_videotoolbox", "hevc", tag="hvc1"),
    _nvenc("h264_nvenc", "h264"),
    _nvenc("hevc_nvenc", "hevc", tag="hvc1"),
    # crf is passed unchanged, on AV1's own quantiser scale of 0..255: 30 is much finer than libsvtav1's 30.
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
    """Return the canonical ``vcodec`` of a name, with aliases resolved; ``auto`` stays.

    Raises:
        ConfigError: an unknown name; the text lists the accepted names and the nearest one.
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
    """Return what ``vcodec="auto"`` selects if no hardware encoder can run."""
    return _AUTO_DEPTH_FALLBACK.get(pix_fmt, AUTO_FALLBACK)


def codec_for(vcodec: str, encoder: str | None = None) -> Codec:
    """Return the table row of a ``vcodec``; for ``auto``, the row of ``encoder``.

    Raises:
        ConfigError: ``auto`` without ``encoder``, or an unknown name.
    """
    name = check_vcodec(vcodec)
    if name == "auto":
        if encoder is None:
            raise ConfigError(
                'vcodec="auto" has to be resolved first; pass an encoder that this machine can run, one of '
                + ", ".join((*AUTO_ORDER, AUTO_FALLBACK))
            )
        name = check_vcodec(encoder)
        if name == "auto":
            raise ConfigError(f"encoder={encoder!r} is not an encoder for vcodec=auto")
    return CODECS[name]
