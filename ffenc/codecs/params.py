"""What encoders read: sub-keys of their "key=value:..." options, and FFmpeg's generic options."""

from __future__ import annotations

# Names that every "key=value:..." option has for settings, in addition to those of its row. "colour", "input"
# and "time" are always set by ffenc, the others only if the config sets them.
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
COMMON_PARAMS: dict[str, str] = {
    **dict.fromkeys(_COLOUR_KEYS, "colour"),
    **dict.fromkeys(_INPUT_KEYS, "input"),
    **dict.fromkeys(_TIME_KEYS, "time"),
    **dict.fromkeys(("crf", "qp", "q", "bitrate", "rc", "tbr", "zones"), "crf"),
    **dict.fromkeys(("keyint", "intra-period"), "g"),
    "preset": "preset",
    "fast-decode": "fast_decode",
    **dict.fromkeys(("threads", "lp", "pools", "numa-pools", "frame-threads"), "encoder_threads"),
}
X26X_PARAMS = {**COMMON_PARAMS, "tune": "fast_decode"}
OFF = ("0", "false", "no")
X26X_OPEN = {"open-gop": OFF, "intra-refresh": OFF}
# Generic options of FFmpeg that these encoders read (their files in libavcodec, 5.1 to 9.0); the others are
# accepted by FFmpeg without effect.
_ANY_GENERIC = frozenset("flags flags2 threads thread_type strict max_pixels".split())
_RATE_GENERIC = _ANY_GENERIC | frozenset("b g keyint_min maxrate bufsize qmin qmax profile level".split())
X264_GENERIC = _RATE_GENERIC | frozenset(
    "bt bf qdiff qblur qcomp i_qfactor b_qfactor refs trellis me_range subq cmp slices "
    "rc_init_occupancy field_order".split()
)
X265_GENERIC = _RATE_GENERIC | frozenset(
    "bf qdiff qblur qcomp i_qfactor b_qfactor refs rc_init_occupancy".split()
)
SVTAV1_GENERIC = _RATE_GENERIC - {"keyint_min"}
AOM_GENERIC = _RATE_GENERIC | frozenset(("minrate", "qcomp", "rc_init_occupancy"))
FFV1_GENERIC = _ANY_GENERIC | frozenset(("g", "level", "slices"))

# Values that the libraries use unchanged. x264 clips others without a message, x265 and SVT-AV1 refuse most
# and map some. Sources: x264's validate_parameters, x265's x265_check_params, SVT-AV1's verify_settings.
_SWITCH = (0, 1)

# Accepted words of options that FFmpeg passes on as texts, and of sub-keys: x264_tune_names,
# x264_motion_est_names, x265_param_default_preset and others, in any version.
X264_WORDS = {
    "tune": ("film", "animation", "grain", "stillimage", "psnr", "ssim", "fastdecode", "zerolatency"),
    "profile": ("baseline", "main", "high", "high10", "high422", "high444"),
    "me": ("dia", "hex", "umh", "esa", "tesa"),
}
X265_WORDS = {
    "tune": (
        *("psnr", "ssim", "grain", "animation", "vmaf"),
        *("fastdecode", "fast-decode", "zerolatency", "zero-latency"),
    ),
    "me": ("dia", "hex", "umh", "star", "sea", "full"),
}
X264_RANGES: dict[str, tuple[float, float]] = {
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
X265_RANGES: dict[str, tuple[float, float]] = {
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
SVTAV1_RANGES: dict[str, tuple[float, float]] = {
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
