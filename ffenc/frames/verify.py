"""Compare what was written with what was asked for. A difference is an error, never a result."""

from __future__ import annotations

from collections.abc import Iterable
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
    starts: Iterable[int] = (0,),
    ffprobe: str | None = None,
) -> StreamInfo:
    """Read a finished file back and compare it with what was asked for.

    Args:
        path: the file.
        config: the settings it was encoded with, ``auto`` resolved.
        width, height, fps, frames: what it must hold; frame i must sit at exactly i / fps.
        depth: it holds depth, which has no colours.
        starts: frame indices that must be key frames: where an episode starts.
        ffprobe: the program.

    Returns:
        the stream's fields.

    Raises:
        VerificationError: a field differs; the text names each with both values.
    """
    info = probe(path, times=True, ffprobe=ffprobe)
    assert info.times is not None
    assert info.key_frames is not None
    fmt = pixel_format(config.pix_fmt)
    asked: dict[str, tuple[object, object]] = {
        "codec": (codec_for(config.vcodec).stream, info.codec),
        "pix_fmt": (fmt.stored, info.pix_fmt),
        "width": (width, info.width),
        "height": (height, info.height),
        "frames": (frames, info.frames),
        "fps": (fps, info.fps),
    }
    if not fmt.rgb and not depth:
        asked["color_space"] = (COLOUR_TAGS["colorspace"], info.color_space)
        asked["color_range"] = (COLOUR_TAGS["range"], info.color_range)
    faults = [f"{name} is {got}, asked for {want}" for name, (want, got) in asked.items() if want != got]
    ticks = 1 / fps / info.time_base
    off = next((i for i, time in enumerate(info.times) if time != i * ticks), None)
    if off is not None:
        faults.append(
            f"frame {off} is at {float(info.times[off] * info.time_base):.6f} s, not at {off}/{fps}"
        )
    keys = set(info.key_frames)
    not_key = [start for start in starts if start not in keys]
    if not_key:
        faults.append(f"frame {not_key[0]} must be a key frame and is not")
    if faults:
        raise VerificationError("what was encoded is not what was asked for: " + "; ".join(faults))
    return info
