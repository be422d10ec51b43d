"""Repair a damaged LeRobot dataset: write a new, sound one with all intact data, without invented data."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from ffenc.arguments import listed
from ffenc.codecs.suggest import accepted
from ffenc.config.texts import check_text
from ffenc.dataset.job.finished import check_free, finished_info, job_hash
from ffenc.dataset.job.run import run_staged, staged
from ffenc.dataset.job.summary import JobSummary
from ffenc.dataset.merge import plan_merge
from ffenc.dataset.reencode import refuse_nesting
from ffenc.dataset.remote import source_path
from ffenc.dataset.repair.repaired import EpisodeRepair, OnDamage, RepairedDataset
from ffenc.dataset.repair.salvage import Salvage
from ffenc.dataset.repair.salvage_files import Action
from ffenc.dataset.verify.faults import Verification
from ffenc.dataset.verify.run import verify_dataset
from ffenc.errors import (
    ConfigError,
    DestinationError,
    FfencWarning,
    SourceError,
    VerificationError,
)
from ffenc.ffmpeg.toolchain import toolchains
from ffenc.frames.publish import claimed, hidden_path
from ffenc.paths import check_tree
from ffenc.storage.upload import address_of, destination_path, publishing

_ON_DAMAGE = ("drop-episode", "trim", "repeat")


class Repair(Struct):
    """The result of a repair or of its dry run.

    Attributes:
        source, destination: the folders.
        actions: everything that is done except dropping and cutting episodes.
        episodes: the result for each episode of which something is left.
        summary: what the job did; None for a dry run. If an earlier run had completed it, ``actions`` and
            ``episodes`` are empty.
        result: verification of the result; None for a dry run, or if nothing had to be done.
        resumed: number of files that were not decoded or written again, because an earlier run (also of
            ``verify_dataset``) had done so.
    """

    source: Path
    destination: Path
    actions: list[Action]
    episodes: list[EpisodeRepair] = field(default_factory=list)
    summary: JobSummary | None = None
    result: Verification | None = None
    resumed: int = 0


def repair_dataset(
    source: str | Path,
    destination: str | Path,
    *,
    on_damage: OnDamage = "drop-episode",
    without_cameras: Sequence[str] = (),
    task: str | None = None,
    dry_run: bool = False,
    resume: bool = False,
    force_space: bool = False,
    overwrite: bool = False,
    follow_links: bool = False,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Repair:
    """Write a sound dataset with the intact data of a damaged one (v3.0). The source is only read.

    The rows determine how long an episode is, and the videos' frames where it is. All data that only
    describes them (totals, positions, indices, templates, statistics) is written again. Every frame is
    decoded, except in files whose SHA-256 is recorded as decoded in the user's cache. Packets are copied;
    only an episode that does not begin at a key frame, and a file whose times cannot be put on the grid of
    the frame rate by copying, is encoded. A result that does not pass ``ffenc verify --deep`` is not
    published.

    Args:
        source: the dataset.
        destination: the folder to write; must not exist, or be empty.
        on_damage: action for an episode with missing or damaged rows or frames. ``drop-episode``: it is
            dropped. ``trim``: its rows and all its cameras end before the damage. ``repeat``: missing or
            damaged video frames are replaced by the frame before them, which the episode's notes record; an
            episode with other damage is dropped.
        without_cameras: cameras to drop, such as one whose files are lost.
        task: text of the task of all rows, such as one that cannot be recovered; None: those of the dataset.
        dry_run: determine what would be done; only temporary files are written, beside the destination.
        resume: continue an interrupted run: files that it has written are reused. If an earlier run is
            complete, nothing is done.
        force_space: start even if the result seems to be larger than the free disk space.
        overwrite: if the destination is an address, replace the dataset there.
        follow_links: follow symbolic links that lead out of the dataset; otherwise they are refused.
        ffmpeg, ffprobe: programs to use instead of those that are found.
        on_progress: called with a description of the step, and the number of frames done and of all.

    Returns:
        What was done, or would be done.

    Raises:
        ConfigError: an unknown camera or ``on_damage``.
        SourceError: damage that cannot be repaired without inventing data; the text names it.
        DestinationError: the destination exists or cannot be written.
        FfmpegError, VerificationError: copying failed, or the result is not sound.
    """
    target = destination_path(destination, overwrite=overwrite)
    if on_damage not in _ON_DAMAGE:
        raise ConfigError(f"on_damage={on_damage!r} is not accepted{accepted(on_damage, _ON_DAMAGE)}")
    check_text("task", task)
    check_free(target, resume=resume)
    without_cameras = listed("without_cameras", without_cameras)
    root = source_path(source, "everything")
    refuse_nesting(root, target)
    check_tree(root, follow_links=follow_links, files=True)  # what may not be read is not damaged
    programs = toolchains(ffmpeg, ffprobe)
    verify = partial(verify_dataset, deep=True, known_images=True, ffmpeg=ffmpeg, ffprobe=ffprobe)
    place = address_of(target) or target
    done = Repair(root, target, [])
    job = job_hash([root], ["repair", on_damage, without_cameras, task])

    def put_together(folder: Path, pieces: Path) -> RepairedDataset:
        left = Salvage(
            root,
            without=without_cameras,
            task=task,
            ffprobe=programs[0].ffprobe,
            scratch=folder,
            repeat=on_damage == "repeat",
        )
        shadow = RepairedDataset(left, folder, pieces, on_damage, programs)
        done.resumed = _find_damage(shadow, partial(verify, on_frames=partial(on_progress, "decoding")))
        done.actions, done.episodes = left.actions, shadow.fates()
        return shadow

    def check(result: Path) -> None:
        found = verify(result, on_frames=partial(on_progress, "verifying"))
        if found.faults:
            raise VerificationError(f"the result for {root} is not sound: {found.faults[0]}")
        done.result = replace(found, path=target)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FfencWarning)  # warnings about the source are among the actions
        if dry_run:
            with _folder_beside(target) as folder:
                put_together(folder, folder / "pieces")
            return done
        with publishing(target):
            if resume and (info := finished_info(target, job, [root])) is not None:
                episodes, frames = info["total_episodes"], info["total_frames"]
                done.summary = JobSummary(place, episodes, frames, 0, complete_before=True)
                return done
            with staged(target, resume=resume) as staging:
                try:
                    shadow = put_together(staging.cuts, staging.pieces)
                    plan = plan_merge(
                        [shadow.root],
                        target,
                        reencode=True,
                        follow_links=True,
                        resume=True,
                        ffmpeg=ffmpeg,
                        ffprobe=ffprobe,
                    )
                    done.summary = run_staged(
                        replace(plan, job=job),
                        staging,
                        force_space=force_space,
                        on_progress=partial(on_progress, "copying"),
                        check=check,
                    )
                except (SourceError, ConfigError, VerificationError):
                    staging.clear()  # a resumed run would give the same result
                    raise
    done.summary.destination = place
    done.resumed += len(shadow.videos.taken) + done.summary.resumed
    return done


def _find_damage(shadow: RepairedDataset, verify: Callable[..., Verification]) -> int:
    """Write the dataset of what is left, without the damage that decoding it shows.

    Returns:
        Number of files that were not decoded, because an earlier run has recorded them.
    """
    recorded: int | None = None
    while True:  # a damaged frame may hide another one after it
        shadow.write()
        found = verify(shadow.root, follow_links=True)
        if recorded is None:  # later values would include the files decoded by this run
            recorded = found.recorded
        if not shadow.learn(found.faults):
            return recorded


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """Yield a hidden folder beside the destination for the files of a dry run; it is deleted at the end.

    A folder of a killed run is deleted too.
    """
    made = [parent for parent in target.absolute().parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with claimed(target):
            folder = hidden_path(target, "partial")
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise DestinationError(
            f"{target} cannot be written: {error.strerror or error}; nothing was kept"
        ) from error
    finally:
        for parent in made:
            with contextlib.suppress(OSError):  # the folder is not empty
                parent.rmdir()
