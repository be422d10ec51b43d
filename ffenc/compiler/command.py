"""The FFmpeg argument lists for encoding, built with ffmpeg-python."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

import ffmpeg
from msgspec import Struct, field

from ffenc.arguments import check_kind
from ffenc.codecs.codec import Codec
from ffenc.codecs.options import CONTAINER_OPTIONS, encoder_options
from ffenc.codecs.pixel_formats import pixel_format
from ffenc.codecs.suggest import accepted
from ffenc.codecs.table import CODECS, codec_for
from ffenc.compiler.colour import COLOUR_TAGS, RGB_TO_YUV, rgb_conversion
from ffenc.compiler.frames import FRAME_FORMATS, Excerpt, FrameFormat, SampleTap, is_depth, is_encoded
from ffenc.compiler.inputs import arguments, excerpted, file_url, raw_output, time_base
from ffenc.config.encoder import VideoEncoderConfig
from ffenc.config.framerate import fps_text, parse_fps
from ffenc.config.transform import Geometry, Transform
from ffenc.errors import ConfigError
from ffenc.spelling import argument

_LONGEST_FRAGMENT = 60.0  # seconds
# Flags for scaling in RGB: without them, swscale would halve the chroma resolution of RGB on the way.
_SCALING = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"


class VideoInput(Struct, frozen=True):
    """Frames of a video file as the input of an encode.

    Attributes:
        path: the file.
        excerpt: the frames to encode.
        conversion: options of the colour conversion, see :func:`rgb_conversion`; None: depth, samples are not
            converted.
        tags: colour tags of the result, see :func:`kept_tags`; they also determine its matrix and range.
    """

    path: str
    excerpt: Excerpt
    conversion: Mapping[str, str] | None
    tags: Mapping[str, str] = field(default_factory=lambda: COLOUR_TAGS)


def check_size(
    config: VideoEncoderConfig,
    width: int,
    height: int,
    transform: Transform | None = None,
    camera: str | None = None,
) -> None:
    """Check that the encoder and the pixel format's chroma subsampling support a frame size.

    Args:
        config: the settings.
        width, height: size of the encoded frames.
        transform: what gave them this size, for advice.
        camera: name of the camera, if there are others, whose frames the advice must not change.

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
        even = max(width - width % fmt.x_step, fmt.x_step), max(height - height % fmt.y_step, fmt.y_step)
        raise ConfigError(
            f"{width}x{height} frames cannot be stored as {config.pix_fmt}: it halves the chroma planes, so "
            f"the size must be even. {_even_size(*even, transform, camera)}, or use a pix_fmt that keeps "
            "full chroma: yuv444p (h264, hevc, libaom-av1 or ffv1; libsvtav1 has none)"
        )


def _even_size(width: int, height: int, transform: Transform | None, camera: str | None) -> str:
    """Return what to do for frames of an even size."""
    resize = argument("resize", f"{width}x{height}", camera=camera)
    if transform is not None and transform.resize is not None:  # the last step that sets a size
        return f"Resize the frames to an even size ({resize})"
    x, y = transform.crop[:2] if transform is not None and transform.crop is not None else (0, 0)
    if transform is not None and transform.rotate in (90, 270):  # after the crop
        width, height = height, width
    crop = argument("crop", f"{width}x{height}+{x}+{y}", camera=camera)
    pad = argument("pad", True, camera=camera)
    return f"Crop, resize or pad the frames ({crop}, {resize}, or {pad})"


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


def _check_rate(codec: Codec, rate: Fraction) -> None:
    if codec.max_fps is None or rate <= codec.max_fps:
        return
    others = [
        row.name for row in CODECS.values() if not row.hardware and (not row.max_fps or rate <= row.max_fps)
    ]
    raise ConfigError(
        f"{fps_text(rate)} frames per second cannot be encoded with {codec.name}: {codec.encoder} takes at "
        f"most {codec.max_fps}; {', '.join(others)} can encode this rate"
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
    """Compile the argument list that encodes frames from standard input or a video file to one MP4 file.

    Args:
        config: the camera's encoder settings.
        width, height: frame size in pixels.
        fps: frames per second; the file's time base (:func:`~ffenc.config.framerate.time_scale`) makes every
            frame's time an exact integer.
        output: path of the result.
        frames: format of the frames, one of :data:`FRAME_FORMATS`: ``png`` or ``jpeg`` for encoded images
            back to back, ``rgb24`` and others for raw pixels, ``gray12le`` or ``gray16le`` for raw depth,
            whose samples are stored unchanged.
        video: encode frames of this file instead of standard input; ``frames`` then only determines whether
            they are depth. Frame i of the excerpt is stored at i / fps, whatever its time was.
        transform: changes of the frames before encoding. For depth it only determines the size: depth samples
            are transformed before they are written to the pipe.
        encoder: the codec that ``vcodec="auto"`` stands for on the machine that runs the command.
        encoder_threads: number of threads of the encoder, 1 or more; None: the encoder's default.
        tap: also write sampled frames to standard output.
        fragment_seconds: write the file in fragments of this many seconds, more than 0. Such a file can be
            read up to its last complete fragment while it grows and after the program was killed, and is then
            joined (:func:`compile_join`) into one with an index. None: write a file with an index.
        program: the ffmpeg to run.

    Returns:
        The arguments, beginning with the program. The same input gives the same list on any machine.

    Raises:
        ConfigError: settings that cannot be encoded: an odd size with subsampled chroma, a pixel format that
            the hardware does not support, ``auto`` without ``encoder``, or a setting without effect.
    """
    what = "a VideoEncoderConfig or DepthEncoderConfig"
    check_kind("config", config, VideoEncoderConfig, what, optional=False)
    check_kind("transform", transform, Transform, "a Transform")
    for name, pixels in (("width", width), ("height", height)):
        check_kind(name, pixels, Integral, "a whole number of pixels", optional=False)
    if frames not in FRAME_FORMATS:
        raise ConfigError(f"frames={frames!r} is not known{accepted(frames, FRAME_FORMATS)}")
    if is_depth(frames) and config.pix_fmt != frames:
        raise ConfigError(f"pix_fmt={config.pix_fmt!r} would change {frames} depth; it has to be {frames!r}")
    codec = codec_for(config.vcodec, encoder)
    config = config.resolve(encoder)
    rate = parse_fps(fps)
    geometry = transform.of(width, height) if transform is not None else None
    stored = (geometry.width, geometry.height) if geometry is not None else (width, height)
    check_size(config, *stored, transform)
    _check_rate(codec, rate)
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
        rate_options = _excerpt_options(video.excerpt.frames, rate)
    if geometry is not None and not is_depth(frames):
        source = _moved(source, geometry) if video is not None else in_rgb(source, geometry, fmt.bits)
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
        **time_base(rate),
        **rate_options,
        **{"c:v": codec.encoder},
        **({"tag:v": codec.tag} if codec.tag else {}),
        **options,
    )
    if tap is not None:
        assert samples is not None
        result = ffmpeg.merge_outputs(result, tap_output(samples, tap))
    return arguments(result, program, *codec.program_options)


def _excerpt_options(frames: int, rate: Fraction) -> dict[str, Any]:
    """Return the options of the output that give an excerpt its number of frames and its rate."""
    options: dict[str, Any] = {"enc_time_base": f"{rate.denominator}:{rate.numerator}", "frames:v": frames}
    if frames > 1:
        # The last frame would keep its duration in the source file, which changes the average rate. It gets
        # the duration of the packet before it, because builds differ in the time base they count in here.
        first = "1" if rate.denominator == 1 else "DURATION"
        options["bsf:v"] = f"setts=pts=PTS:dts=DTS:duration=if(N\\,DTS-PREV_INDTS\\,{first})"
    return options


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
    """Compile the argument list that writes the samples passed to the encoder, raw, to standard output.

    A lossless stream has to decode to these samples. Arguments as for :func:`compile_command`.
    """
    geometry = transform.of(width, height) if transform is not None else None
    if geometry is not None and is_depth(frames):
        width, height = geometry.width, geometry.height
    source = fed_frames(frames, width, height, parse_fps(fps), None)
    fmt = pixel_format(config.pix_fmt)
    if geometry is not None and not is_depth(frames):
        source = in_rgb(source, geometry, fmt.bits)
    video = _convert(source, codec_for(config.vcodec), config, frames)
    return arguments(raw_output(video, fmt.compared), program)


def compile_pictures(frames: FrameFormat, width: int, height: int, *, program: str = "ffmpeg") -> list[str]:
    """Compile the argument list that converts frames from standard input to raw rgb24 on standard output.

    Args:
        frames: format of the frames.
        width, height: size of raw frames in pixels.
        program: the ffmpeg to run.
    """
    source = fed_frames(frames, width, height, Fraction(1), None)
    stored = frames if frames in ("yuyv422", "uyvy422") else "yuvj420p" if frames == "jpeg" else "rgb24"
    conversion = rgb_conversion(stored, None, "pc" if frames == "jpeg" else None)
    return arguments(raw_output(source.filter("scale", **conversion), "rgb24"), program)


def in_rgb(source: Any, geometry: Geometry, bits: int) -> Any:
    """Convert frames to RGB and transform them. One scaler accepts images of different pixel formats."""
    frames = source.filter("scale", flags=_SCALING).filter("format", "rgb48le" if bits > 8 else "rgb24")
    return _padded(_moved(frames, geometry), geometry)


def _moved(frames: Any, geometry: Geometry) -> Any:
    """Crop, rotate, flip and scale frames in their own pixel format."""
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


def fed_frames(
    frames: FrameFormat, width: int, height: int, rate: Fraction, threads: int | None, **options: Any
) -> Any:
    """Return the input of frames from standard input, with their colour channels in the right order.

    Args:
        frames: format of the frames.
        width, height: size of raw frames in pixels.
        rate: frames per second.
        threads: number of threads of the image decoder; None: FFmpeg's default.
        options: further options of the input.
    """
    source = ffmpeg.input("pipe:0", **options, **_input_options(frames, width, height, rate, threads))
    if options:
        source = source["v:0"]
    if frames.startswith("bayer"):  # converted directly to YUV, a mosaic has other colours
        return source.filter("format", "rgb24")
    if not frames.endswith("-bgr"):
        return source
    # A scaler accepts images of different pixel formats. The planes of gbrp are green, blue, red.
    return source.filter("scale", flags=_SCALING).filter("format", "gbrp").filter("shuffleplanes", 0, 2, 1)


def _input_options(
    frames: FrameFormat, width: int, height: int, rate: Fraction, threads: int | None
) -> dict[str, Any]:
    """Return the input options for frames from standard input."""
    # Frames are encoded as stored, whatever an EXIF tag says, because LeRobot's reader ignores the tag too.
    options: dict[str, Any] = {"framerate": str(rate), "noautorotate": None}
    if not is_encoded(frames):
        options |= {"f": "rawvideo", "pix_fmt": frames, "video_size": (width, height)}
    else:
        # A damaged image must stop the run; by default FFmpeg shows what it could decode and continues.
        # Images of one stream may change between gray, palette and alpha. Without reinit_filter=0, each
        # change would restart the filters, which would count frames from 0 and drop queued frames of the
        # other input.
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
    """Return the pixel format that the encoder receives: the config's, or what its device uses for it.

    Raises:
        ConfigError: the device does not support the config's pixel format.
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
    """Convert frames to the encoder's format and tag them with the conversion used."""
    fmt = pixel_format(config.pix_fmt)
    if not is_depth(frames):
        # No effect if matrix, range and format are those of the source.
        scaled = {**(conversion or {}), **({} if fmt.rgb else RGB_TO_YUV)}
        if conversion and not fmt.rgb:
            scaled |= {"out_color_matrix": conversion["in_color_matrix"], "out_range": tags["range"]}
            # Without these flags FFmpeg converts RGB up to three levels too dark.
            scaled["flags"] = "bicubic+accurate_rnd+full_chroma_int"
        source = source.filter("scale", **scaled) if scaled else source
    video = source.filter("format", _memory_format(codec, config))
    if fmt.rgb:
        return video
    # Depth has no colours, only a range. LeRobot's is tv; no sample is changed for it.
    shown = {"range": COLOUR_TAGS["range"]} if is_depth(frames) else tags
    return video.filter("setparams", **shown)


def _fragments(seconds: float) -> dict[str, Any]:
    if not isinstance(seconds, Real) or not 0 < seconds <= _LONGEST_FRAGMENT:
        raise ConfigError(
            f"fragment_seconds={seconds!r} is not accepted",
            expected=f"more than 0, {_LONGEST_FRAGMENT} at most",
        )
    return {
        # delay_moov: the header is written with the first fragment, when the reorder delay is known;
        # otherwise all times would be shifted by that delay.
        "movflags": "+empty_moov+delay_moov+default_base_moof",
        "frag_duration": round(seconds * 1_000_000),
        "flush_packets": 1,  # complete fragments are in the file, not in the program's memory
    }


def _video_source(video: VideoInput, rate: Fraction, threads: int | None) -> Any:
    """Select frames of a file by their times and put them on the grid."""
    source, _ = excerpted(video.path, video.excerpt, {} if threads is None else {"threads": threads})
    source = source.filter("settb", f"1/{rate.numerator}").filter("setpts", f"N*{rate.denominator}")
    if video.excerpt.frames == 1:  # there is no packet before it, so the filter sets its duration
        source = source.filter("fps", f"{rate.numerator}/{rate.denominator}", start_time=0)
    # Cameras have square pixels, which some containers state and others do not. No result states it, so that
    # the files of one dataset can be joined.
    return source.filter("setsar", "0")


def tap_output(samples: Any, tap: SampleTap) -> Any:
    """Return the second output of a program: samples of its frames."""
    return ffmpeg.output(sampled(samples, tap), "pipe:1", f="rawvideo", fps_mode="passthrough")


def sampled(video: Any, tap: SampleTap) -> Any:
    """Select and shrink the frames for statistics, see :class:`~ffenc.compiler.frames.SampleTap`."""
    picked = video.filter("select", f"not(mod(n,{tap.step}))") if tap.step > 1 else video
    return picked.filter("scale", tap.width, tap.height, flags="neighbor").filter("format", "rgb24")
