"""What the registry knows of a kind of source."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from ffenc.config.framerate import parse_fps
from ffenc.config.mapping import OnGap, SourceMapping
from ffenc.dataset.source import DatasetSource
from ffenc.dataset.sources.contents import Contents
from ffenc.errors import ConfigError
from ffenc.spelling import argument

if TYPE_CHECKING:
    from ffenc.dataset.lerobot import Choice


class Opening(Struct, frozen=True):
    """How a source is to be read. What a kind of source does not take is refused where it is given.

    Attributes:
        fps: frames a second; None: not said.
        usual_fps: what a source that says none has, by a preset; None: not said.
        task: the text of all episodes' task.
        robot_type: LeRobot's name of the robot.
        cameras: those to read, with or without ``observation.images.``; None: all.
        start_number: number of each folder's first frame.
        follow_links: see :func:`~ffenc.paths.check_tree`.
        retime: put the rows of frame i at i / fps.
        partial: see :func:`~ffenc.dataset.sources.lerobot.open_dataset`.
        choose: see :class:`~ffenc.dataset.lerobot.LeRobotDataset`; None: not known.
        mapping: what its arrays or topics are.
        on_gap: what is done where a frame has no message; None: as the mapping says.
        usual_mapping: what they are by a preset.
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

    def rate(self, path: Path, what: str, own: int | float | str | None = None) -> Fraction:
        """The frame rate: as asked for, else the source's own, else a preset's.

        Args:
            path: the source.
            what: what it is, for the error.
            own: what is said of the source itself.

        Raises:
            ConfigError: none is given, or what is given is not a frame rate.
        """
        for rate in (self.fps, own, self.usual_fps):
            if rate is not None:
                return parse_fps(rate)
        raise ConfigError(
            f"{path} is {what}, which has no frame rate: pass {argument('fps')}, "
            f"or use a {argument('preset')}"
        )


class SourceKind(Struct, frozen=True):
    """A kind of source. A file of this package has one, called ``KIND``.

    Attributes:
        what: what one is called in messages, with its article: ``a LeRobot dataset``.
        several: what many are called: ``LeRobot datasets``.
        recognises: whether a path that exists is of this kind. It loads no library and reads little: a file's
            first bytes, or a folder's names.
        open: reads it.
        takes: names of those fields of :class:`Opening` that not all kinds take, and this one does.
        look: says what is inside, and suggests a mapping; None: it says itself what it is.
    """

    what: str
    several: str
    recognises: Callable[[Path], bool]
    open: Callable[[Path, Opening], DatasetSource]
    takes: frozenset[str] = frozenset()
    look: Callable[[Path], Contents] | None = None
