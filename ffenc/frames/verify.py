"""Compare what was written with what was asked for. A difference is an error, never a result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path

from ffenc.codecs.pixel_formats import pixel_format
from ffenc.codecs.table import codec_for
from ffenc.compiler.command import COLOUR_TAGS
from ffenc.config.encoder import VideoEncoderConfig
from ffenc.errors import VerificationError
from ffenc.ffmpeg.probe import StreamInfo, probe


def verify_video(
    path: Path,
    config: VideoEncoderConfig,
    *,
    width: int,
    height: int,
    fps: Fraction,
    frames: int,
    depth: bool = False,
    tags: Mapping[str, str] = COLOUR_TAGS,
    starts: Iterable[int] = (0,),
    ffprobe: str | None = None,
) -> StreamInfo:
    """Read a finished file back and compare it with what was asked for.

    Args:
        path: the file.
        config: the settings it was encoded with, ``auto`` resolved.
        width, height, fps, frames: what it must hold; frame i must sit at exactly i / fps.
        depth: it holds depth, which has no colours.
        tags: its colour tags.
        starts: frame indices that must be key frames: where an episode starts.
        ffprobe: the program.

    Returns:
        the stream's fields.

    Raises:
        VerificationError: a field differs; the text names each with both values.
    """
    info = probe(path, times=True, ffprobe=ffprobe)
    fmt = pixel_format(config.pix_fmt)
    asked: dict[str, tuple[object, object]] = {
        "codec": (codec_for(config.vcodec).stream, info.codec),
        "pix_fmt": (fmt.stored, info.pix_fmt),
        "width": (width, info.width),
        "height": (height, info.height),
    }
    if not fmt.rgb and not depth:
        asked["color_space"] = (tags["colorspace"], info.color_space)
        asked["color_range"] = (tags["range"], info.color_range)
    faults = _differences(asked, info, fps, frames, starts)
    if faults:
        raise VerificationError("what was encoded is not what was asked for: " + "; ".join(faults))
    return info


def verify_joined(
    path: Path,
    like: StreamInfo,
    *,
    fps: Fraction,
    frames: int,
    packet_bytes: int,
    key_frames: Iterable[int],
    ffprobe: str | None = None,
) -> StreamInfo:
    """Read a file of copied packets back and compare it with what they were.

    Args:
        path: the file.
        like: the first of the files that were joined.
        fps, frames: what it must hold; frame i must sit at exactly i / fps.
        packet_bytes: what all packets together must have.
        key_frames: frame indices that must be key frames.
        ffprobe: the program.

    Returns:
        the stream's fields.

    Raises:
        VerificationError: something differs; the text names each with both values.
    """
    info = probe(path, times=True, ffprobe=ffprobe)
    same = (
        *("codec", "pix_fmt", "width", "height", "color_space", "color_range"),
        *("color_primaries", "color_transfer", "extradata_hash"),
    )
    asked: dict[str, tuple[object, object]] = {
        name: (getattr(like, name), getattr(info, name)) for name in same
    }
    asked["bytes of all packets"] = (packet_bytes, sum(info.sizes or ()))
    faults = _differences(asked, info, fps, frames, key_frames)
    if faults:
        raise VerificationError("what was joined is not what its parts were: " + "; ".join(faults))
    return info


def _differences(
    asked: Mapping[str, tuple[object, object]],
    info: StreamInfo,
    fps: Fraction,
    frames: int,
    key_frames: Iterable[int],
) -> list[str]:
    """What is not as asked for: fields, number and times of the frames, key frames."""
    assert info.times is not None
    assert info.key_frames is not None
    compared = {**asked, "frames": (frames, info.frames), "fps": (fps, info.fps)}
    faults = [f"{name} is {got}, asked for {want}" for name, (want, got) in compared.items() if want != got]
    ticks = 1 / fps / info.time_base
    off = next((i for i, time in enumerate(info.times) if time != i * ticks), None)
    if off is not None:
        faults.append(
            f"frame {off} is at {float(info.times[off] * info.time_base):.6f} s, not at {off}/{fps}"
        )
    missed = next((frame for frame in info.missed or () if frame < info.frames), None)
    if missed is not None:
        faults.append(f"frame {missed} is missed by readers that seek to it (open groups)")
    keys = set(info.key_frames)
    not_key = [frame for frame in key_frames if frame not in keys]
    if not_key:
        faults.append(f"frame {not_key[0]} must be a key frame and is not")
    return faults
