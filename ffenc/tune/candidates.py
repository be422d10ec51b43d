"""Select the settings to test: a grid over the encoders that run here, or the user's lists."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from msgspec import Struct

from ffenc.codecs.codec import Codec
from ffenc.codecs.options import merged_options
from ffenc.codecs.suggest import accepted
from ffenc.codecs.table import CODECS, check_vcodec
from ffenc.config.encoder import VideoEncoderConfig
from ffenc.config.validation import default_of
from ffenc.errors import ConfigError
from ffenc.spelling import argument

Number = int | float

_LONGER_GROUPS = (10, 30)  # GOP lengths in addition to LeRobot's g of 2
_FULL_CHROMA = ("yuv444p", "h264")  # a pixel format with full chroma, and the codec that it is tested with
_MOST = 200  # greatest number of values in a list
_RANGE = re.compile(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)(?::(\d+(?:\.\d+)?))?", re.ASCII)


def label(config: VideoEncoderConfig) -> str:
    """Return settings in a short form: ``libsvtav1 preset 10 crf 30 g 2``. ``auto`` must be resolved."""
    fields = settings_of(config)
    parts = [config.vcodec]
    parts += [f"{name} {fields[name]}" for name in ("preset", "crf", "g", "fast_decode") if name in fields]
    if config.pix_fmt != default_of(type(config), "pix_fmt"):
        parts.append(config.pix_fmt)
    parts += [f"{key} {value}" for key, value in config.extra_options.items()]
    return " ".join(parts)


def settings_of(config: VideoEncoderConfig) -> dict[str, Any]:
    """Return the fields of a preset's ``encoder`` for settings, including relevant defaults.

    Fields without effect with the codec, which a preset must not set, are omitted.
    """
    # All fields are given explicitly, so that defaults without effect are found as well.
    said = config.replace(**{name: getattr(config, name) for name in ("preset", "crf", "g")})
    unused = merged_options(CODECS[config.vcodec], said).unused
    fields: dict[str, Any] = {"vcodec": config.vcodec, "pix_fmt": config.pix_fmt}
    for name in ("preset", "crf", "g"):
        if getattr(config, name) is not None and name not in unused:
            fields[name] = getattr(config, name)
    if config.fast_decode:
        fields["fast_decode"] = config.fast_decode
    if config.extra_options:
        fields["extra_options"] = dict(config.extra_options)
    return fields


class Lists(Struct, frozen=True):
    """The user's lists; None: the usual values.

    Attributes:
        vcodec, preset, crf, g, pix_fmt, fast_decode: values of the encoder setting with this name.
    """

    vcodec: Sequence[str] | None = None
    preset: Sequence[int | str] | None = None
    crf: Sequence[Number] | None = None
    g: Sequence[int] | None = None
    pix_fmt: Sequence[str] | None = None
    fast_decode: Sequence[int] | None = None

    @property
    def any(self) -> bool:
        """Whether at least one list is given."""
        return any(getattr(self, name) is not None for name in self.__struct_fields__)


def read_list(text: str, name: str) -> list[str]:
    """Parse ``a,b,c``; duplicates are removed, the order is kept.

    Raises:
        ConfigError: the list or a value is empty.
    """
    values = [word.strip() for word in text.split(",")]
    if not all(values):
        raise ConfigError(f"{name}: {text!r} has an empty value", expected="a list such as a,b,c")
    return list(dict.fromkeys(values))


def read_numbers(text: str, name: str, *, whole: bool = False) -> list[Number]:
    """Parse numbers and ranges that include both ends: ``18:36:4``, ``1,2,10:30:10``.

    Args:
        text: the list; ranges are ``first:last:step``, or ``first:last`` with step 1.
        name: the option, for errors.
        whole: reject fractions.

    Raises:
        ConfigError: not such a list, or too many values.
    """
    found: list[Number] = []
    for word in read_list(text, name):
        match = _RANGE.fullmatch(word)
        try:
            if match is None:
                found.append(_number(word))
                continue
            first, last, step = (_number(part or "1") for part in match.groups())
            if last < first or step <= 0:
                raise ValueError
            count = int((last - first) / step + 1e-9) + 1
            if count > _MOST:
                raise ConfigError(f"{name}: {word} is {count} values; {_MOST} at most are tried")
            found += [round(first + i * step, 6) for i in range(count)]
        except ValueError:
            raise ConfigError(
                f"{name}: {word!r} is not a number of 0 or more, nor a range such as 18:36:4"
            ) from None
    if whole and any(not isinstance(value, int) for value in found):
        raise ConfigError(f"{name}: {text!r} has fractions", expected="whole numbers")
    return list(dict.fromkeys(found))


def _number(word: str) -> Number:
    value = float(word)
    if not 0 <= value < float("inf"):
        raise ValueError
    return int(value) if value == int(value) else value


def tried_codecs(lists: Lists) -> list[Codec]:
    """Return the codecs to test if they run here: the listed ones, or all usual ones.

    Raises:
        ConfigError: an unknown codec, or a name that is not one particular codec.
    """
    if lists.vcodec is None:
        return [row for row in CODECS.values() if row.usual_crf]
    try:
        names = [check_vcodec(name) for name in lists.vcodec]
    except ConfigError as error:
        raise ConfigError(error.what, where=argument("vcodec")) from None
    if "auto" in names:
        raise ConfigError(
            f"{argument('vcodec', 'auto')}: stands for one of the others; list those, or leave "
            f"{argument('vcodec')} out to try all"
        )
    return [CODECS[name] for name in dict.fromkeys(names)]


def candidates(
    codecs: Sequence[Codec],
    lists: Lists,
    base: VideoEncoderConfig,
    *,
    search: bool,
) -> list[VideoEncoderConfig]:
    """Return the settings to test, the most promising first.

    Args:
        codecs: codecs that run here.
        lists: the user's lists: all combinations of them are tested, with usual values for the rest.
        base: values of settings that are not varied: ``g`` and ``pix_fmt``, and all settings of its codec.
        search: crf is searched for: only one of the settings that differ only in crf, with a usual crf.

    Raises:
        ConfigError: a value that no codec accepts, or invalid settings.
    """
    _check(codecs, lists)
    ranked: list[tuple[int, VideoEncoderConfig]] = []
    for row in codecs:
        made = _of_lists(row, lists, base) if lists.any else _of_grid(row, base)
        for rank, changes in made:
            if search and lists.crf is None and row.has_crf:
                changes["crf"] = middle_crf(row)
            ranked.append((rank, _built(row, base, changes)))
    ranked.sort(key=lambda pair: pair[0])
    # Several rows of the grid can contain the same settings.
    return list({repr(config): config for _, config in ranked}.values())


def middle_crf(row: Codec) -> Number:
    """Return a codec's crf for a first test."""
    return row.usual_crf[len(row.usual_crf) // 2] if row.usual_crf else 30


def _built(row: Codec, base: VideoEncoderConfig, changes: Mapping[str, Any]) -> VideoEncoderConfig:
    if row.name == base.vcodec:
        return base.replace(**changes)
    usual = {"vcodec": row.name, "pix_fmt": base.pix_fmt} | ({"g": base.g} if row.has_g else {})
    return VideoEncoderConfig(**usual | dict(changes))


def _of_grid(row: Codec, base: VideoEncoderConfig) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the usual values, with one setting varied at a time, and the rank of each in the order."""
    first = {"preset": row.usual_presets[0]} if row.usual_presets else {}
    middle = first | {"crf": middle_crf(row)}
    yield 0, dict(middle)
    for crf in row.usual_crf:
        yield 1, middle | {"crf": crf}
    for g in _LONGER_GROUPS:
        yield 2, middle | {"g": g}
    for preset in row.usual_presets[1:]:
        yield 3, middle | {"preset": preset}
    if row.has_fast_decode:
        yield 4, middle | {"fast_decode": 1}
    if row.name == _FULL_CHROMA[1] and base.pix_fmt == "yuv420p":
        yield 5, middle | {"pix_fmt": _FULL_CHROMA[0]}


def _of_lists(row: Codec, lists: Lists, base: VideoEncoderConfig) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield all combinations of the lists that a codec accepts."""
    usual: list[int | str | None] = [row.usual_presets[0] if row.usual_presets else row.default_preset]
    if row.name == base.vcodec and "preset" in base.given:
        usual = [base.preset]
    crfs: Sequence[Number | None] = [None]
    if row.has_crf:
        crfs = lists.crf if lists.crf is not None else (row.usual_crf or (middle_crf(row),))
        crfs = [crf for crf in crfs if row.crf_range is None or row.crf_range[0] <= crf <= row.crf_range[1]]
    values: dict[str, Sequence[Any]] = {
        "preset": usual if lists.preset is None else [p for p in lists.preset if _takes_preset(row, p)],
        "crf": crfs,
        "g": [base.g] if lists.g is None else lists.g,
        "pix_fmt": [base.pix_fmt] if lists.pix_fmt is None else lists.pix_fmt,
        "fast_decode": [0] if lists.fast_decode is None else lists.fast_decode,
    }
    if not row.has_g:
        values["g"] = [None]
    if not row.has_fast_decode:
        values["fast_decode"] = [0]
    if row.preset_option is None:
        values["preset"] = [None]
    for combination in product(*values.values()):
        found = dict(zip(values, combination, strict=True))
        yield 0, {name: value for name, value in found.items() if value is not None or name == "g"}


def _takes_preset(row: Codec, preset: int | str) -> bool:
    return row.preset_option is not None and (row.presets is None or preset in row.presets)


def _check(codecs: Sequence[Codec], lists: Lists) -> None:
    """Reject values that no codec accepts, which would be omitted silently otherwise."""
    for preset in lists.preset or ():
        if not any(_takes_preset(row, preset) for row in codecs):
            known = [str(p) for row in codecs for p in row.presets or ()]
            raise ConfigError(
                f"encoder preset {preset} is not accepted by {', '.join(row.name for row in codecs)}"
                + accepted(str(preset), list(dict.fromkeys(known)))
            )
    for crf in lists.crf or ():
        takers = [row for row in codecs if row.has_crf]
        if not any(r.crf_range is None or r.crf_range[0] <= crf <= r.crf_range[1] for r in takers):
            ranges = ", ".join(
                f"{row.name} {row.crf_range[0]:g} to {row.crf_range[1]:g}" for row in takers if row.crf_range
            )
            raise ConfigError(
                f"{argument('crf', crf)}: no tried codec accepts it ({ranges or 'they have none'})"
            )
    if (
        lists.fast_decode is not None
        and any(lists.fast_decode)
        and not any(r.has_fast_decode for r in codecs)
    ):
        raise ConfigError(
            f"{argument('fast_decode', True)}: {', '.join(row.name for row in codecs)} do not "
            "support it; leave it out"
        )


def distinct(configs: Collection[VideoEncoderConfig]) -> list[VideoEncoderConfig]:
    """Return settings without those that have the same meaning in another notation."""
    return list({repr(settings_of(config)): config for config in configs}.values())
