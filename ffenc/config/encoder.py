"""Encoder configs: LeRobot's fields, names and defaults."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, field
from msgspec.structs import force_setattr

from ffenc.codecs.codec import Value
from ffenc.codecs.files import check_from_dataset
from ffenc.codecs.options import check_extra_options, encoder_options, merged_options
from ffenc.codecs.pixel_formats import pixel_format
from ffenc.codecs.table import CODECS, check_vcodec, codec_for
from ffenc.config.validation import Finite, Flag, Settings, accepts
from ffenc.errors import ConfigError
from ffenc.layout import DEPTH_FIELDS

if TYPE_CHECKING:
    from typing_extensions import Self

_CRF = Meta(ge=0, le=1000)  # far above the scales of all codecs
# Fields whose values are kept, marked as not given, if they have no effect: they are not compiled then.
_UNREAD = frozenset(("crf", "g", "shift"))
_OPTIONS = "a mapping of FFmpeg option names to texts or numbers"


def _pixel_format(name: str) -> str:
    return pixel_format(name).name


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    check_extra_options(options)
    return dict(options)


class VideoEncoderConfig(Settings, frozen=True, kw_only=True):
    """Encoder settings of a camera: LeRobot's fields, names and defaults. Constructing needs no FFmpeg.

    Args:
        vcodec: ``libsvtav1`` (alias ``av1``), ``h264``, ``hevc``, ``libaom-av1``, ``ffv1``, a hardware
            encoder such as ``h264_nvenc``, or ``auto``: the first hardware encoder that can run on this
            machine.
        pix_fmt: FFmpeg pixel format of the stored video.
        g: greatest distance between key frames, in frames, 1 or more. None: the encoder's default.
        crf: quality on the codec's own scale; a lower value is better and gives a larger file. None: the
            encoder's default.
        preset: speed against size, a number or name of the codec. None: 12 for ``libsvtav1``, otherwise the
            encoder's default.
        fast_decode: 0: off; 1 or 2: make the stream cheaper to decode, if the codec supports this.
        video_backend: ``pyav``, kept for LeRobot's reader.
        extra_options: FFmpeg encoder options, merged last. An option that the fields above have set is
            refused when the options are compiled.

    Raises:
        ConfigError: a wrong type, an unknown key or codec, or a value out of range.

    Example:
        >>> VideoEncoderConfig(vcodec="h264", crf=23).get_codec_options()
        {'g': 2, 'crf': 23}
    """

    vcodec: Annotated[str, accepts("a codec name")] = "libsvtav1"
    pix_fmt: Annotated[str, accepts("an FFmpeg pixel format name")] = "yuv420p"
    g: Annotated[Annotated[int, Meta(ge=1)] | None, accepts("a whole number of 1 or more, or null")] = 2
    crf: Annotated[
        Annotated[int, _CRF] | Annotated[float, _CRF] | None,
        accepts("a number of 0 or more, or null"),
    ] = 30
    preset: Annotated[int | str | None, accepts("a whole number, a preset name, or null")] = None
    fast_decode: Annotated[int, accepts("a whole number: 0 off, 1 or 2 on", ge=0, le=2)] = 0
    video_backend: Annotated[Literal["pyav"], accepts("'pyav', the one LeRobot's reader accepts")] = "pyav"
    extra_options: Annotated[dict[str, Any], accepts(_OPTIONS)] = field(default_factory=dict)

    def _check(self) -> None:
        checks: dict[str, Callable[[Any], Any]] = {
            "vcodec": check_vcodec,
            "pix_fmt": _pixel_format,
            "extra_options": _options,
        }
        for name, read in checks.items():
            force_setattr(self, name, self._checked(name, read))
        if self.preset is None and self.vcodec in CODECS:
            force_setattr(self, "preset", CODECS[self.vcodec].default_preset)

    def resolve(self, encoder: str | None = None) -> Self:
        """Return the config with ``auto`` replaced by ``encoder``; other configs are returned unchanged.

        Raises:
            ConfigError: the codec is ``auto`` and ``encoder`` is None.
        """
        return self if self.vcodec != "auto" else self.replace(vcodec=codec_for("auto", encoder).name)

    def get_codec_options(
        self, encoder_threads: int | None = None, as_strings: bool = False
    ) -> dict[str, Value]:
        """Return the FFmpeg encoder options of this config.

        Args:
            encoder_threads: number of threads of the encoder, 1 or more; None: the encoder's default.
            as_strings: return all values as text.

        Returns:
            Option name -> value, in the order they are set.

        Raises:
            ConfigError: a value that this codec does not accept, ``vcodec="auto"`` that is not resolved, or a
                setting without effect, such as an extra option that a field has set (the text names both
                values).
        """
        compiled = encoder_options(codec_for(self.vcodec), self, encoder_threads)
        return {key: str(value) if as_strings else value for key, value in compiled.items()}

    @classmethod
    def from_video_info(cls, info: Mapping[str, Any] | None) -> Self:
        """Return the config of a feature's info block in ``info.json``.

        ``video.encoder`` gives the codec if it writes the codec of ``video.codec``, which is used otherwise
        (``av1`` means libsvtav1). ``null`` and ``{}`` mean the default.

        Args:
            info: the block, or None for the defaults.
        """
        return cls.in_force(cls._values_from_info(info or {}))

    @classmethod
    def in_force(cls, values: Mapping[str, Any]) -> Self:
        """Return settings that existing frames were encoded with.

        Settings that had no effect are left out; :meth:`get_codec_options` would refuse them.

        Args:
            values: the fields.

        Raises:
            ConfigError: as for the constructor.
        """
        values = dict(values)
        level = values.get("fast_decode")
        if type(level) is int:  # LeRobot limits it too when it encodes
            values["fast_decode"] = max(0, min(2, level))
        config = cls(**values)
        try:
            merged = merged_options(codec_for(config.vcodec), config)
        except ConfigError:  # a preset of another encoder, such as a hardware encoder's
            return config
        used = {"extra_options": merged.extras} if "extra_options" in values else {}
        return config._without(merged.unused, used)

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Return a validated copy with some fields changed by the user.

        Fields that have no effect with a changed codec are left out, unless the user changed them too;
        :meth:`get_codec_options` would refuse them.
        """
        config = self.replace(**changes)
        return config.fitted(changes) if "vcodec" in changes else config

    def fitted(self, kept: Collection[str]) -> Self:
        """Return the settings without the fields that have no effect, except some."""
        try:
            unused = merged_options(codec_for(self.vcodec), self).unused
        except ConfigError:  # refused when the options are compiled
            return self
        return self._without(unused.keys() - set(kept))

    def _without(self, names: Collection[str], changes: Mapping[str, Any] | None = None) -> Self:
        left = {name for name in self.given if name not in names}
        values = {name: getattr(self, name) for name in left | (self.given & _UNREAD)}
        return type(self)(**values | dict(changes or {})).as_given(frozenset(left))

    @property
    def without_effect(self) -> Mapping[str, str]:
        """Fields without effect with any codec -> one sentence."""
        return {}

    @classmethod
    def _values_from_info(cls, info: Mapping[str, Any]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        stream = info.get("video.codec")
        if stream is not None:
            values["vcodec"] = stream
            encoder = info.get("video.encoder")
            exact = encoder.get("vcodec") if isinstance(encoder, Mapping) else None
            if isinstance(exact, str) and exact in CODECS and CODECS[exact].stream == stream:
                values["vcodec"] = exact
        for key in ("pix_fmt", "g", "crf", "preset", "fast_decode"):
            if info.get(f"video.{key}") not in (None, {}):
                values[key] = info[f"video.{key}"]
        if extra := info.get("video.extra_options"):
            values["extra_options"] = check_from_dataset(extra, "video.extra_options")
        return values


class DepthEncoderConfig(VideoEncoderConfig, frozen=True, kw_only=True):
    """Quantiser and encoder settings of a depth camera.

    By default ``extra_options`` are those that make ``hevc``, ``libaom-av1`` and ``ffv1`` lossless.

    Args:
        depth_min, depth_max: stored range, in metres.
        shift: offset added before the logarithm, in metres.
        use_log: quantise the logarithm of depth (finer near, coarser far) instead of depth itself.
        invalid: how pixels without depth (0, NaN) are stored. ``keep``: as code 0, which no depth has; they
            are read as 0. ``clip``: with LeRobot's codes, bit for bit; they are read as ``depth_min``.
            LeRobot reads them as ``depth_min`` in both cases. Default: ``keep``, or ``clip`` if ``depth_min``
            is below 0, so that 0 is a depth.

    Raises:
        ConfigError: as for :class:`VideoEncoderConfig`, or an empty range, a logarithm of a number that is
            not positive, or ``keep`` with a ``depth_min`` below 0.
    """

    vcodec: Annotated[str, accepts("a codec name")] = "hevc"
    pix_fmt: Annotated[str, accepts("an FFmpeg pixel format name")] = "gray12le"
    extra_options: Annotated[dict[str, Any], accepts(_OPTIONS)] = field(
        default_factory=lambda: {"x265-params": "lossless=1"}
    )
    depth_min: Annotated[Finite, accepts("a finite number of metres")] = 0.01
    depth_max: Annotated[Finite, accepts("a finite number of metres")] = 10.0
    shift: Annotated[Finite, accepts("a finite number of metres")] = 3.5
    use_log: Flag = True
    invalid: Annotated[Literal["keep", "clip"], accepts("'keep' or 'clip'")] = "keep"

    def _check(self) -> None:
        super()._check()
        if "extra_options" not in self.given and self.vcodec in CODECS:
            force_setattr(self, "extra_options", dict(CODECS[self.vcodec].lossless_extras or {}))
        if not self.depth_min < self.depth_max:
            raise ConfigError(f"depth_min={self.depth_min} must be below depth_max={self.depth_max}")
        if self.use_log and not self.depth_min + self.shift > 0:
            raise ConfigError(
                f"depth_min={self.depth_min} + shift={self.shift} must be above 0 with use_log: true"
            )
        if self.depth_min < 0 and self.invalid == "keep":
            if "invalid" in self.given:
                raise ConfigError(f"depth_min={self.depth_min} must be 0 or more with invalid: keep")
            force_setattr(self, "invalid", "clip")

    @property
    def without_effect(self) -> Mapping[str, str]:
        if self.use_log or "shift" not in self.given:
            return {}
        return {
            "shift": f"shift={self.shift} would have no effect, it is added before the logarithm, "
            "and use_log is false; leave shift out"
        }

    @classmethod
    def _values_from_info(cls, info: Mapping[str, Any]) -> dict[str, Any]:
        values = super()._values_from_info(info)
        for key in DEPTH_FIELDS:
            if info.get(f"video.{key}") is not None:
                values[key] = info[f"video.{key}"]
        return values
