"""A source that is a LeRobot dataset at a lower frame rate: some of its rows, and their frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec.structs import replace

from ffenc.config.framerate import Pick, fps_number, fps_text, parse_fps
from ffenc.dataset.lerobot_v3 import LeRobotV3
from ffenc.dataset.lerobot_v21 import LeRobotV21
from ffenc.dataset.model import Episode, EpisodeRef, EpisodeVideo, with_known
from ffenc.dataset.source import Streams
from ffenc.errors import ConfigError
from ffenc.frames.sources import EncodedFrame, FrameSource
from ffenc.spelling import argument

_RATES_NAMED = 5
_LOOKED_AT = 30  # divisors on either side of the wanted one


class ThinnedDataset:
    """A dataset of which some rows are kept, so that it has a lower frame rate.

    Each row keeps its values. Statistics are computed from the kept rows; the source's are not used.

    Args:
        source: the dataset, which is only read.
        pick: selects the rows and frames.
    """

    temporary: Sequence[Path] = ()

    def __init__(self, source: LeRobotV3 | LeRobotV21, pick: Pick) -> None:
        self.source, self.pick = source, pick
        self.root, self.roots, self.fps = source.root, source.roots, pick.new
        self.cameras = source.cameras
        self.episodes = [EpisodeRef(one.index, pick.count(one.length)) for one in source.episodes]
        self._whole = {one.index: one for one in source.episodes}
        self.renumbered = source.renumbered

    def frames(self, camera: str, episode: EpisodeRef) -> FrameSource:
        whole = self._whole[episode.index]
        return PickedFrames(self.source.frames(camera, whole), self.pick)

    def video(self, camera: str, episode: EpisodeRef) -> EpisodeVideo:
        return replace(self.source.video(camera, self._whole[episode.index]), pick=self.pick)

    def camera_bytes(self, camera: str, episodes: Sequence[EpisodeRef]) -> int:
        whole = [self._whole[episode.index] for episode in episodes]
        return self.source.camera_bytes(camera, whole) * self.pick.new // self.pick.old

    def info(self) -> dict[str, Any]:
        return self.source.info() | {"fps": fps_number(self.fps)}

    def stats(self) -> dict[str, Any]:
        return {}

    def has_episode_stats(self, feature: str) -> bool:
        return False

    def read(self, episodes: Sequence[EpisodeRef]) -> Iterator[Episode]:
        found = self.source.read([self._whole[episode.index] for episode in episodes])
        for one, ref in zip(with_known(found, _without_statistics), episodes, strict=True):
            kept = self.pick.indices(one.length)
            thin = replace(
                one,
                length=ref.length,
                rows=one.rows.take(pa.array(kept, pa.int64())),
                streams=Streams(self, ref),
                notes=None,  # they refer to the source's row numbers
            )
            yield thin if one.row_tasks is None else thin.with_tasks(one.tasks, one.row_tasks[kept])

    def extra_files(self) -> list[tuple[Path, str]]:
        return self.source.extra_files()

    def tasks(self) -> Path | Sequence[str]:
        return self.source.tasks()


def _without_statistics(table: pa.Table) -> pa.Table:
    return table.select([name for name in table.column_names if not name.startswith("stats/")])


class PickedFrames:
    """A selection of a source's frames.

    Args:
        frames: all frames.
        pick: the selection.
    """

    def __init__(self, frames: FrameSource, pick: Pick) -> None:
        self._frames, self._pick = frames, pick

    def __len__(self) -> int:
        return self._pick.count(len(self._frames))

    def __iter__(self) -> Iterator[EncodedFrame]:
        kept = np.zeros(len(self._frames), np.bool_)
        kept[self._pick.indices(len(self._frames))] = True
        return compress(self._frames, kept)

    def fingerprint(self) -> str:
        return f"{self._pick} {self._frames.fingerprint()}"


def thinned(
    source: LeRobotV3 | LeRobotV21, fps: int | float | str | Fraction, *, nearest: bool
) -> LeRobotV3 | LeRobotV21 | ThinnedDataset:
    """Return a dataset at another frame rate.

    Args:
        source: the dataset.
        fps: the new rate; for the dataset's own rate, the source is returned.
        nearest: if the rate does not divide the dataset's, keep the nearest frame for each new time.

    Raises:
        ConfigError: the rate is higher than the dataset's, or does not divide it.
    """
    new, old = parse_fps(fps), source.fps
    if new == old:
        if nearest:
            raise ConfigError(
                f"{argument('fps_nearest', True)} would have no effect: the dataset has {fps_number(old)} fps"
            )
        return source
    if new > old:
        raise ConfigError(
            f"{argument('fps', fps)} is more than the dataset's {fps_number(old)}; only a lower "
            "rate is possible"
        )
    ratio = old / new
    if ratio.denominator != 1 and not nearest:
        rates = _dividing(old, ratio)
        those = f"one that does ({', '.join(rates)}), or " if rates else ""
        raise ConfigError(
            f"{argument('fps', fps)} does not divide the dataset's {fps_number(old)}: use {those}"
            f"{argument('fps_nearest', True)} to take the frame nearest to each new time"
        )
    if ratio.denominator == 1 and nearest:
        raise ConfigError(
            f"{argument('fps_nearest', True)} would have no effect: {fps} divides {fps_number(old)}; "
            "leave it out"
        )
    return ThinnedDataset(source, Pick(old, new))


def _dividing(old: Fraction, ratio: Fraction) -> list[str]:
    """Return the lower rates that divide a rate and are nearest to a part of it, the highest first."""
    around = range(max(2, int(ratio) - _LOOKED_AT), int(ratio) + _LOOKED_AT)
    found = {step: text for step in around if (text := fps_text(old / step)) is not None}
    near = sorted(found, key=lambda step: abs(step - ratio))[:_RATES_NAMED]
    return [found[step] for step in sorted(near)]
