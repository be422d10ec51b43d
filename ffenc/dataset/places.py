"""The numbered files of a dataset: which is the next of a kind, and where it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from ffenc.layout import DATA_PATH, EPISODES_PATH, VIDEO_PATH, files_in_chunk

DATA, EPISODES = "data", "meta/episodes"  # kinds of files, by their folders; see videos_of for the others
_TEMPLATES = {DATA: DATA_PATH, EPISODES: EPISODES_PATH}
NumberedFile = tuple[int, int]  # of a chunk, and in it


class FilePlace(NamedTuple):
    """A numbered file of a dataset: its chunk, its number there, and its path in the dataset."""

    chunk: int
    number: int
    path: str


class VideoPlace(NamedTuple):
    """Where an episode's frames are: the file, and the frame of it at which the episode starts."""

    file: FilePlace
    start: int | Fraction  # of a source that is off the grid, part of a frame too


class Files:
    """Numbers a dataset's files, those of each kind one after another.

    Args:
        info: contents of info.json, which says how many files are in a chunk.
        last: the highest numbers that are in use, by kind: ``DATA``, ``EPISODES``, or :func:`videos_of` a
            camera.
        taken: whether a file is in a place already, though it has no number.
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
    """Return the kind of file that a camera's videos are."""
    return f"videos/{camera}"


def numbered_file(kind: str, chunk: int, number: int) -> FilePlace:
    """Return the place of a file that has its numbers."""
    template, key = _TEMPLATES.get(kind, VIDEO_PATH), kind.removeprefix("videos/")
    return FilePlace(chunk, number, template.format(video_key=key, chunk_index=chunk, file_index=number))
