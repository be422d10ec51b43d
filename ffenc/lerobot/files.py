"""ffenc's replacements of LeRobot's functions that write video files and datasets."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from ffenc.compiler.frames import raw_format
from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.framerate import parse_fps
from ffenc.config.preset import RobotPreset
from ffenc.dataset.info_block import encoding_block
from ffenc.dataset.reencode import reencode_dataset
from ffenc.errors import FfencError, SourceError
from ffenc.ffmpeg.probe import probe
from ffenc.frames.encode_file import encode
from ffenc.frames.joining import join_videos, keep_parts
from ffenc.frames.prepare import prepare
from ffenc.frames.stream import DEPTH_FORMATS
from ffenc.lerobot.notes import check_alike, keep_notes, note_encoder, remember_encoder
from ffenc.lerobot.options import Options, is_depth, settings_of
from ffenc.recording.trial import trial_frames
from ffenc.temporary import temporary_folder

_log = logging.getLogger("ffenc.lerobot")

Original = Callable[..., Any]
_NUMBERED = "frame-" + "[0-9]" * 6


class Files(Struct, frozen=True):
    """LeRobot's functions as methods, with LeRobot's parameters.

    Attributes:
        options: how ffenc encodes.
        originals: LeRobot's own functions, by name.
    """

    options: Options
    originals: dict[str, Original]

    def encode_video_frames(
        self,
        imgs_dir: Path | str,
        video_path: Path | str,
        fps: int,
        video_encoder: Any = None,
        encoder_threads: int | None = None,
        *,
        log_level: int | None = None,
        overwrite: bool = False,
    ) -> None:
        """Encode ``frame-000000.png`` (depth: ``.tiff``) and the following frames into one file.

        Raises:
            FileNotFoundError: there are no frames.
            FfencError: a frame is damaged, or the frames cannot be encoded.
        """
        folder, target = Path(imgs_dir), Path(video_path)
        config = video_encoder or self._defaults()
        if target.exists() and not overwrite:
            _log.warning("Video file already exists: %s. Skipping encoding.", target)
            return
        suffix = ".tiff" if is_depth(config) else ".png"
        frames = sorted(folder.glob(_NUMBERED + suffix))
        if not frames:
            raise FileNotFoundError(f"No images with suffix {suffix} found in {folder}.")
        target.parent.mkdir(parents=True, exist_ok=True)
        settings = self.options.settings(folder.parent.name, config)
        encode(
            frames,
            target,
            fps=fps,
            config=settings,
            encoder_threads=self._threads(encoder_threads),
            overwrite=True,
        )

    def reencode_video(
        self,
        input_video_path: Path | str,
        output_video_path: Path | str,
        video_encoder: Any = None,
        encoder_threads: int | None = None,
        log_level: int | None = None,
        overwrite: bool = False,
        start_time_s: float | None = None,
        end_time_s: float | None = None,
    ) -> None:
        """Re-encode a file, or its frames in ``[start_time_s, end_time_s)``; the output may be the input.

        Raises:
            ValueError: the times are not a range of the file.
            FfencError: the file is damaged, or cannot be encoded.
        """
        if (start_time_s is not None and start_time_s < 0) or (end_time_s is not None and end_time_s < 0):
            raise ValueError(f"Trim times must be non-negative, got start={start_time_s}, end={end_time_s}.")
        if start_time_s is not None and end_time_s is not None and end_time_s <= start_time_s:
            raise ValueError(f"end_time_s ({end_time_s}) must be greater than start_time_s ({start_time_s}).")
        source, target = Path(input_video_path), Path(output_video_path)
        if target.exists() and not overwrite:
            _log.warning("Video file already exists: %s. Skipping re-encode.", target)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        settings = self.options.settings(_camera_of(target), video_encoder or self._defaults())
        settings = _for_file(settings, source)
        with temporary_folder(target.parent, ".ffenc-") as folder:
            made = Path(folder) / "video.mp4"
            # Into another file, as the output may be the input.
            encode(
                source,
                made,
                config=settings,
                encoder_threads=self._threads(encoder_threads),
                start=start_time_s,
                end=end_time_s,
            )
            made.replace(target)

    def concatenate_video_files(
        self,
        input_video_paths: Sequence[Path | str],
        output_video_path: Path | str,
        overwrite: bool = True,
        compatibility_check: bool = False,
    ) -> None:
        """Concatenate files by copying packets, frame i at exactly i / fps.

        Raises:
            FileNotFoundError: no files are given.
            ValueError: the files differ in their streams.
            FfencError: a file is damaged.
        """
        target = Path(output_video_path)
        if target.exists() and not overwrite:
            _log.warning("Video file already exists: %s. Skipping concatenation.", target)
            return
        if not input_video_paths:
            raise FileNotFoundError("No input video paths provided.")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            join_videos(list(input_video_paths), target, overwrite=True)
        except SourceError as error:
            raise ValueError(str(error)) from error

    def _keep_episodes_from_video_with_av(
        self,
        input_path: Path,
        output_path: Path,
        episodes_to_keep: list[tuple[int, int]],
        fps: float,
        video_encoder: Any,
    ) -> None:
        """Keep some episodes of a file by copying packets; encode what cannot be copied as in the dataset.

        Raises:
            ValueError: there are no episodes to keep.
            FfencError: the file is damaged, differs from the dataset's metadata, or cannot be encoded.
        """
        if not episodes_to_keep:
            raise ValueError("No episodes to keep")
        keep_parts(
            input_path,
            output_path,
            sorted(episodes_to_keep),
            fps=parse_fps(fps),
            config=_for_file(settings_of(video_encoder), input_path),
            encoder_threads=self._threads(None),
            overwrite=True,
        )

    def _copy_and_reindex_videos(self, src_dataset: Any, dst_meta: Any, episode_mapping: Any) -> Any:
        """Copy the videos of the remaining episodes, and the notes on their cameras."""
        done = self.originals["_copy_and_reindex_videos"](src_dataset, dst_meta, episode_mapping)
        keep_notes([Path(src_dataset.root)], Path(dst_meta.root))
        return done

    def _copy_videos(self, src_dataset: Any, dst_meta: Any, exclude_keys: Any = None) -> None:
        """Copy all videos of the remaining cameras, and the notes on them."""
        self.originals["_copy_videos"](src_dataset, dst_meta, exclude_keys)
        keep_notes([Path(src_dataset.root)], Path(dst_meta.root))

    def validate_all_metadata(self, all_metadata: Sequence[Any]) -> Any:
        """Reject datasets that cannot be merged, including those whose depth stores holes differently.

        Raises:
            ValueError: they cannot be merged.
        """
        found = self.originals["validate_all_metadata"](all_metadata)
        check_alike([Path(one.root) for one in all_metadata])
        return found

    def finalize_aggregation(self, aggr_meta: Any, all_metadata: Sequence[Any]) -> None:
        """Write the lists of a merged dataset, and the notes on its cameras."""
        self.originals["finalize_aggregation"](aggr_meta, all_metadata)
        keep_notes([Path(one.root) for one in all_metadata], Path(aggr_meta.root))

    def get_video_info(self, video_path: Path | str, video_encoder: Any = None) -> Any:
        """Return LeRobot's own fields; ffenc's encoder fields are written to ``meta/ffenc.json``.

        LeRobot only merges datasets with equal fields, so that additional ones would prevent merges.
        """
        path = Path(video_path)
        key = _camera_of(path)
        if not key:
            return self.originals["get_video_info"](path, video_encoder)
        config = self.options.of_camera(key, video_encoder)
        info = self.originals["get_video_info"](path, config)
        if config is not None and info:
            self._note(path, key, config)
        return info

    def _note(self, path: Path, key: str, config: Any) -> None:
        root = path.parents[3]
        with contextlib.suppress(FfencError, OSError):  # the note is optional
            if not note_encoder(root, key):
                stream = probe(path)
                settings = self.options.settings(key, config)
                frames = raw_format(settings)
                encoding = prepare(
                    settings,
                    trial_frames(stream.width, stream.height, frames),
                    width=stream.width,
                    height=stream.height,
                    fps=parse_fps(stream.fps),
                    frames=frames,
                )
                remember_encoder(root, key, encoding_block(encoding, "mm" if is_depth(config) else None))
                note_encoder(root, key)

    def convert_image_to_video_dataset(
        self,
        dataset: Any,
        output_dir: Path | None = None,
        repo_id: str | None = None,
        rgb_encoder: Any = None,
        depth_encoder: Any = None,
        episode_indices: list[int] | None = None,
        num_workers: int = 4,
        max_episodes_per_batch: int | None = None,
        max_frames_per_batch: int | None = None,
    ) -> Any:
        """Convert an image dataset to a verified video dataset, with all statistics and episode columns.

        Raises:
            ValueError: the dataset has videos, or no images.
            FfencError: it is damaged, or cannot be encoded; no output is left.
        """
        from lerobot.configs import depth_encoder_defaults  # noqa: PLC0415
        from lerobot.datasets import LeRobotDataset  # noqa: PLC0415
        from lerobot.utils.constants import HF_LEROBOT_HOME  # noqa: PLC0415

        if dataset.meta.video_keys:
            raise ValueError(
                f"This operation is for image datasets only. Video dataset provided: {dataset.repo_id}"
            )
        if not dataset.meta.image_keys:
            raise ValueError(f"No image keys found in dataset {dataset.repo_id}")
        if max_episodes_per_batch is not None or max_frames_per_batch is not None:
            _log.info("max_episodes_per_batch and max_frames_per_batch are not needed: no batch is in memory")
        repo_id = repo_id or f"{dataset.repo_id}_video"
        target = Path(output_dir) if output_dir is not None else HF_LEROBOT_HOME / repo_id
        target.parent.mkdir(parents=True, exist_ok=True)
        depth = self.options.settings("", depth_encoder or depth_encoder_defaults())
        assert isinstance(depth, DepthEncoderConfig)
        preset = self.options.preset or RobotPreset(
            name="lerobot",
            camera_encoder=self.options.settings("", rgb_encoder or self._defaults()),
            depth_encoder=depth,
        )
        reencode_dataset(
            dataset.root, target, preset=preset, episodes=episode_indices, workers=max(1, num_workers)
        )
        _log.info("%s: converted to video in %s", dataset.repo_id, target)
        return LeRobotDataset(repo_id=repo_id, root=target)

    def _threads(self, given: int | None) -> int | None:
        preset = self.options.preset
        return preset.encoder_threads if given is None and preset is not None else given

    @staticmethod
    def _defaults() -> Any:
        from lerobot.configs import rgb_encoder_defaults  # noqa: PLC0415

        return rgb_encoder_defaults()


def _camera_of(path: Path) -> str:
    """Return the camera of a dataset's video, ``videos/CAMERA/chunk-000/file-000.mp4``; otherwise ""."""
    parents = path.parents
    return parents[1].name if len(parents) > 3 and parents[2].name == "videos" else ""


def _for_file(settings: VideoEncoderConfig, source: Path) -> VideoEncoderConfig:
    """Convert colour settings to depth settings if a file contains depth codes, which are kept."""
    depth = probe(source).pix_fmt in DEPTH_FORMATS
    if not depth or isinstance(settings, DepthEncoderConfig):
        return settings
    names = settings.given
    return DepthEncoderConfig(**{name: getattr(settings, name) for name in names})
