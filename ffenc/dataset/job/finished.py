"""The job that a dataset is the result of, so that a finished job is not run again.

``meta/ffenc.json`` contains a hash of the request: the sources' files, the selected episodes and cameras, and
the settings. Programs, their versions and times are not included: the same job gives the same bytes wherever
it runs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffenc.config.mapping import SourceMapping, build_mapping
from ffenc.dataset.checksums import broken_lines, read_checksums
from ffenc.dataset.staging import check_destination, settle, write_json
from ffenc.errors import DestinationError, SourceError
from ffenc.frames.info_json import read_info, read_json
from ffenc.layout import CHECKSUMS, INFO, OWN_INFO
from ffenc.storage.mirror import version_of

if TYPE_CHECKING:
    from ffenc.dataset.job.plan import JobPlan

_JOB = "job"
MAPPING = "mapping"
_KEPT = (MAPPING,)  # how a source was read


def check_free(destination: Path, *, resume: bool) -> None:
    """Refuse an existing destination; with ``resume``, it may be the result of a job.

    Raises:
        DestinationError: it exists, or its name cannot be used.
    """
    settle(destination)
    if not (resume and _recorded(destination)):
        check_destination(destination)


def record_job(root: Path, plan: JobPlan) -> None:
    """Record in a dataset's ``meta/ffenc.json`` the job that it is the result of."""
    path = root / OWN_INFO
    known = read_json(path) if path.exists() else {}
    write_json(
        path, {**known, **{name: plan.edits[name] for name in _KEPT if name in plan.edits}, _JOB: _job(plan)}
    )


def source_mapping(root: Path) -> SourceMapping | None:
    """Return the mapping that a dataset's source was read with; None if unknown.

    Raises:
        SourceError, ConfigError: it cannot be read.
    """
    path = root / OWN_INFO
    found = read_json(path).get(MAPPING) if path.is_file() else None
    return None if found is None else build_mapping(found)


def finished_cameras(plan: JobPlan) -> dict[str, dict[str, Any]] | None:
    """Check whether a plan's destination already is its result.

    Returns:
        Codec, encoder and size by video camera; None if the destination is not the result of a job.

    Raises:
        DestinationError: it is the result of another job, a source has changed since, or it is incomplete.
    """
    root = plan.destination
    info = finished_info(root, _job(plan), plan.source.roots)
    if info is None:
        return None
    if info.get("total_frames") != plan.rows:
        raise _another_job(root)
    sizes: dict[str, int] = {}
    for place in read_checksums(root):
        key = place.split("/")[1]
        sizes[key] = sizes.get(key, 0) + (root / place).stat().st_size
    features = info["features"]
    blocks = {stream.key: features.get(stream.key, {}).get("info") or {} for stream in plan.streams}
    return {
        stream.key: {
            **{name: blocks[stream.key].get(f"video.{name}") for name in ("codec", "pix_fmt", "encoder")},
            "copied_episodes": len(stream.copied),
            "source_bytes": stream.source_bytes,
            "video_bytes": sizes.get(stream.key, 0),
        }
        for stream in plan.streams
    }


def finished_info(root: Path, job: str, sources: Sequence[Path]) -> dict[str, Any] | None:
    """Check whether a folder already is the result of a job.

    Args:
        root: the destination.
        job: hash of the request.
        sources: folders or files that the job reads.

    Returns:
        Its ``info.json``; None if it is not the result of a job.

    Raises:
        DestinationError: it is the result of another job, a source has changed since, or it is incomplete.
    """
    recorded = _recorded(root)
    if recorded is None:
        return None
    if recorded != job:
        raise _another_job(root)
    written = (root / INFO).stat().st_mtime_ns
    for source in sources:
        for path in _files(source):
            found = path.stat()
            remote = version_of(path) is not None  # a local copy may be younger than the remote file
            if (found.st_mtime_ns if remote else max(found.st_mtime_ns, found.st_ctime_ns)) > written:
                raise DestinationError(
                    f"{root} was made before {path} was changed. Choose another name, or delete it"
                )
    places = list(read_checksums(root))
    damaged = [number for number, place in enumerate(places, 1) if not place.startswith("videos/")]
    for number in broken_lines(root) or damaged:
        raise DestinationError(
            f"{root / CHECKSUMS}: line {number} does not name a video; delete {root}, and run the job again"
        )
    for place in places:
        if not (root / place).exists():
            raise DestinationError(f"{root / place} is missing; delete {root}, and run the job again")
    return read_info(root)


def job_hash(sources: Sequence[Path], parts: Sequence[Any]) -> str:
    """Return the hash of a job: names and sizes of its sources' files, and plain values."""
    files = [[str(path.relative_to(root)), path.stat().st_size] for root in sources for path in _files(root)]
    return hashlib.sha256(json.dumps([files, *parts]).encode()).hexdigest()


def _another_job(root: Path) -> DestinationError:
    return DestinationError(
        f"{root} is the result of another job: other sources, episodes, cameras or settings. Choose "
        "another name, or delete it"
    )


def _recorded(root: Path) -> str | None:
    """Return the hash of the job that a dataset is the result of; None if unknown."""
    try:
        job = read_json(root / OWN_INFO).get(_JOB)
    except SourceError:
        return None
    return job if isinstance(job, str) and (root / INFO).is_file() else None


def _job(plan: JobPlan) -> str:
    """Return the hash of a plan's request."""
    if plan.job is not None:
        return plan.job
    tasks = plan.source.tasks()
    parts: list[Any] = [
        str(plan.source.fps),
        None if isinstance(tasks, Path) else list(tasks),  # a tree of images has no tasks
        [episode.index for episode in plan.episodes],
        [
            [
                *(stream.key, stream.compute_stats, stream.camera.unit, sorted(stream.copied)),
                stream.encoding and stream.encoding.config.as_plain(),
                *([stream.transform.fields()] if stream.transform is not None else []),
            ]
            for stream in plan.streams
        ],
        list(plan.images),
        *([{key: one.fields() for key, one in plan.changed_images.items()}] if plan.changed_images else []),
        *([plan.edits] if plan.edits else []),
        *([] if plan.exact else ["aggregated quantiles"]),
    ]
    return job_hash(plan.source.roots, parts)


def _files(root: Path) -> Iterator[Path]:
    """Yield a source's files in a fixed order, without hidden ones; or the source, if it is a file."""
    if root.is_file():
        yield root
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(folder, name) for name in sorted(names) if not name.startswith("."))
        yield from (path for path in paths if path.exists())
