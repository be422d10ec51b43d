"""The FFmpeg argument lists ffenc runs, built through ffmpeg-python."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import ffmpeg

from ffenc.codecs.options import CONTAINER_OPTIONS, encoder_options
from ffenc.codecs.pixel_formats import pixel_format
from ffenc.codecs.suggest import accepted
from ffenc.codecs.table import Codec, codec_for
from ffenc.config.encoder import VideoEncoderConfig
from ffenc.config.framerate import parse_fps
from ffenc.errors import ConfigError, FfencWarning

# How frames come through the pipe: encoded images as they are, or raw pixels.
FrameFormat = Literal["png", "jpeg", "rgb24"]
FRAME_FORMATS: tuple[FrameFormat, ...] = ("png", "jpeg", "rgb24")

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


def file_url(path: str) -> str:
    """Return a path as a ``file:`` URL, in which ``-``, ``%d`` and ``:`` are only characters of a name."""
    return path if path.startswith("pipe:") else f"file:{path}"


def check_size(config: VideoEncoderConfig, width: int, height: int) -> None:
    """Refuse a frame size that the pixel format's chroma subsampling cannot hold.

    Raises:
        ConfigError: width or height is not positive or not a multiple of the chroma step.
    """
    if width < 1 or height < 1:
        raise ConfigError(f"{width}x{height} is not a frame size")
    fmt = pixel_format(config.pix_fmt)
    if width % fmt.x_step or height % fmt.y_step:
        crop = width - width % fmt.x_step, height - height % fmt.y_step
        even = f"{max(crop[0], fmt.x_step)}x{max(crop[1], fmt.y_step)}"
        raise ConfigError(
            f"{width}x{height} frames cannot be stored as {config.pix_fmt}: it halves the chroma planes, so "
            f"the size must be even. Crop or pad the frames to {even}, or use a pix_fmt that keeps full "
            "chroma: yuv444p (h264, hevc, libaom-av1 or ffv1; libsvtav1 has none)"
        )


def compile_command(
    config: VideoEncoderConfig,
    *,
    width: int,
    height: int,
    fps: int | float | str | Fraction,
    output: str,
    frames: FrameFormat = "png",
    encoder: str | None = None,
    encoder_threads: int | None = None,
    tap: SampleTap | None = None,
    program: str = "ffmpeg",
) -> list[str]:
    """Compile the argument list that encodes frames from standard input into one MP4 file.

    Args:
        config: the camera's encoder settings.
        width, height: frame size in pixels.
        fps: frames a second; the stream's time base makes every frame's time an exact integer.
        output: path of the result.
        frames: ``png`` or ``jpeg`` for encoded images back to back, ``rgb24`` for raw pixels.
        encoder: what ``vcodec="auto"`` stands for on the machine that will run this.
        encoder_threads: threads the encoder may use, 1 or more; None leaves it to the encoder.
        tap: also write sampled frames to standard output.
        program: the ffmpeg to run.

    Returns:
        The arguments, the program first. The same input gives the same list on any machine.

    Raises:
        ConfigError: settings that cannot be encoded: an odd size with subsampled chroma, a pixel format the
            hardware does not take, ``auto`` without ``encoder``.

    Warns:
        FfencWarning: for each setting that has no effect.
    """
    if frames not in FRAME_FORMATS:
        raise ConfigError(f"frames={frames!r} is not known{accepted(frames, FRAME_FORMATS)}")
    codec = codec_for(config.vcodec, encoder)
    config = config.resolve(encoder)
    rate = parse_fps(fps)
    check_size(config, width, height)
    options = encoder_options(codec, config, encoder_threads)
    if codec.needs_bit_rate and not any(key.split(":")[0] in ("b", "vb") for key in options.values):
        raise ConfigError(
            f"{codec.name} has no quality option and would use FFmpeg's 200 kb/s: give a bit rate, "
            'e.g. extra_options={"b:v": "4M"}'
        )
    for text in options.warnings:
        warnings.warn(text, FfencWarning, stacklevel=2)

    source = ffmpeg.input("pipe:0", **_input_options(frames, width, height, rate, encoder_threads))
    samples = None
    if tap is not None:
        split = source.filter_multi_output("split")
        source, samples = split[0], split[1]
    video = _convert(source, codec, config)
    result = ffmpeg.output(
        video,
        file_url(output),
        **CONTAINER_OPTIONS,
        **_time_base(rate),
        **{"c:v": codec.encoder},
        **({"tag:v": codec.tag} if codec.tag else {}),
        **options.values,
    )
    if tap is not None:
        assert samples is not None
        result = ffmpeg.merge_outputs(result, _tap_output(samples, tap))
    return [
        str(part)
        for part in ffmpeg.compile(
            result, cmd=[program, *PROGRAM_OPTIONS, *codec.program_options], overwrite_output=True
        )
    ]


def _input_options(
    frames: FrameFormat, width: int, height: int, rate: Fraction, threads: int | None
) -> dict[str, Any]:
    # Frames are shown as they are stored, as LeRobot's reader has them, whatever an EXIF tag says.
    options: dict[str, Any] = {"framerate": str(rate), "noautorotate": None}
    if frames == "rgb24":
        options |= {"f": "rawvideo", "pix_fmt": "rgb24", "video_size": (width, height)}
    else:
        # A damaged image must stop the run; by default FFmpeg shows what it could decode and goes on.
        options |= {
            "f": "image2pipe",
            "c:v": "mjpeg" if frames == "jpeg" else "png",
            "err_detect": "crccheck+explode",
        }
        if threads is not None:
            options["threads"] = threads
    return options


def _convert(source: Any, codec: Codec, config: VideoEncoderConfig) -> Any:
    """The filters that bring frames into the encoder's format and tag them with the conversion used."""
    fmt = pixel_format(config.pix_fmt)
    if codec.upload and fmt.name not in codec.upload:
        raise ConfigError(
            f"pix_fmt={fmt.name!r} is not one {codec.name} takes; accepted: {', '.join(codec.upload)}"
        )
    memory_format = codec.upload.get(fmt.name, fmt.name)
    if fmt.rgb:
        video = source.filter("format", memory_format)
    else:
        video = (
            source.filter("scale", **_RGB_TO_YUV)
            .filter("format", memory_format)
            .filter("setparams", **COLOUR_TAGS)
        )
    return video.filter("hwupload") if codec.hwupload else video


def _time_base(rate: Fraction) -> dict[str, Any]:
    # One tick is 1/numerator second, a frame takes denominator ticks. The movie header has the same scale:
    # edit lists are written in it, and with the default of 1/1000 they would cut a frame off.
    return {"video_track_timescale": rate.numerator, "movie_timescale": rate.numerator}


def _tap_output(samples: Any, tap: SampleTap) -> Any:
    picked = samples.filter("select", f"not(mod(n,{tap.step}))") if tap.step > 1 else samples
    small = picked.filter("scale", tap.width, tap.height, flags="neighbor").filter("format", "rgb24")
    return ffmpeg.output(small, "pipe:1", f="rawvideo", fps_mode="passthrough")


def compile_join(
    pieces_fps: Fraction, *, output: str, tag: str | None = None, program: str = "ffmpeg"
) -> list[str]:
    """Compile the argument list that joins encoded files back to back without re-encoding.

    The list of files is read from standard input in the concat demuxer's format. That demuxer rounds each
    file's start to a microsecond, so every packet is put back on its exact place on the frame grid.

    Args:
        pieces_fps: frame rate of all the files; their time base is the one :func:`compile_command` gives.
        output: path of the result.
        tag: stream tag of the codec, if it needs one.
        program: the ffmpeg to run.
    """
    ticks = pieces_fps.denominator
    source = ffmpeg.input("pipe:0", f="concat", safe=0, protocol_whitelist="file,pipe,fd")
    container = {k: v for k, v in CONTAINER_OPTIONS.items() if k not in ("flags:v", "fps_mode")}
    result = ffmpeg.output(
        source["v:0"],
        file_url(output),
        **container,
        **_time_base(pieces_fps),
        **{
            "c": "copy",
            "bsf:v": f"setts=pts=round(PTS/{ticks})*{ticks}:dts=round(DTS/{ticks})*{ticks}:duration={ticks}",
        },
        **({"tag:v": tag} if tag else {}),
    )
    return [
        str(part) for part in ffmpeg.compile(result, cmd=[program, *PROGRAM_OPTIONS], overwrite_output=True)
    ]
