"""Verification of written files against what was requested. Any difference is an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path

from ffenc.codecs.pixel_formats import pixel_format
from ffenc.codecs.table import codec_for
from ffenc.compiler.colour import COLOUR_TAGS
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
    read: Callable[[Path], StreamInfo] | None = None,
    ffprobe: str | None = None,
) -> StreamInfo:
    """Read a file back and compare it with what was requested.

    Args:
        path: the file.
        config: the settings that it was encoded with, with ``auto`` resolved.
        width, height, fps, frames: expected values; frame i must be at exactly i / fps.
        depth: the file is depth, which has no colours.
        tags: expected colour tags.
        starts: indices of frames that must be key frames: the first frames of episodes.
        read: reads the stream fields, with ``times``; None: ffprobe does.
        ffprobe: the program.

    Returns:
        The stream fields.

    Raises:
        VerificationError: a field differs; the text contains each with both values.
    """
    info = read(path) if read else probe(path, times=True, ffprobe=ffprobe)
    asked = asked_fields(config, width=width, height=height, depth=depth, tags=tags)
    faults = _differences(asked, info, fps, frames, starts)
    if faults:
        raise VerificationError("the encoded video is not what was requested: " + "; ".join(faults))
    return info


def asked_fields(
    config: VideoEncoderConfig, *, width: int, height: int, depth: bool, tags: Mapping[str, str]
) -> dict[str, object]:
    """Return the expected fields of ``StreamInfo`` for an encoding.

    Arguments as for :func:`verify_video`.
    """
    fmt = pixel_format(config.pix_fmt)
    asked: dict[str, object] = {
        "codec": codec_for(config.vcodec).stream,
        "pix_fmt": fmt.stored,
        "width": width,
        "height": height,
    }
    if not fmt.rgb and not depth:
        asked |= {"color_space": tags["colorspace"], "color_range": tags["range"]}
    return asked


def verify_joined(
    path: Path,
    asked: Mapping[str, object],
    *,
    fps: Fraction,
    frames: int,
    packet_bytes: int,
    key_frames: Iterable[int],
    open_groups: bool = False,
    read: Callable[[Path], StreamInfo] | None = None,
    ffprobe: str | None = None,
) -> StreamInfo:
    """Read a file of copied packets back and compare it with its parts.

    Args:
        path: the file.
        asked: expected fields of ``StreamInfo``.
        fps, frames: expected values; frame i must be at exactly i / fps.
        packet_bytes: expected total size of all packets, in bytes.
        key_frames: indices of frames that must be key frames.
        open_groups: whether open GOPs are accepted: a copy has those of its parts.
        read: reads the stream fields, with ``times``; None: ffprobe does.
        ffprobe: the program.

    Returns:
        The stream fields.

    Raises:
        VerificationError: something differs; the text contains each difference with both values.
    """
    info = read(path) if read else probe(path, times=True, ffprobe=ffprobe)
    faults = _differences(asked, info, fps, frames, key_frames, open_groups=open_groups)
    found = sum(info.sizes or ())
    if found != packet_bytes:
        faults.append(f"its packets have {found} bytes, not {packet_bytes}")
    if faults:
        raise VerificationError("the joined video is not what its parts were: " + "; ".join(faults))
    return info


def _differences(
    asked: Mapping[str, object],
    info: StreamInfo,
    fps: Fraction,
    frames: int,
    key_frames: Iterable[int],
    *,
    open_groups: bool = False,
) -> list[str]:
    """Return the differences from what was requested: fields, number and times of frames, key frames."""
    assert info.times is not None
    assert info.key_frames is not None
    compared = {**asked, "frames": frames, "fps": fps}
    faults = [
        f"{name} is {found}, requested was {want}"
        for name, want in compared.items()
        if (found := getattr(info, name)) != want
    ]
    ticks = 1 / fps / info.time_base
    off = next((i for i, time in enumerate(info.times) if time != i * ticks), None)
    if off is not None:
        seconds = float(info.times[off] * info.time_base)
        faults.append(f"frame {off} is at {seconds:.6f} s, not at {off}/{float(fps):.6g}")
    missed = next((frame for frame in info.missed or () if frame < info.frames), None)
    if missed is not None and not open_groups:
        faults.append(f"frame {missed} is lost to readers that seek to it (open groups)")
    keys = set(info.key_frames)
    not_key = [frame for frame in key_frames if frame not in keys]
    if not_key:
        faults.append(f"frame {not_key[0]} must be a key frame and is not")
    return faults
