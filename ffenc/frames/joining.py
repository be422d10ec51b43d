"""Join video files, and parts of one, by copying their packets, with every frame at its exact time."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from ffenc.arguments import checked_path, listed
from ffenc.config.encoder import VideoEncoderConfig
from ffenc.config.framerate import fps_text, frame_ticks, time_scale
from ffenc.errors import FfmpegError, SourceError, VerificationError
from ffenc.ffmpeg.demuxer import is_mp4
from ffenc.ffmpeg.index import index_reader
from ffenc.ffmpeg.join import Joined, cut_file, join_files
from ffenc.ffmpeg.probe import StreamInfo, probe
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.frames.clip import Clip
from ffenc.frames.encode import checked_output
from ffenc.frames.encode_file import encode
from ffenc.frames.publish import claimed, published
from ffenc.frames.trim import frame_rate
from ffenc.frames.verify import verify_joined
from ffenc.paths import regular
from ffenc.spelling import call
from ffenc.temporary import temporary_folder
from ffenc.words import count

# Fields that joined files have to share -> their names in errors.
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

    Frame i of the result is at exactly i / fps, whatever the number of files. Audio is dropped.

    Args:
        sources: the files in order, one or more, with the same codec, pixel format, size, rate and decoder
            configuration, each with evenly spaced frames, none of them hidden by an edit list.
        output: the file to write, ending in ``.mp4``. With ``overwrite`` it may be one of the sources.
        overwrite: replace ``output`` if it exists.
        ffmpeg, ffprobe: programs to use instead of those that are found.

    Returns:
        The stream fields of the result, read back from the file.

    Raises:
        SourceError: a file is missing or damaged, has uneven times or hidden frames, or differs from the
            first; the text names both files and the difference. Or it is not MP4, and MP4 cannot store its
            packets as they are.
        DestinationError: ``output`` exists, or cannot be written.
        FfmpegError, VerificationError: joining failed, or the result does not match its parts.
    """
    files = listed("sources", sources, "files")
    target = checked_output(output, overwrite=overwrite)
    if not files:
        raise SourceError("there is nothing to join; pass one file or more")
    toolchain = toolchains(ffmpeg, ffprobe)[0]
    clips = [_whole(_found(source), toolchain) for source in files]
    for clip in clips:
        if clip.info.hidden:
            what = f"{count(clip.info.hidden, 'frame')} hidden by its edit list would be shown"
            raise SourceError(f"{clip.path} cannot be joined: {what}", fix=_encoded_first(clip))
    fps = _common_rate(clips)
    with claimed(target), published(target, overwrite=overwrite) as temporary:
        return _joined(clips, temporary, fps, toolchain)


def keep_parts(
    source: str | Path,
    output: str | Path,
    parts: Sequence[tuple[int, int]],
    *,
    fps: Fraction | None = None,
    config: VideoEncoderConfig | None = None,
    encoder_threads: int | None = None,
    overwrite: bool = False,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
) -> StreamInfo:
    """Keep parts of a video file, one after another. The result appears verified, or not at all.

    Packets are copied. Only a part that does not begin at a key frame, or whose frames depend on frames
    outside of it, is re-encoded; if the encoder's decoder configuration differs from the file's, all parts
    are. Frame i of the result is at exactly i / fps. Audio is dropped.

    Args:
        source: the file, with evenly spaced frames.
        output: the file to write, ending in ``.mp4``.
        parts: the parts in order: index of the first frame, and of the one after the last.
        fps: required frame rate of the file; None: any.
        config: settings for re-encoding; default as for :func:`~ffenc.encode`.
        encoder_threads: number of threads of the encoder; None: a suitable share of the cores.
        overwrite: replace ``output`` if it exists.
        ffmpeg, ffprobe: programs to use instead of those that are found.

    Returns:
        The stream fields of the result, read back from the file.

    Raises:
        SourceError: the file is missing or damaged, has uneven times, or does not have the frames.
        ConfigError: settings that cannot be encoded.
        DestinationError: ``output`` exists, or cannot be written.
        FfmpegError, VerificationError: copying or encoding failed, or the result is not what was requested.
    """
    target = checked_output(output, overwrite=overwrite)
    toolchain = toolchains(ffmpeg, ffprobe)[0]
    whole = _whole(_found(source), toolchain)
    rate = frame_rate(whole)
    if fps is not None and rate != fps:
        has, wanted = (fps_text(one) or one for one in (rate, fps))
        raise SourceError(f"{whole.path} has {has} frames per second, not {wanted}")
    clips = [whole.part(first, end - first) for first, end in _stretches(whole, parts)]
    with (
        claimed(target),
        published(target, overwrite=overwrite) as temporary,
        temporary_folder(target.parent, ".ffenc-parts-") as name,
    ):

        def encoded(clip: Clip) -> Clip:
            path, times = Path(name) / f"{clip.first}.mp4", whole.seconds()
            end = clip.first + clip.frames
            encode(
                clip.path,
                path,
                fps=rate,
                config=config,
                encoder_threads=encoder_threads,
                start=float(times[clip.first]),
                end=float(times[end]) if end < len(times) else None,
                overwrite=True,
                ffmpeg=ffmpeg,
                ffprobe=ffprobe,
            )
            return _whole(path, toolchain)

        made = [clip if why_not_copied(clip) is None else encoded(clip) for clip in clips]
        if len({tuple(getattr(clip.info, name) for name in _ALIKE) for clip in made}) > 1:
            made = [encoded(clip) if one is clip else one for clip, one in zip(clips, made, strict=True)]
        return _joined(made, temporary, rate, toolchain)


def _stretches(whole: Clip, parts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the parts of a file as index and length, with adjacent parts merged.

    Raises:
        SourceError: no part is given, or the file does not have its frames.
    """
    stretches: list[tuple[int, int]] = []
    for first, end in parts:
        if not 0 <= first < end <= whole.frames:
            raise SourceError(
                f"{whole.path} has {whole.frames} frames, but frames {first} to {end - 1} were requested"
            )
        if stretches and stretches[-1][1] == first:
            first = stretches.pop()[0]
        stretches.append((first, end))
    if not stretches:
        raise SourceError(f"no frames of {whole.path} were requested; pass one range or more")
    return stretches


def why_not_copied(clip: Clip) -> str | None:
    """Return why a part of a file cannot be copied into a file with others; None: it can be.

    Args:
        clip: the part, an episode.
    """
    info, first, end = clip.info, clip.first, clip.first + clip.frames
    assert info.closed is not None
    assert info.places is not None
    assert info.missed is not None
    if first not in info.closed:
        return f"its first frame, {first}, is not a key frame, or frames before it need it"
    if max(info.places[first:end]) >= end:
        return f"its last frame, {end - 1}, needs frames of the next episode"
    missed = next((frame for frame in info.missed if first < frame <= end), None)
    if missed is not None:
        return f"it has open groups: frame {missed} is lost to readers that seek to it, as LeRobot's does"
    return None


def _found(source: str | Path) -> Path:
    """Return the path of a file, without links.

    Raises:
        SourceError: there is no such file, or it is not regular.
    """
    try:
        return regular(checked_path("sources", source)).resolve()
    except OSError as error:
        raise SourceError(f"{source} cannot be read: {error.strerror}") from None


def _whole(path: Path, toolchain: Toolchain) -> Clip:
    """Return all frames of a file.

    Raises:
        SourceError: the file has no frames.
    """
    info = index_reader(toolchain.ffprobe).read(path)
    if not info.frames:
        raise SourceError(f"{path} has no frames")
    return Clip(path, info, 0, info.frames)


def _common_rate(clips: Sequence[Clip]) -> Fraction:
    """Return the frame rate of files after checking that they can be joined.

    Raises:
        SourceError: a file differs from the first; the text names it.
    """
    rates = []
    for clip in clips:
        rates.append(frame_rate(clip))
        found = [rates[-1], *(getattr(clip.info, name) for name in _ALIKE)]
        expected = [rates[0], *(getattr(clips[0].info, name) for name in _ALIKE)]
        for what, here, there in zip(["frame rate", *_ALIKE.values()], found, expected, strict=True):
            if here != there:
                values = "" if what == "decoder configuration" else f": {here}, and {there}"
                raise SourceError(
                    f"{clip.path} cannot be joined to {clips[0].path}: their {what} differs{values}. "
                    "Re-encode one with the settings of the other, or do not join them"
                )
    return rates[0]


def _encoded_first(clip: Clip) -> str:
    return f"{call('encode', source=clip.path, output='NEW.mp4')} makes a file that can be joined"


def _joined(clips: Sequence[Clip], output: Path, fps: Fraction, toolchain: Toolchain) -> StreamInfo:
    """Join parts of files with the same stream fields into a new file, and verify it.

    Raises:
        SourceError: a file that is not MP4 has packets or tags that MP4 does not store as they are.
        FfmpegError, VerificationError: joining failed, or the result does not match its parts.
    """
    try:
        return _verified(clips, output, fps, toolchain)
    except (FfmpegError, VerificationError) as error:
        foreign = next((clip for clip in clips if not is_mp4(clip.path)), None)
        if foreign is None or (isinstance(error, FfmpegError) and error.unable):
            raise
        raise SourceError(
            f"{foreign.path} is not an MP4 file, and cannot be copied into one without re-encoding",
            fix=_encoded_first(foreign),
        ) from error


def _verified(clips: Sequence[Clip], output: Path, fps: Fraction, toolchain: Toolchain) -> StreamInfo:
    like = clips[0].info
    with temporary_folder(output.parent, ".ffenc-join-") as folder:
        parts, tag = [], like.tag
        for number, clip in enumerate(clips):
            path, info = clip.path, clip.info
            if not _ready(clip, fps):
                path = Path(folder) / f"{number}.mp4"
                cut_file(
                    *(clip.path, path),
                    first=clip.first,
                    frames=clip.frames,
                    fps=fps,
                    tag=info.tag,
                    toolchain=toolchain,
                )
                tag = probe(path, ffprobe=toolchain.ffprobe).tag if number == 0 else tag
            parts.append(Joined(path, clip.frames, info.decode_delay))
        join_files(parts, output, fps=fps, tag=tag, toolchain=toolchain)
    frames = packet_bytes = 0
    keys: list[int] = []
    for clip in clips:
        end = clip.first + clip.frames
        keys += [frames + key - clip.first for key in clip.info.key_frames or () if clip.first <= key < end]
        packet_bytes += sum((clip.info.sizes or ())[clip.first : end])
        frames += clip.frames
    return verify_joined(
        output,
        {name: getattr(like, name) for name in _ALIKE},
        fps=fps,
        frames=frames,
        packet_bytes=packet_bytes,
        key_frames=keys,
        open_groups=True,
        read=index_reader(toolchain.ffprobe).read,
    )


def _ready(clip: Clip, fps: Fraction) -> bool:
    """Return whether a file can be joined unchanged: only these frames, on the grid, in ffenc's time base."""
    ticks, info = frame_ticks(fps), clip.info
    return (
        clip.frames == info.frames
        and info.time_base == Fraction(1, time_scale(fps))
        and info.audio is None
        and all(time == number * ticks for number, time in enumerate(info.times or ()))
    )
