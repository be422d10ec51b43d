"""The options that FFmpeg's help texts list, and the check of compiled options against them.

This check runs before a job and accepts what may be right; the trial encode decides. The parsing rules are
those of libavutil/opt.c and eval.c, which are the same in 5.1, 8.1 and 9.0.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import asdict

from ffenc.codecs.codec import Value
from ffenc.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Self


class PixelFormatError(ConfigError):
    """An encoder, as it was built, does not support a pixel format."""


class PublishedOption(Struct, frozen=True):
    """One option.

    Attributes:
        name: without the leading dash.
        kind: FFmpeg's name of its type: int, int64, float, boolean, flags, string, dictionary, ...; followed
            by ``[]`` for a list.
        minimum, maximum: None: no limit but that of the type. FFmpeg prints a float with six digits, so it is
            exact to six digits only; an int is exact.
        choices: named values.
    """

    name: str
    kind: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()


class PublishedEncoder(Struct, frozen=True):
    """One encoder.

    Attributes:
        name: FFmpeg's name; empty if the text could not be parsed.
        pixel_formats: supported pixel formats; empty: FFmpeg lists none.
        options: the encoder's own options, by name.
    """

    name: str
    pixel_formats: tuple[str, ...]
    options: Mapping[str, PublishedOption]

    def to_json(self) -> dict[str, Any]:
        """Return the encoder as plain JSON values for :meth:`from_json`."""
        return {
            "name": self.name,
            "pixel_formats": list(self.pixel_formats),
            "options": _plain(self.options),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return an encoder that was saved; raises KeyError or TypeError if the data has another layout."""
        return cls(data["name"], tuple(data["pixel_formats"]), _options(data["options"]))


class PublishedOptions(Struct, frozen=True):
    """The options of an ffmpeg program.

    Attributes:
        generic: options of all video encoders, by name.
        names: names of all options of the program; empty if the text could not be parsed.
    """

    generic: Mapping[str, PublishedOption]
    names: frozenset[str]

    def to_json(self) -> dict[str, Any]:
        """Return the options as plain JSON values for :meth:`from_json`."""
        return {"generic": _plain(self.generic), "names": sorted(self.names)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return options that were saved; raises KeyError or TypeError if the data has another layout."""
        return cls(_options(data["generic"]), frozenset(data["names"]))


def _plain(options: Mapping[str, PublishedOption]) -> list[dict[str, Any]]:
    return [{**asdict(option), "choices": list(option.choices)} for option in options.values()]


def _options(data: Iterable[Mapping[str, Any]]) -> dict[str, PublishedOption]:
    read = (PublishedOption(**{**item, "choices": tuple(item["choices"])}) for item in data)
    return {option.name: option for option in read}


# "  -crf   <int>   E..V....... Constant ... (from 0 to 63) (default 0)"; 9.0 writes a list as "[<int>   ]."
_OPTION = re.compile(r"^ {2}[ -](\S+) +(\[?)<(\w+) *>\]? *([A-Z.]{9,13})(?: (.*))?$", re.M)
# "     auto            0            ED.V....... help"; flags are listed without their value.
_CHOICE = re.compile(r"^ {5}(\S+) +(?:-?\d+ +)?[A-Z.]{9,13}(?: |$)")
_RANGE = re.compile(r"\(from (\S+) to (\S+)\)")
# "-c[:<stream_spec>] <codec>  help" of 8.1 and 9.0, "-c codec   help" of 5.1.
_PROGRAM_OPTION = re.compile(r"^-([A-Za-z][^\s\[<]*)", re.M)
_ENCODER = re.compile(r"^Encoder (\S+) \[", re.M)
_NO_ENCODER = re.compile(r"is not recognized by FFmpeg|no encoders for it are available")
_PIXEL_FORMATS = re.compile(r"^ +Supported pixel formats:(.*)$", re.M)
_FILTER = re.compile(r"^ [T.][S.][C.]? (\w+) +\S+->\S+ ", re.MULTILINE)
_VIDEO_ENCODER = re.compile(r"^ V[A-Z.]{5} ([^\s=]\S*)", re.M)

_LIMITS = {
    "INT_MIN": -(2**31),
    "INT_MAX": 2**31 - 1,
    "UINT32_MAX": 2**32 - 1,
    "FLT_MIN": 1.17549435e-38,
    "DBL_MIN": 2.2250738585072014e-308,
}


def _limit(text: str) -> float | None:
    if text in _LIMITS:
        return _LIMITS[text]
    if re.fullmatch(r"-?\d{1,6}", text):
        return int(text)
    # Other texts are I64_MAX, FLT_MAX and similar: not worth naming as limits.
    return float(text) if re.fullmatch(r"-?\d{1,9}(\.\d{1,9})?(e[+-]\d{1,2})?", text) else None


def _parse_options(text: str) -> dict[str, tuple[PublishedOption, str]]:
    """Return the options listed in a text with their capability columns; of equal names, the first."""
    rows: list[tuple[re.Match[str], list[str]]] = []
    for line in text.splitlines():
        if option := _OPTION.match(line):
            rows.append((option, []))
        elif rows and (choice := _CHOICE.match(line)):
            rows[-1][1].append(choice[1])
    found: dict[str, tuple[PublishedOption, str]] = {}
    for row, choices in rows:
        name, array, kind, capabilities, about = row.groups()
        # The help text itself may contain a range; FFmpeg's own is the last one.
        low, high = (_RANGE.findall(about or "") or [("", "")])[-1]
        kind += "[]" if array else ""
        option_ = PublishedOption(name, kind, _limit(low), _limit(high), tuple(dict.fromkeys(choices)))
        found.setdefault(name, (option_, capabilities))
    return found


def parse_encoder(text: str) -> PublishedEncoder | None:
    """Parse ``ffmpeg -hide_banner -h encoder=NAME``; for a codec's name, the first of its encoders.

    Returns:
        None if FFmpeg reports that it has no such encoder. Any other text that cannot be parsed gives an
        encoder without name and options.
    """
    headings = list(_ENCODER.finditer(text))
    if not headings:
        return None if _NO_ENCODER.search(text) else PublishedEncoder("", (), {})
    part = text[headings[0].start() : headings[1].start() if len(headings) > 1 else None]
    formats = _PIXEL_FORMATS.search(part)
    return PublishedEncoder(
        headings[0][1],
        tuple(formats[1].split()) if formats else (),
        {name: option for name, (option, _) in _parse_options(part).items()},
    )


def parse_full(text: str) -> PublishedOptions:
    """Parse ``ffmpeg -hide_banner -h full``."""
    _, heading, rest = text.partition("AVCodecContext AVOptions:\n")
    section = rest.split("AVOptions:", 1)[0] if heading else ""
    generic = {
        name: option
        for name, (option, capabilities) in _parse_options(section).items()
        if capabilities[0] == "E" and "V" in capabilities
    }
    names = {match[1] for match in _OPTION.finditer(text)}
    names.update(match[1] for match in _PROGRAM_OPTION.finditer(text))
    return PublishedOptions(generic, frozenset(names))


def parse_encoder_names(text: str) -> frozenset[str]:
    """Return the names of the video encoders in ``ffmpeg -hide_banner -encoders``."""
    return frozenset(_VIDEO_ENCODER.findall(text))


def parse_filter_names(text: str) -> frozenset[str]:
    """Return the names of the filters in ``ffmpeg -hide_banner -filters``."""
    return frozenset(_FILTER.findall(text))


_WHOLE = frozenset(("int", "int64", "uint64", "unsigned"))
_NUMBERS = _WHOLE | {"float", "double", "rational"}
# Generic options with named values that no help text lists: those of single encoders or of old scripts.
_OPEN = frozenset(("profile", "level", "flags"))
_BOOLEAN_WORDS = frozenset(
    "true y yes enable enabled on false n no disable disabled off auto".split()  # as av_match_name
)
# Names that every expression may contain, in addition to the option's choices; nan and inf are strtod's.
_CONSTANTS = frozenset("default max min none all PI E PHI QP2LAMBDA".split())
_STRTOD = frozenset(("nan", "inf", "infinity"))
_IDENTIFIER = re.compile(r"(?<![\w.])[^\W\d]\w*")

_NUMBER = re.compile(
    r"(?P<sign>[+-]?)(?:0[xX](?P<hex>[0-9a-fA-F]{1,16})"
    r"|(?P<digits>\d{1,99}(?:\.\d{0,99})?|\.\d{1,99})(?:[eE](?P<exponent>[+-]?\d{1,2}))?"
    r"(?P<prefix>[yzafpnumcdhkKMGTPEZY]?)(?P<binary>(?<=[kKMGTP])i)?(?P<bytes>B?))",
    re.ASCII,
)
_POWERS = dict(zip("yzafpnum", range(-24, 0, 3), strict=True)) | {
    **{"": 0, "c": -2, "d": -1, "h": 2, "k": 3, "K": 3},
    **dict(zip("MGTPEZY", range(6, 25, 3), strict=True)),
}


def _number(text: str) -> Fraction | None:
    """Return the value of a number as FFmpeg reads it (``1.5M``, ``2Ki``, ``0x10``); None: an expression."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None or (match["prefix"] == "d" and match["bytes"]):  # 20dB is a ratio
        return None
    if match["hex"]:
        value = Fraction(int(match["hex"], 16))
    else:
        # strtod accepts 5. and .5, Fraction only from Python 3.12 on.
        value = Fraction(f"0{match['digits']}0" if "." in match["digits"] else match["digits"])
        value *= Fraction(10) ** int(match["exponent"] or 0)
        power = _POWERS[match["prefix"]]
        value *= Fraction(1024) ** (power // 3) if match["binary"] else Fraction(10) ** power
        value *= 8 if match["bytes"] else 1
    return -value if match["sign"] == "-" else value


def _slack(limit: float) -> float:
    # Half of the sixth digit: FFmpeg prints values that are not short whole numbers with six digits.
    return 0 if isinstance(limit, int) else abs(limit) * 5e-6


def _listed(names: Iterable[str], most: int = 40) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _question(name: str, *pools: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` with the most similar name of the first pool that has one, or ""."""
    for cutoff, pool in zip((0.6, 0.8), pools, strict=False):  # in a large pool some name is always similar
        if near := difflib.get_close_matches(name, sorted(pool), n=1, cutoff=cutoff):
            return f"; did you mean {near[0]!r}?"
    return ""


def _taken(option: PublishedOption) -> str:
    """Return the accepted values: ``an int from 0 to 63, or one of: a, b``."""
    if option.kind == "boolean":
        return "a boolean: 1 or 0"
    if option.kind == "flags":
        return f"flags: {_listed(option.choices)}"
    text = f"{'an' if option.kind.startswith(('i', 'un')) else 'a'} {option.kind}"
    low, high = option.minimum, option.maximum
    if low is not None and high is not None:
        text += f" from {_shown(low)} to {_shown(high)}"
    elif low is not None:
        text += f" of {_shown(low)} or more"
    elif high is not None:
        text += f" of {_shown(high)} or less"
    return text + (f", or one of: {_listed(option.choices)}" if option.choices else "")


def _shown(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def _unknown_word(text: str, option: PublishedOption, open_: bool) -> str | None:
    """Return the first undefined name in an expression; None if all are defined, or if that is unknown."""
    if open_ or "(" in text or text in option.choices:
        return None
    if any(not choice.isidentifier() and choice in text for choice in option.choices):
        return None
    known = _CONSTANTS.union(option.choices)
    words = (match[0] for match in _IDENTIFIER.finditer(text))
    return next((word for word in words if word not in known and word.lower() not in _STRTOD), None)


def _fault(value: Value, option: PublishedOption, open_: bool) -> str | None:
    """Return what is wrong with a value, as the end of "crf=64 "; None if FFmpeg may accept it."""
    text = str(value)
    if option.kind == "boolean":
        # Any int is accepted: FFmpeg does not list a boolean's range.
        fine = text.lower() in _BOOLEAN_WORDS or re.fullmatch(r"(\s*[+-]?\d+)?", text)
        return None if fine else "is not a boolean"
    if option.kind not in _NUMBERS and option.kind != "flags":
        return None
    if isinstance(value, bool):
        return "is not a number"
    unknown = _unknown_word(text, option, open_)
    if option.kind == "flags":
        return f"contains {unknown!r}, which is not a flag" if unknown else None
    if unknown is not None:
        return "is not one of its values" if option.choices else "is not a number"
    number = None if text in option.choices else _number(text)
    if number is None:
        return None
    if option.minimum is not None and number < option.minimum - _slack(option.minimum):
        return "is out of range"
    if option.maximum is not None and number > option.maximum + _slack(option.maximum):
        return "is out of range"
    if option.kind in _WHOLE and number.denominator != 1:
        return "is not a whole number (FFmpeg would round it)"
    return None


# Options of the ffmpeg program that set an option of all encoders.
_PROGRAM_SPELLINGS = {"q": "global_quality", "qscale": "global_quality"}


def _generic_name(name: str, program: PublishedOptions) -> str | None:
    """Return the generic encoder option that a name sets; None: no generic option."""
    if name in _PROGRAM_SPELLINGS:
        return _PROGRAM_SPELLINGS[name]
    # FFmpeg accepts -vg for the g of video streams.
    bare = name[1:] if name[:1] == "v" and name not in program.generic else name
    return bare if bare in program.generic else None


def _is_known(name: str, program: PublishedOptions) -> bool:
    # FFmpeg accepts -ag for the g of audio streams, and -nostats for the opposite of its switch -stats.
    return (
        name in program.names
        or (name[:1] in ("a", "s") and name[1:] in program.generic)
        or (name.startswith("no") and name[2:] in program.names)
    )


def _no_takers(_: str) -> list[str]:
    return []


def check_options(
    options: Mapping[str, Value],
    pix_fmt: str,
    encoder: PublishedEncoder,
    program: PublishedOptions,
    reads: Collection[str] | None = None,
    takers: Callable[[str], Sequence[str]] = _no_takers,
) -> None:
    """Check that an encoder has the options, and accepts their values.

    Args:
        options: the compiled encoder options, with stream specifiers.
        pix_fmt: pixel format that the encoder receives: for a hardware encoder with upload the device's
            (``vaapi``), not the one in memory.
        encoder: the encoder's options; one without name accepts everything.
        program: the program's options; without names, no option is unknown.
        reads: the generic options that this encoder reads; None: unknown, perhaps all.
        takers: returns the codecs whose encoders have an option, for the error.

    Raises:
        ConfigError: an option that is unknown, or that this encoder does not take; a value of another type
            or out of range; another pixel format.
    """
    if not encoder.options and not encoder.pixel_formats:
        return
    if encoder.pixel_formats and pix_fmt not in encoder.pixel_formats:
        # No similar format is suggested: for 12-bit gray that would be 8-bit gray.
        raise PixelFormatError(
            f"pix_fmt={pix_fmt!r} is not one {encoder.name} takes in this FFmpeg; "
            f"accepted: {_listed(encoder.pixel_formats)}"
        )
    for key, value in options.items():
        name = key.split(":", 1)[0]
        own = encoder.options.get(name)
        generic = _generic_name(name, program)
        if (
            program.names
            and own is None
            and (generic is None or (reads is not None and generic not in reads))
        ):
            if generic is None and not _is_known(name, program):
                near = _question(name, {*encoder.options, *program.generic}, program.names)
                raise ConfigError(f"extra option {name!r} is not known to FFmpeg{near}")
            others = takers(generic or name)
            raise ConfigError(
                f"extra option {name!r} ({key}={value}) is not one that {encoder.name} takes"
                + (f"; {', '.join(others)} {'do' if len(others) > 1 else 'does'}" if others else "")
            )
        option = own or program.generic.get(generic or name)
        if option is None:
            continue
        if fault := _fault(value, option, own is None and option.name in _OPEN):
            raise ConfigError(
                f"{key}={value!r} {fault}: {encoder.name} takes {_taken(option)}"
                + (_question(value, option.choices) if isinstance(value, str) else "")
            )
