"""What depth loses by its settings, measured before a job starts: by lossy encoding, and by the range."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from ffenc.codecs.pixel_formats import pixel_format
from ffenc.compiler.decode import compile_decode
from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.errors import FfencWarning, FfmpegError, VerificationError
from ffenc.ffmpeg.process import run_fed
from ffenc.ffmpeg.toolchain import installed
from ffenc.frames.depth import MAX_CODE, DepthQuantizer, Unit
from ffenc.frames.depth_images import Depth, depth_unit, samples_in_mm
from ffenc.frames.encoding import Encoding
from ffenc.spelling import argument, call
from ffenc.temporary import temporary_folder

_OUTSIDE = 0.25  # share of the depth outside the stored range from which on a warning is due
_COARSE_MM = 20  # distance of neighbouring codes; sensors measure depth below 5 m more accurately
_EXAMINED = 1 << 16  # pixels: all of a large map would take longer than a camera's next frame
_SATURATED_MM = 65535  # how sensors and simulators write "too far"


def warn_of_range(config: VideoEncoderConfig, maps: Sequence[Depth], unit: Unit | None) -> None:
    """Warn if the stored range does not fit the depth; arguments as for :func:`range_problem`.

    Warns:
        FfencWarning: it does not fit.
    """
    problem = range_problem(config, maps, unit)
    if problem is not None:
        warnings.warn(problem, FfencWarning, stacklevel=3)


def range_problem(config: VideoEncoderConfig, maps: Sequence[Depth], unit: Unit | None) -> str | None:
    """Return why the stored range does not fit the depth, such as a range in millimetres instead of metres.

    Args:
        config: the encoder settings; None is returned for other settings than those of 12-bit codes.
        maps: some depth maps.
        unit: their unit; None: integers are millimetres, floats metres.

    Returns:
        A sentence if the codes are far apart, or a quarter of the depth or more is outside the range. Pixels
        without depth and saturated ones are not counted. None if the range fits.
    """
    if not isinstance(config, DepthEncoderConfig) or config.pix_fmt != "gray12le":
        return None
    size = sum(one.size for one in maps)
    step = size // _EXAMINED | 1  # odd, so that not the same few columns of each row are taken
    depth = np.concatenate([one.reshape(-1)[::step] for one in maps])
    unit = unit or depth_unit(depth)
    scale = 1000 if unit == "mm" else 1
    # In float32, as it is quantised: 1.7 m in float32 is not beyond a depth_max of 1.7.
    with np.errstate(over="ignore"):
        depth = depth.astype(np.float32)
    ends = np.array([config.depth_min * scale, config.depth_max * scale], np.float32)
    depth = depth[np.isfinite(depth) & (depth > 0) & (depth < np.float32(_SATURATED_MM / 1000 * scale))]
    if not depth.size:
        return None
    # Without `keep`, in which code 0 is not the depth next to code 1.
    quantizer = replace(DepthQuantizer.from_config(config), invalid="clip")
    outside = float(((depth < ends[0]) | (depth > ends[1])).mean())
    steps = np.gradient(samples_in_mm(np.arange(MAX_CODE + 1), quantizer))
    middle = int(np.median(quantizer.quantize(depth[None], input_unit=unit)))
    if outside >= _OUTSIDE:
        problem = f"{outside:.0%} of the depth is outside the range, and is stored as its nearest end"
    elif steps[middle] > _COARSE_MM:
        problem = f"most of the depth is stored in steps of {steps[middle]:.0f} mm or more"
    else:
        return None
    return (
        f"in the first frames, {problem}. The range is depth_min={config.depth_min:g} to "
        f"depth_max={config.depth_max:g} metres, and the unit of the frames is {unit}; `ffenc tune` suggests "
        "a range"
    )


def warn_of_loss(encoding: Encoding, frames: Sequence[bytes]) -> None:
    """Warn of the expected error if an encoding of depth is lossy.

    Args:
        encoding: the encoding; nothing is done for colours or a lossless one.
        frames: some frames, as raw samples for the encoder.

    Warns:
        FfencWarning: the greatest and the mean error of these frames in millimetres.

    Raises:
        VerificationError: another number of frames is decoded.
    """
    config = encoding.config
    if not encoding.depth or encoding.lossless or not isinstance(config, DepthEncoderConfig):
        return
    quantizer = DepthQuantizer.from_config(config) if config.pix_fmt == "gray12le" else None
    measured = _measured(encoding, frames, quantizer)
    expected = "the error cannot be measured here"
    if measured is not None:
        largest, mean = measured
        expected = f"the error is up to {largest:.0f} mm, {mean:.2f} mm on average"
    beside = ""
    if quantizer is not None:
        beside = ", in addition to the quantiser's steps of {:.1f} to {:.1f} mm".format(*quantizer.steps_mm())
    warnings.warn(
        f"{encoding.width}x{encoding.height} depth is encoded with loss "
        f"({encoding.codec.encoder}): in the {len(frames)} frames of a trial, {expected}{beside}. "
        "The default settings (hevc, "
        "extra_options {x265-params: lossless=1}) are lossless; "
        f"{call('verify_dataset', path='OUT', against='SRC', max_depth_error='MM')} measures every frame",
        FfencWarning,
        stacklevel=3,
    )


def _measured(
    encoding: Encoding, frames: Sequence[bytes], quantizer: DepthQuantizer | None
) -> tuple[float, float] | None:
    """Return the greatest and the mean error in millimetres; None if no program here decodes the result."""
    with temporary_folder() as folder:
        output = Path(folder) / "trial.mp4"
        run_fed(encoding.command(output), frames)
        programs = [encoding.toolchain.ffmpeg, *(f.path for f in installed("ffmpeg") if not f.fault)]
        for program in dict.fromkeys(programs):
            shown = bytearray()
            command = compile_decode(
                str(output), pix_fmt=pixel_format(encoding.config.pix_fmt).stored, program=program
            )
            try:
                run_fed(command, [], on_output=shown.extend)
            except FfmpegError as error:
                if error.unable:
                    raise
                continue
            given = np.frombuffer(b"".join(frames), "<u2")
            found = np.frombuffer(bytes(shown), "<u2")
            if len(found) != len(given):
                size = encoding.width * encoding.height
                raise VerificationError(
                    f"{program} decodes {len(found) // size} of the {len(frames)} frames that "
                    f"{encoding.codec.encoder} encoded in a trial; use another program "
                    f"({argument('ffmpeg')}) or other settings"
                )
            if quantizer is not None:
                found = found.clip(0, MAX_CODE)
            errors = np.abs(samples_in_mm(found, quantizer) - samples_in_mm(given, quantizer))
            return float(errors.max()), float(errors.mean())
    return None
