"""The ``info`` block of a video feature in ``info.json``: fields of the stream and of its encoding."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ffenc.codecs.codec import Codec
from ffenc.codecs.files import check_from_dataset
from ffenc.codecs.options import merged_options, used_fields
from ffenc.codecs.table import CODECS, codec_for
from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.framerate import fps_number
from ffenc.dataset.model import Camera
from ffenc.errors import ConfigError
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.frames.depth import DepthQuantizer, Unit
from ffenc.frames.encoding import Encoding
from ffenc.frames.info_json import CORRECT, block_quantizer
from ffenc.layout import DEPTH_FIELDS, INFO, LEROBOTS_BACKEND
from ffenc.spelling import argument, call
from ffenc.version import VERSION


def stream_fields(info: StreamInfo) -> dict[str, Any]:
    """Return the fields that are read from the file, with LeRobot's names."""
    fields: dict[str, Any] = {
        "video.height": info.height,
        "video.width": info.width,
        "video.codec": info.codec,
        "video.pix_fmt": info.pix_fmt,
        "video.fps": fps_number(info.fps),
        "video.channels": info.channels,
        "has_audio": info.audio is not None,
    }
    if info.audio is not None:
        fields |= {
            "audio.channels": info.audio.channels,
            "audio.codec": info.audio.codec,
            "audio.bit_rate": info.audio.bit_rate,
            "audio.sample_rate": info.audio.sample_rate,
            "audio.bit_depth": info.audio.bit_depth,
            "audio.channel_layout": info.audio.channel_layout,
        }
    return fields


def kept_block(info: StreamInfo, block: Mapping[str, Any], depth: bool) -> dict[str, Any]:
    """Return the block of a camera whose packets were copied.

    Args:
        info: stream fields of the finished file.
        block: its block in the source; fields that can be read from the file are replaced.
        depth: whether it is a depth camera.
    """
    read = stream_fields(info)
    unknown = dict.fromkeys(ENCODER_FIELDS) | {
        "video.video_backend": LEROBOTS_BACKEND,
        "video.extra_options": {},
    }
    kept = {
        name: value
        for name, value in block.items()
        if name != "video.is_depth_map" and not name.startswith("audio.")
    }
    return {**unknown, **kept, **read, "is_depth_map": depth}


ENCODER_FIELDS = ("video.g", "video.crf", "video.preset", "video.fast_decode", "video.extra_options")


def encoder_fields(config: VideoEncoderConfig) -> dict[str, Any]:
    """Return the settings that the encoder used, with LeRobot's names."""
    used = used_fields(codec_for(config.vcodec), config)
    return {f"video.{name}": value for name, value in used.items()} | {
        "video.video_backend": config.video_backend
    }


def same_settings(codec: Codec, name: str, one: Any, other: Any) -> bool:
    """Return whether two values of an encoder field have the same effect.

    Args:
        codec: the encoder.
        name: one of ``ENCODER_FIELDS``.
        one, other: the values in two info blocks.
    """
    if name == "video.preset" and codec.presets is not None:
        one, other = codec.preset_name(one), codec.preset_name(other)
    unread = {
        "video.g": "g" in codec.fixed,
        "video.crf": not codec.has_crf,
        "video.preset": codec.preset_option is None,
        "video.fast_decode": not codec.has_fast_decode,
    }
    return bool(unread.get(name) or one == other)


def not_written(stream: StreamInfo, where: str | Path) -> ConfigError:
    """Return the error for a video that has to be encoded with its own settings, but cannot be.

    Args:
        stream: its stream fields.
        where: its file or camera.
    """
    other = call("reencode_dataset", source="SRC", destination="NEW")
    return ConfigError(
        f"holds {stream.codec} {stream.pix_fmt}, which ffenc does not write, and a part has to be encoded",
        where=where,
        fix=f"encode it with other settings first: {other} with {argument('camera_encoder.vcodec', 'h264')}, "
        "for example",
    )


def recorded_settings(
    stream: StreamInfo, block: Mapping[str, Any], depth: bool, where: str | Path
) -> VideoEncoderConfig:
    """Return the settings that a camera's video was encoded with, as far as its block contains them.

    Args:
        stream: stream fields of its first file.
        block: its ``info`` block.
        depth: whether it is a depth camera.
        where: its file or camera, for errors.

    Raises:
        SourceError: ``extra_options`` that a dataset may not set.
        ConfigError: a codec or pixel format that ffenc does not write.
    """
    if extra := block.get("video.extra_options"):
        check_from_dataset(extra, "meta/info.json: video.extra_options")
    encoder = block.get("video.encoder")
    vcodec = encoder.get("vcodec") if isinstance(encoder, Mapping) else None
    if not isinstance(vcodec, str) or vcodec not in CODECS or CODECS[vcodec].stream != stream.codec:
        rows = [row.name for row in CODECS.values() if row.stream == stream.codec and not row.hardware]
        if not rows:
            raise not_written(stream, where)
        vcodec = rows[0]
    model = DepthEncoderConfig if depth else VideoEncoderConfig
    settings: dict[str, Any] = {"vcodec": vcodec, "pix_fmt": stream.pix_fmt}
    try:
        model.in_force(settings)
    except ConfigError:
        raise not_written(stream, where) from None
    for name in ENCODER_FIELDS:
        if block.get(name) is not None:
            more = {**settings, name.removeprefix("video."): block[name]}
            with suppress(ConfigError):  # a value of another encoder, such as a hardware encoder's preset
                merged_options(CODECS[vcodec], model(**more))
                settings = more
    return model.in_force(settings)


def camera_quantizer(camera: Camera, info: StreamInfo, root: Path) -> DepthQuantizer | None:
    """Return the quantiser of a camera's depth codes; None if its video holds no codes.

    Args:
        camera: the camera.
        info: stream fields of the video.
        root: its dataset, for errors.

    Raises:
        SourceError: the camera's block has an invalid quantiser.

    Warns:
        FfencWarning: the block has no quantiser.
    """
    if info.pix_fmt != "gray12le":
        return None
    return block_quantizer(dict(camera.block), f"{root / INFO}: {camera.key}", CORRECT)


def depth_fields(config: VideoEncoderConfig, unit: Unit) -> dict[str, Any]:
    """Return a depth camera's fields with LeRobot's names, and ffenc's own ``video.invalid``.

    ffenc's own fields are stored in ``meta/ffenc.json`` (:mod:`ffenc.frames.info_json`).

    Millimetres that are stored without quantisation (``gray16le``) have no fields of a quantiser.
    """
    fields: dict[str, Any] = {"is_depth_map": True, "depth_unit": unit}
    if isinstance(config, DepthEncoderConfig) and config.pix_fmt != "gray16le":
        fields |= {f"video.{name}": getattr(config, name) for name in DEPTH_FIELDS}
    return fields


def info_block(info: StreamInfo, encoding: Encoding, unit: Unit | None = None) -> dict[str, Any]:
    """Return the complete block of a camera.

    Args:
        info: stream fields of the finished file.
        encoding: its encoding.
        unit: unit of a depth camera's source maps; None for a colour camera.

    ``video.encoder`` is ffenc's own field: the encoder, its versions, and why they were selected.
    ``video.codec`` only names the stream.
    """
    return {**stream_fields(info), **encoding_block(encoding, unit)}


def encoding_block(encoding: Encoding, unit: Unit | None = None) -> dict[str, Any]:
    """Return the fields of a camera's block that are not read from its file.

    Args:
        encoding: its encoding.
        unit: unit of a depth camera's source maps; None for a colour camera.
    """
    codec = codec_for(encoding.config.vcodec)
    why = "named" if encoding.toolchain.origin == "named" else "the first that ran these settings"
    return {
        **encoder_fields(encoding.config),
        **({"is_depth_map": False} if unit is None else depth_fields(encoding.config, unit)),
        **({"video.transform": encoding.transform.fields()} if encoding.transform is not None else {}),
        "video.encoder": {
            "vcodec": codec.name,
            "encoder": codec.encoder,
            "encoder_version": encoding.encoder_version,
            "ffmpeg_version": encoding.toolchain.version,
            "ffmpeg_from": encoding.toolchain.origin,
            "ffmpeg_chosen": why,
            "auto": encoding.auto,
            "passed_over": encoding.why(),
            "ffenc_version": VERSION,
        },
    }
