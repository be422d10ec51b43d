"""Join video files by copying their packets, every frame at its exact time."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from ffenc.config.framerate import frame_ticks, time_scale
from ffenc.errors import SourceError
from ffenc.ffmpeg.index import PieceReader
from ffenc.ffmpeg.join import Joined, cut_file, join_files
from ffenc.ffmpeg.probe import StreamInfo, probe
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.frames.encode import checked_output
from ffenc.frames.publish import claimed, published
from ffenc.frames.transcode import Clip
from ffenc.frames.trim import frame_rate
from ffenc.frames.verify import verify_joined
from ffenc.paths import regular

# What files that are joined have in common, and how an error names it.
_ALIKE = {
    "codec": "codec",
    "pix_fmt": "pixel format",
    "width": "width",
    "height": "height",
    "configuration": "decoder configuration",
}


def join_videos(
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    overwrite: bool = False,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
) -> StreamInfo:
    """Join video files back to back without re-encoding. The result appears verified, or not at all.

    Frame i of the result is at exactly i / fps, however many files it is joined from. Sound is left out.

    Args:
        sources: the files in order, one or more; of the same codec, pixel format, size, rate and decoder
            configuration, each with evenly spaced frames.
        output: the file to write, ending in ``.mp4``. With ``overwrite`` it may be one of the sources.
        overwrite: replace ``output`` if it exists.
        ffmpeg, ffprobe: programs to use instead of those found.

    Returns:
        the result's fields, read back from the file.

    Raises:
        SourceError: a file is missing or damaged, has uneven times, or is unlike the first; the text names
            both and what differs.
        DestinationError: ``output`` exists, or cannot be written.
        FfmpegError, VerificationError: joining failed, or its result is not what the parts were.
    """
    target = checked_output(output, overwrite=overwrite)
    if not sources:
        raise SourceError("there is nothing to join: give one file or more")
    toolchain = toolchains(ffmpeg, ffprobe)[0]
    paths = [regular(Path(source)).resolve() for source in sources]
    infos = [_reader(toolchain.ffprobe).read(path) for path in paths]
    fps = _common_rate(paths, infos)
    with claimed(target), published(target) as temporary:
        return _joined(paths, infos, temporary, fps, toolchain)


def _common_rate(paths: Sequence[Path], infos: Sequence[StreamInfo]) -> Fraction:
    """The frame rate of files that can be joined.

    Raises:
        SourceError: they are not alike; the text names the first that is unlike.
    """
    rates = []
    for path, info in zip(paths, infos, strict=True):
        if not info.frames:
            raise SourceError(f"{path} has no frames")
        rates.append(frame_rate(Clip(path, info, 0, info.frames)))
        found = [rates[-1], *(getattr(info, name) for name in _ALIKE)]
        expected = [rates[0], *(getattr(infos[0], name) for name in _ALIKE)]
        for what, here, there in zip(["frame rate", *_ALIKE.values()], found, expected, strict=True):
            if here != there:
                values = "" if what == "decoder configuration" else f": {here}, and {there}"
                raise SourceError(
                    f"{path} cannot be joined to {paths[0]}: their {what} differs{values}. Re-encode "
                    "one like the other, or keep them apart"
                )
    return rates[0]


def _joined(
    paths: Sequence[Path], infos: Sequence[StreamInfo], output: Path, fps: Fraction, toolchain: Toolchain
) -> StreamInfo:
    """Join files that are alike into a new one, and compare it with them."""
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".ffenc-join-") as folder:
        parts, tag = [], infos[0].tag
        for number, (path, info) in enumerate(zip(paths, infos, strict=True)):
            if not _whole(info, fps):
                source, path = path, Path(folder) / f"{number}.mp4"
                cut_file(
                    source, path, first=0, frames=info.frames, fps=fps, tag=info.tag, toolchain=toolchain
                )
                tag = probe(path, ffprobe=toolchain.ffprobe).tag if number == 0 else tag
            parts.append(Joined(path, info.frames, info.decode_delay))
        join_files(parts, output, fps=fps, tag=tag, toolchain=toolchain)
    offsets = [sum(info.frames for info in infos[:number]) for number in range(len(infos))]
    return verify_joined(
        output,
        {name: getattr(infos[0], name) for name in _ALIKE},
        fps=fps,
        frames=sum(info.frames for info in infos),
        packet_bytes=sum(sum(info.sizes or ()) for info in infos),
        key_frames=[
            offset + key for offset, info in zip(offsets, infos, strict=True) for key in info.key_frames or ()
        ],
        open_groups=True,
        read=_reader(toolchain.ffprobe).read,
    )


@lru_cache(maxsize=4)
def _reader(ffprobe: str) -> PieceReader:
    """What reads files without a process each: who joins files one by one reads the first many times."""
    return PieceReader(ffprobe)


def _whole(info: StreamInfo, fps: Fraction) -> bool:
    """Whether a file can be joined as it is: nothing but its frames, each at its place, in ffenc's ticks."""
    ticks = frame_ticks(fps)
    return (
        info.time_base == Fraction(1, time_scale(fps))
        and info.audio is None
        and all(time == number * ticks for number, time in enumerate(info.times or ()))
    )
