"""Measurement of whether this machine can record all cameras of a preset at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from ffenc.codecs.table import X264_PRESETS, codec_for
from ffenc.compiler.frames import is_depth, raw_format
from ffenc.config.encoder import VideoEncoderConfig
from ffenc.config.framerate import parse_fps
from ffenc.config.preset import CameraPreset, RobotPreset
from ffenc.errors import ConfigError, FfencError, FfencWarning
from ffenc.ffmpeg.machine import cores
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.encoding import Encoding
from ffenc.frames.load import HUNG, measure_load
from ffenc.frames.pattern import pattern_frames
from ffenc.frames.prepare import Absent, prepare

DEFAULT_SIZE = (640, 480)  # of a camera without a size in the preset
FULL_PACE = 2.0  # cameras are first fed at twice their rate, to measure the reserve
SPARE = 1.05  # below this at full pace, cameras are measured again at their own rate
KEPT_UP = 0.97  # of its own rate; slightly below 1, because a few seconds contain few frames
MAX_ROUNDS = 4  # of changes to try


class CameraVerdict(Struct, frozen=True):
    """The result of a camera while all were encoded.

    Attributes:
        camera: its name.
        encoding: its encoding on this machine; None: not possible.
        reason: why it cannot be encoded, or ended early; "" otherwise.
        factor: speed as a multiple of real time, at most 2.
        cpu: share of all cores that it needs in real time, 0..1 or more; undefined if factor is 0.
    """

    camera: str
    encoding: Encoding | None
    reason: str = ""
    factor: float = 0.0
    cpu: float = 0.0

    @property
    def keeps_up(self) -> bool:
        return not self.reason and self.factor >= KEPT_UP


class PresetVerdict(Struct, frozen=True):
    """Whether a preset can be recorded on this machine.

    Attributes:
        cameras: one verdict per camera.
        advice: camera -> changes of its encoder settings that were measured to be faster; empty if none are
            needed or none help.
        advised: the verdicts with these changes, empty without changes.
    """

    cameras: list[CameraVerdict]
    advice: dict[str, dict[str, Any]] = field(default_factory=dict)
    advised: list[CameraVerdict] = field(default_factory=list)

    @property
    def keeps_up(self) -> bool:
        return all(camera.keeps_up for camera in self.cameras)

    @property
    def can_be_encoded(self) -> bool:
        """Whether every camera can be encoded, at any speed."""
        return all(camera.encoding is not None for camera in self.cameras)


def check_preset(
    preset: RobotPreset,
    *,
    toolchains: Sequence[Toolchain],
    hardware: Sequence[str] = (),
    seconds: float = 3.0,
    on_step: Callable[[str], None] = lambda _: None,
) -> PresetVerdict:
    """Encode all cameras of a preset at once for a few seconds, at their size and rate, and measure each.

    If the machine is too slow, faster settings are tried in turn until it keeps up.

    Args:
        preset: the robot; a camera without a size is measured with 640x480.
        toolchains: the programs, best first.
        hardware: hardware encoders that run on this machine, for the advice.
        seconds: duration of each measurement.
        on_step: called with a description of the next step.

    Raises:
        ConfigError: the preset has no cameras.
    """
    if not preset.cameras:
        raise ConfigError(f"{preset.name} has no cameras")
    on_step("trying the encoders")
    verdicts = _prepared(preset, preset.cameras, toolchains)
    on_step(f"encoding {len(verdicts)} cameras at once")
    verdicts = _measured(verdicts, seconds)
    steps = {
        v.camera: faster_settings(preset.cameras[v.camera], v.encoding, hardware)
        for v in verdicts
        if v.encoding is not None
    }
    changes: dict[str, dict[str, Any]] = {}
    now = verdicts
    for _ in range(MAX_ROUNDS):
        chosen = _to_change(now, steps)
        if not chosen:
            break
        on_step(f"trying faster settings for {', '.join(chosen)}")
        before = now
        for name in chosen:
            # Settings that cannot be encoded here (a format that the hardware lacks) are skipped.
            while steps[name]:
                step = steps[name].pop(0)
                camera = {name: _changed(preset.cameras[name], step)}
                [verdict] = _prepared(preset, camera, toolchains)
                if verdict.encoding is not None:
                    changes[name] = step
                    now = [verdict if v.camera == name else v for v in now]
                    break
        if now is before:
            break
        now = _measured([CameraVerdict(v.camera, v.encoding, _lasting(v)) for v in now], seconds)
    if _slowest(now) <= _slowest(verdicts):
        return PresetVerdict(verdicts)
    return PresetVerdict(verdicts, changes, now)


def _lasting(verdict: CameraVerdict) -> str:
    """Return why a camera can never be encoded; one that failed in a single measurement may succeed later."""
    return verdict.reason if verdict.encoding is None else ""


def _slowest(verdicts: Sequence[CameraVerdict]) -> float:
    """Return the factor of the slowest camera that can be encoded, 0 if one has failed."""
    return min((0.0 if v.reason else v.factor for v in verdicts if v.encoding is not None), default=0.0)


def _to_change(
    verdicts: Sequence[CameraVerdict], steps: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[str]:
    """Return the cameras that are too slow, and the most expensive one; empty if all keep up."""
    short = [v.camera for v in verdicts if v.encoding is not None and not v.keeps_up]
    if not short:
        return []
    costly = max(verdicts, key=lambda verdict: verdict.cpu).camera
    return [v.camera for v in verdicts if steps.get(v.camera) and v.camera in (*short, costly)]


def _prepared(
    preset: RobotPreset, cameras: Mapping[str, CameraPreset], toolchains: Sequence[Toolchain]
) -> list[CameraVerdict]:
    verdicts = []
    absent: Absent = {}
    for name, camera in cameras.items():
        width, height = camera.width or DEFAULT_SIZE[0], camera.height or DEFAULT_SIZE[1]
        frames = raw_format(camera.encoder)
        size, transform = (width, height), camera.transform
        try:
            if transform is not None and camera.depth:
                size = transform.size(width, height)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FfencWarning)  # the table shows which program is used
                encoding = prepare(
                    camera.encoder,
                    pattern_frames(*size, frames)[:2],
                    width=width,
                    height=height,
                    fps=parse_fps(preset.fps),
                    frames=frames,
                    encoder_threads=preset.encoder_threads,
                    candidates=toolchains,
                    absent=absent,
                    transform=transform,
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
        # A camera fed too fast takes CPU time from the others, so this result alone proves nothing.
        pace = 1.0
        loads = measure_load(encodings, pace=pace, seconds=seconds)
    judged = []
    for verdict in verdicts:
        if verdict.encoding is not None:
            load = loads[verdict.camera]
            factor = load.fps / float(verdict.encoding.fps)
            reason = f"ran, and then {load.error.cause}" if load.error else ""
            if not reason and not load.fps and codec_for(verdict.encoding.config.vcodec).hardware:
                reason = HUNG
            cpu = load.cpu / max(factor, 1e-6) / cores() if factor else load.cpu / cores()
            verdict = replace(verdict, factor=min(factor, pace), cpu=cpu, reason=reason)
        judged.append(verdict)
    return judged


def faster_settings(
    camera: CameraPreset, encoding: Encoding, hardware: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return changes of a camera's encoder settings, each faster than the one before."""
    config = encoding.config
    if is_depth(encoding.frames):
        steps = [] if config.vcodec == "ffv1" else [_other_codec("ffv1")]
        if config.vcodec == "hevc" and config.preset != "ultrafast":
            steps.insert(0, {"preset": "ultrafast"})
    elif codec_for(config.vcodec).hardware:
        # The hardware supports no more streams or frames: use the CPU for this camera.
        steps = [_other_codec("h264", "veryfast"), _other_codec("h264", "ultrafast")]
    else:
        steps = [_other_codec(hardware[0])] if hardware else []
        if config.vcodec == "libsvtav1" and isinstance(config.preset, int) and config.preset < 12:
            steps.append({"preset": 12})
        speed = config.preset if config.preset in X264_PRESETS else "medium"
        own = X264_PRESETS.index(speed) if config.vcodec == "h264" else len(X264_PRESETS)
        for name in ("veryfast", "ultrafast"):
            if X264_PRESETS.index(name) < own:
                same = config.vcodec == "h264"
                steps.append({"preset": name} if same else _other_codec("h264", name))
    return [_needed(camera.encoder, step) for step in steps]


def _other_codec(vcodec: str, preset: str | None = None) -> dict[str, Any]:
    return {"vcodec": vcodec, "preset": preset, "extra_options": {}}


def _needed(config: VideoEncoderConfig, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes without removals of settings that are not set."""
    given = {"preset": "preset" in config.given, "extra_options": bool(config.extra_options)}
    return {name: value for name, value in changes.items() if value or given.get(name, True)}


def _changed(camera: CameraPreset, changes: Mapping[str, Any]) -> CameraPreset:
    if not changes:
        return camera
    return camera.replace(encoder=camera.encoder.replace(**changes))
