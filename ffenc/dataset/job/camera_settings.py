"""Settings of each camera in a re-encode: how it is encoded, or that it is copied."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from ffenc.codecs.pixel_formats import pixel_format
from ffenc.codecs.table import codec_for
from ffenc.compiler.command import check_size
from ffenc.config.encoder import VideoEncoderConfig
from ffenc.config.plain_yaml import KeyPath
from ffenc.config.preset import camera_name
from ffenc.config.transform import Transform
from ffenc.dataset.info_block import (
    ENCODER_FIELDS,
    camera_quantizer,
    encoder_fields,
    not_written,
    recorded_settings,
    same_settings,
)
from ffenc.dataset.job.pieces import uncopied
from ffenc.dataset.job.plan import Stream
from ffenc.dataset.model import Camera, EpisodeRef
from ffenc.dataset.source import DatasetSource
from ffenc.dataset.videos import clip_of
from ffenc.errors import ConfigError, FfencWarning
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.clip import Clip
from ffenc.frames.depth import DepthQuantizer
from ffenc.frames.encode import prepare_images
from ffenc.frames.encoding import Encoding
from ffenc.frames.header import ImageHeader
from ffenc.frames.prepare import Absent
from ffenc.frames.prepare_clip import check_crop, depth_config, prepare_clip
from ffenc.layout import DEPTH_FIELDS
from ffenc.spelling import argument


def changed_settings(overrides: Sequence[tuple[KeyPath, Any]], camera: Camera) -> dict[str, Any]:
    """Return the overrides of encoder settings that apply to a camera."""
    groups = [
        ("depth_encoder" if camera.depth else "camera_encoder",),
        ("cameras", camera_name(camera.key), "encoder"),
    ]
    # Overrides of a single camera take precedence, as in a preset.
    return {key[-1]: value for group in groups for key, value in overrides if key[:-1] == group}


def own_settings(camera: Camera, changes: Mapping[str, Any]) -> VideoEncoderConfig | None:
    """Return the settings of a camera's video with changes.

    Returns:
        The settings; None if nothing is to be changed and ffenc cannot encode with them.

    Raises:
        ConfigError: ffenc cannot encode with the settings of which some are to be changed.
    """
    assert isinstance(camera.stored, StreamInfo)
    try:
        config = recorded_settings(camera.stored, camera.block, camera.depth, camera.key)
    except ConfigError:
        if changes:
            raise
        return None
    return config.changed(changes) if changes else config


class Chooser:
    """Selects and tries encoders; equal cameras are tried once."""

    def __init__(self, source: DatasetSource, candidates: Sequence[Toolchain], threads: int | None) -> None:
        self.source = source
        self._candidates, self._threads = candidates, threads
        self._prepared: dict[str, Encoding] = {}
        self._absent: Absent = {}

    def check_size(
        self,
        camera: Camera,
        config: VideoEncoderConfig,
        transform: Transform | None,
        clip: Clip | None = None,
    ) -> None:
        """Check the size of a camera's frames, those of a clip if it has video, with advice for it only."""
        size = camera.stored.width, camera.stored.height
        name = camera_name(camera.key) if len(self.source.cameras) > 1 else None
        if transform is not None:
            if clip is not None:
                check_crop(clip, transform.of(*size), name)
            size = transform.size(*size)
        check_size(config, *size, transform, name)

    def for_images(
        self,
        camera: Camera,
        config: VideoEncoderConfig,
        episode: EpisodeRef,
        transform: Transform | None = None,
    ) -> Encoding:
        """Return the encoding of an image camera."""
        self.check_size(camera, config, transform)
        header = camera.header
        same = json.dumps([repr(config), str(transform), str(header), header.order])
        if same not in self._prepared:
            frames = self.source.frames(camera.key, episode)
            self._prepared[same] = prepare_images(
                frames,
                header,
                config,
                fps=self.source.fps,
                unit=camera.unit,
                encoder_threads=self._threads,
                candidates=self._candidates,
                absent=self._absent,
                transform=transform,
            )
        return self._prepared[same]

    def for_clip(
        self,
        clip: Clip,
        config: VideoEncoderConfig,
        others: Sequence[Clip] = (),
        transform: Transform | None = None,
    ) -> Encoding:
        """Return the encoding of a video camera, with a program that decodes it and the others."""
        info = clip.info
        kinds = [(one.info.codec, one.info.pix_fmt) for one in (clip, *others)]
        same = json.dumps([repr(config), str(transform), info.width, info.height, *kinds])
        if same not in self._prepared:
            self._prepared[same] = prepare_clip(
                clip,
                config,
                self.source.fps,
                candidates=self._candidates,
                others=others,
                encoder_threads=self._threads,
                absent=self._absent,
                transform=transform,
            )
        return self._prepared[same]


def changing(transform: Transform | None, camera: Camera) -> Transform | None:
    """Return a transform if it changes a camera's frames, otherwise None.

    Raises:
        ConfigError: it cannot be applied to frames of their size.
    """
    if transform is None or not transform.of(camera.stored.width, camera.stored.height).changes:
        return None
    return transform


def check_changing(asked: Mapping[str, Transform | None], changed: Collection[str]) -> None:
    """Refuse transforms if none of them changes a camera.

    Args:
        asked: camera -> requested transform.
        changed: cameras whose frames are changed.

    Raises:
        ConfigError: transforms are requested, but all frames would stay unchanged.
    """
    named = {key: transform for key, transform in asked.items() if transform is not None}
    if named and not changed:
        key, transform = next(iter(named.items()))
        raise ConfigError(
            f"{transform}: would have no effect, {camera_name(key)} already is like that; leave it out"
        )


def check_threads(encoder_threads: int | None, streams: Sequence[Stream]) -> None:
    """Refuse a number of threads of encoders if no camera is encoded; None: it was not passed.

    Raises:
        ConfigError: it would have no effect.
    """
    if encoder_threads is not None and not any(stream.encoding for stream in streams):
        raise ConfigError(
            f"{argument('encoder_threads')} would have no effect: all cameras are copied, nothing is encoded"
        )


def video_stream(
    chooser: Chooser,
    camera: Camera,
    config: VideoEncoderConfig | None,
    episodes: Sequence[EpisodeRef],
    *,
    compute_stats: bool,
    source_bytes: int,
    force: bool,
    asked: Collection[str],
    keep: bool,
    transform: Transform | None = None,
) -> Stream:
    """Plan a video camera: copied if it already has the requested settings, otherwise re-encoded.

    Args:
        chooser: selects the encoder.
        camera: the camera.
        config: the requested settings, or its own; None if ffenc cannot encode with these.
        episodes: the selected episodes.
        compute_stats, source_bytes: for :class:`Stream`.
        force: always re-encode.
        asked: names of settings that were given as overrides, not in a preset.
        keep: no settings are requested: the camera is copied, except for episodes that cannot be cut out.
        transform: transform of its frames; with one, the camera is always re-encoded.

    Raises:
        ConfigError: depth would be changed, or episodes that cannot be copied cannot be encoded with the
            camera's own settings.
    """
    odd = [episode for episode in episodes if episode.index in camera.odd]
    usual = next((episode for episode in episodes if episode.index not in camera.odd), episodes[0])
    # The task that copies or encodes an episode compares its file with the checksum.
    clip = clip_of(chooser.source.video(camera.key, usual), chooser.source.fps, compare=False)
    if transform is not None or clip.pick is not None:
        force, compute_stats = True, True
    quantizer = camera_quantizer(camera, clip.info, chooser.source.root)
    all_copied = Stream(
        camera,
        None,
        compute_stats,
        source_bytes,
        frozenset(episode.index for episode in episodes),
        quantizer,
        camera.block,
        why="no settings were given, so it keeps its own" if keep else "it has these settings already",
    )
    reasons: dict[int, str] = {}
    if keep and not force:
        reasons = _not_copied(chooser.source, camera, episodes)
        if not reasons:
            return all_copied
    if config is None:
        raise not_written(clip.info, clip.path)
    if camera.depth and not clip.depth:
        if force or odd or reasons or not _matches(config, camera):
            raise ConfigError(
                f"{clip.path} holds depth as {clip.info.pix_fmt}, which has lost its codes' lower "
                f"bits: encoding it again would lose more. Leave the camera out with {argument('cameras')}"
            )
        return all_copied
    if clip.depth:
        config = _with_its_quantizer(config, clip, quantizer, asked)
    same = keep or (config.vcodec != "auto" and _matches(config, camera))
    if same and not force and not keep:
        reasons = _not_copied(chooser.source, camera, episodes)
        if not reasons:
            return all_copied
    others = [
        clip_of(chooser.source.video(camera.key, episode), chooser.source.fps, compare=False)
        for episode in odd[:1]
    ]
    chooser.check_size(camera, config, transform, clip)
    encoding = chooser.for_clip(clip, config, others, transform)
    if config.vcodec == "auto" and not force and _matches(encoding.config, camera):
        same, reasons = True, _not_copied(chooser.source, camera, episodes)
        if not reasons:
            return all_copied
    if force or not same:
        why = _why_forced(clip, transform) if force else f"asked for: {_asked_for(encoding.config, camera)}"
        return Stream(camera, encoding, compute_stats, source_bytes, quantizer=quantizer, why=why)
    number, reason = next(iter(reasons.items()))
    more = f", and {len(reasons) - 1} more episodes likewise" if len(reasons) > 1 else ""
    warnings.warn(
        f"{camera.key}: episode {number} is re-encoded, not copied: {reason}{more}",
        FfencWarning,
        stacklevel=4,
    )
    return replace(all_copied, encoding=encoding, copied=all_copied.copied - reasons.keys(), uncopied=reasons)


def _with_its_quantizer(
    config: VideoEncoderConfig, clip: Clip, quantizer: DepthQuantizer | None, asked: Collection[str]
) -> VideoEncoderConfig:
    """Return the settings with the quantiser of the stored depth, whose samples are kept.

    Raises:
        ConfigError: another quantiser was requested, or a pixel format that changes the samples.
    """
    settings = depth_config(config, clip, quantizer)
    for name in DEPTH_FIELDS:
        if name in asked and getattr(settings, name) != getattr(config, name):
            raise ConfigError(
                f"{name}={getattr(config, name)} was asked for, but its depth is quantised with "
                f"{name}={getattr(settings, name)}, and codes are kept as they are; leave it out"
            )
    return settings


def _why_forced(clip: Clip, transform: Transform | None) -> str:
    """Return why a camera is encoded that could be copied."""
    rate = [f"{float(clip.pick.new):g} of {float(clip.pick.old):g} fps"] if clip.pick is not None else []
    changed = [*rate, *([str(transform)] if transform is not None else [])]
    return ", ".join(changed) or "encoding was requested"


def _not_copied(source: DatasetSource, camera: Camera, episodes: Sequence[EpisodeRef]) -> dict[int, str]:
    """Return index -> reason for the episodes whose packets cannot be copied with the others."""
    alike = [episode for episode in episodes if episode.index not in camera.odd]
    reasons = uncopied(source, camera.key, alike)
    for index in camera.odd & {episode.index for episode in episodes}:
        reasons[index] = "its codec or pixel format differs from most"
    return dict(sorted(reasons.items()))


def _asked_for(config: VideoEncoderConfig, camera: Camera) -> str:
    """Return the requested settings that differ from those of a camera's video."""
    assert isinstance(camera.stored, StreamInfo)
    codec, stream = codec_for(config.vcodec), camera.stored
    stored = pixel_format(config.pix_fmt).stored
    pairs: list[tuple[str, Any, Any]] = [
        ("codec", stream.codec, codec.stream),
        ("pix_fmt", stream.pix_fmt, stored),
    ]
    wanted = encoder_fields(config)
    for name in ENCODER_FIELDS:
        was = camera.block.get(name)
        if name not in camera.block or not same_settings(codec, name, was, wanted[name]):
            pairs.append((name.removeprefix("video."), was, wanted[name]))
    changes = [f"{name} {new} (it has {old})" for name, old, new in pairs if old != new]
    return ", ".join(changes) or f"the encoder {codec.encoder}"


def _matches(config: VideoEncoderConfig, camera: Camera) -> bool:
    """Return whether a camera's video has these settings, as far as its block contains them."""
    codec = codec_for(config.vcodec)
    stream, block = camera.stored, camera.block
    if isinstance(stream, ImageHeader):
        return False
    if (stream.codec, stream.pix_fmt) != (codec.stream, pixel_format(config.pix_fmt).stored):
        return False
    encoder = block.get("video.encoder")
    if isinstance(encoder, Mapping) and encoder.get("vcodec") != codec.name:
        return False
    wanted = encoder_fields(config)
    # A setting that the dataset does not contain may have been different.
    return all(
        name in block and same_settings(codec, name, block[name], wanted[name]) for name in ENCODER_FIELDS
    )
