"""Select the sample that settings are tested on: short stretches of a camera that differ from each other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from ffenc.errors import SourceError
from ffenc.tune.footage import Footage, Picture, contiguous

LOOKED_AT = 16  # places of a camera from which the stretches are chosen
_APART = 3  # distance in frames for measuring motion
_GRID = 4  # every n-th pixel is used
_OTHER_EPISODE = 0.15  # distance for another episode; 1 is the range of brightness or motion
_MOST_BYTES = 400_000_000  # of a camera's sample on disk


class Stretch(Struct, frozen=True):
    """Consecutive frames of an episode.

    Attributes:
        episode: its index.
        first: index of the first frame.
        frames: number of frames.
        brightness: mean luma, 0..255; for depth, mean of the valid depth in millimetres.
        motion: mean difference of frames three frames apart, in the same unit.
    """

    episode: int
    first: int
    frames: int
    brightness: float
    motion: float


class Sample(Struct, frozen=True):
    """The frames that all candidates are tested on.

    Attributes:
        footage: the camera.
        stretches: the stretches that they are from.
        pictures: ``(N, H, W, 3)`` uint8 or ``(N, H, W)`` uint16, stretch by stretch; memory-mapped.
        digest: hash of the frames and the stretches.
    """

    footage: Footage
    stretches: tuple[Stretch, ...]
    pictures: npt.NDArray[Any]
    digest: str

    def __len__(self) -> int:
        return len(self.pictures)

    def parts(self) -> list[tuple[Stretch, npt.NDArray[Any]]]:
        """Return each stretch with its frames."""
        found, at = [], 0
        for stretch in self.stretches:
            found.append((stretch, self.pictures[at : at + stretch.frames]))
            at += stretch.frames
        return found

    def place(self, number: int) -> tuple[int, int, int]:
        """Return stretch, episode and frame index in the episode for a frame of the sample."""
        for index, stretch in enumerate(self.stretches):
            if number < stretch.frames:
                return index, stretch.episode, stretch.first + number
            number -= stretch.frames
        raise IndexError(number)


def take_sample(
    footage: Footage,
    folder: Path,
    *,
    stretches: int,
    length: int,
    on_step: Callable[[str], None] = lambda _: None,
) -> Sample:
    """Choose a camera's stretches, and write their frames to a file.

    Args:
        footage: the camera.
        folder: folder for the file.
        stretches: greatest number; fewer if frames are large, or episodes few and short.
        length: frames per stretch; a shorter episode is used completely.
        on_step: called with a text on the next step.

    Raises:
        SourceError: a frame is damaged; the text names it.
    """
    frame_bytes = footage.width * footage.height * (2 if footage.depth else 3)
    stretches = max(1, min(stretches, _MOST_BYTES // max(1, frame_bytes * length)))
    on_step(f"{footage.name}: looking for {stretches} stretches that differ")
    chosen = choose(_looked_at(footage, length, stretches), stretches)
    if not chosen:
        raise SourceError(f"{footage.key}: has no frames")
    on_step(f"{footage.name}: reading {sum(one.frames for one in chosen)} frames")
    digest = hashlib.sha256(repr([(one.episode, one.first, one.frames) for one in chosen]).encode())
    path = folder / f"{len(list(folder.iterdir()))}.raw"
    with path.open("wb") as file:
        for stretch in chosen:
            count = 0
            read = footage.read(stretch.episode, stretch.first, stretch.frames)
            for picture in contiguous(read, footage.depth):
                file.write(picture.data)
                digest.update(picture.data)
                count += 1
            if count != stretch.frames:
                raise SourceError(
                    f"{footage.key}: episode {stretch.episode} ended after {stretch.first + count} frames"
                )
    shape = (footage.height, footage.width) if footage.depth else (footage.height, footage.width, 3)
    total = sum(one.frames for one in chosen)
    pictures = np.memmap(path, "<u2" if footage.depth else np.uint8, "r", shape=(total, *shape))
    return Sample(footage, tuple(chosen), pictures, digest.hexdigest())


def places(lengths: dict[int, int], length: int, wanted: int) -> list[tuple[int, int, int]]:
    """Return episode, first frame and number of frames of disjoint windows spread over the episodes.

    Args:
        lengths: episode index -> length.
        length: frames per window.
        wanted: approximate number of windows.
    """
    numbers = [number for number, frames in lengths.items() if frames > 0]
    if len(numbers) >= wanted:
        picked = [numbers[round(i * (len(numbers) - 1) / max(1, wanted - 1))] for i in range(wanted)]
        each = 1
    else:
        picked, each = numbers, -(-wanted // max(1, len(numbers)))
    found = []
    for turn, number in enumerate(picked):
        frames = lengths[number]
        size = min(length, frames)
        count = max(1, min(each, frames // size))
        room = frames - count * size
        for i in range(count):
            # A single window is early, in the middle or late in turn; several are spread over the episode.
            share = ((turn % 3) + 0.5) / 3 if count == 1 else i / (count - 1)
            found.append((number, i * size + int(room * share), size))
    return found


def _looked_at(footage: Footage, length: int, stretches: int) -> list[Stretch]:
    found = []
    for number, first, frames in places(footage.episodes, length, max(LOOKED_AT, stretches)):
        at = first + frames // 3
        count = max(1, min(_APART + 1, first + frames - at))
        pictures = [_thinned(one) for one in footage.read(number, at, count)]
        if not pictures:
            continue
        if footage.depth:
            there = pictures[0] > 0
            brightness = float(pictures[0][there].mean()) if there.any() else 0.0
        else:
            brightness = float(pictures[0].mean())
        motion = float(np.abs(pictures[-1] - pictures[0]).mean())
        found.append(Stretch(number, first, frames, round(brightness, 3), round(motion, 3)))
    return found


def _thinned(picture: Picture) -> npt.NDArray[np.float64]:
    some = picture[::_GRID, ::_GRID].astype(np.float64)
    return some if some.ndim == 2 else some @ np.array([0.299, 0.587, 0.114])


def choose(looked_at: Sequence[Stretch], count: int) -> list[Stretch]:
    """Choose the stretch with the most motion, then repeatedly the one least similar to those chosen.

    Similarity is computed from brightness and motion, each relative to its range, and from the episode.

    Args:
        looked_at: stretches to choose from.
        count: greatest number.
    """
    if not looked_at:
        return []
    features = np.array([(one.brightness, one.motion) for one in looked_at])
    spread = np.ptp(features, axis=0)
    features = (features - features.min(axis=0)) / np.where(spread > 0, spread, 1)
    picked = [int(features[:, 1].argmax())]
    while len(picked) < min(count, len(looked_at)):
        distances = np.linalg.norm(features[:, None] - features[None, picked], axis=2).min(axis=1)
        used = {looked_at[i].episode for i in picked}
        distances += [0.0 if one.episode in used else _OTHER_EPISODE for one in looked_at]
        distances[picked] = -1
        picked.append(int(distances.argmax()))
    return sorted((looked_at[i] for i in picked), key=lambda one: (one.episode, one.first))
