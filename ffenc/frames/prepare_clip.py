"""Selection of settings and program for a video that is re-encoded, by trial with its first frames."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Sequence
from fractions import Fraction
from functools import partial

import numpy as np

from ffenc.codecs.pixel_formats import PIXEL_FORMATS, pixel_format
from ffenc.compiler.colour import is_bt601
from ffenc.compiler.decode import compile_decode
from ffenc.compiler.frames import raw_format
from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.transform import Geometry, Transform
from ffenc.errors import (
    ConfigError,
    FfencError,
    FfencWarning,
    FfmpegError,
    ToolchainError,
)
from ffenc.ffmpeg.process import run_fed
from ffenc.ffmpeg.toolchain import Toolchain, how_to_get
from ffenc.frames.clip import Clip
from ffenc.frames.depth import DepthQuantizer
from ffenc.frames.depth_images import changed
from ffenc.frames.encoding import Encoding
from ffenc.frames.prepare import Absent, prepare
from ffenc.frames.transcode import DAMAGE_SHOWS, read_through
from ffenc.layout import DEPTH_FIELDS
from ffenc.spelling import argument

_TRIAL_FRAMES = 2


def depth_config(
    config: VideoEncoderConfig, clip: Clip, quantizer: DepthQuantizer | None
) -> DepthEncoderConfig:
    """Return the settings for depth that is already quantised: with its own quantiser.

    Args:
        config: the requested settings.
        clip: the depth.
        quantizer: quantiser of the depth; None for millimetres (``gray16le``).

    Raises:
        ConfigError: the settings are not for depth, or have another pixel format than the depth.
    """
    if not isinstance(config, DepthEncoderConfig):
        raise ConfigError(f"{clip.path} contains depth: pass a depth camera's settings (DepthEncoderConfig)")
    if config.pix_fmt != clip.info.pix_fmt:
        raise ConfigError(
            f"{clip.path} contains depth as {clip.info.pix_fmt}, which is kept: pix_fmt={config.pix_fmt!r} "
            f"would change it. Pass {argument('depth_encoder.pix_fmt', clip.info.pix_fmt)}"
            + (f" {argument('depth_encoder.vcodec', 'ffv1')}" if clip.info.pix_fmt == "gray16le" else "")
        )
    if quantizer is None:
        return config
    kept = config.replace(**{name: getattr(quantizer, name) for name in DEPTH_FIELDS})
    return kept.fitted(config.given)  # the depth may have been quantised with a shift without effect


def _trial_frames(clip: Clip, candidates: Sequence[Toolchain]) -> tuple[list[Toolchain], list[bytes]]:
    """Decode the first frames with every program, to determine which of them can.

    Returns:
        The programs that can decode it, and the raw frames: rgb24, or the depth's own format.

    Raises:
        SourceError: a frame is damaged.
        ToolchainError: no program here can decode them.
    """
    able: list[Toolchain] = []
    frames: list[bytes] = []
    faults: list[str] = []
    for toolchain in candidates:
        try:
            shown = _shown(clip.part(0, min(_TRIAL_FRAMES, clip.frames)), toolchain)
        except FfmpegError as error:
            if error.unable:
                raise
            # Damage is an error: another program may conceal what this one finds.
            with contextlib.suppress(ToolchainError):  # it lacks the decoder
                read_through(clip.part(0, min(DAMAGE_SHOWS, clip.frames)), toolchain)
            faults.append(f"  {toolchain}: {error.cause}")
            continue
        able.append(toolchain)
        size = clip.info.width * clip.info.height * (2 if clip.depth else 3)
        frames = frames or [shown[at : at + size] for at in range(0, len(shown), size)]
    if not able:
        reasons = "\n".join(faults)
        raise ToolchainError(
            f"{clip.path}: frame {clip.first} is damaged, or {clip.info.codec} cannot be decoded here:\n"
            f"{reasons}\n{how_to_get()}"
        )
    return able, frames


def _shown(clip: Clip, toolchain: Toolchain) -> bytes:
    """Decode a clip to rgb24, or to the depth's own format."""
    *first, last = clip.inputs()
    for wanted in (*first, last):
        shown = bytearray()
        command = compile_decode(
            wanted.path,
            pix_fmt=clip.info.pix_fmt if clip.depth else "rgb24",
            conversion=wanted.conversion,
            excerpt=wanted.excerpt,
            program=toolchain.ffmpeg,
        )
        try:
            run_fed(command, [], on_output=shown.extend)
        except FfmpegError as error:
            if error.unable or wanted is last:
                raise
        else:
            break
    return bytes(shown)


def prepare_clip(
    clip: Clip,
    config: VideoEncoderConfig,
    fps: Fraction,
    *,
    candidates: Sequence[Toolchain],
    others: Sequence[Clip] = (),
    encoder_threads: int | None = None,
    absent: Absent | None = None,
    transform: Transform | None = None,
) -> Encoding:
    """Select the programs and the encoder for a clip; they have to decode it too.

    Args:
        others: clips that are encoded in the same way, which the program has to decode as well.

    The other arguments and the errors are those of :func:`ffenc.frames.prepare.prepare`. A ToolchainError or
    SourceError is also raised if no program decodes the first frames.
    """
    prepared = partial(
        _prepared,
        *(clip, others, config, fps),
        encoder_threads=encoder_threads,
        absent=absent,
        transform=transform,
    )
    # The first program nearly always succeeds, and each attempt takes time. With `auto`, hardware that runs
    # with a later program precedes software with the first.
    if config.vcodec != "auto" and len(candidates) > 1:
        try:
            encoding = prepared(candidates[:1])
        except FfmpegError as error:
            if error.unable:
                raise
        except FfencError:
            pass
        else:
            _warn_of_colours(clip, config)
            return encoding
    _warn_of_colours(clip, config)
    return prepared(candidates)


def _prepared(
    clip: Clip,
    others: Sequence[Clip],
    config: VideoEncoderConfig,
    fps: Fraction,
    candidates: Sequence[Toolchain],
    *,
    encoder_threads: int | None,
    absent: Absent | None,
    transform: Transform | None,
) -> Encoding:
    able = candidates
    for other in others:
        able, _ = _trial_frames(other, able)
    able, frames = _trial_frames(clip, able)
    if transform is not None:
        geometry = transform.of(clip.info.width, clip.info.height)
        check_crop(clip, geometry)
        if clip.depth:
            shape = clip.info.height, clip.info.width
            frames = [
                changed(np.frombuffer(frame, "<u2").reshape(shape), geometry).tobytes() for frame in frames
            ]
    return prepare(
        config,
        frames,
        width=clip.info.width,
        height=clip.info.height,
        fps=fps,
        frames=raw_format(config) if clip.depth else "rgb24",
        encoder_threads=encoder_threads,
        candidates=able,
        absent=absent,
        stored=None if clip.depth else _stored_as(clip.info.pix_fmt),
        transform=transform,
    )


def _warn_of_colours(clip: Clip, config: VideoEncoderConfig) -> None:
    """Warn if the colours change for readers that ignore tags."""
    full_range = clip.info.color_range == "pc" or clip.info.pix_fmt.startswith("yuvj")
    if full_range and not clip.depth and not pixel_format(config.pix_fmt).rgb:
        warnings.warn(
            f"{clip.path}: its full range (0 to 255) is converted to limited range (16 to 235), "
            "which readers assume; colours stay the same within one level",
            FfencWarning,
            stacklevel=3,
        )
    space = clip.info.color_space
    if not clip.depth and pixel_format(config.pix_fmt).rgb and not is_bt601(space):
        warnings.warn(
            f"{clip.path}: its colours, {space}, become RGB in {config.pix_fmt}. A reader that ignores "
            "colour tags, as LeRobot's does, will show other colours than for this file",
            FfencWarning,
            stacklevel=3,
        )


def check_crop(clip: Clip, geometry: Geometry, camera: str | None = None) -> None:
    """Refuse a crop that would cut through subsampled chroma.

    Args:
        clip: the frames.
        geometry: what is done with them.
        camera: name of the camera, if there are others, whose frames the advice must not change.

    Raises:
        ConfigError: its position or size is odd.
    """
    fmt = PIXEL_FORMATS.get(clip.info.pix_fmt)
    if geometry.crop is None or clip.depth or fmt is None:
        return
    x, y, width, height = geometry.crop
    if x % fmt.x_step or width % fmt.x_step or y % fmt.y_step or height % fmt.y_step:
        even = [number - number % 2 for number in geometry.crop]
        crop = argument("crop", f"{even[2]}x{even[3]}+{even[0]}+{even[1]}", camera=camera)
        raise ConfigError(
            f"crop {width}x{height}+{x}+{y} cuts through the chroma of {clip.info.pix_fmt}, which "
            f"has half the resolution: use even numbers, such as {crop}"
        )


def _stored_as(pix_fmt: str) -> tuple[int, int]:
    """Return channels and bit depth of a video's samples, from the name of its pixel format."""
    found = re.search(r"(?:p|p0|gray)(9|10|12|14|16)(?:le|be)?$", pix_fmt)
    return (1 if pix_fmt.startswith(("gray", "mono")) else 3), int(found[1]) if found else 8
