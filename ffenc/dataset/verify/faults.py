"""What is wrong with a dataset: faults as they are found, and the result of a verification."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ffenc.dataset.checksums import CHECKSUMS

# Kind of fault -> how it is mended. docs/verify.md says more of each.
_RESTORE = "restore the file from a copy, or make the dataset anew from its source"
MENDS = {
    "info": "correct meta/info.json",
    "totals": "correct meta/info.json, or restore the file that is missing",
    "episodes": "restore meta/episodes from a copy",
    "tasks": "restore the tasks table from a copy",
    "data-file": _RESTORE,
    "columns": "restore the file, or bring meta/info.json and the file's columns into step",
    "rows": "restore the data file: rows are missing, doubled or out of place",
    "timestamps": "restore the data file: LeRobot finds a row's frame by its timestamp",
    "index": "restore the data file, or number its rows anew",
    "task-index": "restore the data file or the tasks table",
    "statistics-missing": "make the dataset anew with `ffenc reencode` or `ffenc merge`, which compute them",
    "statistics-differ": "restore the data file or the statistics, whichever was changed",
    "swapped": "put each one's content back to its place",
    "image": "restore the data file, or re-record the episode",
    "video-missing": _RESTORE,
    "video-unreadable": _RESTORE,
    "video-cut": _RESTORE,
    "video-fields": "correct the feature's info block in meta/info.json, or restore the video it was of",
    "depth": "re-encode the depth camera from its images",
    "frame-count": _RESTORE,
    "frame-times": "re-encode the camera: LeRobot's reader refuses a frame that is more than 0.1 ms away",
    "frame-rate": "re-encode the camera: LeRobot turns a time into a frame's number by this rate",
    "episode-place": "correct the camera's timestamps in the episode list",
    "key-frame": "re-encode the camera, so that each episode starts on a key frame",
    "orphan": "move the file away, or restore the episode list that named it",
    "damaged-frame": _RESTORE,
    "checksum": f"{_RESTORE}; if it was changed on purpose, delete its line in {CHECKSUMS}",
    "other-content": "restore the video, or the statistics, whichever is not this episode's",
    "differs": "restore the video: it does not show what its source does",
}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        kind: one of :data:`MENDS`.
        what: what was found, and what was expected.
        mend: what to do about it.
        file: path in the dataset.
        camera: feature.
        episode: number.
        frame: in the episode where ``episode`` is given, else in the file.
    """

    kind: str
    what: str
    mend: str
    file: str | None = None
    camera: str | None = None
    episode: int | None = None
    frame: int | None = None

    def __str__(self) -> str:
        where = [
            self.file,
            self.camera if self.camera and self.camera not in (self.file or "") else None,
            None if self.episode is None else f"episode {self.episode}",
            None if self.frame is None else f"frame {self.frame}",
        ]
        return ": ".join(part for part in (", ".join(w for w in where if w is not None), self.what) if part)


class Faults:
    """Collects faults, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: list[Fault] = []

    def add(
        self,
        kind: str,
        what: str,
        *,
        file: str | None = None,
        camera: str | None = None,
        episode: int | None = None,
        frame: int | None = None,
        mend: str | None = None,
    ) -> None:
        """Add one; ``mend`` where its kind's way does not fit."""
        fault = Fault(kind, what, mend or MENDS[kind], file, camera, episode, frame)
        with self._lock:
            self._found.append(fault)

    def all(self) -> list[Fault]:
        """Return them in the order of the checks, each file's and episode's together."""
        order = {kind: number for number, kind in enumerate(MENDS)}
        return sorted(
            self._found,
            key=lambda f: (
                order[f.kind],
                f.camera or "",
                f.file or "",
                -1 if f.episode is None else f.episode,
                -1 if f.frame is None else f.frame,
            ),
        )


@dataclass
class CameraCheck:
    """What was found of one camera.

    Attributes:
        camera: its feature; None for a file that is verified by itself.
        kind: ``video`` or ``image``.
        codec, pix_fmt: of its first readable video; None for images.
        files, episodes: how many there should be.
        frames: how many its readable files hold.
        max_deviation: how far in seconds a frame is from its place on the grid at most; None for images.
        faults: how many were found.
        compared: with ``against``: PSNR and SSIM, or for depth how many samples differ.
    """

    camera: str | None
    kind: str
    codec: str | None = None
    pix_fmt: str | None = None
    files: int = 0
    episodes: int = 0
    frames: int = 0
    max_deviation: float | None = None
    faults: int = 0
    compared: CameraComparison | None = None


@dataclass(frozen=True)
class CameraComparison:
    """A camera compared with its source, all episodes together.

    Attributes:
        frames: how many were compared.
        psnr_mean, psnr_min: dB, over frames; infinite where nothing differs. ``psnr_worst`` is the episode
            and its frame with the least.
        ssim_mean, ssim_min, ssim_worst: likewise, 1 where nothing differs.
        differing: depth samples that differ; None for colours.
        max_difference: the largest difference of depth in millimetres; None for colours.
    """

    frames: int
    psnr_mean: float
    psnr_min: float
    psnr_worst: tuple[int, int]
    ssim_mean: float
    ssim_min: float
    ssim_worst: tuple[int, int]
    differing: int | None = None
    max_difference: float | None = None


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    Attributes:
        path: the dataset or file.
        layout: its ``codebase_version``; None for a file.
        episodes, frames: as the episode list has them; frames of one camera.
        cameras: a row each.
        faults: all of them.
        notes: what was seen and is no fault.
        deep: every frame was decoded.
        against: what it was compared with, if anything.
    """

    path: Path
    layout: str | None
    episodes: int
    frames: int
    cameras: list[CameraCheck]
    faults: list[Fault]
    notes: list[str] = field(default_factory=list)
    deep: bool = False
    against: Path | None = None

    @property
    def sound(self) -> bool:
        """Whether no fault was found."""
        return not self.faults

    def grouped(self) -> list[tuple[Fault, int]]:
        """The first fault of each kind and camera, and how many there are like it, itself included."""
        counts = Counter((fault.kind, fault.camera) for fault in self.faults)
        first: dict[tuple[str, str | None], Fault] = {}
        for fault in self.faults:
            first.setdefault((fault.kind, fault.camera), fault)
        return [(fault, counts[key]) for key, fault in first.items()]
