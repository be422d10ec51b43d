"""Robot-camera encoder settings compiled to FFmpeg command lines, run and verified. The public API."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ffenc.compiler.command import compile_command
    from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
    from ffenc.config.mapping import SourceMapping, load_mapping
    from ffenc.config.preset import RobotPreset, load_preset
    from ffenc.config.transform import Transform
    from ffenc.dataset.edit import edit_dataset
    from ffenc.dataset.edited import Edits
    from ffenc.dataset.executors.ray import RayExecutor
    from ffenc.dataset.job.plan import JobPlan
    from ffenc.dataset.job.run import run_plan
    from ffenc.dataset.job.summary import JobSummary
    from ffenc.dataset.merge import merge_datasets, plan_merge
    from ffenc.dataset.reencode import plan_reencode, reencode_dataset
    from ffenc.dataset.repair.run import Repair, repair_dataset
    from ffenc.dataset.sources.contents import contact_sheet, inspect_source
    from ffenc.dataset.split import split_dataset
    from ffenc.dataset.transfer import Pull, Push, pull_dataset, push_dataset
    from ffenc.dataset.verify.faults import Fault, Verification
    from ffenc.dataset.verify.run import verify_dataset
    from ffenc.errors import (
        ConfigError,
        DestinationError,
        FfencError,
        FfencWarning,
        FfmpegError,
        FrameIndexError,
        SourceError,
        ToolchainError,
        VerificationError,
    )
    from ffenc.ffmpeg.probe import StreamInfo, probe
    from ffenc.frames.depth import DepthQuantizer, dequantize_depth, quantize_depth
    from ffenc.frames.encode_file import encode
    from ffenc.frames.joining import join_videos
    from ffenc.frames.reader import VideoReader
    from ffenc.frames.writer import VideoWriter
    from ffenc.recording.recorder import Recorder
    from ffenc.recording.recover import Recovered, Recovery, recover
    from ffenc.recording.results import AddedRow, RecorderStatus, SavedEpisode
    from ffenc.version import VERSION as __version__

# Imported at first use: `ffenc --help` and configs need neither numpy nor pyarrow.
_HOME = {
    "compile_command": "ffenc.compiler.command",
    "DepthEncoderConfig": "ffenc.config.encoder",
    "VideoEncoderConfig": "ffenc.config.encoder",
    "SourceMapping": "ffenc.config.mapping",
    "load_mapping": "ffenc.config.mapping",
    "contact_sheet": "ffenc.dataset.sources.contents",
    "inspect_source": "ffenc.dataset.sources.contents",
    "RobotPreset": "ffenc.config.preset",
    "load_preset": "ffenc.config.preset",
    "Transform": "ffenc.config.transform",
    "JobPlan": "ffenc.dataset.job.plan",
    "JobSummary": "ffenc.dataset.job.summary",
    "run_plan": "ffenc.dataset.job.run",
    "edit_dataset": "ffenc.dataset.edit",
    "RayExecutor": "ffenc.dataset.executors.ray",
    "split_dataset": "ffenc.dataset.split",
    "Edits": "ffenc.dataset.edited",
    "merge_datasets": "ffenc.dataset.merge",
    "plan_merge": "ffenc.dataset.merge",
    "Repair": "ffenc.dataset.repair.run",
    "repair_dataset": "ffenc.dataset.repair.run",
    "push_dataset": "ffenc.dataset.transfer",
    "pull_dataset": "ffenc.dataset.transfer",
    "Push": "ffenc.dataset.transfer",
    "Pull": "ffenc.dataset.transfer",
    "Fault": "ffenc.dataset.verify.faults",
    "Verification": "ffenc.dataset.verify.faults",
    "plan_reencode": "ffenc.dataset.reencode",
    "reencode_dataset": "ffenc.dataset.reencode",
    "verify_dataset": "ffenc.dataset.verify.run",
    "ConfigError": "ffenc.errors",
    "DestinationError": "ffenc.errors",
    "FfencError": "ffenc.errors",
    "FfencWarning": "ffenc.errors",
    "FfmpegError": "ffenc.errors",
    "FrameIndexError": "ffenc.errors",
    "SourceError": "ffenc.errors",
    "ToolchainError": "ffenc.errors",
    "VerificationError": "ffenc.errors",
    "StreamInfo": "ffenc.ffmpeg.probe",
    "probe": "ffenc.ffmpeg.probe",
    "dequantize_depth": "ffenc.frames.depth",
    "quantize_depth": "ffenc.frames.depth",
    "encode": "ffenc.frames.encode_file",
    "join_videos": "ffenc.frames.joining",
    "DepthQuantizer": "ffenc.frames.depth",
    "VideoReader": "ffenc.frames.reader",
    "VideoWriter": "ffenc.frames.writer",
    "Recorder": "ffenc.recording.recorder",
    "AddedRow": "ffenc.recording.results",
    "RecorderStatus": "ffenc.recording.results",
    "SavedEpisode": "ffenc.recording.results",
    "Recovered": "ffenc.recording.recover",
    "Recovery": "ffenc.recording.recover",
    "recover": "ffenc.recording.recover",
}

__all__ = [
    "AddedRow",
    "compile_command",
    "ConfigError",
    "DepthEncoderConfig",
    "DepthQuantizer",
    "dequantize_depth",
    "DestinationError",
    "encode",
    "Fault",
    "FfencError",
    "FfencWarning",
    "FfmpegError",
    "FrameIndexError",
    "contact_sheet",
    "inspect_source",
    "load_mapping",
    "SourceMapping",
    "join_videos",
    "load_preset",
    "merge_datasets",
    "plan_merge",
    "plan_reencode",
    "probe",
    "RayExecutor",
    "quantize_depth",
    "reencode_dataset",
    "edit_dataset",
    "Edits",
    "split_dataset",
    "JobPlan",
    "JobSummary",
    "run_plan",
    "Recorder",
    "RecorderStatus",
    "recover",
    "Recovered",
    "Recovery",
    "Repair",
    "repair_dataset",
    "push_dataset",
    "pull_dataset",
    "Push",
    "Pull",
    "RobotPreset",
    "SavedEpisode",
    "SourceError",
    "StreamInfo",
    "ToolchainError",
    "Transform",
    "Verification",
    "VerificationError",
    "verify_dataset",
    "VideoEncoderConfig",
    "VideoReader",
    "VideoWriter",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("ffenc.version").VERSION
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'ffenc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
