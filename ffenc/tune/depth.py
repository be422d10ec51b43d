"""Test settings of depth cameras: error in millimetres by distance, holes, and the stored range."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ffenc.config.encoder import DepthEncoderConfig
from ffenc.errors import FfencWarning
from ffenc.ffmpeg.cache import recall, remember
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.machine import file_identity, machine_facts
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.fields import plain_fields
from ffenc.frames.depth import MAX_CODE, DepthQuantizer
from ffenc.frames.depth_images import samples_in_mm
from ffenc.frames.encoding import Encoding
from ffenc.frames.prepare import prepare
from ffenc.frames.reader import VideoReader
from ffenc.quality.depth import DepthError, DepthErrors, DepthHistory, DepthRange
from ffenc.quality.measure import Quality
from ffenc.temporary import temporary_folder
from ffenc.tune.decoding import Decoder, read_times
from ffenc.tune.measure import Trial, encode_part
from ffenc.tune.sample import Sample

_KEPT = "tune depth 3"
_LOSSY_CRF = (10, 20, 30)
_LEFT_OUT = 0.002  # share of the depths that a suggested range may exclude in addition to the base's
_WALL = 0.01  # share of the pixels that a range chosen by ffenc may clip to its end
_WORTH = 0.9  # a range is recommended if its widest step is at most this share of the base's


def depth_range(sample: Sample) -> tuple[DepthHistory, DepthRange | None]:
    """Return the histogram of a sample's depths, and a suggested range."""
    history = DepthHistory()
    for picture in sample.pictures:
        history.add(picture)
    return history, history.suggested()


def depth_candidates(base: DepthEncoderConfig, suggested: DepthRange | None) -> list[DepthEncoderConfig]:
    """Return the settings to test.

    Lossless in the base's range, in the suggested range, and there with equal steps; exact millimetres; and
    lossy ones, to show their effect.
    """
    fields = ["depth_min", "depth_max", "shift", "use_log"]
    if base.vcodec == "hevc" and "preset" in base.given:
        fields.append("preset")  # the user's choice between speed and size applies to all
    shared = {name: getattr(base, name) for name in fields}
    found = [base, DepthEncoderConfig(**shared)]
    if suggested is not None:
        own = shared | {"depth_min": suggested.depth_min, "depth_max": suggested.depth_max}
        linear = {name: value for name, value in own.items() if name != "shift"} | {"use_log": False}
        found += [DepthEncoderConfig(**own), DepthEncoderConfig(**linear)]
    found.append(DepthEncoderConfig(vcodec="ffv1", pix_fmt="gray16le"))
    found += [DepthEncoderConfig(**shared, crf=crf, extra_options={}) for crf in _LOSSY_CRF]
    return list({repr(config): config for config in reversed(found)}.values())[::-1]


def depth_label(config: DepthEncoderConfig, *, lossless: bool) -> str:
    """Return settings in a short form: ``hevc lossless 0.01-10 m``."""
    kept = "lossless" if lossless else f"crf {config.crf}"
    if config.pix_fmt == "gray16le":
        return f"{config.vcodec} {kept} millimetres"
    steps = "" if config.use_log else " linear"
    return f"{config.vcodec} {kept} {config.depth_min:g}-{config.depth_max:g} m{steps}"


def prepared_depth(sample: Sample, config: DepthEncoderConfig, candidates: Sequence[Toolchain]) -> Encoding:
    """Choose the program for settings by encoding the sample's first depth maps.

    Raises:
        ConfigError, ToolchainError: the settings cannot be encoded on this machine.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FfencWarning)  # the loss is part of the result
        return prepare(
            config,
            [samples.tobytes() for samples in stored_depth(sample.pictures[:2], config)],
            width=sample.footage.width,
            height=sample.footage.height,
            fps=sample.footage.fps,
            frames="gray16le" if config.pix_fmt == "gray16le" else "gray12le",
            candidates=candidates,
        )


def _quantizer(config: DepthEncoderConfig) -> DepthQuantizer | None:
    return DepthQuantizer.from_config(config) if config.pix_fmt == "gray12le" else None


def stored_depth(pictures: npt.NDArray[np.uint16], config: DepthEncoderConfig) -> npt.NDArray[np.uint16]:
    """Return the samples to encode for depth in millimetres, ``(N, H, W)`` uint16."""
    quantizer = _quantizer(config)
    if quantizer is None:
        return np.ascontiguousarray(pictures)
    return quantizer.quantize(np.asarray(pictures), input_unit="mm")


def decoded_depth(path: Path, encoding: Encoding, frames: Sequence[int]) -> list[npt.NDArray[np.float64]]:
    """Return frames of an encoded file in millimetres."""
    assert isinstance(encoding.config, DepthEncoderConfig)
    quantizer = _quantizer(encoding.config)
    programs = encoding.toolchain
    with VideoReader(path, depth=False, ffmpeg=programs.ffmpeg, ffprobe=programs.ffprobe) as reader:
        return [_in_mm(samples, quantizer) for samples in reader.each(frames)]


def _in_mm(samples: npt.NDArray[np.uint16], quantizer: DepthQuantizer | None) -> npt.NDArray[np.float64]:
    codes = samples if quantizer is None else samples.clip(0, MAX_CODE)
    return samples_in_mm(codes.ravel(), quantizer).reshape(codes.shape)


def try_depth(
    sample: Sample,
    encoding: Encoding,
    decoders: Sequence[Decoder],
    *,
    cancellation: Cancellation | None = None,
) -> Trial:
    """Measure settings on a depth camera's sample, or return the result of an earlier run.

    The arguments are those of :func:`ffenc.tune.measure.try_candidate`.
    """
    config = encoding.config
    assert isinstance(config, DepthEncoderConfig)
    # torchcodec returns depth as 8-bit colours, which training does not use.
    readers = [decoder for decoder in decoders if decoder.name != "torchcodec"]
    key = [
        *(_KEPT, sample.digest, file_identity(encoding.toolchain.ffmpeg), machine_facts()),
        encoding.command(Path("trial.mp4"))[1:],
        repr(_quantizer(config)),
        [(one.name, one.version) for one in readers],
    ]
    found = recall(key)
    cached = found is not None
    if found is None:
        with temporary_folder() as folder:
            found = _measured(sample, encoding, config, readers, Path(folder), cancellation)
        remember(key, found)
    return Trial(
        *(found["bytes"], found["frames"], found["encode_fps"], Quality({})),
        *(found["decode"], found["encoder"], cached, found["depth"]),
    )


def _measured(
    sample: Sample,
    encoding: Encoding,
    config: DepthEncoderConfig,
    readers: Sequence[Decoder],
    folder: Path,
    cancellation: Cancellation | None,
) -> dict[str, Any]:
    quantizer = _quantizer(config)
    errors = DepthErrors(quantizer)
    size, seconds, longest = 0, 0.0, (0, folder)
    for number, (stretch, pictures) in enumerate(sample.parts()):
        output = folder / f"{number}.mp4"
        speed = encode_part(encoding.command(output), stored_depth(pictures, config), cancellation)
        seconds += stretch.frames / speed
        encoding.verify(output, stretch.frames)
        size += output.stat().st_size
        shown = decoded_depth(output, encoding, range(stretch.frames))
        for given, depth in zip(pictures, shown, strict=True):
            errors.add(np.asarray(given), depth)
        longest = max(longest, (stretch.frames, output))
    frames, path = longest
    return {
        "bytes": size,
        "frames": len(sample),
        "encode_fps": round(len(sample) / seconds, 2),
        "decode": {
            one.name: read_times(one, path, frames=frames, fps=encoding.fps, depth=True) for one in readers
        },
        "encoder": f"{encoding.codec.encoder} {encoding.encoder_version}".strip(),
        "depth": _fields(errors.result())
        | {
            "lossless": encoding.lossless,
            "steps_mm": list(quantizer.steps_mm()) if quantizer is not None else [1.0, 1.0],
        },
    }


def _fields(found: DepthError) -> dict[str, Any]:
    """Return the errors as plain values; a band is ``{"from": metres, "to": metres, ...}``."""
    bands = [{"from": low, "to": high} | plain_fields(errors) for low, high, errors in found.bands]
    return plain_fields(found) | {"bands": bands}


def recommend_depth(
    rows: Sequence[tuple[DepthEncoderConfig, Trial]], suggested: DepthRange | None
) -> tuple[int, str]:
    """Return the number of the recommended settings, and the reason.

    Only lossless settings that LeRobot can read are considered. The suggested range is recommended if its
    steps are clearly finer than those of the base, which is the first candidate.
    """
    kept = [
        n
        for n, (config, trial) in enumerate(rows)
        if (trial.depth or {})["lossless"] and config.pix_fmt == "gray12le"
    ]
    if not kept:
        number = min(range(len(rows)), key=lambda n: (rows[n][1].depth or {})["all"]["p99"])
        return number, "has the smallest error; nothing without loss runs here"
    first = kept[0]

    def widest(number: int) -> float:
        return float((rows[number][1].depth or {})["steps_mm"][1])

    base = rows[first][1].depth or {}
    # Depth outside the range is clipped to its end, as a wall. If there is a background, or a finer range
    # would exclude more depths, the user has to decide.
    own = [
        n
        for n in kept
        if suggested is not None
        and suggested.no_reading + suggested.saturated <= _WALL
        and suggested.saturated <= base["saturated"] + _LEFT_OUT
        and (rows[n][0].depth_min, rows[n][0].depth_max) == (suggested.depth_min, suggested.depth_max)
    ]
    finest = min(own, key=lambda n: (widest(n), rows[n][1].bytes), default=first)
    if finest != first and widest(finest) <= widest(first) * _WORTH:
        assert suggested is not None
        return finest, (
            f"is lossless except for quantiser steps of up to {widest(finest):.1f} mm, while the range of "
            f"{rows[first][0].depth_min:g}-{rows[first][0].depth_max:g} m has {widest(first):.1f} mm; "
            f"{suggested.saturated * 100:.2f} % of the depths are outside its range"
        )
    return first, f"is lossless except for quantiser steps of up to {widest(first):.1f} mm"
