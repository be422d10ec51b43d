"""Try settings of depth cameras: error in millimetres by distance, holes, and the range that is stored."""

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
from ffenc.fields import fields_of
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
_LEFT_OUT = 0.002  # share of the depths that a suggested range may leave out beside the base's
_WALL = 0.01  # share of the pixels that may come back as the end of a range that was not asked for
_WORTH = 0.9  # a range whose widest step is so much of another's is worth a change


def depth_range(sample: Sample) -> tuple[DepthHistory, DepthRange | None]:
    """Return which depths a sample has, and the range to store them in."""
    history = DepthHistory()
    for picture in sample.pictures:
        history.add(picture)
    return history, history.suggested()


def depth_candidates(base: DepthEncoderConfig, suggested: DepthRange | None) -> list[DepthEncoderConfig]:
    """Return the settings to try.

    Without loss in the base's range, in the suggested one, and there in even steps; exact millimetres; and
    with loss, to show what it does.
    """
    fields = ["depth_min", "depth_max", "shift", "use_log"]
    if base.vcodec == "hevc" and "preset" in base.given:
        fields.append("preset")  # speed against size is the user's choice for all of them
    shared = {name: getattr(base, name) for name in fields}
    found = [base, DepthEncoderConfig(**shared)]
    if suggested is not None:
        own = shared | {"depth_min": suggested.depth_min, "depth_max": suggested.depth_max}
        found += [DepthEncoderConfig(**own), DepthEncoderConfig(**own | {"use_log": False})]
    found.append(DepthEncoderConfig(vcodec="ffv1", pix_fmt="gray16le"))
    found += [DepthEncoderConfig(**shared, crf=crf, extra_options={}) for crf in _LOSSY_CRF]
    return list({repr(config): config for config in reversed(found)}.values())[::-1]


def depth_label(config: DepthEncoderConfig, *, lossless: bool) -> str:
    """Return settings in a few words: ``hevc lossless 0.01-10 m``."""
    kept = "lossless" if lossless else f"crf {config.crf}"
    if config.pix_fmt == "gray16le":
        return f"{config.vcodec} {kept} millimetres"
    steps = "" if config.use_log else " linear"
    return f"{config.vcodec} {kept} {config.depth_min:g}-{config.depth_max:g} m{steps}"


def prepared_depth(sample: Sample, config: DepthEncoderConfig, candidates: Sequence[Toolchain]) -> Encoding:
    """Choose the program for settings, by trying them with the sample's first maps.

    Raises:
        ConfigError, ToolchainError: they cannot be encoded here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FfencWarning)  # what is lost is in the result
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
    """Return the samples that are encoded of millimetres, ``(N, H, W)`` uint16."""
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
    """Measure settings on a depth camera's sample, or recall what was measured before.

    Arguments as for :func:`ffenc.tune.measure.try_candidate`.
    """
    config = encoding.config
    assert isinstance(config, DepthEncoderConfig)
    # torchcodec gives depth as colours of 8 bits, which is not how training reads it.
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
    """The errors as plain values; a band is ``{"from": metres, "to": metres, ...}``."""
    bands = [{"from": low, "to": high} | fields_of(errors) for low, high, errors in found.bands]
    return fields_of(found) | {"bands": bands}


def recommend_depth(
    rows: Sequence[tuple[DepthEncoderConfig, Trial]], suggested: DepthRange | None
) -> tuple[int, str]:
    """Return which of the settings to take, and why.

    Of those that lose nothing and that LeRobot reads, the suggested range where its steps are clearly finer
    than the base's, which is the first.
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
    # What is outside comes back as the range's end, as a wall: where there is a background, or a finer range
    # would leave out more, it is for the user to decide on.
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
