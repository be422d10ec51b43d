"""Encoder configs: LeRobot's fields, names and defaults."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from ffenc.codecs.codec import Value
from ffenc.codecs.files import check_from_dataset
from ffenc.codecs.options import check_extra_options, encoder_options, merged_options
from ffenc.codecs.pixel_formats import pixel_format
from ffenc.codecs.table import CODECS, check_vcodec, codec_for
from ffenc.config.validation import Settings
from ffenc.errors import ConfigError
from ffenc.layout import DEPTH_FIELDS

_MAX_CRF = 1000  # far above every codec's scale


class VideoEncoderConfig(Settings):
    """How one camera's frames are encoded. Constructing one needs no FFmpeg.

    Args:
        vcodec: ``libsvtav1`` (alias ``av1``), ``h264``, ``hevc``, ``libaom-av1``, ``ffv1``, a hardware
            encoder such as ``h264_nvenc``, or ``auto``: the first hardware encoder that can run here.
        pix_fmt: FFmpeg pixel format of the stored video.
        g: a key frame at least every ``g`` frames, 1 or more; None leaves it to the encoder.
        crf: quality, lower is better and larger; its scale is the codec's own. None: the encoder's default.
        preset: speed against size, a number or a name as the codec has it. None: 12 for ``libsvtav1``,
            else the encoder's default.
        fast_decode: 0 off; 1 or 2: the stream is made cheaper to decode, with a codec that can do that.
        video_backend: ``pyav``, kept for LeRobot's reader.
        extra_options: FFmpeg encoder options, merged last; one that the fields above have set is refused when
            the options are compiled.

    Raises:
        ConfigError: a wrong type, an unknown key or codec, or a value out of range.
    """

    vcodec: str = Field("libsvtav1", description="a codec name")
    pix_fmt: str = Field("yuv420p", description="an FFmpeg pixel format name")
    g: Annotated[int, Field(ge=1)] | None = Field(2, description="a whole number of 1 or more, or null")
    crf: int | float | None = Field(30, description="a number of 0 or more, or null")
    preset: int | str | None = Field(None, description="a whole number, a preset name, or null")
    fast_decode: Annotated[int, Field(ge=0, le=2)] = Field(0, description="a whole number: 0 off, 1 or 2 on")
    video_backend: Literal["pyav"] = Field("pyav", description="'pyav', the one LeRobot's reader accepts")
    extra_options: dict[str, Any] = Field(
        default_factory=dict, description="a mapping of FFmpeg option names to texts or numbers"
    )

    @field_validator("vcodec")
    @classmethod
    def _known_vcodec(cls, value: str) -> str:
        return check_vcodec(value)

    @field_validator("pix_fmt")
    @classmethod
    def _known_pix_fmt(cls, value: str) -> str:
        return pixel_format(value).name

    @field_validator("crf")
    @classmethod
    def _finite_crf(cls, value: int | float | None) -> int | float | None:
        if value is not None and not 0 <= value <= _MAX_CRF:
            raise ConfigError(f"{value!r} is not accepted", expected="a number of 0 or more, or null")
        return value

    @field_validator("extra_options")
    @classmethod
    def _plausible_options(cls, value: dict[str, Any]) -> dict[str, Any]:
        check_extra_options(value)
        return dict(value)

    @model_validator(mode="after")
    def _default_preset(self) -> Self:
        if self.preset is None and self.vcodec in CODECS:
            default = CODECS[self.vcodec].default_preset
            if default is not None:
                object.__setattr__(self, "preset", default)
        return self

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, validated again.

        A preset that was only the codec's default follows a change of codec.
        """
        values = {name: getattr(self, name) for name in self.model_fields_set} | changes
        return type(self)(**values)

    def resolve(self, encoder: str | None = None) -> Self:
        """Return the config with ``auto`` replaced by ``encoder``, the machine's answer; others unchanged.

        Raises:
            ConfigError: the codec is ``auto`` and no answer is given.
        """
        return self if self.vcodec != "auto" else self.replace(vcodec=codec_for("auto", encoder).name)

    def get_codec_options(
        self, encoder_threads: int | None = None, as_strings: bool = False
    ) -> dict[str, Value]:
        """Return the FFmpeg encoder options of this config.

        Args:
            encoder_threads: threads the encoder may use, 1 or more; None leaves it to the encoder.
            as_strings: return every value as text.

        Raises:
            ConfigError: a value this codec cannot take, a setting that would have no effect, such as an extra
                option that a field has set (the text names both values), or ``vcodec="auto"`` unresolved.
        """
        compiled = encoder_options(codec_for(self.vcodec), self, encoder_threads)
        return {key: str(value) if as_strings else value for key, value in compiled.items()}

    @classmethod
    def from_video_info(cls, info: Mapping[str, Any] | None) -> Self:
        """Rebuild a config from a feature's info block in ``info.json``.

        ``video.codec`` gives the codec (``av1`` means libsvtav1) unless ``video.encoder`` names a more
        exact one that writes it; ``null`` and ``{}`` mean the default.

        Args:
            info: the block, or None for the defaults.
        """
        return cls.in_force(cls._values_from_info(info or {}))

    @classmethod
    def in_force(cls, values: Mapping[str, Any]) -> Self:
        """Return settings that frames were encoded with before.

        What of them had no effect then is left out, where :meth:`get_codec_options` would refuse it.

        Args:
            values: the fields.

        Raises:
            ConfigError: as for the constructor.
        """
        values = dict(values)
        level = values.get("fast_decode")
        if type(level) is int:  # LeRobot limits it when it encodes
            values["fast_decode"] = max(0, min(2, level))
        config = cls(**values)
        with contextlib.suppress(ConfigError):  # of another encoder: a hardware encoder's preset
            merged = merged_options(codec_for(config.vcodec), config)
            values = {k: v for k, v in values.items() if k not in merged.unused or k == "crf"}
            if "extra_options" in values:
                values["extra_options"] = merged.extras
            config = cls(**values)
            if "crf" in merged.unused:
                config.model_fields_set.discard("crf")
        return config

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


class DepthEncoderConfig(VideoEncoderConfig):
    """How one depth camera's frames are quantised and encoded. Depths are in metres.

    By default ``extra_options`` are those that make ``hevc``, ``libaom-av1`` and ``ffv1`` lossless.

    Args:
        depth_min, depth_max: the range that is stored, in metres.
        shift: added before the logarithm, in metres.
        use_log: quantise the logarithm of depth (finer near, coarser far) instead of depth itself.
        invalid: what becomes of pixels without depth (0, NaN). ``keep``: they have code 0 for themselves and
            come back as 0. ``clip``: LeRobot's codes to the last one; they come back as ``depth_min``.
            LeRobot reads ``depth_min`` for them in either. By default ``keep``, or ``clip`` where
            ``depth_min`` is below 0, so that 0 is a depth.

    Raises:
        ConfigError: as for :class:`VideoEncoderConfig`, or an empty range, a logarithm of nothing, or
            ``keep`` with a ``depth_min`` below 0.
    """

    vcodec: str = Field("hevc", description="a codec name")
    pix_fmt: str = Field("gray12le", description="an FFmpeg pixel format name")
    extra_options: dict[str, Any] = Field(
        default_factory=lambda: {"x265-params": "lossless=1"},
        description="a mapping of FFmpeg option names to texts or numbers",
    )
    depth_min: Annotated[float, Field(allow_inf_nan=False)] = Field(
        0.01, description="a finite number of metres"
    )
    depth_max: Annotated[float, Field(allow_inf_nan=False)] = Field(
        10.0, description="a finite number of metres"
    )
    shift: Annotated[float, Field(allow_inf_nan=False)] = Field(3.5, description="a finite number of metres")
    use_log: bool = Field(True, description="true or false")
    invalid: Literal["keep", "clip"] = Field("keep", description="'keep' or 'clip'")

    @model_validator(mode="after")
    def _lossless_by_default(self) -> Self:
        if "extra_options" not in self.model_fields_set and self.vcodec in CODECS:
            object.__setattr__(self, "extra_options", dict(CODECS[self.vcodec].lossless_extras or {}))
        return self

    @model_validator(mode="after")
    def _range(self) -> Self:
        if not self.depth_min < self.depth_max:
            raise ConfigError(f"depth_min={self.depth_min} must be below depth_max={self.depth_max}")
        if self.use_log and not self.depth_min + self.shift > 0:
            raise ConfigError(
                f"depth_min={self.depth_min} + shift={self.shift} must be above 0 with use_log: true"
            )
        if self.depth_min < 0 and self.invalid == "keep":
            if "invalid" in self.model_fields_set:
                raise ConfigError(f"depth_min={self.depth_min} must be 0 or more with invalid: keep")
            object.__setattr__(self, "invalid", "clip")
        return self

    @classmethod
    def _values_from_info(cls, info: Mapping[str, Any]) -> dict[str, Any]:
        values = super()._values_from_info(info)
        for key in DEPTH_FIELDS:
            if info.get(f"video.{key}") is not None:
                values[key] = info[f"video.{key}"]
        return values
