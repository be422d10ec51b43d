"""Faults of a dataset, and the result of a verification."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import force_setattr

from ffenc.layout import CHECKSUMS
from ffenc.problem import Problem
from ffenc.spelling import argument, call

Severity = Literal["fault", "note"]


class Kind(Struct, frozen=True):
    """A kind of finding; docs/verify.md describes each.

    Attributes:
        fix: what to do about it, unless the check gives a better fix; calls and arguments of ffenc are in
            braces, see :data:`_NAMED`.
        severity: a ``fault`` makes a dataset unsound; a ``note`` does not.
        copied: a re-encode or merge of the dataset would copy the fault.
    """

    fix: str
    severity: Severity = "fault"
    copied: bool = False

    @property
    def advice(self) -> str:
        """What to do, in the spelling of the user."""
        return self.fix.format_map(_Named())


_MERGE = {"sources": ["DATASET"], "destination": "NEW"}
_REENCODE = {"source": "DATASET", "destination": "NEW"}
_NAMED: Mapping[str, Callable[[], str]] = {
    "leave_out": lambda: call("reencode_dataset", **_REENCODE, episodes="..."),
    "max_depth_error": lambda: argument("max_depth_error", "MM"),
    "merge": lambda: call("merge_datasets", **_MERGE),
    "merge_reencode": lambda: call("merge_datasets", **_MERGE, reencode=True),
    "recover": lambda: call("recover", root="DATASET"),
    "reencode": lambda: call("reencode_dataset", **_REENCODE),
    "restate": lambda: call("restate", root="DATASET", write=True),
    "resume": lambda: argument("resume", True),
    "retime": lambda: call("merge_datasets", **_MERGE, retime=True),
}


class _Named(dict[str, str]):
    """Calls and arguments of ffenc in the user's spelling, evaluated when a text is formatted."""

    def __missing__(self, name: str) -> str:
        return _NAMED[name]()


# A fix must be possible, and must never lose intact data.
_RESTORE = "restore the file from a copy, or make the dataset again from its source"
_LISTS = "restore it from a copy; data and videos are not affected, so keep them as they are"
KINDS = {
    "not-own-file": Kind("replace it with a copy of the file, or move it out of the dataset"),
    "info": Kind("correct meta/info.json", copied=True),
    "path-template": Kind("correct the template in meta/info.json; the files stay where they are"),
    "shape": Kind("{merge} writes it as [1]"),
    "names": Kind("{merge} writes them by the shape", severity="note"),
    "totals": Kind("restore the missing file of the list; if none is missing, correct meta/info.json"),
    "episodes": Kind(_LISTS, copied=True),
    "episode-columns": Kind("{merge} writes them"),
    "tasks": Kind(_LISTS, copied=True),
    "tasks-table": Kind("{merge} writes it as LeRobot reads it"),
    "data-file": Kind(_RESTORE),
    "columns": Kind(
        "restore the file; or, if it is correct, describe its columns in meta/info.json", copied=True
    ),
    "schema-metadata": Kind("{merge} writes it"),
    "rows": Kind("restore the data file: rows are missing, duplicated or out of place", copied=True),
    "timestamps": Kind(
        "restore the data file, or put frame i at i / fps with {retime}: "
        "LeRobot finds a row's frame by its timestamp"
    ),
    "timestamps-rounded": Kind(
        "open it in LeRobot with a larger tolerance_s, or record shorter episodes", "note", copied=True
    ),
    "values": Kind("restore the data file, or leave the episode out with {leave_out}", copied=True),
    "index": Kind("restore the data file, or number its rows with {merge}"),
    "task-index": Kind("restore the data file, the episode list or the tasks table", copied=True),
    "statistics-missing": Kind("{merge} computes them"),
    "statistics-differ": Kind("restore the data file; or, if its rows are correct, {merge} computes them"),
    "statistics-stale": Kind("{merge} computes them; training does not use them", severity="note"),
    "quantiles": Kind("{restate} computes them from all rows", severity="note"),
    "swapped": Kind("restore the two episodes from a copy", copied=True),
    "image": Kind("restore the data file, or leave the episode out with {leave_out}", copied=True),
    "video-missing": Kind(_RESTORE),
    "video-unreadable": Kind(_RESTORE),
    "video-cut": Kind(_RESTORE),
    "video-fields": Kind("restore the video; or, if it is the right one, {merge} writes its fields"),
    "video-block": Kind("{merge} writes it", severity="note"),
    "depth": Kind("re-encode the depth camera from its images", copied=True),
    "depth-defaults": Kind(
        "if depth was quantised otherwise, write video.depth_min and the other fields there", severity="note"
    ),
    "depth-codec": Kind("re-encode it with hevc to open the dataset in LeRobot", severity="note"),
    "frame-count": Kind(_RESTORE),
    "frame-times": Kind(f"{_RESTORE}: LeRobot's reader refuses a frame that is more than 0.1 ms away"),
    "frame-rate": Kind(f"{_RESTORE}: LeRobot turns a time into a frame's number by this rate"),
    "episode-place": Kind("restore the episode list from a copy, with the camera's timestamps"),
    "key-frame": Kind("{reencode} encodes such episodes, so that each starts on a key frame"),
    "open-groups": Kind("{merge_reencode} encodes such episodes, with their own settings"),
    "hidden-frames": Kind(
        "if they are needed, encode the original stream again",
        severity="note",
    ),
    "time-scale": Kind("{merge} copies the packets into files that have it", severity="note"),
    "orphan": Kind("move it out of the dataset, unless an episode list that names it was lost"),
    "damaged-frame": Kind(_RESTORE),
    "checksum": Kind(f"{_RESTORE}; if it was changed on purpose, delete its line in {CHECKSUMS}"),
    "other-content": Kind("restore the video or the statistics, whichever does not belong to this episode"),
    "differs": Kind("restore the video: it does not show the frames of its source"),
    "depth-error": Kind(
        "re-encode it from its source with less loss; or, to accept the error, pass {max_depth_error}"
    ),
    "not-compared": Kind("pass the source that has it", severity="note"),
    "unfinished": Kind("continue with {resume}, or delete that folder", severity="note"),
    "recording": Kind("{recover} recovers interrupted episodes", severity="note"),
}


class Fault(Problem, frozen=True):
    """A finding; its ``kind`` is one of :data:`KINDS`, and ``where`` follows from the other attributes.

    Attributes:
        severity: ``fault``, or ``note`` for a finding that leaves a dataset sound.
        file: path in the dataset.
        camera: its feature.
        episode: its index.
        frame: index in the episode if ``episode`` is given, otherwise in the file.
        frames: number of frames from ``frame`` on.
        other: for two swapped episodes, index of the other one.
    """

    severity: Severity = "fault"
    file: str | None = None
    camera: str | None = None
    episode: int | None = None
    frame: int | None = None
    frames: int = 1
    other: int | None = None

    def __post_init__(self) -> None:
        where = [
            self.file,
            self.camera if self.camera and self.camera not in (self.file or "") else None,
            None if self.episode is None else f"episode {self.episode}",
            None if self.frame is None else f"frame {self.frame}",
        ]
        force_setattr(self, "where", ", ".join(part for part in where if part is not None))

    def __str__(self) -> str:
        return self.described


class Faults:
    """Collects faults and notes. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: list[Fault] = []

    def add(
        self,
        kind: str,
        found: str | Problem,
        expected: str = "",
        *,
        file: str | None = None,
        camera: str | None = None,
        episode: int | None = None,
        frame: int | None = None,
        frames: int = 1,
        other: int | None = None,
        fix: str | None = None,
    ) -> None:
        """Add a finding; ``fix`` replaces that of its kind."""
        problem = found if isinstance(found, Problem) else Problem(found, expected)
        known = KINDS[kind]
        about = (file, camera, episode, frame, frames, other)
        fault = Fault(problem.found, problem.expected, "", fix or known.advice, kind, known.severity, *about)
        with self._lock:
            self._found.append(fault)

    def take(self, found: Sequence[Fault]) -> None:
        """Add findings that were collected elsewhere."""
        with self._lock:
            self._found += found

    def has(self, *kinds: str) -> bool:
        """Return whether a finding of one of these kinds was added."""
        return any(fault.kind in kinds for fault in self._found)

    def of(self, severity: Severity) -> list[Fault]:
        """Return the findings of a severity in the order of the checks, grouped by file and episode."""
        order = {kind: number for number, kind in enumerate(KINDS)}
        return sorted(
            (fault for fault in self._found if fault.severity == severity),
            key=lambda f: (
                order[f.kind],
                f.camera or "",
                f.file or "",
                -1 if f.episode is None else f.episode,
                -1 if f.frame is None else f.frame,
            ),
        )


class CameraCheck(Struct):
    """The verification of a camera.

    Attributes:
        camera: its feature; None for a single file.
        kind: ``video`` or ``image``.
        codec, pix_fmt: of its first readable video; None for images.
        files, episodes: expected numbers.
        frames: number of frames in its readable files.
        max_deviation: greatest distance of a frame from its time on the grid, in seconds; None for images.
        faults: number of faults.
        compared: with ``against``: PSNR and SSIM, or for depth the differing samples.
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


class CameraComparison(Struct, frozen=True):
    """The comparison of a camera with its source, over all episodes.

    Attributes:
        frames: number of compared frames.
        psnr_mean, psnr_min: in dB, over frames; infinite if nothing differs. ``psnr_worst``: episode and
            frame with the lowest.
        ssim_mean, ssim_min, ssim_worst: the same for SSIM; 1 if nothing differs.
        differing: number of depth samples that differ; None for colours.
        max_difference, mean_difference: greatest and mean difference of depth in millimetres, over all
            samples; None for colours. ``farthest``: episode and frame with the greatest.
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
    mean_difference: float | None = None
    farthest: tuple[int, int] | None = None


class Verification(Struct, frozen=True):
    """The result of a verification.

    Attributes:
        path: the dataset or file.
        layout: its ``codebase_version``; None for a file.
        episodes, frames: numbers in the episode list; frames of one camera.
        cameras: one entry per camera.
        faults: all faults, which make it unsound.
        notes: findings that leave it sound.
        deep: every frame was decoded.
        recorded: number of video files that an earlier run had decoded.
        against: the source that it was compared with; None: no comparison.
    """

    path: Path
    layout: str | None
    episodes: int
    frames: int
    cameras: list[CameraCheck]
    faults: list[Fault]
    notes: list[Fault] = field(default_factory=list)
    deep: bool = False
    recorded: int = 0
    against: Path | None = None

    @property
    def sound(self) -> bool:
        """Whether there are no faults."""
        return not self.faults


def grouped(faults: Sequence[Fault]) -> list[tuple[Fault, int]]:
    """Return the first fault of each kind and camera, with the number of such faults, itself included."""
    counts = Counter((fault.kind, fault.camera) for fault in faults)
    first: dict[tuple[str, str | None], Fault] = {}
    for fault in faults:
        first.setdefault((fault.kind, fault.camera), fault)
    return [(fault, counts[key]) for key, fault in first.items()]
