"""The results of tuning as fields for JSON."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from ffenc.config.encoder import DepthEncoderConfig
from ffenc.ffmpeg.machine import cores
from ffenc.fields import plain_fields
from ffenc.quality.measure import plain
from ffenc.tune.candidates import (
    label,
    settings_of,
)
from ffenc.tune.depth import (
    depth_label,
)
from ffenc.tune.footage import Footage
from ffenc.tune.tuning import CameraTuning, Tuning


def machine_of(found: Tuning) -> dict[str, Any]:
    """Return the description of the machine and programs of the measurement."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores(),
        "ffmpeg": str(found.gauge.toolchain.version),
        "readers": [f"{one.name} {one.version}" for one in found.decoders],
    }


def _processor(listed: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = listed.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    # Linux lists no name for most ARM processors.
    return next(filter(None, (*names, platform.processor())), platform.machine())


def tuning_fields(found: Tuning) -> dict[str, Any]:
    """Return all results as plain values; infinity, for identical frames in dB, is None."""
    return {
        "source": str(found.source),
        "preset": found.preset,
        "target": str(found.target),
        "target_asked": found.asked,
        "metric": found.metric,
        "metrics": found.gauge.metric_fields(),
        "machine": machine_of(found),
        "seconds": round(found.seconds, 2),
        "stopped": found.stopped,
        "not_tried": found.left,
        "cameras": [_camera_fields(camera) for camera in found.cameras],
    }


def _camera_fields(camera: CameraTuning) -> dict[str, Any]:
    footage: Footage = camera.sample.footage
    choice = camera.recommendation
    return {
        "camera": footage.name,
        "key": footage.key,
        "depth": footage.depth,
        "width": footage.width,
        "height": footage.height,
        "fps": float(footage.fps),
        "stored": footage.stored,
        "source_bytes_per_frame": round(footage.bytes_per_frame, 1),
        "sample": [plain_fields(stretch) for stretch in camera.sample.stretches],
        "frames": len(camera.sample),
        "candidates": [_row_fields(camera, number) for number in range(len(camera.rows))],
        "shown": camera.shown,
        "not_here": camera.not_here,
        "range": None if camera.range is None else plain_fields(camera.range),
        "present_range": None if camera.present_range is None else plain_fields(camera.present_range),
        "recommendation": None
        if choice is None
        else {"candidate": choice.number, "meets_target": choice.meets, "reason": choice.reason},
    }


def _row_fields(camera: CameraTuning, number: int) -> dict[str, Any]:
    row = camera.rows[number]
    trial = row.trial
    config = row.config
    if isinstance(config, DepthEncoderConfig):
        lossless = bool((trial.depth or {})["lossless"])
        said, settings = depth_label(config, lossless=lossless), depth_settings(config)
    else:
        said, settings = label(config), settings_of(config)
    quality = {}
    for name in trial.quality.values:
        one = trial.quality.summary(name)
        stretch, episode, frame = camera.sample.place(one.frame)
        quality[name] = {
            "mean": plain(one.mean),
            "p5": plain(one.p5),
            "worst": plain(one.worst),
            "worst_frame": {"sample": one.frame, "stretch": stretch, "episode": episode, "frame": frame},
        }
    reads = {
        name: dict(times)
        | {
            "samples_per_second": {
                window: round(1 / times[window], 1) for window in ("random_1", "window_2", "window_6")
            }
        }
        for name, times in trial.decode.items()
    }
    return {
        "label": said,
        "settings": settings,
        "encoder": trial.encoder,
        "present": row.present,
        "pareto": number in camera.pareto,
        "bytes": trial.bytes,
        "bytes_per_frame": round(trial.bytes_per_frame, 1),
        "ratio": round(camera.sample.footage.bytes_per_frame / trial.bytes_per_frame, 2),
        "quality": quality,
        "values": {name: [plain(v) for v in values] for name, values in trial.quality.values.items()},
        "encode_fps": trial.encode_fps,
        "encode_fps_alone": row.alone,
        "encode_fps_together": row.together,
        "decode": reads,
        "depth": trial.depth,
        "cached": trial.cached,
        "seconds": round(row.seconds, 3),
    }


def depth_settings(config: DepthEncoderConfig) -> dict[str, Any]:
    """Return the fields of a preset's ``encoder`` for a depth camera."""
    fields = settings_of(config)
    if config.pix_fmt == "gray12le":
        names = ("depth_min", "depth_max", "shift", "use_log", "invalid")
        fields |= {name: getattr(config, name) for name in names}
    return fields
