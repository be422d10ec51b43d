"""Encode a folder of frames, or frames of a video file, to one file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from os import PathLike
from pathlib import Path

from msgspec import Struct

from ffenc.arguments import check_kind, checked_path, listed
from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.framerate import parse_fps
from ffenc.config.transform import Transform
from ffenc.config.validation import default_of
from ffenc.errors import ConfigError, DestinationError, FfencWarning, SourceError
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.frames.clip import Clip
from ffenc.frames.depth_images import DepthSamples
from ffenc.frames.encode import (
    checked_output,
    encode_frames,
    prepare_images,
    verify_encoded,
)
from ffenc.frames.encoding import Encoding
from ffenc.frames.header import ImageHeader
from ffenc.frames.info_json import stored_quantizer
from ffenc.frames.prepare_clip import depth_config, prepare_clip
from ffenc.frames.publish import claimed, published
from ffenc.frames.sources import IMAGE_SUFFIXES, ImageFiles, image_files
from ffenc.frames.transcode import transcode
from ffenc.frames.trim import frame_rate, trimmed, warn_of_hidden, warn_of_others, warn_of_rotation
from ffenc.layout import DEPTH_FIELDS
from ffenc.paths import check_tree, regular
from ffenc.spelling import argument

_Rate = int | float | str | Fraction
_OnFrames = Callable[[int], None] | None


class _Images(Struct, frozen=True):
    """Image files as the source of an encode."""

    files: ImageFiles
    header: ImageHeader
    fps: Fraction

    def __len__(self) -> int:
        return len(self.files)

    @property
    def depth(self) -> bool:
        return self.header.depth

    @property
    def size(self) -> tuple[int, int]:
        return self.header.width, self.header.height

    def prepare(
        self,
        config: VideoEncoderConfig | None,
        threads: int | None,
        candidates: Sequence[Toolchain],
        transform: Transform | None,
    ) -> Encoding:
        settings = config or (DepthEncoderConfig() if self.depth else VideoEncoderConfig())
        return prepare_images(
            self.files,
            self.header,
            settings,
            fps=self.fps,
            encoder_threads=threads,
            candidates=candidates,
            transform=transform,
        )

    def write(self, encoding: Encoding, output: Path, on_frames: _OnFrames) -> StreamInfo:
        depth = DepthSamples(encoding.config) if encoding.depth else None
        encode_frames(encoding, self.files, self.header, output, depth=depth, on_frames=on_frames)
        return verify_encoded(encoding, output, len(self), depth.sent if depth else None)


class _Video(Struct, frozen=True):
    """Frames of a video file as the source of an encode."""

    clip: Clip
    fps: Fraction

    def __len__(self) -> int:
        return len(self.clip)

    @property
    def depth(self) -> bool:
        return self.clip.depth

    @property
    def size(self) -> tuple[int, int]:
        return self.clip.info.width, self.clip.info.height

    def prepare(
        self,
        config: VideoEncoderConfig | None,
        threads: int | None,
        candidates: Sequence[Toolchain],
        transform: Transform | None,
    ) -> Encoding:
        settings = self._depth_settings(config) if self.depth else config or VideoEncoderConfig()
        if isinstance(settings, DepthEncoderConfig) and not self.depth:
            raise ConfigError(
                f"{self.clip.path} holds {self.clip.info.pix_fmt}, which is not depth: use the settings of a "
                "colour camera"
            )
        return prepare_clip(
            self.clip,
            settings,
            self.fps,
            candidates=candidates,
            encoder_threads=threads,
            transform=transform,
        )

    def _depth_settings(self, config: VideoEncoderConfig | None) -> DepthEncoderConfig:
        """Return the settings with the quantiser of the source; codes are kept, so no sample changes."""
        if config is None and self.clip.info.pix_fmt == "gray16le":
            config = DepthEncoderConfig(vcodec="ffv1", pix_fmt="gray16le")
        config = config or DepthEncoderConfig()
        known = stored_quantizer(self.clip.path) if self.clip.info.pix_fmt == "gray12le" else None
        settings = depth_config(config, self.clip, known)
        for name in DEPTH_FIELDS:
            asked, used = getattr(config, name), getattr(settings, name)
            if asked not in (used, default_of(type(config), name)):
                raise ConfigError(
                    f"{self.clip.path}: {argument(f'depth_encoder.{name}', asked)} would have no effect: its "
                    f"depth is quantised with {name}={used}, and codes are kept as they are; leave it "
                    f"out, or set it to {used}"
                )
        return settings

    def write(self, encoding: Encoding, output: Path, on_frames: _OnFrames) -> StreamInfo:
        sent = transcode(encoding, self.clip, output, on_frames=on_frames)
        return verify_encoded(encoding, output, len(self), sent, tags=self.clip.tags)


class EncodePlan(Struct, frozen=True):
    """The source and destination of an encode, after all checks that need no decoding.

    Attributes:
        target: the file to write.
        candidates: programs in the order to try.
        source: the frames.
        overwrite: whether an existing file is replaced.
    """

    target: Path
    candidates: tuple[Toolchain, ...]
    source: _Images | _Video
    overwrite: bool = False

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.source)

    @property
    def depth(self) -> bool:
        """Whether the frames are depth."""
        return self.source.depth

    def run(
        self,
        config: VideoEncoderConfig | None = None,
        *,
        encoder_threads: int | None = None,
        transform: Transform | None = None,
        on_frames: _OnFrames = None,
    ) -> StreamInfo:
        """Encode, verify and publish; see :func:`encode`."""
        check_kind("config", config, VideoEncoderConfig, "a VideoEncoderConfig or DepthEncoderConfig")
        check_kind("transform", transform, Transform, "a Transform")
        if transform is not None and not transform.of(*self.source.size).changes:
            width, height = self.source.size
            raise ConfigError(
                f"{transform}: would have no effect on frames of {width}x{height}; leave it out"
            )
        encoding = self.source.prepare(config, encoder_threads, self.candidates, transform)
        with claimed(self.target):
            checked_output(self.target, overwrite=self.overwrite)  # another run may have written it since
            with published(self.target, overwrite=self.overwrite) as temporary:
                return self.source.write(encoding, temporary, on_frames)


def plan_encode(
    source: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    fps: _Rate | None = None,
    start: float | None = None,
    end: float | None = None,
    start_number: int | None = None,
    overwrite: bool = False,
    follow_links: bool = False,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
) -> EncodePlan:
    """Check the frames and the destination of an encode; arguments as for :func:`encode`."""
    target = checked_path("output", output)
    if isinstance(source, str | PathLike):
        source = checked_path("source", source)
    if isinstance(source, Path) and source.exists() and not source.is_dir():
        path = regular(source)
        if target.exists() and target.samefile(path):
            raise DestinationError(f"{target} is also the source; choose another file to write")
        target = checked_output(output, overwrite=overwrite)
        candidates = tuple(toolchains(ffmpeg, ffprobe))
        video = _video(path, fps, start, end, start_number, candidates[0])
        return EncodePlan(target, candidates, video, overwrite)
    target = checked_output(output, overwrite=overwrite)
    if start is not None or end is not None:
        raise ConfigError(
            f"{argument('start')} and {argument('end')} apply to a video file; for images, choose "
            "the files themselves"
        )
    images = _images(source, fps, start_number, follow_links)
    return EncodePlan(target, tuple(toolchains(ffmpeg, ffprobe)), images, overwrite)


def _images(
    source: Path | Sequence[str | Path],
    fps: _Rate | None,
    start_number: int | None,
    follow_links: bool,
) -> _Images:
    if isinstance(source, Path):
        if not source.is_dir():
            raise SourceError(f"{source} is neither a folder of frames nor a video file")
        check_tree(source, follow_links=follow_links)
        files = image_files(source, start_number=start_number)
    else:
        files = ImageFiles([checked_path("source", path) for path in listed("source", source, "images")])
    header = files.check()
    if fps is None:
        raise ConfigError(f"images have no frame rate: pass {argument('fps')} (30, 29.97 or 30000/1001)")
    return _Images(files, header, parse_fps(fps))


def _video(
    path: Path,
    fps: _Rate | None,
    start: float | None,
    end: float | None,
    start_number: int | None,
    programs: Toolchain,
) -> _Video:
    if start_number is not None:
        raise ConfigError(
            f"{argument('start_number')} applies to a folder of images; for a video, pass "
            f"{argument('start')} in seconds"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise SourceError(f"{path} is one image; name a folder of frames, or a video file")
    rate = None if fps is None else parse_fps(fps)
    clip = trimmed(path, start=start, end=end, rate=rate, ffmpeg=programs.ffmpeg, ffprobe=programs.ffprobe)
    video = _Video(clip, frame_rate(clip) if rate is None else rate)
    if clip.info.channels == 4:
        warnings.warn(f"{path}: the alpha channel is dropped", FfencWarning, stacklevel=4)
    if clip.info.audio is not None:
        warnings.warn(f"{path}: its audio is left out", FfencWarning, stacklevel=4)
    warn_of_others(path, clip.info)
    warn_of_hidden(path, clip.info)
    warn_of_rotation(path, clip.info)
    return video


def encode(
    source: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    fps: _Rate | None = None,
    config: VideoEncoderConfig | None = None,
    encoder_threads: int | None = None,
    transform: Transform | None = None,
    start: float | None = None,
    end: float | None = None,
    start_number: int | None = None,
    overwrite: bool = False,
    follow_links: bool = False,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
    on_frames: Callable[[int], None] | None = None,
) -> StreamInfo:
    """Encode a folder of frames, or a video, to one MP4 file. The file appears verified, or not at all.

    A video is decoded and encoded in one ffmpeg, each of its frames once and in order. Depth codes are kept
    bit for bit; audio is dropped.

    Args:
        source: a folder of numbered images, or their paths in order: PNG or JPEG, or for depth 16-bit PNG or
            TIFF, in which integers are millimetres and floats are metres. Or a video file.
        output: the file to write, ending in ``.mp4``; not the source.
        fps: frames per second; frame i of the result is at exactly i / fps. None, for a video: its own rate,
            if its frames are evenly spaced to 0.1 ms, or to one tick of the container (1 ms in MKV). If a
            rate is given, the frames are stored one after another whatever their times were.
        config: encoder settings; default :class:`VideoEncoderConfig`, or :class:`DepthEncoderConfig` for
            depth.
        encoder_threads: number of threads of the encoder, 1 or more; None: a suitable share of the cores.
        transform: changes of the frames before encoding: crop, rotate, flip, resize, pad.
        start, end: for a video, encode the frames with times in ``[start, end)``, in seconds, 0 or more; the
            first is at 0 in the result. None: from the first frame, to the last.
        start_number: number of a folder's first frame; default 0 or 1.
        overwrite: replace ``output`` if it exists.
        follow_links: for a folder, follow symbolic links that lead out of it; otherwise they are refused.
        ffmpeg, ffprobe: programs to use instead of those that are found.
        on_frames: called from time to time with the number of frames encoded so far.

    Returns:
        The stream fields of the result, read back from the file.

    Raises:
        SourceError: a frame is missing, damaged, of another size or kind, or not at the time of its index.
        ConfigError: settings that cannot be encoded, no ``fps`` for images, or no frames in ``[start, end)``.
        DestinationError: ``output`` exists, is the source, or cannot be written.
        ToolchainError: no FFmpeg on this machine can do it.
        FfmpegError, VerificationError: the encode failed, or its result is not what was requested.

    Warns:
        FfencWarning: audio, a further video stream or an alpha channel is dropped, or a setting has no
            effect.

    Example:
        >>> info = encode("frames/top", "top.mp4", fps=30, config=VideoEncoderConfig(vcodec="h264"))
        >>> info.codec, info.frames
        ('h264', 300)
    """
    plan = plan_encode(
        source,
        output,
        fps=fps,
        start=start,
        end=end,
        start_number=start_number,
        overwrite=overwrite,
        follow_links=follow_links,
        ffmpeg=ffmpeg,
        ffprobe=ffprobe,
    )
    return plan.run(config, encoder_threads=encoder_threads, transform=transform, on_frames=on_frames)
