"""The numbered files of a dataset: the next place of each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from ffenc.layout import DATA_PATH, EPISODES, EPISODES_PATH, VIDEO_PATH, files_in_chunk

DATA = "data"  # with EPISODES, the kinds of numbered files, named by folder; for videos see videos_of
_TEMPLATES = {DATA: DATA_PATH, EPISODES: EPISODES_PATH}
NumberedFile = tuple[int, int]  # chunk, and number in the chunk


def list_files(root: Path) -> list[Path]:
    """Return the files of the episode list of a v3.0 dataset, in order."""
    return sorted((root / EPISODES).glob("*/*.parquet"))


class FilePlace(NamedTuple):
    """A numbered file of a dataset: its chunk, its number there, and its path in the dataset."""

    chunk: int
    number: int
    path: str


class VideoPlace(NamedTuple):
    """The place of an episode's frames: the file, and the frame in it at which the episode starts."""

    file: FilePlace
    start: int | Fraction  # a source off the grid may start between frames


class Files:
    """Assigns numbers to a dataset's files, for each kind in sequence.

    Args:
        info: contents of info.json, with the number of files per chunk.
        last: highest used numbers by kind: ``DATA``, ``EPISODES``, or :func:`videos_of` a camera.
        taken: returns whether an unnumbered file already exists at a place.
    """

    def __init__(
        self,
        info: Mapping[str, Any],
        last: Mapping[str, NumberedFile] | None = None,
        taken: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._in_chunk = files_in_chunk(info)
        self.last = dict(last or {})
        self._taken = taken

    def next(self, kind: str) -> FilePlace:
        """Return the next free place of a kind of file."""
        chunk, number = self.last.get(kind, (0, -1))
        while True:
            chunk, number = (chunk, number + 1) if number + 1 < self._in_chunk else (chunk + 1, 0)
            place = numbered_file(kind, chunk, number)
            if not self._taken(place.path):
                self.last[kind] = chunk, number
                return place


def videos_of(camera: str) -> str:
    """Return the kind of a camera's video files."""
    return f"videos/{camera}"


def numbered_file(kind: str, chunk: int, number: int) -> FilePlace:
    """Return the place of a file, given its numbers."""
    template, key = _TEMPLATES.get(kind, VIDEO_PATH), kind.removeprefix("videos/")
    return FilePlace(chunk, number, template.format(video_key=key, chunk_index=chunk, file_index=number))
