"""The FFmpeg argument lists ffenc runs, built through ffmpeg-python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, get_args

import ffmpeg

from ffenc.codecs.options import CONTAINER_OPTIONS, encoder_options
from ffenc.codecs.pixel_formats import pixel_format
from ffenc.codecs.suggest import accepted
from ffenc.codecs.table import CODECS, Codec, codec_for
from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.framerate import Pick, frame_ticks, parse_fps, time_scale
from ffenc.config.transform import Geometry, Transform
from ffenc.errors import ConfigError

# How frames come through the pipe: encoded images as they are, or raw pixels. gray12le and gray16le are
# depth. In images that end in -bgr red and blue were swapped when they were encoded, as by OpenCV from RGB.
FrameFormat = Literal[
    "png",
    "jpeg",
    "rgb24",
    "png-bgr",
    "jpeg-bgr",
    "bgr24",
    "rgba",
    "bgra",
    "gray",
    "yuyv422",
    "uyvy422",
    "bayer_rggb8",
    "bayer_bggr8",
    "bayer_gbrg8",
    "bayer_grbg8",
    "gray12le",
    "gray16le",
]
FRAME_FORMATS: tuple[FrameFormat, ...] = get_args(FrameFormat)
_DEPTH = ("gray12le", "gray16le")

# level+ makes an error line recognisable: a damaged image is reported at error level with exit status 0.
PROGRAM_OPTIONS = ("-nostdin", "-hide_banner", "-loglevel", "level+warning", "-xerror")

# RGB is converted with BT.601 at every size: it is what LeRobot's readers undo, and the tags say so to
# players, which would otherwise guess BT.709 for HD. Cameras deliver BT.709/sRGB primaries and transfer.
_RGB_TO_YUV = {"out_color_matrix": "bt601", "out_range": "tv", "flags": "bicubic"}
COLOUR_TAGS = {
    "range": "tv",
    "colorspace": "smpte170m",
    "color_primaries": "bt709",
    "color_trc": "bt709",
}

# What a file may be opened as. FFmpeg chooses by content: a text that is a playlist (concat, HLS, DASH,
# SDP) would make it open the files and addresses named there. None of these demuxers opens another file.
DEMUXERS = ("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "ogg", "nut", "ivf", "obu", "hevc", "h264")
PROTOCOLS = ("file", "pipe", "fd")
INPUT_LIMITS = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": ",".join(PROTOCOLS)}

_LONGEST_FRAGMENT = 60.0  # seconds
_TERMS = 25  # of a sum in a filter's expression

# Scaling of pictures, in RGB: without these swscale would halve the chroma of RGB on its way.
_SCALING = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"

# Beginnings of the names of formats that hold RGB.
_RGB_FORMATS = ("gbr", "rgb", "bgr", "argb", "abgr", "0rgb", "0bgr", "pal", "bayer")

# A stream's colour tag -> the scale filter's name of the matrix; all others are BT.601.
_MATRICES = {
    "bt709": "bt709",
    "fcc": "fcc",
    "smpte240m": "smpte240m",
    "bt2020nc": "bt2020",
    "bt2020c": "bt2020",
}


def is_depth(frames: FrameFormat) -> bool:
    """Whether frames of a format are depth: codes or millimetres, to be stored as they are."""
    return frames in _DEPTH


def is_encoded(frames: FrameFormat) -> bool:
    """Whether frames of a format are encoded images, not raw pixels."""
    return frames.startswith(("png", "jpeg"))


@dataclass(frozen=True)
class SampleTap:
    """A second, small output of the same process: every ``step``-th frame, shrunk, as raw rgb24 on stdout.

    Attributes:
        step: 1 or more.
        width, height: size of a sample in pixels.
    """

    step: int
    width: int
    height: int


@dataclass(frozen=True)
class Excerpt:
    """Some of a stream's frames, told by their times, so that no seek can give others.

    Attributes:
        spans: first and last tick of each series of frames, both included, ascending.
        frames: how many frames that is; the program ends after them.
        seek: seconds; the file is entered at the last key frame until there. None: at its start.
        rate: frames a second of a stream without a container, whose frames have no times: they are counted,
            and frame i is at tick i. None: the file has times.
        pick: which frames of the series are taken; None: all.
    """

    spans: tuple[tuple[int, int], ...]
    frames: int
    seek: Fraction | None = None
    rate: Fraction | None = None
    pick: Pick | None = None


@dataclass(frozen=True)
class VideoInput:
    """Frames of a video file, as what is encoded.

    Attributes:
        path: the file.
        excerpt: which frames.
        conversion: how its colours are read, see :func:`rgb_conversion`; None: depth, taken as it is.
        tags: what the result is tagged with, see :func:`kept_tags`; its matrix and range.
    """

    path: str
    excerpt: Excerpt
    conversion: Mapping[str, str] | None
    tags: Mapping[str, str] = field(default_factory=lambda: COLOUR_TAGS)


def raw_format(config: VideoEncoderConfig) -> FrameFormat:
    """Return how a camera's raw frames go to its encoder: colours, or depth as codes or millimetres."""
    if not isinstance(config, DepthEncoderConfig):
        return "rgb24"
    return "gray16le" if config.pix_fmt == "gray16le" else "gray12le"


def file_url(path: str) -> str:
    """Return a path as a ``file:`` URL, in which ``-``, ``%d`` and ``:`` are only characters of a name."""
    return path if path.startswith("pipe:") else f"file:{path}"


def file_input(path: str, **options: Any) -> Any:
    """Return a video file, or ``pipe:0``, as an input; it is opened as nothing but a video."""
    return ffmpeg.input(file_url(path), **INPUT_LIMITS, **options)


def check_size(config: VideoEncoderConfig, width: int, height: int) -> None:
    """Refuse a frame size that the encoder, or the pixel format's chroma subsampling, cannot hold.

    Raises:
        ConfigError: width or height is not positive, outside of the encoder's limits, or not a multiple of
            the chroma step.
    """
    if width < 1 or height < 1:
        raise ConfigError(f"{width}x{height} is not a frame size")
    fmt = pixel_format(config.pix_fmt)
    if config.vcodec in CODECS:
        _check_limits(CODECS[config.vcodec], width, height)
    if width % fmt.x_step or height % fmt.y_step:
        crop = width - width % fmt.x_step, height - height % fmt.y_step
        even = f"{max(crop[0], fmt.x_step)}x{max(crop[1], fmt.y_step)}"
        raise ConfigError(
            f"{width}x{height} frames cannot be stored as {config.pix_fmt}: it halves the chroma planes, so "
            f"the size must be even. Crop, resize or pad the frames (--crop {even}+0+0, --resize {even}, or "
            "--pad without --resize), or use a pix_fmt that keeps full chroma: yuv444p (h264, hevc, "
            "libaom-av1 or ffv1; libsvtav1 has none)"
        )


def _check_limits(codec: Codec, width: int, height: int) -> None:
    low, high = codec.min_size, codec.max_size
    if low[0] <= width <= high[0] and low[1] <= height <= high[1]:
        return
    others = [
        row.name
        for row in CODECS.values()
        if not row.hardware
        and all(a <= n <= b for a, n, b in zip(row.min_size, (width, height), row.max_size, strict=True))
    ]
    raise ConfigError(
        f"{width}x{height} frames cannot be encoded with {codec.name}: {codec.encoder} takes "
        f"{low[0]}x{low[1]} to {high[0]}x{high[1]}"
        + (f"; {', '.join(others)} can encode this size" if others else "")
    )


def compile_command(
    config: VideoEncoderConfig,
    *,
    width: int,
    height: int,
    fps: int | float | str | Fraction,
    output: str,
    frames: FrameFormat = "png",
    video: VideoInput | None = None,
    transform: Transform | None = None,
    encoder: str | None = None,
    encoder_threads: int | None = None,
    tap: SampleTap | None = None,
    fragment_seconds: float | None = None,
    program: str = "ffmpeg",
) -> list[str]:
    """Compile the argument list that encodes frames from standard input, or of a file, into one MP4 file.

    Args:
        config: the camera's encoder settings.
        width, height: frame size in pixels.
        fps: frames a second; the file's time base (:func:`~ffenc.config.framerate.time_scale`) makes every
            frame's time an exact integer.
        output: path of the result.
        frames: how they come, one of :data:`FRAME_FORMATS`: ``png`` or ``jpeg`` for encoded images back to
            back, ``rgb24`` and others for raw pixels, ``gray12le`` or ``gray16le`` for raw depth, which is
            stored as it is.
        video: the frames come from this file instead; ``frames`` then says only whether they are depth.
            They are put on the grid of ``fps`` one after another, whatever their times were.
        transform: how frames are changed on the way; not of depth, whose samples come changed already.
        encoder: what ``vcodec="auto"`` stands for on the machine that will run this.
        encoder_threads: threads the encoder may use, 1 or more; None leaves it to the encoder.
        tap: also write sampled frames to standard output.
        fragment_seconds: write the file in fragments of so many seconds, more than 0: it can be read up to
            the last whole one while it grows, and after the program has been killed. Such a file is to be
            joined (:func:`compile_join`) into one that has an index; None: the file has one.
        program: the ffmpeg to run.

    Returns:
        The arguments, the program first. The same input gives the same list on any machine.

    Raises:
        ConfigError: settings that cannot be encoded: an odd size with subsampled chroma, a pixel format the
            hardware does not take, ``auto`` without ``encoder``, or a setting that would have no effect.
    """
    if frames not in FRAME_FORMATS:
        raise ConfigError(f"frames={frames!r} is not known{accepted(frames, FRAME_FORMATS)}")
    if is_depth(frames) and config.pix_fmt != frames:
        raise ConfigError(f"pix_fmt={config.pix_fmt!r} would change {frames} depth; it has to be {frames!r}")
    codec = codec_for(config.vcodec, encoder)
    config = config.resolve(encoder)
    rate = parse_fps(fps)
    geometry = transform.of(width, height) if transform is not None else None
    stored = (geometry.width, geometry.height) if geometry is not None else (width, height)
    check_size(config, *stored)
    options = encoder_options(codec, config, encoder_threads)
    fmt = pixel_format(config.pix_fmt)
    options |= codec.fit(options, *stored, fmt.channels, fmt.bits)
    if codec.needs_bit_rate and not any(key.split(":")[0] in ("b", "vb") for key in options):
        raise ConfigError(
            f"{codec.name} has no quality option and would use FFmpeg's 200 kb/s: give a bit rate, "
            'e.g. extra_options={"b:v": "4M"}'
        )

    conversion: Mapping[str, str] = {}
    tags: Mapping[str, str] = COLOUR_TAGS
    rate_options: dict[str, Any] = {}
    if video is None:
        size = stored if is_depth(frames) else (width, height)
        source = fed_frames(frames, *size, rate, encoder_threads)
    else:
        source = _video_source(video, rate, encoder_threads)
        conversion, tags = video.conversion or {}, video.tags
        rate_options["enc_time_base"] = f"{rate.denominator}:{rate.numerator}"
        rate_options["frames:v"] = video.excerpt.frames
        # The last frame would keep the duration it had in the file, which changes the average rate. It gets
        # that of the packet before, because builds differ in the time base they count in here.
        first = "1" if rate.denominator == 1 else "DURATION"
        if video.excerpt.frames > 1:
            rate_options["bsf:v"] = f"setts=pts=PTS:dts=DTS:duration=if(N\\,DTS-PREV_INDTS\\,{first})"
    if geometry is not None and not is_depth(frames):
        source = _moved(source, geometry) if video is not None else _in_rgb(source, geometry, fmt.bits)
    samples = None
    if tap is not None:
        split = source.filter_multi_output("split")
        source, samples = split[0], split[1]
    converted = _convert(source, codec, config, frames, conversion, tags)
    if geometry is not None and video is not None and not is_depth(frames):
        converted = _padded(converted, geometry)
    converted = converted.filter("hwupload") if codec.hwupload else converted
    result = ffmpeg.output(
        converted,
        file_url(output),
        **CONTAINER_OPTIONS | ({} if fragment_seconds is None else _fragments(fragment_seconds)),
        **_time_base(rate),
        **rate_options,
        **{"c:v": codec.encoder},
        **({"tag:v": codec.tag} if codec.tag else {}),
        **options,
    )
    if tap is not None:
        assert samples is not None
        result = ffmpeg.merge_outputs(result, tap_output(samples, tap))
    return arguments(result, program, *codec.program_options)


def compile_samples(
    config: VideoEncoderConfig,
    *,
    width: int,
    height: int,
    fps: int | float | str | Fraction,
    frames: FrameFormat,
    transform: Transform | None = None,
    program: str = "ffmpeg",
) -> list[str]:
    """Compile the argument list that writes, raw to standard output, the samples an encoder would be given.

    They are what a lossless stream has to decode to. Arguments as for :func:`compile_command`.
    """
    geometry = transform.of(width, height) if transform is not None else None
    if geometry is not None and is_depth(frames):
        width, height = geometry.width, geometry.height
    source = fed_frames(frames, width, height, parse_fps(fps), None)
    fmt = pixel_format(config.pix_fmt)
    if geometry is not None and not is_depth(frames):
        source = _in_rgb(source, geometry, fmt.bits)
    video = _convert(source, codec_for(config.vcodec), config, frames)
    return arguments(_raw_output(video, fmt.stored), program)


def compile_pictures(frames: FrameFormat, width: int, height: int, *, program: str = "ffmpeg") -> list[str]:
    """Compile the argument list that shows frames from standard input as raw rgb24 on standard output.

    Args:
        frames, width, height: what they are; the size is that of raw pixels.
        program: the ffmpeg to run.
    """
    source = fed_frames(frames, width, height, Fraction(1), None)
    stored = frames if frames in ("yuyv422", "uyvy422") else "yuvj420p" if frames == "jpeg" else "rgb24"
    conversion = rgb_conversion(stored, None, "pc" if frames == "jpeg" else None)
    return arguments(_raw_output(source.filter("scale", **conversion), "rgb24"), program)


def _in_rgb(source: Any, geometry: Geometry, bits: int) -> Any:
    """Frames as RGB, changed. Images of one stream may differ in their format; a scaler takes them all."""
    frames = source.filter("scale", flags=_SCALING).filter("format", "rgb48le" if bits > 8 else "rgb24")
    return _padded(_moved(frames, geometry), geometry)


def _moved(frames: Any, geometry: Geometry) -> Any:
    """The filters that crop, turn and scale, in the frames' own format."""
    if geometry.crop is not None:
        x, y, width, height = geometry.crop
        frames = frames.filter("crop", width, height, x, y, exact=1)
    if geometry.rotate in (90, 270):
        frames = frames.filter("transpose", "clock" if geometry.rotate == 90 else "cclock")
    elif geometry.rotate == 180:
        frames = frames.filter("hflip").filter("vflip")
    for way in geometry.flip:
        frames = frames.filter(f"{way}flip")
    if geometry.scale is not None:
        frames = frames.filter("scale", *geometry.scale, flags=_SCALING)
    return frames


def _padded(frames: Any, geometry: Geometry) -> Any:
    return frames if geometry.pad is None else frames.filter("pad", *geometry.pad, color="black")


def rgb_conversion(pix_fmt: str, color_space: str | None, color_range: str | None) -> dict[str, str]:
    """Return how a stream's samples become RGB: options of FFmpeg's scale filter.

    Without ``accurate_rnd`` and ``full_chroma_int``, because LeRobot's readers convert without them: with
    them colours beside an edge would differ from what a policy was trained on by up to 50 levels.

    Args:
        pix_fmt, color_space, color_range: as probed. What is not tagged is BT.601 of limited range, as in
            every file of LeRobot's; a range is only assumed where the pixel format leaves it open.
    """
    options = {"in_color_matrix": _MATRICES.get(color_space or "", "bt601"), "flags": "bicubic"}
    if not pix_fmt.startswith(("yuvj", *_RGB_FORMATS)):
        options["in_range"] = "pc" if color_range == "pc" else "tv"
    return options


def is_bt601(color_space: str | None) -> bool:
    """Whether samples are read by the matrix of BT.601: by their tag, or because they have none."""
    return (color_space or "") not in _MATRICES


def kept_tags(
    pix_fmt: str,
    color_space: str | None,
    color_primaries: str | None,
    color_transfer: str | None,
) -> dict[str, str]:
    """Return what a video that is re-encoded is tagged with: what it was, so that its matrix stays.

    A reader that ignores tags then shows the colours that it has shown of the source.

    Args:
        pix_fmt, color_space, color_primaries, color_transfer: as probed. What is not tagged, and all of RGB,
            is as in :data:`COLOUR_TAGS`.
    """
    if pix_fmt.startswith(_RGB_FORMATS):
        return dict(COLOUR_TAGS)
    return {
        "range": COLOUR_TAGS["range"],
        "colorspace": color_space or COLOUR_TAGS["colorspace"],
        "color_primaries": color_primaries or COLOUR_TAGS["color_primaries"],
        "color_trc": color_transfer or COLOUR_TAGS["color_trc"],
    }


def compile_decode(
    path: str,
    *,
    pix_fmt: str | None = None,
    conversion: Mapping[str, str] | None = None,
    excerpt: Excerpt | None = None,
    tap: SampleTap | None = None,
    geometry: Geometry | None = None,
    lenient: bool = False,
    program: str = "ffmpeg",
) -> list[str]:
    """Compile the argument list that decodes a file's frames, as they are stored, unrotated.

    Args:
        path: the file.
        pix_fmt: write the samples raw to standard output in this format; None: only decode.
        conversion: how they come into that format, see :func:`rgb_conversion`; None: they are in it.
        excerpt: the frames to take; None: all.
        tap: of those, only samples.
        geometry: how they are changed, once they are RGB.
        lenient: go on after a damaged frame, with one thread.
        program: the ffmpeg to run.
    """
    video, limit = _excerpted(path, excerpt, {"threads": 1} if lenient else {})
    if tap is not None and excerpt is not None:
        limit["frames:v"] = -(-excerpt.frames // tap.step)
    if conversion is not None:
        video = video.filter("scale", **conversion)
    if geometry is not None:
        video = _in_rgb(video.filter("format", "rgb24"), geometry, 8)
    if tap is not None:
        video = _sampled(video if conversion is None else video.filter("format", "rgb24"), tap)
    if pix_fmt is None:
        result = ffmpeg.output(video, "-", f="null", fps_mode="passthrough", **limit)
    else:
        result = _raw_output(video, pix_fmt, **limit)
    return without_stop(arguments(result, program)) if lenient else arguments(result, program)


def compile_frame_checksums(
    path: str, *, pix_fmt: str, excerpt: Excerpt | None = None, program: str = "ffmpeg"
) -> list[str]:
    """Compile the argument list that writes the CRC-32 of every frame's samples to standard output.

    Arguments as for :func:`compile_decode`.
    """
    video, limit = _excerpted(path, excerpt, {})
    limit |= {"f": "framehash", "hash": "CRC32", "c:v": "rawvideo", "pix_fmt": pix_fmt}
    return arguments(ffmpeg.output(video, "pipe:1", fps_mode="passthrough", **limit), program)


def _excerpted(path: str, excerpt: Excerpt | None, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A file's frames, or some of them, and the output options that end the program after them."""
    entry: dict[str, Any] = {"noautorotate": None, **options}
    limit: dict[str, Any] = {}
    if excerpt is not None:
        entry["copyts"] = None  # the frames' times stay the file's own, by which they are chosen
        limit["frames:v"] = excerpt.frames
        entry |= _entry(excerpt.seek)
        if excerpt.rate is not None:
            entry["framerate"] = str(excerpt.rate)
    video = file_input(path, **entry)["v:0"]
    if excerpt is not None and excerpt.rate is not None:
        video = video.filter("settb", str(1 / excerpt.rate)).filter("setpts", "N")
    if excerpt is not None:
        video = _picked(video.filter("select", _within(excerpt.spans)), excerpt.pick)
    return video, limit


def _picked(video: Any, pick: Pick | None) -> Any:
    """Some of the frames: those that :meth:`Pick.indices` names, in floating point, which is exact here."""
    if pick is None:
        return video
    p, q = pick.ratio.numerator, pick.ratio.denominator
    if q == 1:
        return video.filter("select", f"not(mod(n,{p}))")
    new = f"floor((2*n*{q}+{p})/{2 * p})"
    return video.filter("select", f"eq(floor((2*{new}*{p}+{q})/{2 * q}),n)")


def compile_frame_list(
    path: str, *, seek: Fraction | None, frames: int, program: str = "ffmpeg"
) -> list[str]:
    """Compile the argument list that lists the times of all frames that can be decoded without a fault.

    It goes on after a damaged frame; with one thread, so that frames and faults come in order. Arguments as
    for :func:`compile_decode` and :class:`Excerpt`; ``frames``: how many to list at most.
    """
    options: dict[str, Any] = {"copyts": None, "threads": 1, "err_detect": "explode", **_entry(seek)}
    source = file_input(path, **options)
    limit = {"fps_mode": "passthrough", "frames:v": frames}
    listed = ffmpeg.output(source["v:0"], "pipe:1", f="framecrc", **limit)
    return without_stop(arguments(listed, program))


def compile_checksums(
    path: str, decoder: Mapping[str, Any], *, lenient: bool = False, program: str = "ffmpeg"
) -> list[str]:
    """Compile the argument list that decodes a file and lists time and checksum of every frame.

    Args:
        path: the file, or ``pipe:0``.
        decoder: its options.
        lenient: go on after a damaged frame.
        program: the ffmpeg to run.
    """
    options = {"copyts": None, "err_detect": "crccheck+bitstream+buffer+explode", **decoder}
    source = file_input(path, **options)
    listed = ffmpeg.output(source["v:0"], "pipe:1", f="framecrc", fps_mode="passthrough")
    return without_stop(arguments(listed, program)) if lenient else arguments(listed, program)


def compile_packets(path: str, first: int, last: int, *, program: str = "ffmpeg") -> list[str]:
    """Compile the argument list that writes some of a file's packets to standard output, undecoded.

    Args:
        path: the file.
        first, last: places of the packets in the file, both included. They are counted from the file's
            start, so that no seek can give others.
        program: the ffmpeg to run.
    """
    source = file_input(path, copyts=None)
    dropped = f"noise=drop=not(between(n\\,{first}\\,{last}))"
    options = {"f": "nut", "c": "copy", "bsf:v": dropped, "avoid_negative_ts": "disabled"}
    cut = ffmpeg.output(source["v:0"], "pipe:1", **options)
    return arguments(cut, program)


@dataclass(frozen=True)
class Compared:
    """One side of a comparison.

    Attributes:
        path: a video file, or ``pipe:0`` for images.
        conversion: how its samples become RGB, see :func:`rgb_conversion`.
        images: what comes down the pipe; None: a video file.
        excerpt: the frames to take of a video; None: all.
        geometry: how they are changed before they are compared.
        size: width and height of raw frames.
    """

    path: str
    conversion: Mapping[str, str]
    images: FrameFormat | None = None
    size: tuple[int, int] = (0, 0)
    excerpt: Excerpt | None = None
    geometry: Geometry | None = None


def compile_compare(video: Compared, reference: Compared, *, program: str = "ffmpeg") -> list[str]:
    """Compile the argument list that compares frames in RGB, the n-th with the n-th.

    PSNR and SSIM of each pair are written to standard output as the metadata filter prints them. It ends
    with the shorter side.
    """
    # A queue of its own also tells the two inputs apart where both are the same frames of one file.
    copies = rgb_frames(reference, thread_queue_size=64).filter("format", "gbrp")
    copies = copies.filter_multi_output("split")
    shown = rgb_frames(video).filter("format", "gbrp")
    compared = ffmpeg.filter([shown, copies[0]], "psnr", shortest=1)
    # psnr and ssim pass their first input on, with what the filters before have noted of it.
    compared = ffmpeg.filter([compared, copies[1]], "ssim", shortest=1)
    printed = compared.filter("metadata", "print", file="pipe:1")
    return arguments(ffmpeg.output(printed, "-", f="null", fps_mode="passthrough"), program)


def rgb_frames(side: Compared, **options: Any) -> Any:
    """One side's frames as rgb24, which is what readers convert to, numbered from 0."""
    if side.images is not None:
        source = fed_frames(side.images, *side.size, Fraction(1), None, **options)
    else:
        seek = side.excerpt.seek if side.excerpt is not None else None
        options |= {"noautorotate": None, "copyts": None, **_entry(seek)}
        source = file_input(side.path, **options)["v:0"]
    if side.excerpt is not None:
        # Without an end the other side's last frame would wait for the end of this file.
        source = source.filter("trim", end_pts=side.excerpt.spans[-1][1] + 1)
        source = _picked(source.filter("select", _within(side.excerpt.spans)), side.excerpt.pick)
    frames = source.filter("scale", **side.conversion).filter("format", "rgb24")
    if side.geometry is not None:
        frames = _in_rgb(frames, side.geometry, 8)
    # A second each: whatever rate FFmpeg takes for the result, no two frames get the same time.
    return frames.filter("settb", "1/1").filter("setpts", "N")


def without_stop(command: list[str]) -> list[str]:
    """Return a command that goes on after an error."""
    return [word for word in command if word != "-xerror"]


def _entry(seek: Fraction | None) -> dict[str, Any]:
    """Where a file is entered. What comes is picked later, so nothing is dropped for the time sought."""
    if seek is None:
        return {}
    return {"noaccurate_seek": None, "seek_timestamp": 1, "ss": f"{float(seek):.6f}"}


def _within(spans: Sequence[tuple[int, int]]) -> str:
    """The expression that a frame's time is within one of the spans."""
    terms = [f"between(pts,{first},{last})" for first, last in spans]
    # FFmpeg refuses sums of more than about 100 terms, but not sums of sums.
    groups = ["+".join(terms[i : i + _TERMS]) for i in range(0, len(terms), _TERMS)]
    return groups[0] if len(groups) == 1 else "+".join(f"({group})" for group in groups)


def _raw_output(video: Any, pix_fmt: str, **limit: Any) -> Any:
    return ffmpeg.output(video, "pipe:1", f="rawvideo", pix_fmt=pix_fmt, fps_mode="passthrough", **limit)


def arguments(result: Any, program: str, *program_options: str) -> list[str]:
    """Return the argument list of what ffmpeg-python has built."""
    command = [program, *PROGRAM_OPTIONS, *program_options]
    return [str(part) for part in ffmpeg.compile(result, cmd=command, overwrite_output=True)]


def fed_frames(
    frames: FrameFormat, width: int, height: int, rate: Fraction, threads: int | None, **options: Any
) -> Any:
    """Return frames that are fed to standard input, their colours in order.

    Args:
        frames, width, height: what they are; the size is that of raw pixels.
        rate: frames a second.
        threads: threads of the decoder of images; None: its own choice.
        options: further options of the input.
    """
    source = ffmpeg.input("pipe:0", **options, **_input_options(frames, width, height, rate, threads))
    if options:
        source = source["v:0"]
    if frames.startswith("bayer"):  # straight to YUV, FFmpeg makes other colours of a mosaic
        return source.filter("format", "rgb24")
    if not frames.endswith("-bgr"):
        return source
    # A scaler takes images that differ in their format. The planes of gbrp are green, blue, red.
    return source.filter("scale", flags=_SCALING).filter("format", "gbrp").filter("shuffleplanes", 0, 2, 1)


def _input_options(
    frames: FrameFormat, width: int, height: int, rate: Fraction, threads: int | None
) -> dict[str, Any]:
    """How frames are read from standard input."""
    # Frames are shown as they are stored, as LeRobot's reader has them, whatever an EXIF tag says.
    options: dict[str, Any] = {"framerate": str(rate), "noautorotate": None}
    if not is_encoded(frames):
        options |= {"f": "rawvideo", "pix_fmt": frames, "video_size": (width, height)}
    else:
        # A damaged image must stop the run; by default FFmpeg shows what it could decode and goes on.
        # Images may be gray, with a palette or alpha by turns. Filters that were set up again for each change
        # would begin to count frames again, and drop those of the other input that wait.
        options |= {
            "f": "image2pipe",
            "c:v": "mjpeg" if frames.startswith("jpeg") else "png",
            "err_detect": "crccheck+explode",
            "reinit_filter": 0,
        }
        if threads is not None:
            options["threads"] = threads
    return options


def encoder_format(codec: Codec, config: VideoEncoderConfig) -> str:
    """Return the pixel format the encoder itself is given: the config's, or what its device takes for it.

    Raises:
        ConfigError: the device takes nothing for it.
    """
    return "vaapi" if codec.hwupload and _memory_format(codec, config) else _memory_format(codec, config)


def _memory_format(codec: Codec, config: VideoEncoderConfig) -> str:
    name = pixel_format(config.pix_fmt).name
    if codec.upload and name not in codec.upload:
        raise ConfigError(
            f"pix_fmt={name!r} is not one {codec.name} takes; accepted: {', '.join(codec.upload)}"
        )
    return codec.upload.get(name, name)


def _convert(
    source: Any,
    codec: Codec,
    config: VideoEncoderConfig,
    frames: FrameFormat,
    conversion: Mapping[str, str] | None = None,
    tags: Mapping[str, str] = COLOUR_TAGS,
) -> Any:
    """The filters that bring frames into the encoder's format and tag them with the conversion used."""
    fmt = pixel_format(config.pix_fmt)
    if not is_depth(frames):
        # Where matrix, range and format are the source's own, this changes nothing.
        scaled = {**(conversion or {}), **({} if fmt.rgb else _RGB_TO_YUV)}
        if conversion and not fmt.rgb:
            scaled |= {"out_color_matrix": conversion["in_color_matrix"], "out_range": tags["range"]}
            # From RGB, FFmpeg would make all darker by up to three levels.
            scaled["flags"] = "bicubic+accurate_rnd+full_chroma_int"
        source = source.filter("scale", **scaled) if scaled else source
    video = source.filter("format", _memory_format(codec, config))
    if fmt.rgb:
        return video
    # Depth has no colours, only a range; LeRobot's is tv, and no sample is changed for it.
    shown = {"range": COLOUR_TAGS["range"]} if is_depth(frames) else tags
    return video.filter("setparams", **shown)


def _fragments(seconds: float) -> dict[str, Any]:
    if not 0 < seconds <= _LONGEST_FRAGMENT:
        raise ConfigError(
            f"fragment_seconds={seconds!r} is not accepted; expected more than 0, {_LONGEST_FRAGMENT} at most"
        )
    return {
        # delay_moov: the header is written with the first fragment, when it is known how long a frame may be
        # stored before it is shown; without it all times would be moved by that.
        "movflags": "+empty_moov+delay_moov+default_base_moof",
        "frag_duration": round(seconds * 1_000_000),
        "flush_packets": 1,  # what is whole is on the disk, and not in the program's memory
    }


def _time_base(rate: Fraction) -> dict[str, Any]:
    # The movie header has the track's scale: edit lists are written in it, and with the default of 1/1000
    # they would cut a frame off.
    return {"video_track_timescale": time_scale(rate), "movie_timescale": time_scale(rate)}


def _video_source(video: VideoInput, rate: Fraction, threads: int | None) -> Any:
    """A file's frames, picked by their times and put on the grid."""
    source, _ = _excerpted(video.path, video.excerpt, {} if threads is None else {"threads": threads})
    source = source.filter("settb", f"1/{rate.numerator}").filter("setpts", f"N*{rate.denominator}")
    if video.excerpt.frames == 1:  # there is no packet before it, so the filter gives it its duration
        source = source.filter("fps", f"{rate.numerator}/{rate.denominator}", start_time=0)
    # Cameras have square pixels, and some containers say so where others say nothing: so that files of
    # one dataset can be joined, none says it.
    return source.filter("setsar", "0")


def tap_output(samples: Any, tap: SampleTap) -> Any:
    """Return the second output of a program: samples of its frames."""
    return ffmpeg.output(_sampled(samples, tap), "pipe:1", f="rawvideo", fps_mode="passthrough")


def _sampled(video: Any, tap: SampleTap) -> Any:
    picked = video.filter("select", f"not(mod(n,{tap.step}))") if tap.step > 1 else video
    return picked.filter("scale", tap.width, tap.height, flags="neighbor").filter("format", "rgb24")


def compile_join(
    fps: Fraction, *, output: str, delay: int = 0, tag: str | None = None, program: str = "ffmpeg"
) -> list[str]:
    """Compile the argument list that joins encoded files back to back without re-encoding.

    The list of files is read from standard input in the concat demuxer's format. That demuxer rounds each
    file's start to a microsecond, so every packet is put back on its exact place on the frame grid.

    Args:
        fps: frame rate of all the files; their time base is the one :func:`compile_command` gives.
        output: path of the result.
        delay: how many frames the decode times begin before the first frame, the most of any of the files
            (``StreamInfo.decode_delay``).
        tag: stream tag of the codec, if it needs one.
        program: the ffmpeg to run.
    """
    ticks = frame_ticks(fps)
    # Files are joined only where their decoder configuration is the same, so no packet has to be converted.
    limits = INPUT_LIMITS | {"format_whitelist": ",".join(("concat", *DEMUXERS))}
    source = ffmpeg.input("pipe:0", f="concat", safe=0, auto_convert=0, **limits)
    stamps = f"setts=pts=round(PTS/{ticks})*{ticks}:dts=(N-{delay})*{ticks}:duration={ticks}"
    return arguments(_copied(source, stamps, fps, output, tag), program)


def compile_cut(
    path: str,
    *,
    first: int,
    packets: int,
    fps: Fraction,
    output: str,
    tag: str | None = None,
    program: str = "ffmpeg",
) -> list[str]:
    """Compile the argument list that copies packets of a file, in the time base of :func:`compile_command`.

    The file is read from its start: seeking in a file with B-frames may land behind what is sought.

    Args:
        path: the file.
        first: the first packet, in the order they are stored in; the frame has to be a key frame.
        packets: how many.
        fps: its frame rate.
        output: path of the result.
        tag: the stream tag it has.
        program: the ffmpeg to run.
    """
    outside = f"lt(n\\,{first})+gte(n\\,{first + packets})"
    moved = "setts=pts=PTS-STARTPTS:dts=DTS-STARTPTS"
    source = file_input(path, copyts=None)
    return arguments(_copied(source, f"noise=drop={outside},{moved}", fps, output, tag), program)


def compile_fed_packets(
    codec: Literal["h264", "hevc"], *, fps: Fraction, output: str, tag: str | None, program: str = "ffmpeg"
) -> list[str]:
    """Compile the argument list that copies packets from standard input into a file, frame i at i / fps.

    Args:
        codec: of the packets, one frame each, in the order they are shown, with start codes (Annex B).
        fps: frames a second.
        output: path of the result.
        tag: the stream tag it gets.
        program: the ffmpeg to run.
    """
    source = ffmpeg.input("pipe:0", f=codec, framerate=str(fps))
    # In ticks of a stream without a container, far finer than the file's: rounding leaves no trace.
    stamp = f"round(N*{fps.denominator}/{fps.numerator}/TB)"
    stamps = f"setts=pts={stamp}:dts={stamp}:duration=round({fps.denominator}/{fps.numerator}/TB)"
    return arguments(_copied(source, stamps, fps, output, tag), program)


def _copied(source: Any, bitstream_filters: str, fps: Fraction, output: str, tag: str | None) -> Any:
    container = {k: v for k, v in CONTAINER_OPTIONS.items() if k not in ("flags:v", "fps_mode")}
    return ffmpeg.output(
        source["v:0"],
        file_url(output),
        **container,
        **_time_base(fps),
        **{"c": "copy", "bsf:v": bitstream_filters},
        **({"tag:v": tag} if tag else {}),
    )
