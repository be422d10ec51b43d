"""Repair a damaged LeRobot dataset: a new, sound one of all that is left, without data that were made up."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from ffenc.codecs.suggest import accepted
from ffenc.dataset.finished import check_free, finished_info, job_hash
from ffenc.dataset.job import run_staged, staged
from ffenc.dataset.merge import plan_merge
from ffenc.dataset.reencode import refuse_nesting
from ffenc.dataset.remote import source_path
from ffenc.dataset.repaired import EpisodeRepair, OnDamage, RepairedDataset
from ffenc.dataset.salvage import Salvage
from ffenc.dataset.salvage_files import Action
from ffenc.dataset.summary import JobSummary
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
    """What a repair does, or would do.

    Attributes:
        source, destination: the folders.
        actions: all that is done beside leaving out and cutting episodes.
        episodes: what becomes of each that something is left of.
        summary: what the job did; None for a dry run. Where an earlier run had completed it, ``actions`` and
            ``episodes`` are empty.
        result: how the result verifies; None for a dry run, and where nothing had to be done.
        resumed: how many files an earlier run had decoded (one of ``verify_dataset`` too) or made, which was
            not done again.
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
    """Make a sound dataset of what is left of a damaged one (v3.0). The source is only read.

    Rows say how long an episode is, the videos' frames where it lies; what only describes them (totals,
    places, numbers, templates, statistics) is written again. Every frame is decoded, but for those of files
    that the user's cache has on record as decoded, by their SHA-256. Packets are copied; only
    an episode that does not begin at a key frame, and a file whose times cannot be put on the grid of the
    frame rate by a copy, is encoded. A result that does not pass ``ffenc verify --deep`` is not published.

    Args:
        source: the dataset.
        destination: the folder to write; must not exist, or be empty.
        on_damage: what becomes of an episode with rows or frames that are missing or damaged: it is left out;
            or ``trim``: its rows and all its cameras end before the damage; or ``repeat``: frames of video
            that are missing or damaged show the frame before them, which the episode's notes say, and an
            episode with other damage is left out.
        without_cameras: cameras that are left out, such as one whose files are lost.
        task: text of all tasks, where neither the tasks table nor the episode list tells them.
        dry_run: find out what would be done; nothing is written but temporary files beside the destination.
        resume: take up what an interrupted run has left: files that it has made are not made again; where an
            earlier run has done all of it, nothing is done.
        force_space: start even where the result seems to be larger than what is free on the disk.
        overwrite: of a destination that is an address: replace the dataset that is there.
        follow_links: follow symbolic links that lead out of the dataset; else they are refused by name.
        ffmpeg, ffprobe: programs to use instead of those found.
        on_progress: called with what is being done, and how many frames are done and in all.

    Raises:
        ConfigError: no such camera, or an ``on_damage`` that is not known.
        SourceError: there is damage that cannot be repaired without making data up; the text names it.
        DestinationError: the destination is taken or cannot be written.
        FfmpegError, VerificationError: copying failed, or the result is not sound.
    """
    target = destination_path(destination, overwrite=overwrite)
    if on_damage not in _ON_DAMAGE:
        raise ConfigError(f"on_damage={on_damage!r} is not accepted{accepted(on_damage, _ON_DAMAGE)}")
    check_free(target, resume=resume)
    root = source_path(source, "everything")
    refuse_nesting(root, target)
    check_tree(root, follow_links=follow_links)
    programs = toolchains(ffmpeg, ffprobe)
    place = address_of(target) or target
    done = Repair(root, target, [])
    job = job_hash([root], ["repair", on_damage, list(without_cameras), task])

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
        recorded: int | None = None
        while True:  # a frame that is damaged may hide another behind it
            shadow.write()
            found = verify_dataset(
                shadow.root,
                deep=True,
                follow_links=True,
                ffmpeg=ffmpeg,
                ffprobe=ffprobe,
                on_frames=lambda done, of: on_progress("decoding", done, of),
                known_images=True,
            )
            if recorded is None:  # later, the files decoded by this run are among them
                recorded = found.recorded
            if not shadow.learn(found.faults):
                break
        done.resumed = recorded
        done.actions, done.episodes = left.actions, shadow.fates()
        return shadow

    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", FfencWarning)  # what they say of the source is among the actions
        if dry_run:
            with _folder_beside(target) as folder:
                put_together(folder, folder / "pieces")
            return done
        stack.enter_context(publishing(target))
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

                def check(result: Path) -> None:
                    done.result = verify_dataset(
                        result,
                        deep=True,
                        ffmpeg=ffmpeg,
                        ffprobe=ffprobe,
                        on_frames=lambda done, of: on_progress("verifying", done, of),
                        known_images=True,
                    )
                    if faults := done.result.faults:
                        raise VerificationError(f"the result for {root} is not sound: {faults[0]}")

                done.summary = run_staged(
                    replace(plan, job=job),
                    staging,
                    force_space=force_space,
                    on_progress=lambda frames, of: on_progress("copying", frames, of),
                    check=check,
                )
            except (SourceError, ConfigError, VerificationError):
                staging.clear()  # the same would come of it again
                raise
    assert done.result is not None
    assert done.summary is not None
    done.summary.destination = place
    done.result = replace(done.result, path=target)
    done.resumed += len(shadow.videos.taken) + done.summary.resumed
    return done


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """A hidden folder beside the destination, for what a dry run puts together; it is deleted at the end.

    One that a killed run has left is deleted too.
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
            with contextlib.suppress(OSError):  # it holds something
                parent.rmdir()
