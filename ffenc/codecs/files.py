"""Encoder options that open files, which are refused, and options that a dataset may set.

An encoder reads frames from ffenc and writes its stream to ffenc. An option that makes it open another file
could read or overwrite anything, and settings are also read from datasets of unknown origin.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ffenc.errors import ConfigError, SourceError

# Options of encoders that name a file or a library to load (ffmpeg -h full, 5.1 to 9.0).
FILE_OPTIONS = frozenset(("stats", "passlogfile", "x265-stats", "load_plugin", "load_plugins"))

# Option -> its sub-keys that name a file, or make the library write a file with a fixed name. x264:
# common/base.c and x264.c; x265: common/param.cpp and x265cli.cpp; SVT-AV1: enc_settings.c and app_config.c;
# libaom: av1/arg_defs.c. Some are read only by the libraries' own programs today.
FILE_SUB_KEYS: Mapping[str, frozenset[str]] = {
    "x264-params": frozenset(
        "cqmfile dump-yuv log-file opencl opencl-clbin pass qpfile stats tcfile-in tcfile-out".split()
    ),
    "x265-params": frozenset(
        """
        analysis-load analysis-reuse-file analysis-reuse-mode analysis-save aom-film-grain csv dhdr10-info
        dolby-vision-rpu film-grain lambda-file multi-pass-opt-analysis multi-pass-opt-distortion nalu-file
        pass qpfile recon recon-y4m-exec refine-analysis-type refine-ctu-distortion scaling-list stats
        zonefile
        """.split()
    ),
    "svtav1-params": frozenset(
        "config errlog fgs-table nch pass passes qpfile recon roi-map-file stat-file stats use-q-file".split()
    ),
    "aom-params": frozenset(
        """
        film-grain-table fpf partition-info-path pass rate-distribution-info second-pass-log two-pass-output
        vmaf-model-path
        """.split()
    ),
}

# Options of any encoder, and sub-keys of any library, that only change how an encoder works. A file sub-key
# of a library is not accepted for that library, even if it is listed here.
_TUNING = frozenset(
    """
    8x8dct a53cc ac-bias adaptive-i amp analyse aq-mode aq-motion aq-strength aq_mode arnr-maxframes
    arnr-strength arnr-type aud auto-alt-ref b b-adapt b-bias b-intra b-pyramid b_adapt b_qfactor b_ref_mode
    b_strategy bf bframe-bias bframes bias-pct bitrate bt buf-sz bufsize cabac cbqpoffs chroma-me
    chroma-qp-offset chromaoffset cmp coder coeff-cost-upd-freq constrained-intra context cplxblur cpu-used
    cq cq-level cqm crf crf-max crf-min crf_max crqpoffs ctu cu-lossless cutree dct-decimate deadzone-inter
    deadzone-intra deblock deltaq-mode denoise-block-size denoise-noise-level direct direct-pred dpb_size
    dynamic-rd early-skip ec end-usage error-resilience fast-decode fast-intra fast-pskip film-grain
    film-grain-denoise film-grain-test fast_decode flags2 forced-idr frame-threads g gpb hash hevc-aq
    hierarchical-levels hme hrd i_qfactor idr_interval info init_qpB init_qpI init_qpP intra-period
    intra-refresh ip-factor ipratio keyint keyint_min lag-in-frames level level-idc lf-type limit-modes
    limit-refs limit-sao limit-tu log log-level lookahead lookahead-slices lookahead-threads look_ahead
    look_ahead_depth lossless low_power lp max-bframes max-merge max-qp max-tu-size maxrate mbtree me
    me-range me_range merange min-cu-size min-keyint min-qp minrate mixed-refs motion-est multipass mv-range
    nal-hrd nonref_p nr nr-inter nr-intra open-gop overshoot-pct partitions pb-factor pbratio pme pmode
    pools pred-struct preset profile psy psy-rd psy-rdoq q qblur qcomp qdiff qg-size qm-max qm-min qmax qmin
    qp qp-max qp-min qp-step qpmax qpmin qpstep quality rc rc-grain rc-lookahead rc_init_occupancy rc_mode
    rd rd-refine rdoq rdoq-level realtime rect ref refs repeat-headers resize-mode row-mt rskip sao
    sc_threshold scd scenecut scenecut-bias scm screen-content-mode selective-sao sharpness signhide
    slicecrc sliced-threads slices sps-id splitrd-skip spatial-aq spatial_aq ssim-rd static-thresh
    still-picture strict strict-cbr strong-intra-smoothing strict_gop subme subq superres-mode surfaces
    sync-lookahead temporal-aq temporal-mvp temporal_aq threads tier tile-columns tile-rows tiles trellis
    tskip tskip-fast tu-inter-depth tu-intra-depth tune udu_sei undershoot-pct usage variance-boost-strength
    variance-octile vbv-bufsize vbv-init vbv-maxrate vbv-minrate weight_b weight_p weightb weighted_pred
    weightp wpp zerolatency
    """.split()
)
_TUNING_BEGINS = ("enable-", "disable-", "no-")
_PLAIN_VALUE = re.compile(r"[\w.,+-]{0,64}", re.ASCII)  # numbers, words, lists of them; no path


def check_no_files(option: str, said: str, value: object) -> None:
    """Check that an extra option does not make an encoder open a file.

    Args:
        option: canonical name, without a stream specifier.
        said: the name as the user wrote it, for the error.
        value: the value; for a "key=value:..." option, its text.

    Raises:
        ConfigError: the option opens a file.
    """
    found = said if option in FILE_OPTIONS else None
    for sub in _sub_keys(str(value)) if option in FILE_SUB_KEYS else ():
        if _opens_files(option, sub):
            found = f"{said} {sub}"
    if found is not None:
        raise ConfigError(
            f"{found} makes the encoder open other files",
            expected="options without files; an encoder only reads and writes the video",
            where="extra_options",
            fix="leave it out",
        )


def check_from_dataset(extra: object, where: str) -> dict[str, str | int | float]:
    """Return extra options that a dataset contains, after checking that they only tune an encoder.

    Args:
        extra: ``video.extra_options`` of a camera, as read.
        where: the file and camera, with which the error begins.

    Raises:
        SourceError: not a mapping, or an option that is not known to be harmless.
    """
    if not isinstance(extra, Mapping):
        raise SourceError(f"{where}: {extra!r} is not a mapping of options", expected="names with values")
    for key, value in extra.items():
        name = str(key).split(":", 1)[0]
        name = "x264-params" if name == "x264opts" else name
        known = isinstance(key, str) and isinstance(value, str | int | float)
        if name in FILE_SUB_KEYS:
            parts = [part.partition("=")[2] for part in str(value).split(":")]
            harmless = all(
                _tunes(sub) and not _opens_files(name, sub) for sub in _sub_keys(str(value))
            ) and all(map(_PLAIN_VALUE.fullmatch, parts))
        else:
            harmless = _tunes(name) and _PLAIN_VALUE.fullmatch(str(value)) is not None
        if not (known and harmless):
            raise SourceError(
                f"{str(key)[:60]!r}: {str(value)[:60]!r} is not accepted from a dataset",
                expected="options that tune an encoder",
                where=where,
                fix="re-encode with your own settings, or remove it from the dataset",
            )
    return dict(extra)


def _sub_keys(text: str) -> Iterator[str]:
    """Yield the canonical names of the sub-keys in ``a=1:b=2``."""
    for part in filter(None, text.split(":")):
        yield part.partition("=")[0].strip().lstrip("-").replace("_", "-").lower()


def _opens_files(option: str, sub: str) -> bool:
    return sub.removeprefix("no-") in FILE_SUB_KEYS[option]


def _tunes(name: str) -> bool:
    if name.startswith(_TUNING_BEGINS):
        return True
    return name in _TUNING or name.replace("-", "_") in _TUNING
