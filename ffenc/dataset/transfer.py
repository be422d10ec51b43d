"""Upload and download of datasets to and from the Hugging Face Hub, with verification."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from msgspec import Struct

from ffenc.arguments import checked_path
from ffenc.dataset.identify import check_dataset
from ffenc.dataset.staging import check_destination
from ffenc.dataset.verify.run import verify_dataset
from ffenc.errors import ConfigError, SourceError, VerificationError
from ffenc.frames.publish import claimed, sync_folder
from ffenc.layout import CODEBASE_VERSION
from ffenc.spelling import argument, call
from ffenc.storage.hub import Push, hub_address, pull_folder, push_folder

__all__ = ["Pull", "Push", "pull_dataset", "push_dataset"]


def push_dataset(
    source: str | Path,
    repository: str,
    *,
    revision: str | None = None,
    private: bool | None = None,
    overwrite: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    ffprobe: str | None = None,
) -> Push:
    """Upload a dataset to the Hugging Face Hub in the form that LeRobot expects.

    The dataset is verified first, without decoding. Its files are compared with the Hub's checksums; then
    ``meta/info.json`` and the dataset card are uploaded in one commit, which gets the tag ``v3.0``.

    Args:
        source: folder of a LeRobot v3.0 dataset.
        repository: ``USER/NAME``; it is created if it does not exist.
        revision: the branch; None: the main branch.
        private: whether a new repository is private; None: the account's default.
        overwrite: replace the dataset in the repository.
        resume: continue an interrupted upload.
        dry_run: only run the checks.
        ffprobe: program to use instead of the one that is found.

    Returns:
        What was uploaded, or would be uploaded.

    Raises:
        SourceError, VerificationError: there is no such dataset, or it is not sound.
        DestinationError: the repository contains a dataset, or cannot be written.
        ConfigError: not a name of a repository, or huggingface_hub is not installed.
    """
    address = hub_address(repository)
    if revision is not None and address.revision is not None:
        raise ConfigError(
            f"{repository} names a revision, and so does {argument('revision', revision)}: pass one of them"
        )
    if (branch := revision or address.revision) is not None:
        if re.fullmatch("[0-9a-f]{40}", branch):
            raise ConfigError(f"{argument('revision', branch)} is a commit", expected="a branch to upload to")
        address = address.at(branch)
    root = checked_path("source", source)
    check_dataset(root)
    found = verify_dataset(root, ffprobe=ffprobe)
    if not found.sound:
        more = f" (and {len(found.faults) - 1} more)" if len(found.faults) > 1 else ""
        raise VerificationError(f"{root} has faults and is not uploaded: {found.faults[0]}{more}")
    if found.layout != CODEBASE_VERSION:
        raise SourceError(
            f"{root} is of layout {found.layout}; {CODEBASE_VERSION} is required: "
            f"{call('merge_datasets', sources=[root], destination='NEW')} converts it without re-encoding"
        )
    return push_folder(root, address, private=private, overwrite=overwrite, resume=resume, dry_run=dry_run)


class Pull(Struct, frozen=True):
    """The result of a download.

    Attributes:
        destination: the folder.
        files: number of files.
        bytes: their total size.
        faults: the faults that ``ffenc verify`` finds.
    """

    destination: Path
    files: int
    bytes: int
    faults: list[str]


def pull_dataset(repository: str, destination: str | Path, *, ffprobe: str | None = None) -> Pull:
    """Download a dataset from the Hugging Face Hub to a folder.

    Every file is compared with the Hub's checksum; the folder appears when all files are complete. An
    interrupted download is continued by the next call.

    Args:
        repository: ``USER/NAME`` or ``USER/NAME@REVISION``.
        destination: the folder to write; must not exist, or be empty.
        ffprobe: program to use instead of the one that is found.

    Raises:
        SourceError: there is no such dataset, or it cannot be read.
        DestinationError: the destination exists or cannot be written.
        ConfigError: not a name of a repository, or huggingface_hub is not installed.
    """
    address, target = hub_address(repository), checked_path("destination", destination)
    check_destination(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f".{target.name}.ffenc-pull")
    with claimed(target):
        files = pull_folder(address, folder)
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        found = verify_dataset(folder, ffprobe=ffprobe)
        check_destination(target)
        folder.replace(target)
        sync_folder(target.parent)
    return Pull(target, len(files), sum(files.values()), [str(fault) for fault in found.faults])
