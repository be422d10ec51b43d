"""The interface between the registry and a kind of source."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from ffenc.config.framerate import parse_fps
from ffenc.config.mapping import OnGap, SourceMapping
from ffenc.dataset.source import DatasetSource
from ffenc.dataset.sources.contents import Contents
from ffenc.errors import ConfigError, FfencWarning
from ffenc.spelling import argument

if TYPE_CHECKING:
    from ffenc.dataset.lerobot import Choice


class Opening(Struct, frozen=True):
    """The parameters for opening a source. A kind of source rejects parameters that it does not use.

    Attributes:
        fps: frames per second; None: not given.
        usual_fps: frame rate in a preset, for a source without one; None: not given.
        task: text of the task of all episodes.
        robot_type: LeRobot's name for the robot.
        cameras: cameras to read, with or without ``observation.images.``; None: all.
        start_number: number of each folder's first frame.
        follow_links: see :func:`~ffenc.paths.check_tree`.
        retime: put the rows of frame i at i / fps.
        partial: see :func:`~ffenc.dataset.sources.lerobot.open_dataset`.
        choose: returns the episodes that will be read, given all; None: not given.
        mapping: meaning of its arrays or topics.
        on_gap: what to do if a frame has no message; None: as in the mapping.
        usual_mapping: mapping in a preset.
        programs: names or paths of ffmpeg and ffprobe; None: those that are found.
    """

    fps: int | float | str | Fraction | None = None
    usual_fps: int | float | str | None = None
    task: str | None = None
    robot_type: str | None = None
    cameras: tuple[str, ...] | None = None
    start_number: int | None = None
    follow_links: bool = False
    retime: bool = False
    partial: bool = False
    choose: Choice | None = None
    mapping: SourceMapping | None = None
    on_gap: OnGap | None = None
    usual_mapping: SourceMapping | None = None
    programs: tuple[str | None, str | None] = (None, None)

    def rate(self, path: Path, what: str, own: int | float | str | None = None) -> Fraction:
        """Return the frame rate: ``fps``, else the source's own, else the preset's.

        Args:
            path: the source.
            what: kind of source, for errors.
            own: frame rate that the source states.

        Raises:
            ConfigError: no frame rate, or an invalid one.
        """
        for rate in (self.fps, own, self.usual_fps):
            if rate is not None:
                return parse_fps(rate)
        raise ConfigError(f"{path} is {what}, which has no frame rate: pass {argument('fps')}")


class SourceKind(Struct, frozen=True):
    """A kind of source. Each file of this package that defines one has it as ``KIND``.

    Attributes:
        what: its name in messages, with an article: ``a LeRobot dataset``.
        several: its plural: ``LeRobot datasets``.
        recognises: whether an existing path is of this kind. It loads no library and reads little: a file's
            first bytes, or a folder's names.
        open: opens the source.
        takes: names of the fields of :class:`Opening` that this kind uses and others may not.
        look: returns the contents and a suggested mapping; None: the source needs no mapping.
    """

    what: str
    several: str
    recognises: Callable[[Path], bool]
    open: Callable[[Path, Opening], DatasetSource]
    takes: frozenset[str] = frozenset()
    look: Callable[[Path], Contents] | None = None


def warn_of_left_out(others: Sequence[Path]) -> None:
    """Warn of the files and folders of a source that are not read."""
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        warnings.warn(f"{others[0]}{more}: not included in the result", FfencWarning, stacklevel=4)
