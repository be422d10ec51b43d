"""Whether this machine can record all cameras of a preset at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ffenc.codecs.table import X264_PRESETS, codec_for
from ffenc.compiler.command import is_depth, raw_format
from ffenc.config.framerate import parse_fps
from ffenc.config.preset import CameraPreset, RobotPreset
from ffenc.errors import ConfigError, FfencError, FfencWarning
from ffenc.ffmpeg.machine import cores
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.encoding import Encoding
from ffenc.frames.load import measure_load
from ffenc.frames.pattern import pattern_frames
from ffenc.frames.prepare import Absent, prepare

DEFAULT_SIZE = (640, 480)  # of a camera whose preset says none
FULL_PACE = 2.0  # cameras are first fed at twice their speed, to see what is to spare
SPARE = 1.05  # less than this at full pace, and they are measured again at their own speed
KEPT_UP = 0.97  # of its own speed; a little below 1, because a few seconds hold few frames
MAX_ROUNDS = 3  # of changes that are tried


@dataclass(frozen=True)
class CameraVerdict:
    """What became of one camera while all were encoded.

    Attributes:
        camera: its name.
        encoding: how it is encoded here; None where it cannot be.
        reason: why it cannot be encoded, or ended before its time; "" otherwise.
        factor: how many times as fast as real time it was encoded, at most 2.
        cpu: share of all cores it needs in real time, 0..1 and more.
    """

    camera: str
    encoding: Encoding | None
    reason: str = ""
    factor: float = 0.0
    cpu: float = 0.0

    @property
    def keeps_up(self) -> bool:
        return not self.reason and self.factor >= KEPT_UP


@dataclass(frozen=True)
class PresetVerdict:
    """Whether a preset can be recorded here.

    Attributes:
        cameras: one verdict each.
        advice: camera -> changes of its encoder settings that were measured to be faster, best last; empty
            where none are needed or none help.
        advised: the verdicts with the advice applied, empty without.
    """

    cameras: list[CameraVerdict]
    advice: dict[str, dict[str, Any]] = field(default_factory=dict)
    advised: list[CameraVerdict] = field(default_factory=list)

    @property
    def keeps_up(self) -> bool:
        return all(camera.keeps_up for camera in self.cameras)


def check_preset(
    preset: RobotPreset,
    *,
    toolchains: Sequence[Toolchain],
    hardware: Sequence[str] = (),
    seconds: float = 3.0,
    on_step: Callable[[str], None] = lambda _: None,
) -> PresetVerdict:
    """Encode all cameras of a preset at once for a few seconds, at their size and speed, and judge each.

    Where the machine falls short, faster settings are tried in turn until it keeps up.

    Args:
        preset: the robot; a camera without a size is taken for 640x480.
        toolchains: the programs, best first.
        hardware: hardware encoders that run here, for the advice.
        seconds: how long to measure, each time.
        on_step: called with what is done next.

    Raises:
        ConfigError: the preset has no cameras.
    """
    if not preset.cameras:
        raise ConfigError(f"{preset.name} has no cameras")
    on_step("trying the encoders")
    verdicts = _prepared(preset, preset.cameras, toolchains)
    on_step(f"encoding {len(verdicts)} cameras at once")
    verdicts = _measured(verdicts, seconds)
    changes: dict[str, dict[str, Any]] = {}
    advised: list[CameraVerdict] = []
    now = verdicts
    for _ in range(MAX_ROUNDS):
        if all(camera.keeps_up for camera in now):
            break
        more = _faster(preset, now, changes, hardware)
        if not more:
            break
        changes |= more
        on_step(f"trying faster settings for {', '.join(more)}")
        cameras = {name: _changed(preset.cameras[name], changes.get(name, {})) for name in preset.cameras}
        now = advised = _measured(_prepared(preset, cameras, toolchains), seconds)
    return PresetVerdict(verdicts, changes if advised else {}, advised)


def _prepared(
    preset: RobotPreset, cameras: Mapping[str, CameraPreset], toolchains: Sequence[Toolchain]
) -> list[CameraVerdict]:
    verdicts = []
    absent: Absent = {}
    for name, camera in cameras.items():
        width, height = camera.width or DEFAULT_SIZE[0], camera.height or DEFAULT_SIZE[1]
        frames = raw_format(camera.encoder)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FfencWarning)  # which program serves is shown in a table
                encoding = prepare(
                    camera.encoder,
                    pattern_frames(width, height, frames)[:2],
                    width=width,
                    height=height,
                    fps=parse_fps(preset.fps),
                    frames=frames,
                    encoder_threads=preset.encoder_threads,
                    candidates=toolchains,
                    absent=absent,
                )
        except FfencError as error:
            verdicts.append(CameraVerdict(name, None, error.cause))
        else:
            verdicts.append(CameraVerdict(name, encoding))
    return verdicts


def _measured(verdicts: Sequence[CameraVerdict], seconds: float) -> list[CameraVerdict]:
    encodings = {v.camera: v.encoding for v in verdicts if v.encoding is not None}
    if not encodings:
        return list(verdicts)
    pace = FULL_PACE
    loads = measure_load(encodings, pace=pace, seconds=seconds)
    if any(loads[name].fps < SPARE * encoding.fps for name, encoding in encodings.items()):
        # What is fed faster than a camera takes the processor from the others, so this alone proves nothing.
        pace = 1.0
        loads = measure_load(encodings, pace=pace, seconds=seconds)
    judged = []
    for verdict in verdicts:
        if verdict.encoding is not None:
            load = loads[verdict.camera]
            factor = load.fps / float(verdict.encoding.fps)
            reason = f"ran, and then {load.error.cause}" if load.error else ""
            cpu = load.cpu / max(factor, 1e-6) / cores() if factor else load.cpu / cores()
            verdict = replace(verdict, factor=min(factor, pace), cpu=cpu, reason=reason)
        judged.append(verdict)
    return judged


def _faster(
    preset: RobotPreset,
    verdicts: Sequence[CameraVerdict],
    changes: Mapping[str, Mapping[str, Any]],
    hardware: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """Return the next faster settings of the cameras that fall short, and of the one that costs most."""
    costly = max(verdicts, key=lambda verdict: verdict.cpu)
    found = {}
    for verdict in verdicts:
        if verdict.encoding is not None and (verdict is costly or not verdict.keeps_up):
            camera = _changed(preset.cameras[verdict.camera], changes.get(verdict.camera, {}))
            step = _faster_settings(camera, verdict.encoding, hardware)
            if step:
                found[verdict.camera] = {**changes.get(verdict.camera, {}), **step}
    return found


def _faster_settings(camera: CameraPreset, encoding: Encoding, hardware: Sequence[str]) -> dict[str, Any]:
    config = encoding.config
    preset = config.preset
    if is_depth(encoding.frames):
        if config.vcodec == "hevc" and preset != "ultrafast":
            return {"preset": "ultrafast"}
        return {"vcodec": "ffv1", "preset": None, "extra_options": {}} if config.vcodec != "ffv1" else {}
    if codec_for(config.vcodec).hardware:
        return {}
    if hardware:
        return {"vcodec": hardware[0], "preset": None, "extra_options": {}}
    if config.vcodec == "libsvtav1" and isinstance(preset, int) and preset < 12:
        return {"preset": 12}
    speed = X264_PRESETS.index(preset) if preset in X264_PRESETS else X264_PRESETS.index("medium")
    if config.vcodec != "h264" or speed > X264_PRESETS.index("veryfast"):
        return {"vcodec": "h264", "preset": "veryfast", "extra_options": {}}
    return {"preset": "ultrafast"} if preset != "ultrafast" else {}


def _changed(camera: CameraPreset, changes: Mapping[str, Any]) -> CameraPreset:
    if not changes:
        return camera
    return CameraPreset(
        width=camera.width,
        height=camera.height,
        depth=camera.depth,
        encoder=camera.encoder.replace(**changes),
    )
