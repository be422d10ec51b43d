"""What the registry knows of a kind of source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ffenc.config.framerate import parse_fps
from ffenc.dataset.source import DatasetSource
from ffenc.errors import ConfigError


@dataclass(frozen=True)
class Opening:
    """How a source is to be read. What a kind of source does not take is refused where it is given.

    Attributes:
        fps: frames a second; None: not said.
        task: the text of all episodes' task.
        robot_type: LeRobot's name of the robot.
        cameras: those to read, with or without ``observation.images.``; None: all.
        start_number: number of each folder's first frame.
        follow_links: see :func:`~ffenc.paths.check_tree`.
        retime: put the rows of frame i at i / fps.
    """

    fps: int | float | str | Fraction | None = None
    task: str | None = None
    robot_type: str | None = None
    cameras: tuple[str, ...] | None = None
    start_number: int | None = None
    follow_links: bool = False
    retime: bool = False

    def rate(self, path: Path, what: str) -> Fraction:
        """The frame rate, which a source has to be given.

        Args:
            path: the source.
            what: what it is, for the error.

        Raises:
            ConfigError: it is not given, or is none.
        """
        if self.fps is None:
            raise ConfigError(f"{path} is {what}, which has no frame rate: say --fps, or use a --preset")
        return parse_fps(self.fps)


@dataclass(frozen=True)
class SourceKind:
    """A kind of source. A file of this package has one, called ``KIND``.

    Attributes:
        what: what one is called in messages, with its article: ``a LeRobot dataset``.
        several: what many are called: ``LeRobot datasets``.
        recognises: whether a path that exists is of this kind. It loads no library and reads little: a file's
            first bytes, or a folder's names.
        open: reads it.
        takes: names of those fields of :class:`Opening` that not all kinds take, and this one does.
    """

    what: str
    several: str
    recognises: Callable[[Path], bool]
    open: Callable[[Path, Opening], DatasetSource]
    takes: frozenset[str] = frozenset()
