"""Replace parts of LeRobot with ffenc, and restore them."""

from __future__ import annotations

import importlib
import inspect
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ffenc.config.plain_yaml import KeyPath
from ffenc.config.preset import RobotPreset
from ffenc.errors import ConfigError
from ffenc.lerobot import configs
from ffenc.lerobot.files import Files
from ffenc.lerobot.options import OnFull, Options, read_options
from ffenc.lerobot.streaming import StreamingVideoEncoder
from ffenc.lerobot.workers import Worker
from ffenc.lerobot.writing import writer_methods

if TYPE_CHECKING:
    from typing_extensions import Self

KNOWN_VERSIONS = ("0.6.0", "0.6.1", "0.6.2")

_VIDEO, _TOOLS, _MERGE, _WRITER, _CONFIGS = (
    "lerobot.datasets.video_utils",
    "lerobot.datasets.dataset_tools",
    "lerobot.datasets.aggregate",
    "lerobot.datasets.dataset_writer",
    "lerobot.configs.video",
)


class Seam(Struct, frozen=True):
    """A function, class or method of LeRobot that is replaced.

    Attributes:
        module: module that defines it.
        name: its name in the module; for a method ``Class.method``.
        parameters: its expected parameters, in order, without ``self``; an unknown version may differ.
    """

    module: str
    name: str
    parameters: str

    def find(self) -> Any:
        """Return LeRobot's current object.

        Raises:
            ConfigError: it does not exist, or differs from what ffenc expects.
        """
        found: Any = importlib.import_module(self.module)
        for part in self.name.split("."):
            found = getattr(found, part, None)
        names = " ".join(inspect.signature(found).parameters) if callable(found) else None
        if names is None or names.removeprefix("self ").removeprefix("self") != self.parameters:
            has = "it is not there" if names is None else f"it takes ({names})"
            raise ConfigError(
                f"{self.module}.{self.name} is not the function that ffenc replaces, "
                f"with ({self.parameters}): {has}. "
                f"Nothing was changed. ffenc supports LeRobot {' and '.join(KNOWN_VERSIONS)}"
            )
        return found


_SEAMS = (
    Seam(_VIDEO, "StreamingVideoEncoder", "fps rgb_encoder depth_encoder queue_maxsize encoder_threads"),
    Seam(
        *(_VIDEO, "encode_video_frames"),
        "imgs_dir video_path fps video_encoder encoder_threads log_level overwrite",
    ),
    Seam(
        *(_VIDEO, "reencode_video"),
        "input_video_path output_video_path video_encoder encoder_threads log_level overwrite start_time_s "
        "end_time_s",
    ),
    Seam(
        _VIDEO, "concatenate_video_files", "input_video_paths output_video_path overwrite compatibility_check"
    ),
    Seam(_VIDEO, "get_video_info", "video_path video_encoder"),
    Seam(
        *(_TOOLS, "convert_image_to_video_dataset"),
        "dataset output_dir repo_id rgb_encoder depth_encoder episode_indices num_workers "
        "max_episodes_per_batch max_frames_per_batch",
    ),
    Seam(
        *(_TOOLS, "_keep_episodes_from_video_with_av"),
        "input_path output_path episodes_to_keep fps video_encoder",
    ),
    Seam(_TOOLS, "_copy_and_reindex_videos", "src_dataset dst_meta episode_mapping"),
    Seam(_TOOLS, "_copy_videos", "src_dataset dst_meta exclude_keys"),
    Seam(_MERGE, "validate_all_metadata", "all_metadata"),
    Seam(_MERGE, "finalize_aggregation", "aggr_meta all_metadata"),
    Seam(_TOOLS, "_reencode_video_worker", "args"),
    Seam(_WRITER, "_encode_video_worker", "video_key episode_index root fps video_encoder encoder_threads"),
    Seam(_WRITER, "DatasetWriter.add_frame", "frame"),
    Seam(_WRITER, "DatasetWriter.save_episode", "episode_data parallel_encoding"),
    Seam(_WRITER, "DatasetWriter._save_episode_data", "episode_buffer"),
    Seam(_WRITER, "DatasetWriter.cancel_pending_videos", ""),
    Seam(_CONFIGS, "VideoEncoderConfig.detect_available_encoders", "encoders"),
    Seam(_CONFIGS, "VideoEncoderConfig.resolve_vcodec", ""),
    Seam(_CONFIGS, "VideoEncoderConfig.validate", ""),
)

_lock = threading.Lock()
_active: Use | None = None


def use(
    *,
    on_full: OnFull | None = None,
    preset: str | Path | RobotPreset | None = None,
    overrides: Sequence[tuple[KeyPath, Any]] = (),
) -> Use:
    """Make LeRobot encode with ffenc, from now on or in a ``with`` block.

    ::

        import ffenc.lerobot

        ffenc.lerobot.use()                # until the program ends, or undo()
        with ffenc.lerobot.use():          # only in the block
            ...

    Names that other modules have already imported from LeRobot are replaced too.

    Args:
        on_full: what to do with a frame if ``encoder_queue_maxsize`` frames are waiting for the encoder:
            ``repeat`` stores the previous frame again and logs it, ``block`` waits. None: the value of the
            environment variable ``FFENC_ON_FULL``, else the preset's, else ``repeat``.
        preset: a robot preset, its name or path, with encoder settings for each camera, and default settings
            for other cameras. None: LeRobot's own settings are used.
        overrides: settings that override the preset, as for :func:`ffenc.load_preset`.

    Returns:
        An object that removes ffenc again, with ``undo()`` or at the end of the ``with`` block.

    Raises:
        ConfigError: LeRobot is not installed or its version is unknown, a value is invalid, or ffenc is
            already in use.
    """
    global _active  # noqa: PLW0603 - a process has one LeRobot
    options = read_options(on_full, preset, overrides)
    with _lock:
        if _active is not None:
            raise ConfigError("ffenc is already active in LeRobot; call undo() first")
        check_version()
        _active = Use(options)
        return _active


def in_use() -> bool:
    """Return whether LeRobot encodes with ffenc in this process."""
    return _active is not None


def check_version() -> None:
    """Check that the version of LeRobot is supported.

    Raises:
        ConfigError: LeRobot is not installed, or is another version; the text names the supported ones.
    """
    try:
        version = str(importlib.import_module("lerobot").__version__)
    except ImportError as error:
        raise ConfigError(
            f"LeRobot cannot be imported ({error}): install ffenc into LeRobot's environment"
        ) from None
    if version not in KNOWN_VERSIONS:
        raise ConfigError(
            f"LeRobot {version} is not supported, {' or '.join(KNOWN_VERSIONS)} is; nothing was "
            "changed. Install one of these, or a newer ffenc"
        )


class Use:
    """ffenc in LeRobot, until :meth:`undo`.

    Args:
        options: how ffenc encodes.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._changed: list[tuple[Any, str, Any]] = []  # owner, attribute, previous value
        self._swapped: list[tuple[Any, Any, str]] = []  # LeRobot's object, ffenc's, name
        found = {seam.name: seam.find() for seam in _SEAMS}
        files = Files(options, found)
        ours: dict[str, Any] = {
            "StreamingVideoEncoder": type(
                "StreamingVideoEncoder", (StreamingVideoEncoder,), {"options": options}
            ),
            **{name: _function(getattr(files, name), found[name]) for name in _OF_FILES},
            **{name: Worker(name, options) for name in _WORKERS},
        }
        Worker.originals.update({name: found[name] for name in _WORKERS})
        known = importlib.import_module("lerobot.datasets.pyav_utils").get_codec
        methods = {
            **writer_methods(found),
            **{
                f"VideoEncoderConfig.{name}": make(found[f"VideoEncoderConfig.{name}"])
                for name, make in (
                    ("detect_available_encoders", configs.detect_available_encoders),
                    ("resolve_vcodec", configs.resolve_vcodec),
                    ("validate", lambda original: configs.validate(original, known)),
                )
            },
        }
        video = importlib.import_module(_CONFIGS)
        ours["VALID_VIDEO_CODECS"] = configs.with_own_codecs(video.VALID_VIDEO_CODECS)
        found["VALID_VIDEO_CODECS"] = video.VALID_VIDEO_CODECS
        for seam in _SEAMS:
            if seam.name in methods:
                owner, _, method = seam.name.partition(".")
                self._set(getattr(importlib.import_module(seam.module), owner), method, methods[seam.name])
        for name, mine in ours.items():
            self._swapped.append((found[name], mine, name))
            _swap(found[name], mine, name)

    def _set(self, owner: Any, name: str, value: Any) -> None:
        self._changed.append((owner, name, vars(owner)[name]))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Restore LeRobot's own functions; encoding that has started is completed by ffenc."""
        global _active  # noqa: PLW0603 - as above
        with _lock:
            if _active is not self:
                return
            for owner, name, value in reversed(self._changed):
                setattr(owner, name, value)
            for theirs, mine, name in self._swapped:
                _swap(mine, theirs, name)
            _active = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


_OF_FILES = (
    *("encode_video_frames", "reencode_video", "concatenate_video_files", "get_video_info"),
    *("convert_image_to_video_dataset", "_keep_episodes_from_video_with_av"),
    *("_copy_and_reindex_videos", "_copy_videos", "validate_all_metadata", "finalize_aggregation"),
)
_WORKERS = ("_reencode_video_worker", "_encode_video_worker")


def _function(method: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method as a function of LeRobot's module, so that it can be pickled by its name there."""

    def replaced(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    replaced.__name__, replaced.__qualname__ = original.__name__, original.__qualname__
    replaced.__module__, replaced.__doc__ = original.__module__, method.__doc__
    replaced.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    return replaced


def _swap(old: Any, new: Any, name: str) -> None:
    """Replace an object in all modules that have it under its name."""
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and vars(module).get(name) is old:
            setattr(module, name, new)
